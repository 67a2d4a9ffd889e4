"""Who keeps CoreDNS's objects, and what was customised -> what the next upgrade takes back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import yaml

from probe.audit.check import Check, Evidence, Planned, Said, Severity
from probe.audit.checks.subject import (
    at,
    is_kube_dns,
    kubectl,
    pods_to_have,
    root_forwards,
    said_version,
    some,
)
from probe.audit.quantity import numbers
from probe.audit.snapshot import Snapshot, Unread
from probe.audit.things import Json, Thing
from probe.cluster.owners import owner_of

_PEOPLE = re.compile(
    r"kubectl|Mozilla|Go-http-client|okhttp|lens|k9s|rancher|dashboard|HashiCorp|ansible|python", re.IGNORECASE
)
"""Managers of fields behind which somebody's hands or scripts stand."""
_APPLIED = ("kubectl-client-side-apply", "kubectl-create", "kubectl")
"""Who keeps what no platform does: whoever applies its manifest."""
_SKIP = "controlplane.cluster.x-k8s.io/skip-coredns"
_CAPI_KNOWS = (1, 14, 2)
"""The newest CoreDNS of corefile-migration at 1dc6c9e, which Cluster API uses."""
_CRITICAL = ("system-cluster-critical", "system-node-critical")
_TEMPLATE = "spec.template.spec"


def drift(snapshot: Snapshot, planned: Planned) -> Iterator[Said]:
    """C34."""
    del planned
    things = [one for one in (snapshot.workload, snapshot.config) if one]
    backup = (
        "\n".join(
            f"kubectl -n {one.namespace} get {one.kind.lower()} {one.name} -o yaml > {one.name}-{one.kind.lower()}.yaml"
            for one in things
        )
        + "\n# and after the upgrade: dnsprobe audit --against, with what `dnsprobe audit --save` wrote before"
    )
    if not any(one.at("metadata.managedFields") for one in things):
        text = "who changed what is not known: kubectl leaves managedFields out"
        whole = (
            f"{kubectl(snapshot)} get deployments,daemonsets,configmaps -o yaml --show-managed-fields > cluster.yaml"
        )
        yield Said(Severity.UNKNOWN, text, some(things), f"{whole}\n{backup}")
        return
    found = False
    for one in things:
        changed = _by_people(one)
        if changed:
            found = True
            owner = owner_of([one.body])
            keeps = f"; {owner.keeps}" if owner else ""
            text = f"{one} was customised: an upgrade may overwrite it{keeps}"
            yield Said(Severity.WARN, text, changed, backup)
    if not found:
        yield Said(Severity.PASS, "as who keeps it has made it: nobody else manages its fields", some(things))


def _by_people(thing: Thing) -> tuple[str, ...]:
    """The fields, `spec.replicas by kubectl-scale at 2026-11-01T..`, of managers that are no controllers."""
    said = []
    ours = ("kubectl-rollout", *(() if owner_of([thing.body]) else _APPLIED))
    for entry in thing.at("metadata.managedFields") or []:
        manager = str(entry.get("manager") or "")
        if entry.get("subresource") == "status" or not _PEOPLE.match(manager) or manager in ours:
            continue
        paths = [path for path in _paths(entry.get("fieldsV1") or {}) if _matters(path)]
        if paths:
            more = f" and {len(paths) - 4} more" if len(paths) > 4 else ""
            said.append(f"{thing} {', '.join(paths[:4])}{more}: by {manager} at {entry.get('time')}")
    return tuple(said)


def _matters(path: str) -> bool:
    return path.startswith(("spec.", "data.")) and "kubectl.kubernetes.io/restartedAt" not in path


def _paths(tree: Mapping[str, Json], before: str = "") -> Iterator[str]:
    """fieldsV1, `{"f:spec": {"f:replicas": {}}}`, as `spec.replicas`."""
    for key, inner in tree.items():
        if key == ".":
            continue
        kind, _, name = str(key).partition(":")
        if kind == "k":
            name = "[" + re.sub(r'.*:"([^"]*)".*', r"\1", name) + "]"
        here = f"{before}{name}" if name.startswith("[") else f"{before}.{name}".lstrip(".")
        deeper = list(_paths(inner, here)) if isinstance(inner, Mapping) else []
        yield from deeper or [here]


def keeper(snapshot: Snapshot, planned: Planned) -> Iterator[Said]:
    """C35."""
    machines = [one for one in snapshot.nodes if "cluster.x-k8s.io/machine" in one.annotations]
    try:
        planes = snapshot.all("KubeadmControlPlane")
    except Unread:
        planes = ()
        if machines:
            text = (
                "Cluster API made these machines; its KubeadmControlPlane, which may set CoreDNS's image, was not read"
            )
            remedy = "# read it too: dnsprobe audit --management-context CONTEXT"
            yield Said(Severity.WARN, text, some(machines, "metadata.annotations[cluster.x-k8s.io/machine]"), remedy)
            return
    for plane in planes:
        yield _by_plane(plane, planned)
    if planes:
        return
    image = _kubeadm_dns(snapshot)
    if image is None:
        text = "neither kubeadm nor Cluster API keeps CoreDNS here"
        yield Said(Severity.PASS, text, ("no configmap/kubeadm-config, no KubeadmControlPlane",))
        return
    tag, where = image
    backup = "# upgrade without it: kubeadm upgrade apply --skip-phases=addon/coredns   # or give it --patches"
    if tag:
        text = f"kubeadm sets CoreDNS to {tag} at each upgrade, whatever runs then"
        ours = not planned.target or numbers(tag) == numbers(planned.target)
        yield Said(Severity.INFO if ours else Severity.WARN, text, (where,), backup)
    else:
        text = "`kubeadm upgrade` sets CoreDNS to its own version: a newer one set by hand it would take back, or leave"
        yield Said(Severity.INFO, text, (where,), backup)


def _by_plane(plane: Thing, planned: Planned) -> Said:
    dns, skip = (
        plane.field("spec.kubeadmConfigSpec.clusterConfiguration.dns"),
        plane.field(f"metadata.annotations[{_SKIP}]"),
    )
    command = f"kubectl -n {plane.namespace} annotate kubeadmcontrolplane {plane.name} {_SKIP}=true"
    rolls = "   # in the management cluster; editing its spec instead replaces the machines"
    if skip.value is not None:
        text = "KubeadmControlPlane leaves CoreDNS alone, in upgrades"
        return Said(Severity.PASS, text, (skip,))
    target = numbers(planned.target)
    if target > _CAPI_KNOWS:
        text = (
            f"its corefile-migration knows no CoreDNS after {said_version(_CAPI_KNOWS)}: with {planned.target} its"
            " controller stops, before or after the image is changed"
        )
        return Said(Severity.FAIL, text, (dns,), f"{command}{rolls}\n# or a Cluster API that knows it")
    text = "KubeadmControlPlane sets CoreDNS's image and migrates the Corefile with the next upgrade"
    return Said(Severity.WARN, text, (dns,), f"{command}{rolls}")


def _kubeadm_dns(snapshot: Snapshot) -> tuple[str, str] | None:
    """The image tag that kubeadm-config names, '' if none; None if there is no such ConfigMap."""
    config = snapshot.one("ConfigMap", "kubeadm-config")
    if config is None:
        return None
    try:
        said = yaml.safe_load(str(config.at("data[ClusterConfiguration]") or "")) or {}
    except yaml.YAMLError:
        said = {}
    dns = (said.get("dns") if isinstance(said, Mapping) else None) or {}
    tag = str(dns.get("imageTag") or "")
    return tag, f"{config} data[ClusterConfiguration] dns.imageTag: {tag or 'not set'}"


def pod_spec(snapshot: Snapshot, planned: Planned) -> Iterator[Said]:
    """C36."""
    dns = snapshot.workload
    found = []
    policy = dns.field(f"{_TEMPLATE}.dnsPolicy")
    host = dns.at(f"{_TEMPLATE}.hostNetwork")
    forwards = [] if is_kube_dns(snapshot) else root_forwards(snapshot.corefile)
    by_node = [one for one in forwards if "/etc/resolv.conf" in one.arguments]
    if policy.value in (None, "ClusterFirst") and not host and by_node:
        text = "dnsPolicy ClusterFirst: its resolv.conf names its own Service, and it forwards to itself (plugin loop)"
        evidence: Evidence = (policy, *(at(snapshot, one) for one in by_node))
        found.append(Said(Severity.FAIL, text, evidence, pods_to_have(snapshot, planned, {"dnsPolicy": "Default"})))
    priority = dns.field(f"{_TEMPLATE}.priorityClassName")
    if priority.value not in _CRITICAL:
        text = "no critical priority: any pod of a higher one may push it off a full node"
        remedy = pods_to_have(snapshot, planned, {"priorityClassName": _CRITICAL[0]})
        found.append(Said(Severity.WARN, text, (priority,), remedy))
    tolerations = dns.field(f"{_TEMPLATE}.tolerations")
    shown: Evidence = (priority, policy, tolerations)
    yield from found or [Said(Severity.PASS, f"{priority.value}, dnsPolicy {policy.value}", shown)]


OWNERSHIP = (
    Check(
        "C34",
        "customised objects",
        "an upgrade applies the keeper's own template: what was changed by hand is gone afterwards",
        "Alibaba Cloud ACK, checks before upgrading CoreDNS; a study of CoreDNS upgrades by kubeadm and Cluster API",
        drift,
    ),
    Check(
        "C35",
        "kubeadm and Cluster API",
        "they set CoreDNS's image and migrate its Corefile when Kubernetes is upgraded",
        "a study of CoreDNS upgrades by kubeadm and Cluster API; cluster-api workload_cluster_coredns.go",
        keeper,
    ),
    Check(
        "C36",
        "priority and dnsPolicy of its pods",
        "cluster DNS must not be pushed off a node, nor ask itself",
        "kubeadm's manifest; coredns plugin/loop",
        pod_spec,
    ),
)
