"""A Moment -> which names are answered wrongly, and by whom: upstreams, limits, sizes, records (rows 1-5, 10b, 17)."""

from __future__ import annotations

from collections.abc import Sequence

from probe.diagnosis.evidence import failures_in
from probe.diagnosis.moment import SERVICES, SILENT, Moment, Sight, meet, spanned
from probe.diagnosis.rule import Fit, at
from probe.model import NS, Sure, TargetKind
from probe.outcome import REPLIED, Outcome
from probe.timeline import Window

_POD, _LOCAL, _UPSTREAM = TargetKind.POD, TargetKind.NODELOCAL, TargetKind.UPSTREAM
_ASKED = (*SERVICES, _POD, _LOCAL)
_FAILS = SILENT | {Outcome.SERVFAIL}
NEW_NS = 30 * NS
"""A pod is new for so long."""
AS_WELL = 0.3
"""If the cluster's own names lose so much of what names outside do, it is not the names."""


def upstream_denies(moment: Moment) -> Fit | None:
    """1a."""
    return _relayed(moment, {Outcome.NXDOMAIN, Outcome.NODATA}, {Outcome.NXDOMAIN, Outcome.NODATA})


def upstream_silent(moment: Moment) -> Fit | None:
    """1b: nobody is heard there."""
    return _relayed(moment, _FAILS, SILENT | {Outcome.CONNECTION_REFUSED}, alone=Sure.POSSIBLE)


def upstream_fails(moment: Moment) -> Fit | None:
    """1b: it answers, with SERVFAIL."""
    return _relayed(moment, {Outcome.SERVFAIL}, {Outcome.SERVFAIL}, alone=Sure.POSSIBLE)


def upstream_refuses(moment: Moment) -> Fit | None:
    """1c."""
    return _relayed(moment, {Outcome.REFUSED}, {Outcome.REFUSED}, alone=Sure.POSSIBLE)


def way_upstream(moment: Moment) -> Fit | None:
    """F2: the upstream is fine from here, and not from CoreDNS."""
    found = _outside(moment, _FAILS)
    if found is None or _only_tcp(moment, found[0]):
        return None
    windows, span, inside = found
    direct = moment.sights(span, _UPSTREAM)
    if not direct or not all(s.fine for s in direct):
        return None
    return _fit(moment, Sure.LIKELY, windows, inside, direct)


def max_concurrent(moment: Moment) -> Fit | None:
    """1d."""
    found = _outside(moment, {Outcome.REFUSED, Outcome.SERVFAIL})
    if found is None:
        return None
    windows, span, inside = found
    rejects = sum(moment.grown("coredns", "rejects", span).values())
    direct = moment.sights(span, _UPSTREAM)
    refusing = any(s.hurt and s.outcome in (Outcome.REFUSED, Outcome.SERVFAIL) for s in direct)
    if not rejects and (refusing or any(w.outcome is not Outcome.REFUSED for w in windows)):
        return None
    sure = Sure.CERTAIN if rejects and not refusing else Sure.LIKELY if direct and not refusing else Sure.POSSIBLE
    fit = _fit(moment, sure, windows, inside, direct)
    if not rejects:
        return fit
    seen = f"coredns_forward_max_concurrent_rejects_total grew by {rejects:g}; {fit.seen}"
    return Fit(sure, seen, ("rejects of CoreDNS", *fit.by), fit.windows)


def upstream_without_tcp(moment: Moment) -> Fit | None:
    """17."""
    found = _outside(moment, _FAILS | {Outcome.CONNECTION_REFUSED, Outcome.CONNECTION_LOST})
    if found is None or not _only_tcp(moment, found[0]):
        return None
    windows, span, inside = found
    udp = moment.sights(span, *SERVICES, _POD, transport="udp", outside=True)
    by_tcp, by_udp = (moment.sights(span, _UPSTREAM, transport=t) for t in ("tcp", "udp"))
    if not udp or not all(s.fine for s in udp) or any(s.fine for s in by_tcp):
        return None
    told = bool(by_tcp) and all(s.fine for s in by_udp)
    also = [w for w in moment.of(_UPSTREAM, transport="tcp") if any(meet(w, x) for x in windows)]
    return _fit(moment, Sure.CERTAIN if told else Sure.LIKELY, [*windows, *also], [*udp, *inside], [*by_tcp, *by_udp])


def too_big(moment: Moment) -> Fit | None:
    """3."""
    windows = [w for w in moment.windows if w.outcome is Outcome.TRUNCATED]
    if not windows:
        return None
    lost = failures_in(moment.timeline.run, windows)
    names = sorted({f.question.split(" ")[0] for f in lost if f.outcome is Outcome.TRUNCATED})
    by_tcp = moment.sights(spanned(windows), *_ASKED, transport="tcp", outside=False)
    tcp = [s for s in by_tcp if s.fine and any(q.name in names for one in s.channel.series for q in one.questions)]
    seen = f"{'; '.join(str(moment.sight(w)) for w in windows[:3])}; truncated: {', '.join(names[:3])}"
    seen += "".join(f"; {s}" for s in tcp[:1])
    return Fit(
        Sure.CERTAIN,
        seen,
        ("TC bit", *dict.fromkeys(w.lane for w in windows), *(s.channel.lane for s in tcp[:1])),
        tuple(windows),
    )


def unsynced(moment: Moment) -> Fit | None:
    """U5: a pod that is new answers the cluster's own names with SERVFAIL, or not at all though it is Ready."""
    mine = [w for w in moment.of(_POD) if w.outcome in REPLIED | SILENT | {Outcome.CONNECTION_REFUSED}]
    new = [
        p
        for p in moment.pods.values()
        if any(w.target == p.name and 0 < p.ready_ns <= w.from_ns < p.ready_ns + NEW_NS for w in mine)
    ]
    meant = [w for w in mine if w.target in {p.name for p in new}]
    if not meant or not any(w.outcome is Outcome.SERVFAIL for w in meant):
        return None
    span = spanned(meant)
    others = [s for s in moment.sights(span, _POD) if s.channel.target.name not in {p.name for p in new}]
    service = [w for w in moment.of(*SERVICES) if any(meet(w, x) for x in meant)]
    pod = new[0]
    seen = f"{pod.name} was Ready at {at(pod.ready_ns)}; {moment.sight(meant[0])} from {at(meant[0].from_ns)} on"
    seen += f"; {len(others)} other pods lost {sum(s.loss.lost for s in others)}"
    fine = bool(others) and all(s.fine for s in others)
    return Fit(
        Sure.CERTAIN if fine else Sure.LIKELY,
        seen,
        (meant[0].lane, "the pod's Ready", *(["other pods"] if fine else [])),
        (*meant, *service),
    )


def other_answers(moment: Moment) -> Fit | None:
    """2, 10b: some pods answer otherwise than the others do."""
    bad = [w for w in moment.of(_POD, outside=False) if w.outcome in REPLIED - {Outcome.TRUNCATED}]
    names = {w.target for w in bad}
    others = [s for s in moment.sights(moment.span, _POD, outside=False) if s.channel.target.name not in names]
    if not bad or not others or any(s.hurt for s in others):
        return None
    service = [w for w in moment.of(*SERVICES, outside=False) if w.outcome in REPLIED]
    seen = f"{'; '.join(str(moment.sight(w)) for w in bad[:3])}; {len(others)} other pods answer as expected"
    return Fit(Sure.LIKELY, seen, (bad[0].lane, "other pods"), (*bad, *service))


def no_api(moment: Moment) -> Fit | None:
    """10b: no pod knows the cluster's records."""
    return _in_zone(moment, {Outcome.SERVFAIL})


def no_record(moment: Moment) -> Fit | None:
    """5, 4, F6: the name is not there, whoever is asked."""
    return _in_zone(moment, {Outcome.NXDOMAIN, Outcome.NODATA})


def _in_zone(moment: Moment, outcomes: set[Outcome]) -> Fit | None:
    mine = moment.of(*_ASKED, outside=False)
    windows = [w for w in mine if w.outcome in outcomes and not moment.is_suffixed(moment.channel(w))]
    if not windows:
        return None
    names = {q.name for w in windows for one in moment.channel(w).series for q in one.questions}
    pods = moment.sights(moment.span, _POD, outside=False)
    if any(s.fine and names & {q.name for one in s.channel.series for q in one.questions} for s in pods):
        return None
    api = moment.beside(moment.span, TargetKind.API)
    said = "; ".join([*(str(moment.sight(w)) for w in windows[:4]), *map(str, api)])
    lanes = tuple(dict.fromkeys([w.lane for w in windows] + [s.channel.lane for s in (*pods, *api)]))
    sure = Sure.CERTAIN if Outcome.SERVFAIL in outcomes and api and all(s.dead for s in api) else Sure.LIKELY
    return Fit(sure, said, lanes, tuple(windows))


def autopath(moment: Moment) -> Fit | None:
    """13: names with a search suffix are answered, or no longer as they were, while names as they stand are fine."""
    odd = REPLIED - {Outcome.SERVFAIL, Outcome.REFUSED, Outcome.TRUNCATED, Outcome.OTHER_RCODE}
    mine = moment.of(*_ASKED, outside=False)
    windows = [w for w in mine if w.outcome in odd and moment.is_suffixed(moment.channel(w))]
    if not windows:
        return None
    span = spanned(windows)
    others = [s for s in moment.sights(span, *SERVICES, outside=False) if not moment.is_suffixed(s.channel)]
    said = moment.timeline.run.head.facts.get("corefile", "")
    patched = [m for m in moment.marks("corefile_patched") if "autopath" in m.text]
    known = "autopath" in said or bool(patched)
    if any(s.hurt for s in others) or not (known or any(w.outcome is Outcome.ANSWER for w in windows)):
        return None
    seen = "; ".join([*(str(moment.sight(w)) for w in windows[:3]), *(f"meanwhile {s}" for s in others[:2])])
    seen += f"; the Corefile has autopath since {at(patched[-1].at_ns)}" if patched else ""
    seen += f"; the Corefile has {said}" if "autopath" in said else ""
    by = (windows[0].lane, *(s.channel.lane for s in others), *(["the Corefile"] if known else []))
    return Fit(Sure.CERTAIN if known and others else Sure.LIKELY, seen, by, tuple(windows))


def stale_records(moment: Moment) -> Fit | None:
    """2, 10b: pods answer, and not with the addresses that are to be: their records are old."""
    windows = [w for w in moment.of(_POD, outside=False) if w.outcome is Outcome.WRONG_ANSWER]
    if not windows:
        return None
    service = [w for w in moment.of(*SERVICES, outside=False) if w.outcome is Outcome.WRONG_ANSWER]
    fine = [s for s in moment.sights(spanned(windows), *SERVICES, _POD, outside=False) if s.fine]
    seen = "; ".join([*(str(moment.sight(w)) for w in windows[:3]), *(f"other names: {s}" for s in fine[:2])])
    by = (windows[0].lane, *(s.channel.lane for s in fine))
    return Fit(Sure.LIKELY, seen, by, (*windows, *service))


def _relayed(
    moment: Moment,
    seen: frozenset[Outcome] | set[Outcome],
    said: frozenset[Outcome] | set[Outcome],
    alone: Sure = Sure.LIKELY,
) -> Fit | None:
    """Names outside the cluster fail so, and its upstream, asked directly, does that."""
    found = _outside(moment, seen)
    if found is None:
        return None
    windows, span, inside = found
    direct = moment.sights(span, _UPSTREAM)
    if direct and not all(s.hurt and s.outcome in said for s in direct):
        return None
    if not direct and _only_tcp(moment, windows):
        return None
    also = [w for w in moment.of(_UPSTREAM) if w.outcome in said and any(meet(w, x) for x in windows)]
    return _fit(moment, Sure.CERTAIN if direct and inside else alone, [*windows, *also], inside, direct)


def _outside(
    moment: Moment, outcomes: frozenset[Outcome] | set[Outcome]
) -> tuple[list[Window], tuple[int, int], list[Sight]] | None:
    """Windows of names outside the cluster, what they have in common, and lanes for the cluster's own, all fine."""
    windows = [w for w in moment.of(*_ASKED, outside=True) if w.outcome in outcomes]
    if not windows:
        return None
    longest = max(windows, key=lambda w: (w.lost, w.to_ns - w.from_ns))
    span = (longest.from_ns, longest.to_ns)
    inside = [s for s in moment.sights(span, *SERVICES, outside=False) if not moment.is_suffixed(s.channel)]
    if any(s.hurt and s.share > AS_WELL * moment.sight(longest).share for s in inside):
        return None
    return windows, span, [s for s in inside if s.fine]


def _only_tcp(moment: Moment, windows: Sequence[Window]) -> bool:
    """Only what reaches CoreDNS by TCP is lost: TCP lanes, and NodeLocal DNSCache, which asks so."""
    return all(moment.channel(w).transport == "tcp" or moment.channel(w).target.kind is _LOCAL for w in windows)


def _fit(
    moment: Moment, sure: Sure, windows: Sequence[Window], inside: Sequence[Sight], direct: Sequence[Sight]
) -> Fit:
    said = [str(moment.sight(w)) for w in windows[:3]]
    said += [f"the upstream itself: {s}" for s in direct[:2]] + [f"the cluster's names: {s}" for s in inside[:2]]
    lanes = [w.lane for w in windows[:1]] + [s.channel.lane for s in (*inside, *direct)]
    return Fit(sure, "; ".join(said), tuple(dict.fromkeys(lanes)), tuple(windows))
