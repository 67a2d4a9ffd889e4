"""A plan, a cluster if it needs one, a path -> queries and steps go out, everything seen is in the run file."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from probe import __version__
from probe.cluster import Cluster, Happened, Meter, Stretch
from probe.cluster.clock import PodClock
from probe.cluster.meters import Readings
from probe.engine import Engine
from probe.errors import DnsprobeError, UsageError
from probe.host import Host
from probe.model import NS, Interval, Lane, Mark, Series, Target, TargetKind
from probe.recorder import Flush
from probe.runfile import Head, RunFileProblem, RunWriter
from probe.scenario.drops import OwnDrops
from probe.scenario.plan import Plan, check_ceiling, first_series, nobody, series_of
from probe.scenario.signals import Signals, cancelling
from probe.scenario.start import wait_for
from probe.scenario.steps import STEPS

POLL_S = 0.1
LATE_NS = NS // 5
"""A step that is taken so much later than it was due says so."""


class View(Protocol):
    """Who watches a run. Every call returns at once."""

    def begin(self, plan: Plan) -> None:
        """The first query is due now."""

    def added(self, series: list[Series]) -> None:
        """Series that began: at the start, and when a pod comes up."""

    def flushed(self, flush: Flush, now_ns: int) -> None:
        """A second's counts; now_ns since t0."""

    def ended(self, pod: str) -> None:
        """A pod was told to go: what it does from now on does not count."""

    def marked(self, mark: Mark) -> None:
        """Something happened."""

    def noted(self, text: str) -> None:
        """A sentence for the person: what is being started, what went wrong, what is waited for."""

    def end(self) -> None:
        """The last frame; called once, whatever happened."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended; `cut` is '' if it ran to its end. The file is there in any case.

    died: the worker did. failed: the cluster could not do what the plan asks of it.
    """

    path: Path
    cut: str = ""
    interrupted: bool = False
    died: bool = False
    failed: bool = False


async def run(
    plan: Plan,
    path: Path,
    view: View,
    engine: Engine,
    cluster: Cluster | None = None,
    command: str = "",
    *,
    idle: bool = True,
    at_unix_ns: int | None = None,
    ceiling: Fraction | None = None,
) -> Ending:
    """Run a plan to its end, to Ctrl-C, SIGTERM or SIGHUP, or to the worker's death.

    idle: this process gets idle priority meanwhile, which it may not be permitted to leave again: not where it is to
    start another run. at_unix_ns: when t0 is to be (default at once). ceiling: queries a second in all towards what the
    cluster says is there, None for no limit.

    DnsprobeError and CancelledError (Ctrl-C) only before the first query; from then on the run file is finished and
    kept whatever happens.
    """
    check_path(path)
    for step in plan.steps:
        if cluster and STEPS[step.word].changes:
            cluster.check(step.word, step.text)
    async with AsyncExitStack() as stack:
        signals = Signals(cancelling())
        stack.callback(signals.close)
        clock = PodClock()
        if cluster:
            view.noted("starting the cluster")
            stack.push_async_callback(cluster.stop)
            await cluster.start()
            stack.push_async_callback(clock.stop)
            await clock.start(cluster.namespaces[0])
        series = first_series(plan, cluster.targets if cluster else lambda _: [])
        check_ceiling(series, ceiling)
        stack.push_async_callback(engine.close)
        await engine.start(series, plan.longest_timeout_ns, cluster.namespaces if cluster else ("",))
        if at_unix_ns is not None:
            await wait_for(at_unix_ns, view.noted)
        # Children inherit the priority: lab, worker and clock are running already.
        if idle:
            _schedule("SCHED_IDLE")
            stack.callback(_schedule, "SCHED_OTHER")
        engine.begin(at_unix_ns)
        head = Head(
            name=plan.name,
            started_unix_ns=engine.t0_unix_ns,
            planned_ns=plan.duration_ns,
            command=command,
            scenario=plan.scenario,
            objectives=plan.objectives,
            facts={**plan.facts, **_versions(), **engine.facts(), **(cluster.facts() if cluster else {})},
        )
        writer = RunWriter.create(path, head)
        host = Host(asks=not cluster or "" in cluster.namespaces)
        own = [Meter("host", "prober")] if not cluster or "" in cluster.namespaces else []
        home = cluster.namespaces[0] if cluster else ""
        readings = Readings(lambda: [*own, *(cluster.meters() if cluster else [])], home)
        going = _Going(plan, engine, writer, view, cluster, clock, host, readings, ceiling)
        signals.meaning = going.interrupt
        stack.callback(view.end)
        view.begin(plan)
        going.add(series)
        for lane in [lane for lane in plan.lanes if lane.name not in {one.lane for one in series}]:
            going.leave_out(lane)
        return await going.to_the_end()


def check_path(path: Path) -> None:
    """UsageError if the run file cannot be made there; asked before anything starts."""
    if str(path) == "-":
        raise UsageError("-o -: a run file is a database, which stdout cannot be; name a file")
    if path.exists():
        raise UsageError(f"{path}: exists already; name another file with -o, or remove it")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: its folder does not exist; choose a file elsewhere with -o")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path}: no permission to write in its folder; choose a file elsewhere with -o")


def _schedule(policy: str) -> None:
    """Idle priority while queries go, so that nothing else delays them; back to normal for the report, if permitted."""
    with suppress(OSError, AttributeError):
        os.sched_setscheduler(0, getattr(os, policy), os.sched_param(0))


def _versions() -> Mapping[str, str]:
    return {"dnsprobe": __version__, "python": platform.python_version(), "kernel": platform.release()}


@dataclass(slots=True)
class _Going:
    """A run between its first query and its last outcome."""

    plan: Plan
    engine: Engine
    writer: RunWriter
    view: View
    cluster: Cluster | None
    clock: PodClock
    host: Host
    readings: Readings
    ceiling: Fraction | None = None
    drops: OwnDrops = field(default_factory=OwnDrops)
    series: list[Series] = field(default_factory=list)
    lives: dict[str, int] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    deaths: int = 0
    cut: str = ""
    interrupted: bool = False
    failed: bool = False
    stopped_ns: int | None = None

    def add(self, series: list[Series]) -> None:
        """Take note of series that the engine has."""
        self.series += series
        self.writer.add_series(series)
        self.view.added(series)

    def leave_out(self, lane: Lane) -> None:
        """There is nobody to ask yet; pods that come up are asked."""
        self.view.noted(nobody(lane))
        self._mark(Mark(0, "not_asked", nobody(lane), "dnsprobe", lane.name))

    async def to_the_end(self) -> Ending:
        for pod in {s.target.name for s in self.series if s.target.kind == TargetKind.POD}:
            self._life_begins(pod, 0)
        beside = [asyncio.create_task(self._take_steps())]
        if self.cluster:
            beside.append(asyncio.create_task(self._watch(self.cluster)))
            beside.append(asyncio.create_task(self._tell_time()))
        beside.append(asyncio.create_task(self._read_meters()))
        try:
            await self._flush_until_done(beside)
        finally:
            for task in beside:
                task.cancel()
            ends = await asyncio.gather(*beside, return_exceptions=True)
            self._finish()
        for end in ends:
            if isinstance(end, Exception):
                raise end
        return Ending(self.writer.path, self.cut, self.interrupted, bool(self.engine.died), self.failed)

    def interrupt(self, name: str) -> None:
        """Ctrl-C, SIGTERM or SIGHUP: the first ends the run in order, later ones change nothing."""
        self.interrupted = True
        if self.stopped_ns is None:
            self._stop("Ctrl-C" if name == "SIGINT" else name)
        else:
            self.view.noted("already stopping: the last answers are waited for")

    def _stop(self, why: str) -> None:
        """No more queries; what is open is waited for."""
        if self.stopped_ns is not None:
            return
        self.engine.stop()
        self.stopped_ns = max(0, self.engine.now_ns())
        for series in self.series:
            if series.stop_ns > self.stopped_ns:
                self.writer.end_series(series.index, self.stopped_ns)
        self.cut = f"ended after {self.stopped_ns / NS:.1f} s by {why}"
        self.view.noted(f"{self.cut}; waiting for the last answers")

    async def _flush_until_done(self, beside: list[asyncio.Task[None]]) -> None:
        """A flush a second, until time is up and every query has its outcome, or the worker is gone, or it hangs."""
        next_flush_ns = NS
        patience_ns = self.plan.longest_timeout_ns + 2 * NS
        while not (self._is_over() or self.engine.died):
            await asyncio.sleep(POLL_S)
            if any(task.done() and task.exception() for task in beside):
                self._stop("an error of dnsprobe's own")
            self._tell_of_deaths()
            now_ns = self.engine.now_ns()
            if now_ns > (self.plan.duration_ns if self.stopped_ns is None else self.stopped_ns) + patience_ns:
                self.cut = self.cut or "the worker did not finish in time"
                return
            if now_ns >= next_flush_ns:
                next_flush_ns = (now_ns // NS + 1) * NS
                self._flush()
        if self.engine.died:
            self.cut = f"the worker ended after {max(0, self.engine.now_ns()) / NS:.1f} s: {self.engine.died}"
            self.view.noted(self.cut)

    def _tell_of_deaths(self) -> None:
        """Workers that died while others go on."""
        for death in self.engine.deaths[self.deaths :]:
            self.deaths += 1
            worker = f"worker {death.worker} of {len(self.engine.worker_pids)}"
            text = f"{worker} {death.why}"
            self.view.noted(f"{text}: from then on its rows of {', '.join(death.lanes)} are not asked")
            self._mark(Mark(death.from_ns, "worker_died", text, "engine", worker))
            for lane in death.lanes:
                self.writer.interval(
                    Interval(death.from_ns, self.plan.duration_ns, "worker_died", text, "engine", lane)
                )

    def _is_over(self) -> bool:
        """A schedule may be empty long before the run is: its last query was due, its pods are gone."""
        return self.engine.finished and (self.stopped_ns is not None or self.engine.now_ns() >= self.plan.duration_ns)

    def _flush(self) -> None:
        flush, now_ns = self.engine.flush(), self.engine.now_ns()
        for drops in self.drops.look(flush, self.series, max(0, now_ns)):
            self.writer.interval(drops)
        for seen in self.host.look(max(0, now_ns)):
            if isinstance(seen, Mark):
                self._mark(seen)
            else:
                self.writer.interval(seen)
        try:
            self.writer.flush(flush, now_ns)
        except RunFileProblem as problem:
            self.view.noted(str(problem))
        self.view.flushed(flush, now_ns)

    def _finish(self) -> None:
        now_ns = self.engine.now_ns() if self.stopped_ns is None else self.stopped_ns
        end_ns = min(now_ns, self.plan.duration_ns)
        for pod in list(self.lives):
            self._life_ends(pod, end_ns)
        self._flush()
        self._tell_of_deaths()
        if lost := self.engine.overrun:
            text = f"the counts of {lost} s were overwritten before they were read"
            self.writer.interval(Interval(0, end_ns, "overrun", text, "engine"))
        self.writer.add_facts({**self.host.facts(), **self.readings.facts()})
        try:
            self.writer.finish(end_ns, self.cut)
        except RunFileProblem as problem:
            self.view.noted(f"{problem}; the run file lacks what came last")

    async def _take_steps(self) -> None:
        due_ns = 0
        for step in self.plan.steps:
            due_ns += step.number if step.word == "wait" else 0
            await asyncio.sleep(max(0, due_ns - self.engine.now_ns()) / NS)
            if self.stopped_ns is not None:
                return
            if step.word == "wait":
                continue
            at_ns = max(due_ns, self.engine.now_ns())
            act = STEPS[step.word].act
            try:
                text = await act(step, self.cluster) if act and self.cluster else step.text
            except DnsprobeError as problem:
                self.failed = True
                self._stop(f"its step `{step}`: {problem}")
                return
            late_ns = at_ns - due_ns
            late = f"; {late_ns / NS:.1f} s late: this machine had no time for it" if late_ns > LATE_NS else ""
            self._mark(Mark(at_ns, "step", f"{text}{late}", "scenario"))

    async def _tell_time(self) -> None:
        async for edge in self.clock.edges():
            self._mark_happened(edge)

    async def _read_meters(self) -> None:
        async for samples, told in self.readings.changes():
            self.writer.samples(replace(one, at_ns=at) for one in samples if (at := one.at_ns - self.engine.t0_ns) >= 0)
            for happened in told:
                self._mark_happened(happened)

    async def _watch(self, cluster: Cluster) -> None:
        try:
            async for happened in cluster.happened():
                self._mark_happened(happened)
                self._follow(happened, max(0, happened.at - self.engine.t0_ns))
                self.clock.hear(happened, cluster.shutdown().grace_period)
        except DnsprobeError as problem:
            self._stop(f"the cluster: {problem}")

    def _mark_happened(self, happened: Happened) -> None:
        at_ns = happened.at - self.engine.t0_ns
        if at_ns >= 0:
            self._mark(Mark(at_ns, happened.kind, happened.text, happened.source, happened.subject))
        if isinstance(happened, Stretch):
            from_ns = max(0, happened.since - self.engine.t0_ns)
            to_ns = at_ns if happened.at > happened.since else self.plan.duration_ns
            if to_ns > from_ns:
                what = (happened.kind, happened.text, happened.source, happened.subject)
                self.writer.interval(Interval(from_ns, to_ns, *what))

    def _follow(self, happened: Happened, at_ns: int) -> None:
        """Ask pods that came up, count them while they live, and ask them no more once they are gone."""
        if happened.up and happened.up.name not in self.lives:
            self._life_begins(happened.up.name, at_ns)
            self._ask_too(happened.up)
        if happened.down and happened.down.name in self.lives:
            self._life_ends(happened.down.name, at_ns)
            self.view.ended(happened.down.name)
        if happened.gone:
            self.gone.add(happened.gone.name)
            gone = [s.index for s in self.series if s.target.name == happened.gone.name]
            for ended in self.engine.end(gone, self.engine.now_ns()):
                self.writer.end_series(ended.index, ended.stop_ns)

    def _ask_too(self, pod: Target) -> None:
        if self.stopped_ns is not None:
            return
        series: list[Series] = []
        for lane in self.plan.lanes:
            if lane.target == "pods":
                first = len(self.series) + len(series)
                series += series_of(lane, pod, first, max(0, self.engine.now_ns()), self.plan.duration_ns)
        try:
            check_ceiling([*(s for s in self.series if s.target.name not in self.gone), *series], self.ceiling)
            self.add(self.engine.add([replace(s, share=self.plan.share) for s in series]))
        except DnsprobeError as problem:
            self._not_asked(pod, str(problem))

    def _not_asked(self, pod: Target, why: str) -> None:
        self.view.noted(f"{pod} is not asked: {why}")
        self._mark(Mark(max(0, self.engine.now_ns()), "not_asked", why, "dnsprobe", pod.name))

    def _life_begins(self, pod: str, from_ns: int) -> None:
        """Until its end is known a pod counts to the end of the run: what a killed run leaves behind is right, too."""
        self.lives[pod] = from_ns
        self._life(pod, from_ns, self.plan.duration_ns)

    def _life_ends(self, pod: str, to_ns: int) -> None:
        self._life(pod, self.lives.pop(pod), to_ns)

    def _life(self, pod: str, from_ns: int, to_ns: int) -> None:
        self.writer.interval(Interval(from_ns, max(from_ns, to_ns), "life", f"{pod} counts", "cluster", pod))

    def _mark(self, mark: Mark) -> None:
        self.writer.mark(mark)
        self.view.marked(mark)
