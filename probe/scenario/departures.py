"""A cluster, how often -> pods deleted in turn while the Service is asked: a run file, and what these pods counted."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from probe.advice import serves_for
from probe.advice.propagation import Reading
from probe.cluster import Cluster, Extent, Happened, Meter, Planned, Rollout, Shutdown, Undone
from probe.cluster.scrape import requests_of
from probe.engine import Engine
from probe.errors import EnvironmentProblem, UsageError
from probe.model import NS, Target
from probe.scenario.file import read_scenario_text
from probe.scenario.going import Ending
from probe.scenario.plan import Plan
from probe.scenario.run import run as run_plan
from probe.scenario.steps import OLDEST, Step
from probe.scenario.view import View

SCENARIO = """\
# Measures how long nodes go on sending queries to a pod that was deleted.
# Changes: the oldest CoreDNS pod is deleted.
# Undone: none needed: the Deployment replaces it.
name: recommend
duration: 10s
lanes:
  - name: vip-udp-fresh
    target: service
    ports: fresh
    rate: 150 # 50 for each replica, up to 200
    nsid: true
    timeout: 1s
    questions: &names [kubernetes.default.svc.cluster.local]
  - name: pods # past the Service: until when a pod answers at all
    target: pods
    ports: fresh
    rate: 20
    nsid: true
    timeout: 1s
    questions: *names
"""
PER_POD = Fraction(50)
"""Queries a second through the Service for each replica: a pod is heard every 20 ms."""
MOST = Fraction(200)
"""Queries a second through one Service, however many replicas there are: with more, source ports would come again while
conntrack still sends them to the pod that goes, and it would be heard for too long."""

QUIET = 3.0
"""Seconds before a deletion in which every replica was Ready."""
AFTER = 2.0
"""Seconds for which a pod is watched after it should have stopped answering."""
STARTS = 10.0
"""Seconds in a plan for the replacement to become Ready."""
REFILLS = 120.0
"""Seconds after which a pod that is not replaced is a fault of the cluster."""

LEAST_SERVED = 10.0
"""Seconds for which a deleted pod must answer on a cluster that somebody uses."""

EVERY = 0.2
"""Seconds between two readings of a pod's counter."""
MOST_REPEATS = 20


def plan_of(shutdown: Shutdown, base: Plan, repeats: int) -> Plan:
    """As many deletions as asked for, each pod watched beyond its end."""
    delete, watch = Step("delete_pod", OLDEST), Step("wait", ns=round(_watched(shutdown) * NS))
    steps = (Step("wait", ns=round(QUIET * NS)), delete, *(watch, delete) * (repeats - 1))
    lasts = QUIET + _watched(shutdown) * repeats + (STARTS + QUIET) * (repeats - 1)
    rate = min(PER_POD * shutdown.replicas, MOST)
    lanes = tuple(replace(lane, rate=rate) if lane.target == "service" else lane for lane in base.lanes)
    return replace(base, steps=steps, duration_ns=round(lasts * NS), lanes=lanes)


def _watched(shutdown: Shutdown) -> float:
    """Seconds from a deletion until that pod need not be watched any more."""
    return serves_for(shutdown, shutdown.lameduck) + AFTER


def base_plan(settings: list[str]) -> Plan:
    """The scenario with `lab.NAME=VALUE` put in; ScenarioError or UsageError for what is none."""
    for setting in settings:
        if not setting.startswith("lab."):
            raise UsageError(f"--set {setting!r}: here the lab alone can be set: lab.lameduck=15s")
    return read_scenario_text("recommend", SCENARIO, settings)


def check(shutdown: Shutdown, harmless: bool) -> None:
    """EnvironmentProblem where deleting a pod could be an outage."""
    if shutdown.replicas < 2:
        raise EnvironmentProblem(
            "there is one replica: with none beside it nodes go on sending to a pod that ends, and then nobody answers:"
            " scale to 2 first"
        )
    served = serves_for(shutdown, shutdown.lameduck)
    if served < LEAST_SERVED and not harmless:
        raise EnvironmentProblem(
            f"a deleted pod answers for {served:g} s only (lameduck {shutdown.lameduck:g} s, preStop"
            f" {shutdown.pre_stop:g} s, grace period {shutdown.grace_period:g} s): deleting one could lose queries:"
            " set lameduck to 15s first and grace to 21 s at least, or say --propagation"
        )


@dataclass(slots=True)
class Careful:
    """A cluster that deletes a pod only while all replicas are Ready, and from then on reads that pod's counter."""

    inner: Cluster
    harmless: bool = False
    """Nobody depends on this cluster's DNS."""
    readings: dict[str, list[Reading]] = field(default_factory=dict)
    namespaces: tuple[str, ...] = ("",)
    in_use: bool = False
    _polls: list[asyncio.Task[None]] = field(default_factory=list)
    _deleted: float = -math.inf

    async def start(self) -> None:
        await self.inner.start()
        self.namespaces, self.in_use = self.inner.namespaces, self.inner.in_use
        check(self.shutdown(), self.harmless)

    async def stop(self) -> None:
        for poll in self._polls:
            poll.cancel()
        await asyncio.gather(*self._polls, return_exceptions=True)
        await self.inner.stop()

    def targets(self, selector: str) -> list[Target]:
        return self.inner.targets(selector)

    def happened(self) -> AsyncIterator[Happened]:
        return self.inner.happened()

    def meters(self) -> list[Meter]:
        return self.inner.meters()

    def facts(self) -> dict[str, str]:
        return self.inner.facts()

    def rollouts(self) -> list[Rollout]:
        return self.inner.rollouts()

    def ready_endpoints(self) -> int | None:
        return self.inner.ready_endpoints()

    async def headless(self, service: str, namespace: str) -> frozenset[str]:
        return await self.inner.headless(service, namespace)

    def extent(self) -> Extent:
        return self.inner.extent()

    def shutdown(self) -> Shutdown:
        return self.inner.shutdown()

    def check(self, word: str, value: str) -> None:
        self.inner.check(word, value)

    async def plan(self, steps: Sequence[tuple[str, str]]) -> list[Planned]:
        return await self.inner.plan(steps)

    async def undo(self, tell: Callable[[str], None]) -> Undone:
        return await self.inner.undo(tell)

    def settled(self) -> bool:
        return self.inner.settled()

    async def act(self, word: str, value: str) -> str:
        if word != "delete_pod":
            return await self.inner.act(word, value)
        await self._all_is_quiet()
        pods = {target.name: target for target in self.targets("pods")}
        name = await self.inner.act(word, value)
        self._deleted = time.monotonic()
        if name in pods:
            self._polls.append(asyncio.create_task(self._count(pods[name])))
        return name

    async def _all_is_quiet(self) -> None:
        """Until the pod before has ended and as many are Ready as there should be: for QUIET, if one was not yet."""
        shutdown = self.shutdown()
        free_from = self._deleted + _watched(shutdown)
        given_up = max(free_from, time.monotonic()) + REFILLS
        while (ready := len(self.targets("pods"))) < shutdown.replicas or time.monotonic() < free_from:
            if ready < shutdown.replicas:
                free_from = max(free_from, time.monotonic() + QUIET)
            if time.monotonic() > given_up:
                raise EnvironmentProblem(
                    f"{REFILLS:g} s after a pod should have been replaced {ready} of {shutdown.replicas} replicas are"
                    " Ready: look why the new one is not"
                )
            await asyncio.sleep(0.1)

    async def _count(self, pod: Target) -> None:
        """Read its counter until it is closed. Instants are CLOCK_MONOTONIC."""
        mine = self.readings.setdefault(pod.name, [])
        due = time.monotonic()
        with contextlib.suppress(OSError):
            while True:
                mine.append((time.monotonic_ns(), await requests_of(pod, self.namespaces[0])))
                due += EVERY
                await asyncio.sleep(due - time.monotonic())


async def measure(
    plan: Plan, cluster: Careful, path: Path, view: View, command: str = "", *, idle: bool = True
) -> tuple[Ending, dict[str, list[Reading]]]:
    """Run it, see probe.scenario.run: how that ended, and each deleted pod's readings, in ns since t0."""
    engine = Engine()
    ending = await run_plan(plan, path, view, engine, cluster, command, idle=idle)
    since = engine.t0_ns
    return ending, {pod: [(at - since, n) for at, n in mine] for pod, mine in cluster.readings.items()}
