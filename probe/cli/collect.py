"""A Job's name in; the run files of its pods put together, their report, and the verdict's exit code out."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from probe.cli import options
from probe.cli.files import check_json
from probe.cli.options import asking, reporting
from probe.cli.output import complain
from probe.cli.reports import check_format, print_report
from probe.cluster.kube.jobs import JobPods
from probe.collect.pods import Left, collected
from probe.collect.together import put_together
from probe.errors import UsageError
from probe.runfile import open_run
from probe.scenario.linger import PORT
from probe.scenario.quantity import port_of
from probe.scenario.run import check_path
from probe.scenario.signals import Signals, cancelling

EXAMPLES = options.examples(
    "dnsprobe collect job/watch-upgrade -o run.db",
    "dnsprobe collect job/load -n testing --context staging -o load.db --format json",
)


def collect(
    job: Annotated[str, typer.Argument(help="The Job whose pods probe: job/NAME.", show_default=False)],
    out: options.MergedFile,
    namespace: options.Namespace = "dnsprobe",
    context: options.Context = None,
    http: asking.HttpPort = str(PORT),
    form: reporting.Format = "text",
    json_file: options.JsonFile = "",
) -> None:
    """Wait for a Job's probers, take their run files, fill from their logs what is gone, and report it as one run.

    It may be started while the Job runs, and again: what was fetched is kept in OUT.parts.
    """
    check_format(form)
    path, port = Path(out), options.typed("--http", http, port_of)
    check_path(path)
    check_json(json_file, path)
    name = options.job_of(job)
    folder = path.with_name(f"{path.name}.parts")
    folder.mkdir(exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise UsageError(f"{folder}: is a link, or somebody else's folder; choose a file elsewhere with -o")
    try:
        found, zones, whence = asyncio.run(_collected(name, namespace, context or "", folder, port))
    finally:
        if kept := sorted(file.name for file in folder.iterdir()):
            complain(f"{folder}: {', '.join(kept)}")
        else:
            folder.rmdir()
    put_together(found, path, options.command_line(), zones, whence, complain)
    raise typer.Exit(print_report(open_run(path), form, json_file))


async def _collected(
    name: str, namespace: str, context: str, folder: Path, port: int
) -> tuple[list[Left], dict[str, str], str]:
    signals = Signals(cancelling())
    pods = JobPods(name, namespace, context)
    try:
        return await collected(pods, folder, port, complain), await pods.zones(), pods.whence
    finally:
        signals.close()
        await pods.close()
