"""Texts of resolv.conf -> what a resolver takes from them, whose file it is, and what it costs an application."""

from __future__ import annotations

import pytest

from probe.advice.resolving import said_of
from probe.resolv import ResolvConf, dns_policy, read_resolv_conf, upstreams_of

POD = """\
search shop.svc.cluster.local svc.cluster.local cluster.local corp.example
nameserver 10.96.0.10
options ndots:5
"""
NODE = "search corp.example\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n"
KUBE_DNS = ("10.96.0.10",)


@pytest.mark.parametrize(
    ("text", "conf"),
    [
        ("", ResolvConf()),
        ("# nameserver 10.0.0.1\n; search a\nnameserver\nnameserver host\nblah x\n", ResolvConf()),
        ("nameserver fe80::1%eth0\n", ResolvConf(("fe80::1%eth0",))),
        (
            "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n",
            ResolvConf(("10.0.0.1", "10.0.0.2", "10.0.0.3"), ("10.0.0.4",)),
        ),
        ("search a.test b.test.\ndomain c.test d.test\n", ResolvConf(search=("c.test",))),
        ("domain c.test\nsearch a.test b.test. .\n", ResolvConf(search=("a.test", "b.test"))),
        (
            "options ndots:2 timeout:1\noptions attempts:3 rotate ndots:7\n",
            ResolvConf(
                ndots=7, timeout=1, attempts=3, options=("ndots:2", "timeout:1", "attempts:3", "rotate", "ndots:7")
            ),
        ),
        (
            "options ndots:99 timeout:0 attempts:9\n",
            ResolvConf(ndots=15, timeout=1, attempts=5, options=("ndots:99", "timeout:0", "attempts:9")),
        ),
        ("options ndots:x timeout:-1 attempts\n", ResolvConf(options=("ndots:x", "timeout:-1", "attempts"))),
    ],
)
def test_it_is_read_as_glibc_reads_it(text: str, conf: ResolvConf) -> None:
    assert read_resolv_conf(text) == conf


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("a", ["a.x", "a.y", "a"]),
        ("a.b", ["a.b.x", "a.b.y", "a.b"]),
        ("a.b.c", ["a.b.c", "a.b.c.x", "a.b.c.y"]),
        ("a.", ["a."]),
    ],
)
def test_names_are_tried_in_this_order(name: str, asked: list[str]) -> None:
    assert ResolvConf(search=("x", "y"), ndots=2).names(name) == asked


@pytest.mark.parametrize(
    ("text", "cluster", "links", "policy"),
    [
        (POD, (), ("lo", "eth0"), "ClusterFirst"),
        (POD, KUBE_DNS, ("lo", "eth0"), "ClusterFirst"),
        (POD, KUBE_DNS, ("lo", "eth0", "cni0", "veth1"), "ClusterFirstWithHostNet"),
        (POD.replace("10.96.0.10", "169.254.20.10"), KUBE_DNS, ("lo",), "ClusterFirst"),
        (POD.replace("10.96.0.10", "8.8.8.8"), KUBE_DNS, ("lo",), "None"),
        ("nameserver 10.96.0.10\n", KUBE_DNS, ("lo",), "None"),
        (NODE, KUBE_DNS, ("lo",), "Default"),
        (NODE, (), ("lo",), "Default"),
        ("nameserver 169.254.169.254\nsearch c.project.internal\n", (), ("lo",), "Default"),
        ("", (), (), "Default"),
    ],
)
def test_the_policy_is_told_by_the_file(
    text: str, cluster: tuple[str, ...], links: tuple[str, ...], policy: str
) -> None:
    assert dns_policy(read_resolv_conf(text), cluster, links) == policy


@pytest.mark.parametrize(
    ("text", "upstreams"),
    [
        (NODE, ["10.0.0.2", "10.0.0.3"]),
        (POD, []),
        ("nameserver 10.96.0.10\n", []),
        ("nameserver 169.254.20.10\n", []),
        ("nameserver 127.0.0.53\n", []),
    ],
)
def test_only_a_node_s_file_says_whom_coredns_asks(text: str, upstreams: list[str]) -> None:
    assert upstreams_of(read_resolv_conf(text), KUBE_DNS) == upstreams


@pytest.mark.parametrize(
    ("text", "cluster", "said"),
    [
        (POD, KUBE_DNS, "dnsPolicy ClusterFirst, namespace shop, domain cluster.local, nameserver 10.96.0.10"),
        (POD, KUBE_DNS, "with ndots:5 and 4 search domains api.example.com asks 8 queries before its own 2"),
        (POD, KUBE_DNS, "one lost packet stalls a lookup for 5 s (musl 2.5 s), silence is an error after 10 s"),
        (
            POD + "options timeout:1 attempts:3\n",
            (),
            "stalls a lookup for 1 s (musl 2.5 s), silence is an error after 3 s",
        ),
        (
            POD.replace("ndots:5", "ndots:1"),
            (),
            "with ndots:1 and 4 search domains api.example.com asks 2 queries, A and",
        ),
        (
            POD + "nameserver 10.96.0.11\n",
            (),
            "2 nameservers in this order, timeout:5 attempts:2: if the first is silent",
        ),
        (POD + "nameserver 10.96.0.11\noptions rotate\n", (), "2 nameservers in turn (rotate)"),
        (
            POD + "nameserver 8.8.8.8\n",
            KUBE_DNS,
            "8.8.8.8 is not the cluster's: what it is asked, too, it answers with",
        ),
        (POD.replace("10.96.0.10", "8.8.8.8"), KUBE_DNS, "8.8.8.8 is not the cluster's DNS, yet the search list is"),
        (NODE, KUBE_DNS, "names of the cluster do not resolve here"),
        (POD.replace("10.96.0.10", "169.254.20.10"), KUBE_DNS, "nameserver 169.254.20.10, NodeLocal DNSCache"),
        (NODE + "nameserver 10.0.0.4\nnameserver 10.0.0.5\n", (), "more than 3 nameservers: 10.0.0.5 are never asked"),
        ("nameserver 127.0.0.1\n", (), "127.0.0.1 is this pod itself"),
        ("", (), "nameserver none: 127.0.0.1"),
    ],
)
def test_what_it_means_is_said_in_sentences(text: str, cluster: tuple[str, ...], said: str) -> None:
    assert said in "\n".join(said_of(read_resolv_conf(text), cluster, ("lo", "eth0")))


def test_what_is_as_it_should_be_gives_three_sentences() -> None:
    assert len(said_of(read_resolv_conf(POD), KUBE_DNS, ("lo", "eth0"))) == 3
