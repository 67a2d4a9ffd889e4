"""A run's marks -> how long its change took, whether all of it was seen, and how long pods outlived the node's use.

The change begins with the first step. It is over with the last pod_gone, pod_ready or rollout_done after that.

The margin of a pod is the time from when the node's kube-proxy sent nothing more there to when the pod stopped serving
(pod_exited, or sigkill): what could have taken longer without a loss; below 0 queries went where nobody was. New flows
go elsewhere once the proxy knows that the pod terminates (unless no pod is ready: then those that terminate are used).
Flows there are, of a source port that is used again, go elsewhere when the proxy deletes them, which depends on its era
(probe.cluster.endpoints): as it hears that the pod terminates, or that the pod does not serve.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from probe.cluster.endpoints import Cleanup, era_of
from probe.model import NS, Mark
from probe.runfile import Run

FRESH, REUSED = "fresh", "reused"
"""Kinds of source ports, as margins tell them apart."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """seconds: None without a step, or if it was not over; unseen: what of it was not seen before the run ended, or ''.

    margins: the least of all pods in seconds, by kind of source ports; without what no mark tells.
    """

    seconds: float | None = None
    unseen: str = ""
    margins: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """A mark's `ready: a, b; terminating, serving: c; not serving: d`, taken apart."""

    ready: frozenset[str]
    ending: frozenset[str]

    @classmethod
    def of(cls, mark: Mark) -> Endpoints:
        """What a mark endpoints_programmed says."""
        groups = dict(re.findall(r"(ready|terminating, serving|not serving): ([^;]*)", mark.text))
        ready, ending = (
            frozenset(pod for pod in groups.get(group, "").split(", ") if pod not in ("", "none"))
            for group in ("ready", "terminating, serving")
        )
        return cls(ready, ending)

    def get_new_flows(self, pod: str) -> bool:
        """Whether the proxy still sends new flows to the pod."""
        return pod in self.ready or (not self.ready and pod in self.ending)

    def serve(self, pod: str) -> bool:
        """Whether flows that lead to the pod stay."""
        return pod in self.ready | self.ending

    @property
    def any_serves(self) -> bool:
        """Whether anybody does."""
        return bool(self.ready or self.ending)


def rollout_of(run: Run) -> Rollout:
    """What the marks of a run say."""
    begun = [mark.at_ns for mark in run.marks if mark.kind == "step"]
    if not begun:
        return Rollout()
    marks = [mark for mark in sorted(run.marks, key=lambda mark: mark.at_ns) if mark.at_ns >= min(begun)]
    deleted = {mark.subject: mark.at_ns for mark in marks if mark.kind == "pod_deleted"}
    gone, ready = (_subjects(marks, kind) for kind in ("pod_gone", "pod_ready"))
    programmed = [(mark.at_ns, Endpoints.of(mark)) for mark in marks if mark.kind == "endpoints_programmed"]
    kinds = {FRESH: Endpoints.get_new_flows, **_reused(run)}
    acted = {kind: _acted(deleted, programmed, uses) for kind, uses in kinds.items()}
    unseen = [
        *(f"{pod} was not gone" for pod in deleted if pod not in gone),
        *(f"{pod} was not Ready" for pod in sorted(_subjects(marks, "pod_created") - ready - set(deleted))),
        *("the rollout was not over" for _ in _kinds(marks, "rollout_started")[len(_kinds(marks, "rollout_done")) :]),
        *(f"the node still used {pod}" for pod in deleted if programmed and pod not in acted[FRESH]),
    ]
    last = max((mark.at_ns for mark in marks if mark.kind in ("pod_gone", "pod_ready", "rollout_done")), default=None)
    seconds = None if unseen or last is None else (last - min(begun)) / NS
    stopped: dict[str, int] = {}
    for mark in marks:
        if mark.kind in ("sigkill", "pod_exited") and mark.subject in deleted:
            stopped.setdefault(mark.subject, mark.at_ns)
    margins = {kind: [stopped[pod] - at for pod, at in pods.items() if pod in stopped] for kind, pods in acted.items()}
    least = {kind: min(each) / NS for kind, each in margins.items() if each and len(acted[kind]) == len(deleted)}
    return Rollout(seconds, unseen[0] if unseen else "", least)


def _reused(run: Run) -> dict[str, Callable[[Endpoints, str], bool]]:
    """By which endpoints a flow stays, where that is known."""
    facts = run.head.facts
    if "lab.kubernetes" not in facts or facts.get("lab.proxy_mode") != "iptables":
        return {}
    at_once = era_of(facts["lab.kubernetes"]).cleanup is Cleanup.NOT_READY
    return {REUSED: Endpoints.get_new_flows if at_once else Endpoints.serve}


def _acted(
    deleted: dict[str, int], programmed: Sequence[tuple[int, Endpoints]], uses: Callable[[Endpoints, str], bool]
) -> dict[str, int]:
    """When the node stopped using each pod."""
    found = {}
    for pod, at_ns in deleted.items():
        for when_ns, endpoints in programmed:
            if when_ns >= at_ns and not uses(endpoints, pod):
                found[pod] = when_ns
                break
    return found


def _subjects(marks: Iterable[Mark], kind: str) -> set[str]:
    return {mark.subject for mark in marks if mark.kind == kind}


def _kinds(marks: Iterable[Mark], kind: str) -> list[Mark]:
    return [mark for mark in marks if mark.kind == kind]
