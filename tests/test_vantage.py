"""Targets asked from several network namespaces, each by workers that live in it, and by nobody else."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from probe.engine import Engine, EngineOptions
from probe.errors import EnvironmentProblem
from probe.linux import in_network
from probe.model import NS, Series
from tests.probing import Recorded, probe, series
from tests.servers import REPLIES, Rule, ScriptedServer

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip"),
    reason="needs root and iproute2: sudo make servers, then sudo make test",
)

HERE, THERE = (f"/run/netns/vantage-{os.getpid()}-{place}" for place in ("here", "there"))
FATES = {HERE: "answer", THERE: "nxdomain"}
"""What the server of each namespace says. It is on that namespace's loopback, which nobody else reaches."""


@pytest.fixture
def servers() -> Iterator[dict[str, ScriptedServer]]:
    """Two network namespaces without any link but their loopback, and a server in each."""
    with ExitStack() as stack:
        found = {}
        for path, fate in FATES.items():
            name = path.rpartition("/")[2]
            subprocess.run(["ip", "netns", "add", name], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=True)
            subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
            with in_network(path):
                found[path] = stack.enter_context(ScriptedServer([Rule(REPLIES[fate])]))
        yield found


def asked_from(vantage: str, server: ScriptedServer, index: int, ports: str, seconds: float = 1) -> Series:
    transport, _, policy = ports.rpartition(" ")
    one = series(
        "127.0.0.1", server.port, "a.test", index=index, transport=transport or "udp", ports=policy, rate=50,
        seconds=seconds, timeout=0.4, expect="any", lane=f"{ports} {vantage}",
    )  # fmt: skip
    return replace(one, target=replace(one.target, vantage=vantage))


@pytest.mark.parametrize("workers", [1, 2])
def test_each_target_is_asked_from_its_namespace_alone(workers: int, servers: dict[str, ScriptedServer]) -> None:
    """A target without a vantage is asked from the first; what is counted is what each server received."""
    policies = ("fresh", "pool:3", "fixed", "tcp fresh", "tcp reused")
    vantages = {THERE: servers[THERE], HERE: servers[HERE], "": servers[HERE]}
    asked = [
        asked_from(vantage, server, 3 * k + j, ports)
        for k, ports in enumerate(policies)
        for j, (vantage, server) in enumerate(vantages.items())
    ]
    recorded = probe(*asked, options=EngineOptions(max_series=64, workers=workers), namespaces=(HERE, THERE))
    for one in asked:
        fate = FATES[one.target.vantage or HERE]
        assert recorded.outcomes(one.index) == {fate: 50}, one.lane
    assert {path: len(server.received()) for path, server in servers.items()} == {HERE: 500, THERE: 250}
    assert recorded.facts["workers"] == f"{2 * workers}, {workers} in each of 2 network namespaces"


def test_a_namespace_that_nobody_is_asked_from_at_first_is_asked_from_later(servers: dict[str, ScriptedServer]) -> None:
    """And ends when told; a worker of it that dies is known by its number, with its lanes alone."""
    first = asked_from(HERE, servers[HERE], 0, "fresh", 4)
    late = [asked_from(vantage, servers[vantage], k, "pool:2", 4) for k, vantage in ((1, THERE), (2, HERE), (3, THERE))]
    late[2] = replace(late[2], lane="ended")

    async def run() -> tuple[Recorded, Engine, list[Series]]:
        engine, recorded = Engine(EngineOptions(max_series=8, workers=2)), Recorded([first])
        try:
            await engine.start([first], NS, (HERE, THERE))
            engine.begin()
            await asyncio.sleep(0.5)
            added = engine.add([replace(s, start_ns=engine.now_ns()) for s in late])
            recorded.series += added
            with pytest.raises(ValueError, match=r"is asked from 'elsewhere', which is none of"):
                engine.add([asked_from("elsewhere", servers[HERE], 4, "fresh", 4)])
            await asyncio.sleep(1)
            added[2:] = engine.end([3], engine.now_ns())
            await asyncio.sleep(0.6)
            os.kill(engine.worker_pids[3], signal.SIGKILL)
            while not engine.finished:
                recorded.take(engine.flush())
                await asyncio.sleep(0.1)
            recorded.take(engine.flush())
        finally:
            await engine.close()
        return recorded, engine, added

    recorded, engine, (there, here, ended) = asyncio.run(run())
    (death,) = engine.deaths
    assert (death.worker, death.lanes) == (4, (there.lane, ended.lane))
    assert recorded.outcomes(0) == {"answer": 200}
    due = [(s.stop_ns - s.start_ns) / NS * 50 for s in (there, here, ended)]
    assert [recorded.planned(k) for k in (1, 2, 3)] == [pytest.approx(n, abs=1.5) for n in due]
    assert recorded.outcomes(2) == {"answer": recorded.planned(2)}
    assert recorded.outcomes(3) == {"nxdomain": recorded.planned(3)}
    lost = (4 * NS - death.from_ns) / NS * 25
    assert recorded.outcomes(1)["nxdomain"] == pytest.approx(recorded.planned(1) - lost, abs=3)


def test_a_namespace_that_is_not_there_is_named() -> None:
    with pytest.raises(
        EnvironmentProblem, match=r"network namespace /run/netns/nowhere: cannot be entered: No such file"
    ):
        probe(series("127.0.0.1", 53, "a.test"), namespaces=("/run/netns/nowhere",))
