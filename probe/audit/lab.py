"""The lab's settings -> the objects that they stand for, as kubeadm would have them; what the lab lacks is not read."""

from __future__ import annotations

import re

from probe.audit.snapshot import SYSTEM, Snapshot
from probe.audit.things import Json, Thing
from probe.cluster.kube.snapshot import KINDS
from probe.cluster.settings import LabSettings
from probe.cluster.zone import Corefile

_LABELS = {"k8s-app": "kube-dns"}


def lab_snapshot(settings: LabSettings, coredns: str) -> Snapshot:
    """coredns: as the program says its version, `CoreDNS-1.15.0 (...)`; '' for the stand-in, which has none."""
    bodies = [
        _service(settings),
        _deployment(settings, coredns),
        _object("ConfigMap", "coredns", data={"Corefile": _corefile(settings)}),
        _object("ConfigMap", "kube-proxy", data={"config.conf": _proxy(settings)}),
        _daemons("kube-proxy", f"kube-proxy:v{settings.kubernetes}.0", ["--config=config.conf"], settings.nodes),
        *([_daemons("node-local-dns", "k8s-dns-node-cache:1", [], settings.nodes)] if settings.nodelocal else []),
        *(_node(settings, n) for n in range(settings.nodes)),
        *(_pod(settings, n) for n in range(settings.replicas)),
        _slice(settings),
    ]
    things = tuple(Thing.of(body) for body in bodies)
    there = {thing.kind for thing in things} | {"PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"}
    unread = {kind: "the lab does not model it" for kind in KINDS if kind not in there}
    return Snapshot(things, unread, f"v{settings.kubernetes}.0", source="the lab's settings, as objects")


def _object(kind: str, name: str, **parts: Json) -> Json:
    meta = {"name": name, **({} if kind == "Node" else {"namespace": SYSTEM})}
    return {"kind": kind, "metadata": meta, **parts}


def _service(settings: LabSettings) -> Json:
    ports = [{"port": 53, "targetPort": settings.dns_port, "protocol": protocol} for protocol in ("UDP", "TCP")]
    made = _object("Service", "kube-dns", spec={"ports": ports, "selector": _LABELS, "sessionAffinity": "None"})
    made["metadata"]["labels"] = _LABELS
    return made


def _deployment(settings: LabSettings, coredns: str) -> Json:
    version = re.search(r"[0-9]+\.[0-9]+\.[0-9]+", coredns)
    container: dict[str, Json] = {
        "name": "coredns",
        "image": f"registry.k8s.io/coredns/coredns:v{version[0]}" if version else "coredns:stand-in",
        "ports": [{"containerPort": settings.dns_port, "protocol": protocol} for protocol in ("UDP", "TCP")],
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
    }
    if settings.readiness != "none":
        container["readinessProbe"] = {
            "httpGet": {"path": f"/{settings.readiness}", "port": 8181 if settings.readiness == "ready" else 8080},
            "periodSeconds": _whole(settings.readiness_period),
            "failureThreshold": settings.readiness_failures,
        }
    if settings.pre_stop:
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": _whole(settings.pre_stop)}}}
    pod = {
        "containers": [container],
        "dnsPolicy": "Default",
        "priorityClassName": "system-cluster-critical",
        "terminationGracePeriodSeconds": _whole(settings.grace_period),
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
    rolling = {"maxUnavailable": settings.max_unavailable, "maxSurge": settings.max_surge}
    spec = {
        "replicas": settings.replicas,
        "minReadySeconds": _whole(settings.min_ready_seconds),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
        "selector": {"matchLabels": _LABELS},
        "template": {"metadata": {"labels": _LABELS}, "spec": pod},
    }
    return _object("Deployment", "coredns", spec=spec, status={"readyReplicas": settings.replicas})


def _whole(seconds: float) -> float:
    """As Kubernetes has it; a lab may take parts of a second, which Kubernetes does not."""
    return int(seconds) if seconds.is_integer() else seconds


def _corefile(settings: LabSettings) -> str:
    upstream = "127.0.0.1:53" if settings.upstream else ""
    return Corefile(settings.lameduck, settings.cache, upstream=upstream).text(
        "coredns", "127.0.0.1", settings.dns_port
    )


def _proxy(settings: LabSettings) -> str:
    lines = [f"mode: {settings.proxy_mode}"]
    if settings.proxy_mode == "ipvs" and settings.udp_timeout is not None:
        lines += ["ipvs:", f"  udpTimeout: {settings.udp_timeout:g}s"]
    return "\n".join([*lines, ""])


def _daemons(name: str, image: str, args: list[str], nodes: int) -> Json:
    pod = {
        "containers": [{"name": name, "image": image, "args": args}],
        "volumes": [{"name": "config", "configMap": {"name": name}}],
    }
    status = {"desiredNumberScheduled": nodes, "numberReady": nodes}
    return _object("DaemonSet", name, spec={"template": {"spec": pod}}, status=status)


def _node(settings: LabSettings, n: int) -> Json:
    info = {"kernelVersion": settings.kernel, "kubeletVersion": f"v{settings.kubernetes}.0", "osImage": "the lab's"}
    status = {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": info}
    return _object("Node", f"node-{n + 1}", spec={}, status=status)


def _pod(settings: LabSettings, n: int) -> Json:
    made = _object("Pod", f"coredns-{n + 1}")
    made["metadata"]["labels"] = _LABELS
    made["spec"] = {"nodeName": f"node-{n % settings.nodes + 1}", "containers": [{"name": "coredns"}]}
    made["status"] = {
        "phase": "Running",
        "podIP": f"127.53.0.{n + 1}",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "coredns", "ready": True, "restartCount": 0}],
    }
    return made


def _slice(settings: LabSettings) -> Json:
    endpoints = [
        {
            "addresses": [f"127.53.0.{n + 1}"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "targetRef": {"kind": "Pod", "name": f"coredns-{n + 1}"},
            "nodeName": f"node-{n % settings.nodes + 1}",
        }
        for n in range(settings.replicas)
    ]
    made = _object("EndpointSlice", "kube-dns-lab", addressType="IPv4", endpoints=endpoints)
    made["metadata"]["labels"] = {"kubernetes.io/service-name": "kube-dns"}
    return made
