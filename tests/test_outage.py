"""What ended a Service for good, and when, as drawn runs show it."""

from __future__ import annotations

from pathlib import Path

import pytest

from probe.model import NS, Mark
from probe.sweep.measured import measured_of
from tests.stories import FACTS
from tests.synthetic import MS, drawn, series_of, written

STEP = Mark(2 * NS, "step", "scale to 0", "scenario")
DELETED = Mark(2 * NS + MS, "pod_deleted", "grace period 30 s", "lab", "a")


def exited(code: int, at_ns: int = 5 * NS) -> Mark:
    return Mark(at_ns, "pod_exited", f"exit code {code}", "lab", "a")


def programmed(text: str, at_ns: int) -> Mark:
    return Mark(at_ns, "endpoints_programmed", text, "lab", "kube-dns")


EMPTY = "ready: none; not serving: a"
LEFT = "ready: none; terminating, serving: a"


@pytest.mark.parametrize(
    ("marks", "told"),
    [
        ([exited(0), programmed(EMPTY, 6 * NS)], "lameduck over"),
        ([exited(137), programmed(EMPTY, 6 * NS)], "SIGKILL"),
        ([programmed(LEFT, 3 * NS), programmed(EMPTY, 5 * NS), exited(0, 9 * NS)], "readiness lost"),
        ([programmed(LEFT, 3 * NS)], "no mark says"),
    ],
)
def test_what_ended_the_service(tmp_path: Path, marks: list[Mark], told: str) -> None:
    series = [series_of(0, "vip-udp", "kube-dns", rate=100, seconds=10)]
    fate = drawn("." * 502 + "x" * 498, 100)
    run = written(tmp_path / "run.db", series, fate, marks=[STEP, DELETED, *marks], facts=FACTS)
    measured = measured_of(run)
    assert measured.ended_by == told
    assert measured.results[0].healthy == pytest.approx(3.02)


def test_a_service_that_came_back_did_not_end(tmp_path: Path) -> None:
    series = [series_of(0, "vip-udp", "kube-dns", rate=100, seconds=10)]
    fate = drawn("." * 502 + "x" * 100 + "." * 398, 100)
    run = written(tmp_path / "run.db", series, fate, marks=[STEP, DELETED, exited(0)], facts=FACTS)
    assert measured_of(run).ended_by == ""
    assert measured_of(run).results[0].healthy == pytest.approx(3.02)


def test_one_lane_that_is_still_dead_is_not_the_service(tmp_path: Path) -> None:
    series = [series_of(i, lane, "kube-dns", rate=100, seconds=10) for i, lane in enumerate(("fresh", "fixed"))]
    fates = [drawn("." * 502 + "x" * 100 + "." * 398, 100), drawn("." * 502 + "x" * 498, 100)]
    marks = [STEP, DELETED, exited(0)]
    run = written(tmp_path / "run.db", series, lambda s, due: fates[s.index](s, due), marks=marks, facts=FACTS)
    assert measured_of(run).ended_by == ""
