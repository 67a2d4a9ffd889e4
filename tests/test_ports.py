"""Source ports of `fresh` lanes, in turn and repeats counted; a wall clock that steps, and is not trusted then."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter as Tally
from pathlib import Path

import numpy as np
import pytest

from probe.engine import Engine, EngineOptions
from probe.linux import port_range
from probe.model import NS, Ports, Question, Target, TargetKind
from probe.outcome import Counter, Outcome
from probe.questions import Questions
from probe.transport.ports import CONNTRACK_NS, PortLedger, half_of_ports
from probe.transport.rows import Channel, Due
from probe.transport.udp import Udp
from tests.conftest import Start
from tests.probing import probe, series
from tests.servers import REPLIES, Rule


def reused(recorded_counters: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> int:
    return int(recorded_counters[:, Counter.PORTS_REUSED].sum())


# -- ports


def test_no_port_is_taken_twice_while_others_rest(scripted: Start) -> None:
    """At 300 q/s the kernel's own draws would repeat some 40 of 1,000 ports."""
    server = scripted([Rule(REPLIES["answer"])])
    recorded = probe(series("127.0.0.1", server.port, "a.test", rate=300, seconds=3.4))
    assert recorded.outcomes() == {"answer": 1020}
    ports = Tally(server.received().port.tolist())
    assert max(ports.values()) == 1
    low, high = half_of_ports(TargetKind.SERVER)
    assert all(low <= port <= high for port in ports)
    assert list(ports) != sorted(ports), "ports must not be predictable"
    assert recorded.last
    assert reused(recorded.last.counters) == 0


def test_ports_that_are_used_again_too_soon_are_counted(scripted: Start) -> None:
    low, high = half_of_ports(TargetKind.SERVER)
    rate = 8000
    server = scripted([Rule(REPLIES["answer"])])
    recorded = probe(series("127.0.0.1", server.port, "a.test", rate=rate, seconds=2.5))
    sent = recorded.planned() - recorded.outcomes().get("unsent", 0)
    assert recorded.last
    assert reused(recorded.last.counters) == pytest.approx(sent - (high - low + 1), abs=100)


def test_a_ledger_takes_each_port_once_in_a_round() -> None:
    ledger = PortLedger(1000, 1099)
    rounds = [[ledger.oldest() for _ in range(100)] for _ in range(2)]
    assert sorted(rounds[0]) == list(range(1000, 1100))
    assert rounds[0] == rounds[1]
    assert [ledger.use(1005), ledger.use(1005), ledger.use(1006)] == [False, True, False]
    assert CONNTRACK_NS == 30 * NS


def test_the_halves_of_the_port_range_do_not_meet() -> None:
    (low, end), (begin, high) = half_of_ports(TargetKind.SERVICE), half_of_ports(TargetKind.POD)
    assert (low, high) == port_range()
    assert end + 1 == begin


# -- the wall clock


@pytest.mark.parametrize(("step_ns", "steps"), [(0, 0), (5_000_000, 1), (-5_000_000, 1)])
def test_replies_are_not_timed_by_a_wall_clock_that_stepped(step_ns: int, steps: int) -> None:
    """The clock's offset at the last replies is put wrong: as if the clock had stepped since."""
    questions = Questions()
    questions.add([Question.of("a.test", "A", "nxdomain")])
    udp = Udp(questions, np.random.default_rng(), 1 << 20)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        target = Target("server", TargetKind.SERVER, "127.0.0.1", server.getsockname()[1])
        udp.open(Channel(0, target, Ports("fixed"), 10, NS))
        zero = np.zeros(1, np.int64)
        udp.load(Due.of(np.array([time.monotonic_ns()]), zero, zero, zero))
        udp.send(time.monotonic_ns())
        query, client = server.recvfrom(512)
        server.sendto(query[:2] + b"\x84\x03" + query[4:], client)
        time.sleep(0.05)
        udp._offset += step_ns
        udp.read(time.monotonic_ns())
        harvest = udp.harvest()
    udp.close()
    assert harvest.finished.outcome.tolist() == [Outcome.NXDOMAIN]
    assert harvest.counters[0, Counter.CLOCK_STEPS] == steps
    took = int(harvest.finished.received[0] - harvest.finished.sent[0])
    assert 0 < took < NS
    assert (took >= 45_000_000) == bool(steps), "timed on reading, which was late"


def test_sockets_that_a_silence_made_necessary_are_closed_again(scripted: Start) -> None:
    server = scripted([Rule(REPLIES["silent"], until=1.0), Rule(REPLIES["answer"])])
    asked = series("127.0.0.1", server.port, "a.test", rate=1000, seconds=6, timeout=0.5)

    def open_files(pid: int) -> int:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))

    async def files() -> tuple[int, int]:
        engine, most = Engine(EngineOptions(max_series=4)), 0
        try:
            await engine.start([asked])
            engine.begin()
            while engine.now_ns() < 5.5 * NS:
                now = open_files(engine.worker_pids[0])
                most = max(most, now)
                engine.flush()
                await asyncio.sleep(0.1)
            return most, now
        finally:
            await engine.close()

    most, last = asyncio.run(files())
    assert most > 500, "each row of the silence holds a socket"
    assert last < 200, "rows are given their sockets up to 100 ms ahead"
