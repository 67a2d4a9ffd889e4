"""The run files of all shards of a load -> one run file, as if one machine had asked: counts and histograms added."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from heapq import merge as in_order
from itertools import groupby
from pathlib import Path

import numpy as np

from probe.errors import EnvironmentProblem, UsageError
from probe.model import NS, Doubt, Failure, Interval, Mark, Series
from probe.outcome import Counter, UnsentCause
from probe.recorder import BUCKETS, Answered, Flush
from probe.runfile.head import Head
from probe.runfile.packed import Ints, Sparse
from probe.runfile.reader import Run
from probe.runfile.samples import fullest
from probe.runfile.shards import Shard, missing_of, same_series, shards_of
from probe.runfile.writer import RunWriter
from probe.schedule import pacer_of

ONE_EVENT_NS = NS
"""Marks of several shards that are alike and this close are one."""
OWN_ROWS = ("few_samples",)
"""Doubts of a shard that the others' rows may lift: the merged run is asked for them anew."""

_N = "n = n + excluded.n"
_ADDED = {
    "seconds": ("SELECT second, series, outcome, good, n FROM seconds", "?, ?, ?, ?, ?", _N),
    "tenths": ("SELECT bucket, series, outcome, good, n FROM tenths", "?, ?, ?, ?, ?", _N),
    "in_flight": ("SELECT second, series, n FROM in_flight", "?, ?, ?", _N),
    "bad": (
        "SELECT bucket, series, first_ns, last_ns FROM bad",
        "?, ?, ?, ?",
        "first_ns = min(first_ns, excluded.first_ns), last_ns = max(last_ns, excluded.last_ns)",
    ),
}
"""What is read of each shard, and how rows that are there already take it in. A second may be in `seconds` by one shard
and in `tenths` by another: it is both, and every reader adds them."""


def merge(
    paths: Sequence[Path], out: Path, command: str, doubts_of: Callable[[Run], Iterable[Doubt]], partial: bool = False
) -> None:
    """Writes `out`; counts, histograms and counters are sums, what each shard doubts is kept and named.

    partial: shards may be missing, or have no end: what they have not asked is undecided. UsageError as shards_of().
    """
    if out.exists():
        raise UsageError(f"{out}: exists already; a run is never overwritten: name another file or remove it")
    part = out.with_name(f"{out.name}.part")
    try:
        with shards_of(paths, doubts_of, partial) as shards:
            _write(shards, part, command)
        part.rename(out)
    except sqlite3.Error as problem:
        raise EnvironmentProblem(f"{out}: cannot be written: {problem}") from None
    finally:
        for leftover in (part, Path(f"{part}-wal"), Path(f"{part}-shm")):
            leftover.unlink(missing_ok=True)


def _write(shards: Sequence[Shard], path: Path, command: str) -> None:
    runs = [shard.run for shard in shards]
    end_ns = max(run.end_ns for run in runs)
    series, homes = same_series(runs)
    writer = RunWriter.create(path, _head(shards, command))
    writer.add_series(series)
    for mark in _marks(shards):
        writer.mark(mark)
    for interval in _intervals(shards):
        writer.interval(interval)
    writer.samples(fullest(run.metrics for run in runs))
    for gone in missing_of(shards):
        text = f"shard {gone} is missing: what it had to ask is undecided"
        writer.interval(Interval(0, end_ns, "shard_missing", text, "merge", f"shard {gone.index}"))
    writer.flush(_totals(runs, homes, len(series)), end_ns)
    _add_tables(path, shards, series, homes, end_ns)
    cuts = [f"{shard.name} {shard.run.cut}" for shard in shards if shard.run.cut]
    writer.finish(end_ns, "; ".join(cuts) if len(cuts) == len(shards) else "")


def _head(shards: Sequence[Shard], command: str) -> Head:
    """What all have in common; of what they do not, each shard's own, named."""
    first = shards[0]
    told = {
        shard.name: {
            **{name: value for name, value in shard.run.head.facts.items() if name != "shard"},
            "run file": str(shard.run.path),
            "command": shard.run.head.command,
            "dnsprobe": shard.run.version,
        }
        for shard in shards
    }
    facts = {"shards": f"{len(shards)} of {first.share.of}"}
    for name in dict.fromkeys(name for mine in told.values() for name in mine):
        values = {mine.get(name) for mine in told.values()}
        if len(values) == 1:
            facts[name] = told[first.name][name]
        else:
            facts.update({f"{shard}: {name}": mine[name] for shard, mine in told.items() if name in mine})
    started = min(shard.run.head.started_unix_ns for shard in shards)
    return replace(first.run.head, started_unix_ns=started, command=command, facts=facts)


def _which(shards: Iterable[Shard]) -> str:
    """`shard 2`, `shards 0, 1`."""
    names = [str(shard.share.index) for shard in shards]
    return f"shard{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _marks(shards: Sequence[Shard]) -> Iterator[Mark]:
    """What several shards marked at about the same time is one mark; its source says who saw it."""
    events: dict[Mark, list[tuple[int, list[Shard]]]] = {}
    told = [(mark, shard) for shard in shards for mark in shard.run.marks]
    for mark, shard in sorted(told, key=lambda pair: pair[0].at_ns):
        alike = events.setdefault(replace(mark, at_ns=0), [])
        near = (seen_by for at_ns, seen_by in alike if mark.at_ns - at_ns <= ONE_EVENT_NS and shard not in seen_by)
        seen_by = next(near, [])
        if not seen_by:
            alike.append((mark.at_ns, seen_by))
        seen_by.append(shard)
    for mark, alike in events.items():
        for at_ns, seen_by in alike:
            yield replace(mark, at_ns=at_ns, source=f"{mark.source} ({_which(seen_by)})")


def _intervals(shards: Sequence[Shard]) -> Iterator[Interval]:
    """Stretches of one kind and subject that overlap are one; a text that is not everyone's says whose it is."""
    told = [(interval, shard) for shard in shards for interval in shard.run.intervals]
    told.sort(key=lambda pair: (pair[0].kind, pair[0].subject, pair[0].from_ns))
    for _, alike in groupby(told, key=lambda pair: (pair[0].kind, pair[0].subject)):
        joined: list[list[tuple[Interval, Shard]]] = []
        end_ns = -1
        for interval, shard in alike:
            if interval.from_ns > end_ns:
                joined.append([])
            joined[-1].append((interval, shard))
            end_ns = max(end_ns, interval.to_ns)
        yield from map(_one, joined)


def _one(parts: Sequence[tuple[Interval, Shard]]) -> Interval:
    first = parts[0][0]
    whose: dict[str, dict[Shard, None]] = {}
    for interval, shard in parts:
        whose.setdefault(interval.text, {})[shard] = None
    everyone = list(dict.fromkeys(shard for _, shard in parts))
    texts = [text if len(whose) == 1 else f"{_which(who)}: {text}" for text, who in whose.items()]
    return replace(
        first,
        to_ns=max(interval.to_ns for interval, _ in parts),
        text="; ".join(texts),
        source=f"{first.source} ({_which(everyone)})",
    )


def _totals(runs: Sequence[Run], homes: Sequence[Ints], series: int) -> Flush:
    """What a run file has once: causes of unsent rows, counters, who answered, lag, exact failures."""
    unsent = np.zeros((series, len(UnsentCause)), np.int64)
    counters = np.zeros((series, len(Counter)), np.int64)
    servers: dict[str, Answered] = {}
    failures: list[Failure] = []
    for run, home in zip(runs, homes, strict=True):
        np.add.at(unsent, home, run.unsent)
        np.add.at(counters, home, run.counters)
        for nsid, by in run.servers.items():
            servers.setdefault(nsid, Answered.none(series)).add(by, home)
        failures += [replace(failure, series=int(home[failure.series])) for failure in run.failures]
    failures.sort(key=lambda failure: failure.due_ns)
    lag = np.sum([run.lag for run in runs], axis=0)
    return Flush([], unsent, counters, lag, max(run.lag_max_ns for run in runs), failures, servers)


def _add_tables(
    path: Path, shards: Sequence[Shard], series: Sequence[Series], homes: Sequence[Ints], end_ns: int
) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("BEGIN")
        for shard, home in zip(shards, homes, strict=True):
            to = home.tolist()
            for table, (select, _, _) in _ADDED.items():
                _add(db, table, ((at, to[mine], *rest) for at, mine, *rest in shard.db.execute(select)))
            db.execute("UPDATE run SET failures_left_out = failures_left_out + ?", (shard.run.failures_left_out,))
            told = [replace(d, text=f"in {shard.name}, {d.text}") for d in shard.doubts if d.id not in OWN_ROWS]
            rows = [(d.id, d.text, json.dumps(d.lanes), d.hides_loss) for d in told]
            db.executemany("INSERT INTO doubts VALUES (?, ?, ?, ?)", rows)
        db.executemany("INSERT INTO histograms VALUES (?, ?, ?, ?)", _histograms(shards, homes))
        _add(db, "in_flight", _unasked(shards, series, homes, end_ns))
        db.execute("COMMIT")
    finally:
        db.close()


def _add(db: sqlite3.Connection, table: str, rows: Iterable[tuple[int, ...]]) -> None:
    _, values, how = _ADDED[table]
    db.executemany(f"INSERT INTO {table} VALUES ({values}) ON CONFLICT DO UPDATE SET {how}", rows)  # noqa: S608


def _histograms(shards: Sequence[Shard], homes: Sequence[Ints]) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Slice by slice, so that no more than one of each shard is in memory."""

    def slices(shard: Shard, home: Ints) -> Iterator[tuple[tuple[int, int], Sparse]]:
        sql = "SELECT second, width, counts, maxima FROM histograms ORDER BY second, width"
        for second, width, counts, maxima in shard.db.execute(sql):
            yield (second, width), Sparse.unpacked(counts, maxima, home)

    every = in_order(*map(slices, shards, homes), key=lambda part: part[0])
    for (second, width), parts in groupby(every, key=lambda part: part[0]):
        yield second, width, *Sparse.total(part for _, part in parts).blobs()


def _unasked(
    shards: Sequence[Shard], series: Sequence[Series], homes: Sequence[Ints], end_ns: int
) -> Iterator[tuple[int, int, int]]:
    """Rows that nobody asked, for the table in_flight: of shards that are missing, or ended before the others."""
    seconds = -(-end_ns // NS)
    left = [(gone, 0, np.zeros((len(series), seconds), np.int64)) for gone in missing_of(shards)]
    for shard, home in zip(shards, homes, strict=True):
        if shard.run.cut:
            recorded = _recorded(shard.run, home, len(series), seconds)
            left.append((shard.share, max(0, shard.run.end_ns // NS - 1), recorded))
    for share, from_second, recorded in left:
        for one in series:
            pacer = pacer_of(replace(one, share=share))
            for second in range(from_second, seconds):
                due = pacer.count(second * NS, min((second + 1) * NS, end_ns))
                if (n := due - int(recorded[one.index, second])) > 0:
                    yield second, one.index, n


def _recorded(run: Run, home: Ints, series: int, seconds: int) -> Ints:
    """How many rows of a shard were due in each second, decided or not: int64[series, seconds]."""
    rows, waiting = run.counts, run.in_flight
    last = max(int(rows.bucket.max(initial=0)) // BUCKETS, int(waiting.second.max(initial=0)))
    recorded = np.zeros((series, max(seconds, last + 1)), np.int64)
    np.add.at(recorded, (home[rows.series], rows.bucket // BUCKETS), rows.n)
    np.add.at(recorded, (home[waiting.series], waiting.second), waiting.n)
    return recorded
