"""Samples of others' meters, as they come -> rows of a run file, one for each value that changed; and what they say.

A value stands until the next row of its metric; NULL: nothing could be read from then on. About 16 octets each.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probe.model import Sample
from probe.runfile.packed import Ints

TABLES = """
CREATE TABLE metrics (      -- what others count: CoreDNS pods, kube-proxies, this machine
  metric INTEGER PRIMARY KEY,
  source TEXT NOT NULL, subject TEXT NOT NULL, name TEXT NOT NULL,  -- coredns, a pod, servfail
  UNIQUE (source, subject, name)
);
CREATE TABLE samples (      -- from at_ms on (since t0) it was value, until the next row; NULL: it could not be read
  metric INTEGER, at_ms INTEGER, value NUMERIC, PRIMARY KEY (metric, at_ms)
) WITHOUT ROWID;
"""
_MS = 1_000_000
_METRIC = "INSERT OR IGNORE INTO metrics (source, subject, name) VALUES (?, ?, ?)"
_SAMPLE = (
    "INSERT OR REPLACE INTO samples SELECT metric, ?, ? FROM metrics WHERE source = ? AND subject = ? AND name = ?"
)


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One number of one subject over the run: value[i] from at_ns[i] on, NaN where it could not be read."""

    source: str
    subject: str
    name: str
    at_ns: Ints
    value: NDArray[np.float64]

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is, whoever read it."""
        return (self.source, self.subject, self.name)

    @property
    def grown(self) -> float:
        """By how much a counter has grown; one that falls has begun anew."""
        seen = self.value[~np.isnan(self.value)]
        steps = np.diff(seen)
        return float(np.where(steps < 0, seen[1:], steps).sum())

    @property
    def most(self) -> float:
        """The largest value; 0 if none was read."""
        seen = self.value[~np.isnan(self.value)]
        return float(seen.max()) if len(seen) else 0.0


def rows_of(samples: Iterable[Sample]) -> list[tuple[str, list[tuple[object, ...]]]]:
    """The statements that write them."""
    mine = list(samples)
    keys = {(s.source, s.subject, s.metric): None for s in mine}
    rows: list[tuple[object, ...]] = [
        (round(s.at_ns / _MS), _stored(s.value), s.source, s.subject, s.metric) for s in mine
    ]
    return [(_METRIC, list(keys)), (_SAMPLE, rows)]


def _stored(value: float | None) -> float | int | None:
    """NUMERIC keeps a whole number in as few octets as it needs; SQLite's have 63 bits."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 1 << 63 else value


def read_metrics(db: sqlite3.Connection) -> tuple[Metric, ...]:
    """All of a run file; none of one that has no such table."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'samples'").fetchone():
        return ()
    found = []
    metrics = db.execute("SELECT metric, source, subject, name FROM metrics ORDER BY metric").fetchall()
    for metric, source, subject, name in metrics:
        rows = db.execute("SELECT at_ms, value FROM samples WHERE metric = ? ORDER BY at_ms", (metric,)).fetchall()
        at_ns = np.array([at for at, _ in rows], np.int64) * _MS
        value = np.array([math.nan if value is None else value for _, value in rows], np.float64)
        found.append(Metric(source, subject, name, at_ns, value))
    return tuple(found)


def fullest(many: Iterable[Sequence[Metric]]) -> list[Sample]:
    """Of what several runs have read, each metric as that one has it that has most of it."""
    best: dict[tuple[str, str, str], Metric] = {}
    for metrics in many:
        for metric in metrics:
            if metric.key not in best or len(metric.at_ns) > len(best[metric.key].at_ns):
                best[metric.key] = metric
    return [
        Sample(at, *metric.key, None if math.isnan(value) else value)
        for metric in best.values()
        for at, value in zip(metric.at_ns.tolist(), metric.value.tolist(), strict=True)
    ]
