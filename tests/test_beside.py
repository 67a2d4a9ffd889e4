"""Lanes that ask no DNS: what becomes of connections and pages on real sockets, in the lab, and of their YAML."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from probe.cluster.lab import Lab
from probe.cluster.settings import LabSettings
from probe.diagnosis.moment import Moment
from probe.engine import Engine
from probe.errors import EnvironmentProblem, ScenarioError
from probe.model import BESIDE, Question, TargetKind
from probe.recorder import Duration
from probe.runfile import open_run
from probe.scenario.file import read_scenario_text
from probe.scenario.run import run as run_plan
from probe.timeline import Timeline
from probe.verdict import default_objectives
from tests.confusion import Silent
from tests.probing import probe, series
from tests.servers import closed_port, has_ipv6
from tests.test_diagnosis import run_of

PAGES = {
    "/ready": (b"HTTP/1.1 200 OK\r\n\r\nOK", "answer"),
    "/starting": (b"HTTP/1.0 503 Service Unavailable\r\n\r\n", "wrong_answer"),
    "/other": (b"SSH-2.0-OpenSSH_9.7 this is another protocol, and long enough to tell\r\n", "malformed"),
    "/nothing": (b"", "connection_lost"),
}
ADDRESSES = ["127.0.0.1", pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="needs IPv6"))]


@pytest.fixture
def pages(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """A server that says PAGES, and nothing to any other path."""
    address = str(request.param)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family, backlog=64) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield address, server.getsockname()[1]


def serve(server: socket.socket) -> None:
    kept = []
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        connection.settimeout(1)
        try:
            path = connection.recv(1000).split()[1:2]
        except OSError:
            path = []
        if path and (page := PAGES.get(path[0].decode())):
            connection.sendall(page[0])
            connection.close()
        else:
            kept.append(connection)  # it says nothing, and stays


@pytest.mark.parametrize("pages", ADDRESSES, indirect=True)
def test_a_page_is_what_its_status_says(pages: tuple[str, int]) -> None:
    asked = [
        replace(
            series(*pages, rate=10, seconds=0.5, transport="http", index=i, lane=f"lane{i}"),
            questions=(Question.of(path, BESIDE["http"]),),
            qtype=BESIDE["http"],
            timeout_ns=700_000_000,
        )
        for i, path in enumerate((*PAGES, "/silent"))
    ]
    found = probe(*asked)
    said = [*(what for _, what in PAGES.values()), "timeout"]
    assert [found.outcomes(i) for i in range(len(asked))] == [{what: 5} for what in said]
    assert [found.good(i) for i in range(len(asked))] == [5, 0, 0, 0, 0]
    assert {(f.question, f.phase) for f in found.failures if f.series == 4} == {("/silent GET", "answer")}
    assert 0 < found.quantile(Duration.LATENCY, 0.5) < 0.5


def test_an_open_connection_is_an_answer_and_a_closed_port_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = [
            replace(
                series("127.0.0.1", port, rate=20, seconds=0.5, transport="connect", index=i, lane=f"lane{i}"),
                questions=(Question.of("nodes", BESIDE["connect"]),),
                qtype=BESIDE["connect"],
            )
            for i, port in enumerate((server.getsockname()[1], closed_port("127.0.0.1")))
        ]
        found = probe(*asked)
    assert [found.outcomes(i) for i in range(2)] == [{"answer": 10}, {"connection_refused": 10}]


LANE = "name: t\nduration: 2s\nlanes:\n  - {{name: a, {}}}\n"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("target: nodes, transport: connect, questions: [x]", "lanes[0].questions: a connection is opened"),
        ("target: nodes, questions: [x]", "lanes[0].transport: udp: nodes know no DNS: say connect or http"),
        ("target: pods, transport: http", "lanes[0].questions: missing; this key must be given"),
        ("target: pods", "lanes[0].questions: missing; this key must be given"),
        ("target: pods, transport: http, questions: [ready]", "'ready': by http a path is asked for"),
        ("target: pods, transport: http, questions: [/ready], types: [A]", "lanes[0].types: is about DNS"),
        ("target: api, transport: connect, ports: reused", "lanes[0].ports: "),
        ("target: api, transport: connect, rate: max", "lanes[0].rate: "),
        ("target: api, transport: connect, port: 0", "lanes[0].port: "),
    ],
)
def test_a_lane_beside_dns_has_its_own_keys(keys: str, said: str) -> None:
    with pytest.raises(ScenarioError) as problem:
        read_scenario_text("t.yaml", LANE.format(keys), [])
    assert "t.yaml:4: " in str(problem.value)
    assert said in str(problem.value)


SCENARIO = """
name: t
duration: 3s
lab: {replicas: 2}
lanes:
  - {name: vip, target: service, rate: 20, timeout: 1s, questions: [kubernetes.default.svc.cluster.local]}
  - {name: nodes, target: nodes, transport: connect, rate: 10, timeout: 1s}
  - {name: api, target: api, transport: connect, rate: 10, timeout: 1s}
  - {name: ready, target: pods, transport: http, port: 8181, rate: 10, timeout: 1s, questions: [/ready]}
  - {name: same, target: pods, rate: 10, timeout: 1s, types: [A],
     questions: [{name: headless.default.svc.cluster.local, expect: endpoints}]}
  - {name: gone, target: pods, rate: 10, timeout: 1s, types: [A],
     questions: [{name: other.default.svc.cluster.local, expect: endpoints}]}
"""


def test_the_lab_has_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    plan = read_scenario_text("t", SCENARIO, ["lab.coredns=stand-in"])
    asyncio.run(run_plan(plan, path, Silent(), Engine(), Lab(plan.lab), idle=False))
    run = open_run(path)
    timeline = Timeline.of(run)
    assert {c.lane: c.loss().lost for c in timeline.channels} == dict.fromkeys(
        ("vip", "nodes", "api", "ready", "same"), 0
    ), "a lane whose Service has no EndpointSlices is left out"
    assert {c.target.port for c in timeline.channels if c.lane == "ready"} == {8181}
    same = next(c.series[0] for c in timeline.channels if c.lane == "same")
    assert str(same.questions[0].expect) == "10.244.0.11,10.244.0.12,10.244.0.13"
    assert "nodes" not in str(default_objectives(s for s in run.series if s.lane != "vip"))


def test_a_run_of_which_nothing_is_left_does_not_begin(tmp_path: Path) -> None:
    text = "{name: gone, target: pods, questions: [{name: other.default.svc.cluster.local, expect: endpoints}]}"
    plan = read_scenario_text("t", f"name: t\nduration: 1s\nlanes: [{text}]", ["lab.coredns=stand-in"])
    with pytest.raises(EnvironmentProblem, match="lane gone is left out: no EndpointSlices"):
        asyncio.run(run_plan(plan, tmp_path / "run.db", Silent(), Engine(), Lab(plan.lab), idle=False))


def test_what_a_headless_service_stands_for_is_asked_of_the_cluster() -> None:
    lab = Lab(LabSettings(replicas=1, coredns="stand-in"))
    assert asyncio.run(lab.headless("headless", "default")) == {"10.244.0.11", "10.244.0.12", "10.244.0.13"}
    assert asyncio.run(lab.headless("headless", "elsewhere")) == frozenset()


def test_rules_about_dns_do_not_see_them(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run.db", ["vip udp fresh .", "pod-a udp fresh .", "pod-a http fresh 3.+2r"])
    moment = Moment.of_run(Timeline.of(run))
    assert [s.channel.transport for s in moment.sights(moment.span, TargetKind.POD)] == ["udp"]
    (beside,) = moment.beside(moment.span, TargetKind.POD)
    assert beside.loss.lost == 40
