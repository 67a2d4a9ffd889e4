"""Words -> the objects of whole clusters, as the API's JSON has them: what distributions make, and a sound one."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable
from typing import Any

from probe.audit.snapshot import Snapshot
from probe.audit.things import Thing
from tests.kube_objects import SYSTEM, Json, thing

_STEP = re.compile(r"\[([^]]+)]|([^.\[\]]+)")
TAKEN = "2026-11-21T12:00:00+00:00"
KUBEADM_COREFILE = """\
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
"""
SOUND_COREFILE = """\
.:53 {
    errors
    health {
       lameduck 20s
    }
    ready
    nsid
    bufsize 1232
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . 10.0.0.2 10.0.0.3 {
       max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
"""


class Cluster:
    """Objects by `kind/name`, or `kind/namespace/name` outside kube-system, to be changed before they are read."""

    def __init__(self, things: Iterable[Json], version: str = "v1.34.1") -> None:
        self.things: dict[str, Json] = {}
        self.version = version
        self.unread: dict[str, str] = {}
        self.add(*things)

    def add(self, *things: Json) -> Cluster:
        for one in things:
            space = one["metadata"].get("namespace", "")
            place = f"{space}/" if space not in ("", SYSTEM) else ""
            self.things[f"{one['kind']}/{place}{one['metadata']['name']}"] = one
        return self

    def drop(self, *keys: str) -> Cluster:
        for key in keys:
            for name in [name for name in self.things if re.fullmatch(key, name)]:
                del self.things[name]
        return self

    def set(self, key: str, path: str, value: Any) -> Cluster:
        """Of every object whose key is such; None takes the field away. As Thing.at() writes paths."""
        mine = [one for name, one in self.things.items() if re.fullmatch(key, name)]
        assert mine, key
        for one in mine:
            *steps, last = [name or part for name, part in _STEP.findall(path)]
            here: Any = one
            for step in steps:
                here = _into(here, step)
            if value is None:
                here.pop(last, None)
            elif isinstance(here, list):
                here[int(last)] = copy.deepcopy(value)
            else:
                here[last] = copy.deepcopy(value)
        return self

    def corefile(self, text: str) -> Cluster:
        return self.set("ConfigMap/coredns", "data.Corefile", text)

    def edit(self, old: str, new: str) -> Cluster:
        """Of the Corefile."""
        text = self.things["ConfigMap/coredns"]["data"]["Corefile"]
        assert old in text, old
        return self.corefile(text.replace(old, new))

    def unreadable(self, kind: str) -> Cluster:
        self.unread[kind] = "not allowed"
        return self

    def snapshot(self) -> Snapshot:
        bodies = json.loads(json.dumps(list(self.things.values())))
        return Snapshot(tuple(map(Thing.of, bodies)), self.unread, self.version, TAKEN)


def _into(here: Any, step: str) -> Any:
    if isinstance(here, list):
        return here[int(step)] if step.isdigit() else next(one for one in here if one.get("name") == step)
    return here.setdefault(step, {})


FIELDS: Json = {"f:data": {"f:Corefile": {}}, "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {}}}}


def managed(one: Json, manager: str, *, at: str = "2026-11-01T10:00:00Z", fields: Json | None = None) -> Json:
    """With who wrote it."""
    wrote = {"manager": manager, "operation": "Update", "time": at, "fieldsV1": fields or FIELDS}
    one["metadata"].setdefault("managedFields", []).append(wrote)
    return one


def probe_of(path: str = "/ready", port: int | str = 8181, period: int = 10, failures: int = 3, **more: Any) -> Json:
    http = {"path": path, "port": port, "scheme": "HTTP"}
    return {"httpGet": http, "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": 1, **more}


def container(image: str, *, memory: str = "170Mi", name: str = "coredns", port: int = 53, **more: Any) -> Json:
    requests = {"cpu": "100m", "memory": "70Mi"}
    return {
        "name": name,
        "image": image,
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [{"containerPort": port, "name": "dns", "protocol": "UDP"},
                  {"containerPort": port, "name": "dns-tcp", "protocol": "TCP"},
                  {"containerPort": 9153, "name": "metrics", "protocol": "TCP"}],
        "resources": {"limits": {"memory": memory}, "requests": requests},
        "readinessProbe": probe_of(),
        "volumeMounts": [{"name": "config-volume", "mountPath": "/etc/coredns", "readOnly": True}],
        **more,
    }  # fmt: skip


def daemons_status(n: int) -> Json:
    names = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "numberAvailable")
    return {**dict.fromkeys(names, n), "numberMisscheduled": 0}


LABELS = {"k8s-app": "kube-dns"}
TOLERATIONS = [
    {"key": "CriticalAddonsOnly", "operator": "Exists"},
    {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
]
_TERM = {
    "labelSelector": {"matchExpressions": [{"key": "k8s-app", "operator": "In", "values": ["kube-dns"]}]},
    "topologyKey": "kubernetes.io/hostname",
}
PREFERRED = {
    "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": _TERM}]}
}
REQUIRED = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [_TERM]}}


def maker(
    kind: str = "Deployment", name: str = "coredns", *, image: str = "registry.k8s.io/coredns/coredns:v1.12.1",
    replicas: int = 2, labels: Json | None = None, namespace: str = SYSTEM, part: Json | None = None,
    pod: Json | None = None, **spec: Any,
) -> Json:  # fmt: skip
    """What makes CoreDNS's pods, as kubeadm has it; part: of the container; pod: of the pods' spec."""
    labels = labels or LABELS
    made = {
        "priorityClassName": "system-cluster-critical",
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 30,
        "tolerations": TOLERATIONS,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "affinity": PREFERRED,
        "containers": [container(image, **(part or {}))],
        "volumes": [{"name": "config-volume", "configMap": {"name": "coredns"}}],
        **(pod or {}),
    }
    template = {"metadata": {"labels": labels}, "spec": made}
    whole: Json = {"selector": {"matchLabels": labels}, "template": template}
    if kind == "Deployment":
        whole["replicas"] = replicas
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": "25%"}}
        whole["strategy"] = rolling
        status = {"replicas": replicas, "readyReplicas": replicas}
    else:
        whole["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}}
        status = daemons_status(replicas)
    return thing(kind, name, labels=labels, namespace=namespace, spec={**whole, **spec}, status=status)


def pods_of(one: Json, *nodes: str) -> list[Json]:
    """Ready ones on these nodes, from 10.244.0.2 on."""
    found = []
    spec = one["spec"]["template"]["spec"]
    name = spec["containers"][0]["name"]
    for n, node in enumerate(nodes):
        pod = thing("Pod", f"{one['metadata']['name']}-{'abcdefgh'[n]}", labels=one["spec"]["selector"]["matchLabels"])
        pod["metadata"]["namespace"] = one["metadata"]["namespace"]
        pod["spec"] = {**copy.deepcopy(spec), "nodeName": node}
        status = {"name": name, "ready": True, "restartCount": 0, "state": {"running": {}}}
        pod["status"] = {
            "phase": "Running",
            "podIP": f"10.244.0.{n + 2}",
            "startTime": "2026-11-10T10:00:00Z",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{**status, "image": spec["containers"][0]["image"], "imageID": "x"}],
        }
        found.append(pod)
    return found


def dns_service(name: str = "kube-dns", *, namespace: str = SYSTEM, labels: Json | None = None, **spec: Any) -> Json:
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
             {"name": "metrics", "port": 9153, "protocol": "TCP"}]  # fmt: skip
    whole = {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ports": ports, "selector": LABELS}
    whole |= {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", **spec}
    return thing("Service", name, labels=labels or LABELS, namespace=namespace, spec=whole)


def slice_of(pods: Iterable[Json], *, name: str = "kube-dns", namespace: str = SYSTEM) -> Json:
    listed = [
        {
            "addresses": [pod["status"]["podIP"]],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": pod["spec"]["nodeName"],
            "targetRef": {"kind": "Pod", "name": pod["metadata"]["name"]},
        }
        for pod in pods
    ]
    made = thing("EndpointSlice", f"{name}-x", labels={"kubernetes.io/service-name": name}, namespace=namespace)
    return {
        **made,
        "addressType": "IPv4",
        "endpoints": listed,
        "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}],
    }


def node(
    name: str, zone: str = "", *, kernel: str = "6.8.0-45-generic", system: str = "Ubuntu 24.04.1 LTS",
    kubelet: str = "v1.34.1", cpu: str = "4", arch: str = "amd64", taints: list[Json] | None = None,
) -> Json:  # fmt: skip
    labels = {"kubernetes.io/os": "linux", "kubernetes.io/hostname": name}
    labels |= {"topology.kubernetes.io/zone": zone} if zone else {}
    info = {"kernelVersion": kernel, "osImage": system, "kubeletVersion": kubelet, "architecture": arch,
            "operatingSystem": "linux", "containerRuntimeVersion": "containerd://2.0.0", "kubeProxyVersion": "",
            "bootID": "", "machineID": "", "systemUUID": ""}  # fmt: skip
    room = {"cpu": cpu, "memory": "16Gi", "pods": "110"}
    status = {
        "nodeInfo": info,
        "capacity": room,
        "allocatable": room,
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    made = thing("Node", name, labels=labels, spec={"taints": taints} if taints else {}, status=status)
    made["metadata"]["annotations"] = {}
    return made


CONTROL_PLANE = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]


def proxy_config(mode: str = "", udp: str = "0s") -> str:
    return (
        f'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: "{mode}"\n'
        f"ipvs:\n  udpTimeout: {udp}\n"
    )


def kube_proxy(
    version: str = "v1.34.1", *, image: str = "registry.k8s.io/kube-proxy", name: str = "kube-proxy",
    config: str = "kube-proxy", text: str | None = None, key: str = "config.conf", nodes: Iterable[str] = ("node-1",),
) -> list[Json]:  # fmt: skip
    """Its DaemonSet, its pods and its ConfigMap."""
    labels = {"k8s-app": "kube-proxy"}
    words = ["/usr/local/bin/kube-proxy", f"--config=/var/lib/kube-proxy/{key}", "--hostname-override=$(NODE_NAME)"]
    spec = {
        "containers": [{"name": "kube-proxy", "image": f"{image}:{version}", "command": words}],
        "volumes": [{"name": "kube-proxy", "configMap": {"name": config}}],
        "hostNetwork": True,
    }
    daemons = thing("DaemonSet", name, labels=labels)
    daemons["spec"] = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}}
    daemons["status"] = daemons_status(len(list(nodes)))
    pods = []
    for n, where in enumerate(nodes):
        pod = thing("Pod", f"{name}-{'abcdefgh'[n]}", labels=labels, spec={**copy.deepcopy(spec), "nodeName": where})
        pod["status"] = {"phase": "Running", "startTime": "2026-11-02T10:00:00Z"}
        pods.append(pod)
    file = thing("ConfigMap", config, data={key: proxy_config() if text is None else text})
    return [daemons, *pods, managed(file, "kubeadm", fields={"f:data": {f"f:{key}": {}}})]


def roles(account: str = "coredns", name: str = "system:coredns", namespace: str = SYSTEM) -> list[Json]:
    rules = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    role = {"kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    ref = {"kind": "ClusterRole", "name": name, "apiGroup": "rbac.authorization.k8s.io"}
    return [role, {"kind": "ClusterRoleBinding", "metadata": {"name": name}, "roleRef": ref, "subjects": [subject]}]


def application(name: str, image: str = "registry.example/app:1", *, namespace: str = "shop", **spec: Any) -> Json:
    """A pod of somebody's."""
    made = thing("Pod", name, labels={"app": name}, namespace=namespace)
    made["metadata"]["ownerReferences"] = [
        {"kind": "ReplicaSet", "name": f"{name}-7d9", "apiVersion": "apps/v1", "uid": "x"}
    ]
    made["spec"] = {"containers": [{"name": "app", "image": image}], "dnsPolicy": "ClusterFirst", **spec}
    made["status"] = {"phase": "Running"}
    return made


def node_local(*addresses: str, service: str = "10.96.0.10", ready: int = 3, **spec: Any) -> list[Json]:
    """NodeLocal DNSCache of kubernetes/dns' manifest; addresses: beside 169.254.20.10."""
    labels = {"k8s-app": "node-local-dns"}
    ips = ",".join(("169.254.20.10", *addresses))
    cache = {
        "name": "node-cache",
        "image": "registry.k8s.io/dns/k8s-dns-node-cache:1.23.1",
        "args": ["-localip", ips, "-conf", "/etc/Corefile", "-upstreamsvc", "kube-dns-upstream"],
        "resources": {"requests": {"cpu": "25m", "memory": "5Mi"}},
        "ports": [{"containerPort": 53, "name": "dns", "protocol": "UDP"}],
    }
    whole = {
        "selector": {"matchLabels": labels},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
        "template": {"metadata": {"labels": labels}, "spec": {"hostNetwork": True, "dnsPolicy": "Default",
                     "containers": [cache], "priorityClassName": "system-node-critical"}},
        **spec,
    }  # fmt: skip
    status = daemons_status(ready)
    daemons = thing("DaemonSet", "node-local-dns", labels=labels, spec=whole, status=status)
    upstream = dns_service("kube-dns-upstream", clusterIP="10.96.0.11", clusterIPs=["10.96.0.11"])
    del service
    return [daemons, upstream]


def budget(name: str = "coredns", **spec: Any) -> Json:
    return thing("PodDisruptionBudget", name, spec={"selector": {"matchLabels": LABELS}, **spec})


def kubeadm_config(**dns: str) -> Json:
    lines = "".join(f"  {key}: {value}\n" for key, value in dns.items())
    text = f"apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\ndns:{' {}' if not dns else ''}\n{lines}"
    return thing("ConfigMap", "kubeadm-config", data={"ClusterConfiguration": text})


def whole_cluster(
    dns: Json, corefile: str, nodes: list[Json], *others: Json, on: tuple[str, ...] = (), manager: str = "",
    version: str = "v1.34.1", service: Json | None = None,
) -> Cluster:  # fmt: skip
    """A cluster of these nodes, DNS's pods on the first of them or `on`, and of what else there is."""
    names = [one["metadata"]["name"] for one in nodes]
    count = dns["spec"].get("replicas") or dns["status"].get("desiredNumberScheduled")
    pods = pods_of(dns, *(on or tuple(names[-count:])))
    service = service or dns_service()
    space, named = service["metadata"]["namespace"], service["metadata"]["name"]
    things = [dns, *pods, service, slice_of(pods, name=named, namespace=space), *nodes, *others]
    if corefile:
        mounted = dns["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"]
        things.append(thing("ConfigMap", mounted, namespace=dns["metadata"]["namespace"], data={"Corefile": corefile}))
    if manager:
        for one in things:
            if one["kind"] in ("Deployment", "DaemonSet", "ConfigMap") and one["metadata"]["name"] != "kube-proxy":
                managed(one, manager)
    return Cluster(things, version)


def sound() -> Cluster:
    """A cluster of which no check has anything to say."""
    nodes = [node("node-1", "a"), node("node-2", "b"), node("node-3", "c")]
    dns = maker(
        image="registry.k8s.io/coredns/coredns:v1.14.2",
        minReadySeconds=15,
        part={"readinessProbe": probe_of(period=3, failures=3)},
    )
    names = [one["metadata"]["name"] for one in nodes]
    others = [*kube_proxy(version="v1.37.0", nodes=names), *roles(), budget(maxUnavailable=1), application("shop")]
    return whole_cluster(dns, SOUND_COREFILE, nodes, *others, manager="kubeadm")
