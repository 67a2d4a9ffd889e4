"""Whole runs by the command line: outages made to measure in, the JSON report that has to say so out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probe.model import NS
from tests.conftest import Start
from tests.servers import REPLIES, Rule, closed_port
from tests.test_cli import start

Report = dict[str, Any]


def reported(folder: Path, **commands: str) -> dict[str, Report]:
    """The JSON report of each command; they run side by side."""
    names = {
        name: start(f"run {command} --json {name}.json -o {name}.db", folder) for name, command in commands.items()
    }
    for name, process in names.items():
        _, err = process.communicate(timeout=60)
        assert "Traceback" not in err, err
        assert process.returncode in (0, 1, 3), f"{name}: {err}"
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in names}


def lost(report: Report, lane: str) -> int:
    """Rows of a lane that were not good, but for those this prober never sent."""
    mine = [s for s in report["series"] if s["lane"] == lane]
    return sum(s["planned"] - s["good"] - s["outcomes"]["unsent"] for s in mine)


def windows(report: Report, lane: str) -> list[Report]:
    return [w for w in report["windows"] if w["lane"] == lane]


# --- Ad hoc ---


def test_three_seconds_of_silence_at_a_thousand_a_second(scripted: Start, tmp_path: Path) -> None:
    """3,000 lost, one window of 3 s, and the schedule goes on as before: nothing is asked twice or made up for."""
    server = scripted([Rule(REPLIES["silent"], since=1.5, until=4.5), Rule(REPLIES["answer"])])
    command = f"-s 127.0.0.1 -p {server.port} -n a.test -Q 1000 -l 6 -t 1"
    report = reported(tmp_path, blackout=command)["blackout"]
    assert report["verdict"] == "FAIL"
    assert report["totals"]["outcomes"]["timeout"] == pytest.approx(3000, rel=0.01)
    (window,) = report["windows"]
    assert window["class"] == "timeout"
    assert window["seconds"] == pytest.approx(3.0, abs=0.05)
    assert not window["still_open"]
    assert report["series"][0]["latency_seconds"]["p90"] is None, "what was lost waited for ever"
    assert report["series"][0]["rtt_seconds"]["p90"] < 0.1
    at_ns = server.received().at_ns
    assert len(at_ns) == report["totals"]["planned"] - report["totals"]["outcomes"]["unsent"]
    per_second = np.diff(np.searchsorted(at_ns, np.arange(at_ns[0], at_ns[-1], NS // 4)))
    assert per_second.max() < 1.4 * 1000 / 4, "a burst"


def test_a_closed_port_is_one_window_of_refusals_at_any_rate_and_by_tcp(tmp_path: Path) -> None:
    ask = f"-s 127.0.0.1 -p {closed_port()} -n a.test -l 3 -t 1"
    commands = {"slow": f"{ask} -Q 10", "fast": f"{ask} -Q 1000", "tcp": f"{ask} -Q 100 -m tcp"}
    for name, report in reported(tmp_path, **commands).items():
        (window,) = report["windows"]
        assert window["class"] == "connection_refused", name
        assert window["seconds"] == pytest.approx(3, abs=0.11), name
        assert window["still_open"]
        outcomes = report["totals"]["outcomes"]
        assert outcomes["connection_refused"] + outcomes["unsent"] == report["totals"]["planned"], name


# --- The lab ---

LANES = """
duration: {duration}
lanes:
  - {{name: vip-fresh, target: service, ports: fresh, rate: 100, timeout: 1s, types: [A], questions: &q [{question}]}}
  - {{name: vip-pool, target: service, ports: "pool:128", rate: 100, timeout: 1s, types: [A], questions: *q}}
  - {{name: vip-fixed, target: service, ports: fixed, rate: 50, timeout: 1s, types: [A], questions: *q}}
lab: {{coredns: stand-in, readiness_period: 200ms, {lab}}}
steps: {steps}
"""
STORIES = {
    "no_lameduck": ("6s", "lameduck: 0s, propagation: 3s", "[{wait: 1s}, {scale: 2}]"),
    "lameduck": ("8s", "lameduck: 5s, propagation: 3s", "[{wait: 1s}, {scale: 2}]"),
    "old_kernel": ("6s", "proxy_mode: ipvs, kernel: 5.4, lameduck: 4s, propagation: 1s", "[{wait: 2s}, {scale: 2}]"),
    "kept_sessions": (
        "9s",
        "proxy_mode: ipvs, expire_nodest_conn: no, udp_timeout: 4s, lameduck: 8s, readiness_failures: 40, replicas: 1",
        "[{wait: 1500ms}, delete_pod: ]",
    ),
}
"""Duration, lab, steps of each: in the last one the only pod is replaced, so that every source port is pinned to it."""

BY_CHANCE = 15
"""With IPVS a new port may have a stale session: up to 300 of 14,116 ports do, and some 400 queries draw one."""


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    folder = tmp_path_factory.mktemp("stories")
    for name, (duration, lab, steps) in STORIES.items():
        text = LANES.format(duration=duration, lab=lab, steps=steps, question="kubernetes.default.svc.cluster.local")
        (folder / f"{name}.yaml").write_text(f"name: {name}\n{text}")
    return reported(folder, **{name: f"{name}.yaml --lab" for name in STORIES})


def second_of(report: Report, kind: str, after: float = 0.0) -> float:
    """When the first such thing happened after that second of the run."""
    return next(float(m["seconds"]) for m in report["marks"] if m["kind"] == kind and m["seconds"] > after)


def from_second(report: Report, window: Report) -> float:
    """When a window began, in seconds since the start."""
    begin, start = np.datetime64(window["from"][:-1]), np.datetime64(report["environment"]["started"][:-1])
    return float((begin - start) / np.timedelta64(1, "s"))


def test_without_lameduck_a_third_is_lost_until_the_service_knows(stories: dict[str, Report]) -> None:
    report = stories["no_lameduck"]
    exited, programmed = second_of(report, "pod_exited"), second_of(report, "endpoints_programmed", 1)
    asked = 100 * (programmed - exited)
    assert programmed - second_of(report, "pod_deleted") == pytest.approx(3, abs=0.2)
    assert abs(lost(report, "vip-fresh") - asked / 3) < 4 * (asked * 2 / 9) ** 0.5
    (window,) = windows(report, "vip-fresh")
    assert from_second(report, window) == pytest.approx(exited, abs=0.3)
    assert window["seconds"] == pytest.approx(programmed - exited, abs=0.4)
    # A fixed port is pinned: all or nothing, the pod's or another's.
    assert lost(report, "vip-fixed") in (0, pytest.approx(asked / 2, abs=15))
    assert report["verdict"] == "FAIL"


def test_a_lameduck_that_outlasts_the_propagation_loses_nothing(stories: dict[str, Report]) -> None:
    report = stories["lameduck"]
    assert second_of(report, "pod_exited") < 7.5, "the pod has ended while queries went on"
    assert [lost(report, lane) for lane in ("vip-fresh", "vip-pool", "vip-fixed")] == [0, 0, 0]
    assert report["windows"] == []


def test_ipvs_before_5_9_loses_the_first_packet_of_each_stale_port(stories: dict[str, Report]) -> None:
    report = stories["old_kernel"]
    programmed = second_of(report, "endpoints_programmed", 2)
    assert 25 <= lost(report, "vip-pool") <= 61, "about a third of 128 ports, one packet each"
    assert lost(report, "vip-fixed") <= 1
    assert lost(report, "vip-fresh") <= BY_CHANCE
    (window,) = windows(report, "vip-pool")
    assert from_second(report, window) == pytest.approx(programmed, abs=0.3)
    assert window["seconds"] == pytest.approx(1.28, abs=0.3), "until each port has been used once"


def test_ipvs_without_expire_nodest_conn_keeps_ports_dead_until_their_sessions_end(stories: dict[str, Report]) -> None:
    report = stories["kept_sessions"]
    programmed = next(
        m["seconds"] for m in report["marks"] if m["kind"] == "endpoints_programmed" and "ready: coredns" in m["text"]
    )
    assert lost(report, "vip-fresh") <= BY_CHANCE
    (window,) = windows(report, "vip-fixed")
    assert from_second(report, window) == pytest.approx(programmed, abs=0.2)
    assert window["seconds"] == pytest.approx(4.0, abs=0.15)
    assert lost(report, "vip-fixed") == pytest.approx(200, abs=8)
    # Each of 128 ports is used every 1.28 s: three times in 4 s.
    assert lost(report, "vip-pool") == pytest.approx(3 * 128, abs=20)
    (window,) = windows(report, "vip-pool")
    assert window["lost"] == pytest.approx(window["planned"], rel=0.05)
