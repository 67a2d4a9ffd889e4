"""What a check says to do, done by kubectl on a real API server -> the check has nothing to say any more."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probe.audit import audit
from probe.audit.check import Planned
from probe.corefile import parse_corefile
from probe.model import Finding
from tests.clusters import Cluster
from tests.e2e import keys
from tests.kube_objects import Json
from tests.test_checks import FIGURES, FIRING, fine

ADDRESS = "127.94.0.1"
VERSIONS = {
    "Deployment": "apps/v1", "DaemonSet": "apps/v1", "StatefulSet": "apps/v1", "Service": "v1", "ConfigMap": "v1",
    "PodDisruptionBudget": "policy/v1", "NetworkPolicy": "networking.k8s.io/v1",
    "ClusterRole": "rbac.authorization.k8s.io/v1", "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
}  # fmt: skip
"""What remedies change; of everything else the cluster's words stay."""
SPACES = ("shop", "fleet")
LOOKS = re.compile(r"\b(get|describe|logs|top|exec|edit|apply)\b")
NOT_DONE = frozenset(
    [
        "C01",
        "C10",
        "C11",
        "C18",
        "C19",
        "C20",
        "C21",
        "C22",
        "C23",
        "C24",
        "C25",
        "C34",
        "C35",
        "C38",
        "C39",
        "C42",
        "C43",
        "C44",
        "C45",
        "C46",
        "C47",
        "C49",
        "C51",
    ]
)
"""Checks whose remedy is an upgrade, a setting of nodes, new pods, or a decision: no object of the API alone."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((ADDRESS, 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """A shell's line with kubectl in it -> what it prints, at an API server of its own without nodes or controllers."""
    if "DNSPROBE_E2E_PARTS" not in os.environ:
        pytest.skip("needs a built kube-apiserver: sudo make e2e")
    parts = Path(os.environ["DNSPROBE_E2E_PARTS"])
    folder = tmp_path_factory.mktemp("api")
    store, peers, port = f"http://{ADDRESS}:{free_port()}", f"http://{ADDRESS}:{free_port()}", free_port()
    keys.make(folder / "keys", (ADDRESS, ADDRESS), port, ())
    key = folder / "keys"
    commands = [
        [
            str(parts / "debian/usr/bin/etcd"), f"--data-dir={folder}/etcd", f"--listen-client-urls={store}",
            f"--advertise-client-urls={store}", f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=default={peers}",
        ],
        [
            str(parts / "kube-apiserver"), f"--etcd-servers={store}", f"--secure-port={port}",
            f"--bind-address={ADDRESS}", f"--advertise-address={ADDRESS}", "--service-cluster-ip-range=10.96.0.0/12",
            "--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount", f"--client-ca-file={key}/ca.crt",
            f"--tls-cert-file={key}/apiserver.crt", f"--tls-private-key-file={key}/apiserver.key",
            f"--service-account-key-file={key}/service-account.crt", "--service-account-issuer=https://kubernetes",
            f"--service-account-signing-key-file={key}/service-account.key", "--endpoint-reconciler-type=none",
        ],
    ]  # fmt: skip
    path = {**os.environ, "PATH": f"{parts}:{os.environ['PATH']}", "KUBECONFIG": str(key / f"{keys.ADMIN}.kubeconfig")}

    def run(line: str) -> str:
        done = subprocess.run(["bash", "-c", line], env=path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        return done.stdout

    with (folder / "log").open("w") as log:
        processes = [subprocess.Popen(words, stdout=log, stderr=log) for words in commands]
        try:
            ends = time.monotonic() + 90
            asks = ["kubectl", "get", "--raw", "/readyz"]
            while subprocess.run(asks, env=path, capture_output=True, check=False).returncode:
                assert time.monotonic() < ends, (folder / "log").read_text()[-2000:]
                time.sleep(0.5)
            for space in SPACES:
                run(f"kubectl create namespace {space}")
            yield run
        finally:
            for process in reversed(processes):
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def put(cluster: Cluster, kubectl: Callable[[str], str]) -> None:
    """What remedies change, as the cluster's words have it."""
    listed = [
        {"apiVersion": VERSIONS[one["kind"]], **one, "metadata": _plain(one["metadata"])}
        for one in cluster.things.values()
        if one["kind"] in VERSIONS
    ]
    listed = [_whole(one) for one in listed]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": listed})
    kubectl(f"kubectl create -f - <<'EOF'\n{text}\nEOF")


def _plain(meta: Json) -> Json:
    return {key: meta[key] for key in ("name", "namespace", "labels", "annotations") if meta.get(key)}


def _whole(one: Json) -> Json:
    """With what the API server demands and no check looks at."""
    if one["kind"] == "Service":
        spec = one["spec"] = dict(one["spec"])
        if not spec.get("ports"):
            spec["ports"] = [{"port": 80}]
        spec["ports"] = [{"name": f"port-{n}", **port} for n, port in enumerate(spec["ports"])]
    if one["kind"] == "StatefulSet":
        labels = {"app": one["metadata"]["name"]}
        pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "db", "image": "db"}]}}
        one["spec"] = {"selector": {"matchLabels": labels}, "template": pod, **one["spec"]}
    return {key: value for key, value in one.items() if key != "status"}


def taken(cluster: Cluster, kubectl: Callable[[str], str]) -> Cluster:
    """The cluster as the API server has it now; statuses, pods and nodes as the words have them."""
    kinds = ",".join(VERSIONS)
    now = json.loads(kubectl(f"kubectl get {kinds} -A -o json"))["items"]
    for key in [key for key, one in cluster.things.items() if one["kind"] in VERSIONS]:
        if not any(_same(one, cluster.things[key]) for one in now):
            del cluster.things[key]
    for one in now:
        name = one["metadata"]["name"]
        if one["metadata"].get("namespace") == "default" or (one["kind"].startswith("ClusterRole") and _own(name)):
            continue
        if name == "kube-root-ca.crt" or one["metadata"].get("namespace") in ("kube-public", "kube-node-lease"):
            continue
        one["metadata"].pop("managedFields", None)
        space = one["metadata"].get("namespace", "")
        place = f"{space}/" if space not in ("", "kube-system") else ""
        before = cluster.things.get(f"{one['kind']}/{place}{name}", {})
        cluster.add({**one, "status": before.get("status", {})})
    return cluster


def _same(one: Json, other: Json) -> bool:
    places = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in (one, other)]
    return places[0] == places[1]


def _own(name: str) -> bool:
    """Kubernetes' own roles, but for CoreDNS's, which is none of them."""
    return name != "system:coredns"


def wipe(kubectl: Callable[[str], str]) -> None:
    for space in ("kube-system", *SPACES):
        kinds = ",".join(kind for kind in VERSIONS if not kind.startswith("ClusterRole"))
        kubectl(f"kubectl -n {space} delete {kinds} --all --cascade=background --grace-period=0")
    kubectl("kubectl delete clusterrole,clusterrolebinding system:coredns --ignore-not-found")


def lines_of(remedy: str) -> list[str]:
    """What a shell would do of it: lines that change an object, their comments taken off."""
    found = [line for line in remedy.splitlines() if line.startswith("kubectl")]
    return [line for line in found if not LOOKS.search(line.split(" --patch")[0].split("   #")[0])]


def edits_of(remedy: str) -> list[str]:
    """What a person is told to have in the Corefile."""
    match = re.search(r"edit configmap coredns   # in the Corefile:\n((?:    .*\n?)+)", remedy)
    return [match[1]] if match else []


def edited(text: str, lines: str) -> str:
    """The Corefile with them in its first server block, in place of the plugin of that name if there is one."""
    body = "\n".join(line.removeprefix("    ") for line in lines.splitlines())
    block = parse_corefile(text).blocks[0]
    if there := block.last(body.split()[0]):
        kept = text.splitlines()
        return "\n".join([*kept[: there.line - 1], body, *kept[there.last_line :], ""])
    head, _, rest = text.partition("{\n")
    return f"{head}{{\n{body}\n{rest}"


def follow(remedy: str, kubectl: Callable[[str], str]) -> int:
    """Do all of it; how many changes that were."""
    for lines in edits_of(remedy):
        config = json.loads(kubectl("kubectl -n kube-system get configmap coredns -o json"))
        patch = json.dumps({"data": {"Corefile": edited(config["data"]["Corefile"], lines)}})
        kubectl(f"kubectl -n kube-system patch configmap coredns --type merge --patch '{patch}'")
    for line in lines_of(remedy):
        kubectl(line)
    return len(edits_of(remedy)) + len(lines_of(remedy))


PAST = "ran out of memory"
"""What pods' statuses tell until there are new pods."""
CASES = [row for row in FIRING if row[1] in ("fail", "warn") and row[0] not in NOT_DONE and PAST not in row[2]]


@pytest.mark.parametrize(("check", "severity", "text", "change", "planned"), CASES)
def test_what_a_check_says_to_do_makes_it_silent(
    check: str,
    severity: str,
    text: str,
    change: Callable[[Cluster], object],
    planned: dict[str, object],
    kubectl: Callable[[str], str],
) -> None:
    cluster = fine()
    change(cluster)
    plan = Planned(**{"figures": FIGURES, **planned})  # type: ignore[arg-type]

    def found() -> list[Finding]:
        return [
            one
            for one in audit(cluster.snapshot(), plan, only=[check])
            if one.severity == severity and text in one.text
        ]

    wipe(kubectl)
    put(cluster, kubectl)
    taken(cluster, kubectl)
    before = found()
    assert before, "the API server has kept what is wrong"
    changes = sum(follow(one.remedy, kubectl) for one in before)
    if not changes:
        pytest.skip("what to do is a person's to decide")
    taken(cluster, kubectl)
    assert found() == []
