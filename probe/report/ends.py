"""A Run -> when each pod that was told to go was closed, and the margin that left the Service to forget it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from probe.diagnosis.pods import NEVER, PodLife, pods_of
from probe.model import Mark
from probe.runfile import Run


@dataclass(frozen=True, slots=True)
class End:
    """One pod's end, in ns since t0, NEVER where nobody saw it.

    removed_ns: from when on it was no ready endpoint any more; known_ns: when the last proxy acted on that.
    """

    life: PodLife
    removed_ns: int
    known_ns: int

    @property
    def margin_ns(self) -> int | None:
        """From when the last proxy had forgotten it, or if nobody saw that, the API, to its closed port.

        Below 0 new queries were sent to a port that was closed. None where either was not seen.
        """
        forgotten_ns = self.known_ns if self.known_ns < NEVER else self.removed_ns
        return None if NEVER in (forgotten_ns, self.life.closed_ns) else self.life.closed_ns - forgotten_ns


def ends_of(run: Run) -> list[End]:
    """Of every pod that was told to go, in that order."""
    gone = sorted((life for life in pods_of(run).values() if life.deleted), key=lambda life: life.deleted_ns)
    told = {kind: [m for m in run.marks if m.kind == kind] for kind in ("endpoints_changed", "endpoints_programmed")}
    return [End(life, *(_forgotten(marks, life) for marks in told.values())) for life in gone]


def _forgotten(marks: Sequence[Mark], life: PodLife) -> int:
    """When the last who told of endpoints, which were with that pod before, told of them without it."""
    before: dict[str, bool] = {}
    found: dict[str, int] = {}
    for mark in marks:
        there = life.name in ready_of(mark.text)
        if mark.at_ns < life.deleted_ns:
            before[mark.subject] = there
        elif not there and before.get(mark.subject, True):
            found.setdefault(mark.subject, mark.at_ns)
    return max(found.values(), default=NEVER)


def ready_of(text: str) -> list[str]:
    """The pods that a mark of endpoints calls ready: `kube-dns: ready: a, b; terminating, serving: c` -> a, b."""
    match = re.search(r"(?:^|: )ready: ([^;]*)", text)
    return [pod for pod in match[1].split(", ") if pod != "none"] if match else []
