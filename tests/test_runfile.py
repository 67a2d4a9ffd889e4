"""A run file gives back what was flushed, is whole after every flush, and says what is wrong with other files."""

from __future__ import annotations

import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from probe.errors import EnvironmentProblem, UsageError
from probe.histogram import BINS
from probe.model import NS, Edns, Failure, Interval, Leg, Mark, Question, Shape, Slice
from probe.outcome import Counter, Outcome, UnsentCause
from probe.recorder import Answered, Columns, Duration, Flush
from probe.runfile import FAILURES_KEPT, Head, Run, RunFileProblem, RunWriter, merge, open_run
from tests.synthetic import MS, STARTED, columns_of, drawn, flush_of, series_of, written

HEAD = Head("a run", STARTED, 10 * NS, "dnsprobe run x", "name: x\n", ("loss <= 0.1%",), {"tick": "200 us"})


def random_columns(second: int, series: int, rng: np.random.Generator, bad: float = 0.2) -> Columns:
    """Columns such as a rough second leaves: rows of every outcome, some in flight."""
    shape = (series, 10, len(Outcome), 2)
    counts = rng.integers(0, 4, shape) * (rng.random(shape) < 0.3)
    counts[rng.random(series) >= bad, :, :, 0] = 0
    lost = counts[..., 0].sum(2) - counts[:, :, Outcome.UNSENT, 0] > 0
    due = second * NS + np.arange(10) * 100 * MS
    durations = rng.integers(1, 9, (series, 3, BINS)) * (rng.random((series, 3, BINS)) < 0.01)
    return Columns(
        second=second,
        sealed=True,
        planned=counts.sum((2, 3)) + rng.integers(0, 2, (series, 10)),
        counts=counts,
        first_bad=np.where(lost, due + 1, -1),
        last_bad=np.where(lost, due + 2, -1),
        durations=durations,
        maxima=rng.integers(0, 5 * NS, (series, 3)),
    )


def rows_by(run: Run, nsid: str) -> list[tuple[int, int, int] | None]:
    """Of each series how many rows a server answered, and when the first and the last were due; None if none."""
    by = run.servers[nsid]
    told = zip(by.n.tolist(), by.first_ns.tolist(), by.last_ns.tolist(), strict=True)
    return [each if each[0] else None for each in told]


def test_what_was_flushed_comes_back(tmp_path: Path) -> None:
    """Counts by outcome, good and bucket, in flight, exact instants, histograms, maxima: all as they were."""
    rng = np.random.default_rng(53)
    series = [series_of(i, rate=Fraction(100, 3), seconds=23) for i in range(7)]
    columns = [random_columns(second, 7, rng) for second in range(23)]
    writer = RunWriter.create(tmp_path / "run.db", HEAD)
    writer.add_series(series)
    unsent, counters = rng.integers(0, 9, (7, len(UnsentCause))), rng.integers(0, 9, (7, len(Counter)))
    failure = Failure(3, "a.example.", 5, 6, Outcome.TIMEOUT, 111, "connect", 4097, 65535)
    mark, life = Mark(2 * NS, "step", "scale to 2", "scenario"), Interval(0, 9 * NS, "life", "pod", "lab", "pod-1")
    writer.mark(mark)
    writer.interval(Interval(0, 99 * NS, "life", "pod", "lab", "pod-1"))
    writer.interval(life)
    lag = rng.integers(0, 3, BINS)
    for c in columns:
        answered = np.arange(7) * c.second, np.arange(7), np.arange(7) + c.second * NS
        once = np.arange(7) == 3
        servers = {"pod-1": Answered(*answered), "pod 2\n": Answered(once * 1, once * 5, once * 5)}
        failures = [failure] if c.second == 0 else []
        writer.flush(Flush([c], unsent, counters, lag, 77, failures, servers), c.second * NS)
    writer.end_series(2, 5 * NS)
    writer.finish(23 * NS)

    run = open_run(tmp_path / "run.db")
    assert (run.head, run.cut, run.finished, run.end_ns) == (HEAD, "", True, 23 * NS)
    assert run.series[0] == series[0]
    assert run.series[2].stop_ns == 5 * NS
    assert run.marks == (mark,)
    assert run.intervals == (life,)
    assert run.failures == (failure,)
    assert (run.unsent == unsent).all()
    assert (run.counters == counters).all()
    assert run.servers.keys() == {"pod-1", "pod 2\n"}
    assert rows_by(run, "pod-1") == [None, *((22 * k, k, k + 22 * NS) for k in range(1, 7))]
    assert rows_by(run, "pod 2\n") == [None, None, None, (1, 5, 5), None, None, None]
    assert (run.lag == lag).all()
    assert run.lag_max_ns == 77
    rows = run.counts
    for second, flushed in enumerate(columns):
        for width in (1, 10):
            now = (rows.bucket // 10 == second) & (rows.width == width)
            table = np.zeros((7, 10, len(Outcome), 2), np.int64)
            where = (rows.series[now], rows.bucket[now] % 10, rows.outcome[now], rows.good[now])
            np.add.at(table, where, rows.n[now])
            lossy = flushed.counts[..., 0].sum((1, 2)) > 0
            expected = flushed.counts
            if width == 10:
                expected = expected.sum(1, keepdims=True) * (np.arange(10) == 0)[:, None, None]
            assert (table == np.where((lossy == (width == 1))[:, None, None, None], expected, 0)).all()
        waiting = np.zeros(7, np.int64)
        now = run.in_flight.second == second
        waiting[run.in_flight.series[now]] = run.in_flight.n[now]
        assert (waiting == flushed.planned.sum(1) - flushed.counts.sum((1, 2, 3))).all()
        first, last = np.full((7, 10), -1), np.full((7, 10), -1)
        now = run.bad.bucket // 10 == second
        first[run.bad.series[now], run.bad.bucket[now] % 10] = run.bad.first_ns[now]
        last[run.bad.series[now], run.bad.bucket[now] % 10] = run.bad.last_ns[now]
        assert (first == flushed.first_bad).all()
        assert (last == flushed.last_bad).all()
    for index in range(7):
        for duration in Duration:
            bins, longest = run.histograms.total([index], duration)
            assert (bins == sum(f.durations[index, duration] for f in columns)).all()
            assert longest == max(f.maxima[index, duration] for f in columns)
    bins, _ = run.histograms.total(range(7), Duration.RTT, [(10 * NS, 12 * NS)])
    assert (bins == sum(f.durations[:, Duration.RTT].sum(0) for f in columns[10:20]) - _not_touched(columns)).all()


def test_series_of_any_load_come_back(tmp_path: Path) -> None:
    """Of many questions the first thousand, and how many there were."""
    edns = Edns(4096, do=True)
    names = tuple(Question.of(f"n{i}.example", "A", "pinned", edns if i % 2 else None) for i in range(1_500))
    legs = (Leg(3 * NS, Fraction(0), Fraction(1)), Leg(NS, Fraction(1, 3), Fraction(1, 3)))
    shapes = [Shape(), Shape("poisson", legs, seed=2**62), Shape("max", window=80), Shape("max", window=1, pause_ns=5)]
    series = [
        replace(series_of(i), shape=shape, pair=i == 1, gso=i + 1, share=Slice(i, 7)) for i, shape in enumerate(shapes)
    ]
    series.append(replace(series_of(4), questions=names, weights=tuple(range(1, 1_501))))
    writer = RunWriter.create(tmp_path / "run.db", HEAD)
    writer.add_series(series)
    writer.finish(NS)
    run = open_run(tmp_path / "run.db")
    assert run.series[:4] == tuple(series[:4])
    assert run.series[4].questions == names[:1_000]
    assert run.series[4].weights == tuple(range(1, 1_001))
    with closing(sqlite3.connect(tmp_path / "run.db")) as db:
        assert db.execute("SELECT question_count FROM series").fetchall() == [(1,), (1,), (1,), (1,), (1_500,)]


def _not_touched(columns: list[Columns]) -> np.ndarray:
    """Of the slice from 10 to 20 s, the single seconds of lossy series outside [10 s, 12 s)."""
    rest = np.zeros(BINS, np.int64)
    for c in columns[12:20]:
        rest += c.durations[c.counts[..., 0].sum((1, 2)) > 0, Duration.RTT].sum(0)
    return rest


def test_unsealed_seconds_are_rewritten(tmp_path: Path) -> None:
    """A second that comes again replaces what was written of it, histograms included."""
    series = [series_of(rate=10, seconds=3)]
    early = columns_of(series, lambda _, due: None if due >= 2 * NS else Outcome.ANSWER, sealed=False)
    later = columns_of(series, lambda _, due: Outcome.TIMEOUT if due >= 2 * NS else Outcome.ANSWER)
    writer = RunWriter.create(tmp_path / "run.db", HEAD)
    writer.add_series(series)
    writer.flush(flush_of(early, 1), 3 * NS)
    run = open_run(tmp_path / "run.db")
    assert run.counts.n.sum() == 20
    assert run.in_flight.n.sum() == 10
    assert not run.finished
    writer.flush(flush_of(later, 1), 5 * NS)
    writer.finish(5 * NS)
    run = open_run(tmp_path / "run.db")
    assert run.counts.n.sum() == 30
    assert run.in_flight.n.sum() == 0
    assert run.bad.first_ns.min() == 2 * NS
    assert run.histograms.total([0], Duration.LATENCY)[0].sum() == 20


def test_of_shards_who_answered_adds_up_from_the_first_to_the_last(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.db" for index in range(2)]
    for index, path in enumerate(paths):
        series = [replace(series_of(rate=10, seconds=3), share=Slice(index, 2))]
        servers = {"pod-1": [(7 + index, 3 - index, 40 + index)], f"pod-{index + 2}": [(8 - index, 5, 50)]}
        written(path, series, drawn(""), servers=servers)
    merge(paths, tmp_path / "all.db", "dnsprobe merge", lambda _: [], lambda _: [])
    run = open_run(tmp_path / "all.db")
    told = {"pod-1": [(15, 2, 41)], "pod-2": [(8, 5, 50)], "pod-3": [(7, 5, 50)]}
    assert {nsid: rows_by(run, nsid) for nsid in run.servers} == told


def test_nothing_is_left_beside_a_finished_file(tmp_path: Path) -> None:
    written(tmp_path / "run.db", [series_of()], drawn("..x.."))
    assert [p.name for p in tmp_path.iterdir()] == ["run.db"]


def test_cut_run_is_whole_without_its_wal(tmp_path: Path) -> None:
    """The .db alone, copied from a run that is never finished, also into a folder that cannot be written."""
    series = [series_of(rate=10, seconds=5)]
    writer = RunWriter.create(tmp_path / "run.db", HEAD)
    writer.add_series(series)
    writer.flush(flush_of(columns_of(series, drawn("....xx", 10)), 1), 5 * NS)
    folder = tmp_path / "read-only"
    folder.mkdir()
    shutil.copy(tmp_path / "run.db", folder / "a copy?#.db")
    folder.chmod(0o500)
    try:
        run = open_run(folder / "a copy?#.db")
    finally:
        folder.chmod(0o700)
        writer.finish(5 * NS)
    assert run.counts.n.sum() == 50
    assert not run.finished
    assert "last written 5.0 s after its start" in run.cut
    assert [p.name for p in folder.iterdir()] == ["a copy?#.db"]


def test_locked_file_does_not_lose_a_flush(tmp_path: Path) -> None:
    """Flushes into a locked file fail one by one; the first that can be written writes them all."""
    series = [series_of(rate=10, seconds=12)]
    columns = columns_of(series, drawn("." * 30 + "x" * 20, 10))
    writer = RunWriter.create(tmp_path / "run.db", HEAD)
    writer.add_series(series)
    with closing(sqlite3.connect(tmp_path / "run.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for c in columns[:2]:
            with pytest.raises(RunFileProblem, match=r"run\.db: cannot be written now: database is locked"):
                writer.flush(flush_of([c], 1), c.second * NS)
        other.execute("ROLLBACK")
    for c in columns[2:]:
        writer.flush(flush_of([c], 1), c.second * NS)
    writer.finish(12 * NS)
    run = open_run(tmp_path / "run.db")
    assert run.counts.n.sum() == 120
    assert run.counts.n[run.counts.good == 0].sum() == 20
    assert run.histograms.total([0], Duration.RTT)[0].sum() == 100


@contextmanager
def no_file_above(octets: int) -> Iterator[None]:
    """Files may not grow any further: what a full disk answers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_does_not_lose_a_flush(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    series = [series_of(i) for i in range(400)]
    writer = RunWriter.create(tmp_path / "run.db", HEAD)
    writer.add_series(series)
    columns = [random_columns(second, 400, rng) for second in range(3)]
    full = no_file_above(Path(tmp_path / "run.db-wal").stat().st_size + 100)
    with full, pytest.raises(RunFileProblem, match="cannot be written now"):
        writer.flush(flush_of(columns[:1], 400), NS)
    writer.flush(flush_of(columns[1:], 400), 3 * NS)
    writer.finish(3 * NS)
    assert open_run(tmp_path / "run.db").counts.n.sum() == sum(c.counts.sum() for c in columns)


@pytest.mark.parametrize("octets", [10_000, 1_000_000])
def test_a_run_that_cannot_begin_leaves_nothing_and_says_so(octets: int, tmp_path: Path) -> None:
    """There is no room for the tables, or for what is known beforehand."""
    head = replace(HEAD, scenario="#" * 2_000_000)
    with no_file_above(octets), pytest.raises(EnvironmentProblem, match=r"run\.db: cannot be written: "):
        RunWriter.create(tmp_path / "run.db", head)
    assert list(tmp_path.iterdir()) == []
    RunWriter.create(tmp_path / "run.db", head).finish(0)
    assert open_run(tmp_path / "run.db").head == head


def test_failures_are_kept_up_to_a_cap(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path / "run.db", HEAD)
    writer.add_series([series_of()])
    failures = [Failure(0, "a.", i, i, Outcome.TIMEOUT) for i in range(FAILURES_KEPT + 7)]
    writer.flush(flush_of([], 1, failures), NS)
    writer.finish(NS)
    run = open_run(tmp_path / "run.db")
    assert len(run.failures) == FAILURES_KEPT
    assert run.failures_left_out == 7


def test_views_answer_in_plain_sql(tmp_path: Path) -> None:
    written(tmp_path / "run.db", [series_of(rate=10, seconds=2)], drawn("...xxu?", 10))
    with closing(sqlite3.connect(tmp_path / "run.db")) as db:
        totals = db.execute("SELECT lane, planned, good, lost, unsent, in_flight FROM series_totals").fetchall()
        loss = db.execute("SELECT second, at, lane, outcome, n FROM loss_per_second").fetchall()
        schema = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'histograms'").fetchone()[0]
    assert totals == [("vip-udp", 20, 16, 2, 1, 1)]
    at = "2026-09-21T14:13:20Z"
    assert loss == [(0, at, "vip-udp", "timeout", 2), (0, at, "vip-udp", "unsent", 1)]
    assert "zlib of uint32[2, k]" in schema


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run.db").write_text("something dear")
    with pytest.raises(UsageError, match=r"run\.db: exists already"):
        RunWriter.create(tmp_path / "run.db", HEAD)
    with pytest.raises(UsageError, match="cannot be created: No such file or directory"):
        RunWriter.create(tmp_path / "nowhere" / "run.db", HEAD)
    assert (tmp_path / "run.db").read_text() == "something dear"


def test_who_reads_takes_no_lock_from_who_writes(tmp_path: Path) -> None:
    """A run looks into its own file while it goes; another process must still find it in use."""
    series = [series_of(rate=10, seconds=2)]
    writer = RunWriter.create(tmp_path / "run.db", HEAD)
    writer.add_series(series)
    writer.flush(flush_of(columns_of(series, drawn("")), 1), 2 * NS)
    assert open_run(tmp_path / "run.db").counts.n.sum() == 20
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA journal_mode = DELETE')"
    words = [sys.executable, "-c", code, str(tmp_path / "run.db")]
    other = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "database is locked" in other.stderr
    writer.finish(2 * NS)


def test_other_files_are_named_for_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "f.db"
    with pytest.raises(UsageError, match=r"f\.db: cannot be read: No such file"):
        open_run(path)
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        open_run(tmp_path)
    for content, message in ((b"", "is empty"), (b"; zone file\n" * 50, "not a run file")):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=message):
            open_run(path)
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (x)")
    with pytest.raises(UsageError, match="of another application"):
        open_run(path)
    written(tmp_path / "run.db", [series_of()], drawn(""))
    whole = (tmp_path / "run.db").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"f\.db: is a damaged run file"):
        open_run(path)
    with closing(sqlite3.connect(tmp_path / "run.db", isolation_level=None)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(UsageError, match="has run file schema 99, this dnsprobe reads 1"):
        open_run(tmp_path / "run.db")
