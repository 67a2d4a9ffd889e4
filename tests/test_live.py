"""What a person sees while a run goes: counts that follow flushes, a table, a line every 5 s."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from rich.console import Console

from probe.histogram import BINS
from probe.live import Lines, LiveTable
from probe.live.events import Events
from probe.live.table import fitting
from probe.live.tally import Tally
from probe.model import NS, Mark, Series, Shape
from probe.outcome import Counter, Outcome, UnsentCause
from probe.recorder import Columns, Flush
from probe.report.units import duration
from probe.scenario.plan import Plan, series_of
from tests.test_plan import ONE, lane

VIP, POD = ("vip", "one"), ("pods", "one")
PLAN = Plan("drawn", 20 * NS, (lane("A"),))


def series(*lanes: str) -> list[Series]:
    return [series_of(lane("A", rate=Fraction(10), name=name), ONE, i, 0, 20 * NS)[0] for i, name in enumerate(lanes)]


def flush(*drawings: tuple[int, bool, list[str]]) -> Flush:
    """Seconds from drawings, a text for each series: `.` good, x timeout, r refused, u unsent, blank not finished."""
    outcome = {".": Outcome.ANSWER, "x": Outcome.TIMEOUT, "r": Outcome.CONNECTION_REFUSED, "u": Outcome.UNSENT}
    made = []
    for second, sealed, drawing in drawings:
        n = len(drawing)
        counts = np.zeros((n, 10, len(Outcome), 2), np.int64)
        durations = np.zeros((n, 3, BINS), np.int64)
        for i, text in enumerate(drawing):
            for row in text.replace(" ", ""):
                counts[i, 0, outcome[row], int(row == ".")] += 1
                durations[i, 0, 320] += row == "."
        planned = np.zeros((n, 10), np.int64)
        planned[:, 0] = [len(text) for text in drawing]
        none = np.full((n, 10), -1)
        made.append(Columns(second, sealed, planned, counts, none, none, durations, np.zeros((n, 3), np.int64)))
    width = len(made[0].planned)
    unsent, counters = np.zeros((width, len(UnsentCause)), np.int64), np.zeros((width, len(Counter)), np.int64)
    return Flush(made, unsent, counters, np.zeros(BINS, np.int64), 0, [])


def test_a_second_that_comes_again_replaces_itself() -> None:
    tally = Tally()
    tally.add(series("vip"))
    tally.take(flush((0, False, ["..   "])))
    assert tally.good_and_lost(VIP) == (2, 0)
    tally.take(flush((0, False, ["...x "]), (1, False, [".    "])))
    assert tally.good_and_lost(VIP) == (4, 1)
    tally.take(
        flush(
            (0, True, ["...xu"]),
            (
                1,
                True,
                [
                    ".....",
                ],
            ),
        )
    )
    assert tally.good_and_lost(VIP) == (8, 1), "unsent is not lost: it is our own fault"
    assert tally.asked(VIP) == 5


def test_the_state_is_what_most_bad_rows_of_the_last_5_s_are() -> None:
    tally = Tally()
    tally.add(series("vip", "pods"))
    assert tally.state(VIP) == "-"
    said = []
    for second, drawing in enumerate([".....", "..xrr", "xxx..", *["....."] * 6]):
        tally.take(flush((second, True, [drawing, "....."])))
        said.append(tally.state(VIP))
    assert said == ["good", "connection_refused", *["timeout"] * 5, "good", "good"]
    assert tally.state(POD) == "good"
    assert tally.good_and_lost(VIP) == (39, 6)


def test_a_pod_that_was_told_to_go_counts_no_more() -> None:
    tally = Tally()
    tally.add(series("vip", "pods"))
    tally.take(flush((0, True, ["....", "...."])))
    tally.end("one")
    tally.take(flush((1, True, ["....", "rrrr"])))
    assert tally.good_and_lost(POD) == (4, 0)
    assert tally.state(POD) == "ended"


def test_series_that_begin_later_are_added_up_from_then_on() -> None:
    tally = Tally()
    all_series = series("vip", "pods")
    tally.add(all_series[:1])
    tally.take(flush((0, True, ["...."])))
    tally.add(all_series[1:])
    tally.take(flush((1, True, ["....", "..xx"])))
    assert (tally.good_and_lost(VIP), tally.good_and_lost(POD)) == ((8, 0), (2, 2))


@pytest.mark.parametrize(
    ("drawing", "quantiles"),
    [
        # the last second's rows -> p50 and p99; 1.06 ms for every good one
        (".." * 100, ["1.06 ms", "1.06 ms"]),
        ("." * 99 + "x", ["1.06 ms", "1.06 ms"]),
        ("." * 98 + "xr", ["1.06 ms", "never"]),
        ("....uuuu", ["1.06 ms", "1.06 ms"]),
        (".xxx    ", ["never", "never"]),
        ("    ", ["-", "-"]),
    ],
)
def test_a_quantile_is_never_where_more_were_lost(drawing: str, quantiles: list[str]) -> None:
    tally = Tally()
    tally.add(series("vip"))
    tally.take(flush((0, False, [drawing])))
    assert [duration(ns) for ns in tally.quantiles(VIP)] == quantiles


def test_what_has_no_outcome_yet_is_waiting() -> None:
    tally = Tally()
    tally.add(series("vip", "pods"))
    tally.take(flush((0, False, ["..  ", "... "]), (1, False, ["    ", "...."])))
    assert tally.waiting == 7
    tally.take(flush((0, True, ["..xx", "...."]), (1, False, [".   ", "...."])))
    assert tally.waiting == 3


def said(*marks: tuple[float, str, str], most: int = 4) -> list[str]:
    events = Events()
    for at, kind, text in marks:
        events.add(Mark(int(at * NS), kind, text, "lab"))
    return [line.strip() for line in events.lines(most)]


def test_the_last_step_stays_and_endpoint_events_in_a_row_are_one() -> None:
    step = (1.0, "step", "scale to 2")
    assert said(step, (2, "a", "x"), (3, "b", "")) == ["1.0 s  step scale to 2", "2.0 s  a x", "3.0 s  b"]
    many = [(float(n), "a", "x") for n in range(2, 9)]
    assert said(step, *many) == ["1.0 s  step scale to 2", "6.0 s  a x", "7.0 s  a x", "8.0 s  a x"]
    assert said(step, *many, most=1) == ["1.0 s  step scale to 2"]
    endpoints = [(3.0, "endpoints_changed", "1"), (3.5, "endpoints_programmed", "2"), (4.0, "endpoints_changed", "3")]
    folded = "4.0 s  endpoints_changed (after 2 more) 3"
    assert said(step, *endpoints, (5, "a", ""), endpoints[0]) == [
        "1.0 s  step scale to 2",
        folded,
        "5.0 s  a",
        "3.0 s  endpoints_changed 1",
    ]


def test_no_control_character_reaches_the_terminal() -> None:
    out = io.StringIO()
    lines = Lines(out)
    lines.marked(Mark(NS, "step", "red\x1b[31m\r\n", "scenario"))
    lines.noted("note\x07")
    assert out.getvalue() == "   1.0 s  step red\\x1b[31m\\r\\n\nnote\\x07\n"
    table = LiveTable(Console(file=io.StringIO(), width=80))
    table.marked(Mark(NS, "step", "red\x1b[31m", "scenario"))
    assert "step red\\x1b[31m" in drawn(table, 80)[-1]


ROW = {
    "lane": "vip-udp-fresh", "target": "coredns-7f9c4d8b5-abcde", "asked/s": "1,000", "good": "123,456",
    "lost": "1,234", "last 5 s": "connection_refused", "p50": "1.06 ms", "p99": "never",
}  # fmt: skip


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (110, "vip-udp-fresh  coredns-7f9c4d8b5-abcde    1,000  123,456  1,234  connection_refused  1.06 ms    never"),
        (90, "vip-udp-fresh  …4d8b5-abcde    1,000  123,456  1,234  connection_refused  1.06 ms    never"),
        (80, "vip-udp-fresh  …d8b5-abcde    1,000  123,456  1,234  connection_refused    never"),
        (72, "vip-udp-fresh  …4d8b5-abcde  123,456  1,234  connection_refused    never"),
        (61, "vip-udp-fresh  …8b5-abcde  123,456  1,234  connection_refused"),
        (52, "vip-udp-fresh  …8b5-abcde  1,234  connection_refused"),
        (45, "vip-udp…  …5-abcde  1,234  connection_refused"),
        (35, "vip-udp…  …5-abcde  1,234  connect…"),
    ],
)
def test_a_narrow_table_drops_columns_and_never_cuts_a_number(width: int, shown: str) -> None:
    heading, row = fitting([ROW], width)
    assert str(row) == shown
    assert len(row) <= width
    assert len(heading) <= width


def drawn(table: LiveTable, width: int, plan: Plan = PLAN) -> list[str]:
    shown = Console(file=io.StringIO(), width=width, record=True)
    shown.print(table.frame(plan))
    return shown.export_text().splitlines()


@pytest.mark.parametrize("height", [8, 15, 24, 50])
def test_what_does_not_fit_is_what_loses_nothing(height: int) -> None:
    names = [f"lane-{i:02}" for i in range(40)]
    table = LiveTable(Console(file=io.StringIO(), width=60, height=height))
    table.added(series(*names))
    for n in range(9):
        table.marked(Mark(n * NS, "step" if n == 1 else "pod_ready", str(n), "lab"))
    table.flushed(flush((0, True, ["..xx" if name == "lane-33" else "...." for name in names])), NS)
    lines = drawn(table, 60)
    assert len(lines) < height
    assert lines[2].startswith("lane-33") or height > 40
    assert any("step 1" in line for line in lines)
    shown = [line for line in lines if line.startswith("lane-")]
    assert (f"and {40 - len(shown)} more, lost 0" in lines) == (len(shown) < 40)


def test_the_table_shows_lanes_marks_and_the_time_left() -> None:
    out = io.StringIO()
    table = LiveTable(Console(file=out, width=120))
    table.begin(PLAN)
    table.added(series("vip[red]", "pods"))
    table.marked(Mark(NS, "pod_deleted", "grace period 30 s", "lab", "coredns-x"))
    table.flushed(flush((0, True, ["....", "...."]), (1, True, ["..xx", "...."]), (2, False, ["    ", "    "])), 2 * NS)
    table.end()
    lines = [line.split() for line in drawn(table, 120)]
    assert ["drawn:", "2", "s,", "0:18", "left,", "waiting", "8"] in lines
    assert ["vip[red]", "one", "4", "6", "2", "timeout", "1.06", "ms", "never"] in lines
    assert ["pods", "one", "4", "8", "0", "good", "1.06", "ms", "1.06", "ms"] in lines
    assert ["1.0", "s", "pod_deleted", "coredns-x", "grace", "period", "30", "s"] in lines


def test_lines_come_every_5_s_and_for_steps() -> None:
    out = io.StringIO()
    lines = Lines(out)
    lines.begin(PLAN)
    lines.added(series("vip", "pods"))
    for second in range(11):
        lines.flushed(flush((second, True, ["..xx" if second == 3 else "....", "...."])), (second + 1) * NS)
    lines.marked(Mark(11 * NS, "step", "scale to 2", "scenario"))
    lines.marked(Mark(11 * NS, "pod_deleted", "", "lab", "coredns-x"))
    lines.end()
    assert out.getvalue().splitlines() == [
        "5 s of 20 s: 8 asked/s, good 38, lost 2, waiting 0; vip one: timeout",
        "10 s of 20 s: 8 asked/s, good 78, lost 2, waiting 0",
        "  11.0 s  step scale to 2",
    ]


def test_that_there_is_no_schedule_is_said() -> None:
    fast = replace(PLAN, lanes=(replace(lane("A"), shape=Shape("max", window=10)),))
    table, lines = LiveTable(Console(file=io.StringIO(), width=100)), Lines(io.StringIO())
    for view in (table, lines):
        view.begin(fast)
        view.added(series("vip"))
        view.flushed(flush((0, True, ["...."]), (1, False, [".... "])), 2 * NS)
        view.end()
    assert "drawn: 2 s, 0:18 left, as fast as replies allow, waiting 1" in drawn(table, 100, fast)[0]
    assert lines.line(fast, 2 * NS).startswith("2 s of 20 s: 4 asked/s as fast as replies allow, good 8")
