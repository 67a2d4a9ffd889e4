"""Runs side by side: what chance makes and what it does not, what is refused, the three ways in which it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from probe.errors import UsageError
from probe.histogram import BINS, bins_of
from probe.model import NS, Mark, Question, Series, TargetKind
from probe.outcome import Outcome
from probe.report.chance import fisher, ratio_range
from probe.report.compare import Comparison, compare
from probe.report.compared import compared_json, compared_text, statement, worst_ruling
from probe.report.overlay import compared_html, overlay
from probe.runfile import Run
from probe.verdict import Ruling
from tests.hostile import hostile
from tests.synthetic import MS, drawn, series_of, written
from tests.test_cli import told
from tests.test_html import Page

OUTAGE = "." * 100 + "x" * 60
STEP = [Mark(2 * NS, "step", "scale to 2", "scenario")]


@pytest.mark.parametrize(
    ("one", "other", "p"),
    [
        ((1, 10), (11, 14), 0.00276),
        ((8, 10), (1, 6), 0.0350),
        ((0, 100), (0, 100), 1.0),
        ((5, 5), (0, 5), 0.0079),
        ((0, 1600), (102, 1600), 0.0),
        ((3, 16_000), (0, 16_000), 0.25),
        ((10, 10), (7, 7), 1.0),
    ],
)
def test_fisher_by_tables_of_others(one: tuple[int, int], other: tuple[int, int], p: float) -> None:
    assert fisher(*one, *other) == pytest.approx(p, abs=6e-5)
    assert fisher(*other, *one) == pytest.approx(p, abs=6e-5)


def slices(milliseconds: float, n: int = 30, spread: float = 0.1) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    draw = np.random.default_rng(round(milliseconds * 1000))
    found = np.zeros((n, BINS), np.int64)
    for row in found:
        ns = draw.normal(milliseconds, spread * milliseconds, 200) * MS
        np.add.at(row, bins_of(ns.astype(np.int64)), 1)
    return found


def test_latencies_differ_where_draws_of_their_slices_always_do() -> None:
    low, high = ratio_range(slices(1), slices(2), 0.5) or (0, 0)
    assert 1.8 < low < high < 2.2
    low, high = ratio_range(slices(1), slices(1.0001), 0.5) or (0, 0)
    assert low <= 1 <= high
    assert ratio_range(slices(1, n=4), slices(2), 0.5) is None


Change = Callable[[Series], Series]


def run_of(path: Path, drawing: str = "", change: Change = lambda s: s, lameduck: str = "5 s", rate: int = 200) -> Run:
    """10 s of a Service and of a pod whose name is the file's; in `drawing` what the Service lost."""
    series = [
        change(series_of(0, "vip-udp", "kube-dns", rate=rate, seconds=10)),
        series_of(1, "pods", f"coredns-{path.stem}", TargetKind.POD, rate=10, seconds=10),
    ]

    def fate(s: Series, due_ns: int) -> Outcome | None:
        return drawn(drawing, rate)(s, due_ns) if s.lane == "vip-udp" else Outcome.ANSWER

    facts = {"lab.lameduck": lameduck, "conntrack": f"{len(drawing)} entries"}
    return written(path, series, fate, name="scale-down", marks=STEP, facts=facts)


def both(folder: Path, before: str, after: str) -> Comparison:
    return compare([run_of(folder / "before.db", before, lameduck="0 s"), run_of(folder / "after.db", after)])


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (OUTAGE, "", "#2: PASS instead of FAIL: lost 0 of 2,000 instead of 60; beyond noise: fewer lost on vip-udp"),
        ("", OUTAGE, "#2: FAIL instead of PASS: lost 60 of 2,000 instead of 0; beyond noise: more lost on vip-udp"),
        ("..x", "", "lost 0 of 2,000 instead of 1; no difference exceeds noise"),
        ("", "", "lost nothing, as before; no difference exceeds noise"),
        ("x" * 300, "x" * 400, "lost 400 of 2,000 instead of 300; no difference exceeds noise"),
        ("x" * 300, "." * 1900 + "x" * 100, "lost 100 of 2,000 instead of 300; no difference exceeds noise"),
        (OUTAGE, OUTAGE + "x" * 40, "lost 100 of 2,000 instead of 60; beyond noise: more lost on vip-udp"),
    ],
)
def test_what_changed_and_whether_it_exceeds_noise(tmp_path: Path, before: str, after: str, said: str) -> None:
    found = both(tmp_path, before, after)
    [text] = statement(found)
    assert said in text
    assert (worst_ruling(found) is Ruling.FAIL) == bool(after)


def test_what_was_set_is_told_as_settings_and_not_as_lines(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / f"{i}.db") for i in range(2)]
    texts = ("a: 1\n# --set lab.cache=5s\n", "a: 2\n")
    changed = [replace(run, head=replace(run.head, scenario=text)) for run, text in zip(runs, texts, strict=True)]
    told = {s.name: s.values for s in compare(changed).settings}
    assert told == {"--set": ("lab.cache=5s", ""), "scenario": ("", "-a: 1; +a: 2")}


def test_pods_are_compared_together_and_settings_but_not_what_passes(tmp_path: Path) -> None:
    found = both(tmp_path, OUTAGE, "")
    assert [lane.key for lane in found.lanes] == [("vip-udp", "kube-dns"), ("pods", "pods")]
    assert [(s.name, s.values) for s in found.settings] == [("lab.lameduck", ("0 s", "5 s"))]
    [vip, pods] = found.lanes
    measures = {d.measure: d.exceeds for d in vip.after[0][1]}
    assert measures == {"loss": True, "longest disruption": True, "p50": False, "p99": False}
    assert (vip.before.lost, vip.after[0][0].lost, pods.before.asked) == (60, 0, 100)
    assert vip.before.longest_ns == 300_000_000


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda s: replace(s, rate=Fraction(100)), "lane vip-udp: queries a second 200 in the one, 100 in the other"),
        (lambda s: replace(s, lane="vip-new"), "lane vip-udp is in {before} alone; lane vip-new is in {after} alone"),
        (lambda s: replace(s, timeout_ns=5 * NS), "lane vip-udp: timeout 2 s in the one, 5 s in the other"),
        (
            lambda s: replace(s, questions=(Question.of("other.example."),)),
            "lane vip-udp: questions kubernetes.default.",
        ),
    ],
)
def test_runs_that_asked_otherwise_are_refused(tmp_path: Path, change: Change, why: str) -> None:
    before, after = run_of(tmp_path / "before.db"), run_of(tmp_path / "after.db", change=change)
    with pytest.raises(UsageError, match="cannot be compared with") as refused:
        compare([before, after])
    assert why.format(before=before.path, after=after.path) in str(refused.value)


def test_runs_that_were_cut_or_made_otherwise_are_refused(tmp_path: Path) -> None:
    before = run_of(tmp_path / "before.db")
    for other, why in (
        (replace(before, cut="interrupted"), "was cut short (interrupted): run it again"),
        (replace(before, head=replace(before.head, objectives=("loss <= 1%",))), "objectives: the default ones in the"),
        (
            replace(before, head=replace(before.head, name="scale-up")),
            "scenario scale-down in the one, scale-up in the",
        ),
        (replace(before, marks=()), "1 steps were taken in the one, 0 in the other"),
    ):
        with pytest.raises(UsageError) as refused:
            compare([before, other])
        assert why in str(refused.value)


def test_as_text_and_as_json(tmp_path: Path) -> None:
    found = both(tmp_path, OUTAGE, "")
    text = compared_text(found)
    assert "lab.lameduck: #1 0 s, #2 5 s" in text
    assert max(map(len, text.splitlines())) <= 120
    report = json.loads(compared_json(found))
    assert " ".join(report) == "schema_version statement runs lanes settings method"
    assert [side["lost"] for side in report["lanes"][0]["sides"]] == [60, 0]
    [loss, *_] = report["lanes"][0]["differences"][0]
    assert (loss["measure"], loss["exceeds_noise"]) == ("loss", True)
    assert loss["by_chance"] < 1e-9


def test_timelines_above_each_other_begin_at_the_first_step(tmp_path: Path) -> None:
    before = run_of(tmp_path / "before.db", OUTAGE)
    after = run_of(tmp_path / "after.db", OUTAGE)
    after = replace(after, marks=(Mark(3 * NS, "step", "scale to 2", "scenario"),))
    scene = overlay(compare([before, after]))
    assert {row["a"] for row in scene.data["steps"]} == {3000}
    assert [name.partition(":")[0] for name in scene.lanes] == [
        "#1 vip-udp → kube-dns",
        "#2 vip-udp → kube-dns",
        "#1 pods → coredns-before",
        "#2 pods → coredns-after",
    ]
    page = Page(compared_html(compare([before, after])))
    assert len(page.data["spec"]["vconcat"]) == 3
    assert "Lanes" in page.texts


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    runs = []
    for name, texts in (("a", hostile()), ("b", hostile()[::-1])):
        shown = [text.encode("utf-8", "backslashreplace").decode() for text in texts]
        facts = {f"fact {i}": text for i, text in enumerate(shown)}
        series = [series_of(0, shown[0] if name == "x" else "<b>", "</script>", rate=10)]
        runs.append(written(tmp_path / f"{name}.db", series, drawn("..x", 10), name="<i>", facts=facts))
    found = compare(runs)
    page = Page(compared_html(found))
    assert {"b", "header", "h1", "p", "td", "script"} <= {tag for tag, _ in page.tags}
    assert not {"i", "img", "iframe", "a", "svg"} & {tag for tag, _ in page.tags}
    assert all(line.isprintable() for line in compared_text(found).split("\n"))
    assert len(json.loads(compared_json(found))["settings"]) > 190


def test_the_command_and_its_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_of(tmp_path / "before.db", OUTAGE, lameduck="0 s")
    run_of(tmp_path / "after.db")
    run_of(tmp_path / "faster.db", rate=100)
    code, out, _ = told(f"compare {tmp_path}/before.db {tmp_path}/after.db --json {tmp_path}/x.json", capsys)
    assert code == 0
    assert out.startswith(
        "#2: PASS instead of FAIL: lost 0 of 2,000 instead of 60; beyond noise: fewer lost on vip-udp"
    )
    assert json.loads((tmp_path / "x.json").read_text())["runs"][0]["verdict"] == "FAIL"
    code, _, err = told(f"compare {tmp_path}/after.db {tmp_path}/before.db", capsys)
    assert (code, err) == (1, "")
    code, _, err = told(f"compare {tmp_path}/after.db {tmp_path}/faster.db", capsys)
    assert code == 2
    assert "cannot be compared with" in err
    code, _, err = told(f"compare {tmp_path}/after.db", capsys)
    assert code == 2
    assert "name two run files or more" in err
