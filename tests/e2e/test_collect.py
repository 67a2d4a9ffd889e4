"""Probers as the pods of a Job in a real Kubernetes, one of them evicted or killed -> their runs, collected as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

from probe.model import NS
from probe.outcome import Outcome
from probe.runfile import NODE_FACT, Run, open_run
from probe.timeline import Timeline
from tests.e2e.components import DNS_SERVICE
from tests.e2e.kubernetes import Kubernetes
from tests.e2e.test_cluster import eventually

SPACE = "collected"
RIGHTS = """\
apiVersion: v1
kind: Namespace
metadata: {name: collected}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: collects, namespace: collected}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: collects, namespace: collected}
rules:
- {apiGroups: [""], resources: [pods], verbs: [list]}
- {apiGroups: [""], resources: [pods/log, pods/proxy], verbs: [get]}
- {apiGroups: [batch], resources: [jobs], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: collects, namespace: collected}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: collects}
subjects: [{kind: ServiceAccount, name: collects, namespace: collected}]
"""


def job(name: str, image: str, seconds: int, start: float) -> dict[str, Any]:
    """Two shards of a load on the Service, on different nodes; one that is evicted is replaced, and has no say."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start))
    asks = (
        f"run -s {DNS_SERVICE} -n kubernetes.default.svc.cluster.local -Q 50 -l {seconds} --format jsonl --linger 60s"
    )
    # In place of one that was evicted another one begins as soon as it can.
    shell = f"import sys, time; from probe.cli import main; words = sys.argv[1:]; now = time.time() < {start - 1};"
    shell += f" main(words + (['--start-at', '{at}'] if now else []))"
    environment = [
        {"name": "JOB_COMPLETIONS", "value": "2"},
        {"name": "DNSPROBE_GRACE_PERIOD", "value": "60"},
        {"name": "DNSPROBE_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "DNSPROBE_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ]
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 60,
        "tolerations": [{"operator": "Exists"}],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"job-name": name}},
            }
        ],
        "containers": [
            {
                "name": "dnsprobe", "image": image, "workingDir": "/data", "env": environment,
                "command": ["python3", "-c", shell, *asks.split()],
                "securityContext": {"readOnlyRootFilesystem": True},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }
        ],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }  # fmt: skip
    disrupted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    spec = {
        "completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimitPerIndex": 0,
        "podFailurePolicy": {"rules": [disrupted]}, "podReplacementPolicy": "Failed", "template": {"spec": pod},
    }  # fmt: skip
    meta = {"name": name, "namespace": SPACE}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}


@pytest.fixture
def space(cluster: Kubernetes, tmp_path: Path) -> Iterator[Kubernetes]:
    """The cluster with a namespace in which `collects` may do what collecting takes, and no more."""
    (tmp_path / "rights.yaml").write_text(RIGHTS)
    cluster.kubectl("apply", f"--filename={tmp_path / 'rights.yaml'}")
    yield cluster
    cluster.kubectl("delete", "namespace", SPACE, "--wait")


def as_collector(cluster: Kubernetes, folder: Path) -> Path:
    """A kubeconfig with those rights."""
    token = cluster.kubectl("create", "token", "-n", SPACE, "collects").strip()
    config = json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json"))
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    (folder / "config").write_text(json.dumps(config))
    return folder / "config"


class Going:
    """The Job, and a `dnsprobe collect` that began with it."""

    def __init__(self, cluster: Kubernetes, image: str, folder: Path, seconds: int) -> None:
        self.cluster, self.folder, self.name = cluster, folder, f"load-{seconds}"
        self.start = float(int(time.time()) + 40)
        (folder / "job.json").write_text(json.dumps(job(self.name, image, seconds, self.start)))
        cluster.kubectl("apply", f"--filename={folder / 'job.json'}")
        command = [sys.executable, "-m", "probe.cli", "collect", f"job/{self.name}", "-n", SPACE, "-o", "all.db"]
        self._collecting = subprocess.Popen(
            command, cwd=folder, env={**os.environ, "KUBECONFIG": str(as_collector(cluster, folder))},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def pods(self) -> dict[str, str]:
        """Those that run, by index."""
        listed = self.cluster.kubectl("get", "pods", "-n", SPACE, "-l", f"job-name={self.name}", "-o", "json")
        running = [pod for pod in json.loads(listed)["items"] if pod["status"]["phase"] == "Running"]
        index = "batch.kubernetes.io/job-completion-index"
        return {pod["metadata"]["labels"][index]: pod["metadata"]["name"] for pod in running}

    def until(self, seconds: float) -> None:
        """So long after its first query."""
        assert eventually(lambda: len(self.pods()) == 2)
        time.sleep(max(0.0, self.start + seconds - time.time()))

    def end(self, seconds: int) -> tuple[int, str, str, Run]:
        out, err = self._collecting.communicate(timeout=seconds)
        assert "Traceback" not in err, err
        print(out, err)
        return self._collecting.returncode, out, err, open_run(self.folder / "all.db")


def processes(pod: str) -> list[int]:
    """Those of a prober, as the machine that all nodes are sees them, oldest first."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"DNSPROBE_POD={pod}\0".encode() in file.read_bytes():
                found.append(int(file.parent.name))
    return sorted(found)


def outcomes(*runs: Run) -> dict[str, int]:
    """Rows by outcome, of some runs together."""
    return {o.label: n for o in Outcome if (n := sum(int(r.counts.n[r.counts.outcome == o].sum()) for r in runs))}


def test_shards_in_a_cluster_add_up_and_their_pods_are_let_go(space: Kubernetes, image: str, tmp_path: Path) -> None:
    going = Going(space, image, tmp_path, 15)
    code, out, err, run = going.end(150)
    own = [open_run(path) for path in sorted((tmp_path / "all.db.parts").glob("*.db"))]
    assert code in (0, 1, 3), err
    assert outcomes(run) == outcomes(*own)
    assert sum(outcomes(run).values()) == 750
    assert [(v.shard, v.node, v.source) for v in run.vantages] == [
        (f"{k}/2", one.head.facts[NODE_FACT], "run file") for k, one in enumerate(own)
    ]
    assert len({v.node for v in run.vantages}) == 2
    assert "\nNODES\n" in out
    assert not going.pods()


def test_of_an_evicted_prober_nothing_but_its_last_second_is_missing(
    space: Kubernetes, image: str, tmp_path: Path
) -> None:
    going = Going(space, image, tmp_path, 60)
    going.until(20)
    victim = going.pods()["0"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": victim, "namespace": SPACE}}
    (tmp_path / "eviction.json").write_text(json.dumps(eviction))
    path = f"/api/v1/namespaces/{SPACE}/pods/{victim}/eviction"
    space.kubectl("create", "--raw", path, f"--filename={tmp_path / 'eviction.json'}")
    evicted_s = time.time() - going.start
    code, _, err, run = going.end(240)
    files = {path.stem: open_run(path) for path in (tmp_path / "all.db.parts").glob("*.db")}
    assert len(files) == 3, err
    first = files[victim]
    assert first.end_ns / NS == pytest.approx(evicted_s, abs=1), "its rows up to SIGTERM are there"
    assert first.in_flight.n.sum() == 0
    (channel,) = Timeline.of(run).channels
    late = next(v for v in run.vantages if v.shard == "0/2" and v.pod != victim)
    gap_s = (late.from_ns - first.end_ns) / NS
    assert channel.whole.planned == pytest.approx(3000, abs=5)
    assert channel.whole.in_flight == pytest.approx(25 * gap_s, abs=55), "what shard 0 missed until it was replaced"
    assert channel.whole.lost == sum(Timeline.of(one).channels[0].whole.lost for one in files.values())
    assert code == 3
    print(f"evicted at +{evicted_s:.1f} s; its file ends at +{first.end_ns / NS:.1f} s; replaced after {gap_s:.1f} s")


def test_of_a_prober_that_is_killed_outright_its_log_tells(space: Kubernetes, image: str, tmp_path: Path) -> None:
    going = Going(space, image, tmp_path, 40)
    going.until(25)
    victim = going.pods()["0"]
    for pid in processes(victim):
        with suppress(ProcessLookupError):
            os.kill(pid, SIGKILL)
    code, out, err, run = going.end(180)
    first = next(v for v in run.vantages if v.pod == victim)
    assert first.source == "log", err
    assert 10 * NS <= first.to_ns <= 26 * NS
    assert "from its log" in out
    assert code == 3
    (channel,) = Timeline.of(run).channels
    assert channel.whole.planned == pytest.approx(2000, abs=5)
    print(f"killed at +25 s; its log has totals up to +{first.to_ns / NS:.1f} s; {channel.whole}")
