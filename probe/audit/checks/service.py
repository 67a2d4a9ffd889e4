"""Cluster DNS's Service -> whether it pins clients, leads to the right pods, and to enough of them from every zone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from probe.audit.check import Check, Evidence, Planned, Said, Severity
from probe.audit.checks.subject import ZONE, alive, counted, named, ready, single, some
from probe.audit.snapshot import Snapshot, Unread, labels_of_pods
from probe.audit.things import Thing

_HINTS = ("service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints")


def _service(snapshot: Snapshot) -> Thing:
    if snapshot.service is None:
        raise Unread("Service", f"no Service of cluster DNS in {snapshot.namespace}: say --service NAMESPACE/NAME")
    return snapshot.service


def _patch(service: Thing, spec: str) -> str:
    return f"kubectl -n {service.namespace} patch service {service.name} --patch '{{\"spec\":{spec}}}'"


def _with_port(service: Thing, name: str, protocol: str) -> str:
    """A strategic merge knows ports by their number alone, and would put TCP in the place of UDP."""
    target = next((one.get("targetPort") for one in service.at("spec.ports") or [] if one.get("port") == 53), 53)
    port = {"name": name, "port": 53, "protocol": protocol, "targetPort": target}
    patch = json.dumps([{"op": "add", "path": "/spec/ports/-", "value": port}], separators=(",", ":"))
    return f"kubectl -n {service.namespace} patch service {service.name} --type json --patch '{patch}'"


@single
def affinity(snapshot: Snapshot, _planned: Planned) -> Said:
    """C16."""
    service = _service(snapshot)
    said = service.field("spec.sessionAffinity")
    if said.value in (None, "None"):
        return Said(Severity.PASS, "no session affinity", (said,))
    hold = service.field("spec.sessionAffinityConfig.clientIP.timeoutSeconds")
    text = (
        f"each client address is held on one pod for {hold.value or 10800} s: when that pod goes the client loses all,"
        " not its share, and load is uneven"
    )
    remedy = _patch(service, '{"sessionAffinity":"None","sessionAffinityConfig":null}')
    return Said(Severity.FAIL, text, (said, hold), remedy)


def ports(snapshot: Snapshot, _planned: Planned) -> Iterator[Said]:
    """C17."""
    service = _service(snapshot)
    there = {(one.get("protocol", "TCP"), one.get("port")) for one in service.at("spec.ports") or []}
    shown = f"{service} spec.ports: {', '.join(sorted(f'{port}/{protocol}' for protocol, port in there))}"
    selector = service.field("spec.selector")
    found = []
    if ("UDP", 53) not in there:
        remedy = _with_port(service, "dns", "UDP")
        found.append(Said(Severity.FAIL, "the Service has no port 53/UDP", (shown,), remedy))
    if ("TCP", 53) not in there:
        text = "no port 53/TCP: truncated answers cannot be asked for again, and NodeLocal DNSCache comes by TCP alone"
        remedy = _with_port(service, "dns-tcp", "TCP")
        found.append(Said(Severity.WARN, text, (shown,), remedy))
    dns = snapshot.dns
    labels = labels_of_pods(dns) if dns else {}
    if dns and selector.value and not selector.value.items() <= labels.items():
        text = f"its selector does not match the pods of {dns}: new pods get no queries"
        evidence = (selector, dns.field("spec.template.metadata.labels"))
        remedy = f"kubectl -n {service.namespace} edit service {service.name}   # spec.selector: {dict(labels)}"
        found.append(Said(Severity.FAIL, text, evidence, remedy))
    unready = service.field("spec.publishNotReadyAddresses")
    if unready.value:
        text = "pods that are not Ready get queries, too: new ones before they know any record"
        remedy = _patch(service, '{"publishNotReadyAddresses":false}')
        found.append(Said(Severity.WARN, text, (unready,), remedy))
    others = [one for one in snapshot.candidates[1:] if _made_for(snapshot, one)]
    if others:
        text = f"it leads to pods of {named(others)}, too: what is said here is of {dns}"
        found.append(Said(Severity.WARN, text, some(others), "# two that answer for one Service: is that meant?"))
    if not selector.value:
        text = "it has no selector: somebody else fills its endpoints, and which pods those are is not known here"
        found.append(Said(Severity.INFO, text, (selector,)))
    yield from found or [Said(Severity.PASS, "53/UDP and 53/TCP, and it selects the pods there are", (shown, selector))]


def _made_for(snapshot: Snapshot, workload: Thing) -> bool:
    return bool(snapshot.selector) and snapshot.selector.items() <= labels_of_pods(workload).items()


@single
def endpoints(snapshot: Snapshot, _planned: Planned) -> Said:
    """C18."""
    pods = {address: pod for pod in snapshot.pods for address in _addresses(pod)}
    listed = {
        str(address): (one, each)
        for one in snapshot.slices
        for each in one.at("endpoints") or []
        for address in each.get("addresses") or []
    }
    look = (
        f"kubectl -n {snapshot.namespace} get endpointslices,pods -o wide   # again: they are read one after the other"
    )
    evidence = some(snapshot.slices)
    if not listed:
        return Said(Severity.FAIL, "the Service has no endpoint", evidence or (str(_service(snapshot)),), look)
    stale = [address for address in listed if address not in pods]
    if stale:
        shown = tuple(f"{listed[address][0]} endpoints: {address}" for address in stale[:5])
        text = f"{counted(len(stale), 'endpoint')} of no pod that there is: a share of the queries goes nowhere"
        remedy = (
            f"{look}\n# is the controller alive? kubectl -n kube-system get pods -l component=kube-controller-manager"
        )
        return Said(Severity.FAIL, text, shown, remedy)
    missing = [pod for pod in snapshot.pods if ready(pod) and not any(ip in listed for ip in _addresses(pod))]
    wrong = [
        pod
        for address, pod in pods.items()
        if address in listed and ((listed[address][1].get("conditions") or {}).get("ready", True) != ready(pod))
    ]
    if missing or wrong:
        text = f"the EndpointSlices lag behind: {counted(len(missing + wrong), 'pod')} otherwise than they say"
        return Said(Severity.WARN, text, some(missing + wrong, "status.conditions"), look)
    return Said(Severity.PASS, f"{counted(len(listed), 'endpoint')}, as the pods are", evidence)


def _addresses(pod: Thing) -> list[str]:
    """Of both families; none of a pod that has ended."""
    if not alive(pod):
        return []
    both = [str(one.get("ip")) for one in pod.at("status.podIPs") or []]
    return both or list(filter(None, [str(pod.at("status.podIP") or "")]))


def near(snapshot: Snapshot, _planned: Planned) -> Iterator[Said]:
    """C48."""
    service = _service(snapshot)
    running = [pod for pod in snapshot.pods if ready(pod)]
    local = service.field("spec.internalTrafficPolicy")
    if local.value == "Local":
        has = {str(pod.at("spec.nodeName")) for pod in running}
        without = [node for node in snapshot.nodes if node.name not in has]
        remedy = _patch(service, '{"internalTrafficPolicy":"Cluster"}')
        text = "queries go to pods of the same node alone"
        if without:
            have = "has" if len(without) == 1 else "have"
            text += f": {counted(len(without), 'node')} of {len(snapshot.nodes)} {have} none, and so no DNS"
            yield Said(Severity.FAIL, text, (local, *some(without)), remedy)
        else:
            yield Said(Severity.WARN, f"{text}: a node has no DNS while its pod is replaced", (local,), remedy)
        return
    wish = service.field("spec.trafficDistribution")
    hint = next((f for f in (service.field(f"metadata.annotations[{key}]") for key in _HINTS) if f.value), None)
    if not wish.value and not (hint and str(hint.value).lower() == "auto"):
        yield Said(Severity.PASS, "queries go to pods of all zones", (local, wish))
        return
    said = wish if wish.value else hint
    zones = {node.name: str(node.labels.get(ZONE) or "") for node in snapshot.nodes}
    pods = Counter(zones.get(str(pod.at("spec.nodeName")), "") for pod in running)
    alone = sorted(zone for zone in set(zones.values()) - {""} if pods[zone] == 1)
    evidence: Evidence = (said or wish, *(f"zone {zone}: 1 pod" for zone in alone[:5]))
    if alone:
        have = "has one pod" if len(alone) == 1 else "have one pod each"
        text = (
            f"queries stay in their zone, and {', '.join(alone)} {have}: while it is replaced the zone loses all of its"
            " queries, until nodes have learnt to go elsewhere"
        )
        remedy = _patch(service, '{"trafficDistribution":null}')
        if not wish.value and hint:
            key = hint.path.partition("[")[2].rstrip("]")
            remedy = f"kubectl -n {service.namespace} annotate service {service.name} {key}-"
        remedy += "\n# or two pods in each zone"
        yield Said(Severity.WARN, text, evidence, remedy)
    else:
        yield Said(Severity.INFO, "queries stay in their zone, where it has a pod; none has just one", evidence)


SERVICE = (
    Check(
        "C16",
        "sessionAffinity of the Service",
        "a client that is held on one pod loses all its queries when that pod goes",
        "Alibaba Cloud ACK, precautions for upgrading CoreDNS",
        affinity,
    ),
    Check(
        "C17",
        "ports and selector of the Service",
        "a Service without 53/TCP, or that selects other pods, breaks with the new pods",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures",
        ports,
    ),
    Check(
        "C18",
        "EndpointSlices and Ready pods",
        "an address of no pod takes its share of the queries with it",
        "kubernetes pkg/controller/endpointslice (podToEndpoint)",
        endpoints,
    ),
    Check(
        "C48",
        "queries kept near: traffic policy, distribution, hints",
        "where queries stay in a zone or on a node, its last pod is all the DNS it has",
        "Kubernetes, Service: traffic distribution; Service internal traffic policy",
        near,
    ),
)
