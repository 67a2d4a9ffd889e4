"""Where one load was asked from: what each prober of a merged run saw for itself, before it was added up."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from probe.outcome import Outcome


@dataclass(frozen=True, slots=True)
class SeenWindow:
    """A disruption as one prober saw it: [from_ns, to_ns) since t0 of the merged run."""

    from_ns: int
    to_ns: int
    resolution_ns: int
    outcome: Outcome
    planned: int
    lost: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of the rows that one prober asked of a lane's target, while they counted."""

    lane: str
    target: str
    planned: int
    good: int
    lost: int
    unsent: int
    in_flight: int
    windows: tuple[SeenWindow, ...] = ()


@dataclass(frozen=True, slots=True)
class Vantage:
    """One prober: the shard it asked, its node and pod, '' where nobody said; [from_ns, to_ns): when it was there.

    source: `run file`, or `log`, whose counts inside of windows are spread evenly, and which has no latencies.
    """

    shard: str
    node: str
    zone: str
    pod: str
    source: str
    from_ns: int
    to_ns: int
    seen: tuple[Seen, ...] = ()


TABLES = """
CREATE TABLE vantages (     -- of a merged run: the probers, each with its shard I/N, and when it was there
  vantage INTEGER PRIMARY KEY, shard TEXT NOT NULL, node TEXT NOT NULL, zone TEXT NOT NULL, pod TEXT NOT NULL,
  source TEXT NOT NULL,     -- run file; or log: no latencies, and rows inside of windows are spread evenly
  from_ns INTEGER NOT NULL, to_ns INTEGER NOT NULL
);
CREATE TABLE seen (         -- of a merged run: what became of the rows of each prober, while they counted
  vantage INTEGER, lane TEXT, target TEXT, planned INTEGER NOT NULL, good INTEGER NOT NULL, lost INTEGER NOT NULL,
  unsent INTEGER NOT NULL, in_flight INTEGER NOT NULL, PRIMARY KEY (vantage, lane, target)
) WITHOUT ROWID;
CREATE TABLE seen_windows ( -- of a merged run: the disruptions that each prober saw
  vantage INTEGER, lane TEXT, target TEXT, from_ns INTEGER, to_ns INTEGER NOT NULL, resolution_ns INTEGER NOT NULL,
  outcome INTEGER NOT NULL, planned INTEGER NOT NULL, lost INTEGER NOT NULL,
  PRIMARY KEY (vantage, lane, target, from_ns)
) WITHOUT ROWID;
"""


def write_vantages(db: sqlite3.Connection, vantages: Iterable[Vantage]) -> None:
    """Into the tables."""
    for k, v in enumerate(vantages):
        row = (k, v.shard, v.node, v.zone, v.pod, v.source, v.from_ns, v.to_ns)
        db.execute("INSERT INTO vantages VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        for s in v.seen:
            seen = (k, s.lane, s.target, s.planned, s.good, s.lost, s.unsent, s.in_flight)
            db.execute("INSERT INTO seen VALUES (?, ?, ?, ?, ?, ?, ?, ?)", seen)
            windows = [
                (k, s.lane, s.target, w.from_ns, w.to_ns, w.resolution_ns, int(w.outcome), w.planned, w.lost)
                for w in s.windows
            ]
            db.executemany("INSERT INTO seen_windows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", windows)


def read_vantages(db: sqlite3.Connection) -> tuple[Vantage, ...]:
    """What write_vantages() wrote; nothing of a file that was made before there were these tables."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'vantages'").fetchone():
        return ()
    windows: dict[tuple[int, str, str], list[SeenWindow]] = {}
    for k, lane, target, from_ns, to_ns, resolution_ns, outcome, *rows in db.execute(
        "SELECT * FROM seen_windows ORDER BY vantage, lane, target, from_ns"
    ):
        seen = SeenWindow(from_ns, to_ns, resolution_ns, Outcome(outcome), *rows)
        windows.setdefault((k, lane, target), []).append(seen)
    found: dict[int, list[Seen]] = {}
    for k, lane, target, planned, good, lost, unsent, in_flight in db.execute(
        "SELECT * FROM seen ORDER BY vantage, lane, target"
    ):
        mine = tuple(windows.get((k, lane, target), ()))
        found.setdefault(k, []).append(Seen(lane, target, planned, good, lost, unsent, in_flight, mine))
    return tuple(
        Vantage(shard, node, zone, pod, source, from_ns, to_ns, tuple(found.get(k, ())))
        for k, shard, node, zone, pod, source, from_ns, to_ns in db.execute("SELECT * FROM vantages ORDER BY vantage")
    )
