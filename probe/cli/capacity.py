"""Servers and a range of rates in; the highest rate each of them withstands out, and a run file for every trial."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import typer

from probe.cli import options
from probe.cli.files import check_json, write_json
from probe.cli.options import asking
from probe.cli.output import complain, say
from probe.engine import EngineOptions
from probe.errors import EXIT_INTERRUPTED, UsageError
from probe.host import most_tracked
from probe.live import curve
from probe.scenario.adhoc import Options
from probe.scenario.capacity import Capacity, Search, Wanted, find, search_of
from probe.scenario.limits import CEILING, Limits
from probe.scenario.load import ceiling_of
from probe.scenario.start import workers_of
from probe.scenario.trial import Trials, new_folder
from probe.verdict import Ruling

EXAMPLES = options.examples(
    "dnsprobe capacity -s 127.0.0.1 -p 5353 -d names.txt",
    "dnsprobe capacity -s 10.96.0.10 --to 9k --max-qps 9000 --objective 'loss <= 0.01%' --objective 'p99 <= 20ms'",
    "dnsprobe capacity -s 10.0.0.5 -s 10.0.0.6 --to 20k --max-qps 20000 --precision 10% --json -",
)


def capacity(
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
    timeout: asking.Timeout = None,
    transport: asking.Transport = None,
    ports: asking.SourcePorts = None,
    lowest: asking.Lowest = None,
    highest: asking.Highest = None,
    step_length: asking.StepLength = None,
    precision: asking.Precision = None,
    objectives: asking.Objectives = None,
    workers: asking.Workers = "1",
    out: asking.Folder = "",
    json_file: asking.FoundFile = "",
    max_qps: asking.MaxQps = str(CEILING),
) -> None:
    """Find the highest rate at which each server still meets the objectives.

    Rates are doubled until one misses, then halved between; each is a run of its own, and one that misses is tried
    again. Exit codes: 0 found, 1 not even the lowest rate met them, 3 this prober is the limit.
    """
    asked = options.given(
        servers=server, port=port, datafile=data, names=name, types=qtype, expect=expect,
        search=search, ndots=ndots, edns=edns, dnssec=dnssec, nsid=nsid, external=external,
        timeout=timeout, transport=transport, ports=ports,
    )  # fmt: skip
    wanted = options.given(
        lowest=lowest, highest=highest, step_length=step_length, precision=precision, objectives=objectives
    )
    if not server:
        raise UsageError("no server: say -s ADDRESS")
    engine = EngineOptions(workers=options.typed("-T", workers, workers_of))
    limits = Limits(options.typed("--max-qps", max_qps, ceiling_of), tracked=most_tracked())
    looked_for = search_of(Options(**asked), Wanted(**wanted), engine, limits)
    folder = Path(out or f"dnsprobe-capacity-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    check_json(json_file, folder)
    new_folder(folder)
    trials = Trials(looked_for.plan, engine, folder, complain, options.command_line())
    found = asyncio.run(_find_all(looked_for, trials, sys.stderr if json_file == "-" else sys.stdout))
    write_json(json_file, curve.as_json(looked_for, found), f"the run files are in {folder}")
    raise typer.Exit(Ruling.worst([f.ruling for f in found]).exit_code if found[-1].complete else EXIT_INTERRUPTED)


async def _find_all(search: Search, trials: Trials, stream: TextIO) -> list[Capacity]:
    """One server after the other, each with its curve."""
    found: list[Capacity] = []
    for target in search.plan.servers:
        say(curve.heading(search, str(target)), stream)
        found.append(await find(search, target, trials.ask, lambda trial: say(curve.line(trial), stream)))
        say(curve.sentence(found[-1], trials.options.workers), stream)
        if not found[-1].complete:
            break
    if difference := curve.compared(found):
        say(difference, stream)
    return found
