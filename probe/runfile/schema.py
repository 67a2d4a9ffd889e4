"""What a run file holds: SQLite tables, and views that answer the usual questions in plain SQL.

The comments inside the statements stay in the file: `sqlite3 run.db .schema` shows them.
"""

from __future__ import annotations

from probe.runfile import checkpoints, lookups, samples, vantage

APPLICATION_ID = 0x444E5350
"""`DNSP`, in SQLite's header, so that `file` and the reader know whose database it is."""
UPGRADES: tuple[str, ...] = ()
"""SQL: UPGRADES[n - 1] makes a file of version n + 1 of one of version n.

A released dnsprobe has written files of each version, and this one reads them all: on open an older file is copied, and
the copy upgraded (reader). Who changes TABLES or VIEWS adds the SQL that does the same to a file that is there, and
leaves the SQL before it as it is: `ALTER TABLE run ADD COLUMN ...`; a view is dropped and made anew. Then
tests/test_upgrades.py asks for a run of the new version, and says how it is made.
"""
SCHEMA_VERSION = 1 + len(UPGRADES)
QUESTIONS_KEPT = 1_000
"""Of a series; it may have millions."""
SLICE_SECONDS = 10
"""Width of a histogram where nothing was lost; where something was, it is a second."""

TABLES = """
CREATE TABLE run (          -- one row
  version TEXT NOT NULL,    -- of dnsprobe
  name TEXT NOT NULL,
  command TEXT NOT NULL,
  scenario TEXT NOT NULL,   -- YAML as given, '' for an ad hoc run
  started_unix_ns INTEGER NOT NULL,  -- t0: every other *_ns counts from here
  planned_ns INTEGER NOT NULL,       -- how long the run was meant to last
  objectives TEXT NOT NULL,          -- JSON array of text
  flushed_ns INTEGER NOT NULL DEFAULT 0,      -- when the file was last written
  end_ns INTEGER,                    -- NULL: the run never finished
  cut TEXT NOT NULL DEFAULT '',      -- why it ended early, '' if it did not
  failures_left_out INTEGER NOT NULL DEFAULT 0,
  lag_max_ns INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE series (       -- what one lane asks one target for one type
  series INTEGER PRIMARY KEY,
  lane TEXT NOT NULL, target TEXT NOT NULL, target_kind TEXT NOT NULL,
  address TEXT NOT NULL, port INTEGER NOT NULL, side TEXT NOT NULL,
  transport TEXT NOT NULL, ports TEXT NOT NULL, qtype TEXT NOT NULL,
  questions TEXT NOT NULL,  -- JSON array of [name, type, what counts as good, null or [EDNS size, DO, NSID]],
  question_count INTEGER NOT NULL,  -- of which there are so many; the first 1,000 are kept
  weights TEXT NOT NULL,    -- JSON array: how often each is asked among the others; empty: all alike
  rate TEXT NOT NULL,       -- queries a second at the most, a fraction: 100/3
  shape TEXT NOT NULL,      -- JSON: arrivals even, poisson (drawn from seed) or max (no schedule; so many outstanding
                            -- as window, each asked pause ns after the outcome of the one before it, 0: at once);
                            -- legs: [[ns, share of rate at its beginning, at its end], ...] from t0 on
  pair INTEGER NOT NULL,    -- 1: rows of one number leave one socket as A and AAAA, back to back
  gso INTEGER NOT NULL,     -- up to so many rows leave as one burst
  share TEXT NOT NULL,      -- which of its rows this run asked: 1/4: those whose number modulo 4 is 1
  offset_ns INTEGER NOT NULL, start_ns INTEGER NOT NULL,  -- row i of a constant rate: at start + offset + i/rate
  stop_ns INTEGER NOT NULL, timeout_ns INTEGER NOT NULL
);
CREATE TABLE outcomes (outcome INTEGER PRIMARY KEY, label TEXT NOT NULL, blame TEXT NOT NULL, help TEXT NOT NULL);
CREATE TABLE seconds (      -- rows due in a second in which this series had nothing but good ones
  second INTEGER, series INTEGER, outcome INTEGER, good INTEGER, n INTEGER NOT NULL,
  PRIMARY KEY (second, series, outcome, good)
) WITHOUT ROWID;
CREATE TABLE tenths (       -- rows due in 100 ms: only for seconds in which this series had a row that was not good,
                            -- and all of a closed loop with a pause, whose gaps nobody can calculate;
                            -- in a merged run that is decided for each shard, so a second may be in both tables
  bucket INTEGER, series INTEGER, outcome INTEGER, good INTEGER, n INTEGER NOT NULL,
  PRIMARY KEY (bucket, series, outcome, good)
) WITHOUT ROWID;
CREATE TABLE bad (          -- exact due instants of the first and last row of 100 ms that was lost (unsent apart)
  bucket INTEGER, series INTEGER, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
  PRIMARY KEY (bucket, series)
) WITHOUT ROWID;
CREATE TABLE in_flight (    -- rows due in a second and undecided; planned = sum of outcomes + in flight
  second INTEGER, series INTEGER, n INTEGER NOT NULL,
  PRIMARY KEY (second, series)
) WITHOUT ROWID;
CREATE TABLE histograms (   -- durations of rows due in [second, second + width)
  second INTEGER, width INTEGER,  -- 10, and 1 for the series that lost something in that second
  counts BLOB NOT NULL,     -- zlib of uint32[2, k], k lowest octets first, then the next k, ...: steps from one key,
  --                           (series x 3 + duration) x 832 + bin, to the next; count
  maxima BLOB NOT NULL,     -- likewise: uint32[k], steps of series x 3 + duration; uint64[k], the longest in ns
  -- duration 0 latency (due to reply, good rows alone), 1 rtt (send to reply), 2 connect (TCP); bin b begins at
  -- 1024 ns x 2^(b div 32) x (1 + (b mod 32)/32)
  PRIMARY KEY (second, width)
) WITHOUT ROWID;
CREATE TABLE failures (     -- rows that were not good, exactly: at most 10 of each series and second, 50,000 in all
  series INTEGER NOT NULL, due_ns INTEGER NOT NULL, sent_ns INTEGER NOT NULL, question TEXT NOT NULL,
  outcome INTEGER NOT NULL, errno INTEGER NOT NULL, phase TEXT NOT NULL,
  source_port INTEGER NOT NULL, query_id INTEGER NOT NULL
);
CREATE TABLE unsent (       -- unsent rows by cause, whole run
  series INTEGER, cause TEXT, n INTEGER NOT NULL, PRIMARY KEY (series, cause)
) WITHOUT ROWID;
CREATE TABLE counters (     -- what was counted beside the outcomes, whole run
  series INTEGER, counter TEXT, n INTEGER NOT NULL, PRIMARY KEY (series, counter)
) WITHOUT ROWID;
CREATE TABLE servers (      -- rows by the server that answered them, as it named itself (NSID, RFC 5001), whole run
  series INTEGER, nsid TEXT, n INTEGER NOT NULL,
  first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,  -- when the first and the last of these n rows were due
  PRIMARY KEY (series, nsid)
) WITHOUT ROWID;
CREATE TABLE lag (          -- send minus due of every row that was sent; bins as in histograms
  bin INTEGER PRIMARY KEY, n INTEGER NOT NULL
);
CREATE TABLE marks (        -- what happened, to whom (subject), who says so (source)
  at_ns INTEGER NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL, source TEXT NOT NULL, subject TEXT NOT NULL
);
CREATE TABLE doubts (       -- of a merged run, or one made from a log: what each prober did wrong itself
  id TEXT NOT NULL, text TEXT NOT NULL, lanes TEXT NOT NULL, hides_loss INTEGER NOT NULL  -- lanes: JSON, [] for all
);
CREATE TABLE intervals (    -- [from_ns, to_ns): a pod's counted life, a watch gap, lost seconds
  from_ns INTEGER, to_ns INTEGER NOT NULL, kind TEXT, text TEXT NOT NULL, source TEXT NOT NULL, subject TEXT,
  PRIMARY KEY (kind, subject, from_ns)
) WITHOUT ROWID;
"""
TABLES += vantage.TABLES

TABLES += samples.TABLES

TABLES += lookups.TABLES

TABLES += checkpoints.TABLES

VIEWS = """
CREATE VIEW counts AS       -- every finished row, by the second in which it was due
  SELECT second, series, outcome, good, n FROM seconds
  UNION ALL
  SELECT bucket / 10, series, outcome, good, sum(n) FROM tenths GROUP BY 1, 2, 3, 4;
CREATE VIEW series_totals AS
  WITH done AS (
    SELECT series, sum(n) AS n, sum(n * good) AS good, sum(n * (1 - good) * (outcome = 13)) AS unsent
    FROM counts GROUP BY series),
  waiting AS (SELECT series, sum(n) AS n FROM in_flight GROUP BY series)
  SELECT series, lane, target, transport, ports, qtype,
         coalesce(done.n, 0) + coalesce(waiting.n, 0) AS planned,
         coalesce(good, 0) AS good,
         coalesce(done.n - good - unsent, 0) AS lost,
         coalesce(unsent, 0) AS unsent,
         coalesce(waiting.n, 0) AS in_flight
  FROM series LEFT JOIN done USING (series) LEFT JOIN waiting USING (series);
CREATE VIEW loss_per_second AS  -- what was not good, when and where
  SELECT second, strftime('%Y-%m-%dT%H:%M:%SZ', started_unix_ns / 1000000000 + second, 'unixepoch') AS at,
         lane, target, qtype, label AS outcome, sum(n) AS n
  FROM counts JOIN series USING (series) JOIN outcomes USING (outcome), run
  WHERE good = 0 GROUP BY second, lane, target, qtype, label;
"""
