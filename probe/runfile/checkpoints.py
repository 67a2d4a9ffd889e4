"""Sums since the start -> what they were every 10 s, so that any stretch has its own; and what is older than is kept.

A later checkpoint less an earlier one is what was counted between these two flushes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from probe.recorder import Flush
from probe.runfile.packed import Ints, pack_sums, unpack_sums

TABLES = """
CREATE TABLE checkpoints (  -- what had been counted by then since the start: rows that are older may be gone
  second INTEGER, what TEXT,  -- unsent, counters, lag, failures_left_out, server and its name; all as in those tables
  sums BLOB NOT NULL,       -- zlib of uint32[k], then uint64[k], packed as histograms are: steps from key to key; sum
  PRIMARY KEY (second, what)  -- keys: series x causes (or counters) + which; bin; 0; series
) WITHOUT ROWID;
"""
INSERT = "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?)"
LEFT_OUT, SERVER = "failures_left_out", "server "
NEAR_S = 60
"""The checkpoint that a stretch begins at is no further before its time."""

_CUT = "(SELECT max(second) FROM checkpoints WHERE second <= ?1)"
PRUNE = tuple(sql.replace("CUT", _CUT) for sql in (
    "DELETE FROM seconds WHERE second < CUT",
    "DELETE FROM in_flight WHERE second < CUT",
    "DELETE FROM tenths WHERE bucket < 10 * CUT",
    "DELETE FROM bad WHERE bucket < 10 * CUT",
    "DELETE FROM histograms WHERE second < CUT",
    "DELETE FROM failures WHERE due_ns < 1000000000 * CUT",
    "DELETE FROM lookups WHERE at_ns < 1000000000 * CUT",
    "DELETE FROM intervals WHERE to_ns <= 1000000000 * CUT",
    # A rollout that goes on, or ended later, has begun, however long ago.
    """DELETE FROM marks WHERE at_ns < 1000000000 * CUT AND NOT (kind = 'rollout_started' AND NOT EXISTS (
        SELECT 1 FROM marks AS done
        WHERE done.kind = 'rollout_done' AND done.subject = marks.subject AND done.at_ns >= marks.at_ns
        AND done.at_ns < 1000000000 * CUT))""",
    # A value stands until the next one.
    """DELETE FROM samples WHERE at_ms < 1000 * CUT AND (value IS NULL OR EXISTS (
        SELECT 1 FROM samples AS later
        WHERE later.metric = samples.metric AND later.at_ms > samples.at_ms AND later.at_ms <= 1000 * CUT))""",
    "DELETE FROM metrics WHERE ?1 > 0 AND metric NOT IN (SELECT metric FROM samples)",
    "DELETE FROM checkpoints WHERE second < CUT",
))  # fmt: skip
"""Each takes the second up to which rows may go: they go up to the last checkpoint before."""


_MOST_CELLS = 1 << 20
"""A table of sums has no more."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What had been counted by `second`: flat tables by name, keys and sums as they are stored."""

    second: int
    sums: Mapping[str, tuple[Ints, Ints]]

    def table(self, what: str, cells: int) -> Ints:
        """int64[cells]; series that joined later had nothing."""
        table = np.zeros(cells, np.int64)
        keys, sums = self.sums.get(what, (np.empty(0, np.int64), np.empty(0, np.int64)))
        table[keys] = sums
        return table


def rows_of(second: int, flush: Flush, left_out: int) -> list[tuple[object, ...]]:
    """The rows of the checkpoint that a flush makes."""
    sums = {"unsent": flush.unsent, "counters": flush.counters, "lag": flush.lag, LEFT_OUT: np.array([left_out])}
    sums |= {f"{SERVER}{nsid}": by.n for nsid, by in flush.servers.items()}
    return [(second, what, pack_sums(table)) for what, table in sums.items()]


def first_rows() -> list[tuple[object, ...]]:
    """Nothing had been counted at the start."""
    return [(0, "lag", pack_sums(np.empty(0, np.int64)))]


def read_checkpoints(db: sqlite3.Connection) -> list[int]:
    """The seconds of all that there are, ascending; none of a file that has no such table."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'checkpoints'").fetchone():
        return []
    return [second for (second,) in db.execute("SELECT DISTINCT second FROM checkpoints ORDER BY second")]


def read_checkpoint(db: sqlite3.Connection, second: int) -> Checkpoint:
    """One of them."""
    rows = db.execute("SELECT what, sums FROM checkpoints WHERE second = ?", (second,))
    return Checkpoint(second, {what: unpack_sums(blob, _MOST_CELLS) for what, blob in rows})
