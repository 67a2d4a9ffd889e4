"""Plain objects and a step -> the patches that are that step, and back; a Corefile and a directive -> the Corefile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from probe.cluster.kube.actions import ACTIONS, Change, Objects, PodOn, other_image, plan
from probe.cluster.kube.editing import edited_corefile
from probe.cluster.kube.patches import Deletion, Edit, Eviction, Patch, Thing, edit, edited, kubectl, operations
from probe.errors import DnsprobeError, EnvironmentProblem, UsageError
from tests.apiserver import patched
from tests.kube_objects import COREFILE, SYSTEM, Json, config_map, daemon_set, deployment, node, service

A, B = (PodOn(Thing("Pod", SYSTEM, name), place) for name, place in (("a", "node-1"), ("b", "node-2")))
ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": "25%"}}


def made_by(maker: Json | None = None, strategy: Json | None = None, **parts: Any) -> Objects:
    """kubeadm's objects, as its API server has them: with its defaults."""
    maker = maker or deployment()
    maker["spec"]["strategy"] = strategy or ROLLING
    maker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 30
    affine = service(sessionAffinity="None")
    usual = Objects(
        service=affine,
        maker=maker,
        container="coredns",
        config=config_map(),
        nodelocal=daemon_set("node-local-dns", "k8s-dns-node-cache:1.26"),
        nodes={"node-1": node(), "node-2": node("node-2")},
        pods=(A, B),
        kubernetes="v1.34.1",
    )
    return replace(usual, **parts)


CONTAINER = "/spec/template/spec/containers/coredns"
PATCHES = [
    ("scale", "3", "Deployment", [("/spec/replicas", 2, 3)]),
    ("scale", "1", "Deployment", [("/spec/replicas", 2, 1)]),
    ("grace_period", "60s", "Deployment", [("/spec/template/spec/terminationGracePeriodSeconds", 30, 60)]),
    ("pre_stop", "15s", "Deployment", [(f"{CONTAINER}/lifecycle", None, {"preStop": {"sleep": {"seconds": 15}}})]),
    (
        "readiness",
        "period 5s, path /health",
        "Deployment",
        [
            (f"{CONTAINER}/readinessProbe/periodSeconds", 10, 5),
            (f"{CONTAINER}/readinessProbe/httpGet/path", "/ready", "/health"),
        ],
    ),
    ("strategy", "max_surge 1", "Deployment", [("/spec/strategy/rollingUpdate/maxSurge", "25%", 1)]),
    ("min_ready_seconds", "10s", "Deployment", [("/spec/minReadySeconds", None, 10)]),
    ("session_affinity", "client_ip", "Service", [("/spec/sessionAffinity", "None", "ClientIP")]),
    (
        "set_image",
        "1.13.0",
        "Deployment",
        [
            (
                f"{CONTAINER}/image",
                "registry.k8s.io/coredns/coredns:v1.12.1",
                "registry.k8s.io/coredns/coredns:v1.13.0",
            )
        ],
    ),
    (
        "patch_corefile",
        "lameduck 10s",
        "ConfigMap",
        [("/data/Corefile", COREFILE, COREFILE.replace("lameduck 5s", "lameduck 10s"))],
    ),
]


@pytest.mark.parametrize(("word", "value", "kind", "edits"), PATCHES, ids=[f"{w} {v}" for w, v, _, _ in PATCHES])
def test_a_step_is_a_patch_of_its_fields_alone_and_can_be_taken_back(
    word: str, value: str, kind: str, edits: list[tuple[str, Any, Any]]
) -> None:
    objects = made_by()
    (patch,) = plan(word, value, objects).requests
    assert isinstance(patch, Patch)
    assert (patch.thing.kind, patch.lasting) == (kind, True)
    assert [(each.path, each.before, each.after) for each in patch.edits] == edits
    before = objects.said(patch.thing)
    after = patched(before, operations(before, patch.edits))
    assert after == edited(before, patch.edits) != before
    assert patched(after, operations(after, patch.backwards)) == before
    with pytest.raises(AssertionError):  # it tests what it replaces
        patched(after, operations(before, patch.edits))
    with pytest.raises(DnsprobeError, match="so already"):
        plan(word, value, objects.after(patch))


def test_every_action_can_be_planned_and_printed() -> None:
    values = {word: value for word, value, _, _ in PATCHES}
    objects = made_by()
    for word in ACTIONS:
        for request in plan(word, values.get(word, ""), objects).requests:
            assert kubectl(request, objects.said(request.thing)).startswith("kubectl ")


def test_a_restart_is_no_lasting_change() -> None:
    (patch,) = plan("restart", "", made_by()).requests
    assert isinstance(patch, Patch)
    assert not patch.lasting
    (one,) = patch.edits
    assert (one.path, list(one.after)) == ("/spec/template/metadata/annotations", ["kubectl.kubernetes.io/restartedAt"])


def test_pods_are_deleted_killed_and_evicted() -> None:
    objects = made_by()
    assert plan("delete_pod", "b", objects) == Change("b", (Deletion(B.thing),))
    assert [plan("delete_pod", which, objects).what for which in ("", "oldest", "newest")] == ["a", "a", "b"]
    assert plan("kill_pod", "", objects).requests == (Deletion(A.thing, force=True),)
    cordon, eviction = plan("evict_dns", "node-2", objects).requests
    assert cordon == Patch(Thing("Node", "", "node-2"), (Edit("/spec/unschedulable", None, True),))
    assert eviction == Eviction(B.thing)
    assert plan("evict_dns", "", objects).what == "node-1"
    closed = made_by(nodes={"node-2": node("node-2") | {"spec": {"unschedulable": True}}})
    assert plan("evict_dns", "node-2", closed).requests == (Eviction(B.thing),)  # and it stays as it was


NO_MAKER = replace(made_by(), maker=None)
OUTAGES = [
    ("scale", "0", made_by(), "no replica is left"),
    ("delete_pod", "", made_by(pods=(A,)), "a is the only pod that is Ready"),
    ("kill_pod", "b", made_by(pods=(B,)), "b is the only pod that is Ready"),
    ("evict_dns", "", made_by(pods=(A, replace(B, node="node-1"))), "all pods that are Ready are on node-1"),
    ("restart", "", made_by(strategy={"type": "Recreate"}), "strategy Recreate ends all pods before"),
    ("set_image", "1.13.0", made_by(deployment(1)), "of 1 replicas 1 may be unavailable"),
    ("patch_corefile", "ready off", made_by(), "readiness fails on every pod without `ready`"),
    ("patch_corefile", "health off", made_by(), "liveness fails without `health`: all pods are restarted"),
    ("restart", "", made_by(), ""),
    ("set_image", "1.13.0", made_by(), ""),
    ("scale", "1", made_by(), ""),
    ("grace_period", "9s", made_by(strategy={"rollingUpdate": {"maxUnavailable": "50%"}}), ""),
    ("grace_period", "9s", made_by(strategy={"rollingUpdate": {"maxUnavailable": "100%"}}), "of 2 replicas 2 may be"),
]


@pytest.mark.parametrize(("word", "value", "objects", "why"), OUTAGES)
def test_a_step_that_can_leave_no_endpoint_says_so(word: str, value: str, objects: Objects, why: str) -> None:
    outage = plan(word, value, objects).outage
    assert outage.startswith(why)
    assert bool(outage) == bool(why)


NOT_HERE = [
    ("scale", "3", made_by(daemon_set("dns-default", "coredns:1.11.1")), "a DaemonSet makes the pods"),
    ("scale", "3", NO_MAKER, "the Deployment that makes the pods cannot"),
    (
        "pre_stop",
        "5s",
        made_by(kubernetes="v1.29.3-eks"),
        "has no `lifecycle.preStop.sleep`, which 1.30 brings",
    ),
    ("readiness", "period 5s", made_by(deployment(container={"readinessProbe": None})), "no readiness probe by HTTP"),
    ("strategy", "max_surge 1", made_by(strategy={"type": "Recreate"}), "it is Recreate, which has no such settings"),
    ("delete_pod", "c", made_by(), "no pod c; Ready are a, b"),
    ("evict_dns", "node-3", made_by(), "no CoreDNS pod is Ready there; they are on node-1, node-2"),
    ("restart_nodelocal", "", made_by(nodelocal=None), "there is no DaemonSet node-local-dns"),
    ("patch_corefile", "lameduck 9s", made_by(config=config_map(Corefile=".:53 {\n health\n}\n")), "has no `reload`"),
    ("patch_corefile", "reload off", made_by(), "would not read the Corefile that is put back after it"),
    ("patch_corefile", "lameduck 9s", made_by(config=None), "the Corefile's ConfigMap cannot be seen"),
]


@pytest.mark.parametrize(("word", "value", "objects", "why"), NOT_HERE)
def test_a_step_that_cannot_be_taken_says_why(word: str, value: str, objects: Objects, why: str) -> None:
    with pytest.raises(DnsprobeError, match=why):
        plan(word, value, objects)


@pytest.mark.parametrize(
    ("image", "value", "other"),
    [
        ("registry.k8s.io/coredns/coredns:v1.12.1", "1.9.3", "registry.k8s.io/coredns/coredns:v1.9.3"),
        ("coredns/coredns:1.12.1", "1.9.3", "coredns/coredns:1.9.3"),
        ("localhost:5000/coredns", "1.9.3", "localhost:5000/coredns:v1.9.3"),
        ("localhost:5000/coredns:1.8.0", "1.9.3", "localhost:5000/coredns:1.9.3"),
        ("a/coredns:v1.12.1@sha256:00ff", "1.9.3", "a/coredns:v1.9.3"),
        ("a/coredns@sha256:00ff", "1.9.3", "a/coredns:v1.9.3"),
        ("a/coredns:v1.12.1-eksbuild.2", "1.9.3", "a/coredns:v1.9.3"),
        ("a/coredns:v1.12.1", "b/c:v2", "b/c:v2"),
    ],
)
def test_a_version_keeps_registry_name_and_manner(image: str, value: str, other: str) -> None:
    assert other_image(image, value) == other


def test_an_element_of_a_list_goes_by_its_name_wherever_it_is() -> None:
    said = deployment()
    (patch,) = plan("set_image", "1.13.0", made_by(said)).requests
    assert isinstance(patch, Patch)
    after = edited(said, patch.edits)
    after["spec"]["template"]["spec"]["containers"].insert(0, {"name": "sidecar", "image": "x"})
    back = patched(after, operations(after, patch.backwards))["spec"]["template"]["spec"]["containers"]
    assert [each["image"] for each in back] == ["x", "registry.k8s.io/coredns/coredns:v1.12.1"]
    del after["spec"]["template"]["spec"]["containers"][1]
    with pytest.raises(EnvironmentProblem, match="no such place any more"):
        operations(after, patch.backwards)


def test_a_key_with_a_slash_is_escaped_in_a_path_and_not_in_a_value() -> None:
    path = "/metadata/annotations/a.b~1c"
    bare = {"metadata": {"name": "x"}}
    first = edit(bare, path, "1")
    assert first == Edit("/metadata/annotations", None, {"a.b/c": "1"})
    there = edited(bare, [first])
    second = edit(there, path, "2")
    assert second == Edit(path, "1", "2")
    assert patched(there, operations(there, [second]))["metadata"]["annotations"] == {"a.b/c": "2"}


# -- the Corefile

TWO = """\
# a comment stays
example.org:53 {
    health
    forward . 192.0.2.1
}
.:53 {
    errors
    cache 30 {
        serve_stale   # as ever
    }
    reload
}
"""
SHARED = """\
(common) {
    health
    cache 30
}
example.org {
    import common
}
.:53 {
    import common
    log . "{remote}
{name}"
}
"""
EDITS = [
    (SHARED, "lameduck 9s", "    health\n", "    health {\n        lameduck 9s\n    }\n"),
    (SHARED, "cache off", "    cache 30\n", ""),
    (SHARED, "ready", '{name}"\n', '{name}"\n    ready\n'),
    (SHARED.replace("\n", "\r\n"), "cache off", "    cache 30\r\n", ""),
    (COREFILE, "lameduck 10s", "       lameduck 5s", "       lameduck 10s"),
    (COREFILE, "lameduck 0s", "    health {\n       lameduck 5s\n    }\n", "    health\n"),
    (COREFILE, "nsid", "    loadbalance\n}", "    loadbalance\n    nsid\n}"),
    (COREFILE, "cache 60s", "    cache 30", "    cache 60"),
    (COREFILE, "cache 0s", "    cache 30\n", ""),
    (COREFILE, "ready off", "    ready\n", ""),
    (COREFILE, "forward . 192.0.2.1 192.0.2.2", "forward . /etc/resolv.conf {", "forward . 192.0.2.1 192.0.2.2 {"),
    (COREFILE, "reload 10s 5s", "    reload\n", "    reload 10s 5s\n"),
    (
        COREFILE,
        "cache 60 { prefetch 5; serve_stale }",
        "    cache 30\n",
        "    cache 60 {\n        prefetch 5\n        serve_stale\n    }\n",
    ),
    (TWO, "lameduck 9s", "    health\n", "    health {\n        lameduck 9s\n    }\n"),
    (TWO, "cache 60", "cache 30 {", "cache 60 {"),
    (TWO, "ready on", "    reload\n}", "    reload\n    ready\n}"),
    (TWO, "cache off", "    cache 30 {\n        serve_stale   # as ever\n    }\n", ""),
]


@pytest.mark.parametrize(("text", "directive", "was", "becomes"), EDITS)
def test_a_directive_changes_its_lines_and_no_others(text: str, directive: str, was: str, becomes: str) -> None:
    assert text.count(was) == 1
    assert edited_corefile(text, directive) == text.replace(was, becomes)


@pytest.mark.parametrize(
    ("text", "directive", "why"),
    [
        (COREFILE, "lameduck 5s", "says so already"),
        (COREFILE, "nsid off", "says so already"),
        ("a.test {\n    errors\n}\n", "nsid", "no block with nsid, and none for the root zone"),
        (". {\n    forward a 192.0.2.1\n    forward b 192.0.2.2\n}\n", "forward . 192.0.2.3", "is there 2 times"),
    ],
)
def test_a_directive_that_has_no_place_is_refused(text: str, directive: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        edited_corefile(text, directive)
