"""A rate and the legs it goes through -> how many rows are due by an instant, and at which instant a row is due."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from probe.model import NS, Leg

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]

_NEVER = 2.0**62


class Course:
    """What a rate does over time: it changes evenly along each leg and stays as the last one left it.

    Legs count from t0; rows count from start_ns. Instants are exact to the float64 of the row: after a day of 100,000
    q/s that is 100 ns at 10 q/s.
    """

    def __init__(self, rate: Fraction, legs: Sequence[Leg], start_ns: int = 0) -> None:
        pieces = list(_pieces(rate, legs, start_ns))
        rows = [Fraction(0)]
        for begin, end, first, last in pieces:
            rows.append(rows[-1] + (first + last) / 2 * (end - begin) / NS)
        self._begin = np.array([begin for begin, _, _, _ in pieces], np.int64)
        self._end = np.array([end for _, end, _, _ in pieces], np.int64)
        self._before = np.array([float(n) for n in rows[:-1]])
        self._after = np.array([float(n) for n in rows[1:]])
        self._low = np.array([float(min(first, last)) for _, _, first, last in pieces])
        self._slope = np.array(
            [float(abs(last - first) * NS / max(1, end - begin)) for begin, end, first, last in pieces]
        )
        # A falling leg is counted from its end: near a rate of 0 the other way loses all digits.
        self._falls = np.array([last < first for _, _, first, last in pieces])

    def rows(self, ns: Ints | int) -> Floats:
        """How many rows are due from the start until each instant, parts of a row included."""
        ns = np.maximum(ns, self._begin[0])
        piece = np.searchsorted(self._begin, ns, side="right") - 1
        falls, low, slope = self._falls[piece], self._low[piece], self._slope[piece]
        seconds = np.abs(ns - np.where(falls, self._end[piece], self._begin[piece])) / NS
        since = seconds * (low + slope * seconds / 2)
        return np.asarray(np.where(falls, self._after[piece] - since, self._before[piece] + since))

    def instants(self, rows: Floats) -> Ints:
        """When so many rows are due, ascending rows: int64[n] in ns since t0; beyond 2^62 if never."""
        piece = np.searchsorted(self._before, rows, side="right") - 1
        falls = self._falls[piece]
        count = np.where(falls, self._after[piece] - rows, rows - self._before[piece]).clip(0)
        low = self._low[piece]
        # count = low t + slope t^2 / 2, solved without cancellation
        twice = low + np.sqrt(low * low + 2 * self._slope[piece] * count)
        seconds = np.divide(2 * count, twice, out=np.where(count > 0, np.inf, 0.0), where=twice > 0)
        ns = np.rint(np.minimum(seconds * NS, _NEVER)).astype(np.int64)
        return np.asarray(np.where(falls, self._end[piece] - ns, self._begin[piece] + ns))

    def lasts(self, rows: Ints | int, from_ns: Ints | int) -> Ints:
        """How long after each instant so many more rows are due, in ns."""
        return np.asarray(self.instants(self.rows(from_ns) + rows) - from_ns)


Piece = tuple[int, int, Fraction, Fraction]
"""From, to (ns since t0), the rate at either end. The last piece has no end: its `to` is its `from`."""


def _pieces(rate: Fraction, legs: Sequence[Leg], start_ns: int) -> list[Piece]:
    """What is left of the legs at the start, and what comes after the last of them."""
    found: list[Piece] = []
    at, last = 0, Fraction(1)
    for leg in legs:
        end, last = at + leg.duration_ns, leg.to_share
        begin = max(at, start_ns)
        if begin < end:
            done = Fraction(begin - at, leg.duration_ns)
            share = leg.from_share + (leg.to_share - leg.from_share) * done
            found.append((begin, end, rate * share, rate * last))
        at = end
    begin = max(at, start_ns) if legs else start_ns
    return [*found, (begin, begin, rate * last, rate * last)]
