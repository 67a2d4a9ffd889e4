"""The scenarios that come with dnsprobe in; a list of them, or what one of them shows, out."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import typer
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from probe.cli import options
from probe.cli.output import drawn, say
from probe.errors import EXIT_INTERRUPTED
from probe.report import REPORTS
from probe.runfile import Run, open_run
from probe.scenario.cells import read_matrix
from probe.scenario.file import read_scenario, shipped_scenarios
from probe.scenario.plan import Plan
from probe.scenario.quantity import seconds_text
from probe.scenario.schema import scenario_schema
from probe.scenario.steps import changes_of

EXAMPLES = options.examples(
    "dnsprobe scenarios",
    "dnsprobe scenarios --schema > scenario.schema.json",
    "dnsprobe run scale-down --lab --dry-run",
)


def scenarios(schema: options.Schema = False) -> None:
    """List the scenarios that come with dnsprobe, or say which keys one may have."""
    if schema:
        say(json.dumps(scenario_schema(), indent=2))
        return
    shown: list[RenderableType] = []
    for name, file in shipped_scenarios().items():
        plan = read_scenario(str(file))
        matrix = read_matrix(str(file), [])
        once = f"{plan.most}{seconds_text(plan.duration_ns)}"
        lasts = f"{len(matrix.cells) * matrix.repeats} runs" if matrix else once
        changes = ", ".join(changes_of(plan.steps)) or "changes nothing"
        opening = plan.scenario.split("\n", 1)[0].removeprefix("# Proves ")
        shown += [Text(f"{name}: {lasts}; {changes}{_needs(plan)}"), Padding(Text(opening), (0, 0, 0, 4))]
    say(drawn(*shown))


def _needs(plan: Plan) -> str:
    """What a machine must have for a scenario to run in the lab as it stands."""
    real = plan.lab.coredns not in ("auto", "stand-in") or plan.lab.nodelocal
    needs = ["root"] * (plan.lab.backend == "netns") + ["the real CoreDNS"] * real
    return f"; needs {' and '.join(needs)}" if needs else ""


DEMO_EXAMPLES = options.examples("dnsprobe demo")


def demo() -> None:
    """Remove a CoreDNS pod in the lab, without and with a lameduck, and say what that saved (a minute)."""
    folder = Path(tempfile.mkdtemp(prefix="dnsprobe-demo-"))
    # Ctrl-C reaches the run as well: it ends in order, then so do we.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    runs = []
    for lameduck in ("0s", "5s"):
        path = folder / f"lameduck-{lameduck}.db"
        words = ["run", "scale-down", "--lab", "--set", f"lab.lameduck={lameduck}", "-o", str(path)]
        say(f"$ dnsprobe {shlex.join(words)}", sys.stderr)
        # A process of its own: a run lowers its priority, and what it starts after that would inherit it.
        code = subprocess.run([sys.executable, "-m", "probe.cli", *words], check=False).returncode
        if code == EXIT_INTERRUPTED or not path.exists():
            raise typer.Exit(code)
        runs.append(open_run(path))
    say(f"{_saved(*runs)}\nCoreDNS: {runs[1].head.facts['coredns']}\nRun files: {folder}")


def _saved(before: Run, after: Run) -> str:
    """One sentence: what the second setting saved, through the Service."""
    lost, lasted, planned = [], [], 0
    for one in (before, after):
        told = json.loads(REPORTS["json"](one))
        service = [s for s in told["series"] if s["target_kind"] == "service"]
        planned = sum(s["planned"] for s in service)
        lost.append(sum(s["lost"] for s in service))
        lanes = {s["lane"] for s in service}
        lasted.append(max((w["seconds"] for w in told["windows"] if w["lane"] in lanes), default=0.0))
    return (
        f"Lameduck 5 s, which outlasts the propagation of 3 s, saved {lost[0] - lost[1]:,} queries as one pod of three"
        f" went: {lost[0]:,} of {planned:,} to the Service were lost without it (longest disruption {lasted[0]:.1f} s),"
        f" {lost[1]:,} with it ({lasted[1]:.1f} s)."
    )
