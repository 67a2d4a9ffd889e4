"""What is older than is kept goes while the run goes on; any stretch of a run is a Run that holds it alone."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from probe.doubts import doubts_of
from probe.histogram import BINS, bins_of
from probe.model import NS, Failure, Interval, Leg, Mark, Sample, Shape, TargetKind
from probe.outcome import Counter, Outcome, UnsentCause
from probe.recorder import Answered, Columns, Duration, Flush
from probe.report.formats import REPORTS
from probe.runfile import STRETCH, Head, RunWriter, open_run, open_stretch
from probe.schedule import pacer_of
from probe.timeline import Timeline
from probe.verdict import Ruling, verdict_of
from tests.synthetic import MS, STARTED, columns_of, drawn, series_of, written

ENDLESS = 100 * 365 * 86_400
SERIES = [
    series_of(0, rate=2, seconds=ENDLESS),
    series_of(1, "pods", "pod-1", TargetKind.POD, seconds=ENDLESS),
]
GOOD, BAD = (columns_of([replace(s, stop_ns=10 * NS) for s in SERIES], fate) for fate in (drawn(""), drawn("..xu")))
BAD_PLANNED = sum(int(c.planned.sum()) for c in BAD)


def at(columns: list[Columns], second: int) -> list[Columns]:
    """The same, that many seconds later."""
    return [
        replace(
            c,
            second=c.second + second,
            first_bad=np.where(c.first_bad >= 0, c.first_bad + second * NS, -1),
            last_bad=np.where(c.last_bad >= 0, c.last_bad + second * NS, -1),
        )
        for c in columns
    ]


class Story:
    """Writes a run of `seconds`, a flush every ten: `bad` says which of these lose something."""

    def __init__(self, path: Path, keep_s: int, bad: Callable[[int], bool]) -> None:
        head = Head("a run", STARTED, ENDLESS * NS, "dnsprobe serve", "", ("loss <= 1%",))
        self.writer = RunWriter.create(path, head, keep_s * NS)
        self.writer.add_series(SERIES)
        self.writer.interval(Interval(0, ENDLESS * NS, "life", "pod-1 counts", "cluster", "pod-1"))
        self._bad, self._second, self._slices, self._bads = bad, 0, 0, 0

    def go(self, seconds: int) -> None:
        """Servers answer, queries are late by 20 us where all is well and 20 ms where something is lost."""
        for _ in range(seconds // 10):
            bad = self._bad(self._second)
            columns = at(BAD if bad else GOOD, self._second)
            failures = [Failure(0, "a.", self._second * NS, 0, Outcome.TIMEOUT)] if bad else []
            self._slices, self._bads = self._slices + 1, self._bads + bad
            unsent, counters = np.zeros((2, len(UnsentCause)), np.int64), np.zeros((2, len(Counter)), np.int64)
            unsent[:, UnsentCause.STALL] = self._bads
            counters[0, Counter.LATE] = 3 * self._bads
            counters[1, Counter.DUPLICATE] = self._slices
            lag = np.zeros(BINS, np.int64)
            lag[bins_of(np.array([20_000]))] = 30 * (self._slices - self._bads)
            lag[bins_of(np.array([20 * MS]))] = 30 * self._bads
            first, last = np.array([0, 7]), np.array([1, 1]) * (self._second + 9) * NS
            servers = {"pod-1": Answered(np.array([10, 20]) * self._slices, first, last)}
            now_ns = (self._second + 10) * NS + 20 * MS
            self.writer.samples([Sample(now_ns, "coredns", "pod-1", "requests", 30 * self._slices)])
            self.writer.flush(Flush(columns, unsent, counters, lag, 20 * MS, failures, servers), now_ns)
            self._second += 10


def sizes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def test_a_file_that_keeps_ten_minutes_is_no_larger_after_hours(tmp_path: Path) -> None:
    path = tmp_path / "serve.db"
    story = Story(path, 600, lambda second: second % 100 == 0)
    story.writer.mark(Mark(5 * NS, "rollout_started", "coredns", "watch", "coredns"))
    story.writer.mark(Mark(6 * NS, "step", "long ago", "scenario"))
    story.go(1200)
    early = sizes(path)
    began_ns, done_ns = (1200 + 3 * 3600 - 900) * NS, (1200 + 3 * 3600 - 60) * NS
    story.writer.mark(Mark(began_ns, "rollout_started", "kube-proxy", "watch", "kube-proxy"))
    story.writer.mark(Mark(done_ns, "rollout_done", "kube-proxy", "watch", "kube-proxy"))
    story.go(3 * 3600)
    assert sizes(path) < 1.2 * early
    run = open_run(path)
    ended, oldest = 1200 + 3 * 3600, int(run.counts.bucket.min()) // 10
    assert ended - 600 - 60 <= oldest <= ended - 600
    assert min(f.due_ns for f in run.failures) >= oldest * NS
    rollouts = [(mark.kind, mark.subject) for mark in run.marks]
    proxies = [("rollout_started", "kube-proxy"), ("rollout_done", "kube-proxy")]
    assert rollouts == [("rollout_started", "coredns"), *proxies], "one goes on, the other ended within what is kept"
    assert int(run.metrics[0].at_ns.min()) <= (oldest + 10) * NS + 20 * MS
    assert len(run.metrics[0].at_ns) < 70
    story.writer.finish(ended * NS)
    assert [file.name for file in tmp_path.iterdir()] == ["serve.db"]
    kept = open_stretch(path)
    assert (kept.end_ns, kept.head.started_unix_ns) == ((ended - oldest) * NS, STARTED + oldest * NS)


@pytest.mark.parametrize("last_s", [95, 100, 300, 600, 0])
@pytest.mark.parametrize("how", ["finished", "killed", "going"])
def test_a_stretch_has_its_own_rows_and_sums_alone(how: str, last_s: int, tmp_path: Path) -> None:
    """Every 100 s something is lost for 10 s: sums are of as many tens of seconds as rows are."""
    path = tmp_path / "serve.db"
    story = Story(path, 600, lambda second: second % 100 == 0)
    story.writer.mark(Mark(1190 * NS, "ready", "pod-2", "watch", "pod-2"))
    story.writer.mark(Mark(100 * NS, "ready", "pod-1", "watch", "pod-1"))
    story.go(1250)
    if how == "finished":
        story.writer.finish(1250 * NS)
    if how == "killed":
        path = Path(shutil.copy(path, tmp_path / "copy.db"))
    run = open_stretch(path, last_s * NS)
    ends_s = 1249 if how == "going" else 1250
    begins_s = (run.head.started_unix_ns - STARTED) // NS
    assert begins_s % 10 == 0
    assert 0 <= ends_s - last_s - begins_s < 10 or not last_s
    assert run.end_ns == pytest.approx((ends_s - begins_s) * NS, abs=NS)
    bads = sum(second % 100 == 0 for second in range(begins_s, 1250, 10))
    slices = (1250 - begins_s) // 10
    assert bads
    assert run.counts.n.sum() == pytest.approx(slices * BAD_PLANNED, abs=3)
    assert run.counts.bucket.min() < 10
    assert run.counts.n[run.counts.outcome == Outcome.UNSENT].sum() == 2 * bads == run.unsent.sum()
    assert run.unsent[:, UnsentCause.STALL].tolist() == [bads, bads]
    assert (run.counters[0, Counter.LATE], run.counters[1, Counter.DUPLICATE]) == (3 * bads, slices)
    assert run.lag.sum() == 30 * slices
    assert run.servers["pod-1"].n.tolist() == [10 * slices, 20 * slices]
    assert run.servers["pod-1"].first_ns.tolist() == [0, 0 if begins_s else 7]
    assert run.metrics[0].grown == 30 * (slices - (begins_s == 0))
    assert len(run.failures) == bads
    assert [mark.at_ns for mark in run.marks if mark.subject == "pod-2"] == [(1190 - begins_s) * NS]
    assert ("pod-1" in {mark.subject for mark in run.marks}) == (begins_s <= 100)
    assert (run.cut == "", run.going) == (how != "killed", how == "going")
    assert {w.lost for w in Timeline.of(run).windows} == {1, 3}, "of one query a second, and of two"
    assert len(Timeline.of(run).windows) == 2 * bads
    bins, _ = run.histograms.total([0], Duration.RTT)
    assert bins.sum() == pytest.approx(20 * slices - 4 * bads, abs=2)
    for report in REPORTS.values():
        assert report(run)
    told = run.head.facts[STRETCH]
    assert ("goes on" in told) == (how == "going")


def test_a_quiet_stretch_of_a_run_that_goes_on_is_in_no_doubt(tmp_path: Path) -> None:
    """What was lost, unsent and late was so before; rows that are not due, or not decided, are none of it."""
    path = tmp_path / "serve.db"
    story = Story(path, 600, lambda second: second < 900)
    story.go(1200)
    late = columns_of([replace(s, stop_ns=10 * NS) for s in SERIES], drawn("....????"), sealed=False)
    flush = Flush(at(late, 1200)[:5], *sums_of(path), [])
    story.writer.flush(flush, 1205 * NS)
    run = open_stretch(path, 120 * NS)
    assert (run.going, run.lag_max_ns < MS) == (True, True)
    assert doubts_of(run) == []
    assert verdict_of(run).ruling is Ruling.PASS
    assert run.end_ns == 123 * NS, "what was due 3.5 s into it is not decided"
    assert open_run(path).cut, "as it is read by whoever asks for the file and no stretch"


def sums_of(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    run = open_run(path)
    return run.unsent, run.counters, run.lag, run.lag_max_ns


def test_a_run_that_was_killed_some_time_ago_goes_on_no_more(tmp_path: Path) -> None:
    path = tmp_path / "serve.db"
    story = Story(path, 600, lambda _: False)
    story.go(300)
    for name in ("", "-wal"):
        os.utime(f"{path}{name}", (time.time() - 60,) * 2)
    run = open_stretch(path, 100 * NS)
    assert (run.going, run.end_ns) == (False, 100 * NS + 20 * MS)
    assert "the file was last written" in run.cut


def test_pods_that_were_gone_before_are_no_part_of_it(tmp_path: Path) -> None:
    """Their series are over; those that stay have other numbers, and all their rows."""
    pods = [series_of(i, "pods", f"pod-{i}", TargetKind.POD, seconds=100 + 100 * i) for i in range(4)]
    lives = [Interval(0, s.stop_ns, "life", "counts", "lab", s.target.name) for s in pods]
    whole = written(tmp_path / "run.db", pods, drawn("." * 350 + "x"), intervals=lives)
    run = open_stretch(tmp_path / "run.db", 160 * NS)
    assert [s.target.name for s in run.series] == ["pod-2", "pod-3"]
    assert run.end_ns == 160 * NS
    begins = 2400
    for mine, index in ((0, 2), (1, 3)):
        expected = whole.counts.n[(whole.counts.series == index) & (whole.counts.bucket >= begins)].sum()
        assert run.counts.n[run.counts.series == mine].sum() == expected
    (window,) = Timeline.of(run).windows
    assert (window.target, window.from_ns, window.planned) == ("pod-3", 110 * NS, 1)
    assert [c.loss().planned for c in Timeline.of(run).channels] == [60, 160]


@pytest.mark.parametrize("last_s", [7, 15, 20, 25, 30])
def test_rows_are_due_in_a_stretch_when_they_were_in_the_run(last_s: int, tmp_path: Path) -> None:
    """Along legs, at a constant rate, drawn at random: the schedule of the stretch is that of the run."""
    legs = (Leg(10 * NS, Fraction(0), Fraction(1)), Leg(10 * NS, Fraction(1), Fraction(1, 2)))
    shapes = (Shape(), Shape(legs=legs), Shape("poisson", seed=5))
    lanes = [replace(series_of(i, f"lane-{i}", rate=20, seconds=30), shape=shape) for i, shape in enumerate(shapes)]
    written(tmp_path / "run.db", lanes, drawn(""))
    with removed_checkpoints(tmp_path / "run.db") as path:
        run = open_stretch(path, last_s * NS)
    since_ns = run.head.started_unix_ns - STARTED
    for before, now in zip(lanes, run.series, strict=True):
        expected = pacer_of(before).count(since_ns, 30 * NS)
        assert pacer_of(now).count(0, run.end_ns) == pytest.approx(expected, abs=1 if before.shape.legs else 0)


def test_a_file_without_checkpoints_tells_no_sums_it_does_not_know(tmp_path: Path) -> None:
    """Such as merged ones, and those of older versions."""
    run = written(tmp_path / "run.db", [series_of(seconds=300)], drawn("u"), counters={(0, Counter.LATE): 5})
    with removed_checkpoints(tmp_path / "run.db") as path:
        part = open_stretch(path, 95 * NS)
    assert (part.end_ns, part.counts.n.sum()) == (100 * NS, 100)
    assert (run.counters.sum(), part.counters.sum(), part.unsent.sum(), part.lag.sum()) == (5, 0, 0, 0)
    assert "left out" in part.head.facts[STRETCH]


@contextmanager
def removed_checkpoints(path: Path) -> Iterator[Path]:
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE checkpoints")
    yield path


def test_a_whole_run_that_is_over_is_itself(tmp_path: Path) -> None:
    written(tmp_path / "run.db", [series_of()], drawn("..x"))
    assert STRETCH not in open_stretch(tmp_path / "run.db").head.facts
    assert STRETCH not in open_stretch(tmp_path / "run.db", 1000 * NS).head.facts
