"""Upgrades that someone else begins in a real Kubernetes -> a run that ends with them; a Job that is told to stop."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from probe.runfile import Run, open_run
from probe.scenario.file import find_scenario
from tests.e2e.components import PAUSE
from tests.e2e.kubernetes import COREDNS, Kubernetes
from tests.e2e.test_kube import SYSTEM
from tests.e2e.test_kube import lost as lost_of
from tests.test_cli import ROOT

INDEX, POD = "JOB_COMPLETION_INDEX", "DNSPROBE_POD"
QUIET = 12
DEPLOYMENT = (SYSTEM, "deployment/coredns")


def running(
    cluster: Kubernetes, folder: Path, words: str, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """dnsprobe in the first node's network, before all others: what it cannot send in time is no clean baseline."""
    told = {"KUBECONFIG": str(cluster.kubeconfig), "PYTHONPATH": str(ROOT), **(environment or {})}
    setting = [f"{name}={value}" for name, value in told.items()]
    command = cluster.first.inside("nice", "-n-19", "env", *setting, sys.executable, "-m", "probe.cli", *words.split())
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(there: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def watched(cluster: Kubernetes, folder: Path, *acts: Callable[[], object]) -> tuple[Run, str]:
    """The shipped watch-upgrade, with a short quiet; what happens meanwhile begins 5 s after its first query."""
    file = folder / "watch.yaml"
    text = find_scenario("watch-upgrade").read_text()
    file.write_text(
        text.replace("rollout quiet 11m", f"rollout quiet {QUIET}s").replace("duration: 2h", "duration: 4m")
    )
    process = running(cluster, folder, "run watch.yaml -o run.db")
    try:
        until(lambda: (folder / "run.db").exists() or process.poll() is not None)
        time.sleep(5)
        for act in acts:
            act()
        _, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode in (0, 1, 3), err
    return open_run(folder / "run.db"), err


def set_image(cluster: Kubernetes, image: str) -> None:
    cluster.kubectl("set", "image", *DEPLOYMENT, f"coredns={image}")


def waits(cluster: Kubernetes, reason: str) -> bool:
    """Whether a CoreDNS pod waits for that reason."""
    path = "{.items[*].status.containerStatuses[*].state.waiting.reason}"
    return reason in cluster.kubectl("get", "pods", SYSTEM, "-l", "k8s-app=kube-dns", "-o", f"jsonpath={path}")


def lost(run: Run) -> dict[str, int]:
    """But for those of the fixed port: it leads to a pod that ends until readiness says so, longer than lameduck is."""
    return {name: n for name, n in lost_of(run).items() if "fixed" not in name}


def kinds(run: Run) -> list[str]:
    told = [mark.kind for mark in run.marks if mark.kind.startswith("rollout") or mark.kind in ("waited", "ended")]
    return [kind for kind in told if kind != "rollout_progress"]


def test_a_rollout_that_someone_else_starts_ends_the_run(cluster: Kubernetes, tmp_path: Path) -> None:
    run, err = watched(cluster, tmp_path, lambda: cluster.kubectl("rollout", "restart", *DEPLOYMENT))
    assert run.ended.startswith("rollout of coredns completed "), err
    assert run.ended.endswith(f" s after it began; quiet for 0:{QUIET}")
    assert kinds(run) == ["rollout_started", "rollout_done", "waited", "ended"]
    assert (run.cut, run.finished) == ("", True)
    assert "waiting for a rollout of " in err
    assert lost(run) == {}


def test_an_image_that_cannot_be_pulled_stalls_and_is_rolled_back(cluster: Kubernetes, tmp_path: Path) -> None:
    stalled, back = tmp_path / "stalled", tmp_path / "back"
    stalled.mkdir()
    back.mkdir()
    try:
        run, _ = watched(cluster, stalled, lambda: set_image(cluster, "localhost/none:1"))
        assert "rollout of coredns stalled " in run.ended
        assert "of 2: pod coredns-" in run.ended
        assert "image localhost/none:1 cannot be pulled" in run.ended
        assert lost(run) == {}
    finally:
        cluster.kubectl("rollout", "undo", *DEPLOYMENT)
        cluster.kubectl("rollout", "status", *DEPLOYMENT, "--timeout=60s")
    run, _ = watched(
        cluster,
        back,
        lambda: set_image(cluster, "localhost/none:1"),
        lambda: until(lambda: waits(cluster, "ImagePullBackOff") or waits(cluster, "ErrImagePull")),
        lambda: cluster.kubectl("rollout", "undo", *DEPLOYMENT),
    )
    assert run.ended.startswith("rollout of coredns rolled back ")
    assert [kind for kind in kinds(run) if "roll" in kind][-1:] != ["rollout_started"]
    assert {"rollout_stalled", "rollout_rolled_back"} <= set(kinds(run))
    assert [mark.text for mark in run.marks if mark.kind == "rollout_rolled_back"] == [COREDNS]
    assert lost(run) == {}


JOB = """\
apiVersion: v1
kind: Namespace
metadata: {{name: dnsprobe}}
---
apiVersion: batch/v1
kind: Job
metadata: {{name: watch, namespace: dnsprobe}}
spec:
  completionMode: Indexed
  completions: 2
  parallelism: {pods}
  template:
    spec:
      restartPolicy: Never
      containers: [{{name: pause, image: "{image}"}}]
"""


@pytest.fixture
def pods(cluster: Kubernetes, tmp_path: Path) -> list[str]:
    """The names of an Indexed Job's pods, which wait; the probers run beside them, in the node's network."""
    (tmp_path / "job.yaml").write_text(JOB.format(pods=2, image=PAUSE))
    cluster.kubectl("apply", f"--filename={tmp_path / 'job.yaml'}")
    words = ("get", "pods", "-n", "dnsprobe", "-l", "batch.kubernetes.io/job-name=watch", "-o", "json")
    until(lambda: len(json.loads(cluster.kubectl(*words))["items"]) == 2)
    index = "batch.kubernetes.io/job-completion-index"
    found = json.loads(cluster.kubectl(*words))["items"]
    return [one["metadata"]["name"] for one in sorted(found, key=lambda one: one["metadata"]["annotations"][index])]


def test_a_job_s_runs_start_together_get_ready_and_are_stopped(
    cluster: Kubernetes, pods: list[str], tmp_path: Path
) -> None:
    job = {"DNSPROBE_JOB": "watch", "DNSPROBE_NAMESPACE": "dnsprobe", "JOB_COMPLETIONS": "2"}
    words = "run baseline --set duration=10m --start-at job"
    probers = [
        running(cluster, tmp_path, f"{words} --ready-file ready-{n} -o {n}.db", {**job, INDEX: str(n), POD: pod})
        for n, pod in enumerate(pods)
    ]
    try:
        until(lambda: all((tmp_path / f"ready-{n}").exists() or probers[n].poll() for n in range(2)), 300)
        stop = running(cluster, tmp_path, "stop job/watch")
        out, err = stop.communicate(timeout=40)
        assert stop.returncode == 0, err
        assert out.splitlines()[0] == "job/watch in dnsprobe is told to stop"
        assert sorted(line.split(" stops, after ")[0] for line in out.splitlines()[1:]) == sorted(
            f"pod {pod}:" for pod in pods
        )
        ends = [prober.communicate(timeout=30) for prober in probers]
    finally:
        for prober in probers:
            prober.kill()
        cluster.kubectl("delete", "namespace", "dnsprobe", "--wait=false")
    # A machine that has no time for us makes it inconclusive.
    assert all(prober.returncode in (0, 3) for prober in probers), ends
    assert all("baseline clean for 30 s: ready for the upgrade" in err for _, err in ends)
    assert not list(tmp_path.glob("ready-*"))
    runs = [open_run(tmp_path / f"{n}.db") for n in range(2)]
    assert runs[0].head.started_unix_ns == runs[1].head.started_unix_ns
    assert all(run.cut == "" and run.ended.startswith("told so by `dnsprobe stop` at ") for run in runs)
    assert all(" s from the API server's" in run.head.facts["clock"] for run in runs)
