"""An object as the API says it -> what the audit needs of it; what many have in common is kept once.

100,000 pods are a few hundred templates: labels, owners and specs that are equal are the same object.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec import Raw, Struct, field, json, to_builtins

Json = dict[str, Any]
SYSTEM = ("kube-system", "openshift-dns")
DNS = re.compile(r"(^|/)(coredns|ose-coredns|k8s-dns-(kube-dns|dnsmasq)[^/:]*)([:@]|$)|/coredns[^/]*$")
"""Images of cluster DNS."""
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_WHOLE = ("Deployment", "DaemonSet", "ConfigMap")
"""Kinds of which it matters who manages which field, and since when."""
_OWN = ("machineID", "systemUUID", "bootID")
"""Of a node's nodeInfo what every one has for itself."""


class _Meta(Struct, omit_defaults=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None
    owner_references: list[Any] | None = None


class _Container(Struct, omit_defaults=True):
    name: str
    image: str = ""
    command: list[str] | None = None
    args: list[str] | None = None
    ports: list[Any] | None = None


class _Spec(Struct, omit_defaults=True, rename="camel"):
    containers: list[_Container]
    node_name: str = ""
    dns_policy: str = ""
    dns_config: dict[str, Any] | None = None
    host_network: bool = False


class _Ran(Struct, omit_defaults=True, rename="camel"):
    """A container's status."""

    name: str
    image: str
    image_id: str = field(name="imageID")
    ready: bool
    restart_count: int
    state: dict[str, Any] | None = None
    last_state: dict[str, Any] | None = None


class _Status(Struct, omit_defaults=True, rename="camel"):
    phase: str = ""
    start_time: str | None = None
    container_statuses: list[_Ran] | None = None


class _Pod(Struct):
    metadata: _Meta
    spec: _Spec
    status: _Status


_pods = json.Decoder(_Pod)


class Reduced:
    """Keeps what is shared."""

    def __init__(self) -> None:
        self._shared: dict[bytes, Any] = {}

    def object(self, kind: str, raw: Raw) -> Json:
        """With its kind. Of a pod that is none of cluster DNS: name, labels, owners, phase, and of its spec what
        decides whom it asks and what it runs; in the system's namespaces its node and what became of it, too."""
        if kind == "Pod":
            return self._pod(raw)
        body: Json = {"kind": kind, **json.decode(raw)}
        meta = body["metadata"]
        if kind not in _WHOLE:
            meta.pop("managedFields", None)
        ours = meta.get("namespace") in SYSTEM
        if not ours and meta.get("annotations"):
            meta["annotations"].pop(_APPLIED, None)
        match kind:
            case "Node":
                return self._node(body)
            case "EndpointSlice" if not ours:
                body["endpoints"] = [{"addresses": one["addresses"]} for one in body.get("endpoints") or []]
            case "StatefulSet" if not ours:
                return {"kind": kind, "metadata": meta, "spec": {**body["spec"], "template": {}}}
        return body

    def _pod(self, raw: Raw) -> Json:
        pod = _pods.decode(raw)
        if any(DNS.search(one.image) for one in pod.spec.containers):
            body: Json = {"kind": "Pod", **json.decode(raw)}
            body["metadata"].pop("managedFields", None)
            return body
        node, pod.spec.node_name = pod.spec.node_name, ""
        meta: Json = {"name": pod.metadata.name, "namespace": pod.metadata.namespace}
        if pod.metadata.labels:
            meta["labels"] = self._same(pod.metadata.labels)
        if pod.metadata.owner_references:
            meta["ownerReferences"] = self._same(pod.metadata.owner_references)
        if pod.metadata.namespace not in SYSTEM:
            pod.status = _Status(pod.status.phase)
            for one in pod.spec.containers:
                one.command = one.args = None
        spec: Json = self._same(pod.spec)
        if pod.metadata.namespace in SYSTEM:
            spec = {**spec, "nodeName": node}
        return {"kind": "Pod", "metadata": meta, "spec": spec, "status": self._same(pod.status)}

    def _node(self, body: Json) -> Json:
        """Without its images, and with the one condition that matters."""
        meta, status = body["metadata"], body.get("status") or {}
        kept = {name: status[name] for name in ("allocatable", "capacity", "addresses") if name in status}
        kept["nodeInfo"] = self._same({**(status.get("nodeInfo") or {}), **dict.fromkeys(_OWN, "")})
        kept["conditions"] = [
            {name: one[name] for name in ("type", "status", "reason") if name in one}
            for one in status.get("conditions") or []
            if one.get("type") == "Ready"
        ]
        meta = {name: meta[name] for name in ("name", "labels", "annotations", "creationTimestamp") if name in meta}
        return {"kind": "Node", "metadata": meta, "spec": body.get("spec") or {}, "status": kept}

    def _same(self, part: Any) -> Any:
        """The first that was equal to it."""
        key = json.encode(part)
        if key not in self._shared:
            self._shared[key] = to_builtins(part)
        return self._shared[key]
