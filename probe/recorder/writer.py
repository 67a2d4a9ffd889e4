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
"""How long the writer waits for the reader; after that the oldest second is overwritten and counted as overrun."""
FAILURES_A_SECOND = 10
"""Exact failure rows kept of each series and second; the rest are counts."""
_KINDS = len(Outcome) * 2
"""What a row in one bucket can be: each outcome, good or not."""
_ONE = np.int32(1)
"""Of the counts' own type: adding any other is twenty times slower."""


class Rows(NamedTuple):
    """n finished rows as the recorder wants them: times in ns since t0; latency (good rows only), rtt and connect -1
    where there is none.

    All int64[n] but good, bool[n]; sent is negative where the row was not; connect is None where no row has one; cause
    is an UnsentCause, phase a Phase, source what port_of() takes.
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
    connect: Ints | None
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
        spans = [(int(due.min()), int(due.max())) for due in (planned_due, rows.due) if len(due)]
        if not spans:
            return
        first, last = min(a for a, _ in spans) // NS, max(b for _, b in spans) // NS
        near = last - first <= 2  # sorting out which seconds there are costs more than a second too many
        seconds = list(range(first, last + 1)) if near else np.union1d(planned_due // NS, rows.due // NS).tolist()
        for at in seconds:
            if room.second[at % room.places] != at:
                self._open(at)
        places = [second % room.places for second in seconds]
        room.version[places] += 1
        if len(planned_due):
            np.add.at(room.planned.reshape(-1), self._places_of(planned_series, planned_due, BUCKET_NS), _ONE)
        if len(rows.due):
            self._count(rows, port_of)
        room.version[places] += 1

    def _count(self, rows: Rows, port_of: Callable[[int], int]) -> None:
        """Add finished rows to the columns of their seconds."""
        room = self._room
        cells = self._places_of(rows.series, rows.due, BUCKET_NS)
        np.add.at(room.counts.reshape(-1), cells * _KINDS + (rows.outcome * 2 + rows.good), _ONE)
        if not rows.good.all():
            missed = rows.outcome == Outcome.UNSENT
            bad = ~(rows.good | missed)
            np.minimum.at(room.first_bad.reshape(-1), cells[bad], rows.due[bad])
            np.maximum.at(room.last_bad.reshape(-1), cells[bad], rows.due[bad])
            self._keep(rows, bad, port_of)
            unsent = rows.series[missed] * len(UnsentCause) + rows.cause[missed]
            np.add.at(room.unsent.reshape(-1), unsent, np.int64(1))
        lines = self._places_of(rows.series, rows.due, NS) * len(Duration)
        for kind, durations in (
            (Duration.LATENCY, rows.latency),
            (Duration.RTT, rows.rtt),
            (Duration.CONNECT, rows.connect),
        ):
            if durations is None:
                continue
            at, have = lines + kind, durations >= 0
            if not have.all():
                at, durations = at[have], durations[have]  # noqa: PLW2901
            np.add.at(room.durations.reshape(-1), at * BINS + bins_of(durations), _ONE)
            np.maximum.at(room.maxima.reshape(-1), at, durations)

    def _places_of(self, series: Ints, due: Ints, width_ns: int) -> Ints:
        """Where rows stand in the columns that have a place for each second, series, and so many ns of a second."""
        each = NS // width_ns
        first, last = int(due.min()) // width_ns, int(due.max()) // width_ns
        if first == last:  # mostly: a division a row costs more than the rest
            place = first // each % self._room.places
            return series * each + (place * self._room.series * each + first % each)
        cell = due // width_ns
        return (cell // each % self._room.places * self._room.series + series) * each + cell % each

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
                max(int(rows.sent[i]), 0),
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

    def answered_by(self, series: Ints, due: Ints, servers: Ints, names: Sequence[str]) -> None:
        """Count rows by the server that answered them, and note when its first and last were due (ns since t0).

        names: of all servers so far, as the numbers count them.
        """
        room = self._room
        for i in range(1, len(names)):
            room.server_names[i] = names[i].encode("utf-8", "replace")[:NSID_OCTETS]
        cells = series * (MOST_SERVERS + 1) + servers
        np.minimum.at(room.first_answer.reshape(-1), cells, due)
        np.maximum.at(room.last_answer.reshape(-1), cells, due)
        np.add.at(room.servers.reshape(-1), cells, np.int64(1))

    def reached(self, instant_ns: int, *, done: bool = False) -> None:
        """Every row due before instant_ns (since t0) is recorded."""
        self._room.scalars[Scalar.REACHED] = instant_ns
        self._room.scalars[Scalar.DONE] = int(done)
