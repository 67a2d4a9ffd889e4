"""Series of one channel, or what was recorded of them -> how many rows were due when, and how long queries take."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from probe.model import BUCKET_NS, NS, Series
from probe.runfile import Run
from probe.schedule import Course, pacer_of
from probe.timeline.spans import Ints, Spans

Floats = NDArray[np.float64]


class Pace(Protocol):
    """How densely a channel is asked: no window can be known better than to one query."""

    steady: bool
    """The interval is the same at any time."""

    def interval_ns(self, at_ns: Ints | int, queries: Ints | int = 1) -> Ints:
        """How long so many queries take, from each of the instants on."""

    def gap_ns(self, at_ns: int) -> int:
        """How long from an instant until a query was due, whatever became of it."""

    def planned(self, spans: Spans) -> int:
        """Rows due in the given stretches."""


class Scheduled:
    """By the schedule. A type that is asked in several series, one after the other, counts once; so does a pair."""

    def __init__(self, series: Sequence[Series]) -> None:
        fastest: dict[str, Fraction] = {}
        for s in series:
            fastest[s.qtype] = max(s.own_rate, fastest.get(s.qtype, Fraction(0)))
        moments = 2 if series[0].pair else 1
        rate, legs = sum(fastest.values(), Fraction(0)) / moments, series[0].shape.legs
        self._constant_ns = int(NS / rate)
        self._course = Course(rate, legs) if legs else None
        self.steady = not legs
        self._pacers = [pacer_of(s) for s in series]

    def interval_ns(self, at_ns: Ints | int, queries: Ints | int = 1) -> Ints:
        if self._course is None:
            return np.asarray(np.add(np.multiply(self._constant_ns, queries), np.multiply(0, at_ns)))
        return self._course.lasts(queries, at_ns)

    def gap_ns(self, at_ns: int) -> int:
        return int(self.interval_ns(at_ns))

    def planned(self, spans: Spans) -> int:
        return sum(pacer.count(from_ns, to_ns) for pacer in self._pacers for from_ns, to_ns in spans)


class Recorded:
    """By the rows that were recorded, to 100 ms: a closed loop asks when it has an answer, so only good rows count.

    From a row to the next good ones it is to the end of its 100 ms, or to the beginning of those that have them.
    """

    steady = False

    def __init__(self, run: Run, series: Sequence[Series]) -> None:
        rows, waiting = run.counts, run.in_flight
        mine = np.isin(rows.series, [s.index for s in series])
        count = 1 + max(int((rows.bucket + rows.width).max(initial=0)), int((waiting.second + 1).max(initial=0)) * 10)
        planned, good = np.zeros(count), np.zeros(count)
        for width in (1, 10):
            some = mine & (rows.width == width)
            for k in range(width):
                np.add.at(planned, rows.bucket[some] + k, rows.n[some] / width)
                np.add.at(good, rows.bucket[some] + k, rows.n[some] * rows.good[some] / width)
        some = np.isin(waiting.series, [s.index for s in series])
        for k in range(10):
            np.add.at(planned, waiting.second[some] * 10 + k, waiting.n[some] / 10)
        self._edges = np.arange(count + 1) * BUCKET_NS
        self._planned = np.concatenate([[0], planned.cumsum()])
        self._good = np.concatenate([[0], good.cumsum()])

    def interval_ns(self, at_ns: Ints | int, queries: Ints | int = 1) -> Ints:
        return self._until(self._good, at_ns, queries)

    def gap_ns(self, at_ns: int) -> int:
        return int(self._until(self._planned, at_ns, 1))

    def _until(self, rows: Floats, at_ns: Ints | int, queries: Ints | int) -> Ints:
        """How long it is from the instants until so many of the rows, which are counted up by 100 ms."""
        here = np.minimum(np.floor_divide(at_ns, BUCKET_NS), len(self._edges) - 2)
        there = np.searchsorted(rows[1:], rows[here] + queries - 1e-6)
        until = self._edges[np.where(there == here, here + 1, np.minimum(there, len(self._edges) - 1))]
        return np.asarray(np.where(np.equal(queries, 0), 0, np.maximum(until - at_ns, 0)))

    def planned(self, spans: Spans) -> int:
        return round(sum(float(np.diff(np.interp(span, self._edges, self._planned))[0]) for span in spans))


def pace_of(run: Run, series: Sequence[Series]) -> Pace:
    """The pace of one channel's series."""
    return Scheduled(series) if all(s.shape.scheduled for s in series) else Recorded(run, series)
