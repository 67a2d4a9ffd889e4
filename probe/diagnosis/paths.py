"""A Moment -> on which path it is lost: this prober, the network, one transport, one pod, kube-proxy (6-12, F3)."""

from __future__ import annotations

from collections.abc import Sequence

from probe.diagnosis.ends import lost_in_service
from probe.diagnosis.moment import GONE, SERVICES, SILENT, Moment, Sight, spanned
from probe.diagnosis.rule import Fit, at, seconds
from probe.model import NS, Sure, TargetKind
from probe.outcome import Outcome
from probe.timeline import Window

_POD, _LOCAL, _UPSTREAM = TargetKind.POD, TargetKind.NODELOCAL, TargetKind.UPSTREAM
ALIKE = 0.35
"""Shares that are lost by the same cause on the way, of each kind of target: the smallest against the largest."""
ENOUGH = 6
"""Who would have lost so many by a cause that is everybody's and lost none is spared: chance does that to 1 in 400."""
READ_NS = 6 * NS
"""In so long a stretch pods' metrics are read, every 5 s."""
FEW_ROWS = 10
"""Of fewer queries all may be lost by chance where only some of them are."""
ALONE, ALONE_ROWS = 0.9, 50
"""A pod that gave so many of the answers, and no fewer, gave them alone: chance would have shared them out."""


def prober(moment: Moment) -> Fit | None:
    """11, on this side: replies that came were dropped here, or the lab lost them."""
    drops = [i for i in moment.timeline.run.intervals if i.kind == "own_drops"]
    hit, why = [], []
    for w in moment.windows:
        channel = moment.channel(w)
        if any(a < w.to_ns and b > w.from_ns for a, b in channel.lab_at_fault):
            hit.append(w)
            why.append("the lab itself lost datagrams then")
        elif (
            channel.own_drops
            and w.outcome is Outcome.TIMEOUT
            and any(i.from_ns < w.to_ns + channel.series[0].timeout_ns and i.to_ns > w.from_ns for i in drops)
        ):
            hit.append(w)
            why.append(f"{channel.own_drops:,} replies to {w.lane} were dropped, our own receive buffer being full")
    if not hit:
        return None
    return Fit(Sure.LIKELY, "; ".join(dict.fromkeys(why)), ("receive buffers", hit[0].lane), tuple(hit))


def client_node(moment: Moment) -> Fit | None:
    """11, on the way from this node: everybody loses alike, whoever is asked and from whichever port."""
    sights = _everybody(moment)
    old = [s for s in sights if s.channel.ports.policy in ("fixed", "pool")]
    if sights and _alike(sights) and (not old or all(s.hurt for s in old)):
        return _everywhere(moment, sights, Sure.LIKELY if old else Sure.POSSIBLE)
    return None


def conntrack_full(moment: Moment) -> Fit | None:
    """12: whatever is a new flow loses alike, what is in use goes on."""
    sights = _everybody(moment)
    fresh = [s for s in sights if s.channel.ports.policy == "fresh"]
    old = [s for s in sights if s.channel.ports.policy in ("fixed", "pool") and s.channel.series[0].transport == "udp"]
    drops = sum(moment.grown("host", "conntrack_drops", moment.span).values())
    if not fresh or not _alike(fresh) or any(s.hurt for s in old):
        return None
    sure = Sure.CERTAIN if drops else Sure.LIKELY if old else Sure.POSSIBLE
    fit = _everywhere(moment, [*fresh, *old], sure)
    if fit and drops:
        return Fit(
            fit.sure,
            f"{fit.seen}; this node's conntrack dropped {drops:g} packets",
            (*fit.by, "conntrack"),
            fit.windows,
        )
    return fit


def network(moment: Moment) -> Fit | None:
    """7: nobody can be heard, by no transport and on no port."""
    return _nobody(moment, other_ports=False)


def port_blocked(moment: Moment) -> Fit | None:
    """6, both transports: nobody can be heard on port 53, and pods' other ports can be."""
    return _nobody(moment, other_ports=True)


def _nobody(moment: Moment, *, other_ports: bool) -> Fit | None:
    span = moment.span
    sights = moment.sights(span, *SERVICES, _POD, outside=False)
    pods = [s for s in sights if s.channel.target.kind is _POD]
    if not sights or not pods or any(not s.dead or s.outcome not in SILENT for s in sights) or moment.ends(span):
        return None
    if {s.channel.transport for s in sights} != {"udp", "tcp"}:
        return None
    beside = moment.beside(span, _POD)
    unread = [moment.unread(name, span) for name in dict.fromkeys(s.channel.target.name for s in pods)]
    read = span[1] - span[0] >= READ_NS and any(each is False for each in unread)
    if other_ports != (any(s.fine for s in beside) if beside else read):
        return None
    nodes = moment.beside(span, TargetKind.NODE, TargetKind.API)
    gaps = [i for i in moment.timeline.run.intervals if i.kind == "watch_gap" and i.from_ns < span[1] < i.to_ns + NS]
    seen = f"{_said(sights)}; {_said([*beside, *nodes])}" if beside or nodes else _said(sights)
    seen += "; pods' metrics (9153) were read meanwhile" if read else ""
    seen += "; the API server could not be reached either" if gaps else ""
    lanes = tuple(dict.fromkeys(s.channel.lane for s in (*sights, *beside, *nodes)))
    return Fit(Sure.LIKELY, seen, (*lanes, *(["pods' metrics"] if any(unread) or read else [])), _silent(moment))


def not_listening(moment: Moment) -> Fit | None:
    """M: a server that was named by its address refuses all that it is asked, from the first query to the last."""
    windows = [w for w in moment.of(TargetKind.SERVER) if w.outcome is Outcome.CONNECTION_REFUSED]
    mine = [w for w in windows if not moment.channel(w).loss().good]
    if not mine:
        return None
    who = dict.fromkeys(str(moment.channel(w).target) for w in mine)
    lanes = dict.fromkeys(w.lane for w in mine)
    return Fit(Sure.LIKELY, f"refused from first to last: {', '.join(who)}", (*lanes, "its refusals"), tuple(mine))


def udp_blocked(moment: Moment) -> Fit | None:
    """6: by TCP all is well, by UDP nobody is heard, past the Service as well."""
    for mine, other in (("udp", "tcp"), ("tcp", "udp")):
        windows = [w for w in moment.of(*SERVICES, _POD, transport=mine, outside=False) if w.outcome in GONE]
        if not windows:
            continue
        span = _common(windows)
        bad, good = (moment.sights(span, *SERVICES, _POD, transport=t, outside=False) for t in (mine, other))
        if not bad or not good or not all(s.dead and s.outcome in SILENT for s in bad) or not all(s.fine for s in good):
            continue
        kinds = {s.channel.target.kind for s in bad}
        both = _POD in kinds and bool(kinds & set(SERVICES)) and _POD in {s.channel.target.kind for s in good}
        lanes = tuple(dict.fromkeys(s.channel.lane for s in [*bad, *good]))
        also = [
            w for w in moment.windows if moment.channel(w).transport == mine and w not in windows and w.outcome in GONE
        ]
        return Fit(Sure.CERTAIN if both else Sure.LIKELY, _said([*bad, *good]), lanes, (*windows, *also))
    return None


def kube_proxy(moment: Moment) -> Fit | None:
    """F3: the pods are fine, the Service that leads to them is not."""
    windows = lost_in_service(moment)
    dead = [w for w in windows if moment.sight(w).dead and moment.channel(w).ports.policy == "fresh"]
    if not dead:
        return None
    span = _common(dead)
    pods = moment.sights(span, _POD, outside=False)
    if not pods or not all(s.fine for s in pods) or moment.ends((span[0] - 2 * NS, span[1])):
        return None
    bad = moment.sights(span, *SERVICES, ports=("fresh",), outside=False)
    if not all(s.dead for s in bad):
        return None
    lanes = tuple(dict.fromkeys(s.channel.lane for s in [*bad, *pods]))
    return Fit(Sure.LIKELY, _said([*bad, *pods]), lanes, tuple(windows))


def node_lost(moment: Moment) -> Fit | None:
    """7, one node: its pods cannot be heard by any way, and nobody has told them to go."""
    found = _silent_pods(moment)
    if found is None:
        return None
    pods, others, service = found
    dead = {name: mine for name, mine in pods.items() if moment.sight(mine[0]).dead}
    windows = [w for mine in dead.values() for w in mine]
    phases = _phases(moment, windows)
    if not dead or phases.get("answer", 0) > phases.get("connect", 0):
        return None
    first = max(windows, key=lambda w: w.lost)
    span = (first.from_ns, first.to_ns)
    beside = [s for s in moment.beside(span, _POD) if s.channel.target.name in dead]
    if any(s.fine for s in beside):
        return None
    nodes = [s for s in moment.beside(span, TargetKind.NODE) if s.dead]
    unread = not beside and any(moment.unread(name, span) for name in dead)
    told = moment.marks("node_not_ready", "node_gone", span=(first.from_ns, 1 << 62))
    seen = f"{moment.sight(first)} from {at(first.from_ns)} on, though nobody had told it to go"
    seen += "".join(f"; {s}" for s in (*beside[:2], *nodes[:1]))
    seen += f"; {len(others)} lanes to other pods lost {sum(s.loss.lost for s in others)}"
    seen += f"; of TCP {phases['connect']} queries were not even connected" if phases.get("connect") else ""
    seen += "; its metrics cannot be read by HTTP either" if unread else ""
    seen += f"; {told[0].subject}: {told[0].text} at {at(told[0].at_ns)}" if told else ""
    more = [w.lane for w in windows if moment.channel(w).transport == "tcp"]
    more += [s.channel.lane for s in (*beside, *nodes)]
    more += [*(["TCP connects"] if phases.get("connect") else []), *(["its metrics"] if unread else [])]
    sure = Sure.CERTAIN if more and (told or nodes) else Sure.LIKELY if more or told else Sure.POSSIBLE
    return Fit(sure, seen, (first.lane, *(s.channel.lane for s in others[:1]), *more), (*windows, *service))


def pod_stuck(moment: Moment) -> Fit | None:
    """9 or 8, some pods: they are slow or hang, though they can be reached."""
    found = _silent_pods(moment)
    if found is None or one_server(moment):
        return None
    pods, others, service = found
    usual = max((moment.latency_ns(s.channel, 0.99) for s in others), default=0.0)
    stuck: dict[str, list[Window]] = {}
    told = []
    for name, mine in pods.items():
        phases, p99 = _phases(moment, mine), moment.latency_ns(moment.channel(mine[0]), 0.99)
        beside = [s for s in moment.beside((mine[0].from_ns, mine[0].to_ns), _POD, name=name) if not s.dead]
        hangs, slow = phases.get("answer", 0) > phases.get("connect", 0), p99 > max(5 * usual, NS // 10)
        if not hangs and not slow:
            continue
        stuck[name] = mine
        said = f"{moment.sight(mine[0])}, its p99 {seconds(p99)} against {seconds(usual)} of others"
        said += f"; of TCP {phases['answer']} queries were connected and not answered" if hangs else ""
        told.append((said + "".join(f"; {s}" for s in beside[:1]), "TCP connects" if hangs else "latency"))
    if not stuck:
        return None
    windows = [w for mine in stuck.values() for w in mine]
    by = (windows[0].lane, others[0].channel.lane, *(witness for _, witness in told))
    return Fit(Sure.LIKELY, "; ".join(said for said, _ in told[:3]), by, (*windows, *service))


def affinity(moment: Moment) -> Fit | None:
    """9: one pod alone answers this client, though there are others, and it is the one that fails."""
    only = one_server(moment)
    windows = [w for w in moment.of(*SERVICES, _POD) if w.outcome in SILENT]
    if not only or not windows:
        return None
    bad = [w for w in windows if moment.channel(w).target.kind is not _POD or w.target == only]
    pods = moment.sights(_common(bad or windows), _POD, outside=False)
    mine = [s for s in pods if s.channel.target.name == only]
    others = [s for s in pods if s not in mine]
    if not bad or any(s.hurt for s in others):
        return None
    seen = f"of {len(moment.live(moment.span))} pods {only} alone answered the Service's lanes;"
    seen += f" {_said([*mine, *others][:3])}"
    lanes = tuple(dict.fromkeys([w.lane for w in bad] + [s.channel.lane for s in pods]))
    return Fit(Sure.CERTAIN if mine and mine[0].hurt else Sure.LIKELY, seen, (*lanes, "NSID"), tuple(bad))


def one_server(moment: Moment) -> str:
    """The pod that answered all that new ports asked of the Service, though others were Ready; '' if several."""
    run = moment.timeline.run
    mine = [
        s.index for s in run.series if s.target.kind in SERVICES and s.ports.policy == "fresh" and s.transport == "udp"
    ]
    named = {nsid: int(by.n[mine].sum()) for nsid, by in run.servers.items() if mine and by.n[mine].sum()}
    ready = [p for p in moment.pods.values() if p.ready_ns < moment.timeline.horizon_ns // 4 and not p.deleted]
    most = max(named, key=lambda nsid: named[nsid], default="")
    alone = bool(most) and named[most] >= ALONE * sum(named.values()) and named[most] >= ALONE_ROWS
    return most if alone and len(ready) > 1 else ""


def crashed(moment: Moment) -> Fit | None:
    """U8, or any end that nobody asked for."""
    dead = [(p, when, code) for p in moment.pods.values() for when, code in p.crashes if _near(moment, when)]
    windows = [w for w in moment.of(*SERVICES, _POD) if w.outcome in GONE]
    if not dead or not windows:
        return None
    pod, when_ns, code = dead[0]
    meant = [
        w for w in windows if moment.channel(w).target.kind is not _POD or w.target in {p.name for p, _, _ in dead}
    ]
    others = [s for s in moment.sights(moment.span, _POD) if s.channel.target.name != pod.name and s.fine]
    patched = moment.marks("corefile_patched", "corefile_reloaded", span=(when_ns - 120 * NS, when_ns))
    killed = moment.marks("event", "pod_exited", span=moment.span)
    oom = any("OOM" in m.text for m in killed)
    seen = f"{pod.name} ended by itself at {at(when_ns)}" + (f" with exit code {code}" if code >= 0 else "")
    seen += ", OOMKilled" if oom else ""
    seen += f", {seconds(when_ns - patched[-1].at_ns)} after the Corefile was changed" if patched else ""
    seen += f"; {moment.sight(meant[0])}" if meant else ""
    seen += f"; {len(others)} other pods were fine" if others else ""
    return Fit(
        Sure.CERTAIN if others else Sure.LIKELY, seen, ("its exit", meant[0].lane if meant else ""), tuple(meant)
    )


def nodelocal(moment: Moment) -> Fit | None:
    """U12."""
    windows = [w for w in moment.of(_LOCAL) if w.outcome in GONE]
    if not windows:
        return None
    first = max(windows, key=lambda w: w.lost)
    service = moment.sights((first.from_ns, first.to_ns), *SERVICES, outside=False)
    if any(s.dead for s in service):
        return None
    told = moment.marks("nodelocal_ended", "rollout_started", "pod_deleted", span=(first.from_ns - 5 * NS, first.to_ns))
    told = [m for m in told if "local" in f"{m.subject} {m.kind}"]
    lasted = seconds(first.to_ns - first.from_ns)
    seen = f"{moment.sight(first)} from {at(first.from_ns)}, {lasted} long; {_said(service[:2])}"
    seen += f"; {told[0].subject}: {told[0].kind} at {at(told[0].at_ns)}" if told else ""
    by = (first.lane, *(s.channel.lane for s in service), *(["its DaemonSet"] if told else []))
    return Fit(Sure.CERTAIN if told and service else Sure.LIKELY, seen, by, tuple(windows))


def _silent_pods(moment: Moment) -> tuple[dict[str, list[Window]], list[Sight], list[Window]] | None:
    """Pods that count and are not heard while all others are: the windows of each, the one that lost most first; the
    others; and what the Service lost through them.
    """
    mine = [w for w in moment.of(_POD) if w.outcome in SILENT]
    if not mine:
        return None
    span = spanned(mine)
    silent = {name: moment.pods.get(name) for name in dict.fromkeys(w.target for w in mine)}
    others = [s for s in moment.sights(span, _POD) if s.channel.target.name not in silent]
    if not others or not all(s.fine for s in others):
        return None
    stay = [name for name, pod in silent.items() if pod and pod.deleted_ns > span[0] + NS]
    pods = {name: sorted((w for w in mine if w.target == name), key=lambda w: -w.lost) for name in stay}
    lost = lost_in_service(moment)
    total = [w for w in lost if moment.sight(w).dead and w.planned >= FEW_ROWS]
    return pods, others, [w for w in lost if w not in total or moment.channel(w).ports.policy != "fresh"]


def _phases(moment: Moment, windows: Sequence[Window]) -> dict[str, int]:
    """How far lost TCP queries got meanwhile."""
    if not windows:
        return {}
    span = spanned(windows)
    names = {(w.lane, w.target) for w in windows}
    found: dict[str, int] = {}
    for failure in moment.timeline.run.failures:
        mine = failure.phase and moment.timeline.run.series[failure.series].channel in names
        if mine and span[0] <= failure.due_ns < span[1] and failure.outcome is Outcome.TIMEOUT:
            found[failure.phase] = found.get(failure.phase, 0) + 1
    return found


def _everybody(moment: Moment) -> list[Sight]:
    """All UDP lanes to two targets or more, in what their windows have in common."""
    windows = [w for w in moment.windows if w.outcome is Outcome.TIMEOUT and moment.channel(w).transport == "udp"]
    if len(windows) < 2:
        return []
    sights = [s for s in moment.sights(_common(windows), transport="udp") if s.loss.asked >= 10]
    return sights if len({s.channel.target.name for s in sights}) > 1 else []


def _alike(sights: Sequence[Sight]) -> bool:
    """All are hurt, none is dead, and each kind of target loses a share of one size; lanes that ask too little to
    tell are left out of the first.
    """
    kinds: dict[TargetKind, list[Sight]] = {}
    for s in sights:
        kinds.setdefault(s.channel.target.kind, []).append(s)
    usual = _share(sights)
    shares = [_share(mine) for mine in kinds.values() if usual * sum(s.loss.asked for s in mine) >= ENOUGH]
    told = [s for s in sights if usual * s.loss.asked >= ENOUGH]
    return len(shares) > 1 and min(shares) >= ALIKE * max(shares) and all(s.hurt and not s.dead for s in told)


def _share(sights: Sequence[Sight]) -> float:
    return sum(s.loss.lost for s in sights) / max(1, sum(s.loss.asked for s in sights))


def _everywhere(moment: Moment, sights: Sequence[Sight], sure: Sure) -> Fit | None:
    lanes = tuple(dict.fromkeys(s.channel.lane for s in sights))
    pods = {s.channel.target.kind for s in sights}
    if len(pods) < 2 or moment.ends(moment.span):
        return None
    return Fit(sure, _said(sights), lanes, _silent(moment))


def _silent(moment: Moment) -> tuple[Window, ...]:
    """What got no reply, and what CoreDNS got none to."""
    failed = [w for w in moment.of(outside=True) if w.outcome is Outcome.SERVFAIL]
    return tuple(w for w in moment.windows if w.outcome in GONE or w in failed)


def _common(windows: Sequence[Window]) -> tuple[int, int]:
    """What windows have in common; the longest one if they have nothing."""
    from_ns, to_ns = max(w.from_ns for w in windows), min(w.to_ns for w in windows)
    if from_ns < to_ns:
        return from_ns, to_ns
    longest = max(windows, key=lambda w: w.to_ns - w.from_ns)
    return longest.from_ns, longest.to_ns


def _near(moment: Moment, when_ns: int) -> bool:
    return moment.span[0] - NS <= when_ns <= moment.span[1]


def _said(sights: Sequence[Sight]) -> str:
    more = f" and {len(sights) - 6} more" if len(sights) > 6 else ""
    return "; ".join(map(str, sights[:6])) + more


def api_server(moment: Moment) -> Fit | None:
    """F1, 10b: the API server takes no connections, while cluster DNS answers."""
    windows = [w for w in moment.windows if moment.channel(w).target.kind is TargetKind.API]
    if not windows:
        return None
    span = spanned(windows)
    dns = [s for s in moment.sights(span, *SERVICES, _POD, outside=False) if s.fine]
    if not dns:
        return None
    nodes = moment.beside(span, TargetKind.NODE)
    seen = _said([*(moment.sight(w) for w in windows), *dns[:2], *nodes[:2]])
    lanes = tuple(dict.fromkeys([w.lane for w in windows] + [s.channel.lane for s in (*dns[:2], *nodes)]))
    return Fit(Sure.LIKELY, seen, lanes, tuple(windows))


def unready(moment: Moment) -> Fit | None:
    """10b: /ready says no, and the pod answers DNS."""
    windows = [w for w in moment.windows if moment.is_beside(w) and moment.channel(w).target.kind is _POD]
    mine = [w for w in windows if w.outcome in (Outcome.WRONG_ANSWER, Outcome.CONNECTION_REFUSED)]
    dns = [s for w in mine for s in moment.sights((w.from_ns, w.to_ns), _POD) if s.channel.target.name == w.target]
    if not mine or not dns or any(s.hurt for s in dns):
        return None
    seen = _said([*(moment.sight(w) for w in mine[:3]), *dns[:3]])
    sure = Sure.LIKELY if any(w.lost > 1 for w in mine) else Sure.POSSIBLE  # a reload closes it for a moment
    return Fit(sure, seen, tuple(dict.fromkeys([mine[0].lane, *(s.channel.lane for s in dns)])), tuple(mine))
