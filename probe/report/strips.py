"""A Timeline -> what became of each lane and target when, in stretches thinned without losing one lost query."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probe.model import BUCKET_NS, NS
from probe.outcome import Outcome
from probe.timeline import Channel, Spans, Timeline, inside
from probe.timeline.spans import Ints

STRETCHES = 6_000
"""Of all strips; with more, neighbours within ever longer cells become one."""
CELLS = (1, 2, 5, 10, 20, 50, 100, 300, 600, 3000, 6000, 36_000)
"""Widths of cells, in buckets of 100 ms."""
UNDECIDED = "undecided"
_LEVELS = 4
"""Neighbours are one stretch where they lost the same quarter of what was asked."""
_UNSENT, _WAITING = int(Outcome.UNSENT), len(Outcome)
_KINDS = len(Outcome) + 1


@dataclass(frozen=True, slots=True)
class Stretch:
    """Where a channel had rows that were not good: [from_ns, to_ns), exact at the first and last lost one.

    what: the outcome that most of the lost rows had; `unsent` or `undecided` where none was lost. lost, unsent,
    undecided: rows; of: all that were due in its cells, good ones too. counts: False for a pod that was told to go.
    """

    from_ns: int
    to_ns: int
    what: str
    lost: int
    unsent: int
    undecided: int
    of: int
    counts: bool


@dataclass(frozen=True, slots=True)
class Strip:
    """A channel's row of the picture. asked: when it had queries; spoilt: where some were not good, ascending."""

    channel: Channel
    asked: Spans
    spoilt: tuple[Stretch, ...]

    @property
    def lost(self) -> int:
        """Rows of all of its stretches, also those that do not count."""
        return sum(stretch.lost for stretch in self.spoilt)


def strips_of(timeline: Timeline, most: int = STRETCHES) -> list[Strip]:
    """One for each channel, in their order; together at most `most` stretches, or the fewest there can be."""
    cells = [_Cells(channel, due) for channel, due in zip(timeline.channels, _due(timeline), strict=True)]
    for width in CELLS:
        found = [list(of.stretches(width)) for of in cells]
        if sum(map(len, found)) <= most:
            break
    asked = [_asked(timeline, channel) for channel in timeline.channels]
    return [
        Strip(channel, spans, tuple(spoilt))
        for channel, spans, spoilt in zip(timeline.channels, asked, found, strict=True)
    ]


def _asked(timeline: Timeline, channel: Channel) -> Spans:
    from_ns = min(s.start_ns for s in channel.series)
    to_ns = min(timeline.horizon_ns, max(s.stop_ns for s in channel.series))
    return ((from_ns, to_ns),) if from_ns < to_ns else ()


class _Due(NamedTuple):
    """How many rows of a channel were due before each of some buckets; between them they are spread evenly."""

    bucket: Ints
    before: NDArray[np.float64]

    def within(self, from_bucket: Ints, to_bucket: Ints) -> Ints:
        """Those of each stretch."""
        due = np.interp(to_bucket, self.bucket, self.before) - np.interp(from_bucket, self.bucket, self.before)
        return np.rint(due).astype(np.int64)


def _due(timeline: Timeline) -> Iterator[_Due]:
    """Of each channel in turn: all finished rows, of which a good second is one and any other ten of 100 ms."""
    rows = timeline.run.counts
    of_series = np.zeros(len(timeline.run.series), np.int64)
    for k, channel in enumerate(timeline.channels):
        of_series[[s.index for s in channel.series]] = k
    channel_of = of_series[rows.series]
    order = np.argsort(channel_of, kind="stable")
    for k in range(len(timeline.channels)):
        mine = order[slice(*np.searchsorted(channel_of, [k, k + 1], sorter=order))]
        first, last = rows.bucket[mine], rows.bucket[mine] + rows.width[mine]
        bucket = np.unique(np.concatenate([[0], first, last]))
        rate = np.zeros(len(bucket))
        np.add.at(rate, np.searchsorted(bucket, first), rows.n[mine] / rows.width[mine])
        np.add.at(rate, np.searchsorted(bucket, last), -rows.n[mine] / rows.width[mine])
        yield _Due(bucket, np.concatenate([[0], np.cumsum(np.cumsum(rate)[:-1] * np.diff(bucket))]))


class _Cells:
    """What a channel had in each 100 ms that were not all good, bucket by bucket; and what was due at any time."""

    def __init__(self, channel: Channel, due: _Due) -> None:
        self._channel, self._due = channel, due
        c = channel
        where = [at // BUCKET_NS for at in (c.first_ns, c.unsent_ns, c.waiting_ns)]
        self.bucket = np.unique(np.concatenate(where))
        n = len(self.bucket)
        self._rows = np.zeros((n, _KINDS), np.int64)
        self._first = self.bucket * BUCKET_NS
        self._last = self._first + BUCKET_NS
        self._counts = inside(self._first, c.counted) | inside(self._last - 1, c.counted)
        at = np.searchsorted(self.bucket, where[0])
        np.add.at(self._rows, at, np.pad(c.lost, ((0, 0), (0, 1))))
        np.add.at(self._rows[:, _UNSENT], np.searchsorted(self.bucket, where[1]), c.unsent)
        np.add.at(self._rows[:, _WAITING], np.searchsorted(self.bucket, where[2]), c.waiting)
        self._exact(at)

    def _exact(self, at: Ints) -> None:
        """Where rows were lost, the first and last due instant of these; lost rows decide whether it counts."""
        c, lost = self._channel, np.unique(at)
        first = np.full(len(self.bucket), np.iinfo(np.int64).max)
        last, counts = np.zeros(len(self.bucket), np.int64), np.zeros(len(self.bucket), bool)
        np.minimum.at(first, at, c.first_ns)
        np.maximum.at(last, at, c.last_ns)
        np.logical_or.at(counts, at, inside(c.first_ns, c.counted))
        self._first[lost], self._counts[lost] = first[lost], counts[lost]
        self._last[lost] = last[lost] + np.clip(c.interval_ns(last[lost]), 1, BUCKET_NS)
        wait = self._rows[:, _WAITING] > 0
        self._last[wait] = np.maximum(self._last[wait], self.bucket[wait] * BUCKET_NS + NS)

    def stretches(self, width: int) -> Iterator[Stretch]:
        """With cells of `width` buckets; neighbours that fared alike are one stretch."""
        if not len(self.bucket):
            return
        cell, start = np.unique(self.bucket // width, return_index=True)
        rows = np.add.reduceat(self._rows, start)
        of = np.maximum(self._due.within(cell * width, (cell + 1) * width), rows.sum(axis=1))
        counts = np.logical_or.reduceat(self._counts, start)
        first, last = np.minimum.reduceat(self._first, start), np.maximum.reduceat(self._last, start)
        lost = rows[:, :_UNSENT].sum(axis=1)
        kind = np.where(lost > 0, rows[:, :_UNSENT].argmax(axis=1), np.where(rows[:, _UNSENT] > 0, _UNSENT, _WAITING))
        bad = np.where(lost > 0, lost, rows[:, _UNSENT] + rows[:, _WAITING])
        level = -(-_LEVELS * bad // np.maximum(of, 1))
        alike = np.column_stack([kind, counts, level])
        new = np.flatnonzero(np.r_[True, (np.diff(cell) > 1) | (alike[1:] != alike[:-1]).any(axis=1)])
        columns = (lost, rows[:, _UNSENT], rows[:, _WAITING], of)
        totals = [np.add.reduceat(column, new).tolist() for column in columns]
        last_of = np.maximum.reduceat(last, new).tolist()
        for k, i in enumerate(new.tolist()):
            what = UNDECIDED if kind[i] == _WAITING else Outcome(int(kind[i])).label
            gone, unsent, undecided, due = (total[k] for total in totals)
            yield Stretch(int(first[i]), last_of[k], what, gone, unsent, undecided, due, bool(counts[i]))
