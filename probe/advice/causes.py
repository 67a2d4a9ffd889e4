"""A Checkup -> its verdict, and for what is broken the likely cause and the next command: a table of rules.

Facts: reference, 4 (symptom vectors); 4.10 for their order. The first rule that explains a path has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from probe.advice.checkup import Checkup, Path, State
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
    """What a rule says: the likely cause, what to do next (commands, a line each), and the paths that it explains."""

    text: str
    remedy: str
    paths: Sequence[Path]


Rule = Callable[[Checkup, Sequence[Path]], Explained | None]
"""A checkup and the broken paths that no rule before has explained -> an explanation, or None."""


def causes_of(seen: Checkup) -> list[Finding]:
    """The likely causes, gravest first; together they explain every path that is broken."""
    left = seen.broken
    found = []
    for id_, rule in CAUSES.items():
        said = rule(seen, left)
        if said is None:
            continue
        severity = "unknown" if id_ in _TELLS_NOTHING else "broken"
        evidence = "; ".join(map(str, said.paths))
        found.append(Finding(id_, severity, said.text, evidence, said.remedy))
        left = [path for path in left if path not in said.paths]
    return found


def exit_code_of(seen: Checkup, causes: Sequence[Finding]) -> int:
    """0 all fine, 1 something is broken, 3 it cannot be said, 4 no API."""
    if any(cause.severity == "broken" for cause in causes if cause.id != "no_api"):
        return EXIT_MISSED
    if seen.api.problem and not seen.api.reached:
        return EXIT_ENVIRONMENT
    unsure = not seen.paths or any(path.state is State.UNKNOWN for path in seen.paths)
    return EXIT_INCONCLUSIVE if causes or unsure or seen.intercepted else EXIT_PASS


# -- rules


def _no_pods(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    service = [path for path in left if path.target.kind is _SERVICE]
    if not service or seen.ready or seen.wanted is None:
        return None
    if not seen.wanted:
        maker = seen.facts.get("made by", "Deployment coredns").partition(",")[0].replace(" ", "/").lower()
        text, remedy = "there is no CoreDNS pod: it is scaled to 0", f"{_kubectl(seen)} scale {maker} --replicas=2"
    else:
        text = f"no CoreDNS pod is Ready, of {seen.wanted} that should be: the Service has nobody to lead to"
        remedy = f"{_kubectl(seen)} get pods -o wide\n{_kubectl(seen)} describe pods {_label(seen)}"
    still = "; what is still answered comes from pods that are ending" if _answers(service) else ""
    return Explained(text + still, remedy, service)


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
    return Explained(text, remedy, left)


def _all_silent(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    asked = [*seen.of(_SERVICE, _POD, _SERVER), *seen.of(_SERVER, outside=True)]
    if len(asked) < 2 or not all(path in left and path.state is State.DEAD for path in asked) or _replies(asked):
        return None
    if not seen.of(_POD) and not seen.of(_SERVER):
        return None
    whom = "neither the Service nor any pod" if seen.of(_POD) else "no nameserver of this pod"
    if any(_dead(path, (Outcome.CONNECTION_REFUSED,)) for path in asked):
        text = f"{whom} takes queries: refused. Either no CoreDNS listens, or a rule rejects port 53"
    else:
        works = "; the API server answers, so that it is not the network as such" if seen.api.reached else ""
        text = (
            f"{whom} can be heard from here{works}: a NetworkPolicy that denies this pod port 53, or CoreDNS its"
            " clients; or this node's pod network"
        )
    remedy = (
        f"kubectl get networkpolicy -A\n{_kubectl(seen)} get pods -o wide\n"
        "# then check from a pod on another node: does it fail there, too?"
    )
    explained = [path for path in left if path.target.kind is not _LOCAL]
    return Explained(text, remedy, explained)


def _service_alone(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    service, pods = seen.of(_SERVICE), seen.of(_POD)
    if not service or not pods or not all(_dead(path) for path in service) or not _well(pods):
        return None
    refused = any(path.outcome is Outcome.CONNECTION_REFUSED for path in service)
    text = "every pod answers, the Service does not: "
    text += (
        "this node's kube-proxy knows of no endpoint, or is behind"
        if refused
        else "kube-proxy on this node is not running or behind, or a NetworkPolicy denies it"
    )
    if not seen.in_pod and not seen.in_lab:
        text += "; or this machine reaches pods and not Services: then that is no fault"
    remedy = (
        "kubectl -n kube-system get pods -l k8s-app=kube-proxy -o wide\n"
        f"{_kubectl(seen)} get endpointslices\n"
        "kubectl get networkpolicy -A"
    )
    return Explained(text, remedy, [path for path in left if path.target.kind is _SERVICE])


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
            text = f"{whose} by {other.upper()} and not by {mine.upper()}: a NetworkPolicy or a security group that"
            text += f" lets port 53 through by {other.upper()} alone"
            if kinds == (_SERVICE,) and seen.of(_POD):
                text += f", or a Service without that port; pods themselves answer by {mine.upper()}"
            remedy = f"kubectl get networkpolicy -A\n{_kubectl(seen)} get service -o yaml   # UDP and TCP?"
            explained = [p for p in left if p.transport == mine and p.target.kind in kinds]
            return Explained(text, remedy, explained)
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
    text = f"{whom} {does} not{how} answer, the other {len(every) - len(names)} of {len(every)} pods do:"
    if any(path.outcome is Outcome.CONNECTION_REFUSED for path in bad):
        text += " its process has ended or does not listen (a bad Corefile?)"
    elif _replies(bad):
        text += " its answers are not the others': it has lost the API server, or has another Corefile"
    else:
        text += " its node, or the way there"
    service = [path for path in left if path.target.kind is _SERVICE and path.state is State.LOSS]
    if service:
        text += f"; so {len(names)} of {len(every)} queries to the Service are lost"
    remedy = f"{_kubectl(seen)} get pod {names[0]} -o wide\n{_kubectl(seen)} logs {names[0]} --tail=20\n"
    remedy += f"{_kubectl(seen)} delete pod {names[0]}   # it is replaced"
    return Explained(text, remedy, [*bad, *service])


_IN_ZONE = {
    Outcome.NXDOMAIN: "the cluster's domain is not {domain}, or the Corefile's kubernetes plugin is not there",
    Outcome.NODATA: "the record is not the cluster's: another server answers for {domain}",
    Outcome.SERVFAIL: "CoreDNS does not know its records: it cannot reach the API server, or may not read it",
    Outcome.REFUSED: "CoreDNS serves no such zone, or has an acl; under load: forward's max_concurrent",
    Outcome.TRUNCATED: "answers do not fit: ask by TCP, or raise bufsize",
}


def _in_zone(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    bad = [path for path in left if not path.outside and path.outcome in REPLIED and path.target.kind is not _UPSTREAM]
    if not bad:
        return None
    outcome = max({path.outcome for path in bad if path.outcome}, key=[path.outcome for path in bad].count)
    why = _IN_ZONE.get(outcome, MEANINGS[outcome].help).format(domain=seen.domain)
    text = f"kubernetes.default.svc.{seen.domain} is answered with {outcome.label.upper()}: {why}"
    remedy = f"{_kubectl(seen)} get configmap coredns -o yaml\n{_kubectl(seen)} logs {_label(seen)} --tail=20"
    return Explained(text, remedy, bad)


def _upstream(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    bad = [path for path in left if path.outside]
    relayed = [path for path in bad if path.target.kind in (_SERVICE, _SERVER)]
    if not relayed or not _well([path for path in seen.of(_SERVICE, _SERVER) if path.target in _targets(relayed)]):
        return None
    direct = seen.of(_UPSTREAM, outside=True)
    who = ", ".join(dict.fromkeys(f"{path.target.address}" for path in direct))
    text = "names of the cluster are answered, names outside are not: "
    if direct and not _answers(direct):
        how = "refuses or fails" if _replies(direct) else "is silent"
        text += f"the upstream {who} {how} here, too"
    elif direct:
        text += f"the upstream {who} answers here: then it is the way there from CoreDNS's nodes, or the Corefile"
    elif any(path.outcome is Outcome.REFUSED for path in relayed):
        text += "the upstream refuses, or forward's max_concurrent is reached"
    else:
        text += "an upstream of CoreDNS is dead, or the way to it"
    remedy = (
        f"{_kubectl(seen)} logs {_label(seen)} --tail=50 | grep errors\n"
        f"{_kubectl(seen)} get configmap coredns -o yaml   # forward . ..."
    )
    return Explained(text, remedy, bad)


def _nodelocal(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    bad = [path for path in left if path.target.kind is _LOCAL]
    if not bad:
        return None
    alone = "" if _answers(seen.of(_SERVICE)) else ", nor the Service"
    where = "this node" if seen.in_pod or seen.in_lab else "this machine, if that is a node"
    text = f"NodeLocal DNSCache does not answer on {where}{alone}: pods that ask {bad[0].target.address} have no DNS"
    remedy = (
        "kubectl -n kube-system get pods -l k8s-app=node-local-dns -o wide\n"
        "kubectl -n kube-system logs -l k8s-app=node-local-dns --tail=20"
    )
    return Explained(text, remedy, bad)


def _nameservers(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    bad = [path for path in left if path.target.kind is _SERVER and path.state is not State.SLOW]
    if not bad or not seen.resolver:
        return None
    dead = list(dict.fromkeys(path.target.address for path in bad))
    text = f"{', '.join(dead)} of this pod's resolv.conf does not answer as it should"
    if dead[0] == seen.resolver.nameservers[0] and len(seen.resolver.nameservers) > 1:
        text += f": it is the first one, so that every lookup waits {seen.resolver.timeout} s before the next is asked"
    return Explained(text, "kubectl get pod POD -o yaml | grep -A9 dnsPolicy   # and dnsConfig", bad)


def _slow(_: Checkup, left: Sequence[Path]) -> Explained | None:
    bad = [path for path in left if path.state is State.SLOW]
    if not bad:
        return None
    text = (
        "answers come, but half of them took over 100 ms: CoreDNS or this node has too little CPU, or a slow upstream"
    )
    return Explained(text, "kubectl -n kube-system top pods\nkubectl top nodes", bad)


def _other(seen: Checkup, left: Sequence[Path]) -> Explained | None:
    if not left:
        return None
    outcomes = list(dict.fromkeys(path.outcome for path in left if path.outcome))
    help_ = "; ".join(f"{outcome.label}: {MEANINGS[outcome].help}" for outcome in outcomes)
    text = f"no rule fits what is lost ({help_})"
    remedy = f"dnsprobe run baseline   # 20 s, with times\n{_kubectl(seen)} logs {_label(seen)} --tail=50"
    return Explained(text, remedy, left)


def _no_api(seen: Checkup, _: Sequence[Path]) -> Explained | None:
    if not seen.api.problem or seen.api.reached:
        return None
    text = f"the API server cannot be had: {seen.api.problem}"
    if seen.paths:
        text += ". CoreDNS goes on with the records that it has; what is new since then it does not know"
    return Explained(text, "kubectl get --raw '/readyz?verbose'", ())


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


def _label(seen: Checkup) -> str:
    """What selects CoreDNS's pods; OpenShift's have another label."""
    return "-l dns.operator.openshift.io/daemonset-dns" if "openshift" in seen.namespace else "-l k8s-app=kube-dns"


_TELLS_NOTHING = ("outside",)
"""Causes that say nothing about the cluster."""

CAUSES: dict[str, Rule] = {
    "no_pods": _no_pods,
    "outside": _outside,
    "all_silent": _all_silent,
    "service_alone": _service_alone,
    "one_transport": _one_transport,
    "some_pods": _some_pods,
    "in_zone": _in_zone,
    "upstream": _upstream,
    "nodelocal": _nodelocal,
    "nameservers": _nameservers,
    "slow": _slow,
    "other": _other,
    "no_api": _no_api,
}
"""In the order in which they are asked; a new one: a function, a line here, a row of tests/test_causes.py."""
