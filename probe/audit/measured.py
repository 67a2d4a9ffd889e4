"""A run of this cluster -> how late its nodes learned of a pod's end, what was lost and why, beside what is set.

Causes are those of probe.diagnosis.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from probe.advice import Departure, by_nsid, recommend
from probe.audit.snapshot import Snapshot, Unread
from probe.diagnosis import Diagnosis, diagnose
from probe.model import NS, Sure, TargetKind
from probe.runfile import Run
from probe.verdict import verdict_of

CHECKS_OF: Mapping[str, tuple[str, ...]] = {
    "short_lameduck": ("C03", "C05"),
    "no_lameduck": ("C03", "C05"),
    "short_grace": ("C04",),
    "reload_lameduck": ("C08",),
    "killed": ("C14",),
    "crashed": ("C02", "C38", "C50"),
    "unsynced": ("C06",),
    "never_ready": ("C06",),
    "stuck_rollout": ("C37", "C49"),
    "pod_stuck": ("C37", "C49"),
    "all_replaced": ("C13",),
    "all_evicted": ("C11", "C12"),
    "no_pods": ("C10", "C12"),
    "no_fallback": ("C23",),
    "stale_flow": ("C05", "C22", "C42"),
    "ipvs_session": ("C20", "C21", "C45"),
    "socket_lb": ("C24",),
    "nodelocal": ("C26",),
    "conntrack_full": ("C39",),
    "port_blocked": ("C40",),
    "udp_blocked": ("C40",),
    "affinity": ("C16",),
    "one_slow": ("C16", "C15"),
    "all_slow": ("C10", "C15"),
    "max_concurrent": ("C32",),
    "upstream_without_tcp": ("C32",),
    "no_api": ("C27",),
    "too_big": ("C30", "C33"),
    "kube_proxy": ("C22",),
}
"""By the cause's id in probe.diagnosis.RULES; those that are missing belong to no check."""


@dataclass(frozen=True, slots=True)
class Measured:
    """departures: pods' ends as nodes saw them; causes: of what was lost."""

    run: Run
    departures: tuple[Departure, ...]
    causes: tuple[Diagnosis, ...]

    @property
    def propagation(self) -> float | None:
        """The longest, in seconds; None if no pod went that said who it is."""
        return max((one.seconds for one in self.departures), default=None)

    @property
    def said(self) -> str:
        """Where that figure is from."""
        longest = max(self.departures, key=lambda one: one.seconds, default=None)
        if longest is None:
            return ""
        least = ", at least" if longest.at_least else ""
        return f"measured in {self.run.path}, at {longest.pod} by {longest.by}{least}"

    @property
    def figures(self) -> dict[str, float]:
        """By the names of probe.audit.check.FIGURES; those that nobody counted are missing."""
        timeline = verdict_of(self.run).timeline
        mine = [c.loss() for c in timeline.channels if c.target.kind is TargetKind.SERVICE]
        planned = sum(loss.planned for loss in mine)
        found = {"seconds": self.run.end_ns / NS}
        if planned:
            found["loss"] = 1 - sum(loss.good for loss in mine) / planned
        for metric in self.run.metrics:
            if metric.source == "coredns" and metric.name in ("panics", "reload_failed"):
                found[metric.name] = found.get(metric.name, 0.0) + metric.grown
            if metric.source == "coredns" and metric.name == "resident_bytes" and metric.most:
                found[metric.name] = max(found.get(metric.name, 0.0), metric.most)
        tracked = [metric.most for metric in self.run.metrics if metric.name == "conntrack_entries"]
        holds = re.search("of at most ([0-9,]+)", self.run.head.facts.get("conntrack", ""))
        if tracked and holds:
            found["conntrack_share"] = max(tracked) / int(holds[1].replace(",", ""))
        return found


def measured(run: Run, platform: str) -> Measured:
    """platform: a key of PLATFORMS, for the causes' remedies."""
    return Measured(run, tuple(by_nsid(run)), tuple(diagnose(verdict_of(run).timeline, platform)))


def told(seen: Measured, snapshot: Snapshot) -> Iterator[str]:
    """Sentences: the verdict, each cause with the checks that it belongs to, and the margin that is left."""
    verdict = verdict_of(seen.run)
    yield f"{seen.run.path}: {verdict.ruling.value}, {seen.run.end_ns / NS:,.0f} s"
    causes: dict[tuple[str, ...], list[Diagnosis]] = {}
    for one in seen.causes:
        causes.setdefault((one.finding.id, one.finding.text), []).append(one)
    for (name, text), found in causes.items():
        lost = sum(window.lost for one in found for window in one.windows)
        of = CHECKS_OF.get(name, ())
        sure = "" if found[0].finding.sure is not Sure.UNDETERMINED else ", which could not be told from others"
        yield f"{lost:,} queries lost: {text}{sure}{_of(of)}"
    if not causes:
        yield "nothing was lost in it"
    yield from _margin(seen, snapshot)


def _margin(seen: Measured, snapshot: Snapshot) -> Iterator[str]:
    """What is configured, less what was measured."""
    if seen.propagation is None:
        yield "how late nodes learn of a pod's end was not measured: no pod that answers with an NSID was deleted in it"
        return
    try:
        shutdown = snapshot.shutdown
    except Unread as problem:
        yield f"the margin cannot be said: {problem}"
        return
    late = seen.propagation
    for need in recommend(late, shutdown).needs:
        left = shutdown.lameduck - need.least
        how = f"{left:.1f} s are left" if left >= 0 else f"{-left:.1f} s are missing"
        yield (
            f"clients on {need.clients} source ports need a lameduck of {need.least:.1f} s at a propagation of"
            f" {late:.1f} s; {shutdown.lameduck:g} s are set: {how}"
        )


def _of(checks: tuple[str, ...]) -> str:
    return f": {', '.join(checks)}" if checks else ""
