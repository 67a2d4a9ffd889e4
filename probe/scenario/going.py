"""A run between its first query and its last outcome: what engine, cluster, steps and people do -> the run file."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from probe.clients.asking import Lookups
from probe.cluster import Cluster, Happened, Stretch
from probe.cluster.clock import PodClock
from probe.cluster.meters import Readings
from probe.engine import Engine
from probe.errors import DnsprobeError
from probe.host import Host
from probe.model import NS, Interval, Lane, Mark, Series, Target, TargetKind
from probe.runfile import RunFileProblem, RunWriter
from probe.scenario.abort import Rule, read_rule, recent_for
from probe.scenario.drops import OwnDrops
from probe.scenario.limits import Limits
from probe.scenario.plan import Plan, nobody, series_of
from probe.scenario.ready import ReadyFile
from probe.scenario.recent import Recent
from probe.scenario.taking import Taking
from probe.scenario.view import View

POLL_S = 0.1
QUIET_S, HEARS_S = 0.05, 1.0
"""At the end: as long as something of the cluster was heard in so long, more may come; and no longer than that."""
LAST_NS = NS // 2
"""From the decision to end until no row is due any more: longer than the engine's notice."""


class Siblings(Protocol):
    """The pods of the Job that this one is of, and whoever tells all of them to stop. source: who that is."""

    source: str

    def facts(self) -> dict[str, str]:
        """What is known of the start that was agreed on."""

    async def start(self, index: int, of: int, say: Callable[[str], None]) -> int:
        """The instant, in ns since 1970, that all agree on once all are ready; EnvironmentProblem says who is not."""

    async def told_to_stop(self, say: Callable[[str], None]) -> str:
        """Returns once somebody has said so: how."""

    async def stops(self, say: Callable[[str], None]) -> None:
        """This one has heard it."""

    async def close(self) -> None:
        """No more is asked of them."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended; `cut` is '' if it ran to its end. The file is there in any case.

    died: the worker did. failed: the cluster could not do what the plan asks of it. interrupted_ns: when the signal
    came (CLOCK_MONOTONIC).
    """

    path: Path
    cut: str = ""
    interrupted: bool = False
    died: bool = False
    failed: bool = False
    interrupted_ns: int | None = None


@dataclass(slots=True)
class Going:
    """A run between its first query and its last outcome. plan: as long as it may last; asked: as it was asked for."""

    plan: Plan
    asked: Plan
    engine: Engine
    writer: RunWriter
    view: View
    cluster: Cluster | None
    clock: PodClock
    host: Host
    readings: Readings
    lookups: Lookups
    limits: Limits | None = None
    job: Siblings | None = None
    ready: ReadyFile | None = None
    drops: OwnDrops = field(default_factory=OwnDrops)
    rules: list[Rule] = field(init=False)
    recent: Recent = field(init=False)
    taking: Taking = field(init=False)
    series: list[Series] = field(default_factory=list)
    lives: dict[str, int] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    deaths: int = 0
    heard: int = 0
    cut: str = ""
    unwritten: str = ""
    interrupted: bool = False
    interrupted_ns: int | None = None
    stopped_ns: int | None = None
    end_ns: int = field(init=False)
    ended: bool = False

    def __post_init__(self) -> None:
        self.end_ns = self.plan.duration_ns
        lanes = [lane.name for lane in self.plan.lanes]
        self.rules = [read_rule(text, lanes) for text in self.plan.abort_on]
        self.recent = recent_for(self.rules)
        told = self.engine.now_ns, self._mark, self.view.noted, self.view.waits
        self.taking = Taking(self.asked, self.cluster, self.recent, *told)

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
        if self.job:
            beside.append(asyncio.create_task(self._hear(self.job)))
        beside.append(asyncio.create_task(self._read_meters()))
        looking_up = asyncio.create_task(self._note_lookups())
        try:
            await self._flush_until_done(beside)
            await self._hear_out()
        finally:
            for task in beside:
                task.cancel()
            self.lookups.end()
            beside.append(looking_up)
            ends = await asyncio.gather(*beside, return_exceptions=True)
            await self.taking.undo()  # what is left of it, if the workers have died
            self._finish()
        for end in ends:
            if isinstance(end, Exception):
                raise end
        how = (self.cut, self.interrupted, bool(self.engine.died), self.taking.failed, self.interrupted_ns)
        return Ending(self.writer.path, *how)

    def interrupt(self, name: str) -> None:
        """Ctrl-C, SIGTERM or SIGHUP: the first ends the run in order, later ones change nothing."""
        if self.interrupted or name != "SIGINT":
            self.taking.hurry()
        self.interrupted = True
        if self.interrupted_ns is None:
            self.interrupted_ns = time.monotonic_ns()
        if self.stopped_ns is None and not self.cut:
            self._stop("Ctrl-C" if name == "SIGINT" else name)
        else:
            self.view.noted("already stopping: the last answers are waited for")

    def _stop(self, why: str) -> None:
        """The run ends; first what was changed is taken back."""
        if self.cut:
            return
        self.cut = f"ended after {max(0, self.engine.now_ns()) / NS:.1f} s by {why}"
        self.taking.end()
        if self.taking.changed:
            self.view.noted(f"{self.cut}; asking goes on until what was changed is taken back")
        else:
            self._halt()
            self.view.noted(f"{self.cut}; waiting for the last answers")

    def _halt(self) -> None:
        """No more queries; what is open is waited for."""
        if self.stopped_ns is not None:
            return
        self.engine.stop()
        self.stopped_ns = max(0, self.engine.now_ns())
        self.view.drains()
        for series in self.series:
            if series.stop_ns > self.stopped_ns:
                self.writer.end_series(series.index, self.stopped_ns)

    def _end(self, why: str, source: str) -> None:
        """A run that has seen what it is for ends in order, once what was changed is taken back."""
        now_ns = max(0, self.engine.now_ns())
        if self.ended or self.cut or now_ns + LAST_NS >= self.end_ns:
            return
        self.ended = True
        self._mark(Mark(now_ns, "ended", why, source))
        self.view.noted(f"{why}: the run ends")
        self.taking.end()
        if not self.taking.lasts:
            self._close()

    def _close(self) -> None:
        """What would be due from here on is not planned, so nothing is cut."""
        self.end_ns = min(self.end_ns, max(0, self.engine.now_ns()) + LAST_NS)
        for series in self.engine.end(range(len(self.series)), self.end_ns, last=True):
            self.writer.end_series(series.index, series.stop_ns)
        self.view.drains()

    async def _flush_until_done(self, beside: list[asyncio.Task[None]]) -> None:
        """A flush a second, until time is up and every query has its outcome, or the worker is gone, or it hangs."""
        next_flush_ns = NS
        patience_ns = self.plan.longest_timeout_ns + 2 * NS
        while not (self._is_over() or self.engine.died):
            await asyncio.sleep(POLL_S)
            if any(task.done() and task.exception() for task in beside):
                self._stop("an error of dnsprobe's own")
                self._halt()
            self._tell_of_deaths()
            now_ns = self.engine.now_ns()
            if now_ns > (self.end_ns if self.stopped_ns is None else self.stopped_ns) + patience_ns:
                self.cut = self.cut or "the worker did not finish in time"
                return
            if now_ns >= next_flush_ns:
                if now_ns > next_flush_ns + NS:  # idle priority is too low here: the file comes before a late query
                    set_priority("SCHED_OTHER")
                next_flush_ns = (now_ns // NS + 1) * NS
                self._flush()
                self._abort_if_told()
        if self.engine.died:
            self.cut = f"the worker ended after {max(0, self.engine.now_ns()) / NS:.1f} s: {self.engine.died}"
            self.view.noted(self.cut)

    async def _hear_out(self) -> None:
        """What the cluster did before the end and nobody has read: others may have kept this process from running."""
        set_priority("SCHED_OTHER")
        heard, until = -1, time.monotonic() + HEARS_S
        while self.cluster and heard < self.heard and time.monotonic() < until:
            heard = self.heard
            await asyncio.sleep(QUIET_S)

    def _abort_if_told(self) -> None:
        """The plan's own rules end the run as Ctrl-C does."""
        broken = (why for rule in self.rules if (why := rule.broken(self.recent)))
        if not self.cut and (why := next(broken, "")):
            self._mark(Mark(max(0, self.engine.now_ns()), "aborted", why, "scenario"))
            self._stop(f"its own rule {why}")

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
        return self.engine.finished and (self.stopped_ns is not None or self.engine.now_ns() >= self.end_ns)

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
            problem = ""
        except RunFileProblem as told:
            problem = str(told)
        if problem != self.unwritten:
            self.unwritten = problem
            self.view.noted(problem or f"{self.writer.path}: is written again, with all that was kept in memory")
        self.recent.add(flush, self.series, max(0, now_ns))
        if self.ready:
            self.ready.look(self.recent, now_ns, self.view.noted)
        self.view.flushed(flush, now_ns)

    def _finish(self) -> None:
        now_ns = self.engine.now_ns() if self.stopped_ns is None else self.stopped_ns
        end_ns = min(now_ns, self.end_ns)
        self._tell_what_did_not_come(end_ns)
        for pod in list(self.lives):
            self._life_ends(pod, end_ns)
        self._flush()
        self._tell_of_deaths()
        if lost := self.engine.overrun:
            text = f"the counts of {lost} s were overwritten before they were read"
            self.writer.interval(Interval(0, end_ns, "overrun", text, "engine"))
        self.writer.add_facts({**self.host.facts(), **self.readings.facts()})
        meant = self.writer.path
        try:
            self.writer.finish(end_ns, self.cut)
        except RunFileProblem as problem:
            self.view.noted(f"{problem}; the run file lacks what came last")
        if self.writer.path != meant:
            self.view.noted(f"{meant} could not be written to the end: the whole run is in {self.writer.path}")

    def _tell_what_did_not_come(self, end_ns: int) -> None:
        """Time is up, or somebody ended the run: that much of what the steps are to do or wait for was not seen."""
        awaited = self.taking.awaited
        missed = awaited.under_way if self.ended else awaited.text
        told = [f"what the steps wait for had not come when the run ended: {missed}"] if missed else []
        if self.taking.left and not self.ended:
            told += [f"steps that were not taken when the run ended: {', '.join(map(str, self.taking.left))}"]
        for text in told if not self.cut else ():
            self._mark(Mark(end_ns, "unfinished", text, "scenario"))

    async def _take_steps(self) -> None:
        if why := await self.taking.steps():
            self._stop(why)
        elif self.taking.came:
            self._end(self.taking.came, "scenario")
        if self.taking.lasts:
            await self.taking.undo()
            if self.cut:
                self._halt()
            else:
                self._close()

    async def _hear(self, job: Siblings) -> None:
        """Whoever says that the run is to stop has seen what they wanted: its verdict is about what was seen."""
        self._end(await job.told_to_stop(self.view.noted), job.source)
        await job.stops(self.view.noted)

    async def _tell_time(self) -> None:
        async for edge in self.clock.edges():
            self._mark_happened(edge)

    async def _read_meters(self) -> None:
        async for samples, told in self.readings.changes():
            self.writer.samples(replace(one, at_ns=at) for one in samples if (at := one.at_ns - self.engine.t0_ns) >= 0)
            for happened in told:
                self._mark_happened(happened)

    async def _note_lookups(self) -> None:
        async for told in self.lookups.made():
            if (at_ns := told.at_ns - self.engine.t0_ns) < 0:
                continue
            if isinstance(told, Mark):
                self._mark(replace(told, at_ns=at_ns))
            else:
                self.writer.lookup(replace(told, at_ns=at_ns))
                self.view.looked_up(told)

    async def _watch(self, cluster: Cluster) -> None:
        try:
            async for happened in cluster.happened():
                self._mark_happened(happened)
                self._follow(happened, max(0, happened.at - self.engine.t0_ns))
                self.clock.hear(happened, cluster.shutdown().grace_period)
        except DnsprobeError as problem:
            self._stop(f"the cluster: {problem}")

    def _mark_happened(self, happened: Happened) -> None:
        self.heard += 1
        at_ns = happened.at - self.engine.t0_ns
        if at_ns >= 0:
            self._mark(Mark(at_ns, happened.kind, happened.text, happened.source, happened.subject))
        if isinstance(happened, Stretch):
            from_ns = max(0, happened.since - self.engine.t0_ns)
            to_ns = at_ns if happened.at > happened.since else self.end_ns
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
            self.view.gone(happened.gone.name)

    def _ask_too(self, pod: Target) -> None:
        is_ending = self.stopped_ns is not None or self.end_ns < self.plan.duration_ns
        if is_ending or self.engine.now_ns() >= self.end_ns:
            return
        series: list[Series] = []
        for lane in self.plan.lanes:
            if lane.target == "pods":
                first = len(self.series) + len(series)
                series += series_of(lane, pod, first, max(0, self.engine.now_ns()), self.plan.duration_ns)
        try:
            if self.limits and self.cluster:
                there = [s for s in self.series if s.target.name not in self.gone]
                self.limits.check([*there, *series], self.plan.lookups(self.cluster.targets))
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
        self.recent.life(pod, from_ns, to_ns)
        self.writer.interval(Interval(from_ns, max(from_ns, to_ns), "life", f"{pod} counts", "cluster", pod))

    def _mark(self, mark: Mark) -> None:
        self.writer.mark(mark)
        self.view.marked(mark)


def set_priority(policy: str) -> None:
    """SCHED_IDLE while queries go, so that nothing else delays them; SCHED_OTHER for the report, if permitted."""
    with suppress(OSError, AttributeError):
        os.sched_setscheduler(0, getattr(os, policy), os.sched_param(0))
