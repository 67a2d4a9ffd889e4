"""A cell's Run -> what the sweep keeps of it beside the run file itself: losses by lane, verdict, rollout, margins."""

from __future__ import annotations

import re
from dataclasses import dataclass

from probe.doubts import EXCUSES
from probe.model import NS
from probe.runfile import Run
from probe.sweep.outage import begun_ns, ended_by
from probe.sweep.rollout import rollout_of
from probe.timeline import Channel, inside
from probe.verdict import Ruling, Verdict, spared, verdict_of

CROWDED = {"cut", "unsent", "overrun", "worker_died", "throttled", *EXCUSES}
"""Doubts that a machine with too much to do brings: alone, the same cell may have none."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one lane lost on one target. longest: the longest window, s; outcome: its class, or ''.

    lost_at_least: without what may be no fault of DNS. healthy: seconds from the first step to the first query that was
    lost after it; None if none was.
    """

    lane: str
    target: str
    kind: str
    transport: str
    ports: str
    planned: int
    good: int
    lost: int
    lost_at_least: int
    unsent: int
    longest: float
    outcome: str
    healthy: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of a cell. unsure: why it is no evidence that nothing was lost, or ''.

    crowded: that may be because others ran beside it. rollout, margins: see rollout.py; ended_by: see outage.py.
    """

    verdict: str
    unsure: str
    crowded: bool
    rollout: float | None
    margins: dict[str, float]
    ended_by: str
    results: tuple[Result, ...]


def measured_of(run: Run) -> Measured:
    """All of it."""
    verdict, rollout = verdict_of(run), rollout_of(run)
    unsure = _unsure(verdict)
    crowded = bool(unsure) and any(doubt.id in CROWDED for doubt in verdict.doubts)
    if rollout.unseen and not unsure:
        unsure = f"{rollout.unseen} when the run ended: give it a longer duration"
    results = tuple(_results(verdict))
    ended = ended_by(verdict.timeline)
    return Measured(verdict.ruling.value, unsure, crowded, rollout.seconds, rollout.margins, ended, results)


def _unsure(verdict: Verdict) -> str:
    """In a few words why the objectives have no answer."""
    if verdict.timeline.run.cut:
        return verdict.timeline.run.cut
    lost = any(channel.loss().lost for channel in verdict.timeline.channels if not channel.mortal)
    if verdict.ruling is Ruling.FAIL and lost:
        return ""
    why = [judged.why for judged in verdict.objectives if judged.ruling is Ruling.INCONCLUSIVE]
    return re.split(": |; ", why[0])[0] if why else ""


def _results(verdict: Verdict) -> list[Result]:
    found = []
    begun = begun_ns(verdict.timeline.run)
    for channel in verdict.timeline.channels:
        loss = channel.loss()
        windows = verdict.timeline.by_channel.get(channel.name, ())
        longest = max(windows, key=lambda w: w.to_ns - w.from_ns, default=None)
        found.append(
            Result(
                lane=channel.lane,
                target=channel.target.name,
                kind=channel.target.kind.value,
                transport=channel.transport,
                ports=str(channel.ports),
                planned=loss.planned,
                good=loss.good,
                lost=loss.lost,
                lost_at_least=max(0, loss.lost - spared(channel)),
                unsent=loss.unsent,
                longest=(longest.to_ns - longest.from_ns) / NS if longest else 0.0,
                outcome=longest.outcome.label if longest else "",
                healthy=None if begun is None else _healthy(channel, begun),
            )
        )
    return found


def _healthy(channel: Channel, begun_ns: int) -> float | None:
    """Seconds from then to the first row that was lost, among those that count."""
    lost = channel.first_ns[inside(channel.first_ns, channel.counted) & (channel.first_ns >= begun_ns)]
    return (int(lost.min()) - begun_ns) / NS if len(lost) else None
