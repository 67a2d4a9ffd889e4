"""The API and, if a person named it, the Service -> what is there: selections that are followed, and all that is said.

What cannot be read is left out and said in `not_seen`; the Service, its EndpointSlices and its pods must be readable.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from lightkube.resources.apps_v1 import DaemonSet, Deployment, ReplicaSet
from lightkube.resources.core_v1 import ConfigMap, Event, Node, Pod, Service
from lightkube.resources.discovery_v1 import EndpointSlice

from probe.cluster import Extent, Meter, Shutdown
from probe.cluster.kube import objects, workloads
from probe.cluster.kube.api import Api, NotSeen, Selection
from probe.cluster.kube.corefile import Read, read_corefile
from probe.cluster.kube.objects import name_of
from probe.cluster.kube.watching import Watching
from probe.cluster.kube.workloads import Workload
from probe.cluster.scrape import is_ours
from probe.errors import EnvironmentProblem
from probe.model import Target, TargetKind
from probe.resolv import is_pod, own_resolv_conf, upstreams_of

_SYSTEM, _DEFAULT = "kube-system", "default"
"""The second has the Events of nodes."""
_LABEL = "k8s-app"
_KUBE_DNS, _NODELOCAL, _PROXY = "kube-dns", "node-local-dns", "kube-proxy"
_OPENSHIFT = ("openshift-dns", "dns-default")
_COREDNS = "coredns"
"""The ConfigMap with the Corefile, where nothing tells its name; OpenShift's is called as its Service."""
_REVERSE = ("in-addr.arpa", "ip6.arpa")
_LOGS = (
    "its Corefile logs every query (plugin log): each of ours is a line, too, which the pods' CPU and whoever collects"
    " their logs pay for; `class error` in it logs those alone that failed"
)
_PROXY_CONFIGS = ("kube-proxy", "kube-proxy-config")
"""kubeadm's, and EKS's."""
_PROXY_PORT, _LOOPBACK = 10249, "127.0.0.1"
_KUBELET = 10250
"""kubelet's port (KubeletConfiguration, port)."""
_MOST = 20
"""So many nodes' kube-proxies, or kubelets, are asked."""


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
    endpoints_only: bool = False
    """Pods are known by the EndpointSlices."""
    node_count: int = 0
    """How many nodes there are where no more of them is read; 0 if that cannot be seen."""
    once: Read = field(default_factory=Read)
    """Of the Corefile the zones, where it is read once and not followed."""

    def miss(self, text: str) -> None:
        """Take note, once, of what cannot be seen."""
        if text not in self.not_seen:
            self.not_seen.append(text)

    def concerns(self, about: tuple[str, str]) -> bool:
        """Whether an Event about an object of this kind and name is of CoreDNS, of what it needs or of one of its
        nodes."""
        kind, name = about
        pods = self.now(self.pods)
        if kind == "Node":
            return any(pod.spec.nodeName == name for pod in pods)
        makers = [name_of(self.workload)] if self.workload else []
        of = (*makers, _PROXY, _NODELOCAL, *map(name_of, pods))
        return any(name == one or name.startswith(f"{one}-") for one in of)

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
        if self.endpoints_only:
            return self.once
        return read_corefile("\n".join(objects.corefile_of(one) for one in self.now(self.config)))

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

    def extent(self) -> Extent:
        """Ready nodes; the zones of the Corefile's plugin kubernetes, or else, in a pod, the domain of resolv.conf."""
        ready = [node for node in map(objects.node_view, self.now(self.nodes)) if node.ready]
        domain = own_resolv_conf().domain if is_pod() else ""
        return Extent(len(ready) or self.node_count, self.corefile.zones or ((domain, *_REVERSE) if domain else ()))

    def nodelocal(self) -> list[Target]:
        """NodeLocal DNSCache's own addresses."""
        caches = [one for one in self.now(self.daemons) if name_of(one) != _PROXY]
        return workloads.nodelocal_targets(caches, objects.cluster_ips(self.service))

    def upstream(self) -> list[Target]:
        """Where the Corefile forwards to: by address, or where it says /etc/resolv.conf by our own, if that serves."""
        found = self.corefile.upstreams
        if self.corefile.asks_resolv_conf:
            found += [(address, 53) for address in self._own_upstreams() if (address, 53) not in found]
        return [
            Target(f"upstream-{n}" if len(found) > 1 else "upstream", TargetKind.UPSTREAM, address, port)
            for n, (address, port) in enumerate(found, 1)
        ]

    def kubelets(self) -> list[Target]:
        """Of the nodes that CoreDNS pods are on: their port is open on every node."""
        on = {pod.spec.nodeName for pod in self.now(self.pods)}
        there = [node for node in self.now(self.nodes) if name_of(node) in on and objects.node_address(node)]
        return [Target(name_of(one), TargetKind.NODE, objects.node_address(one), _KUBELET) for one in there[:_MOST]]

    def api_server(self) -> list[Target]:
        """As we reach it, where its address is none that has to be looked up."""
        url = urlsplit(self.api.server)
        try:
            address = str(ipaddress.ip_address(url.hostname or ""))
        except ValueError:
            return []
        return [Target("kube-apiserver", TargetKind.API, address, url.port or 443)]

    def _own_upstreams(self) -> list[str]:
        """Nameservers of our own resolv.conf, if we are a pod and it is its node's."""
        ours = [target.address for target in self.nodelocal()] + objects.cluster_ips(self.service)
        return upstreams_of(own_resolv_conf(), ours) if is_pod() else []

    def _said_upstream(self) -> str:
        """As the Corefile has it, and whose resolv.conf is taken for the pods'."""
        said = " ".join(self.corefile.forwards)
        if not self.corefile.asks_resolv_conf:
            return said
        said += " of the pods: their nodes'"
        if own := self._own_upstreams():
            return f"{said}; {', '.join(own)} by this pod's own, which is its node's (dnsPolicy Default)"
        if is_pod():
            return f"{said}; this pod's own asks cluster DNS itself: with dnsPolicy Default it would say whom"
        return f"{said}, which this machine does not know"

    def proxy_meters(self) -> list[Meter]:
        """A kube-proxy that tells its own node alone can be read there, from the node's network."""
        pods = {pod.spec.nodeName for pod in self.now(self.pods)}
        nodes = [(name_of(node), address) for node in self.now(self.nodes) if (address := objects.node_address(node))]
        ours = {name for name, address in nodes if is_ours(address)}
        nodes.sort(key=lambda node: (node[0] not in ours, node[0] not in pods))
        return [
            Meter("kube-proxy", name, _LOOPBACK if name in ours else address, _PROXY_PORT)
            for name, address in nodes[:_MOST]
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
            "zone": self.extent().domain,
            "upstream": self._said_upstream(),
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
        if self.corefile.logs:
            said["warning"] = _LOGS
        said |= {"not seen": "; ".join(self.not_seen)}
        return {name: text for name, text in said.items() if text}

    def _said_pods(self) -> str:
        if self.endpoints_only:
            listed = objects.listed_pods(self.now(self.slices)).values()
            return f"{len(listed)} on {', '.join(sorted({pod.node for pod in listed}))}"
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
    found.daemons = await _optional(found, Selection(DaemonSet, _SYSTEM, {_LABEL: [_PROXY, _NODELOCAL]}))
    await _find_configs(found, namespace)
    for events in (
        *(Selection(Event, one) for one in sorted({namespace, _SYSTEM})),
        Selection(Event, _DEFAULT, about="Node"),
    ):
        await _optional(found, events)
    if not found.proxy_mode:
        found.miss("kube-proxy's mode: no ConfigMap says it: iptables is supposed")
    return found


async def discover_endpoints(api: Api, watching: Watching, service: Service, version: str) -> Found:
    """The Service's EndpointSlices alone: what a prober on every node of a large cluster may ask of the API.

    How many nodes there are, and which zones the Corefile has, is asked once.
    """
    namespace = str(service.metadata.namespace) if service.metadata else ""
    slices = Selection(EndpointSlice, namespace, {"kubernetes.io/service-name": name_of(service)})
    found = Found(api, watching, service, version, slices, pods=Selection(Pod, namespace), endpoints_only=True)
    await watching.add(found.slices)
    with suppress(NotSeen):
        found.node_count = await api.count(Selection(Node))
    config = _OPENSHIFT[1] if namespace == _OPENSHIFT[0] else _COREDNS
    with suppress(NotSeen):
        there, _ = await api.list(Selection(ConfigMap, namespace, name=config))
        found.once = Read(zones=read_corefile("\n".join(objects.corefile_of(one) for one in there)).zones)
    found.miss("all but the Service and its EndpointSlices: not asked for, with --per-node")
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
        if kind is Deployment:
            await _optional(found, Selection(ReplicaSet, namespace, selector))
    elif not found.not_seen:
        found.miss(f"what makes the pods: no Deployment or DaemonSet in {namespace} has their labels")


async def _find_corefile(found: Found, namespace: str) -> None:
    """The ConfigMap that the pods mount and that has one; what else they mount may be parts of it."""
    for name in _mounted(found):
        what = Selection(ConfigMap, namespace, name=name)
        there = await _optional(found, what)
        if there and any(objects.corefile_of(one) for one in found.now(there)):
            found.config = found.config or there
    if not found.config and not any("configmaps" in text for text in found.not_seen):
        found.miss("the Corefile: no ConfigMap that the pods mount has one")


def _mounted(found: Found) -> list[str]:
    specs = (
        [workloads.template_of(found.workload)] if found.workload else [pod.spec for pod in found.now(found.pods)[:1]]
    )
    return [name for spec in specs for name in objects.config_maps(spec)]


async def _find_configs(found: Found, namespace: str) -> None:
    """What else decides how names are resolved: a person's own part of the Corefile, kube-proxy's and NodeLocal's."""
    names = [*_PROXY_CONFIGS, *(name_of(one) for one in found.now(found.daemons) if name_of(one) != _PROXY)]
    for name in names:
        config = await _optional(found, Selection(ConfigMap, _SYSTEM, name=name))
        for one in found.now(config):
            if name in _PROXY_CONFIGS:
                found.proxy_mode = found.proxy_mode or objects.proxy_mode_of(one.data or {})
    if found.config and objects.COREDNS_CUSTOM not in _mounted(found):
        await _optional(found, Selection(ConfigMap, namespace, name=objects.COREDNS_CUSTOM))


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
