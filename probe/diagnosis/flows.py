"""A Moment -> whether it is the source port: in use, it leads to a pod that is gone; or two queries share it (14)."""

from __future__ import annotations

from probe.diagnosis.ends import lost_in_service
from probe.diagnosis.moment import SERVICES, STRAY, Moment, spanned
from probe.diagnosis.pods import NEVER, PodLife
from probe.diagnosis.rule import Fit, at, seconds
from probe.model import NS, Sure, TargetKind
from probe.outcome import Outcome
from probe.timeline import Window

OLD_FLOWS = ("fixed", "pool")
FRESH_ROWS = 10
"""So many queries from new ports must have been fine meanwhile."""
PAIRS = 3
"""So many queries of pairs must have been lost: of fewer each may be anybody's."""
TAIL_NS = 4 * NS // 10
"""For so long at least old ports must be dead while new ones are fine."""


def stale_flow(moment: Moment) -> Fit | None:
    """U10."""
    return _stale(moment, ("iptables", "nftables"))


def ipvs_session(moment: Moment) -> Fit | None:
    """15."""
    return _stale(moment, ("ipvs",))


def socket_lb(moment: Moment) -> Fit | None:
    """U11."""
    return _stale(moment, ("cilium",))


def reused_tcp(moment: Moment) -> Fit | None:
    """U13."""
    windows = [
        w
        for w in moment.of(transport="tcp", ports=("reused", "pool"))
        if w.outcome in (Outcome.CONNECTION_LOST, Outcome.CONNECTION_REFUSED, Outcome.TIMEOUT)
    ]
    found = [(w, p) for w in windows for p in moment.ends((w.from_ns, w.to_ns)) if abs(p.closed_ns - w.from_ns) < NS]
    if not found:
        return None
    window, pod = found[0]
    fine = [s for s in moment.sights((window.from_ns, window.to_ns), TargetKind.POD) if s.fine]
    seen = f"{pod.name} closed at {at(pod.closed_ns)}; {moment.sight(window)} from {at(window.from_ns)} on"
    sure = Sure.CERTAIN if window.outcome is Outcome.CONNECTION_LOST else Sure.LIKELY
    return Fit(sure, seen, (window.lane, "pods' ends", *(["pods"] if fine else [])), tuple(w for w, _ in found))


def race(moment: Moment) -> Fit | None:
    """14: of A and AAAA that leave one port at once one is lost; asked apart, by TCP or past NAT both are fine."""
    windows = [w for w in moment.of(*SERVICES, transport="udp") if w.outcome is Outcome.TIMEOUT and _paired(moment, w)]
    if not windows:
        return None
    service = [c for c in moment.timeline.channels if c.target.kind in SERVICES and c.ports.policy == "fresh"]
    pairs = [c.loss() for c in service if c.transport == "udp" and c.series[0].pair]
    apart = [c.loss() for c in service if c.transport == "udp" and not c.series[0].pair and not moment.is_outside(c)]
    lost, asked = (sum(getattr(loss, name) for loss in pairs) for name in ("lost", "asked"))
    others_lost, others = (sum(getattr(loss, name) for loss in apart) for name in ("lost", "asked"))
    beside = moment.sights(spanned(windows), *SERVICES, TargetKind.POD, outside=False)
    beside = [s for s in beside if not (s.channel.target.kind in SERVICES and s.channel.series[0].pair)]
    if others < FRESH_ROWS or lost < PAIRS or 5 * others_lost * asked > lost * others or any(s.hurt for s in beside):
        return None
    raced = moment.grown("host", "conntrack_insert_failed", moment.span)
    seen = f"in the run {lost:,} of {asked:,} queries in pairs were lost, {others_lost:,} of {others:,} alone;"
    seen += f" meanwhile {'; '.join(map(str, beside[:3]))}"
    seen += f"; insert_failed of conntrack grew by {sum(raced.values()):g}" if any(raced.values()) else ""
    by = (windows[0].lane, *(s.channel.lane for s in beside))
    return Fit(Sure.CERTAIN if any(raced.values()) else Sure.LIKELY, seen, by, tuple(windows))


def _paired(moment: Moment, window: Window) -> bool:
    return moment.channel(window).series[0].pair


def mode_of(moment: Moment) -> str:
    """Who balances: iptables, nftables, ipvs, cilium; '' if the run does not say."""
    facts = moment.timeline.run.head.facts
    said = f"{facts.get('kube-proxy', '')} {facts.get('lab.proxy_mode', '')} {facts.get('cni', '')}".lower()
    return next((mode for mode in ("cilium", "ipvs", "nftables", "iptables") if mode in said), "")


def _stale(moment: Moment, modes: tuple[str, ...]) -> Fit | None:
    """New source ports are fine, or fine again, while ones that are in use go on being lost."""
    known = mode_of(moment)
    if known and known not in modes:
        return None
    old = [w for w in lost_in_service(moment) if moment.channel(w).ports.policy in OLD_FLOWS]
    old = [w for w in old if moment.channel(w).transport == "udp" and w.outcome is not Outcome.CONNECTION_LOST]
    tails = [(w, tail) for w in old if (tail := _tail(moment, w))[1] - tail[0] >= TAIL_NS]
    tails = [(w, tail) for w, tail in tails if moment.channel(w).loss((tail,)).lost >= 2]
    if not tails:
        return None
    window, tail = max(tails, key=lambda found: found[1][1] - found[1][0])
    channel = moment.channel(window)
    fresh = moment.sights(tail, channel.target.kind, transport="udp", ports=("fresh",), outside=False)
    if not fresh or any(s.share > STRAY * 1.5 for s in fresh):
        return None
    begin = min(w.from_ns for w, _ in tails)
    pod = _gone_before(moment, window)
    early = pod is not None and begin < pod.closed_ns - NS // 2
    refused = any(moment.sight(w).outcome is Outcome.CONNECTION_REFUSED for w, _ in tails)
    if not known and ((early and "ipvs" not in modes) or (refused and "ipvs" in modes)):
        return None
    lost, asked = channel.loss((tail,)), sum(s.loss.asked for s in fresh)
    seen = f"from {at(tail[0])} to {at(tail[1])} {window.lane} lost {lost.lost} of {lost.asked}, while new source ports"
    seen += f" lost {sum(s.loss.lost for s in fresh)} of {asked}"
    if pod:
        how = "before it closed" if early else "after it had closed"
        seen += f"; {pod.name} was told to go at {at(pod.deleted_ns)}:"
        seen += f" it began {seconds(abs(begin - pod.closed_ns))} {how}"
    by = (window.lane, *(s.channel.lane for s in fresh), *(["pods' ends"] if pod else []))
    sure = Sure.CERTAIN if known and pod and asked >= FRESH_ROWS else Sure.LIKELY if known else Sure.POSSIBLE
    return Fit(sure, seen, by, tuple(w for w, _ in tails), span=tail)


def _tail(moment: Moment, window: Window) -> tuple[int, int]:
    """What of a window comes after the last window of new source ports that met it."""
    target = moment.channel(window).target.name
    fresh = [
        w
        for w in moment.of(moment.channel(window).target.kind, transport="udp", ports=("fresh",))
        if w.target == target
    ]
    met = [
        w.to_ns
        for w in fresh
        if w.from_ns < window.to_ns and w.to_ns > window.from_ns and moment.sight(w).loss.lost > 3
    ]
    return max([window.from_ns, *(min(end, window.to_ns) for end in met)]), window.to_ns


def _gone_before(moment: Moment, window: Window) -> PodLife | None:
    """The pod that was told to go last before it."""
    gone = [
        p for p in moment.pods.values() if p.deleted_ns <= window.from_ns + window.resolution_ns and p.closed_ns < NEVER
    ]
    return max(gone, key=lambda p: p.deleted_ns, default=None)
