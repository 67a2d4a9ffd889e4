"""LabSettings -> a node, a prober and a namespace for each pod on this kernel; none of them leads out of the machine.

The Service is the kernel's own NAT, programmed as kube-proxy's nftables mode does it, and the kernel's own conntrack
holds the flows. Needs root, iproute2, nftables and conntrack-tools. All namespaces are named after the lab, so that
whoever comes later finds them (keeper.remove_namespaces).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from probe.cluster.endpoints import Endpoint, StaleFlows, era_of, usable
from probe.cluster.keeper import NAMESPACES, remove_namespaces
from probe.cluster.network import Addresses
from probe.cluster.settings import LabSettings
from probe.errors import EnvironmentProblem
from probe.linux import in_network

SERVICE = "10.96.0.10"
_PODS, _PROBERS = "10.244.0", "10.243.0"
_PROGRAMS = {"ip": "iproute2", "nft": "nftables", "conntrack": "conntrack"}
"""What the lab calls, and the Debian package that has it."""


def check_permitted() -> None:
    """EnvironmentProblem if this process may not make network namespaces, or lacks a program for it."""
    otherwise = "or say lab.backend: loopback, which needs neither root nor these programs"
    if os.geteuid() != 0:
        raise EnvironmentProblem(f"lab.backend netns: network namespaces need root: run it with sudo, {otherwise}")
    missing = [name for name in _PROGRAMS if not shutil.which(name)]
    if missing:
        packages = " ".join(_PROGRAMS[name] for name in missing)
        raise EnvironmentProblem(
            f"lab.backend netns: {', '.join(missing)} not found: apt-get install {packages}, {otherwise}"
        )


class Netns:
    """One node. The prober's and the pods' only links are to it; it has no other."""

    def __init__(self, settings: LabSettings, lab: str) -> None:
        check_permitted()
        self.service = SERVICE
        self._lab, self._port = lab, settings.port
        self._era = era_of(settings.kubernetes)
        self._stale = StaleFlows(self._era)
        self._addresses = Addresses(_PODS)
        self._node, prober = f"{lab}-node", f"{lab}-prober"
        self.prober = str(NAMESPACES / prober)
        self._links: dict[str, str] = {}
        self._made = 0
        try:
            self._build(prober, settings.udp_timeout)
        except BaseException:
            remove_namespaces(lab)
            raise

    def _build(self, prober: str, udp_timeout: float | None) -> None:
        _ip(f"netns add {self._node}", f"netns add {prober}")
        _ip(
            "link set lo up",
            "link add pods type bridge",
            "link set pods up",
            f"addr add {_PODS}.1/24 dev pods",
            f"link add prober type veth peer name eth0 netns {prober}",
            f"addr add {_PROBERS}.1/24 dev prober",
            "link set prober up",
            namespace=self._node,
        )
        _ip(
            "link set lo up",
            f"addr add {_PROBERS}.2/24 dev eth0",
            "link set eth0 up",
            f"route add {_PODS}.0/24 via {_PROBERS}.1",
            f"route add {SERVICE}/32 via {_PROBERS}.1",
            namespace=prober,
        )
        with in_network(str(NAMESPACES / self._node)):
            _set("ipv4/ip_forward", 1)
            if udp_timeout is not None:
                for name in ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"):
                    _set(f"netfilter/{name}", max(1, round(udp_timeout)))
        self._nft(_rules(SERVICE, self._port, ()))

    def pod_address(self, taken: set[str]) -> str:
        return self._addresses.next(taken)

    def attach(self, pod: str, address: str) -> None:
        namespace, self._made = f"{self._lab}-{pod}", self._made + 1
        link = f"pod{self._made}"
        _ip(f"netns add {namespace}")
        self._links[pod] = namespace
        _ip(
            f"link add {link} type veth peer name eth0 netns {namespace}",
            f"link set {link} master pods up",
            namespace=self._node,
        )
        _ip(
            "link set lo up",
            f"addr add {address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {_PODS}.1",
            namespace=namespace,
        )

    def detach(self, pod: str) -> None:
        if namespace := self._links.pop(pod, None):
            _ip(f"netns delete {namespace}")

    def program(self, endpoints: tuple[Endpoint, ...]) -> None:
        backends = set(usable(endpoints, self._era))
        addresses = tuple(e.address for e in endpoints if e.pod in backends)
        self._nft(_rules(SERVICE, self._port, addresses))
        stale = self._stale.sync(endpoints)
        if stale.every:
            self._forget()
        for endpoint in stale.of:
            self._forget("--reply-src", endpoint.address)

    def _forget(self, *which: str) -> None:
        """Delete UDP flows to the Service from the node's conntrack; that there are none is no fault."""
        words = ["conntrack", "-D", "-p", "udp", "--orig-dst", SERVICE, *which]
        subprocess.run(
            ["ip", "netns", "exec", self._node, *words], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )

    def words(self, pod: str, words: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self._links[pod], *words]

    def socket(self, kind: socket.SocketKind, *, prober: bool = False) -> socket.socket:
        with in_network(self.prober if prober else str(NAMESPACES / self._node)):
            sock = socket.socket(socket.AF_INET, kind)
        sock.setblocking(False)
        return sock

    def drops(self) -> int:
        return 0

    def facts(self) -> dict[str, str]:
        return {"cluster": "lab (netns: the kernel's own NAT and conntrack)"}

    def _nft(self, rules: str) -> None:
        _called(["ip", "netns", "exec", self._node, "nft", "-f", "-"], rules)


def _rules(service: str, port: int, backends: tuple[str, ...]) -> str:
    """One transaction: new flows are spread at random over the backends; without any they are refused.

    After the NAT chain only what it did not take still has the Service's address. A TCP SYN is refused by a RST.
    """
    where = f"ip daddr {service}"
    spread = ", ".join(f"{i} : {address} . {port}" for i, address in enumerate(backends))
    nat = [
        f"    {where} {protocol} dport {port} dnat ip to numgen random mod {len(backends)} map {{ {spread} }}"
        for protocol in ("udp", "tcp")
        if backends
    ]
    refuse = [
        f"    {where} udp dport {port} reject with icmp port-unreachable",
        f"    {where} tcp dport {port} reject with tcp reset",
    ]
    return "\n".join(
        [
            "table ip kube-proxy {}",
            "delete table ip kube-proxy",
            "table ip kube-proxy {",
            "  chain services {",
            "    type nat hook prerouting priority dstnat; policy accept;",
            *nat,
            "  }",
            "  chain no-endpoints {",
            "    type filter hook prerouting priority dstnat + 10; policy accept;",
            *refuse,
            "  }",
            "}",
            "",
        ]
    )


def _set(name: str, value: int) -> None:
    """A sysctl of the network namespace this thread is in."""
    try:
        (Path("/proc/sys/net") / name).write_text(f"{value}\n", encoding="ascii")
    except OSError as problem:
        raise EnvironmentProblem(f"lab.backend netns: net/{name} cannot be set: {problem.strerror}") from None


def _ip(*lines: str, namespace: str = "") -> None:
    """Lines of `ip -batch`, in a namespace."""
    inside = ["-n", namespace] if namespace else []
    _called(["ip", *inside, "-batch", "-"], "\n".join(lines) + "\n")


def _called(words: Sequence[str], text: str = "") -> str:
    """What a program prints, given this on its input; EnvironmentProblem with what it complains of."""
    ended = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    if ended.returncode:
        said = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[0]
        raise EnvironmentProblem(f"lab.backend netns: {' '.join(words)}: {said}")
    return ended.stdout
