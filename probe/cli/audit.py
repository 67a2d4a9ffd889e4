"""A cluster, its objects in files or the lab in; what will break in the next CoreDNS upgrade, and the plan, out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import typer

from probe import audit as auditing
from probe.advice import platform_of
from probe.audit import CHECKS, Planned, Severity, Snapshot, Unread
from probe.audit.against import against as overwritten_since
from probe.audit.files import read_files, write_text
from probe.audit.measured import measured, told
from probe.audit.plan import plan_of
from probe.audit.platform import detect
from probe.audit.things import Thing
from probe.cli import options
from probe.cli.output import check_file, complain, say
from probe.cluster.kube import named_service
from probe.cluster.kube.api import connect
from probe.cluster.kube.snapshot import Objects, read, read_control_planes
from probe.errors import EXIT_ENVIRONMENT, EXIT_MISSED, EXIT_PASS, EnvironmentProblem, UsageError
from probe.live import Brief
from probe.model import NS, Finding
from probe.report.audit import Audited, audit_json, audit_junit, audit_markdown, audit_text, explained
from probe.runfile import open_run
from probe.scenario.quantity import DAY_NS, duration_ns

EXAMPLES = options.examples(
    "dnsprobe audit --target-version 1.12.1",
    "dnsprobe audit --context prod --save before.yaml --from-run watch-upgrade.db",
    "kubectl get all,configmaps,nodes -A -o yaml > cluster.yaml; dnsprobe audit --snapshot cluster.yaml --only C16",
    "dnsprobe audit --against before.yaml",
    "dnsprobe audit --explain C05",
)
_FORMATS = {"text": audit_text, "json": audit_json, "markdown": audit_markdown}
_FAIL_ON = {"fail": (Severity.FAIL,), "warn": (Severity.FAIL, Severity.WARN)}
_ASSUMED = "10s"


def audit(
    snapshot: options.SnapshotFiles = None,
    save: options.SaveFile = "",
    context: options.AuditContext = None,
    service: options.AuditService = None,
    management_context: options.ManagementContext = "",
    target: options.TargetVersion = "",
    vendor: options.Vendor = "",
    propagation: options.Late = "",
    from_run: options.FromRun = "",
    against: options.Against = None,
    only: options.Only = None,
    skip: options.Skip = None,
    explain: options.ExplainCheck = "",
    fail_on: options.FailOn = "fail",
    form: options.AuditFormat = "text",
) -> None:
    """What will break in the next CoreDNS upgrade? Reads the cluster, changes nothing, and says what mends each point.

    Exit codes: 0 nothing fails, 1 something does, 4 no API, or no cluster DNS found in it.
    """
    if explain:
        say(explained(CHECKS[_check_of(explain)]).rstrip("\n"))
        return
    if form not in (*_FORMATS, "junit"):
        raise UsageError(f"--format {form!r}: say {', '.join((*_FORMATS, 'junit'))}")
    if fail_on not in _FAIL_ON:
        raise UsageError(f"--fail-on {fail_on!r}: say {', '.join(_FAIL_ON)}")
    if snapshot and context is not None:
        raise UsageError("--context goes with a cluster: with --snapshot there is none")
    check_file("--save", save, Path())
    asked, passed = _ids(only), _ids(skip)
    named = options.typed("--service", service, named_service) if service else None
    wanted = _target(target)
    if vendor:
        options.typed("--vendor", vendor, platform_of)
    run = open_run(from_run) if from_run else None
    late = options.typed("--propagation", propagation or _ASSUMED, lambda text: duration_ns(text, 0, DAY_NS)) / NS
    found = (
        read_files([Path(one) for one in snapshot], named) if snapshot else _live(context, named, management_context)
    )
    if save:
        _write(save, found)
    platform, sign = (vendor, "--vendor") if vendor else detect(found)
    seen_in = measured(run, platform) if run else None
    planned = Planned(wanted, platform, late, "--propagation" if propagation else "")
    if seen_in and seen_in.propagation is not None and not propagation:
        planned = Planned(wanted, platform, seen_in.propagation, seen_in.said)
    findings = auditing.audit(found, planned, asked, passed)
    changes = overwritten_since(read_files([Path(one) for one in against], named), found) if against else None
    seen = Audited(
        findings=findings,
        facts=_facts(found, planned, sign),
        exit_code=_exit_code(found, [*findings, *(changes or [])], fail_on),
        plan=() if asked or against else plan_of(found, planned, findings),
        changes=changes,
        measured=tuple(told(seen_in, found)) if seen_in else (),
        unread=found.unread,
    )
    said = audit_junit(seen, _FAIL_ON[fail_on]) if form == "junit" else _FORMATS[form](seen)
    say(said.rstrip("\n"))
    raise typer.Exit(seen.exit_code)


def _check_of(text: str) -> str:
    if text.upper() in CHECKS:
        return text.upper()
    raise UsageError(f"{text!r}: no check: say {', '.join(CHECKS)}")


def _ids(said: Sequence[str] | None) -> list[str]:
    """`C05,C16`, or one at a time."""
    return [_check_of(name.strip()) for text in said or () for name in text.split(",") if name.strip()]


def _target(text: str) -> str:
    if text and not re.fullmatch(r"v?[0-9]+\.[0-9]+\.[0-9]+", text):
        raise UsageError(f"--target-version {text!r}: say three numbers, such as 1.12.1")
    return text.removeprefix("v")


def _live(context: str | None, named: tuple[str, str] | None, management: str) -> Snapshot:
    """What the API has now; a line on a terminal tells how far that is."""
    view = Brief()
    try:
        objects = asyncio.run(_read(context or "", named, management, view))
    finally:
        view.end()
    taken = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    things = tuple(Thing.of(body) for body in objects.things)
    return Snapshot(things, objects.unread, objects.version, taken, named, objects.source)


async def _read(context: str, named: tuple[str, str] | None, management: str, view: Brief) -> Objects:
    api = connect(context)
    try:
        found = await read(api, named, view.noted)
    finally:
        await api.close()
    if management:
        beside = connect(management)
        try:
            planes = await read_control_planes(beside)
        finally:
            await beside.close()
        found.things += planes.things
        found.unread = {k: v for k, v in found.unread.items() if k != "KubeadmControlPlane"} | planes.unread
    return found


def _write(name: str, snapshot: Snapshot) -> None:
    try:
        Path(name).write_text(write_text(snapshot, name), encoding="utf-8")
    except OSError as problem:
        raise EnvironmentProblem(f"--save {name}: cannot be written: {problem.strerror}") from None
    complain(f"{len(snapshot.things):,} objects are in {name}")


def _exit_code(snapshot: Snapshot, findings: Sequence[Finding], fail_on: str) -> int:
    """4 where nothing could be judged: no right to read anything, or no cluster DNS there."""
    if any(one.severity in _FAIL_ON[fail_on] for one in findings):
        return EXIT_MISSED
    judged = any(one.severity != Severity.UNKNOWN for one in findings) or not findings
    return EXIT_PASS if judged and _there(snapshot) != "" else EXIT_ENVIRONMENT


def _there(snapshot: Snapshot) -> str:
    """What makes the pods of cluster DNS, and how many others could be meant; '' if there is neither that nor a
    Service."""
    try:
        first, *others = [f"{one}" for one in snapshot.candidates] or [str(snapshot.service or "")]
    except Unread as problem:
        return f"not read: {problem}"
    return first + (
        f"; also {', '.join(others)}: which of them answers is up to the Service's selector" if others else ""
    )


def _facts(snapshot: Snapshot, planned: Planned, sign: str) -> dict[str, str]:
    """As a report shows them."""

    def seen(look: object) -> str:
        try:
            return str(look() or "") if callable(look) else ""
        except Unread as problem:
            return f"not read: {problem}"

    def proxy() -> str:
        said = snapshot.proxy
        return ", ".join(filter(None, (said.mode or "no kube-proxy was found", said.version, said.problem)))

    version = seen(lambda: snapshot.coredns_version)
    return {
        "from": snapshot.source + (f", {snapshot.taken}" if snapshot.taken else ""),
        "cluster DNS": _there(snapshot) or "none was found: no Service, Deployment or DaemonSet of CoreDNS or kube-dns",
        "service": seen(lambda: snapshot.service),
        "CoreDNS": f"{version} -> {planned.target}" if version and planned.target else version or planned.target,
        "kubernetes": snapshot.version,
        "kube-proxy": seen(proxy),
        "platform": f"{planned.platform} ({sign})" if sign else f"{planned.platform} (no sign of another: --vendor)",
        "propagation": f"{planned.propagation:.3g} s, {planned.measured or 'assumed: --propagation, --from-run'}",
    }
