"""A node's folder and port -> the command line and configuration of each component: the defaults, where there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from tests.e2e.machine import ADDRESS

Proxy = Literal["iptables", "nftables"]

NODE = "node"
SERVICES, FIRST_SERVICE, DNS_SERVICE = "10.96.0.0/16", "10.96.0.1", "10.96.0.10"
PODS = "10.244.0.0/24"
PAUSE = "localhost/pause:1"
_ETCD = "http://127.0.0.1:2379"

UPSTREAM = f"""\
. {{
    bind {ADDRESS}
    template IN A {{
        answer "{{{{ .Name }}}} 60 IN A 192.0.2.1"
    }}
    template IN ANY {{
        rcode NOERROR
    }}
}}
"""
"""What the node's resolv.conf names: every name has an A record there, and nothing else."""


def containerd(folder: Path) -> Path:
    """The socket at which containerd is asked."""
    return folder / "containerd.sock"


def commands(folder: Path, port: int) -> dict[str, list[str]]:
    """The command line of each component."""
    key = folder / "keys"
    return {
        "etcd": [
            "etcd",
            "--data-dir=/var/lib/etcd",
            f"--listen-client-urls={_ETCD}",
            f"--advertise-client-urls={_ETCD}",
        ],
        "containerd": ["containerd", f"--config={folder}/containerd.toml"],
        "upstream": ["coredns", f"-conf={folder}/upstream.corefile"],
        "kube-apiserver": [
            "kube-apiserver",
            *(f"--etcd-servers={_ETCD}", f"--secure-port={port}", f"--advertise-address={ADDRESS}"),
            *(f"--service-cluster-ip-range={SERVICES}", "--authorization-mode=Node,RBAC"),
            *(
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
                f"--client-ca-file={key}/ca.crt",
            ),
            *(f"--tls-cert-file={key}/apiserver.crt", f"--tls-private-key-file={key}/apiserver.key"),
            *(f"--service-account-key-file={key}/service-account.crt", "--service-account-issuer=https://kubernetes"),
            f"--service-account-signing-key-file={key}/service-account.key",
            f"--kubelet-client-certificate={key}/kube-apiserver-kubelet.crt",
            f"--kubelet-client-key={key}/kube-apiserver-kubelet.key",
            "--kubelet-preferred-address-types=InternalIP",
        ],
        "kube-controller-manager": [
            "kube-controller-manager",
            *(f"--kubeconfig={key}/kube-controller-manager.kubeconfig", f"--root-ca-file={key}/ca.crt"),
            f"--service-account-private-key-file={key}/service-account.key",
            *("--use-service-account-credentials", "--leader-elect=false"),
        ],
        "kube-scheduler": ["kube-scheduler", f"--kubeconfig={key}/kube-scheduler.kubeconfig", "--leader-elect=false"],
        "kubelet": [
            *("kubelet", f"--config={folder}/kubelet.json", f"--kubeconfig={key}/kubelet.kubeconfig"),
            *(f"--hostname-override={NODE}", f"--node-ip={ADDRESS}"),
        ],
        "kube-proxy": ["kube-proxy", f"--config={folder}/kube-proxy.json"],
    }


def files(folder: Path) -> dict[str, str]:
    """The configuration files, by name in the folder."""
    return {
        "resolv.conf": f"nameserver {ADDRESS}\n",
        "upstream.corefile": UPSTREAM,
        "containerd.toml": _containerd(folder),
        "cni/10-ptp.conflist": json.dumps(_network(), indent=2),
        "kubelet.json": json.dumps(_kubelet(folder), indent=2),
    }


def kube_proxy(folder: Path, mode: Proxy) -> str:
    """kube-proxy.json: KubeProxyConfiguration. The size of conntrack's table is the whole machine's: left alone."""
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": f"{folder}/keys/kube-proxy.kubeconfig"},
            "mode": mode,
            "hostnameOverride": NODE,
            "clusterCIDR": PODS,
            "conntrack": {"maxPerCore": 0, "min": 0},
        },
        indent=2,
    )


def _containerd(folder: Path) -> str:
    parts = folder / "parts"
    return f"""\
version = 2
[grpc]
  address = "{containerd(folder)}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  enable_unprivileged_ports = true
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{parts}/debian/usr/lib/cni"
  conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  BinaryName = "{parts}/debian/usr/sbin/runc"
"""


def _network() -> dict[str, object]:
    ipam = {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": ipam}]}


def _kubelet(folder: Path) -> dict[str, object]:
    """KubeletConfiguration. Nothing is evicted for want of disk: the disk is somebody's."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{folder}/keys/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{folder.name}",
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{containerd(folder)}",
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": False,
        "protectKernelDefaults": True,
        "resolvConf": f"{folder}/resolv.conf",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    }
