"""The engine as a whole on real servers: every row accounted for, no bursts, the same counts as the server's own."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from probe.engine import Engine, EngineOptions, check_limits
from probe.errors import EnvironmentProblem, UsageError
from probe.linux import port_range
from probe.model import NS, Ports, Series
from probe.recorder import Duration
from tests.conftest import Start
from tests.probing import Recorded, probe, series
from tests.servers import REPLIES, CoreDNS, RealServer, Rule

ROOT = Path(__file__).parents[1]
PORTS = ("fresh", "fixed")


def test_planned_is_sum_of_outcomes_is_what_coredns_counted(coredns: RealServer) -> None:
    """UDP and TCP, every port policy, A and AAAA, existing and missing names, both families: exactly."""
    assert isinstance(coredns, CoreDNS)
    before = coredns.metrics()
    asked: list[Series] = []
    for address in coredns.addresses:
        for transport, ports in (
            ("udp", "fresh"),
            ("udp", "pool:8"),
            ("udp", "fixed"),
            ("tcp", "fresh"),
            ("tcp", "reused"),
        ):
            for qtype in ("A", "AAAA"):
                for names in (("a.example.test", "dual.example.test"), ("missing.example.test",)):
                    expect = "" if len(names) > 1 else "nxdomain"
                    one = series(
                        address, coredns.port, *names, rate=50, seconds=2, transport=transport, ports=ports,
                        qtype=qtype, expect=expect, timeout=4, index=len(asked), lane=f"{transport}-{ports}-{address}",
                    )  # fmt: skip
                    asked.append(one)
    recorded = probe(*asked)
    counted = coredns.metrics() - before
    assert recorded.planned() == 100 * len(asked) == counted.requests.total() == counted.responses.total()
    outcomes = recorded.outcomes()
    assert counted.responses == Counter(
        {"NOERROR": outcomes["answer"] + outcomes["nodata"], "NXDOMAIN": outcomes["nxdomain"]}
    )
    for transport in ("udp", "tcp"):
        for qtype in ("A", "AAAA"):
            ours = sum(recorded.planned(s.index) for s in asked if (s.transport, s.qtype) == (transport, qtype))
            theirs = sum(n for (proto, _, kind), n in counted.requests.items() if (proto, kind) == (transport, qtype))
            assert ours == theirs
    assert recorded.good() == recorded.planned()
    assert not {"late", "duplicate", "unmatched", "own_drops"} & recorded.counters().keys()


@pytest.mark.parametrize("server", ["knot", "nsd"])
def test_other_servers(server: str, request: pytest.FixtureRequest) -> None:
    real: RealServer = request.getfixturevalue(server)
    cases = {
        ("a.example.test", "A", "udp"): "answer",
        ("a.example.test", "AAAA", "udp"): "nodata",
        ("alias.example.test", "A", "udp"): "answer",
        ("missing.example.test", "A", "udp"): "nxdomain",
        ("a.elsewhere.test", "A", "udp"): "refused",
        ("many.example.test", "TXT", "udp"): "truncated",
        ("many.example.test", "TXT", "tcp"): "answer",
    }
    asked = [
        series("127.0.0.1", real.port, name, qtype=qtype, transport=transport, rate=20, seconds=0.5, timeout=2, index=i)
        for i, (name, qtype, transport) in enumerate(cases)
    ]
    recorded = probe(*asked)
    assert {case: recorded.outcomes(i) for i, case in enumerate(cases)} == {
        case: {outcome: 10} for case, outcome in cases.items()
    }


def test_a_blackout_of_3_s_loses_3_s_of_queries_and_no_burst_follows(scripted: Start) -> None:
    server = scripted([Rule(REPLIES["silent"], since=1, until=4)])
    recorded = probe(series("127.0.0.1", server.port, "a.test", rate=1000, seconds=6, ports="pool:16", timeout=1))
    unsent = recorded.outcomes().get("unsent", 0)
    assert recorded.planned() == 6000
    assert recorded.outcomes()["timeout"] == pytest.approx(3000, rel=0.01)
    assert unsent < 60, "this machine stalled for too long to tell"
    arrivals = server.received().at_ns
    assert len(arrivals) == 6000 - unsent
    per_100_ms = np.bincount((arrivals - arrivals[0]) // 100_000_000)
    assert per_100_ms.max() <= 160, "a burst: 100 are due in 100 ms, and at most 50 ms of them may be late"
    bad = [c for c in recorded.seconds.values() if (c.first_bad >= 0).any()]
    first = min(int(c.first_bad[c.first_bad >= 0].min()) for c in bad)
    last = max(int(c.last_bad.max()) for c in bad)
    assert (last - first) / NS == pytest.approx(3.0, abs=0.03)
    assert recorded.quantile(Duration.LATENCY, 0.5) < 0.02


def test_a_stall_makes_unsent_rows_with_their_cause_and_no_burst(scripted: Start) -> None:
    """The worker stands still for a second (SIGSTOP): the slots it missed are ours, and are not sent late."""
    server = scripted()

    async def run() -> Recorded:
        engine = Engine(EngineOptions(max_series=4))
        asked = series("127.0.0.1", server.port, "a.test", rate=1000, seconds=3, ports="fixed", timeout=0.3)
        recorded = Recorded([asked])
        await engine.start([asked])
        engine.begin()
        await asyncio.sleep(1)
        worker = engine.worker_pids[0]
        os.kill(worker, signal.SIGSTOP)
        await asyncio.sleep(1)
        recorded.take(engine.flush())
        os.kill(worker, signal.SIGCONT)
        while not engine.finished:
            recorded.take(engine.flush())
            await asyncio.sleep(0.1)
        recorded.take(engine.flush())
        await engine.close()
        return recorded

    recorded = asyncio.run(run())
    outcomes = recorded.outcomes()
    assert recorded.planned() == sum(outcomes.values()) == 3000
    assert outcomes.keys() == {"answer", "unsent"}
    assert 850 <= outcomes["unsent"] <= 1100
    assert recorded.unsent() == {"stall": outcomes["unsent"]}
    assert len(server.received()) == outcomes["answer"]
    assert np.bincount((server.received().at_ns - server.received().at_ns[0]) // 100_000_000).max() <= 160
    assert all((c.first_bad == -1).all() for c in recorded.seconds.values()), "our own fault opens no window"


def test_a_fresh_lane_at_its_limit_keeps_the_surplus_back(scripted: Start) -> None:
    """More sockets in flight than planned for: unsent with cause `sockets`, and all is well again afterwards."""
    server = scripted([Rule(REPLIES["silent"], until=1.0)])
    asked = series("127.0.0.1", server.port, "a.test", rate=500, seconds=3, timeout=0.4)
    recorded = probe(asked)
    outcomes = recorded.outcomes()
    assert outcomes["timeout"] + outcomes.get("unsent", 0) == pytest.approx(500, abs=25)
    assert outcomes["answer"] == pytest.approx(1000, abs=25)


def test_series_come_and_go_while_it_runs(scripted: Start) -> None:
    server = scripted()
    first = series("127.0.0.1", server.port, "a.test", seconds=3, timeout=0.3)
    late = series(
        "127.0.0.1", server.port, "nxdomain.test", seconds=3, timeout=0.3, index=1, lane="late", transport="tcp"
    )

    async def run() -> tuple[Recorded, list[int]]:
        engine = Engine(EngineOptions(max_series=4))
        recorded = Recorded([first, late])
        await engine.start([first])
        engine.begin()
        await asyncio.sleep(0.5)
        (added,) = engine.add([replace(late, start_ns=engine.now_ns())])
        await asyncio.sleep(1)
        (ended,) = engine.end([0], engine.now_ns())
        while not engine.finished:
            recorded.take(engine.flush())
            await asyncio.sleep(0.1)
        recorded.take(engine.flush())
        await engine.close()
        return recorded, [added.start_ns, ended.stop_ns]

    recorded, (start, stop) = asyncio.run(run())
    assert recorded.planned(0) == pytest.approx(stop / NS * 100, abs=1)
    assert recorded.planned(1) == pytest.approx((3 * NS - start) / NS * 100, abs=1)
    assert recorded.outcomes(0) == {"answer": recorded.planned(0)}
    assert recorded.outcomes(1) == {"nxdomain": recorded.planned(1)}


def test_stop_drains(scripted: Start) -> None:
    server = scripted()

    def stop(engine: Engine) -> None:
        asyncio.get_running_loop().call_later(0.5, engine.stop)

    began = time.monotonic()
    recorded = probe(series("127.0.0.1", server.port, "late.test", seconds=60, timeout=1), meanwhile=stop)
    assert time.monotonic() - began < 10
    assert 20 < recorded.planned() < 120
    assert recorded.outcomes() == {"answer": recorded.planned()} == {"answer": len(server.received())}


def test_the_last_end_is_the_engine_s_and_exact(scripted: Start) -> None:
    server = scripted([Rule(REPLIES["answer"])])
    asked = [series("127.0.0.1", server.port, "a.test", seconds=60, index=n, ports=p) for n, p in enumerate(PORTS)]
    began = time.monotonic()

    def end(engine: Engine) -> None:
        engine.end([0, 1], NS, last=True)

    recorded = probe(*asked, meanwhile=end)
    assert time.monotonic() - began < 10
    assert [recorded.planned(n) for n in range(2)] == [100, 100]


def test_limits_name_the_way_out() -> None:
    def refused(error: type[Exception], **changes: object) -> str:
        one = replace(series("127.0.0.1", 53, "a.test", rate=20_000, ports="fixed", timeout=2), **changes)  # type: ignore[arg-type]
        with pytest.raises(error) as caught:
            check_limits([one])
        return re.sub(r"\d{5}-\d{5}", "LOW-HIGH", str(caught.value))

    assert refused(UsageError) == (
        "lane udp-fixed-127.0.0.1-53: 20,000 q/s on 1 source port with a timeout of 2 s would use query ids again too "
        "soon: a port carries 65,536 / (2 x timeout) = 16,384 q/s; say --ports pool:2, or a shorter timeout"
    )
    assert "--ports pool:64" in refused(EnvironmentProblem, ports=Ports("fresh"))
    check_limits([series("127.0.0.1", 53, "a.test", rate=16_384, ports="fixed", timeout=2)])


@pytest.mark.parametrize("targets", [1, 1000])
def test_the_pool_that_is_recommended_fits(targets: int) -> None:
    low, high = port_range()
    asked = [
        series(f"127.1.{n // 250}.{n % 250 + 1}", 53, "a.test", rate=20_000 / targets, timeout=2, index=n)
        for n in range(targets)
    ]
    with pytest.raises(EnvironmentProblem, match="source ports towards other targets, and") as problem:
        check_limits(asked)
    pool = Ports.parse(str(problem.value).rpartition(" ")[2], "udp")
    assert pool.count * targets <= (high - low + 1) // 2


def test_the_worker_raises_its_soft_limit_of_descriptors(scripted: Start) -> None:
    """More than 256 sockets at once, under a soft limit of 256."""
    server = scripted()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        recorded = probe(series("127.0.0.1", server.port, "silent.test", rate=600, seconds=1, timeout=0.6))
        assert recorded.outcomes() == {"timeout": 600}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


LOW_LIMIT = """
import resource
from probe.engine import check_limits
from probe.errors import EnvironmentProblem
from tests.probing import series
resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
for rate in (10, 1000):
    try:
        check_limits([series("127.0.0.1", 53, "a.test", rate=rate, timeout=1)])
    except EnvironmentProblem as problem:
        print(problem)
"""


def test_a_hard_limit_that_is_too_low_is_named_with_what_is_needed() -> None:
    done = subprocess.run([sys.executable, "-c", LOW_LIMIT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == (
        "rate x timeout needs up to 1,066 sockets, dnsprobe itself about 200 files more, and the hard limit of open "
        "files is 512: raise it (ulimit -Hn 1266, or LimitNOFILE=1266), lower the rate or the timeout, or use --ports "
        "pool:64\n"
    )


def test_a_stall_longer_than_the_recorder_reaches_loses_no_row(scripted: Start) -> None:
    """15 s of standing still, with places for 11 s: every row is there, in its own second."""
    server = scripted()
    asked = series("127.0.0.1", server.port, "a.test", rate=10, seconds=18, ports="fixed", timeout=0.3)

    async def run() -> Recorded:
        engine = Engine(EngineOptions(max_series=4))
        recorded = Recorded([asked])
        await engine.start([asked])
        engine.begin()
        await asyncio.sleep(1)
        os.kill(engine.worker_pids[0], signal.SIGSTOP)
        await asyncio.sleep(15)
        os.kill(engine.worker_pids[0], signal.SIGCONT)
        while not engine.finished:
            recorded.take(engine.flush())
            await asyncio.sleep(0.1)
        recorded.take(engine.flush())
        assert not engine.overrun
        await engine.close()
        return recorded

    recorded = asyncio.run(run())
    assert {s: int(c.planned.sum()) for s, c in recorded.seconds.items() if c.planned.any()} == dict.fromkeys(
        range(18), 10
    )
    assert recorded.planned() == sum(recorded.outcomes().values()) == 180
    assert 140 <= recorded.outcomes()["unsent"] <= 155


def test_the_highest_rate_that_a_fixed_port_may_have_is_carried(knot: RealServer) -> None:
    """65,536 / (2 x timeout): every id is used again just when it may be."""
    asked = series("127.0.0.1", knot.port, "a.example.test", rate=4_096, seconds=18, ports="fixed", timeout=8)
    recorded = probe(asked)
    assert recorded.planned() == 73_728
    assert "ids" not in recorded.unsent()


NOWHERE = """
from tests.probing import probe, series
policies = [("udp", "fresh"), ("udp", "fixed"), ("udp", "pool:4"), ("tcp", "fresh"), ("tcp", "reused")]
asked = [
    series("192.0.2.1", 53, "a.test", seconds=0.5, timeout=0.3, transport=t, ports=p, index=i, lane=str(i))
    for i, (t, p) in enumerate(policies)
]
recorded = probe(*asked)
print([recorded.outcomes(i) for i in range(len(asked))])
"""


def test_a_network_that_cannot_be_reached_is_an_outcome() -> None:
    """In a network namespace without any route."""
    if os.geteuid() != 0:
        pytest.skip("needs a network namespace: run as root, e.g. `sudo make test`")
    command = ["unshare", "--net", sys.executable, "-c", NOWHERE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"{[{'network_error': 50}] * 5}\n"


@pytest.mark.parametrize(
    ("transport", "ports"), [("udp", "fresh"), ("udp", "pool:8"), ("tcp", "fresh"), ("tcp", "reused")]
)
def test_a_target_that_went_and_came_back_is_asked_anew_and_leaves_no_socket(
    scripted: Start, transport: str, ports: str
) -> None:
    server = scripted()
    ask = partial(series, "127.0.0.1", server.port, "a.test", transport=transport, ports=ports, seconds=6, timeout=0.2)
    stays = series("127.0.0.1", server.port, "a.test", rate=20, seconds=6, timeout=0.2, lane="stays")

    async def run() -> tuple[Recorded, list[int]]:
        engine = Engine(EngineOptions(max_series=8))
        recorded, open_files = Recorded([stays]), []
        await engine.start([stays])
        engine.begin()
        for index in (1, 2):
            again = replace(ask(index=index), start_ns=engine.now_ns())
            recorded.series += engine.add([again])
            await asyncio.sleep(0.8)
            open_files.append(files_of(engine.worker_pids[0]))
            engine.end([index], engine.now_ns())
            await asyncio.sleep(1.0)
        while not engine.finished:
            recorded.take(engine.flush())
            if engine.now_ns() < 5.9 * NS:
                left = files_of(engine.worker_pids[0])
            await asyncio.sleep(0.1)
        recorded.take(engine.flush())
        await engine.close()
        return recorded, [*open_files, left]

    recorded, open_files = asyncio.run(run())
    for index in (1, 2):
        assert recorded.planned(index) > 60
        assert recorded.outcomes(index) == {"answer": recorded.planned(index)}
    assert open_files[-1] <= min(open_files), open_files


def test_replies_are_read_before_a_small_buffer_is_full(knot: RealServer) -> None:
    """The buffer that an unprivileged process is granted, 212,992 octets, holds 256 replies."""
    options = EngineOptions(max_series=4, receive_buffer=212_992)
    recorded = probe(
        series("127.0.0.1", knot.port, "a.example.test", rate=30_000, seconds=2, ports="fixed"), options=options
    )
    assert recorded.counters().get("own_drops", 0) < 600, "a stall of 20 ms at the most"


def files_of(pid: int) -> int:
    """How many files a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
