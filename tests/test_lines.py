"""A run, while it goes and afterwards -> lines of JSON: the same ones, each thing once, each line on its own."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from probe.model import NS, Interval, Mark, Slice, TargetKind
from probe.outcome import Outcome
from probe.report.lines import Teller, lines_report
from probe.runfile import NODE_FACT, POD_FACT, open_run
from probe.timeline import Timeline
from tests.synthetic import drawn, series_of, written
from tests.test_cli import ran, start

COMMON = {"schema_version", "type", "run", "shard", "node", "pod", "time", "seconds"}
Line = dict[str, Any]


def lines(text: str) -> list[Line]:
    return [json.loads(line) for line in text.splitlines()]


def of_type(found: list[Line], kind: str) -> list[Line]:
    return [line for line in found if line["type"] == kind]


def test_a_line_for_everything_and_each_on_its_own(tmp_path: Path) -> None:
    series = [
        replace(series_of(0, "vip", rate=1, seconds=60), share=Slice(1, 4)),
        replace(series_of(1, "pods", "pod-1", TargetKind.POD, rate=1, seconds=60), share=Slice(1, 4)),
    ]
    run = written(
        tmp_path / "run.db",
        series,
        lambda s, due: Outcome.TIMEOUT if 8 * NS <= due < 17 * NS and s.index == 0 else Outcome.ANSWER,
        marks=[Mark(7 * NS, "step", "scale to 2", "scenario"), Mark(25 * NS, "mark", "late", "scenario")],
        intervals=[Interval(0, 20 * NS, "life", "pod-1 counts", "cluster", "pod-1")],
        facts={NODE_FACT: "node-a", POD_FACT: "prober-x"},
    )
    found = lines(lines_report(run))
    assert all(set(line) >= COMMON for line in found)
    whence = {(line["schema_version"], line["run"], line["shard"], line["node"], line["pod"]) for line in found}
    assert whence == {(1, "synthetic@2026-09-21T14:13:20.000Z", "1/4", "node-a", "prober-x")}
    kinds = [line["type"] for line in found]
    assert kinds == ["begin", "series", "series", "mark", "window", "mark", "totals", "totals", "verdict"]
    (window,) = of_type(found, "window")
    (seen,) = Timeline.of(run).windows
    assert (window["lane"], window["target"], window["class"]) == ("vip", "service", "timeout")
    assert (window["planned"], window["lost"]) == (seen.planned, seen.lost)
    assert window["first_lost"] == "2026-09-21T14:13:29.000000000Z"
    assert window["last_lost"] == "2026-09-21T14:13:33.000000000Z"
    assert window["first_good"] == "2026-09-21T14:13:37.000000000Z"
    assert (window["time"], window["seconds"]) == ("2026-09-21T14:13:37.000Z", 17)
    assert [(mark["text"], mark["after_seconds"]) for mark in window["marks"]] == [("scale to 2", -2), ("late", 16)]
    vip, pod = of_type(found, "totals")
    assert (vip["planned"], vip["good"], vip["lost"], vip["in_flight"]) == (15, 13, 2, 0)
    assert vip["types"] == {
        "A": {"planned": 15, "in_flight": 0, "outcomes": {"answer": 13, "timeout": 2}, "not_good": {"timeout": 2}}
    }
    assert (vip["counted"], pod["counted"]) == (None, [[0, 20]])
    verdict = found[-1]
    assert verdict["verdict"] == "FAIL"
    assert [doubt["id"] for doubt in verdict["doubts"]] == ["few_samples"]
    assert verdict["objectives"][0]["verdict"] == "FAIL"
    assert verdict["text"].startswith("FAIL: it hurt: 2 of 15 queries lost")


@pytest.mark.parametrize(
    ("drawing", "windows"),
    [
        ("..xx......", [(2, 4)]),
        ("..xx..x.......", [(2, 7)]),
        ("..xx......x......", [(2, 4), (10, 11)]),
        ("..xxxx????", [(2, 6)]),
    ],
)
def test_second_by_second_it_tells_what_the_whole_tells(
    tmp_path: Path, drawing: str, windows: list[tuple[int, int]]
) -> None:
    """Looked at after each second as the file stands then, with rows left out that the last look needed no more."""
    teller, told = Teller(), []
    for seconds in range(1, len(drawing) + 1):
        series = [series_of(rate=1, seconds=seconds)]
        run = written(tmp_path / f"{seconds}.db", series, drawn(drawing[:seconds]), finish=False)
        begins_ns = teller.open_ns if teller.open_ns is not None else seconds * NS
        part = open_run(run.path, since_second=max(0, begins_ns // NS - 3))
        told += [(line, seconds) for line in lines("\n".join(teller.so_far(part))) if line["type"] == "window"]
    assert all(at > line["seconds"] + 1 for line, at in told), "none is told before it was good again for a second"
    early = [line for line, _ in told]
    rest = of_type(lines("\n".join(teller.rest(run))), "window")
    assert [(w["seconds"] - w["lasted_seconds"], w["seconds"]) for w in early + rest] == windows
    whole = of_type(lines(lines_report(run)), "window")
    assert [{**w, "others": []} for w in early + rest] == [{**w, "others": []} for w in whole]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[float, Line]], int]:
    """A run in the lab whose Service loses a pod, ended by SIGTERM a second after its first window was told."""
    folder = tmp_path_factory.mktemp("told")
    words = "--lab --set lab.lameduck=0s --set lab.propagation=1s --set duration=60s --format jsonl -o run.db"
    found: list[tuple[float, Line]] = []
    windows = 0
    with start(f"run scale-down {words}", folder) as process:
        assert process.stdout
        assert process.stderr
        for text in process.stdout:
            found.append((time.time(), json.loads(text)))
            if found[-1][1]["type"] == "window" and not windows:
                windows = 1
                time.sleep(1)
                process.send_signal(signal.SIGTERM)
        assert "Traceback" not in process.stderr.read()
    return folder / "run.db", found, process.returncode


def test_a_window_is_told_as_it_closes_and_sigterm_brings_totals_and_verdict(
    stopped: tuple[Path, list[tuple[float, Line]], int],
) -> None:
    path, told, code = stopped
    assert code == 130
    started = open_run(path).head.started_unix_ns / NS
    at, window = next((at, line) for at, line in told if line["type"] == "window")
    late = at - started - window["seconds"]
    assert 1 < late < 6, "told once it was good again for a second and all before that was decided"
    found = [line for _, line in told]
    assert found[0]["type"] == "begin"
    assert found[-1]["type"] == "verdict"
    assert "by SIGTERM" in found[-1]["cut"]
    assert found[-1]["verdict"] == "FAIL"
    final = [line for line in of_type(found, "totals") if line["final"]]
    assert sum(line["planned"] for line in final) == found[-1]["planned"] > 1000
    assert all(line["planned"] == sum(line[k] for k in ("good", "lost", "unsent", "in_flight")) for line in final)
    assert any(line["types"]["A"]["not_good"] for line in final)


def test_the_report_afterwards_has_the_same_lines(
    stopped: tuple[Path, list[tuple[float, Line]], int], tmp_path: Path
) -> None:
    path, told, _ = stopped
    code, out, _ = ran(f"report {path} --format jsonl", tmp_path)
    assert code == 1
    again, found = lines(out), [line for _, line in told]
    for kind in ("window", "mark", "verdict"):
        assert sorted(map(json.dumps, of_type(found, kind))) == sorted(map(json.dumps, of_type(again, kind)))
    assert [line for line in of_type(found, "totals") if line["final"]] == of_type(again, "totals")
    assert len(of_type(found, "series")) == len(of_type(again, "series"))


def test_lines_and_json_on_one_stdout_are_refused(tmp_path: Path) -> None:
    code, _, err = ran("run -s 127.0.0.1 --format jsonl --json -", tmp_path)
    assert (code, "--json -: stdout has the lines of --format jsonl: name a file" in err) == (2, True)
