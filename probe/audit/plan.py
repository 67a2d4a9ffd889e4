"""What an audit found -> the steps of this upgrade in their order, and what clients will feel in each.

How long what is lost is probe.advice.rule's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from probe.advice import Clients, Recommendation
from probe.audit.check import Planned, Severity
from probe.audit.checks.shutdown import advice
from probe.audit.quantity import share_of
from probe.audit.snapshot import Snapshot, Unread
from probe.audit.upgrading import UPGRADES, kubernetes_instead
from probe.cluster import Shutdown
from probe.model import Finding

_TO_MEND = (Severity.FAIL, Severity.WARN)
_IPVS_DEFAULT = 300.0
SAVED = "before.yaml"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """checks: whose remedies it takes; commands: what is pasted beside these; expect: how long, which clients."""

    title: str
    commands: tuple[str, ...] = ()
    expect: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ground:
    """What the plan goes by. advice: None where how pods end could not be read."""

    snapshot: Snapshot
    planned: Planned
    findings: Sequence[Finding]
    advice: Recommendation | None

    @property
    def shutdown(self) -> Shutdown | None:
        """How pods end now."""
        return self.advice.shutdown if self.advice else None

    @property
    def timeout(self) -> float:
        """Of IPVS's UDP sessions, seconds."""
        return _or(lambda: self.snapshot.proxy.udp_timeout, None) or _IPVS_DEFAULT

    @property
    def mode(self) -> str:
        """kube-proxy's; '' if it is not known."""
        return _or(lambda: self.snapshot.proxy.mode, "")


def plan_of(snapshot: Snapshot, planned: Planned, findings: Sequence[Finding]) -> list[Step]:
    """In order: what is mended before the upgrade, the upgrade, what is looked at after it. findings: of all checks."""
    ground = _Ground(snapshot, planned, findings, _or(lambda: advice(snapshot, planned), None))
    steps = [Step("Keep what there is now, to compare with afterwards", (f"dnsprobe audit --save {SAVED}",))]
    steps += filter(None, [*(_mend(ground, *stage) for stage in _STAGES), _rest(ground)])
    return [*steps, *_baseline(), *_upgrade(ground), *_after()]


def _or(look: Callable[[], T], otherwise: T) -> T:
    try:
        return look()
    except Unread:
        return otherwise


def _mend(
    ground: _Ground, title: str, checks: Collection[str], expect: Callable[[_Ground], Iterator[str]]
) -> Step | None:
    """A step of those checks that have something to mend; None if none has."""
    found = [one for one in ground.findings if one.id in checks and one.severity in _TO_MEND]
    if not found:
        return None
    return Step(title, (), tuple(expect(ground)), tuple(dict.fromkeys(one.id for one in found)))


# -- what to expect


def _nothing(_: _Ground) -> Iterator[str]:
    yield from ()


def _udp_timeout(ground: _Ground) -> Iterator[str]:
    yield (
        "each node's kube-proxy restarts; the rules stay meanwhile. Sessions that are there keep their old timeout of"
        f" {ground.timeout:g} s: wait five minutes after the last restart, and look at the third number of"
        " `ipvsadm -L --timeout` on a node"
    )
    yield "UDP workloads whose clients are silent for more than 10 s may reach another pod then: C44 names them"


def _affinity(ground: _Ground) -> Iterator[str]:
    lasting = _or(lambda: ground.snapshot.service, None)
    seconds = (lasting and lasting.at("spec.sessionAffinityConfig.clientIP.timeoutSeconds")) or 10800
    yield f"no query is lost; clients spread over the pods from then on, under IPVS those pinned now after {seconds} s"


def _reload(_: _Ground) -> Iterator[str]:
    yield (
        "pods load a new Corefile within about two minutes (kubelet up to 90 s, `reload` 30 s +- 7.5 s) and need the"
        " memory of two configurations meanwhile; before 1.9.4 each is not Ready for its whole lameduck then"
    )


def _shutdown(ground: _Ground) -> Iterator[str]:
    yield from _reload(ground)
    if ground.advice and ground.advice.raises_grace:
        yield f"a longer grace period replaces all pods, under the old one: {'; '.join(_felt(ground, now=True))}"


def _memory(ground: _Ground) -> Iterator[str]:
    yield f"this replaces all pods: {'; '.join(_felt(ground, now=False))}"


def _replicas(_: _Ground) -> Iterator[str]:
    yield "more replicas lose nothing as they come; a new template replaces all pods as the upgrade does"


def _felt(ground: _Ground, *, now: bool) -> Iterator[str]:
    """What each kind of client loses when a pod goes: as it is set now, or as these steps leave it."""
    if not ground.advice or not ground.shutdown:
        yield "what clients feel cannot be said: how the pods end could not be read"
        return
    share = f"1/{max(1, ground.shutdown.replicas)}"
    lameduck = ground.shutdown.lameduck if now else ground.advice.lameduck
    for need in ground.advice.needs:
        seconds = need.lost_now if now else need.lost_then
        lasting = f"for {seconds:.1f} s" if math.isfinite(seconds) else "until kube-proxy cleans up"
        if need.clients is Clients.FRESH:
            said = f"{share} of the queries from new source ports (Go, glibc, dig) are lost {lasting}"
            none = "no query from a new source port (Go, glibc, dig) is lost"
        elif ground.mode == "ipvs":
            continue
        else:
            said = f"{share} of the clients on fixed source ports (Envoy, c-ares, nginx) lose all queries {lasting}"
            none = "no query from a fixed source port (Envoy, c-ares, nginx) is lost"
        yield f"with a lameduck of {lameduck:g} s {said if seconds else none} each time a pod goes"


def _by_mode(ground: _Ground) -> Iterator[str]:
    match ground.mode:
        case "ipvs":
            yield (
                f"kube-proxy is in IPVS mode: for up to {ground.timeout:g} s after a pod has gone, source ports that"
                " asked it lose a query each on kernels before 5.9, and all of them where expire_nodest_conn is 0: a"
                " fraction of the whole cluster's queries, silently; lameduck does not help against it"
            )
        case "iptables" | "nftables":
            yield (
                f"kube-proxy is in {ground.mode} mode: queries to a pod that has gone are refused, or time out once"
                " its address is gone too; fixed source ports stay with it until kube-proxy deletes their conntrack"
                " entries"
            )
        case _:
            yield "kube-proxy's mode is not known: what replaces it, as Cilium does, may keep sockets on a pod"


def _paces(ground: _Ground) -> Iterator[str]:
    """How long the rollout takes, as far as its settings say."""
    workload = ground.snapshot.workload
    at = ground.snapshot.at_container
    probe = workload.at(f"{at}.readinessProbe") or {}
    ready = float(probe.get("initialDelaySeconds") or 0) + float(workload.at("spec.minReadySeconds") or 0)
    n = ground.shutdown.replicas if ground.shutdown else 1
    daemons = workload.kind == "DaemonSet"
    rolling = workload.at(f"spec.{'updateStrategy' if daemons else 'strategy'}.rollingUpdate") or {}
    surge = share_of(rolling.get("maxSurge", "0" if daemons else "25%"), n, up=True)
    gone = share_of(rolling.get("maxUnavailable", "1" if daemons else "25%"), n, up=daemons)
    rounds = math.ceil(n / max(1, surge + gone))
    counts = f", and {ready:g} s until it counts" if ready else ""
    yield (
        f"{n} pods in at least {rounds} round{'s' * (rounds > 1)} (maxSurge {surge}, maxUnavailable {gone}), each as"
        f" long as the image's pull and the start{counts}"
    )
    if not workload.at("spec.minReadySeconds") and rounds * ready < ground.planned.propagation:
        yield (
            "minReadySeconds is not set: new pods count at once, and all may be replaced before the last node has"
            f" learned of the first ({ground.planned.propagation:g} s): then some nodes have no pod that answers"
        )


_STAGES: tuple[tuple[str, tuple[str, ...], Callable[[_Ground], Iterator[str]]], ...] = (
    ("Mend what is broken already", ("C17", "C18", "C27", "C38", "C39", "C40"), _nothing),
    ("Mend names that are answered otherwise later", ("C28", "C29", "C30"), _nothing),
    ("Set kube-proxy's timeout of UDP sessions, and wait five minutes", ("C20", "C21", "C44", "C45"), _udp_timeout),
    ("Take sessionAffinity off the Service", ("C16",), _affinity),
    ("Let pods go slowly: lameduck, grace period, readiness", ("C03", "C04", "C05", "C08", "C09"), _shutdown),
    ("Put `ready` where the readiness probe looks for it", ("C06", "C07"), _reload),
    ("Migrate the rest of the Corefile", ("C02", "C31", "C32", "C33", "C41", "C50"), _reload),
    ("Give memory and CPU for two configurations at once", ("C14", "C15"), _memory),
    (
        "Replicas, their spread, a budget and a slow rollout",
        ("C10", "C11", "C12", "C13", "C36", "C37", "C48"),
        _replicas,
    ),
    ("Ask NodeLocal DNSCache instead, where it is there", ("C25", "C26", "C46"), _nothing),
    ("See that the new image can be had", ("C49",), _nothing),
)
"""What comes before an upgrade, in order: its title, the checks whose remedies it takes, what to expect."""
_STAGED = {check for _, checks, _ in _STAGES for check in checks}
_LATER = ("C43", "C35")
"""They have steps of their own."""


def _rest(ground: _Ground) -> Step | None:
    """What else was found."""
    others = [one.id for one in ground.findings if one.id not in (*_STAGED, *_LATER)]
    return _mend(ground, "Look at what else was found, and decide", others, _nothing)


def _baseline() -> Iterator[Step]:
    yield Step(
        "See that nothing is lost while nothing happens",
        ("dnsprobe run baseline --set duration=2m",),
        ("exit code 0 before you go on: what is lost now would be taken for the upgrade's",),
        ("C43",),
    )
    yield Step(
        "Look on, from before it begins until all is quiet",
        ("dnsprobe run watch-upgrade -o upgrade.db",),
        ("it ends by itself 11 minutes after the last change, which is longer than vendors take to roll back",),
    )


def _upgrade(ground: _Ground) -> Iterator[Step]:
    upgrade = UPGRADES[ground.planned.platform]
    target = ground.planned.target or "VERSION"
    nothing: list[str] = []
    before = list(_felt(ground, now=True)) if ground.advice and ground.advice.changes_lameduck else nothing
    waits = [*_or(lambda: list(_paces(ground)), nothing), *_felt(ground, now=False), *before, *_by_mode(ground)]
    yield Step(
        f"Upgrade CoreDNS to {target}" if upgrade.commands else "Upgrade what brings CoreDNS with it",
        tuple(line.format(target=target) for line in upgrade.commands),
        (*upgrade.expect, *waits),
    )
    kubernetes = _or(lambda: ground.snapshot.kubernetes, None)
    if instead := kubernetes_instead(ground.planned.platform, kubernetes):
        yield Step("Or upgrade Kubernetes instead, and CoreDNS with it", (), instead, ("C35",))


def _after() -> Iterator[Step]:
    yield Step(
        "See what was overwritten, and what was felt",
        (f"dnsprobe audit --against {SAVED}", "dnsprobe report upgrade.db; dnsprobe explain upgrade.db"),
    )
