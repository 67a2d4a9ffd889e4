"""Objects that checks fail on, in a real API server: each remedy, as it is printed, makes its check pass."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import kube_objects as k
from tests.e2e import keys
from tests.e2e.components import FIRST_SERVICE
from tests.e2e.kubernetes import Kubernetes, parts
from tests.e2e.machine import Machine, remains

ROOT = Path(__file__).parents[2]
CHANGES = re.compile(r"^kubectl .*\b(patch|create|apply|scale|annotate|set)\b", re.MULTILINE)
APIS = {
    "Deployment": "apps/v1",
    "DaemonSet": "apps/v1",
    "EndpointSlice": "discovery.k8s.io/v1",
    "ClusterRole": "rbac.authorization.k8s.io/v1",
    "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
}
MENDED = {"C12", "C13", "C16", "C17", "C27", "C28", "C36"}
"""Checks that go by what people set, and whose remedy is a command."""


@pytest.fixture(scope="module")
def server() -> Iterator[Kubernetes]:
    """etcd and an API server: nobody else, so that objects stay as they are put."""
    if "DNSPROBE_E2E_PARTS" not in os.environ or os.geteuid() != 0:
        pytest.skip("needs the parts of the cluster that is made here, and root: sudo make e2e")
    machine = Machine.start(parts())
    try:
        made = Kubernetes([machine])
        addresses = ("127.0.0.1", machine.address, FIRST_SERVICE)
        keys.make(machine.folder / "keys", addresses, machine.port, [machine.host])
        made.start("etcd", "kube-apiserver")
        made.until("get", "--raw", "/readyz")
        yield made
    finally:
        machine.close()
    assert not remains(machine.name)


def lossy() -> list[k.Json]:
    """A kubeadm cluster's DNS with what people do to it."""
    service = k.service(ports=[{"name": "dns", "port": 53, "protocol": "UDP"}], sessionAffinity="ClientIP")
    del service["spec"]["clusterIP"], service["spec"]["clusterIPs"]
    workload = k.deployment(2, spec={"dnsPolicy": "ClusterFirst", "serviceAccountName": "coredns"})
    workload["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}}
    web = k.thing("Service", "web", namespace="default", spec={"clusterIP": "None", "selector": {"app": "web"}})
    web["metadata"]["annotations"] = {"service.alpha.kubernetes.io/tolerate-unready-endpoints": "true"}
    role = k.thing("ClusterRole", "system:coredns", namespace="", rules=[])
    role["rules"] = [{"apiGroups": [""], "resources": ["services", "pods"], "verbs": ["list", "watch"]}]
    subject = {"kind": "ServiceAccount", "name": "coredns", "namespace": k.SYSTEM}
    named = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"}
    binding = k.thing("ClusterRoleBinding", "system:coredns", namespace="", roleRef=named, subjects=[subject])
    config = k.config_map("kube-proxy", **{"config.conf": "mode: iptables\n"})
    return [service, workload, k.config_map(), config, web, role, binding, k.thing("ServiceAccount", "coredns")]


def apply(server: Kubernetes, things: list[k.Json], folder: Path) -> None:
    for one in things:
        one["apiVersion"] = APIS.get(one["kind"], "v1")
        for name in [name for name in ("uid", "generation") if name in one["metadata"]] + ["status"]:
            (one["metadata"] if name != "status" else one).pop(name, None)
        if not one["metadata"]["namespace"]:
            del one["metadata"]["namespace"]
    file = folder / "objects.json"
    file.write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": things}))
    words = ("--server-side", "--force-conflicts", "--field-manager=kubeadm", "--filename", str(file))
    server.kubectl("apply", *words)


def audited(server: Kubernetes, *words: str, kubeconfig: Path | None = None) -> tuple[int, dict[str, Any]]:
    """The exit code and what JSON says."""
    command = [sys.executable, "-m", "probe.cli", "audit", "--format", "json", "--target-version", "1.13.1", *words]
    environment = os.environ | {"KUBECONFIG": str(kubeconfig or server.kubeconfig), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def bad(said: dict[str, Any]) -> dict[str, list[str]]:
    """Remedies of what fails or warns, by check."""
    found: dict[str, list[str]] = {}
    for one in said["findings"]:
        if one["severity"] in ("fail", "warn"):
            found.setdefault(one["id"], []).append(one["remedy"])
    return found


def test_every_remedy_that_is_a_command_makes_its_check_pass(server: Kubernetes, tmp_path: Path) -> None:
    apply(server, lossy(), tmp_path)
    before = tmp_path / "before.yaml"
    code, said = audited(server, "--save", str(before))
    assert code == 1
    found = bad(said)
    assert found.keys() >= MENDED
    environment = os.environ | {"KUBECONFIG": str(server.kubeconfig), "PATH": f"{parts()}:{os.environ['PATH']}"}
    tried = []
    for check, remedies in found.items():
        for remedy in dict.fromkeys(remedies):
            if CHANGES.search(remedy) and " edit " not in remedy and check in MENDED:
                done = subprocess.run(
                    ["bash", "-e", "-c", remedy],
                    capture_output=True,
                    text=True,
                    check=False,
                    env=environment,
                    timeout=60,
                )
                assert done.returncode == 0, f"{check}: {remedy}\n{done.stderr}"
                tried.append(check)
    assert set(tried) == MENDED
    _, again = audited(server)
    left = [one for one in again["findings"] if one["id"] in MENDED and one["severity"] in ("fail", "warn")]
    assert [f"{one['id']}: {one['text']}: {one['evidence']}" for one in left] == [], found
    _, since = audited(server, "--against", str(before))
    assert {one["text"].partition(":")[0] for one in since["changes"]} >= {"deployment/coredns", "service/kube-dns"}


def as_account(server: Kubernetes, name: str, namespace: str, file: Path) -> Path:
    """A kubeconfig that is that ServiceAccount."""
    config = json.loads(server.kubectl("config", "view", "--raw", "-o", "json"))
    token = server.kubectl("create", "token", name, f"--namespace={namespace}").strip()
    config["users"][0]["user"] = {"token": token}
    file.write_text(json.dumps(config))
    return file


def test_the_rights_that_ship_are_enough_and_no_more(server: Kubernetes, tmp_path: Path) -> None:
    apply(server, lossy(), tmp_path)
    for folder in ("base/namespace.yaml", "base/rights.yaml", "components/audit/rights.yaml"):
        server.kubectl("apply", "--filename", str(ROOT / "deploy" / folder))
    kubeconfig = as_account(server, "dnsprobe", "dnsprobe", tmp_path / "dnsprobe")
    _, said = audited(server, kubeconfig=kubeconfig)
    assert said["unread"].keys() == {"KubeadmControlPlane", "PodMetrics in kube-system"}
    allowed = server.kubectl(
        "auth", "can-i", "--list", "--as=system:serviceaccount:dnsprobe:dnsprobe", "-n=kube-system"
    )
    rules = [line for line in allowed.splitlines() if "selfsubject" not in line]
    assert not any(re.search("secrets|create|update|patch|delete", line) for line in rules), allowed


def test_who_may_read_nothing_is_told_so(server: Kubernetes, tmp_path: Path) -> None:
    server.kubectl("create", "serviceaccount", "nobody")
    kubeconfig = as_account(server, "nobody", "default", tmp_path / "nobody")
    code, said = audited(server, kubeconfig=kubeconfig)
    assert code == 4
    assert {one["severity"] for one in said["findings"]} == {"unknown"}
    assert any("no right to list them (403): add to its ClusterRole" in one["text"] for one in said["findings"])
