"""Sweeps: the table's arithmetic on drawn runs; whole sweeps in the lab, interrupted, killed and continued."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import sqlite3
import time
import zlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from probe.errors import EnvironmentProblem, UsageError
from probe.live.sweep import LiveSweep, what_became_of
from probe.model import NS, Mark, TargetKind
from probe.outcome import Outcome
from probe.runfile import Run
from probe.scenario.cells import Matrix, read_matrix_text
from probe.sweep import reader
from probe.sweep.file import Made, SweepFile, Turn, sweep_file
from probe.sweep.json import sweep_json
from probe.sweep.measured import Measured, Result, measured_of
from probe.sweep.reader import open_sweep, run_in
from probe.sweep.rollout import rollout_of
from probe.sweep.run import jobs_for, seconds_for
from probe.sweep.schema import APPLICATION_ID, SCHEMA_VERSION, TABLES
from probe.sweep.table import Spread, Table, table_of
from probe.sweep.text import sweep_text
from tests.synthetic import drawn, series_of, written
from tests.test_cli import ran, start
from tests.test_upgrades import shape

SCENARIO = """\
name: swept
duration: 3s
lab:
  coredns: stand-in
  replicas: 2
  readiness_period: 0.3s
  readiness_failures: 1
  teardown: 0.1s
lanes:
  - name: vip-udp-fresh
    target: service
    rate: 100
    questions: &names [kubernetes.default.svc.cluster.local]
  - name: vip-udp-fixed
    target: service
    ports: fixed
    rate: 50
    questions: *names
  - name: pods
    target: pods
    rate: 10
    questions: *names
steps:
  - wait: 0.5s
  - scale: 1
objectives:
  - loss(vip-*) <= 30%
matrix:
  repeats: 2
  vary:
    lab.lameduck: [0s, 1s]
  under:
    lab.propagation: [200ms, 500ms]
"""


def matrix(text: str = SCENARIO) -> Matrix:
    found = read_matrix_text("x.yaml", text, [])
    assert found
    return found


# ---- a run's marks


def mark(at_s: float, kind: str, subject: str = "", text: str = "") -> Mark:
    return Mark(round(at_s * NS), kind, text, "lab", subject)


def programmed(at_s: float, text: str) -> Mark:
    return mark(at_s, "endpoints_programmed", "kube-dns", text)


ENDING = [
    mark(1, "step", text="scale to 1"),
    mark(1, "pod_deleted", "a"),
    programmed(2.5, "ready: b; terminating, serving: a"),
    programmed(4, "ready: b; not serving: a"),
    mark(6, "pod_exited", "a"),
    mark(6.5, "pod_gone", "a"),
]


def of_marks(tmp_path: Path, marks: list[Mark]) -> Run:
    facts = {"lab.kubernetes": "1.33", "lab.proxy_mode": "iptables"}
    series, objectives = [series_of(rate=10, seconds=8)], ("loss <= 10%",)
    return written(tmp_path / "run.db", series, drawn(""), marks=marks, facts=facts, objectives=objectives)


@pytest.mark.parametrize(
    ("marks", "seconds", "margins"),
    [
        ([], None, {}),
        (ENDING[1:], None, {}),
        (ENDING, 5.5, {"fresh": 3.5, "reused": 2.0}),
        ([*ENDING[:4], mark(3, "sigkill", "a"), *ENDING[4:]], 5.5, {"fresh": 0.5, "reused": -1.0}),
        (
            [*ENDING, mark(2, "pod_created", "c"), mark(7, "pod_ready", "c")],
            *(6.0, {"fresh": 3.5, "reused": 2.0}),
        ),
        (
            [*ENDING, mark(1, "rollout_started", "coredns"), mark(7.5, "rollout_done", "coredns")],
            *(6.5, {"fresh": 3.5, "reused": 2.0}),
        ),
        (
            [mark(1, "pod_deleted", "b"), *ENDING[:2], programmed(2, "ready: none; terminating, serving: a, b")]
            + [programmed(3, "ready: none"), *(mark(5, "pod_exited", p) for p in "ab")]
            + [mark(5, "pod_gone", p) for p in "ab"],
            *(4.0, {"fresh": 2.0, "reused": 2.0}),
        ),
    ],
)
def test_how_long_a_rollout_took_and_what_margin_it_had(
    tmp_path: Path, marks: list[Mark], seconds: float | None, margins: dict[str, float]
) -> None:
    rollout = rollout_of(of_marks(tmp_path, marks))
    assert (rollout.seconds, rollout.margins, rollout.unseen) == (seconds, margins, "")


@pytest.mark.parametrize(
    ("marks", "unseen"),
    [
        (ENDING[:-1], "a was not gone"),
        ([*ENDING[:2], *ENDING[4:], programmed(2, "ready: a, b")], "the node still used a"),
        ([*ENDING, mark(2, "pod_created", "c")], "c was not Ready"),
        ([*ENDING, mark(1, "rollout_started", "coredns")], "the rollout was not over"),
    ],
)
def test_a_rollout_that_was_not_over_is_no_evidence(tmp_path: Path, marks: list[Mark], unseen: str) -> None:
    run = of_marks(tmp_path, marks)
    assert (rollout_of(run).seconds, rollout_of(run).unseen) == (None, unseen)
    assert measured_of(run).unsure == f"{unseen} when the run ended: give it a longer duration"


def test_ports_used_again_leave_by_the_era_of_kube_proxy(tmp_path: Path) -> None:
    run = of_marks(tmp_path, ENDING)

    def with_facts(**facts: str) -> Run:
        named = {f"lab.{name}": value for name, value in facts.items()}
        return replace(run, head=replace(run.head, facts={**run.head.facts, **named}))

    assert rollout_of(with_facts(kubernetes="1.28")).margins == {"fresh": 3.5, "reused": 3.5}
    assert rollout_of(with_facts(proxy_mode="ipvs")).margins == {"fresh": 3.5}


# ---- what a run says of its cell


def test_what_is_kept_of_a_run_is_what_its_report_says(tmp_path: Path) -> None:
    series = [
        series_of(0, rate=10, seconds=30),
        series_of(1, rate=10, seconds=30, lane="vip-fixed", ports="fixed"),
        series_of(2, rate=10, seconds=30, lane="pods", target="a", kind=TargetKind.POD),
    ]
    lost = "." * 100 + "x" * 20 + "." * 50 + "r" * 5
    run = written(
        tmp_path / "run.db",
        series,
        lambda s, due: drawn(lost if s.index == 0 else "", 10)(s, due),
        objectives=("loss(vip-*) <= 1%",),
    )
    measured = measured_of(run)
    assert (measured.verdict, measured.unsure, measured.crowded) == ("FAIL", "", False)
    assert [(r.lane, r.planned, r.lost, round(r.longest, 3), r.outcome) for r in measured.results] == [
        ("vip-udp", 300, 25, 2.0, "timeout"),
        ("vip-fixed", 300, 0, 0.0, ""),
        ("pods", 300, 0, 0.0, ""),
    ]


@pytest.mark.parametrize(
    ("drawing", "unsure", "crowded"),
    [
        ("", "", False),
        ("u" * 60, "60 rows were due and never sent, this prober's own fault", True),
        ("u" * 60 + "x" * 90, "", False),
    ],
)
def test_a_run_that_may_hide_a_loss_is_no_evidence(tmp_path: Path, drawing: str, unsure: str, crowded: bool) -> None:
    objectives = ("loss <= 10%",)
    run = written(tmp_path / "run.db", [series_of(rate=10, seconds=30)], drawn(drawing, 10), objectives=objectives)
    measured = measured_of(run)
    assert (measured.unsure, measured.crowded) == (unsure, crowded)


# ---- the table


def result(lane: str, lost: int, ports: str = "fresh", kind: str = "service") -> Result:
    outcome = "timeout" if lost else ""
    return Result(lane, "kube-dns", kind, "udp", ports, 300, 300 - lost, lost, lost, 0, lost / 100, outcome, None)


def measured(
    fresh: int, fixed: int = 0, rollout: float | None = 1.0, margins: tuple[float, float] = (0.1, 0.1), why: str = ""
) -> Measured:
    """A run that lost so many on fresh ports, and on a fixed one; margins of both kinds."""
    results = (
        result("vip-udp-fresh", fresh),
        result("vip-udp-fixed", fixed, "fixed"),
        result("pods", 7, kind="pod"),
    )
    known = dict(zip(("fresh", "reused"), margins, strict=True))
    return Measured("FAIL" if fresh or fixed else "PASS", why, False, rollout, known, "", results)


def recorded(file: SweepFile, runs: dict[tuple[int, int], Measured | str]) -> None:
    for turn in file.turns():
        made = runs.get((turn.cell.number, turn.repeat))
        if isinstance(made, Measured):
            file.record(Made(turn, "done", made.unsure, 0, 1, 2.0, made, b"a run file"))
        elif made:
            file.record(Made(turn, "failed", made, 0, 1, 2.0))


def table(tmp_path: Path, runs: dict[tuple[int, int], Measured | str], text: str = SCENARIO) -> Table:
    path = tmp_path / "sweep.db"
    with sweep_file(path, matrix(text), (), 2, "dnsprobe run x.yaml --lab", print) as file:
        recorded(file, runs)
    return table_of(open_sweep(path))


ONE_BLOCK = SCENARIO.replace("[0s, 1s]", "[0s, 1s, 2s]").partition("  under:")[0]


def test_the_table_adds_up_and_names_the_cheapest_setting_without_loss(tmp_path: Path) -> None:
    told = table(
        tmp_path,
        {
            (1, 1): measured(20, 4, 1.0, (-0.5, -0.7)),
            (1, 2): measured(30, 0, 1.2, (-0.6, -0.8)),
            (2, 1): measured(0, 0, 2.0, (0.5, 0.3)),
            (2, 2): measured(0, 0, 2.2, (0.4, 0.35)),
            (3, 1): measured(0, 0, 3.0, (1.5, 1.3)),
            (3, 2): measured(0, 0, 3.0, (1.5, 1.3)),
        },
        ONE_BLOCK,
    )
    (block,) = told.blocks
    assert [lane.name for lane in told.lanes] == ["vip-udp-fresh", "vip-udp-fixed"]
    first = block.rows[0]
    assert first.lost == {"vip-udp-fresh": Spread(25.0, 20, 30), "vip-udp-fixed": Spread(2.0, 0, 4)}
    assert first.longest["vip-udp-fresh"] == Spread(0.25, 0.2, 0.3)
    assert first.rollout == Spread(1.1, 1.0, 1.2)
    (choice,) = block.choices
    assert choice.row
    assert choice.row.cell.vary == ("1s",)
    assert choice.margins == {"fresh": 0.4, "reused": 0.3}
    assert choice.cheaper is first
    said = " ".join(sweep_text(told).split())
    assert (
        "for all lanes: lab.lameduck 1s is the cheapest without loss in 2 repeats (rollout 2.10 s; margin 0.40 s for"
        " fresh ports, 0.30 s for ports used again); the next cheaper, lab.lameduck 0s, lost 27.0 a run"
        " (vip-udp-fresh, vip-udp-fixed)"
    ) in said
    assert "1 0s 25.0 (20-30), 0.30 s 2.0 (0-4), 0.04 s 1.10 s * 2 1s 0 0 2.10 s 3 2s 0 0 3.00 s" in said


def test_ports_that_need_different_settings_are_told_apart(tmp_path: Path) -> None:
    runs = {(1, r): measured(20, 9, 1.0, (-1, -2)) for r in (1, 2)}
    runs |= {(2, r): measured(0, 9 * (r - 1), 2.0, (1, -1)) for r in (1, 2)}
    runs |= {(3, r): measured(0, 0, 3.0, (2, 0.5)) for r in (1, 2)}
    (block,) = table(tmp_path, dict(runs), ONE_BLOCK).blocks
    told = [(choice.ports, choice.row.cell.vary[0] if choice.row else "", choice.margins) for choice in block.choices]
    assert told == [
        ("", "2s", {"fresh": 2.0, "reused": 0.5}),
        ("fresh", "1s", {"fresh": 1.0}),
        ("fixed", "2s", {"reused": 0.5}),
    ]


def test_rollouts_that_are_alike_cost_the_same(tmp_path: Path) -> None:
    runs = {(cell, r): measured(0, 0, 1.2 - cell * 0.05) for cell in (1, 2, 3) for r in (1, 2)}
    (block,) = table(tmp_path, dict(runs), ONE_BLOCK).blocks
    assert block.choices[0].row is block.rows[0]
    assert block.choices[0].cheaper is None


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (measured(0, 3), "lab.lameduck 0s, which lost least, lost 1.5 a run (vip-udp-fixed)"),
        (
            measured(0, 0, None, why="it stood still"),
            "without loss for certain; lab.lameduck 0s, which lost least, lost nothing, but is no evidence: repeat",
        ),
        ("no coredns", "lost nothing, but is no evidence: repeat 2 could not run: no coredns"),
        (None, "lost nothing, but is no evidence: repeat 2 not made yet"),
        (measured(0, margins=(0.1, -0.1)), "lost nothing by luck alone: its margin is -0.10 s for ports used again"),
    ],
)
def test_what_is_no_evidence_is_never_recommended(tmp_path: Path, second: Measured | str | None, said: str) -> None:
    text = SCENARIO.replace("[0s, 1s]", "[0s]").partition("  under:")[0]
    runs: dict[tuple[int, int], Measured | str] = {(1, 1): measured(0)}
    told = table(tmp_path, runs | ({(1, 2): second} if second else {}), text)
    assert told.blocks[0].choices[0].row is None
    assert said in " ".join(sweep_text(told).split())
    choice = json.loads(sweep_json(told))["blocks"][0]["choices"][0]
    assert choice["cell"] is None
    assert choice["lost_least"]["cell"] == 1


def test_a_sweep_of_which_nothing_ran_has_a_table(tmp_path: Path) -> None:
    told = table(tmp_path, {})
    assert "0 of them made" in sweep_text(told)
    assert "for all lanes: nothing was measured yet" in sweep_text(told)
    assert json.loads(sweep_json(told))["made"] == 0


# ---- the file


def test_a_sweep_file_goes_on_in_its_own_order_and_with_more_repeats(tmp_path: Path) -> None:
    path = tmp_path / "sweep.db"
    with sweep_file(path, matrix(), (), 2, "first", print) as file:
        order = [turn.name for turn in file.turns()]
        recorded(file, {(2, 1): measured(0)})
    assert sorted(order[:4]) == ["1.1", "2.1", "3.1", "4.1"]
    assert sorted(order[4:]) == ["1.2", "2.2", "3.2", "4.2"]
    with sweep_file(path, matrix(), (), 3, "second", print) as file:
        again = [turn.name for turn in file.turns()]
    assert again[:7] == [name for name in order if name != "2.1"]
    assert sorted(again[7:]) == ["1.3", "2.3", "3.3", "4.3"]
    assert open_sweep(path).command == "first"


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_a_sweep_of_each_schema_is_read_and_upgraded_has_the_tables_of_today(version: int, tmp_path: Path) -> None:
    path = tmp_path / "sweep.db"
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect("")) as today:
        db.executescript((Path(__file__).parent / "data" / "sweep" / f"{version}.sql").read_text())
        db.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version}")
        told = table_of(open_sweep(path))
        reader.upgrade(db)
        today.executescript(TABLES)
        assert shape(db) == shape(today), "TABLES changed: see UPGRADES in probe/sweep/schema.py"
    assert [(row.measured, row.doubts) for row in told.blocks[0].rows] == [
        (1, ()),
        (0, ("repeat 1 could not run: no lab",)),
        (0, ("repeat 1 not made yet",)),
    ]
    assert told.blocks[0].rows[0].lost["vip-udp-fresh"].mean == 6


def old(path: Path, version: int = 1) -> Path:
    """The sweep there, as a dnsprobe may have written it that knew nothing of what ended the Service."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE runs DROP COLUMN ended_by")
        db.execute(f"PRAGMA user_version = {version}")
        db.commit()
    return path


def test_a_sweep_of_an_older_schema_is_read_from_a_copy_and_continued_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(tmp_path, {(2, 1): measured(0)})
    path = old(tmp_path / "sweep.db")
    monkeypatch.setattr(reader, "SCHEMA_VERSION", 2)
    monkeypatch.setattr(reader, "UPGRADES", ("ALTER TABLE runs ADD COLUMN ended_by TEXT",))
    before = path.read_bytes()
    assert [run.state for run in open_sweep(path).cells[1].runs] == ["done", "waiting"]
    assert path.read_bytes() == before
    with sweep_file(path, matrix(), (), 2, "again", print) as file:
        recorded(file, {(2, 2): measured(0)})
    monkeypatch.setattr(reader, "UPGRADES", ("no SQL",))
    assert [run.state for run in open_sweep(path).cells[1].runs] == ["done", "done"]


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1])
def test_a_sweep_of_a_schema_that_nobody_here_knows_is_refused(version: int, tmp_path: Path) -> None:
    table(tmp_path, {})
    with pytest.raises(UsageError, match=f"has sweep schema {version}, this dnsprobe reads {SCHEMA_VERSION} and older"):
        open_sweep(old(tmp_path / "sweep.db", version))


@pytest.mark.parametrize("packed", [zlib.compress(bytes(1 << 20)), zlib.compress(b"run")[:-4]], ids=["bomb", "cut off"])
def test_a_run_that_does_not_end_fills_no_memory(
    packed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MOST_OCTETS", 1 << 19)
    table(tmp_path, {(2, 1): measured(0)})
    path = tmp_path / "sweep.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE runs SET run = ? WHERE cell = 2 AND repeat = 1", (packed,))
        db.commit()
    with pytest.raises(UsageError, match=r"is a damaged sweep file: the run of cell 2.1 is cut off, or larger"):
        run_in(path, "2")


def test_a_full_disk_is_said_and_leaves_a_place_to_begin(tmp_path: Path) -> None:
    path = tmp_path / "sweep.db"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(EnvironmentProblem, match="cannot be written"), sweep_file(path, matrix(), (), 2, "", print):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with sweep_file(path, matrix(), (), 2, "second", print) as file:
        assert len(file.turns()) == 8


def test_how_many_at_a_time_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = [cell.plan for cell in matrix().cells]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(2)))
    few = jobs_for(plans)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert 1 <= few < jobs_for(plans)
    heavy = replace(plans[0], lanes=tuple(replace(lane, rate=lane.rate * 10_000) for lane in plans[0].lanes))
    assert jobs_for([*plans, heavy]) == 1
    assert seconds_for(plans, 1, 1.0) == 16.0
    assert seconds_for(plans, 2, 1.0) == 8.0
    assert seconds_for(plans, 100, 1.0) == 4.0


# ---- whole sweeps


def swept(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(SCENARIO)


def states(path: Path) -> dict[str, str]:
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as db:
        return {f"{cell}.{repeat}": state for cell, repeat, state in db.execute("SELECT cell, repeat, state FROM runs")}


def processes(folder: Path) -> list[str]:
    """Command lines of cells and labs that are about this folder's sweep, or were started by it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"SWEEP_TEST={folder}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return found


def gone(folder: Path, within_s: float) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if not processes(folder):
            return True
        time.sleep(0.1)
    return False


def test_a_sweep_is_made_and_told(tmp_path: Path) -> None:
    swept(tmp_path)
    code, out, err = ran("run x.yaml --lab -o sweep.db --jobs 3 --json sweep.json", tmp_path)
    assert code == 0, err
    assert "swept: 4 cells x 2 = 8 runs, all made" in out
    assert len([line for line in err.splitlines() if " of 8, " in line and not line.endswith("again, alone")]) == 8
    told = json.loads((tmp_path / "sweep.json").read_text())
    with sqlite3.connect(tmp_path / "sweep.db") as db:
        for block in told["blocks"]:
            for row in block["rows"]:
                sums = dict(
                    db.execute("SELECT lane, avg(lost) FROM results WHERE cell = ? GROUP BY lane", (row["cell"],))
                )
                assert {lane: spread["lost"]["mean"] for lane, spread in row["lanes"].items()} == {
                    lane: lost for lane, lost in sums.items() if lane != "pods"
                }
        kept = dict(
            db.execute("SELECT cell, sum(lost) FROM results WHERE repeat = 2 AND target_kind != 'pod' GROUP BY 1")
        )
    for block in told["blocks"]:
        without, with_lameduck = block["rows"]
        assert without["lanes"]["vip-udp-fresh"]["lost"]["least"] > 0
        assert with_lameduck["lanes"]["vip-udp-fresh"]["lost"]["most"] == 0
        assert block["choices"][0]["settings"] == {"lab.lameduck": "1s"}
        assert 0 < block["choices"][0]["margin_seconds"]["fresh"] < 1
    assert ran("report sweep.db", tmp_path)[:2] == (0, out)
    for cell, lost in kept.items():
        code, out, err = ran(f"report sweep.db --cell {cell}.2 --format json", tmp_path)
        report = json.loads(out)
        counted = sum(series["lost"] for series in report["series"] if series["target_kind"] != "pod")
        assert (code, counted) == (0, lost), err
        assert report["environment"]["file"] == f"sweep.db --cell {cell}.2"
    assert not (tmp_path / "sweep.db-cells").exists()
    code, _, err = ran("run x.yaml --lab -o sweep.db --jobs 3", tmp_path)
    assert code == 0
    assert "0 runs, 3 at a time, 0:00 left; 8 are there already" in err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_sweep_leaves_nothing_behind_and_goes_on(
    tmp_path: Path, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.yaml").write_text(SCENARIO.partition("  under:")[0])
    monkeypatch.setenv("SWEEP_TEST", str(tmp_path))
    command = "run x.yaml --lab -o sweep.db --jobs 2"
    sweep = start(command, tmp_path)
    assert sweep.stderr
    for line in sweep.stderr:
        if line.startswith("1 of 4"):
            break
    time.sleep(1.5)  # others are running
    sweep.send_signal(how)
    _, err = sweep.communicate(timeout=30)
    before = states(tmp_path / "sweep.db")
    assert 1 <= list(before.values()).count("done") <= 3
    if how is not signal.SIGKILL:
        assert sweep.returncode == 130
        assert f"runs are in sweep.db; to continue, say: dnsprobe {command}" in err
        assert processes(tmp_path) == []
        assert not (tmp_path / "sweep.db-cells").exists()
    assert ran("report sweep.db", tmp_path)[0] == 3
    monkeypatch.delenv("SWEEP_TEST")
    code, out, err = ran(command, tmp_path)
    assert code == 0, err
    assert f"{4 - list(before.values()).count('done')} runs, 2 at a time" in err
    assert "4 runs, all made" in out
    assert gone(tmp_path, 5)


def test_another_sweep_is_not_continued(tmp_path: Path) -> None:
    with sweep_file(tmp_path / "sweep.db", matrix(), (), 2, "first", print):
        pass
    (tmp_path / "x.yaml").write_text(SCENARIO.replace("[0s, 1s]", "[0s, 2s]"))
    for words, differs in (("", "scenario or --set"), ("--set lab.replicas=3", "scenario or --set")):
        code, _, err = ran(f"run x.yaml --lab -o sweep.db {words}", tmp_path)
        assert code == 2
        assert f"sweep.db: is a sweep of something else ({differs} differs)" in err


def test_a_sweep_that_cannot_run_says_why_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.yaml").write_text(SCENARIO.replace("coredns: stand-in", "coredns: real"))
    monkeypatch.setenv("DNSPROBE_COREDNS", "/nonexistent/coredns")
    code, _, err = ran("run x.yaml --lab -o sweep.db --jobs 1", tmp_path)
    assert code == 4
    assert "3 runs could not be made, and none could: " in err
    assert "DNSPROBE_COREDNS=/nonexistent/coredns: no such program" in err
    assert "to continue, say: dnsprobe run x.yaml --lab -o sweep.db --jobs 1" in err
    assert set(states(tmp_path / "sweep.db").values()) == {"failed", "waiting"}


def test_one_run_is_taken_out_as_it_was_put_in(tmp_path: Path) -> None:
    run = written(tmp_path / "run.db", [series_of(seconds=8)], drawn("..x"), objectives=("loss <= 1%",))
    path = tmp_path / "sweep.db"
    with sweep_file(path, matrix(), (), 1, "", print) as file:
        turn = file.turns()[0]
        file.record(Made(turn, "done", "", 0, 1, 2.0, measured_of(run), run.path.read_bytes()))
    again = run_in(path, turn.name)
    assert again.head == run.head
    assert (again.counts.outcome == Outcome.TIMEOUT).sum() == 1


def test_a_terminal_shows_how_far_it_is_and_what_became_of_the_last() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=60, height=6, color_system=None)
    view = LiveSweep(console)
    turns = [Turn(cell, 1) for cell in matrix().cells]
    view.begin(3, 4, 2, 200.0)
    for turn in turns:
        view.started(turn)
    view.ended(Made(turns[0], "done", "", 1, 1, 2.0, measured(63, 9)), 4, 7, 130.0)
    view.ended(Made(turns[1], "crowded", "60 rows", 1, 1, 2.0, measured(0, why="60 rows")), 4, 7, 130.0)
    view.ended(Made(turns[2], "failed", "no coredns", 0, 1, 2.0), 4, 7, 3725.4)
    view.end()
    page = Console(file=io.StringIO(), width=60, color_system=None)
    with page.capture() as capture:
        page.print(view.frame())
    assert capture.get().splitlines() == [
        "4 of 7 runs, 2 at a time, 1:02:05 left",
        "  1.1 lab.propagation=200ms lab.lameduck=0s: lost 63 on vip…",
        "  2.1 lab.propagation=200ms lab.lameduck=1s: lost nothing; …",
        "  3.1 lab.propagation=500ms lab.lameduck=0s: FAILED: no cor…",
        "  4.1 lab.propagation=500ms lab.lameduck=1s: 0 s",
    ]
    assert what_became_of(Made(turns[1], "crowded", "60 rows", 1, 1, 2.0, measured(0, why="60 rows"))) == (
        "2.1 lab.propagation=200ms lab.lameduck=1s: lost nothing; inconclusive: 60 rows: to be made again, alone"
    )
