"""Run files of many clusters in, a line for each out, worst first."""

from __future__ import annotations

from typing import Annotated

import typer

from probe.cli import options
from probe.cli.options import reporting
from probe.cli.output import complain, say
from probe.errors import EXIT_ENVIRONMENT, UsageError
from probe.report.fleet import fleet_json, fleet_of, fleet_text
from probe.runfile import open_run
from probe.verdict import Ruling

EXAMPLES = options.examples("dnsprobe fleet *.db", "dnsprobe fleet *.db --format json | jq '.runs[0]'")
FORMATS = ("text", "json")


def fleet(
    files: Annotated[list[str], typer.Argument(help="Run files, merged ones too.", show_default=False)],
    form: reporting.FleetFormat = "text",
) -> None:
    """One line for each run, worst first: versions, lameduck, what was lost, the longest disruption, the verdict.

    Exit code: 1 if any failed, else 3 if any is inconclusive, else 0; 4 if a file could not be read: it is named.
    """
    if form not in FORMATS:
        raise UsageError(f"--format {form!r}: say {', '.join(FORMATS)}")
    runs, unreadable = [], {}
    for file in files:
        try:
            runs.append(open_run(file))
        except UsageError as problem:
            unreadable[file] = str(problem)
            complain(str(problem))
    lines = fleet_of(runs)
    if form == "json":
        say(fleet_json(lines, unreadable))
    elif lines:
        say(fleet_text(lines))
    worst = Ruling.worst({Ruling(line.verdict) for line in lines})
    raise typer.Exit(EXIT_ENVIRONMENT if unreadable else worst.exit_code)
