"""A Checkup -> its verdict, and for what is broken the likely cause, by the decision table's own words and remedies.

The first that explains a path has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from probe.advice.checkup import Checkup, Path, State
from probe.diagnosis.rule import KUBECTL, LABEL, of_pod
from probe.diagnosis.rules import RULES
from probe.errors import EXIT_ENVIRONMENT, EXIT_INCONCLUSIVE, EXIT_MISSED, EXIT_PASS
from probe.model import Finding, TargetKind
from probe.outcome import MEANINGS, REPLIED, Outcome

IMAGE = "IMAGE"
"""Stands in commands for the image that a person has of dnsprobe."""
APART = f"""\
# this pod's own lookups go that way, too; past a mesh:
kubectl run dnsprobe --rm -it --restart=Never --image={IMAGE} \\
  --labels=sidecar.istio.io/inject=false,istio.io/dataplane-mode=none \\
  --annotations=linkerd.io/inject=disabled -- check"""
"""How a pod stays out of Istio (sidecar, ambient) and Linkerd."""
_SERVICE, _POD, _LOCAL, _UPSTREAM, _SERVER = (
    TargetKind.SERVICE,
    TargetKind.POD,
    TargetKind.NODELOCAL,
    TargetKind.UPSTREAM,
    TargetKind.SERVER,
)
_SILENT = (Outcome.TIMEOUT, Outcome.NETWORK_ERROR)


class Explained(NamedTuple):
    """A cause: the id of a rule of the decision table, or one that a check alone knows, and the paths it explains.

    seen: what was seen here; remedy: commands, a line each, of a cause of its own; pod: which one the rule's are about.
    """

    id: str
    seen: str
    paths: Sequence[Path]
    remedy: str = ""
    pod: str = ""


Cause = Callable[[Checkup, Sequence[Path]], Explained | None]
"""A checkup and the broken paths that no other has explained -> an explanation, or None."""


def causes_of(seen: Checkup) -> list[Finding]:
    """The likely causes, gravest first; together they explain every path that is broken."""
    left = seen.broken
    found = []
    for cause in CAUSES:
        said = cause(seen, left)
        if said is None:
            continue
        found.append(_finding(seen, said))
        left = [path for path in left if path not in said.paths]
    return found


def _finding(seen: Checkup, said: Explained) -> Finding:
    severity = "unknown" if said.id in _TELLS_NOTHING else "broken"
    evidence = "; ".join(map(str, said.paths))
    rule = RULES.get(said.id)
    if rule is None:
        return Finding(said.id, severity, said.seen, evidence, said.remedy)
    assert isinstance(rule.remedy, str), "those that depend on what was measured are of no check"  # noqa: S101
    remedy = said.remedy or _placed(seen, of_pod(rule.remedy, said.pod))
    return Finding(said.id, severity, f"{said.seen}: {rule.cause}", evidence, remedy, rule.source, apart=rule.apart)


def _placed(seen: Checkup, remedy: str) -> str:
    """As CoreDNS is here: its namespace, what makes its pods, and their label."""
    maker = seen.facts.get("made by", "Deployment coredns").partition(",")[0].lower()
    label = "-l dns.operator.openshift.io/daemonset-dns" if "openshift" in seen.namespace else LABEL
    lines = [
        line
        if "kube-proxy" in line or "node-local" in line
        else line.replace(KUBECTL, _kubectl(seen)).replace("deployment coredns", maker).replace(LABEL, label)
        for line in remedy.splitlines()
    ]
    return "\n".join(lines)


def exit_code_of(seen: Checkup, causes: Sequence[Finding]) -> int:
    """0 all fine, 1 something is broken, 3 it cannot be said, 4 no API."""
    if any(cause.severity == "broken" for cause in causes if cause.id != "api_server"):
        return EXIT_MISSED
    if seen.api.problem and not seen.api.reached:
        return EXIT_ENVIRONMENT
    unsure = not seen.paths or any(path.state is State.UNKNOWN for path in seen.paths)
    return EXIT_INCONCLUSIVE if causes or unsure or seen.intercepted else EXIT_PASS


# -- causes, in the order in which they are asked


def _no_pods(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    service = [path for path in left if path.target.kind is _SERVICE]
    if not service or seen.ready or seen.wanted is None:
        return None
    text = f"of {seen.wanted} that should be none is Ready" if seen.wanted else "it is scaled to 0"
    still = "; what is still answered comes from pods that are ending" if _answers(service) else ""
    return Explained("no_pods", text + still, service)


def _outside(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    asked = seen.of(_SERVICE, _POD)
    if seen.in_pod or seen.in_lab or not asked or not all(_dead(path, _SILENT) for path in asked):
        return None
    text = (
        "this machine is most likely not in the cluster's network: neither the Service nor a pod can be heard from"
        " here. That says nothing about cluster DNS: ask from inside"
    )
    remedy = (
        f"kubectl run dnsprobe --rm -it --restart=Never --image={IMAGE} -- check\n"
        f"kubectl debug -it POD --image={IMAGE} -- dnsprobe check   # as POD has it"
    )
    return Explained("outside", text, left, remedy)


def _all_silent(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    asked = [*seen.of(_SERVICE, _POD, _SERVER), *seen.of(_SERVER, outside=True)]
    if len(asked) < 2 or not all(path in left and path.state is State.DEAD for path in asked) or _replies(asked):
        return None
    if not seen.of(_POD) and not seen.of(_SERVER):
        return None
    whom = "neither the Service nor any pod" if seen.of(_POD) else "no nameserver of this pod"
    reached = seen.reached()
    if any(_dead(path, (Outcome.CONNECTION_REFUSED,)) for path in asked):
        text, cause = f"{whom} takes queries, they are refused: or no CoreDNS listens", "port_blocked"
    elif reached or (reached is None and seen.api.reached):
        whose = "pods and nodes answer" if reached else "the API server answers"
        text, cause = f"{whom} can be heard from here, and {whose}: it is not the network as such", "port_blocked"
    else:
        text, cause = f"{whom} can be heard from here", "network"
    return Explained(cause, text, [path for path in left if path.target.kind is not _LOCAL])


def _service_alone(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    service, pods = seen.of(_SERVICE), seen.of(_POD)
    if not service or not pods or not all(_dead(path) for path in service) or not _well(pods):
        return None
    refused = any(path.outcome is Outcome.CONNECTION_REFUSED for path in service)
    text = "the Service refuses: kube-proxy knows of no endpoint" if refused else "the Service is silent"
    if not seen.in_pod and not seen.in_lab:
        text += "; if this machine reaches pods and not Services, then that is no fault"
    return Explained("kube_proxy", text, [path for path in left if path.target.kind is _SERVICE])


def _one_transport(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    for mine, other in (("udp", "tcp"), ("tcp", "udp")):
        for kinds, whose in (
            ((_SERVICE, _POD), "the Service and every pod answer"),
            ((_SERVICE,), "the Service answers"),
            ((_POD,), "every pod answers"),
            ((_SERVER,), "this pod's nameserver answers"),
        ):
            bad = [path for path in seen.of(*kinds, transport=mine) if path in left]
            if len(bad) != len(seen.of(*kinds, transport=mine)) or not all(map(_dead, bad)):
                continue
            if not bad or not _well(seen.of(*kinds, transport=other)):
                continue
            text = f"{whose} by {other.upper()} and not by {mine.upper()}"
            if kinds == (_SERVICE,) and seen.of(_POD):
                text += f", pods themselves do by {mine.upper()}: perhaps the Service has no such port"
            return Explained("udp_blocked", text, [p for p in left if p.transport == mine and p.target.kind in kinds])
    return None


def _some_pods(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    bad = [path for path in seen.of(_POD) if path in left and path.state in (State.DEAD, State.LOSS)]
    names = list(dict.fromkeys(path.target.name for path in bad))
    every = {path.target.name for path in seen.of(_POD)}
    if not names or len(names) == len(every):
        return None
    whom = f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
    does = "does" if len(names) == 1 else "do"
    how = "" if all(_dead(path) for path in bad) else " always"
    text = f"{whom} {does} not{how} answer, the other {len(every) - len(names)} of {len(every)} pods do"
    reached = seen.reached(*names)
    if any(path.outcome is Outcome.CONNECTION_REFUSED for path in bad):
        cause = "crashed"
    elif _replies(bad):
        cause = "other_answers"
    else:
        cause = "pod_stuck" if reached or not all(map(_dead, bad)) else "node_lost"
    text += "" if reached is None or cause not in ("pod_stuck", "node_lost") else _REACHED[reached]
    service = [path for path in left if path.target.kind is _SERVICE and path.state is State.LOSS]
    if service:
        text += f"; so {len(names)} of {len(every)} queries to the Service are lost"
    return Explained(cause, text, [*bad, *service], pod=names[0])


_REACHED = {True: "; connections are taken there", False: "; nothing there takes connections"}
_IN_ZONE = {
    Outcome.NXDOMAIN: ("no_record", "the cluster's domain is not {domain}, or plugin kubernetes is not there"),
    Outcome.NODATA: ("no_record", "another server answers for {domain}"),
    Outcome.SERVFAIL: ("no_api", "it is always there"),
    Outcome.REFUSED: ("no_record", "CoreDNS serves no such zone, or has an acl; under load max_concurrent"),
    Outcome.TRUNCATED: ("too_big", "one address"),
}


def _in_zone(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    bad = [path for path in left if not path.outside and path.outcome in REPLIED and path.target.kind is not _UPSTREAM]
    if not bad:
        return None
    outcome = max({path.outcome for path in bad if path.outcome}, key=[path.outcome for path in bad].count)
    cause, why = _IN_ZONE.get(outcome, ("no_record", MEANINGS[outcome].help))
    text = f"kubernetes.default.svc.{seen.domain} is answered with {outcome.label.upper()}, {why}"
    return Explained(cause, text.format(domain=seen.domain), bad)


_FAILS = {
    Outcome.REFUSED: "upstream_refuses",
    Outcome.SERVFAIL: "upstream_fails",
    Outcome.NXDOMAIN: "upstream_denies",
    Outcome.NODATA: "upstream_denies",
}


def _upstream(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    bad = [path for path in left if path.outside]
    relayed = [path for path in bad if path.target.kind in (_SERVICE, _SERVER)]
    if not relayed or not _well([path for path in seen.of(_SERVICE, _SERVER) if path.target in _targets(relayed)]):
        return None
    direct = seen.of(_UPSTREAM, outside=True)
    who = ", ".join(dict.fromkeys(f"{path.target.address}" for path in direct))
    text = "names of the cluster are answered, names outside are not"
    refused = any(path.outcome is Outcome.REFUSED for path in relayed)
    if direct and not _answers(direct):
        said = next((_FAILS[path.outcome] for path in direct if path.outcome in _FAILS), "upstream_silent")
        return Explained(said, f"{text}, and {who} does not answer them here, either", bad)
    if direct:
        return Explained("max_concurrent" if refused else "way_upstream", f"{text}, and {who} answers here", bad)
    if refused:
        return Explained("upstream_refuses", f"{text}; or forward's max_concurrent is reached", bad)
    return Explained("upstream_silent", text, bad)


def _nodelocal(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    bad = [path for path in left if path.target.kind is _LOCAL]
    if not bad:
        return None
    alone = "" if _answers(seen.of(_SERVICE)) else "; nor does the Service"
    where = "" if seen.in_pod or seen.in_lab else " (if this machine is a node)"
    return Explained("nodelocal", f"pods that ask {bad[0].target.address} have no DNS{where}{alone}", bad)


def _nameservers(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    bad = [path for path in left if path.target.kind is _SERVER and path.state is not State.SLOW]
    if not bad or not seen.resolver:
        return None
    dead = list(dict.fromkeys(path.target.address for path in bad))
    text = f"{', '.join(dead)} of this pod's resolv.conf does not answer as it should"
    if dead[0] == seen.resolver.nameservers[0] and len(seen.resolver.nameservers) > 1:
        text += f": it is the first one, so that every lookup waits {seen.resolver.timeout} s before the next is asked"
    remedy = "kubectl get pod POD -o yaml | grep -A9 dnsPolicy   # and dnsConfig"
    return Explained("nameservers", text, bad, remedy)


def _slow(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    bad = [path for path in left if path.state is State.SLOW]
    if not bad:
        return None
    pods = {path.target.name for path in bad if path.target.kind is _POD}
    fine = {path.target.name for path in seen.of(_POD)} - pods
    text = "half of the answers took over 100 ms; or this node has too little CPU, or an upstream is slow"
    return Explained("one_slow" if pods and fine else "all_slow", text, bad, pod=min(pods, default=""))


def _other(_: Checkup, left: Sequence[Path]) -> Explained | None:
    if not left:
        return None
    outcomes = list(dict.fromkeys(path.outcome for path in left if path.outcome))
    help_ = "; ".join(f"{outcome.label}: {MEANINGS[outcome].help}" for outcome in outcomes)
    remedy = "dnsprobe run causes   # lanes that tell causes apart, a minute\ndnsprobe explain causes.db"
    return Explained("undetermined", f"no rule fits what is lost ({help_})", left, remedy)


def _api_server(seen: Checkup, _: Sequence[Path]) -> Explained | None:
    if not seen.api.problem or seen.api.reached:
        return None
    return Explained("api_server", seen.api.problem, ())


# -- helpers of theirs


def _dead(path: Path, outcomes: Sequence[Outcome] = ()) -> bool:
    return path.state is State.DEAD and (not outcomes or path.outcome in outcomes)


def _answers(paths: Sequence[Path]) -> bool:
    return any(path.answered for path in paths)


def _well(paths: Sequence[Path]) -> bool:
    """They are there, and all of them answer."""
    return bool(paths) and all(path.state in (State.OK, State.SLOW) for path in paths)


def _replies(paths: Sequence[Path]) -> bool:
    return any(path.outcome in REPLIED for path in paths)


def _targets(paths: Sequence[Path]) -> list[object]:
    return [path.target for path in paths]


def _kubectl(seen: Checkup) -> str:
    return f"kubectl -n {seen.namespace}"


_TELLS_NOTHING = ("outside",)
"""Causes that say nothing about the cluster."""
CAUSES: tuple[Cause, ...] = (
    _no_pods,
    _outside,
    _all_silent,
    _service_alone,
    _one_transport,
    _some_pods,
    _in_zone,
    _upstream,
    _nodelocal,
    _nameservers,
    _slow,
    _other,
    _api_server,
)
"""In the order in which they are asked; a new one: a function, a line here, a row of tests/test_checked.py."""
