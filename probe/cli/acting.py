"""--yes, --cluster, --allow-outage -> what a run may change; a plan, a real cluster -> what it would change there."""

from __future__ import annotations

from dataclasses import dataclass

from probe.cli.output import complain
from probe.cluster import Planned
from probe.cluster.kube import Kube
from probe.cluster.kube.acting import Permission
from probe.errors import EXIT_USAGE, UsageError
from probe.model import Series
from probe.scenario.limits import Limits
from probe.scenario.plan import Plan, first_series, rated
from probe.scenario.steps import STEPS, changes_of


def permitted(plan: Plan, lab: bool, yes: bool, name: str, *, allow_outage: bool) -> Permission | None:
    """What a person has said; UsageError for half of it, and where there is nothing to permit."""
    if not (yes or name or allow_outage):
        return None
    if lab or not changes_of(plan.steps):
        why = "the lab needs none" if lab else f"{plan.name} changes nothing"
        raise UsageError(f"--yes, --cluster and --allow-outage permit a change of a real cluster: {why}")
    return permission_of(yes, name, allow_outage=allow_outage)


def permission_of(yes: bool, name: str, *, allow_outage: bool = False) -> Permission | None:
    """--yes and --cluster go together."""
    if yes and not name:
        raise UsageError("--yes: say which cluster may be changed, too: --cluster NAME")
    return Permission(name, allow_outage) if yes else None


@dataclass(frozen=True, slots=True)
class Found:
    """What a plan would do in a cluster as it is now. plan: with its rates there; names: what --cluster may say."""

    plan: Plan
    series: list[Series]
    planned: list[Planned]
    names: list[str]


async def look(plan: Plan, cluster: Kube, limits: Limits) -> Found:
    """Ask no query, change nothing. UsageError if it would be more than is allowed."""
    changes = [(step.word, step.text) for step in plan.steps if STEPS[step.word].changes]
    for word, value in changes:
        cluster.check(word, value)
    try:
        await cluster.start()
        planned = await cluster.plan(changes)
        series = first_series(plan, cluster.targets)
        limits.within(cluster.extent()).check(series)
        names = await cluster.names() if changes else []
        return Found(rated(plan, cluster.targets), series, planned, names)
    finally:
        await cluster.stop()


def said_steps(plan: Plan, found: Found) -> list[str]:
    """Every step, with what it would send."""
    lines: list[str] = []
    planned = iter(found.planned)
    for step in plan.steps:
        lines.append(f"  {step}")
        if STEPS[step.word].changes:
            change = next(planned)
            lines += [f"      {command}" for command in change.commands]
            lines += [f"      can leave no ready endpoint: {change.outage}"] * bool(change.outage)
    return lines


def refuse(found: Found) -> int:
    """Say which words are missing; the exit code."""
    words = ["--yes", f"--cluster {found.names[0]}"]
    words += ["--allow-outage"] * any(change.outage for change in found.planned)
    complain(f"nothing was asked or changed: this would change a real cluster: add {' '.join(words)}")
    return EXIT_USAGE
