"""A Job's name in; its runs end in order, with their reports and verdicts, and a line for each pod out."""

from __future__ import annotations

import asyncio

from probe.cli import options
from probe.cli.output import say
from probe.cluster.kube.api import connect
from probe.cluster.kube.board import HOME
from probe.cluster.kube.stopping import stop_job
from probe.model import NS
from probe.scenario.quantity import duration_ns

EXAMPLES = options.examples("dnsprobe stop job/watch-upgrade", "dnsprobe stop job/watch-upgrade -n tools --wait 1m")


def stop(
    job: options.JobName,
    namespace: options.Namespace = HOME,
    context: options.Context = None,
    wait: options.StopWait = "30s",
) -> None:
    """End the runs of a Job with full reports: what was seen until now has its verdict.

    It is written on the Job's notice board, the ConfigMap dnsprobe-NAME; deleting its pods would lose their reports.
    """
    name = options.job_of(job)
    patience = options.typed("--wait", wait, duration_ns) / NS
    asyncio.run(_stop(name, namespace, context or "", patience))


async def _stop(name: str, namespace: str, context: str, patience: float) -> None:
    api = connect(context)
    try:
        async for text in stop_job(api, namespace, name, patience):
            say(text)
    finally:
        await api.close()
