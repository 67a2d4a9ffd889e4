"""The path of a run that is to go on -> free: an earlier run's file stands beside it, as .1, .2, ..., not for ever."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from probe.errors import EnvironmentProblem
from probe.model import NS
from probe.runfile.reader import schema_of

SERVED = "dnsprobe-serve.db"
"""The file of a run that goes on, where nobody says another name: in the working directory."""
KEPT = "kept"
"""The fact that such a file has: how much of its run it keeps. No other file is ever removed."""
MOST_ASIDE = 9
PATIENCE_S = 2.0
"""Who reads the file just now is waited for."""


def aside_of(path: Path, nth: int = 1) -> Path:
    """Where the file is kept that stood there before: the last one, the one before that, ..."""
    return path.with_name(f"{path.name}.{nth}")


def set_aside(path: Path, keep_ns: int) -> None:
    """Let the path be free. What was last written longer ago than is kept, or is the tenth, is removed.

    UsageError if what is there is no run file; EnvironmentProblem if another process writes it.
    """
    if not path.exists():
        return
    if not path.stat().st_size:  # a process was ended before it wrote a thing
        path.unlink()
        return
    schema_of(path)
    _make_whole(path)
    there = 1
    while aside_of(path, there).exists():
        there += 1
    for nth in range(there - 1, 0, -1):
        file = aside_of(path, nth)
        if _is_kept(file) and (nth >= MOST_ASIDE or time.time() - file.stat().st_mtime > keep_ns / NS):
            file.unlink()
        else:
            file.rename(aside_of(path, nth + 1))
    path.rename(aside_of(path))


def _make_whole(path: Path) -> None:
    """One file, without a log beside it: that can be done once nobody else has it open."""
    given_up = time.monotonic() + PATIENCE_S
    with closing(sqlite3.connect(path, timeout=0.1, isolation_level=None)) as db:
        while True:
            try:
                db.execute("PRAGMA journal_mode = DELETE")
                return
            except sqlite3.OperationalError as problem:
                if time.monotonic() > given_up:
                    raise EnvironmentProblem(
                        f"{path}: {problem}: another process writes it: name another file with -o, or end that one"
                    ) from None
            except sqlite3.DatabaseError:
                return  # damaged, and so of no use to anybody but as it is
            time.sleep(0.1)


def _is_kept(file: Path) -> bool:
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{file.resolve().as_uri()}?immutable=1", uri=True)) as db:
        return db.execute("SELECT 1 FROM facts WHERE name = ?", (KEPT,)).fetchone() is not None
    return False
