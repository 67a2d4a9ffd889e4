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
from probe.runfile.packed import Ints
from probe.runfile.reader import Counts, Run, opened

_NONE = Counts(*np.empty((6, 0), np.int64))
MOST_APART_NS = 50_000_000
"""Shards whose t0 differ by more are refused. Rows keep their times since their own t0: nothing is shifted."""


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """A run of one slice, without what is large: histograms, and its counts if it ran to its end.

    db: the database that has them; doubts: of itself.
    """

    run: Run
    db: sqlite3.Connection
    share: Slice
    doubts: tuple[Doubt, ...]

    @property
    def name(self) -> str:
        """`shard 0`."""
        return f"shard {self.share.index}"


@contextmanager
def shards_of(
    paths: Sequence[Path], doubts_of: Callable[[Run], Iterable[Doubt]], partial: bool
) -> Iterator[list[Shard]]:
    """The shards by index. UsageError if these are not all shards of one load, each once, started together and over.

    partial: some may be missing, or have no end.
    """
    with ExitStack() as stack:
        shards = []
        for path in paths:
            run, db = stack.enter_context(opened(path, histograms=False))
            share, doubts = _share(run, partial), tuple(doubts_of(run))
            shards.append(Shard(run if run.cut else replace(run, counts=_NONE), db, share, doubts))
        shards.sort(key=lambda shard: shard.share.index)
        for shard in shards[1:]:
            _check_same_load(shards[0].run, shard.run)
        _check_slices(shards)
        if (gone := missing_of(shards)) and not partial:
            which = ", ".join(map(str, gone))
            raise UsageError(f"of {shards[0].share.of} shards {which} missing: name the files of all, or say --partial")
        yield shards


def missing_of(shards: Sequence[Shard]) -> list[Slice]:
    """The slices that no file has."""
    of, there = shards[0].share.of, {shard.share.index for shard in shards}
    return [Slice(index, of) for index in range(of) if index not in there]


def _share(run: Run, partial: bool) -> Slice:
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
        if one.share == other.share:
            raise UsageError(f"{one.run.path} and {other.run.path} are both shard {one.share}: name each shard once")


def _check_same_load(a: Run, b: Run) -> None:
    for what in ("name", "scenario", "objectives", "planned_ns"):
        if getattr(a.head, what) != getattr(b.head, what):
            raise UsageError(f"{b.path}: is a run of another scenario than {a.path}: its {what} is not the same")
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


def same_series(runs: Sequence[Run]) -> tuple[list[Series], list[Ints]]:
    """The series of all, each once and whole; and which of them those of each run are: int64[series of the run].

    What joined later, pods that came up, did so at slightly different instants and in another order.
    """
    found: dict[Hashable, Series] = {}
    homes = []
    for run in runs:
        times: Tally[Hashable] = Tally()
        home = []
        for s in run.series:
            alike = replace(s, index=0, offset_ns=0, start_ns=min(s.start_ns, 1), stop_ns=0, share=WHOLE)
            alike = replace(alike, shape=replace(s.shape, seed=0))
            times[alike] += 1
            key = alike, times[alike]
            one = found.get(key, replace(s, index=len(found), share=WHOLE))
            start_ns, stop_ns = min(one.start_ns, s.start_ns), max(one.stop_ns, s.stop_ns)
            found[key] = replace(one, start_ns=start_ns, stop_ns=stop_ns)
            home.append(one.index)
        homes.append(np.array(home, np.int64))
    return list(found.values()), homes
