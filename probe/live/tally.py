"""Flushes, second by second -> what stands now for each lane and target: counts, state, quantiles, what is open."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from probe.histogram import BINS, quantile_ns
from probe.model import Series
from probe.outcome import Outcome
from probe.recorder import Columns, Duration, Flush

RECENT = 5
"""Seconds that state and percentiles look back: long enough for the timeouts of a silent server."""
GOOD, NOTHING, ENDED = "good", "-", "ended"
"""The states of a channel that are no outcome: all well, no row yet, told to go."""
FINE = (GOOD, NOTHING, ENDED)

Channel = tuple[str, str]
Ints = NDArray[np.int64]


@dataclass(slots=True)
class _Second:
    """One second of one channel: rows by [outcome, good], planned rows, latencies."""

    planned: int
    counts: Ints
    latency: Ints


@dataclass(slots=True)
class Tally:
    """Counts per channel that follow the flushes: what is sealed is added up, what is not comes again."""

    channels: list[Channel] = field(default_factory=list)
    _ended: dict[Channel, tuple[int, int]] = field(default_factory=dict)
    _of_series: list[int] = field(default_factory=list)
    _sealed: dict[Channel, Ints] = field(default_factory=dict)
    _open: dict[int, dict[Channel, _Second]] = field(default_factory=dict)
    _recent: deque[tuple[int, dict[Channel, _Second]]] = field(default_factory=lambda: deque(maxlen=RECENT))

    def add(self, series: Sequence[Series]) -> None:
        """Series that began, in the order of their indices."""
        for one in series:
            if one.channel not in self._sealed:
                self.channels.append(one.channel)
                self._sealed[one.channel] = np.zeros((len(Outcome), 2), np.int64)
            self._of_series.append(self.channels.index(one.channel))

    def take(self, flush: Flush) -> None:
        """A flush's seconds."""
        for columns in flush.columns:
            second = self._second(columns)
            self._open.pop(columns.second, None)
            if columns.sealed:
                for channel, part in second.items():
                    self._sealed[channel] += part.counts
            else:
                self._open[columns.second] = second
            kept = {number: earlier for number, earlier in self._recent if number != columns.second}
            kept[columns.second] = second
            self._recent = deque(sorted(kept.items())[-RECENT:], maxlen=RECENT)

    def _second(self, columns: Columns) -> dict[Channel, _Second]:
        of_series = np.array(self._of_series[: len(columns.planned)])
        made = {}
        for i, channel in enumerate(self.channels):
            mine = of_series == i
            rows = np.flatnonzero(mine)
            made[channel] = _Second(
                planned=int(columns.planned[rows].sum()),
                counts=columns.counts[rows].sum((0, 1)),
                latency=columns.durations[rows, Duration.LATENCY].sum(0),
            )
        return made

    def end(self, target: str) -> None:
        """What a target does from now on does not count."""
        self._ended |= {channel: self.good_and_lost(channel) for channel in self.channels if channel[1] == target}

    def good_and_lost(self, channel: Channel) -> tuple[int, int]:
        """Rows that were good, and rows sent that were not, while the channel counted."""
        if channel in self._ended:
            return self._ended[channel]
        unsealed = [parts[channel].counts for parts in self._open.values() if channel in parts]
        counts = np.sum([self._sealed[channel], *unsealed], axis=0)
        return int(counts[:, 1].sum()), int(counts[:, 0].sum() - counts[Outcome.UNSENT, 0])

    def state(self, channel: Channel) -> str:
        """What the rows of the last seconds say: `good`, or the commonest outcome of those that were not."""
        if channel in self._ended:
            return ENDED
        counts = self._lately(channel)
        if counts[:, 0].any():
            return Outcome(int(counts[:, 0].argmax())).label
        return GOOD if counts.any() else NOTHING

    def _lately(self, channel: Channel) -> Ints:
        parts = [parts[channel].counts for _, parts in self._recent if channel in parts]
        return np.asarray(np.sum(parts, axis=0)) if parts else np.zeros((len(Outcome), 2), np.int64)

    def asked(self, channel: Channel) -> int:
        """Rows due in the last whole second."""
        parts = self._recent[max(-2, -len(self._recent))][1] if self._recent else {}
        return parts[channel].planned if channel in parts else 0

    def quantiles(self, channel: Channel) -> tuple[float, float]:
        """p50 and p99 of the latency in ns in the last seconds: infinite if so many were lost, nan without a row."""
        if channel in self._ended:
            return math.nan, math.nan
        parts = [parts[channel].latency for _, parts in self._recent if channel in parts]
        counts = np.sum(parts, axis=0) if parts else np.zeros(BINS, np.int64)
        bad = self._lately(channel)[:, 0]
        lost = int(bad.sum() - bad[Outcome.UNSENT])
        return quantile_ns(counts, 0.5, lost), quantile_ns(counts, 0.99, lost)

    @property
    def waiting(self) -> int:
        """Rows that were sent and have no outcome yet."""
        parts = [part for parts in self._open.values() for part in parts.values()]
        return sum(part.planned - int(part.counts.sum()) for part in parts)
