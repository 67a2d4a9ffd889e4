"""What the prober did wrong itself is said, with its lanes and its numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from probe.doubts import doubts_of
from probe.model import NS, Interval, Mark, TargetKind
from probe.outcome import Counter, Outcome
from probe.recorder import Flush
from probe.runfile import Head, Run, RunWriter, open_run
from tests.synthetic import STARTED, columns_of, drawn, flush_of, series_of, written


def doubts(run: Run) -> dict[str, tuple[tuple[str, ...], bool]]:
    return {d.id: (d.lanes, d.hides_loss) for d in doubts_of(run)}


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
