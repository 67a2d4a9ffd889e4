"""deploy/ in a real Kubernetes: it is accepted, has the rights it needs, runs as nobody, and Jobs tell verdicts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from probe.scenario.kustomize import build, deploy_folder
from tests.e2e.kubernetes import Kubernetes
from tests.e2e.test_cluster import eventually

NAMESPACE = "--namespace=dnsprobe"
OVERLAYS = sorted(path.name for path in (deploy_folder() / "overlays").iterdir())


def printed(words: str, image: str) -> str:
    """What `dnsprobe manifests` prints."""
    command = [sys.executable, "-m", "probe.cli", "manifests", *words.split(), "--image", image]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


SCENARIO = """\
name: calm
duration: {duration}
lanes:
  - name: vip-udp
    target: service
    rate: 20
    questions: [{{name: kubernetes.default.svc.cluster.local, type: A, expect: {expect}}}]
  - {{name: pods, target: pods, rate: 2, questions: [kubernetes.default.svc.cluster.local]}}
objectives: [loss(vip-udp) <= 50%]
"""
"""What a machine that is busy with a whole cluster meets, too."""


def calm(folder: Path, image: str, duration: str, *, expect: str = "answer", more: str = "") -> str:
    """The manifests of a run whose objective says nothing of a slow machine."""
    (folder / "calm.yaml").write_text(SCENARIO.format(duration=duration, expect=expect))
    return printed(f"{folder}/calm.yaml --linger 1s {more}", image)


def applied(cluster: Kubernetes, text: str, folder: Path, *words: str) -> str:
    (folder / "it.yaml").write_text(text)
    return cluster.kubectl("apply", f"--filename={folder / 'it.yaml'}", *words)


@pytest.fixture
def clean(cluster: Kubernetes) -> Iterator[Kubernetes]:
    """The cluster, of which everything is taken away that has our label."""
    yield cluster
    cluster.kubectl("delete", "namespace", "dnsprobe", "--ignore-not-found", "--wait")
    for kinds, where in (("clusterrole,clusterrolebinding,priorityclass", []), ("role,rolebinding", ["-A"])):
        cluster.kubectl("delete", kinds, "--selector=app.kubernetes.io/name=dnsprobe", *where, "--ignore-not-found")


def get(cluster: Kubernetes, what: str, *words: str) -> Any:
    return json.loads(cluster.kubectl("get", what, NAMESPACE, "--output=json", *words))


def endings(cluster: Kubernetes, job: str) -> dict[str, tuple[str, int, str]]:
    """By pod: its node, its exit code and its last words."""
    pods = get(cluster, "pods", f"--selector=batch.kubernetes.io/job-name={job}")["items"]
    found = {}
    for pod in pods:
        for one in pod["status"].get("containerStatuses", []):
            if end := one["state"].get("terminated"):
                found[pod["metadata"]["name"]] = (pod["spec"]["nodeName"], end["exitCode"], end.get("message", ""))
    return found


def over(cluster: Kubernetes, job: str) -> Any:
    """The Job's status, once it is Complete or Failed, and which of both it is."""
    until = time.monotonic() + 180
    while time.monotonic() < until:
        status = get(cluster, f"job/{job}")["status"]
        for condition in status.get("conditions", []):
            if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
                return status | {"is": condition["type"]}
        time.sleep(0.5)
    raise AssertionError(cluster.kubectl("describe", "pods", NAMESPACE))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubectl_builds_what_the_program_builds(cluster: Kubernetes, overlay: str) -> None:
    folder = deploy_folder() / "overlays" / overlay
    theirs = list(yaml.safe_load_all(cluster.kubectl("kustomize", str(folder))))

    def key(one: Any) -> str:
        return f"{one['kind']} {one['metadata'].get('namespace')} {one['metadata']['name']}"

    assert sorted(build(folder), key=key) == sorted(theirs, key=key)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_accepts_every_overlay(clean: Kubernetes, tmp_path: Path, overlay: str) -> None:
    """PodSecurity warns about workloads, and refuses pods: a pod of the same template has to be accepted, too."""
    objects = build(deploy_folder() / "overlays" / overlay)
    first = [each for each in objects if each["kind"] in ("Namespace", "ServiceAccount", "PriorityClass")]
    applied(clean, yaml.safe_dump_all(first), tmp_path)
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(objects))
    words = [
        "apply",
        f"--filename={tmp_path / 'all.yaml'}",
        "--dry-run=server",
        "--validate=strict",
        "--warnings-as-errors",
    ]
    assert "dry run" in clean.kubectl(*words)
    specs = [each["spec"] for each in objects if "emplate" in str(each.get("spec", "")).partition("containers")[0]]
    (spec,) = [one["jobTemplate"]["spec"] if "jobTemplate" in one else one for one in specs]
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": spec["template"]["spec"]}
    pod["metadata"] = spec["template"]["metadata"] | {"name": "one", "namespace": "dnsprobe"}
    assert "dry run" in applied(clean, yaml.safe_dump(pod), tmp_path, "--dry-run=server")


def test_a_job_of_two_ends_complete_with_its_verdicts(clean: Kubernetes, image: str, tmp_path: Path) -> None:
    applied(clean, calm(tmp_path, image, "15s"), tmp_path)
    status, found = over(clean, "calm"), endings(clean, "calm")
    assert sorted(node for node, _, _ in found.values()) == ["node1", "node2"]
    assert all(code == 0 and text.startswith("PASS: ") for _, code, text in found.values()), found
    assert (status["is"], status["succeeded"], status["completedIndexes"]) == ("Complete", 2, "0,1")
    log = clean.kubectl("logs", NAMESPACE, next(iter(found)))
    assert "no right to" not in log
    (verdict,) = [one for one in map(json.loads, filter(_is_json, log.splitlines())) if one["type"] == "verdict"]
    assert verdict["verdict"] == "PASS"


def _is_json(line: str) -> bool:
    return line.startswith("{")


def test_one_that_fails_lets_the_other_report(clean: Kubernetes, image: str, tmp_path: Path) -> None:
    applied(clean, calm(tmp_path, image, "10s", expect="nxdomain"), tmp_path)
    status, found = over(clean, "calm"), endings(clean, "calm")
    assert [code for _, code, _ in found.values()] == [1, 1]
    assert all(text.startswith("FAIL: ") for _, _, text in found.values()), found
    assert (status["is"], status["failedIndexes"]) == ("Failed", "0,1")
    assert "FailedIndexes" in {condition["reason"] for condition in status["conditions"]}


def test_one_that_is_evicted_reports_and_is_replaced(clean: Kubernetes, image: str, tmp_path: Path) -> None:
    applied(clean, calm(tmp_path, image, "60s"), tmp_path)
    running = "--for=jsonpath={.status.phase}=Running"
    clean.until("wait", NAMESPACE, "pod", "--selector=app.kubernetes.io/name=dnsprobe", running, "--timeout=10s")
    time.sleep(8)
    victim = min(pod["metadata"]["name"] for pod in get(clean, "pods")["items"])
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": victim, "namespace": "dnsprobe"}}
    (tmp_path / "eviction.json").write_text(json.dumps(eviction))
    path = f"/api/v1/namespaces/dnsprobe/pods/{victim}/eviction"
    clean.kubectl("create", "--raw", path, f"--filename={tmp_path / 'eviction.json'}")
    status, found = over(clean, "calm"), endings(clean, "calm")
    assert (status["is"], status["completedIndexes"]) == ("Complete", "0,1")
    assert not status.get("failedIndexes")
    made = [event for event in get(clean, "events")["items"] if event["reason"] == "SuccessfulCreate"]
    assert len(made) == 3, "the two, and the one in the victim's place"
    assert {code for pod, (_, code, _) in found.items() if pod != victim} == {0}


def test_a_daemon_set_asks_from_every_node_and_reads_little(clean: Kubernetes, image: str, tmp_path: Path) -> None:
    applied(clean, printed("every-node --kind daemonset --per-node 1", image), tmp_path)
    clean.until("rollout", "status", NAMESPACE, "daemonset/every-node", "--timeout=10s")
    pods = get(clean, "pods")["items"]
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == ["node1", "node2"]
    for pod in pods:
        name = pod["metadata"]["name"]
        assert eventually(lambda name=name: '"type": "begin"' in clean.kubectl("logs", NAMESPACE, name))  # type: ignore[misc]
        lines = [json.loads(line) for line in clean.kubectl("logs", NAMESPACE, name).splitlines() if _is_json(line)]
        series = [line for line in lines if line["type"] == "series"]
        assert len({one["target"] for one in series if one["target_kind"] == "pod"}) == 1
        (begin,) = [line for line in lines if line["type"] == "begin"]
        assert "all but the Service and its EndpointSlices" in begin["facts"]["not seen"]


def test_the_rights_to_look_are_no_more(clean: Kubernetes, image: str, tmp_path: Path) -> None:
    applied(clean, printed("baseline --kind cronjob", image), tmp_path)

    def may(verb: str, what: str, namespace: str, account: str = "dnsprobe") -> bool:
        who = f"--as=system:serviceaccount:dnsprobe:{account}"
        try:
            return clean.kubectl("auth", "can-i", verb, what, f"--namespace={namespace}", who).strip() == "yes"
        except subprocess.CalledProcessError:
            return False

    assert may("watch", "pods", "kube-system")
    assert may("list", "configmaps/coredns", "kube-system")
    assert may("create", "configmaps", "dnsprobe")
    for verb, what, namespace in (
        ("list", "configmaps", "kube-system"),
        ("list", "secrets", "kube-system"),
        ("list", "pods", "default"),
        ("patch", "deployments.apps", "kube-system"),
        ("delete", "pods", "kube-system"),
        ("patch", "nodes", "default"),
        ("patch", "deployments.apps", "kube-system"),
    ):
        assert not may(verb, what, namespace), (verb, what, namespace)


def test_the_image_runs_as_any_user(clean: Kubernetes, image: str, tmp_path: Path) -> None:
    objects = list(yaml.safe_load_all(calm(tmp_path, image, "5s")))
    (job,) = [each for each in objects if each["kind"] == "Job"]
    job["spec"]["template"]["spec"]["securityContext"] |= {"runAsUser": 4711, "runAsGroup": 4712}
    applied(clean, yaml.safe_dump_all(objects), tmp_path)
    assert over(clean, "calm")["is"] == "Complete"
