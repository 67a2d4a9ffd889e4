"""Deployments and DaemonSets -> their rollouts as views to compare, how their pods end, NodeLocal's addresses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightkube.models.core_v1 import Container, PodSpec
from lightkube.resources.apps_v1 import DaemonSet, Deployment, ReplicaSet

from probe.cluster import Shutdown
from probe.cluster.kube.corefile import Read
from probe.cluster.kube.objects import PodView, dns_container, name_of
from probe.cluster.rollout import Standing
from probe.model import Target, TargetKind

_GRACE, _PERIOD, _FAILURES = 30, 10, 3
"""What the API server sets where a Deployment says nothing (core/v1 defaults)."""

_REVISION = "deployment.kubernetes.io/revision"

Workload = Deployment | DaemonSet


def template_of(workload: Workload) -> PodSpec:
    """The spec of its pods."""
    spec: Any = workload.spec  # apps/v1 demands it, and what is in it
    template: PodSpec = spec.template.spec
    return template


def makes(workload: Workload, selector: dict[str, str]) -> bool:
    """Whether its pods are a Service's."""
    meta = workload.spec.template.metadata
    labels = (meta.labels or {}) if meta else {}
    return bool(selector) and selector.items() <= labels.items()


@dataclass(frozen=True, slots=True)
class WorkloadView:
    """A Deployment or DaemonSet. revision: of its template; template: that one's hash, or the revision again.

    over: all its pods are of the newest template and available, as `kubectl rollout status` has it.
    """

    name: str
    revision: str
    template: str
    image: str
    wanted: int
    updated: int
    available: int
    over: bool


@dataclass(frozen=True, slots=True)
class ReplicaSetView:
    """One template's pods. revision: grows when the Deployment turns to this template again."""

    name: str
    revision: int
    image: str
    wanted: int


def replica_set_view(one: ReplicaSet) -> ReplicaSetView:
    """What is compared from one version of a ReplicaSet to the next."""
    meta: Any = one.metadata
    spec: Any = one.spec
    revision = (meta.annotations or {}).get(_REVISION, "0")
    image = dns_container(spec.template.spec).image or ""
    return ReplicaSetView(name_of(one), int(revision), image, 1 if spec.replicas is None else spec.replicas)


def workload_view(workload: Workload) -> WorkloadView:
    """What is compared from one version of a workload to the next."""
    meta: Any = workload.metadata
    status: Any = workload.status
    annotations = meta.annotations or {}
    wanted = replicas_of(workload)
    if isinstance(workload, DaemonSet):
        revision = annotations.get("deprecated.daemonset.template.generation", "")
        template = f"revision {revision}"
        updated, available = status.updatedNumberScheduled or 0, status.numberAvailable or 0
        over = min(updated, available) >= wanted
    else:
        revision = annotations.get(_REVISION, "")
        said = " ".join(c.message or "" for c in status.conditions or [] if c.type == "Progressing")
        newest = re.search(r'"[^"]*-([^"-]+)"', said)  # Created new replica set "coredns-668d6bf9bc"
        template = newest[1] if newest else f"revision {revision}"
        updated, available = status.updatedReplicas or 0, status.availableReplicas or 0
        over = updated >= wanted and (status.replicas or 0) <= updated <= available
    over &= (status.observedGeneration or 0) >= (meta.generation or 0)
    image = dns_container(template_of(workload)).image or ""
    return WorkloadView(name_of(workload), revision, template, image, wanted, updated, available, over)


def standing_of(workload: Workload, pods: Iterable[PodView] = ()) -> Standing:
    """What tells how far its rollout has come. pods: its own, as far as they can be seen."""
    view = workload_view(workload)
    meta: Any = workload.metadata
    status: Any = workload.status
    heard = (status.observedGeneration or 0) >= (meta.generation or 0)
    stuck = next((f"pod {pod.name}: {pod.stuck}" for pod in pods if pod.stuck), "")
    return Standing(
        name=view.name,
        template=json.dumps(workload.spec.template.to_dict(), sort_keys=True, default=str),
        image=view.image,
        updated=view.updated if heard else 0,
        wanted=view.wanted,
        over=view.over,
        stuck=stuck or _stuck(status.conditions or []),
        available=view.available,
    )


def _stuck(conditions: Iterable[Any]) -> str:
    """What a Deployment's conditions say; a DaemonSet has none."""
    told = {condition.type: condition for condition in conditions}
    progressing, failure = told.get("Progressing"), told.get("ReplicaFailure")
    if failure and failure.status == "True":
        return f"pods cannot be created: {failure.message or failure.reason}"
    if progressing and progressing.status == "False" and progressing.reason == "ProgressDeadlineExceeded":
        return "its progress deadline is exceeded"
    return ""


def replicas_of(workload: Workload) -> int:
    """How many pods it is asked for."""
    if isinstance(workload, DaemonSet):
        status: Any = workload.status
        return int(status.desiredNumberScheduled)
    return 1 if workload.spec.replicas is None else workload.spec.replicas


def shutdown_of(workload: Workload | None, pods: int, corefile: Read, proxy_mode: str, kubernetes: str) -> Shutdown:
    """How its pods end; the API's own defaults where nothing can be seen. pods: how many there are, if there is no
    workload to say it."""
    usual = Shutdown(
        replicas=pods,
        lameduck=corefile.lameduck,
        grace_period=float(_GRACE),
        pre_stop=0.0,
        readiness="ready",
        readiness_period=float(_PERIOD),
        readiness_failures=_FAILURES,
        proxy_mode=proxy_mode,
        kubernetes=kubernetes,
    )
    if workload is None:
        return usual
    spec = template_of(workload)
    container = dns_container(spec)
    probe = container.readinessProbe
    grace = spec.terminationGracePeriodSeconds
    path = probe.httpGet.path if probe and probe.httpGet else ""
    return replace(
        usual,
        replicas=replicas_of(workload),
        grace_period=float(_GRACE if grace is None else grace),
        pre_stop=pre_stop(container),
        readiness="ready" if path == "/ready" else "health" if probe else "none",
        readiness_period=float((probe and probe.periodSeconds) or _PERIOD),
        readiness_failures=(probe and probe.failureThreshold) or _FAILURES,
    )


def pre_stop(container: Container) -> float:
    """Seconds that its preStop hook sleeps, by `sleep` or a command; 0 for none, and for what does something else."""
    hook = container.lifecycle and container.lifecycle.preStop
    if hook and hook.sleep:
        return float(hook.sleep.seconds)
    words = " ".join((hook.exec.command or []) if hook and hook.exec else [])
    slept = re.search(r"\bsleep\s+([0-9]+(?:\.[0-9]+)?)s?\s*(?:$|[;&])", words)
    return float(slept[1]) if slept else 0.0


def local_ips(cache: DaemonSet) -> list[str]:
    """The addresses that a NodeLocal DNSCache listens on: `-localip` of its arguments."""
    words = [word for one in template_of(cache).containers for word in (one.command or []) + (one.args or [])]
    found: list[str] = []
    for n, word in enumerate(words):
        if match := re.fullmatch(r"--?localip(?:=(.*))?", word):
            found += (match[1] or " ".join(words[n + 1 : n + 2])).split(",")
    return [ip.strip() for ip in found if ip.strip()]


def nodelocal_targets(caches: Iterable[DaemonSet], service_ips: Sequence[str]) -> list[Target]:
    """Its own addresses; the Service's, which it may answer, too, only where it has no other."""
    found = []
    for cache in caches:
        ips = local_ips(cache)
        for n, ip in enumerate([ip for ip in ips if ip not in service_ips] or ips):
            found.append(Target(f"{name_of(cache)}-{n + 1}" if n else name_of(cache), TargetKind.NODELOCAL, ip))
    return found
