"""Words -> the objects of a kubeadm cluster's DNS, as the API's JSON has them."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

SYSTEM = "kube-system"
COREFILE = """\
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure # as ever
       fallthrough in-addr.arpa ip6.arpa
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
"""
_PORTS = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]


def thing(kind: str, name: str, *, labels: Json | None = None, namespace: str = SYSTEM, **parts: Any) -> Json:
    """Any object; `parts` are spec, status, data, and what else stands beside its metadata."""
    meta = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "labels": labels or {}}
    if kind in ("Node", "Namespace"):
        del meta["namespace"]
    return {"kind": kind, "metadata": meta, **parts}


def service(
    name: str = "kube-dns", *ips: str, labels: Json | None = None, ports: list[Json] | None = None, **spec: Any
) -> Json:
    """kubeadm's; `ips`: of both families, 10.96.0.10 if there are none."""
    whole = {
        "clusterIP": (ips or ("10.96.0.10",))[0],
        "clusterIPs": list(ips or ("10.96.0.10",)),
        "ports": ports or _PORTS,
        "selector": {"k8s-app": "kube-dns"},
    }
    return thing("Service", name, labels=labels or {"k8s-app": "kube-dns"}, spec={**whole, **spec})


def containers(image: str = "registry.k8s.io/coredns/coredns:v1.12.1", **parts: Any) -> list[Json]:
    """CoreDNS's, with kubeadm's readiness probe."""
    probe = {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 10, "failureThreshold": 3}
    return [{"name": "coredns", "image": image, "ports": [{"containerPort": 53, "protocol": "UDP"}]}
            | {"readinessProbe": probe} | parts]  # fmt: skip


def pod(
    name: str = "coredns-a",
    address: str = "127.244.0.2",
    *,
    ready: bool = True,
    deleted: str = "",
    grace: int = 30,
    phase: str = "Running",
    uid: str = "",
    statuses: list[Json] | None = None,
) -> Json:
    """A pod of the Deployment; deleted: its deletionTimestamp."""
    made = thing("Pod", name, labels={"k8s-app": "kube-dns", "pod-template-hash": "668d6bf9bc"})
    if deleted:
        made["metadata"] |= {"deletionTimestamp": deleted, "deletionGracePeriodSeconds": grace}
    if uid:
        made["metadata"]["uid"] = uid
    mounted = [{"name": "config-volume", "configMap": {"name": "coredns"}}]
    made["spec"] = {"nodeName": "node-1", "containers": containers(), "volumes": mounted}
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    made["status"] = {"phase": phase, "podIP": address, "conditions": [condition]}
    made["status"]["containerStatuses"] = statuses or []
    return made


def job(name: str = "watch", uid: str = "uid-1", pods: int = 2) -> list[Json]:
    """A Job in the namespace dnsprobe, and its pods, watch-0 and so on, that run."""
    made = thing("Job", name, namespace="dnsprobe")
    made["metadata"]["uid"] = uid
    return [made, *(job_pod(f"{name}-{n}", n, name, uid) for n in range(pods))]


def job_pod(
    name: str, index: int, of: str = "watch", uid: str = "uid-1", phase: str = "Running", **status: Any
) -> Json:
    """One of its pods."""
    made = thing("Pod", name, labels={"job-name": of}, namespace="dnsprobe")
    made["metadata"] |= {
        "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": of, "uid": uid}],
    }
    made["spec"] = {"nodeName": "node-1" if phase == "Running" else "", "containers": [{"name": "dnsprobe"}]}
    made["status"] = {"phase": phase, **status}
    return made


def exited(code: int, reason: str, *, restarts: int = 0, last: bool = False) -> Json:
    """A container's status."""
    end = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": "2026-11-21T04:30:00Z"}}
    status = {"name": "coredns", "image": "x", "imageID": "x", "ready": False, "restartCount": restarts}
    return status | ({"lastState": end, "state": {"running": {}}} if last else {"state": end})


def endpoint_slice(*pods: tuple[str, str, bool, bool], name: str = "kube-dns-x", port: int = 53) -> Json:
    """Pods as name, address, serving, terminating; all of one family."""
    family = "IPv6" if any(":" in address for _, address, _, _ in pods) else "IPv4"
    listed = [
        {
            "addresses": [address],
            "conditions": {"ready": serving and not ending, "serving": serving, "terminating": ending},
            "targetRef": {"kind": "Pod", "name": pod},
        }
        for pod, address, serving, ending in pods
    ]
    ports = [{"name": "dns", "port": port, "protocol": "UDP"}, {"name": "metrics", "port": 9153, "protocol": "TCP"}]
    labels = {"kubernetes.io/service-name": "kube-dns"}
    return thing("EndpointSlice", name, labels=labels, addressType=family, endpoints=listed, ports=ports)


def deployment(
    replicas: int = 2,
    *,
    revision: int = 1,
    template: str = "668d6bf9bc",
    done: bool = True,
    template_labels: Json | None = None,
    spec: Json | None = None,
    container: Json | None = None,
) -> Json:
    """CoreDNS's; spec, container: of the template, put into kubeadm's."""
    made = thing("Deployment", "coredns", labels={"k8s-app": "kube-dns"})
    made["metadata"] |= {"generation": revision, "annotations": {"deployment.kubernetes.io/revision": str(revision)}}
    mounted = [{"name": "config-volume", "configMap": {"name": "coredns"}}]
    whole = {"containers": containers(**(container or {})), "volumes": mounted, **(spec or {})}
    labels = template_labels or {"k8s-app": "kube-dns"}
    made["spec"] = {
        "replicas": replicas,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": whole},
    }
    said = f'ReplicaSet "coredns-{template}" {"has successfully progressed" if done else "is progressing"}.'
    made["status"] = {
        "observedGeneration": revision,
        "replicas": replicas + (not done),
        "updatedReplicas": replicas if done else 1,
        "availableReplicas": replicas,
        "conditions": [{"type": "Progressing", "status": "True", "message": said}],
    }
    return made


def daemon_set(name: str, image: str, *args: str, revision: int = 1, done: bool = True) -> Json:
    """kube-proxy's or NodeLocal DNSCache's, on two nodes."""
    made = thing("DaemonSet", name, labels={"k8s-app": name})
    made["metadata"] |= {
        "generation": revision,
        "annotations": {"deprecated.daemonset.template.generation": str(revision)},
    }
    spec = {"containers": [{"name": name, "image": image, "args": list(args)}]}
    made["spec"] = {"selector": {}, "template": {"metadata": {"labels": {"k8s-app": name}}, "spec": spec}}
    made["status"] = {"currentNumberScheduled": 2, "desiredNumberScheduled": 2, "numberMisscheduled": 0}
    made["status"] |= {"numberReady": 2, "numberAvailable": 2, "updatedNumberScheduled": 2 if done else 1}
    made["status"]["observedGeneration"] = revision
    return made


def config_map(name: str = "coredns", **data: str) -> Json:
    """A Corefile's, unless it has other data."""
    return thing("ConfigMap", name, data=data or {"Corefile": COREFILE})


def node(name: str = "node-1", zone: str = "a", *, ready: bool = True) -> Json:
    """A node of 1.34."""
    condition = {"type": "Ready", "status": "True" if ready else "Unknown", "reason": "NodeStatusUnknown"}
    info = dict.fromkeys(
        ("architecture", "bootID", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion", "machineID",
         "operatingSystem", "osImage", "systemUUID"), "",
    )  # fmt: skip
    address = {"type": "InternalIP", "address": f"127.244.{name[-1]}.1"}
    status = {"conditions": [condition], "addresses": [address], "nodeInfo": {**info, "kubeletVersion": "v1.34.1"}}
    return thing("Node", name, labels={"topology.kubernetes.io/zone": zone}, spec={}, status=status)
