"""A Sweep -> its table: a block for each combination of circumstances, a row for each choice, and the cheapest one.

A choice is without loss if all its repeats were made, each with an answer to every objective; if no attempt was lost on
any lane that asks no pods (pods' own lanes count only where there are no others); and if that was no luck: where the
margin is below 0 the node sent queries to pods that were not there any more, though none of ours. The cheapest is the
one whose rollout took the shortest on average; those within ALIKE_S of it cost the same, and the first given is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from probe.model import TargetKind
from probe.sweep.measured import Result
from probe.sweep.reader import CellRun, Sweep, SweptCell
from probe.sweep.rollout import FRESH, REUSED

SWEPT = "swept"
"""What a lane's ports are that differ from cell to cell."""
ALIKE_S = 0.25
"""Rollouts that differ by less cost the same: a pod's end, or its first Ready, is not seen more exactly."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the repeats; nan if there is none."""

    mean: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of no values: nan."""
        all_ = list(values)
        if not all_:
            return cls(math.nan, math.nan, math.nan)
        return cls(sum(all_) / len(all_), min(all_), max(all_))


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane of the table."""

    name: str
    transport: str
    ports: str

    @property
    def policy(self) -> str:
        """How it uses source ports, or connections: fresh, pool, fixed or reused."""
        return self.ports.partition(":")[0]

    @property
    def margin(self) -> str:
        """Which margin is about it; '' for a connection: one that is open when its pod ends has none."""
        return FRESH if self.policy == "fresh" else REUSED if self.transport == "udp" else ""


@dataclass(frozen=True, slots=True)
class Row:
    """One choice. lost: attempts a run, longest: the longest disruption in s, by lane; rollout in s, of those known.

    margins: the least of all its runs, by kind of source ports. healthy: seconds until the first loss, by lane, of
    runs that had one; ended_by: what then ended the Service for good, if anything did. doubts: what keeps it from being
    evidence, by repeat.
    """

    cell: SweptCell
    measured: int
    lost: dict[str, Spread]
    longest: dict[str, Spread]
    rollout: Spread
    margins: dict[str, float]
    healthy: dict[str, Spread]
    ended_by: tuple[str, ...]
    doubts: tuple[str, ...]

    def lossless(self, lanes: Sequence[Lane]) -> bool:
        """No loss on these lanes in any repeat, and nothing that may have hidden one."""
        return not self.doubts and not self.lucky(lanes) and all(self.lost[lane.name].most == 0 for lane in lanes)

    def lucky(self, lanes: Sequence[Lane]) -> bool:
        """Somebody on such lanes may have lost something, whoever did."""
        return any(self.margins.get(lane.margin, 0.0) < 0 for lane in lanes)

    def lost_on(self, lanes: Sequence[Lane]) -> float:
        """Attempts that were lost in a run on these lanes, on average."""
        return sum(self.lost[lane.name].mean for lane in lanes)


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer for some lanes. row: the cheapest without loss, or None; then least: what lost least, if anything ran.

    ports: the policy of these lanes, '' for all. cheaper: the next cheaper row, which lost, or had no answer.
    """

    ports: str
    lanes: tuple[Lane, ...]
    row: Row | None
    cheaper: Row | None
    least: Row | None

    @property
    def margins(self) -> dict[str, float]:
        """Of the chosen row, by kind of source ports, as far as these lanes use them."""
        mine = {lane.margin for lane in self.lanes}
        return {kind: s for kind, s in (self.row.margins if self.row else {}).items() if kind in mine}


@dataclass(frozen=True, slots=True)
class Block:
    """One combination of circumstances: their values, by axis. choices: for all lanes first, then by ports' policy."""

    under: tuple[str, ...]
    rows: tuple[Row, ...]
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """All of it."""

    sweep: Sweep
    lanes: tuple[Lane, ...]
    blocks: tuple[Block, ...]


def table_of(sweep: Sweep) -> Table:
    """Everything is worked out here, once."""
    lanes = _lanes(sweep)
    groups: dict[tuple[str, ...], list[Row]] = {}
    for cell in sweep.cells:
        groups.setdefault(cell.under, []).append(_row(cell, lanes))
    blocks = (Block(under, tuple(rows), _choices(rows, lanes)) for under, rows in groups.items())
    return Table(sweep, lanes, tuple(blocks))


def _lanes(sweep: Sweep) -> tuple[Lane, ...]:
    results = [result for run in sweep.runs if run.measured for result in run.measured.results]
    through = [r for r in results if r.kind != TargetKind.POD] or results
    found: dict[str, Lane] = {}
    for r in through:
        lane = found.setdefault(r.lane, Lane(r.lane, r.transport, r.ports))
        if lane.ports != r.ports or lane.transport != r.transport:
            found[r.lane] = Lane(r.lane, SWEPT, SWEPT)
    return tuple(found.values())


def _row(cell: SweptCell, lanes: Sequence[Lane]) -> Row:
    runs = [run.measured for run in cell.runs if run.measured]
    lost, longest = {}, {}
    for lane in lanes:
        mine = [[result for result in run.results if result.lane == lane.name] for run in runs]
        lost[lane.name] = Spread.of(sum(result.lost for result in results) for results in mine)
        longest[lane.name] = Spread.of(max((r.longest for r in results), default=0.0) for results in mine)
    margins = {
        kind: min(run.margins[kind] for run in runs)
        for kind in (FRESH, REUSED)
        if runs and all(kind in run.margins for run in runs)
    }
    rollout = Spread.of(run.rollout for run in runs if run.rollout is not None)
    healthy = {
        lane.name: Spread.of(min(healthy) for run in runs if (healthy := [*_healthy(run.results, lane.name)]))
        for lane in lanes
    }
    ended = tuple(dict.fromkeys(run.ended_by for run in runs if run.ended_by))
    doubts = tuple(filter(None, map(_doubt, cell.runs)))
    return Row(cell, len(runs), lost, longest, rollout, margins, healthy, ended, doubts)


def _healthy(results: Iterable[Result], lane: str) -> Iterator[float]:
    return (r.healthy for r in results if r.lane == lane and r.healthy is not None)


def _doubt(run: CellRun) -> str:
    """Why a run is no evidence; '' if it is."""
    if run.state == "done" and not run.why:
        return ""
    what = {"done": "inconclusive", "crowded": "to be repeated alone", "failed": "could not run"}.get(run.state)
    return f"repeat {run.repeat} {what}: {run.why}" if what else f"repeat {run.repeat} not made yet"


def _choices(rows: Sequence[Row], lanes: tuple[Lane, ...]) -> tuple[Choice, ...]:
    """For all lanes; and for each policy of ports, if these differ."""
    whole = _choice("", rows, lanes)
    policies = dict.fromkeys(lane.policy for lane in lanes if lane.policy != SWEPT)
    each = [_choice(policy, rows, tuple(x for x in lanes if x.policy == policy)) for policy in policies]
    alike = all(choice.row is whole.row for choice in each)
    return (whole,) if alike else (whole, *each)


def _choice(ports: str, rows: Sequence[Row], lanes: tuple[Lane, ...]) -> Choice:
    measured = [row for row in rows if row.measured]
    ranked = sorted(measured, key=lambda row: math.inf if math.isnan(row.rollout.mean) else row.rollout.mean)
    lossless = [row for row in ranked if row.lossless(lanes)]
    if not lossless:
        least = min(measured, key=lambda row: row.lost_on(lanes), default=None)
        return Choice(ports, lanes, None, None, least)
    cheapest = lossless[0].rollout.mean
    chosen = next(row for row in rows if row in lossless and not row.rollout.mean > cheapest + ALIKE_S)
    before = [row for row in ranked[: ranked.index(chosen)] if not row.lossless(lanes)]
    return Choice(ports, lanes, chosen, before[-1] if before else None, None)
