"""Every check of the audit, on clusters that differ from a sound one in a field: what it says, where it is silent."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probe.advice import PLATFORMS
from probe.audit import audit
from probe.audit.check import Planned
from probe.audit.checks import CHECKS
from probe.audit.kernels import Ipvs, ipvs_of
from probe.audit.quantity import numbers, quantity, share_of
from probe.cluster.images import find_coredns
from probe.model import Finding
from tests.clusters import (
    LABELS,
    REQUIRED,
    Cluster,
    application,
    budget,
    kube_proxy,
    kubeadm_config,
    managed,
    node,
    node_local,
    probe_of,
    proxy_config,
    slice_of,
    sound,
)
from tests.kube_objects import SYSTEM, Json, thing

MIB = 1 << 20
FIGURES = {
    "resident_bytes": 60 * MIB,
    "throttled": 0.01,
    "panics": 0.0,
    "reload_failed": 0.0,
    "conntrack_share": 0.2,
    "loss": 0.0,
    "seconds": 130.0,
}
TEMPLATE, MAKER = "spec.template.spec", "Deployment/coredns"
BOX = f"{TEMPLATE}.containers[0]"
PODS = "Pod/coredns-.*"
TOLERATE = "service.alpha.kubernetes.io/tolerate-unready-endpoints"
Change = Callable[[Cluster], object]


def nothing(_: Cluster) -> None:
    """The sound one."""


def put(key: str, path: str, value: Any) -> Change:
    return lambda c: c.set(key, path, value)


def maker(path: str, value: Any) -> Change:
    return put(MAKER, path, value)


def edit(old: str, new: str) -> Change:
    return lambda c: c.edit(old, new)


def add(*things: Json) -> Change:
    return lambda c: c.add(*things)


def drop(*keys: str) -> Change:
    return lambda c: c.drop(*keys)


def image(ref: str) -> Change:
    return maker(f"{BOX}.image", ref)


def version(tag: str) -> Change:
    return image(f"registry.k8s.io/coredns/coredns:v{tag}")


def both(*changes: Change) -> Change:
    def change(c: Cluster) -> None:
        for one in changes:
            one(c)

    return change


def ipvs(udp: str = "0s", kernel: str = "6.8.0", system: str = "Ubuntu 24.04", proxy: str = "v1.34.1") -> Change:
    def change(c: Cluster) -> None:
        c.add(*kube_proxy(version=proxy, text=proxy_config("ipvs", udp), nodes=("node-1", "node-2", "node-3")))
        c.set("Node/.*", "status.nodeInfo.kernelVersion", kernel).set("Node/.*", "status.nodeInfo.osImage", system)

    return change


def as_daemons(**spec: Any) -> Change:
    """OpenShift's kind: a DaemonSet."""

    def change(c: Cluster) -> None:
        made = c.things.pop(MAKER)
        made["kind"] = "DaemonSet"
        del made["spec"]["replicas"], made["spec"]["strategy"]
        made["spec"] |= {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}, **spec}
        made["status"] = {"desiredNumberScheduled": 2, "numberReady": 2}
        c.add(made)

    return change


def scaled(n: int) -> Change:
    """To n replicas, with one pod on each of the last nodes."""

    def change(c: Cluster) -> None:
        c.set(MAKER, "spec.replicas", n)
        for pod in [key for key in c.things if re.fullmatch(PODS, key)][n:]:
            del c.things[pod]
        c.add(slice_of(one for key, one in c.things.items() if re.fullmatch(PODS, key)))

    return change


def ended(reason: str) -> Json:
    return {"terminated": {"reason": reason, "exitCode": 137, "finishedAt": "2026-11-20T10:00:00Z"}}


def headless(n: int, name: str = "wide") -> list[Json]:
    service = thing("Service", name, namespace="shop", spec={"clusterIP": "None", "ports": []})
    listed = [{"addresses": [f"10.1.{k // 200}.{k % 200 + 1}"]} for k in range(n)]
    labels = {"kubernetes.io/service-name": name, "service.kubernetes.io/headless": ""}
    return [service, {**thing("EndpointSlice", f"{name}-x", labels=labels, namespace="shop"), "endpoints": listed}]


def unready(name: str = "zk", **spec: Any) -> Json:
    made = thing("Service", name, namespace="shop", spec={"clusterIP": "None", **spec})
    made["metadata"]["annotations"] = {TOLERATE: "true"}
    return made


def stateful(name: str = "db", service: str = "db") -> Json:
    return thing("StatefulSet", name, namespace="shop", spec={"serviceName": service} if service else {})


def udp_service(name: str = "syslog", **spec: Any) -> Json:
    ports = [{"port": 514, "protocol": "UDP"}]
    return thing("Service", name, namespace="shop", spec={"ports": ports, "selector": {"app": "shop"}, **spec})


def policy(name: str = "deny", namespace: str = "shop", selector: Json | None = None, **spec: Any) -> Json:
    return thing("NetworkPolicy", name, namespace=namespace, spec={"podSelector": selector or {}, **spec})


def ports(*protocols: str, port: Any = 53, **more: Any) -> list[Json]:
    return [{"ports": [{"port": port, "protocol": one, **more} for one in protocols]}]


def control_plane(repository: str = "", **annotations: str) -> Json:
    made = thing("KubeadmControlPlane", "kcp", namespace="fleet")
    made["metadata"]["annotations"] = annotations
    dns = {"imageTag": "v1.12.1", "imageRepository": repository}
    made["spec"] = {"kubeadmConfigSpec": {"clusterConfiguration": {"dns": dns}}}
    return made


def event(reason: str, about: str, message: str) -> Json:
    return {**thing("Event", f"{about}.1"), "reason": reason, "involvedObject": {"name": about}, "message": message}


def metrics(used: str) -> list[Json]:
    usage = [{"name": "coredns", "usage": {"memory": used}}]
    return [{**thing("PodMetrics", f"coredns-{n}"), "containers": usage} for n in "ab"]


NO_FIGURES: dict[str, Any] = {"figures": {}}
MEASURED: dict[str, Any] = {"measured": "a run", "propagation": 10.0}
OURS = {"matchLabels": LABELS}
HOOK = f"{BOX}.lifecycle"
SECOND_BLOCK = "loadbalance\n}\nexample.org:53 {\n    health :8082 {\n        lameduck 5s\n    }\n    whoami\n}\n"
LATE = "2026-11-09T10:00:00Z"

FIRING: list[tuple[str, str, str, Change, dict[str, Any]]] = [
    ("C01", "fail", "headless Services stay stale", version("1.6.7"), {}),
    ("C01", "warn", "not Ready for a whole lameduck", version("1.8.6"), {}),
    ("C01", "info", "may hang when it is told to end while it reloads", version("1.12.1"), {}),
    ("C01", "unknown", "no version of CoreDNS", image("registry.example/coredns:latest"), {}),
    ("C02", "fail", "has no longer `upstream` of `kubernetes`",
     both(version("1.6.7"), edit("       ttl 30\n", "       ttl 30\n       upstream\n")), {"target": "1.8.0"}),
    ("C02", "warn", "the newest that is known here, has no longer",
     both(version("1.6.7"), edit("       ttl 30\n", "       ttl 30\n       upstream\n")), {}),
    ("C02", "fail", "does not know `bufsize`", nothing, {"target": "1.6.5"}),
    ("C02", "warn", "does not know `pdsql`", edit("    loop\n", "    loop\n    pdsql sqlite3\n"), {"target": "1.14.2"}),
    ("C02", "unknown", "known from 1.6.5 on", nothing, {"target": "1.3.1"}),
    ("C03", "fail", "no `health`", edit("    health {\n       lameduck 20s\n    }\n", ""), {}),
    ("C03", "fail", "`health` without lameduck", edit(" {\n       lameduck 20s\n    }", ""), {}),
    ("C03", "warn", "lameduck 5 s; the guides", edit("lameduck 20s", "lameduck 5s"), {}),
    ("C03", "info", "C05 says", both(edit("20s", "15s"), maker(f"{BOX}.readinessProbe", probe_of())), {}),
    ("C03", "pass", "lameduck 12 s", edit("20s", "12s"), {"measured": "a run", "propagation": 2.0}),
    ("C04", "fail", "shorter than lameduck 40 s", edit("20s", "40s"), {}),
    ("C04", "fail", "preStop 15 s and lameduck 20 s", maker(HOOK, {"preStop": {"sleep": {"seconds": 15}}}), {}),
    ("C04", "warn", "leaves 2 s after lameduck 28 s", edit("20s", "28s"), {}),
    ("C05", "fail", "ends before nodes have learnt", edit("20s", "5s"), MEASURED),
    ("C05", "warn", "ends before nodes have learnt", edit("20s", "5s"), {}),
    ("C05", "warn", "keep their source port", maker(f"{BOX}.readinessProbe", probe_of()), {}),
    ("C06", "fail", "no new pod ever becomes Ready", edit("    ready\n", ""), {}),
    ("C06", "fail", "does not know `ready`", version("1.4.0"), {}),
    ("C06", "fail", "asks port 8282", maker(f"{BOX}.readinessProbe", probe_of(port=8282)), {}),
    ("C06", "fail", "template of the next version",
     both(edit("    ready\n", ""), maker(f"{BOX}.readinessProbe", None)), {"platform": "ack"}),
    ("C06", "warn", "template of the next version",
     both(edit("    ready\n", ""), maker(f"{BOX}.readinessProbe", None)), {}),
    ("C06", "warn", "asks /health", maker(f"{BOX}.readinessProbe", probe_of("/health", 8080)), {}),
    ("C06", "warn", "is missing", maker(f"{BOX}.readinessProbe", None), {}),
    ("C07", "fail", "health and ready share port 8080", edit("    ready\n", "    ready :8080\n"), {}),
    ("C07", "warn", "one after the other, 25 s in all", edit("loadbalance\n}\n", SECOND_BLOCK), {}),
    ("C08", "warn", "no `reload`", edit("    reload\n", ""), {}),
    ("C08", "fail", "every reload, and the probe bears 6 s", version("1.9.3"), {}),
    ("C08", "unknown", "version is not known", image("registry.example/coredns:latest"), {}),
    ("C08", "info", "which the probe bears", both(version("1.9.3"), edit("20s", "5s")), {}),
    ("C09", "fail", "preStop runs a command", maker(HOOK, {"preStop": {"exec": {"command": ["sleep", "5"]}}}), {}),
    ("C09", "warn", "preStop runs a command",
     both(image("own/dns:v1.14.2"), maker(HOOK, {"preStop": {"exec": {"command": ["sleep", "5"]}}})), {}),
    ("C09", "warn", "1.29 is alpha there",
     both(maker(HOOK, {"preStop": {"sleep": {"seconds": 5}}}), lambda c: setattr(c, "version", "v1.29.4")), {}),
    ("C09", "warn", "1.28 is not known there",
     both(maker(HOOK, {"preStop": {"sleep": {"seconds": 5}}}), lambda c: setattr(c, "version", "v1.28.4")), {}),
    ("C09", "info", "preStop asks a URL", maker(HOOK, {"preStop": {"httpGet": {"path": "/"}}}), {}),
    ("C09", "pass", "preStop sleeps 5 s", maker(HOOK, {"preStop": {"sleep": {"seconds": 5}}}), {}),
    ("C10", "fail", "there is 1 replica", scaled(1), {}),
    ("C10", "fail", "of 2 replicas 1 is Ready", put("Pod/coredns-a", "status.conditions", []), {}),
    ("C10", "warn", "would be 3", add(*(node(f"more-{n}") for n in range(40))), {}),
    ("C10", "warn", "or 256 cores would be 3", put("Node/.*", "status.capacity.cpu", "256"), {}),
    ("C10", "unknown", "not allowed", lambda c: c.unreadable("Node"), {}),
    ("C10", "pass", "a DaemonSet: 2 pods", as_daemons(), {}),
    ("C11", "fail", "2 of 2 pods are on node-1", put(PODS, "spec.nodeName", "node-1"), {}),
    ("C11", "warn", "2 of 4 pods are on node-9", both(
        add(*(node(f"node-{n}", "a") for n in range(4, 10)), *(
            {**thing("Pod", f"coredns-x{n}", labels=LABELS), "spec": {"nodeName": "node-9"}} for n in range(2)))), {}),
    ("C11", "warn", "all 2 pods are in zone b",
     put("Node/node-[23]", "metadata.labels[topology.kubernetes.io/zone]", "b"), {}),
    ("C11", "info", "nothing to spread", scaled(1), {}),
    ("C11", "info", "there is one node", both(drop("Node/node-[23]"), put(PODS, "spec.nodeName", "node-1")), {}),
    ("C11", "pass", "by chance", maker(f"{TEMPLATE}.affinity", None), {}),
    ("C12", "warn", "no PodDisruptionBudget", drop("PodDisruptionBudget/.*"), {}),
    ("C12", "warn", "2 of 3 pods to be evicted", both(maker("spec.replicas", 3), add(budget(maxUnavailable=2))), {}),
    ("C12", "fail", "no pod of 2", add(budget(minAvailable=2)), {}),
    ("C12", "fail", "no pod of 2", add(budget(minAvailable="60%")), {}),
    ("C12", "fail", "all 2 pods", add(budget(maxUnavailable="100%")), {}),
    ("C12", "fail", "several PodDisruptionBudgets", add(budget("second", maxUnavailable=1)), {}),
    ("C12", "pass", "1 of 2 pods", add(budget(maxUnavailable=1, selector={"matchExpressions": [
        {"key": "k8s-app", "operator": "Exists"}, {"key": "k8s-app", "operator": "NotIn", "values": ["x"]}]})), {}),
    ("C12", "warn", "no PodDisruptionBudget", add(budget(maxUnavailable=1, selector={"matchExpressions": [
        {"key": "k8s-app", "operator": "DoesNotExist"}]})), {}),
    ("C12", "info", "with one replica no budget helps", scaled(1), {}),
    ("C12", "pass", "a DaemonSet", both(as_daemons(), drop("PodDisruptionBudget/.*")), {}),
    ("C13", "fail", "deleted before the first new", maker("spec.strategy", {"type": "Recreate"}), {}),
    ("C13", "fail", "take all 2 pods away", maker("spec.strategy.rollingUpdate.maxUnavailable", "100%"), {}),
    ("C13", "fail", "the one pod away", scaled(1), {}),
    ("C13", "fail", "take all 2 pods away at once",
     as_daemons(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}}), {}),
    ("C13", "warn", "counts 0 s after it is Ready", both(maker("spec.minReadySeconds", None), edit("20s", "5s")), {}),
    ("C13", "info", "but answer for 20 s", maker("spec.minReadySeconds", None), {}),
    ("C13", "warn", "takes 2 of 4 pods",
     both(maker("spec.replicas", 4), maker("spec.strategy.rollingUpdate.maxUnavailable", "50%")), {}),
    ("C13", "info", "OnDelete", as_daemons(updateStrategy={"type": "OnDelete"}), {}),
    ("C13", "pass", "a DaemonSet: 1 of 2", as_daemons(), {}),
    ("C14", "fail", "ran out of memory",
     put("Pod/coredns-a", "status.containerStatuses[0].lastState", ended("OOMKilled")), {}),
    ("C14", "fail", "94% of its limit", nothing, {"figures": {"resident_bytes": 160 * MIB}}),
    ("C14", "warn", "71% of its limit", nothing, {"figures": {"resident_bytes": 120 * MIB}}),
    ("C14", "warn", "59% of its limit", add(*metrics("100Mi")), NO_FIGURES),
    ("C14", "unknown", "is not known", nothing, NO_FIGURES),
    ("C14", "unknown", "is not known", lambda c: c.unreadable("PodMetrics"), NO_FIGURES),
    ("C14", "pass", "no memory limit", maker(f"{BOX}.resources.limits", None), NO_FIGURES),
    ("C15", "fail", "throttled in 40%", maker(f"{BOX}.resources.limits.cpu", "1"), {"figures": {"throttled": 0.4}}),
    ("C15", "warn", "its CPU limit is 100m", maker(f"{BOX}.resources.limits.cpu", "100m"), {}),
    ("C15", "warn", "its CPU limit is 1:", maker(f"{BOX}.resources.limits.cpu", "1"), {"figures": {"throttled": 0.1}}),
    ("C15", "unknown", "is not known", maker(f"{BOX}.resources.limits.cpu", "1"), NO_FIGURES),
    ("C15", "pass", "throttled in 1%", maker(f"{BOX}.resources.limits.cpu", "1"), {}),
    ("C16", "fail", "held on one pod for 10800 s", put("Service/kube-dns", "spec.sessionAffinity", "ClientIP"), {}),
    ("C17", "fail", "no port 53/UDP",
     put("Service/kube-dns", "spec.ports", [{"port": 53, "protocol": "TCP"}]), {}),
    ("C17", "warn", "no port 53/TCP", put("Service/kube-dns", "spec.ports", [{"port": 53, "protocol": "UDP"}]), {}),
    ("C17", "fail", "does not match the pods", put("Service/kube-dns", "spec.selector", {"k8s-app": "coredns"}), {}),
    ("C17", "warn", "not Ready get queries", put("Service/kube-dns", "spec.publishNotReadyAddresses", True), {}),
    ("C17", "warn", "pods of second, too", add({**thing("Deployment", "second"), "spec": {
        "replicas": 1, "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "dns", "image": "dns"}]}}}}), {}),
    ("C17", "info", "no selector", put("Service/kube-dns", "spec.selector", None), {}),
    ("C17", "unknown", "no Service", drop("Service/.*"), {}),
    ("C18", "fail", "1 endpoint of no pod", put("Pod/coredns-a", "status.podIP", "10.244.9.9"), {}),
    ("C18", "fail", "no endpoint", put("EndpointSlice/.*", "endpoints", []), {}),
    ("C18", "warn", "lag behind: 1 pod", put("Pod/coredns-a", "status.conditions", []), {}),
    ("C18", "pass", "2 endpoints",
     put("Pod/coredns-a", "status.podIPs", [{"ip": "10.244.0.2"}, {"ip": "fd00::2"}]), {}),
    ("C18", "warn", "lag behind: 1 pod", lambda c: c.things["EndpointSlice/kube-dns-x"]["endpoints"].pop(), {}),
    ("C19", "warn", "mode is ipvs", ipvs(), {}),
    ("C19", "fail", "cannot be read", add(*kube_proxy(text="mode: ipvs\n// add\nipvs:\n  udpTimeout: 10s\n")), {}),
    ("C19", "info", "replaced", add(thing("ConfigMap", "cilium-config", data={"kube-proxy-replacement": "true"})), {}),
    ("C19", "unknown", "nothing says", drop(".*kube-proxy.*"), {}),
    ("C20", "fail", "is not set: 300 s", ipvs(kernel="4.15.0-200-generic", system="Ubuntu 18.04.6 LTS"), {}),
    ("C20", "fail", "is 60 s", ipvs("60s", kernel="5.4.0", system="Ubuntu 18.04.6 LTS"), {}),
    ("C20", "warn", "unless the kernels are mended", ipvs(kernel="4.18.0-553.el8", system="Rocky Linux 8"), {}),
    ("C20", "warn", "so little is lost", ipvs(), {}),
    ("C20", "pass", "after 10 s", ipvs("10s"), {}),
    ("C20", "pass", "no kube-proxy",
     add(thing("ConfigMap", "cilium-config", data={"kube-proxy-replacement": "true"})), {}),
    ("C21", "fail", "3 nodes drop", ipvs(kernel="4.19.91-24.1.al7.x86_64", system="Alibaba Cloud Linux 2"), {}),
    ("C21", "warn", "is not known", ipvs(kernel="4.18.0-553.el8_10.x86_64", system="Rocky Linux 8"), {}),
    ("C21", "pass", "all kernels expire", ipvs(), {}),
    ("C22", "fail", "gigabytes", both(
        add(*kube_proxy("v1.32.1")), add(udp_service(type="LoadBalancer"))), {}),
    ("C22", "info", "one by one", add(*kube_proxy("v1.34.1")), {}),
    ("C22", "info", "one by one", drop("DaemonSet/kube-proxy", "Pod/kube-proxy-.*"), {}),
    ("C22", "unknown", "neither kube-proxy's image",
     both(add(*kube_proxy("latest")), put("Node/.*", "status.nodeInfo.kubeletVersion", "")), {}),
    ("C22", "pass", "no kube-proxy",
     add(thing("ConfigMap", "cilium-config", data={"kube-proxy-replacement": "true"})), {}),
    ("C23", "warn", "refuses at once", lambda c: setattr(c, "version", "v1.25.9"), {}),
    ("C24", "warn", "the CNI does",
     add(thing("ConfigMap", "cilium-config", data={"kube-proxy-replacement": "strict"})), {}),
    ("C24", "info", "part of the nodes' agent", drop(".*kube-proxy.*"), {}),
    ("C25", "info", "no NodeLocal", drop("DaemonSet/node-local-dns"), {}),
    ("C25", "warn", "Ready on 2 of 3 nodes", add(*node_local(ready=2)), {}),
    ("C26", "warn", "5 to 20 s", nothing, {}),
    ("C26", "fail", "ran out of memory", add({
        **thing("Pod", "node-local-dns-a", labels={"k8s-app": "node-local-dns"}),
        "spec": {"containers": [{"name": "node-cache", "image": "registry.k8s.io/dns/k8s-dns-node-cache:1.23.1"}]},
        "status": {"containerStatuses": [{"name": "node-cache", "state": ended("OOMKilled")}]}}), {}),
    ("C26", "pass", "somebody says so",
     put("DaemonSet/node-local-dns", "spec.updateStrategy", {"type": "OnDelete"}), {}),
    ("C27", "fail", "knows no endpoint", put("ClusterRole/.*", "rules", []), {}),
    ("C27", "warn", "from 1.8.1 on must", both(put("ClusterRole/.*", "rules", []), version("1.8.0")), {}),
    ("C27", "fail", "1.14.2 knows no endpoint",
     both(put("ClusterRole/.*", "rules", []), version("1.8.0")), {"target": "1.14.2"}),
    ("C27", "fail", "may not list", drop("ClusterRole/.*", "ClusterRoleBinding/.*"), {}),
    ("C28", "fail", "does not know: zk", add(unready()), {}),
    ("C28", "warn", "does not know: zk", both(add(unready()), version("1.8.0")), {}),
    ("C28", "warn", "beside publishNotReadyAddresses: zk", add(unready(publishNotReadyAddresses=True)), {}),
    ("C29", "fail", "that is missing, so no pod has a name: db", add(stateful()), {}),
    ("C29", "warn", "with an address",
     add(stateful(), thing("Service", "db", namespace="shop", spec={"clusterIP": "10.96.1.1"})), {}),
    ("C29", "pass", "each of 1 StatefulSet names",
     add(stateful(), thing("Service", "db", namespace="shop", spec={"clusterIP": "None"})), {}),
    ("C29", "info", "name no Service", add(stateful(service="")), {}),
    ("C30", "warn", "30 to 60 addresses", add(*headless(40)), {}),
    ("C30", "warn", "up to 100 addresses", add(*headless(100)), {}),
    ("C30", "fail", "Alpine before 3.18", add(*headless(100), application("old", "node:18-alpine3.15")), {}),
    ("C31", "fail", "autopath @kubernetes", edit("    loop\n", "    loop\n    autopath @kubernetes\n"), {}),
    ("C31", "warn", "watch every pod", edit("pods insecure", "pods verified"), {}),
    ("C32", "warn", "no max_concurrent", edit(" {\n       max_concurrent 1000\n    }", ""), {}),
    ("C32", "warn", "max_concurrent is 100", edit("max_concurrent 1000", "max_concurrent 100"), {}),
    ("C32", "info", "max_concurrent is 100", edit("max_concurrent 1000", "max_concurrent 100"), {"platform": "aks"}),
    ("C32", "warn", "one upstream", edit(" 10.0.0.3", ""), {}),
    ("C32", "warn", "to nobody", edit("forward . 10.0.0.2 10.0.0.3", "forward example.org 10.0.0.2 10.0.0.3"), {}),
    ("C32", "fail", "PrivateZone has no TCP", edit("10.0.0.2 10.0.0.3", "100.100.2.136 100.100.2.138"), {}),
    ("C32", "warn", "PrivateZone has no TCP", edit("10.0.0.2 10.0.0.3", "/etc/resolv.conf"), {"platform": "ack"}),
    ("C33", "info", "no `bufsize", edit("    bufsize 1232\n", ""), {}),
    ("C33", "warn", "up to 2048 octets", edit("bufsize 1232", "bufsize 2048"), {}),
    ("C33", "fail", "up to 4096 octets", edit("bufsize 1232", "bufsize 4096"), {}),
    ("C34", "warn", "deployment/coredns was customised",
     lambda c: managed(c.things[MAKER], "kubectl-edit", fields={"f:spec": {"f:replicas": {}}}), {}),
    ("C34", "warn", "deployment/coredns was customised", lambda c: managed(c.things[MAKER], "kubectl-patch", fields={
        "f:spec": {"f:template": {"f:spec": {"f:containers": {
            'k:{"name":"coredns"}': {".": {}, "f:image": {}}}}}}}), {}),
    ("C34", "pass", "nobody else", both(
        maker("metadata.managedFields", None), put("ConfigMap/coredns", "metadata.managedFields", None),
        lambda c: managed(c.things[MAKER], "kubectl-client-side-apply")), {}),
    ("C34", "unknown", "leaves managedFields out", both(
        maker("metadata.managedFields", None), put("ConfigMap/coredns", "metadata.managedFields", None)), {}),
    ("C35", "fail", "knows no CoreDNS after 1.14.2", add(control_plane()), {"target": "1.15.0"}),
    ("C35", "warn", "sets CoreDNS's image", add(control_plane()), {}),
    ("C35", "warn", "was not read", lambda c: c.unreadable("KubeadmControlPlane").set(
        "Node/node-1", "metadata.annotations[cluster.x-k8s.io/machine]", "m"), {}),
    ("C35", "warn", "sets CoreDNS to v1.12.1", add(kubeadm_config(imageTag="v1.12.1")), {"target": "1.14.2"}),
    ("C35", "info", "sets CoreDNS to v1.12.1", add(kubeadm_config(imageTag="v1.12.1")), {}),
    ("C35", "info", "to its own version", add(kubeadm_config()), {}),
    ("C35", "pass", "leaves CoreDNS alone",
     add(control_plane(**{"controlplane.cluster.x-k8s.io/skip-coredns": ""})), {"target": "1.15.0"}),
    ("C36", "fail", "forwards to itself", both(
        maker(f"{TEMPLATE}.dnsPolicy", None), edit("10.0.0.2 10.0.0.3", "/etc/resolv.conf")), {}),
    ("C36", "warn", "no critical priority", maker(f"{TEMPLATE}.priorityClassName", None), {}),
    ("C37", "fail", "stands still for ever", both(
        maker(f"{TEMPLATE}.affinity", REQUIRED), maker("spec.replicas", 3),
        maker("spec.strategy.rollingUpdate.maxUnavailable", 0)), {}),
    ("C37", "warn", "waits until an old one has gone",
     both(maker(f"{TEMPLATE}.affinity", REQUIRED), maker("spec.replicas", 3)), {}),
    ("C37", "warn", "found no place lately",
     add(event("FailedScheduling", "coredns-7d9-x", "0/3 nodes are available: 3 Insufficient memory")), {}),
    ("C37", "warn", "no node lets its pods on", put("Node/.*", "metadata.labels[kubernetes.io/os]", "windows"), {}),
    ("C37", "warn", "no node lets its pods on",
     put("Node/.*", "spec.taints", [{"key": "CriticalAddonsOnly", "effect": "NoExecute"},
                                    {"key": "node-role.kubernetes.io/control-plane", "effect": "NoExecute"}]), {}),
    ("C37", "warn", "no node lets its pods on",
     put("Node/.*", "spec.taints", [{"key": "mine", "effect": "NoSchedule"}]), {}),
    ("C37", "warn", "no node lets its pods on", maker("spec.template.spec.nodeSelector", {"dns": "here"}), {}),
    ("C37", "pass", "a DaemonSet", as_daemons(), {}),
    ("C38", "fail", "1 of 2 pods not Ready: coredns-a: CrashLoopBackOff", both(
        put("Pod/coredns-a", "status.conditions", []),
        put("Pod/coredns-a", "status.containerStatuses[0].state", {"waiting": {"reason": "CrashLoopBackOff"}})), {}),
    ("C38", "fail", "coredns-a: Pending", both(
        put("Pod/coredns-a", "status", {"phase": "Pending"})), {}),
    ("C38", "fail", "has no pod", drop(PODS), {}),
    ("C38", "fail", "2 reloads failed", nothing, {"figures": {"reload_failed": 2.0}}),
    ("C38", "fail", "1 panics", nothing, {"figures": {"panics": 1.0}}),
    ("C38", "pass", "2 pods Ready",
     add({**thing("Pod", "coredns-old", labels=LABELS), "status": {"phase": "Failed"}}), {}),
    ("C38", "warn", "1 pod restarted: coredns-a: ended with Error", both(
        put("Pod/coredns-a", "status.containerStatuses[0].restartCount", 3),
        put("Pod/coredns-a", "status.containerStatuses[0].lastState", ended("Error"))), {}),
    ("C39", "fail", "90% full", nothing, {"figures": {"conntrack_share": 0.9}}),
    ("C39", "warn", "70% full", nothing, {"figures": {"conntrack_share": 0.7}}),
    ("C39", "unknown", "no run has measured", nothing, NO_FIGURES),
    ("C40", "fail", "nobody may ask CoreDNS by 53/UDP and 53/TCP",
     add(policy(namespace=SYSTEM, policyTypes=["Ingress"])), {}),
    ("C40", "fail", "CoreDNS may not ask its upstream by 53/UDP and 53/TCP",
     add(policy(namespace=SYSTEM, selector=OURS, policyTypes=["Egress"], egress=ports("TCP", port=443))), {}),
    ("C40", "warn", "nobody may ask CoreDNS by 53/TCP",
     add(policy(namespace=SYSTEM, selector=OURS, ingress=ports("UDP"))), {}),
    ("C40", "warn", "may not ask any DNS: deny", add(policy(policyTypes=["Egress"])), {}),
    ("C40", "warn", "by UDP alone", add(policy(policyTypes=["Egress"], egress=ports("UDP"))), {}),
    ("C41", "info", "neither `nsid` nor `chaos`", edit("    nsid\n", ""), {}),
    ("C42", "warn", "2 pods may ask",
     add(application("edge", "envoyproxy/envoy:v1.30"), application("web", "nginx:1.27")), {}),
    ("C42", "warn", "up to 10 s lost", both(edit("20s", "5s"), add(application("edge", "envoyproxy/envoy:v1.30"))), {}),
    ("C42", "fail", "costs its clients",
     both(edit("20s", "5s"), add(application("edge", "envoyproxy/envoy:v1.30"))), MEASURED),
    ("C42", "warn", "1 pod may ask", both(edit("20s", "5s"), add(application("web", "nginx:1.27"))), MEASURED),
    ("C43", "fail", "0.2000%", nothing, {"figures": {"loss": 0.002, "seconds": 300.0}}),
    ("C43", "warn", "0.0050%", nothing, {"figures": {"loss": 0.00005, "seconds": 300.0}}),
    ("C43", "unknown", "no run says", nothing, NO_FIGURES),
    ("C43", "unknown", "went for 20 s", nothing, {"figures": {"loss": 0.0, "seconds": 20.0}}),
    ("C44", "warn", "1 UDP Service beside", both(ipvs(), add(udp_service())), {}),
    ("C44", "info", "under a timeout of 10 s", both(ipvs("10s"), add(udp_service())), {}),
    ("C44", "pass", "touches nobody else", ipvs(), {}),
    ("C45", "fail", "3 pods of kube-proxy of 3 started before", both(
        ipvs("10s"), lambda c: c.set("ConfigMap/kube-proxy", "metadata.managedFields[0].time", LATE)), {}),
    ("C45", "warn", "less than 5 minutes ago",
     both(ipvs("10s"), put("Pod/kube-proxy-a", "status.startTime", "2026-11-21T11:58:00Z")), {}),
    ("C45", "unknown", "restarted since is not known",
     both(ipvs("10s"), put("ConfigMap/kube-proxy", "metadata.managedFields", None)), {}),
    ("C45", "info", "no timeout is configured", ipvs(), {}),
    ("C19", "pass", "mode is iptables", both(drop(".*kube-proxy.*"), put(
        "Node/node-1", "metadata.annotations[k3s.io/node-args]", '["server"]')), {}),
    ("C20", "pass", "after 10 s", both(drop(".*kube-proxy.*"), put(
        "Node/node-1", "metadata.annotations[k3s.io/node-args]",
        '["server","--kube-proxy-arg=proxy-mode=ipvs","--kube-proxy-arg=ipvs-udp-timeout=10s"]')), {}),
    ("C20", "pass", "OpenShift", drop(".*kube-proxy.*"), {"platform": "openshift"}),
    ("C45", "pass", "younger than the edit", ipvs("10s"), {}),
    ("C46", "warn", "1 of 1 pod of applications have no dnsConfig", ipvs(), {}),
    ("C46", "info", "musl (Alpine)", both(ipvs(), add(application(
        "shop", "alpine:3.20", dnsConfig={"nameservers": ["169.254.20.10", "10.96.0.10"]}))), {}),
    ("C46", "pass", "1 pod of applications ask it",
     both(ipvs(), add(application("shop", dnsConfig={"nameservers": ["169.254.20.10"]}))), {}),
    ("C47", "warn", "more than 3 nameservers",
     add(application("many", dnsConfig={"nameservers": ["10.0.0.1", "10.0.0.2", "10.0.0.3"]})), {}),
    ("C47", "warn", "ndots over 5",
     add(application("dots", dnsConfig={"options": [{"name": "ndots", "value": "7"}]})), {}),
    ("C47", "info", "know no name of the cluster: shop/agent-7d9", add(application("agent", hostNetwork=True)), {}),
    ("C47", "info", "ask neither cluster DNS",
     add(application("own", dnsPolicy="None", dnsConfig={"nameservers": ["10.0.0.1"]})), {}),
    ("C48", "fail", "1 node of 3 has none", put("Service/kube-dns", "spec.internalTrafficPolicy", "Local"), {}),
    ("C48", "warn", "while its pod is replaced", both(
        put("Service/kube-dns", "spec.internalTrafficPolicy", "Local"), drop("Node/node-1")), {}),
    ("C48", "warn", "b, c have one pod each", put("Service/kube-dns", "spec.trafficDistribution", "PreferClose"), {}),
    ("C48", "warn", "b, c have one pod each", put(
        "Service/kube-dns", "metadata.annotations[service.kubernetes.io/topology-mode]", "Auto"), {}),
    ("C48", "info", "none has just one", both(
        put("Node/.*", "metadata.labels[topology.kubernetes.io/zone]", "a"),
        put("Service/kube-dns", "spec.trafficDistribution", "PreferClose")), {}),
    ("C49", "fail", "adds `/coredns`", add(kubeadm_config(
        imageRepository="k8s.gcr.io/coredns/coredns", imageTag="v1.8.4")), {}),
    ("C49", "fail", "adds `/coredns`", add(control_plane(repository="k8s.gcr.io/coredns/coredns")), {}),
    ("C49", "pass", "nothing is known against",
     add(thing("ConfigMap", "kubeadm-config", data={"ClusterConfiguration": "a: b: c"})), {}),
    ("C49", "pass", "against registry.k8s.io/coredns/coredns:v1.13.1;",
     image(f"registry.k8s.io/coredns/coredns@sha256:{'0' * 64}"), {"target": "1.13.1"}),
    ("C49", "pass", "against localhost:5000/coredns:v1.13.1;", image("localhost:5000/coredns"), {"target": "1.13.1"}),
    ("C49", "fail", "ends at 1.7.0", image("registry.k8s.io/coredns:1.7.0"), {"target": "1.8.0", "platform": "helm"}),
    ("C49", "info", "ends at 1.7.0", image("registry.k8s.io/coredns:1.7.0"), {"target": "1.8.0"}),
    ("C49", "fail", "tags begin with v", image("registry.k8s.io/coredns/coredns:1.12.1"), {}),
    ("C49", "fail", "frozen in April 2023", image("k8s.gcr.io/coredns/coredns:v1.9.3"), {"target": "1.12.1"}),
    ("C49", "warn", "frozen in April 2023", image("k8s.gcr.io/coredns/coredns:v1.9.3"), {}),
    ("C49", "fail", "coredns-a waits for", put(
        "Pod/coredns-a", "status.containerStatuses[0].state", {"waiting": {"reason": "ImagePullBackOff"}}), {}),
    ("C50", "fail", "", edit("    loop\n", "    // loop\n"), {}),
    ("C51", "warn", "3 nodes with a kernel before 5.1",
     both(drop("DaemonSet/node-local-dns"), put("Node/.*", "status.nodeInfo.kernelVersion", "4.19.0")), {}),
    ("C51", "info", "on ARM",
     both(drop("DaemonSet/node-local-dns"), put("Node/.*", "status.nodeInfo.architecture", "arm64")), {}),
    ("C51", "pass", "have the fixes", drop("DaemonSet/node-local-dns"), {}),
]  # fmt: skip


def fine() -> Cluster:
    """The sound one, with NodeLocal DNSCache on the Service's address."""
    return sound().add(*node_local("10.96.0.10"))


def said(check: str, change: Change, planned: dict[str, Any]) -> list[Finding]:
    cluster = fine()
    change(cluster)
    return audit(cluster.snapshot(), Planned(**{"figures": FIGURES, **planned}), only=[check])


@pytest.mark.parametrize(("check", "severity", "text", "change", "planned"), FIRING)
def test_a_check_says_what_is_wrong(
    check: str, severity: str, text: str, change: Change, planned: dict[str, Any]
) -> None:
    found = [one for one in said(check, change, planned) if one.severity == severity and text in one.text]
    assert found, said(check, change, planned)
    for one in found:
        assert one.source
        if severity in ("fail", "warn"):
            assert one.evidence or check in ("C39", "C43"), "it says what it goes by"
            assert one.remedy, "and what to do"


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_is_silent_on_a_sound_cluster(check: str) -> None:
    found = said(check, nothing, {"target": "1.14.2"})
    expected = {"C26": "warn"}.get(check, "pass")
    assert {one.severity for one in found} == {expected}, found


def test_every_check_fires_somewhere_and_has_its_sentences() -> None:
    fired = {check for check, severity, _, _, _ in FIRING if severity != "pass"}
    assert fired == set(CHECKS)
    for name, check in CHECKS.items():
        assert name == check.id
        assert check.title, check.why
        assert check.source, "where that is said"
        assert not check.why.endswith("."), "a clause, as a report has it after a colon"


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("seconds", ["5s", "14s"])
def test_one_lameduck_is_named(platform: str, seconds: str) -> None:
    """C03 goes by the guides, C05 by what nodes need: what a person sets is one thing."""
    about = {"platform": platform}
    change = both(edit("20s", seconds), maker(f"{BOX}.readinessProbe", probe_of()))
    remedies = {one.remedy for check in ("C03", "C05") for one in said(check, change, about) if one.severity == "warn"}
    assert len(remedies) == 1


OLD = ipvs(kernel="4.15.0", system="Ubuntu 18.04.6 LTS")
SHORT, ONE_NODE = edit("20s", "5s"), put(PODS, "spec.nodeName", "node-1")
FORMS: list[tuple[str, str, Change, str]] = [
    ("C03", "kubeadm", SHORT, "kubectl -n kube-system edit configmap coredns   # in the Corefile:\n    health {"),
    ("C03", "eks", SHORT, "aws eks update-addon --cluster-name CLUSTER --addon-name coredns"),
    ("C03", "helm", SHORT, "  - name: health\n    configBlock: |-\n      lameduck 20s"),
    ("C03", "k3s", SHORT, r'"lameduck.override":"health {\n    lameduck 20s\n}\n"'),
    ("C03", "aks", SHORT, "kubectl -n kube-system patch configmap coredns-custom --type merge"),
    ("C03", "rke2", SHORT, "kind: HelmChartConfig\nmetadata:\n  name: rke2-coredns"),
    ("C03", "openshift", SHORT, "# cannot be changed here: the DNS operator sets lameduck to 20 s"),
    ("C10", "eks", scaled(1), '{"replicaCount":2}'),
    ("C10", "helm", scaled(1), "replicaCount: 2\n"),
    ("C10", "rke2", scaled(1), "valuesContent: |-\n    replicaCount: 2"),
    ("C10", "aks", scaled(1), "# cannot be changed here: AKS takes back every edit"),
    (
        "C10",
        "kubeadm",
        scaled(1),
        'kubectl -n kube-system patch deployment coredns --patch \'{"spec":{"replicas":2}}\'',
    ),
    (
        "C10",
        "kubeadm",
        both(
            scaled(1),
            add(
                {
                    **thing("HorizontalPodAutoscaler", "dns"),
                    "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "coredns"}},
                }
            ),
        ),
        "change its minReplicas and maxReplicas",
    ),
    ("C11", "kubeadm", ONE_NODE, "kubectl -n kube-system rollout restart deployment coredns"),
    ("C13", "kubeadm", scaled(1), '"minReadySeconds":15'),
    ("C13", "helm", scaled(1), 'rollingUpdate: {"maxUnavailable":0,"maxSurge":1}'),
    ("C32", "kubeadm", edit("max_concurrent 1000", "policy random"), "policy random\n        max_concurrent 1000\n"),
    ("C05", "kubeadm", maker(f"{BOX}.readinessProbe", probe_of()), '{"periodSeconds":5,"failureThreshold":1}'),
    ("C20", "kubeadm", OLD, "udpTimeout: 10s\nkubectl -n kube-system rollout restart daemonset kube-proxy"),
    ("C20", "k3s", OLD, "/etc/rancher/k3s/config.yaml of every node, then restart it:\nkube-proxy-arg:"),
    ("C20", "kubeadm", both(OLD, lambda c: setattr(c, "version", "v1.16.9")), "ipvsadm --set 900 120 10"),
]


@pytest.mark.parametrize(("check", "platform", "change", "remedy"), FORMS)
def test_a_remedy_is_in_the_form_that_the_platform_keeps(
    check: str, platform: str, change: Change, remedy: str
) -> None:
    told = [one.remedy for one in said(check, change, {"platform": platform}) if one.severity in ("fail", "warn")]
    assert any(remedy in one for one in told), told


KINDS = sorted({one.kind for one in fine().snapshot().things} | {"NetworkPolicy", "Event", "StatefulSet", "PodMetrics"})


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_read_makes_checks_unknown_and_none_fail(kind: str) -> None:
    found = audit(fine().unreadable(kind).snapshot(), Planned(figures=FIGURES, target="1.14.2"))
    assert {one.id for one in found} == set(CHECKS)
    assert not [one for one in found if one.severity == "fail"]
    assert kind == "PodMetrics" or [one for one in found if one.severity == "unknown" and "not allowed" in one.text]


@pytest.mark.parametrize("key", fine().things)
def test_each_check_bears_that_an_object_is_missing(key: str) -> None:
    cluster = fine()
    del cluster.things[key]
    assert {one.id for one in audit(cluster.snapshot(), Planned(figures=FIGURES))} == set(CHECKS)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_each_check_speaks_on_each_platform(platform: str) -> None:
    cluster = fine().edit("20s", "5s").edit("    nsid\n", "").set(MAKER, "spec.replicas", 1)
    for snapshot in (cluster.snapshot(), Cluster([]).snapshot()):
        found = audit(snapshot, Planned(platform=platform, figures=FIGURES))
        assert {one.id for one in found} == set(CHECKS)
        assert all(one.remedy for one in found if one.severity == "fail")


@pytest.mark.parametrize(
    ("kernel", "system", "does"),
    [
        ("6.8.0-45-generic", "Ubuntu 24.04.1 LTS", Ipvs.MENDED),
        ("5.9.0", "Debian", Ipvs.MENDED),
        ("5.8.18", "Fedora 32", Ipvs.UNKNOWN),
        ("5.4.0-150-generic", "Ubuntu 20.04.6 LTS", Ipvs.UNKNOWN),
        ("4.15.0-213-generic", "Ubuntu 18.04.6 LTS", Ipvs.DROPS),
        ("3.10.0-1160.el7.x86_64", "CentOS Linux 7 (Core)", Ipvs.DROPS),
        ("4.19.91-25.1.al7.x86_64", "Alibaba Cloud Linux (Aliyun Linux) 2.1903 LTS", Ipvs.MENDED),
        ("4.19.91-27.al7.x86_64", "Alibaba Cloud Linux (Aliyun Linux) 2.1903 LTS", Ipvs.MENDED),
        ("4.19.91-24.1.al7.x86_64", "Alibaba Cloud Linux (Aliyun Linux) 2.1903 LTS", Ipvs.DROPS),
        ("4.18.0-147.5.1.6.h998.eulerosv2r9.x86_64", "EulerOS 2.0 (SP9x86_64)", Ipvs.MENDED),
        ("4.18.0-147.5.1.6.h841.eulerosv2r9.x86_64", "EulerOS 2.0 (SP9x86_64)", Ipvs.DROPS),
        ("4.19.90-vhulk2103.1.0.h990.eulerosv2r9.aarch64", "EulerOS 2.0 (SP9)", Ipvs.MENDED),
        ("4.19.90-vhulk2103.1.0.h584.eulerosv2r9.aarch64", "EulerOS 2.0 (SP9)", Ipvs.DROPS),
        ("4.18.0-553.el8_10.x86_64", "Rocky Linux 8.10", Ipvs.UNKNOWN),
        ("", "", Ipvs.UNKNOWN),
    ],
)
def test_which_kernels_drop_what_goes_to_a_server_that_is_gone(kernel: str, system: str, does: Ipvs) -> None:
    assert ipvs_of(kernel, system) is does


def test_quantities_percentages_and_versions_as_the_api_writes_them() -> None:
    assert [quantity(one) for one in ("100m", "170Mi", "2", "1e3", "1G", 4, "x", None)] == [
        0.1, 170 * MIB, 2, 1000, 1e9, 4, None, None]  # fmt: skip
    assert [share_of("25%", 2, up=up) for up in (True, False)] == [1, 0]
    assert [share_of(one, 4, up=True) for one in (1, "3", "100%", "0%", "x")] == [1, 3, 4, 0, 0]
    assert numbers("v1.11.4-eksbuild.2") == (1, 11, 4)
    assert numbers("1.34") == (1, 34, 0)
    assert numbers("latest") == ()


def test_lameducks_of_several_server_blocks_come_one_after_the_other(tmp_path: Path) -> None:
    """What C07 says, by a real CoreDNS; that two listeners share a port, too."""
    coredns = find_coredns()
    if coredns is None:
        pytest.skip("needs coredns: run `make coredns`")
    blocks = [f"{zone}:5397 {{\n bind 127.98.0.1\n health 127.98.0.1:8097 {{\n lameduck {wait}\n }}\n whoami\n}}\n"
              for zone, wait in ((".", "300ms"), ("example.org", "400ms"))]  # fmt: skip
    (tmp_path / "Corefile").write_text("".join(blocks))
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([coredns, "-conf", tmp_path / "Corefile"], stdout=log, stderr=log)
    ends = time.monotonic() + 20
    while "CoreDNS-" not in (tmp_path / "log").read_text() and time.monotonic() < ends:
        time.sleep(0.05)
    told = time.monotonic()
    process.terminate()
    process.wait(20)
    assert time.monotonic() - told >= 0.7
    said_by = (tmp_path / "log").read_text()
    assert [f"lameduck mode for {wait}ms" in said_by for wait in (300, 400)] == [True, True]
