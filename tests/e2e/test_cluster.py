"""The cluster itself: what the other tests here take for granted."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.e2e.components import DNS_SERVICE, Proxy
from tests.e2e.conftest import Kubectl
from tests.e2e.kubernetes import Kubernetes
from tests.e2e.machine import remains

SYSTEM = "--namespace=kube-system"


def asked(node: Kubernetes, folder: Path, words: str) -> dict[str, int]:
    """Ask the Service at 50 q/s; the outcomes."""
    command = f"-m probe.cli run -s {DNS_SERVICE} -Q 50 {words} --json {folder}/run.json -o {folder}/run.db"
    done = subprocess.run(node.machine.inside(sys.executable, *command.split()), capture_output=True, check=False)
    assert done.returncode in (0, 1, 3), done.stderr
    outcomes: dict[str, int] = {}
    for series in json.loads((folder / "run.json").read_text())["series"]:
        for outcome, count in series["outcomes"].items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    return {outcome: count for outcome, count in outcomes.items() if count}


def ready(kubectl: Kubectl) -> set[str]:
    """The addresses behind kube-dns that are ready."""
    slices = kubectl("get", "endpointslices", SYSTEM, "--selector=kubernetes.io/service-name=kube-dns", "-o", "json")
    return {
        address
        for each in json.loads(slices)["items"]
        for endpoint in each["endpoints"]
        if endpoint["conditions"]["ready"]
        for address in endpoint["addresses"]
    }


def test_the_pods_that_are_ready_are_those_behind_the_service(kubectl: Kubectl) -> None:
    pods = json.loads(kubectl("get", "pods", SYSTEM, "--selector=k8s-app=kube-dns", "-o", "json"))["items"]
    is_ready = {"type": "Ready", "status": "True"}.items()
    assert ready(kubectl) == {
        pod["status"]["podIP"]
        for pod in pods
        if any(is_ready <= condition.items() for condition in pod["status"]["conditions"])
    }
    assert ready(kubectl)


@pytest.mark.parametrize("mode", ["udp", "tcp"])
@pytest.mark.parametrize("name", ["kubernetes.default.svc.cluster.local", "example.com"])
@pytest.mark.parametrize("proxy", ["iptables", "nftables"])
def test_kube_proxy_brings_queries_to_pods(
    node: Kubernetes, tmp_path: Path, proxy: Proxy, name: str, mode: str
) -> None:
    node.use_proxy(proxy)
    assert asked(node, tmp_path, f"-n {name} -m {mode} -l 2") == {"answer": 100}


def test_only_the_rules_of_kube_proxy_s_mode_are_there(node: Kubernetes) -> None:
    tables = {}
    for proxy in ("nftables", "iptables"):
        node.use_proxy(proxy)
        rules = node.inside("nft", "list", "ruleset")
        tables[proxy] = {kind: kind in rules for kind in ("KUBE-SVC-", "table ip kube-proxy")}
    assert tables == {
        "nftables": {"KUBE-SVC-": False, "table ip kube-proxy": True},
        "iptables": {"KUBE-SVC-": True, "table ip kube-proxy": False},
    }


def test_a_rollout_replaces_every_pod(node: Kubernetes) -> None:
    before = ready(node.kubectl)
    node.kubectl("rollout", "restart", SYSTEM, "deployment/coredns")
    node.kubectl("rollout", "status", SYSTEM, "deployment/coredns", "--timeout=60s")
    assert len(ready(node.kubectl)) == 2
    assert not ready(node.kubectl) & before


def test_logs_and_commands_go_through_the_api_server_to_the_kubelet(node: Kubernetes) -> None:
    assert "CoreDNS-1.15.0" in node.kubectl("logs", SYSTEM, "deployment/coredns")
    assert "1.15.0" in node.kubectl("exec", SYSTEM, "deployment/coredns", "--", "/coredns", "-version")


def test_while_the_api_server_is_away_pods_answer(node: Kubernetes, tmp_path: Path) -> None:
    node.stop("kube-apiserver")
    with pytest.raises(subprocess.CalledProcessError):
        node.kubectl("get", "--raw", "/readyz")
    assert asked(node, tmp_path, "-l 2") == {"answer": 100}
    node.start("kube-apiserver")
    node.until("get", "--raw", "/readyz")


def test_no_packet_leaves(node: Kubernetes) -> None:
    links = json.loads(node.inside("ip", "-json", "-detail", "link", "show"))
    kinds = {link["ifname"]: link.get("linkinfo", {}).get("info_kind", "loopback") for link in links}
    assert set(kinds.values()) <= {"loopback", "bridge", "veth", "sit", "ip6tnl"}
    pods = [link["ifname"] for link in links if kinds[link["ifname"]] == "veth"]
    assert len(pods) == len(ready(node.kubectl))


@pytest.mark.usefixtures("node")
def test_of_a_node_whose_owner_is_killed_nothing_stays() -> None:
    program = (
        "import os, pathlib; from tests.e2e.machine import Machine; m = Machine.start(pathlib.Path(os.environ"
        "['DNSPROBE_E2E_PARTS'])); m.start_process('sleep', ['sleep', '600']); print(m.name, flush=True); input()"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout
    name = owner.stdout.readline().strip()
    assert len(remains(name)) > 2
    owner.send_signal(SIGKILL)
    owner.communicate()
    until = time.monotonic() + 20
    while remains(name) and time.monotonic() < until:
        time.sleep(0.1)
    assert not remains(name)
