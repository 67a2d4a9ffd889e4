"""A scenario that is read again when it changes -> runs without end, one after the other, until told to end.

One run goes on until it has to begin anew: see Reason. Its file keeps the last hour; the file of the run before stands
beside it. What is counted for metrics goes on from run to run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from probe.cluster import Cluster
from probe.engine import Engine
from probe.errors import DnsprobeError, EnvironmentProblem, UsageError
from probe.model import NS, Reason
from probe.runfile import KEPT, set_aside
from probe.scenario.going import Ending
from probe.scenario.limits import Limits
from probe.scenario.plan import ENDLESS_NS, Plan
from probe.scenario.quantity import seconds_text
from probe.scenario.run import run
from probe.scenario.signals import Signals
from probe.scenario.steps import changes_of
from probe.scenario.view import View

LOOK_S = 2.0
"""How often the scenario's file is looked at, and whether the run can go on."""
SOON_NS = 60 * NS
"""A run that fails so soon is not begun anew: whoever started this one may try again, and less often."""
JUMP_NS = NS
"""The wall clock may be so far from where the run's own has come: rows are told by it."""
MOST_GONE = 256
"""Series of pods that are gone, which cost memory and time for as long as their run goes on."""
FULL = 0.9
"""Of the room for series."""
BEGUN = "begun anew"
"""The fact that says why a run began."""


class Told(Protocol):
    """Who hears of what becomes of the runs."""

    def begins(self, reason: Reason) -> None:
        """A run begins."""

    def reloaded(self, good: bool) -> None:
        """The scenario was read again."""

    def noted(self, text: str) -> None:
        """A sentence for the person."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What one run is made with. over: called once it is over, and its file whole."""

    view: View
    engine: Engine
    cluster: Cluster | None
    over: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for. file: of the scenario; read: it, as a plan that is without_end(); parts: for a run of a plan,
    and why it begins. path: the run file; keep_ns: how much of the run it keeps. limits: as run() has them.
    """

    file: Path
    read: Callable[[], Plan]
    parts: Callable[[Plan, Reason], Parts]
    path: Path
    keep_ns: int
    limits: Limits | None
    command: str


def without_end(plan: Plan) -> Plan:
    """The plan as it is asked for months. UsageError if it changes something, or would take all there is."""
    if changes := changes_of(plan.steps):
        raise UsageError(
            f"{plan.name} changes the cluster ({', '.join(changes)}): serve changes nothing: say `dnsprobe run`"
        )
    for lane in plan.lanes:
        if not lane.shape.scheduled:
            place = plan.places.get(lane.name, f"lane {lane.name}")
            raise UsageError(f"{place}: serve goes on for months, by a schedule: give the lane a rate")
    return replace(plan, duration_ns=ENDLESS_NS, steps=(), abort_on=())


class Serving:
    """The runs. Signals: SIGTERM and Ctrl-C end them in order, SIGHUP has the scenario read again."""

    def __init__(self, asked: Asked, told: Told) -> None:
        self._asked, self._told = asked, told
        self._plan = self._asks = asked.read()
        """The last one that could be asked; and that which is asked now."""
        self._next: Plan | None = None
        self._stamp = _stamp_of(asked.file)
        self._going: _Going | None = None
        self._over = False

    async def to_the_end(self) -> None:
        """Until a signal. EnvironmentProblem if a run cannot begin, or fails within a minute."""
        signals = Signals(self._end, self._reload)
        looking = asyncio.create_task(self._look())
        reason, why = Reason.START, ""
        try:
            while not self._over:
                self._told.begins(reason)
                signals.meaning = self._end
                reason, why = await self._one(reason, why, signals)
                signals.meaning = self._end
        finally:
            looking.cancel()
            signals.close()

    async def _one(self, reason: Reason, why: str, signals: Signals) -> tuple[Reason, str]:
        """One run; why the next one begins."""
        asked, last = self._asked, self._plan
        plan, self._next = self._next or last, None
        self._asks = plan
        set_aside(asked.path, asked.keep_ns)
        began = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {reason}{f': {why}' if why else ''}"
        facts = {**plan.facts, KEPT: f"the last {seconds_text(asked.keep_ns)}", BEGUN: began}
        try:
            parts = asked.parts(plan, reason)
            self._going = going = _Going(parts.engine)
            ending = await run(
                *(replace(plan, facts=facts), asked.path, parts.view, parts.engine, parts.cluster, asked.command),
                idle=False,  # a worker that is started later would inherit it
                limits=asked.limits,
                job=going,
                keep_ns=asked.keep_ns,
                signals=signals,
            )
        except asyncio.CancelledError:
            self._over = True
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            return Reason.START, ""
        except DnsprobeError as problem:
            if plan is last:
                raise
            self._refuse(str(problem))
            return Reason.RELOAD, "the last good one again"
        finally:
            self._going = None
        self._plan = plan
        parts.over()
        return self._after(ending, going)

    def _after(self, ending: Ending, going: _Going) -> tuple[Reason, str]:
        """What comes of a run that is over."""
        self._over = self._over or ending.interrupted
        if self._over or not ending.cut:
            return going.reason, going.why
        if going.lasted_ns < SOON_NS:
            raise EnvironmentProblem(f"{ending.cut}; it is not begun anew, for that was within {SOON_NS // NS} s")
        self._told.noted(f"{ending.cut}: the run begins anew")
        return Reason.WORKER if ending.died else Reason.CLUSTER, ending.cut

    def _end(self, _: str) -> None:
        self._over = True

    async def _look(self) -> None:
        """Every now and then: has the scenario changed, can the run go on."""
        while True:
            await asyncio.sleep(LOOK_S)
            stamp = _stamp_of(self._asked.file)
            if stamp != self._stamp:
                self._reload()
            if self._going:
                self._going.look()

    def _reload(self) -> None:
        """Read the scenario again: a good one is what the next run asks, which begins now."""
        self._stamp = _stamp_of(self._asked.file)
        try:
            plan = self._asked.read()
        except DnsprobeError as problem:
            self._refuse(str(problem))
            return
        self._told.reloaded(True)
        if plan == self._asks and not self._next:
            self._told.noted(f"{self._asked.file}: read again: nothing has changed")
            return
        self._next = plan
        self._told.noted(f"{self._asked.file}: read again")
        if self._going:
            self._going.begin_anew(Reason.RELOAD, f"{self._asked.file} was read again")

    def _refuse(self, problem: str) -> None:
        self._told.reloaded(False)
        self._told.noted(f"{problem}\nthe last good scenario goes on")


class _Going:
    """A run that goes on until it has to begin anew: it is told so as a Job's pods are told to stop."""

    source = "dnsprobe serve"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ends = asyncio.Event()
        self.reason, self.why = Reason.START, ""

    @property
    def lasted_ns(self) -> int:
        """Since its first query."""
        return self._engine.now_ns() if self._engine.t0_ns else 0

    def begin_anew(self, reason: Reason, why: str) -> None:
        """End in order; the first reason counts."""
        if not self._ends.is_set():
            self.reason, self.why = reason, why
            self._ends.set()

    def look(self) -> None:
        """Whether anything speaks against going on."""
        engine = self._engine
        if not engine.t0_ns or (now_ns := engine.now_ns()) < 0:
            return
        jumped_ns = time.time_ns() - engine.t0_unix_ns - now_ns
        gone, there = sum(s.stop_ns + s.timeout_ns < now_ns for s in engine.series), len(engine.series)
        if abs(jumped_ns) > JUMP_NS:
            self.begin_anew(Reason.CLOCK, f"the wall clock was set by {jumped_ns / NS:+,.1f} s since the run began")
        elif gone > MOST_GONE or (gone and there > FULL * engine.room):
            self.begin_anew(Reason.ROOM, f"{gone:,} of {there:,} series are of pods that are gone")
        elif engine.deaths and now_ns > SOON_NS:
            death = engine.deaths[0]
            self.begin_anew(Reason.WORKER, f"worker {death.worker} {death.why}")

    def facts(self) -> dict[str, str]:
        return {}

    async def start(self, index: int, of: int, say: Callable[[str], None]) -> int:
        raise NotImplementedError(f"{self.source}: nobody waits for {index} of {of}: {say}")

    async def told_to_stop(self, say: Callable[[str], None]) -> str:
        await self._ends.wait()
        say(self.why)
        return self.why

    async def stops(self, say: Callable[[str], None]) -> None:
        """Whoever said so knows."""

    async def close(self) -> None:
        """Nobody else is asked."""


def _stamp_of(file: Path) -> tuple[int, ...]:
    """Another one once there is another file, or other text in it: a ConfigMap's is a link that is put elsewhere."""
    with suppress(OSError):
        told = file.stat()
        return (told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns)
    return ()
