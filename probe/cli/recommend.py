"""A cluster, or a propagation that is known, in; the lameduck that loses no query, and how to set it, out."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from probe.advice import Departure, by_counter, by_nsid, platform_of
from probe.advice import recommend as recommended
from probe.cli import options
from probe.cli.files import check_json, write_json
from probe.cli.options import advising
from probe.cli.output import complain, say
from probe.cluster.lab import Lab
from probe.errors import EXIT_INCONCLUSIVE, EXIT_INTERRUPTED, EXIT_PASS, EnvironmentProblem, UsageError
from probe.live import fitting_view
from probe.model import NS
from probe.report.advice import advice_json, advice_text
from probe.runfile import Run, open_run
from probe.scenario.departures import MOST_REPEATS, Careful, base_plan, measure, plan_of
from probe.scenario.plan import Plan, check_load
from probe.scenario.quantity import DAY_NS, duration_ns, whole
from probe.scenario.run import check_path

EXAMPLES = options.examples(
    "dnsprobe recommend --lab",
    "dnsprobe recommend --lab --set lab.lameduck=15s --set lab.propagation=3s --repeats 2",
    "dnsprobe recommend --propagation 4s --platform eks",
    "dnsprobe recommend run.db --platform helm",
)


def recommend(
    file: Annotated[
        str, typer.Argument(help="An earlier run in which a pod with an NSID was deleted.", show_default=False)
    ] = "",
    lab: options.InLab = False,
    setting: options.Settings = None,
    platform: advising.PlatformName = "kubeadm",
    repeats: advising.Deletions = "1",
    propagation: advising.Known = "",
    out: options.RunFile = "",
    json_file: advising.AdviceFile = "",
) -> None:
    """Measure how long nodes go on sending to a pod that was deleted, and recommend the lameduck that loses nothing.

    One pod is deleted under the lameduck that is set. Exit codes: 0 said, 3 the pod ended before the last node knew, so
    that only a lower bound is known.
    """
    where = options.typed("--platform", platform, platform_of)
    times = options.typed("--repeats", repeats, lambda text: whole(text, 1, MOST_REPEATS, "the number of deletions"))
    if sum(map(bool, (file, lab, propagation))) > 1:
        raise UsageError("an earlier run, --lab or --propagation: say one of them")
    earlier = open_run(file) if file else None
    base = base_plan([*where.usual_settings, *(_settings(earlier) if earlier else []), *(setting or [])])
    cluster = Lab(base.lab)
    path = Path(out or f"dnsprobe-recommend-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db")
    check_json(json_file, path, Path(file))
    found: list[Departure] = []
    known = 0.0
    if earlier:
        found = _seen(earlier)
    elif propagation:
        known = options.typed("--propagation", propagation, lambda text: duration_ns(text, 0, DAY_NS)) / NS
    elif not lab:
        raise EnvironmentProblem(
            "to measure, a pod of a cluster is deleted, and acting on a real cluster is not in this version: add --lab"
            " to do it in the lab, or say --propagation 4s to calculate with what is known"
        )
    else:
        found = _measured(plan_of(cluster.shutdown(), base, times), Careful(cluster, harmless=True), path)
        if (pods := len({one.pod for one in found})) < times:
            complain(f"note: {pods} of {times} deletions were measured: the rest would have come too late")
    longest = max([one.seconds for one in found], default=known)
    at_least = any(one.at_least for one in found)
    unheard = max((one.unheard for one in found), default=0.0)
    shutdown = where.seen(cluster.shutdown())
    advice = recommended(longest, shutdown, at_least=at_least, settable=where.settable, unheard=unheard)
    say(advice_text(advice, found, platform, where).rstrip("\n"), sys.stderr if json_file == "-" else sys.stdout)
    if json_file:
        write_json(json_file, advice_json(advice, found, platform, where).rstrip("\n"), f"the run file is {path}")
    raise typer.Exit(EXIT_INCONCLUSIVE if at_least else EXIT_PASS)


def _settings(run: Run) -> list[str]:
    """What a lab was set to, as --set has it."""
    facts = run.head.facts.items()
    return [f"{name}={value.removesuffix(' s')}{'s' * value.endswith(' s')}" for name, value in facts if "lab." in name]


def _seen(run: Run) -> list[Departure]:
    if found := by_nsid(run):
        return found
    raise UsageError(
        f"{run.path}: no pod was deleted in it that a lane with `nsid: true` heard through the Service, each query"
        " from a new source port (`ports: fresh`, up to 200 q/s): measure with dnsprobe recommend --lab"
    )


def _measured(plan: Plan, cluster: Careful, path: Path) -> list[Departure]:
    """What became of each pod that was deleted, at each node."""
    check_path(path)
    check_load(plan)
    ending, readings = asyncio.run(measure(plan, cluster, path, fitting_view(), options.command_line()))
    if ending.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if ending.failed or ending.died:
        raise EnvironmentProblem(f"the measurement {ending.cut}; what was seen is in {ending.path}")
    run = open_run(ending.path)
    if found := by_nsid(run):
        return found
    if found := [one for pod, mine in readings.items() if (one := by_counter(run, pod, mine))]:
        return found
    raise EnvironmentProblem(
        "the pod that was deleted did not say who it is: put `nsid` into the Corefile, or let its metrics (port 9153)"
        f" be read from here; what was seen is in {path}"
    )
