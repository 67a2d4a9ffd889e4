"""A scenario's matrix: its cells and their plans, and what a person is told about every wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from probe.errors import ScenarioError, UsageError
from probe.model import NS
from probe.scenario.cells import Matrix, read_matrix, read_matrix_text
from probe.scenario.file import read_scenario_text

SCENARIO = """\
name: swept
duration: 10s
lab: {replicas: 2}
lanes:
  - {name: vip, target: service, rate: 20, questions: [a.example]}
steps:
  - wait: 1s
  - scale: 1
"""
MATRIX = """\
matrix:
  repeats: 2
  vary:
    lab.lameduck: [0s, 5s]
    readiness:
      - {name: 10x3, lab.readiness_period: 10s, lab.readiness_failures: 3}
      - {lab.readiness_period: 5s, lab.readiness_failures: 1}
  under:
    lab.propagation: [500ms, 2s]
  longer_by: [lab.lameduck, lab.propagation]
"""


def read(matrix: str, *settings: str) -> Matrix | None:
    return read_matrix_text("x.yaml", SCENARIO + matrix, list(settings))


def swept(matrix: str, *settings: str) -> Matrix:
    found = read(matrix, *settings)
    assert found
    return found


def test_every_combination_is_a_cell_in_the_order_given() -> None:
    matrix = swept(MATRIX)
    assert matrix.repeats == 2
    assert [axis.name for axis in matrix.vary] == ["lab.lameduck", "readiness"]
    assert [axis.name for axis in matrix.under] == ["lab.propagation"]
    unnamed = "lab.readiness_period 5s, lab.readiness_failures 1"
    assert [(cell.number, cell.under, cell.vary) for cell in matrix.cells] == [
        (1, ("500ms",), ("0s", "10x3")),
        (2, ("500ms",), ("0s", unnamed)),
        (3, ("500ms",), ("5s", "10x3")),
        (4, ("500ms",), ("5s", unnamed)),
        (5, ("2s",), ("0s", "10x3")),
        (6, ("2s",), ("0s", unnamed)),
        (7, ("2s",), ("5s", "10x3")),
        (8, ("2s",), ("5s", unnamed)),
    ]


def test_a_cells_plan_is_the_scenario_with_its_settings_and_lasts_as_long_as_they_need() -> None:
    cells = swept(MATRIX).cells
    labs = [cell.plan.lab for cell in cells]
    assert [(str(lab.propagation[0]), lab.lameduck, lab.readiness_failures) for lab in labs[:5]] == [
        *(("0.5 s", 0.0, 3), ("0.5 s", 0.0, 1), ("0.5 s", 5.0, 3), ("0.5 s", 5.0, 1), ("2 s", 0.0, 3))
    ]
    assert {lab.replicas for lab in labs} == {2}
    assert [cell.plan.duration_ns / NS for cell in cells] == [10.5, 10.5, 15.5, 15.5, 12, 12, 17, 17]
    assert cells[2].name == (
        "lab.propagation=500ms lab.lameduck=5s lab.readiness_period=10s lab.readiness_failures=3 duration=15.5s"
    )


def test_what_a_cell_says_can_be_set_by_hand() -> None:
    """The settings of a cell are words for --set: the scenario without its matrix then has the same plan."""
    for cell in swept(MATRIX).cells:
        by_hand = read_scenario_text("x.yaml", SCENARIO, list(cell.settings))
        assert (by_hand.lab, by_hand.duration_ns, by_hand.steps) == (
            *(cell.plan.lab, cell.plan.duration_ns, cell.plan.steps),
        )
        assert by_hand.lanes == cell.plan.lanes


def test_a_cell_may_set_lists_and_its_own_length() -> None:
    how = "    how:\n      - name: long\n        duration: 60s\n        lanes[0].rate: 5\n"
    first, second = swept(f"matrix:\n  vary:\n    lanes[0].types: [[A], [A, AAAA]]\n{how}").cells
    assert [len(cell.plan.lanes[0].questions) for cell in (first, second)] == [1, 2]
    assert second.plan.duration_ns == 60 * NS
    assert second.plan.lanes[0].rate == 5
    assert second.vary == ("[A, AAAA]", "long")
    assert read_scenario_text("x.yaml", SCENARIO, list(second.settings)).lanes == second.plan.lanes


def test_settings_hold_in_every_cell_and_a_scenario_without_a_matrix_has_none() -> None:
    assert {cell.plan.lab.replicas for cell in swept(MATRIX, "lab.replicas=4").cells} == {4}
    assert swept(MATRIX, "lab.replicas=4").text.endswith("# --set lab.replicas=4\n")
    assert read("") is None


def test_a_scenario_with_a_matrix_is_a_scenario(tmp_path: Path) -> None:
    plan = read_scenario_text("x.yaml", SCENARIO + MATRIX, [])
    assert (plan.duration_ns, plan.lab.lameduck) == (10 * NS, 5.0)
    file = tmp_path / "x.yaml"
    file.write_text(SCENARIO + MATRIX)
    matrix = read_matrix(str(file), [])
    assert matrix
    assert len(matrix.cells) == 8


VARY = "matrix:\n  vary:\n    "
BOTH = f"{VARY}both:\n      - "
FIFTY = f"[{', '.join(f'{i}s' for i in range(50))}]\n"


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        ("matrix: 3\n", "x.yaml:9: matrix: keys and values are expected here, not a text"),
        ("matrix: {}\n", "x.yaml:9: matrix.vary: missing; this key must be given"),
        ("matrix: {vary: {}}\n", "x.yaml:9: matrix.vary: empty; at least one is needed"),
        (MATRIX.replace("vary", "varry"), "x.yaml:11: matrix.varry: unknown key; nearest: vary; keys here are rep"),
        (MATRIX.replace("repeats: 2", "repeats: 0"), "x.yaml:10: matrix.repeats: '0': the number of repeats is a"),
        (f"{VARY}lab.lameduck: []\n", "x.yaml:11: matrix.vary.lab.lameduck: empty; at least one is needed"),
        (f"{VARY}lab.lameduck: 5s\n", "matrix.vary.lab.lameduck: a list is expected here (lines that begin with"),
        (f"{VARY}lab.lameduk: [1s]\n", "x.yaml:11: lab.lameduk: unknown key; nearest: lameduck"),
        (f"{VARY}lameduck: [1s]\n", "x.yaml:11: lameduck: unknown key; nearest: name"),
        (f"{VARY}lanes[3].rate: [1]\n", "x.yaml:11: matrix.vary.lanes[3].rate[0]: the scenario has no 3 there; it"),
        (f"{VARY}lab..x: [1]\n", "x.yaml:11: matrix.vary.lab..x[0]: 'lab..x': say the path of a setting"),
        (f"{VARY}lab.lameduck: [1s,\n      5x]\n", "x.yaml:12: lab.lameduck: '5x': a duration is like 500ms"),
        (f"{VARY}lab.lameduck: [1s, 1s]\n", "x.yaml:11: matrix.vary.lab.lameduck[1]: '1s' is there twice"),
        (f"{VARY}lab.lameduck: [1s, {{lab.replicas: 3}}]\n", "say values of one setting, or mappings of several"),
        (f"{BOTH}{{name: x}}\n", "x.yaml:12: matrix.vary.both[0]: sets nothing: say what goes together, e.g."),
        (f"{BOTH}{{name: [x], lab.lameduck: 1s}}\n", "both[0].name: a text is expected here, not a list"),
        (f"{BOTH}{{name: '', lab.lameduck: 1s}}\n", "both[0].name: a text is expected here, not nothing"),
        (f"{VARY}matrix.repeats: [1]\n", "x.yaml:11: matrix.vary.matrix.repeats[0]: 'matrix.repeats': a matrix"),
        (
            f"{VARY}lab.lameduck: [1s]\n  under:\n    a:\n      - {{lab.lameduck: 2s}}\n",
            "x.yaml:14: matrix.under.a[0].lab.lameduck: lab.lameduck is swept twice: the axis lab.lameduck of vary",
        ),
        (
            f"{VARY}lanes[0].types: [[A]]\n    lanes[0].types[0]: [AAAA]\n",
            "x.yaml:12: matrix.vary.lanes[0].types[0][0]: lanes[0].types[0] is swept twice: the axis lanes[0].types",
        ),
        (MATRIX.replace("[lab.lameduck, lab.p", "[lab.replicas, lab.p"), "x.yaml:18: matrix.longer_by[0]: 'lab.repl"),
        (MATRIX.replace("[lab.lameduck, lab.p", "[lab.udp_timeout, lab.p"), "say a duration of the lab that every"),
        (f"{VARY}lab.max_surge: [1, 0]\n    lab.max_unavailable: [0]\n", "could ever be replaced (cell 2: lab.max_"),
        (f"{VARY}duration: [1s]\n", "x.yaml:6: steps: they wait 1 s in all, but the run lasts 1 s: make duration"),
        (f"{VARY}duration: [1s]\n", "(cell 1: duration=1s)"),
        (f"{VARY}lab.lameduck: {FIFTY}    lab.propagation: {FIFTY}", "x.yaml:9: matrix: 2,500 cells; 2,000 are the"),
    ],
)
def test_a_wrong_matrix_is_refused_with_its_line(matrix: str, said: str) -> None:
    with pytest.raises(ScenarioError) as problem:
        read(matrix)
    assert said in str(problem.value)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("matrix.repeats=3", "--set matrix.repeats=3: a matrix is changed in its file; --repeats says how often"),
        ("lab.lameduck=3s", "--set lab.lameduck=3s: leave it out: the matrix sets lab.lameduck itself, at x.yaml:12"),
        ("lab={}", "--set lab={}: leave it out: the matrix sets lab.lameduck itself, at x.yaml:12"),
    ],
)
def test_what_is_swept_is_not_set(setting: str, said: str) -> None:
    with pytest.raises(UsageError) as problem:
        read(MATRIX, setting)
    assert said in str(problem.value)
