"""Objects of the Kubernetes API -> what of them matters here: targets, endpoints, and views to compare."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from lightkube.models.core_v1 import Container, PodSpec
from lightkube.resources.core_v1 import ConfigMap, Event, Node, Pod, Service
from lightkube.resources.discovery_v1 import EndpointSlice

from probe.cluster.endpoints import Endpoint
from probe.model import Target, TargetKind

ZONE = "topology.kubernetes.io/zone"
COREFILE = "Corefile"
COREDNS_CUSTOM = "coredns-custom"
"""AKS' and k3s' ConfigMap with a person's own parts of the Corefile."""
_LONGEST = 200


def name_of(thing: Any) -> str:
    """An object's name."""
    return str(thing.metadata.name)


def short(text: str) -> str:
    """In one line, up to 200 characters."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


# -- the Service and its endpoints


def dns_port(service: Service) -> int:
    """The Service's port for DNS by UDP."""
    ports = [port for port in _spec(service).ports or [] if (port.protocol or "TCP") == "UDP"]
    return next((port.port for port in ports if port.port == 53), ports[0].port if ports else 53)


def cluster_ips(service: Service) -> list[str]:
    """Its addresses, of both families; none if it is headless."""
    spec = _spec(service)
    return [ip for ip in spec.clusterIPs or [spec.clusterIP] if ip and ip != "None"]


def service_targets(service: Service) -> list[Target]:
    """One for each family, the first one named as the Service is: kube-dns, kube-dns-ipv6."""
    port, targets = dns_port(service), []
    for n, ip in enumerate(cluster_ips(service)):
        family = "ipv6" if ":" in ip else "ipv4"
        name = f"{name_of(service)}-{family}" if n else name_of(service)
        targets.append(Target(name, TargetKind.SERVICE, ip, port))
    return targets


def said_ports(service: Service) -> str:
    """`UDP 53, TCP 53`."""
    return ", ".join(f"{port.protocol or 'TCP'} {port.port}" for port in _spec(service).ports or [])


def _spec(service: Service) -> Any:
    return service.spec


def endpoints_of(slices: Iterable[EndpointSlice]) -> tuple[Endpoint, ...]:
    """All slices of a Service as one, by name; a pod with addresses of both families once while they agree."""
    found: dict[tuple[str, bool, bool], Endpoint] = {}
    for one in sorted(slices, key=lambda one: (one.addressType, name_of(one))):
        for each in one.endpoints or []:
            state = each.conditions
            ready = state is None or state.ready is None or state.ready
            serving = ready if state is None or state.serving is None else state.serving
            pod = str(each.targetRef.name) if each.targetRef else each.addresses[0]
            endpoint = Endpoint(pod, each.addresses[0], serving, bool(state and state.terminating))
            found.setdefault((pod, endpoint.serving, endpoint.terminating), endpoint)
    return tuple(sorted(found.values(), key=lambda endpoint: endpoint.pod))


def listed_pods(slices: Iterable[EndpointSlice]) -> dict[str, PodView]:
    """The Service's pods, by name, as far as its EndpointSlices tell of them."""
    nodes = {e.targetRef.name: e.nodeName for one in slices for e in one.endpoints or [] if e.targetRef and e.nodeName}
    views = {}
    for each in endpoints_of(slices):
        told = "terminating, by its EndpointSlice" if each.terminating else ""
        node = nodes.get(each.pod, "")
        views[each.pod] = PodView(each.pod, each.address, each.address, node, "", ready=each.serving, told=told)
    return views


def pod_port(slices: Iterable[EndpointSlice]) -> int:
    """The port on which pods answer DNS by UDP, as their slices say; 53 if none does."""
    ports = [port for one in slices for port in one.ports or [] if port.protocol == "UDP" and port.port]
    named = [port for port in ports if (port.name or "").startswith("dns")]
    return int((named or ports)[0].port or 53) if ports else 53


# -- pods

_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
             "RegistryUnavailable", "SignatureValidationFailed")  # fmt: skip
"""Reasons of the kubelet's why a container waits (pkg/kubelet/images/types.go)."""
_NOT_MADE = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError")
"""And of its runtime (pkg/kubelet/kuberuntime, pkg/kubelet/container/sync_result.go)."""
_CRASHES = 2
"""Restarts of a container that is not ready from which on it is in a crash loop."""


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod. told: that it was deleted, and when by the API's clock; failed: why it has ended by itself; '' if not.

    exits: the exits of its containers, each said once it is known. stuck: why it does not become Ready, in words that
    stay while it is so; '' if that is not known, or it may yet.
    """

    name: str
    uid: str
    address: str
    node: str
    image: str
    template: str = ""
    ready: bool = False
    told: str = ""
    failed: str = ""
    restarts: int = 0
    exits: tuple[str, ...] = ()
    stuck: str = ""


def pod_view(pod: Pod) -> PodView:
    """What is compared from one version of a pod to the next."""
    meta: Any = pod.metadata
    spec: Any = pod.spec
    status = pod.status
    conditions = (status.conditions or []) if status else []
    containers = (status.containerStatuses or []) if status else []
    ended = status.phase in ("Failed", "Succeeded") if status else False
    ready = any(c.type == "Ready" and c.status == "True" for c in conditions)
    inits = (status.initContainerStatuses or []) if status else []
    return PodView(
        name=str(meta.name),
        uid=str(meta.uid),
        address=(status.podIP or "") if status else "",
        node=spec.nodeName or "",
        image=dns_container(spec).image or "",
        template=(meta.labels or {}).get("pod-template-hash", ""),
        ready=ready,
        told=_told(meta),
        failed=(status.reason or str(status.phase)) if status and ended else "",
        restarts=sum(each.restartCount for each in containers),
        exits=tuple(text for each in containers for text in _exits(each)),
        stuck="" if ready or meta.deletionTimestamp else _stuck(conditions, [*inits, *containers]),
    )


def _stuck(conditions: Iterable[Any], containers: Iterable[Any]) -> str:
    """A container in a crash loop is now waiting, now running, now terminated: that it was restarted stays."""
    for condition in conditions:
        if condition.type == "PodScheduled" and condition.reason in ("Unschedulable", "SchedulingGated"):
            return f"cannot be scheduled: {condition.message or condition.reason}"
    for each in containers:
        reason = (each.state and each.state.waiting and each.state.waiting.reason) or ""
        if reason in _NO_IMAGE:
            return f"image {each.image} cannot be pulled"
        if reason in _NOT_MADE:
            return f"container {each.name} cannot be made: {reason}"
        if reason == "CrashLoopBackOff" or (not each.ready and each.restartCount >= _CRASHES):
            return f"container {each.name} is in a crash loop"
    return ""


def _told(meta: Any) -> str:
    """API times are whole seconds: t0 is deletionTimestamp - deletionGracePeriodSeconds, +-1 s."""
    if not meta.deletionTimestamp:
        return ""
    grace = meta.deletionGracePeriodSeconds or 0
    t0 = meta.deletionTimestamp - timedelta(seconds=grace)
    return f"grace period {grace} s, told at {t0:%Y-%m-%dT%H:%M:%SZ} by the API's clock"


def _exits(status: Any) -> Iterable[str]:
    for state in (status.lastState, status.state):
        if state and (end := state.terminated):
            reason = f", {end.reason}" if end.reason else ""
            at = f" at {end.finishedAt:%Y-%m-%dT%H:%M:%SZ}" if end.finishedAt else ""
            yield f"container {status.name}: exit code {end.exitCode}{reason}{at}"


def pod_target(view: PodView, port: int) -> Target:
    """It as one that is asked."""
    return Target(view.name, TargetKind.POD, view.address, port)


def dns_container(spec: PodSpec) -> Container:
    """Of a pod's containers the one that answers: with a UDP port, else the first."""
    serves = [one for one in spec.containers if any(port.protocol == "UDP" for port in one.ports or [])]
    return (serves or spec.containers)[0]


# -- ConfigMaps, nodes, events, others


def corefile_of(config: ConfigMap) -> str:
    """A ConfigMap's Corefile; '' if it has none."""
    return str((config.data or {}).get(COREFILE, ""))


@dataclass(frozen=True, slots=True)
class ConfigView:
    """All that a ConfigMap says. corefile: whether it is one, or parts of one (AKS' coredns-custom: `x.override`)."""

    name: str
    text: str
    corefile: bool


def config_view(config: ConfigMap) -> ConfigView:
    """Of one with a Corefile that alone."""
    data = config.data or {}
    if COREFILE in data:
        return ConfigView(name_of(config), data[COREFILE], True)
    text = "\n".join(f"{key}:\n{data[key]}" for key in sorted(data))
    return ConfigView(name_of(config), text, name_of(config) == COREDNS_CUSTOM)


@dataclass(frozen=True, slots=True)
class EventView:
    """An Event. about: kind and name of an object; count: how often it happened; last: when, by its reporter's clock.

    Its times are whole seconds, or a moment before they were reported: no more than +-1 s is to be had of them.
    """

    name: str
    about: tuple[str, str]
    reason: str
    text: str
    warning: bool
    count: int
    last: str


def about(event: Event) -> tuple[str, str]:
    """Kind and name of the object that it is about."""
    return event.involvedObject.kind or "", event.involvedObject.name or ""


def event_view(event: Event) -> EventView:
    """The newest time there is: what repeats has a count (kubelet), or a series (newer reporters)."""
    series = event.series
    last = event.lastTimestamp or (series and series.lastObservedTime) or event.eventTime or event.firstTimestamp
    return EventView(
        name_of(event),
        about(event),
        event.reason or "",
        short(event.message or ""),
        event.type == "Warning",
        max(event.count or 1, (series and series.count) or 1),
        f"{last:%Y-%m-%dT%H:%M:%SZ}" if last else "",
    )


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node; why: what its Ready condition says where it is not True."""

    name: str
    zone: str
    ready: bool
    why: str = ""


def node_view(node: Node) -> NodeView:
    """A node without a Ready condition is not ready."""
    labels = (node.metadata.labels or {}) if node.metadata else {}
    states = [c for c in (node.status.conditions or []) if c.type == "Ready"] if node.status else []
    ready = any(state.status == "True" for state in states)
    why = "" if ready or not states else f"{states[0].reason or 'Ready'}: {states[0].message or states[0].status}"
    return NodeView(name_of(node), labels.get(ZONE, ""), ready, why)


def node_address(node: Node) -> str:
    """Its first address inside the cluster, '' if it has none."""
    addresses = (node.status.addresses or []) if node.status else []
    return next((each.address for each in addresses if each.type == "InternalIP"), "")


def kubelet_of(nodes: Iterable[Node]) -> list[str]:
    """The versions of their kubelets."""
    infos = [node.status.nodeInfo for node in nodes if node.status and node.status.nodeInfo]
    return sorted({info.kubeletVersion for info in infos if info.kubeletVersion})


def config_maps(spec: PodSpec) -> list[str]:
    """The ConfigMaps that are mounted into a pod."""
    return [str(volume.configMap.name) for volume in spec.volumes or [] if volume.configMap and volume.configMap.name]


def proxy_mode_of(data: dict[str, str]) -> str:
    """kube-proxy's mode, as its ConfigMap says; Linux's default, iptables, where that is empty; '' if it says none."""
    for text in data.values():
        if match := re.search(r'^mode:[ \t]*"?([a-z]*)"?[ \t]*$', text, re.MULTILINE):
            return match[1] or "iptables"
    return ""


def version_of_image(image: str) -> str:
    """`registry.k8s.io/kube-proxy:v1.34.1-eksbuild.2` -> `1.34`; '' if the tag is no version."""
    match = re.search(r":v?([0-9]+\.[0-9]+)", image)
    return match[1] if match else ""
