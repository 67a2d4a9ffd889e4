"""Objects of the Kubernetes API, by tables -> what of them matters, and what happened between two versions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import pytest
from lightkube.resources.apps_v1 import DaemonSet, Deployment
from lightkube.resources.core_v1 import ConfigMap, Node, Pod, Service
from lightkube.resources.discovery_v1 import EndpointSlice
from msgspec import convert

from probe.cluster import Extent, Happened
from probe.cluster.endpoints import ready_in, shown
from probe.cluster.kube import objects, workloads
from probe.cluster.kube.changes import Changes
from probe.cluster.kube.corefile import changed_lines, read_corefile
from tests.kube_objects import (
    COREFILE,
    Json,
    config_map,
    containers,
    daemon_set,
    deployment,
    endpoint_slice,
    exited,
    node,
    pod,
    service,
)

T = TypeVar("T")
TOLD = "2026-11-21T04:30:30Z"
PORTS = [{"name": "dns", "port": 5353, "protocol": "UDP"}]


def read_as(kind: type[T], thing: Json) -> T:
    """As lightkube reads it."""
    return convert(thing, kind)


# -- objects -> what of them matters


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (service(), "kube-dns (10.96.0.10:53)"),
        (service("kube-dns", "10.96.0.10", "fd00::a"), "kube-dns (10.96.0.10:53), kube-dns-ipv6 ([fd00::a]:53)"),
        (service("kube-dns", "fd00::a", "10.96.0.10"), "kube-dns ([fd00::a]:53), kube-dns-ipv4 (10.96.0.10:53)"),
        (service("dns-default", ports=PORTS), "dns-default (10.96.0.10:5353)"),
        (service("kube-dns", "None"), ""),
    ],
)
def test_a_service_is_a_target_of_each_family(thing: Json, said: str) -> None:
    assert ", ".join(map(str, objects.service_targets(read_as(Service, thing)))) == said


FOUR, SIX = ("a", "127.244.0.2", True, False), ("a", "fd00::2", True, False)


@pytest.mark.parametrize(
    ("slices", "said"),
    [
        ([], "ready: none"),
        ([endpoint_slice(("b", "127.244.0.3", True, False), FOUR)], "ready: a, b"),
        ([endpoint_slice(FOUR), endpoint_slice(SIX, name="six")], "ready: a"),
        (
            [endpoint_slice(FOUR), endpoint_slice(("a", "fd00::2", True, True), name="six")],
            "ready: a; terminating, serving: a",
        ),
        (
            [endpoint_slice(("a", "127.244.0.2", True, True), ("b", "127.244.0.3", False, True))],
            "ready: none; terminating, serving: a; not serving: b",
        ),
    ],
)
def test_the_slices_of_a_service_are_one_list_of_endpoints(slices: list[Json], said: str) -> None:
    endpoints = objects.endpoints_of(read_as(EndpointSlice, one) for one in slices)
    assert shown(endpoints) == said
    assert ready_in(said) == [endpoint.pod for endpoint in endpoints if endpoint.ready]


def test_conditions_that_are_left_out_mean_ready() -> None:
    one = endpoint_slice(FOUR)
    one["endpoints"] = [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"], "conditions": {"ready": False}}]
    endpoints = objects.endpoints_of([read_as(EndpointSlice, one)])
    assert shown(endpoints) == "ready: 10.0.0.1; not serving: 10.0.0.2"


SLEEPS = {"lifecycle": {"preStop": {"sleep": {"seconds": 7}}}}
SHELL = {"lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "sleep 5; true"]}}}}
OTHER = {"lifecycle": {"preStop": {"httpGet": {"path": "/", "port": 1}}}}
HEALTH = {"readinessProbe": {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 3}}


@pytest.mark.parametrize(
    ("spec", "container", "said"),
    [
        ({}, {}, (30.0, 0.0, "ready", 10.0, 3)),
        ({"terminationGracePeriodSeconds": 45}, SLEEPS, (45.0, 7.0, "ready", 10.0, 3)),
        ({"terminationGracePeriodSeconds": 0}, SHELL, (0.0, 5.0, "ready", 10.0, 3)),
        ({}, {**OTHER, **HEALTH}, (30.0, 0.0, "health", 3.0, 3)),
        ({}, {"readinessProbe": None}, (30.0, 0.0, "none", 10.0, 3)),
    ],
)
def test_how_pods_end_is_read_from_what_makes_them(spec: Json, container: Json, said: tuple[object, ...]) -> None:
    workload = read_as(Deployment, deployment(3, spec=spec, container=container))
    shutdown = workloads.shutdown_of(workload, 0, read_corefile(COREFILE), "ipvs", "1.34")
    assert (shutdown.replicas, shutdown.lameduck, shutdown.proxy_mode, shutdown.kubernetes) == (3, 5.0, "ipvs", "1.34")
    s = shutdown
    assert (s.grace_period, s.pre_stop, s.readiness, s.readiness_period, s.readiness_failures) == said


def test_without_a_workload_to_see_pods_end_as_kubernetes_has_it() -> None:
    shutdown = workloads.shutdown_of(None, 2, read_corefile(""), "iptables", "1.34")
    assert (shutdown.replicas, shutdown.grace_period, shutdown.unready_after) == (2, 30.0, 30.0)


@pytest.mark.parametrize(
    ("args", "targets"),
    [
        (("-localip", "169.254.20.10,10.96.0.10", "-conf", "/etc/Corefile"), ["169.254.20.10"]),
        (("-localip=10.96.0.10",), ["10.96.0.10"]),
        (("--localip", "169.254.20.10,fd00::20"), ["169.254.20.10", "fd00::20"]),
        ((), []),
    ],
)
def test_nodelocal_listens_where_its_arguments_say(args: tuple[str, ...], targets: list[str]) -> None:
    cache = read_as(DaemonSet, daemon_set("node-local-dns", "x", *args))
    assert [target.address for target in workloads.nodelocal_targets([cache], ["10.96.0.10"])] == targets


@pytest.mark.parametrize(
    ("text", "mode"),
    [('kind: X\nmode: ""\n', "iptables"), ("mode: nftables", "nftables"), ('mode: "ipvs"\n', "ipvs"), ("x: 1", "")],
)
def test_the_mode_of_kube_proxy_is_in_its_configuration(text: str, mode: str) -> None:
    assert objects.proxy_mode_of({"config.conf": text}) == mode


# -- Corefiles

STUB = """\
(common) {
    errors
}
example.org:53 {
    forward . 10.1.1.1
}
. { # everything else
    import common
    import /etc/coredns/custom/*.override
    health :8080 {
        lameduck 1s
    }
    health {
        lameduck 1m30s
    }
    nsid "a # b"
    forward . 8.8.8.8 [2001:db8::1]:5353 dns://9.9.9.9:54 tls://1.1.1.1 2001:db8::2 upstream.example
    # ready
}
"""


def test_a_corefile_says_how_pods_end_and_whom_they_ask() -> None:
    usual = read_corefile(COREFILE)
    assert (usual.lameduck, usual.forwards, usual.asks_resolv_conf) == (5.0, ("/etc/resolv.conf",), True)
    assert {"ready", "reload"} <= usual.plugins
    assert not {"nsid", "lameduck", "pods", "max_concurrent"} & usual.plugins
    assert usual.upstreams == []
    stub = read_corefile(STUB)
    assert (stub.lameduck, stub.imports) == (90.0, ("/etc/coredns/custom/*.override",))
    assert {"nsid", "errors"} <= stub.plugins
    assert "ready" not in stub.plugins
    assert stub.upstreams == [("8.8.8.8", 53), ("2001:db8::1", 5353), ("9.9.9.9", 54), ("2001:db8::2", 53)]
    assert read_corefile("") == read_corefile("# nothing") == read_corefile("}")


@pytest.mark.parametrize(
    ("corefile", "domain"),
    [
        (COREFILE, "cluster.local"),
        (".:53 {\n  kubernetes prod.example. in-addr.arpa\n}", "prod.example"),
        (".:53 {\n  kubernetes in-addr.arpa 10.0.0.0/8 prod.example {\n    ttl 30\n  }\n}", "prod.example"),
        ("dns://prod.example:53 in-addr.arpa {\n  kubernetes\n}", "prod.example"),
        (".:53 {\n  forward . 10.0.0.2\n}", ""),
        (".:53 {\n  kubernetes {\n  }\n}", ""),
    ],
)
def test_the_cluster_s_domain_is_its_kubernetes_plugin_s(corefile: str, domain: str) -> None:
    assert Extent(zones=read_corefile(corefile).zones).domain == domain


def test_what_changed_in_a_corefile_is_said_line_by_line() -> None:
    longer = COREFILE.replace("lameduck 5s", "lameduck 15s").replace("    loop\n", "")
    assert changed_lines(COREFILE, longer) == "-lameduck 5s, +lameduck 15s, -loop"
    assert changed_lines(COREFILE, COREFILE.replace("    loop", "\tloop")) == "-loop, +loop"
    assert len(changed_lines("", COREFILE * 10)) == 200


# -- one version of an object after the other -> what happened


def told(changes: Iterator[Happened]) -> list[str]:
    """Kind and text of each, with what it says of the pod as a target."""
    turns = ("up", "down", "gone")
    return [" ".join([h.kind, *(turn for turn in turns if getattr(h, turn)), f"| {h.text}"]) for h in changes]


DELETED = "grace period 30 s, told at 2026-11-21T04:30:00Z by the API's clock"
LIVES: dict[str, tuple[list[Json | None], list[str]]] = {
    "a pod that is created, Ready, told to end, and ends": (
        [
            pod(ready=False, address=""),
            pod(ready=False),
            pod(),
            pod(deleted=TOLD),
            pod(deleted=TOLD, ready=False, phase="Succeeded", statuses=[exited(0, "Completed")]),
            None,
        ],
        [
            "pod_created | registry.k8s.io/coredns/coredns:v1.12.1",
            "pod_ready up | 127.244.0.2 on node-1, template 668d6bf9bc",
            f"pod_deleted down | {DELETED}",
            "pod_not_ready | 127.244.0.2",
            "pod_exited | container coredns: exit code 0, Completed at 2026-11-21T04:30:00Z",
            "pod_gone gone | 127.244.0.2",
        ],
    ),
    "a pod whose container is restarted counts on": (
        [
            pod(),
            pod(ready=False, statuses=[exited(137, "OOMKilled")]),
            pod(ready=True, statuses=[exited(137, "OOMKilled", restarts=1, last=True)]),
        ],
        [
            "pod_created | registry.k8s.io/coredns/coredns:v1.12.1",
            "pod_ready up | 127.244.0.2 on node-1, template 668d6bf9bc",
            "pod_not_ready | 127.244.0.2",
            "pod_exited | container coredns: exit code 137, OOMKilled at 2026-11-21T04:30:00Z",
            "pod_ready | 127.244.0.2 on node-1, template 668d6bf9bc",
            "pod_restarted | restarts: 1",
        ],
    ),
    "deleted by force": (
        [pod(), None],
        [
            "pod_created | registry.k8s.io/coredns/coredns:v1.12.1",
            "pod_ready up | 127.244.0.2 on node-1, template 668d6bf9bc",
            "pod_deleted down | by force, or unseen: its object went at once",
            "pod_gone gone | 127.244.0.2",
        ],
    ),
    "evicted by its kubelet: it stays, failed, and counts no more": (
        [pod(), pod(ready=False, phase="Failed"), None],
        [
            "pod_created | registry.k8s.io/coredns/coredns:v1.12.1",
            "pod_ready up | 127.244.0.2 on node-1, template 668d6bf9bc",
            "pod_not_ready | 127.244.0.2",
            "pod_failed down gone | Failed",
            "pod_gone | 127.244.0.2",
        ],
    ),
    "never Ready: it is no target": (
        [pod(ready=False), pod(ready=False, deleted=TOLD), None],
        [
            "pod_created | registry.k8s.io/coredns/coredns:v1.12.1",
            f"pod_deleted | {DELETED}",
            "pod_gone | 127.244.0.2",
        ],
    ),
    "another pod of the same name, as a StatefulSet has them": (
        [pod(), pod(uid="other", ready=False)],
        [
            "pod_created | registry.k8s.io/coredns/coredns:v1.12.1",
            "pod_ready up | 127.244.0.2 on node-1, template 668d6bf9bc",
            "pod_deleted down | by force, or unseen: its object went at once",
            "pod_gone gone | 127.244.0.2",
            "pod_created | registry.k8s.io/coredns/coredns:v1.12.1",
        ],
    ),
}


@pytest.mark.parametrize("life", LIVES)
def test_a_pod_counts_from_ready_to_deletion(life: str) -> None:
    versions, happened = LIVES[life]
    changes, before, found = Changes(53), None, list[str]()
    for version in versions:
        after = objects.pod_view(read_as(Pod, version)) if version else None
        found += told(changes.pod(0, before, after))
        before = after
    assert found == happened


@pytest.mark.parametrize(
    ("versions", "happened"),
    [
        ([deployment(2), deployment(3)], ["scaled | from 2 to 3 replicas"]),
        (
            [
                deployment(),
                deployment(revision=2, template="7c9b", done=False),
                deployment(revision=2, template="7c9b"),
            ],
            [f"rollout_{word} | template 7c9b, {containers()[0]['image']}" for word in ("started", "done")],
        ),
        ([deployment(), deployment()], []),
        (
            [daemon_set("kube-proxy", "p:1"), daemon_set("kube-proxy", "p:2", revision=2, done=False)],
            ["rollout_started | template revision 2, p:2"],
        ),
    ],
)
def test_a_rollout_is_over_when_all_pods_are_new(versions: list[Json], happened: list[str]) -> None:
    changes, before, found = Changes(53), None, list[str]()
    for version in versions:
        kind: Any = Deployment if version["kind"] == "Deployment" else DaemonSet
        after = workloads.workload_view(read_as(kind, version))
        found += told(changes.workload(0, before, after))
        before = after
    assert found == happened


def test_nodes_and_corefiles_change() -> None:
    changes = Changes(53)
    up, down = (objects.node_view(read_as(Node, node(ready=ready))) for ready in (True, False))
    assert told(changes.node(0, None, up)) == []
    assert told(changes.node(0, up, down)) == ["node_not_ready | NodeStatusUnknown: Unknown"]
    assert told(changes.node(0, down, up)) == ["node_ready | "]
    assert told(changes.node(0, down, None)) == ["node_gone | a"]
    one = objects.config_view(read_as(ConfigMap, config_map()))
    two = objects.config_view(read_as(ConfigMap, config_map(Corefile=COREFILE.replace("5s", "9s"))))
    assert told(changes.config(0, one, one)) == []
    assert told(changes.config(0, one, two)) == ["corefile_patched | -lameduck 5s, +lameduck 9s"]
