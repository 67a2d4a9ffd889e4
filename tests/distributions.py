"""A distribution -> its cluster as it makes it by default, from what is named here.

`python -m tests.distributions` writes what the audit says of each to tests/data/audit, to be read line by line.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from probe.audit import audit
from probe.audit.check import Planned
from probe.audit.platform import detect
from tests.clusters import (
    CONTROL_PLANE,
    KUBEADM_COREFILE,
    LABELS,
    REQUIRED,
    Cluster,
    application,
    budget,
    container,
    dns_service,
    kube_proxy,
    kubeadm_config,
    maker,
    node,
    node_local,
    probe_of,
    proxy_config,
    roles,
    whole_cluster,
)
from tests.kube_objects import Json, thing

GOLDEN = Path(__file__).parent / "data" / "audit"
CUSTOM = ("import custom/*.override", "import custom/*.server")


def kubeadm() -> Cluster:
    """1.34 (manifests.go); `kubeadm init` has one node, and both pods stay there."""
    nodes = [node("cp-1", taints=CONTROL_PLANE), node("worker-1"), node("worker-2")]
    others = [*kube_proxy(nodes=("cp-1", "worker-1", "worker-2")), *roles(), kubeadm_config(), application("shop")]
    dns = maker(part={"readinessProbe": probe_of(port="readiness-probe")})
    named = {"containerPort": 8181, "name": "readiness-probe", "protocol": "TCP"}
    dns["spec"]["template"]["spec"]["containers"][0]["ports"].append(named)
    return whole_cluster(dns, KUBEADM_COREFILE, nodes, *others, on=("cp-1", "cp-1"), manager="kubeadm")


def deployment() -> Cluster:
    """coredns/deployment's coredns.yaml.sed, with kubectl apply: one replica, required anti-affinity."""
    corefile = KUBEADM_COREFILE.replace("       ttl 30\n", "")
    corefile = corefile.replace(
        " {\n       disable success cluster.local\n       disable denial cluster.local\n    }", ""
    )
    nodes = [node("node-1"), node("node-2")]
    dns = maker(image="coredns/coredns:1.12.1", replicas=1, pod={"affinity": REQUIRED})
    return whole_cluster(
        dns, corefile, nodes, *kube_proxy(nodes=("node-1", "node-2")), *roles(), manager="kubectl-client-side-apply"
    )


def helm() -> Cluster:
    """coredns/helm 1.46, values.yaml."""
    labels = {"k8s-app": "kube-dns", "app.kubernetes.io/instance": "coredns", "app.kubernetes.io/name": "coredns"}
    part = {
        "readinessProbe": probe_of(period=5, failures=1, timeoutSeconds=5, initialDelaySeconds=30),
        "resources": {"limits": {"cpu": "100m", "memory": "128Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
    }
    pod = {"priorityClassName": None, "affinity": None, "tolerations": None, "serviceAccountName": "default"}
    dns = maker(image="coredns/coredns:1.13.1", replicas=1, labels=labels, part=part, pod=pod)
    corefile = KUBEADM_COREFILE.replace("lameduck 5s", "lameduck 10s").replace(
        " {\n       max_concurrent 1000\n    }", ""
    )
    corefile = corefile.replace(
        " {\n       disable success cluster.local\n       disable denial cluster.local\n    }", ""
    )
    nodes = [node("node-1"), node("node-2")]
    service = dns_service("coredns", labels={**labels, "app.kubernetes.io/managed-by": "Helm"}, selector=labels)
    others = [*kube_proxy(nodes=("node-1", "node-2")), *roles("default", "coredns")]
    found = whole_cluster(dns, corefile, nodes, *others, manager="helm", service=service)
    dns["metadata"]["labels"] = {**labels, "app.kubernetes.io/managed-by": "Helm"}
    return found


def eks() -> Cluster:
    """1.32 with the add-on, two zones."""
    corefile = KUBEADM_COREFILE.replace("       ttl 30\n", "").replace(" {\n       max_concurrent 1000\n    }", "")
    corefile = corefile.replace(
        " {\n       disable success cluster.local\n       disable denial cluster.local\n    }", ""
    )
    registry = "602401143452.dkr.ecr.us-west-2.amazonaws.com/eks"
    system: Json = {
        "kernel": "6.1.119-129.201.amzn2023.x86_64",
        "system": "Amazon Linux 2023.6.20250107",
        "kubelet": "v1.32.0-eks-aeac579",
    }
    nodes = [node("ip-10-0-1-10", "us-west-2a", **system), node("ip-10-0-2-20", "us-west-2b", **system)]
    names = [one["metadata"]["name"] for one in nodes]
    proxy = kube_proxy(
        "v1.32.0-minimal-eksbuild.2", image=f"{registry}/kube-proxy", config="kube-proxy-config", key="config",
        text=proxy_config("iptables"), nodes=names,
    )  # fmt: skip
    dns = maker(image=f"{registry}/coredns:v1.11.4-eksbuild.2", pod={"tolerations": [{"operator": "Exists"}]})
    service = dns_service(clusterIP="172.20.0.10", clusterIPs=["172.20.0.10"])
    others = [*proxy, *roles(), budget(maxUnavailable=1), application("shop")]
    return whole_cluster(dns, corefile, nodes, *others, manager="eks", version="v1.32.1-eks-8cce635", service=service)


ACK_COREFILE = """\
.:53 {
    errors
    health {
        lameduck 15s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods verified
        fallthrough in-addr.arpa ip6.arpa
    }
    prometheus :9153
    forward . /etc/resolv.conf {
        max_concurrent 1000
    }
    cache 30
    loop
    log
    reload
    loadbalance
}
"""


def ack() -> Cluster:
    """The guide's own sample Corefile; kube-proxy in IPVS mode, its ConfigMap kube-proxy-worker without udpTimeout."""
    system: Json = {"kernel": "4.19.91-24.1.al7.x86_64", "system": "Alibaba Cloud Linux (Aliyun Linux) 2.1903 LTS",
              "kubelet": "v1.26.3-aliyun.1"}  # fmt: skip
    nodes = [
        node("cn-hangzhou.10.0.0.1", "cn-hangzhou-h", **system),
        node("cn-hangzhou.10.0.0.2", "cn-hangzhou-i", **system),
    ]
    registry = "registry-cn-hangzhou-vpc.ack.aliyuncs.com/acs"
    names = [one["metadata"]["name"] for one in nodes]
    proxy = kube_proxy(
        "v1.26.3-aliyun.1", image=f"{registry}/kube-proxy", name="kube-proxy-worker", config="kube-proxy-worker",
        text="apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n", nodes=names,
    )  # fmt: skip
    dns = maker(image=f"{registry}/coredns:v1.9.3.10-7dfca203-aliyun", part={"memory": "2Gi"})
    service = dns_service(sessionAffinity="None", clusterIP="172.21.0.10", clusterIPs=["172.21.0.10"])
    others = [*proxy, *roles(), application("shop")]
    return whole_cluster(dns, ACK_COREFILE, nodes, *others, version="v1.26.3-aliyun.1", service=service)


def with_custom(corefile: str, path: str = "custom") -> str:
    """With the parts that AKS, k3s and Gardener leave to people."""
    inside = corefile.replace("    loadbalance\n}", f"    loadbalance\n    import {path}/*.override\n}}")
    return f"{inside}import {path}/*.server\n"


def aks() -> Cluster:
    """1.31; the managed Corefile's lameduck is not said anywhere: aks-engine's 5 s."""
    corefile = KUBEADM_COREFILE.replace(" {\n       max_concurrent 1000\n    }", "")
    corefile = corefile.replace(
        " {\n       disable success cluster.local\n       disable denial cluster.local\n    }", ""
    )
    system: Json = {"kernel": "5.15.0-1075-azure", "system": "Ubuntu 22.04.5 LTS", "kubelet": "v1.31.3"}
    nodes = [node("aks-nodepool1-0", "westeurope-1", **system), node("aks-nodepool1-1", "westeurope-2", **system)]
    resources = {"limits": {"cpu": "3", "memory": "500Mi"}, "requests": {"cpu": "100m", "memory": "70Mi"}}
    dns = maker(image="mcr.microsoft.com/oss/kubernetes/coredns:v1.11.3-1", part={"resources": resources})
    dns["metadata"]["labels"] = {**LABELS, "kubernetes.azure.com/managedby": "aks"}
    names = ("aks-nodepool1-0", "aks-nodepool1-1")
    proxy = kube_proxy("v1.31.3", image="mcr.microsoft.com/oss/kubernetes/kube-proxy", nodes=names)
    for one in proxy[:-1]:  # by flags alone
        spec = one["spec"]["template"]["spec"] if one["kind"] == "DaemonSet" else one["spec"]
        spec["containers"][0]["command"] = [
            "kube-proxy",
            "--cluster-cidr=10.244.0.0/16",
            "--detect-local-mode=ClusterCIDR",
        ]
        del spec["volumes"]
    scaler = thing("ConfigMap", "coredns-autoscaler", data={"ladder": '{"nodesToReplicas":[[1,2],[512,3]]}'})
    custom = thing("ConfigMap", "coredns-custom")
    others = [*proxy[:-1], *roles(), budget("coredns-pdb", minAvailable=1), scaler, custom, application("shop")]
    service = dns_service(clusterIP="10.0.0.10", clusterIPs=["10.0.0.10"])
    return whole_cluster(dns, with_custom(corefile), nodes, *others, version="v1.31.3", service=service)


def gke() -> Cluster:
    """1.31 with kube-dns; kube-proxy as static pods with flags in one word of a shell."""
    system: Json = {
        "kernel": "6.1.112+",
        "system": "Container-Optimized OS from Google",
        "kubelet": "v1.31.4-gke.1183000",
    }
    nodes = [node("gke-a", "europe-west1-b", **system), node("gke-b", "europe-west1-c", **system)]
    image = "gke.gcr.io/k8s-dns-{}:1.23.0-gke.9@sha256:0"
    probe = {
        "httpGet": {"path": "/readiness", "port": 8081, "scheme": "HTTP"},
        "periodSeconds": 10,
        "failureThreshold": 3,
    }
    ports = [
        {"containerPort": 53, "name": "dns", "protocol": "UDP"},
        {"containerPort": 53, "name": "dns-tcp", "protocol": "TCP"},
    ]
    containers = [
        {"name": "kubedns", "image": image.format("kube-dns"), "readinessProbe": probe,
         "resources": {"limits": {"memory": "210Mi"}, "requests": {"cpu": "100m", "memory": "70Mi"}}},
        {"name": "dnsmasq", "image": image.format("dnsmasq-nanny"), "ports": ports,
         "resources": {"requests": {"cpu": "150m", "memory": "20Mi"}}},
        {"name": "sidecar", "image": image.format("sidecar")},
    ]  # fmt: skip
    dns = maker(name="kube-dns", pod={"containers": containers, "volumes": [], "serviceAccountName": "kube-dns"})
    dns["spec"]["strategy"]["rollingUpdate"] = {"maxUnavailable": 0, "maxSurge": "10%"}
    words = [
        "/bin/sh",
        "-c",
        "exec kube-proxy --master=https://10.0.0.1 --cluster-cidr=10.8.0.0/14 --v=2 1>>/var/log/kube-proxy.log",
    ]
    proxies = []
    for one in nodes:
        name = one["metadata"]["name"]
        image = "gke.gcr.io/kube-proxy-amd64:v1.31.4-gke.1183000"
        spec = {"containers": [{"name": "kube-proxy", "image": image, "command": words}],
                "nodeName": name, "hostNetwork": True}  # fmt: skip
        pod = thing("Pod", f"kube-proxy-{name}", labels={"component": "kube-proxy"}, spec=spec)
        proxies.append({**pod, "status": {"phase": "Running", "startTime": "2026-11-02T10:00:00Z"}})
    return whole_cluster(dns, "", nodes, *proxies, application("shop"), version="v1.31.4-gke.1183000")


def k3s() -> Cluster:
    """1.34, one server: manifests/coredns.yaml."""
    corefile = KUBEADM_COREFILE.replace("    health {\n       lameduck 5s\n    }\n", "    health\n")
    corefile = corefile.replace("       ttl 30\n", "").replace(" {\n       max_concurrent 1000\n    }", "")
    corefile = corefile.replace(
        " {\n       disable success cluster.local\n       disable denial cluster.local\n    }", ""
    )
    inside = "ttl 60\n       reload 15s\n       fallthrough"
    hosts = f"    hosts /etc/coredns/NodeHosts {{\n       {inside}\n    }}\n    prometheus"
    corefile = with_custom(corefile.replace("    prometheus", hosts), "/etc/coredns/custom")
    part = {"readinessProbe": probe_of(period=2, failures=3)}
    dns = maker(image="rancher/mirrored-coredns-coredns:1.12.3", replicas=1, part=part, pod={"affinity": None})
    dns["metadata"]["labels"] = {**LABELS, "objectset.rio.cattle.io/hash": "bce283298811743a0386ab510f2f67ef74240c57"}
    nodes = [node("server", kubelet="v1.34.1+k3s1", system="Ubuntu 24.04.1 LTS")]
    nodes[0]["metadata"]["annotations"] = {"k3s.io/node-args": '["server"]'}
    service = dns_service(clusterIP="10.43.0.10", clusterIPs=["10.43.0.10"])
    return whole_cluster(dns, corefile, nodes, *roles(), application("shop"), version="v1.34.1+k3s1", service=service)


def kops() -> Cluster:
    """1.31: cluster-proportional-autoscaler, spread over zones and nodes, a budget of 50 %; static kube-proxies."""
    spread: list[Any] = [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": LABELS},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
    dns = maker(
        image="registry.k8s.io/coredns/coredns:v1.11.3", pod={"affinity": None, "topologySpreadConstraints": spread}
    )
    dns["spec"]["strategy"]["rollingUpdate"] = {"maxUnavailable": 1, "maxSurge": "10%"}
    dns["metadata"]["labels"] = {**LABELS, "addon.kops.k8s.io/name": "coredns.addons.k8s.io"}
    corefile = KUBEADM_COREFILE.replace(
        "    cache 30 {\n       disable success cluster.local\n       disable denial cluster.local\n    }",
        "    cache 30",
    )
    nodes = [node("i-1", "eu-west-1a", kubelet="v1.31.2"), node("i-2", "eu-west-1b", kubelet="v1.31.2")]
    pods = []
    for name in ("i-1", "i-2"):
        words = ["/usr/local/bin/kube-proxy", "--conntrack-max-per-core=131072", "--cluster-cidr=100.96.0.0/11"]
        spec = {"containers": [{"name": "kube-proxy", "image": "registry.k8s.io/kube-proxy:v1.31.2", "command": words}],
                "nodeName": name, "hostNetwork": True}  # fmt: skip
        pod = thing("Pod", f"kube-proxy-{name}", labels={"k8s-app": "kube-proxy", "tier": "node"}, spec=spec)
        pods.append({**pod, "status": {"phase": "Running", "startTime": "2026-11-02T10:00:00Z"}})
    service = dns_service(clusterIP="100.64.0.10", clusterIPs=["100.64.0.10"])
    others = [*pods, *roles(), budget("kube-dns", maxUnavailable="50%"), application("shop")]
    return whole_cluster(dns, corefile, nodes, *others, version="v1.31.2", service=service)


OPENSHIFT_COREFILE = """\
hostname.bind:5353 {
    chaos
}
.:5353 {
    bufsize 512
    errors
    log . {
        class error
    }
    health {
        lameduck 20s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
    }
    prometheus 127.0.0.1:9153
    forward . /etc/resolv.conf {
        policy sequential
    }
    cache 900 {
        denial 9984 30
    }
    reload
}
"""


def openshift() -> Cluster:
    """4.17: the DNS operator's DaemonSet dns-default; OVN-Kubernetes in kube-proxy's place."""
    space = "openshift-dns"
    labels = {"dns.operator.openshift.io/daemonset-dns": "default"}
    image = "quay.io/openshift-release-dev/ocp-v4.0-art-dev@sha256:1f0cd2b0"
    system: Json = {
        "kernel": "5.14.0-427.50.1.el9_4.x86_64",
        "system": "Red Hat Enterprise Linux CoreOS 417.94",
        "kubelet": "v1.30.7",
    }
    nodes = [node("master-0", "a", **system), node("worker-0", "b", **system), node("worker-1", "c", **system)]
    answers = container(image, name="dns", port=5353, readinessProbe=probe_of(period=3, failures=3, timeoutSeconds=3))
    answers["resources"] = {"requests": {"cpu": "50m", "memory": "70Mi"}}
    proxy = {"name": "kube-rbac-proxy", "image": "quay.io/openshift-release-dev/ocp-v4.0-art-dev@sha256:2a0cd2b0"}
    pod = {"containers": [answers, proxy], "volumes": [{"name": "config-volume", "configMap": {"name": "dns-default"}}],
           "priorityClassName": "system-node-critical", "serviceAccountName": "dns", "affinity": None,
           "tolerations": [{"operator": "Exists"}]}  # fmt: skip
    dns = maker("DaemonSet", "dns-default", replicas=3, labels=labels, namespace=space, pod=pod)
    dns["metadata"]["labels"] = {"dns.operator.openshift.io/owning-dns": "default"}
    service = dns_service(
        "dns-default", namespace=space, labels={"dns.operator.openshift.io/owning-dns": "default"}, selector=labels,
        clusterIP="172.30.0.10", clusterIPs=["172.30.0.10"],
    )  # fmt: skip
    others = [*roles("dns", "openshift-dns", space), application("shop")]
    return whole_cluster(dns, OPENSHIFT_COREFILE, nodes, *others, version="v1.30.7", service=service)


def gardener() -> Cluster:
    """A shoot of 1.31: lameduck 15 s, maxUnavailable 0, an HPA."""
    corefile = with_custom(KUBEADM_COREFILE.replace("lameduck 5s", "lameduck 15s").replace(".:53", ".:8053"))
    corefile = corefile.replace(
        "    cache 30 {\n       disable success cluster.local\n       disable denial cluster.local\n    }",
        "    cache 30",
    )
    corefile = corefile.replace(" {\n       max_concurrent 1000\n    }", "")
    part = {"port": 8053, "readinessProbe": probe_of(initialDelaySeconds=30)}
    dns = maker(image="europe-docker.pkg.dev/gardener-project/releases/3rd/coredns/coredns:v1.12.1", part=part)
    dns["spec"]["strategy"]["rollingUpdate"] = {"maxUnavailable": 0, "maxSurge": 1}
    dns["metadata"]["labels"] = {**LABELS, "resources.gardener.cloud/managed-by": "gardener"}
    nodes = [node("shoot-a", "eu-1a", kubelet="v1.31.2"), node("shoot-b", "eu-1b", kubelet="v1.31.2")]
    proxy = kube_proxy("v1.31.2", name="kube-proxy-worker-v1.31.2", nodes=("shoot-a", "shoot-b"))
    service = dns_service(clusterIP="100.64.0.10", clusterIPs=["100.64.0.10"])
    others = [*proxy, *roles(), budget(maxUnavailable=1), thing("ConfigMap", "coredns-custom"), application("shop")]
    return whole_cluster(dns, corefile, nodes, *others, version="v1.31.2", service=service)


def nodelocal() -> Cluster:
    """kubeadm 1.34 in IPVS mode with NodeLocal DNSCache of kubernetes/dns: pods ask it where their kubelet says so."""
    nodes = [node("cp-1", taints=CONTROL_PLANE), node("worker-1"), node("worker-2")]
    proxy = kube_proxy(text=proxy_config("ipvs"), nodes=("cp-1", "worker-1", "worker-2"))
    asks = application("told", dnsConfig={"nameservers": ["169.254.20.10"]}, dnsPolicy="None")
    others = [*proxy, *roles(), kubeadm_config(), *node_local(), application("shop"), asks]
    return whole_cluster(maker(), KUBEADM_COREFILE, nodes, *others, on=("cp-1", "worker-1"), manager="kubeadm")


DISTRIBUTIONS: dict[str, Callable[[], Cluster]] = {
    one.__name__: one
    for one in (kubeadm, deployment, helm, eks, ack, aks, gke, k3s, kops, openshift, gardener, nodelocal)
}
"""What each has by default."""


def said(cluster: Cluster) -> str:
    """What the audit says of it, nothing being planned or measured: all of what is wrong, a line of what is right."""
    snapshot = cluster.snapshot()
    platform, sign = detect(snapshot)
    lines = [f"platform {platform}: {sign or 'no sign of any'}"]
    for one in audit(snapshot, Planned(platform=platform)):
        lines.append(f"{one.severity:<7} {one.id} {one.text}")
        if one.severity != "pass":
            lines += [f"{'':12}{line}" for line in one.evidence.splitlines()]
            lines += [f"{'':12}$ {line}" for line in one.remedy.splitlines()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, made in DISTRIBUTIONS.items():
        (GOLDEN / f"{name}.txt").write_text(said(made()))
