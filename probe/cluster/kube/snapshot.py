"""The API of a cluster -> the objects that the audit goes by, read once and reduced to what it needs.

Read-only, page by page, each kind for itself: what cannot be read is said, and the others are read all the same. No
Secret is read, and of ConfigMaps only those that are named here or that cluster DNS's own workloads name.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.apps_v1 import DaemonSet, Deployment, ReplicaSet, StatefulSet
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler
from lightkube.resources.core_v1 import ConfigMap, Event, Namespace, Node, Pod, Service, ServiceAccount
from lightkube.resources.discovery_v1 import EndpointSlice
from lightkube.resources.networking_v1 import NetworkPolicy
from lightkube.resources.policy_v1 import PodDisruptionBudget
from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding
from msgspec import MsgspecError, Raw, json

from probe.cluster.kube.api import Api, Denied, NotFound, Selection
from probe.cluster.kube.reduced import DNS, Json, Reduced
from probe.errors import EnvironmentProblem

SYSTEM, OPENSHIFT = "kube-system", "openshift-dns"
ANYWHERE = "all namespaces"
PodMetrics = create_namespaced_resource("metrics.k8s.io", "v1beta1", "PodMetrics", "pods")
_CONTROL_PLANES = [
    create_namespaced_resource("controlplane.cluster.x-k8s.io", version, "KubeadmControlPlane", "kubeadmcontrolplanes")
    for version in ("v1beta2", "v1beta1")
]
CONFIGS = (
    "coredns", "coredns-custom", "kube-dns", "dns-default", "node-local-dns", "nodelocaldns", "kube-proxy",
    "kube-proxy-config", "kube-proxy-worker", "kube-proxy-master", "kubeadm-config", "cilium-config",
    "kube-dns-autoscaler", "coredns-autoscaler", "dns-autoscaler",
)  # fmt: skip
"""Of ConfigMaps those that are asked for by name, in the namespaces of cluster DNS; and what its workloads mount."""
_OURS = re.compile(r"k8s-dns-|kube-proxy")
_AUTOSCALER = re.compile(r"--?configmap[= ](\S+)")
_WARNINGS = "type=Warning"
_ALIVE = "status.phase!=Succeeded,status.phase!=Failed"

KINDS: dict[str, type[Any]] = {
    one.__name__: one
    for one in (Service, EndpointSlice, Pod, Node, Namespace, Deployment, DaemonSet, ReplicaSet, StatefulSet,
                NetworkPolicy, PodDisruptionBudget, HorizontalPodAutoscaler, ConfigMap, Event, ServiceAccount,
                ClusterRole, ClusterRoleBinding, PodMetrics, _CONTROL_PLANES[0])
}  # fmt: skip
"""Every kind that is read, or kept of files."""
_OF_SYSTEM = (
    "Deployment", "DaemonSet", "ReplicaSet", "PodDisruptionBudget", "HorizontalPodAutoscaler", "EndpointSlice",
    "ServiceAccount", "PodMetrics",
)  # fmt: skip
"""Those that are read in the namespaces of cluster DNS alone."""


@dataclass(slots=True)
class Objects:
    """What was read, each with its kind. unread: as probe.audit.snapshot has it. version: the API server's."""

    things: list[Json] = field(default_factory=list, repr=False)
    unread: dict[str, str] = field(default_factory=dict)
    version: str = ""
    source: str = ""

    def of(self, kind: str) -> Iterator[Json]:
        """Those of a kind."""
        return (one for one in self.things if one["kind"] == kind)


async def read(api: Api, named: tuple[str, str] | None = None, tell: Callable[[str], None] = lambda _: None) -> Objects:
    """All of it. named: the Service, if a person said which. EnvironmentProblem if the API cannot be asked at all.

    tell: gets how far it is.
    """
    found = Objects(source=f"{api.server}, {api.source}")
    found.unread["KubeadmControlPlane"] = "it is in the management cluster: say --management-context CONTEXT"
    spaces = {SYSTEM, *([named[0]] if named else [])}
    reading = _Pass(api, found, tell, spaces)
    try:
        found.version = await api.version()
    except Denied as problem:
        found.unread["version"] = str(problem)
    await reading.wide("Service", "", "")
    services = {(one["metadata"].get("namespace"), one["metadata"]["name"]) for one in found.of("Service")}
    spaces.update({OPENSHIFT} & {namespace for namespace, _ in services})  # those of the pass, too
    await asyncio.gather(
        reading.wide("EndpointSlice", "service.kubernetes.io/headless", ""),
        reading.wide("Pod", "", _ALIVE),
        reading.wide("StatefulSet", "", ""),
        reading.wide("NetworkPolicy", "", ""),
        reading.inside("Node", ""),
        reading.inside("Namespace", ""),
        reading.inside("Event", "default", _WARNINGS),
        *(reading.inside("Event", space, _WARNINGS) for space in spaces),
        *(reading.inside(kind, space) for space in spaces for kind in _OF_SYSTEM),
    )
    await asyncio.gather(reading.configs(), reading.roles())
    return found


async def read_control_planes(api: Api) -> Objects:
    """KubeadmControlPlanes of a management cluster, in whichever version it has them."""
    found = Objects(source=f"{api.server}, {api.source}")
    for kind in _CONTROL_PLANES:
        try:
            async for page in api.pages(Selection(kind)):
                found.things += [{"kind": "KubeadmControlPlane", **json.decode(one)} for one in page]
        except EnvironmentProblem as problem:
            found.unread["KubeadmControlPlane"] = str(problem)
            if not isinstance(problem, NotFound):
                return found
        else:
            found.unread.clear()
            return found
    return found


def problem_of(kind: str, body: Json) -> str:
    """Why it is no object of that kind, as msgspec says (Expected `int`, got `str` - at `$.spec.replicas`); or ''."""
    try:
        KINDS[kind].from_dict(body)
    except (MsgspecError, UnicodeEncodeError) as problem:
        return str(problem)
    return ""


class _Pass:
    """One pass: what it has read, whom it tells, and the namespaces that cluster DNS may be in."""

    def __init__(self, api: Api, found: Objects, tell: Callable[[str], None], spaces: set[str]) -> None:
        self._api, self._found, self._tell, self._spaces = api, found, tell, spaces
        self._reduced = Reduced()
        self._seen: set[tuple[str, str, str]] = set()
        self._n = 0

    async def wide(self, kind: str, labels: str, fields: str) -> None:
        """Of all namespaces; if that is not allowed, of those of cluster DNS alone."""
        try:
            await self._list(kind, "", labels, fields)
        except EnvironmentProblem as problem:
            self._found.unread[f"{kind} in {ANYWHERE}"] = str(problem)
            if kind in ("Service", "Pod"):
                await asyncio.gather(*(self.inside(kind, space) for space in self._spaces))

    async def inside(self, kind: str, namespace: str, fields: str = "") -> None:
        """Of one namespace, or of those without one."""
        try:
            await self._list(kind, namespace, "", fields)
        except EnvironmentProblem as problem:
            self._found.unread[f"{kind} in {namespace}" if namespace else kind] = str(problem)

    async def _list(self, kind: str, namespace: str, labels: str, fields: str) -> None:
        async for page in self._api.pages(Selection(KINDS[kind], namespace), labels, fields):
            self._keep(kind, page)
            self._tell(f"reading the cluster: {self._n:,} objects, now {kind}s")

    def _keep(self, kind: str, page: Iterable[Raw]) -> None:
        for raw in page:
            self._n += 1
            body = self._reduced.object(kind, raw)
            meta = body["metadata"]
            key = kind, meta.get("namespace", ""), meta["name"]
            if key not in self._seen:  # headless EndpointSlices of kube-system are listed twice
                self._seen.add(key)
                self._found.things.append(body)

    async def configs(self) -> None:
        """ConfigMaps, by name: those that are known, and those that DNS's workloads name."""
        wanted = {(space, name) for space in self._spaces for name in CONFIGS}
        wanted |= {(str(one["metadata"]["namespace"]), name) for one in self._workloads() for name in named_by(one)}
        await asyncio.gather(*(self._one("ConfigMap", name, space) for space, name in sorted(wanted)))

    def _workloads(self) -> Iterator[Json]:
        yield from self._found.of("Deployment")
        yield from self._found.of("DaemonSet")

    async def roles(self) -> None:
        """What CoreDNS's ServiceAccounts may do: their ClusterRoleBindings, and the ClusterRoles these name."""
        accounts = {
            (str(one["metadata"]["namespace"]), str(spec.get("serviceAccountName") or "default"))
            for one in self._workloads()
            if _is_ours(spec := one["spec"]["template"]["spec"])
        }
        before = len(self._found.things)
        await self.inside("ClusterRoleBinding", "")
        bound = [one for one in self._found.things[before:] if _bound(one) & accounts]
        self._found.things[before:] = bound
        if "ClusterRoleBinding" in self._found.unread:
            names = {"system:coredns"}
        else:
            names = {str(one["roleRef"]["name"]) for one in bound if one["roleRef"].get("kind") == "ClusterRole"}
        await asyncio.gather(*(self._one("ClusterRole", name, "") for name in sorted(names)))

    async def _one(self, kind: str, name: str, namespace: str) -> None:
        try:
            body = await self._api.one("get", Selection(KINDS[kind], namespace, name=name))
        except NotFound:
            return
        except EnvironmentProblem as problem:
            self._found.unread[f"{kind} {name}"] = str(problem)
        else:
            self._found.things.append({"kind": kind, **body})


def named_by(workload: Json) -> set[str]:
    """The ConfigMaps that a workload of cluster DNS or kube-proxy mounts, or that an autoscaler's flag names."""
    spec = workload["spec"]["template"].get("spec") or {}
    words = " ".join(
        str(word)
        for one in spec.get("containers") or []
        for word in [*(one.get("command") or []), *(one.get("args") or [])]
    )
    found = set(_AUTOSCALER.findall(words)) if "autoscaler" in words or "--target" in words else set()
    if _is_ours(spec):
        found |= {str(one["configMap"].get("name") or "") for one in spec.get("volumes") or [] if one.get("configMap")}
    return found


def _is_ours(spec: Json) -> bool:
    images = [str(one.get("image") or "") for one in spec.get("containers") or []]
    return any(DNS.search(image) or _OURS.search(image) for image in images)


def _bound(binding: Json) -> set[tuple[str, str]]:
    subjects = binding.get("subjects") or []
    return {
        (str(one.get("namespace")), str(one.get("name"))) for one in subjects if one.get("kind") == "ServiceAccount"
    }
