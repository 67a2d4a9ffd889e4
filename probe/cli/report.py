"""Run files in; their report out again, of one run or of its shards put together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probe.cli import options
from probe.cli.files import check_json
from probe.cli.options import reporting
from probe.cli.output import complain
from probe.cli.reports import check_files, check_format, check_sweep_format, print_report, print_sweep, write_files
from probe.errors import UsageError
from probe.runfile import SERVED, Run, aside_of, open_stretch
from probe.scenario.quantity import duration_ns, seconds_text
from probe.sweep.reader import is_sweep, open_sweep, run_in

EXAMPLES = options.examples(
    "dnsprobe report run.db",
    "dnsprobe report run.db --format json | jq .totals",
    "dnsprobe report run.db --html run.html",
    "dnsprobe report run.db --format markdown >> $GITHUB_STEP_SUMMARY",
    "dnsprobe report --last 15m",
    "dnsprobe report sweep.db",
    "dnsprobe report sweep.db --cell 17.2",
)

FILE_HELP = f"What a run wrote, even if it was cut short or goes on (default {SERVED}, which `dnsprobe serve` writes)."


def report(
    file: Annotated[str, typer.Argument(help=FILE_HELP, show_default=False)] = SERVED,
    last: reporting.Last = "",
    cell: reporting.OneCell = "",
    form: reporting.Format = "text",
    json_file: options.JsonFile = "",
    html: reporting.HtmlFile = "",
    png: reporting.PngFile = "",
    svg: reporting.SvgFile = "",
    markdown: reporting.MarkdownFile = "",
    csv: reporting.CsvFile = "",
    junit: reporting.JunitFile = "",
) -> None:
    """Report a run again, with the exit code of its verdict: 0 pass, 1 an objective missed, 3 inconclusive.

    Of a run that goes on, up to where all is decided. Of a sweep the table, and 0; 3 if a run of it is inconclusive or
    not made yet, 4 if one could not be made.
    """
    path, last_ns = Path(file), options.typed("--last", last, duration_ns) if last else 0
    swept = is_sweep(path)
    files = {"html": html, "png": png, "svg": svg, "markdown": markdown, "csv": csv, "junit": junit}
    if swept and last:
        raise UsageError(f"--last {last}: not of a sweep, which is many runs: say --cell, or name a run file")
    if swept and not cell:
        if asked := [form for form, name in files.items() if name]:
            raise UsageError(f"--{asked[0]}: of a sweep there is none; of one run of it: --cell 1")
        check_sweep_format(form)
        check_json(json_file, path)
        raise typer.Exit(print_sweep(open_sweep(path), form, json_file))
    if cell and not swept:
        raise UsageError(f"--cell {cell}: {file} is no sweep: leave it out")
    check_format(form)
    check_files({"json": json_file, **files}, path)
    run = run_in(path, cell) if swept else _stretch(path, last_ns)
    code = print_report(run, form, json_file)
    write_files(files, run)
    raise typer.Exit(code)


def _stretch(path: Path, last_ns: int) -> Run:
    """The run, or its end; and where what came before it is, if that was asked for and is there."""
    run, earlier = open_stretch(path, last_ns), aside_of(path)
    if run.end_ns < last_ns and earlier.exists():
        complain(f"note: {path} has the last {seconds_text(run.end_ns)} alone: what was before is in {earlier}")
    return run
