"""LabSettings -> nodes, their probers and a namespace for each pod on this kernel; none of them leads out of it.

The Service is the kernel's own NAT, programmed on every node as kube-proxy's nftables mode does it, and the kernel's
own conntrack holds the flows. Needs root, iproute2, nftables and conntrack-tools. All namespaces are named after the
lab, so that whoever comes later finds them (keeper.remove_namespaces).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probe.cluster.endpoints import Endpoint, StaleFlows, era_of, usable
from probe.cluster.keeper import NAMESPACES, remove_namespaces
from probe.cluster.network import LOCAL, Addresses
from probe.cluster.settings import LabSettings
from probe.errors import EnvironmentProblem
from probe.linux import in_network

_BRIDGE = "02:00:00:00:00:01"
"""The MAC address of every bridge: left to itself it changes as pods go, and the others' neighbour tables are wrong."""
PROGRAMS = {"ip": "iproute2", "nft": "nftables", "conntrack": "conntrack"}
"""What the lab calls, and the Debian package that has it."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """The addresses of one family. Each form has a place for the node, counted from 0, and one for the last part."""

    family: socket.AddressFamily
    service: str
    pods: str
    probers: str
    links: str
    length: int
    nft: str
    unreachable: str
    forwarding: str


_PLANS = {
    "ipv4": _Plan(
        socket.AF_INET,
        *("10.96.0.10", "10.244.{}.{}", "10.243.{}.{}", "10.242.0.{}", 24),
        *("ip", "icmp port-unreachable", "ipv4/ip_forward"),
    ),
    "ipv6": _Plan(
        socket.AF_INET6,
        *("fd00:10:96::a", "fd00:10:244:{}::{}", "fd00:10:243:{}::{}", "fd00:10:242::{}", 64),
        *("ip6", "icmpv6 port-unreachable", "ipv6/conf/all/forwarding"),
    ),
}


def check_permitted() -> None:
    """EnvironmentProblem if this process may not make network namespaces, or lacks a program for it."""
    otherwise = "or say lab.backend: loopback, which needs neither root nor these programs"
    if os.geteuid() != 0:
        raise EnvironmentProblem(f"lab.backend netns: network namespaces need root: run it with sudo, {otherwise}")
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        packages = " ".join(PROGRAMS[name] for name in missing)
        raise EnvironmentProblem(
            f"lab.backend netns: {', '.join(missing)} not found: apt-get install {packages}, {otherwise}"
        )


class Netns:
    """Nodes. A prober's only link is to its node, a pod's to its node, a node's others to the other nodes' switch."""

    def __init__(self, settings: LabSettings, lab: str) -> None:
        check_permitted()
        self._plan = plan = _PLANS[settings.ip_family]
        self.service, self.family = plan.service, plan.family
        self.nodes = tuple(f"node-{i + 1}" for i in range(settings.nodes))
        self._lab, self._port = lab, settings.dns_port
        self.probers = tuple(str(NAMESPACES / f"{lab}-prober-{i + 1}") for i in range(settings.nodes))
        self._era = era_of(settings.kubernetes)
        self._stale = [StaleFlows(self._era) for _ in self.nodes]
        self._addresses = [Addresses(plan.pods.format(i, "{}")) for i in range(settings.nodes)]
        self._links: dict[str, str] = {}
        self._made = 0
        try:
            self._build(settings.udp_timeout)
        except BaseException:
            remove_namespaces(lab)
            raise

    def _build(self, udp_timeout: float | None) -> None:
        switch = f"{self._lab}-switch"
        if len(self.nodes) > 1:
            self._add(switch)
            _ip(f"link add nodes address {_BRIDGE} type bridge", "link set nodes up", namespace=switch)
        for node in range(len(self.nodes)):
            self._build_node(node, udp_timeout)
            if len(self.nodes) > 1:
                self._connect(node, switch)
            self._nft(node, _rules(self._plan, self._port, ()))

    def _build_node(self, node: int, udp_timeout: float | None) -> None:
        plan, here, prober = self._plan, self._node(node), f"{self._lab}-prober-{node + 1}"
        gateway = plan.probers.format(node, 1)
        self._add(here)
        self._add(prober)
        _ip(
            "link set lo up",
            f"link add pods address {_BRIDGE} type bridge",
            "link set pods up",
            _address(plan, plan.pods.format(node, 1), "pods"),
            f"link add prober type veth peer name eth0 netns {prober}",
            _address(plan, gateway, "prober"),
            "link set prober up",
            f"route add {self.service} dev pods",  # what a node asks itself needs a way before NAT gives it another
            namespace=here,
        )
        pods = [f"route add {plan.pods.format(i, 0)}/{plan.length} via {gateway}" for i in range(len(self.nodes))]
        _ip(
            "link set lo up",
            _address(plan, plan.probers.format(node, 2), "eth0"),
            "link set eth0 up",
            *pods,
            f"route add {self.service} via {gateway}",
            namespace=prober,
        )
        with in_network(str(NAMESPACES / here)):
            _set(plan.forwarding, 1)
            if udp_timeout is not None:
                for name in ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"):
                    _set(f"netfilter/{name}", max(1, round(udp_timeout)))

    def _add(self, namespace: str) -> None:
        """A network namespace. Addresses of IPv6 are good at once: none is looked for twice (RFC 4862, 5.4)."""
        _ip(f"netns add {namespace}")
        if self.family is socket.AF_INET6:
            with in_network(str(NAMESPACES / namespace)):
                for which in ("all", "default"):
                    _set(f"ipv6/conf/{which}/accept_dad", 0)

    def _connect(self, node: int, switch: str) -> None:
        """A node's link to the others, and its ways to their pods and probers."""
        plan = self._plan
        others = [i for i in range(len(self.nodes)) if i != node]
        _ip(
            f"link add node{node} type veth peer name eth0 netns {self._node(node)}",
            f"link set node{node} master nodes up",
            namespace=switch,
        )
        _ip(
            _address(plan, plan.links.format(node + 1), "eth0"),
            "link set eth0 up",
            *(
                f"route add {form.format(i, 0)}/{plan.length} via {plan.links.format(i + 1)}"
                for i in others
                for form in (plan.pods, plan.probers)
            ),
            namespace=self._node(node),
        )

    def pod_address(self, node: int, taken: set[str]) -> str:
        return self._addresses[node].next(taken)

    def node_address(self, node: int) -> str:
        return self._plan.pods.format(node, 1)

    def attach(self, pod: str, address: str, node: int) -> None:
        namespace, self._made = f"{self._lab}-{pod}", self._made + 1
        link = f"pod{self._made}"
        self._add(namespace)
        self._links[pod] = namespace
        _ip(
            f"link add {link} type veth peer name eth0 netns {namespace}",
            f"link set {link} master pods up",
            namespace=self._node(node),
        )
        _ip(
            "link set lo up",
            _address(self._plan, address, "eth0"),
            "link set eth0 up",
            f"route add default via {self._plan.pods.format(node, 1)}",
            namespace=namespace,
        )

    def detach(self, pod: str) -> None:
        if namespace := self._links.pop(pod, None):
            _ip(f"netns delete {namespace}")

    async def program(self, node: int, endpoints: tuple[Endpoint, ...]) -> None:
        await asyncio.to_thread(self._program, node, endpoints)

    def _program(self, node: int, endpoints: tuple[Endpoint, ...]) -> None:
        backends = set(usable(endpoints, self._era))
        addresses = tuple(e.address for e in endpoints if e.pod in backends)
        self._nft(node, _rules(self._plan, self._port, addresses))
        stale = self._stale[node].sync(endpoints)
        if stale.every:
            self._forget(node)
        for endpoint in stale.of:
            self._forget(node, "--reply-src", endpoint.address)

    def _forget(self, node: int, *which: str) -> None:
        """Delete UDP flows to the Service from a node's conntrack."""
        self._conntrack(node, "-D", *which)

    async def flows(self, node: int, address: str) -> list[str]:
        what = ("-L", "--reply-src", address, "--status", "ASSURED")
        return (await asyncio.to_thread(self._conntrack, node, *what)).splitlines()

    def _conntrack(self, node: int, *what: str) -> str:
        """What conntrack prints of UDP flows to the Service; that there are none is no fault."""
        family = "ipv6" if self.family is socket.AF_INET6 else "ipv4"
        words = ["conntrack", *what, "-f", family, "-p", "udp", "--orig-dst", self.service]
        ended = subprocess.run(
            self.node_words(node, words), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        return ended.stdout

    def cut(self, node: int) -> None:
        _ip("link set eth0 down", namespace=self._node(node))

    def words(self, pod: str, words: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self._links[pod], *words]

    def open_local(self, node: int) -> None:
        chains = "\n".join(
            f"  chain {hook} {{\n    type filter hook {hook} priority raw; policy accept;\n"
            f"    meta l4proto {{ tcp, udp }} ip {side}addr {LOCAL} th {side}port 53 notrack\n  }}"
            for hook, side in (("prerouting", "d"), ("output", "s"))
        )
        self._nft(node, f"table ip node-local {{\n{chains}\n}}\n")
        _ip(f"addr add {LOCAL}/32 dev lo", namespace=self._node(node))
        _ip(
            f"route replace {LOCAL}/32 via {self._plan.probers.format(node, 1)}",
            namespace=f"{self._lab}-prober-{node + 1}",
        )

    def close_local(self, node: int) -> None:
        _ip(f"addr del {LOCAL}/32 dev lo", namespace=self._node(node))
        self._nft(node, "delete table ip node-local\n")

    def node_words(self, node: int, words: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self._node(node), *words]

    def socket(self, kind: socket.SocketKind, node: int = 0, *, prober: bool = False) -> socket.socket:
        with in_network(self.probers[node] if prober else str(NAMESPACES / self._node(node))):
            sock = socket.socket(self.family, kind)
        sock.setblocking(False)
        return sock

    def drops(self) -> int:
        return 0

    def facts(self) -> dict[str, str]:
        return {"cluster": "lab (netns: the kernel's own NAT and conntrack)"}

    def _node(self, node: int) -> str:
        return f"{self._lab}-{self.nodes[node]}"

    def _nft(self, node: int, rules: str) -> None:
        _call(self.node_words(node, ["nft", "-f", "-"]), rules)


def _address(plan: _Plan, address: str, link: str) -> str:
    return f"addr add {address}/{plan.length} dev {link}{' nodad' if plan.family is socket.AF_INET6 else ''}"


def _rules(plan: _Plan, port: int, backends: tuple[str, ...]) -> str:
    """One transaction: new flows are spread at random over the backends; without any they are refused.

    After the NAT chain only what it did not take still has the Service's address. A TCP SYN is refused by a RST. What
    the node asks itself, as NodeLocal DNSCache does, passes the same rules.
    """
    where = f"{plan.nft} daddr {plan.service}"
    spread = ", ".join(f"{i} : {address} . {port}" for i, address in enumerate(backends))
    nat = [
        f"    {where} {protocol} dport {port} dnat {plan.nft} to numgen random mod {len(backends)} map {{ {spread} }}"
        for protocol in ("udp", "tcp")
        if backends
    ]
    refuse = [
        f"    {where} udp dport {port} reject with {plan.unreachable}",
        f"    {where} tcp dport {port} reject with tcp reset",
    ]
    table = f"table {plan.nft} kube-proxy"
    chains = []
    for hook, priority in (("prerouting", -100), ("output", -100)):
        chains += [f"  chain services-{hook} {{", f"    type nat hook {hook} priority {priority}; policy accept;"]
        chains += [*nat, "  }", f"  chain no-endpoints-{hook} {{"]
        chains += [f"    type filter hook {hook} priority {priority + 10}; policy accept;", *refuse, "  }"]
    return "\n".join([f"{table} {{}}", f"delete {table}", f"{table} {{", *chains, "}", ""])


def _set(name: str, value: int) -> None:
    """A sysctl of the network namespace this thread is in."""
    try:
        (Path("/proc/sys/net") / name).write_text(f"{value}\n", encoding="ascii")
    except OSError as problem:
        raise EnvironmentProblem(f"lab.backend netns: net/{name} cannot be set: {problem.strerror}") from None


def _ip(*lines: str, namespace: str = "") -> None:
    """Lines of `ip -batch`, in a namespace."""
    inside = ["-n", namespace] if namespace else []
    _call(["ip", *inside, "-batch", "-"], "\n".join(lines) + "\n")


def _call(words: Sequence[str], text: str) -> None:
    """Run a program with this on its input; EnvironmentProblem with what it complains of."""
    ended = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    if ended.returncode:
        said = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[0]
        raise EnvironmentProblem(f"lab.backend netns: {' '.join(words)}: {said}")
