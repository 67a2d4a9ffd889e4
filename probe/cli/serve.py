"""A scenario in; asked without end, its last hour in a file, its metrics for Prometheus, its disruptions in a log."""

from __future__ import annotations

import asyncio
import os
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from probe import __version__
from probe.cli import options
from probe.cli.options import asking
from probe.cli.output import say
from probe.cli.run import cluster_of
from probe.cli.served import METRICS_AT
from probe.engine import Engine, EngineOptions
from probe.errors import DnsprobeError, UsageError
from probe.exporter.page import PATH, Page
from probe.exporter.state import Exporter
from probe.host import most_tracked
from probe.live import Log, Telling, Together
from probe.model import NS, Reason
from probe.pages import Address, Pages, Request
from probe.pages import say as answer
from probe.runfile import SERVED, open_run
from probe.scenario.cells import read_matrix
from probe.scenario.file import find_scenario, read_scenario
from probe.scenario.limits import CEILING, MOST_EXTERNAL, NODES, Limits, nodes_of
from probe.scenario.linger import PORT
from probe.scenario.load import ceiling_of
from probe.scenario.plan import Plan, check_load, expected_series, expected_targets
from probe.scenario.quantity import DAY_NS, duration_ns
from probe.scenario.serve import Asked, Parts, Serving, without_end
from probe.scenario.start import pod_facts

EXAMPLES = options.examples(
    "dnsprobe serve",
    "dnsprobe serve --lab",
    "dnsprobe serve baseline --lab --set lab.rollout_after=60s",
    "dnsprobe serve my.yaml --per-node 2 --format jsonl --keep 6h -o /data/serve.db",
    "dnsprobe report --last 15m",
)
FORMATS = ("text", "jsonl")
LEAST_KEPT_NS = 60 * NS
TOTALS_NS = 300 * NS
"""Lines of totals are so far apart: they are for whoever has nothing but the log."""


def serve(
    scenario: asking.ServedName = asking.ENDLESS,
    lab: options.InLab = False,
    context: options.Context = None,
    service: options.ServiceName = None,
    per_node: asking.PerNode = None,
    setting: options.Settings = None,
    metrics: asking.ServeMetrics = "",
    keep: asking.Keep = "1h",
    out: asking.ServedFile = SERVED,
    form: asking.LogFormat = "text",
    max_qps: asking.MaxQps = str(CEILING),
    max_external: asking.MaxExternal = str(MOST_EXTERNAL),
) -> None:
    """Ask without end, change nothing, and be looked at: by Prometheus, and by `dnsprobe report --last 15m`.

    The scenario's duration does not count, nor do its steps. It is read again when its file changes, and on SIGHUP.
    Ends in order on SIGTERM and Ctrl-C, with 0; with 4 if it cannot go on: whoever started it may start it again.
    """
    if form not in FORMATS:
        raise UsageError(f"--format {form!r}: say {', '.join(FORMATS)}")
    limits = Limits(
        total=options.typed("--max-qps", max_qps, ceiling_of),
        external=options.typed("--max-external-qps", max_external, ceiling_of),
        nodes=nodes_of(os.environ.get(NODES, "1")),
        tracked=most_tracked(),
    )
    path, told = Path(out), options.given(context=context, service=service, per_node=per_node)
    settings, log, exporter = setting or [], Log(), Exporter("serve")
    tell = say if form == "jsonl" else log.tell

    def read() -> Plan:
        if read_matrix(scenario, settings):
            raise UsageError(f"{scenario}: a matrix is many runs, which end: say `dnsprobe run`")
        plan = without_end(read_scenario(scenario, settings))
        plan = replace(plan, facts={**plan.facts, **pod_facts(os.environ)})
        limits.check(expected_series(plan), plan.lookups(expected_targets(plan)))
        check_load(plan)
        cluster_of(plan, lab, told, None)
        return plan

    def parts(plan: Plan, reason: Reason) -> Parts:
        cluster, telling = cluster_of(plan, lab, told, None), Telling(path, tell, TOTALS_NS)
        view = Together(log, telling, exporter.watching(plan.name, path, cluster, reason))
        return Parts(view, Engine(EngineOptions()), cluster, lambda: _leave(telling, path))

    asked = Asked(
        file=find_scenario(scenario),
        read=read,
        parts=parts,
        path=path,
        keep_ns=options.typed("--keep", keep, lambda text: duration_ns(text, LEAST_KEPT_NS, 7 * DAY_NS)),
        limits=None if lab else limits,
        command=options.command_line(),
    )
    serving = Serving(asked, _Told(log, exporter))
    address = options.typed("--metrics", metrics or os.environ.get(METRICS_AT) or f":{PORT}", Address.of)
    with closing(Pages(address)) as pages:
        page = Page(exporter)
        pages.add(PATH, page.answer)
        pages.add("/ready", page.ready)
        pages.add("/", lambda request: _say_state(request, exporter))
        log.noted(f"metrics: http://{address}{PATH}")
        asyncio.run(serving.to_the_end())


def _leave(telling: Telling, path: Path) -> None:
    """Disruptions that the end of the run cut off are told, too."""
    with suppress(DnsprobeError, OSError):
        telling.leave(open_run(path, histograms=False))


def _say_state(request: Request, exporter: Exporter) -> None:
    """What runs and how it stands."""
    now = exporter.now
    answer(request, {"dnsprobe": __version__, "mode": now.mode, "run": now.scenario, "state": now.state})


class _Told:
    """Says it in the log and in the metrics."""

    def __init__(self, log: Log, exporter: Exporter) -> None:
        self._log, self._exporter = log, exporter
        exporter.reloaded(well=True)

    def begins(self, reason: Reason) -> None:
        self._log.noted(f"a run begins: {reason}")

    def reloaded(self, good: bool) -> None:
        self._exporter.reloaded(well=good)

    def noted(self, text: str) -> None:
        self._log.noted(text)
