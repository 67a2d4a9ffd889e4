"""The text of a resolv.conf -> whom a resolver asks, for which names and how patiently, and whose file it is.

Source: resolv.conf(5), glibc resolv/res_init.c, whose limits hold; kubelet pkg/kubelet/network/dns/dns.go.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

RESOLV_CONF = Path("/etc/resolv.conf")
MOST_NAMESERVERS = 3
"""MAXNS: glibc and musl read no more of them."""
_CLUSTER = ".svc."
_HOST_LINKS = ("cni", "flannel", "cali", "cilium_host", "kube-ipvs", "docker", "antrea", "ovn", "weave", "nodelocaldns")
"""How links are called that a node has and a pod has not."""


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """Addresses, suffixes without a last dot, seconds. ignored: nameservers beyond MOST_NAMESERVERS.

    options: all that are set, as they are written.
    """

    nameservers: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout: int = 5
    attempts: int = 2
    options: tuple[str, ...] = ()

    @property
    def namespace(self) -> str:
        """Of the pod whose file a kubelet wrote: its search list opens with NAMESPACE.svc.DOMAIN; '' for others."""
        return next((s.partition(_CLUSTER)[0] for s in self.search if _CLUSTER in s), "")

    @property
    def domain(self) -> str:
        """The cluster's, by the same suffix: `cluster.local`; '' for none."""
        return next((s.partition(_CLUSTER)[2] for s in self.search if _CLUSTER in s), "")

    def names(self, name: str) -> list[str]:
        """The names that are asked for one, in their order, until one exists (res_search.c)."""
        if name.endswith("."):
            return [name]
        searched = [f"{name}.{suffix}" for suffix in self.search]
        return [name, *searched] if name.count(".") >= self.ndots else [*searched, name]


def read_resolv_conf(text: str) -> ResolvConf:
    """What is unknown or wrong is passed over, as resolvers do; the last `search` or `domain` counts."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        word, *values = line.split() or [""]
        if line.startswith(("#", ";")) or not values:
            continue
        if word == "nameserver" and _is_address(values[0]):
            nameservers.append(values[0])
        elif word in ("search", "domain"):
            values = values if word == "search" else values[:1]
            search = tuple(suffix.rstrip(".") for suffix in values if suffix.strip("."))
        elif word == "options":
            options += values
    return ResolvConf(
        nameservers=tuple(nameservers[:MOST_NAMESERVERS]),
        ignored=tuple(nameservers[MOST_NAMESERVERS:]),
        search=search,
        ndots=_number(options, "ndots", 1, lambda n: min(n, 15)),
        timeout=_number(options, "timeout", 5, lambda n: min(max(n, 1), 30)),
        attempts=_number(options, "attempts", 2, lambda n: min(max(n, 1), 5)),
        options=tuple(options),
    )


ASKED_FACT = "resolvers ask"
"""The run's fact that has the addresses to which its clients go, or else its pod's own resolv.conf."""


def is_pod() -> bool:
    """Whether this process is in a pod: a kubelet tells each of its containers where the API server is."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


def own_resolv_conf() -> ResolvConf:
    """This process's; nothing in it if it cannot be read."""
    try:
        return read_resolv_conf(RESOLV_CONF.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ResolvConf()


def _number(options: list[str], name: str, usual: int, bounded: Callable[[int], int]) -> int:
    """The last `name:N` counts."""
    found = [text for word, _, text in (option.partition(":") for option in options) if word == name]
    numbers = [int(text) for text in found if text.isdecimal()]
    return bounded(numbers[-1]) if numbers else usual


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def dns_policy(conf: ResolvConf, cluster: Collection[str] = (), links: Collection[str] = ()) -> str:
    """The policy that such a file comes from, as far as it can be told.

    cluster: addresses of its DNS, if they are known; links: this network namespace's, which tell a node's from a pod's.
    """
    on_host = any(link.startswith(_HOST_LINKS) for link in links)
    ours = [ip for ip in conf.nameservers if ip in cluster or is_node_local(ip)]
    if conf.domain and (ours or not cluster):
        return "ClusterFirstWithHostNet" if on_host else "ClusterFirst"
    if conf.domain or ours:
        return "None"
    return "Default"


def is_node_local(ip: str) -> bool:
    """NodeLocal DNSCache's 169.254.20.10, or another link-local one; 169.254.169.x are clouds' own resolvers."""
    return ip.startswith("169.254.") and not ip.startswith("169.254.169.")


def upstreams_of(conf: ResolvConf, cluster: Collection[str]) -> list[str]:
    """Where a CoreDNS that forwards to /etc/resolv.conf asks, if this file is as its node's; none if it is not.

    A file that a kubelet made for ClusterFirst points at cluster DNS itself, and loopback is nobody but ourselves.
    """
    if dns_policy(conf, cluster) != "Default":
        return []
    return [ip for ip in conf.nameservers if not ipaddress.ip_address(ip).is_loopback]
