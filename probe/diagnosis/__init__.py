"""A Timeline -> Diagnoses: windows that one cause explains, how sure that is, what would tell, and what mends it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from probe.diagnosis.moment import Moment
from probe.diagnosis.rule import Fit, Rule, of_pod
from probe.diagnosis.rules import RULES
from probe.model import NS, Finding, Sure, TargetKind
from probe.timeline import Timeline, Window

__all__ = ["RULES", "Diagnosis", "diagnose"]

TOGETHER_NS = NS
"""Windows no further apart are looked at together."""
WITNESSES = 2
"""With fewer lanes or other witnesses nothing is told from its neighbours."""
_SURENESS = tuple(Sure)
_TELLING = {
    TargetKind.POD: "`pods` by UDP and TCP",
    TargetKind.UPSTREAM: "`upstream`",
    TargetKind.NODE: "`nodes` by connect",
}
"""Whom to ask where no rule fits."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What lasted from from_ns to to_ns. findings: the cause first, then what fits as well, but less.

    windows: those that the cause explains, in the order in which they began; none for what is no disruption.
    """

    from_ns: int
    to_ns: int
    windows: tuple[Window, ...]
    findings: tuple[Finding, ...]

    @property
    def finding(self) -> Finding:
        """The cause."""
        return self.findings[0]


def diagnose(timeline: Timeline, platform: str = "kubeadm") -> list[Diagnosis]:
    """Every window is in one Diagnosis, by time. platform: who keeps CoreDNS, one of probe.advice.PLATFORMS."""
    moment = Moment.of_run(timeline)
    found = list(_of_run(moment, platform))
    taken = {id(w) for d in found for w in d.windows}
    left = [w for w in timeline.windows if id(w) not in taken]
    for windows in _groups(left):
        found += _of_group(moment.at(windows), platform)
    told = {d.finding.id for d in found if d.windows}
    found = [d for d in found if d.windows or d.finding.id not in RULES or told.isdisjoint(RULES[d.finding.id].unless)]
    return sorted(found, key=lambda d: (d.from_ns, d.to_ns))


def _groups(windows: Sequence[Window]) -> Iterator[list[Window]]:
    """Those that meet, or nearly."""
    group: list[Window] = []
    end_ns = 0
    for w in windows:
        if group and w.from_ns > end_ns + TOGETHER_NS:
            yield group
            group = []
        group.append(w)
        end_ns = max(end_ns, w.to_ns) if len(group) > 1 else w.to_ns
    if group:
        yield group


def _of_run(moment: Moment, platform: str) -> Iterator[Diagnosis]:
    for id_, rule in RULES.items():
        if rule.whole and (fit := rule.fits(moment)):
            span = fit.span or moment.span
            yield Diagnosis(*span, fit.windows, (_finding(moment, id_, rule, fit, platform),))


def _of_group(moment: Moment, platform: str) -> Iterator[Diagnosis]:
    """The surest rule has its windows, then the next one what is left; those that fit no less are told beside it.

    What lanes beside DNS lost meanwhile goes with the first: it has a cause of its own where DNS lost nothing.
    """
    fits = [(id_, _capped(fit)) for id_, rule in RULES.items() if not rule.whole and (fit := rule.fits(moment))]
    fits.sort(key=lambda one: _SURENESS.index(one[1].sure))
    left = [w for w in moment.windows if not moment.is_beside(w)] or list(moment.windows)
    beside = tuple(w for w in moment.windows if w not in left)
    told: set[str] = set()
    while left:
        mine = [(id_, fit) for id_, fit in fits if id_ not in told and any(w in fit.windows for w in left)]
        if not mine:
            break
        id_, fit = mine[0]
        told.add(id_)
        windows = tuple(w for w in left if w in fit.windows)
        others = [(i, f) for i, f in mine[1:] if any(w in f.windows for w in windows)]
        left = [w for w in left if w not in windows]
        yield _diagnosis(moment, (*windows, *beside), [(id_, fit), *others], platform)
        beside = ()
    if left:
        yield _diagnosis(moment, (*left, *beside), [], platform)


def _capped(fit: Fit) -> Fit:
    """Without two witnesses it is no more than possible."""
    return fit if len(set(filter(None, fit.by))) >= WITNESSES else replace(fit, sure=Sure.POSSIBLE)


def _diagnosis(moment: Moment, windows: tuple[Window, ...], fits: list[tuple[str, Fit]], platform: str) -> Diagnosis:
    findings = [_finding(moment, id_, RULES[id_], fit, platform) for id_, fit in fits]
    if not findings or findings[0].sure is Sure.POSSIBLE:
        findings.insert(0, _undetermined(moment, windows, findings))
    return Diagnosis(min(w.from_ns for w in windows), max(w.to_ns for w in windows), windows, tuple(findings))


def _finding(moment: Moment, id_: str, rule: Rule, fit: Fit, platform: str) -> Finding:
    pod = next((w.target for w in fit.windows if moment.channel(w).target.kind is TargetKind.POD), "")
    remedy = of_pod(rule.remedy, pod) if isinstance(rule.remedy, str) else rule.remedy(moment, fit, platform)
    return Finding(id_, "broken", rule.cause, fit.seen, remedy, rule.source, fit.sure, rule.apart)


def _undetermined(moment: Moment, windows: Sequence[Window], findings: Sequence[Finding]) -> Finding:
    """What is missing to say more."""
    between = ", ".join(f.id for f in findings)
    asked = {channel.target.kind for channel in moment.timeline.channels}
    lacks = [RULES[f.id].lacks for f in findings if RULES[f.id].lacks]
    lacks = lacks or [text for kind, text in _TELLING.items() if kind not in asked]
    seen = "; ".join(str(moment.sight(w)) for w in windows[:4])
    text = f"undetermined between {between}" if findings else "no rule fits what is lost"
    apart = f"run it with {' and '.join(dict.fromkeys(lacks))}" if lacks else "who tells causes apart was asked"
    return Finding(
        "undetermined",
        "unknown",
        text,
        seen,
        "dnsprobe run causes   # lanes that tell causes apart",
        "",
        Sure.UNDETERMINED,
        apart,
    )
