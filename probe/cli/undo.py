"""Records that acting runs left in a cluster -> what they changed, listed, or taken back."""

from __future__ import annotations

import asyncio

import typer

from probe.cli import options
from probe.cli.acting import permission_of
from probe.cli.output import complain, say
from probe.cluster.kube.acting import Permission, check_name, names_of, undo_command
from probe.cluster.kube.api import Api, connect
from probe.cluster.kube.patches import shown
from probe.cluster.kube.records import NAMESPACE, Record, mend, records
from probe.errors import EXIT_ENVIRONMENT, EXIT_PASS

EXAMPLES = options.examples("dnsprobe undo", "dnsprobe undo --yes --cluster prod-1", "dnsprobe undo --context staging")


def undo(context: options.Context = None, yes: options.UndoYes = False, cluster_name: options.ClusterName = "") -> None:
    """Take back what runs changed in a cluster and could not take back themselves: list it, and with --yes do it.

    Fields that hold another value now are left as they are, and said. Exit codes: 0 nothing is left, 4 something is.
    """
    raise typer.Exit(asyncio.run(_undo(context or "", permission_of(yes, cluster_name))))


async def _undo(context: str, permission: Permission | None) -> int:
    api = connect(context)
    try:
        if permission:
            await check_name(api, permission.cluster)
        found = await records(api)
        if not found:
            say("no run has left anything to take back")
            return EXIT_PASS
        if not permission:
            return await _list(api, found)
        left = [record.name for record in found if not await _mended(api, record)]
    finally:
        await api.close()
    for name in left:
        complain(
            f"once you have looked at what conflicts: set it as it should be, and"
            f" kubectl delete configmap -n {NAMESPACE} {name}"
        )
    return EXIT_ENVIRONMENT if left else EXIT_PASS


async def _list(api: Api, found: list[Record]) -> int:
    for record in found:
        say(f"{NAMESPACE}/{record.name}: {record.about}")
        for patch in reversed(record.patches):
            say(f"  would be taken back, where it holds our value: {patch.thing}: {shown(patch.backwards)}")
    complain(f"nothing was changed; if those runs have ended: {undo_command(api, (await names_of(api))[0])}")
    return EXIT_ENVIRONMENT


async def _mended(api: Api, record: Record) -> bool:
    """Whether nothing of it is left."""
    say(f"{NAMESPACE}/{record.name}: {record.about}")
    undone = await mend(api, record, lambda text: say(f"  taken back: {text}"))
    for conflict in undone.conflicts:
        complain(f"not taken back: {conflict}")
    if undone.moves:
        say("  pods come and go for it: kubectl rollout status")
    return not undone.conflicts
