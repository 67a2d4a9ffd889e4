"""A run beside a real Kubernetes in which others act: what is found and marked, what a gap and a small role show."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from probe.cluster.kube import Kube
from probe.model import NS
from probe.runfile import Run, open_run
from probe.timeline import Timeline
from tests.e2e.kubernetes import Kubernetes

SYSTEM = "--namespace=kube-system"


def baseline(cluster: Kubernetes, folder: Path, seconds: int, meanwhile: Callable[[], None]) -> Run:
    """The shipped baseline, in the node's network; `meanwhile` begins 5 s after its first query."""
    command = f"-m probe.cli run baseline --set duration={seconds}s -o {folder}/run.db"
    words = ["env", f"KUBECONFIG={cluster.kubeconfig}", sys.executable, *command.split()]
    with subprocess.Popen(
        cluster.first.inside(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 30
        while not (folder / "run.db").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(5)
        meanwhile()
        out, err = process.communicate(timeout=seconds + 30)
    assert process.returncode in (0, 1, 3), out + err
    return open_run(folder / "run.db")


def lameduck(cluster: Kubernetes, before: int, after: int) -> None:
    """Patch the Corefile, as someone else does."""
    config = json.loads(cluster.kubectl("get", "configmap", SYSTEM, "coredns", "-o", "json"))
    text = config["data"]["Corefile"].replace(f"lameduck {before}s", f"lameduck {after}s")
    data = json.dumps({"data": {"Corefile": text}})
    cluster.kubectl("patch", "configmap", SYSTEM, "coredns", "--type=merge", f"--patch={data}")


def lost(run: Run) -> dict[str, int]:
    """Rows lost while they counted, by lane and target."""
    return {" -> ".join(one.name): one.loss().lost for one in Timeline.of(run).channels if one.loss().lost}


def test_a_rollout_that_someone_else_starts_is_followed_and_loses_nothing(cluster: Kubernetes, tmp_path: Path) -> None:
    before = json.loads(cluster.kubectl("get", "pods", SYSTEM, "-l", "k8s-app=kube-dns", "-o", "json"))["items"]
    run = baseline(
        cluster, tmp_path, 30, lambda: print(cluster.kubectl("rollout", "restart", SYSTEM, "deployment/coredns"))
    )
    marks = {kind: [mark for mark in run.marks if mark.kind == kind] for kind in {mark.kind for mark in run.marks}}
    old = {pod["metadata"]["name"] for pod in before}
    for kind in ("pod_deleted", "pod_gone"):
        assert {mark.subject for mark in marks[kind]} == old
    new = {mark.subject for mark in marks["pod_ready"]}
    assert len(new) == len(old)
    assert [len(marks[kind]) for kind in ("rollout_started", "rollout_done")] == [1, 1]
    assert marks["rollout_started"][0].text == marks["rollout_done"][0].text
    assert marks["endpoints_changed"][-1].text == f"ready: {', '.join(sorted(new))}"
    assert {series.target.name for series in run.series if series.lane == "pods"} == old | new
    assert lost(run) == {}


def test_a_corefile_that_someone_else_patches_is_marked(cluster: Kubernetes, tmp_path: Path) -> None:
    def patch() -> None:
        lameduck(cluster, 5, 6)
        lameduck(cluster, 6, 5)

    run = baseline(cluster, tmp_path, 10, patch)
    assert [mark.text for mark in run.marks if mark.kind == "corefile_patched"] == [
        "-lameduck 5s, +lameduck 6s",
        "-lameduck 6s, +lameduck 5s",
    ]


def test_probing_goes_on_while_the_api_is_away(cluster: Kubernetes, tmp_path: Path) -> None:
    times = []

    def away() -> None:
        times.append(time.monotonic_ns())
        cluster.stop("kube-apiserver")
        time.sleep(20)
        cluster.start("kube-apiserver")
        cluster.until("get", "--raw", "/readyz")
        times.append(time.monotonic_ns())
        time.sleep(6)
        lameduck(cluster, 5, 6)

    run = baseline(cluster, tmp_path, 60, away)
    lameduck(cluster, 6, 5)
    for what in ("nodes", "pods --namespace=kube-system --selector=k8s-app=kube-dns"):
        cluster.until("wait", "--for=condition=Ready", "--all" if what == "nodes" else "--timeout=60s", *what.split())
    (gap,) = [one for one in run.intervals if one.kind == "watch_gap" and not one.subject]
    assert 20 * NS < gap.to_ns - gap.from_ns < times[1] - times[0] + 7 * NS
    assert "the cluster: not seen from " in gap.text
    (patched,) = [mark for mark in run.marks if mark.kind == "corefile_patched"]
    assert gap.to_ns < patched.at_ns
    # The node controller may take a node for dead whose heartbeats it could not read: then it is Kubernetes that takes
    # the endpoints away.
    if not any(mark.kind in ("node_not_ready", "pod_not_ready") for mark in run.marks):
        assert lost(run) == {}


ROLE = """\
apiVersion: v1
kind: ServiceAccount
metadata: {{name: looks, namespace: kube-system}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: looks, namespace: kube-system}}
rules:
- {{apiGroups: [""], resources: [services, pods, configmaps, events], verbs: [list, watch]}}
- {{apiGroups: [""], resources: [pods/log], verbs: [get]}}
- {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}}
- {{apiGroups: [apps], resources: [deployments, daemonsets, replicasets], verbs: [list, watch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: looks, namespace: default}}
rules:
- {{apiGroups: [""], resources: [events], verbs: [list, watch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: looks, namespace: default}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: looks}}
subjects: [{{kind: ServiceAccount, name: looks, namespace: kube-system}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: looks}}
rules: {nodes}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: looks, namespace: kube-system}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: looks}}
subjects: [{{kind: ServiceAccount, name: looks, namespace: kube-system}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: looks}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: looks}}
subjects: [{{kind: ServiceAccount, name: looks, namespace: kube-system}}]
"""
NODES = '[{apiGroups: [""], resources: [nodes], verbs: [list, watch]}]'
NO_NODES = 'nodes: no right to list them (403): add to its ClusterRole: {apiGroups: [""], resources: [nodes], verbs:'


@pytest.mark.parametrize(("nodes", "missing"), [(NODES, ""), ("[]", NO_NODES)])
def test_a_role_that_may_look_is_enough(
    nodes: str, missing: str, cluster: Kubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "role.yaml").write_text(ROLE.format(nodes=nodes))
    cluster.kubectl("apply", f"--filename={tmp_path / 'role.yaml'}")
    token = cluster.kubectl("create", "token", SYSTEM, "looks").strip()
    config = json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json"))
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))

    async def look() -> tuple[dict[str, str], int]:
        kube = Kube()
        try:
            await kube.start()
            return kube.facts(), len(kube.targets("pods"))
        finally:
            await kube.stop()

    facts, pods = asyncio.run(look())
    assert pods == 2
    assert facts["made by"] == "Deployment coredns, 2 replicas"
    assert ("nodes" in facts) == (not missing)
    assert (NO_NODES in facts.get("not seen", "")) == bool(missing)
