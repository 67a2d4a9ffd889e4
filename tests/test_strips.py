"""What the timeline draws: stretches that keep every lost query, buckets that add up, latencies that say never."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from probe.model import NS, Interval, TargetKind
from probe.outcome import Outcome
from probe.report.rates import GOOD, latencies_of, rates_of
from probe.report.strips import strips_of
from probe.runfile import Run
from probe.timeline import Timeline
from tests.longrun import RATE, scattered, written_long
from tests.stories import STORIES
from tests.synthetic import drawn, series_of, written


def stretches(run: Run, most: int = 1000) -> list[tuple[str, float, float, int]]:
    [strip] = strips_of(Timeline.of(run), most)
    return [(s.what, s.from_ns / NS, s.to_ns / NS, s.lost + s.unsent + s.undecided) for s in strip.spoilt]


@pytest.mark.parametrize(
    ("drawing", "found"),
    [
        ("..........", []),
        ("...x......", [("timeout", 0.3, 0.4, 1)]),
        ("...xxx....", [("timeout", 0.3, 0.6, 3)]),
        ("...x.x....", [("timeout", 0.3, 0.4, 1), ("timeout", 0.5, 0.6, 1)]),
        ("...xxss...", [("timeout", 0.3, 0.5, 2), ("servfail", 0.5, 0.7, 2)]),
        ("..uu.x....", [("unsent", 0.2, 0.4, 2), ("timeout", 0.5, 0.6, 1)]),
    ],
)
def test_neighbours_that_fared_alike_are_one_stretch(
    tmp_path: Path, drawing: str, found: list[tuple[str, float, float, int]]
) -> None:
    run = written(tmp_path / "run.db", [series_of(rate=10, seconds=2)], drawn(drawing, 10))
    rounded = [(what, round(a, 6), round(b, 6), n) for what, a, b, n in stretches(run)]
    assert rounded == found


def test_a_lost_query_begins_when_it_was_due(tmp_path: Path) -> None:
    run = written(tmp_path / "run.db", [series_of(rate=1000, seconds=1)], drawn("." * 345 + "xxx", 1000))
    [(_, from_s, to_s, lost)] = stretches(run)
    assert (round(from_s, 6), round(to_s, 6), lost) == (0.345, 0.348, 3)


@pytest.mark.parametrize("most", [100_000, 1000, 50, 1])
def test_thinning_loses_no_lost_query(tmp_path: Path, most: int) -> None:
    lossy = [scattered(2000, 0.3, seed=1), scattered(2000, 0.01, seed=2), {}]
    timeline = Timeline.of(written_long(tmp_path / "run.db", 2000, lossy))
    strips = strips_of(timeline, most)
    for strip, bad in zip(strips, lossy, strict=True):
        assert strip.lost == sum(n for n, _ in bad.values()) == strip.channel.whole.lost
        begins = [(s.from_ns, s.to_ns) for s in strip.spoilt]
        assert begins == sorted(begins)
        for second in bad:
            assert any(s.from_ns <= second * NS < s.to_ns for s in strip.spoilt)
    n = sum(len(strip.spoilt) for strip in strips)
    assert n <= max(most, len(strips))
    assert (n > 500) == (most >= 1000)


@pytest.mark.parametrize("part", [0.01, 0.3, 1.0])
def test_a_stretch_is_as_bad_as_all_that_was_due_in_it(tmp_path: Path, part: float) -> None:
    """A lane that lost one query now and then is not drawn as one that lost all: good rows between them count."""
    timeline = Timeline.of(written_long(tmp_path / "run.db", 3600, [scattered(3600, part, seed=1)]))
    [strip] = strips_of(timeline, most=1)
    [stretch] = strip.spoilt
    assert stretch.lost / stretch.of == pytest.approx(strip.channel.loss().share, rel=0.02)


def test_rows_of_a_pod_that_was_told_to_go_are_shown_and_do_not_count(tmp_path: Path) -> None:
    series = [series_of(0, "pods", "a", TargetKind.POD, rate=10, seconds=3)]
    lives = [Interval(0, NS, "life", "a counts", "lab", "a")]
    run = written(tmp_path / "run.db", series, drawn("." * 8 + "xx" + "x" * 10, 10), intervals=lives)
    [strip] = strips_of(Timeline.of(run))
    assert [(s.lost, s.counts) for s in strip.spoilt] == [(2, True), (10, False)]
    assert strip.channel.loss().lost == 2
    rates = rates_of(Timeline.of(run))
    assert rates.rows["timeout"].sum() == 2


@pytest.mark.parametrize("story", STORIES)
def test_rates_add_up_to_what_counts(tmp_path: Path, story: str) -> None:
    timeline = Timeline.of(STORIES[story](tmp_path / "run.db"))
    losses = [channel.loss() for channel in timeline.channels]
    rates = rates_of(timeline)
    good = rates.rows.pop(GOOD)
    unsent, undecided = (rates.rows.pop(name, good * 0).sum() for name in ("unsent", "undecided"))
    assert sum(rows.sum() for rows in rates.rows.values()) == sum(loss.lost for loss in losses)
    assert unsent == sum(loss.unsent for loss in losses)
    assert undecided == sum(loss.in_flight for loss in losses)
    assert good.sum() == pytest.approx(sum(loss.good for loss in losses), abs=2 * len(losses))


def test_latencies_are_finer_where_rows_were_lost_and_never_where_many_were(tmp_path: Path) -> None:
    bad = {12: (RATE, Outcome.TIMEOUT), 15: (1, Outcome.TIMEOUT)}
    timeline = Timeline.of(written_long(tmp_path / "run.db", 30, [bad]))
    found = latencies_of(timeline, timeline.channels)
    spans = [(one.from_ns // NS, one.to_ns // NS) for one in found]
    assert spans == [(0, 10), (10, 12), (12, 13), (13, 15), (15, 16), (16, 20), (20, 30)]
    by = dict(zip(spans, found, strict=True))
    assert math.isinf(by[12, 13].p50)
    assert (math.isinf(by[15, 16].p50), math.isinf(by[15, 16].p99)) == (False, True)
    assert by[15, 16].p50 == pytest.approx(3e6, rel=0.03)
    assert by[0, 10].p99 == pytest.approx(1e6, rel=0.03)
    assert sum(one.lost for one in found) == RATE + 1
