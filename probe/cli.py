"""The command line: words typed in, a run or a report out; errors as sentences on stderr, exit codes of errors.py."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from probe import __version__
from probe.book import by_type
from probe.cluster.lab import Lab
from probe.doubts import doubts_of
from probe.engine import Engine, EngineOptions
from probe.errors import (
    EXIT_ENVIRONMENT,
    EXIT_INCONCLUSIVE,
    EXIT_INTERRUPTED,
    DnsprobeError,
    EnvironmentProblem,
    UsageError,
)
from probe.live import curve, fitting_view
from probe.report import REPORTS
from probe.report.units import plain
from probe.runfile import Run, open_run
from probe.runfile import merge as merge_shards
from probe.scenario.adhoc import DEFAULT_NAME, Options, plan_of
from probe.scenario.capacity import OBJECTIVES, Capacity, Search, Wanted, find, search_of
from probe.scenario.file import read_scenario, shipped_scenarios
from probe.scenario.load import WINDOW, ceiling_of, load_text
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
from probe.scenario.start import JOB_COMPLETIONS, JOB_INDEX, MOST_WORKERS, shard_of, start_of, workers_of
from probe.scenario.steps import changes_of, undo_of
from probe.scenario.trial import Trials, new_folder
from probe.verdict import fail_condition, verdict_of

T = TypeVar("T")


def _examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\n".join(["Examples:", *(f"  {line}" for line in lines)])


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


RATES = "Rates"
AD_HOC, SCENARIO, RESULT = "Ad hoc: a server, in dnsperf's letters", "A scenario", "What comes of it"
MANY = "Many processes, many machines"
EXPECT_HELP = (
    "What is good: answer, nodata, nxdomain, servfail, refused, truncated, or some of them joined by |; any; pinned,"
    " what the first ten replies mostly are; same, what the other servers say; or addresses joined by commas"
    " (default answer, for AAAA answer|nodata)."
)
NAME_HELP = (
    f"Ask for it; repeatable; {{random}} or {{number}} in it is another label in each query (default {DEFAULT_NAME})."
)
EXTERNAL_HELP = "Names with {random} or {number} may load servers that are not ours."
SEARCH_HELP = "Try names with it, as a pod's resolver does; repeatable; what becomes of these is expected as `pinned`."
NDOTS_HELP = "From so many dots on a name is first asked as it stands (default 5)."
EDNS_HELP = "The size of UDP replies, 512 to 65535 (default no EDNS)."
DNSSEC_HELP = "Ask for signatures: the DO bit, and EDNS of 1232 octets."
NSID_HELP = "Ask which server answers, by EDNS of 1232 octets."
PORTS_HELP = (
    "Source ports: fresh, fixed or pool:K; for tcp connections: fresh, reused or pool:K"
    " (default fresh; above 5,000 q/s pool:64, for tcp reused)."
)
RATE_HELP = "Queries a second to each server (default 100), or max: as fast as replies allow, a closed loop."
RAMP_HELP = "Instead of -Q: from A to B queries a second, evenly over the seconds, then B."
ARRIVALS_HELP = "even, or poisson: exponential gaps, as many clients together make them (default even)."
INFLIGHT_HELP = (
    f"Under -Q max: the most queries outstanding to each server (default {WINDOW:,})."
    " With a rate there is no limit on outstanding queries."
)
PAIR_HELP = "Ask A and AAAA of a name from one socket, back to back, as glibc does."
GSO_HELP = "Let 2 to 64 queries leave as one burst (UDP_SEGMENT): less work for us, one packet to NAT."
LENGTH_HELP = "Seconds, or 5m (default 10; with --ramp as long as it takes)."
LAB_HELP = "Run it in the lab: CoreDNS pods and a Service on this machine's loopback."
DRY_RUN_HELP = "Print lanes, planned queries and steps; send nothing."
WORKERS_HELP = f"Worker processes, 1 to {MOST_WORKERS} (default 1)."
SHARD_HELP = (
    "Ask this slice of the rows alone, counted from 0: 0/4 to 3/4 on four machines"
    f" (default {JOB_INDEX}/{JOB_COMPLETIONS} where both are set); put together by `dnsprobe merge`."
)
START_HELP = "When the first query is due: 2026-11-21T04:30:00Z, +30s, or unix seconds (default at once)."
PARTIAL_HELP = "Though shards are missing, or were killed: what these have not asked is undecided."
OUT_HELP = "The run file (default dnsprobe-NAME-TIME.db in this folder)."
FORMAT_HELP = f"What is printed: {', '.join(REPORTS)} (default text)."
JSON_HELP = "Write the report as JSON, too; - is stdout."
FAIL_HELP = "An objective is missed if this holds, e.g. 'loss > 0.1%'; repeatable; replaces all other objectives."
OBJECTIVE_HELP = f"What must hold at a rate; repeatable (default {', '.join(OBJECTIVES)})."
STEP_HELP = "How long each rate is asked (default 5s)."
PRECISION_HELP = "How near the rates that met and missed are in the end (default 5%)."
FOLDER_HELP = "The folder of the run files, one for each rate (default dnsprobe-capacity-TIME in this folder)."
FOUND_HELP = "Write what was found as JSON, too; - is stdout."
MAX_QPS_HELP = f"The most queries a second in all towards other machines, or max for no ceiling (default {CEILING})."

LETTERS = {
    "servers": "-s", "port": "-p", "datafile": "-d", "names": "-n", "types": "--type", "expect": "--expect",
    "rate": "-Q", "length": "-l", "timeout": "-t", "transport": "-m", "ports": "--ports",
    "search": "--search", "ndots": "--ndots", "edns": "--edns", "dnssec": "-D", "nsid": "--nsid",
    "external": "--external", "ramp": "--ramp", "arrivals": "--arrivals", "max_inflight": "--max-inflight",
    "pair": "--pair", "gso": "--gso",
}  # fmt: skip
"""adhoc.Options' fields as they are typed."""

OneText = str | None
Texts = list[str] | None
OneFlag = bool | None


def _option(panel: str, letter: str, word: str, metavar: str, text: str) -> Any:
    """An option with a value. Its default is said in its help, for None means that it was left out."""
    names = [name for name in (letter, word) if name]
    return typer.Option(*names, metavar=metavar, help=text, rich_help_panel=panel, show_default=False)


def _flag(panel: str, letter: str, word: str, text: str) -> Any:
    """An option without a value; None if it was left out."""
    names = [name for name in (letter, word) if name]
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False)


_ad_hoc = partial(_option, AD_HOC)
_ad_hoc_flag = partial(_flag, AD_HOC)


Servers = Annotated[Texts, _ad_hoc("-s", "--server", "ADDRESS", "The server; repeatable.")]
Port = Annotated[OneText, _ad_hoc("-p", "--port", "PORT", "Its port (default 53).")]
Data = Annotated[OneText, _ad_hoc("-d", "--data", "FILE", "Lines of `name type`; - is stdin.")]
Names = Annotated[Texts, _ad_hoc("-n", "--name", "NAME", NAME_HELP)]
Types = Annotated[Texts, _ad_hoc("", "--type", "TYPE", "Of the names; repeatable (default A).")]
Expected = Annotated[OneText, _ad_hoc("", "--expect", "WHAT", EXPECT_HELP)]
Suffixes = Annotated[Texts, _ad_hoc("", "--search", "SUFFIX", SEARCH_HELP)]
Ndots = Annotated[OneText, _ad_hoc("", "--ndots", "N", NDOTS_HELP)]
External = Annotated[OneFlag, _ad_hoc_flag("", "--external", EXTERNAL_HELP)]
EdnsSize = Annotated[OneText, _ad_hoc("", "--edns", "SIZE", EDNS_HELP)]
Dnssec = Annotated[OneFlag, _ad_hoc_flag("-D", "--dnssec", DNSSEC_HELP)]
Nsid = Annotated[OneFlag, _ad_hoc_flag("", "--nsid", NSID_HELP)]
Timeout = Annotated[OneText, _ad_hoc("-t", "--timeout", "TIME", "Seconds, or 500ms (default 2).")]
Transport = Annotated[OneText, _ad_hoc("-m", "--mode", "MODE", "udp or tcp (default udp).")]
SourcePorts = Annotated[OneText, _ad_hoc("", "--ports", "PORTS", PORTS_HELP)]
Workers = Annotated[str, _option(MANY, "-T", "--workers", "N", WORKERS_HELP)]
"""Options that several commands have."""


def _version(asked: bool) -> None:
    if asked:
        _say(f"dnsprobe {__version__}")
        raise typer.Exit


@app.callback(
    epilog=_examples(
        "dnsprobe demo",
        "dnsprobe run scale-down --lab",
        "dnsprobe run -s 10.96.0.10 -Q 100 -l 60 --fail 'loss > 0.1%'",
        "dnsprobe report run.db",
    )
)
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What becomes of DNS queries while a cluster changes.

    Exit codes: 0 pass, 1 an objective missed, 2 wrong usage, 3 inconclusive, 4 environment,
    130 interrupted (Ctrl-C, SIGTERM, SIGHUP).
    """


@app.command(
    epilog=_examples(
        "dnsprobe run scale-down --lab",
        "dnsprobe run scale-down --lab --set lab.lameduck=0s --set lab.proxy_mode=ipvs",
        "dnsprobe run my.yaml --lab --dry-run",
        "dnsprobe run -s 127.0.0.1 -p 5353 -d names.txt -Q 1000 -l 30 -o run.db",
        "dnsprobe run -s 10.96.0.10 -n example.com --type A --type AAAA -m tcp --ports reused --json -",
        "dnsprobe run -s 10.96.0.10 -n nothing.example.com --expect nxdomain --fail 'p99 > 50ms'",
        "dnsprobe run my.yaml -T 2 --shard 0/4 --start-at 2026-11-21T04:30:00Z -o shard0.db",
    )
)
def run(
    scenario: Annotated[
        str, typer.Argument(help="A YAML file, or a shipped scenario's name.", show_default=False)
    ] = "",
    server: Servers = None,
    port: Port = None,
    data: Data = None,
    name: Names = None,
    qtype: Types = None,
    expect: Expected = None,
    search: Suffixes = None,
    ndots: Ndots = None,
    external: External = None,
    edns: EdnsSize = None,
    dnssec: Dnssec = None,
    nsid: Nsid = None,
    rate: Annotated[OneText, _ad_hoc("-Q", "--qps", "RATE", RATE_HELP)] = None,
    ramp: Annotated[OneText, _ad_hoc("", "--ramp", "A:B:SECONDS", RAMP_HELP)] = None,
    arrivals: Annotated[OneText, _ad_hoc("", "--arrivals", "HOW", ARRIVALS_HELP)] = None,
    max_inflight: Annotated[OneText, _ad_hoc("-q", "--max-inflight", "N", INFLIGHT_HELP)] = None,
    length: Annotated[OneText, _ad_hoc("-l", "--length", "TIME", LENGTH_HELP)] = None,
    timeout: Timeout = None,
    transport: Transport = None,
    ports: SourcePorts = None,
    pair: Annotated[OneFlag, _ad_hoc_flag("", "--pair", PAIR_HELP)] = None,
    gso: Annotated[OneText, _ad_hoc("", "--gso", "N", GSO_HELP)] = None,
    lab: Annotated[bool, typer.Option("--lab", help=LAB_HELP, rich_help_panel=SCENARIO)] = False,
    setting: Annotated[Texts, _option(SCENARIO, "", "--set", "PATH=VALUE", "Change a value; repeatable.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=DRY_RUN_HELP, rich_help_panel=RESULT)] = False,
    workers: Workers = "1",
    shard: Annotated[str, _option(MANY, "", "--shard", "I/N", SHARD_HELP)] = "",
    start_at: Annotated[str, _option(MANY, "", "--start-at", "TIME", START_HELP)] = "",
    out: Annotated[str, _option(RESULT, "-o", "--out", "FILE", OUT_HELP)] = "",
    form: Annotated[str, _option(RESULT, "", "--format", "FORMAT", FORMAT_HELP)] = "text",
    json_file: Annotated[str, _option(RESULT, "", "--json", "FILE", JSON_HELP)] = "",
    fail: Annotated[Texts, _option(RESULT, "", "--fail", "WHEN", FAIL_HELP)] = None,
    max_qps: Annotated[str, _option(RESULT, "", "--max-qps", "RATE", MAX_QPS_HELP)] = str(CEILING),
) -> None:
    """Ask on schedule, write down what becomes of every query, and report it.

    A scenario, or a server with dnsperf's letters. There is no limit on outstanding queries, but under -Q max.
    """
    _check_format(form)
    options = {
        "servers": server, "port": port, "datafile": data, "names": name, "types": qtype, "expect": expect,
        "rate": rate, "length": length, "timeout": timeout, "transport": transport, "ports": ports,
        "search": search, "ndots": ndots, "edns": edns, "dnssec": dnssec, "nsid": nsid, "external": external,
        "ramp": ramp, "arrivals": arrivals, "max_inflight": max_inflight, "pair": pair, "gso": gso,
    }  # fmt: skip
    given = {option: value for option, value in options.items() if value is not None}
    plan = _plan(scenario, given, setting or [], lab, dry_run)
    if fail:
        plan = replace(plan, objectives=tuple(_must_hold(text, plan) for text in fail))
    check_ceiling(expected_series(plan), _typed("--max-qps", max_qps, ceiling_of))
    processes = _typed("-T", workers, workers_of)
    plan = _in_shard(shard, plan)
    at_unix_ns = _typed("--start-at", start_at, lambda text: start_of(text, time.time_ns())) if start_at else None
    check_load(plan, processes)
    for note in plan.notes:
        _complain(f"note: {note}")
    if dry_run:
        _show(plan)
        return
    shown = f"{plan.name}-{plan.share.index}-of-{plan.share.of}" if plan.share.of > 1 else plan.name
    path = Path(out or f"dnsprobe-{shown}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db")
    check_path(path)
    _check_json(json_file, path)
    cluster = Lab(plan.lab) if lab else None
    engine = Engine(EngineOptions(workers=processes))
    command = shlex.join(["dnsprobe", *sys.argv[1:]])
    ending = asyncio.run(run_plan(plan, path, fitting_view(), engine, cluster, command, at_unix_ns=at_unix_ns))
    code = _report(open_run(ending.path), form, json_file)
    if ending.interrupted:
        code = EXIT_INTERRUPTED
    elif ending.failed or ending.died:
        code = EXIT_ENVIRONMENT if ending.failed else EXIT_INCONCLUSIVE
    raise typer.Exit(code)


def _plan(scenario: str, given: dict[str, Any], settings: list[str], lab: bool, dry_run: bool) -> Plan:
    """The plan of a scenario or of ad hoc options; never of both."""
    if scenario:
        if given:
            raise UsageError(
                f"{', '.join(LETTERS[option] for option in given)}: not with a scenario;"
                " change it with --set, e.g. --set lanes[0].rate=50"
            )
        plan = read_scenario(scenario, settings)
        if not lab and not dry_run and plan.cluster_needs:
            raise EnvironmentProblem(
                f"{scenario}: {plan.cluster_needs[0]} needs a cluster, and a cluster connection is not in this version:"
                " add --lab to run it in the lab"
            )
        return plan
    if lab or settings:
        raise UsageError("--lab and --set go with a scenario: dnsprobe run baseline --lab")
    if "servers" not in given:
        raise UsageError("no server: say -s ADDRESS, or a scenario: dnsprobe run baseline --lab")
    return plan_of(Options(**given))


def _typed(option: str, text: str, read: Callable[[str], T]) -> T:
    """What was typed; UsageError names the option."""
    try:
        return read(text)
    except UsageError as problem:
        raise UsageError(f"{option} {problem}") from None


def _in_shard(shard: str, plan: Plan) -> Plan:
    """The plan with the share that this machine asks, and a fact that says so."""
    share, text = shard_of(shard, os.environ)
    return replace(plan, share=share, facts={**plan.facts, "shard": text}) if text else plan


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
    _say(_drawn(Text(title), table, *lines))


def _check_format(form: str) -> None:
    if form not in REPORTS:
        raise UsageError(f"--format {form!r}: say {', '.join(REPORTS)}")


def _check_json(json_file: str, run_file: Path) -> None:
    if json_file in ("", "-"):
        return
    file = Path(json_file)
    if not file.parent.is_dir():
        raise UsageError(f"--json {json_file}: its folder does not exist")
    if file.resolve() == run_file.resolve() or file.is_dir():
        raise UsageError(f"--json {json_file}: is the run file, or a folder; name another file")
    try:
        there = file.exists()
        if file.is_file() or not there:
            file.open("ab").close()
        if not there:
            file.unlink()
    except OSError as problem:
        raise UsageError(f"--json {json_file}: cannot be written: {problem.strerror}; name another file") from None


def _report(run: Run, form: str, json_file: str) -> int:
    """Print the report, and write it as JSON if asked; the verdict's exit code, or that of a full disk on stdout.

    A JSON file that cannot be written any more does not change the verdict.
    """
    code = verdict_of(run).ruling.exit_code
    told = [(REPORTS[form](run), sys.stderr if json_file == "-" else sys.stdout)]
    if json_file == "-":
        told.append((REPORTS["json"](run), sys.stdout))
    for text, stream in told:
        try:
            _say(text, stream, "the report")
        except EnvironmentProblem as problem:
            _complain(f"{problem}; the run file is whole: {run.path}")
            code = EXIT_ENVIRONMENT
    if json_file not in ("", "-"):
        _write_json(json_file, REPORTS["json"](run), f"the run file is whole: {run.path}")
    return code


def _write_json(json_file: str, text: str, kept: str) -> None:
    """Write it, if asked; `kept` says what there is where that cannot be done any more."""
    if json_file == "-":
        _say(text)
    elif json_file:
        try:
            Path(json_file).write_text(text, encoding="utf-8")
        except OSError as problem:
            _complain(f"--json {json_file}: cannot be written: {problem.strerror}; {kept}")


@app.command(
    epilog=_examples(
        "dnsprobe report run.db",
        "dnsprobe report run.db --format json | jq .totals",
        "dnsprobe report run.db --format dnsperf",
    )
)
def report(
    file: Annotated[
        str, typer.Argument(help="What `dnsprobe run` wrote, even if it was cut short.", show_default=False)
    ],
    form: Annotated[str, _option(RESULT, "", "--format", "FORMAT", FORMAT_HELP)] = "text",
    json_file: Annotated[str, _option(RESULT, "", "--json", "FILE", JSON_HELP)] = "",
) -> None:
    """Report a run again, with the exit code of its verdict: 0 pass, 1 an objective missed, 3 inconclusive."""
    _check_format(form)
    _check_json(json_file, Path(file))
    raise typer.Exit(_report(open_run(file), form, json_file))


@app.command(
    epilog=_examples(
        "dnsprobe capacity -s 127.0.0.1 -p 5353 -d names.txt",
        "dnsprobe capacity -s 10.96.0.10 --to 9k --max-qps 9000 --objective 'loss <= 0.01%' --objective 'p99 <= 20ms'",
        "dnsprobe capacity -s 10.0.0.5 -s 10.0.0.6 --to 20k --max-qps 20000 --precision 10% --json -",
    )
)
def capacity(
    server: Servers = None,
    port: Port = None,
    data: Data = None,
    name: Names = None,
    qtype: Types = None,
    expect: Expected = None,
    search: Suffixes = None,
    ndots: Ndots = None,
    external: External = None,
    edns: EdnsSize = None,
    dnssec: Dnssec = None,
    nsid: Nsid = None,
    timeout: Timeout = None,
    transport: Transport = None,
    ports: SourcePorts = None,
    lowest: Annotated[OneText, _option(RATES, "", "--from", "RATE", "The first rate (default 1000).")] = None,
    highest: Annotated[OneText, _option(RATES, "", "--to", "RATE", "The last one (default 1M).")] = None,
    step_length: Annotated[OneText, _option(RATES, "", "--step-length", "TIME", STEP_HELP)] = None,
    precision: Annotated[OneText, _option(RATES, "", "--precision", "PERCENT", PRECISION_HELP)] = None,
    objectives: Annotated[Texts, _option(RATES, "", "--objective", "WHAT", OBJECTIVE_HELP)] = None,
    workers: Workers = "1",
    out: Annotated[str, _option(RESULT, "-o", "--out", "FOLDER", FOLDER_HELP)] = "",
    json_file: Annotated[str, _option(RESULT, "", "--json", "FILE", FOUND_HELP)] = "",
    max_qps: Annotated[str, _option(RESULT, "", "--max-qps", "RATE", MAX_QPS_HELP)] = str(CEILING),
) -> None:
    """Find the highest rate at which each server still meets the objectives.

    Rates are doubled until one misses, then halved between; each is a run of its own, and one that misses is tried
    again. Exit codes: 0 found, 1 not even the lowest rate met them, 3 this prober is the limit.
    """
    options: dict[str, Any] = {
        "servers": server, "port": port, "datafile": data, "names": name, "types": qtype, "expect": expect,
        "search": search, "ndots": ndots, "edns": edns, "dnssec": dnssec, "nsid": nsid, "external": external,
        "timeout": timeout, "transport": transport, "ports": ports,
    }  # fmt: skip
    range_: dict[str, Any] = {
        "lowest": lowest, "highest": highest, "step_length": step_length, "precision": precision,
        "objectives": objectives,
    }  # fmt: skip
    given, asked = ({k: v for k, v in typed.items() if v is not None} for typed in (options, range_))
    if not server:
        raise UsageError("no server: say -s ADDRESS")
    engine = EngineOptions(workers=_typed("-T", workers, workers_of))
    ceiling = _typed("--max-qps", max_qps, ceiling_of)
    looked_for = search_of(Options(**given), Wanted(**asked), engine, ceiling)
    folder = Path(out or f"dnsprobe-capacity-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    _check_json(json_file, folder)
    new_folder(folder)
    trials = Trials(looked_for.plan, engine, folder, _complain, shlex.join(["dnsprobe", *sys.argv[1:]]))
    found = asyncio.run(_find_all(looked_for, trials, sys.stderr if json_file == "-" else sys.stdout))
    _write_json(json_file, curve.as_json(looked_for, found), f"the run files are in {folder}")
    raise typer.Exit(curve.worst([f.ruling for f in found]).exit_code if found[-1].complete else EXIT_INTERRUPTED)


async def _find_all(search: Search, trials: Trials, stream: TextIO) -> list[Capacity]:
    """One server after the other, each with its curve."""
    found: list[Capacity] = []
    for target in search.plan.servers:
        _say(curve.heading(search, str(target)), stream)
        found.append(await find(search, target, trials.ask, lambda trial: _say(curve.line(trial), stream)))
        _say(curve.sentence(found[-1], trials.options.workers), stream)
        if not found[-1].complete:
            break
    if difference := curve.compared(found):
        _say(difference, stream)
    return found


@app.command(epilog=_examples("dnsprobe merge -o all.db shard0.db shard1.db", "dnsprobe merge -o all.db shard*.db"))
def merge(
    files: Annotated[list[str], typer.Argument(help="What each `dnsprobe run --shard` wrote.", show_default=False)],
    out: Annotated[str, _option(RESULT, "-o", "--out", "FILE", "The run file that is written.")],
    partial: Annotated[bool, typer.Option("--partial", help=PARTIAL_HELP, rich_help_panel=RESULT)] = False,
    form: Annotated[str, _option(RESULT, "", "--format", "FORMAT", FORMAT_HELP)] = "text",
    json_file: Annotated[str, _option(RESULT, "", "--json", "FILE", JSON_HELP)] = "",
) -> None:
    """Put the shards of one load together and report them as one run; the exit code is that of its verdict."""
    _check_format(form)
    check_path(Path(out))
    _check_json(json_file, Path(out))
    command = shlex.join(["dnsprobe", *sys.argv[1:]])
    merge_shards([Path(file) for file in files], Path(out), command, doubts_of, partial)
    raise typer.Exit(_report(open_run(out), form, json_file))


@app.command(epilog=_examples("dnsprobe scenarios", "dnsprobe run scale-down --lab --dry-run"))
def scenarios() -> None:
    """List the scenarios that come with dnsprobe."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("name", "what it proves", "what it changes", "length"):
        table.add_column(heading)
    for name, file in shipped_scenarios().items():
        plan = read_scenario(str(file))
        opening = plan.scenario.split("\n", 1)[0].removeprefix("# Proves ")
        changes = ", ".join(changes_of(plan.steps)) or "nothing"
        table.add_row(Text(name), Text(opening), Text(changes), seconds_text(plan.duration_ns))
    _say(_drawn(table))


@app.command(epilog=_examples("dnsprobe demo"))
def demo() -> None:
    """Remove a CoreDNS pod in the lab, without and with a lameduck, and say what that saved (a minute)."""
    folder = Path(tempfile.mkdtemp(prefix="dnsprobe-demo-"))
    # Ctrl-C reaches the run as well: it ends in order, then so do we.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    runs = []
    for lameduck in ("0s", "5s"):
        path = folder / f"lameduck-{lameduck}.db"
        words = ["run", "scale-down", "--lab", "--set", f"lab.lameduck={lameduck}", "-o", str(path)]
        _say(f"$ dnsprobe {shlex.join(words)}", sys.stderr)
        # A process of its own: a run lowers its priority, and what it starts after that would inherit it.
        code = subprocess.run([sys.executable, "-m", "probe.cli", *words], check=False).returncode
        if code == EXIT_INTERRUPTED or not path.exists():
            raise typer.Exit(code)
        runs.append(open_run(path))
    _say(f"{_saved(*runs)}\nCoreDNS: {runs[1].head.facts['coredns']}\nRun files: {folder}")


def _saved(before: Run, after: Run) -> str:
    """One sentence: what the second setting saved, through the Service."""
    lost, lasted, planned = [], [], 0
    for one in (before, after):
        told = json.loads(REPORTS["json"](one))
        service = [s for s in told["series"] if s["target_kind"] == "service"]
        planned = sum(s["planned"] for s in service)
        lost.append(planned - sum(s["good"] for s in service))
        lanes = {s["lane"] for s in service}
        lasted.append(max((w["seconds"] for w in told["windows"] if w["lane"] in lanes), default=0.0))
    return (
        f"Lameduck 5 s, which outlasts the propagation of 3 s, saved {lost[0] - lost[1]:,} queries as one pod of three"
        f" went: {lost[0]:,} of {planned:,} to the Service were lost without it (longest disruption {lasted[0]:.1f} s),"
        f" {lost[1]:,} with it ({lasted[1]:.1f} s)."
    )


def _drawn(*parts: Table | Text) -> str:
    """What a console makes of them, as wide as stdout's terminal and in its colours."""
    console = Console()
    with console.capture() as capture:
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, Text))
    return capture.get().rstrip("\n")


def _say(text: str, stream: TextIO | None = None, what: str = "the output") -> None:
    """Print it, at once. A reader who has gone is no fault; EnvironmentProblem for a full disk."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError as problem:
        _silence(stream)
        if not isinstance(problem, BrokenPipeError):
            raise EnvironmentProblem(f"{what} cannot be written: {problem.strerror}") from None


def _complain(text: str) -> None:
    """A line about an error, or a note. Where stderr cannot be written either, nothing is left to say."""
    with suppress(EnvironmentProblem):
        _say("dnsprobe: " + "\n".join(plain(line) for line in text.splitlines()), sys.stderr)


def _silence(stream: TextIO) -> None:
    """What the stream still holds would fail once more when Python ends, and change the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def main(words: Sequence[str] | None = None) -> None:
    """The command `dnsprobe`, with the words of the command line."""
    try:
        app(words, prog_name="dnsprobe")
    except DnsprobeError as problem:
        _complain(str(problem))
        sys.exit(problem.exit_code)
    except OSError as problem:
        _complain(f"{problem.strerror}{f': {problem.filename}' if problem.filename else ''}")
        sys.exit(EXIT_ENVIRONMENT)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(EXIT_INTERRUPTED)
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            try:
                stream.flush()
            except OSError:
                _silence(stream)


if __name__ == "__main__":
    main()
