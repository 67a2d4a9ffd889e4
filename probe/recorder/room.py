"""The shared memory of one worker: seconds of time-bucketed columns in a ring, and what goes with them.

One writer, the worker, and one reader, the parent; no locks. Each second has a version that is odd while the writer
changes it, so that the reader takes it whole or tries again.
"""

from __future__ import annotations

import math
import mmap
import os
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from probe.histogram import BINS
from probe.model import NS, Failure
from probe.outcome import Counter, Outcome, UnsentCause

BUCKETS = 10
"""100 ms buckets in a second."""


class Duration(IntEnum):
    """The durations that are kept as histograms."""

    LATENCY = 0
    """From due to reply, of good rows: what a client on schedule would have waited."""
    RTT = 1
    """From send to reply: what network and server took."""
    CONNECT = 2
    """From SYN to open connection, TCP only."""


@dataclass(frozen=True, slots=True)
class Columns:
    """One second of due instants, every series of the run; S series, O outcomes, BINS histogram bins.

    A row counts in the bucket in which it was due, whenever it finished.
    planned: int64[S, 10]; counts: int64[S, 10, O, 2], the last axis 0 not good, 1 good;
    first_bad, last_bad: int64[S, 10], due instants (ns since t0) of the first and last row that was sent and not good,
    -1 if none;
    durations: int64[S, 3, BINS] by Duration; maxima: int64[S, 3] in ns, 0 if none.
    sealed: no row of this second can change any more. in flight = planned - counts.sum((2, 3)), never negative; once
    sealed it is zero, but for rows of a worker that died.
    """

    second: int
    sealed: bool
    planned: NDArray[np.int64]
    counts: NDArray[np.int64]
    first_bad: NDArray[np.int64]
    last_bad: NDArray[np.int64]
    durations: NDArray[np.int64]
    maxima: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Answered:
    """Rows that one server answered: how many of each series, and when (ns since t0) their first and last were due.

    int64[S] each. Where n is 0, first_ns is NO_ROW and last_ns -1.
    """

    n: NDArray[np.int64]
    first_ns: NDArray[np.int64]
    last_ns: NDArray[np.int64]

    @classmethod
    def none(cls, series: int) -> Answered:
        """No row of so many series."""
        return cls(np.zeros(series, np.int64), np.full(series, NO_ROW), np.full(series, -1))

    def add(self, more: Answered, home: NDArray[np.int64]) -> None:
        """Take in what else it answered; series s of that is home[s] here."""
        # First: a worker that counts meanwhile has noted the instants of what it counts.
        np.add.at(self.n, home, more.n)
        np.minimum.at(self.first_ns, home, more.first_ns)
        np.maximum.at(self.last_ns, home, more.last_ns)


@dataclass(frozen=True, slots=True)
class Flush:
    """What the parent hands to the run file each second.

    columns: every second that changed since the last flush, oldest first (unsealed ones come again).
    unsent: int64[S, len(UnsentCause)] and counters: int64[S, len(Counter)], cumulative;
    lag: int64[BINS], cumulative counts of send - due of every sent row; lag_max_ns. failures: new ones only.
    """

    columns: list[Columns]
    unsent: NDArray[np.int64]
    counters: NDArray[np.int64]
    lag: NDArray[np.int64]
    lag_max_ns: int
    failures: list[Failure]
    servers: dict[str, Answered] = field(default_factory=dict)
    """By the NSID of the server that answered, cumulative."""


SLACK_SECONDS = 10
"""How long the reader may be away before the writer has to wait for it."""
MOST_SERVERS = 64
"""So many different NSIDs are told apart, by at most so many octets."""
NSID_OCTETS = 64
FAILURE_ROOM = 8192
NO_ROW = np.iinfo(np.int64).max
_FAILURE = np.dtype(
    [
        ("series", "i4"), ("question", "i4"), ("due", "i8"), ("sent", "i8"), ("outcome", "i2"), ("errno", "i2"),
        ("phase", "i2"), ("port", "u2"), ("query_id", "u2"), ("spare", "u2", 3),
    ]
)  # fmt: skip

Ints = NDArray[np.int64]


class Scalar(IntEnum):
    """Single numbers in the shared memory."""

    REACHED = 0
    """Writer: every row due before this instant (ns since t0) has been recorded as planned."""
    DONE = 1
    """Writer: 1 once the schedule is over and nothing is in flight."""
    LAG_MAX = 2
    """Writer: the longest send - due so far, in ns."""
    FAILURES = 3
    """Writer: exact failure rows written so far; the last FAILURE_ROOM of them are there."""
    OVERRUN = 4
    """Writer: seconds that were overwritten before the reader took them."""
    TAKEN = 5
    """Reader: seconds before this one have been taken whole."""


def places_for(longest_timeout_ns: int) -> int:
    """How many seconds the ring holds."""
    return -(-longest_timeout_ns // NS) + SLACK_SECONDS


def _layout(series: int, places: int) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    by_bucket = (places, series, BUCKETS)
    shapes: dict[str, tuple[tuple[int, ...], DTypeLike]] = {
        "second": ((places,), np.int64),
        "version": ((places,), np.int64),
        "planned": (by_bucket, np.int32),
        "counts": ((*by_bucket, len(Outcome), 2), np.int32),
        "first_bad": (by_bucket, np.int64),
        "last_bad": (by_bucket, np.int64),
        "durations": ((places, series, len(Duration), BINS), np.int32),
        "maxima": ((places, series, len(Duration)), np.int64),
        "unsent": ((series, len(UnsentCause)), np.int64),
        "counters": ((series, len(Counter)), np.int64),
        "lag": ((BINS,), np.int64),
        "failures": ((FAILURE_ROOM,), _FAILURE),
        "servers": ((series, MOST_SERVERS + 1), np.int64),
        "first_answer": ((series, MOST_SERVERS + 1), np.int64),
        "last_answer": ((series, MOST_SERVERS + 1), np.int64),
        "server_names": ((MOST_SERVERS + 1,), f"S{NSID_OCTETS}"),
        "scalars": ((len(Scalar),), np.int64),
    }
    return {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in shapes.items()}


def _sizes(series: int, places: int) -> dict[str, int]:
    return {n: -(-math.prod(s) * d.itemsize // 64) * 64 for n, (s, d) in _layout(series, places).items()}


class Room:
    """The shared memory of one worker, seen as numpy columns; the first index of most is second % places."""

    def __init__(self, fd: int, series: int, places: int) -> None:
        self.series, self.places = series, places
        memory = mmap.mmap(fd, sum(_sizes(series, places).values()))
        at = 0
        views: dict[str, NDArray[Any]] = {}
        for (name, (shape, dtype)), size in zip(
            _layout(series, places).items(), _sizes(series, places).values(), strict=True
        ):
            views[name] = np.frombuffer(memory, dtype, math.prod(shape), at).reshape(shape)
            at += size
        self.second, self.version = views["second"], views["version"]
        self.planned, self.counts = views["planned"], views["counts"]
        self.first_bad, self.last_bad = views["first_bad"], views["last_bad"]
        self.durations, self.maxima = views["durations"], views["maxima"]
        self.unsent, self.counters = views["unsent"], views["counters"]
        self.lag, self.failures, self.scalars = views["lag"], views["failures"], views["scalars"]
        self.servers, self.server_names = views["servers"], views["server_names"]
        self.first_answer, self.last_answer = views["first_answer"], views["last_answer"]

    @classmethod
    def create(cls, series: int, longest_timeout_ns: int) -> tuple[Room, int]:
        """A new room for at most `series` series, and the memfd to hand to the worker."""
        places = places_for(longest_timeout_ns)
        fd = os.memfd_create("dnsprobe-recorder", os.MFD_CLOEXEC)
        os.ftruncate(fd, sum(_sizes(series, places).values()))
        room = cls(fd, series, places)
        room.second[:] = -1
        room.first_bad[:] = room.first_answer[:] = NO_ROW
        room.last_bad[:] = room.last_answer[:] = -1
        return room, fd
