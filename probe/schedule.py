"""Rates -> due instants in integer nanoseconds, a chunk at a time, whatever became of earlier queries."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from probe.model import NS, Series


class Pacer(Protocol):
    """When the queries of a series are due, in ns since t0."""

    def take(self, until_ns: int, limit: int) -> NDArray[np.int64]:
        """The next due instants before until_ns, at most `limit`, ascending: int64[n]."""

    def peek(self) -> int | None:
        """The next due instant, or None when the schedule is over."""

    def skip(self, n: int) -> None:
        """Take the next n instants without looking at them."""

    def count(self, from_ns: int, to_ns: int) -> int:
        """How many queries are due in [from_ns, to_ns), taken or not."""


class Constant:
    """Query i is due at start + offset + floor(i x 10^9 / rate): exact at any rate and length."""

    def __init__(self, rate: Fraction, offset_ns: int, start_ns: int, stop_ns: int) -> None:
        self._num = rate.numerator
        self._step = NS * rate.denominator
        self._first = start_ns + offset_ns
        self._stop = stop_ns
        self._next = 0

    def _due(self, i: int) -> int:
        return self._first + i * self._step // self._num

    def _index(self, ns: int) -> int:
        """The first i due at or after ns."""
        return max(0, -((self._first - ns) * self._num // self._step)) if ns > self._first else 0

    def take(self, until_ns: int, limit: int) -> NDArray[np.int64]:
        end = min(self._index(min(until_ns, self._stop)), self._next + limit)
        n = end - self._next
        if n <= 0:
            return np.empty(0, np.int64)
        base, rest = divmod(self._next * self._step, self._num)
        whole, part = divmod(self._step, self._num)
        nth = np.arange(n, dtype=np.int64)
        self._next = end
        return nth * whole + (nth * part + rest) // self._num + (self._first + base)

    def peek(self) -> int | None:
        due = self._due(self._next)
        return due if due < self._stop else None

    def skip(self, n: int) -> None:
        self._next += n

    def count(self, from_ns: int, to_ns: int) -> int:
        return max(0, self._index(min(to_ns, self._stop)) - self._index(from_ns))


class Batch(NamedTuple):
    """Rows that will be due, ascending: due (ns since t0), series, nth (of its series' rows); int64[n] each."""

    due: NDArray[np.int64]
    series: NDArray[np.int64]
    nth: NDArray[np.int64]


class Agenda:
    """The schedules of many series, merged: each row once, in order of due instants."""

    def __init__(self) -> None:
        self._pacers: dict[int, Pacer] = {}
        self._taken: dict[int, int] = {}
        self._rates: dict[int, float] = {}
        self._rate = 0.0
        self.reached = 0
        """Every row due before this instant (ns since t0) has been taken."""

    def add(self, series: Series) -> None:
        """From now on; its rows must be due at or after `reached`. Series that are over are forgotten."""
        self._pacers = {index: pacer for index, pacer in self._pacers.items() if pacer.peek() is not None}
        self._pacers[series.index] = pacer_of(series)
        self._taken[series.index] = 0
        self._rates[series.index] = float(series.rate)
        self._rate = sum(self._rates[index] for index in self._pacers)

    def end(self, series: Series) -> None:
        """The series stops earlier: at series.stop_ns, which must not be before `reached`."""
        if series.index in self._pacers:
            self._pacers[series.index] = pacer = pacer_of(series)
            pacer.skip(self._taken[series.index])

    def clear(self) -> None:
        """No more rows."""
        self._pacers.clear()
        self._rate = 0.0

    @property
    def rate(self) -> float:
        """Queries a second of all series together, those that ended since the last add() included."""
        return self._rate

    def peek(self) -> int | None:
        """When the next row is due, or None when all schedules are over."""
        return min((due for due in (p.peek() for p in self._pacers.values()) if due is not None), default=None)

    def take(self, until_ns: int, limit: int) -> Batch:
        """The rows due before until_ns, but at most about `limit` of them and of one second: the horizon is drawn in.

        A second, so that whoever catches up after a stall can finish each before the recorder's ring comes round.
        """
        until_ns = min(until_ns, self.reached + NS, self.reached + max(1, int(limit / max(self._rate, 1e-3) * NS)))
        parts = [(index, pacer.take(until_ns, limit * 64)) for index, pacer in self._pacers.items()]
        parts = [(index, due) for index, due in parts if len(due)]
        self.reached = max(self.reached, until_ns)
        if not parts:
            return Batch(*(np.empty(0, np.int64) for _ in Batch._fields))
        series = np.repeat(np.array([i for i, _ in parts], np.int64), [len(due) for _, due in parts])
        nth = np.concatenate([np.arange(self._taken[i], self._taken[i] + len(due)) for i, due in parts])
        dues = np.concatenate([due for _, due in parts])
        for index, due in parts:
            self._taken[index] += len(due)
        if len(parts) == 1:
            return Batch(dues, series, nth)
        order = np.argsort(dues, kind="stable")
        return Batch(dues[order], series[order], nth[order])


def phase(k: int) -> Fraction:
    """Series k's share of a period: the golden ratio's multiples, so that no two series are due together."""
    return Fraction(k * 40503 % 65536, 65536)


PACERS = {"constant": Constant}


def pacer_of(series: Series) -> Pacer:
    """The schedule of a series; its count() also serves reports."""
    return PACERS["constant"](series.rate, series.offset_ns, series.start_ns, series.stop_ns)
