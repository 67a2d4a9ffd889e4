"""A plan, a cluster if it needs one, a path -> queries and steps go out, everything seen is in the run file."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from probe import __version__
from probe.clients.asking import Lookups
from probe.cluster import Cluster, Extent, Meter, Planned
from probe.cluster.clock import PodClock
from probe.cluster.meters import Readings
from probe.cluster.zone import DOMAIN
from probe.engine import Engine
from probe.errors import UsageError
from probe.host import Host
from probe.model import Interval, Mark
from probe.runfile import Head, RunWriter
from probe.scenario.clients import resolvers_ask
from probe.scenario.domain import in_domain
from probe.scenario.going import Ending, Going, Siblings, set_priority
from probe.scenario.headless import with_endpoints
from probe.scenario.limits import Limits
from probe.scenario.plan import Plan, Whom, first_series, rated
from probe.scenario.preflight import Looked
from probe.scenario.preflight import look as look_for_interception
from probe.scenario.ready import ReadyFile
from probe.scenario.recent import BASELINE
from probe.scenario.signals import Signals, cancelling
from probe.scenario.start import wait_for
from probe.scenario.steps import STEPS, changes_of
from probe.scenario.taking import MOST_NS, with_baseline
from probe.scenario.view import View


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
    limits: Limits | None = None,
    job: Siblings | None = None,
    together: bool = False,
    ready: ReadyFile | None = None,
    keep_ns: int = 0,
    signals: Signals | None = None,
) -> Ending:
    """Run a plan to its end, to Ctrl-C, SIGTERM or SIGHUP, or to the worker's death.

    idle: this process gets idle priority meanwhile, which it may not be permitted to leave again: not where it is to
    start another run. at_unix_ns: when t0 is to be (default at once). limits: of the load on what the cluster says is
    there, None for none. job: whose pod this is; it ends the run in order when it is told to stop.
    together: t0 is what the job's pods agree on. ready: written once the baseline was clean. keep_ns: what is older is
    taken out of the file meanwhile; 0: nothing is. signals: of who starts one run after the other.

    DnsprobeError and CancelledError (Ctrl-C) only before the first query; from then on the run file is finished and
    kept whatever happens.
    """
    check_path(path)
    changes = [(step.word, step.text) for step in plan.steps if STEPS[step.word].changes]
    if cluster:
        for word, value in changes:
            cluster.check(word, value)
    async with AsyncExitStack() as stack:
        if signals:
            signals.meaning = cancelling()
        else:
            signals = Signals(cancelling())
            stack.callback(signals.close)
        clock = PodClock()
        if job:
            stack.push_async_callback(job.close)
        if ready:
            stack.callback(ready.close)
        if cluster:
            view.noted("starting the cluster")
            stack.push_async_callback(cluster.stop)
            await cluster.start()
            stack.push_async_callback(clock.stop)
            await clock.start(cluster.namespaces[0])
            _note(await cluster.plan(changes), cluster.facts(), view)
        facts = cluster.facts() if cluster else {}
        namespaces = cluster.namespaces if cluster else ("",)
        targets = cluster.targets if cluster else lambda _: []
        asked, plan = await _as_it_is_there(plan, targets, cluster, view)
        series = first_series(plan, targets)
        limits = limits and limits.within(cluster.extent() if cluster else Extent())
        if limits:
            limits.check(series, plan.lookups(targets))
        looking = asyncio.create_task(look_for_interception(series, cluster, facts.get("zone") or DOMAIN))
        stack.callback(looking.cancel)
        stack.push_async_callback(engine.close)
        await engine.start(series, plan.longest_timeout_ns, namespaces)
        looked = await looking
        _tell(looked, view)
        facts |= resolvers_ask(plan.clients, lambda selector: plan.targets(selector, targets)) | looked.facts
        lookups = await _lookups(stack, plan, targets, namespaces[0], view)
        at_unix_ns = await _awaited(job if together else None, plan, at_unix_ns, view)
        engine.begin(at_unix_ns)
        head = Head(
            name=plan.name,
            started_unix_ns=engine.t0_unix_ns,
            planned_ns=asked.duration_ns,
            command=command,
            scenario=plan.scenario,
            objectives=plan.objectives,
            facts={**plan.facts, **_versions(), **engine.facts(), **facts, **(job.facts() if job else {})},
        )
        writer = RunWriter.create(path, head, keep_ns)
        # Children inherit the priority: lab, worker and clock are running already. The file is there: on a machine
        # without an idle core it could be missing for seconds.
        if idle:
            set_priority("SCHED_IDLE")
            stack.callback(set_priority, "SCHED_OTHER")
        for lane, text in looked.found.items():
            writer.mark(Mark(0, "intercepted", text, "preflight", lane))  # a log has marks, and no intervals
            writer.interval(Interval(0, plan.duration_ns, "intercepted", text, "preflight", lane))
        host = Host(asks="" in namespaces)
        own = [Meter("host", "prober")] if "" in namespaces else []
        readings = Readings(lambda: [*own, *(cluster.meters() if cluster else [])], namespaces[0])
        going = Going(plan, asked, engine, writer, view, cluster, clock, host, readings, lookups, limits, job, ready)
        signals.meaning = going.interrupt
        stack.callback(view.end)
        view.begin(asked)
        going.add(series)
        for silent in [lane for lane in plan.lanes if lane.name not in {one.lane for one in series}]:
            going.leave_out(silent)
        return await going.to_the_end()


async def _lookups(stack: AsyncExitStack, plan: Plan, targets: Whom, home: str, view: View) -> Lookups:
    """The plan's clients, who ask the first of their target, as a pod's resolv.conf names one, from `home`."""
    lookups = Lookups()
    if plan.clients:
        stack.push_async_callback(lookups.stop)
        asked = plan.targets(plan.clients.target, targets)[:1]
        for one in asked:
            await lookups.start(plan.clients, ((one.address, one.port),), one.vantage or home)
        if not asked:
            view.noted(f"clients: nothing stands behind target {plan.clients.target} at the start: they ask nobody")
    return lookups


def _note(planned: Iterable[Planned], facts: Mapping[str, str], view: View) -> None:
    notes = [facts["warning"]] if "warning" in facts else []
    for note in [*notes, *(note for step in planned for note in step.notes)]:
        view.noted(f"note: {note}")


def _tell(looked: Looked, view: View) -> None:
    for text in dict.fromkeys(looked.found.values()):
        view.noted(text)


async def _as_it_is_there(plan: Plan, targets: Whom, cluster: Cluster | None, view: View) -> tuple[Plan, Plan]:
    """The plan as it is asked where it is to run; and the same, as long as that may take."""
    if cluster:
        plan = in_domain(plan, cluster.extent(), view.noted)
    plan = rated(await with_endpoints(plan, cluster, view.noted), targets)
    if not (cluster and cluster.in_use and changes_of(plan.steps)):
        return plan, plan
    asked = with_baseline(plan)
    if asked != plan:
        view.noted(f"before anything is changed, {BASELINE:g} s of baseline are asked")
    return asked, replace(asked, duration_ns=asked.duration_ns + MOST_NS)  # the steps' own end comes before


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


async def _awaited(job: Siblings | None, plan: Plan, at_unix_ns: int | None, view: View) -> int | None:
    """The instant at which the run is to begin, a moment before it: as the job's pods agree, or as told; None: now."""
    if job:
        at_unix_ns = await job.start(plan.share.index, plan.share.of, view.noted)
    if at_unix_ns is not None:
        await wait_for(at_unix_ns, view.noted)
    return at_unix_ns


def _versions() -> Mapping[str, str]:
    return {"dnsprobe": __version__, "python": platform.python_version(), "kernel": platform.release()}
