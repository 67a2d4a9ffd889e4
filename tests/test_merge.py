"""Run files of shards in, one run file out: the same as if one machine had asked; and what cannot be put together."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from probe.doubts import doubts_of
from probe.errors import UsageError
from probe.model import NS, Failure, Interval, Mark, Series, Slice, TargetKind
from probe.outcome import Counter, Outcome, UnsentCause
from probe.recorder import Duration
from probe.report.formats import REPORTS
from probe.runfile import FAILURES_KEPT, Head, Run, RunWriter, merge, open_run
from probe.timeline import Timeline
from probe.timeline.seen import seen_by
from tests.servers import RealServer
from tests.synthetic import MS, STARTED, columns_of, flush_of, series_of, written
from tests.test_cli import start

SECONDS = 24


def fate(series: Series, due_ns: int) -> Outcome | None:
    """Good for 11 s, then a silence of 2 s; lane 2 loses one row in five of a second; a few are never sent."""
    if 11 * NS <= due_ns < 13 * NS:
        return Outcome.TIMEOUT
    if series.index == 2 and 20 * NS <= due_ns < 21 * NS and due_ns // MS % 5 == 0:
        return Outcome.SERVFAIL
    return Outcome.UNSENT if due_ns // (NS // 7) == 100 else Outcome.ANSWER


def latency(due_ns: int) -> int:
    return MS + due_ns % 977 * 1000


def load() -> list[Series]:
    return [
        series_of(0, "vip", rate=30, seconds=SECONDS, offset_ns=3 * MS),
        series_of(1, "vip", rate=Fraction(100, 7), seconds=SECONDS, qtype="AAAA", offset_ns=9 * MS),
        series_of(2, "pods", "pod-1", TargetKind.POD, rate=200, seconds=SECONDS, address="127.53.0.11"),
    ]


Make = Callable[..., Path]


@pytest.fixture
def shard(tmp_path: Path) -> Make:
    """Writes the file of one shard, or of a whole run: shard(0, 2)."""

    def make(index: int = 0, of: int = 1, name: str = "", **changes: object) -> Path:
        path = tmp_path / (name or f"{index}-{of}.db")
        series = [replace(s, share=Slice(index, of)) for s in load()]
        written(path, series, fate, latency=latency, **changes)  # type: ignore[arg-type]
        return path

    return make


def merged(*paths: Path, partial: bool = False) -> Run:
    out = paths[0].with_name("all.db")
    merge(paths, out, "dnsprobe merge", doubts_of, seen_by, partial)
    assert [p.name for p in out.parent.iterdir() if p.name.startswith("all.db")] == ["all.db"]
    return open_run(out)


def rows(run: Run) -> dict[tuple[int, ...], int]:
    """Finished rows by series, second, outcome and good."""
    found: dict[tuple[int, ...], int] = {}
    c = run.counts
    for s, bucket, outcome, good, n in zip(c.series, c.bucket // 10, c.outcome, c.good, c.n, strict=True):
        key = int(s), int(bucket), int(outcome), int(good)
        found[key] = found.get(key, 0) + int(n)
    return found


# -- the same as one


@pytest.mark.parametrize("of", [2, 3, 4, 5])
def test_shards_put_together_are_the_whole(shard: Make, of: int) -> None:
    whole, run = open_run(shard()), merged(*(shard(k, of) for k in reversed(range(of))))
    assert run.series == whole.series
    assert rows(run) == rows(whole)
    assert (run.end_ns, run.finished, run.cut, run.head.started_unix_ns) == (whole.end_ns, True, "", STARTED)
    assert (run.unsent == whole.unsent).all()
    assert run.lag.sum() == whole.lag.sum()
    for one in (run, whole):
        assert len(one.in_flight.n) == 0
    order = np.lexsort((run.bad.bucket, run.bad.series)), np.lexsort((whole.bad.bucket, whole.bad.series))
    for mine, theirs in zip((run.bad.first_ns, run.bad.last_ns), (whole.bad.first_ns, whole.bad.last_ns), strict=True):
        assert (mine[order[0]] == theirs[order[1]]).all()
    for duration in (Duration.LATENCY, Duration.RTT):
        for index in range(3):
            counts, longest = run.histograms.total([index], duration)
            expected, most = whole.histograms.total([index], duration)
            assert (counts == expected).all()
            assert longest == most


def test_windows_are_recomputed_from_the_sum(shard: Make) -> None:
    """Each shard alone sees less exactly; what they see together is what one would have seen."""
    whole, run = Timeline.of(open_run(shard())), Timeline.of(merged(shard(0, 2), shard(1, 2)))
    assert len(whole.windows) == 3
    assert run.windows == whole.windows
    third = ((0, NS // 3),)
    assert [c.loss(third) for c in run.channels] == [c.loss(third) for c in whole.channels]
    assert [c.whole for c in run.channels] == [c.whole for c in whole.channels]
    half = Timeline.of(open_run(shard(0, 2, "again.db")))
    assert [w.resolution_ns for w in half.windows] == [2 * w.resolution_ns for w in whole.windows]
    assert sum(c.whole.planned for c in half.channels) == pytest.approx(
        sum(c.whole.planned for c in whole.channels) / 2, abs=2
    )


def test_what_a_merge_that_was_killed_left_is_in_nobody_s_way(shard: Make, tmp_path: Path) -> None:
    for leftover in ("all.db.part", "all.db.part-wal", "all.db.part-shm"):
        (tmp_path / leftover).write_bytes(b"half")
    assert rows(merged(shard(0, 2), shard(1, 2))) == rows(open_run(shard()))


def test_a_second_that_only_one_shard_has_in_tenths_is_added_up(tmp_path: Path) -> None:
    """The rows of one are known by 100 ms, those of the other by the second."""
    paths = []
    for index in (0, 1):
        series = [replace(series_of(rate=10, seconds=3), share=Slice(index, 2))]
        paths.append(tmp_path / f"{index}.db")
        written(paths[-1], series, lambda s, due: Outcome.TIMEOUT if due == s.share.index * NS else Outcome.ANSWER)
    run = merged(*paths)
    assert rows(run) == {
        (0, 0, Outcome.ANSWER, 1): 9, (0, 0, Outcome.TIMEOUT, 0): 1,
        (0, 1, Outcome.ANSWER, 1): 10, (0, 2, Outcome.ANSWER, 1): 10,
    }  # fmt: skip
    assert sorted(set(run.counts.width[run.counts.bucket // 10 == 0].tolist())) == [1, 10]
    with sqlite3.connect(run.path) as db:
        assert db.execute("SELECT planned, good, lost FROM series_totals").fetchall() == [(30, 29, 1)]


def test_counters_failures_marks_intervals_facts_and_doubts(tmp_path: Path) -> None:
    paths = []
    for index in (0, 1):
        series = [replace(s, share=Slice(index, 2)) for s in load()]
        columns = columns_of(series, lambda *_: Outcome.ANSWER)
        flush = flush_of(columns, 3, [Failure(2, "a.test A", 5 * NS - index, 0, Outcome.TIMEOUT)], (1 + index) * 9 * MS)
        flush.counters[2, Counter.OWN_DROPS] = 3 + index
        flush.unsent[0, UnsentCause.IDS] = 2
        facts = {"kernel": "6.18", "tick": f"{index}", "shard": f"{index}/2 (by --shard)"}
        head = Head("synthetic", STARTED + index * 40 * MS, SECONDS * NS, f"dnsprobe run {index}", "", (), facts)
        paths.append(tmp_path / f"{index}.db")
        writer = RunWriter.create(paths[-1], head)
        writer.add_series(series)
        for at in (3 * NS + index, 9 * NS + index * 2 * NS):
            writer.mark(Mark(at, "step", "scale to 2", "scenario"))
        writer.mark(Mark(10 * NS, "pod_deleted", f"{index}", "watch", "pod-1"))
        writer.interval(Interval(index * NS, (9 + index) * NS, "life", "pod-1 counts", "cluster", "pod-1"))
        writer.interval(Interval(15 * NS, 16 * NS, "throttled", f"{index} ms withheld", "host"))
        writer.flush(flush, SECONDS * NS)
        writer.finish(SECONDS * NS)
    run = merged(*paths)
    assert (run.counters[2, Counter.OWN_DROPS], run.unsent[0, UnsentCause.IDS], run.lag_max_ns) == (7, 4, 18 * MS)
    assert [(f.series, f.due_ns) for f in run.failures] == [(2, 5 * NS - 1), (2, 5 * NS)]
    assert [(m.at_ns, m.text, m.source) for m in run.marks] == [
        (3 * NS, "scale to 2", "scenario (shards 0, 1)"),
        (9 * NS, "scale to 2", "scenario (shard 0)"),
        (10 * NS, "0", "watch (shard 0)"),
        (10 * NS, "1", "watch (shard 1)"),
        (11 * NS, "scale to 2", "scenario (shard 1)"),
    ]
    assert [(i.from_ns // NS, i.to_ns // NS, i.text, i.source) for i in run.intervals] == [
        (0, 10, "pod-1 counts", "cluster (shards 0, 1)"),
        (15, 16, "shard 0: 0 ms withheld; shard 1: 1 ms withheld", "host (shards 0, 1)"),
    ]
    kept = run.head.facts
    assert (kept["kernel"], kept["shard 0: tick"], kept["shard 1: tick"], kept["shards"]) == (
        "6.18",
        "0",
        "1",
        "2 of 2",
    )
    assert kept["shard 1: command"] == "dnsprobe run 1"
    drops = [d.text.partition(" were")[0] for d in doubts_of(run) if d.id == "own_drops"]
    assert drops == ["in shard 0, 3 replies", "in shard 1, 4 replies"]
    assert [d.text[:28] for d in doubts_of(run) if d.id == "lag"] == [f"in shard {k}, queries left lat" for k in (0, 1)]


def test_of_too_many_failures_the_first_are_kept(tmp_path: Path) -> None:
    paths = []
    for index in (0, 1):
        series = [replace(series_of(rate=10, seconds=3), share=Slice(index, 2))]
        failures = [Failure(0, "a.test A", 2 * k + index, 0, Outcome.TIMEOUT) for k in range(FAILURES_KEPT // 2 + 50)]
        paths.append(tmp_path / f"{index}.db")
        writer = RunWriter.create(paths[-1], Head("synthetic", STARTED, 3 * NS))
        writer.add_series(series)
        writer.flush(flush_of(columns_of(series, lambda *_: Outcome.ANSWER), 1, failures), 3 * NS)
        writer.finish(3 * NS)
    run = merged(*paths)
    assert (len(run.failures), run.failures_left_out) == (FAILURES_KEPT, 100)
    assert [f.due_ns for f in run.failures] == list(range(FAILURES_KEPT))


def test_pods_that_joined_later_are_found_by_name(tmp_path: Path) -> None:
    """In another order, at slightly different instants; one came back; one was seen by one shard alone."""
    paths = []
    for index, late in ((0, ["pod-7", "pod-8", "pod-7"]), (1, ["pod-8", "pod-7", "pod-7", "pod-9"])):
        pods = [
            series_of(k, "pods", name, TargetKind.POD, rate=10, seconds=3, offset_ns=k, start_ns=4 * k * NS + index)
            for k, name in enumerate(late, 1)
        ]
        series = [replace(s, share=Slice(index, 2)) for s in [series_of(rate=10, seconds=20), *pods]]
        paths.append(tmp_path / f"{index}.db")
        written(paths[-1], series, lambda *_: Outcome.ANSWER)
    run = merged(*paths)
    assert [(s.target.name, s.start_ns // NS, s.stop_ns // NS) for s in run.series] == [
        ("service", 0, 20), ("pod-7", 4, 11), ("pod-8", 4, 11), ("pod-7", 12, 15), ("pod-9", 16, 19),
    ]  # fmt: skip
    assert [sum(n for (s, *_), n in rows(run).items() if s == k) for k in range(5)] == [200, 30, 30, 30, 15]


# -- what is missing


def test_what_a_missing_shard_had_to_ask_is_undecided(shard: Make) -> None:
    whole, run = Timeline.of(open_run(shard())), Timeline.of(merged(shard(0, 3), shard(2, 3), partial=True))
    for mine, theirs in zip(run.channels, whole.channels, strict=True):
        assert mine.whole.planned == theirs.whole.planned
        assert mine.whole.in_flight == pytest.approx(theirs.whole.planned / 3, abs=1)
        assert mine.loss(((0, 5 * NS),)).good == pytest.approx(theirs.loss(((0, 5 * NS),)).good * 2 / 3, abs=1)
    (doubt,) = [d for d in doubts_of(run.run) if d.id == "shard_missing"]
    assert doubt.text == "shard 1/3 is missing: what it had to ask is undecided"
    assert doubt.hides_loss
    assert "INCONCLUSIVE" in REPORTS["text"](run.run) or "FAIL" in REPORTS["text"](run.run)


def test_what_a_shard_that_was_killed_had_not_asked_is_undecided(shard: Make, tmp_path: Path) -> None:
    killed = tmp_path / "killed.db"
    series = [replace(s, share=Slice(1, 2)) for s in load()]
    writer = RunWriter.create(killed, Head("synthetic", STARTED, SECONDS * NS, "dnsprobe run synthetic"))
    writer.add_series(series)
    writer.flush(flush_of(columns_of(series, fate, latency)[:16], 3), 16 * NS)
    with pytest.raises(UsageError, match=r"killed.db: has no end: .* --partial takes it as it is"):
        merged(shard(0, 2), killed)
    whole, run = Timeline.of(open_run(shard())), Timeline.of(merged(tmp_path / "0-2.db", killed, partial=True))
    writer.finish(16 * NS)
    assert (run.run.finished, run.run.cut) == (True, "")
    assert [c.whole.planned for c in run.channels] == [c.whole.planned for c in whole.channels]
    assert [c.whole.in_flight for c in run.channels] == pytest.approx(
        [c.whole.planned / 6 for c in whole.channels], abs=2
    )
    assert run.windows[0] == whole.windows[0]
    assert [d.text[:29] for d in doubts_of(run.run) if d.id == "cut"] == ["in shard 1, the run was cut: "]


# -- refused


def test_what_cannot_be_put_together(shard: Make, tmp_path: Path) -> None:
    first, second = shard(0, 2), shard(1, 2)

    def refused(*paths: Path) -> str:
        with pytest.raises(UsageError) as caught:
            merged(*paths)
        assert not (tmp_path / "all.db").exists()
        return str(caught.value).replace(f"{tmp_path}/", "")

    assert refused(first) == "of 2 shards 1/2 missing: name the files of all, or say --partial"
    assert refused(first, first, second) == "0-2.db and 0-2.db are both shard 0/2: name each shard once"
    copy = tmp_path / "copy.db"
    copy.write_bytes(first.read_bytes())
    assert refused(first, copy) == "0-2.db and copy.db are both shard 0/2: name each shard once"
    assert refused(first, shard(1, 3)) == ("0-2.db is shard 0/2 and 1-3.db is shard 1/3: their rows overlap")
    assert refused(shard(), first).startswith("0-1.db: is a whole run, no shard of one")
    other = shard(1, 2, "other.db", objectives=("loss <= 1%",))
    assert refused(first, other) == (
        "other.db: is a run of another scenario than 0-2.db: its objectives is not the same"
    )
    (tmp_path / "notes.txt").write_text("no run")
    assert refused(first, tmp_path / "notes.txt").startswith("notes.txt: is not a run file")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"rate": Fraction(31)},
            "was another load than 0.db: what lane vip asks service (127.53.0.10:53) for A differs in rate",
        ),
        ({"timeout_ns": NS}, "for A differs in timeout_ns"),
        (None, "began with 2 series, 0.db with 3"),
    ],
)
def test_another_load_is_refused(change: dict[str, object] | None, said: str, tmp_path: Path) -> None:
    series = load()
    written(tmp_path / "0.db", [replace(s, share=Slice(0, 2)) for s in series], fate)
    changed = [replace(series[0], **change), *series[1:]] if change else series[:2]  # type: ignore[arg-type]
    written(tmp_path / "1.db", [replace(s, share=Slice(1, 2)) for s in changed], fate)
    with pytest.raises(UsageError) as caught:
        merged(tmp_path / "0.db", tmp_path / "1.db")
    assert said in str(caught.value).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize(("apart_ms", "fine"), [(50, True), (51, False), (-900, False)])
def test_shards_that_began_apart_are_refused(apart_ms: int, fine: bool, tmp_path: Path) -> None:
    for index in (0, 1):
        series = [replace(series_of(rate=10, seconds=3), share=Slice(index, 2))]
        writer = RunWriter.create(tmp_path / f"{index}.db", Head("synthetic", STARTED + index * apart_ms * MS, 3 * NS))
        writer.add_series(series)
        writer.flush(flush_of(columns_of(series, lambda *_: Outcome.ANSWER), 1), 3 * NS)
        writer.finish(3 * NS)
    if fine:
        assert merged(tmp_path / "0.db", tmp_path / "1.db").head.started_unix_ns == STARTED
        return
    with pytest.raises(UsageError, match=r"apart from .*: start all shards with the same --start-at TIME"):
        merged(tmp_path / "0.db", tmp_path / "1.db")


# -- by the command line, against a real server


def outcomes(path: Path) -> dict[str, tuple[int, dict[str, int]]]:
    """Planned rows and outcomes of each lane and type."""
    run = open_run(path)
    found = {}
    for s in run.series:
        mine = run.counts.series == s.index
        n = np.bincount(run.counts.outcome[mine], run.counts.n[mine], minlength=len(Outcome)).astype(int)
        found[f"{s.lane} {s.qtype}"] = int(n.sum()), {o.label: int(n[o]) for o in Outcome if n[o]}
    return found


SCENARIO = """
name: everything
duration: 4s
servers: [{{name: it, address: 127.0.0.1, port: {port}}}]
lanes:
  - {{name: fresh, target: it, ports: fresh, rate: 90, questions: &q [a.example.test, missing.example.test]}}
  - {{name: pool, target: it, ports: "pool:5", rate: 70, questions: *q}}
  - {{name: fixed, target: it, ports: fixed, rate: 31, questions: *q}}
  - {{name: poisson, target: it, ports: fresh, rate: 60, arrivals: poisson, questions: *q}}
  - {{name: reused, target: it, transport: tcp, ports: reused, rate: 40, questions: *q}}
"""


def test_one_machine_two_workers_and_two_shards_ask_the_same(knot: RealServer, tmp_path: Path) -> None:
    """Whole, by two workers, by two shards, one of which has two workers: one of the names is missing."""
    (tmp_path / "load.yaml").write_text(SCENARIO.format(port=knot.port))
    alone = {"whole": "", "two": "-T 2"}
    together = {"0": "--shard 0/2 -T 2 --start-at {at}", "1": "--shard 1/2 --start-at {at}"}
    for commands in (alone, together):
        at = datetime.fromtimestamp(time.time() + 10, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        running = [
            start(f"run load.yaml {words.format(at=at)} -o {name}.db", tmp_path) for name, words in commands.items()
        ]
        ended = [(process.communicate(timeout=60)[1], process.returncode) for process in running]
        assert all(code in (0, 1, 3) for _, code in ended), ended
    process = start("merge -o all.db 1.db 0.db --json all.json", tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode in (0, 1, 3), err
    assert "2 of 2" in out
    whole = outcomes(tmp_path / "whole.db")
    assert sum(planned for planned, _ in whole.values()) > 1000
    assert outcomes(tmp_path / "two.db") == whole
    assert outcomes(tmp_path / "all.db") == whole
    for name, (planned, _) in outcomes(tmp_path / "0.db").items():
        assert planned == pytest.approx(whole[name][0] / 2, abs=1)
    assert open_run(tmp_path / "0.db").head.started_unix_ns == open_run(tmp_path / "1.db").head.started_unix_ns
