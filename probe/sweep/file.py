"""A matrix -> a sweep file, new or continued: which runs are still to be made; what each was, in one transaction."""

from __future__ import annotations

import fcntl
import json
import os
import random
import secrets
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from probe import __version__
from probe.errors import EnvironmentProblem, UsageError
from probe.model import NS
from probe.scenario.cells import Cell, Matrix
from probe.scenario.run import check_path
from probe.sweep.measured import Measured
from probe.sweep.reader import is_sweep, opened, upgrade
from probe.sweep.rollout import FRESH, REUSED
from probe.sweep.schema import APPLICATION_ID, SCHEMA_VERSION, TABLES

POLL_S = 0.2
LOCKED_S = 20.0
"""So long the runs of a sweep that was killed may take to end."""

_RESULT = "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_RECORD = (
    "UPDATE runs SET state = ?, why = ?, beside = ?, started_unix_ns = ?, wall_seconds = ?, verdict = ?,"
    " rollout_seconds = ?, margin_fresh = ?, margin_reused = ?, ended_by = ?, run = ? WHERE cell = ? AND repeat = ?"
)


@dataclass(frozen=True, slots=True)
class Turn:
    """A run that is still to be made. alone: it was made, but with too many others beside it."""

    cell: Cell
    repeat: int
    alone: bool = False

    @property
    def name(self) -> str:
        """`17.2`."""
        return f"{self.cell.number}.{self.repeat}"


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a turn. measured: None if it could not be run; why: the reason; run: its run file."""

    turn: Turn
    state: str
    why: str
    beside: int
    started_unix_ns: int
    wall_s: float
    measured: Measured | None = None
    run: bytes = b""


class SweepFile:
    """A sweep that is going on. What is recorded stays, whatever happens next."""

    def __init__(self, path: Path, db: sqlite3.Connection, cells: tuple[Cell, ...], lock: int) -> None:
        self.path = path
        self.lock = lock
        self._db = db
        self._cells = {cell.number: cell for cell in cells}

    def turns(self) -> list[Turn]:
        """What is still to be done, in order; those that are to be alone come last."""
        rows = self._db.execute(
            "SELECT cell, repeat, state = 'crowded' FROM runs WHERE state != 'done' ORDER BY state = 'crowded', place"
        )
        return [Turn(self._cells[cell], repeat, bool(alone)) for cell, repeat, alone in rows]

    def done(self) -> int:
        """How many turns are over for good."""
        return int(self._db.execute("SELECT count(*) FROM runs WHERE state = 'done'").fetchone()[0])

    def record(self, made: Made) -> None:
        """One transaction. EnvironmentProblem if it cannot be written."""
        cell, repeat, measured = made.turn.cell.number, made.turn.repeat, made.measured
        told: tuple[object, ...] = (None, None, None, None, None)
        if measured:
            margins = (measured.margins.get(FRESH), measured.margins.get(REUSED))
            told = (measured.verdict, measured.rollout, *margins, measured.ended_by)
        head = (made.state, made.why, made.beside, made.started_unix_ns, made.wall_s)
        with _written(self.path), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(_RECORD, (*head, *told, zlib.compress(made.run) if made.run else None, cell, repeat))
            self._db.execute("DELETE FROM results WHERE cell = ? AND repeat = ?", (cell, repeat))
            for r in measured.results if measured else ():
                who = (r.lane, r.target, r.kind, r.transport, r.ports)
                counts = (r.planned, r.good, r.lost, r.lost_at_least, r.unsent)
                self._db.execute(_RESULT, (cell, repeat, *who, *counts, r.longest, r.outcome, r.healthy))


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """EnvironmentProblem for what SQLite cannot write there."""
    try:
        yield
    except sqlite3.Error as problem:
        raise EnvironmentProblem(f"{path}: cannot be written: {problem}: make room") from None


@contextmanager
def sweep_file(
    path: Path, matrix: Matrix, objectives: tuple[str, ...], repeats: int, command: str, noted: Callable[[str], None]
) -> Iterator[SweepFile]:
    """Begin a sweep there, or continue the one that is there; nobody else may write it meanwhile.

    UsageError if something else is there, or another sweep, or one that goes on. EnvironmentProblem if it cannot be
    written.
    """
    check_out(path, matrix, objectives)
    with _locked(path, noted) as lock, closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as db:
        with _written(path):
            if is_sweep(path):
                upgrade(db)
            else:
                _begin(db, matrix, objectives, command)
            _add_runs(db, matrix, repeats)
        yield SweepFile(path, db, matrix.cells, lock)


def check_out(path: Path, matrix: Matrix, objectives: tuple[str, ...]) -> None:
    """UsageError if no sweep can be begun there, nor this one be continued."""
    if not is_sweep(path):
        if not (path.is_file() and path.stat().st_size == 0):  # a sweep that was killed before it began
            check_path(path)
        return
    with opened(path) as db:
        told = db.execute("SELECT scenario, objectives FROM sweep").fetchone()
    now = (matrix.text, json.dumps(objectives))
    for what, was, asked in zip(("scenario or --set", "--fail"), told, now, strict=True):
        if was != asked:
            raise UsageError(
                f"{path}: is a sweep of something else ({what} differs), which this one cannot continue:"
                " name another file with -o"
            )


def _begin(db: sqlite3.Connection, matrix: Matrix, objectives: tuple[str, ...], command: str) -> None:
    """All of it or nothing: a file that is there has its sweep."""
    pragmas = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
    with db:
        db.executescript(f"BEGIN IMMEDIATE; {pragmas} {TABLES}")
        axes = (json.dumps([axis.name for axis in side]) for side in (matrix.vary, matrix.under))
        head = (__version__, matrix.name, command, matrix.text, json.dumps(objectives), *axes, 0)
        began = (secrets.randbits(31), time.time_ns())
        db.execute("INSERT INTO sweep VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*head, *began))
        for cell in matrix.cells:
            names = (json.dumps(cell.vary), json.dumps(cell.under), json.dumps(cell.settings))
            db.execute("INSERT INTO cells VALUES (?, ?, ?, ?, ?)", (cell.number, *names, cell.plan.duration_ns / NS))


def _add_runs(db: sqlite3.Connection, matrix: Matrix, repeats: int) -> None:
    """Repeats that are not there yet, each in an order of its own: whole repeats are done first."""
    had, seed = db.execute("SELECT repeats, seed FROM sweep").fetchone()
    with db:
        db.execute("BEGIN IMMEDIATE")
        for repeat in range(had + 1, repeats + 1):
            numbers = [cell.number for cell in matrix.cells]
            random.Random(f"{seed} {repeat}").shuffle(numbers)
            for i, number in enumerate(numbers):
                place = (repeat - 1) * len(numbers) + i
                db.execute("INSERT INTO runs (cell, repeat, place) VALUES (?, ?, ?)", (number, repeat, place))
        db.execute("UPDATE sweep SET repeats = max(repeats, ?)", (repeats,))


@contextmanager
def _locked(path: Path, noted: Callable[[str], None]) -> Iterator[int]:
    """The file's flock, which the runs of a sweep hold too: one that was killed is over when they are."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _has_lock(descriptor):
            noted(f"{path}: is being written: waiting for the end of it, up to {LOCKED_S:g} s")
            until = time.monotonic() + LOCKED_S
            while not _has_lock(descriptor):
                if time.monotonic() > until:
                    raise UsageError(f"{path}: a sweep is being written there: wait for it, or stop it")
                time.sleep(POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


def _has_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
