"""Series that come and go -> the rows of all of them in order of due instants, a batch at a time."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probe.model import NS, Series
from probe.schedule.pacers import Pacer, pacer_of

Ints = NDArray[np.int64]


class Batch(NamedTuple):
    """Rows that will be due, ascending: due (ns since t0), series, nth (of its series' rows); int64[n] each."""

    due: Ints
    series: Ints
    nth: Ints


class _Row(IntEnum):
    """The table of constant series has a column for each of them and these rows.

    Row nth is due at DUE + REST / NUM ns, the one of its share after it WHOLE + PART / NUM later, where STEP / NUM is
    WHOLE + PART / NUM: whole numbers throughout. With rates up to 10^6 in thousandths and stretches up to a second all
    products stay below 2^63.
    """

    SERIES = 0
    DUE = 1
    REST = 2
    NTH = 3
    OF = 4
    WHOLE = 5
    PART = 6
    NUM = 7
    STEP = 8
    STOP = 9


DRAWN = 2048
"""Rows of series that are not constant are drawn about so many at a time."""
_NO_ROWS = Batch(*(np.empty(0, np.int64) for _ in Batch._fields))


class Agenda:
    """The schedules of many series, merged: each row of their shares once, in order of due instants.

    Rows due at the same instant come in the order in which their series were added: those of a pair side by side.
    """

    def __init__(self) -> None:
        self._table = np.empty((len(_Row), 0), np.int64)
        self._pacers: dict[int, Pacer] = {}
        self._drawn, self._drawn_ns = _NO_ROWS, 0
        self._rates: dict[int, float] = {}
        self.reached = 0
        """Every row due before this instant (ns since t0) has been taken."""

    def add(self, series: Series) -> None:
        """From now on; its rows must be due at or after `reached`. Series that are over are forgotten."""
        t = self._table = self._table[:, self._table[_Row.DUE] < self._table[_Row.STOP]]
        self._pacers = {index: pacer for index, pacer in self._pacers.items() if pacer.peek() is not None}
        going = {*t[_Row.SERIES].tolist(), *self._pacers}
        self._rates = {index: rate for index, rate in self._rates.items() if index in going}
        if not series.shape.scheduled:
            return
        self._rates[series.index] = float(series.own_rate)
        column = _column(series)
        even = series.shape.arrivals == "even" and not series.shape.legs
        if even and column[_Row.NUM] <= NS and column[_Row.STEP] < 1 << 61:
            self._table = np.column_stack([t, column])
        else:
            self._pacers[series.index] = pacer = pacer_of(series)
            self._drawn = _merged([self._drawn, _taken({series.index: pacer}, self._drawn_ns)])

    def end(self, series: Series) -> None:
        """The series stops earlier: at series.stop_ns, which must not be before `reached`."""
        self._table[_Row.STOP, self._table[_Row.SERIES] == series.index] = series.stop_ns
        if series.index in self._pacers:
            self._pacers[series.index].stop_ns = series.stop_ns
            stays = (self._drawn.series != series.index) | (self._drawn.due < series.stop_ns)
            self._drawn = Batch(*(column[stays] for column in self._drawn))

    def clear(self) -> None:
        """No more rows."""
        self._table = self._table[:, :0]
        self._pacers.clear()
        self._drawn = _NO_ROWS
        self._rates.clear()

    @property
    def rate(self) -> float:
        """The most queries a second that all series together can come to; those that ended since the last add() too."""
        return sum(self._rates.values())

    def peek(self) -> int | None:
        """When the next row is due, or None when all schedules are over."""
        going = self._table[_Row.DUE] < self._table[_Row.STOP]
        dues = [*self._table[_Row.DUE, going], *self._drawn.due[:1], *(p.peek() for p in self._pacers.values())]
        return min((int(due) for due in dues if due is not None), default=None)

    def take(self, until_ns: int, limit: int) -> Batch:
        """The rows due before until_ns, but at most about `limit` of them and of one second: the horizon is drawn in.

        A second, so that whoever catches up after a stall can finish each before the recorder's ring comes round.
        """
        until_ns = min(until_ns, self.reached + NS)
        if until_ns <= self.reached:
            return _NO_ROWS
        until_ns = min(until_ns, self._draw(until_ns, limit))
        while True:
            counts = self._counts(until_ns)
            drawn = int(np.searchsorted(self._drawn.due, until_ns))
            total = int(counts.sum()) + drawn
            if total <= limit + len(counts) or until_ns == self.reached + 1:
                break
            until_ns = self.reached + max(1, (until_ns - self.reached) * limit // total)
        self.reached = until_ns
        taken = Batch(*(column[:drawn] for column in self._drawn))
        self._drawn = Batch(*(column[drawn:] for column in self._drawn))
        return _merged([self._take_constant(counts), taken]) if len(counts) else taken

    def _draw(self, until_ns: int, limit: int) -> int:
        """Have the next rows of series that are not constant, up to an instant or a number; how far they reach (ns)."""
        if not self._pacers:
            self._drawn_ns = max(self._drawn_ns, until_ns)
        while self._drawn_ns < until_ns and len(self._drawn.due) < limit:
            self._drawn_ns += int(min(DRAWN / max(self.rate, 1.0), 1.0) * NS)
            self._drawn = _merged([self._drawn, _taken(self._pacers, self._drawn_ns)])
        return self._drawn_ns

    def _counts(self, until_ns: int) -> Ints:
        """How many rows of each constant series are due before then."""
        t = self._table
        ahead = (np.minimum(until_ns, t[_Row.STOP]) - t[_Row.DUE]).clip(0, NS)
        return np.asarray(-((t[_Row.REST] - ahead * t[_Row.NUM]) // t[_Row.STEP]))

    def _take_constant(self, counts: Ints) -> Batch:
        t = self._table
        rows = np.repeat(t, counts, axis=1)
        k = _each_from_0(counts)
        due = rows[_Row.DUE] + k * rows[_Row.WHOLE] + (rows[_Row.REST] + k * rows[_Row.PART]) // rows[_Row.NUM]
        batch = Batch(due, rows[_Row.SERIES], rows[_Row.NTH] + k * rows[_Row.OF])
        whole, rest = np.divmod(t[_Row.REST] + counts * t[_Row.PART], t[_Row.NUM])
        t[_Row.DUE] += counts * t[_Row.WHOLE] + whole
        t[_Row.REST] = rest
        t[_Row.NTH] += counts * t[_Row.OF]
        return batch


def _column(s: Series) -> list[int]:
    num, step = s.rate.numerator, NS * s.rate.denominator
    due, rest = divmod(step * s.share.index, num)
    whole, part = divmod(step * s.share.of, num)
    first = s.start_ns + s.offset_ns + due
    return [s.index, first, rest, s.share.index, s.share.of, whole, part, num, step * s.share.of, s.stop_ns]


def _taken(pacers: dict[int, Pacer], until_ns: int) -> Batch:
    first = np.array([(index, pacer.nth, pacer.share.of) for index, pacer in pacers.items()], np.int64)
    dues = [pacer.take(until_ns) for pacer in pacers.values()]
    counts = np.array([len(due) for due in dues])
    series, nth, of = np.repeat(first.T, counts, axis=1)
    return Batch(np.concatenate(dues), series, nth + of * _each_from_0(counts))


def _each_from_0(counts: Ints) -> Ints:
    """[2, 3] -> 0 1 0 1 2."""
    return np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)


def _merged(parts: list[Batch]) -> Batch:
    batch = Batch(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    order = np.argsort(batch.due, kind="stable")
    return Batch(*(column[order] for column in batch))
