"""The clock of a pod's end: ports that close at known times, then the lab's own marks in both of its backends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from probe.cluster import Happened
from probe.cluster.clock import PodClock
from probe.cluster.edges import Reply, attempt, ports_of
from probe.cluster.images import find_coredns
from probe.cluster.zone import HEALTH_PORT, READY_PORT
from probe.model import NS, Target, TargetKind
from tests.servers import closed_port, has_ipv6
from tests.test_netns import needs_namespaces
from tests.test_runs import Report, reported

DNS_PORT = 5393
ALL = (READY_PORT, HEALTH_PORT, DNS_PORT)
TOLERANCE = 0.05


@dataclass
class Doll:
    """A pod that is nothing but listening ports, on an address of its own."""

    number: int
    ports: tuple[int, ...] = ALL
    closed_ns: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.target = Target(f"pod{self.number}", TargetKind.POD, f"127.55.{os.getpid() % 256}.{self.number}", DNS_PORT)
        self.listening = {port: socket.create_server((self.target.address, port)) for port in self.ports}

    def close(self, *ports: int) -> None:
        for port in ports:
            if listener := self.listening.pop(port, None):
                listener.close()
                self.closed_ns[port] = time.monotonic_ns()

    def tell(self, clock: PodClock, what: str, at_ns: int = 0, grace_period: float = 30) -> None:
        at_ns = at_ns or time.monotonic_ns()
        clock.hear(Happened(at_ns, what, "", "test", self.target.name, **{what: self.target}), grace_period)


class Running(PodClock):
    """A clock whose edges are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Happened] = []

    async def listen(self) -> None:
        async for edge in self.edges():
            self.seen.append(edge)


@contextlib.asynccontextmanager
async def clock() -> AsyncIterator[Running]:
    running = Running()
    await running.start("")
    listening = asyncio.create_task(running.listen())
    try:
        yield running
    finally:
        listening.cancel()
        await running.stop()


def play(story: Callable[[Running], Awaitable[None]]) -> None:
    async def run() -> None:
        async with clock() as running:
            await story(running)

    asyncio.run(run())


def half_width(edge: Happened) -> float:
    """The uncertainty an edge states, in seconds."""
    return float(re.findall(r"\(\+-(\d+) ms\)$", edge.text)[0]) / 1000


@pytest.mark.parametrize("order", [ALL, (DNS_PORT, READY_PORT, HEALTH_PORT)], ids=["as CoreDNS", "otherwise"])
@pytest.mark.parametrize("at_once", [False, True])
def test_each_port_that_closes_is_an_edge(order: tuple[int, ...], at_once: bool) -> None:
    dolls = [Doll(n) for n in (1, 2, 3)]

    async def story(clock: Running) -> None:
        for doll in dolls:
            doll.tell(clock, "up")
        await asyncio.sleep(0.7)
        for doll in dolls:
            doll.tell(clock, "down")
        for port in order:
            await asyncio.sleep(0 if at_once else 0.3)
            for doll in dolls:
                doll.close(port)
        await asyncio.sleep(0.3)
        assert len(clock.seen) == 9
        for doll in dolls:
            edges = {edge.kind: edge for edge in clock.seen if edge.subject == doll.target.name}
            for port, kind in ports_of(doll.target).items():
                assert edges[kind].at == pytest.approx(doll.closed_ns[port], abs=TOLERANCE * NS)
                assert f"port {port} refuses" in edges[kind].text
                assert edges[kind].source == "tcp edges"

    play(story)


@pytest.mark.parametrize("met", [True, False])
def test_a_port_that_has_closed_before_the_first_attempt_has_an_edge_if_it_ever_accepted(met: bool) -> None:
    doll = Doll(4)

    async def story(clock: Running) -> None:
        if met:
            doll.tell(clock, "up")
        await asyncio.sleep(0.7)
        deleted_ns = time.monotonic_ns()
        doll.close(READY_PORT)
        doll.tell(clock, "down", deleted_ns)
        await asyncio.sleep(0.7)
        (edge,) = clock.seen
        if met:
            assert edge.kind == "clock_sigterm"
            assert edge.text.startswith("port 8181 refuses at the first attempt after its deletion (+-")
            assert edge.at == pytest.approx(deleted_ns, abs=TOLERANCE * NS)
        else:
            assert (edge.kind, edge.at) == ("clock_blind", deleted_ns)
        doll.close(HEALTH_PORT, DNS_PORT)

    play(story)


def test_a_port_that_no_pod_has_is_told_of_once() -> None:
    dolls = [Doll(n, (HEALTH_PORT, DNS_PORT)) for n in (5, 6)]

    async def story(clock: Running) -> None:
        for doll in dolls:
            doll.tell(clock, "down")
        await asyncio.sleep(0.8)
        for doll in dolls:
            doll.close(*ALL)
        await asyncio.sleep(0.3)
        kinds = [edge.kind for edge in clock.seen]
        assert kinds[0] == "clock_blind"
        assert clock.seen[0].text == "port 8181 accepted nothing before the end either: there will be no clock_sigterm"
        assert sorted(kinds[1:]) == ["clock_closed"] * 2 + ["clock_lameduck_over"] * 2

    play(story)


def test_who_looks_late_says_so_and_blames_nobody() -> None:
    doll = Doll(7)

    async def story(clock: Running) -> None:
        doll.tell(clock, "down")
        await asyncio.sleep(0.8)
        assert clock._process
        clock._process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.2)
        doll.close(READY_PORT)
        await asyncio.sleep(1.6)
        clock._process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.3)
        (edge,) = clock.seen
        assert edge.kind == "clock_sigterm"
        assert half_width(edge) == pytest.approx(0.9, abs=0.1)
        assert abs(edge.at - doll.closed_ns[READY_PORT]) / NS <= half_width(edge)
        doll.close(*ALL)

    play(story)


def test_a_clock_that_has_died_says_so() -> None:
    async def story(clock: Running) -> None:
        assert clock._process
        clock._process.kill()
        await asyncio.sleep(0.3)
        (edge,) = clock.seen
        assert (edge.kind, edge.text) == (
            "clock_blind",
            "the process that looks at ports has ended: no more edges are seen",
        )

    play(story)


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "grace period over"])
def test_who_has_ended_is_not_looked_at_for_long(gone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probe.cluster.clock._MARGIN", 0.0)
    doll = Doll(8)

    async def story(clock: Running) -> None:
        doll.tell(clock, "down", grace_period=30 if gone else 0.1)
        if gone:
            doll.tell(clock, "gone")
        await asyncio.sleep(3)
        listener = doll.listening[DNS_PORT]
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                listener.accept()[0].close()
        await asyncio.sleep(0.3)
        with pytest.raises(BlockingIOError):
            listener.accept()
        doll.close(*ALL)

    play(story)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_one_attempt(address: str) -> None:
    if address == "::1" and not has_ipv6():
        pytest.skip("needs IPv6: this machine's loopback has no ::1")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    pod = Target("pod", TargetKind.POD, address)
    with socket.create_server((address, 0), family=family) as listener:
        assert asyncio.run(attempt(pod, listener.getsockname()[1], "")).reply is Reply.OPEN
        with listener.accept()[0] as connection, pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert asyncio.run(attempt(pod, closed_port(address), "")).reply is Reply.REFUSED
    assert asyncio.run(attempt(pod, 1, "/run/netns/none")).reply is Reply.UNTRIED


SCENARIO = """\
name: clock
duration: 7s
lab: {{replicas: 3, lameduck: 1500ms, pre_stop: {pre_stop}, teardown: 300ms, backend: {backend}, coredns: {coredns}}}
lanes:
  - {{name: vip, target: service, rate: 150, timeout: 1s, types: [A], questions: &q [dual.default.svc.cluster.local]}}
  - {{name: pods, target: pods, rate: 50, timeout: 1s, types: [A], questions: *q}}
steps: [{{wait: 1s}}, {{scale: 2}}, {{wait: 1s}}, {{scale: 1}}]
"""


def compared(folder: Path, backend: str) -> None:
    images = ["stand-in", *(["real"] if find_coredns() else [])]
    commands = {}
    for image, pre_stop in zip(images, ("500ms", "0s"), strict=False):
        text = SCENARIO.format(backend=backend, coredns=image, pre_stop=pre_stop)
        (folder / f"{image}.yaml").write_text(text)
        commands[image] = f"{image}.yaml --lab"
    for image, report in reported(folder, **commands).items():
        check(report, image, backend)


def check(report: Report, image: str, backend: str) -> None:
    pods = {m["subject"] for m in report["marks"] if m["kind"] == "pod_deleted"}
    assert len(pods) == 2
    for pod in pods:
        at = {m["kind"]: m["seconds"] for m in report["marks"] if m["subject"] == pod}
        assert at["clock_sigterm"] == pytest.approx(at["sigterm"], abs=TOLERANCE)
        assert at["clock_lameduck_over"] == pytest.approx(at["sigterm"] + 1.5, abs=TOLERANCE)
        assert at["clock_closed"] == pytest.approx(at["sigterm"] + 1.5, abs=TOLERANCE)
        if image == "real":
            assert at["clock_closed"] == pytest.approx(at["pod_exited"], abs=TOLERANCE)
        # The kernel takes a namespace down some time after it has been deleted.
        assert ("clock_gone" in at) is (backend == "netns")
        assert at.get("clock_gone", at["pod_gone"]) == pytest.approx(at["pod_gone"], abs=0.15)
    assert not [m for m in report["marks"] if m["kind"] == "clock_blind"]


def test_the_marks_agree_with_the_labs_on_loopback(tmp_path: Path) -> None:
    compared(tmp_path, "loopback")


@needs_namespaces
def test_the_marks_agree_with_the_labs_in_namespaces(tmp_path: Path) -> None:
    compared(tmp_path, "netns")
