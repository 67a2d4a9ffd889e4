"""The highest rate that meets the objectives: how it is searched for, what is said of it, servers of known limits."""

from __future__ import annotations

import asyncio
import json
import math
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probe.engine import EngineOptions
from probe.errors import DnsprobeError
from probe.histogram import bins_of
from probe.live.curve import compared, line, sentence
from probe.model import NS, Interval, Target, TargetKind
from probe.outcome import Counter, Outcome
from probe.runfile import Head, Run, RunWriter, open_run
from probe.scenario.adhoc import Options
from probe.scenario.capacity import Capacity, Search, Wanted, find, search_of
from probe.scenario.trial import Trial, trial_of
from probe.timeline import Loss
from probe.verdict import Judged, Ruling, parse_objective
from tests.conftest import Start
from tests.servers import REPLIES, Rule
from tests.synthetic import MS, STARTED, columns_of, flush_of, series_of
from tests.test_cli import ran, start, told

HERE = Target("127.0.0.1", TargetKind.SERVER, "127.0.0.1")
MISSED = Judged(parse_objective("loss <= 0.1%"), Ruling.FAIL, 0.004, False)
MACHINES = "use more machines (`dnsprobe run --shard`)"
UNSENT = "3.2 % of the queries were not sent (stall)"


def trial(rate: int, met: bool = True, limit: str = "") -> Trial:
    """A second at a rate; of one that was missed 0.4 % were lost."""
    limit = "" if met else limit
    lost = 0 if met else math.ceil(rate * 0.004)
    ruling = Ruling.INCONCLUSIVE if limit else Ruling.FAIL
    missed = None if met else replace(MISSED, ruling=ruling)
    p99_ns = 3.1 * MS if met else math.inf
    return Trial(
        rate,
        1.0,
        Loss(rate, rate - lost, lost, 0, 0),
        2e5,
        p99_ns,
        0.5,
        missed,
        limit,
        "quota" in limit,
        Path(f"{rate}.db"),
    )


def searching(lowest: int = 1000, highest: int = 10**6, carried: int = 0, limit: str = "") -> Search:
    plan = search_of(Options(["127.0.0.1"]), Wanted(), EngineOptions()).plan
    return Search(plan, lowest, highest, 0.05, carried or highest, limit)


def found_of(search: Search, become: Callable[[int, int], Trial | None]) -> Capacity:
    """What is found where become(rate, nth) is what becomes of a trial."""

    async def ask(_: Target, rate: int, nth: int) -> Trial | None:
        return become(rate, nth)

    return asyncio.run(find(search, HERE, ask, lambda _: None))


def asked(found: Capacity) -> list[int]:
    return [t.rate for t in found.trials]


# --- The search ---


def test_doubling_then_halving_and_what_misses_is_tried_again() -> None:
    found = found_of(searching(), lambda rate, _: trial(rate, rate <= 41_300))
    ramp, between = [1000, 2000, 4000, 8000, 16_000, 32_000], [48_000] * 2 + [40_000] + [44_000] * 2 + [42_000] * 2
    assert asked(found) == [*ramp, 64_000, 64_000, *between]
    assert found.met
    assert found.missed
    assert (found.met.rate, found.missed.rate, found.ruling) == (40_000, 42_000, Ruling.PASS)


@pytest.mark.parametrize("limit", [1000, 1001, 1049, 1100, 1999, 2000, 4700, 99_999, 123_456, 999_000])
def test_it_is_found_to_the_precision(limit: int) -> None:
    found = found_of(searching(), lambda rate, _: trial(rate, rate <= limit))
    assert found.met
    assert found.met.rate <= limit <= found.met.rate * 1.05 + 1
    assert len(found.trials) < 26


def test_noise_is_no_miss() -> None:
    """Each rate that the server can carry is missed once, and met when it is tried again."""
    found = found_of(searching(), lambda rate, nth: trial(rate, rate <= 5000 and nth == 2))
    assert found.met
    assert found.met.rate == 5000


def test_the_server_failed_if_it_did_once() -> None:
    """Whatever this prober did the other time."""
    found = found_of(searching(), lambda rate, nth: trial(rate, rate <= 4000, UNSENT if nth == 2 else ""))
    assert (found.limit, found.ruling) == ("", Ruling.PASS)


def test_the_highest_rate_is_enough() -> None:
    found = found_of(searching(highest=3000), lambda rate, _: trial(rate))
    assert asked(found) == [1000, 2000, 3000]
    assert (found.ruling, found.missed) == (Ruling.PASS, None)


def test_not_even_the_lowest() -> None:
    found = found_of(searching(), lambda rate, _: trial(rate, False))
    assert asked(found) == [1000, 1000]
    assert (found.ruling, found.met) == (Ruling.FAIL, None)


def test_where_the_prober_gives_up_it_goes_on_below() -> None:
    """It may be that the server gives up first, and then its limit is found after all."""
    found = found_of(searching(), lambda rate, _: trial(rate, rate <= 52_000, UNSENT if rate > 52_000 else ""))
    assert found.met
    assert (found.met.rate, found.limit, found.ruling) == (52_000, UNSENT, Ruling.INCONCLUSIVE)
    found = found_of(searching(), lambda rate, _: trial(rate, rate <= 40_000, UNSENT if rate > 52_000 else ""))
    assert found.met
    assert (found.met.rate, found.limit, found.ruling) == (40_000, "", Ruling.PASS)


def test_what_ports_and_ids_cannot_carry_is_not_asked() -> None:
    found = found_of(searching(carried=16_384, limit="too few ports"), lambda rate, _: trial(rate))
    assert asked(found)[-2:] == [16_000, 16_384]
    assert (found.limit, found.ruling) == ("too few ports", Ruling.INCONCLUSIVE)


def test_a_search_that_is_interrupted_says_how_far_it_came() -> None:
    found = found_of(searching(), lambda rate, _: None if rate == 3000 else trial(rate, rate < 4000))
    assert (asked(found), found.complete) == ([1000, 2000, 4000, 4000], False)
    assert sentence(found) == "capacity of 127.0.0.1: >= 2,000 q/s, under 4,000 q/s so far: interrupted"


# --- What is said ---


@pytest.mark.parametrize(
    ("met", "missed", "limit", "said"),
    [
        (41_300, 43_000, "", "41,300 q/s (p99 3.1 ms at it; at 43,000 loss 0.4 %)"),
        (10**6, 0, "", ">= 1,000,000 q/s (p99 3.1 ms at it), the highest rate that was asked: raise --to"),
        (0, 1000, "", "under 1,000 q/s, the lowest rate that was asked: loss 0.4 %"),
        (
            52_000,
            54_000,
            UNSENT,
            f">= 52,000 q/s (p99 3.1 ms at it): this prober is the limit: at 54,000 {UNSENT}; {MACHINES}",
        ),
        (0, 1000, UNSENT, f"unknown: at 1,000 q/s this prober is the limit: {UNSENT}; {MACHINES}"),
        (16_384, 0, "too few ids", ">= 16,384 q/s (p99 3.1 ms at it): this prober is the limit: too few ids"),
    ],
)
def test_what_is_said(met: int, missed: int, limit: str, said: str) -> None:
    found = Capacity(
        HERE, (), trial(met) if met else None, trial(missed, False, limit) if missed else None, limit, complete=True
    )
    assert sentence(found, workers=10_000) == f"capacity of 127.0.0.1: {said}"


def test_no_worker_makes_up_for_a_quota() -> None:
    limit = f"{UNSENT}, 700 ms of CPU withheld by the cgroup's quota"
    found = Capacity(HERE, (), trial(52_000), trial(54_000, False, limit), limit, complete=True)
    assert sentence(found).endswith("the cgroup's quota; give it a higher CPU limit, or none")


def test_more_workers_are_advised_while_there_are_cores() -> None:
    found = Capacity(HERE, (), trial(52_000), trial(54_000, False, UNSENT), UNSENT, complete=True)
    assert sentence(found, workers=0).endswith("; use -T 1 or more machines (`dnsprobe run --shard`)")


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (trial(1000), "      1,000      1,000      1,000       0 %   200 us   3.1 ms  met"),
        (trial(1000, False), "      1,000      1,000        996     0.4 %   200 us    never  missed: loss 0.4 %"),
        (
            trial(1000, False, UNSENT),
            f"      1,000      1,000        996     0.4 %   200 us    never  unknown (this prober: {UNSENT})",
        ),
    ],
)
def test_a_line_of_the_curve(one: Trial, said: str) -> None:
    assert line(one) == said


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ([1000], ""),
        ([1000, 0], ""),
        ([18_000, 12_000, 15_000], "slowest: pod 1, 12,000 q/s, 33 % below the fastest, pod 0, 18,000 q/s"),
        ([2000, 2000], "all alike: 2,000 q/s"),
    ],
)
def test_servers_are_compared(rates: Sequence[int], said: str) -> None:
    found = [
        Capacity(replace(HERE, name=f"pod {n}"), (), trial(r) if r else None, trial(9 * r, False), "", complete=True)
        for n, r in enumerate(rates)
    ]
    assert compared(found) == said


# --- Whose limit it was ---


def measured(
    path: Path, objective: str, *, lost: int = 0, unsent: int = 0, slow: int = 0, drops: int = 0, late: int = 0
) -> Run:
    """1,000 rows in 10 s: the first `lost`, the next `slow` in 200 ms, later some unsent; `late` left 30 ms late."""
    series = [series_of(rate=100, kind=TargetKind.SERVER, address="127.0.0.1")]
    fate = {**dict.fromkeys(range(lost), Outcome.TIMEOUT), **dict.fromkeys(range(500, 500 + unsent), Outcome.UNSENT)}
    columns = columns_of(
        series,
        lambda _, due: fate.get(due // (10 * MS), Outcome.ANSWER),
        lambda due: 200 * MS if due // (10 * MS) < lost + slow else MS,
    )
    flush = flush_of(columns, 1)
    flush.counters[0, Counter.OWN_DROPS] = drops
    flush.lag[np.flatnonzero(flush.lag)] -= late
    flush.lag[bins_of(np.array([30 * MS]))] += late
    writer = RunWriter.create(path, Head("capacity", STARTED, 10 * NS, objectives=(objective,)))
    writer.add_series(series)
    writer.flush(replace(flush, lag_max_ns=40 * MS), 10 * NS)
    writer.finish(10 * NS)
    return open_run(path)


@pytest.mark.parametrize(
    ("objective", "what", "cpu", "met", "limit"),
    [
        ("loss <= 1%", {}, 0.5, True, ""),
        ("loss <= 1%", {"late": 500}, 0.99, True, ""),
        ("loss <= 1%", {"unsent": 5}, 0.5, True, ""),
        ("loss <= 1%", {"unsent": 40}, 0.5, False, "4 % of the queries were not sent (stall)"),
        ("loss <= 9%", {"unsent": 40}, 0.5, False, "4 % of the queries were not sent (stall)"),
        ("loss <= 1%", {"lost": 50}, 0.99, False, ""),
        ("loss <= 1%", {"lost": 50, "unsent": 40, "late": 30}, 0.5, False, ""),
        ("loss <= 1%", {"lost": 50, "late": 45}, 0.5, False, "4.5 % of the queries left over 5 ms late"),
        ("loss <= 1%", {"lost": 50, "drops": 50}, 0.5, False, "50 replies were dropped by its own receive buffer"),
        ("loss <= 1%", {"lost": 50, "drops": 5}, 0.5, False, ""),
        ("p90 <= 100ms", {"slow": 150}, 0.5, False, ""),
        ("p90 <= 100ms", {"slow": 150, "late": 30}, 0.5, False, ""),
        ("p90 <= 100ms", {"slow": 150, "late": 80}, 0.5, False, "8 % of the queries left over 5 ms late"),
        ("p90 <= 100ms", {"slow": 150}, 0.99, False, "99 % of its core was used"),
        ("max <= 100ms", {"slow": 1, "late": 1}, 0.5, False, "0.1 % of the queries left over 5 ms late"),
        ("longest_disruption <= 100ms", {"lost": 50}, 0.5, False, ""),
        ("longest_disruption <= 100ms", {"lost": 50, "late": 20}, 0.5, False, "2 % of the queries left over 5 ms late"),
    ],
)
def test_whose_limit_it_was(
    tmp_path: Path, objective: str, what: dict[str, int], cpu: float, met: bool, limit: str
) -> None:
    """What is missed even if it was the rows that this prober sent late is the server's."""
    made = trial_of(measured(tmp_path / "run.db", objective, **what), 100, cpu)
    assert (made.met, made.limit) == (met, limit)
    sent = 100 - what.get("unsent", 0) / 10
    assert (made.sent, made.answered) == (sent, sent - what.get("lost", 0) / 10)


def test_a_quota_is_named_with_what_it_did(tmp_path: Path) -> None:
    series = [series_of(rate=100, kind=TargetKind.SERVER, address="127.0.0.1")]
    columns = columns_of(series, lambda _, due: Outcome.UNSENT if due < NS else Outcome.ANSWER)
    writer = RunWriter.create(tmp_path / "run.db", Head("capacity", STARTED, 10 * NS, objectives=("loss <= 1%",)))
    writer.add_series(series)
    writer.interval(Interval(0, NS, "throttled", "700 ms of CPU withheld by the cgroup's quota", "host"))
    writer.flush(flush_of(columns, 1), 10 * NS)
    writer.finish(10 * NS)
    limit = trial_of(open_run(tmp_path / "run.db"), 100, 0.1).limit
    assert limit == "10 % of the queries were not sent (stall), 700 ms of CPU withheld by the cgroup's quota"


# --- What was typed ---


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("", 2, "no server: say -s ADDRESS"),
        ("-s 192.0.2.1", 2, "--to 1M: 1,000,000 q/s in all towards other machines; 1,000 q/s is the ceiling"),
        ("-s 192.0.2.1", 2, "or raise it with --max-qps 1000000"),
        ("-s ::1 --to many", 2, "--to 'many': queries a second from 1 to 1,000,000, e.g. 1000, 50k, 1M"),
        ("-s ::1 --from 0", 2, "--from '0': queries a second from 1"),
        ("-s ::1 --from 2k --to 1k", 2, "--from 2k: is above --to 1k"),
        ("-s ::1 --step-length 1ms", 2, "--step-length '1ms': a duration from 500ms to 10m is allowed here"),
        ("-s ::1 --precision 5", 2, "--precision '5': a percentage from 1% to 50%, e.g. 5%"),
        ("-s ::1 --objective 'loss > 1%'", 2, "--objective 'loss > 1%': say what must hold, e.g. 'loss <= 0.1%'"),
        ("-s ::1 --objective 'p99(vip-*) < 1s'", 2, "matches no lane; nearest: udp-pool"),
        ("-s ::1 --from 100", 2, "--from 100: 500 queries a step are too few to show 'loss <= 0.1%', which takes 1"),
        ("-s ::1 --from 100", 2, "say --step-length 10s, or --from 200"),
        ("-s ::1 --ports fixed --from 20k", 2, "65,536 / (2 x timeout) = 16,384 q/s"),
        ("-s ::1 --gso 16", 2, "no such option: --gso"),
        ("-s ::1 -o none/here", 2, "-o none/here: its folder does not exist"),
        ("-s ::1 -o /proc/here", 2, "-o /proc/here: cannot be made: "),
        ("-s ::1 -T 0", 2, "-T '0': "),
    ],
)  # fmt: skip
def test_wrong_words_are_answered_before_anything_starts(
    command: str,
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    got, out, err = told(f"capacity {command}", capsys)
    assert (got, out) == (code, "")
    assert said in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "carried", "limit"),
    [
        (Options(["::1"]), 10**6, ""),
        (Options(["::1"], ports="fixed"), 16_384, "query ids again too soon"),
        (Options(["::1"], ports="fresh", timeout="1"), 14_000, "source ports"),
    ],
)
def test_how_much_ports_ids_and_files_can_carry(options: Options, carried: int, limit: str) -> None:
    search = search_of(options, Wanted(), EngineOptions())
    assert search.carried == pytest.approx(carried, rel=0.15)
    assert limit in search.limit


def test_ports_are_the_same_at_each_rate() -> None:
    """The default is that of the highest rate."""
    assert [str(lane.ports) for lane in searching().plan.lanes] == ["pool:64"]
    low = search_of(Options(["::1"]), Wanted(highest="2k"), EngineOptions())
    assert [str(lane.ports) for lane in low.plan.lanes] == ["fresh"]


# --- Servers ---

QUICK = "-n a.test -t 0.3 --step-length 1s --from 2000 --to 60k --objective 'loss <= 0.5%'"


def limited(rate: float) -> list[Rule]:
    return [Rule(REPLIES["answer"], per_second=rate), Rule(REPLIES["silent"])]


def test_a_known_limit_is_found_twice(scripted: Start, tmp_path: Path) -> None:
    server = scripted(limited(4700))
    for name in ("first", "second"):
        command = f"capacity -s 127.0.0.1 -p {server.port} {QUICK} --from 4k --precision 8% -o {name}"
        code, out, err = ran(f"{command} --json {name}.json", tmp_path)
        assert code == 0, out + err
        told_json: dict[str, Any] = json.loads((tmp_path / f"{name}.json").read_text())
        (target,) = told_json["targets"]
        assert target["capacity"] == pytest.approx(4700, rel=0.1)
        assert (told_json["verdict"], target["is_lower_bound"]) == ("PASS", False)
        assert f"capacity of 127.0.0.1: {target['capacity']:,} q/s (p99 " in out.splitlines()[-1]
        assert len([row for row in out.splitlines() if row.endswith("met") or "missed: loss" in row]) == len(
            target["trials"]
        )
        for one in target["trials"]:
            run = open_run(tmp_path / one["run_file"])
            assert run.series[0].rate == Fraction(one["asked"])
            assert "gso" not in run.head.facts or run.head.facts["gso"] == "off"


def test_servers_one_after_the_other(scripted: Start, tmp_path: Path) -> None:
    """One that nobody listens on makes the verdict: not even the lowest rate."""
    slow = scripted(limited(2500), "127.0.0.2")
    quick = QUICK.replace("--to 60k", "--to 4k") + " --precision 30%"
    code, out, err = ran(f"capacity -s 127.0.0.2 -p {slow.port} -s 127.0.0.3 {quick} -o curve --json -", tmp_path)
    assert code == 1, out + err
    verdicts = {target["address"]: target["verdict"] for target in json.loads(out)["targets"]}
    assert verdicts == {"127.0.0.2": "PASS", "127.0.0.3": "FAIL"}
    assert "capacity of 127.0.0.3: under 2,000 q/s, the lowest rate that was asked: loss 100 %" in err


def test_where_the_prober_is_the_limit_nothing_is_found(scripted: Start, tmp_path: Path) -> None:
    server = scripted()
    command = f"capacity -s 127.0.0.1 -p {server.port} -n a.test -t 1s --ports fixed --step-length 1s"
    code, out, _ = ran(f"{command} --from 1000 --to 40k --objective 'loss <= 50%'", tmp_path)
    assert code == 3
    assert "this prober is the limit: " in out.splitlines()[-1]
    assert len(list(tmp_path.glob("dnsprobe-capacity-*/127.0.0.1-*.db"))) >= 1


def test_an_interrupted_search_says_how_far_it_came(scripted: Start, tmp_path: Path) -> None:
    server = scripted()
    process = start(f"capacity -s 127.0.0.1 -p {server.port} -n a.test --to 1000 --step-length 20s -o curve", tmp_path)
    assert process.stdout
    process.stdout.readline()
    while not list(tmp_path.glob("curve/*.db")):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert out.splitlines()[-1] == "capacity of 127.0.0.1: interrupted before anything was found"


def test_a_folder_is_never_written_into_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = told(f"capacity -s ::1 -o {tmp_path}", capsys)
    assert code == 2
    assert f"-o {tmp_path}: exists already; name another folder" in err


def test_errors_are_sentences() -> None:
    with pytest.raises(DnsprobeError, match="--from"):
        search_of(Options(["::1"]), Wanted(lowest="x"), EngineOptions())
