"""What makes the pods -> whether there are enough, spread, replaced slowly enough, and with room to reload."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from probe.advice import PLATFORMS, serves_for
from probe.advice.forms import KUBECTL
from probe.audit.check import Check, Planned, Said, Severity
from probe.audit.checks.subject import (
    HOSTNAME,
    ZONE,
    alive,
    by_label,
    can_have,
    container_field,
    counted,
    is_kube_dns,
    kubectl,
    pods_to_have,
    ready,
    selects,
    single,
    some,
)
from probe.audit.quantity import quantity, share_of
from probe.audit.snapshot import Snapshot, Unread, labels_of_pods, replicas_of
from probe.audit.things import Field, Json, Thing
from probe.cluster.owners import refusal

_PER_NODES, _PER_CORES = 16, 256
"""One replica for each: the usual ladder of cluster-proportional-autoscaler, EKS's and kOps' too."""
_MIB = 1 << 20
_LEAST_CPU = 0.2


@single
def replicas(snapshot: Snapshot, planned: Planned) -> Said:
    """C10."""
    dns = snapshot.workload
    there = replicas_of(dns)
    said = dns.field("status.desiredNumberScheduled" if dns.kind == "DaemonSet" else "spec.replicas")
    if there < 2:
        text = f"there is {counted(there, 'replica')}: while it is replaced nobody answers"
        return Said(Severity.FAIL, text, (said,), _scaled(snapshot, planned, 2))
    running = [pod for pod in snapshot.pods if ready(pod)]
    if len(running) < 2:
        text = f"of {there} replicas {len(running)} {'is' if len(running) == 1 else 'are'} Ready"
        evidence = (said, *some(snapshot.pods, "status.phase"))
        return Said(Severity.FAIL, text, evidence, f"{kubectl(snapshot)} describe pods {by_label(snapshot)}")
    if dns.kind == "DaemonSet":
        return Said(Severity.PASS, f"a DaemonSet: {there} pods, one for each node it is meant for", (said,))
    nodes = len(snapshot.nodes)
    cores = sum(quantity(node.at("status.capacity.cpu")) or 0 for node in snapshot.nodes)
    least = max(2, math.ceil(nodes / _PER_NODES), math.ceil(cores / _PER_CORES))
    size = f"{counted(nodes, 'node')} with {cores:g} cores"
    if there < least:
        text = f"{there} replicas for {size}: one for each {_PER_NODES} nodes or {_PER_CORES} cores would be {least}"
        return Said(Severity.WARN, text, (said,), _scaled(snapshot, planned, least))
    return Said(Severity.PASS, f"{there} replicas, {len(running)} Ready, for {size}", (said,))


def _scaled(snapshot: Snapshot, planned: Planned, n: int) -> str:
    """So many of them; where an autoscaler sets their number, its name and what to change of it."""
    dns = snapshot.workload
    around: list[Json] = []
    for kind in ("HorizontalPodAutoscaler", "Deployment"):
        with suppress(Unread):
            around += [one.body for one in snapshot.all(kind, dns.namespace)]
    if told := refusal("scale", [{"kind": dns.kind, "metadata": {"name": dns.name}}], around):
        return f"# {told}"
    return pods_to_have(snapshot, planned, {"replicas": n})


@single
def spread(snapshot: Snapshot, planned: Planned) -> Said:
    """C11."""
    here = [pod for pod in snapshot.pods if alive(pod) and not pod.at("metadata.deletionTimestamp")]
    placed = [pod for pod in here if pod.at("spec.nodeName")]
    evidence = tuple(pod.field("spec.nodeName") for pod in placed[:6])
    if len(placed) < 2:
        return Said(Severity.INFO, f"{counted(len(placed), 'pod')}: there is nothing to spread", evidence)
    per_node = Counter(str(pod.at("spec.nodeName")) for pod in placed)
    node, most = per_node.most_common(1)[0]
    usable = [one for one in snapshot.nodes if not one.at("spec.unschedulable")]
    remedy = _anew(snapshot, planned)
    if most > math.ceil(len(placed) / max(1, len(usable))):
        bad = 2 * most > len(placed) or len(per_node) == 1
        text = f"{most} of {len(placed)} pods are on {node}: a drain or the loss of that node takes them all at once"
        return Said(Severity.FAIL if bad else Severity.WARN, text, evidence, remedy)
    zones = {one.name: str(one.labels.get(ZONE) or "") for one in snapshot.nodes}
    used = {zones.get(name, "") for name in per_node} - {""}
    others = set(zones.values()) - {""}
    if len(used) == 1 and len(others) > 1:
        text = f"all {len(placed)} pods are in zone {next(iter(used))}, and the cluster has {len(others)} zones"
        return Said(Severity.WARN, text, evidence, remedy)
    if len(usable) < 2:
        return Said(Severity.INFO, "there is one node: nothing to spread over", evidence)
    asked = "" if _asks_to_spread(snapshot.workload) else ", by chance: nothing in the pods' template asks for it"
    zoned = f" in {len(used)} zones" if len(used) > 1 else ""
    return Said(Severity.PASS, f"{len(placed)} pods on {len(per_node)} nodes{zoned}{asked}", evidence)


def _anew(snapshot: Snapshot, planned: Planned) -> str:
    """New pods, where the template asks for a spread; else one that does."""
    dns = snapshot.workload
    if _asks_to_spread(dns):
        again = f"{kubectl(snapshot)} rollout restart {dns.kind.lower()} {dns.name}"
        return f"# its template asks for a spread, which was not to be had when these pods came:\n{again}"
    return pods_to_have(snapshot, planned, {"topologySpreadConstraints": _constraints(snapshot)})


def _constraints(snapshot: Snapshot) -> list[dict[str, object]]:
    """Soft ones: a hard one leaves pods Pending when a node or a zone is gone."""
    labels = {"matchLabels": snapshot.workload.at("spec.selector.matchLabels") or dict(snapshot.selector)}
    return [
        {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": labels}
        for key in (HOSTNAME, ZONE)
    ]


def _asks_to_spread(workload: Thing) -> bool:
    spec = "spec.template.spec"
    return bool(
        workload.kind == "DaemonSet"
        or workload.at(f"{spec}.topologySpreadConstraints")
        or workload.at(f"{spec}.affinity.podAntiAffinity")
    )


@single
def budget(snapshot: Snapshot, _planned: Planned) -> Said:
    """C12."""
    dns = snapshot.workload
    labels, n = labels_of_pods(dns), replicas_of(dns)
    every = snapshot.all("PodDisruptionBudget", dns.namespace)
    mine = [one for one in every if selects(one.at("spec.selector"), labels)]
    if dns.kind == "DaemonSet":
        return Said(Severity.PASS, "a DaemonSet: drains leave its pods alone", (str(dns),))
    if n < 2:
        text = "with one replica no budget helps: it blocks a drain, or protects nothing"
        return Said(Severity.INFO, text, (dns.field("spec.replicas"),))
    chosen = by_label(snapshot).removeprefix("-l ")
    name = dns.name if dns.name not in [one.name for one in every] else f"{dns.name}-replicas"
    make = f"{kubectl(snapshot)} create poddisruptionbudget {name} --selector={chosen} --max-unavailable=1"
    if not mine:
        text = "no PodDisruptionBudget: a drain of several nodes may evict all pods at once"
        return Said(Severity.WARN, text, (dns.field("spec.template.metadata.labels"),), make)
    if len(mine) > 1:
        text = (
            "several PodDisruptionBudgets select the same pods: an eviction is refused then, and a drain stands still"
        )
        keep = "# keep one of them, the platform's own if it has one:"
        remedy = f"{keep}\nkubectl -n {dns.namespace} delete poddisruptionbudget {mine[-1].name}"
        return Said(Severity.FAIL, text, some(mine, "spec.selector.matchLabels"), remedy)
    return _budget_said(mine[0], n)


def _budget_said(one: Thing, n: int) -> Said:
    least, most = one.field("spec.minAvailable"), one.field("spec.maxUnavailable")
    said = most if least.value is None else least
    spare = share_of(most.value, n, up=True) if least.value is None else n - share_of(least.value, n, up=True)
    patch = '{"spec":{"minAvailable":null,"maxUnavailable":1}}'
    remedy = f"kubectl -n {one.namespace} patch poddisruptionbudget {one.name} --type merge --patch '{patch}'"
    if spare <= 0:
        return Said(Severity.FAIL, f"it allows no pod of {n} to be evicted: a drain of their nodes stands still",
                    (said,), remedy)  # fmt: skip
    if spare >= n:
        return Said(Severity.FAIL, f"it allows all {n} pods to be evicted at once", (said,), remedy)
    if spare > 1 and 2 * spare > n:
        return Said(Severity.WARN, f"it allows {spare} of {n} pods to be evicted at once", (said,), remedy)
    return Said(Severity.PASS, f"{spare} of {n} pods may be evicted at a time", (said,))


@single
def pace(snapshot: Snapshot, planned: Planned) -> Said:
    """C13."""
    dns = snapshot.workload
    n = replicas_of(dns)
    if dns.kind == "DaemonSet":
        return _daemons_pace(snapshot, planned, n)
    gone, pause = dns.field("spec.strategy.rollingUpdate.maxUnavailable"), dns.field("spec.minReadySeconds")
    down = share_of("25%" if gone.value is None else gone.value, n, up=False)
    wait, lasts = float(pause.value or 0), _lasts(snapshot, planned)
    patch, strategy = _paced(snapshot, planned), dns.field("spec.strategy.type")
    known = f"a new pod counts {wait:g} s after it is Ready, and old ones go then"
    if strategy.value == "Recreate":
        return Said(Severity.FAIL, "all pods are deleted before the first new one starts", (strategy,), patch)
    if down >= n:
        text = "the one pod away before the new one is Ready" if n == 1 else f"all {counted(n, 'pod')} away at once"
        return Said(Severity.FAIL, f"a rollout may take {text}", (gone, dns.field("spec.replicas")), patch)
    if wait < planned.propagation and lasts < planned.propagation:
        text = (
            f"{known} and answer for {lasts:g} s; nodes need up to {planned.propagation:g} s to learn of it: for some"
            " all pods may be gone before they know a new one"
        )
        longer = "" if is_kube_dns(snapshot) else "\n# a lameduck that is longer than that mends it, too: C05"
        return Said(Severity.WARN, text, (pause, gone), f"{patch}{longer}")
    if down > 1:
        return Said(Severity.WARN, f"a rollout takes {down} of {n} pods away at a time", (gone,), patch)
    if wait < planned.propagation:
        text = f"{known}, but answer for {lasts:g} s: nodes need {planned.propagation:g} s to learn of it"
        return Said(Severity.INFO, text, (pause, gone))
    return Said(Severity.PASS, f"one pod at a time, each known for {wait:g} s before the next goes", (pause, gone))


def _paced(snapshot: Snapshot, planned: Planned) -> str:
    """One pod at a time, each known before the next goes; of that what the platform has a form for."""
    good: dict[str, Json] = {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    waits = {"minReadySeconds": max(15, math.ceil(planned.propagation)), **good}
    return pods_to_have(snapshot, planned, waits if can_have(snapshot, planned, waits) else good)


def _lasts(snapshot: Snapshot, planned: Planned) -> float:
    """For how long a pod that is told to go answers: kube-dns for its whole grace period (k/k#45976)."""
    if is_kube_dns(snapshot):
        return float(snapshot.workload.at("spec.template.spec.terminationGracePeriodSeconds") or 30)
    seen = PLATFORMS[planned.platform].seen(snapshot.shutdown)
    return serves_for(seen, seen.lameduck)


def _daemons_pace(snapshot: Snapshot, planned: Planned, n: int) -> Said:
    dns = snapshot.workload
    kind, gone = dns.field("spec.updateStrategy.type"), dns.field("spec.updateStrategy.rollingUpdate.maxUnavailable")
    if kind.value == "OnDelete":
        return Said(Severity.INFO, "OnDelete: its pods are replaced when somebody deletes them", (kind,))
    down = share_of(1 if gone.value is None else gone.value, n, up=True)
    if n and down >= n:
        fewer = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}}
        remedy = pods_to_have(snapshot, planned, fewer)
        return Said(Severity.FAIL, f"a rollout may take all {n} pods away at once", (gone,), remedy)
    return Said(Severity.PASS, f"a DaemonSet: {down} of {n} pods at a time", (gone,))


@single
def memory(snapshot: Snapshot, planned: Planned) -> Said:
    """C14."""
    limit = container_field(snapshot, "resources.limits.memory")
    raised = pods_to_have(snapshot, planned, {"resources": {"limits": {"memory": "2Gi"}}})
    killed = [
        pod.field(f"status.containerStatuses[{snapshot.container}].{state}.terminated.reason")
        for pod in snapshot.pods
        for state in ("lastState", "state")
    ]
    if dead := [one for one in killed if one.value == "OOMKilled"]:
        text = f"{counted(len(dead), 'pod')} ran out of memory: a reload holds two configurations at once"
        return Said(Severity.FAIL, text, (limit, *dead[:5]), raised)
    if limit.value is None:
        return Said(Severity.PASS, "no memory limit", (limit,))
    most, used = quantity(limit.value), planned.figures.get("resident_bytes") or _memory_now(snapshot)
    if used is None or not most:
        top = f"{kubectl(snapshot)} top pods {by_label(snapshot)} --containers"
        text = f"what CoreDNS uses of its {limit.value} is not known: a reload needs up to as much again"
        return Said(Severity.UNKNOWN, text, (limit,), f"{top}\n# over half of {limit.value}:\n{raised}")
    share = used / most
    said = f"a pod uses {used / _MIB:.0f} MiB, {share:.0%} of its limit"
    if share > 0.8:
        return Said(Severity.FAIL, f"{said}: a reload or an upgrade will kill it", (limit,), raised)
    if share >= 0.5:
        return Said(Severity.WARN, f"{said}: two configurations at a reload may not fit", (limit,), raised)
    return Said(Severity.PASS, said, (limit,))


def _memory_now(snapshot: Snapshot) -> float | None:
    """The most that a pod has by metrics.k8s.io; None where nobody serves that."""
    try:
        told = [one for one in snapshot.all("PodMetrics", snapshot.namespace) if one.name in map(_name, snapshot.pods)]
    except Unread:
        return None
    used = [quantity(one.at(f"containers[{snapshot.container}].usage.memory")) for one in told]
    return max(filter(None, used), default=None)


def _name(thing: Thing) -> str:
    return thing.name


@single
def cpu(snapshot: Snapshot, planned: Planned) -> Said:
    """C15."""
    limit = container_field(snapshot, "resources.limits.cpu")
    without = pods_to_have(snapshot, planned, {"resources": {"limits": {"cpu": None}}})
    if limit.value is None:
        return Said(Severity.PASS, "no CPU limit", (limit,))
    throttled = planned.figures.get("throttled")
    if throttled is not None and throttled > 0.25:
        text = f"it was throttled in {throttled:.0%} of its periods"
        return Said(Severity.FAIL, text, (limit,), without)
    if (quantity(limit.value) or 0) <= _LEAST_CPU or (throttled or 0) >= 0.05:
        text = f"its CPU limit is {limit.value}: answers come late when it is busy, as after a restart"
        return Said(Severity.WARN, text, (limit,), without)
    if throttled is None:
        periods = 'container_cpu_cfs_{}periods_total{{container="coredns"}}[5m]'
        ask = (
            f"# Prometheus; over 0.05 is too much:\n# rate({periods.format('throttled_')}) / rate({periods.format('')})"
        )
        return Said(Severity.UNKNOWN, "how much it is throttled is not known", (limit,), ask)
    return Said(Severity.PASS, f"it was throttled in {throttled:.0%} of its periods", (limit,))


@single
def surge(snapshot: Snapshot, planned: Planned) -> Said:
    """C37."""
    dns = snapshot.workload
    if dns.kind == "DaemonSet":
        return Said(Severity.PASS, "a DaemonSet: a pod is replaced where it stands", (str(dns),))
    n = replicas_of(dns)
    nodes = [one for one in snapshot.nodes if not one.at("spec.unschedulable") and _bears(dns, one)]
    gone = dns.field("spec.strategy.rollingUpdate.maxUnavailable")
    down = share_of("25%" if gone.value is None else gone.value, n, up=False)
    if term := _required(dns):
        meet = f"{counted(n, 'replica')} meet {counted(len(nodes), 'node')} that they may be on"
        text = f"no two pods may share a node, and {meet}"
        if n >= len(nodes) and down == 0:
            text += ": the new pod has no place and no old one may go: the rollout stands still for ever"
            relaxed = {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}
            return Said(Severity.FAIL, text, (term, gone), pods_to_have(snapshot, planned, relaxed))
        if n >= len(nodes):
            text += ": a new pod waits until an old one has gone"
            return Said(Severity.WARN, text, (term, gone), f"{KUBECTL} get nodes -o wide   # add one")
    refused = [
        event.field("message")
        for event in snapshot.all("Event", dns.namespace)
        if event.at("reason") == "FailedScheduling" and str(event.at("involvedObject.name")).startswith(f"{dns.name}-")
    ]
    look = "kubectl describe nodes | grep -A8 'Allocated resources'"
    if refused:
        text = "a pod of it found no place lately: the rollout's new one may wait, too"
        return Said(Severity.WARN, text, tuple(refused[:3]), look)
    if not nodes:
        taints = some(snapshot.nodes, "spec.taints")
        return Said(Severity.WARN, "no node lets its pods on: the rollout's new one has no place", taints, look)
    evidence = (container_field(snapshot, "resources.requests"),)
    text = f"{counted(len(nodes), 'node')} may take the new pod; whether there is CPU and memory left is not in the API"
    return Said(Severity.PASS, text, evidence, look)


def _required(workload: Thing) -> Field | None:
    """The rule that keeps its own pods on nodes of their own; None if there is none."""
    path = "spec.template.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution"
    for n, term in enumerate(workload.at(path) or []):
        if term.get("topologyKey") == HOSTNAME and selects(term.get("labelSelector"), labels_of_pods(workload)):
            return workload.field(f"{path}[{n}].topologyKey")
    return None


def _bears(workload: Thing, node: Thing) -> bool:
    """Whether its node selector and its tolerations let pods onto a node."""
    selector = workload.at("spec.template.spec.nodeSelector") or {}
    if any(node.labels.get(key) != value for key, value in selector.items()):
        return False
    tolerations: Sequence[dict[str, str]] = workload.at("spec.template.spec.tolerations") or []
    return all(
        any(_tolerates(one, taint) for one in tolerations)
        for taint in node.at("spec.taints") or []
        if taint.get("effect") in ("NoSchedule", "NoExecute")
    )


def _tolerates(toleration: dict[str, str], taint: dict[str, str]) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint.get("key"))
    return toleration.get("key") == taint.get("key") and (toleration.get("value") or "") == (taint.get("value") or "")


REPLICAS = (
    Check(
        "C10",
        "replicas",
        "one pod that is replaced, evicted or lost with its node must not be the only one",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures; EKS best practices: one for 16 nodes or 256 cores",
        replicas,
    ),
    Check(
        "C11",
        "spread over nodes and zones",
        "pods that share a node or a zone go with it at once",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: uneven load; kOps' manifest",
        spread,
    ),
    Check(
        "C12",
        "PodDisruptionBudget",
        "without one a drain may evict all pods at once; one that is too strict blocks every drain",
        "AWS, Recent changes to the CoreDNS add-on; kOps' manifest; aws/containers-roadmap#1028",
        budget,
    ),
    Check(
        "C13",
        "pace of a rollout",
        "pods that are replaced faster than nodes learn of new ones leave nodes with dead ones alone",
        "coredns/coredns#5409; gardener/gardener#4498",
        pace,
    ),
    Check(
        "C14",
        "memory for a reload",
        "a reload holds two configurations at once, and a pod that runs out of memory answers nobody",
        "Alibaba Cloud ACK, precautions for upgrading CoreDNS (2 GiB)",
        memory,
    ),
    Check(
        "C15",
        "CPU limit",
        "a pod that is throttled answers late, however idle its node is",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: overloaded; coredns/helm values.yaml (100m)",
        cpu,
    ),
    Check(
        "C37",
        "room for the new pod",
        "a rollout that finds no place for its new pod stands still",
        "coredns/deployment coredns.yaml.sed: required anti-affinity",
        surge,
    ),
)
"""C37 asks of the same objects."""
