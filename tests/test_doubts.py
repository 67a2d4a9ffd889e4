"""What the prober did wrong itself is said, with its lanes and its numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from probe.doubts import DOUBTS, NAMED, doubts_of
from probe.model import NS, Doubt, Interval, Mark, Series, TargetKind
from probe.outcome import Counter, Outcome
from probe.recorder import Flush
from probe.runfile import Head, Run, RunWriter, open_run
from tests.conftest import Start
from tests.probing import probe
from tests.probing import series as asking
from tests.synthetic import STARTED, columns_of, drawn, flush_of, series_of, written


def doubts(run: Run) -> dict[str, tuple[tuple[str, ...], bool]]:
    return {d.id: (d.lanes, d.hides_loss) for d in doubts_of(run)}


def counted(path: Path, series: list[Series], counts: dict[tuple[int, Counter], int], *marks: Mark) -> list[Doubt]:
    """The doubts of a run in which nothing was lost, with these counters of series."""
    flush = flush_of(columns_of(series, drawn("")), len(series))
    for (index, counter), n in counts.items():
        flush.counters[index, counter] = n
    writer = RunWriter.create(path, Head("x", STARTED, 10 * NS))
    writer.add_series(series)
    for mark in marks:
        writer.mark(mark)
    writer.flush(flush, 10 * NS)
    writer.finish(10 * NS)
    return doubts_of(open_run(path))


def test_clean_run_leaves_none(tmp_path: Path) -> None:
    assert doubts_of(written(tmp_path / "run.db", [series_of(rate=10)], drawn("..xx", 10))) == []


def test_unsent_rows_are_told_by_lane_and_cause(tmp_path: Path) -> None:
    series = [series_of(0, lane="a", rate=10), series_of(1, lane="b", rate=10)]
    fate = drawn("uuu", 10)
    run = written(tmp_path / "run.db", series, lambda s, due: fate(s, due) if s.lane == "b" else Outcome.ANSWER)
    (doubt,) = doubts_of(run)
    assert (doubt.id, doubt.lanes, doubt.hides_loss) == ("unsent", ("b",), True)
    assert "b 3 of 100 (3 %)" in doubt.text
    assert "3 stall (the prober was not scheduled in time" in doubt.text


@pytest.mark.parametrize(("rows", "expected"), [(29, {"few_samples": (("vip-udp",), True)}), (30, {})])
def test_few_rows_are_no_evidence(tmp_path: Path, rows: int, expected: dict[str, object]) -> None:
    assert doubts(written(tmp_path / "run.db", [series_of(seconds=rows)], drawn(""))) == expected


def test_cut_run_and_its_undecided_rows(tmp_path: Path) -> None:
    series = [series_of(rate=10, seconds=5)]
    (doubt,) = doubts_of(written(tmp_path / "run.db", series, drawn("." * 48 + "??", 10), finish=False))
    assert doubt.id == "cut"
    assert not doubt.lanes
    assert "last written 5.0 s after its start; 2 rows were still in flight and are undecided" in doubt.text


def test_what_the_lab_lost_itself(tmp_path: Path) -> None:
    series = [
        series_of(0, lane="vip", rate=10),
        series_of(1, lane="pods", target="pod", kind=TargetKind.POD, rate=10),
        series_of(2, lane="else", target="server", kind=TargetKind.SERVER, rate=10),
    ]
    marks = [Mark(k * NS, "lab_dropped", "9 datagrams", "lab", "kube-dns") for k in (3, 4)]
    marks.append(Mark(5 * NS, "lab_died", "the lab's process has died", "lab"))
    dropped, died = doubts_of(written(tmp_path / "run.db", series, drawn(""), marks=marks))
    assert (dropped.id, dropped.lanes, dropped.hides_loss) == ("lab_dropped", ("vip",), False)
    assert dropped.text.startswith("in 2 s the lab's Service dropped datagrams itself")
    assert (died.id, died.lanes, died.hides_loss) == ("lab_died", ("vip", "pods"), False)
    assert died.text.startswith("the lab ended by itself at +5.0 s")


def test_own_drops_lag_and_overrun(tmp_path: Path) -> None:
    series = [series_of(0, lane="a", rate=10), series_of(1, lane="b", rate=10)]
    flush = flush_of(columns_of(series, drawn("")), 2, lag_ns=9_000_000)
    flush.counters[1, Counter.OWN_DROPS] = 7
    writer = RunWriter.create(tmp_path / "run.db", Head("x", STARTED, 10 * NS))
    writer.add_series(series)
    writer.interval(
        Interval(0, 9 * NS, "overrun", "the counts of 2 s were overwritten before they were read", "engine")
    )
    writer.flush(Flush(flush.columns, flush.unsent, flush.counters, flush.lag, flush.lag_max_ns, []), 10 * NS)
    writer.finish(10 * NS)
    found = doubts_of(open_run(tmp_path / "run.db"))
    assert [(d.id, d.lanes, d.hides_loss) for d in found] == [
        ("own_drops", ("b",), False),
        ("overrun", (), True),
        ("lag", (), False),
    ]
    assert "7 replies were dropped" in found[0].text
    assert "the counts of 2 s were overwritten" in found[1].text
    assert "(max 9.0 ms)" in found[2].text
    assert np.count_nonzero(flush.lag) == 1


def test_lanes_that_were_intercepted_by_what_was_seen(tmp_path: Path) -> None:
    series = [series_of(i, lane=lane, rate=10) for i, lane in enumerate(("a", "b", "c"))]
    said = [Interval(0, 10 * NS, "intercepted", text, "preflight", lane) for lane, text in (("a", "x"), ("c", "x"))]
    other = Interval(0, 10 * NS, "intercepted", "y", "preflight", "b")
    found = doubts_of(written(tmp_path / "run.db", series, drawn(""), intervals=[*said, other]))
    assert [(doubt.id, doubt.text, doubt.lanes, doubt.hides_loss) for doubt in found] == [
        ("intercepted", "x", ("a", "c"), True),
        ("intercepted", "y", ("b",), True),
    ]


def test_cpu_that_a_quota_withheld(tmp_path: Path) -> None:
    """The longest stretches are named, the others counted."""
    stretches = [
        Interval(from_ns * NS, to_ns * NS, "throttled", f"{to_ns - from_ns}00 ms of CPU withheld", "host")
        for from_ns, to_ns in [(0, 1), (2, 5), (6, 8), (9, 10)]
    ]
    assert len(stretches) == NAMED + 1
    (doubt,) = doubts_of(written(tmp_path / "run.db", [series_of(rate=10)], drawn(""), intervals=stretches))
    assert (doubt.id, doubt.lanes, doubt.hides_loss) == ("throttled", (), False)
    assert "+2.0 s to +5.0 s 300 ms of CPU withheld, +6.0 s to +8.0 s 200 ms" in doubt.text
    assert "+0.0 s to +1.0 s 100 ms of CPU withheld, and 1 more: give it a higher CPU limit" in doubt.text


def test_ports_that_came_again_too_soon(tmp_path: Path) -> None:
    """Where no address is translated, neither pods' nor this machine's, there is no entry to meet."""
    kinds = [
        ("vip", TargetKind.SERVICE, "127.53.0.10"),
        ("pods", TargetKind.POD, "10.0.0.7"),
        ("there", TargetKind.SERVER, "192.0.2.1"),
        ("here", TargetKind.SERVER, "127.0.0.1"),
        ("once", TargetKind.SERVICE, "127.53.0.10"),
    ]
    series = [
        series_of(i, lane=lane, target=lane, kind=kind, address=address, rate=10)
        for i, (lane, kind, address) in enumerate(kinds)
    ]
    reused = {(i, Counter.PORTS_REUSED): 25 for i in range(4)}
    (doubt,) = counted(tmp_path / "run.db", series, reused)
    assert (doubt.id, doubt.lanes, doubt.hides_loss) == ("ports_reused", ("vip", "there"), False)
    assert "vip 25 of 100 (25 %), there 25 of 100 (25 %)" in doubt.text


def test_batches_timed_without_the_kernel(tmp_path: Path) -> None:
    series = [series_of(0, lane="a", rate=10), series_of(1, lane="b", rate=10)]
    mark = Mark(3 * NS, "clock_step", "the wall clock was set forward by 2.000 s", "host")
    (doubt,) = counted(tmp_path / "run.db", series, {(1, Counter.CLOCK_STEPS): 4}, mark)
    assert (doubt.id, doubt.lanes, doubt.hides_loss) == ("clock_steps", ("b",), False)
    assert doubt.text.startswith("the wall clock was set at +3.0 s: 4 batches of replies were timed when")


def test_a_step_that_no_reply_met_is_no_doubt(tmp_path: Path) -> None:
    mark = Mark(3 * NS, "clock_step", "the wall clock was set forward by 2.000 s", "host")
    assert counted(tmp_path / "run.db", [series_of(rate=10)], {}, mark) == []


def test_every_doubt_has_help() -> None:
    assert all(kind.help and "|" not in kind.help for kind in DOUBTS.values())


def test_connections_that_we_close_leave_no_port_waiting(scripted: Start) -> None:
    """They end by RST: no TIME_WAIT, which with 28,000 ports and 60 s would allow 470 queries a second."""
    server = scripted()
    recorded = probe(asking(server.address, server.port, "a.test", transport="tcp", rate=500))
    assert recorded.outcomes() == {"answer": 500}
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    waiting = [
        line for line in lines if line.split()[3] == "06" and f":{server.port:04X}" in " ".join(line.split()[1:3])
    ]
    assert waiting == []
