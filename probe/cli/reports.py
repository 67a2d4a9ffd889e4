"""A run, or a sweep -> its report on stdout and in files, and the exit code of its verdict."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from probe.cli.files import check_file, write_json, write_page
from probe.cli.output import complain, say
from probe.errors import EXIT_ENVIRONMENT, EXIT_INCONCLUSIVE, EXIT_PASS, EnvironmentProblem, UsageError
from probe.report.chart import check_extra
from probe.report.formats import PICTURES, REPORTS
from probe.report.text import headline
from probe.report.units import plain
from probe.runfile import Run
from probe.sweep.json import sweep_json
from probe.sweep.reader import Sweep
from probe.sweep.table import table_of
from probe.sweep.text import sweep_text
from probe.verdict import verdict_of

TABLES = {"text": sweep_text, "json": sweep_json}
MESSAGE = "DNSPROBE_TERMINATION_MESSAGE"
"""Names the file of which Kubernetes takes the last words of a container: `kubectl describe pod` shows them."""


def check_format(form: str) -> None:
    """UsageError for a format that is none."""
    if form not in REPORTS:
        raise UsageError(f"--format {form!r}: say {', '.join(REPORTS)}")


def check_files(files: Mapping[str, str], run_file: Path) -> None:
    """UsageError where one of them, by their formats, cannot be written, '' for none; JSON may go to stdout, as -.

    EnvironmentProblem if there is nothing to draw a picture with.
    """
    for form, name in files.items():
        if name == "-" and form == "json":
            continue
        if name == "-":
            printed = f"; --format {form} prints it" if form in REPORTS else ""
            raise UsageError(f"--{form} -: name a file{printed}")
        check_file(f"--{form}", name, run_file)
        if any(name and name == files[other] for other in files if other != form):
            raise UsageError(f"--{form} {name}: is named twice; name another file")
    if any(files.get(form) for form in PICTURES):
        check_extra()


def write_files(files: Mapping[str, str], run: Run) -> None:
    """Write those that were asked for, each in its format."""
    for form, name in files.items():
        if name:
            content = PICTURES[form](run) if form in PICTURES else REPORTS[form](run).encode()
            write_page(f"--{form}", name, content, f"the run file is whole: {run.path}")
            if sys.stderr and sys.stderr.isatty():
                say(f"--{form}: {name}", sys.stderr)


def print_report(run: Run, form: str, json_file: str, rest: Callable[[Run], None] | None = None) -> int:
    """Print the report, and write it as JSON if asked; the verdict's exit code, or that of a full disk on stdout.

    A JSON file that cannot be written any more does not change the verdict. rest: prints what is left of a report that
    was begun while the run went.
    """
    code = verdict_of(run).ruling.exit_code
    first = sys.stderr if json_file == "-" else sys.stdout
    told = [partial(rest, run) if rest else partial(say, REPORTS[form](run), first, "the report")]
    if json_file == "-":
        told.append(partial(say, REPORTS["json"](run), sys.stdout, "the report"))
    if form == "text" and first and first.isatty():
        told.append(partial(say, _foot(run), first, "the report"))
    for tell in told:
        try:
            tell()
        except EnvironmentProblem as problem:
            complain(f"{problem}; the run file is whole: {run.path}")
            code = EXIT_ENVIRONMENT
    if json_file not in ("", "-"):
        write_json(json_file, REPORTS["json"](run), f"the run file is whole: {run.path}")
    if message := os.environ.get(MESSAGE):
        with suppress(OSError):
            Path(message).write_text(f"{headline(verdict_of(run))}\n", encoding="utf-8")
    return code


def _foot(run: Run) -> str:
    """Under a report whose head has scrolled out of a terminal: the verdict again, and what tells more."""
    verdict, file = verdict_of(run), shlex.quote(plain(str(run.path)))
    why = f"why: dnsprobe explain {file}\n" * bool(verdict.timeline.windows)
    return f"{headline(verdict)}\n{why}as a picture: dnsprobe report {file} --html run.html"


def check_sweep_format(form: str) -> None:
    """UsageError for a format that a sweep has not."""
    if form not in TABLES:
        raise UsageError(f"--format {form!r}: of a sweep there is {', '.join(TABLES)}; of one run of it: --cell 1")


def print_sweep(swept: Sweep, form: str, json_file: str) -> int:
    """The table, and JSON if asked; 0: every run is evidence, 3: some are not, or were not made, 4: some could not."""
    told = table_of(swept)
    say(TABLES[form](told), sys.stderr if json_file == "-" else sys.stdout, "the report")
    if json_file:
        write_json(json_file, sweep_json(told), f"the sweep file is whole: {swept.path}")
    if any(run.state == "failed" for run in swept.runs):
        return EXIT_ENVIRONMENT
    return EXIT_INCONCLUSIVE if any(row.doubts for block in told.blocks for row in block.rows) else EXIT_PASS
