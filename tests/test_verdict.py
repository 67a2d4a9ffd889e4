"""Objectives are read, or refused with a pointer; rulings follow from rows and from the prober's own faults."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from probe.doubts import doubts_of
from probe.errors import UsageError
from probe.model import NS, Interval, Mark, Series, TargetKind
from probe.outcome import Counter, Outcome
from probe.runfile import Run
from probe.timeline import Timeline
from probe.verdict import Judged, Ruling, default_objectives, fail_condition, judge, parse_objective, verdict_of
from tests.synthetic import Fate, drawn, series_of, written

Written = Callable[..., Run]
PASS, FAIL, INCONCLUSIVE = Ruling.PASS, Ruling.FAIL, Ruling.INCONCLUSIVE


@pytest.mark.parametrize(
    ("text", "measure", "lanes", "operator", "limit", "within_ns"),
    [
        ("loss <= 0.1%", "loss", ("*",), "<=", 0.001, None),
        ("loss(vip-*) <= 0.1%", "loss", ("vip-*",), "<=", 0.001, None),
        ("longest_disruption( vip-*,nodelocal-* )<1s", "longest_disruption", ("vip-*", "nodelocal-*"), "<", 1, None),
        ("p99(vip-*) <= 100ms", "p99", ("vip-*",), "<=", 0.1, None),
        ("p999 < 250 us", "p999", ("*",), "<", 0.00025, None),
        ("max >= 1.5s", "max", ("*",), ">=", 1.5, None),
        ("  loss  <=  0.1%  within  60s  of  steps ", "loss", ("*",), "<=", 0.001, 60 * NS),
    ],
)
def test_objectives_are_read(
    text: str, measure: str, lanes: tuple[str, ...], operator: str, limit: float, within_ns: int | None
) -> None:
    o = parse_objective(text)
    assert (o.measure, o.lanes, o.operator, o.limit, o.within_ns) == (measure, lanes, operator, limit, within_ns)
    assert str(o) == " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "character 1, at 'the end': begin with a measure: loss, longest_disruption"),
        ("<= 1s", "character 1, at '<= 1s': begin with a measure"),
        ("lost <= 1%", "character 1, at 'lost <= 1%': unknown measure 'lost': one of loss"),
        ("loss(vip-* <= 1%", r"character 5, at '\(vip-\* <= 1%': the \( before the lanes is never closed"),
        ("loss(a,,b) <= 1%", "character 6, at 'a,,b"),
        ("loss() <= 1%", "character 6, at .* a lane.s name is empty"),
        ("loss =< 1%", "character 5, at '=< 1%': say <=, <, >= or > here"),
        ("loss <= -1%", "character 8, at '-1%': say a number here"),
        ("loss <= 1", "character 10, at 'the end': loss needs a unit: %"),
        ("loss <= 1s", "character 10, at 's': loss needs a unit: %"),
        ("p99 <= 1%", "p99 needs a unit: ns, us, ms, s, m"),
        ("p99 <= 1s within 60 of steps", "nothing more is understood, except `within 60s of steps`"),
        ("p99 <= 1s within 60h of steps", "a duration needs a unit"),
        ("p99 <= 1s, p50 <= 1s", "character 10, at ', p50 <= 1s': nothing more"),
    ],
)
def test_what_cannot_be_read_is_pointed_at(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        parse_objective(text)
    assert str(raised.value).startswith(f"objective {text!r}: ")
    assert "for example: loss(vip-*) <= 0.1%" in str(raised.value)


@pytest.mark.parametrize(
    ("condition", "objective"),
    [
        ("loss > 0.1%", "loss <= 0.1%"),
        ("p99(a) >= 1s", "p99(a) < 1s"),
        ("p50 < 1ms", "p50 >= 1ms"),
        ("p50 <= 1ms", "p50 > 1ms"),
    ],
)
def test_fail_condition_is_the_inverse(condition: str, objective: str) -> None:
    assert fail_condition(condition) == parse_objective(objective)


def test_default_objectives() -> None:
    vip, adhoc = series_of(lane="vip-udp-fresh"), series_of(lane="udp-fresh")
    pods = series_of(lane="pods", kind=TargetKind.POD)
    assert default_objectives([vip, pods])[1] == "loss(vip-*, nodelocal-*) <= 0.1% within 60s of steps"
    assert default_objectives([adhoc, pods])[0] == "longest_disruption(udp-fresh) <= 1s"
    assert default_objectives([adhoc])[2] == default_objectives([pods])[2] == "p99 <= 100ms"


@pytest.fixture
def judged(tmp_path: Path) -> Callable[..., Judged]:
    """The ruling on one objective of a run of one lane at 100 q/s for 20 s."""

    def of(objective: str, drawing: str = "", rate: int = 100, **more: object) -> Judged:
        series = [series_of(rate=rate, seconds=2000 / rate)]
        run = written(tmp_path / "run.db", series, drawn(drawing, rate), objectives=(objective,), **more)  # type: ignore[arg-type]
        (one,) = verdict_of(run).objectives
        return one

    return of


@pytest.mark.parametrize(
    ("objective", "drawing", "ruling", "actual"),
    [
        ("loss <= 0.1%", "", PASS, 0),
        ("loss <= 0.1%", "xx", PASS, 0.001),  # exactly the limit
        ("loss < 0.1%", "xx", FAIL, 0.001),
        ("loss <= 0.1%", "xxx", FAIL, 0.0015),
        ("longest_disruption <= 1s", "x" * 100, PASS, 1),
        ("longest_disruption <= 1s", "x" * 101, FAIL, 1.01),
        ("p99 <= 100ms", "x" * 20, PASS, 0.001),
        ("p99 <= 100ms", "x" * 21, FAIL, math.inf),
        ("max <= 100ms", "x", FAIL, math.inf),
        ("p50 >= 1s", "", FAIL, 0.001),
        ("loss(nobody-*) <= 1%", "", INCONCLUSIVE, math.nan),  # no lane
        ("loss <= 1%", "u" * 2000, INCONCLUSIVE, math.nan),  # no sample
        ("loss <= 0.1%", "uu", PASS, 0),  # had both been lost, it would still be met
        ("loss <= 0.1%", "uuu", INCONCLUSIVE, 0),
        ("loss <= 0.1%", "uuu" + "x" * 10, FAIL, 10 / 1997),  # missed is missed
        ("longest_disruption <= 1s", "u" * 99, PASS, 0),
        ("longest_disruption <= 1s", "u" * 120, INCONCLUSIVE, 0),
        ("longest_disruption <= 1s", "x" * 60 + "u" * 60, INCONCLUSIVE, 0.6),
        ("p99 <= 100ms", "u" * 20, PASS, 0.001),
        ("p99 <= 100ms", "u" * 21, INCONCLUSIVE, 0.001),
    ],
)
def test_rulings(judged: Callable[..., Judged], objective: str, drawing: str, ruling: Ruling, actual: float) -> None:
    one = judged(objective, drawing)
    assert one.ruling is ruling
    assert one.actual == pytest.approx(actual, rel=0.02, nan_ok=True)
    assert bool(one.why) == (ruling is INCONCLUSIVE)


def test_rulings_have_reasons(judged: Callable[..., Judged]) -> None:
    assert judged("loss(x) <= 1%").why == "matches no lane; lanes are vip-udp"


def test_cut_run_cannot_pass_but_can_fail(judged: Callable[..., Judged], tmp_path: Path) -> None:
    one = judged("loss <= 0.1%", cut="ended after 3.0 s by Ctrl-C")
    assert (one.ruling, one.met) == (INCONCLUSIVE, True)
    assert "Ctrl-C" in one.why
    (tmp_path / "run.db").unlink()
    assert judged("loss <= 0.1%", "xxx", cut="ended").ruling is FAIL


@pytest.mark.parametrize(
    ("mark", "ruling", "actual", "why"),
    [
        (None, PASS, 0.05, "the run had no steps: over all of it"),
        (Mark(0, "step", "scale", "scenario"), FAIL, 0.2, ""),
        (Mark(10 * NS, "step", "scale", "scenario"), PASS, 0, ""),
        (Mark(10 * NS, "pod_ready", "", "lab"), PASS, 0.05, "the run had no steps: over all of it"),
    ],
)
def test_within_some_seconds_of_steps(
    judged: Callable[..., Judged], mark: Mark | None, ruling: Ruling, actual: float, why: str
) -> None:
    one = judged("loss <= 10% within 5s of steps", "x" * 100, marks=[mark] if mark else [])
    assert (one.ruling, one.actual, one.why) == (ruling, actual, why)


@pytest.mark.parametrize(
    ("objective", "mark_ns", "drawing", "ruling", "why"),
    [
        (
            "loss <= 0.1% within 60s of steps",
            19.9,
            "",
            INCONCLUSIVE,
            "too few rows within 60 s of steps to say anything (",
        ),
        ("loss <= 0.1% within 60s of steps", 19.9, "." * 1999 + "x", FAIL, ""),  # missed is missed
        ("loss <= 0.1% within 60s of steps", 10, "", PASS, ""),  # 1,000 rows
        (
            "loss <= 0.1% within 60s of steps",
            10.02,
            "",
            INCONCLUSIVE,
            "998 rows within 60 s of steps are too few to show",
        ),
        ("loss <= 0.05%", None, "", PASS, ""),
        ("loss <= 0.05%", None, "u", PASS, ""),  # it is weighed as a lost one
        ("loss <= 0.04%", None, "", INCONCLUSIVE, "2,000 rows are too few to show it: that takes 2,500 or more"),
        ("loss <= 0%", None, "", PASS, ""),  # nothing was lost, and no number of rows shows that it never is
        ("p99 <= 1s within 1s of steps", 5, "", PASS, ""),
        ("p99 <= 1s within 900ms of steps", 5, "", INCONCLUSIVE, "90 rows within 0.9 s of steps are too few to show"),
        ("p999 <= 1s", None, "", PASS, ""),
        ("longest_disruption <= 1s within 300ms of steps", 5, "", PASS, ""),
        (
            "longest_disruption <= 1s within 200ms of steps",
            5,
            "",
            INCONCLUSIVE,
            "too few rows within 0.2 s of steps to",
        ),
    ],
)
def test_few_rows_show_nothing(
    judged: Callable[..., Judged], objective: str, mark_ns: float | None, drawing: str, ruling: Ruling, why: str
) -> None:
    marks = [] if mark_ns is None else [Mark(round(mark_ns * NS), "step", "scale", "scenario")]
    one = judged(objective, drawing, marks=marks)
    assert one.ruling is ruling
    assert one.why.startswith(why)
    assert bool(one.why) == bool(why)


def test_rows_of_all_lanes_of_an_objective_add_up_but_none_may_be_next_to_unasked(tmp_path: Path) -> None:
    rows = {"a": (500, 500), "b": (980, 20)}
    rulings = {}
    for name, counts in rows.items():
        series = [series_of(i, lane=f"vip-{i}", rate=Fraction(n, 10)) for i, n in enumerate(counts)]
        (one,) = verdict_of(written(tmp_path / name, series, drawn(""), objectives=("loss <= 0.1%",))).objectives
        rulings[name] = (one.ruling, one.why)
    assert rulings["a"] == (PASS, "")
    assert rulings["b"] == (INCONCLUSIVE, "too few rows to say anything (under 30): vip-1 20")


@pytest.mark.parametrize("objective", ["loss <= 0.1%", "longest_disruption <= 1s", "p99 <= 100ms"])
@pytest.mark.parametrize(
    ("kind", "at", "target", "ruling"),
    [
        ("lab_dropped", 11, TargetKind.SERVICE, INCONCLUSIVE),
        ("lab_dropped", 11, TargetKind.POD, FAIL),  # it is the Service that drops
        ("lab_dropped", 8, TargetKind.SERVICE, FAIL),  # at another time
        ("lab_died", 10, TargetKind.SERVICE, INCONCLUSIVE),
        ("lab_died", 10, TargetKind.POD, INCONCLUSIVE),
        ("lab_died", 10, TargetKind.SERVER, FAIL),  # not of the lab
        ("pod_exited", 11, TargetKind.SERVICE, FAIL),
    ],
)
def test_what_the_lab_lost_itself_is_not_blamed_on_dns(
    tmp_path: Path, objective: str, kind: str, at: int, target: TargetKind, ruling: Ruling
) -> None:
    """1.5 s of silence from 9.5 s on; the lab says that it was its own doing, or something else."""
    series = [series_of(rate=100, seconds=20, kind=target)]
    fate, marks = drawn("." * 950 + "x" * 150, 100), [Mark(at * NS, kind, "9 datagrams", "lab")]
    (one,) = verdict_of(written(tmp_path / "run.db", series, fate, marks=marks, objectives=(objective,))).objectives
    assert (one.ruling, one.met) == (ruling, False)
    assert one.why.startswith("what was lost may be no fault of DNS: ") == (ruling is INCONCLUSIVE)


@pytest.mark.parametrize(
    ("objective", "drawing", "drops", "ruling", "between"),
    [
        # 1,000 rows at 100 q/s -> what the objective's value was at best, and as counted
        ("loss <= 1%", "x" * 10, 5, PASS, (0.005, 0.01)),
        ("loss <= 1%", "x" * 30, 0, FAIL, (0.03, 0.03)),
        ("loss <= 1%", "x" * 30, 19, FAIL, (0.011, 0.03)),
        ("loss <= 1%", "x" * 30, 20, INCONCLUSIVE, (0.01, 0.03)),
        ("loss <= 1%", "x" * 30, 500, INCONCLUSIVE, (0, 0.03)),  # never less than nothing
        ("loss <= 1%", "r" * 30, 30, FAIL, (0.03, 0.03)),  # a refusal is no reply that was dropped
        ("loss <= 1%", "r" * 10 + "x" * 20, 30, INCONCLUSIVE, (0.01, 0.03)),
        ("loss >= 2%", "x" * 30, 5, PASS, (0.025, 0.03)),
        ("loss >= 2%", "x" * 30, 20, INCONCLUSIVE, (0.01, 0.03)),
        ("longest_disruption <= 0.1s", "x" * 10, 5, PASS, (0.1, 0.1)),
        ("longest_disruption <= 0.1s", "x" * 30, 19, FAIL, (0.2, 0.3)),  # 11 rows in a row are left
        ("longest_disruption <= 0.1s", "x" * 30, 20, INCONCLUSIVE, (0.1, 0.3)),
        ("longest_disruption <= 1s", "x" * 120, 119, INCONCLUSIVE, (0.1, 1.2)),
        ("longest_disruption <= 1s", "x..." * 30, 2, FAIL, (1.09, 1.17)),  # that much shorter, at most
        ("longest_disruption <= 1s", "x..." * 30, 30, INCONCLUSIVE, (0, 1.17)),
        ("longest_disruption <= 1s", "x" * 120 + "." * 300 + "r" * 120, 120, FAIL, (1.2, 1.2)),
        ("p99 <= 100ms", "x" * 11, 2, INCONCLUSIVE, (0.001, math.inf)),
        ("p99 <= 100ms", "r" * 11, 1, FAIL, (math.inf, math.inf)),
        ("p99 <= 100ms", "x" * 1000, 1000, INCONCLUSIVE, (math.nan, math.inf)),  # nothing is known to be lost, or good
    ],
)
def test_replies_we_dropped_ourselves_are_not_blamed_on_dns(
    tmp_path: Path, objective: str, drawing: str, drops: int, ruling: Ruling, between: tuple[float, float]
) -> None:
    run = written(
        tmp_path / "run.db",
        [series_of(rate=100)],
        drawn(drawing, 100),
        counters={(0, Counter.OWN_DROPS): drops},
        objectives=(objective,),
    )
    (one,) = verdict_of(run).objectives
    assert one.ruling is ruling
    assert (one.at_best, one.actual) == pytest.approx(between, rel=0.02, nan_ok=True)
    assert one.why.startswith("what was lost may be no fault of DNS: ") == (ruling is INCONCLUSIVE)


def test_an_objective_is_missed_where_one_lane_missed_it_for_certain(tmp_path: Path) -> None:
    """One lost more, but that may have been dropped here: between what each lost at best and as counted."""
    series = [series_of(0, "ours", rate=100), series_of(1, "theirs", rate=100)]
    fates = [drawn("x" * 50, 100), drawn("x" * 30, 100)]
    drops = {(0, Counter.OWN_DROPS): 50}
    run = written(tmp_path / "run.db", series, lambda s, due: fates[s.index](s, due), counters=drops)
    one = judge(Timeline.of(run), doubts_of(run), [parse_objective("loss <= 1%")]).objectives[0]
    assert (one.ruling, one.lane, one.at_best, one.actual) == (FAIL, "ours", 0.03, 0.05)


@pytest.mark.parametrize(
    ("rulings", "worst"), [("PP", "PASS"), ("PI", "INCONCLUSIVE"), ("IF", "FAIL"), ("", "INCONCLUSIVE")]
)
def test_the_worst_decides(rulings: str, worst: str) -> None:
    by_letter = {str(r)[0]: r for r in Ruling}
    assert Ruling.worst([by_letter[letter] for letter in rulings]) == worst


def test_verdict_is_the_worst_ruling_and_its_exit_code(tmp_path: Path) -> None:
    objectives = ("loss <= 100%", "loss(nobody) <= 1%")
    run = written(tmp_path / "a.db", [series_of(rate=10)], drawn("x", 10), objectives=objectives)
    assert verdict_of(run).ruling is INCONCLUSIVE
    run = written(tmp_path / "b.db", [series_of(rate=10)], drawn("x", 10), objectives=(*objectives, "loss <= 0%"))
    assert verdict_of(run).ruling is FAIL
    assert [r.exit_code for r in (PASS, FAIL, INCONCLUSIVE)] == [0, 1, 3]


def test_pods_that_were_told_to_go_are_no_outage(tmp_path: Path) -> None:
    series = [
        series_of(0, rate=10, seconds=20),
        series_of(1, lane="pods", target="pod-1", kind=TargetKind.POD, rate=10),
    ]
    life = Interval(0, 4 * NS, "life", "counts", "lab", "pod-1")

    def fate(s: Series, due_ns: int) -> Outcome:
        return Outcome.TIMEOUT if s.lane == "pods" and due_ns >= 4 * NS else Outcome.ANSWER

    ending: Fate = fate
    run = written(tmp_path / "run.db", series, ending, intervals=[life], objectives=("loss <= 0%",))
    assert verdict_of(run).ruling is PASS


@pytest.mark.parametrize(
    ("drawing", "ruling"),
    [("", PASS), ("." * 1900 + "xx", PASS), ("." * 1998 + "xx", INCONCLUSIVE), ("." * 1990 + "x" * 10, FAIL)],
)
def test_a_disruption_that_the_end_cut_off_may_have_been_longer(
    judged: Callable[..., Judged], drawing: str, ruling: Ruling
) -> None:
    """Four rows a second: two lost at the very end were out for half a second, at least."""
    one = judged("longest_disruption <= 1s", drawing, rate=4)
    assert one.ruling is ruling
    assert ("still going on when the run ended: run it longer" in one.why) == (ruling is INCONCLUSIVE)


@pytest.mark.parametrize(("step_s", "ruling"), [(400, PASS), (490, INCONCLUSIVE)])
def test_only_a_disruption_near_steps_is_asked_how_long_it_was(
    judged: Callable[..., Judged], step_s: int, ruling: Ruling
) -> None:
    mark = Mark(step_s * NS, "step", "scale", "scenario")
    one = judged("longest_disruption <= 1s within 60s of steps", "." * 1998 + "xx", rate=4, marks=[mark])
    assert one.ruling is ruling
