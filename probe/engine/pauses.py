"""Outcomes of closed loops with a pause -> when each of their slots asks next."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from probe.model import Series
from probe.outcome import Outcome
from probe.transport.rows import NEVER, Finished

LEAST_BEAT_NS = 2_000_000


class Pauses:
    """The slots of closed loops with a pause: each asks again a pause after the outcome of its last query.

    Instants are ns since t0.
    """

    def __init__(self) -> None:
        self._series: dict[int, Series] = {}
        self._asked: dict[int, int] = {}
        self._next: list[tuple[int, int]] = []
        self.waiting = 0
        """How many rows were taken, and are not done."""

    def add(self, series: Series) -> None:
        """From now on. Its slots begin one after the other, evenly, within a pause."""
        self._series[series.index], self._asked[series.index] = series, 0
        begin, pause, window = series.start_ns + series.offset_ns, series.shape.pause_ns, series.shape.window
        self._next += [(begin + slot * pause // window, series.index) for slot in series.slots]
        heapify(self._next)

    def end(self, series: Series) -> None:
        """The series stops earlier: at series.stop_ns."""
        if series.index in self._series:
            self._series[series.index] = series

    def clear(self) -> None:
        """Nobody asks any more."""
        self._series.clear()
        self._next.clear()

    @property
    def next_ns(self) -> int:
        """When the next slot asks; NEVER while all wait for their outcomes."""
        return self._next[0][0] if self._next else NEVER

    @property
    def beat_ns(self) -> int:
        """An outcome that is known so soon after it came is known before its slot asks again, or nearly so."""
        return max(LEAST_BEAT_NS, min((s.shape.pause_ns // 2 for s in self._series.values()), default=NEVER))

    def take(self, now_ns: int) -> list[tuple[int, int]]:
        """The rows to send now: series, and number among all of its rows. What a slot missed it asks at once."""
        found = []
        while self._next and self._next[0][0] <= now_ns:
            _, index = heappop(self._next)
            series = self._series.get(index)
            if series and now_ns < series.stop_ns:
                found.append((index, series.share.index + series.share.of * self._asked[index]))
                self._asked[index] += 1
        self.waiting += len(found)
        return found

    def done(self, finished: Finished, t0: int, now: int) -> None:
        """Rows have their outcomes: when the reply came, when time was up, or, of an error, now (CLOCK_MONOTONIC)."""
        self.waiting -= len(finished.series)
        columns = (finished.series, finished.outcome, finished.due, finished.received)
        for index, outcome, due, received in zip(*(column.tolist() for column in columns), strict=True):
            if series := self._series.get(index):
                at = received or (due + series.timeout_ns if outcome == Outcome.TIMEOUT else now)
                heappush(self._next, (at - t0 + series.shape.pause_ns, index))
