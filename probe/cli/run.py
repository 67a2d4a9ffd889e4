"""A scenario, or a server, in; a run file and its report out."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from probe.book import by_type
from probe.cli import options
from probe.cli.acting import Found, look, permitted, refuse, said_steps
from probe.cli.files import check_json
from probe.cli.options import asking, reporting
from probe.cli.output import complain, say
from probe.cli.reports import check_format, print_report
from probe.cli.served import METRICS_AT, served
from probe.cli.sweep import Asked, sweep
from probe.cli.tables import drawn
from probe.cluster import Cluster
from probe.cluster.kube import Kube, named_service
from probe.cluster.kube.acting import Permission
from probe.cluster.kube.api import connect
from probe.cluster.kube.membership import JOB, NAMESPACE, Membership
from probe.cluster.lab import Lab
from probe.cluster.nearest import Nearest
from probe.engine import Engine, EngineOptions
from probe.errors import (
    EXIT_ENVIRONMENT,
    EXIT_INCONCLUSIVE,
    EXIT_INTERRUPTED,
    EXIT_PASS,
    EnvironmentProblem,
    UsageError,
)
from probe.host import most_tracked
from probe.live import Telling, Together, fitting_view
from probe.report.units import plain
from probe.runfile import open_run
from probe.scenario.abort import read_rule
from probe.scenario.adhoc import Options, plan_of
from probe.scenario.cells import read_matrix
from probe.scenario.domain import in_domain
from probe.scenario.file import read_scenario
from probe.scenario.limits import CEILING, MOST_EXTERNAL, NODES, Limits, nodes_of
from probe.scenario.load import ceiling_of, load_text
from probe.scenario.matrix import jobs_of, repeats_of
from probe.scenario.plan import (
    Plan,
    check_load,
    checked_objective,
    expected_series,
    expected_targets,
    first_series,
    planned_text,
    rated,
)
from probe.scenario.quantity import seconds_text, whole
from probe.scenario.ready import ReadyFile
from probe.scenario.run import check_path
from probe.scenario.run import run as run_plan
from probe.scenario.start import JOB_COMPLETIONS, JOB_INDEX, TOGETHER, pod_facts, shard_of, start_of, workers_of
from probe.scenario.steps import STEPS, changes_of, undo_of
from probe.scenario.taking import with_baseline
from probe.verdict import fail_condition

EXAMPLES = options.examples(
    "dnsprobe run scale-down --lab",
    "dnsprobe run scale-down --lab --set lab.lameduck=0s --set lab.proxy_mode=ipvs",
    "dnsprobe run my.yaml --lab --dry-run",
    "dnsprobe run my-matrix.yaml --lab --repeats 5 -o sweep.db",
    "dnsprobe run -s 127.0.0.1 -p 5353 -d names.txt -Q 1000 -l 30 -o run.db",
    "dnsprobe run -s 10.96.0.10 -n example.com --type A --type AAAA -m tcp --ports reused --json -",
    "dnsprobe run -s 10.96.0.10 -n nothing.example.com --expect nxdomain --fail 'p99 > 50ms'",
    "dnsprobe run my.yaml -T 2 --shard 0/4 --start-at 2026-11-21T04:30:00Z -o shard0.db",
)


def run(
    scenario: asking.ScenarioName = "",
    server: asking.Servers = None,
    port: asking.Port = None,
    data: asking.Data = None,
    name: asking.Names = None,
    qtype: asking.Types = None,
    expect: asking.Expected = None,
    search: asking.Suffixes = None,
    ndots: asking.Ndots = None,
    external: asking.External = None,
    edns: asking.EdnsSize = None,
    dnssec: asking.Dnssec = None,
    nsid: asking.Nsid = None,
    rate: asking.Rate = None,
    ramp: asking.Ramp = None,
    arrivals: asking.Arrivals = None,
    max_inflight: asking.Inflight = None,
    length: asking.Length = None,
    timeout: asking.Timeout = None,
    transport: asking.Transport = None,
    ports: asking.SourcePorts = None,
    pair: asking.Pair = None,
    gso: asking.Gso = None,
    lab: options.InLab = False,
    context: options.Context = None,
    service: options.ServiceName = None,
    per_node: asking.PerNode = None,
    yes: asking.Yes = False,
    cluster_name: options.ClusterName = "",
    allow_outage: asking.AllowOutage = False,
    setting: options.Settings = None,
    dry_run: asking.DryRun = False,
    repeats: asking.Repeats = None,
    jobs: asking.Jobs = None,
    workers: asking.Workers = "1",
    shard: asking.Shard = "",
    start_at: asking.StartAt = "",
    ready_file: asking.ReadyPath = "",
    out: options.RunFile = "",
    form: reporting.Format = "text",
    json_file: options.JsonFile = "",
    metrics: asking.Metrics = "",
    linger: asking.Linger = "",
    linger_scrapes: asking.LingerScrapes = "",
    fail: asking.Fail = None,
    abort_on: asking.AbortOn = None,
    max_qps: asking.MaxQps = str(CEILING),
    max_external: asking.MaxExternal = str(MOST_EXTERNAL),
) -> None:
    """Ask on schedule, write down what becomes of every query, and report it.

    A scenario, or a server with dnsperf's letters. There is no limit on outstanding queries, but under -Q max.
    """
    asked = options.given(
        servers=server, port=port, datafile=data, names=name, types=qtype, expect=expect,
        rate=rate, length=length, timeout=timeout, transport=transport, ports=ports,
        search=search, ndots=ndots, edns=edns, dnssec=dnssec, nsid=nsid, external=external,
        ramp=ramp, arrivals=arrivals, max_inflight=max_inflight, pair=pair, gso=gso,
    )  # fmt: skip
    limits = Limits(
        total=options.typed("--max-qps", max_qps, ceiling_of),
        external=options.typed("--max-external-qps", max_external, ceiling_of),
        nodes=nodes_of(os.environ.get(NODES, "1")),
        tracked=most_tracked(),
    )
    processes = options.typed("-T", workers, workers_of)
    swept = options.given(
        repeats=repeats and options.typed("--repeats", repeats, repeats_of),
        jobs=jobs and options.typed("--jobs", jobs, jobs_of),
    )
    if scenario and not asked and (matrix := read_matrix(scenario, setting or [])):
        _only_one_run(
            shard=shard, start_at=start_at, ready_file=ready_file, abort_on=abort_on, linger=linger,
            metrics=metrics, linger_scrapes=linger_scrapes, context=context, service=service, per_node=per_node,
        )  # fmt: skip
        if yes or cluster_name or allow_outage:
            raise UsageError("--yes, --cluster and --allow-outage: not with a matrix, which is made in the lab")
        objectives = tuple(_must_hold(text, matrix.cells[0].plan) for text in fail or [])
        often = swept.get("repeats"), swept.get("jobs")
        how = Asked(lab, *often, processes, objectives, limits.total, out, form, json_file)
        raise typer.Exit(sweep(matrix, how, dry_run))
    check_format(form)
    if swept:
        raise UsageError(f"--{', --'.join(swept)}: goes with a scenario that has a matrix")
    plan = _plan(scenario, asked, setting or [], lab)
    if fail:
        plan = replace(plan, objectives=tuple(_must_hold(text, plan) for text in fail))
    permission = permitted(plan, lab, yes, cluster_name, allow_outage=allow_outage)
    plan = replace(plan, abort_on=(*plan.abort_on, *_rules(abort_on or [], plan)))
    plan = _in_shard(shard, plan, lab)
    limits.check(expected_series(plan), plan.lookups(expected_targets(plan)))
    together, at_unix_ns = start_at == TOGETHER, _start(start_at, plan)
    check_load(plan, processes)
    told = options.given(context=context, service=service, per_node=per_node)
    cluster = cluster_of(plan, lab, told, permission)
    for note in plan.notes if lab else []:
        complain(f"note: {note}")
    if dry_run or (isinstance(cluster, Kube) and changes_of(plan.steps) and not permission):
        raise typer.Exit(_told_of(plan, cluster, limits, dry_run))
    shown = f"{plan.name}-{plan.share.index}-of-{plan.share.of}" if plan.share.of > 1 else plan.name
    path = Path(out or f"dnsprobe-{shown}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db")
    check_path(path)
    check_json(json_file, path, Path(scenario), Path(data or ""), form=form)
    engine = Engine(EngineOptions(workers=processes))
    ready = ReadyFile(Path(ready_file)) if ready_file else None
    job = Membership.of(os.environ, lambda: connect(context or ""))
    command = options.command_line()
    telling = Telling(path, say) if form == "jsonl" else None
    with served(metrics or os.environ.get(METRICS_AT, ""), linger, linger_scrapes, plan) as (exporter, stay):
        watching = exporter and exporter.watching(plan.name, path, cluster)
        view = Together(fitting_view(), *(view for view in (telling, watching) if view))
        started = run_plan(
            *(plan, path, view, engine, cluster, command),
            at_unix_ns=at_unix_ns,
            limits=None if lab else limits,
            job=job,
            together=together,
            ready=ready,
        )
        ending = asyncio.run(started)
        code = print_report(open_run(ending.path), form, json_file, telling.finish if telling else None)
        if ending.failed:
            code = EXIT_ENVIRONMENT
        elif ending.interrupted or ending.died:
            code = EXIT_INTERRUPTED if ending.interrupted else EXIT_INCONCLUSIVE
        stay(ending, code)
    raise typer.Exit(code)


def _only_one_run(**given: Any) -> None:
    """UsageError for what a matrix, which is many runs, cannot have."""
    for name, value in given.items():
        if value:
            raise UsageError(f"--{name.replace('_', '-')}: not with a matrix, which is many runs")


def _plan(scenario: str, given: dict[str, Any], settings: list[str], lab: bool) -> Plan:
    """The plan of a scenario or of ad hoc options; never of both."""
    if scenario:
        if given:
            raise UsageError(
                f"{', '.join(asking.LETTERS[option] for option in given)}: not with a scenario;"
                " change it with --set, e.g. --set lanes[0].rate=50"
            )
        return read_scenario(scenario, settings)
    if lab or settings:
        raise UsageError("--lab and --set go with a scenario: dnsprobe run baseline --lab")
    if "servers" not in given:
        raise UsageError("no server: say -s ADDRESS, or a scenario: dnsprobe run baseline --lab")
    return plan_of(Options(**given))


def cluster_of(plan: Plan, lab: bool, told: dict[str, str], permission: Permission | None) -> Cluster | None:
    """The lab, or the cluster that the plan needs; `told`: what was typed of how it is found and looked at."""
    if told and (lab or not plan.cluster_needs):
        why = "with --lab" if lab else f"{plan.name} asks no cluster"
        raise UsageError(f"--{', --'.join(told).replace('_', '-')}: goes with a scenario in a real cluster: {why}")
    if lab or not plan.cluster_needs:
        return Lab(plan.lab) if lab else None
    service = options.typed("--service", told["service"], named_service) if "service" in told else None
    most = options.typed("--per-node", told["per_node"], _pods) if "per_node" in told else 0
    node = os.environ.get("DNSPROBE_NODE") or platform.node()
    return Kube(told.get("context", ""), service, Nearest(node, most) if most else None, permission, complain)


def _pods(text: str) -> int:
    return whole(text, 1, 100, "the number of pods")


def _start(start_at: str, plan: Plan) -> int | None:
    """When t0 is to be, in ns since 1970; None for at once, and for as the pods of this Job agree, if this is one."""
    if start_at != TOGETHER:
        return options.typed("--start-at", start_at, lambda text: start_of(text, time.time_ns())) if start_at else None
    if plan.share.of < 2:
        raise UsageError(f"--start-at job: this is no pod of an Indexed Job of many: {JOB_INDEX}, {JOB_COMPLETIONS}")
    if not (os.environ.get(JOB) and os.environ.get(NAMESPACE)):
        raise UsageError(f"--start-at job: this is no pod of a Job: {JOB} and {NAMESPACE} are not set")
    return None


def _in_shard(shard: str, plan: Plan, lab: bool) -> Plan:
    """The plan with the share that this machine asks, and facts that say so, and where this is. A real cluster is
    changed by one of them, after the baseline that all of them ask."""
    share, text = shard_of(shard, os.environ)
    if text and not lab and changes_of(plan.steps):
        plan = with_baseline(plan)
    steps = tuple(step for step in plan.steps if lab or not share.index or not STEPS[step.word].changes)
    facts = {**plan.facts, **pod_facts(os.environ), **({"shard": text} if text else {})}
    return replace(plan, share=share, steps=steps, facts=facts)


def _rules(typed: list[str], plan: Plan) -> list[str]:
    """When the run is to end itself, as --abort-on says; UsageError if one cannot be read, or is about no lane."""
    lanes = [lane.name for lane in plan.lanes]
    return [options.typed("--abort-on", text, lambda text: read_rule(text, lanes).text) for text in typed]


def _must_hold(fail: str, plan: Plan) -> str:
    """The objective that --fail means; UsageError if it says what is good, or is about no lane of the plan."""
    condition = checked_objective(fail, [lane.name for lane in plan.lanes])
    if condition.upper:
        meant = str(condition).replace("<=", ">").replace("<", ">")
        raise UsageError(f"--fail {fail!r}: --fail says what is bad: did you mean {meant!r}?")
    return str(fail_condition(fail))


def _told_of(plan: Plan, cluster: Cluster | None, limits: Limits, dry_run: bool) -> int:
    """Show what would be done; the exit code: without a dry run, that it is not permitted yet."""
    found, whose = _found(plan, cluster, limits, must=not dry_run)
    _show(plan, found, whose)
    return EXIT_PASS if dry_run or not found else refuse(found)


def _found(plan: Plan, cluster: Cluster | None, limits: Limits, *, must: bool) -> tuple[Found | None, str]:
    """What a real cluster is and would become; and a line: how the lab is set, or whose targets are shown."""
    if isinstance(cluster, Lab):
        return None, f"Lab: {', '.join(f'{name} {value}' for name, value in plan.lab.facts().items())}."
    if not isinstance(cluster, Kube):
        return None, ""
    try:
        found = asyncio.run(look(plan, cluster))
    except EnvironmentProblem as problem:
        if must:
            raise
        return None, f"Targets are the lab's, for the cluster's cannot be seen: {problem}"
    series = first_series(in_domain(plan, found.extent, complain), found.targets)
    limits.within(found.extent).check(series, plan.lookups(found.targets))
    return found, "Targets are the cluster's, as they are now."


def _show(plan: Plan, found: Found | None, whose: str) -> None:
    """A dry run: what would be asked of whom, and which steps would be taken. found: in a real cluster."""
    targets = found.targets if found else expected_targets(plan)
    plan, series = rated(plan, targets), first_series(plan, targets)
    name = f"{plan.name}, shard {plan.share}" if plan.share.of > 1 else plan.name
    how_many, lasts = planned_text(series), f"{plan.most}{seconds_text(plan.duration_ns)}"
    title = f"{name}: {how_many} for {lasts}" if plan.unplanned else f"{name}: {how_many} queries in {lasts}"
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("lane", "targets", "ports", "types"):
        table.add_column(heading, no_wrap=True)
    for heading in ("q/s each", "planned"):
        table.add_column(heading, justify="right", overflow="fold")
    for lane in plan.lanes:
        mine = [s for s in series if s.lane == lane.name]
        names = list(dict.fromkeys(s.target.name for s in mine))
        types = by_type(lane.questions)
        table.add_row(
            Text(lane.name),
            Text(names[0] if len(names) == 1 else f"{len(names)} {lane.target}"),
            " ".join([lane.transport, str(lane.ports), *["pair"] * lane.pair, *[f"gso {lane.gso}"] * (lane.gso > 1)]),
            " ".join(types),
            load_text(lane.rate, lane.shape),
            planned_text(mine),
        )
    lines = said_steps(plan, found) if found else [f"  {step}" for step in plan.steps]
    lab = "" if found else "; in the lab nothing, for it ends with the run"
    lines += [f"Undo: {undo}{lab}." for undo in undo_of(plan.steps)]
    lines += [whose] * bool(whose)
    say(drawn(Text(title), table))
    say("\n".join(map(plain, lines)))
