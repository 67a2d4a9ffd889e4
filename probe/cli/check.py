"""A cluster, the lab or a pod's resolv.conf in; one screen about every path to DNS, or JSON, out."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import typer

from probe.advice.checkup import Checkup
from probe.cli import options
from probe.cli.output import say
from probe.cluster.kube import Kube, named_service
from probe.cluster.lab import Lab
from probe.diagnosis.checked import causes_of, exit_code_of
from probe.errors import EXIT_INTERRUPTED, UsageError
from probe.live import Brief
from probe.report.check import check_json, check_text
from probe.scenario.checkup import Check, base_plan
from probe.scenario.run import check_path

EXAMPLES = options.examples(
    "dnsprobe check",
    "dnsprobe check --context prod --format json",
    "dnsprobe check --lab --set lab.upstream=silent",
    "kubectl run dnsprobe --rm -it --restart=Never --image=IMAGE -- check",
    "kubectl debug -it POD --image=IMAGE -- dnsprobe check",
)
_FORMATS = {"text": check_text, "json": check_json}
_MEMORY = Path("/dev/shm")  # noqa: S108  a folder of our own is made in it
"""Where a run file can be written though the root file system is read-only, as in hardened pods."""


def check(
    lab: options.InLab = False,
    context: options.Context = None,
    service: options.ServiceName = None,
    setting: options.Settings = None,
    form: options.CheckFormat = "text",
    out: options.KeptFile = "",
) -> None:
    """What is broken right now? Asks every path to cluster DNS for 4 s, changes nothing, and says what to do next.

    In a pod without rights it goes by that pod's resolv.conf, and says what that means. Exit codes: 0 all fine,
    1 something is broken, 3 it cannot be said, 4 no API.
    """
    if form not in _FORMATS:
        raise UsageError(f"--format {form!r}: say {', '.join(_FORMATS)}")
    told = options.given(context=context, service=service)
    if lab and told:
        raise UsageError(f"--{', --'.join(told)}: goes with a real cluster: with --lab")
    if setting and not lab:
        raise UsageError("--set goes with --lab: dnsprobe check --lab --set lab.upstream=silent")
    base = base_plan(setting or [])
    named = options.typed("--service", service, named_service) if service else None
    one = Check(Lab(base.lab), base, resolver=None) if lab else Check(Kube(context or "", named), base, context or "")
    if out:
        check_path(Path(out))
    seen, interrupted = _made(one, out)
    if interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    causes = causes_of(seen)
    say(_FORMATS[form](seen, causes).rstrip("\n"))
    raise typer.Exit(exit_code_of(seen, causes))


def _made(one: Check, out: str) -> tuple[Checkup, bool]:
    """The check, its run file kept at `out` or nowhere."""
    view = Brief()
    folder = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="dnsprobe-check-", dir=folder) as scratch:
        try:
            return asyncio.run(one.made(Path(out) if out else Path(scratch) / "run.db", view, options.command_line()))
        finally:
            view.end()
