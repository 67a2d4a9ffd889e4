"""Flushes -> a table of the run so far: what is sealed is added up, what is not comes again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probe.outcome import Outcome
from probe.recorder.room import Columns, Flush

Table = NDArray[Any]
"""A row for each series: int64, or float64."""


class Sum:
    """`of`: a second's columns -> its part of the table, whose rows have `shape`."""

    def __init__(
        self, of: Callable[[Columns], Table], shape: tuple[int, ...], dtype: type[np.generic] = np.int64
    ) -> None:
        self._of = of
        self._sealed = np.zeros((0, *shape), dtype)
        self._open: dict[int, Table] = {}

    def take(self, flush: Flush) -> None:
        """The seconds that changed."""
        for columns in flush.columns:
            part = self._of(columns)
            if columns.sealed:
                self._open.pop(columns.second, None)
                self._sealed = _added(self._sealed, [part])
            else:
                self._open[columns.second] = part

    def now(self) -> Table:
        """Of all seconds."""
        return _added(self._sealed, self._open.values())

    def unsealed(self) -> Table:
        """Of those in which rows may still change."""
        return _added(np.zeros_like(self._sealed), self._open.values())


def rows() -> Sum:
    """How many rows of each series came to which outcome: int64[S, outcomes, 2], good being 1."""
    return Sum(lambda columns: columns.counts.sum(axis=1), (len(Outcome), 2))


def planned() -> Sum:
    """How many rows of each series were due: int64[S]."""
    return Sum(lambda columns: columns.planned.sum(axis=1), ())


def _added(table: Table, parts: Iterable[Table]) -> Table:
    """A new table; parts may have more series, which joined later, or fewer."""
    parts = list(parts)
    series = max([len(table), *map(len, parts)])
    total = np.zeros((series, *table.shape[1:]), table.dtype)
    for part in (table, *parts):
        total[: len(part)] += part
    return total
