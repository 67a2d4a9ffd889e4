"""The cluster itself: what the other tests here take for granted."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.e2e.components import DNS_SERVICE, Proxy
from tests.e2e.conftest import Kubectl
from tests.e2e.kubernetes import Kubernetes
from tests.e2e.machine import Machine, remains

SYSTEM = "--namespace=kube-system"


def asked(machine: Machine, folder: Path, words: str) -> dict[str, int]:
    """Ask the Service from a node, at 50 q/s; the outcomes."""
    report = folder / f"{machine.host}.json"
    command = f"-m probe.cli run -s {DNS_SERVICE} -Q 50 {words} --json {report} -o {report.with_suffix('.db')}"
    done = subprocess.run(machine.inside(sys.executable, *command.split()), capture_output=True, check=False)
    assert done.returncode in (0, 1, 3), done.stderr
    outcomes: dict[str, int] = {}
    for series in json.loads(report.read_text())["series"]:
        for outcome, count in series["outcomes"].items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    return {outcome: count for outcome, count in outcomes.items() if count}


def printed(machine: Machine, command: str) -> str:
    """What it prints in a node's network."""
    return subprocess.run(machine.inside(*command.split()), check=True, capture_output=True, text=True).stdout


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it holds within 30 s: controllers follow each other."""
    until = time.monotonic() + 30
    while not (held := holds()) and time.monotonic() < until:
        time.sleep(0.2)
    return held


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
    is_ready = {"type": "Ready", "status": "True"}.items()

    def pods() -> set[str]:
        found = json.loads(kubectl("get", "pods", SYSTEM, "--selector=k8s-app=kube-dns", "-o", "json"))["items"]
        told = [(pod["status"].get("podIP"), pod["status"].get("conditions", [])) for pod in found]
        return {address for address, conditions in told if any(is_ready <= one.items() for one in conditions)}

    assert eventually(lambda: ready(kubectl) == pods() != set())


@pytest.fixture(scope="module", params=["iptables", "nftables"])
def proxied(request: pytest.FixtureRequest, cluster: Kubernetes) -> Kubernetes:
    """The cluster with kube-proxy in each mode."""
    cluster.use_proxy(request.param)
    return cluster


@pytest.mark.parametrize("mode", ["udp", "tcp"])
@pytest.mark.parametrize("name", ["kubernetes.default.svc.cluster.local", "example.com"])
def test_kube_proxy_brings_queries_to_pods(proxied: Kubernetes, tmp_path: Path, name: str, mode: str) -> None:
    for machine in proxied.machines:
        assert asked(machine, tmp_path, f"-n {name} -m {mode} -l 2") == {"answer": 100}


def test_only_the_rules_of_kube_proxy_s_mode_are_there(cluster: Kubernetes) -> None:
    tables = {}
    modes: tuple[Proxy, ...] = ("nftables", "iptables")
    for proxy in modes:
        cluster.use_proxy(proxy)
        rules = printed(cluster.first, "nft list ruleset")
        tables[proxy] = {kind: kind in rules for kind in ("KUBE-SVC-", "table ip kube-proxy")}
    assert tables == {
        "nftables": {"KUBE-SVC-": False, "table ip kube-proxy": True},
        "iptables": {"KUBE-SVC-": True, "table ip kube-proxy": False},
    }


def flows(cluster: Kubernetes) -> str:
    """What the nodes' conntrack knows of queries to the Service by UDP, and of who answers them."""
    list_them = f"conntrack -L -p udp --orig-dst {DNS_SERVICE}"
    return "".join(printed(machine, list_them) for machine in cluster.machines)


def test_a_rollout_replaces_every_pod_and_leaves_no_flow_to_the_old(cluster: Kubernetes, tmp_path: Path) -> None:
    before = ready(cluster.kubectl)
    for machine in cluster.machines:
        assert asked(machine, tmp_path, "-l 1") == {"answer": 50}
    assert all(f"src={address} " in flows(cluster) for address in before)
    cluster.kubectl("rollout", "restart", SYSTEM, "deployment/coredns")
    cluster.kubectl("rollout", "status", SYSTEM, "deployment/coredns", "--timeout=60s")
    assert eventually(lambda: len(ready(cluster.kubectl)) == 2 and not ready(cluster.kubectl) & before)
    assert eventually(lambda: not any(f"src={address} " in flows(cluster) for address in before))


def test_logs_and_commands_go_through_the_api_server_to_the_kubelet(cluster: Kubernetes) -> None:
    assert "CoreDNS-1.15.0" in cluster.kubectl("logs", SYSTEM, "deployment/coredns")
    assert "1.15.0" in cluster.kubectl("exec", SYSTEM, "deployment/coredns", "--", "/coredns", "-version")


def test_while_the_api_server_is_away_pods_answer(cluster: Kubernetes, tmp_path: Path) -> None:
    cluster.stop("kube-apiserver", SIGKILL)
    try:
        with pytest.raises(subprocess.CalledProcessError):
            cluster.kubectl("get", "--raw", "/readyz")
        outcomes = asked(cluster.first, tmp_path, "-l 2")
    finally:
        cluster.start("kube-apiserver")
        cluster.until("get", "--raw", "/readyz")
    outcomes.pop("unsent", 0)  # a busy machine's
    assert outcomes.keys() == {"answer"}


def test_what_a_node_sends_to_this_machine_s_addresses_does_not_arrive(cluster: Kubernetes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("", 0))
        ear.settimeout(0.5)
        port = ear.getsockname()[1]
        links = json.loads(subprocess.run(["ip", "-json", "-4", "address"], check=True, capture_output=True).stdout)
        addresses = [each["local"] for link in links for each in link["addr_info"]]
        say = "import socket, sys; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', (sys.argv[1], int(sys.argv[2])))"
        for machine in cluster.machines:
            for address in addresses:
                subprocess.run(machine.inside(sys.executable, "-c", say, address, str(port)), check=True)
        with pytest.raises(TimeoutError):
            ear.recv(1)
        ear.sendto(b"", ("127.0.0.1", port))
        assert ear.recv(1) == b""


@pytest.mark.usefixtures("cluster")
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
    assert eventually(lambda: not remains(name))
