"""A pod's resolv.conf, and what is known of the cluster -> its dnsPolicy and what that costs, in short sentences.

Facts: glibc resolv/res_send.c, musl src/network/res_msend.c, Go net/dnsclient_unix.go.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from probe.resolv import MOST_NAMESERVERS, ResolvConf, dns_policy, is_node_local

EXAMPLE = "api.example.com"
"""A name outside the cluster, as applications have it."""
_TYPES = 2
"""A and AAAA: what getaddrinfo asks for each name."""


def said_of(conf: ResolvConf, cluster: Collection[str] = (), links: Collection[str] = ()) -> list[str]:
    """What it is, what it means for lookups, and what is wrong with it; the first sentence names its policy."""
    policy = dns_policy(conf, cluster, links)
    first = [f"dnsPolicy {policy}"]
    if conf.namespace:
        first.append(f"namespace {conf.namespace}, domain {conf.domain}")
    first.append(f"nameserver {' '.join(conf.nameservers) or 'none: 127.0.0.1'}")
    if any(is_node_local(ip) for ip in conf.nameservers):
        first.append("NodeLocal DNSCache")
    said = [", ".join(first), _names(conf), _patience(conf)]
    if policy == "Default":
        said.append(
            "names of the cluster do not resolve here: it is the node's file; on the host network say"
            " ClusterFirstWithHostNet"
        )
    return said + _wrong(conf, cluster, policy)


def _names(conf: ResolvConf) -> str:
    """What the search list costs."""
    before = conf.names(EXAMPLE).index(EXAMPLE)
    domains = f"{len(conf.search)} search domain{'s' * (len(conf.search) != 1)}"
    if not before:
        return f"with ndots:{conf.ndots} and {domains} {EXAMPLE} asks {_TYPES} queries, A and AAAA"
    return (
        f"with ndots:{conf.ndots} and {domains} {EXAMPLE} asks {before * _TYPES} queries before its own {_TYPES}"
        f" (A and AAAA each); with a dot at the end, {EXAMPLE}., it asks {_TYPES}"
    )


def _patience(conf: ResolvConf) -> str:
    """What one lost packet costs, and a nameserver that is silent."""
    n, timeout = len(conf.nameservers), conf.timeout
    asks = f"timeout:{timeout} attempts:{conf.attempts}"
    if n <= 1:
        return (
            f"one nameserver, {asks}: one lost packet stalls a lookup for {timeout} s (musl 2.5 s), silence is an error"
            f" after {timeout * conf.attempts} s (musl 5 s)"
        )
    how = "in turn (rotate)" if "rotate" in conf.options else "in this order"
    return (
        f"{n} nameservers {how}, {asks}: if the first is silent, each lookup waits {timeout} s for the second (musl"
        " asks all at once)"
    )


def _wrong(conf: ResolvConf, cluster: Collection[str], policy: str) -> list[str]:
    said = []
    strangers = [ip for ip in conf.nameservers if cluster and ip not in cluster and not is_node_local(ip)]
    if policy != "Default" and strangers and len(strangers) < len(conf.nameservers):
        said.append(
            f"{', '.join(strangers)} is not the cluster's: what it is asked, too, it answers with NXDOMAIN for names of"
            " the cluster (musl: always; glibc: when the others are silent)"
        )
    elif policy != "Default" and strangers:
        said.append(f"{', '.join(strangers)} is not the cluster's DNS, yet the search list is")
    if conf.ignored:
        said.append(f"more than {MOST_NAMESERVERS} nameservers: {', '.join(conf.ignored)} are never asked")
    loopback = [ip for ip in conf.nameservers if ipaddress.ip_address(ip).is_loopback]
    if loopback:
        said.append(f"{', '.join(loopback)} is this pod itself: nobody answers there, unless a sidecar does")
    return said
