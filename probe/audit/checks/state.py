"""How cluster DNS stands now, by its pods, its policies and what a run measured -> whether to begin at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from probe.advice import Clients
from probe.audit.check import Check, Evidence, Planned, Said, Severity
from probe.audit.checks.nodelocal import applications, owners
from probe.audit.checks.shutdown import lasts
from probe.audit.checks.subject import (
    alive,
    at,
    by_label,
    corefile_to_have,
    counted,
    is_kube_dns,
    kubectl,
    named,
    of_coredns,
    ready,
    selects,
    single,
    some,
    whole,
)
from probe.audit.snapshot import Snapshot, images_of, labels_of_pods
from probe.audit.things import Json, Thing

_HOLDS_A_PORT = re.compile(r"envoy|istio/proxy|haproxy|nginx|openresty|linkerd.*/proxy")
_BY_C_ARES = re.compile(r"envoy|istio/proxy|haproxy")
"""Of those, whose names are asked for by c-ares or a resolver of their own as they go, from one socket."""


def health(snapshot: Snapshot, planned: Planned) -> Iterator[Said]:
    """C38."""
    logs = f"{kubectl(snapshot)} logs {by_label(snapshot)} --tail=50"
    mine = [pod for pod in snapshot.pods if alive(pod) and not pod.at("metadata.deletionTimestamp")]
    bad = [pod for pod in mine if not ready(pod)]
    if not mine:
        yield Said(
            Severity.FAIL, "cluster DNS has no pod", (str(snapshot.workload),), f"{kubectl(snapshot)} get events"
        )
        return
    if bad:
        text = f"{len(bad)} of {counted(len(mine), 'pod')} not Ready: {'; '.join(map(_why, bad[:3]))}"
        yield Said(Severity.FAIL, text, some(bad, "status.containerStatuses"), f"{logs}\n# mend this first")
    failed, panics = planned.figures.get("reload_failed", 0), planned.figures.get("panics", 0)
    if failed:
        text = f"{failed:g} reloads failed while the run went: the Corefile that stands there cannot be loaded"
        yield Said(Severity.FAIL, text, ("coredns_reload_failed_total",), f"{logs} | grep -i error")
    if panics:
        text = f"CoreDNS counted {panics:g} panics while the run went"
        yield Said(Severity.FAIL, text, ("coredns_panics_total",), f"{logs} | grep -i panic")
    if bad or failed or panics:
        return
    path = f"status.containerStatuses[{snapshot.container}].restartCount"
    restarted = [pod for pod in mine if pod.at(path)]
    look = f"{logs} | grep -iE 'error|failed to watch|panic'   # their logs are not read here"
    if restarted:
        text = f"{counted(len(restarted), 'pod')} restarted: {'; '.join(map(_why, restarted[:3]))}"
        yield Said(Severity.WARN, text, some(restarted, path), f"{logs} --previous")
        return
    yield Said(Severity.PASS, f"{counted(len(mine), 'pod')} Ready, without a restart", some(mine), look)


def _why(pod: Thing) -> str:
    """What its containers' statuses say: `coredns-x: CrashLoopBackOff`, `coredns-x: ended last with OOMKilled`."""
    for each in pod.at("status.containerStatuses") or []:
        waiting = ((each.get("state") or {}).get("waiting") or {}).get("reason")
        ended = ((each.get("lastState") or {}).get("terminated")) or {}
        if waiting:
            return f"{pod.name}: {waiting}"
        if ended:
            return f"{pod.name}: ended with {ended.get('reason') or ended.get('exitCode')} at {ended.get('finishedAt')}"
    return f"{pod.name}: {pod.at('status.phase') or 'no status'}"


@single
def conntrack(snapshot: Snapshot, planned: Planned) -> Said:
    """C39."""
    del snapshot
    share = planned.figures.get("conntrack_share")
    look = "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max   # on each node, at its busiest"
    raise_it = f"{look}\nsysctl -w net.netfilter.nf_conntrack_max=1048576   # and kube-proxy's conntrack.maxPerCore"
    if share is None:
        text = "how full the nodes' conntrack tables are is not in the API, and no run has measured it"
        return Said(Severity.UNKNOWN, text, (), f"{look}\n# Prometheus: node_nf_conntrack_entries / _limit")
    said = f"conntrack's table was {share:.0%} full where the run went"
    if share > 0.8:
        return Said(Severity.FAIL, f"{said}: at a peak new flows are dropped", (), raise_it)
    if share >= 0.6:
        return Said(Severity.WARN, said, (), raise_it)
    return Said(Severity.PASS, said, ())


def policies(snapshot: Snapshot, _planned: Planned) -> Iterator[Said]:
    """C40."""
    dns = snapshot.workload
    labels = labels_of_pods(dns)
    every = snapshot.all("NetworkPolicy")
    ours = [one for one in every if one.namespace == dns.namespace and _chooses(one, labels)]
    found = list(_to_dns(ours))
    pods = snapshot.all("Pod") if any(_limits(one, "Egress") for one in every) else ()
    found += _from_applications([one for one in every if one not in ours], pods)
    fine = Said(Severity.PASS, f"no NetworkPolicy of {len(every)} blocks port 53", some(every))
    yield from found or [fine]


def _to_dns(ours: list[Thing]) -> Iterator[Said]:
    """Policies add up: what one of them allows is allowed."""
    for way, rules in (("Ingress", "ingress"), ("Egress", "egress")):
        limiting = [one for one in ours if _limits(one, way)]
        open_to = {protocol for one in limiting for protocol in ("UDP", "TCP") if _allows(one, rules, protocol)}
        if limiting and (missing := {"UDP", "TCP"} - open_to):
            what = " and ".join(f"53/{protocol}" for protocol in sorted(missing, reverse=True))
            whom = "nobody may ask CoreDNS" if way == "Ingress" else "CoreDNS may not ask its upstream"
            one = limiting[0]
            path = f"spec.{rules}"
            remedy = _open(one, rules)
            severity = Severity.FAIL if "UDP" in missing else Severity.WARN
            yield Said(severity, f"{whom} by {what}: {named(limiting)}", some(limiting, path), remedy)


def _from_applications(every: Iterable[Thing], pods: Iterable[Thing]) -> Iterator[Said]:
    """Of each namespace the pods that may send to nobody's port 53."""
    by_space: dict[str, list[Thing]] = {}
    for one in every:
        if _limits(one, "Egress"):
            by_space.setdefault(one.namespace, []).append(one)
    shut: list[Thing] = []
    half: list[Thing] = []
    for pod in pods:
        limiting = [one for one in by_space.get(pod.namespace, []) if _chooses(one, pod.labels)]
        if limiting and not any(_allows(one, "egress", "UDP") for one in limiting):
            shut += [one for one in limiting if one not in shut]
        elif limiting and not any(_allows(one, "egress", "TCP") for one in limiting):
            half += [one for one in limiting if one not in half]
    if shut:
        text = f"pods that these select may not ask any DNS: {named(shut)}; fine if that is meant"
        yield Said(Severity.WARN, text, some(shut, "spec.egress"), _open(shut[0], "egress"))
    if half:
        text = f"pods that these select may ask by UDP alone, and lose answers that are cut short: {named(half)}"
        yield Said(Severity.WARN, text, some(half, "spec.egress"), _open(half[0], "egress"))


def _chooses(policy: Thing, labels: Mapping[str, str]) -> bool:
    return selects(policy.at("spec.podSelector") or {}, labels)


def _limits(policy: Thing, way: str) -> bool:
    """Whether it is of that direction: by policyTypes, else ingress always and egress where it has rules for it."""
    types = policy.at("spec.policyTypes")
    if types is None:
        return way == "Ingress" or bool(policy.at("spec.egress"))
    return way in types


def _allows(policy: Thing, rules: str, protocol: str) -> bool:
    """Whether some rule opens port 53, to or from anybody; whether that one is meant is not looked at."""
    for rule in policy.at(f"spec.{rules}") or []:
        ports = rule.get("ports") or []
        if not ports or any(_has_53(port, protocol) for port in ports):
            return True
    return False


def _has_53(port: Mapping[str, Json], protocol: str) -> bool:
    if (port.get("protocol") or "TCP") != protocol:
        return False
    number = port.get("port")
    if number is None or str(number) in ("53", "5353", "dns", "dns-tcp"):
        return True
    last = port.get("endPort")
    return isinstance(number, int) and isinstance(last, int) and number <= 53 <= last


def _open(policy: Thing, rules: str) -> str:
    rule = '{"ports":[{"port":53,"protocol":"UDP"},{"port":53,"protocol":"TCP"}]}'
    patch = f'[{{"op":"add","path":"/spec/{rules}/-","value":{rule}}}]'
    if not policy.at(f"spec.{rules}"):
        patch = f'[{{"op":"add","path":"/spec/{rules}","value":[{rule}]}}]'
    return f"kubectl -n {policy.namespace} patch networkpolicy {policy.name} --type json --patch '{patch}'"


@of_coredns
@single
def identity(snapshot: Snapshot, planned: Planned) -> Said:
    """C41."""
    found = [*snapshot.corefile.all("nsid"), *snapshot.corefile.all("chaos")]
    if found:
        text = "answers can name the pod that gave them"
        return Said(Severity.PASS, text, tuple(at(snapshot, one) for one in found))
    text = "neither `nsid` nor `chaos`: an answer does not say which pod gave it, so a run knows less of who was asked"
    return Said(Severity.INFO, text, (f"{whole(snapshot)}: no `nsid`",), corefile_to_have(planned, "nsid", new=True))


@single
def fixed_ports(snapshot: Snapshot, planned: Planned) -> Said:
    """C42."""
    held = [pod for pod in applications(snapshot) if any(map(_HOLDS_A_PORT.search, images_of(pod)))]
    if not held:
        return Said(Severity.PASS, "no pod of Envoy, Istio, HAProxy or nginx, which keep a source port", ())
    sure = [pod for pod in held if any(map(_BY_C_ARES.search, images_of(pod)))]
    lost = 0.0 if is_kube_dns(snapshot) else lasts(snapshot, planned)[Clients.FIXED]
    there = f"{counted(len(held), 'pod')} may ask from one source port for as long as they live: {owners(held)}"
    evidence: Evidence = some(held, "spec.containers[0].image")
    remedy = "# C05: a lameduck that outlasts readiness and propagation; Envoy: dns_resolver udp_max_queries"
    if lost and sure and planned.measured:
        return Said(Severity.FAIL, f"{there}; each pod that goes costs its clients up to {lost:g} s", evidence, remedy)
    return Said(Severity.WARN, f"{there}{f'; up to {lost:g} s lost each time a pod goes' if lost else ''}", evidence,
                remedy)  # fmt: skip


@single
def baseline(snapshot: Snapshot, planned: Planned) -> Said:
    """C43."""
    del snapshot
    loss, lasted = planned.figures.get("loss"), planned.figures.get("seconds", 0.0)
    run = "dnsprobe run baseline --set duration=2m -o baseline.db   # while nothing else goes on"
    again = f"{run}\ndnsprobe audit --from-run baseline.db"
    if loss is None:
        text = "no run says whether queries are lost already, before anything is changed"
        return Said(Severity.UNKNOWN, text, (), again)
    if lasted < 120:
        text = f"the run went for {lasted:.0f} s: 2 minutes and more say whether queries are lost already"
        return Said(Severity.UNKNOWN, text, (), again)
    said = f"{loss:.4%} of the queries to the Service were lost in {lasted:.0f} s"
    if loss >= 0.001:
        return Said(Severity.FAIL, f"{said}: what an upgrade adds could not be told from that", (), again)
    if loss > 0:
        return Said(Severity.WARN, said, (), again)
    return Said(Severity.PASS, f"no query to the Service was lost in {lasted:.0f} s", ())


STATE = (
    Check(
        "C38",
        "health now",
        "a rollout begun while a pod fails has one pod less to live on",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: status and logs of the CoreDNS pods",
        health,
    ),
    Check(
        "C39",
        "room in conntrack's table",
        "a full table drops the first packet of every new flow, so most DNS queries",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: conntrack table",
        conntrack,
    ),
    Check(
        "C40",
        "NetworkPolicies and port 53",
        "a policy that forgets port 53, by UDP and TCP, leaves its pods without DNS",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: usage notes",
        policies,
    ),
    Check(
        "C41",
        "answers that name their pod",
        "with it a run shows which pod each answer came from, and how long a pod that goes is still asked",
        "coredns plugin/nsid, plugin/chaos",
        identity,
    ),
    Check(
        "C42",
        "clients that keep a source port",
        "their flow stays with a pod that is gone until kube-proxy, or their own patience, ends it",
        "envoyproxy/envoy#7965; haproxy/haproxy#2654; c-ares ares_init_options(3)",
        fixed_ports,
    ),
    Check(
        "C43",
        "a clean baseline",
        "what is lost before the upgrade cannot be told from what it costs",
        "dnsprobe; kubernetes/kubernetes#129617",
        baseline,
    ),
)
