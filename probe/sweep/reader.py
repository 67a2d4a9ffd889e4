"""A sweep file, finished or not -> a Sweep: every cell with its runs; and the run file of any of them."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from probe.errors import UsageError
from probe.runfile import Run, open_run
from probe.sweep.measured import Measured, Result
from probe.sweep.rollout import FRESH, REUSED
from probe.sweep.schema import APPLICATION_ID, SCHEMA_VERSION, UPGRADES

MOST_OCTETS = 1 << 28
"""Of one run: a thousand times what a cell leaves; a few octets that unpack without end fill no memory."""


@dataclass(frozen=True, slots=True)
class CellRun:
    """One run of a cell. state: waiting, crowded, done or failed; why: it failed, or is no evidence; else ''."""

    repeat: int
    state: str
    why: str
    beside: int
    started_unix_ns: int
    wall_s: float
    measured: Measured | None


@dataclass(frozen=True, slots=True)
class SweptCell:
    """One combination; vary and under are the names of its values by axis, settings what is put into the scenario."""

    number: int
    vary: tuple[str, ...]
    under: tuple[str, ...]
    settings: tuple[str, ...]
    runs: tuple[CellRun, ...]


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep file holds, without the run files. vary, under: the names of the axes."""

    path: Path
    version: str
    name: str
    command: str
    vary: tuple[str, ...]
    under: tuple[str, ...]
    repeats: int
    started_unix_ns: int
    cells: tuple[SweptCell, ...]

    @property
    def runs(self) -> list[CellRun]:
        """Every run of every cell."""
        return [run for cell in self.cells for run in cell.runs]


def is_sweep(path: Path) -> bool:
    """Whether it is a sweep file, by its header; it need not exist."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError:
        return False
    return header.startswith(b"SQLite format 3\0") and int.from_bytes(header[68:72]) == APPLICATION_ID


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A sweep file's database, to be read; of one that an older dnsprobe wrote an upgraded copy.

    UsageError if it is damaged, or of a newer one.
    """
    # What a kill left half written is taken back by whoever opens it next, who must write for that.
    mode = "rw" if Path(f"{path}-journal").exists() else "ro"
    with ExitStack() as stack:
        try:
            uri = f"{path.resolve().as_uri()}?mode={mode}"
            db = stack.enter_context(closing(sqlite3.connect(uri, uri=True, timeout=10)))
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if not 1 <= version <= SCHEMA_VERSION:
                known = f"this dnsprobe reads {SCHEMA_VERSION} and older: use a newer one"
                raise UsageError(f"{path}: has sweep schema {version}, {known}")
            if version < SCHEMA_VERSION:
                copy = stack.enter_context(closing(sqlite3.connect("")))  # a file without a name that SQLite removes
                db.backup(copy)
                upgrade(copy)
                db = copy
            yield db
        except (sqlite3.Error, zlib.error, ValueError, TypeError) as problem:
            raise UsageError(f"{path}: is a damaged sweep file: {problem}") from None


def upgrade(db: sqlite3.Connection) -> None:
    """Make of a sweep file of an older schema one of this, in one transaction; one of this stays as it is."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    steps = "; ".join((*UPGRADES[version - 1 :], f"PRAGMA user_version = {SCHEMA_VERSION}"))
    db.executescript(f"BEGIN IMMEDIATE; {steps}; COMMIT;")


def open_sweep(path: Path) -> Sweep:
    """Everything but the run files."""
    with opened(path) as db:
        head = db.execute("SELECT version, name, command, vary, under, repeats, started_unix_ns FROM sweep").fetchone()
        version, name, command, *axes, repeats, started = head
        runs = _runs(db, _results(db))
        cells = tuple(
            SweptCell(number, _names(vary), _names(under), _names(settings), tuple(runs[number]))
            for number, vary, under, settings in db.execute(
                "SELECT cell, vary, under, settings FROM cells ORDER BY cell"
            )
        )
    return Sweep(path, version, name, command, _names(axes[0]), _names(axes[1]), repeats, started, cells)


def _names(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def _results(db: sqlite3.Connection) -> dict[tuple[int, int], list[Result]]:
    found: dict[tuple[int, int], list[Result]] = {}
    rows = db.execute(
        "SELECT cell, repeat, lane, target, target_kind, transport, ports, planned, good, lost, lost_at_least, unsent,"
        " longest_seconds, class, healthy_seconds FROM results ORDER BY rowid"
    )
    for cell, repeat, *row in rows:
        found.setdefault((cell, repeat), []).append(Result(*row))
    return found


def _runs(db: sqlite3.Connection, results: dict[tuple[int, int], list[Result]]) -> dict[int, list[CellRun]]:
    found: dict[int, list[CellRun]] = {}
    for row in db.execute(
        "SELECT cell, repeat, state, why, beside, started_unix_ns, wall_seconds, verdict, rollout_seconds,"
        " ended_by, margin_fresh, margin_reused FROM runs ORDER BY cell, repeat"
    ):
        cell, repeat, state, why, beside, started, wall, verdict, rollout, ended, *margins = row
        known = {kind: margin for kind, margin in zip((FRESH, REUSED), margins, strict=True) if margin is not None}
        mine = tuple(results.get((cell, repeat), ()))
        measured = Measured(verdict, why, state == "crowded", rollout, known, ended or "", mine) if verdict else None
        found.setdefault(cell, []).append(CellRun(repeat, state, why, beside or 0, started or 0, wall or 0.0, measured))
    return found


def run_in(path: Path, text: str) -> Run:
    """One run of a sweep file: `17.2` is cell 17, repeat 2; `17` its first. UsageError if it was not made."""
    number, _, repeat = text.partition(".")
    if not (number.isdecimal() and (repeat or "1").isdecimal()):
        raise UsageError(f"--cell {text!r}: say the number of a cell, or cell and repeat: 17, 17.2")
    cell = f"{int(number)}.{int(repeat or 1)}"
    with opened(path) as db:
        row = db.execute("SELECT run, state, why FROM runs WHERE cell = ? AND repeat = ?", cell.split(".")).fetchone()
        cells, repeats = db.execute("SELECT (SELECT count(*) FROM cells), repeats FROM sweep").fetchone()
        if row is None:
            raise UsageError(f"--cell {text}: {path} has cells 1 to {cells}, repeats 1 to {repeats}")
        packed, state, why = row
        if packed is None:
            raise UsageError(f"--cell {text}: there is no run of it: {why or 'its turn has not come yet'} ({state})")
        unpacking = zlib.decompressobj()
        run = unpacking.decompress(packed, MOST_OCTETS)
        if not unpacking.eof:
            raise ValueError(f"the run of cell {cell} is cut off, or larger than {MOST_OCTETS >> 20} MiB")
    with tempfile.TemporaryDirectory(prefix="dnsprobe-cell-") as folder:
        file = Path(folder) / "run.db"
        file.write_bytes(run)
        return replace(open_run(file), path=Path(f"{path} --cell {cell}"))
