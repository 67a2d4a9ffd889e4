"""The lab in network namespaces, which need root: the kernel's NAT and conntrack while pods come and go."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from probe.cluster.keeper import NAMESPACES
from probe.cluster.leftovers import PREFIX
from probe.cluster.netns import check_permitted
from probe.errors import EnvironmentProblem
from tests.test_cli import start
from tests.test_runs import Report, from_second, lost, reported, second_of, windows

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nft", "conntrack"))),
    reason="needs root, iproute2, nftables and conntrack: sudo make servers, then sudo make test",
)

SCENARIO = """\
name: netns
duration: {duration}
lab:
  backend: netns
  coredns: stand-in
  replicas: {replicas}
  lameduck: {lameduck}
  propagation: 1500ms
  readiness_period: 1s
  readiness_failures: 1
  teardown: 300ms
  kubernetes: "{kubernetes}"
lanes:
{lanes}steps:
  - wait: 2s
  - scale: {to}
"""
LANES = {
    "fresh": "udp, ports: fresh, rate: 100",
    "pool": "udp, ports: 'pool:64', rate: 100",
    "fixed": "udp, ports: fixed, rate: 50",
    "tcp": "tcp, ports: fresh, rate: 50",
}


def written(
    folder: Path,
    name: str,
    *,
    lameduck: str = "0s",
    to: int = 2,
    lanes: tuple[str, ...] = tuple(LANES),
    replicas: int = 3,
    kubernetes: str = "1.33",
    duration: str = "6s",
) -> str:
    """The command that runs it."""
    lines = "".join(
        f"  - {{name: {lane}, target: service, timeout: 500ms, questions: [kubernetes.default.svc.cluster.local], "
        f"transport: {LANES[lane.rstrip('0123456789')]}}}\n"
        for lane in lanes
    )
    text = SCENARIO.format(
        duration=duration, replicas=replicas, lameduck=lameduck, kubernetes=kubernetes, lanes=lines, to=to
    )
    (folder / f"{name}.yaml").write_text(text)
    return f"{name}.yaml --lab"


def outcomes(report: Report, lane: str) -> dict[str, int]:
    """How many rows of a lane had each outcome but those that are good here."""
    mine = [s["outcomes"] for s in report["series"] if s["lane"] == lane]
    return {o: n for o in mine[0] if (n := sum(each[o] for each in mine)) and o not in ("answer", "nodata")}


# -- the lab


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    folder = tmp_path_factory.mktemp("netns")
    return reported(
        folder,
        none=written(folder, "none"),
        duck=written(folder, "duck", lameduck="4s", duration="8s"),
    )


@needs_namespaces
def test_without_lameduck_a_third_of_new_flows_is_lost_until_the_node_knows(stories: dict[str, Report]) -> None:
    report = stories["none"]
    assert report["environment"]["cluster"].startswith("lab (netns")
    (window,) = windows(report, "fresh")
    assert lost(report, "fresh") == pytest.approx(1.5 * 100 / 3, abs=20)
    assert window["seconds"] == pytest.approx(1.5, abs=0.25)
    assert from_second(report, window) == pytest.approx(second_of(report, "sigterm"), abs=0.2)
    assert outcomes(report, "tcp").keys() <= {"connection_refused", "timeout", "connection_lost", "unsent"}
    assert 0 < lost(report, "tcp") < 50


@needs_namespaces
def test_a_lameduck_that_outlasts_propagation_and_readiness_loses_nothing(stories: dict[str, Report]) -> None:
    report = stories["duck"]
    assert {lane: lost(report, lane) for lane in LANES} == dict.fromkeys(LANES, 0)


@needs_namespaces
def test_a_rolling_restart_that_is_faster_than_the_nodes_costs_every_query_or_with_lameduck_none(
    tmp_path: Path,
) -> None:
    step = "'steps=[{wait: 2s}, restart: ]'"
    runs = {
        name: f"{written(tmp_path, name, lameduck=lameduck, lanes=('fresh', 'tcp'), duration='12s')} --set {step}"
        for name, lameduck in (("none", "0s"), ("duck", "4s"))
    }
    found = reported(tmp_path, **runs)
    marks = found["none"]["marks"]
    first, _, last = (m["seconds"] for m in marks if m["kind"] == "sigterm")
    new = next(m["subject"] for m in marks if m["kind"] == "pod_ready")
    known = next(m["seconds"] for m in marks if m["kind"] == "endpoints_programmed" and new in m["text"])
    assert 0.9 * 100 * (known - last) < lost(found["none"], "fresh") < 100 * (known - first), "all, once all are gone"
    assert known - last > 1, "before the node knows of a new one"
    assert [lost(found["duck"], lane) for lane in ("fresh", "tcp")] == [0, 0]
    for report in found.values():
        assert len([m for m in report["marks"] if m["kind"] == "pod_deleted"]) == 3
        assert second_of(report, "rollout_done") < 10


@needs_namespaces
def test_a_service_without_endpoints_refuses_all_lanes_in_one_window(tmp_path: Path) -> None:
    """Eight lanes share the kernel's six ICMP errors and one a second; most of their queries hear nothing."""
    lanes = tuple(f"fresh{i}" for i in range(8))
    report = reported(tmp_path, zero=written(tmp_path, "zero", to=0, lanes=lanes, replicas=1))["zero"]
    for lane in lanes:
        window = windows(report, lane)[-1]
        assert window["class"] == "connection_refused", lane
        assert window["still_open"]
    refused = sum(outcomes(report, lane).get("connection_refused", 0) for lane in lanes)
    silent = sum(outcomes(report, lane).get("timeout", 0) for lane in lanes)
    assert refused < 40 < silent


@needs_namespaces
@pytest.mark.parametrize(
    ("kubernetes", "stays"), [("1.25", False), ("1.28", True), ("1.31", False), ("1.33", True), ("1.37", False)]
)
def test_a_fixed_port_is_dead_as_long_as_conntrack_keeps_its_flow(kubernetes: str, stays: bool, tmp_path: Path) -> None:
    """The only pod goes. New ports are refused; a port with a flow hears nothing more, unless kube-proxy deletes it.

    1.28 deletes it too soon: the pod still serves, and the port gets another one (kubernetes/kubernetes#119249).
    """
    lanes = ("fresh", "fixed")
    command = written(
        tmp_path, "era", to=0, replicas=1, lameduck="1s", lanes=lanes, kubernetes=kubernetes, duration="8s"
    )
    process, lab = running(f"run {command} --set lab.teardown=0s --json era.json -o era.db", tmp_path)
    wait_for(lambda: len(namespaces(lab)) == 3)
    wait_for(lambda: namespaces(lab) == [f"{lab}-node-1", f"{lab}-prober-1"])
    time.sleep(2.5)  # the propagation, and what is asked meanwhile
    words = ["ip", "netns", "exec", f"{lab}-node-1", "conntrack", "-L", "-p", "udp", "--orig-dst", "10.96.0.10"]
    flows = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    process.communicate(timeout=30)
    report = json.loads((tmp_path / "era.json").read_text())
    assert any("src=10.244.0." in flow for flow in flows) is stays, flows
    told = [m["text"] for m in report["marks"] if m["kind"] in ("flows_stale", "flows_deleted")]
    if kubernetes == "1.33":
        assert "[ASSURED]" in told[-1], "what conntrack prints is on the timeline"
    elif kubernetes in ("1.31", "1.37"):
        assert told[-1].startswith("none leads to 10.244.0.")
    assert outcomes(report, "fresh").get("connection_refused", 0) > 0
    assert lost(report, "fixed") == pytest.approx(250, abs=30), "from 3 s to 8 s at 50/s, refused or silent"


@needs_namespaces
def test_the_prober_has_no_way_out(tmp_path: Path) -> None:
    process, lab = running(f"run {written(tmp_path, 'out', duration='4s')} -o out.db", tmp_path)
    try:
        wait_for(lambda: len(namespaces(lab)) == 5)
        routes = ip(f"{lab}-prober-1", "route", "show").splitlines()
        assert [route.split()[0] for route in routes] == ["10.96.0.10", "10.243.0.0/24", "10.244.0.0/24"]
        links = {line.split(": ")[1].split("@")[0] for line in ip(f"{lab}-node-1", "-o", "link").splitlines()}
        assert links <= {"lo", "pods", "prober", "pod1", "pod2", "pod3"}
        assert "default" not in ip(f"{lab}-node-1", "route", "show")
    finally:
        process.communicate(timeout=30)
    assert namespaces(lab) == []


@needs_namespaces
def test_nothing_is_left_of_a_run_that_was_killed(tmp_path: Path) -> None:
    process, lab = running(f"run {written(tmp_path, 'killed', duration='30s')} -o killed.db", tmp_path)
    wait_for(lambda: len(namespaces(lab)) == 5)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    wait_for(lambda: namespaces(lab) == [])
    wait_for(lambda: lab not in [path.name for path in Path(tempfile.gettempdir()).iterdir()])


@needs_namespaces
def test_lab_down_removes_what_has_no_keeper(tmp_path: Path) -> None:
    name = f"{PREFIX}abandoned-node"
    subprocess.run(["ip", "netns", "add", name], check=True)
    process = start("lab down", tmp_path)
    out, err = process.communicate(timeout=20)
    assert f"removed {PREFIX}abandoned" in out.splitlines()
    assert err == ""
    assert not (NAMESPACES / name).exists()
    assert "abandoned" not in start("lab down", tmp_path).communicate(timeout=20)[0]


def test_without_root_the_loopback_backend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EnvironmentProblem, match=r"need root: run it with sudo, or say lab\.backend: loopback"):
        check_permitted()


def running(words: str, folder: Path) -> tuple[subprocess.Popen[str], str]:
    """A command that makes a lab, and the lab's name."""
    before = set(namespaces())
    process = start(words, folder)
    wait_for(lambda: any(name.endswith("-prober-1") for name in {*namespaces()} - before))
    prober = next(name for name in {*namespaces()} - before if name.endswith("-prober-1"))
    return process, prober.removesuffix("-prober-1")


def namespaces(lab: str = PREFIX) -> list[str]:
    return sorted(path.name for path in NAMESPACES.glob(f"{lab}*"))


def wait_for(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ip(namespace: str, *words: str) -> str:
    return subprocess.run(["ip", "-n", namespace, *words], check=True, capture_output=True, text=True).stdout
