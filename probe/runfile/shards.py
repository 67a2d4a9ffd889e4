"""Files that may be the shards of one load -> shards in order, open for reading; or why they are not."""

from __future__ import annotations

import sqlite3
from collections import Counter as Tally
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from probe.errors import UsageError
from probe.model import NS, WHOLE, Doubt, Series, Slice
from probe.runfile.head import POD_FACT
from probe.runfile.packed import Ints
from probe.runfile.reader import Counts, Run, opened
from probe.runfile.vantage import Seen

_NONE = Counts(*np.empty((6, 0), np.int64))
MOST_APART_NS = 50_000_000
"""Shards whose t0 differ by more are refused. Rows keep their times since their own t0: nothing is shifted."""


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """A run of one slice, without what is large: histograms, and its counts if it ran to its end.

    db: the database that has them; doubts: of itself; seen: as it saw them. late_ns: how much later than the others it
    began, in place of one that was gone; its times are since its own t0.
    """

    run: Run
    db: sqlite3.Connection
    share: Slice
    doubts: tuple[Doubt, ...]
    seen: tuple[Seen, ...]
    late_ns: int = 0

    @property
    def is_whole(self) -> bool:
        """It is no slice: each of several probers asked all of the load, from where it was."""
        return self.share == WHOLE

    @property
    def name(self) -> str:
        """`shard 0`, `shard 0 from +75 s`; `prober NAME` of its pod or file."""
        if self.is_whole:
            return f"prober {self.run.head.facts.get(POD_FACT) or self.run.path.name}"
        return f"shard {self.share.index}" + (f" from +{self.late_ns / NS:.0f} s" if self.late_ns else "")

    @property
    def late_s(self) -> int:
        """Its counts are known by the second: they are moved by whole ones."""
        return round(self.late_ns / NS)

    @property
    def end_ns(self) -> int:
        """When it ended, since t0 of the others, who ended as planned."""
        end_ns = self.late_ns + self.run.end_ns
        return min(end_ns, self.run.head.planned_ns) if self.late_ns and not self.is_whole else end_ns


@contextmanager
def shards_of(
    paths: Sequence[Path],
    doubts_of: Callable[[Run], Iterable[Doubt]],
    seen_by: Callable[[Run], Iterable[Seen]],
    partial: bool,
    replaced: bool,
) -> Iterator[list[Shard]]:
    """The shards by index. UsageError if these are not all shards of one load, each once, started together and over.

    partial: some may be missing, or have no end. replaced: probers may have begun late, in place of others that were
    gone, whose shard they go on with; these come last. And each may have asked all of the load, instead of a slice.
    """
    with ExitStack() as stack:
        shards = []
        for path in paths:
            run, db = stack.enter_context(opened(path, histograms=False))
            share, doubts, seen = _share(run, partial, replaced), tuple(doubts_of(run)), tuple(seen_by(run))
            kept = run if run.cut or replaced else replace(run, counts=_NONE)
            shards.append(Shard(kept, db, share, doubts, seen))
        if replaced:
            shards = _with_delays(shards)
        shards.sort(key=lambda shard: (bool(shard.late_ns), shard.share.index, shard.late_ns))
        for shard in shards[1:]:
            _check_same_load(shards[0].run, shard)
        _check_slices(sorted(shards, key=lambda shard: (shard.share.index, shard.late_ns)))
        if (gone := missing_of(shards)) and not partial:
            which = ", ".join(map(str, gone))
            raise UsageError(f"of {shards[0].share.of} shards {which} missing: name the files of all, or say --partial")
        yield shards


def missing_of(shards: Sequence[Shard]) -> list[Slice]:
    """The slices that no file has."""
    of, there = shards[0].share.of, {shard.share.index for shard in shards}
    return [Slice(index, of) for index in range(of) if index not in there]


def _with_delays(shards: Sequence[Shard]) -> list[Shard]:
    t0 = min(shard.run.head.started_unix_ns for shard in shards)
    late = [shard.run.head.started_unix_ns - t0 for shard in shards]
    return [replace(shard, late_ns=ns) if ns > MOST_APART_NS else shard for shard, ns in zip(shards, late, strict=True)]


def _share(run: Run, partial: bool, replaced: bool) -> Slice:
    if run.series and replaced:
        return run.series[0].share
    if not run.series or run.series[0].share == WHOLE:
        raise UsageError(f"{run.path}: is a whole run, no shard of one: shards are run with --shard I/N")
    if not run.finished and not partial:
        raise UsageError(f"{run.path}: has no end: it is still going, or was killed; --partial takes it as it is")
    return run.series[0].share


def _check_slices(shards: Sequence[Shard]) -> None:
    for one, other in pairwise(shards):
        if one.share.of != other.share.of:
            raise UsageError(
                f"{one.run.path} is shard {one.share} and {other.run.path} is shard {other.share}: their rows overlap"
            )
        if (
            one.share == other.share
            and not one.is_whole
            and (not other.late_ns or one.late_ns + one.run.end_ns > other.late_ns + NS)
        ):
            raise UsageError(f"{one.run.path} and {other.run.path} are both shard {one.share}: name each shard once")


def _check_same_load(a: Run, shard: Shard) -> None:
    b = shard.run
    for what in ("name", "scenario", "objectives", "planned_ns"):
        if getattr(a.head, what) != getattr(b.head, what):
            raise UsageError(f"{b.path}: is a run of another scenario than {a.path}: its {what} is not the same")
    if shard.late_ns or shard.is_whole:
        return  # the pods there are may be others by now
    mine, yours = ([s for s in run.series if not s.start_ns] for run in (a, b))
    if len(mine) != len(yours):
        raise UsageError(f"{b.path}: began with {len(yours)} series, {a.path} with {len(mine)}")
    for one, other in zip(mine, yours, strict=True):
        alike = replace(other, share=one.share, stop_ns=one.stop_ns)
        differ = [field.name for field in fields(Series) if getattr(one, field.name) != getattr(alike, field.name)]
        if differ:
            asked = f"what lane {one.lane} asks {one.target} for {one.qtype}"
            raise UsageError(f"{b.path}: was another load than {a.path}: {asked} differs in {', '.join(differ)}")
    apart_ns = abs(a.head.started_unix_ns - b.head.started_unix_ns)
    if apart_ns > MOST_APART_NS:
        raise UsageError(
            f"{b.path}: began {apart_ns / NS:,.3f} s apart from {a.path}, and {MOST_APART_NS / NS:g} s is the most: "
            "start all shards with the same --start-at TIME"
        )


def same_series(shards: Sequence[Shard]) -> tuple[list[Series], list[Ints]]:
    """The series of all, each once and whole; and which of them those of each shard are: int64[series of the shard].

    What joined later, pods that came up, did so at slightly different instants and in another order. What a prober
    began with that came late, others may have begun with or met later. Where each asked all of it, each has its own.
    """
    found: dict[Hashable, Series] = {}
    homes = []
    for number, shard in enumerate(shards):
        times: Tally[Hashable] = Tally()
        home = []
        for own in shard.run.series:
            s = _moved(own, shard)
            alike = replace(s, index=0, offset_ns=0, start_ns=min(s.start_ns, 1), stop_ns=0, share=WHOLE)
            alike = replace(alike, shape=replace(s.shape, seed=0))
            first = replace(alike, start_ns=0)
            if shard.late_ns and (first, 1, 0) in found:
                alike = first
            times[alike] += 1
            key = alike, times[alike], number if shard.is_whole else 0
            one = found.get(key, replace(s, index=len(found), share=WHOLE))
            start_ns, stop_ns = min(one.start_ns, s.start_ns), max(one.stop_ns, s.stop_ns)
            found[key] = replace(one, start_ns=start_ns, stop_ns=stop_ns)
            home.append(one.index)
        homes.append(np.array(home, np.int64))
    return list(found.values()), homes


def _moved(series: Series, shard: Shard) -> Series:
    """In the time of those that began together."""
    if not shard.late_ns and not shard.is_whole:
        return series
    stop_ns = min(series.stop_ns + shard.late_ns, shard.end_ns if shard.is_whole else shard.run.head.planned_ns)
    return replace(series, start_ns=series.start_ns + shard.late_ns, stop_ns=stop_ns)
