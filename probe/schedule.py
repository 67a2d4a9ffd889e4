"""Rates -> due instants in integer nanoseconds, a chunk at a time, whatever became of earlier queries."""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from probe.model import NS, Series


class Pacer(Protocol):
    """When the queries of a series are due, in ns since t0."""

    def take(self, until_ns: int, limit: int) -> NDArray[np.int64]:
        """The next due instants before until_ns, at most `limit`, ascending: int64[n]."""

    def peek(self) -> int | None:
        """The next due instant, or None when the schedule is over."""

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
        dues = (np.arange(n, dtype=np.int64) * self._step + rest) // self._num
        self._next = end
        return dues + (self._first + base)

    def peek(self) -> int | None:
        due = self._due(self._next)
        return due if due < self._stop else None

    def count(self, from_ns: int, to_ns: int) -> int:
        return max(0, self._index(min(to_ns, self._stop)) - self._index(from_ns))


def phase(k: int) -> Fraction:
    """Series k's share of a period: the golden ratio's multiples, so that no two series are due together."""
    return Fraction(k * 40503 % 65536, 65536)


PACERS = {"constant": Constant}


def pacer_of(series: Series) -> Pacer:
    """The schedule of a series; its count() also serves reports."""
    return Constant(series.rate, series.offset_ns, series.start_ns, series.stop_ns)
