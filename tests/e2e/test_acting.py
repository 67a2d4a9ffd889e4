"""Acting on a real Kubernetes: every action done and undone, killed in the middle and mended, others' changes kept."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probe.runfile import open_run
from tests.e2e.kubernetes import Kubernetes

SYSTEM = "--namespace=kube-system"
NAME = "dnsprobe-e2e"
FIRST_CONTAINER = "template.spec.containers.0"


def spec_of(cluster: Kubernetes, thing: str) -> dict[str, object]:
    """What an object is meant to be, flat: `template.spec.containers.0.image`; without the traces of restarts."""
    said = json.loads(cluster.kubectl("get", SYSTEM, thing, "-o", "json"))
    flat: dict[str, object] = {}

    def walk(value: object, path: str) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
        if items is None:
            flat[path.removeprefix(".")] = value
        for key, each in items or ():
            walk(each, f"{path}.{key}")

    walk(said["spec"] if "spec" in said else said["data"], "")
    return {path: value for path, value in flat.items() if "restartedAt" not in path and "taints" not in path}


def state(cluster: Kubernetes) -> dict[str, dict[str, object]]:
    """Everything that actions change."""
    things = ("deployment/coredns", "configmap/coredns", "service/kube-dns", "node/node1", "node/node2")
    return {thing: spec_of(cluster, thing) for thing in things}


def records(cluster: Kubernetes) -> list[str]:
    """The records that stand."""
    return cluster.kubectl("get", "configmaps", SYSTEM, "-l", "dnsprobe/record=undo", "-o", "name").split()


def dnsprobe(cluster: Kubernetes, *words: str) -> list[str]:
    """The command, in a node's network."""
    command = ["env", f"KUBECONFIG={cluster.kubeconfig}", sys.executable, "-m", "probe.cli", *words]
    return cluster.first.inside(*command)


def undo(cluster: Kubernetes) -> subprocess.CompletedProcess[str]:
    """`dnsprobe undo`, permitted."""
    command = dnsprobe(cluster, "undo", "--yes", "--cluster", NAME)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def eventually(holds: Callable[[], bool], seconds: float = 150) -> bool:
    until = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < until:
        time.sleep(0.2)
    return held


@pytest.fixture(autouse=True)
def as_it_was(cluster: Kubernetes) -> Iterator[None]:
    """Two pods that are Ready and no record, before and after."""
    before = state(cluster)
    yield
    undo(cluster)  # what a test that failed has left
    cluster.kubectl("delete", "configmaps", SYSTEM, "-l", "dnsprobe/record=undo")
    cluster.kubectl("rollout", "status", SYSTEM, "deployment/coredns", "--timeout=90s")
    assert state(cluster) == before
    assert eventually(
        lambda: len(cluster.kubectl("get", "pods", SYSTEM, "-l", "k8s-app=kube-dns").splitlines()) == 1 + 2
    )


SCENARIO = """\
name: acting
duration: {duration}s
lanes:
  - name: vip-udp-fresh
    target: service
    rate: 20
    timeout: 1s
    questions: &names [kubernetes.default.svc.cluster.local]
  - name: pods
    target: pods
    rate: 5
    timeout: 1s
    questions: *names
objectives:
  - loss(vip-*) <= 1%
steps:
{steps}
"""


def scenario(folder: Path, duration: int, *steps: str) -> Path:
    """A file with these steps."""
    file = folder / "acting.yaml"
    file.write_text(SCENARIO.format(duration=duration, steps="".join(f"  - {step}\n" for step in steps)))
    return file


EVERY = [
    ("scale: 3", "deployment/coredns", "replicas", 3),
    ("strategy: max_unavailable 0, max_surge 1", "deployment/coredns", "strategy.rollingUpdate.maxUnavailable", 0),
    ("min_ready_seconds: 1s", "deployment/coredns", "minReadySeconds", 1),
    ("session_affinity: client_ip", "service/kube-dns", "sessionAffinity", "ClientIP"),
    ("grace_period: 40s", "deployment/coredns", "template.spec.terminationGracePeriodSeconds", 40),
    ("pre_stop: 2s", "deployment/coredns", f"{FIRST_CONTAINER}.lifecycle.preStop.sleep.seconds", 2),
    (
        "readiness: period 2s, failures 1",
        "deployment/coredns",
        f"{FIRST_CONTAINER}.readinessProbe.periodSeconds",
        2,
    ),
    ("set_image: 1.15.1", "deployment/coredns", f"{FIRST_CONTAINER}.image", "localhost/coredns:1.15.1"),
    ("patch_corefile: lameduck 6s", "configmap/coredns", "Corefile", "lameduck 6s"),
]


def test_each_action_is_done_and_undone_while_queries_go(cluster: Kubernetes, tmp_path: Path) -> None:
    """All but an image that is not there: a rollout that stalls is another test."""
    before = state(cluster)
    lasting = [step for step, *_ in EVERY if "set_image" not in step]
    passing = ["restart:", "delete_pod:", "kill_pod: newest", "evict_dns:"]
    steps = [part for step in (*lasting, *passing) for part in (step, "wait: 6s")]
    out, file = tmp_path / "run.db", scenario(tmp_path, 6 * len(steps) // 2 + 8, "wait: 1s", *steps)
    # Where all pods are on one node, evicting them from it is an outage, and is meant.
    command = dnsprobe(cluster, "run", str(file), "--yes", "--cluster", NAME, "--allow-outage", "-o", str(out))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode in (0, 1, 3), done.stdout + done.stderr
    run = open_run(out)
    taken = [mark.text for mark in run.marks if mark.kind == "step"]
    print(done.stdout)
    assert run.cut == ""
    undone = [text for text in taken if text.startswith("undo: ")]
    assert len(taken) - len(undone) == len(lasting) + len(passing)
    assert len(undone) == len(lasting)  # of each its own patch, whatever it holds
    assert "Corefile" in undone[0]  # the last first
    assert "/spec/replicas: 3 -> 2" in undone[-1]
    assert records(cluster) == []
    assert state(cluster) == before


ACT = """\
import asyncio, sys
from probe.cluster.kube import Kube
from probe.cluster.kube.acting import Permission

async def main(word, value):
    say = lambda text: print(text, flush=True)
    kube = Kube(permission=Permission(%r), tell=say)
    await kube.start()
    await kube.plan([(word, value)])
    await kube.act(word, value)
    say("acted")
    await asyncio.sleep(600)

asyncio.run(main(*sys.argv[1:]))
"""


def killed_after(cluster: Kubernetes, step: str) -> None:
    """A process that acts, killed as soon as it has said something: it has acted, or waits for pods."""
    word, _, value = step.partition(": ")
    environment = [f"KUBECONFIG={cluster.kubeconfig}", f"PYTHONPATH={Path.cwd()}"]
    command = cluster.first.inside("env", *environment, sys.executable, "-c", ACT % NAME, word, value)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    said = process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    _, err = process.communicate()
    assert said, err


@pytest.mark.parametrize(("step", "thing", "path", "ours"), EVERY, ids=[step for step, *_ in EVERY])
def test_killed_in_the_middle_a_run_leaves_a_record_that_undo_mends(
    cluster: Kubernetes, step: str, thing: str, path: str, ours: object
) -> None:
    before = state(cluster)
    killed_after(cluster, step)
    there = spec_of(cluster, thing)[path]
    assert there == ours or str(ours) in str(there)
    (record,) = records(cluster)
    listed = subprocess.run(dnsprobe(cluster, "undo"), capture_output=True, text=True, check=False)
    assert (listed.returncode, "would be taken back" in listed.stdout) == (4, True)
    assert f"dnsprobe undo --yes --cluster {NAME}" in listed.stderr
    cluster.kubectl("annotate", SYSTEM, thing, "someone=else", "--overwrite")
    done = undo(cluster)
    assert done.returncode == 0, done.stdout + done.stderr
    assert record.removeprefix("configmap/") in done.stdout
    assert state(cluster) == before
    assert records(cluster) == []
    theirs = json.loads(cluster.kubectl("get", SYSTEM, thing, "-o", "json"))["metadata"]["annotations"]
    assert theirs["someone"] == "else"
    cluster.kubectl("annotate", SYSTEM, thing, "someone-")


BUDGET = """\
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: never, namespace: kube-system}
spec: {maxUnavailable: 0, selector: {matchLabels: {k8s-app: kube-dns}}}
"""


def test_killed_while_it_evicts_the_node_is_cordoned_until_undo(cluster: Kubernetes, tmp_path: Path) -> None:
    """A budget that allows no eviction holds it in the middle."""
    (tmp_path / "budget.yaml").write_text(BUDGET)
    cluster.kubectl("apply", "--filename", str(tmp_path / "budget.yaml"))
    killed_after(cluster, "evict_dns: node2")
    assert spec_of(cluster, "node/node2")["unschedulable"] is True
    done = undo(cluster)
    assert (done.returncode, "Node node2: /spec/unschedulable: true -> nothing" in done.stdout) == (0, True)
    cluster.kubectl("delete", SYSTEM, "poddisruptionbudget/never")


def test_what_someone_else_has_set_meanwhile_is_kept_and_reported(cluster: Kubernetes) -> None:
    killed_after(cluster, "scale: 3")
    cluster.kubectl("scale", SYSTEM, "deployment/coredns", "--replicas=4")
    done = undo(cluster)
    assert done.returncode == 4
    assert "Deployment kube-system/coredns /spec/replicas: ours 3, theirs 4, before 2: left as it is" in done.stderr
    assert spec_of(cluster, "deployment/coredns")["replicas"] == 4
    assert len(records(cluster)) == 1
    cluster.kubectl("scale", SYSTEM, "deployment/coredns", "--replicas=2")
    assert undo(cluster).returncode == 0
    assert records(cluster) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_while_it_acts(cluster: Kubernetes, tmp_path: Path, number: signal.Signals) -> None:
    """By SIGKILL it leaves a record, and the next run is refused; else it has taken everything back itself."""
    file = scenario(tmp_path, 120, "wait: 1s", "scale: 3", "wait: 1s", "min_ready_seconds: 2s")
    command = dnsprobe(cluster, "run", str(file), "--yes", "--cluster", NAME)
    process = subprocess.Popen([*command, "-o", str(tmp_path / "run.db")], stderr=subprocess.PIPE, text=True)
    assert eventually(lambda: "minReadySeconds" in spec_of(cluster, "deployment/coredns"))
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    if number == signal.SIGKILL:
        assert len(records(cluster)) == 1
        again = subprocess.run([*command, "-o", str(tmp_path / "b.db")], capture_output=True, text=True, check=False)
        assert again.returncode == 4
        assert f"once it has ended: dnsprobe undo --yes --cluster {NAME}" in again.stderr
        assert undo(cluster).returncode == 0
    else:
        assert process.returncode == 130, said
    spec = spec_of(cluster, "deployment/coredns")
    assert (spec["replicas"], "minReadySeconds" in spec, records(cluster)) == (2, False, [])


def test_an_upgrade_to_an_image_that_is_not_there_is_taken_back(cluster: Kubernetes, tmp_path: Path) -> None:
    out = tmp_path / "run.db"
    words = ["--set", "duration=15s", "--set", "steps[1].set_image=1.15.1", "-o", str(out)]
    command = dnsprobe(cluster, "run", "upgrade-image", "--yes", "--cluster", NAME, *words)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode in (0, 1, 3), done.stdout + done.stderr  # flows to a pod that ends may cost a query
    steps = [mark.text for mark in open_run(out).marks if mark.kind == "step"]
    assert steps[0].startswith("set image CoreDNS localhost/coredns:1.15.1")
    assert '"localhost/coredns:1.15.1" -> "localhost/coredns:1.15.0"' in steps[1]


def test_a_node_is_drained_of_coredns_alone(cluster: Kubernetes, tmp_path: Path) -> None:
    out = tmp_path / "run.db"
    words = ["--set", "duration=15s", "--set", "steps[1].evict_dns=node2", "-o", str(out)]
    before = cluster.kubectl("get", "pods", SYSTEM, "--field-selector=spec.nodeName=node2", "-o", "name").split()
    command = dnsprobe(cluster, "run", "evict-node", "--yes", "--cluster", NAME, "--allow-outage", *words)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode in (0, 1, 3), done.stdout + done.stderr  # flows to a pod that ends may cost a query
    told = {mark.subject for mark in open_run(out).marks if mark.kind == "pod_deleted"}
    assert {f"pod/{name}" for name in told} == {name for name in before if "coredns" in name}
