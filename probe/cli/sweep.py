"""A scenario with a matrix in; its sweep, made or continued, and the table of it out."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from probe.cli import options
from probe.cli.files import check_json
from probe.cli.output import complain, say
from probe.cli.reports import check_sweep_format, print_sweep
from probe.cli.tables import drawn
from probe.errors import (
    EXIT_INTERRUPTED,
    EXIT_PASS,
    EnvironmentProblem,
    UsageError,
)
from probe.live.sweep import fitting_sweep_view, left
from probe.report.units import count
from probe.scenario.cells import Cell, Matrix
from probe.scenario.limits import check_ceiling
from probe.scenario.plan import expected_series
from probe.scenario.quantity import seconds_text
from probe.sweep.file import check_out, sweep_file
from probe.sweep.reader import open_sweep
from probe.sweep.run import jobs_for, run_turns, seconds_for

CELLS_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Asked:
    """How a sweep is to be made. repeats, jobs: None for the matrix's, and for what this machine bears; out: '' too."""

    lab: bool
    repeats: int | None
    jobs: int | None
    workers: int
    objectives: tuple[str, ...]
    ceiling: Fraction | None
    out: str
    form: str
    json_file: str


def sweep(matrix: Matrix, asked: Asked, dry_run: bool) -> int:
    """Make every run that is not made yet, print the table; the exit code."""
    check_sweep_format(asked.form)
    if not asked.lab and not dry_run:
        raise UsageError(
            f"{matrix.name}: a sweep is made in the lab: add --lab, or say one cell's values with --set in a scenario"
            " without a matrix"
        )
    matrix = _with_objectives(matrix, asked.objectives)
    for cell in matrix.cells:
        check_ceiling(expected_series(cell.plan), asked.ceiling)
    for note in dict.fromkeys(note for cell in matrix.cells for note in cell.plan.notes):
        complain(f"note: {note}")
    plans = [cell.plan for cell in matrix.cells]
    repeats, jobs = asked.repeats or matrix.repeats, asked.jobs or jobs_for(plans)
    if dry_run:
        _show(matrix, repeats, jobs)
        return EXIT_PASS
    path = Path(asked.out or f"dnsprobe-{matrix.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db")
    check_out(path, matrix, asked.objectives)
    check_json(asked.json_file, path)
    command = options.command_line()
    again = command if asked.out else f"{command} -o {shlex.quote(str(path))}"
    try:
        with sweep_file(path, matrix, asked.objectives, repeats, command, complain) as file:
            view = fitting_sweep_view()
            interrupted = asyncio.run(run_turns(file, view, jobs, asked.workers, command))
    except EnvironmentProblem as problem:
        raise EnvironmentProblem(f"{problem}; what was made is in {path}; to continue, say: {again}") from None
    code = print_sweep(open_sweep(path), asked.form, asked.json_file)
    if interrupted:
        states = [run.state for run in open_sweep(path).runs]
        done, of = count(states.count("done")), count(len(states))
        complain(f"interrupted: {done} of {of} runs are in {path}; to continue, say: {again}")
        return EXIT_INTERRUPTED
    return code


def _with_objectives(matrix: Matrix, objectives: tuple[str, ...]) -> Matrix:
    if not objectives:
        return matrix
    cells = [replace(cell, plan=replace(cell.plan, objectives=objectives)) for cell in matrix.cells]
    return replace(matrix, cells=tuple(cells))


def _show(matrix: Matrix, repeats: int, jobs: int) -> None:
    """A dry run: the cells, how long each takes, how long all do."""
    n = len(matrix.cells)
    takes = left(seconds_for([cell.plan for cell in matrix.cells] * repeats, jobs)).removesuffix(" left")
    title = f"{matrix.name}: {count(n)} cells x {repeats} repeats = {count(n * repeats)} runs"
    title += f", {jobs} at a time: about {takes}"
    axes = (*matrix.under, *matrix.vary)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("cell", justify="right")
    for axis in axes:
        table.add_column(Text(axis.name))
    table.add_column("length", justify="right")
    for cell in matrix.cells[:CELLS_SHOWN]:
        table.add_row(str(cell.number), *_values(cell), seconds_text(cell.plan.duration_ns))
    more = [Text(f"and {count(n - CELLS_SHOWN)} more")] if n > CELLS_SHOWN else []
    steps = [Text(f"  {step}") for step in matrix.cells[0].plan.steps]
    say(drawn(Text(title), table, *more, *steps))


def _values(cell: Cell) -> list[Text]:
    return [Text(value) for value in (*cell.under, *cell.vary)]
