"""A Moment of a whole run -> what it shows without any window: stalls of our own, slow answers, rollouts that stand."""

from __future__ import annotations

import math
import re

from probe.diagnosis.moment import SERVICES, STRAY, Moment
from probe.diagnosis.paths import one_server
from probe.diagnosis.pods import NEVER
from probe.diagnosis.rule import Fit, at, seconds
from probe.model import BESIDE, NS, Mark, Sure, TargetKind
from probe.outcome import UNSENT_HELP, UnsentCause
from probe.resolv import ASKED_FACT
from probe.timeline import joined

SLOW_NS = NS // 10
"""An answer later than this is slow: kubernetes/perf-tests' mark, there for the 99th percentile."""
QUANTILE = 0.9
WAITS_NS = 5 * NS
"""A new pod that is not Ready so long after it was made does not become so by itself (the lab's start in 0.2 s)."""
ROWS = 30

RELOAD_NS = 180 * NS
"""A changed ConfigMap is loaded by pods within so long, and a lameduck with the probes after it is over."""


_COUNTED = (TargetKind.SERVICE, TargetKind.POD)
REACHED = 0.3
"""So much of what the Service was asked at least must have been counted by pods, which are read every few seconds."""
TOGETHER_NS = 120 * NS
"""What an upgrade changes, it changes within so long of its new image."""


def stall(moment: Moment) -> Fit | None:
    """11, of this prober: what was due and never sent."""
    run = moment.timeline.run
    unsent = [(int(t), int(n)) for c in moment.timeline.channels for t, n in zip(c.unsent_ns, c.unsent, strict=True)]
    total, planned = sum(n for _, n in unsent), sum(c.whole.planned for c in moment.timeline.channels)
    if not total or total < planned / 100:
        return None
    spans = joined((t, t + NS) for t, _ in unsent)
    begin, end = max(spans, key=lambda span: sum(n for t, n in unsent if span[0] <= t < span[1]))
    causes = run.unsent.sum(axis=0)
    cause = UnsentCause(int(causes.argmax()))
    seen = f"{total:,} of {planned:,} queries were due and never sent, most from {at(begin)} to {at(end)}:"
    seen += (
        f" {UNSENT_HELP[cause] if causes.any() else 'no cause was told'}; the longest lag was {seconds(run.lag_max_ns)}"
    )
    return Fit(Sure.CERTAIN, seen, ("unsent rows", "schedule lag"), span=(begin, end))


def stuck_rollout(moment: Moment) -> Fit | None:
    """10a: new pods end as soon as they start."""
    found = [p for p in moment.pods.values() if p.ready_ns == NEVER and p.created_ns < NEVER and len(p.crashes) >= 2]
    if not found:
        return None
    pod = found[0]
    told = moment.marks("rollout_stalled", "pod_stuck", "log")
    last = next((m.text for m in told if m.subject == pod.name or m.kind == "rollout_stalled"), "")
    codes = ", ".join(str(code) for _, code in pod.crashes[:4])
    seen = f"{pod.name}, made at {at(pod.created_ns)}, ended {len(pod.crashes)} times (exit code {codes})"
    seen += " and was never Ready"
    seen += f"; {last}" if last else ""
    return Fit(
        Sure.LIKELY if "directive" not in seen else Sure.CERTAIN,
        seen,
        ("its exits", "its Ready"),
        span=(pod.created_ns, moment.span[1]),
    )


def never_ready(moment: Moment) -> Fit | None:
    """U6: new pods run and are never Ready."""
    end_ns = moment.span[1]
    waiting = [
        p
        for p in moment.pods.values()
        if p.ready_ns == NEVER and p.created_ns < end_ns - WAITS_NS and not p.exits and p.deleted_ns > end_ns
    ]
    started = moment.marks("rollout_started")
    if not waiting or not started or moment.marks("rollout_done"):
        return None
    pod = waiting[0]
    corefile = moment.timeline.run.head.facts.get("corefile", "")
    changed = [m for m in moment.marks("corefile_patched") if "ready" in m.text]
    seen = f"{pod.name}, made at {at(pod.created_ns)}, runs and was not Ready until the end,"
    seen += f" {seconds(end_ns - pod.created_ns)} later"
    seen += f"; the Corefile has {corefile}" if "no ready" in corefile else ""
    seen += f"; {changed[-1].text.strip()} at {at(changed[-1].at_ns)}" if changed else ""
    sure = Sure.CERTAIN if changed or "no ready" in corefile else Sure.LIKELY
    return Fit(
        sure, seen, ("its Ready", "the rollout", *(["the Corefile"] if changed else [])), span=(pod.created_ns, end_ns)
    )


def reload_lameduck(moment: Moment) -> Fit | None:
    """U9: pods that nobody deleted become not Ready as the Corefile is reloaded, and answer all the while."""
    patched = moment.marks("corefile_patched")
    unready = [
        p
        for p in moment.pods.values()
        if any(0 < p.unready_ns - m.at_ns < RELOAD_NS for m in patched) and p.unready_ns < p.deleted_ns and not p.exits
    ]
    if not unready:
        return None
    begin, names = min(p.unready_ns for p in unready), {p.name for p in unready}
    pods = [s for s in moment.sights((begin, begin + 5 * NS), TargetKind.POD) if s.channel.target.name in names]
    service = moment.sights((begin, begin + 5 * NS), *SERVICES)
    seen = (
        f"the Corefile was changed at {at(patched[0].at_ns)}; {len(unready)} pods became not Ready from {at(begin)} on"
    )
    seen += "".join(f"; {s}" for s in (*pods[:2], *service[:1]))
    fine = bool(pods) and all(s.fine for s in pods)
    over = max(p.unready_ns for p in unready) + RELOAD_NS
    windows = tuple(
        w
        for w in moment.timeline.windows
        if w.to_ns > begin
        and w.from_ns < over
        and (moment.channel(w).target.kind in SERVICES or (moment.is_beside(w) and w.target in names))
    )
    return Fit(
        Sure.CERTAIN if fine else Sure.LIKELY, seen, ("pods' Ready", "pods"), windows, span=(begin, moment.span[1])
    )


def nodelocal_unused(moment: Moment) -> Fit | None:
    """16: NodeLocal DNSCache answers, and resolvers ask the Service, whose pods count what it is asked."""
    asks = [c for c in moment.timeline.channels if c.transport not in BESIDE]
    local = [c for c in asks if c.target.kind is TargetKind.NODELOCAL and not moment.is_outside(c)]
    service = [c for c in asks if c.target.kind is TargetKind.SERVICE]
    asked = moment.timeline.run.head.facts.get(ASKED_FACT, "").split(", ")
    if not local or not service or any(c.loss().share > STRAY or not c.loss().asked for c in local):
        return None
    theirs = [c.target.address for c in service if c.target.address in asked]
    if not theirs or any(c.target.address in asked for c in local):
        return None
    counted = sum(moment.grown("coredns", "requests", moment.span).values())
    by_service, by_pods = (sum(c.whole.good for c in asks if c.target.kind is k) for k in _COUNTED)
    if counted < by_pods + by_service * REACHED:
        return None
    seen = "; ".join(f"{c.lane} -> {c.target.name}: {c.loss().good:,} of {c.loss().asked:,} answered" for c in local)
    seen += f"; resolvers ask {', '.join(asked)}; CoreDNS pods counted {counted:,.0f} requests, of which this run asked"
    seen += f" them {by_pods:,} itself and the Service {by_service:,}: what the Service is asked does reach them"
    return Fit(Sure.LIKELY, seen, (local[0].lane, "resolv.conf", "requests of CoreDNS"))


def overwritten(moment: Moment) -> Fit | None:
    """U7: with a new image came another Corefile or fewer replicas, and no step of ours asked for that."""
    pods = moment.timeline.run.head.facts.get("pods", "")
    for begun in moment.marks("rollout_started"):
        image = begun.text.partition(", ")[2]
        if not pods or not image or image in pods:
            continue
        span = (begun.at_ns - TOGETHER_NS, begun.at_ns + TOGETHER_NS)
        ours = moment.marks("step", span=span)
        fewer = [m for m in moment.marks("scaled", span=span) if m.subject == begun.subject and _is_fewer(m)]
        found = [*fewer, *moment.marks("corefile_patched", span=span)]
        if not found or ours:
            continue
        said = "; ".join(f"{m.kind} at {at(m.at_ns)}: {' '.join(m.text.split())[:200]}" for m in found[:3])
        seen = f"{begun.subject} has {image} from {at(begun.at_ns)} on; {said}"
        return Fit(Sure.LIKELY, seen, ("the rollout", "its other changes"), span=(begun.at_ns, moment.span[1]))
    return None


def _is_fewer(mark: Mark) -> bool:
    found = re.search(r"from (\d+) to (\d+)", mark.text)
    return bool(found and int(found[2]) < int(found[1]))


def one_slow(moment: Moment) -> Fit | None:
    """9: one pod is slow."""
    return _slow(moment, alone=True)


def all_slow(moment: Moment) -> Fit | None:
    """8: all of them are."""
    return _slow(moment, alone=False)


def one_for_all(moment: Moment) -> Fit | None:
    """9, without harm as yet: one pod answers this client alone."""
    only = one_server(moment)
    if not only:
        return None
    others = len([p for p in moment.pods.values() if p.name != only and not p.deleted])
    n = int(moment.timeline.run.servers[only].n.sum())
    seen = f"{only} answered all {n:,} queries that say who answered, though {others} other pods were Ready"
    return Fit(Sure.CERTAIN, seen, ("NSID", "pods' Ready"))


def _slow(moment: Moment, *, alone: bool) -> Fit | None:
    """A tenth of the answers came late: one in a hundred does on any machine that is busy for a moment."""
    asks = [c for c in moment.timeline.channels if c.transport not in BESIDE and not moment.is_outside(c)]
    channels = [c for c in asks if c.loss().good >= ROWS]
    late = {c.name: moment.latency_ns(c, QUANTILE) for c in channels}
    pods: dict[str, float] = {}
    for c in channels:
        if c.target.kind is TargetKind.POD:
            pods[c.target.name] = max(pods.get(c.target.name, 0.0), late[c.name])
    service = {c.lane: late[c.name] for c in channels if c.target.kind in SERVICES}
    slow = {name: ns for name, ns in pods.items() if math.isfinite(ns) and ns > SLOW_NS}
    if not slow or (len(slow) < len(pods)) != alone or one_server(moment) in slow or stall(moment):
        return None
    usual = max((ns for name, ns in pods.items() if name not in slow), default=math.nan)
    if (alone and 5 * usual > max(slow.values())) or (not alone and max(service.values(), default=0.0) <= SLOW_NS):
        return None
    seen = "; ".join(f"{name}: p90 {seconds(ns)}" for name, ns in list(slow.items())[:3])
    seen += f"; the other {len(pods) - len(slow)}: at most {seconds(usual)}" if alone else ""
    seen += "".join(f"; {lane}: p90 {seconds(ns)}" for lane, ns in list(service.items())[:1])
    by = ("pods' latency", "other pods" if alone else "the Service's latency", "unsent rows")
    return Fit(Sure.LIKELY, seen, by)
