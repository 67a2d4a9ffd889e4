"""Lookups of client profiles -> rows of a run file; and back, in the order in which they were made."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from probe.model import Fate, Lookup

TABLES = """
CREATE TABLE lookups (      -- what clients looked up as an application's resolver does, beside the lanes
  at_ns INTEGER NOT NULL, client TEXT NOT NULL, name TEXT NOT NULL,
  fate TEXT NOT NULL,       -- found, not_found (a server said so), failed, unfinished (the run ended before it)
  took_ns INTEGER NOT NULL,
  error TEXT NOT NULL       -- what an application would print
);
"""
INSERT = "INSERT INTO lookups VALUES (?, ?, ?, ?, ?, ?)"


def rows_of(lookups: Iterable[Lookup]) -> list[tuple[object, ...]]:
    """As INSERT has them."""
    return [(one.at_ns, one.client, one.name, one.fate.value, one.took_ns, one.error) for one in lookups]


def read_lookups(db: sqlite3.Connection, since_ns: int = 0) -> tuple[Lookup, ...]:
    """All of a run file; none of one that has no such table."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'lookups'").fetchone():
        return ()
    rows = db.execute("SELECT * FROM lookups WHERE at_ns >= ? ORDER BY at_ns, rowid", (since_ns,))
    return tuple(Lookup(at, client, name, Fate(fate), took, error) for at, client, name, fate, took, error in rows)
