"""The Job in a real Kubernetes while someone else restarts and scales CoreDNS: windows, marks, the verdict."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kubernetes import Kubernetes
from tests.e2e.test_deploy import NAMESPACE, applied, clean, endings, over, printed
from tests.e2e.test_kube import SYSTEM

__all__ = ["clean"]
SCENARIO = """\
name: someone-else
duration: 70s
lanes:
  - {name: vip-udp, target: service, rate: 100, types: [A], questions: [kubernetes.default.svc.cluster.local]}
  - {name: pods, target: pods, rate: 5, types: [A], questions: [kubernetes.default.svc.cluster.local]}
objectives: [loss(vip-udp) <= 0%]
"""
DEPLOYMENT = (SYSTEM, "deployment/coredns")


def with_lameduck(cluster: Kubernetes, seconds: int) -> None:
    """The Corefile says so, and all pods have it."""
    config = json.loads(cluster.kubectl("get", SYSTEM, "configmap/coredns", "--output=json"))
    corefile = config["data"]["Corefile"]
    lines = [f"{line[: len(line) - len(line.lstrip())]}lameduck {seconds}s" if "lameduck" in line else line
             for line in corefile.splitlines()]  # fmt: skip
    patch = json.dumps({"data": {"Corefile": "\n".join(lines) + "\n"}})
    cluster.kubectl("patch", SYSTEM, "configmap/coredns", "--type=merge", f"--patch={patch}")
    restart(cluster)


def restart(cluster: Kubernetes) -> None:
    cluster.kubectl("rollout", "restart", *DEPLOYMENT)
    cluster.until("rollout", "status", *DEPLOYMENT, "--timeout=10s")


@pytest.fixture
def as_before(cluster: Kubernetes) -> Iterator[Kubernetes]:
    yield cluster
    cluster.use_proxy("iptables")
    cluster.kubectl("scale", *DEPLOYMENT, "--replicas=2")
    with_lameduck(cluster, 5)


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize("mode", ["iptables", "nftables"])
@pytest.mark.parametrize("lameduck", [0, 5])
def test_what_someone_else_does_is_seen_and_judged(
    clean: Kubernetes, image: str, tmp_path: Path, mode: Any, lameduck: int
) -> None:
    clean.use_proxy(mode)
    with_lameduck(clean, lameduck)
    (tmp_path / "it.yaml").write_text(SCENARIO)
    applied(clean, printed(f"{tmp_path}/it.yaml --name someone-else --linger 1s", image), tmp_path)
    running = "--for=jsonpath={.status.phase}=Running"
    clean.until("wait", NAMESPACE, "pod", "--selector=app.kubernetes.io/name=dnsprobe", running, "--timeout=10s")
    time.sleep(15)
    restart(clean)
    time.sleep(12)
    clean.kubectl("scale", *DEPLOYMENT, "--replicas=1")
    status, ends = over(clean, "someone-else"), endings(clean, "someone-else")
    logs = [clean.kubectl("logs", NAMESPACE, pod) for pod in ends]
    told = [[json.loads(line) for line in log.splitlines() if line.startswith("{")] for log in logs]
    windows = [one for lines in told for one in lines if one["type"] == "window" and one["lane"] == "vip-udp"]
    marks = {one["kind"] for lines in told for one in lines if one["type"] == "mark"}
    print(mode, lameduck, status["is"], [(w["lost"], w["seconds"], w["class"]) for w in windows], [*ends.values()])
    assert {"rollout_started", "rollout_done", "scaled", "pod_deleted", "pod_ready", "log"} <= marks
    if lameduck:
        assert windows == []
        assert not any(text.startswith("FAIL: ") for _, _, text in ends.values()), "a busy machine may send late"
    else:
        assert windows, "pods that close at once are asked until every node knows"
        assert all(window["lost"] < 300 for window in windows), "nodes know it within 3 s"
        assert status["is"] == "Failed"
        assert any(text.startswith("FAIL: ") for _, _, text in ends.values())
