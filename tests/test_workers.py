"""Several workers, or several machines, instead of one: the same rows, each once; and what is left when one dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from multiprocessing.connection import Pipe
from pathlib import Path

import numpy as np
import pytest

from probe.book import BookWriter
from probe.doubts import doubts_of
from probe.engine import Engine, EngineOptions, check_limits
from probe.engine.plan import Deal
from probe.engine.worker import Worker
from probe.errors import EnvironmentProblem, UsageError
from probe.model import NS, WHOLE, Ports, Question, Series, Shape, Slice
from probe.outcome import Outcome
from probe.recorder import Reader, Room
from probe.runfile import open_run
from probe.schedule import pacer_of
from probe.transport.udp import Udp
from tests.conftest import Start
from tests.probing import Recorded, probe, series
from tests.replies import encode_name
from tests.servers import REPLIES, RealServer, Rule
from tests.test_cli import start
from tests.test_recorder import Make, pair

__all__ = ["pair"]

TWO = EngineOptions(max_series=64, workers=2)
KILLED = "ended by signal 9 (SIGKILL: somebody's, or the kernel's where memory runs out)"


# -- who gets what


def ask(ports: str = "fresh", index: int = 0, transport: str = "udp", share: Slice = WHOLE) -> Series:
    one = series("127.0.0.1", 53, "a.test", ports=ports, transport=transport, index=index, seconds=3)
    return replace(one, lane=f"lane-{index}", share=share)


def asked_from(vantage: str, one: Series) -> Series:
    return replace(one, target=replace(one.target, vantage=vantage))


@pytest.mark.parametrize("share", [Slice(), Slice(0, 3), Slice(2, 3)])
@pytest.mark.parametrize("ports", ["fresh", "fixed", "pool:1", "pool:5"])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_all_parts_together_are_the_rows_of_the_share(share: Slice, ports: str, workers: int) -> None:
    deal, whole = Deal(workers), ask(ports, share=share)
    parts = [pacer_of(deal.part(whole, w)).take(10 * NS) for w in range(workers)]
    assert sorted(np.concatenate(parts).tolist()) == pacer_of(whole).take(10 * NS).tolist()
    if ports in ("fixed", "pool:1"):
        assert sum(len(part) > 0 for part in parts) == 1, "one port is one socket of one process"


def test_ports_and_windows_are_divided_and_never_none() -> None:
    deal, shape = Deal(3), Shape("max", window=64)
    pools = [deal.part(replace(ask(f"pool:{n}"), shape=shape), 2) for n in (2, 3, 64)]
    assert [part.ports.count for part in pools] == [1, 1, 22]
    assert {part.shape.window for part in pools} == {22}
    assert deal.part(ask("fresh"), 1).ports == Ports("fresh")
    assert deal.part(ask("fresh"), 1).own_rate == Fraction(100, 3)


def test_what_is_one_port_goes_round_and_stays_where_it_is() -> None:
    deal = Deal(2)
    lanes = [ask("fixed", 0), ask("reused", 1, "tcp"), ask("fixed", 2), ask("reused", 3, "tcp")]
    owners = [next(w for w in (0, 1) if deal.part(lane, w) == lane) for lane in lanes * 2]
    assert owners == [0, 1, 0, 1] * 2
    ended = replace(lanes[0], stop_ns=NS)
    assert len(pacer_of(deal.part(ended, 0)).take(10 * NS)) == 100
    assert len(pacer_of(deal.part(ended, 1)).take(10 * NS)) == 0


def test_each_namespace_has_workers_of_its_own() -> None:
    """Those of the others have the series, so that all count alike, but no row of it."""
    deal = Deal(2, ("a", "b", "c"))
    assert [deal.namespace(w) for w in range(deal.workers)] == ["a", "a", "b", "b", "c", "c"]
    for vantage, first in (("", 0), ("a", 0), ("b", 2), ("c", 4)):
        for ports in ("fresh", "pool:5", "fixed"):
            whole = asked_from(vantage, ask(ports))
            rows = [pacer_of(deal.part(whole, w)).take(10 * NS) for w in range(deal.workers)]
            assert not np.concatenate([*rows[:first], *rows[first + 2 :]]).size
            both = np.concatenate(rows[first : first + 2])
            assert sorted(both.tolist()) == pacer_of(whole).take(10 * NS).tolist()
            ended = replace(whole, stop_ns=NS)
            assert sum(len(pacer_of(deal.part(ended, w)).take(10 * NS)) for w in range(deal.workers)) == 100
    with pytest.raises(ValueError, match=r"server .* is asked from 'd', which is none of \['a', 'b', 'c'\]"):
        deal.part(asked_from("d", ask()), 0)


def test_single_ports_go_round_in_each_namespace() -> None:
    deal = Deal(2, ("a", "b"))
    lanes = [asked_from(vantage, ask("fixed", k)) for k, vantage in enumerate("aabbba")]
    owners = [[w for w in range(4) if deal.part(lane, w) == lane] for lane in lanes]
    assert owners == [[0], [1], [2], [3], [2], [0]]


def test_each_namespace_has_source_ports_and_its_workers_files_of_their_own() -> None:
    """14,000 ports are pods' in each: two namespaces carry what is too much for one."""
    fresh = [replace(ask("fresh", k), rate=Fraction(10_000), timeout_ns=NS) for k in (0, 1)]
    with pytest.raises(EnvironmentProblem, match=r"up to 21,\d{3} source ports"):
        check_limits(fresh, 4)
    check_limits([asked_from("b", fresh[0]), fresh[1]], 4, ("a", "b"))
    with pytest.raises(EnvironmentProblem, match=r"up to 21,\d{3} source ports"):
        check_limits([asked_from("a", fresh[0]), fresh[1]], 4, ("a", "b"))


def test_limits_are_those_of_a_port_however_many_workers() -> None:
    check_limits([replace(ask("pool:2"), rate=Fraction(20_000), timeout_ns=2 * NS)], 2)
    with pytest.raises(UsageError, match=r"20,000 q/s on 1 source port .* pool:2"):
        check_limits([replace(ask("fixed"), rate=Fraction(20_000), timeout_ns=2 * NS)], 2)


# -- counts


def many(address: str, port: int, rate: int = 40) -> list[Series]:
    """Every port policy, good names and missing ones."""
    policies = [("udp", "fresh"), ("udp", "pool:3"), ("udp", "fixed"), ("tcp", "fresh"), ("tcp", "reused")]
    return [
        series(
            address, port, *names, rate=rate, seconds=2, transport=transport, ports=ports, timeout=3,
            index=2 * k + j, lane=f"{transport}-{ports}",
        )
        for k, (transport, ports) in enumerate(policies)
        for j, names in enumerate([("a.example.test", "dual.example.test"), ("missing.example.test",)])
    ]  # fmt: skip


def asked_of(recorded: Recorded, index: int) -> dict[str, float]:
    """The outcomes as shares of what was sent: nearly all of it, however busy the machine is."""
    outcomes = recorded.outcomes(index)
    sent = recorded.planned(index) - outcomes.pop("unsent", 0)
    assert sent > 0.7 * recorded.planned(index)
    return {name: round(n / sent, 1) for name, n in outcomes.items()}


def test_two_workers_and_two_machines_ask_what_one_asks(coredns: RealServer) -> None:
    wanted = many("127.0.0.1", coredns.port)
    whole, both = probe(*wanted), probe(*wanted, options=TWO)
    shards = [probe(*(replace(s, share=Slice(i, 2)) for s in wanted), options=TWO) for i in (0, 1)]
    for k in range(len(wanted)):
        assert whole.planned(k) == both.planned(k) == sum(s.planned(k) for s in shards) == 80
        assert asked_of(whole, k) == asked_of(both, k) == asked_of(shards[0], k) == asked_of(shards[1], k)
    assert both.facts["workers"] == "2"
    for second, column in whole.seconds.items():
        assert (both.seconds[second].planned == column.planned).all()
        assert np.array_equal(np.sum([s.seconds[second].planned for s in shards], axis=0), column.planned)


def test_each_worker_has_its_share_of_a_pool(scripted: Start) -> None:
    """64 ports, 32 of each worker; the window of one that is fixed lies with one of them."""
    server = scripted()
    probe(series("127.0.0.1", server.port, "a.test", rate=500, seconds=2, ports="pool:64"), options=TWO)
    assert len(set(server.received().port.tolist())) == 64


def test_a_stall_of_one_worker_is_its_own(scripted: Start) -> None:
    """It stands still for longer than the recorder's ring: the other neither waits nor loses anything."""
    server = scripted()
    asked = series("127.0.0.1", server.port, "a.test", rate=20, seconds=16, timeout=0.3)

    async def run() -> Recorded:
        engine, recorded = Engine(TWO), Recorded([asked])
        await engine.start([asked])
        engine.begin()
        await asyncio.sleep(0.5)
        os.kill(engine.worker_pids[0], signal.SIGSTOP)
        while engine.now_ns() < 14 * NS:
            await asyncio.sleep(0.2)
            recorded.take(engine.flush())
        os.kill(engine.worker_pids[0], signal.SIGCONT)
        while not engine.finished:
            recorded.take(engine.flush())
            await asyncio.sleep(0.1)
        recorded.take(engine.flush())
        assert not engine.overrun
        await engine.close()
        return recorded

    recorded = asyncio.run(run())
    assert recorded.planned() == sum(recorded.outcomes().values()) == 320
    assert 130 <= recorded.outcomes()["unsent"] <= 150
    assert recorded.unsent() == {"stall": recorded.outcomes()["unsent"]}


def test_a_book_is_every_workers_and_its_failures_are_named(scripted: Start) -> None:
    """A million names would do as well: they are numbered as one stretch, and mapped by each worker."""
    server = scripted([Rule(REPLIES["silent"], name="n-7.*"), Rule(REPLIES["answer"])])
    writer = BookWriter(Question.of("", "A"))
    for n in range(5000):
        writer.add(encode_name(f"n-{n % 10}.test"))
    book, two = writer.close(), (Question.of("n-7.test"), Question.of("b.test"))
    wanted = [
        replace(
            series("127.0.0.1", server.port, "a.test", rate=100, seconds=1, index=k, lane=str(k), timeout=0.3),
            questions=questions,
        )
        for k, questions in enumerate([two, book, book])
    ]
    recorded = probe(*wanted, options=TWO)
    assert [recorded.outcomes(k) for k in range(3)] == [
        {"answer": 50, "timeout": 50},
        {"answer": 90, "timeout": 10},
        {"answer": 90, "timeout": 10},
    ]
    assert {failure.question for failure in recorded.failures} == {"n-7.test A"}


# -- a worker dies


def killed(wanted: Sequence[Series], *workers: int, after: float = 1.5) -> tuple[Recorded, Engine]:
    """A run in which workers are killed, to its end."""

    async def run() -> tuple[Recorded, Engine]:
        engine, recorded = Engine(TWO), Recorded(list(wanted))
        try:
            await engine.start(wanted)
            engine.begin()
            await asyncio.sleep(after)
            for worker in workers:
                os.kill(engine.worker_pids[worker], signal.SIGKILL)
            while not (engine.finished or engine.died):
                recorded.take(engine.flush())
                await asyncio.sleep(0.1)
            recorded.take(engine.flush())
        finally:
            await engine.close()
        return recorded, engine

    return asyncio.run(run())


def test_when_one_worker_dies_the_other_goes_on(scripted: Start) -> None:
    """Planned stays what the schedule has; what the dead one had not decided, or never asked, is undecided."""
    server = scripted([Rule(REPLIES["answer"])])
    wanted = [
        series("127.0.0.1", server.port, "a.test", rate=100, seconds=4, ports=ports, index=k, lane=ports, timeout=0.5)
        for k, ports in enumerate(["pool:8", "fixed", "fresh", "pool:1"])
    ]
    recorded, engine = killed(wanted, 1)
    (death,) = engine.deaths
    assert (death.worker, death.why, engine.died) == (2, KILLED, "")
    assert death.lanes == ("pool:8", "fresh", "pool:1"), "the port of `fixed` is the first worker's"
    assert death.from_ns == pytest.approx(1.5 * NS, abs=0.3 * NS)
    assert [recorded.planned(k) for k in range(4)] == [400] * 4
    answers = [recorded.outcomes(k)["answer"] for k in range(4)]
    assert sum(recorded.outcomes(1).values()) == 400
    assert answers[3] == pytest.approx(150, abs=30)
    for k in (0, 2):
        assert answers[k] == pytest.approx(200 + 75, abs=15)
    assert all(recorded.outcomes(k).keys() <= {"answer", "unsent"} for k in range(4))
    for second, column in recorded.seconds.items():
        left = (column.planned - column.counts.sum((2, 3))).sum(1)
        assert column.sealed
        assert (left[[0, 2]] == (0, 25, 50, 50, 0)[second]).all() or second == 1
    assert (recorded.seconds[3].planned[:, :] == 10).all()


def test_when_all_workers_die_the_run_is_over() -> None:
    recorded, engine = killed([ask("pool:4")], 0, 1, after=1.2)
    assert engine.died == f"all 2 workers ended, the last {KILLED}"
    assert not engine.finished
    assert 0 < recorded.planned() < 150


@pytest.mark.parametrize("patience", [0, 0.5])
def test_a_worker_that_ends_before_it_is_ready_is_named(
    patience: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it has read of what it is to do: killed where memory runs out, it leaves it unread."""
    worker = tmp_path / "worker"
    worker.write_text(f"#!/bin/sh\nsleep {patience}\nexit 3\n", encoding="ascii")
    worker.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(worker))
    with pytest.raises(EnvironmentProblem, match=r"worker did not start: (ended with exit code 3|it closed its end)"):
        probe(ask())


def test_a_worker_that_is_not_wanted_any_more_says_nothing() -> None:
    """Another one could not start: this one's first words stay unread."""
    room, memory = Room.create(4, NS)
    ours, theirs = Pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "probe.engine.worker", str(theirs.fileno()), str(memory), str(os.getpid())],
        pass_fds=(theirs.fileno(), memory), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    theirs.close()
    os.close(memory)
    ours.send((EngineOptions(max_series=4), "", room.places, (ask(),)))
    assert ours.poll(30)
    ours.close()
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "")


# -- the reader


def test_the_reader_waits_for_nobody_who_is_dead(pair: Make) -> None:
    one, two = pair(), pair()
    reader = Reader([one.room, two.room], str)
    one.plan(5)
    one.finish(5)
    one.writer.reached(2 * NS)
    two.plan(6, 7)
    two.finish(6)
    two.writer.reached(8)
    assert [c.sealed for c in reader.flush(1, 1).columns] == [False, False]
    two.room.version[0] += 1  # it died in the middle of a change
    reader.bury(1, lambda _, series: np.full((series, 10), 2))
    found = reader.flush(1, 1).columns
    assert [(c.second, c.sealed, int(c.planned.sum()), int(c.counts.sum())) for c in found] == [
        (0, True, 1 + 20, 2),
        (1, True, 20, 0),
    ]
    assert reader.flush(1, 1).columns == []
    assert not reader.done
    one.writer.reached(2 * NS, done=True)
    assert reader.done


def test_a_sealed_second_comes_once_though_an_earlier_one_is_open(pair: Make) -> None:
    both = pair()
    both.plan(10, NS + 10)
    both.finish(NS + 10, outcome=Outcome.TIMEOUT)
    both.writer.reached(2 * NS)
    assert [(c.second, c.sealed) for c in both.flush(1).columns] == [(0, False), (1, True)]
    assert both.flush(1).columns == []
    both.finish(10)
    assert [(c.second, c.sealed) for c in both.flush(1).columns] == [(0, True)]


def test_a_series_that_joined_while_one_worker_lagged_behind_is_there(pair: Make) -> None:
    one, two = pair(), pair()
    reader = Reader([one.room, two.room], str)
    one.plan(5)
    one.finish(5)
    one.writer.reached(NS)
    two.plan(6)
    assert [c.sealed for c in reader.flush(1, 0).columns] == [False]
    two.finish(6)
    two.writer.reached(NS)
    (column,) = reader.flush(2, 0).columns
    assert (column.sealed, column.planned.sum(1).tolist()) == (True, [2, 0])


# -- by the command line


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The worker processes of a run, once there are two."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        found = [int(pid) for pid in children if b"probe.engine.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if len(found) == 2:
            return found
        time.sleep(0.05)
    raise AssertionError("no two workers")


def test_a_worker_that_dies_is_told_within_a_second_and_is_a_doubt_of_its_lanes(
    scripted: Start, tmp_path: Path
) -> None:
    server = scripted([Rule(REPLIES["answer"])])
    (tmp_path / "load.yaml").write_text(
        "name: two\nduration: 6s\n"
        f"servers: [{{name: it, address: 127.0.0.1, port: {server.port}}}]\n"
        "lanes:\n"
        "  - {name: fixed, target: it, ports: fixed, rate: 100, timeout: 500ms, types: [A], questions: [a.test]}\n"
        "  - {name: fresh, target: it, ports: fresh, rate: 100, timeout: 500ms, types: [A], questions: [a.test]}\n"
    )
    process = start("run load.yaml -T 2 -o run.db --json run.json", tmp_path)
    second = workers_of(process)[1]
    while len(server.received()) < 300:
        time.sleep(0.1)
    os.kill(second, signal.SIGKILL)
    killed_at = time.monotonic()
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line == f"worker 2 of 2 {KILLED}: from then on its rows of fresh are not asked\n"
    assert time.monotonic() - killed_at < 1
    out, err = process.communicate(timeout=30)
    assert "Traceback" not in err
    assert process.returncode == 3
    report = json.loads((tmp_path / "run.json").read_text())
    assert report["verdict"] == "INCONCLUSIVE"
    (doubt,) = [doubt for doubt in report["doubts"] if doubt["id"] == "worker_died"]
    assert (doubt["lanes"], doubt["hides_loss"]) == (["fresh"], True)
    by_lane = {s["lane"]: s for s in report["series"]}
    assert [by_lane[lane]["planned"] for lane in ("fixed", "fresh")] == [600, 600]
    assert (by_lane["fixed"]["good"], by_lane["fixed"]["in_flight"]) == (600, 0)
    (mark,) = [mark for mark in report["marks"] if mark["kind"] == "worker_died"]
    left = 50 * (6 - mark["seconds"])
    assert by_lane["fresh"]["in_flight"] == pytest.approx(left, abs=3)
    assert by_lane["fresh"]["good"] == 600 - by_lane["fresh"]["in_flight"]
    assert "worker 2 of 2 ended by signal 9" in out


def test_when_the_last_worker_dies_the_run_is_cut(scripted: Start, tmp_path: Path) -> None:
    server = scripted([Rule(REPLIES["answer"])])
    process = start(f"run -s 127.0.0.1 -p {server.port} -Q 200 -l 60 -T 2 -o run.db", tmp_path)
    workers = workers_of(process)
    for count, pid in zip((200, 400), workers, strict=True):
        while len(server.received()) < count:
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "worker 1 of 2 ended by signal 9" in err
    run = open_run(tmp_path / "run.db")
    assert "all 2 workers ended" in run.cut
    assert [doubt.id for doubt in doubts_of(run)][:1] == ["cut"]


def test_a_series_that_ends_and_one_that_comes_are_every_workers(scripted: Start) -> None:
    server = scripted([Rule(REPLIES["answer"])])
    first = series("127.0.0.1", server.port, "a.test", seconds=3, timeout=0.3)
    late = [
        series("127.0.0.1", server.port, "a.test", seconds=3, timeout=0.3, index=k, lane=f"late-{ports}", ports=ports)
        for k, ports in enumerate(["fresh", "fixed", "fixed"], 1)
    ]
    late[2] = replace(late[2], lane="late-too")

    async def run() -> tuple[Recorded, list[Series]]:
        engine, recorded = Engine(TWO), Recorded([first])
        await engine.start([first])
        engine.begin()
        await asyncio.sleep(0.5)
        recorded.series += engine.add([replace(s, start_ns=engine.now_ns()) for s in late])
        await asyncio.sleep(1)
        ended = engine.end([0, 2, 3], engine.now_ns())
        while not engine.finished:
            recorded.take(engine.flush())
            await asyncio.sleep(0.1)
        recorded.take(engine.flush())
        await engine.close()
        return recorded, [ended[0], recorded.series[1], *ended[1:]]

    recorded, told = asyncio.run(run())
    for index, one in enumerate(told):
        assert recorded.planned(index) == pacer_of(one).count(0, 10 * NS) > 60
        assert asked_of(recorded, index) == {"answer": 1}


def test_a_second_is_not_over_before_the_rows_of_its_last_tick_have_left() -> None:
    """Up to 9 rows that were due within the 200 us before a second's end would be in no book."""
    worker = Worker(Room.create(4, NS)[0], EngineOptions(seed=1))
    worker.add((series("127.0.0.1", 53, "a.test", rate=50_000, seconds=2, ports="pool:4"),))
    worker._t0 = time.monotonic_ns()
    (path,) = worker._used
    worker._load(path)
    transport = path.transport
    assert isinstance(transport, Udp)
    rows = transport._ledger.rows
    reached = worker._reached([path], worker._t0)
    worker.close()
    assert reached == rows.due.min() - worker._t0 < rows.release.min() - worker._t0
