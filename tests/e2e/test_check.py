"""`dnsprobe check` in the network of a node, as a pod there would: well, broken in several ways, blind, intercepted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from probe.linux import in_network
from tests.e2e.kubernetes import Kubernetes
from tests.e2e.test_cluster import eventually, ready
from tests.e2e.test_kube import NO_NODES, NODES, ROLE, SYSTEM
from tests.servers import REPLIES, Rule, ScriptedServer

RESOLV_CONF = """\
search shop.svc.cluster.local svc.cluster.local cluster.local
nameserver 10.96.0.10
options ndots:5
"""
DROP = "add table inet {0}; add chain inet {0} out {{ type filter hook output priority -300; }}; add rule inet {0} out"


def checked(
    cluster: Kubernetes, folder: Path, kubeconfig: Path | None = None, *, in_pod: bool = False
) -> tuple[int, Any, str]:
    """Exit code, JSON, and stderr, from the first node; in_pod: with the environment and resolv.conf of a pod there."""
    (folder / "resolv.conf").write_text(RESOLV_CONF)
    environment = [f"KUBECONFIG={kubeconfig or cluster.kubeconfig}", "HOME=/nonexistent"]
    mount = f"mount --bind {folder}/resolv.conf /etc/resolv.conf && " if in_pod else ""
    environment += ["KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT=443"] if in_pod else []
    command = ["env", *environment, sys.executable, "-m", "probe.cli", "check", "--format", "json"]
    words = cluster.first.inside("unshare", "--mount", "sh", "-c", f'{mount}exec "$@"', "sh", *command)
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    said = json.loads(ended.stdout or "{}")
    assert said.get("seconds", 0) < 15
    return ended.returncode, said, ended.stderr


def causes(said: Any) -> list[str]:
    return [cause["id"] for cause in said["causes"]]


@contextmanager
def dropped(cluster: Kubernetes, what: str) -> Iterator[None]:
    """What leaves the first node, as a NetworkPolicy would deny it."""
    rules = f"{DROP.format('check')} {what} drop"
    subprocess.run(cluster.first.inside("nft", rules), check=True)
    try:
        yield
    finally:
        subprocess.run(cluster.first.inside("nft", "delete table inet check"), check=True)


def test_a_cluster_that_is_well(cluster: Kubernetes, tmp_path: Path) -> None:
    code, said, err = checked(cluster, tmp_path)
    assert (code, causes(said)) == (0, []), err
    kinds = {(path["kind"], path["transport"], path["outside"]) for path in said["paths"]}
    assert kinds == {
        ("service", "udp", False), ("service", "tcp", False), ("service", "udp", True),
        ("pod", "udp", False), ("pod", "tcp", False),
    }  # fmt: skip
    assert {path["state"] for path in said["paths"]} <= {"ok", "slow"}
    assert said["api"]["version"] == "v1.34.2"
    assert said["facts"]["zone"] == "cluster.local"
    assert said["resolver"] is None


def test_a_pod_s_own_resolv_conf_is_explained_and_nobody_intercepts(cluster: Kubernetes, tmp_path: Path) -> None:
    code, said, err = checked(cluster, tmp_path, in_pod=True)
    assert (code, causes(said)) == (0, []), err
    says = " ".join(said["resolver"]["says"])
    assert "namespace shop, domain cluster.local, nameserver 10.96.0.10" in says
    assert "with ndots:5 and 3 search domains api.example.com asks 6 queries before its own 2" in says
    assert said["intercepted"] == []
    assert "with dnsPolicy Default it would say whom" in said["facts"]["upstream"]


def test_without_any_rights_a_pod_asks_its_nameservers(cluster: Kubernetes, tmp_path: Path) -> None:
    code, said, err = checked(cluster, tmp_path, tmp_path / "none", in_pod=True)
    assert code == 0, err
    assert {path["target"] for path in said["paths"]} == {"nameserver 10.96.0.10"}
    assert said["api"]["reached"]


@pytest.mark.parametrize(("nodes", "missing"), [(NODES, ""), ("[]", NO_NODES)])
def test_the_role_that_may_look_is_enough(nodes: str, missing: str, cluster: Kubernetes, tmp_path: Path) -> None:
    (tmp_path / "role.yaml").write_text(ROLE.format(nodes=nodes))
    cluster.kubectl("apply", f"--filename={tmp_path / 'role.yaml'}")
    token = cluster.kubectl("create", "token", SYSTEM, "looks").strip()
    config = json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json"))
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    (tmp_path / "config").write_text(json.dumps(config))
    code, said, err = checked(cluster, tmp_path, tmp_path / "config")
    assert code == 0, err
    assert len([path for path in said["paths"] if path["kind"] == "pod"]) == 4
    assert len(said["not_seen"]) == bool(missing)
    assert missing in " ".join(said["not_seen"])


@pytest.mark.parametrize(
    ("what", "in_pod", "code", "cause"),
    [
        ("ip daddr 10.96.0.10 th dport 53", True, 1, "kube_proxy"),
        ("ip daddr 10.96.0.10 udp dport 53", True, 1, "udp_blocked"),
        ("tcp dport 53", True, 1, "udp_blocked"),
        ("th dport 53", True, 1, "port_blocked"),
        ("th dport 53", False, 3, "outside"),
    ],
)
def test_what_a_policy_denies_has_its_cause(
    what: str, in_pod: bool, code: int, cause: str, cluster: Kubernetes, tmp_path: Path
) -> None:
    with dropped(cluster, what):
        ended, said, err = checked(cluster, tmp_path, in_pod=in_pod)
    assert (ended, causes(said)) == (code, [cause]), err


def test_a_pod_that_stands_still_is_named(cluster: Kubernetes, tmp_path: Path) -> None:
    """Its process is halted: it is Ready until its probes have failed."""
    pods = json.loads(cluster.kubectl("get", "pods", SYSTEM, "-l", "k8s-app=kube-dns", "-o", "json"))["items"]
    name, uid = pods[0]["metadata"]["name"], pods[0]["metadata"]["uid"]
    (process,) = [
        entry.name
        for entry in Path("/proc").glob("[0-9]*")
        if (entry / "comm").exists()
        and (entry / "comm").read_text().strip() == "coredns"
        and any(form in (entry / "cgroup").read_text() for form in (uid, uid.replace("-", "_")))
    ]
    subprocess.run(["kill", "-STOP", process], check=True)
    try:
        code, said, err = checked(cluster, tmp_path)
    finally:
        subprocess.run(["kill", "-CONT", process], check=True)
    assert (code, causes(said)) == (1, ["pod_stuck"]), err
    assert f"{name} does not answer, the other 1 of 2 pods do" in said["causes"][0]["text"]
    assert f"kubectl -n kube-system delete pod {name}" in said["causes"][0]["remedy"]
    assert eventually(lambda: len(ready(cluster.kubectl)) == 2)


def test_scaled_to_nothing_is_said_so(cluster: Kubernetes, tmp_path: Path) -> None:
    cluster.kubectl("scale", SYSTEM, "deployment/coredns", "--replicas=0")
    try:
        assert eventually(lambda: not ready(cluster.kubectl))
        code, said, err = checked(cluster, tmp_path)
    finally:
        cluster.kubectl("scale", SYSTEM, "deployment/coredns", "--replicas=2")
        cluster.kubectl("rollout", "status", SYSTEM, "deployment/coredns", "--timeout=60s")
    assert (code, causes(said)) == (1, ["no_pods"]), err
    assert "kubectl -n kube-system scale deployment coredns --replicas=2" in said["causes"][0]["remedy"]


def test_without_the_api_server_a_pod_still_checks_its_dns(cluster: Kubernetes, tmp_path: Path) -> None:
    cluster.stop("kube-apiserver")
    try:
        code, said, err = checked(cluster, tmp_path, in_pod=True)
        assert (code, causes(said), said["state"]) == (4, ["api_server"], "no_api"), err
        assert {path["state"] for path in said["paths"]} <= {"ok", "slow"}
        code, _, err = checked(cluster, tmp_path)
        assert code == 4
        assert "cannot be reached" in err
    finally:
        cluster.start("kube-apiserver")
        cluster.until("get", "--raw", "/readyz")


@pytest.mark.parametrize("where", ["", "ip daddr 10.96.0.10 "])
def test_one_who_answers_for_cluster_dns_is_found(where: str, cluster: Kubernetes, tmp_path: Path) -> None:
    """All of port 53 redirected, as Istio's ambient mode does; and what goes to resolv.conf's nameserver alone."""
    with in_network(f"/run/netns/{cluster.first.namespace}"):
        server = ScriptedServer([Rule(REPLIES["answer"])])
    rules = "add table ip mesh; add chain ip mesh out { type nat hook output priority -150; };"
    rules += f" add rule ip mesh out {where}udp dport 53 redirect to :{server.port}"
    subprocess.run(cluster.first.inside("nft", rules), check=True)
    try:
        code, said, err = checked(cluster, tmp_path, in_pod=True)
    finally:
        subprocess.run(cluster.first.inside("nft", "delete table ip mesh"), check=True)
        server.close()
    assert (code, said["state"]) == (3, "unknown"), said["facts"]["interception"] + err
    assert any("somebody on the way answers in its place" in text for text in said["intercepted"]) == bool(where)
    assert any("192.0.2.1 is nobody's address" in text for text in said["intercepted"]) != bool(where)
