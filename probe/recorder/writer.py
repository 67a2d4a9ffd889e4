"""Finished rows -> columns in a room: the worker's side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probe.histogram import BINS, bins_of
from probe.model import BUCKET_NS, NS
from probe.outcome import Outcome, UnsentCause
from probe.recorder.room import (
    BUCKETS,
    FAILURE_ROOM,
    MOST_SERVERS,
    NO_ROW,
    NSID_OCTETS,
    Duration,
    Ints,
    Room,
    Scalar,
)

PATIENCE_SECONDS = 5.0
"""How long the writer waits then; after that the oldest second is overwritten and counted as overrun."""
FAILURES_A_SECOND = 10
"""Exact failure rows kept of each series and second; the rest are counts."""
_ONE = np.int32(1)
"""Of the counts' own type: adding any other is twenty times slower."""


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
        room.first_bad[place, :n] = NO_ROW
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
