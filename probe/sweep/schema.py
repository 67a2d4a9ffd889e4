"""What a sweep file holds: SQLite tables, one row a cell and repeat, with each run file whole inside.

The comments inside the statements stay in the file: `sqlite3 sweep.db .schema` shows them.
"""

from __future__ import annotations

APPLICATION_ID = 0x444E5357
"""`DNSW`, in SQLite's header, so that `file` and the reader know whose database it is."""
UPGRADES: tuple[str, ...] = ()
"""SQL: UPGRADES[n - 1] makes a file of version n + 1 of one of version n, likewise as in probe.runfile.schema.

A sweep that is read is upgraded on a copy, one that is continued in its place. Who changes TABLES keeps a sweep of the
new version in tests/data/sweep, by `sqlite3 sweep.db .dump`.
"""
SCHEMA_VERSION = 1 + len(UPGRADES)

TABLES = """
CREATE TABLE sweep (        -- one row
  version TEXT NOT NULL,    -- of dnsprobe
  name TEXT NOT NULL,
  command TEXT NOT NULL,    -- that began it
  scenario TEXT NOT NULL,   -- YAML as given, with what was set
  objectives TEXT NOT NULL, -- JSON array of text; empty: the default ones
  vary TEXT NOT NULL,       -- JSON: names of the axes one can choose on
  under TEXT NOT NULL,      -- JSON: names of the axes that are circumstances
  repeats INTEGER NOT NULL,
  seed INTEGER NOT NULL,    -- of the order
  started_unix_ns INTEGER NOT NULL
);
CREATE TABLE cells (        -- every combination, in the order given
  cell INTEGER PRIMARY KEY,
  vary TEXT NOT NULL,       -- JSON: the value's name on each axis of vary
  under TEXT NOT NULL,
  settings TEXT NOT NULL,   -- JSON array: what is put into the scenario, PATH=VALUE
  planned_seconds REAL NOT NULL
);
CREATE TABLE runs (         -- every cell as often as it is repeated
  cell INTEGER, repeat INTEGER,
  place INTEGER NOT NULL,   -- when its turn is: a random order, one repeat of all cells after the other
  state TEXT NOT NULL DEFAULT 'waiting', -- waiting; crowded: to be run again, alone; done; failed: could not be run
  why TEXT NOT NULL DEFAULT '',  -- it failed; or is no evidence that nothing was lost, though it ran
  beside INTEGER,           -- how many others ran when it began
  started_unix_ns INTEGER,
  wall_seconds REAL,        -- from when its process was started until it had ended
  verdict TEXT,
  rollout_seconds REAL,     -- from the first step to the last pod_gone, pod_ready or rollout_done after it
  margin_fresh REAL,        -- seconds: how long before its end nothing new was sent to a pod, the least of all pods
  margin_reused REAL,       -- the same for source ports that are used again
  ended_by TEXT,            -- what ended the Service for good: lameduck over, SIGKILL, readiness lost; '' if it went on
  run BLOB,                 -- its run file, zlib: dnsprobe report FILE --cell CELL.REPEAT
  PRIMARY KEY (cell, repeat)
) WITHOUT ROWID;
CREATE TABLE results (      -- what each lane lost on each target
  cell INTEGER, repeat INTEGER, lane TEXT, target TEXT, target_kind TEXT NOT NULL,
  transport TEXT NOT NULL, ports TEXT NOT NULL,
  planned INTEGER NOT NULL, good INTEGER NOT NULL, lost INTEGER NOT NULL,
  lost_at_least INTEGER NOT NULL,  -- without what may be no fault of DNS
  unsent INTEGER NOT NULL, longest_seconds REAL NOT NULL, class TEXT NOT NULL,  -- of the longest disruption
  healthy_seconds REAL,            -- from the first step to the first query that was lost after it
  PRIMARY KEY (cell, repeat, lane, target)
);
"""
