"""Servers, objectives, a range of rates -> the highest rate at which each still meets them: by doubling, then halving.

A trial that misses an objective is made once more before it counts. Where this prober may be what missed it, the search
goes on below, and says at the end that it may not have found the server's limit, but its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from probe.doubts import FEWEST_ROWS
from probe.engine import EngineOptions, check_limits
from probe.errors import DnsprobeError, UsageError
from probe.model import NS, Series, Target
from probe.scenario.adhoc import Options, plan_of
from probe.scenario.limits import Limits
from probe.scenario.plan import Plan, checked_objective, first_series
from probe.scenario.quantity import MAX_RATE, duration_ns
from probe.scenario.trial import Trial, at_rate
from probe.verdict import Ruling

OBJECTIVES = ("loss <= 0.1%", "p99 <= 100ms")
TRIES = 2
LEAST_STEP_NS, MOST_STEP_NS = NS // 2, 600 * NS
DIGITS = 3
"""Rates between two that were asked are rounded to so many."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The range of rates as it was typed."""

    lowest: str = "1000"
    highest: str = "1M"
    step_length: str = "5s"
    precision: str = "5%"
    objectives: Sequence[str] = OBJECTIVES


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for: q/s towards each server of the plan, from lowest to highest; precision: a fraction, 0.05.

    carried: what of that range this prober has ports, query ids and files for; limit: what is missing above, else ''.
    """

    plan: Plan
    lowest: int
    highest: int
    precision: float
    carried: int
    limit: str


@dataclass(frozen=True, slots=True)
class Capacity:
    """What was found of one server: the highest rate that was met, the lowest that was not (None: there was none).

    limit: why this prober could not find more, else ''. complete: the search was not interrupted.
    """

    target: Target
    trials: tuple[Trial, ...]
    met: Trial | None
    missed: Trial | None
    limit: str
    complete: bool

    @property
    def ruling(self) -> Ruling:
        """FAIL: not even the lowest rate. INCONCLUSIVE: the limit is this prober's, or not found."""
        if self.limit or not self.complete:
            return Ruling.INCONCLUSIVE
        return Ruling.PASS if self.met else Ruling.FAIL


Ask = Callable[[Target, int, int], Awaitable[Trial | None]]
"""Asks a server at a rate, for the nth time; None if that was interrupted."""


def search_of(options: Options, wanted: Wanted, engine: EngineOptions, limits: Limits | None = None) -> Search:
    """What was typed, checked before anything starts: UsageError or EnvironmentProblem name the option.

    limits: of what goes towards other machines.
    """
    lowest, highest = _rate("--from", wanted.lowest), _rate("--to", wanted.highest)
    if lowest > highest:
        raise UsageError(f"--from {wanted.lowest}: is above --to {wanted.highest}")
    try:
        step_ns = duration_ns(wanted.step_length, LEAST_STEP_NS, MOST_STEP_NS)
    except UsageError as problem:
        raise UsageError(f"--step-length {problem}") from None
    precision = _precision(wanted.precision)
    plan = plan_of(replace(options, rate=str(highest)))
    plan = replace(plan, name="capacity", duration_ns=step_ns, objectives=tuple(wanted.objectives))
    for text in plan.objectives:
        _check_objective(text, plan, lowest)
    for target in plan.servers:
        _check_limits(wanted.highest, _series(plan, target, highest), limits or Limits())
    check_limits(_series(plan, plan.servers[0], lowest), engine.workers)
    return Search(plan, lowest, highest, precision, *_carried(plan, engine.workers, lowest, highest))


def _rate(option: str, text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([kKM]?)", text.strip())
    rate = int(Fraction(found[1]) * {"": 1, "k": 1000, "K": 1000, "M": 10**6}[found[2]]) if found else 0
    if not 1 <= rate <= MAX_RATE:
        raise UsageError(f"{option} {text!r}: queries a second from 1 to {MAX_RATE:,}, e.g. 1000, 50k, 1M")
    return rate


def _precision(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,2}(?:\.[0-9]{1,3})?) ?%", text.strip())
    if not found or not 1 <= float(found[1]) <= 50:
        raise UsageError(f"--precision {text!r}: a percentage from 1% to 50%, e.g. 5%")
    return float(found[1]) / 100


def _check_objective(text: str, plan: Plan, lowest: int) -> None:
    """UsageError if it says what is bad, or if the smallest trial has too few rows to show it."""
    objective = checked_objective(text, [lane.name for lane in plan.lanes])
    if not objective.upper:
        raise UsageError(f"--objective {text!r}: say what must hold, e.g. {OBJECTIVES[0]!r}")
    needed, rows = max(objective.rows, FEWEST_ROWS), lowest * plan.duration_ns // NS
    if rows < needed:
        raise UsageError(
            f"--from {lowest}: {rows:,} queries a step are too few to show {text!r}, which takes {needed:,}:"
            f" say --step-length {math.ceil(needed / lowest)}s, or --from {math.ceil(needed * NS / plan.duration_ns)}"
        )


def _check_limits(highest: str, series: Sequence[Series], limits: Limits) -> None:
    try:
        limits.check(series)
    except UsageError as problem:
        raise UsageError(f"--to {highest}: {problem}") from None


def _series(plan: Plan, target: Target, rate: int) -> list[Series]:
    return first_series(at_rate(plan, target, rate), lambda _: [])


def _carried(plan: Plan, workers: int, lowest: int, highest: int) -> tuple[int, str]:
    """The highest rate, to 1 %, for which there are ports, query ids and file descriptors; what is missing above it."""
    why, below, above = "", lowest, highest + 1
    while above - below > max(1, below // 100):
        rate = (below + above) // 2 if why else highest
        try:
            check_limits(_series(plan, plan.servers[0], rate), workers)
            below = rate
        except DnsprobeError as problem:
            above, why = rate, str(problem)
    return below, why


def next_rate(search: Search, met: int, missed: int) -> int:
    """The rate to ask next, 0 if it is found. met: the highest that was met; missed: the lowest that was not; or 0."""
    if not missed:
        return min(2 * met, search.carried) if met < search.carried else 0
    if not met or missed <= met * (1 + search.precision):
        return 0
    middle = (met + missed) / 2
    step = 10 ** max(0, math.floor(math.log10(middle)) + 1 - DIGITS)
    rate = round(middle / step) * step
    return rate if met < rate < missed else 0


async def find(search: Search, target: Target, ask: Ask, told: Callable[[Trial], None]) -> Capacity:
    """The capacity of one server; `told` hears of each trial."""
    trials: list[Trial] = []
    met: Trial | None = None
    missed: Trial | None = None
    rate = search.lowest
    while rate:
        tried: list[Trial] = []
        while len(tried) < TRIES and not any(trial.met for trial in tried):
            trial = await ask(target, rate, len(tried) + 1)
            if trial is None:
                return Capacity(target, (*trials, *tried), met, missed, "", complete=False)
            tried.append(trial)
            told(trial)
        trials += tried
        if tried[-1].met:
            met = tried[-1]
        else:  # that the server failed once is known, whatever else this prober did the other time
            missed = min(tried, key=lambda trial: bool(trial.limit))
        rate = next_rate(search, met.rate if met else 0, missed.rate if missed else 0)
    return Capacity(target, tuple(trials), met, missed, missed.limit if missed else search.limit, complete=True)
