"""A run while it goes -> its lines of JSON, each window as it closes, beside what another view shows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from probe.errors import DnsprobeError
from probe.model import NS, Mark, Series
from probe.outcome import Outcome
from probe.recorder import Flush
from probe.report.lines import Teller
from probe.runfile import Run, open_run
from probe.scenario.plan import Plan
from probe.scenario.run import View

TOTALS_NS = 10 * NS
"""Totals are told so often, and at most one line a second: what a pod that is killed outright can take with it."""
MARGIN_S = 10
"""So much before an open window is read, too: refusals and other lanes around it."""

Ints = NDArray[np.int64]


class Telling:
    """A View that looks into the run file, and only when something was lost or is new; `inner` sees everything.

    tell: takes a line. What it raises harms no run.
    """

    def __init__(self, inner: View, path: Path, tell: Callable[[str], None]) -> None:
        self._inner, self._path, self._tell = inner, path, tell
        self._teller = Teller()
        self._new = False
        self._lost: dict[int, tuple[int, int]] = {}
        """Of each series with a loss that has not been told: when the first and the last such row was due."""
        self._sums = _Sums()
        self._totals_ns = TOTALS_NS

    def begin(self, plan: Plan) -> None:
        self._inner.begin(plan)

    def added(self, series: list[Series]) -> None:
        self._new = True
        self._inner.added(series)

    def flushed(self, flush: Flush, now_ns: int) -> None:
        self._inner.flushed(flush, now_ns)
        self._sums.take(flush)
        for columns in flush.columns:
            for index in np.flatnonzero((columns.first_bad >= 0).any(axis=1)).tolist():
                bad = columns.first_bad[index]
                first_ns, last_ns = int(bad[bad >= 0].min()), int(columns.last_bad[index].max())
                first, last = self._lost.get(index, (first_ns, last_ns))
                self._lost[index] = min(first, first_ns), max(last, last_ns)
        quiet = any(last_ns < now_ns - NS for _, last_ns in self._lost.values())
        due = now_ns >= self._totals_ns
        if self._new or quiet or due:
            with suppress(DnsprobeError, OSError):
                self._look(now_ns, due)

    def ended(self, pod: str) -> None:
        self._new = True
        self._inner.ended(pod)

    def marked(self, mark: Mark) -> None:
        self._new = True
        self._inner.marked(mark)

    def waits(self, text: str) -> None:
        self._inner.waits(text)

    def noted(self, text: str) -> None:
        self._inner.noted(text)

    def end(self) -> None:
        self._inner.end()

    def finish(self, run: Run) -> None:
        """Everything that is left to tell. The run is over."""
        for line in self._teller.rest(run):
            self._tell(line)

    def _look(self, now_ns: int, due: bool) -> None:
        begins_ns = min((first_ns for first_ns, _ in self._lost.values()), default=now_ns)
        run = open_run(self._path, histograms=False, since_second=max(0, begins_ns // NS - MARGIN_S))
        self._new = False
        for line in self._teller.so_far(run):
            self._tell(line)
        open_ns = self._teller.open_ns
        settled_ns = now_ns - MARGIN_S * NS if open_ns is None else open_ns
        self._lost = {
            index: (max(first_ns, settled_ns), last_ns)
            for index, (first_ns, last_ns) in self._lost.items()
            if last_ns >= settled_ns
        }
        if due:
            for line in self._teller.totals(run, *self._sums.now()):
                self._tell(line)
            period_ns = max(TOTALS_NS, len({s.channel for s in run.series}) * NS)
            self._totals_ns = (now_ns // period_ns + 1) * period_ns


class _Sums:
    """Flushes -> rows by series and outcome: what is sealed is added up, what is not comes again."""

    def __init__(self) -> None:
        self._sealed = np.zeros((0, len(Outcome), 2), np.int64)
        self._open: dict[int, tuple[Ints, Ints]] = {}

    def take(self, flush: Flush) -> None:
        for columns in flush.columns:
            rows = columns.counts.sum(axis=1)
            if columns.sealed:
                self._open.pop(columns.second, None)
                self._sealed = _wide(self._sealed, len(rows)) + rows
            else:
                self._open[columns.second] = rows, columns.planned.sum(axis=1) - rows.sum(axis=(1, 2))

    def now(self) -> tuple[Ints, Ints]:
        """int64[S, outcomes, 2], good being 1; and undecided rows, int64[S]."""
        series = max([len(self._sealed), *(len(rows) for rows, _ in self._open.values())])
        rows, waiting = _wide(self._sealed, series).copy(), np.zeros(series, np.int64)
        for some, undecided in self._open.values():
            rows[: len(some)] += some
            waiting[: len(undecided)] += undecided
        return rows, waiting


def _wide(table: Ints, series: int) -> Ints:
    """With rows for series that joined later."""
    return np.concatenate([table, np.zeros((max(0, series - len(table)), *table.shape[1:]), np.int64)])
