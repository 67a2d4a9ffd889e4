"""A Moment -> whether a pod's end explains it: closed too soon, killed, all of them at once (rows U1-U4, U15, U16)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from probe.diagnosis.moment import GONE, LOOK_NS, SERVICES, Moment, Sight, meet
from probe.diagnosis.pods import NEVER, PodLife
from probe.diagnosis.rule import Fit, at, seconds
from probe.model import NS, Sure, TargetKind
from probe.timeline import Window

NEAR_NS = 7 * NS // 10
"""A loss that begins so soon after a pod has closed began with it."""
NO_LAMEDUCK = 0.3
"""Seconds from SIGTERM to closed that CoreDNS takes without any."""
GRACE_SLACK = 1.5
"""Seconds: the API's times are whole ones."""
CHANCE = 0.2
"""A share of few queries may be so far above what is expected."""
FEW = 5
KILLED_CODE = 137


def short_lameduck(moment: Moment) -> Fit | None:
    """U1."""
    return _of_ends(moment, lambda p: _in_order(p) and not _at_once(p) and not _cut_off(p))


def no_lameduck(moment: Moment) -> Fit | None:
    """U2."""
    return _of_ends(moment, lambda p: _in_order(p) and _at_once(p) and not _cut_off(p))


def short_grace(moment: Moment) -> Fit | None:
    """U3."""
    return _of_ends(moment, lambda p: _in_order(p) and _cut_off(p))


def killed(moment: Moment) -> Fit | None:
    """A pod that was deleted by force."""
    return _of_ends(moment, lambda p: p.killed)


def all_replaced(moment: Moment) -> Fit | None:
    """U4."""
    return _all_at_once(moment, rolling=True)


def all_evicted(moment: Moment) -> Fit | None:
    """U16."""
    return _all_at_once(moment, rolling=False)


def no_pods(moment: Moment) -> Fit | None:
    """Nobody is left."""
    found = _nobody_ready(moment)
    if found is None:
        return None
    windows, went = found
    last_ns = max(p.closed_ns for p in went)
    first = min(windows, key=lambda w: w.from_ns)
    if last_ns == NEVER or first.from_ns < last_ns - NEAR_NS - first.resolution_ns:
        return None
    said = f"{len(went)} of {len(went)} pods were deleted, the last closed at {at(last_ns)}, and no other was Ready;"
    return Fit(Sure.CERTAIN, f"{said} lost from {at(first.from_ns)} on", ("pods' ends", _lanes(windows)), windows)


def no_fallback(moment: Moment) -> Fit | None:
    """U15."""
    found = _nobody_ready(moment)
    if found is None:
        return None
    windows, went = found
    first = min(windows, key=lambda w: w.from_ns)
    until_ns = min(p.closed_ns for p in went)
    if first.from_ns >= until_ns - NS // 2:
        return None
    span = (first.from_ns, min(until_ns, first.to_ns))
    still = [s for s in moment.sights(span, TargetKind.POD, ended=True) if s.channel.target.name in _names(went)]
    known = version_of(moment)
    if known and known >= (1, 26) and not all(p.unready_ns < first.from_ns for p in went):
        return None
    seen = f"all {len(went)} pods were told to go, the first closed only at {at(until_ns)}; lost from"
    seen += f" {at(first.from_ns)} on" + "".join(f"; meanwhile {s}" for s in still[:2])
    answered = bool(still) and all(s.share < 0.5 for s in still)
    sure = Sure.CERTAIN if answered and known and known < (1, 26) else Sure.LIKELY
    return Fit(sure, seen, ("pods' ends", _lanes(windows), *(["pods after their deletion"] if still else [])), windows)


def version_of(moment: Moment) -> tuple[int, int] | None:
    """Kubernetes', as the run's facts have it; None if they have not."""
    facts = moment.timeline.run.head.facts
    found = re.search(r"v?(\d+)\.(\d+)", facts.get("kubernetes") or facts.get("lab.kubernetes") or "")
    return (int(found[1]), int(found[2])) if found else None


def _in_order(pod: PodLife) -> bool:
    return pod.deleted and not pod.killed


def _at_once(pod: PodLife) -> bool:
    """Where its SIGTERM was not seen, it came with the deletion, if there is no preStop hook."""
    if pod.lameduck_s is None:
        return pod.closed_ns - pod.deleted_ns < NO_LAMEDUCK * NS
    return pod.lameduck_s < NO_LAMEDUCK


def _cut_off(pod: PodLife) -> bool:
    """SIGKILL has ended it: its exit code says so, or it closed with the grace period, /health open until then."""
    if pod.exit_code is not None:
        return pod.exit_code == KILLED_CODE
    if pod.grace is None or NEVER in (pod.over_ns, pod.closed_ns):
        return False
    lasted = (pod.closed_ns - pod.deleted_ns) / NS
    return abs(lasted - pod.grace) < GRACE_SLACK and abs(pod.over_ns - pod.closed_ns) < NS // 10


def _of_ends(moment: Moment, kind: Callable[[PodLife], bool]) -> Fit | None:
    """Part of what the Service was asked is lost from when pods of this kind have closed, and no longer than that."""
    windows = lost_in_service(moment)
    fresh = [w for w in windows if moment.channel(w).ports.policy == "fresh"]
    ended = [p for w in fresh for p in moment.ends((w.from_ns, w.to_ns)) if _begins(w, p)]
    mine = [p for p in dict.fromkeys(ended) if kind(p)]
    if not mine or len(mine) * 2 < len(dict.fromkeys(ended)):
        return None
    hit = [w for w in fresh if any(_begins(w, p) for p in mine)]
    meant = [w for w in windows if any(meet(w, f) for f in hit)]
    first = max(hit, key=lambda w: w.lost)
    there = [p for p in moment.pods.values() if p.ready_ns < mine[0].deleted_ns <= p.deleted_ns]
    sight = moment.sight(first)
    if sight.share > len(mine) / max(1, len(there)) + CHANCE + 1 / max(1, sight.loss.asked):
        return None
    pod = min(mine, key=lambda p: p.closed_ns)
    others = [s for s in _pods(moment, (first.from_ns, first.to_ns)) if s.channel.target.name not in _names(mine)]
    healthy = bool(others) and all(s.fine for s in others)
    if others and not healthy and not any(s.fine for s in others):
        return None
    told = max(w.to_ns for w in hit) - max(p.deleted_ns for p in mine)
    seen = f"{_end(pod)}; from {at(first.from_ns)} to {at(first.to_ns)} {sight}, {len(mine)} of {len(there)} pods"
    seen += f" had ended; the last loss came {seconds(told)} after the deletion"
    seen += f"; {len(others)} other pods lost {sum(s.loss.lost for s in others)}" if others else ""
    by = (_lanes(hit), "pods' ends", *([_lane_names(others)] if healthy else []))
    sure = Sure.CERTAIN if healthy and sight.loss.lost >= FEW else Sure.LIKELY
    return Fit(sure, seen, by, tuple(meant), propagation=told / NS)


def _all_at_once(moment: Moment, *, rolling: bool) -> Fit | None:
    """Every pod that there was has closed, new ones are Ready, and the Service answers next to nothing."""
    fresh = [w for w in lost_in_service(moment) if moment.channel(w).ports.policy == "fresh"]
    for w in fresh:
        went = [p for p in moment.pods.values() if p.deleted and p.ready_ns < p.deleted_ns and p.closed_ns < w.to_ns]
        went = [p for p in went if p.deleted_ns > w.from_ns - 60 * NS]
        if not went:
            continue
        first_ns, last_ns = min(p.deleted_ns for p in went), max(p.closed_ns for p in went)
        before = [p for p in moment.pods.values() if p.ready_ns < first_ns]
        new = [p for p in moment.pods.values() if first_ns <= p.ready_ns < w.to_ns and not p.closed_ns < w.to_ns]
        span = (max(w.from_ns, last_ns), w.to_ns)
        if not before or any(p not in went for p in before) or not new or span[1] - span[0] < w.resolution_ns * FEW:
            continue
        peak = moment.sights(span, *SERVICES, ports=("fresh",))
        mine = [s for s in peak if s.channel.name == (w.lane, w.target)]
        if not mine or moment.channel(w).loss((span,)).share < 0.8:
            continue
        started = moment.marks("rollout_started", span=(first_ns - 5 * NS, first_ns + 5 * NS))
        if bool(started) != rolling:
            continue
        fine = [s for s in _pods(moment, span) if s.channel.target.name in _names(new)]
        lasted = max(p.deleted_ns for p in went) - first_ns
        seen = f"{len(went)} of {len(before)} pods were deleted within {seconds(lasted)}"
        seen += (
            f" and had all closed at {at(last_ns)}; from then to {at(w.to_ns)} {moment.channel(w).loss((span,)).lost}"
        )
        seen += f" of {moment.channel(w).loss((span,)).asked} were lost, while {len(new)} new pods were Ready"
        seen += "".join(f", {s}" for s in fine[:2])
        healthy = bool(fine) and all(s.fine for s in fine)
        meant = tuple(x for x in lost_in_service(moment) if meet(x, w))
        by = (_lanes([w]), "pods' ends", *(["new pods"] if healthy else []))
        sure = Sure.CERTAIN if healthy else Sure.LIKELY
        return Fit(sure, seen, by, meant, propagation=(w.to_ns - max(p.deleted_ns for p in went)) / NS)
    return None


def _nobody_ready(moment: Moment) -> tuple[tuple[Window, ...], list[PodLife]] | None:
    """What the Service lost while every pod that there had been was told to go, and none had come; and those pods."""
    windows = [w for w in lost_in_service(moment) if moment.sight(w).share >= 0.5]
    fresh = [w for w in windows if moment.channel(w).ports.policy == "fresh"] or windows
    if not fresh:
        return None
    from_ns = min(w.from_ns for w in fresh)
    there = [p for p in moment.pods.values() if p.ready_ns <= from_ns]
    went = [p for p in there if p.deleted_ns <= from_ns and p.deleted_ns > from_ns - 600 * NS]
    if not went or any(p.deleted_ns > from_ns for p in there):
        return None
    return tuple(w for w in lost_in_service(moment) if any(meet(w, f) for f in fresh)), went


def lost_in_service(moment: Moment) -> list[Window]:
    """Its windows of the Service in which queries got no reply."""
    return [w for w in moment.of(*SERVICES) if w.outcome in GONE]


def _begins(window: Window, pod: PodLife) -> bool:
    """The window begins as the pod closes, or is open then: others may have closed before."""
    reach_ns = NEAR_NS + window.resolution_ns
    return window.from_ns - reach_ns * 2 <= pod.closed_ns <= window.to_ns and (
        pod.closed_ns - window.from_ns <= reach_ns or window.to_ns > pod.closed_ns + LOOK_NS // 5
    )


def _pods(moment: Moment, span: tuple[int, int]) -> list[Sight]:
    return moment.sights(span, TargetKind.POD)


def _names(pods: Sequence[PodLife]) -> set[str]:
    return {p.name for p in pods}


def _lanes(windows: Sequence[Window]) -> str:
    return ", ".join(dict.fromkeys(w.lane for w in windows))


def _lane_names(sights: Sequence[Sight]) -> str:
    return ", ".join(dict.fromkeys(s.channel.lane for s in sights))


def _end(pod: PodLife) -> str:
    """`coredns-x was told to go at +4.00 s, SIGTERM 0.04 s after, closed 1.04 s after (exit code 0)`."""
    said = f"{pod.name} was told to go at {at(pod.deleted_ns)}"
    if pod.sigterm_ns < NEVER:
        said += f", had SIGTERM {seconds(pod.sigterm_ns - pod.deleted_ns)} after"
    said += f", closed {seconds(pod.closed_ns - pod.deleted_ns)} after"
    code = pod.exit_code
    if pod.grace:
        said += f", with a grace period of {pod.grace:g} s"
    return said + (f" (exit code {code})" if code is not None else "")
