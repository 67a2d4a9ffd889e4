"""The API and, if a person named it, the Service -> what is there: selections that are followed, and all that is said.

What cannot be read is left out and said in `not_seen`; the Service, its EndpointSlices and its pods must be readable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lightkube.resources.apps_v1 import DaemonSet, Deployment
from lightkube.resources.core_v1 import ConfigMap, Node, Pod, Service
from lightkube.resources.discovery_v1 import EndpointSlice

from probe.cluster import Shutdown
from probe.cluster.kube import objects, workloads
from probe.cluster.kube.api import Api, NotSeen, Selection
from probe.cluster.kube.corefile import Read, read_corefile
from probe.cluster.kube.objects import name_of
from probe.cluster.kube.watching import Watching
from probe.cluster.kube.workloads import Workload
from probe.errors import EnvironmentProblem
from probe.model import Target, TargetKind

_SYSTEM = "kube-system"
_LABEL = "k8s-app"
_KUBE_DNS, _NODELOCAL, _PROXY = "kube-dns", "node-local-dns", "kube-proxy"
_OPENSHIFT = ("openshift-dns", "dns-default")
_LOGS = (
    "its Corefile logs every query (plugin log): each of ours is a line, too, which the pods' CPU and whoever collects"
    " their logs pay for; `class error` in it logs those alone that failed"
)
_PROXY_CONFIGS = ("kube-proxy", "kube-proxy-config")
"""kubeadm's, and EKS's."""


async def find_service(api: Api, named: tuple[str, str] | None) -> Service:
    """The one that is named, or cluster DNS's; EnvironmentProblem names those that could be meant."""
    if named:
        found, _ = await api.list(Selection(Service, named[0], name=named[1]))
        if not found:
            raise EnvironmentProblem(f"there is no Service {named[1]} in {named[0]}: say another --service")
        return _with_address(found[0])
    labelled, _ = await api.list(Selection(Service, _SYSTEM, {_LABEL: _KUBE_DNS}))
    # NodeLocal DNSCache brings another one with this label, kube-dns-upstream.
    labelled.sort(key=lambda service: (name_of(service) != _KUBE_DNS, name_of(service).endswith("-upstream")))
    if not labelled:
        try:
            labelled, _ = await api.list(Selection(Service, _OPENSHIFT[0], name=_OPENSHIFT[1]))
        except NotSeen:
            labelled = []
    if labelled:
        return _with_address(labelled[0])
    others, _ = await api.list(Selection(Service, _SYSTEM))
    dns = [name_of(one) for one in others if any(p.port == 53 and p.protocol == "UDP" for p in one.spec.ports or [])]
    hint = f" {_SYSTEM} has {', '.join(dns)} on port 53:" if dns else ""
    raise EnvironmentProblem(
        f"no Service in {_SYSTEM} has the label {_LABEL}={_KUBE_DNS}, and there is no {'/'.join(_OPENSHIFT)}:{hint}"
        " say --service NAMESPACE/NAME"
    )


def _with_address(service: Service) -> Service:
    if objects.cluster_ips(service):
        return service
    raise EnvironmentProblem(f"Service {name_of(service)} has no cluster IP: say another with --service")


@dataclass(slots=True)
class Found:
    """What was found of cluster DNS, as it is now: its objects are those that are followed."""

    api: Api
    watching: Watching
    service: Service
    version: str
    slices: Selection
    pods: Selection
    maker: Selection | None = None
    """The Deployment or DaemonSet that makes the pods."""
    config: Selection | None = None
    """The ConfigMap with the Corefile."""
    nodes: Selection | None = None
    daemons: Selection | None = None
    """kube-proxy's and NodeLocal's DaemonSets."""
    proxy_mode: str = ""
    not_seen: list[str] = field(default_factory=list)

    def miss(self, text: str) -> None:
        """Take note, once, of what cannot be seen."""
        if text not in self.not_seen:
            self.not_seen.append(text)

    def now(self, what: Selection | None) -> list[Any]:
        """The objects of a selection, by name; none of what cannot be seen."""
        things = self.watching.things.get(what, {}) if what else {}
        return [things[name] for name in sorted(things)]

    @property
    def workload(self) -> Workload | None:
        """What makes the pods."""
        return next(iter(self.now(self.maker)), None)

    @property
    def container(self) -> str:
        """Of a pod's containers the one that answers; '' if none can be seen."""
        specs = [workloads.template_of(self.workload)] if self.workload else [pod.spec for pod in self.now(self.pods)]
        return next((objects.dns_container(spec).name for spec in specs), "")

    @property
    def cache(self) -> DaemonSet | None:
        """NodeLocal DNSCache's DaemonSet."""
        return next((one for one in self.now(self.daemons) if name_of(one) == _NODELOCAL), None)

    @property
    def corefile(self) -> Read:
        """What the Corefile says now; nothing if it cannot be seen."""
        return read_corefile("\n".join(objects.corefile_view(one).text for one in self.now(self.config)))

    @property
    def kubernetes(self) -> str:
        """The version of kube-proxy, `1.34`, or else of the API server."""
        proxies = [one for one in self.now(self.daemons) if name_of(one) == _PROXY]
        images = [objects.dns_container(workloads.template_of(one)).image or "" for one in proxies]
        ours = re.match(r"v?([0-9]+\.[0-9]+)", self.version)
        return next(filter(None, map(objects.version_of_image, images)), ours[1] if ours else self.version)

    def shutdown(self) -> Shutdown:
        """How its pods end; what could not be seen is as Kubernetes has it by default."""
        pods, mode = len(self.now(self.pods)), self.proxy_mode or "iptables"
        return workloads.shutdown_of(self.workload, pods, self.corefile, mode, self.kubernetes)

    def nodelocal(self) -> list[Target]:
        """NodeLocal DNSCache's own addresses."""
        caches = [one for one in self.now(self.daemons) if name_of(one) != _PROXY]
        return workloads.nodelocal_targets(caches, objects.cluster_ips(self.service))

    def upstream(self) -> list[Target]:
        """Where the Corefile forwards to, if it says so by address."""
        found = self.corefile.upstreams
        return [
            Target(f"upstream-{n}" if len(found) > 1 else "upstream", TargetKind.UPSTREAM, address, port)
            for n, (address, port) in enumerate(found, 1)
        ]

    def facts(self) -> dict[str, str]:
        """As a report shows them."""
        service, shutdown = self.service, self.shutdown()
        ips = ", ".join(objects.cluster_ips(service))
        meta = service.metadata
        said = {
            "cluster": f"{self.api.server}, {self.api.source}",
            "kubernetes": self.version,
            "service": f"{meta.namespace if meta else ''}/{name_of(service)}, {ips}, {objects.said_ports(service)}",
            "pods": self._said_pods(),
            "nodes": self._said_nodes(),
            "kube-proxy": ", ".join(filter(None, (self.proxy_mode, *self._images(_PROXY)))),
            "nodelocal": ", ".join((*(t.address for t in self.nodelocal()), *self._images(_NODELOCAL))),
            "upstream": " ".join(self.corefile.forwards),
        }
        if self.workload:
            asks = f"{shutdown.readiness}, {shutdown.readiness_period:g} s x {shutdown.readiness_failures}"
            said |= {
                "made by": f"{type(self.workload).__name__} {name_of(self.workload)}, {shutdown.replicas} replicas",
                "ends with": f"grace period {shutdown.grace_period:g} s, preStop {shutdown.pre_stop:g} s",
                "readiness": asks if shutdown.readiness != "none" else "none",
            }
        if self.now(self.config):
            read = self.corefile
            named = [f"{'' if name in read.plugins else 'no '}{name}" for name in ("ready", "nsid", "reload")]
            more = [f"imports {', '.join(read.imports)}, which is not read"] if read.imports else []
            said["corefile"] = ", ".join([f"lameduck {read.lameduck:g} s", *named, *more])
        if self.corefile.asks_resolv_conf:
            said["upstream"] += " of the pods: their nodes'"
        if self.corefile.logs:
            said["warning"] = _LOGS
        said |= {"not seen": "; ".join(self.not_seen)}
        return {name: text for name, text in said.items() if text}

    def _said_pods(self) -> str:
        pods = [objects.pod_view(pod) for pod in self.now(self.pods)]
        if not pods:
            return "none to see: the Service alone can be asked"
        zones = {node.name: node.zone for node in map(objects.node_view, self.now(self.nodes))}
        places = [f"{pod.node} ({zones[pod.node]})" if zones.get(pod.node) else pod.node for pod in pods]
        return f"{', '.join(sorted({pod.image for pod in pods}))} on {', '.join(places)}"

    def _said_nodes(self) -> str:
        nodes = self.now(self.nodes)
        if not nodes:
            return ""
        zones = sorted({node.zone for node in map(objects.node_view, nodes) if node.zone})
        kubelets = ", ".join(objects.kubelet_of(nodes))
        return f"{len(nodes)}{f' in {len(zones)} zones' if zones else ''}{f', kubelet {kubelets}' if kubelets else ''}"

    def _images(self, app: str) -> Iterable[str]:
        daemons = [one for one in self.now(self.daemons) if name_of(one) == app]
        return [objects.dns_container(workloads.template_of(one)).image or "" for one in daemons]


async def discover(api: Api, watching: Watching, service: Service, version: str) -> Found:
    """Everything, listed once and followed from then on."""
    namespace = str(service.metadata.namespace) if service.metadata else ""
    selector = dict((service.spec and service.spec.selector) or {})
    found = Found(
        *(api, watching, service, version),
        slices=Selection(EndpointSlice, namespace, {"kubernetes.io/service-name": name_of(service)}),
        pods=Selection(Pod, namespace, selector),
    )
    await watching.add(found.slices)
    if selector:  # one without is filled by somebody else: there are no pods to see
        await watching.add(found.pods)
        await _find_maker(found, selector, namespace)
        await _find_corefile(found, namespace)
    found.nodes = await _optional(found, Selection(Node))
    daemons = Selection(DaemonSet, _SYSTEM, {_LABEL: [_PROXY, _NODELOCAL]})
    found.daemons = await _optional(found, daemons)
    for name in _PROXY_CONFIGS:
        for config in await _once(found, Selection(ConfigMap, _SYSTEM, name=name)):
            found.proxy_mode = found.proxy_mode or objects.proxy_mode_of(config.data or {})
    if not found.proxy_mode:
        found.miss("kube-proxy's mode: no ConfigMap says it: iptables is supposed")
    return found


async def _find_maker(found: Found, selector: dict[str, str], namespace: str) -> None:
    """The workload with the most replicas whose pods are the Service's."""
    makers: list[tuple[int, type[Any], str]] = []
    kinds: tuple[type[Any], ...] = (Deployment, DaemonSet)
    for kind in kinds:
        there = await _once(found, Selection(kind, namespace))
        makers += [(workloads.replicas_of(one), kind, name_of(one)) for one in there if workloads.makes(one, selector)]
    if makers:
        _, kind, name = max(makers, key=lambda maker: maker[0])
        found.maker = await _optional(found, Selection(kind, namespace, name=name))
    elif not found.not_seen:
        found.miss(f"what makes the pods: no Deployment or DaemonSet in {namespace} has their labels")


async def _find_corefile(found: Found, namespace: str) -> None:
    """The ConfigMap that the pods mount and that has one."""
    specs = (
        [workloads.template_of(found.workload)] if found.workload else [pod.spec for pod in found.now(found.pods)[:1]]
    )
    for name in [name for spec in specs for name in objects.config_maps(spec)]:
        what = Selection(ConfigMap, namespace, name=name)
        if any(objects.corefile_view(one).text for one in await _once(found, what)):
            found.config = await _optional(found, what)
            return
    if not any("configmaps" in text for text in found.not_seen):
        found.miss("the Corefile: no ConfigMap that the pods mount has one")


async def _optional(found: Found, what: Selection) -> Selection | None:
    """It, followed; None, and a note, if it cannot be read."""
    try:
        await found.watching.add(what)
    except NotSeen as problem:
        found.miss(str(problem))
        return None
    return what


async def _once(found: Found, what: Selection) -> list[Any]:
    """Its objects, not followed; none, and a note, if they cannot be read."""
    try:
        return (await found.api.list(what))[0]
    except NotSeen as problem:
        found.miss(str(problem))
        return []
