"""--yes, --cluster, --allow-outage -> what a run may change; a plan, a real cluster -> what it would change there."""

from __future__ import annotations

from dataclasses import dataclass

from probe.cli.output import complain
from probe.cluster import Extent, Planned
from probe.cluster.kube import Kube
from probe.cluster.kube.acting import Permission
from probe.errors import EXIT_USAGE, UsageError
from probe.model import Target
from probe.scenario.plan import CLUSTER_TARGETS, Plan
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
    """What there is for a plan to ask and to change, as it is now. names: what --cluster may say."""

    behind: dict[str, list[Target]]
    extent: Extent
    planned: list[Planned]
    names: list[str]

    def targets(self, selector: str) -> list[Target]:
        """Who stands behind a lane's target."""
        return self.behind.get(selector, [])


async def look(plan: Plan, cluster: Kube) -> Found:
    """Ask no query, change nothing."""
    changes = [(step.word, step.text) for step in plan.steps if STEPS[step.word].changes]
    for word, value in changes:
        cluster.check(word, value)
    try:
        await cluster.start()
        planned = await cluster.plan(changes)
        behind = {
            target: cluster.targets(target) for target in {lane.target for lane in plan.lanes} & {*CLUSTER_TARGETS}
        }
        return Found(behind, cluster.extent(), planned, await cluster.names() if changes else [])
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
            lines += [f"      {note}" for note in change.notes]
            lines += [f"      can leave no ready endpoint: {change.outage}"] * bool(change.outage)
    return lines


def refuse(found: Found) -> int:
    """Say which words are missing; the exit code."""
    words = ["--yes", f"--cluster {found.names[0]}"]
    words += ["--allow-outage"] * any(change.outage for change in found.planned)
    complain(f"nothing was asked or changed: this would change a real cluster: add {' '.join(words)}")
    return EXIT_USAGE
