"""Objects of a cluster -> what cluster DNS is made of: its Service, workload, pods, Corefile, nodes, kube-proxy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from probe.audit.proxy import CONFIGS, ProxyConfig, is_proxy, of_agents, proxy_config, template, version_of
from probe.audit.things import Json, Thing
from probe.cluster import Shutdown
from probe.corefile import Corefile, ServerBlock, duration_of, parse_corefile

SYSTEM = "kube-system"
ANYWHERE = "all namespaces"
OPENSHIFT = ("openshift-dns", "dns-default")
CUSTOM = "coredns-custom"
"""AKS' and k3s' ConfigMap with a person's own parts of the Corefile."""
_KUBE_DNS, _UPSTREAM = "kube-dns", "kube-dns-upstream"
"""The second is NodeLocal DNSCache's own way to CoreDNS: another Service with the same label."""
_CACHES = ("node-local-dns", "nodelocaldns", "nodelocal-dns")
_GRACE, _PERIOD, _FAILURES = 30, 10, 3
"""What the API server sets where a workload says nothing (core/v1 defaults)."""
_WORKLOADS = ("Deployment", "DaemonSet")
_SERVES_DNS = re.compile(r"(^|/)(coredns|k8s-dns-kube-dns|ose-coredns)[^/]*$")


class Unread(Exception):
    """Objects of a kind could not be read, and why: a check that needs them says `unknown`."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


@dataclass(frozen=True)
class Snapshot:
    """One pass over the API, or files. unread: what could not be read, and why: a kind, `NetworkPolicy`; a kind in a
    namespace, `Pod in kube-system`, or beyond that of cluster DNS, `Pod in all namespaces`; one, `ConfigMap coredns`.

    version: the API server's, `v1.34.1`; '' if it is not known. taken: when, ISO 8601. named: namespace and name of
    the Service, if a person said which. source: where these are from, for people: a server, files.
    """

    things: tuple[Thing, ...] = field(repr=False)
    unread: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    taken: str = ""
    named: tuple[str, str] | None = None
    source: str = ""

    def all(self, kind: str, namespace: str = "") -> tuple[Thing, ...]:
        """The objects of a kind, by namespace and name. Unread if they could not be read."""
        self._check(kind, kind, f"{kind} in {namespace or ANYWHERE}")
        return tuple(one for one in self._by_kind.get(kind, ()) if namespace in ("", one.namespace))

    def one(self, kind: str, name: str, namespace: str = SYSTEM) -> Thing | None:
        """The one of that name; None if there is none."""
        self._check(kind, f"{kind} {name}")
        return next((one for one in self.all(kind, namespace) if one.name == name), None)

    def _check(self, kind: str, *keys: str) -> None:
        for key in keys:
            if key in self.unread:
                raise Unread(kind, self.unread[key])

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

    @cached_property
    def corefile(self) -> Corefile:
        """As the pods read it, with what it imports; Unread if there is none: kube-dns has none."""
        if not self.config:
            what = ", ".join(map(str, self.candidates)) or "no workload of cluster DNS"
            raise Unread("ConfigMap", f"there is no Corefile in {self.namespace}; {what} was found")
        text = str(self.config.at("data[Corefile]") or "")
        return parse_corefile(text, self.corefile_parts if "import" in text else {}, self.environment)

    @property
    def corefile_parts(self) -> dict[str, str]:
        """What the Corefile may import: the other ConfigMaps that its pods mount, by their paths beside it."""
        there = mounted(self.dns) if self.dns else {}
        home = there.get(self.config.name, "") if self.config else ""
        found: dict[str, str] = {}
        for name in dict.fromkeys([*there, CUSTOM]):
            path = there.get(name) or f"{home}/custom"
            config = self.one("ConfigMap", name, self.namespace)
            for key, text in ((config and config.at("data")) or {}).items():
                if key != "Corefile":
                    found[path.removeprefix(home).lstrip("/") + f"/{key}" * bool(path != home) or key] = str(text)
        return found

    @property
    def environment(self) -> dict[str, str]:
        """The variables of the container that answers, as far as their values stand there."""
        said = self.dns.at(f"{self.at_container}.env") if self.dns else None
        return {str(one["name"]): str(one.get("value") or "") for one in said or []}

    @property
    def lameduck(self) -> float:
        """Seconds; the last of each server block: one sleeps after the other (tried with 1.9.3 and 1.15.0)."""
        return sum(duration_of(argument) or 0.0 for argument in map(lameduck_of, self.corefile.blocks) if argument)

    @cached_property
    def shutdown(self) -> Shutdown:
        """How its pods end; what the workload leaves out is as the API server sets it."""
        at = self.at_container
        probe = self.workload.at(f"{at}.readinessProbe") or {}
        path = str((probe.get("httpGet") or {}).get("path") or "")
        grace = self.workload.at("spec.template.spec.terminationGracePeriodSeconds")
        era = self.proxy.version or ".".join(map(str, self.kubernetes))
        return Shutdown(
            replicas=replicas_of(self.workload),
            lameduck=self.lameduck,
            grace_period=float(_GRACE if grace is None else grace),
            pre_stop=pre_stop_of(self.workload.at(f"{at}.lifecycle.preStop") or {}),
            readiness="ready" if path == "/ready" else "health" if probe else "none",
            readiness_period=float(probe.get("periodSeconds") or _PERIOD),
            readiness_failures=int(probe.get("failureThreshold") or _FAILURES),
            proxy_mode=self.proxy.mode or "iptables",
            kubernetes=".".join(era.split(".")[:2]),
        )

    # -- beside it

    @cached_property
    def cache(self) -> Thing | None:
        """NodeLocal DNSCache's DaemonSet; None if there is none."""
        return next((one for one in self.all("DaemonSet", SYSTEM) if is_cache(one)), None)

    @cached_property
    def proxy(self) -> ProxyConfig:
        """What kube-proxy is told; of pods that no DaemonSet makes if there is no other sign of it."""
        configs = [self.one("ConfigMap", name) for name in CONFIGS]
        found = proxy_config(self.all("DaemonSet", SYSTEM), filter(None, configs))
        if found.mode or found.problem:
            return found
        found = proxy_config((), (), self.all("Pod", SYSTEM))
        return found if found.mode or found.problem else of_agents(self.nodes)

    @cached_property
    def proxy_pods(self) -> tuple[Thing, ...]:
        """kube-proxy's, on Linux."""
        return tuple(one for one in self.all("Pod", SYSTEM) if is_proxy(one))


def lameduck_of(block: ServerBlock) -> str:
    """What the last `lameduck` of a server block's `health` says, which is the one that counts; '' for none."""
    said = [inner for health in block.all("health") for inner in health.all("lameduck")]
    return said[-1].arguments[0] if said and said[-1].arguments else ""


def pre_stop_of(hook: Mapping[str, Json]) -> float:
    """Seconds that a preStop hook sleeps, by `sleep` or a command; 0 for what does something else."""
    if slept := (hook.get("sleep") or {}).get("seconds"):
        return float(slept)
    words = " ".join(map(str, (hook.get("exec") or {}).get("command") or []))
    found = re.search(r"\bsleep\s+([0-9]+(?:\.[0-9]+)?)s?\s*(?:$|[;&])", words)
    return float(found[1]) if found else 0.0


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
