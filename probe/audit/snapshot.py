"""Objects of a cluster -> what cluster DNS is made of: its Service, workload, pods, Corefile, nodes, kube-proxy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from probe.audit.proxy import ProxyConfig, is_proxy, proxy_config, template, version_of
from probe.audit.things import Json, Thing

SYSTEM = "kube-system"
ANYWHERE = "all namespaces"
OPENSHIFT = ("openshift-dns", "dns-default")
CUSTOM = "coredns-custom"
"""AKS' and k3s' ConfigMap with a person's own parts of the Corefile."""
_KUBE_DNS, _UPSTREAM = "kube-dns", "kube-dns-upstream"
"""The second is NodeLocal DNSCache's own way to CoreDNS: another Service with the same label."""
_CACHES = ("node-local-dns", "nodelocaldns", "nodelocal-dns")
_WORKLOADS = ("Deployment", "DaemonSet")
_SERVES_DNS = re.compile(r"(^|/)(coredns|k8s-dns-kube-dns|ose-coredns)[^/]*$")


class Unread(Exception):
    """Objects of a kind could not be read, and why: a check that needs them says `unknown`."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


@dataclass(frozen=True)
class Snapshot:
    """One pass over the API, or files. unread: what could not be read, and why: a kind, as `NetworkPolicy`; a kind in
    one namespace, `Pod in kube-system`; or in those that are not named, `Pod in all namespaces`.

    version: the API server's, `v1.34.1`; '' if it is not known. taken: when, ISO 8601. named: namespace and name of
    the Service, if a person said which. source: where these are from, for people: a server, files.
    """

    things: tuple[Thing, ...]
    unread: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    taken: str = ""
    named: tuple[str, str] | None = None
    source: str = ""

    def all(self, kind: str, namespace: str = "") -> tuple[Thing, ...]:
        """The objects of a kind, by namespace and name. Unread if they could not be read."""
        for key in (kind, f"{kind} in {namespace or ANYWHERE}"):
            if key in self.unread:
                raise Unread(kind, self.unread[key])
        return tuple(one for one in self._by_kind.get(kind, ()) if namespace in ("", one.namespace))

    def one(self, kind: str, name: str, namespace: str = SYSTEM) -> Thing | None:
        """The one of that name; None if there is none."""
        return next((one for one in self.all(kind, namespace) if one.name == name), None)

    @cached_property
    def _by_kind(self) -> dict[str, list[Thing]]:
        found: dict[str, list[Thing]] = {}
        for one in sorted(self.things, key=lambda one: (one.kind, one.namespace, one.name)):
            found.setdefault(one.kind, []).append(one)
        return found

    # -- cluster DNS

    @property
    def namespace(self) -> str:
        """Where cluster DNS lives; kube-system if it is not found."""
        return self.service.namespace if self.service else SYSTEM

    @cached_property
    def service(self) -> Thing | None:
        """Cluster DNS's Service: the one that is named, labelled, OpenShift's, or that has port 53/UDP; None."""
        if self.named:
            return self.one("Service", self.named[1], self.named[0])
        system = [one for one in self.all("Service", SYSTEM) if one.name != _UPSTREAM]
        labelled = [one for one in system if one.labels.get("k8s-app") == _KUBE_DNS]
        labelled.sort(key=lambda one: one.name != _KUBE_DNS)
        found = labelled or [one for one in system if one.name == _KUBE_DNS]
        if not found and (theirs := self._openshift()):
            return theirs
        return next(iter(found or [one for one in system if _has_dns_port(one)]), None)

    def _openshift(self) -> Thing | None:
        try:
            return self.one("Service", OPENSHIFT[1], OPENSHIFT[0])
        except Unread:
            return None

    @property
    def selector(self) -> Mapping[str, str]:
        """The Service's; empty if there is none."""
        return (self.service and self.service.at("spec.selector")) or {}

    @cached_property
    def candidates(self) -> tuple[Thing, ...]:
        """Every Deployment and DaemonSet that could be cluster DNS: whose pods the Service selects, with the most
        replicas first; then others that run its image. NodeLocal DNSCache is none."""
        made = [one for kind in _WORKLOADS for one in self.all(kind, self.namespace) if not is_cache(one)]
        selected = [one for one in made if self.selector and self.selector.items() <= labels_of_pods(one).items()]
        selected.sort(key=replicas_of, reverse=True)
        others = [one for one in made if one not in selected and any(map(_SERVES_DNS.search, images_of(one)))]
        return (*selected, *others)

    @property
    def dns(self) -> Thing | None:
        """The Deployment or DaemonSet of CoreDNS, kube-dns or dns-default; None if there is none."""
        return next(iter(self.candidates), None)

    @property
    def workload(self) -> Thing:
        """The same; Unread if there is none."""
        if self.dns:
            return self.dns
        raise Unread("Deployment", f"no Deployment or DaemonSet in {self.namespace} makes the pods of cluster DNS")

    @cached_property
    def container(self) -> str:
        """Of its pods' containers the name of the one that answers: with a UDP port, else the first."""
        containers = containers_of(self.workload)
        serves = [one for one in containers if any(port.get("protocol") == "UDP" for port in one.get("ports") or [])]
        return next((str(one.get("name")) for one in serves or containers), "")

    @property
    def at_container(self) -> str:
        """The path of that container in the workload: `spec.template.spec.containers[coredns]`."""
        return f"spec.template.spec.containers[{self.container}]"

    @cached_property
    def pods(self) -> tuple[Thing, ...]:
        """Of the DNS workload; of what the Service selects, if there is no workload."""
        match = (self.dns and self.dns.at("spec.selector.matchLabels")) or self.selector
        mine = self.all("Pod", self.namespace)
        return tuple(one for one in mine if match and match.items() <= one.labels.items())

    @cached_property
    def slices(self) -> tuple[Thing, ...]:
        """The EndpointSlices of the Service."""
        every = self.all("EndpointSlice", self.namespace)
        name = self.service.name if self.service else ""
        return tuple(one for one in every if one.labels.get("kubernetes.io/service-name") == name)

    @property
    def nodes(self) -> tuple[Thing, ...]:
        """All of them."""
        return self.all("Node")

    @cached_property
    def coredns_version(self) -> str:
        """`1.12.1`, by the image; '' if it is kube-dns, or its tag is no version."""
        image = str(self.workload.at(f"{self.at_container}.image") or "")
        return version_of(image) if "coredns" in image else ""

    @cached_property
    def kubernetes(self) -> tuple[int, int]:
        """Major and minor version of the API server, else the least of kube-proxy and the kubelets."""
        for text in (self.version, self.proxy.version):
            if numbers := _numbers(text):
                return numbers
        if kubelets := list(filter(None, map(_numbers, self._kubelets()))):
            return min(kubelets)
        raise Unread("version", "neither the API server nor kube-proxy nor a kubelet says its version")

    def _kubelets(self) -> list[str]:
        return [str(node.at("status.nodeInfo.kubeletVersion") or "") for node in self.nodes]

    # -- its configuration

    @cached_property
    def config(self) -> Thing | None:
        """The ConfigMap with the Corefile: what the pods mount, else `coredns`; None if there is none."""
        names = [*(mounted(self.dns) if self.dns else {}), "coredns", "dns-default"]
        found = (self.one("ConfigMap", name, self.namespace) for name in names)
        return next((one for one in found if one and "Corefile" in (one.at("data") or {})), None)

    # -- beside it

    @cached_property
    def cache(self) -> Thing | None:
        """NodeLocal DNSCache's DaemonSet; None if there is none."""
        return next((one for one in self.all("DaemonSet", SYSTEM) if is_cache(one)), None)

    @cached_property
    def proxy(self) -> ProxyConfig:
        """What kube-proxy is told; of pods that no DaemonSet makes if there is no other sign of it."""
        found = proxy_config(self.all("DaemonSet", SYSTEM), self.all("ConfigMap", SYSTEM))
        if found.mode or found.problem:
            return found
        return proxy_config((), (), self.all("Pod", SYSTEM))

    @cached_property
    def proxy_pods(self) -> tuple[Thing, ...]:
        """kube-proxy's, on Linux."""
        return tuple(one for one in self.all("Pod", SYSTEM) if is_proxy(one))


def is_cache(workload: Thing) -> bool:
    """NodeLocal DNSCache."""
    return workload.name in _CACHES or any("k8s-dns-node-cache" in image for image in images_of(workload))


def containers_of(thing: Thing) -> list[Mapping[str, Json]]:
    """Of a pod, or of the pods that a workload makes."""
    return list(thing.at(f"{template(thing)}.containers") or [])


def images_of(thing: Thing) -> list[str]:
    """Theirs."""
    return [str(one.get("image") or "") for one in containers_of(thing)]


def labels_of_pods(workload: Thing) -> Mapping[str, str]:
    """Those that its pods get."""
    return workload.at("spec.template.metadata.labels") or {}


def replicas_of(workload: Thing) -> int:
    """How many pods it is asked for."""
    if workload.kind == "DaemonSet":
        return int(workload.at("status.desiredNumberScheduled") or 0)
    said = workload.at("spec.replicas")
    return 1 if said is None else int(said)


def mounted(thing: Thing) -> dict[str, str]:
    """The ConfigMaps that its pods mount, by name, and where the container that answers, or any, has them."""
    volumes = {
        str(one.get("name")): str(one["configMap"].get("name") or "")
        for one in thing.at(f"{template(thing)}.volumes") or []
        if one.get("configMap")
    }
    found = dict.fromkeys(volumes.values(), "")
    for container in containers_of(thing):
        for mount in container.get("volumeMounts") or []:
            if name := volumes.get(str(mount.get("name"))):
                found[name] = found[name] or str(mount.get("mountPath") or "")
    return found


def _has_dns_port(service: Thing) -> bool:
    return any(one.get("port") == 53 and one.get("protocol") == "UDP" for one in service.at("spec.ports") or [])


def _numbers(text: str) -> tuple[int, int] | None:
    """`v1.34.1` -> (1, 34)."""
    found = re.match(r"v?([0-9]+)\.([0-9]+)", text)
    return (int(found[1]), int(found[2])) if found else None
