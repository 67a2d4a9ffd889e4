"""A run's report and sentences in, on stdout, stderr and in a file out: all that is said to a person or a program."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from probe.errors import EXIT_ENVIRONMENT, EnvironmentProblem, UsageError
from probe.report import PICTURES, REPORTS
from probe.report.chart import check_extra
from probe.report.text import headline
from probe.report.units import plain
from probe.runfile import Run
from probe.verdict import verdict_of

MESSAGE = "DNSPROBE_TERMINATION_MESSAGE"
"""Names the file of which Kubernetes takes the last words of a container: `kubectl describe pod` shows them."""


def drawn(*parts: RenderableType) -> str:
    """What a console makes of them, as wide as stdout's terminal and in its colours."""
    console = Console()
    with console.capture() as capture:
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, Text))
    return capture.get().rstrip("\n")


def say(text: str, stream: TextIO | None = None, what: str = "the output") -> None:
    """Print it, at once. A reader who has gone is no fault; EnvironmentProblem for a full disk."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError as problem:
        silence(stream)
        if not isinstance(problem, BrokenPipeError):
            raise EnvironmentProblem(f"{what} cannot be written: {problem.strerror}") from None


def complain(text: str) -> None:
    """A line about an error, or a note. Where stderr cannot be written either, nothing is left to say."""
    with suppress(EnvironmentProblem):
        say("dnsprobe: " + "\n".join(plain(line) for line in text.splitlines()), sys.stderr)


def silence(stream: TextIO) -> None:
    """What the stream still holds would fail once more when Python ends, and change the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def check_format(form: str) -> None:
    """UsageError for a format that is none."""
    if form not in REPORTS:
        raise UsageError(f"--format {form!r}: say {', '.join(REPORTS)}")


def check_json(json_file: str, run_file: Path, form: str = "") -> None:
    """UsageError where --json cannot be written, before anything is asked."""
    if json_file == "-" and form == "jsonl":
        raise UsageError("--json -: stdout has the lines of --format jsonl: name a file")
    if json_file != "-":
        check_file("--json", json_file, run_file)


def check_file(word: str, name: str, run_file: Path) -> None:
    """UsageError where the file of an option, '' for none, cannot be written."""
    if not name:
        return
    file = Path(name)
    if not file.parent.is_dir():
        raise UsageError(f"{word} {name}: its folder does not exist")
    if file.resolve() == run_file.resolve() or file.is_dir():
        raise UsageError(f"{word} {name}: is the run file, or a folder; name another file")
    try:
        there = file.exists()
        if file.is_file() or not there:
            file.open("ab").close()
        if not there:
            file.unlink()
    except OSError as problem:
        raise UsageError(f"{word} {name}: cannot be written: {problem.strerror}; name another file") from None


def check_files(files: Mapping[str, str], run_file: Path) -> None:
    """The same for files by their formats. EnvironmentProblem if there is nothing to draw a picture with."""
    for form, name in files.items():
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


def write_json(json_file: str, text: str, kept: str) -> None:
    """Write it, if asked; `kept` says what there is where that cannot be done any more."""
    if json_file == "-":
        say(text)
    elif json_file:
        write_page("--json", json_file, text.encode(), kept)


def write_page(word: str, name: str, content: bytes, kept: str) -> None:
    """Write a file; what cannot be written any more is said, with what there is."""
    try:
        Path(name).write_bytes(content)
    except OSError as problem:
        complain(f"{word} {name}: cannot be written: {problem.strerror}; {kept}")
