"""Rooms of all workers -> flushes, once a second: the parent's side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from probe.histogram import BINS
from probe.model import NS, Failure, Phase
from probe.outcome import Counter, Outcome, UnsentCause
from probe.recorder.room import BUCKETS, FAILURE_ROOM, NO_ROW, Answered, Columns, Duration, Flush, Ints, Room, Scalar


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
        final = self.is_over(second)  # asked before: rows that come while it is copied must not be sealed away
        column = _copy(self.room, second, series, torn=self.due is not None)
        if column is None:
            return None
        if self.due is None:
            in_flight = int(column.planned.sum() - column.counts.sum())
            return replace(column, sealed=final and in_flight == 0)
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

    def _servers(self, series: int) -> dict[str, Answered]:
        found: dict[str, Answered] = {}
        for room in self._rooms:
            tables = room.servers, room.first_answer, room.last_answer
            for i in np.flatnonzero(room.servers[:series].any(axis=0)).tolist():
                name = bytes(room.server_names[i]).decode("utf-8", "replace")
                told = Answered(*(table[:series, i] for table in tables))
                found.setdefault(name, Answered.none(series)).add(told, np.arange(series))
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
                first_bad=np.where(first == NO_ROW, -1, first),
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
