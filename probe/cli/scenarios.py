"""The scenarios that come with dnsprobe in; a list of them, or what one of them shows, out."""

from __future__ import annotations

import json

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from probe.cli import options
from probe.cli.output import say
from probe.cli.tables import drawn
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
