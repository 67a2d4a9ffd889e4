"""A Run and its objectives -> PASS, FAIL or INCONCLUSIVE, with the number, the lane and the doubt that decided each."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from probe.doubts import EXCUSES, FEWEST_ROWS, doubts_of
from probe.errors import EXIT_INCONCLUSIVE, EXIT_MISSED, EXIT_PASS
from probe.model import NS, Doubt
from probe.runfile import Run
from probe.timeline import Channel, Spans, Timeline, joined
from probe.timeline.spans import touch
from probe.verdict.measures import MEASURES, QUANTILES, Reading, spared
from probe.verdict.objective import Objective, default_objectives, fail_condition, parse_objective

__all__ = [
    "MEASURES",
    "QUANTILES",
    "Judged",
    "Objective",
    "Ruling",
    "Verdict",
    "default_objectives",
    "fail_condition",
    "judge",
    "parse_objective",
    "spared",
    "verdict_of",
]


class Ruling(StrEnum):
    """No evidence is not a pass: INCONCLUSIVE is a result of its own."""

    PASS = "PASS"  # noqa: S105 - not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"

    @property
    def exit_code(self) -> int:
        """What the command exits with."""
        return {Ruling.PASS: EXIT_PASS, Ruling.FAIL: EXIT_MISSED, Ruling.INCONCLUSIVE: EXIT_INCONCLUSIVE}[self]

    @classmethod
    def worst(cls, rulings: Collection[Ruling]) -> Ruling:
        """FAIL if any is, else INCONCLUSIVE if any is, or there is none, else PASS."""
        if not rulings:
            return cls.INCONCLUSIVE
        return next((ruling for ruling in (cls.FAIL, cls.INCONCLUSIVE) if ruling in rulings), cls.PASS)


@dataclass(frozen=True, slots=True)
class Judged:
    """One objective: `actual` is the value of the lane and target that came closest to missing it, or missed it most.

    met: as counted; None without a sample. why: what makes a ruling differ from `met`, or a note on what was measured.
    at_best: what `actual` may have been, had all that may be no fault of DNS been good: the truth lies between them.
    """

    objective: Objective
    ruling: Ruling
    actual: float
    met: bool | None
    lane: str = ""
    target: str = ""
    why: str = ""
    at_best: float = math.nan


@dataclass(frozen=True, slots=True)
class Verdict:
    """ruling: the worst of its objectives'."""

    ruling: Ruling
    objectives: tuple[Judged, ...]
    doubts: tuple[Doubt, ...]
    timeline: Timeline


@lru_cache(maxsize=2)
def verdict_of(run: Run) -> Verdict:
    """By the run's own objectives, or the default ones if it has none. Worked out once for each Run."""
    objectives = run.head.objectives or default_objectives(run.series)
    return judge(Timeline.of(run), doubts_of(run), [parse_objective(text) for text in objectives])


def judge(timeline: Timeline, doubts: Sequence[Doubt], objectives: Sequence[Objective]) -> Verdict:
    """A missed objective is FAIL, and a met one PASS, unless what this prober did wrong itself could change that."""
    judged = tuple(_judged(timeline, doubts, objective) for objective in objectives)
    return Verdict(Ruling.worst([j.ruling for j in judged]), judged, tuple(doubts), timeline)


def _judged(timeline: Timeline, doubts: Sequence[Doubt], objective: Objective) -> Judged:
    channels = [c for c in timeline.channels if objective.covers(c.lane)]
    if not channels:
        known = ", ".join(dict.fromkeys(c.lane for c in timeline.channels)) or "none"
        return Judged(objective, Ruling.INCONCLUSIVE, math.nan, None, why=f"matches no lane; lanes are {known}")
    within, note = _within(timeline, objective)
    actual, channel = _worst(timeline, channels, objective, within, Reading.AS_COUNTED)
    if channel is None:
        return Judged(objective, Ruling.INCONCLUSIVE, math.nan, None, why="nothing was measured on these lanes")
    met = objective.met_by(actual)
    at_best, _ = _worst(timeline, channels, objective, within, Reading.BEST)
    if math.isnan(at_best) or objective.met_by(at_best) != met:
        ruling, why = Ruling.INCONCLUSIVE, _excuse(doubts, channels)
    elif not met:
        ruling, why = Ruling.FAIL, note
    else:
        hidden = (
            _hidden(timeline, doubts, objective, channels, within)
            or _too_few(objective, channels, within)
            or _open_ended(timeline, objective, channels, within)
        )
        ruling, why = Ruling.INCONCLUSIVE if hidden else Ruling.PASS, hidden or note
    return Judged(objective, ruling, actual, met, *channel.name, why=why, at_best=at_best)


def _worst(
    timeline: Timeline, channels: Sequence[Channel], objective: Objective, within: Spans | None, reading: Reading
) -> tuple[float, Channel | None]:
    """Of the channels that have a value, the one nearest to missing the objective."""
    measure = MEASURES[objective.measure]
    values = [(measure.of(timeline, c, within, reading), c) for c in channels]
    known = [(value, c) for value, c in values if not math.isnan(value)]
    if not known:
        return math.nan, None
    return (max if objective.upper else min)(known, key=lambda pair: pair[0])


def _hidden(
    timeline: Timeline,
    doubts: Sequence[Doubt],
    objective: Objective,
    channels: Sequence[Channel],
    within: Spans | None,
) -> str:
    """Why an objective that looks met may not be; '' if nothing could hide that."""
    for doubt in doubts:
        if not doubt.hides_loss or doubt.id == "few_samples" or not _touches(doubt, channels):
            continue
        if doubt.id != "unsent":
            return doubt.text
        worst, channel = _worst(timeline, channels, objective, within, Reading.WORST)
        if channel and not objective.met_by(worst):
            missed = f"had they been lost, it would be missed on {channel.lane} -> {channel.target.name}"
            return f"{doubt.text.partition(':')[0]}; {missed}"
    return ""


def _too_few(objective: Objective, channels: Sequence[Channel], within: Spans | None) -> str:
    """Why so few rows show nothing; '' if there are enough. Unsent rows count: _hidden() has taken them for lost."""
    decided: dict[str, int] = {}
    sent = 0
    for c in channels:
        loss = c.loss(within)
        decided[c.lane] = decided.get(c.lane, 0) + loss.asked
        sent += loss.asked + loss.unsent
    stretch = f" within {objective.within_ns / NS:g} s of steps" if within and objective.within_ns else ""
    if few := [f"{lane} {n}" for lane, n in decided.items() if n < FEWEST_ROWS]:
        return f"too few rows{stretch} to say anything (under {FEWEST_ROWS}): {', '.join(few)}"
    if sent < objective.rows:
        return f"{sent:,} rows{stretch} are too few to show it: that takes {objective.rows:,} or more"
    return ""


def _open_ended(timeline: Timeline, objective: Objective, channels: Sequence[Channel], within: Spans | None) -> str:
    """Why the longest disruption is not known; '' if it is: one that the run's end cut off may have gone on."""
    if objective.measure != "longest_disruption" or not objective.upper:
        return ""
    windows = (w for c in channels for w in timeline.by_channel.get(c.name, ()))
    cut_off = [w for w in windows if w.still_open and touch(w.from_ns, w.to_ns, within)]
    if not cut_off:
        return ""
    longest = max(cut_off, key=lambda w: w.to_ns - w.from_ns)
    lasted = f"a disruption of at least {(longest.to_ns - longest.from_ns) / NS:.3f} s"
    return f"{lasted} was still going on when the run ended: run it longer"


def _excuse(doubts: Sequence[Doubt], channels: Sequence[Channel]) -> str:
    """Why what was missed may be no fault of DNS."""
    texts = [d.text for d in doubts if d.id in EXCUSES and _touches(d, channels)]
    return f"what was lost may be no fault of DNS: {'; '.join(texts)}"


def _touches(doubt: Doubt, channels: Sequence[Channel]) -> bool:
    return not doubt.lanes or any(c.lane in doubt.lanes for c in channels)


def _within(timeline: Timeline, objective: Objective) -> tuple[Spans | None, str]:
    """The stretches an objective is about; None is the whole run."""
    if objective.within_ns is None:
        return None, ""
    if not timeline.steps:
        return None, "the run had no steps: over all of it"
    return joined((from_ns, to_ns + objective.within_ns) for from_ns, to_ns in timeline.steps), ""
