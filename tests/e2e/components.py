"""Machines -> the command line and configuration of each component: the defaults, where there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from tests.e2e.machine import Machine

Proxy = Literal["iptables", "nftables"]

SERVICES, FIRST_SERVICE, DNS_SERVICE = "10.96.0.0/16", "10.96.0.1", "10.96.0.10"
PODS = "10.244.0.0/16"
PAUSE = "localhost/pause:1"
_ETCD = "http://127.0.0.1:2379"

UPSTREAM = """\
. {
    bind %s
    template IN A {
        answer "{{ .Name }} 60 IN A 192.0.2.1"
    }
    template IN ANY {
        rcode NOERROR
    }
}
"""
"""What the nodes' resolv.conf names: every name has an A record there, and nothing else."""


def pods(machine: Machine) -> str:
    """The addresses of a node's pods."""
    return f"10.244.{machine.address.rpartition('.')[2]}.0/24"


def containerd(machine: Machine) -> Path:
    """The socket at which containerd is asked."""
    return machine.folder / "containerd.sock"


def control(first: Machine) -> dict[str, list[str]]:
    """The command lines of what there is once: the control plane, and the upstream server."""
    key = first.folder / "keys"
    return {
        "etcd": [
            "etcd",
            "--data-dir=/var/lib/etcd",
            f"--listen-client-urls={_ETCD}",
            f"--advertise-client-urls={_ETCD}",
        ],
        "upstream": ["coredns", f"-conf={first.folder}/upstream.corefile"],
        "kube-apiserver": [
            "kube-apiserver",
            *(f"--etcd-servers={_ETCD}", f"--secure-port={first.port}", f"--advertise-address={first.address}"),
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
    }


def node(machine: Machine, first: Machine) -> dict[str, list[str]]:
    """The command lines of what each node has."""
    folder = machine.folder
    return {
        "containerd": ["containerd", f"--config={folder}/containerd.toml"],
        "kubelet": [
            *("kubelet", f"--config={folder}/kubelet.json"),
            f"--kubeconfig={first.folder}/keys/{machine.host}.kubeconfig",
            *(f"--hostname-override={machine.host}", f"--node-ip={machine.address}"),
        ],
        "kube-proxy": ["kube-proxy", f"--config={folder}/kube-proxy.json"],
    }


def files(machine: Machine, first: Machine) -> dict[str, str]:
    """A node's configuration files, by name in its folder."""
    return {
        "resolv.conf": f"nameserver {first.address}\n",
        "upstream.corefile": UPSTREAM % first.address,
        "containerd.toml": _containerd(machine),
        "cni/10-ptp.conflist": json.dumps(_network(machine), indent=2),
        "kubelet.json": json.dumps(_kubelet(machine, first), indent=2),
    }


def kube_proxy(machine: Machine, first: Machine, mode: Proxy) -> str:
    """kube-proxy.json: KubeProxyConfiguration. The size of conntrack's table is the whole machine's: left alone."""
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": f"{first.folder}/keys/kube-proxy.kubeconfig"},
            "mode": mode,
            "hostnameOverride": machine.host,
            "clusterCIDR": PODS,
            "conntrack": {"maxPerCore": 0, "min": 0},
        },
        indent=2,
    )


def _containerd(machine: Machine) -> str:
    parts = machine.folder / "parts"
    return f"""\
version = 2
[grpc]
  address = "{containerd(machine)}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  enable_unprivileged_ports = true
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{parts}/debian/usr/lib/cni"
  conf_dir = "{machine.folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  BinaryName = "{parts}/debian/usr/sbin/runc"
"""


def _network(machine: Machine) -> dict[str, object]:
    ipam = {"type": "host-local", "ranges": [[{"subnet": pods(machine)}]], "routes": [{"dst": "0.0.0.0/0"}]}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": ipam}]}


def _kubelet(machine: Machine, first: Machine) -> dict[str, object]:
    """KubeletConfiguration. Nothing is evicted for want of disk: the disk is somebody's."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{first.folder}/keys/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{machine.name}",
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{containerd(machine)}",
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": False,
        "protectKernelDefaults": True,
        "resolvConf": f"{machine.folder}/resolv.conf",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    }
