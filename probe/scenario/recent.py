"""Flushes, second by second, and pods' lives -> what was planned, good and lost lately; whether all was clean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from probe.histogram import quantile_ns
from probe.model import BUCKET_NS, NS, Series
from probe.outcome import Outcome
from probe.recorder import BUCKETS, Columns, Duration, Flush

BASELINE = 30.0
"""Seconds that must have been clean before anything is changed."""
EVERY_LANE = ("*",)
_PATIENCE_NS = 2 * NS
"""What has no outcome so long after its timeout is not waited for: its worker is dead, or hangs."""
_EVER = 1 << 62
_PLANNED, _GOOD, _LOST, _UNSENT = range(4)

Channel = tuple[str, str]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows that were due in some stretch and count. planned = good + lost + unsent + undecided.

    unsent: not asked by this prober's own fault, so not lost, and not good either. undecided: their timeouts run.
    """

    planned: int = 0
    good: int = 0
    lost: int = 0
    unsent: int = 0

    @property
    def undecided(self) -> int:
        """Rows without an outcome yet."""
        return self.planned - self.good - self.lost - self.unsent

    @property
    def asked(self) -> int:
        """Rows whose fate says something about DNS."""
        return self.good + self.lost


class Recent:
    """What became of the rows of the last `seconds`, to 100 ms, as far back from the moment up to which all is known.

    Lanes are globs (`vip-*`). A pod counts only while it lives: say so with life(); whatever else is asked always does.
    latency_of: the lanes whose quantiles will be asked for.
    """

    def __init__(self, seconds: float, latency_of: Sequence[str] = ()) -> None:
        self._seconds, self._latency_of = seconds, latency_of
        self._series: list[Series] = []
        self._kept: dict[int, Ints] = {}
        self._latency: dict[int, dict[Channel, Ints]] = {}
        self._began: dict[Channel, int] = {}
        self._lives: dict[str, dict[int, int]] = {}
        self._now_ns = 0

    def add(self, flush: Flush, series: Sequence[Series], now_ns: int) -> None:
        """A flush, the series it is about by their indices, and when it was taken, in ns since t0."""
        self._now_ns = now_ns
        self._series += series[len(self._series) :]
        for columns in flush.columns:
            self._kept[columns.second] = cells = _cells(columns)
            for index in np.flatnonzero(cells[..., _PLANNED].any(axis=1)).tolist():
                self._began.setdefault(self._series[index].channel, columns.second * NS)
            self._latency[columns.second] = {
                channel: columns.durations[rows, Duration.LATENCY].sum(axis=0)
                for channel, members in self.channels(self._latency_of).items()
                if len(rows := members[members < len(cells)])
            }
        oldest = (now_ns - round(self._seconds * NS) - self._waits_ns) // NS - 1
        for second in [second for second in self._kept if second < oldest]:
            del self._kept[second], self._latency[second]

    def life(self, target: str, from_ns: int, to_ns: int = _EVER) -> None:
        """A pod counts in [from_ns, to_ns), ns since t0; said again with the same from_ns, a new end."""
        self._lives.setdefault(target, {})[from_ns] = to_ns

    def channels(self, lanes: Sequence[str] = EVERY_LANE) -> dict[Channel, Ints]:
        """Which of these lanes asked which target, and with which series: by their indices."""
        found: dict[Channel, list[int]] = {}
        for s in self._series:
            if any(fnmatchcase(s.lane, glob) for glob in lanes):
                found.setdefault(s.channel, []).append(s.index)
        return {channel: np.array(indices) for channel, indices in found.items()}

    def counts(self, lanes: Sequence[str] = EVERY_LANE, seconds: float = 0.0) -> Counts:
        """Of all rows that were due in the last `seconds` (0: as long as is looked back) before all was known."""
        return self._in(seconds, *self._rows(self._indices(lanes)))

    def whole(self, seconds: float, lanes: Sequence[str]) -> dict[Channel, Counts]:
        """counts() of each lane and target that was asked, and counted, all of that time and still does."""
        found = {}
        for channel, indices in self.channels(lanes).items():
            starts, rows = self._rows(indices)
            until_ns = self._until_ns(starts, rows)
            since_ns = until_ns - round(seconds * NS)
            lives = self._lives.get(channel[1], {0: _EVER})
            lasts = any(a <= since_ns and until_ns <= b for a, b in lives.items())
            if lasts and self._began.get(channel, _EVER) <= since_ns:
                found[channel] = self._in(seconds, starts, rows)
        return found

    def quantile_ns(self, channel: Channel, q: float, seconds: float) -> float:
        """Latency of one of `latency_of`, to whole seconds; rows that were lost count as infinite; nan without any."""
        starts, rows = self._rows(self.channels((channel[0],))[channel])
        until_ns = self._until_ns(starts, rows)
        mine = range((until_ns - round(seconds * NS)) // NS, until_ns // NS)
        told = [by[channel] for second, by in self._latency.items() if second in mine and channel in by]
        return quantile_ns(np.sum(told, axis=0), q, self._in(seconds, starts, rows).lost) if told else float("nan")

    def seen_for(self, lanes: Sequence[str] = EVERY_LANE) -> float:
        """For how many seconds the newest of these lanes has been asked, up to the moment before which all is known."""
        began: dict[str, int] = {}
        for lane, target in self.channels(lanes):
            began[lane] = min(began.get(lane, _EVER), self._began.get((lane, target), _EVER))
        return max(0.0, (self._until_ns(*self._rows(self._indices(lanes))) - max(began.values(), default=_EVER)) / NS)

    def unclean(self, seconds: float = BASELINE, lanes: Sequence[str] = EVERY_LANE) -> str:
        """Why the last `seconds` of these lanes are no clean baseline; '' if they are: asked all along, all good."""
        told = dict.fromkeys(lane for lane, _ in self.channels(lanes))
        if not told:
            return f"no lane matches {', '.join(lanes)}"
        for lane in told:
            starts, rows = self._rows(self._indices((lane,)))
            since_ns = self._until_ns(starts, rows) - round(seconds * NS)
            found = Counts(*rows[starts >= since_ns].sum(axis=0).tolist())
            if found.lost:
                return f"lane {lane} lost {found.lost:,} of {found.planned:,} in the last {seconds:g} s"
            if found.unsent:
                return f"lane {lane} was not asked {found.unsent:,} of {found.planned:,} in the last {seconds:g} s"
            if (seen := self.seen_for((lane,))) < seconds:
                return f"lane {lane} has been seen for {seen:.1f} s of {seconds:g}"
            if not found.good:
                return f"lane {lane} was asked nothing in the last {seconds:g} s"
        return ""

    @property
    def _waits_ns(self) -> int:
        return max((s.timeout_ns for s in self._series), default=0) + _PATIENCE_NS

    def _indices(self, lanes: Sequence[str]) -> Ints:
        """Of the series of these lanes."""
        return np.concatenate([*self.channels(lanes).values(), np.zeros(0, np.int64)]).astype(np.int64)

    def _rows(self, indices: Ints) -> tuple[Ints, Ints]:
        """Beginnings of tenths of a second, ascending, int64[k], what of these series counts in each, int64[k, 4]."""
        starts = np.concatenate([np.zeros(0, np.int64), *map(_starts, sorted(self._kept))])
        rows = np.zeros((len(starts), 4), np.int64)
        for k, second in enumerate(sorted(self._kept)):
            cells = self._kept[second]
            mine = indices[indices < len(cells)]
            counted = self._counted(mine.tolist(), _starts(second))
            rows[k * BUCKETS : (k + 1) * BUCKETS] = (cells[mine] * counted[..., None]).sum(axis=0)
        return starts, rows

    def _counted(self, indices: list[int], starts: Ints) -> NDArray[np.bool_]:
        """Which tenths of which series lie wholly in its target's life: bool[series, tenths]."""
        counted = np.ones((len(indices), len(starts)), bool)
        for row, index in enumerate(indices):
            if lives := self._lives.get(self._series[index].target.name):
                spans = ((starts >= a) & (starts + BUCKET_NS <= b) for a, b in lives.items())
                counted[row] = np.any(list(spans), axis=0)
        return counted

    def _until_ns(self, starts: Ints, rows: Ints) -> int:
        """The beginning of the first tenth of a second of which something is not known yet."""
        known = (rows[:, _PLANNED] == rows[:, _GOOD:].sum(axis=1)) | (starts < self._now_ns - self._waits_ns)
        first = starts[~known]
        now_ns = self._now_ns // BUCKET_NS * BUCKET_NS
        return min(now_ns, int(first[0])) if len(first) else now_ns

    def _in(self, seconds: float, starts: Ints, rows: Ints) -> Counts:
        until_ns = self._until_ns(starts, rows)
        since_ns = until_ns - round((seconds or self._seconds) * NS)
        return Counts(*rows[(starts >= since_ns) & (starts < until_ns)].sum(axis=0).tolist())


def _starts(second: int) -> Ints:
    return second * NS + np.arange(BUCKETS) * BUCKET_NS


def _cells(columns: Columns) -> Ints:
    """Planned, good, lost and unsent rows, int64[series, tenths, 4]; what its dead worker left undecided is unsent."""
    good = columns.counts[..., 1].sum(axis=2)
    unsent = columns.counts[..., Outcome.UNSENT, 0].copy()
    lost = columns.counts[..., 0].sum(axis=2) - unsent
    if columns.sealed:
        unsent += columns.planned - good - lost - unsent
    return np.stack([columns.planned, good, lost, unsent], axis=-1)
