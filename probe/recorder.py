"""Finished rows -> time-bucketed columns in shared memory; recorders of several workers add.

One writer, the worker, and one reader, the parent; no locks. The memory is a ring of seconds; each has a version that
is odd while the writer changes it, so that the reader takes a second whole or tries again.
"""

from __future__ import annotations

import math
import mmap
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from probe.histogram import BINS, bins_of
from probe.model import BUCKET_NS, NS, Failure, Phase
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
    servers: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """Rows by the NSID of the server that answered them, cumulative: int64[S] each."""


SLACK_SECONDS = 10
"""How long the reader may be away before the writer has to wait for it."""
PATIENCE_SECONDS = 5.0
"""How long the writer waits then; after that the oldest second is overwritten and counted as overrun."""
MOST_SERVERS = 64
"""So many different NSIDs are told apart, by at most so many octets."""
NSID_OCTETS = 64
FAILURE_ROOM = 8192
FAILURES_A_SECOND = 10
"""Exact failure rows kept of each series and second; the rest are counts."""
_ONE = np.int32(1)
"""Of the counts' own type: adding any other is twenty times slower."""
_NO_ROW = np.iinfo(np.int64).max
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

    @classmethod
    def create(cls, series: int, longest_timeout_ns: int) -> tuple[Room, int]:
        """A new room for at most `series` series, and the memfd to hand to the worker."""
        places = places_for(longest_timeout_ns)
        fd = os.memfd_create("dnsprobe-recorder", os.MFD_CLOEXEC)
        os.ftruncate(fd, sum(_sizes(series, places).values()))
        room = cls(fd, series, places)
        room.second[:] = -1
        room.first_bad[:] = _NO_ROW
        room.last_bad[:] = -1
        return room, fd


class Rows(NamedTuple):
    """n finished rows as the recorder wants them: times in ns since t0; latency (good rows only), rtt and connect -1
    where there is none.

    All int64[n] but good, bool[n]; cause is an UnsentCause, phase a Phase, source what port_of() takes.
    """

    series: Ints
    question: Ints
    due: Ints
    sent: Ints
    outcome: Ints
    good: NDArray[np.bool_]
    cause: Ints
    latency: Ints
    rtt: Ints
    connect: Ints
    errno: Ints
    phase: Ints
    source: Ints
    query_id: Ints


class Recorder:
    """The writer's side of a room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._kept = np.zeros((room.places, room.series), np.int32)
        self._given_up = -1
        self.series = 0
        """How many series there are by now; set by the engine when it adds some."""

    def record(self, planned_series: Ints, planned_due: Ints, rows: Rows, port_of: Callable[[int], int]) -> None:
        """Add rows that came due and rows that finished, as one change: planned never lags behind the outcomes."""
        room = self._room
        p_second, f_second = planned_due // NS, rows.due // NS
        ends = [end for column in (p_second, f_second) if len(column) for end in (column.min(), column.max())]
        if not ends:
            return
        first, last = min(ends), max(ends)
        near = last - first <= 2  # sorting out which seconds there are costs more than a second too many
        seconds = np.arange(first, last + 1) if near else np.union1d(p_second, f_second)
        for at in seconds.tolist():
            if room.second[at % room.places] != at:
                self._open(at)
        places = seconds % room.places
        room.version[places] += 1
        base = self._base(p_second, planned_series, planned_due)
        np.add.at(room.planned.reshape(-1), base, _ONE)
        base = self._base(f_second, rows.series, rows.due)
        np.add.at(room.counts.reshape(-1), (base * len(Outcome) + rows.outcome) * 2 + rows.good, _ONE)
        bad = ~rows.good & (rows.outcome != Outcome.UNSENT)
        if bad.any():
            np.minimum.at(room.first_bad.reshape(-1), base[bad], rows.due[bad])
            np.maximum.at(room.last_bad.reshape(-1), base[bad], rows.due[bad])
            self._keep(rows, bad, port_of)
        by_series = (f_second % room.places) * room.series + rows.series
        for kind, values in (
            (Duration.LATENCY, rows.latency),
            (Duration.RTT, rows.rtt),
            (Duration.CONNECT, rows.connect),
        ):
            have = values >= 0
            if not have.any():
                continue
            of_series = by_series
            if not have.all():
                of_series, values = by_series[have], values[have]  # noqa: PLW2901
            at = of_series * len(Duration) + kind
            np.add.at(room.durations.reshape(-1), at * BINS + bins_of(values), _ONE)
            np.maximum.at(room.maxima.reshape(-1), at, values)
        missed = rows.outcome == Outcome.UNSENT
        if missed.any():
            np.add.at(room.unsent.reshape(-1), rows.series[missed] * len(UnsentCause) + rows.cause[missed], np.int64(1))
        room.version[places] += 1

    def _base(self, second: Ints, series: Ints, due: Ints) -> Ints:
        room = self._room
        return ((second % room.places) * room.series + series) * BUCKETS + due // BUCKET_NS % BUCKETS

    def _open(self, second: int) -> None:
        """Give a second its place in the ring, waiting for the reader to take what stands there."""
        room = self._room
        place = second % room.places
        patience = time.monotonic() + PATIENCE_SECONDS
        while room.second[place] >= 0 and room.second[place] >= (taken := int(room.scalars[Scalar.TAKEN])):
            if taken == self._given_up or time.monotonic() > patience:
                self._given_up = taken  # no more patience until the reader moves
                room.scalars[Scalar.OVERRUN] += 1
                break
            time.sleep(0.001)
        n = self.series
        room.version[place] += 1
        for column in (room.planned, room.counts, room.durations, room.maxima):
            column[place, :n] = 0
        room.first_bad[place, :n] = _NO_ROW
        room.last_bad[place, :n] = -1
        room.second[place] = second
        room.version[place] += 1
        self._kept[place] = 0

    def _keep(self, rows: Rows, bad: NDArray[np.bool_], port_of: Callable[[int], int]) -> None:
        """Keep the first few rows of each series and second exactly as they were."""
        room = self._room
        place = rows.due // NS % room.places
        at = np.flatnonzero(bad & (self._kept[place, rows.series] < FAILURES_A_SECOND))
        for i in at.tolist():
            series = rows.series[i]
            if self._kept[place[i], series] >= FAILURES_A_SECOND:
                continue
            self._kept[place[i], series] += 1
            row = room.failures[int(room.scalars[Scalar.FAILURES]) % FAILURE_ROOM]
            row["series"], row["question"], row["due"], row["sent"] = (
                series,
                rows.question[i],
                rows.due[i],
                rows.sent[i],
            )
            row["outcome"], row["errno"], row["phase"] = rows.outcome[i], rows.errno[i], rows.phase[i]
            row["port"], row["query_id"] = port_of(int(rows.source[i])), rows.query_id[i]
            room.scalars[Scalar.FAILURES] += 1

    def lag(self, nanoseconds: Ints) -> None:
        """Note how long after their due instants rows were sent."""
        if len(nanoseconds):
            np.add.at(self._room.lag, bins_of(nanoseconds), np.int64(1))
            self._room.scalars[Scalar.LAG_MAX] = max(int(self._room.scalars[Scalar.LAG_MAX]), int(nanoseconds.max()))

    def count(self, series: int, counters: Ints) -> None:
        """Add to a series' counters: int64[len(Counter)]."""
        self._room.counters[series] += counters

    def answered_by(self, series: Ints, servers: Ints, names: Sequence[str]) -> None:
        """Count rows by the server that answered them; names: of all servers so far, as the numbers count them."""
        room = self._room
        for i in range(1, len(names)):
            room.server_names[i] = names[i].encode("utf-8", "replace")[:NSID_OCTETS]
        np.add.at(room.servers.reshape(-1), series * (MOST_SERVERS + 1) + servers, np.int64(1))

    def reached(self, instant_ns: int, *, done: bool = False) -> None:
        """Every row due before instant_ns (since t0) is recorded."""
        self._room.scalars[Scalar.REACHED] = instant_ns
        self._room.scalars[Scalar.DONE] = int(done)


class _Side:
    """One worker's room as the reader sees it: what was taken of it, and what is kept until the others are as far."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.failures = 0
        self.due: DueIn | None = None
        """Set when the worker has died: what it should have asked."""
        self._next = 0
        self._kept: dict[int, Columns] = {}

    def is_over(self, second: int) -> bool:
        """No more rows will be due in it."""
        scalars = self.room.scalars
        return bool(scalars[Scalar.DONE]) or int(scalars[Scalar.REACHED]) >= (second + 1) * NS

    def take(self, second: int, series: int, over: bool) -> Columns | None:
        """Its part of a second, sealed if that is final; None if the writer was in the middle of it too often."""
        if (kept := self._kept.get(second)) is not None:
            return _widened(kept, series)
        column = _copy(self.room, second, series, torn=self.due is not None)
        if column is None:
            return None
        if self.due is None:
            in_flight = int(column.planned.sum() - column.counts.sum())
            return replace(column, sealed=self.is_over(second) and in_flight == 0)
        planned = np.maximum(column.planned, column.counts.sum(axis=(2, 3)))
        if over:
            planned = np.maximum(planned, self.due(second, series))
        return replace(column, planned=planned, sealed=over)

    def keep(self, part: Columns, final: bool) -> None:
        """A part that was taken; final: of all workers, so that nobody asks for it again."""
        if part.sealed and part.second == self._next:
            self._next += 1
            self._kept[part.second] = part
        if final:
            self._kept.pop(part.second, None)
        self.room.scalars[Scalar.TAKEN] = self._next


class Reader:
    """The parent's side: the rooms of all workers, added up."""

    def __init__(self, rooms: Sequence[Room], question_of: Callable[[int], str]) -> None:
        self._sides = [_Side(room) for room in rooms]
        self._rooms, self._question_of = rooms, question_of
        self._next = 0
        self._seen: dict[int, list[int]] = {}

    @property
    def done(self) -> bool:
        """Every worker that lives has an outcome for every row of its schedule."""
        return all(side.room.scalars[Scalar.DONE] for side in self._sides if side.due is None)

    @property
    def overrun(self) -> int:
        """Seconds that writers overwrote before they were taken here: their counts are lost."""
        return int(sum(room.scalars[Scalar.OVERRUN] for room in self._rooms))

    def bury(self, worker: int, due: DueIn) -> None:
        """A worker has died: nobody waits for it, and what it leaves undecided, or should have asked, is in flight."""
        self._sides[worker].due = due

    def flush(self, series: int, until_second: int) -> Flush:
        """Everything new of the first `series` series, up to and including until_second."""
        columns: list[Columns] = []
        sealing = True
        living = [side for side in self._sides if side.due is None]
        for second in range(self._next, until_second + 1):
            over = bool(living) and all(side.is_over(second) for side in living)
            versions = [int(room.version[second % room.places]) for room in self._rooms]
            parts = [part for side in self._sides if (part := side.take(second, series, over)) is not None]
            if len(parts) < len(self._sides):
                sealing = False
                continue
            total = reduce(_added, parts)
            seen = _SEALED if total.sealed else versions
            if self._seen.get(second) != seen:
                columns.append(total)
                self._seen[second] = seen
            sealing = sealing and total.sealed
            if sealing:
                self._next = second + 1
                self._seen.pop(second)
            for side, part in zip(self._sides, parts, strict=True):
                side.keep(part, final=sealing)
        return Flush(
            columns=columns,
            unsent=sum((r.unsent[:series] for r in self._rooms), np.zeros((series, len(UnsentCause)), np.int64)),
            counters=sum((r.counters[:series] for r in self._rooms), np.zeros((series, len(Counter)), np.int64)),
            lag=sum((r.lag for r in self._rooms), np.zeros(BINS, np.int64)),
            lag_max_ns=max(int(r.scalars[Scalar.LAG_MAX]) for r in self._rooms),
            failures=self._new_failures(),
            servers=self._servers(series),
        )

    def _servers(self, series: int) -> dict[str, NDArray[np.int64]]:
        found: dict[str, NDArray[np.int64]] = {}
        for room in self._rooms:
            for i in np.flatnonzero(room.servers[:series].any(axis=0)).tolist():
                name = bytes(room.server_names[i]).decode("utf-8", "replace")
                found[name] = found.get(name, 0) + room.servers[:series, i]
        return found

    def _new_failures(self) -> list[Failure]:
        found = []
        for side in self._sides:
            written = int(side.room.scalars[Scalar.FAILURES])
            for k in range(max(side.failures, written - FAILURE_ROOM), written):
                row = side.room.failures[k % FAILURE_ROOM]
                found.append(
                    Failure(
                        series=int(row["series"]), question=self._question_of(int(row["question"])),
                        due_ns=int(row["due"]), sent_ns=int(row["sent"]), outcome=Outcome(int(row["outcome"])),
                        errno=int(row["errno"]), phase=Phase(int(row["phase"])).label, source_port=int(row["port"]),
                        query_id=int(row["query_id"]),
                    )
                )  # fmt: skip
            side.failures = written
        return found


DueIn = Callable[[int, int], Ints]
"""Second, number of series -> rows due in it by the schedule, int64[series, 10]."""
_SEALED: list[int] = []
"""Instead of a second's versions, once it came sealed."""
_TRIES = 200


def _copy(room: Room, second: int, series: int, torn: bool = False) -> Columns | None:
    """One second of one room, taken whole; zeros where nothing was due; None after too many tries.

    torn: as it is, for its writer has died.
    """
    place = second % room.places
    for _ in range(_TRIES):
        version = int(room.version[place])
        if version % 2 == 0 or torn:
            if room.second[place] != second:
                return _nothing(second, series)
            first = room.first_bad[place, :series].copy()
            column = Columns(
                second=second,
                sealed=False,
                planned=room.planned[place, :series].astype(np.int64),
                counts=room.counts[place, :series].astype(np.int64),
                first_bad=np.where(first == _NO_ROW, -1, first),
                last_bad=room.last_bad[place, :series].copy(),
                durations=room.durations[place, :series].astype(np.int64),
                maxima=room.maxima[place, :series].copy(),
            )
            if room.version[place] == version and room.second[place] == second:
                return column
        time.sleep(0.0002)
    return None


def _nothing(second: int, series: int) -> Columns:
    return Columns(
        second=second,
        sealed=False,
        planned=np.zeros((series, BUCKETS), np.int64),
        counts=np.zeros((series, BUCKETS, len(Outcome), 2), np.int64),
        first_bad=np.full((series, BUCKETS), -1, np.int64),
        last_bad=np.full((series, BUCKETS), -1, np.int64),
        durations=np.zeros((series, len(Duration), BINS), np.int64),
        maxima=np.zeros((series, len(Duration)), np.int64),
    )


def _widened(column: Columns, series: int) -> Columns:
    """With series that joined after it was taken."""
    if (more := series - len(column.planned)) <= 0:
        return column
    rest = _nothing(column.second, more)
    return replace(
        column,
        planned=np.concatenate([column.planned, rest.planned]),
        counts=np.concatenate([column.counts, rest.counts]),
        first_bad=np.concatenate([column.first_bad, rest.first_bad]),
        last_bad=np.concatenate([column.last_bad, rest.last_bad]),
        durations=np.concatenate([column.durations, rest.durations]),
        maxima=np.concatenate([column.maxima, rest.maxima]),
    )


def _added(a: Columns, b: Columns) -> Columns:
    """The same second of two workers."""
    first = np.where(
        a.first_bad < 0, b.first_bad, np.where(b.first_bad < 0, a.first_bad, np.minimum(a.first_bad, b.first_bad))
    )
    return Columns(
        second=a.second,
        sealed=a.sealed and b.sealed,
        planned=a.planned + b.planned,
        counts=a.counts + b.counts,
        first_bad=first,
        last_bad=np.maximum(a.last_bad, b.last_bad),
        durations=a.durations + b.durations,
        maxima=np.maximum(a.maxima, b.maxima),
    )
