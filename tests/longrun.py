"""How long, how fast, what went wrong when -> a run file as large as a real one of a day, written in bulk."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from probe.histogram import BINS, bins_of
from probe.model import NS, Interval, Mark, TargetKind
from probe.outcome import Outcome
from probe.recorder import Duration
from probe.runfile import Head, Run, RunWriter, open_run
from probe.runfile.packed import Sparse
from tests.synthetic import STARTED, series_of

RATE = 10
"""Queries a second of each series: one in each 100 ms."""

Lossy = dict[int, tuple[int, Outcome]]
"""Of a second: how many of its RATE rows were lost, the first ones, and to what."""


def scattered(seconds: int, each: float, seed: int = 1) -> Lossy:
    """Losses in so many of all seconds, drawn."""
    draw = random.Random(seed)
    return {
        second: (draw.randrange(1, RATE + 1), draw.choice([Outcome.TIMEOUT, Outcome.SERVFAIL]))
        for second in range(seconds)
        if draw.random() < each
    }


def written_long(
    path: Path,
    seconds: int,
    lossy: Iterable[Lossy],
    marks: Iterable[Mark] = (),
    intervals: Iterable[Interval] = (),
) -> Run:
    """A series for each of `lossy`, to a Service each, all asked as long as the run lasts."""
    of = list(lossy)
    series = [series_of(i, f"vip-{i}", "kube-dns", TargetKind.SERVICE, RATE, seconds) for i in range(len(of))]
    writer = RunWriter.create(path, Head("long", STARTED, seconds * NS, "dnsprobe run long"))
    writer.add_series(series)
    for mark in marks:
        writer.mark(mark)
    for interval in intervals:
        writer.interval(interval)
    writer.finish(seconds * NS)
    good = int(Outcome.ANSWER)
    with sqlite3.connect(path) as db:
        for i, bad in enumerate(of):
            whole = ((second, i, good, 1, RATE) for second in range(seconds) if second not in bad)
            db.executemany("INSERT INTO seconds VALUES (?, ?, ?, ?, ?)", whole)
            for second, (n, outcome) in bad.items():
                buckets = range(second * RATE, (second + 1) * RATE)
                fates = [(bucket, i, int(outcome), 0, 1) for bucket in buckets[:n]]
                fates += [(bucket, i, good, 1, 1) for bucket in buckets[n:]]
                db.executemany("INSERT INTO tenths VALUES (?, ?, ?, ?, ?)", fates)
                due = ((bucket, i, bucket * NS // RATE, bucket * NS // RATE) for bucket in buckets[:n])
                db.executemany("INSERT INTO bad VALUES (?, ?, ?, ?)", due)
        db.executemany("INSERT INTO histograms VALUES (?, ?, ?, ?)", _histograms(seconds, of))
        db.execute("INSERT INTO lag VALUES (?, ?)", (int(bins_of(np.array([50_000]))[0]), seconds * RATE))
    db.close()
    return open_run(path)


def _histograms(seconds: int, of: list[Lossy]) -> Iterable[tuple[int, int, bytes, bytes]]:
    """Good rows took a millisecond, and in lossy seconds three; each slice of 10 s without those of lossy seconds."""
    for first in range(0, seconds, 10):
        slow = {i: [s for s in range(first, first + 10) if s in bad] for i, bad in enumerate(of)}
        calm = {i: RATE * (10 - len(those)) for i, those in slow.items()}
        parts = [(first, 10, calm, 1_000_000 + 1000 * (first % 700))]
        for second in sorted({s for those in slow.values() for s in those}):
            left = {i: RATE - of[i][second][0] for i, those in slow.items() if second in those}
            parts.append((second, 1, left, 3_000_000))
        for second, width, rows, ns in parts:
            if any(rows.values()):
                yield (second, width, *_blobs(rows, ns))


def _blobs(rows: dict[int, int], ns: int) -> tuple[bytes, bytes]:
    some = {i: n for i, n in rows.items() if n}
    who = np.array(list(some), np.int64) * len(Duration) + int(Duration.LATENCY)
    bins = int(bins_of(np.array([ns]))[0])
    n = np.array(list(some.values()), np.int64)
    return Sparse(who * BINS + bins, n, who, np.full(len(who), ns, np.int64)).blobs()
