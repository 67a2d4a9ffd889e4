"""Rollouts as they stand, and how long nothing may change -> what is waited for, in words; whether that has come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from probe.cluster import Phase, Rollout
from probe.model import NS

QUIET_NS = 11 * 60 * NS
"""Longer than the longest time after which a vendor's upgrade rolls back by itself (ACK: 10 minutes, seeds/001)."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is waited for now, or what has come; over: nothing has changed for long enough.

    under_way: what has begun and has not ended, in words; '' if there is no such thing.
    """

    text: str
    over: bool = False
    under_way: str = ""


def look(rollouts: Iterable[Rollout], now: int, quiet_ns: int) -> Look:
    """At all of them together; now: CLOCK_MONOTONIC in ns. What does not get on for so long has ended, too."""
    rollouts = list(rollouts)
    begun = [rollout for rollout in rollouts if rollout.phase is not Phase.WAITING]
    if not begun:
        names = " or ".join(rollout.name for rollout in rollouts)
        return Look(f"waiting for a rollout of {names}" if names else "waiting for a rollout, but no workload is seen")
    quiet = min(quiet_ns, now - max(rollout.changed for rollout in begun))
    going = [rollout for rollout in begun if rollout.phase is Phase.PROGRESSING]
    if quiet == quiet_ns:
        return Look(f"{'; '.join(map(_ended, begun))}; quiet for {_clock(quiet)}", over=True)
    under_way = "; ".join(f"rolling out {one.name}: {one.updated} of {one.wanted}" for one in going)
    said = under_way or "; ".join(_said(rollout) for rollout in begun)
    return Look(f"{said}, quiet for {_clock(quiet)} of {_clock(quiet_ns)}", under_way=under_way)


def _said(rollout: Rollout) -> str:
    """`coredns stalled: pod coredns-x: image y cannot be pulled`."""
    return f"{rollout.name} {rollout.phase}{f': {rollout.why}' if rollout.why else ''}"


def _ended(rollout: Rollout) -> str:
    took = f"{max(0, rollout.since - rollout.began) / NS:.0f} s after it began"
    if rollout.phase is Phase.PROGRESSING:
        return f"rollout of {rollout.name} stalled at {rollout.updated} of {rollout.wanted}: it gets no further"
    text = f"rollout of {rollout.name} {rollout.phase} {took}"
    return f"{text}, at {rollout.updated} of {rollout.wanted}: {rollout.why}" if rollout.why else text


def _clock(ns: int) -> str:
    """`3:10`, `1:03:10`."""
    minutes, seconds = divmod(ns // NS, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
