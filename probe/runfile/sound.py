"""The database of a run file -> nothing, or a ValueError that names the column with a value that no dnsprobe writes.

SQLite keeps any value in any column, and a view or a virtual table in the place of a table may never come to an end.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import cache

from probe.histogram import BINS
from probe.outcome import Outcome
from probe.runfile.schema import TABLES

_LONG_S = 20 * 366 * 86_400
"""No run lasts for so many seconds."""
_MOST = 1 << 53
"""Nothing is counted up to there."""
_EVER_NS = 1 << 62
"""What has no end lasts until then."""
_KINDS = {"INTEGER": "'integer'", "TEXT": "'text'", "BLOB": "'blob'", "NUMERIC": "'integer', 'real'"}
_RANGES: dict[str, tuple[float, float]] = {
    "started_unix_ns": (0, _EVER_NS),
    "flushed_ns": (0, _LONG_S * 10**9),
    "end_ns": (0, _LONG_S * 10**9),
    "outcome": (0, len(Outcome) - 1),
    "good": (0, 1),
    "seen.good": (0, _MOST),
    "pair": (0, 1),
    "hides_loss": (0, 1),
    "bin": (0, BINS - 1),
    "port": (0, 65_535),
    "second": (0, _LONG_S),
    "width": (1, _LONG_S),
    "bucket": (0, 10 * _LONG_S),
    "at_ms": (-1000 * _LONG_S, 1000 * _LONG_S),
    "value": (-sys.float_info.max, sys.float_info.max),
}


def check_values(db: sqlite3.Connection) -> None:
    """Of every table that is there; one that is not is the reader's affair. Takes a look at each value."""
    there = {name: (kind, root) for name, kind, root in db.execute("SELECT name, type, rootpage FROM sqlite_schema")}
    for table in _columns():
        kind, root = there.get(table, ("table", 1))
        if kind != "table" or not root or any(hidden for *_, hidden in db.execute(f"PRAGMA table_xinfo({table})")):
            raise ValueError(f"{table} is no table of values")
    (series,) = db.execute("SELECT count(*) FROM series").fetchone()
    for table, columns in _columns().items():
        if table not in there:
            continue
        rules = dict(_rules(table, columns, series))
        which = " ".join(f"WHEN NOT ({rule}) THEN '{column}'" for column, rule in rules.items())
        found = db.execute(f"SELECT CASE {which} END FROM {table} WHERE NOT ({' AND '.join(rules.values())}) LIMIT 1")  # noqa: S608
        if wrong := found.fetchone():
            raise ValueError(f"{table}.{wrong[0]} is not what is written there")


@cache
def _columns() -> Mapping[str, Mapping[str, tuple[str, bool]]]:
    """Of each table the columns: their type, and whether they may be NULL."""
    with closing(sqlite3.connect("")) as db:
        db.executescript(TABLES)
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid")]
        return {
            table: {
                column: (kind, not (required or key))
                for _, column, kind, required, _, key in db.execute(f"PRAGMA table_info({table})")
            }
            for table in tables
        }


def _rules(table: str, columns: Mapping[str, tuple[str, bool]], series: int) -> Iterator[tuple[str, str]]:
    """What holds for each column, as SQL."""
    for column, (kind, may_be_null) in columns.items():
        rule = f"typeof({column}) IN ({_KINDS[kind]})"
        if kind in ("INTEGER", "NUMERIC"):
            low, high = (0, series - 1) if column == "series" else _range(table, column)
            rule += f" AND {column} BETWEEN {low} AND {high}"
        yield column, f"({column} IS NULL OR {rule})" if may_be_null else f"({rule})"


def _range(table: str, column: str) -> tuple[float, float]:
    usual = (-_EVER_NS, _EVER_NS) if column.endswith("_ns") else (0, _MOST)
    return _RANGES.get(f"{table}.{column}", _RANGES.get(column, usual))
