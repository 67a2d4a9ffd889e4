"""A plan's steps and a cluster -> each step taken when it is due, and, where people depend on it, all taken back.

Such a cluster is changed only after a clean baseline, and asked until what was changed is as it was.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from probe.cluster import Cluster, Undone
from probe.errors import DnsprobeError, EnvironmentProblem
from probe.model import NS, Mark
from probe.scenario.awaiting import Look, look
from probe.scenario.plan import Plan
from probe.scenario.recent import BASELINE, Recent
from probe.scenario.steps import STEPS, Step, take, waited_ns

LATE_NS = NS // 5
"""A step that is taken so much later than it was due says so."""
PATIENCE = 90.0
"""Seconds for which a clean baseline is waited for, once it should have been seen."""
SETTLES, HURRIES = 300.0, 20.0
"""Seconds for which a rollout that the undo started is waited for; in a hurry: a pod gets 30 s or so to end."""
_SEEN = 2.0
"""Seconds until a watch has told of what was asked for."""
MOST_NS = 900 * NS
"""How much longer than planned a run may go on, for a clean baseline, pods that load a Corefile, and the undo."""
_POLL_S = 0.2
_LOOK_NS = NS // 5
T = TypeVar("T")


def with_baseline(plan: Plan) -> Plan:
    """The plan with so much of baseline before its first change that this one can be permitted."""
    first = next(n for n, step in enumerate(plan.steps) if STEPS[step.word].changes)
    more_ns = max(0, round(BASELINE * NS) - waited_ns(plan.steps[:first]))
    steps = (*plan.steps[:first], *[Step("wait", ns=more_ns)] * (more_ns > 0), *plan.steps[first:])
    return replace(plan, steps=steps, duration_ns=plan.duration_ns + more_ns)


class Taking:
    """Steps that are taken. now_ns: since t0; mark: gets what was done; noted: what a person should know;
    waits: what is waited for now."""

    def __init__(
        self,
        plan: Plan,
        cluster: Cluster | None,
        recent: Recent,
        now_ns: Callable[[], int],
        mark: Callable[[Mark], None],
        noted: Callable[[str], None],
        waits: Callable[[str], None],
    ) -> None:
        self._plan, self._cluster, self._recent = plan, cluster, recent
        self._now_ns, self._mark, self._noted, self._waits = now_ns, mark, noted, waits
        self._ending = asyncio.Event()
        self._later_ns = 0
        self.changed = False
        """Something may have to be taken back, or to settle."""
        self.failed = False
        """A step could not be taken, or not be taken back."""
        self._mended = False
        self._hurried_ns = math.inf
        self.left = [step for step in plan.steps if STEPS[step.word].changes]
        """Those that are not taken yet."""
        self.awaited = Look("")
        """What is waited for, as it stands."""
        self.came = ""
        """What was waited for last, once all steps are taken: the run ends with it."""

    @property
    def lasts(self) -> bool:
        """Whether the run ends when this says so, and not by its schedule."""
        return bool(self._cluster and self._cluster.in_use and any(STEPS[s.word].changes for s in self._plan.steps))

    def end(self) -> None:
        """No more steps; what waits for something waits no longer."""
        self._ending.set()

    def hurry(self) -> None:
        """What has to settle is waited for HURRIES seconds from now on, no longer."""
        self._hurried_ns = min(self._hurried_ns, self._now_ns())

    async def steps(self) -> str:
        """Take all of them, until the plan's end; why the run cannot go on, or ''."""
        due_ns, came = 0, ""
        for step in self._plan.steps:
            due_ns += step.ns if step.word == "wait" else 0
            if await self._until(due_ns + self._later_ns) or step.word == "wait":
                continue
            if step.word == "wait_for" and self._cluster:
                came = await self._wait_for_rollout(self._cluster, step.ns)
                due_ns = max(due_ns, self._now_ns() - self._later_ns)
                continue
            try:
                if self.lasts and STEPS[step.word].changes and not self.changed:
                    await self._clean_baseline(due_ns + self._later_ns)
                await self._take(step, due_ns + self._later_ns)
            except DnsprobeError as problem:
                self.failed = True
                return f"its step `{step}`: {problem}"
            if self._ending.is_set():
                return ""
        if not self._ending.is_set():
            self.came = came
        if self.lasts and not came:
            await self._until(self._plan.duration_ns + self._later_ns)
        return ""

    async def _wait_for_rollout(self, cluster: Cluster, quiet_ns: int) -> str:
        """How it ended, once all is quiet; '' if the run ended before."""
        over_ns = self._plan.duration_ns + self._later_ns
        while not (seen := look(cluster.rollouts(), time.monotonic_ns(), quiet_ns)).over:
            self.awaited = seen
            self._waits(seen.text)
            if self._now_ns() >= over_ns or await self._until(self._now_ns() + _LOOK_NS):
                return ""
        self.awaited = Look("")
        self._waits("")
        self._mark(Mark(self._now_ns(), "waited", seen.text, "scenario"))
        return seen.text

    async def _take(self, step: Step, due_ns: int) -> None:
        at_ns = max(due_ns, self._now_ns())
        cluster = self._cluster if STEPS[step.word].changes else None
        self.changed |= bool(cluster and cluster.in_use)
        text = await self._unless_ending(take(step, cluster)) if cluster else step.text
        if text is None:
            return
        self.left = self.left[1:] if cluster else self.left
        late_ns = at_ns - due_ns
        late = f"; {late_ns / NS:.1f} s late: this machine had no time for it" if late_ns > LATE_NS else ""
        self._mark(Mark(at_ns, "step", f"{text}{late}", "scenario"))
        if cluster:  # it may have waited for pods
            self._later_ns += self._now_ns() - at_ns

    async def _clean_baseline(self, due_ns: int) -> None:
        """Wait until it was seen, without rows that we could not send; EnvironmentProblem if something was lost."""
        later_ns = self._later_ns
        given_up_ns = self._now_ns() + round(PATIENCE * NS) + self._plan.longest_timeout_ns
        while (why := self._recent.unclean(BASELINE)) and not self._ending.is_set():
            if self._recent.counts(seconds=BASELINE).lost or self._now_ns() > given_up_ns:
                raise EnvironmentProblem(f"the baseline is not clean: {why}: nothing was changed")
            await asyncio.sleep(_POLL_S)
            self._later_ns = later_ns + max(0, self._now_ns() - due_ns)

    async def undo(self) -> None:
        """Take back what was changed, and wait until it has settled. Asked again, it does what is left."""
        if not (self._cluster and self.changed) or self._mended:
            return
        try:
            undone = await self._undone(self._cluster)
        except DnsprobeError as problem:
            self.failed = True
            self._noted(f"what was changed is not taken back: {problem}; say dnsprobe undo")
            return
        for conflict in undone.conflicts:
            self.failed = True
            self._noted(f"not taken back: {conflict}")
        self._mended = True
        if undone.moves:
            await self._settle()
        self.changed = False

    async def _undone(self, cluster: Cluster) -> Undone:
        """The API may be away for a while."""
        given_up_ns = self._now_ns() + round(HURRIES * NS)
        while True:
            try:
                return await cluster.undo(self._taken_back)
            except EnvironmentProblem as problem:
                if self._now_ns() > given_up_ns:
                    raise
                self._noted(f"{problem}; tried again")
            await asyncio.sleep(_SEEN)

    def _taken_back(self, text: str) -> None:
        self._noted(f"taken back: {text}")
        self._mark(Mark(max(0, self._now_ns()), "step", f"undo: {text}", "scenario"))

    async def _settle(self) -> None:
        self._noted(f"pods come, go or reload for it: asking goes on until that is over, for at most {SETTLES:g} s")
        began_ns = self._now_ns()
        while (now_ns := self._now_ns()) < min(began_ns + SETTLES * NS, max(began_ns, self._hurried_ns) + HURRIES * NS):
            if now_ns - began_ns >= _SEEN * NS and self._cluster and self._cluster.settled():
                return
            await asyncio.sleep(_POLL_S)
        self._noted("that is not over yet: look at kubectl rollout status")

    async def _until(self, due_ns: int) -> bool:
        """Wait; whether the run is ending meanwhile."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), max(0, due_ns - self._now_ns()) / NS)
        return self._ending.is_set()

    async def _unless_ending(self, doing: Coroutine[None, None, T]) -> T | None:
        """What comes of it; None if the run ended before."""
        task, ending = asyncio.ensure_future(doing), asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
            task.cancel()
            await asyncio.wait({task})
        return None if task.cancelled() else task.result()
