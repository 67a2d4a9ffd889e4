"""A scenario, or a server, in; a run file and its report out."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from probe.book import by_type
from probe.cli import options
from probe.cli.linger import lingering
from probe.cli.output import check_format, check_json, complain, drawn, print_report, say
from probe.cli.sweep import Asked, sweep
from probe.cluster import Cluster
from probe.cluster.kube import Kube, named_service
from probe.cluster.lab import Lab
from probe.engine import Engine, EngineOptions
from probe.errors import EXIT_ENVIRONMENT, EXIT_INCONCLUSIVE, EXIT_INTERRUPTED, UsageError
from probe.live import Telling, fitting_view
from probe.report.units import plain
from probe.runfile import open_run
from probe.scenario.adhoc import Options, plan_of
from probe.scenario.cells import read_matrix
from probe.scenario.file import read_scenario
from probe.scenario.linger import PORT
from probe.scenario.load import ceiling_of, load_text
from probe.scenario.matrix import jobs_of, repeats_of
from probe.scenario.plan import (
    CEILING,
    Plan,
    check_ceiling,
    check_load,
    checked_objective,
    expected_series,
    planned_text,
)
from probe.scenario.quantity import seconds_text
from probe.scenario.run import check_path
from probe.scenario.run import run as run_plan
from probe.scenario.start import pod_facts, shard_of, start_of, workers_of
from probe.scenario.steps import undo_of
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
    scenario: Annotated[
        str, typer.Argument(help="A YAML file, or a shipped scenario's name.", show_default=False)
    ] = "",
    server: options.Servers = None,
    port: options.Port = None,
    data: options.Data = None,
    name: options.Names = None,
    qtype: options.Types = None,
    expect: options.Expected = None,
    search: options.Suffixes = None,
    ndots: options.Ndots = None,
    external: options.External = None,
    edns: options.EdnsSize = None,
    dnssec: options.Dnssec = None,
    nsid: options.Nsid = None,
    rate: options.Rate = None,
    ramp: options.Ramp = None,
    arrivals: options.Arrivals = None,
    max_inflight: options.Inflight = None,
    length: options.Length = None,
    timeout: options.Timeout = None,
    transport: options.Transport = None,
    ports: options.SourcePorts = None,
    pair: options.Pair = None,
    gso: options.Gso = None,
    lab: options.InLab = False,
    context: options.Context = None,
    service: options.ServiceName = None,
    setting: options.Settings = None,
    dry_run: options.DryRun = False,
    repeats: options.Repeats = None,
    jobs: options.Jobs = None,
    workers: options.Workers = "1",
    shard: options.Shard = "",
    start_at: options.StartAt = "",
    out: options.RunFile = "",
    form: options.Format = "text",
    json_file: options.JsonFile = "",
    linger: options.Linger = "",
    http: options.HttpPort = str(PORT),
    fail: options.Fail = None,
    max_qps: options.MaxQps = str(CEILING),
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
    ceiling, processes = options.typed("--max-qps", max_qps, ceiling_of), options.typed("-T", workers, workers_of)
    swept = options.given(
        repeats=repeats and options.typed("--repeats", repeats, repeats_of),
        jobs=jobs and options.typed("--jobs", jobs, jobs_of),
    )
    if scenario and not asked and (matrix := read_matrix(scenario, setting or [])):
        if shard or start_at:
            raise UsageError(f"{'--shard' if shard else '--start-at'}: not with a matrix, which is many runs")
        objectives = tuple(_must_hold(text, matrix.cells[0].plan) for text in fail or [])
        how = Asked(lab, swept.get("repeats"), swept.get("jobs"), processes, objectives, ceiling, out, form, json_file)
        raise typer.Exit(sweep(matrix, how, dry_run))
    check_format(form)
    if swept:
        raise UsageError(f"--{', --'.join(swept)}: goes with a scenario that has a matrix")
    plan = _plan(scenario, asked, setting or [], lab)
    if fail:
        plan = replace(plan, objectives=tuple(_must_hold(text, plan) for text in fail))
    check_ceiling(expected_series(plan), ceiling)
    plan = _in_shard(shard, plan)
    at_unix_ns = (
        options.typed("--start-at", start_at, lambda text: start_of(text, time.time_ns())) if start_at else None
    )
    check_load(plan, processes)
    cluster = _cluster(plan, lab, options.given(context=context, service=service))
    for note in plan.notes if lab or dry_run else []:
        complain(f"note: {note}")
    if dry_run:
        _show(plan)
        return
    shown = f"{plan.name}-{plan.share.index}-of-{plan.share.of}" if plan.share.of > 1 else plan.name
    path = Path(out or f"dnsprobe-{shown}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db")
    check_path(path)
    check_json(json_file, path, form)
    engine = Engine(EngineOptions(workers=processes))
    command = options.command_line()
    telling = Telling(fitting_view(), path, say) if form == "jsonl" else None
    started = run_plan(
        *(plan, path, telling or fitting_view(), engine, cluster, command),
        at_unix_ns=at_unix_ns,
        ceiling=None if lab else ceiling,
    )
    with lingering(linger, http, plan) as stay:
        ending = asyncio.run(started)
        code = print_report(open_run(ending.path), form, json_file, telling.finish if telling else None)
        if ending.interrupted:
            code = EXIT_INTERRUPTED
        elif ending.failed or ending.died:
            code = EXIT_ENVIRONMENT if ending.failed else EXIT_INCONCLUSIVE
        stay(ending, code)
    raise typer.Exit(code)


def _plan(scenario: str, given: dict[str, Any], settings: list[str], lab: bool) -> Plan:
    """The plan of a scenario or of ad hoc options; never of both."""
    if scenario:
        if given:
            raise UsageError(
                f"{', '.join(options.LETTERS[option] for option in given)}: not with a scenario;"
                " change it with --set, e.g. --set lanes[0].rate=50"
            )
        return read_scenario(scenario, settings)
    if lab or settings:
        raise UsageError("--lab and --set go with a scenario: dnsprobe run baseline --lab")
    if "servers" not in given:
        raise UsageError("no server: say -s ADDRESS, or a scenario: dnsprobe run baseline --lab")
    return plan_of(Options(**given))


def _cluster(plan: Plan, lab: bool, told: dict[str, str]) -> Cluster | None:
    """The lab, or the cluster that the plan needs; `told`: the context and the Service that were typed."""
    if told and (lab or not plan.cluster_needs):
        why = "with --lab" if lab else f"{plan.name} asks no cluster"
        raise UsageError(f"--{', --'.join(told)}: goes with a scenario in a real cluster: {why}")
    if lab or not plan.cluster_needs:
        return Lab(plan.lab) if lab else None
    service = options.typed("--service", told["service"], named_service) if "service" in told else None
    return Kube(told.get("context", ""), service)


def _in_shard(shard: str, plan: Plan) -> Plan:
    """The plan with the share that this machine asks, and facts that say so, and where this is."""
    share, text = shard_of(shard, os.environ)
    facts = {**plan.facts, **pod_facts(os.environ), **({"shard": text} if text else {})}
    return replace(plan, share=share, facts=facts)


def _must_hold(fail: str, plan: Plan) -> str:
    """The objective that --fail means; UsageError if it says what is good, or is about no lane of the plan."""
    condition = checked_objective(fail, [lane.name for lane in plan.lanes])
    if condition.upper:
        meant = str(condition).replace("<=", ">").replace("<", ">")
        raise UsageError(f"--fail {fail!r}: --fail says what is bad: did you mean {meant!r}?")
    return str(fail_condition(fail))


def _show(plan: Plan) -> None:
    """A dry run: what would be asked of whom, and which steps would be taken."""
    series = expected_series(plan)
    name = f"{plan.name}, shard {plan.share}" if plan.share.of > 1 else plan.name
    how_many, lasts = planned_text(series), seconds_text(plan.duration_ns)
    title = f"{name}: {how_many} for {lasts}" if plan.unplanned else f"{name}: {how_many} queries in {lasts}"
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("lane", "targets", "ports", "types"):
        table.add_column(heading, no_wrap=True)
    for heading in ("q/s each", "planned"):
        table.add_column(heading, justify="right", overflow="fold")
    for lane in plan.lanes:
        mine = [s for s in series if s.lane == lane.name]
        targets = list(dict.fromkeys(s.target.name for s in mine))
        types = by_type(lane.questions)
        table.add_row(
            Text(lane.name),
            Text(targets[0] if len(targets) == 1 else f"{len(targets)} {lane.target}"),
            " ".join([lane.transport, str(lane.ports), *["pair"] * lane.pair, *[f"gso {lane.gso}"] * (lane.gso > 1)]),
            " ".join(types),
            load_text(lane.rate, lane.shape),
            planned_text(mine),
        )
    lines = [Text(plain(f"  {step}")) for step in plan.steps]
    lines += [Text(f"Undo: {undo}; in the lab nothing, for it ends with the run.") for undo in undo_of(plan.steps)]
    say(drawn(Text(title), table, *lines))
