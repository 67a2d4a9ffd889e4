"""One series -> the due instants of its share: constant, along legs, poisson."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from probe.model import NS, WHOLE, Series, Slice
from probe.schedule.course import Course

Ints = NDArray[np.int64]

MOST = 1 << 62
BLOCK = 512
"""Rows that a law which is no plain formula gives at a time."""
BLOCKS = 1024
"""Blocks of a poisson series whose lengths are drawn together: half a million rows."""


class Pacer(Protocol):
    """When the queries of a series' share are due, in ns since t0."""

    share: Slice
    stop_ns: int
    """No row is due at or after it; it may be set earlier."""

    @property
    def nth(self) -> int:
        """The number of the next row, among all of its series."""

    def take(self, until_ns: int, limit: int = MOST) -> Ints:
        """The next due instants before until_ns, at most `limit`, ascending: int64[n]."""

    def peek(self) -> int | None:
        """The next due instant, or None when the schedule is over."""

    def skip(self, n: int) -> None:
        """Take the next n instants without looking at them."""

    def count(self, from_ns: int, to_ns: int) -> int:
        """How many queries are due in [from_ns, to_ns), taken or not."""


class Constant:
    """Query i is due at start + offset + floor(i x 10^9 / rate): exact at any rate and length."""

    def __init__(self, rate: Fraction, offset_ns: int, start_ns: int, stop_ns: int, share: Slice = WHOLE) -> None:
        self._num = rate.numerator
        self._step = NS * rate.denominator * share.of
        self._head = NS * rate.denominator * share.index
        self._first = start_ns + offset_ns
        self.share = share
        self._next = 0
        self.stop_ns = stop_ns

    @property
    def nth(self) -> int:
        return self.share.index + self._next * self.share.of

    def _index(self, ns: int) -> int:
        """The first of its rows due at or after ns."""
        ns = min(ns, self.stop_ns)
        return max(0, -((self._head - (ns - self._first) * self._num) // self._step)) if ns > self._first else 0

    def take(self, until_ns: int, limit: int = MOST) -> Ints:
        n = min(self._index(until_ns) - self._next, limit)
        if n <= 0:
            return np.empty(0, np.int64)
        base, rest = divmod(self._head + self._next * self._step, self._num)
        whole, part = divmod(self._step, self._num)
        rows = np.arange(n, dtype=np.int64)
        self._next += n
        return rows * whole + (rows * part + rest) // self._num + (self._first + base)

    def peek(self) -> int | None:
        due = self._first + (self._head + self._next * self._step) // self._num
        return due if due < self.stop_ns else None

    def skip(self, n: int) -> None:
        self._next += n

    def count(self, from_ns: int, to_ns: int) -> int:
        return max(0, self._index(to_ns) - self._index(from_ns))


class Law(Protocol):
    """When the rows of a whole series are due, BLOCK of them at a time: the same however often it is asked."""

    def block(self, k: int) -> Ints:
        """Instants of rows k x BLOCK and on, ascending: int64[BLOCK]."""

    def block_of(self, ns: int) -> int:
        """The block with the first row that is due at or after ns."""


class Even:
    """Row i is due when the course has come to i rows and a part of one, its phase."""

    def __init__(self, course: Course, phase: float) -> None:
        self._course, self._phase = course, phase

    def block(self, k: int) -> Ints:
        return self._course.instants(np.arange(k * BLOCK, (k + 1) * BLOCK) + self._phase)

    def block_of(self, ns: int) -> int:
        k = max(0, int(self._course.rows(ns).item() - self._phase) // BLOCK)
        while k and self.block(k - 1)[-1] >= ns:
            k -= 1
        while self.block(k)[-1] < ns:
            k += 1
        return k


class Poisson:
    """Gaps are exponential where the course counts as time: a Poisson process, of a rate that may change.

    What a block's gaps add up to has a gamma distribution, and their shares of that do not depend on it, so a block can
    be drawn by itself once it is known where it begins. That takes the lengths of the blocks before it, no row of them.
    """

    def __init__(self, course: Course, seed: int) -> None:
        self._course, self._seed = course, seed
        self._stretch = -1
        self._rows = np.zeros(1)
        self._ends = np.empty(0, np.int64)

    def block(self, k: int) -> Ints:
        stretch, at = divmod(k, BLOCKS)
        self._go_to(stretch)
        gaps = _random(self._seed, 1, k).standard_exponential(BLOCK).cumsum()
        begin, end = self._rows[at : at + 2]
        dues = self._course.instants(begin + gaps * ((end - begin) / gaps[-1]))
        return np.maximum.accumulate(dues).clip(self._ends[at], self._ends[at + 1])

    def block_of(self, ns: int) -> int:
        self._go_to(max(0, self._stretch))
        if ns <= self._ends[0]:
            self._go_to(0)
        while self._ends[-1] < ns:
            self._go_to(self._stretch + 1)
        return self._stretch * BLOCKS + int(np.searchsorted(self._ends[1:], ns))

    def _go_to(self, stretch: int) -> None:
        """Where the blocks of a stretch begin and end, in rows of the course and in ns."""
        if stretch == self._stretch:
            return
        if stretch < self._stretch:
            self._stretch, self._rows = -1, np.zeros(1)
        while self._stretch < stretch:
            self._stretch += 1
            lengths = _random(self._seed, 0, self._stretch).standard_gamma(BLOCK, BLOCKS)
            self._rows = self._rows[-1] + np.concatenate([[0], lengths.cumsum()])
        self._ends = self._course.instants(self._rows)


def _random(*seed: int) -> np.random.RandomState:
    """RandomState's draws never change with numpy's version; Philox is cheap to begin."""
    return np.random.RandomState(np.random.Philox(seed))


class ByBlocks:
    """A pacer whose instants come from a law's blocks."""

    def __init__(self, law: Law, stop_ns: int, share: Slice = WHOLE) -> None:
        self._law, self.share = law, share
        self._next = 0
        self._k, self._block = -1, np.empty(0, np.int64)
        self.stop_ns = stop_ns

    @property
    def nth(self) -> int:
        return self.share.index + self._next * self.share.of

    def _ahead(self) -> Ints:
        """What has not been taken of the block that has the next row; never empty."""
        k, at = divmod(self.nth, BLOCK)
        if k != self._k:
            self._k, self._block = k, self._law.block(k)
        return self._block[at :: self.share.of]

    def _index(self, ns: int) -> int:
        """The first of its rows due at or after ns."""
        k = self._law.block_of(min(ns, self.stop_ns))
        row = k * BLOCK + int(np.searchsorted(self._law.block(k), min(ns, self.stop_ns)))
        return max(0, -((self.share.index - row) // self.share.of))

    def take(self, until_ns: int, limit: int = MOST) -> Ints:
        until_ns = min(until_ns, self.stop_ns)
        found: list[Ints] = []
        while True:
            ahead = self._ahead()
            n = min(int(ahead.searchsorted(until_ns)), limit)
            found.append(ahead[:n])
            self._next += n
            limit -= n
            if n < len(ahead):
                return np.concatenate(found) if len(found) > 1 else found[0]

    def peek(self) -> int | None:
        due = int(self._ahead()[0])
        return due if due < self.stop_ns else None

    def skip(self, n: int) -> None:
        self._next += n

    def count(self, from_ns: int, to_ns: int) -> int:
        return max(0, self._index(to_ns) - self._index(from_ns))


def phase(k: int) -> Fraction:
    """Series k's share of a period: the golden ratio's multiples, so that no two series are due together."""
    return Fraction(k * 40503 % 65536, 65536)


def _even(s: Series) -> Pacer:
    if not s.shape.legs:
        return Constant(s.rate, s.offset_ns, s.start_ns, s.stop_ns, s.share)
    course = Course(s.rate, s.shape.legs, s.start_ns)
    return ByBlocks(Even(course, float(s.offset_ns * s.rate / NS)), s.stop_ns, s.share)


def _poisson(s: Series) -> Pacer:
    return ByBlocks(Poisson(Course(s.rate, s.shape.legs, s.start_ns), s.shape.seed), s.stop_ns, s.share)


def _max(s: Series) -> Pacer:
    """Nothing is due beforehand."""
    return Constant(s.rate, 0, 0, 0)


PACERS: dict[str, Callable[[Series], Pacer]] = {"even": _even, "poisson": _poisson, "max": _max}


def pacer_of(series: Series) -> Pacer:
    """The schedule of a series' share; its count() also serves reports."""
    return PACERS[series.shape.arrivals](series)
