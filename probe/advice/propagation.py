"""A run in which pods were deleted -> how long each node went on sending to them, or how long at least.

A pod is known by its NSID; where it has none, by its own counter of requests less those sent past the Service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probe.model import BUCKET_NS, NS, Mark, Series, TargetKind
from probe.outcome import Counter, Outcome
from probe.runfile import Run
from probe.schedule import pacer_of

NSID = "NSID"
COUNTER = "its counter of requests"
DELETED = "pod_deleted"
ENDS = ("sigkill", "pod_exited", "clock_closed")
"""Marks of the moment from which a pod cannot answer any more."""

SILENT_FOR = 10
"""So many times the usual wait between two answers, and a pod is no longer asked: by chance it is that once in 20,000
(which pod a query goes to is drawn)."""
UNHEARD_FOR = 5
COUNTED_FOR = 2
"""A counter that stood still over so many readings is no longer asked."""
_IN_DOUBT = 2
"""Requests that two readings may differ by though nothing came: one of ours may be under way at each."""

Reading = tuple[int, int]
"""When a pod's counter of requests was read, in ns since t0, and what it was."""


@dataclass(frozen=True, slots=True)
class Departure:
    """One pod's end as one node saw it. seconds: from its deletion to the last query it was sent through the Service.

    at_least: it stopped answering while it was still asked, so that only this much is known. node: the Service as that
    node's target is called; every: seconds between two observations, which is how exact it is.
    """

    pod: str
    node: str
    seconds: float
    at_least: bool
    every: float
    by: str = NSID

    @property
    def unheard(self) -> float:
        """For how long it may have been sent queries after the last that is known: once in 150, by chance, longer."""
        return UNHEARD_FOR * self.every if self.by == NSID else 0.0


def by_nsid(run: Run) -> list[Departure]:
    """Every pod that was deleted, as every node's view of the Service saw it; none for pods without an NSID.

    Only lanes count whose every query was a new flow: a port that is used again stays with its pod for longer.
    """
    again = {s.channel for s in run.series if run.counters[s.index, Counter.PORTS_REUSED]}
    nodes: dict[str, list[Series]] = {}
    for s in run.series:
        if s.target.kind is TargetKind.SERVICE and s.ports.policy == "fresh" and s.channel not in again:
            nodes.setdefault(s.target.name, []).append(s)
    found = []
    for mark in _deletions(run):
        for node, asked in nodes.items():
            heard = answers(run, mark.subject, asked)
            if heard is None or heard.first_ns >= mark.at_ns:
                continue
            last_ns = max(heard.last_ns, mark.at_ns)
            silent_ns = _end_ns(run, mark) - last_ns
            at_least = silent_ns < SILENT_FOR * heard.every_ns
            found.append(Departure(mark.subject, node, (last_ns - mark.at_ns) / NS, at_least, heard.every_ns / NS))
    return found


@dataclass(frozen=True, slots=True)
class Answers:
    """A pod's answers to some series: due instants of the first and last query, and how far apart they lie."""

    first_ns: int
    last_ns: int
    every_ns: int


def answers(run: Run, pod: str, asked: Sequence[Series]) -> Answers | None:
    """Those of the pod to these series; None if it never named itself there."""
    by = run.servers.get(pod)
    heard = [s.index for s in asked if by and by.n[s.index]]
    if by is None or not heard:
        return None
    first_ns, last_ns, n = int(by.first_ns[heard].min()), int(by.last_ns[heard].max()), int(by.n[heard].sum())
    return Answers(first_ns, last_ns, (last_ns - first_ns) // max(1, n - 1))


def _deletions(run: Run) -> list[Mark]:
    return [mark for mark in run.marks if mark.kind == DELETED]


def _directly(run: Run, pod: str) -> list[Series]:
    return [s for s in run.series if s.target.kind is TargetKind.POD and s.target.name == pod]


def _end_ns(run: Run, deletion: Mark) -> int:
    """When the pod could be heard for the last time: what it answered past the Service, its end, that of the run."""
    ends = [m.at_ns for m in run.marks if m.kind in ENDS and m.subject == deletion.subject and m.at_ns > deletion.at_ns]
    if direct := answers(run, deletion.subject, _directly(run, deletion.subject)):
        ends.append(direct.last_ns + direct.every_ns)
    return min([*ends, run.end_ns])


def by_counter(run: Run, pod: str, readings: Sequence[Reading]) -> Departure | None:
    """The pod's end as all nodes together saw it: when its counter stood still but for what was asked past the Service.

    It counts everybody's queries, those from fixed ports too, which may come for longer. None if the pod was not
    deleted, or its counter not read from then on.
    """
    deletion = next((mark for mark in _deletions(run) if mark.subject == pod), None)
    readings = [(at_ns, n) for at_ns, n in readings if deletion and at_ns >= deletion.at_ns]
    if deletion is None or len(readings) <= COUNTED_FOR:
        return None
    direct = _directly(run, pod)
    unsent_ns = _unsent_ns(run, direct)
    since_ns = readings[0][0]
    # Whether what was not sent in the 100 ms of a reading was due before it is not known: as it gives the later end.
    spared = [BUCKET_NS] * (len(readings) - 1) + [0]
    others = [
        n - _asked(direct, since_ns, at_ns) + int(((unsent_ns >= since_ns) & (unsent_ns < at_ns - spare)).sum())
        for (at_ns, n), spare in zip(readings, spared, strict=True)
    ]
    still = next(i for i, n in enumerate(others) if n >= others[-1] - _IN_DOUBT)
    every_ns = (readings[-1][0] - readings[0][0]) / (len(readings) - 1)
    at_least = len(readings) - 1 - still < COUNTED_FOR
    seconds = (readings[still][0] - deletion.at_ns) / NS
    return Departure(pod, "all nodes", seconds, at_least, every_ns / NS, COUNTER)


def _unsent_ns(run: Run, series: Sequence[Series]) -> NDArray[np.int64]:
    """Where each row of these that was due and never sent is counted: the beginning of its 100 ms."""
    rows = run.counts
    mine = (rows.outcome == Outcome.UNSENT) & np.isin(rows.series, [s.index for s in series])
    return np.repeat(rows.bucket[mine], rows.n[mine]).astype(np.int64) * BUCKET_NS


def _asked(series: Sequence[Series], from_ns: int, to_ns: int) -> int:
    """How many queries of these were due meanwhile."""
    return sum(pacer_of(s).count(max(from_ns, s.start_ns), min(to_ns, s.stop_ns)) for s in series)
