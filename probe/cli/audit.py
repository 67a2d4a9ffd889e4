"""A cluster, its objects in files or the lab in; what will break in the next CoreDNS upgrade, and the plan, out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import typer

from probe import audit as auditing
from probe.advice import platform_of
from probe.audit import CHECKS, Planned, Severity, Snapshot, Unread
from probe.audit.against import against as overwritten_since
from probe.audit.facts import facts_of, found_there
from probe.audit.files import read_files, write_text
from probe.audit.lab import lab_snapshot
from probe.audit.measured import Measured, measured, told
from probe.audit.migration import migrate as to_release
from probe.audit.plan import plan_of
from probe.audit.platform import detect
from probe.audit.things import Thing
from probe.cli import options
from probe.cli.files import check_file
from probe.cli.options import advising
from probe.cli.output import complain, say
from probe.cluster.images import choose_coredns, version_of
from probe.cluster.kube import named_service
from probe.cluster.kube.api import Api, connect
from probe.cluster.kube.programming import programmed
from probe.cluster.kube.snapshot import Objects, read, read_control_planes
from probe.errors import EXIT_ENVIRONMENT, EXIT_MISSED, EXIT_PASS, EnvironmentProblem, UsageError
from probe.live import Brief
from probe.model import NS, Finding
from probe.report.audit import Audited, audit_json, audit_junit, audit_markdown, audit_text, explained
from probe.report.units import plain
from probe.runfile import open_run
from probe.scenario.departures import base_plan
from probe.scenario.quantity import DAY_NS, duration_ns

EXAMPLES = options.examples(
    "dnsprobe audit --target-version 1.12.1",
    "dnsprobe audit --context prod --save before.yaml --from-run watch-upgrade.db",
    "dnsprobe audit --snapshot before.yaml --only C03,C05 --format markdown",
    "dnsprobe audit --against before.yaml",
    "dnsprobe audit --migrate --target-version 1.13.1",
    "dnsprobe audit --explain C05",
    "dnsprobe audit --lab --set lab.lameduck=0s",
)
_FORMATS = {"text": audit_text, "json": audit_json, "markdown": audit_markdown, "junit": audit_junit}
_FAIL_ON = {"fail": (Severity.FAIL,), "warn": (Severity.FAIL, Severity.WARN)}
_ASSUMED, _METRIC = 10.0, "kube-proxy"

Name = tuple[str, str]


def audit(
    snapshot: advising.SnapshotFiles = None,
    save: advising.SaveFile = "",
    context: advising.AuditContext = None,
    service: advising.AuditService = None,
    management_context: advising.ManagementContext = None,
    lab: advising.AuditLab = False,
    setting: advising.AuditSettings = None,
    target: advising.TargetVersion = "",
    vendor: advising.Vendor = "",
    propagation: advising.Late = "",
    from_run: advising.FromRun = "",
    against: advising.Against = None,
    only: advising.Only = None,
    skip: advising.Skip = None,
    explain: advising.ExplainCheck = "",
    fail_on: advising.FailOn = "fail",
    migrate: advising.Migrate = False,
    form: advising.AuditFormat = "text",
) -> None:
    """What will break in the next CoreDNS upgrade? Reads the cluster, changes nothing, and says what mends each point.

    Exit codes: 0 nothing fails, 1 something does, 4 no API, no right to read anything, or no cluster DNS found. With
    --migrate 1 is: a person has to decide.
    """
    if explain:
        say(explained(CHECKS[_check_of(explain)]).rstrip("\n"))
        return
    _check_words(form, fail_on, vendor)
    asked, passed = _ids(only), _ids(skip)
    planned = Planned(_target(target), vendor, *_late(propagation))
    run = open_run(from_run) if from_run else None
    given = options.given(snapshot=snapshot, context=context, management_context=management_context)
    check_file("--save", save, Path(from_run), *map(Path, [*(snapshot or ()), *(against or ())]))
    named = options.typed("--service", service, named_service) if service else None
    before = read_files([Path(one) for one in against], named) if against else None
    found, late = _found(Source(given, named, lab, setting or [], propagation == _METRIC))
    if save:
        _write(save, found)
    if migrate:
        raise typer.Exit(_migrate(found, planned.target))
    platform, sign = (vendor, "--vendor") if vendor else detect(found)
    seen_in = measured(run, platform) if run else None
    planned = replace(_joined(planned, late, seen_in), platform=platform)
    findings = auditing.audit(found, planned, asked, passed)
    changes = overwritten_since(before, found, platform) if before else None
    seen = Audited(
        findings=findings,
        facts=facts_of(found, planned, sign),
        exit_code=_exit_code(found, [*findings, *(changes or [])], _FAIL_ON[fail_on]),
        plan=() if asked or against else plan_of(found, planned, findings),
        changes=changes,
        measured=tuple(told(seen_in, found)) if seen_in else (),
        unread=found.unread,
        fails=_FAIL_ON[fail_on],
    )
    say(_FORMATS[form](seen).rstrip("\n"))
    raise typer.Exit(seen.exit_code)


def _migrate(snapshot: Snapshot, target: str) -> int:
    """Print the diff, with what a person has to decide as comments before it; 1 if there is such a thing."""
    if not target:
        raise UsageError("--migrate: say for which CoreDNS: --target-version 1.13.1")
    try:
        config, running = snapshot.config, snapshot.coredns_version
    except Unread as problem:
        raise EnvironmentProblem(f"--migrate: {problem}") from None
    if config is None:
        raise EnvironmentProblem(f"--migrate: there is no Corefile in {snapshot.namespace}")
    text = str(config.at("data[Corefile]"))
    found = to_release(text, running, target, snapshot.corefile_parts if "import" in text else {})
    say("".join([*(f"# {plain(str(change))}\n" for change in found.changes), found.diff]).rstrip("\n"))
    if not found.changes:
        complain(f"{config}: nothing to change for CoreDNS {target}")
    return EXIT_MISSED if found.unsupported else EXIT_PASS


# -- what was typed


def _check_words(form: str, fail_on: str, vendor: str) -> None:
    if form not in _FORMATS:
        raise UsageError(f"--format {form!r}: say {', '.join(_FORMATS)}")
    if fail_on not in _FAIL_ON:
        raise UsageError(f"--fail-on {fail_on!r}: say {', '.join(_FAIL_ON)}")
    if vendor:
        options.typed("--vendor", vendor, platform_of)


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


def _late(propagation: str) -> tuple[float, str]:
    """Seconds, and where they are from."""
    if propagation in ("", _METRIC):
        return _ASSUMED, ""
    return options.typed("--propagation", propagation, lambda text: duration_ns(text, 0, DAY_NS)) / NS, "--propagation"


def _joined(planned: Planned, late: tuple[float, str] | None, seen_in: Measured | None) -> Planned:
    """What was said comes before what was measured, and that before what is assumed."""
    if seen_in:
        planned = replace(planned, figures=seen_in.figures)
    if planned.measured:
        return planned
    if seen_in and seen_in.propagation is not None:
        return replace(planned, propagation=seen_in.propagation, measured=seen_in.said)
    return replace(planned, propagation=late[0], measured=late[1]) if late else planned


# -- what there is


@dataclass(frozen=True, slots=True)
class Source:
    """Where the objects are from: --snapshot, --context and --management-context as far as given, or the lab.

    metric: whether kube-proxy is asked how late it is.
    """

    given: dict[str, list[str] | str]
    named: Name | None
    lab: bool
    settings: list[str]
    metric: bool


def _found(source: Source) -> tuple[Snapshot, tuple[float, str] | None]:
    """The objects; the propagation, as the lab has it, or kube-proxy if it was to say it.

    UsageError for words that do not go together.
    """
    files = "snapshot" in source.given
    if source.lab and (source.given or source.named or source.metric):
        raise UsageError("--lab: there is no cluster and no file then")
    if files and ("context" in source.given or source.metric):
        raise UsageError("--snapshot: there is no cluster to ask then")
    if source.settings and not source.lab:
        raise UsageError("--set goes with --lab: dnsprobe audit --lab --set lab.lameduck=0s")
    if source.lab:
        settings = base_plan(source.settings).lab
        coredns = choose_coredns(settings.coredns)
        late = max(delay.longest for delay in settings.propagation)
        version = asyncio.run(version_of(coredns)) if coredns else ""
        return lab_snapshot(settings, version), (late, "lab.propagation")
    if not files:
        return _live(source)
    found = read_files([Path(one) for one in source.given["snapshot"]], source.named)
    if "management_context" in source.given:
        planes = asyncio.run(_planes(str(source.given["management_context"])))
        found = replace(found, things=(*found.things, *_things(planes)), unread=_unread(found.unread, planes))
    return found, None


def _live(source: Source) -> tuple[Snapshot, tuple[float, str] | None]:
    """What the API has now; a line on a terminal tells how far that is."""
    view = Brief()
    try:
        objects, late = asyncio.run(_read(source, view))
    finally:
        view.end()
    taken = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return Snapshot(_things(objects), objects.unread, objects.version, taken, source.named, objects.source), late


def _things(objects: Objects) -> tuple[Thing, ...]:
    return tuple(Thing.of(body) for body in objects.things)


async def _read(source: Source, view: Brief) -> tuple[Objects, tuple[float, str] | None]:
    api = connect(str(source.given.get("context", "")))
    try:
        found = await read(api, source.named, view.noted)
        late = await _asked(api, found) if source.metric else None
    finally:
        await api.close()
    if "management_context" in source.given:
        planes = await _planes(str(source.given["management_context"]))
        found.things += planes.things
        found.unread = _unread(found.unread, planes)
    return found, late


async def _asked(api: Api, found: Objects) -> tuple[float, str]:
    pods = [str(one["metadata"]["name"]) for one in found.of("Pod")]
    return await programmed(api, [name for name in pods if name.startswith("kube-proxy")])


async def _planes(context: str) -> Objects:
    api = connect(context)
    try:
        return await read_control_planes(api)
    finally:
        await api.close()


def _unread(unread: Mapping[str, str], planes: Objects) -> dict[str, str]:
    return {kind: why for kind, why in unread.items() if kind != "KubeadmControlPlane"} | planes.unread


def _write(name: str, snapshot: Snapshot) -> None:
    try:
        Path(name).write_text(write_text(snapshot, name), encoding="utf-8")
    except OSError as problem:
        raise EnvironmentProblem(f"--save {name}: cannot be written: {problem.strerror}") from None
    complain(f"{len(snapshot.things):,} objects are in {name}")


def _exit_code(snapshot: Snapshot, findings: Sequence[Finding], fails: Sequence[Severity]) -> int:
    """4 where nothing could be judged: no right to read anything, or no cluster DNS there."""
    if any(one.severity in fails for one in findings):
        return EXIT_MISSED
    judged = any(one.severity != Severity.UNKNOWN for one in findings) or not findings
    try:
        there = bool(found_there(snapshot))
    except Unread:
        there = True
    return EXIT_PASS if judged and there else EXIT_ENVIRONMENT
