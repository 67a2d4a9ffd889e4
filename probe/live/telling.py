"""A run while it goes -> its lines of JSON, each window as it closes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from probe.errors import DnsprobeError
from probe.model import NS, Mark, Series
from probe.recorder import Flush
from probe.recorder.sums import planned, rows
from probe.report.lines import Teller
from probe.runfile import Run
from probe.scenario.view import Unseen
from probe.timeline.growing import Losses

TOTALS_NS = 10 * NS
"""Totals are told so often, and at most one line a second: what a pod that is killed outright can take with it."""


class Telling(Unseen):
    """A View that looks into the run file, and only when something was lost or is new.

    tell: takes a line. What it raises harms no run. totals_ns: how often totals are told.
    """

    def __init__(self, path: Path, tell: Callable[[str], None], totals_ns: int = TOTALS_NS) -> None:
        self._path, self._tell, self._every_ns = path, tell, totals_ns
        self._teller = Teller()
        self._new = False
        self._losses = Losses()
        self._rows, self._planned = rows(), planned()
        self._totals_ns = totals_ns

    def added(self, series: list[Series]) -> None:
        del series
        self._new = True

    def flushed(self, flush: Flush, now_ns: int) -> None:
        for table in (self._rows, self._planned, self._losses):
            table.take(flush)
        due = now_ns >= self._totals_ns
        if self._new or self._losses.quiet(now_ns) or due:
            with suppress(DnsprobeError, OSError):
                self._look(now_ns, due)

    def ended(self, pod: str) -> None:
        del pod
        self._new = True

    def marked(self, mark: Mark) -> None:
        del mark
        self._new = True

    def finish(self, run: Run) -> None:
        """Everything that is left to tell. The run is over."""
        for line in self._teller.rest(run):
            self._tell(line)

    def leave(self, run: Run) -> None:
        """What is left to tell of a run that another one follows: no verdict, which would be of what is kept."""
        for line in self._teller.left(run):
            self._tell(line)

    def _look(self, now_ns: int, due: bool) -> None:
        run = self._losses.look(self._path, now_ns)
        self._new = False
        for line in self._teller.so_far(run):
            self._tell(line)
        self._losses.settle(now_ns, self._teller.open_ns)
        if due:
            waiting = self._planned.unsealed() - self._rows.unsealed().sum(axis=(1, 2))
            for line in self._teller.totals(run, self._rows.now(), waiting):
                self._tell(line)
            period_ns = max(self._every_ns, len({s.channel for s in run.series}) * NS)
            self._totals_ns = (now_ns // period_ns + 1) * period_ns
