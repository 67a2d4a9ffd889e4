"""The run files of all shards of a load -> one run file, as if one machine had asked: counts and histograms added."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import merge as in_order
from itertools import groupby
from pathlib import Path

import numpy as np

from probe.errors import EnvironmentProblem, UsageError
from probe.model import NS, Doubt, Failure, Interval, Mark, Series, Slice
from probe.outcome import Counter, UnsentCause
from probe.recorder import BUCKETS, Answered, Flush
from probe.runfile.head import LOG_FACT, NODE_FACT, POD_FACT, ZONE_FACT, Head
from probe.runfile.packed import Ints, Sparse
from probe.runfile.reader import Run
from probe.runfile.samples import fullest
from probe.runfile.shards import Shard, missing_of, same_series, shards_of
from probe.runfile.vantage import Seen, Vantage, write_vantages
from probe.runfile.writer import RunWriter, remove
from probe.schedule import pacer_of

ONE_EVENT_NS = NS
"""Marks of several shards that are alike and this close are one."""
OWN_ROWS = ("few_samples",)
"""Doubts of a shard that the others' rows may lift: the merged run is asked for them anew."""

_N = "n = n + excluded.n"
_ADDED = {
    "seconds": (
        "SELECT second + :late_s, series, outcome, good, n FROM seconds WHERE second < :last_s",
        "?, ?, ?, ?, ?",
        _N,
    ),
    "tenths": (
        "SELECT bucket + 10 * :late_s, series, outcome, good, n FROM tenths WHERE bucket < 10 * :last_s",
        "?, ?, ?, ?, ?",
        _N,
    ),
    "in_flight": ("SELECT second + :late_s, series, n FROM in_flight WHERE second < :last_s", "?, ?, ?", _N),
    "bad": (
        """SELECT bucket + 10 * :late_s, series, first_ns + :late_ns, last_ns + :late_ns FROM bad
        WHERE bucket < 10 * :last_s""",
        "?, ?, ?, ?",
        "first_ns = min(first_ns, excluded.first_ns), last_ns = max(last_ns, excluded.last_ns)",
    ),
}
"""What is read of each shard, and how rows that are there already take it in. A second may be in `seconds` by one shard
and in `tenths` by another: it is both, and every reader adds them. What a prober asked that came late is moved to when
that was, counts by whole seconds; a late shard's rows are left out from where those ended that began together."""


def merge(
    paths: Sequence[Path],
    out: Path,
    command: str,
    doubts_of: Callable[[Run], Iterable[Doubt]],
    seen_by: Callable[[Run], Iterable[Seen]],
    partial: bool = False,
    *,
    replaced: bool = False,
    zones: Mapping[str, str] | None = None,
    missing: Sequence[str] = (),
    facts: Mapping[str, str] | None = None,
) -> None:
    """Writes `out`; counts, histograms and counters are sums; what each shard doubts, and saw, is kept and named.

    partial: shards may be missing, or have no end: what they have not asked is undecided. replaced: several files of a
    shard may follow each other. zones: by node. missing: a sentence for each prober of which nothing is left. facts:
    more of them. UsageError as shards_of().
    """
    if out.exists():
        raise UsageError(f"{out}: exists already; a run is never overwritten: name another file or remove it")
    part = out.with_name(f"{out.name}.part")
    remove(part)  # one that was killed may have left it
    try:
        with shards_of(paths, doubts_of, seen_by, partial, replaced) as shards:
            _write(shards, part, _head(shards, command, facts or {}), zones or {}, missing)
        part.rename(out)
    except sqlite3.Error as problem:
        raise EnvironmentProblem(f"{out}: cannot be written: {problem}") from None
    finally:
        remove(part)


def _write(shards: Sequence[Shard], path: Path, head: Head, zones: Mapping[str, str], missing: Sequence[str]) -> None:
    end_ns = max(shard.end_ns for shard in shards)
    series, homes = same_series(shards)
    writer = RunWriter.create(path, head)
    writer.add_series(series)
    for mark in _marks(shards):
        writer.mark(mark)
    for interval in _intervals(shards):
        writer.interval(interval)
    for shard in shards:
        for lookup in shard.run.lookups:
            writer.lookup(replace(lookup, at_ns=lookup.at_ns + shard.late_ns))
        writer.doubts(replace(d, text=f"in {shard.name}, {d.text}") for d in shard.doubts if d.id not in OWN_ROWS)
    writer.samples(fullest([replace(m, at_ns=m.at_ns + one.late_ns) for m in one.run.metrics] for one in shards))
    for gone in missing_of(shards):
        text = f"shard {gone} is missing: what it had to ask is undecided"
        writer.interval(Interval(0, end_ns, "shard_missing", text, "merge", f"shard {gone.index}"))
    for number, text in enumerate(missing):
        writer.interval(Interval(0, end_ns, "shard_missing", text, "merge", f"prober {number}"))
    writer.flush(_totals(shards, homes, len(series)), end_ns)
    _add_tables(path, shards, series, homes, end_ns, zones)
    cuts = [f"{shard.name} {shard.run.cut}" for shard in shards if shard.run.cut]
    writer.finish(end_ns, "; ".join(cuts) if len(cuts) == len(shards) else "")


def _head(shards: Sequence[Shard], command: str, more: Mapping[str, str]) -> Head:
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
    facts = {"shards": f"{len({shard.share.index for shard in shards})} of {first.share.of}"}
    if first.is_whole:
        facts = {"probers": f"{len(shards)}, each of which asked all of it"}
    for name in dict.fromkeys(name for mine in told.values() for name in mine):
        values = {mine.get(name) for mine in told.values()}
        if len(values) == 1:
            facts[name] = told[first.name][name]
        else:
            facts.update({f"{shard}: {name}": mine[name] for shard, mine in told.items() if name in mine})
    started = min(shard.run.head.started_unix_ns for shard in shards)
    return replace(first.run.head, started_unix_ns=started, command=command, facts={**facts, **more})


def _which(shards: Iterable[Shard]) -> str:
    """`shard 2`, `shards 0, 1`."""
    names = [shard.name.split(" ", 1) for shard in shards]
    kind, many = names[0][0], list(dict.fromkeys(name for _, name in names))
    return f"{kind}{'s' if len(many) > 1 else ''} {', '.join(many)}"


def _marks(shards: Sequence[Shard]) -> Iterator[Mark]:
    """What several shards marked at about the same time is one mark; its source says who saw it."""
    events: dict[Mark, list[tuple[int, list[Shard]]]] = {}
    told = [(replace(m, at_ns=m.at_ns + shard.late_ns), shard) for shard in shards for m in shard.run.marks]
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
    told = [(_moved(interval, shard.late_ns), shard) for shard in shards for interval in shard.run.intervals]
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


def _moved(interval: Interval, by_ns: int) -> Interval:
    return replace(interval, from_ns=interval.from_ns + by_ns, to_ns=interval.to_ns + by_ns)


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


def _totals(shards: Sequence[Shard], homes: Sequence[Ints], series: int) -> Flush:
    """What a run file has once: causes of unsent rows, counters, who answered, lag, exact failures."""
    unsent = np.zeros((series, len(UnsentCause)), np.int64)
    counters = np.zeros((series, len(Counter)), np.int64)
    servers: dict[str, Answered] = {}
    failures: list[Failure] = []
    for shard, home in zip(shards, homes, strict=True):
        run, late_ns = shard.run, shard.late_ns
        np.add.at(unsent, home, run.unsent)
        np.add.at(counters, home, run.counters)
        for nsid, by in run.servers.items():
            there = by.n > 0
            moved = replace(by, first_ns=by.first_ns + late_ns * there, last_ns=by.last_ns + late_ns * there)
            servers.setdefault(nsid, Answered.none(series)).add(moved, home)
        failures += [
            replace(
                f, series=int(home[f.series]), due_ns=f.due_ns + late_ns, sent_ns=f.sent_ns + late_ns * (f.sent_ns > 0)
            )
            for f in run.failures
        ]
    failures.sort(key=lambda failure: failure.due_ns)
    lag = np.sum([shard.run.lag for shard in shards], axis=0)
    return Flush([], unsent, counters, lag, max(shard.run.lag_max_ns for shard in shards), failures, servers)


def _add_tables(
    path: Path,
    shards: Sequence[Shard],
    series: Sequence[Series],
    homes: Sequence[Ints],
    end_ns: int,
    zones: Mapping[str, str],
) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("BEGIN")
        for shard, home in zip(shards, homes, strict=True):
            to = home.tolist()
            for table, (select, _, _) in _ADDED.items():
                _add(db, table, ((at, to[mine], *rest) for at, mine, *rest in shard.db.execute(select, _when(shard))))
            db.execute("UPDATE run SET failures_left_out = failures_left_out + ?", (shard.run.failures_left_out,))
        db.executemany("INSERT INTO histograms VALUES (?, ?, ?, ?)", _histograms(shards, homes))
        _add(db, "in_flight", _unasked(shards, series, homes, end_ns))
        write_vantages(db, (_vantage(shard, zones) for shard in shards))
        db.execute("COMMIT")
    finally:
        db.close()


def _when(shard: Shard) -> dict[str, int]:
    """By how much a shard's rows are moved, and before which of its own seconds they were due."""
    ends_s = -(-shard.run.head.planned_ns // NS) - shard.late_s if shard.late_ns and not shard.is_whole else 1 << 40
    return {"late_s": shard.late_s, "late_ns": shard.late_ns, "last_s": ends_s}


def _vantage(shard: Shard, zones: Mapping[str, str]) -> Vantage:
    facts, late_ns = shard.run.head.facts, shard.late_ns
    node = facts.get(NODE_FACT, "")
    seen = tuple(
        replace(s, windows=tuple(replace(w, from_ns=w.from_ns + late_ns, to_ns=w.to_ns + late_ns) for w in s.windows))
        for s in shard.seen
    )
    return Vantage(
        shard=str(shard.share),
        node=node,
        zone=zones.get(node) or facts.get(ZONE_FACT, ""),
        pod=facts.get(POD_FACT, ""),
        source="log" if LOG_FACT in facts else "run file",
        from_ns=late_ns,
        to_ns=shard.end_ns,
        seen=seen,
    )


def _add(db: sqlite3.Connection, table: str, rows: Iterable[tuple[int, ...]]) -> None:
    _, values, how = _ADDED[table]
    db.executemany(f"INSERT INTO {table} VALUES ({values}) ON CONFLICT DO UPDATE SET {how}", rows)  # noqa: S608


def _histograms(shards: Sequence[Shard], homes: Sequence[Ints]) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Slice by slice, so that no more than one of each shard is in memory."""

    def slices(shard: Shard, home: Ints) -> Iterator[tuple[tuple[int, int], Sparse]]:
        sql = (
            "SELECT second + :late_s, width, counts, maxima FROM histograms WHERE second < :last_s"
            " ORDER BY second, width"
        )
        for second, width, counts, maxima in shard.db.execute(sql, _when(shard)):
            yield (second, width), Sparse.unpacked(counts, maxima, home)

    every = in_order(*map(slices, shards, homes), key=lambda part: part[0])
    for (second, width), parts in groupby(every, key=lambda part: part[0]):
        yield second, width, *Sparse.total(part for _, part in parts).blobs()


def _unasked(
    shards: Sequence[Shard], series: Sequence[Series], homes: Sequence[Ints], end_ns: int
) -> Iterator[tuple[int, int, int]]:
    """Rows that nobody asked, for the table in_flight: of shards that are missing, or were not there all the time."""
    seconds = -(-end_ns // NS)
    none = np.zeros((len(series), seconds), np.int64)
    left: list[tuple[Slice, Sequence[int], Ints]] = [(gone, range(seconds), none) for gone in missing_of(shards)]
    for share, mine in _by_share(shards, homes).items():
        if away := _away(mine, seconds):
            recorded = np.sum([_recorded(shard, home, len(series), seconds) for shard, home in mine], axis=0)
            left.append((share, away, recorded))
    for share, away, recorded in left:
        for one in series:
            pacer = pacer_of(replace(one, share=share))
            for second in away:
                due = pacer.count(second * NS, min((second + 1) * NS, end_ns))
                if (n := due - int(recorded[one.index, second])) > 0:
                    yield second, one.index, n


def _by_share(shards: Sequence[Shard], homes: Sequence[Ints]) -> dict[Slice, list[tuple[Shard, Ints]]]:
    found: dict[Slice, list[tuple[Shard, Ints]]] = {}
    for shard, home in zip(shards, homes, strict=True):
        found.setdefault(shard.share, []).append((shard, home))
    return found


def _away(pieces: Sequence[tuple[Shard, Ints]], seconds: int) -> Sequence[int]:
    """The seconds in which none of a slice's probers was there all the time; of one that ended as planned, none.

    Where each asked all of it, another one did.
    """
    if pieces[0][0].is_whole:
        return []
    there = np.zeros(seconds + 1, bool)
    for shard, _ in pieces:
        first = shard.late_s + (1 if shard.late_ns else 0)
        there[first : max(0, shard.end_ns // NS - 1) if shard.run.cut else seconds] = True
    return np.flatnonzero(~there[:seconds]).tolist()


def _recorded(shard: Shard, home: Ints, series: int, seconds: int) -> Ints:
    """How many rows of a shard were due in each second, decided or not: int64[series, seconds]."""
    rows, waiting = shard.run.counts, shard.run.in_flight
    recorded = np.zeros((series, seconds + 1), np.int64)
    for which, at, n in ((rows.series, rows.bucket // BUCKETS, rows.n), (waiting.series, waiting.second, waiting.n)):
        np.add.at(recorded, (home[which], np.minimum(at + shard.late_s, seconds)), n)
    return recorded[:, :seconds]
