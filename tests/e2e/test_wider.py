"""A run beside a real Kubernetes: what a rollout and a crash of CoreDNS look like, by its API, its log, its metrics."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from probe.model import NS, Mark
from tests.e2e.kubernetes import Kubernetes
from tests.e2e.test_kube import SYSTEM, baseline, lost


def in_order(marks: Sequence[Mark], *wanted: tuple[str, str]) -> list[tuple[str, str]]:
    """Of kinds and parts of texts those that come one after the other."""
    found, rest = [], iter(sorted(marks, key=lambda mark: mark.at_ns))
    for kind, text in wanted:
        if any(mark.kind == kind and text in mark.text for mark in rest):
            found.append((kind, text))
    return found


def test_a_restart_is_told_from_all_sides(cluster: Kubernetes, tmp_path: Path) -> None:
    run = baseline(
        cluster, tmp_path, 30, lambda: print(cluster.kubectl("rollout", "restart", SYSTEM, "deployment/coredns"))
    )
    old = {mark.subject for mark in run.marks if mark.kind == "pod_deleted"}
    assert len(old) == 2
    for pod in old:
        mine = [mark for mark in run.marks if mark.subject == pod]
        wanted = [
            ("pod_deleted", "grace period 30 s"),
            ("clock_lameduck_over", "port 8080"),
            ("pod_exited", "exit code 0"),
            ("pod_gone", ""),
        ]
        assert in_order(mine, *wanted) == wanted
        log = [("log", "SIGTERM: Shutting down"), ("log", "lameduck mode for 5s"), ("clock_closed", "port 53")]
        assert in_order(mine, *log) == log
        assert any(mark.kind == "event" and "Killing" in mark.text for mark in mine)
    rollout = [("replicaset_current", "revision"), ("rollout_progress", "2 of 2 updated"), ("rollout_done", "")]
    assert in_order(run.marks, *rollout) == rollout
    new = {mark.subject for mark in run.marks if mark.kind == "pod_ready"}
    assert {mark.subject for mark in run.marks if mark.kind == "log" and "CoreDNS-" in mark.text} == new
    assert any(mark.kind == "proxy_programmed" and mark.subject == "node1" for mark in run.marks)
    (unseen,) = [mark for mark in run.marks if mark.kind == "not_seen"]
    assert (unseen.subject, unseen.source) == ("node2", "kube-proxy metrics")
    requests = {metric.subject: metric.grown for metric in run.metrics if metric.name == "requests"}
    assert old | new == requests.keys()
    assert all(requests[pod] > 100 for pod in new)
    for series in run.series:
        ready = [mark.at_ns for mark in run.marks if mark.kind == "pod_ready" and mark.subject == series.target.name]
        if series.lane == "pods" and ready:
            assert series.start_ns - ready[0] < 2 * NS


def test_a_container_that_is_killed_leaves_its_marks_and_counts_on(cluster: Kubernetes, tmp_path: Path) -> None:
    def kill() -> None:
        pods = json.loads(cluster.kubectl("get", "pods", SYSTEM, "-l", "k8s-app=kube-dns", "-o", "json"))["items"]
        name = min(pod["metadata"]["name"] for pod in pods)
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:
                continue
            if words.startswith(b"/coredns\0") and f"HOSTNAME={name}\0".encode() in environment:
                os.kill(int(entry.name), signal.SIGKILL)
                killed.append(name)

    killed: list[str] = []
    run = baseline(cluster, tmp_path, 25, kill)
    (name,) = killed
    mine = [mark for mark in run.marks if mark.subject == name]
    wanted = [
        ("pod_exited", "container coredns: exit code 137"),
        ("pod_restarted", "restarts: 1"),
        ("pod_ready", ""),
    ]
    assert in_order(mine, *wanted[:1]) == wanted[:1]
    assert {kind for kind, _ in wanted} <= {mark.kind for mark in mine}
    assert not {"pod_deleted", "pod_gone"} & {mark.kind for mark in mine}
    assert any(mark.kind == "log" and "CoreDNS-" in mark.text for mark in mine)
    (life,) = [one for one in run.intervals if one.kind == "life" and one.subject == name]
    assert (life.from_ns, life.to_ns) == (0, run.end_ns)
    assert any(target.endswith(name) for target in lost(run))
