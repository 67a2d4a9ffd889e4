"""Flushes, once a second -> stretches in which our own receive buffers dropped replies, by lane and target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from probe.model import Interval, Series
from probe.outcome import Counter
from probe.recorder import Flush


class OwnDrops:
    """What was dropped so far; the engine counts it for the first series of each lane and target."""

    def __init__(self) -> None:
        self._counted = np.zeros(0, np.int64)
        self._at_ns = 0
        self._going: dict[int, tuple[int, int]] = {}

    def look(self, flush: Flush, series: Sequence[Series], at_ns: int) -> Iterator[Interval]:
        """Where more was dropped since the last look, at_ns being now: a stretch that goes on comes again, longer."""
        counted = flush.counters[:, Counter.OWN_DROPS]
        more = counted.copy()
        more[: len(self._counted)] -= self._counted
        going = {}
        for index in np.flatnonzero(more > 0).tolist():
            from_ns, before = self._going.get(index, (self._at_ns, 0))
            going[index] = from_ns, before + int(more[index])
            one = series[index]
            text = f"{going[index][1]:,} replies of {one.lane} -> {one.target.name} dropped by our own receive buffer"
            yield Interval(from_ns, at_ns, "own_drops", text, "engine", f"{one.lane} -> {one.target.name}")
        self._counted, self._at_ns, self._going = counted.copy(), at_ns, going
