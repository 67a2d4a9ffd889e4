"""schedule -> transport -> recorder, in worker processes; the parent's hold on them: start, begin, flush, stop.

In: series. Out: columns of finished rows, once a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from probe.book import Book
from probe.engine.plan import Catalogue, Deal, EngineOptions, Orders, check_limits, has_rows
from probe.engine.process import WorkerProcess
from probe.errors import EnvironmentProblem
from probe.model import BUCKET_NS, NS, Series
from probe.recorder import BUCKETS, Flush, Reader, Scalar
from probe.schedule import pacer_of

__all__ = ["Death", "Engine", "EngineOptions", "check_limits"]

LEAD_NS = 20_000_000
"""From begin() to t0."""
NOTICE_NS = 250_000_000
"""Changes to the schedule take effect no sooner than this: rows are prepared ahead."""


@dataclass(frozen=True, slots=True)
class Death:
    """A worker that died: its number, from 1; rows due before from_ns (since t0) it had taken note of; how it ended.

    lanes: those that had rows of it, which nobody asks from then on.
    """

    worker: int
    from_ns: int
    why: str
    lanes: tuple[str, ...]


class Engine:
    """One run's workers. start(), begin(), then flush() once a second until `finished`; close() in any case."""

    def __init__(self, options: EngineOptions | None = None) -> None:
        self._options = options or EngineOptions()
        self._namespaces: tuple[str, ...] = ("",)
        self._deal = Deal(self._options.workers)
        self._series: list[Series] = []
        self._catalogue = Catalogue()
        self._facts: dict[str, str] = {}
        self._workers: list[WorkerProcess] = []
        self._reader: Reader | None = None
        self._stopped_ns: int | None = None
        self.deaths: list[Death] = []
        """Workers that were found dead while others live; flush(), `finished` and `died` look after them."""
        self.t0_ns = 0
        """CLOCK_MONOTONIC ns of t0."""
        self.t0_unix_ns = 0
        """Wall clock of t0, ns since 1970."""

    async def start(
        self, series: Sequence[Series], longest_timeout_ns: int = 0, namespaces: Sequence[str] = ("",)
    ) -> None:
        """Spawn the workers, open their sockets, warm them up. DnsprobeError with the message for the person.

        longest_timeout_ns: of any series that may be added later. namespaces: where targets are asked from, paths (see
        Target.vantage); each has workers of its own. ValueError for a target that is asked from none of them.
        """
        self._namespaces = tuple(namespaces)
        self._deal = Deal(self._options.workers, self._namespaces)
        check_limits(series, self._options.workers, self._namespaces)
        self._note(series)
        longest = max([longest_timeout_ns, *(s.timeout_ns for s in series)])
        books = {s.questions.fd for s in series if isinstance(s.questions, Book)}
        for worker in range(self._deal.workers):
            parts = [self._deal.part(s, worker) for s in series]
            namespace = self._deal.namespace(worker)
            self._workers.append(WorkerProcess.spawn(self._options, namespace, parts, longest, sorted(books)))
        self._reader = Reader([w.room for w in self._workers], self._question_text)
        for each in self._workers:
            for name, value in (await each.ready()).items():
                told = self._facts.setdefault(name, value)
                self._facts[name] = told if value in told.split("; ") else f"{told}; {value}"

    def _note(self, series: Sequence[Series]) -> None:
        for each in series:
            if each.index != len(self._series):
                raise ValueError(f"series {each.index} is number {len(self._series)}: they count from 0, in order")
            self._series.append(each)
            self._catalogue.add(each)

    def _question_text(self, number: int) -> str:
        question = self._catalogue.question(number)
        return f"{question.name} {question.qtype}"

    def begin(self, at_unix_ns: int | None = None) -> None:
        """Set t0, from which the series' times count: a moment from now, or at a wall clock time in ns since 1970.

        Rows that were due at a time that is past are `unsent`.
        """
        now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
        self.t0_unix_ns = wall_ns + LEAD_NS if at_unix_ns is None else at_unix_ns
        self.t0_ns = now_ns + self.t0_unix_ns - wall_ns
        for worker in self._workers:
            worker.send(self.t0_ns)

    def now_ns(self) -> int:
        """Time since t0 in ns; negative before it."""
        return time.monotonic_ns() - self.t0_ns

    def add(self, series: Sequence[Series]) -> list[Series]:
        """Put more series on the schedule while the run goes; as they are then: none starts sooner than NOTICE_NS."""
        soonest = self.now_ns() + NOTICE_NS
        added = [replace(s, start_ns=max(s.start_ns, soonest)) for s in series]
        added = [s for s in added if s.start_ns < s.stop_ns]
        if not added:
            return []
        if len(self._series) + len(added) > self._options.max_series:
            raise EnvironmentProblem(f"more than {self._options.max_series} series in one run")
        asked = [s for s in self._series if s.stop_ns + s.timeout_ns > soonest]
        check_limits([*asked, *added], self._options.workers, self._namespaces)
        self._note(added)
        for number, worker in enumerate(self._workers):
            worker.send(Orders(add=tuple(self._deal.part(s, number) for s in added)))
        return added

    def end(self, indices: Sequence[int], stop_ns: int, *, last: bool = False) -> list[Series]:
        """Let series stop at stop_ns, or NOTICE_NS from now if that is later; as they are then.

        last: these are all there are, and none will be added.
        """
        stop_ns = max(stop_ns, self.now_ns() + NOTICE_NS)
        ended = [replace(self._series[i], stop_ns=stop_ns) for i in indices if self._series[i].stop_ns > stop_ns]
        for each in ended:
            self._series[each.index] = each
        if ended or last:
            for number, worker in enumerate(self._workers):
                parts = tuple(self._deal.part(s, number) for s in ended)
                worker.send(Orders(end=parts, last_ns=stop_ns if last else 0))
        return ended

    def stop(self) -> None:
        """No new queries from now on; what is in flight still gets its outcome."""
        if self._stopped_ns is None:
            self._stopped_ns = max(0, self.now_ns())
        for worker in self._workers:
            worker.send(Orders(stop=True))

    def flush(self) -> Flush:
        """The columns that changed since the last flush; once a second."""
        if self._reader is None:
            raise RuntimeError("flush() before start()")
        self._look_after_workers()
        return self._reader.flush(len(self._series), max(self.now_ns(), 0) // NS)

    def _look_after_workers(self) -> None:
        """Take note of the dead, unless all are."""
        gone = {w.pid: why for w in self._workers if (why := w.died)}
        known = {death.worker for death in self.deaths}
        if self._reader is None or len(gone) == len(self._workers):
            return
        for number, worker in enumerate(self._workers):
            if worker.pid in gone and number + 1 not in known:
                mine = [self._deal.part(s, number) for s in self._series]
                lanes = tuple(dict.fromkeys(s.lane for s in mine if has_rows(s)))
                reached = max(0, int(worker.room.scalars[Scalar.REACHED]))
                self.deaths.append(Death(number + 1, reached, gone[worker.pid], lanes))
                self._reader.bury(number, partial(self._due, number))

    def _due(self, worker: int, second: int, series: int) -> NDArray[np.int64]:
        """Rows that a worker's schedule has in a second: int64[series, 10]."""
        rows = np.zeros((series, BUCKETS), np.int64)
        until = self._stopped_ns
        edges = [second * NS + k * BUCKET_NS for k in range(BUCKETS + 1)]
        edges = edges if until is None else [min(edge, until) for edge in edges]
        for i, one in enumerate(self._series[:series]):
            if one.start_ns < edges[-1] and one.stop_ns > edges[0]:
                pacer = pacer_of(self._deal.part(one, worker))
                rows[i] = [pacer.count(a, b) for a, b in pairwise(edges)]
        return rows

    @property
    def series(self) -> Sequence[Series]:
        """All there ever were, as they are now."""
        return self._series

    @property
    def room(self) -> int:
        """How many there can be in all."""
        return self._options.max_series

    @property
    def overrun(self) -> int:
        """Seconds whose counts were lost because flush() was not called for too long."""
        return self._reader.overrun if self._reader else 0

    @property
    def finished(self) -> bool:
        """Every row of the schedule has its outcome, but for those of workers that died."""
        self._look_after_workers()
        return self._reader is not None and self._reader.done

    @property
    def worker_pids(self) -> list[int]:
        """The workers' process ids, none before start()."""
        return [worker.pid for worker in self._workers]

    @property
    def died(self) -> str:
        """Why all workers are gone, if they are and should not be; else nothing."""
        whys = [worker.died for worker in self._workers]
        if not whys or not all(whys):
            return ""
        return f"worker {whys[0]}" if len(whys) == 1 else f"all {len(whys)} workers ended, the last {whys[-1]}"

    def facts(self) -> dict[str, str]:
        """What was granted and chosen: workers, tick, receive_buffer, gso."""
        return {"workers": str(self._deal), **self._facts}

    async def close(self) -> None:
        """End the workers that have not ended themselves."""
        await asyncio.gather(*(worker.close() for worker in self._workers))
