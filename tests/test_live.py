"""What a person sees while a run goes: counts that follow flushes, a table, a line every 5 s."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
from rich.console import Console

from probe.histogram import BINS
from probe.live import Lines, LiveTable, Tally
from probe.model import NS, Mark, Series
from probe.outcome import Counter, Outcome, UnsentCause
from probe.recorder import Columns, Flush
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


def test_the_table_shows_lanes_marks_and_the_time_left() -> None:
    out = io.StringIO()
    table = LiveTable(Console(file=out, width=120))
    table.begin(PLAN)
    table.added(series("vip[red]", "pods"))
    table.marked(Mark(NS, "pod_deleted", "grace period 30 s", "lab", "coredns-x"))
    table.flushed(flush((0, True, ["....", "...."]), (1, True, ["..xx", "...."]), (2, False, ["    ", "    "])), 2 * NS)
    table.end()
    shown = Console(file=io.StringIO(), width=120, record=True)
    shown.print(table.frame(PLAN))
    lines = [line.split() for line in shown.export_text().splitlines()]
    assert ["drawn:", "2", "s,", "0:18", "left"] in lines
    assert ["vip[red]", "one", "4", "6", "2", "timeout", "1.06", "ms", "1.06", "ms"] in lines
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
        "5 s of 20 s: 8 asked/s, good 38, lost 2; vip one: timeout",
        "10 s of 20 s: 8 asked/s, good 78, lost 2",
        "  11.0 s  step scale to 2",
    ]
