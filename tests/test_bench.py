"""What the bench reads from other tools' reports, and what it makes of the numbers."""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from pathlib import Path

import pytest

from bench.capture import round_trips
from bench.load import Figures, Load, Missing, Turns
from bench.measures import MEASURES
from bench.plots import bars, steepest
from bench.processes import Ended, Overdue, look, run
from bench.rounds import Bench
from bench.scenarios import scenario
from bench.servers import Servers
from bench.table import COST, LOST, SPEED, Demand, compared, markdown, ratio, tabled
from bench.tools import TOOLS, dnsprobe_run, read_dnsperf, read_dnsprobe, read_dnspyre
from probe.scenario.file import read_scenario_text
from probe.scenario.plan import expected_series
from tests.servers import ScriptedServer

DNSPERF = """\
DNS Performance Testing Tool
Version 2.10.0

[Status] Sending queries (to 127.0.0.1:5300)
> NOERROR a.example.test A 0.000300
> NOERROR a.example.test A 0.000100
> T a.example.test A
> NOERROR a.example.test A 0.000200

Statistics:

  Queries sent:         12000
  Queries completed:    11900 (99.17%)
  Queries lost:         100 (0.83%)

  Response codes:       NOERROR 11900 (100.00%)
  Average packet size:  request 32, response 48
  Run time (s):         12.500000
  Queries per second:   952.000000

  Average Latency (s):  0.000021 (min 0.000008, max 0.001312)
  Latency StdDev (s):   0.000021

Connection Statistics:

  Reconnections:        0

  Average Latency (s):  0.001283 (min 0.000305, max 0.001469)
"""

DNSPYRE = (
    '{"totalRequests":9001,"totalSuccessResponses":8990,"totalNegativeResponses":0,"totalErrorResponses":0,'
    '"totalIOErrors":10,"totalIDmismatch":1,"totalTruncatedResponses":0,"responseRcodes":{"NOERROR":8990},'
    '"questionTypes":{"A":9001},"queriesPerSecond":750.08,"benchmarkDurationSeconds":12,'
    '"latencyStats":{"minMs":0,"meanMs":0,"stdMs":0,"maxMs":3,"p99Ms":0,"p95Ms":0,"p90Ms":0,"p75Ms":0,"p50Ms":0}}\n'
)

DNSPROBE = {
    "totals": {
        "planned": 1000,
        "outcomes": {"answer": 900, "timeout": 60, "unsent": 40},
        "counters": {"own_drops": 7},
    },
    "series": [
        {"rtt_seconds": {"p50": 0.0001, "p99": 0.001}, "latency_seconds": {"p50": 0.0002, "p99": None}},
    ],
    "environment": {"planned_seconds": 2.0, "schedule_lag_p99_seconds": 0.0005},
}


def ended(out: str) -> Ended:
    return Ended(0, out, "", 0.5)


def figures(answered: int, cpu: float = 1.0) -> Figures:
    return Figures(sent=answered, answered=answered, lost=0, asking=1.0, cpu=cpu)


def test_dnsperfs_report() -> None:
    read = read_dnsperf(ended(DNSPERF))
    assert (read.sent, read.answered, read.lost, read.asking) == (12000, 11900, 100, 12.5)
    assert (read.p50, read.p99) == (0.0002, 0.0003)
    assert read.rate == 952
    assert read.cost == pytest.approx(0.5 / 11900 * 1e6)
    assert read.in_time is None


def test_a_report_that_is_none_is_a_tool_that_is_missing() -> None:
    with pytest.raises(Missing, match="'Queries sent'"):
        read_dnsperf(ended("Error: no such host"))


def test_dnspyres_report() -> None:
    read = read_dnspyre(ended(DNSPYRE))
    assert (read.sent, read.answered, read.lost, read.asking) == (9001, 8990, 11, 12)


def test_dnsprobes_report() -> None:
    read = read_dnsprobe(json.dumps(DNSPROBE), ended(""))
    assert (read.sent, read.answered, read.lost, read.unsent, read.own_drops) == (960, 900, 60, 40, 7)
    assert (read.p50, read.due_p50, read.due_p99, read.lag_p99) == (0.0001, 0.0002, None, 0.0005)
    assert (read.rate, read.in_time) == (450, 0.96)


def test_an_option_that_is_not_in_this_build_is_a_reason_without_a_path(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"^not in this build: no\.yaml: no such file or shipped scenario"):
        dnsprobe_run([str(tmp_path / "no.yaml")], 1, tmp_path)


def test_a_ratio_is_the_median_of_ratios_of_the_same_round() -> None:
    ours, theirs = [figures(100), figures(300), figures(50)], [figures(50), figures(100), figures(100)]
    assert ratio(ours, theirs, SPEED.pick) == 2
    assert ratio(ours, [], SPEED.pick) is None


@pytest.mark.parametrize(
    ("compare", "limit", "value", "asked", "measured", "holds"),
    [
        (">=", 1.4, 1.41, ">= 1.40 x", "1.41 x", "yes"),
        (">=", 1.4, 1.39, ">= 1.40 x", "1.39 x", "no"),
        ("<=", 0.65, 0.65, "<= 0.65 x", "0.65 x", "yes"),
        ("<=", 0.65, 0.651, "<= 0.65 x", "0.65 x", "no"),
        ("<=", 0.65, None, "<= 0.65 x", "not measured", "-"),
    ],
)
def test_what_was_asked_stands_beside_what_was_measured(
    compare: str, limit: float, value: float | None, asked: str, measured: str, holds: str
) -> None:
    demand = Demand("it", compare, limit, value)
    assert (demand.asked, demand.measured, demand.holds) == (asked, measured, holds)


def test_the_table() -> None:
    turns = Turns({"ours": [figures(2000)], "theirs": [figures(1000, 2.0)]}, {"other": "needs other: run `make other`"})
    columns = (SPEED, compared(SPEED, "theirs", "theirs"), COST, LOST)
    section = tabled("Speed", turns, columns, (Demand("to theirs", ">=", 1.4, 2.0),), ("a note",))
    assert markdown([section], [("date", "today")]) == (
        "# What `make bench` measured\n"
        "\n"
        "| run |  |\n"
        "|---|---|\n"
        "| date | today |\n"
        "\n"
        "## Must show\n"
        "\n"
        "| asked in the issue | asked | measured | holds |\n"
        "|---|---:|---:|---:|\n"
        "| to theirs | >= 1.40 x | 2.00 x | yes |\n"
        "\n"
        "## Speed\n"
        "\n"
        "|  | answered/s | to theirs | CPU us/query | lost |\n"
        "|---|---:|---:|---:|---:|\n"
        "| ours | 2,000 | 2.00 x | 500.00 | 0 |\n"
        "| theirs | 1,000 | 1.00 x | 2,000.00 | 0 |\n"
        "| other | - | - | - | - |\n"
        "\n"
        "- a note\n"
        "- other: needs other: run `make other`\n"
    )


def test_tools_take_turns_and_are_asked_once_for_the_same_load(tmp_path: Path) -> None:
    taken: list[str] = []

    def tool(name: str) -> Figures:
        taken.append(name)
        if name == "c":
            raise Missing("needs c")
        return figures(10)

    tools = {name: lambda _load, _folder, name=name: tool(name) for name in "abc"}
    bench = Bench(2, 1, 1, tmp_path, Servers(tmp_path), lambda _text: None)
    turns = bench.turns(tools, Load(1, 1))
    assert bench.turns({"a": tools["a"]}, Load(1, 1)).of("a") == turns.of("a")
    assert taken == ["a", "b", "c", "a", "b"]
    assert (len(turns.of("b")), turns.of("c"), turns.notes) == (2, [], ("c: needs c",))


def test_a_plot_and_how_steep_it_is() -> None:
    assert bars("cost", [("1", 4), ("10", 2)], "us", 4) == "cost\n 1 ████ 4.00 us\n10 ██   2.00 us"
    assert steepest([(1, 1), (10, 10), (11, 20), (110, 40)]) == pytest.approx(1)
    assert steepest([(1, 1)]) is None


def frame(at_ns: int, source: int, target: int, message: int) -> bytes:
    """A pcap record: Ethernet, IPv4, UDP, the head of a DNS message."""
    ip = bytes([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17]) + bytes(10)
    whole = (
        bytes(12) + b"\x08\x00" + ip + struct.pack("!4H", source, target, 20, 0) + struct.pack("!6H", message, *[0] * 5)
    )
    return struct.pack("=4I", at_ns // 10**9, at_ns % 10**9, len(whole), len(whole)) + whole


def test_round_trips_of_a_capture() -> None:
    head = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 128, 1)
    capture = head + b"".join(
        (
            frame(10**9 - 50, 40_000, 53, 7),
            frame(10**9, 40_001, 53, 7),
            frame(10**9 + 150, 53, 40_000, 7),
            frame(10**9 + 999, 53, 40_000, 7),  # a duplicate
            frame(10**9 + 300, 53, 40_001, 7),
            frame(10**9 + 400, 53, 40_001, 8),  # an answer to nothing
        )
    )
    assert round_trips(capture, 53) == pytest.approx([200e-9, 300e-9])


BURN = "import time; t = time.process_time()\nwhile time.process_time() < t + 0.2: pass"


def test_the_cpu_of_a_command_has_that_of_its_children_in_it() -> None:
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}])"
    found = run([sys.executable, "-c", child], 20, look_every=0.05)
    assert found.code == 0
    assert found.cpu > 0.2
    assert max(sample.pss for sample in found.samples) > 1e6


def test_a_command_that_does_not_end_is_ended() -> None:
    command = [sys.executable, "-c", "import time; print('began', flush=True); time.sleep(60)"]
    with pytest.raises(Overdue, match="not ended"):
        run(command, 0.5)
    assert look(os.getpid()).files > 0


def test_a_scenario_asks_as_often_as_it_should() -> None:
    plan = read_scenario_text("bench", scenario(5300, 50, ["fresh", "pool:16", "fixed"], 10_000, 2, "1s"), [])
    series = expected_series(plan)
    assert len(series) == 150
    assert float(sum(each.rate for each in series)) == pytest.approx(10_000, rel=1e-4)
    assert {each.target.port for each in series} == {5300}


@pytest.mark.parametrize(
    ("tool", "rate"), [("floor", 0), ("floor", 500), ("floor, 16 a send", 0), ("aiodns", 0), ("dnspython", 0)]
)
def test_our_own_loops_put_a_datagram_on_the_wire_for_each_query(tool: str, rate: int, tmp_path: Path) -> None:
    began = time.monotonic()
    with ScriptedServer([]) as server:
        found = TOOLS[tool](Load(server.port, 0.3, rate), tmp_path)
        assert len(server.received()) == found.sent
    assert 0 < found.answered == found.sent
    assert time.monotonic() - began < 20


def test_the_measures_of_the_issue_are_there() -> None:
    asked = "saturation cpu latency lanes fresh tcp pacing capture memory cost blackout standing scrape harm"
    assert list(MEASURES) == asked.split()
