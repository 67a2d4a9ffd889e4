"""Roles, Services, StatefulSets and the Corefile -> which names will be lost, cut short or wrong."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from probe.advice import PLATFORMS
from probe.advice.forms import KUBECTL, compact
from probe.audit.check import Check, Evidence, Planned, Said, Severity
from probe.audit.checks.subject import (
    at,
    corefile_to_have,
    counted,
    named,
    of_coredns,
    root_forwards,
    said_version,
    single,
    some,
    version_now,
    whole,
    with_more,
)
from probe.audit.quantity import numbers
from probe.audit.snapshot import Snapshot, images_of
from probe.audit.things import Json
from probe.corefile import Directive

_SLICES_SINCE, _SLICES_ALONE = (1, 8, 1), (1, 8, 4)
_TOLERATES = "service.alpha.kubernetes.io/tolerate-unready-endpoints"
_FEW, _MANY = 30, 60
_BUFSIZE, _CUT = 1232, 4096
_MAX_CONCURRENT = 1000
_PRIVATE_ZONE = ("100.100.2.136", "100.100.2.138")
_ALPINE = re.compile(r"alpine[:-]?v?3\.([0-9]+)")
_MUSL_TCP = 18
"""Alpine 3.18 has musl 1.2.4, the first that asks again by TCP."""


def _to_come(snapshot: Snapshot, planned: Planned) -> tuple[int, ...]:
    """The version after the upgrade, the running one if none is named."""
    return numbers(planned.target) or version_now(snapshot)


@of_coredns
@single
def roles(snapshot: Snapshot, planned: Planned) -> Said:
    """C27."""
    account = str(snapshot.workload.at("spec.template.spec.serviceAccountName") or "default")
    bound = [
        str(one.at("roleRef.name"))
        for one in snapshot.all("ClusterRoleBinding")
        for subject in one.at("subjects") or []
        if subject.get("kind") == "ServiceAccount"
        and (subject.get("name"), subject.get("namespace")) == (account, snapshot.namespace)
    ]
    mine = [role for role in snapshot.all("ClusterRole") if role.name in bound]
    allowed = {
        verb for role in mine for rule in role.at("rules") or [] if _of_slices(rule) for verb in rule.get("verbs") or []
    }
    evidence: Evidence = (snapshot.workload.field("spec.template.spec.serviceAccountName"), *some(mine, "rules"))
    if {"list", "watch"} <= allowed or "*" in allowed:
        return Said(Severity.PASS, f"{named(mine)} may list and watch EndpointSlices", evidence[:1] + some(mine))
    version = _to_come(snapshot, planned)
    role = mine[0].name if mine else "system:coredns"
    rule = {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
    none = not (mine and mine[0].at("rules"))
    added = compact([{"op": "add", "path": "/rules" if none else "/rules/-", "value": [rule] if none else rule}])
    remedy = f"kubectl patch clusterrole {role} --type json --patch '{added}'"
    if not mine:
        remedy = (
            "kubectl create clusterrole system:coredns --verb=list,watch"
            " --resource=endpointslices.discovery.k8s.io,services,pods,namespaces\n"
            f"kubectl create clusterrolebinding system:coredns --clusterrole=system:coredns"
            f" --serviceaccount={snapshot.namespace}:{account}"
        )
    text = f"ServiceAccount {account} may not list and watch EndpointSlices"
    if version >= _SLICES_SINCE:
        return Said(Severity.FAIL, f"{text}: CoreDNS {said_version(version)} knows no endpoint then", evidence, remedy)
    return Said(Severity.WARN, f"{text}, which CoreDNS from 1.8.1 on must", evidence, remedy)


def _of_slices(rule: Mapping[str, Json]) -> bool:
    groups, resources = rule.get("apiGroups") or [], rule.get("resources") or []
    return bool({"discovery.k8s.io", "*"} & set(groups) and {"endpointslices", "*"} & set(resources))


def unready(snapshot: Snapshot, planned: Planned) -> Iterator[Said]:
    """C28."""
    field = f"metadata.annotations[{_TOLERATES}]"
    old = [one for one in snapshot.all("Service") if str(one.at(field)).lower() == "true"]
    alone = [one for one in old if not one.at("spec.publishNotReadyAddresses")]
    if alone:
        patch = """--patch '{"spec":{"publishNotReadyAddresses":true}}'"""
        remedy = "\n".join(
            f"kubectl -n {one.namespace} patch service {one.name} {patch}\n"
            f"kubectl -n {one.namespace} annotate service {one.name} {_TOLERATES}-"
            for one in alone[:20]
        )
        version = _to_come(snapshot, planned)
        text = (
            f"{counted(len(alone), 'Service')} wish for pods that are not Ready by an annotation that CoreDNS from"
            f" 1.8.4 on does not know: {named(alone)}"
        )
        severity = Severity.FAIL if version >= _SLICES_ALONE else Severity.WARN
        yield Said(severity, text, some(alone, field), remedy)
    both = [one for one in old if one not in alone]
    if both:
        remedy = "\n".join(f"kubectl -n {one.namespace} annotate service {one.name} {_TOLERATES}-" for one in both[:20])
        text = f"{counted(len(both), 'Service')} have the old annotation beside publishNotReadyAddresses: {named(both)}"
        yield Said(Severity.WARN, text, some(both, field), remedy)
    if not old:
        yield Said(Severity.PASS, "no Service has the annotation tolerate-unready-endpoints", ())


def stateful(snapshot: Snapshot, _planned: Planned) -> Iterator[Said]:
    """C29."""
    services = {(one.namespace, one.name): one for one in snapshot.all("Service")}
    sets = snapshot.all("StatefulSet")
    field = "spec.serviceName"
    lost, led, none = [], [], []
    for one in sets:
        name = str(one.at(field) or "")
        service = services.get((one.namespace, name))
        if not name:
            none.append(one)
        elif service is None:
            lost.append(one)
        elif service.at("spec.clusterIP") != "None":
            led.append(one)
    if lost:
        text = (
            f"{counted(len(lost), 'StatefulSet')} name a Service that is missing, so no pod has a name: {named(lost)}"
        )
        remedy = "\n".join(
            f"kubectl -n {one.namespace} create service clusterip {one.at(field)} --clusterip=None"
            "   # and its selector: the pods' labels"
            for one in lost[:20]
        )
        yield Said(Severity.FAIL, text, some(lost, field), remedy)
    if led:
        text = f"{counted(len(led), 'StatefulSet')} name a Service with an address, so no pod has a name: {named(led)}"
        remedy = "# serviceName cannot be changed: recreate with kubectl delete statefulset NAME --cascade=orphan"
        yield Said(Severity.WARN, text, some(led, field), remedy)
    if none:
        text = f"{counted(len(none), 'StatefulSet')} name no Service: their pods have no names: {named(none)}"
        yield Said(Severity.INFO, text, some(none, field))
    if not (lost or led or none):
        yield Said(Severity.PASS, f"each of {counted(len(sets), 'StatefulSet')} names a headless Service", ())


@single
def headless(snapshot: Snapshot, _planned: Planned) -> Said:
    """C30."""
    wide = {(one.namespace, one.name): one for one in snapshot.all("Service") if one.at("spec.clusterIP") == "None"}
    n: dict[tuple[str, str], int] = defaultdict(int)
    for one in snapshot.all("EndpointSlice"):
        key = one.namespace, str(one.labels.get("kubernetes.io/service-name", ""))
        if key in wide:
            n[key] += sum(len(each.get("addresses") or []) for each in one.at("endpoints") or [])
    big = sorted((key for key in n if n[key] >= _FEW), key=lambda key: -n[key])
    if not big:
        text = f"no headless Service of {len(wide)} has {_FEW} endpoints: each answer fits into 512 octets"
        return Said(Severity.PASS, text, ())
    most = n[big[0]]
    shown = tuple(f"{wide[key]} endpoints: {n[key]}" for key in big[:5])
    remedy = '# clients of these, with glibc: spec.dnsConfig.options: [{"name": "use-vc"}]; Go: Dial by tcp'
    told = named([wide[key] for key in big])
    if most <= _MANY:
        text = f"answers with {_FEW} to {_MANY} addresses do not fit into 512 octets: clients need EDNS0 or TCP: {told}"
        return Said(Severity.WARN, text, shown, remedy)
    old = [pod for pod in snapshot.all("Pod") if any(map(_without_tcp, images_of(pod)))]
    text = f"answers with up to {most} addresses do not fit into {_BUFSIZE} octets: clients need TCP: {told}"
    if old:
        text += f"; images of Alpine before 3.18 have none and get a part: {named(old)}"
        return Said(Severity.FAIL, text, (*shown, *some(old, "spec.containers[0].image")), f"{remedy}; Alpine 3.18")
    return Said(Severity.WARN, text, shown, remedy)


def _without_tcp(image: str) -> bool:
    found = _ALPINE.search(image)
    return bool(found and int(found[1]) < _MUSL_TCP)


@of_coredns
@single
def autopath(snapshot: Snapshot, planned: Planned) -> Said:
    """C31."""
    searched = [one for one in snapshot.corefile.all("autopath") if "@kubernetes" in one.arguments]
    verified = [
        inner
        for one in snapshot.corefile.all("kubernetes")
        for inner in one.all("pods")
        if inner.arguments[:1] == ("verified",)
    ]
    here = tuple(at(snapshot, one) for one in (*searched, *verified))
    if searched:
        text = "autopath @kubernetes answers for the wrong namespace once a pod's address is used again"
        remedy = f"{KUBECTL} edit configmap coredns   # take out `autopath @kubernetes`"
        return Said(Severity.FAIL, text, here, remedy)
    if verified:
        text = "`pods verified` makes CoreDNS watch every pod: memory grows with their number"
        remedy = corefile_to_have(
            planned, "kubernetes cluster.local in-addr.arpa ip6.arpa {\n    pods insecure\n}", new=False
        )
        return Said(Severity.WARN, text, here, remedy)
    return Said(Severity.PASS, "neither autopath nor `pods verified`", (whole(snapshot),))


@of_coredns
def forward(snapshot: Snapshot, planned: Planned) -> Iterator[Said]:
    """C32."""
    found = root_forwards(snapshot.corefile)
    if not found:
        text = "names outside the cluster are forwarded to nobody"
        lines = f"forward . /etc/resolv.conf {{\n    max_concurrent {_MAX_CONCURRENT}\n}}"
        remedy = corefile_to_have(planned, lines, new=True)
        yield Said(Severity.WARN, text, (f"{whole(snapshot)}: no `forward .`",), remedy)
        return
    fine = True
    for one in found:
        for said in _forwarding(snapshot, planned, one):
            fine = False
            yield said
    if fine:
        yield Said(Severity.PASS, "max_concurrent is set, and more than one upstream can be asked",
                   tuple(at(snapshot, one) for one in found))  # fmt: skip


def _forwarding(snapshot: Snapshot, planned: Planned, one: Directive) -> Iterator[Said]:
    here, upstreams = (at(snapshot, one),), one.arguments[1:]
    head = f"forward {' '.join(one.arguments)}"
    private = [ip for ip in upstreams if ip.partition(":")[0] in _PRIVATE_ZONE]
    theirs = private or (planned.platform == "ack" and "/etc/resolv.conf" in upstreams)
    if theirs and not one.all("prefer_udp") and snapshot.cache is not None:
        text = "PrivateZone has no TCP, and NodeLocal DNSCache asks by TCP: its queries are forwarded so, and fail"
        lines = with_more(one, "prefer_udp")
        severity = Severity.FAIL if private else Severity.WARN
        yield Said(severity, text, (*here, str(snapshot.cache)), corefile_to_have(planned, lines, new=False))
    most = one.last("max_concurrent")
    said = most.arguments[0] if most and most.arguments else ""
    if not said.isdecimal() or int(said) < _MAX_CONCURRENT:
        now = f"max_concurrent is {said}" if said else "no max_concurrent"
        effect = "makes it refuse queries soon" if said else "fills its memory with queries that wait"
        text = f"{now}: a slow upstream {effect}"
        evidence = (at(snapshot, most),) if most else here
        lines = with_more(one, f"max_concurrent {_MAX_CONCURRENT}")
        # Where nobody can change it, as on AKS, nobody need be warned.
        severity = Severity.WARN if PLATFORMS[planned.platform].edit(lines, False) else Severity.INFO
        yield Said(severity, text, evidence, corefile_to_have(planned, lines, new=False))
    if len(upstreams) == 1 and not upstreams[0].startswith("/"):
        text = f"one upstream, {upstreams[0]}: while it is away no name outside the cluster is found"
        yield Said(Severity.WARN, text, here, corefile_to_have(planned, f"{head} SECOND", new=False))


@of_coredns
@single
def bufsize(snapshot: Snapshot, planned: Planned) -> Said:
    """C33."""
    found = snapshot.corefile.all("bufsize")
    remedy = corefile_to_have(planned, f"bufsize {_BUFSIZE}", new=not found)
    if not found:
        # Few have it by default, and little is lost: glibc and musl ask for 512 octets, Go and c-ares for 1232.
        text = f"no `bufsize {_BUFSIZE}`: a client that asks for more than a packet holds may get fragments, or nothing"
        return Said(Severity.INFO, text, (f"{whole(snapshot)}: no `bufsize`",), remedy)
    sizes = [int(one.arguments[0]) for one in found if one.arguments and one.arguments[0].isdecimal()]
    lines = tuple(at(snapshot, one) for one in found)
    most = max(sizes, default=_BUFSIZE)
    if most > _BUFSIZE:
        text = f"answers of up to {most} octets may be larger than a packet, and are lost where fragments are"
        return Said(Severity.FAIL if most >= _CUT else Severity.WARN, text, lines, remedy)
    return Said(Severity.PASS, f"answers by UDP have no more than {most} octets", lines)


NAMES = (
    Check(
        "C27",
        "CoreDNS may read EndpointSlices",
        "from 1.8.1 on it knows no endpoint without them",
        "CoreDNS, notes 1.8.1",
        roles,
    ),
    Check(
        "C28",
        "annotation tolerate-unready-endpoints",
        "CoreDNS from 1.8.4 on reads EndpointSlices, which do not have it: names of pods that are not Ready are gone",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: headless Services after an update; notes 1.8.4",
        unready,
    ),
    Check(
        "C29",
        "StatefulSets and their Services",
        "a pod of a StatefulSet has a name only by the headless Service that serviceName names",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: StatefulSet pods",
        stateful,
    ),
    Check(
        "C30",
        "large headless Services",
        "an answer that does not fit is cut short, and not every client asks again by TCP",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: headless Services, flag tc",
        headless,
    ),
    Check(
        "C31",
        "autopath and pods verified",
        "what they know of pods may be old, and costs memory",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: autopath; coredns plugin/autopath, Bugs",
        autopath,
    ),
    Check(
        "C32",
        "forward",
        "names outside the cluster depend on it alone",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: PrivateZone; kubeadm's manifest (max_concurrent)",
        forward,
    ),
    Check(
        "C33",
        "bufsize",
        "answers larger than a packet are lost where fragments are",
        "coredns plugin/bufsize",
        bufsize,
    ),
)
