"""A workload as it stands, version by version -> its Rollout, and what is told of it; knows no API and no lab."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from probe.cluster import Happened, Phase, Rollout


@dataclass(frozen=True, slots=True)
class Standing:
    """How a Deployment or DaemonSet stands.

    template: of its pods, a text that is the same for the same one. updated: how many pods are of it, of those wanted.
    over: as `kubectl rollout status` has it. available: how many pods are, of whichever template. stuck: why it gets no
    further, in words that stay while it is so; or ''.
    """

    name: str
    template: str
    image: str
    updated: int
    wanted: int
    over: bool
    stuck: str = ""
    available: int = 0


class Rollouts:
    """The rollouts of some workloads. One that was under way when first seen has begun with its next progress.

    Rolled back is what had another template for a while, or another image, and then its first one again.
    Kinds of Happened: rollout_stalled, rollout_rolled_back.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._first: dict[str, Standing] = {}
        self._left: dict[str, set[str]] = {}
        self._now: dict[str, Rollout] = {}
        self._blind = False

    def see(self, at: int, standing: Standing) -> Happened | None:
        """What is told of it now, if it has stalled or was rolled back."""
        name = standing.name
        first = self._first.setdefault(name, standing)
        before = self._now.get(name, Rollout(name, Phase.WAITING, standing.updated, standing.wanted))
        left = self._left.setdefault(name, set())
        left |= {what for what in ("template", "image") if getattr(standing, what) != getattr(first, what)}
        waited = before.phase is Phase.WAITING
        goes_on = not first.over and standing.updated != first.updated
        phase, why = Phase.WAITING, ""
        if left or goes_on or not waited:
            phase, why = _phase(standing, any(getattr(standing, what) == getattr(first, what) for what in left))
        now = replace(before, phase=phase, why=why, updated=standing.updated, wanted=standing.wanted)
        now = replace(now, available=standing.available)
        fresh = (phase, why) != (before.phase, before.why)
        if fresh or now != before:
            now = replace(now, began=at if waited else before.began, since=at if fresh else before.since, changed=at)
        self._now[name] = now
        if not fresh or phase not in (Phase.STALLED, Phase.ROLLED_BACK):
            return None
        kind, text = ("rollout_stalled", why) if why else ("rollout_rolled_back", standing.image)
        return Happened(at, kind, text, self._source, name)

    def look(self, *, blind: bool) -> None:
        """Whether workloads cannot be seen just now: then nobody knows that nothing changes."""
        self._now = {rollout.name: rollout for rollout in self.now}
        self._blind = blind

    @property
    def now(self) -> list[Rollout]:
        """All of them."""
        if not self._blind:
            return list(self._now.values())
        return [replace(rollout, changed=time.monotonic_ns()) for rollout in self._now.values()]


def _phase(standing: Standing, back: bool) -> tuple[Phase, str]:
    if standing.over:
        return (Phase.ROLLED_BACK if back else Phase.COMPLETED), ""
    return (Phase.STALLED, standing.stuck) if standing.stuck else (Phase.PROGRESSING, "")
