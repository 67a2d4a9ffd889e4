"""Closed loops with a pause: each slot asks again so long after its last outcome, beside lanes that have a schedule."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from probe.engine import Engine, EngineOptions, check_limits
from probe.engine.plan import Deal, has_rows
from probe.errors import EnvironmentProblem
from probe.model import NS, Series, Shape, Slice
from probe.recorder import Duration
from tests.conftest import Start
from tests.probing import Recorded, probe, series
from tests.servers import REPLIES, Reply, Rule, closed_port
from tests.test_cli import start

MS = NS // 1000
ANSWER = [Rule(REPLIES["answer"])]
SOON = 5 * MS
"""So late a query may leave."""


def loop(
    port: int, *, window: int = 1, pause: int = 100 * MS, ports: str = "fresh", seconds: float = 2, index: int = 0,
    timeout: float = 0.3,
) -> Series:  # fmt: skip
    """A closed loop with a pause, as a plan makes it."""
    transport, _, policy = ports.rpartition(" ")
    one = series(
        "127.0.0.1", port, "a.test", transport=transport or "udp", ports=policy, seconds=seconds, timeout=timeout,
        index=index, lane=f"{ports} {index}",
    )  # fmt: skip
    rate = Fraction(window * NS, pause)
    return replace(one, rate=rate, offset_ns=0, shape=Shape("max", window=window, pause_ns=pause))


@pytest.mark.parametrize("ports", ["fresh", "fixed", "pool:4", "tcp fresh", "tcp reused"])
@pytest.mark.parametrize(("pause", "delay"), [(100 * MS, 0.02), (3 * MS, 0.0), (MS, 0.01)])
def test_the_next_query_leaves_a_pause_after_the_answer(ports: str, pause: int, delay: float, scripted: Start) -> None:
    server = scripted([Rule(Reply("late", delay=delay))] if delay else ANSWER)
    recorded = probe(loop(server.port, pause=pause, ports=ports, seconds=1))
    assert recorded.outcomes() == {"answer": recorded.planned()}
    late = np.diff(np.sort(server.received().at_ns)) - pause - int(delay * NS)
    assert late.min() > -MS, "the server's clock starts later than the query, by what differs each time"
    assert np.median(late) < SOON
    assert recorded.quantile(Duration.LATENCY, 0.5) < delay + 0.005


@pytest.mark.parametrize("ports", ["fresh", "fixed", "tcp fresh", "tcp reused"])
def test_the_next_query_leaves_a_pause_after_a_timeout(ports: str, scripted: Start) -> None:
    """And counts as lost where it was sent."""
    server = scripted([Rule(REPLIES["silent"])])
    recorded = probe(loop(server.port, ports=ports, seconds=2, timeout=0.3))
    assert recorded.outcomes() == {"timeout": 5}
    due = [failure.due_ns for failure in recorded.failures]
    gaps = np.diff(due)
    assert gaps.min() >= 400 * MS
    assert np.median(gaps) < 400 * MS + SOON
    assert due[0] < SOON


@pytest.mark.parametrize("ports", ["fresh", "fixed", "tcp fresh", "tcp reused"])
def test_the_next_query_leaves_a_pause_after_an_error(ports: str) -> None:
    recorded = probe(loop(closed_port(), ports=ports, seconds=1))
    assert recorded.outcomes().keys() == {"connection_refused"}
    gaps = np.diff([failure.due_ns for failure in recorded.failures])
    assert len(gaps) == pytest.approx(9, abs=1)
    assert np.median(gaps) == pytest.approx(100 * MS, abs=SOON)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_slots_are_dealt_and_begin_one_after_the_other(workers: int, scripted: Start) -> None:
    """Five slots of a silent server: five queries within the first pause, and none more before they have timed out."""
    server = scripted([Rule(REPLIES["silent"])])
    asked = loop(server.port, window=5, pause=200 * MS, ports="pool:8", seconds=0.9, timeout=0.3)
    recorded = probe(asked, options=EngineOptions(max_series=4, workers=workers))
    assert recorded.outcomes() == {"timeout": 10}
    due = np.sort([failure.due_ns for failure in recorded.failures])
    wanted = np.concatenate([np.arange(5) * 40, 500 + np.arange(5) * 40]) * MS
    assert due - wanted == pytest.approx(0, abs=2 * SOON)


@pytest.mark.parametrize("of", [1, 2, 7])
def test_parts_and_shards_have_the_slots_of_the_whole(of: int) -> None:
    """A lane with fewer slots than there are workers leaves some of them nothing to do."""
    whole = loop(53, window=5, ports="pool:8")
    for share in (Slice(0, 2), Slice(1, 2)):
        deal = Deal(of)
        parts = [deal.part(replace(whole, share=share), worker) for worker in range(of)]
        slots = [slot for part in parts for slot in part.slots]
        assert sorted(slots) == list(range(share.index, 5, 2))
        assert [has_rows(part) for part in parts] == [bool(part.slots) for part in parts]


def test_beside_a_schedule_neither_disturbs_the_other(scripted: Start) -> None:
    """Series that come, and end, while it runs, too."""
    server = scripted(ANSWER)
    steady = series("127.0.0.1", server.port, "a.test", rate=500, seconds=3, ports="pool:4", lane="steady")
    late = loop(server.port, window=2, seconds=3, index=1)
    ended = loop(server.port, pause=50 * MS, seconds=3, index=2, ports="tcp fresh")

    async def run() -> tuple[Recorded, list[Series]]:
        engine, recorded = Engine(EngineOptions(max_series=8)), Recorded([steady])
        try:
            await engine.start([steady])
            engine.begin()
            await asyncio.sleep(0.5)
            recorded.series += engine.add([replace(s, start_ns=engine.now_ns()) for s in (late, ended)])
            await asyncio.sleep(1)
            told = [recorded.series[1], *engine.end([2], engine.now_ns())]
            while not engine.finished:
                recorded.take(engine.flush())
                await asyncio.sleep(0.1)
            recorded.take(engine.flush())
        finally:
            await engine.close()
        return recorded, told

    recorded, told = asyncio.run(run())
    assert recorded.planned(0) == 1500
    for one in told:
        most = one.rate * (one.stop_ns - one.start_ns) / NS
        assert recorded.outcomes(one.index) == {"answer": recorded.planned(one.index)}
        assert 0.9 * most <= recorded.planned(one.index) <= most + 2


def test_stop_ends_it_though_answers_are_still_to_come(scripted: Start) -> None:
    server = scripted([Rule(REPLIES["late"])])

    def stop(engine: Engine) -> None:
        asyncio.get_running_loop().call_later(0.5, engine.stop)

    recorded = probe(loop(server.port, window=4, seconds=60, timeout=1), meanwhile=stop)
    assert 4 < recorded.planned() < 40
    assert recorded.outcomes() == {"answer": recorded.planned()} == {"answer": len(server.received())}


def test_fresh_sockets_are_as_many_as_may_be_outstanding() -> None:
    """Not rate x timeout: 20,000 a second of these could be asked, but 20 wait at the most."""
    check_limits([loop(53, window=20, pause=MS, timeout=60)])
    with pytest.raises(EnvironmentProblem, match=r"up to 60,016 source ports towards other targets"):
        check_limits([loop(53, window=60_000, pause=60 * NS)])


SCENARIO = """\
name: blackout
duration: 11s
servers: [{{name: it, address: 127.0.0.1, port: {port}}}]
lanes:
  - name: dig
    target: it
    rate: max
    max_inflight: 1
    pause: 100ms
    timeout: 1s
    types: [A]
    questions: [a.test]
  - {{name: steady, target: it, rate: 100, timeout: 1s, types: [A], questions: [a.test]}}
"""


def test_a_loop_of_digs_in_a_blackout_of_five_seconds(scripted: Start, tmp_path: Path) -> None:
    """Five queries wait a second each: one window of about five seconds, and what the schedule saw stands beside it."""
    server = scripted([Rule(REPLIES["silent"], since=2, until=7)])
    (tmp_path / "dig.yaml").write_text(SCENARIO.format(port=server.port))
    process = start("run dig.yaml -o run.db --json run.json", tmp_path)
    out, err = process.communicate(timeout=40)
    assert "Traceback" not in err
    report = json.loads((tmp_path / "run.json").read_text())
    dig, steady = report["series"]
    assert dig["lost"] in (5, 6)
    assert dig["planned"] == dig["good"] + dig["lost"]
    assert dig["planned"] == pytest.approx(20 + 5 + 36, abs=4)
    assert (dig["load"]["qps"], dig["load"]["outstanding"], dig["load"]["pause_seconds"]) == (10, 1, 0.1)
    assert (steady["planned"], steady["lost"]) == (1100, pytest.approx(500, abs=10))
    windows = {w["lane"]: w for w in report["windows"]}
    assert len(report["windows"]) == 2
    felt, seen = windows["dig"], windows["steady"]
    assert seen["seconds"] == pytest.approx(5, abs=0.1)
    assert felt["seconds"] == pytest.approx(5.5, abs=0.7)
    assert felt["lost"] == felt["planned"] == dig["lost"]
    assert (felt["class"], felt["still_open"]) == ("timeout", False)
    assert felt["others"] == [{"lane": "steady", "targets": 1, "fine": 0}]
    assert seen["others"] == [{"lane": "dig", "targets": 1, "fine": 0}]
    said = " ".join(out.split())
    assert (
        "dig at most 1 outstanding, the next 100 ms after the outcome of each, so up to 10 q/s: a closed loop" in said
    )


def test_it_goes_beside_a_pool_of_more_than_a_thousand_sockets(scripted: Start) -> None:
    """Its descriptors are the last of a process: beyond those that select() takes."""
    server = scripted(ANSWER)
    many = series("127.0.0.1", server.port, "a.test", rate=10, ports="pool:1100", lane="many")
    recorded = probe(many, loop(server.port, ports="tcp reused", seconds=1, index=1))
    assert recorded.outcomes(0) == {"answer": 10}
    assert recorded.outcomes(1) == {"answer": recorded.planned(1)}
