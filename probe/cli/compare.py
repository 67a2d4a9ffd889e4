"""Run files of one scenario in; what changed from the first to the others out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from probe.cli import options
from probe.cli.files import write_json, write_page
from probe.cli.options import reporting
from probe.cli.output import say
from probe.cli.reports import check_files
from probe.errors import UsageError
from probe.report.compare import compare as compare_runs
from probe.report.compared import compared_json, compared_text, worst_ruling
from probe.report.overlay import compared_html
from probe.runfile import open_run

EXAMPLES = options.examples(
    "dnsprobe compare before.db after.db",
    "dnsprobe compare lameduck-0s.db lameduck-5s.db lameduck-10s.db --html lameduck.html",
)


def compare(
    files: Annotated[
        list[str], typer.Argument(help="Run files, what the others are compared with first.", show_default=False)
    ],
    json_file: reporting.ComparedFile = "",
    html: reporting.ComparedPage = "",
) -> None:
    """Lay runs of one scenario side by side: losses, disruptions, latencies, and which difference exceeds noise.

    The exit code is that of the worst verdict after the first run: 0 pass, 1 an objective missed, 3 inconclusive.
    """
    if len(files) < 2:
        raise UsageError(f"{files[0]}: name two run files or more: what it was before, and after")
    for file in files:
        check_files({"json": json_file, "html": html}, Path(file))
    found = compare_runs([open_run(file) for file in files])
    say(compared_text(found).rstrip("\n"), sys.stderr if json_file == "-" else sys.stdout, "the comparison")
    kept = "the run files are as they were"
    if json_file:
        write_json(json_file, compared_json(found).rstrip("\n"), kept)
    if html:
        write_page("--html", html, compared_html(found), kept)
    raise typer.Exit(worst_ruling(found).exit_code)
