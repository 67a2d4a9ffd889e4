"""A Run -> what this prober did wrong itself, or did not see, and the lanes on which that could hide a loss."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from probe.histogram import quantile_ns
from probe.model import NS, Doubt, TargetKind
from probe.outcome import UNSENT_HELP, Counter, Outcome, UnsentCause
from probe.runfile import Run

FEWEST_ROWS = 30
"""A lane that decided fewer rows than this is no evidence: losing one row in ten would often go unseen."""
LAG_NS = 5_000_000
"""Queries that leave later than this after they were due (p99) load the prober's delay onto every latency."""

EXCUSES = ("own_drops", "lab_dropped", "lab_died")
"""Doubts about lost rows: they may be no fault of DNS."""


def doubts_of(run: Run) -> list[Doubt]:
    """The doubts of a run, gravest first."""
    return [*_cut(run), *_unsent(run), *_own_drops(run), *_lab(run), *_few(run), *_overrun(run), *_lag(run)]


def _cut(run: Run) -> Iterable[Doubt]:
    undecided = int(run.in_flight.n.sum())
    left = f"; {undecided:,} rows were still in flight and are undecided" if undecided else ""
    if run.cut:
        yield Doubt("cut", f"{run.cut}{left}: what came after was not seen")
    elif undecided:
        yield Doubt("undecided", f"{undecided:,} rows never got an outcome", _lanes(run, run.in_flight.series.tolist()))


def _unsent(run: Run) -> Iterable[Doubt]:
    rows = run.counts
    unsent, planned = _by_lane(run, rows.outcome == Outcome.UNSENT), _by_lane(run, rows.outcome >= 0)
    lanes = tuple(lane for lane, n in unsent.items() if n)
    if not lanes:
        return
    causes = run.unsent.sum(axis=0)
    why = ", ".join(f"{causes[c]:,} {c.label} ({UNSENT_HELP[c]})" for c in UnsentCause if causes[c])
    shares = ", ".join(f"{k} {unsent[k]:,} of {planned[k]:,} ({100 * unsent[k] / planned[k]:.3g} %)" for k in lanes)
    text = f"{sum(unsent.values()):,} rows were due and never sent, this prober's own fault: {shares}"
    yield Doubt("unsent", f"{text}; by cause: {why}" if why else text, lanes)


def _own_drops(run: Run) -> Iterable[Doubt]:
    drops = run.counters[:, Counter.OWN_DROPS]
    if drops.any():
        lanes = _lanes(run, np.flatnonzero(drops).tolist())
        text = f"{drops.sum():,} replies were dropped because our own receive buffer was full; they count as timeouts"
        yield Doubt("own_drops", f"{text}: up to that many were no loss", lanes, hides_loss=False)


def _lab(run: Run) -> Iterable[Doubt]:
    seconds = sum(mark.kind == "lab_dropped" for mark in run.marks)
    if seconds:
        lanes = _lanes_to(run, TargetKind.SERVICE)
        text = f"in {seconds} s the lab's Service dropped datagrams itself, asked for more than it can carry"
        yield Doubt("lab_dropped", f"{text}: what was lost around them may be no loss", lanes, hides_loss=False)
    for mark in run.marks:
        if mark.kind == "lab_died":
            lanes = _lanes_to(run, TargetKind.SERVICE, TargetKind.POD)
            text = f"the lab ended by itself at {mark.at_ns / NS:+.1f} s: what was lost then is no fault of DNS"
            yield Doubt("lab_died", text, lanes, hides_loss=False)


def _few(run: Run) -> Iterable[Doubt]:
    decided = _by_lane(run, run.counts.outcome != Outcome.UNSENT)
    few = {lane: n for lane, n in decided.items() if n < FEWEST_ROWS}
    if few:
        which = ", ".join(f"{lane} {n}" for lane, n in few.items())
        yield Doubt("few_samples", f"too few rows to say anything (under {FEWEST_ROWS}): {which}", tuple(few))


def _overrun(run: Run) -> Iterable[Doubt]:
    for interval in run.intervals:
        if interval.kind == "overrun":
            yield Doubt("overrun", f"{interval.text}: this prober's own process stood still for too long")


def _lag(run: Run) -> Iterable[Doubt]:
    lag = quantile_ns(run.lag, 0.99, maximum=run.lag_max_ns or math.inf)
    if lag > LAG_NS:
        text = f"queries left late: 1 % of them {lag / 1e6:.1f} ms or more after they were due (max"
        text += f" {run.lag_max_ns / 1e6:.1f} ms): that much of latency is this prober's own; rtt is not affected"
        yield Doubt("lag", text, hides_loss=False)


def _by_lane(run: Run, rows: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> dict[str, int]:
    """Rows of each lane, in the order in which lanes joined."""
    of_series = np.bincount(run.counts.series[rows], run.counts.n[rows], minlength=len(run.series))
    found: dict[str, int] = {}
    for s in run.series:
        found[s.lane] = found.get(s.lane, 0) + int(of_series[s.index])
    return found


def _lanes_to(run: Run, *kinds: TargetKind) -> tuple[str, ...]:
    return _lanes(run, [s.index for s in run.series if s.target.kind in kinds])


def _lanes(run: Run, series: Iterable[int]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(run.series[index].lane for index in sorted(series)))
