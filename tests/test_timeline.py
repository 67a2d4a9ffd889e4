"""Windows of disruption from drawings: one sign a query, and every rule of the design as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest

from probe.model import NS, Interval, Leg, Series, Shape, TargetKind
from probe.outcome import Outcome
from probe.recorder import Duration
from probe.runfile import Head, Run, RunWriter, open_run
from probe.schedule import pacer_of
from probe.timeline import Loss, Timeline, Window
from tests.synthetic import MS, STARTED, Fate, columns_of, drawn, flush_of, series_of, written

STAYS = "." * 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def lanes(*drawings: str, rate: int = 1, **of: object) -> tuple[list[Series], Fate]:
    """A lane for each drawing, all towards targets of their own (`side` joins them)."""
    seconds = max(len(d) for d in drawings) / rate
    series = [
        series_of(i, lane=f"lane-{i}", target=f"target-{i}", address=f"127.53.0.{i}", rate=rate, seconds=seconds, **of)  # type: ignore[arg-type]
        for i in range(len(drawings))
    ]
    fates = [drawn(d, rate) for d in drawings]
    return series, lambda s, due: fates[s.index](s, due)


def timeline(path: Path, *drawings: str, rate: int = 1, intervals: Iterable[Interval] = (), **of: object) -> Timeline:
    series, fate = lanes(*drawings, rate=rate, **of)
    return Timeline.of(written(path, series, fate, intervals=intervals))


def seconds(windows: Sequence[Window]) -> list[tuple[float, float]]:
    return [(w.from_ns / NS, w.to_ns / NS) for w in windows]


@pytest.mark.parametrize(
    ("drawing", "expected"),
    [
        ("..........", []),
        ("..xx......", [(2, 4)]),
        ("..xx.x....", [(2, 6)]),  # one good query does not end it
        ("x....x" + STAYS, [(0, 6)]),  # nor do four
        ("x.....x" + STAYS, [(0, 1), (6, 7)]),  # five do
        ("xx" + STAYS + "x" + STAYS, [(0, 2), (10, 11)]),
        ("xxxxxxxx", [(0, 8)]),
        ("..uuu.....", []),  # our own fault opens nothing
        ("x..uuu.x" + STAYS, [(0, 8)]),  # and is no evidence of good ones
        ("..n.s.t.r.c" + STAYS, [(2, 11)]),  # whatever was not expected
    ],
)
def test_windows_at_one_query_a_second(path: Path, drawing: str, expected: list[tuple[float, float]]) -> None:
    assert seconds(timeline(path, drawing).windows) == expected


@pytest.mark.parametrize(
    ("drawing", "expected"),
    [
        ("." * 10 + "x" * 30 + "." * 60, [(0.1, 0.4)]),
        ("x" + "." * 99 + "x" + "." * 150, [(0, 1.01)]),  # 0.99 s of good ones
        ("x" + "." * 100 + "x" + "." * 150, [(0, 0.01), (1.01, 1.02)]),  # a whole second of them
        ("xxx......" * 10 + "." * 200, [(0, 0.84)]),  # a third lost is one window, not ten
    ],
)
def test_windows_at_a_hundred_queries_a_second(path: Path, drawing: str, expected: list[tuple[float, float]]) -> None:
    assert seconds(timeline(path, drawing, rate=100).windows) == expected


def test_blackout_of_three_seconds_at_a_thousand_a_second(path: Path) -> None:
    t = timeline(path, "." * 2345 + "x" * 3000 + "." * 2655, rate=1000)
    (window,) = t.windows
    assert (window.from_ns, window.to_ns) == (2345 * MS, 5345 * MS)
    assert (window.planned, window.lost, window.resolution_ns) == (3000, 3000, MS)
    assert window.outcome is Outcome.TIMEOUT
    assert not window.still_open
    assert t.channels[0].loss() == Loss(8000, 5000, 3000, 0, 0)
    assert t.channels[0].loss().share == 0.375
    assert t.channels[0].loss(((4 * NS, 5 * NS),)) == Loss(1000, 0, 1000, 0, 0)


def test_types_of_one_lane_and_target_share_a_window(path: Path) -> None:
    series = [series_of(0, rate=5, seconds=9), series_of(1, rate=5, qtype="AAAA", offset_ns=NS // 10, seconds=9)]

    def fate(s: Series, due_ns: int) -> Outcome:
        return Outcome.TIMEOUT if 2 * NS <= due_ns < 4 * NS and s.index == due_ns // NS - 2 else Outcome.ANSWER

    (window,) = Timeline.of(written(path, series, fate)).windows
    assert (window.from_ns, window.to_ns, window.resolution_ns) == (2 * NS, 4 * NS, NS // 10)
    assert (window.planned, window.lost) == (20, 10)


def test_window_that_the_run_s_end_cuts_is_still_open(path: Path) -> None:
    assert timeline(path, "......xx").windows[0].still_open


def test_others_are_said_to_be_fine_or_hit(path: Path) -> None:
    t = timeline(path, "..xxx" + STAYS, "..." + STAYS, "...x" + STAYS, "..uuu" + STAYS)
    assert t.windows[0].others == (("lane-1", 1, 1), ("lane-2", 1, 0), ("lane-3", 1, 0))


@pytest.mark.parametrize(
    ("drawing", "outcome", "rate"),
    [
        ("tttt" + STAYS, Outcome.TIMEOUT, 1),
        ("rrrr" + STAYS, Outcome.CONNECTION_REFUSED, 1),
        ("ssst" + STAYS, Outcome.SERVFAIL, 1),
        ("RRRRRRttttRttttttttR".lower() + "." * 20, Outcome.CONNECTION_REFUSED, 10),  # 6 refusals, then one a second
        ("r" + "t" * 60 + "." * 20, Outcome.TIMEOUT, 10),  # 2 s of 6 s lie near a refusal
        ("r" + "t" * 20 + "." * 20, Outcome.CONNECTION_REFUSED, 10),
    ],
)
def test_class_of_a_window(path: Path, drawing: str, outcome: Outcome, rate: int) -> None:
    (window,) = timeline(path, drawing, rate=rate).windows
    assert (window.outcome, window.inferred) == (outcome, False)


def test_lane_on_the_refusing_side_that_hears_nothing_is_inferred(path: Path) -> None:
    closed = "." * 10 + "rrrrrrttttrttttttttr" + "." * 20
    silent = "." * 10 + "tttttttttttttttttttt" + "." * 20
    a_third = "." * 10 + "t..t..t..t..t..t..t." + "." * 20
    for side, expected in (("node", (Outcome.CONNECTION_REFUSED, True)), ("", (Outcome.TIMEOUT, False))):
        path.unlink(missing_ok=True)
        heard, silent_one, answered = timeline(path, closed, silent, a_third, rate=10, side=side).windows
        assert (heard.outcome, heard.inferred) == (Outcome.CONNECTION_REFUSED, False)
        assert (silent_one.outcome, silent_one.inferred) == expected
        assert (answered.outcome, answered.inferred) == (Outcome.TIMEOUT, False)


@pytest.mark.parametrize(("sides", "inferred"), [(("node-1", "node-2"), False), (("node-1", "node-1"), True)])
def test_one_address_asked_from_two_nodes_has_two_refusing_sides(
    path: Path, sides: tuple[str, str], inferred: bool
) -> None:
    series, fate = lanes("." * 10 + "r" * 20 + "." * 20, "." * 10 + "t" * 20 + "." * 20, rate=10)
    series = [
        replace(s, target=replace(s.target, address="10.96.0.10", side=side))
        for s, side in zip(series, sides, strict=True)
    ]
    refused, silent = Timeline.of(written(path, series, fate)).windows
    assert (refused.outcome, refused.inferred) == (Outcome.CONNECTION_REFUSED, False)
    assert (silent.outcome is Outcome.CONNECTION_REFUSED, silent.inferred) == (inferred, inferred)


@pytest.mark.parametrize(
    ("transport", "drawing", "outcome"),
    [
        ("tcp", "." * 10 + "rrrr" + "t" * 12 + "." * 20, Outcome.CONNECTION_REFUSED),  # a REJECT rule: ICMP
        ("tcp", "." * 10 + "r..r.." + "t..t..t..t.." + "." * 20, Outcome.TIMEOUT),  # a pod died, then was gone
        ("udp", "." * 10 + "r..r.." + "t..t..t..t.." + "." * 20, Outcome.CONNECTION_REFUSED),
    ],
)
def test_tcp_is_the_tie_breaker(path: Path, transport: str, drawing: str, outcome: Outcome) -> None:
    (window,) = timeline(path, drawing, rate=10, transport=transport).windows
    assert window.outcome is outcome


def test_pods_count_from_ready_to_deletion(path: Path) -> None:
    life = Interval(2 * NS, 6 * NS, "life", "counts", "lab", "target-0")
    t = timeline(path, "xx..x.xxxx", intervals=[life], kind=TargetKind.POD)
    assert seconds(t.windows) == [(4, 5)]
    assert t.channels[0].loss() == Loss(4, 3, 1, 0, 0)
    assert t.channels[0].whole == Loss(10, 3, 7, 0, 0)
    assert not t.windows[0].still_open
    path.unlink()
    assert seconds(timeline(path, "xx..x.xxxx", kind=TargetKind.POD).windows) == [(0, 10)]


def test_quantiles_count_lost_rows_as_infinite(path: Path) -> None:
    t = timeline(path, ("." * 97 + "xxx") * 10, rate=100)
    (channel,) = t.channels
    assert t.quantile_ns(channel, Duration.LATENCY, 0.5) == pytest.approx(MS, rel=0.02)
    assert t.quantile_ns(channel, Duration.LATENCY, 0.97) == pytest.approx(MS, rel=0.02)
    assert t.quantile_ns(channel, Duration.LATENCY, 0.98) == math.inf
    assert t.quantile_ns(channel, Duration.LATENCY, 1) == math.inf
    assert t.quantile_ns(channel, Duration.LATENCY, 1, more_lost=-30) == MS
    assert t.quantile_ns(channel, Duration.RTT, 0.99) == pytest.approx(MS, rel=0.02)
    assert t.quantile_ns(channel, Duration.RTT, 1) == MS
    assert math.isnan(t.quantile_ns(channel, Duration.CONNECT, 0.5))


@pytest.mark.parametrize(
    ("q", "expected"),
    [(0.29, 10 * MS), (0.31, 200 * MS), (0.5, 200 * MS), (0.6, 200 * MS), (0.61, math.inf), (1, math.inf)],
)
def test_a_bad_reply_is_not_fast_but_lost(path: Path, q: float, expected: float) -> None:
    """40 fast SERVFAILs, 30 answers after 10 ms, 30 after 200 ms: half of the rows had their answer after 200 ms."""

    def latency(due_ns: int) -> int:
        return MS if due_ns < 4 * NS else 10 * MS if due_ns < 7 * NS else 200 * MS

    t = Timeline.of(written(path, [series_of(rate=10)], drawn("s" * 40, 10), latency=latency))
    assert t.quantile_ns(t.channels[0], Duration.LATENCY, q) == pytest.approx(expected, rel=0.02)
    assert t.quantile_ns(t.channels[0], Duration.RTT, 0.4) == pytest.approx(MS, rel=0.02)


def test_slices_of_the_run_file_stand_for_the_rows_within(path: Path) -> None:
    """Within 2 s of 10 s, 1 of 200 rows is lost: the best 99 % are the best 198 of 199 good ones."""

    def latency(due_ns: int) -> int:
        return 50 * MS if due_ns % NS >= 980 * MS else MS

    t = Timeline.of(written(path, [series_of(rate=100)], drawn("." * 450 + "x", 100), latency=latency))
    within = ((4 * NS, 6 * NS),)
    assert t.quantile_ns(t.channels[0], Duration.LATENCY, 0.97, within) == pytest.approx(MS, rel=0.02)
    assert t.quantile_ns(t.channels[0], Duration.LATENCY, 0.99, within) == pytest.approx(50 * MS, rel=0.02)
    assert t.quantile_ns(t.channels[0], Duration.LATENCY, 0.996, within) == math.inf


def test_undecided_rows_are_neither_good_nor_lost(path: Path) -> None:
    series = [series_of(rate=10, seconds=3)]
    run: Run = written(path, series, drawn("." * 20 + "?" * 10, 10), finish=False)
    t = Timeline.of(run)
    assert t.channels[0].loss() == Loss(30, 20, 0, 0, 10)
    assert t.horizon_ns == 3 * NS


def test_rows_due_while_the_worker_had_not_heard_of_the_stop_are_in_a_window_too(path: Path) -> None:
    series = [series_of(rate=100, seconds=5)]
    writer = RunWriter.create(path, Head("stopped", STARTED, 60 * NS))
    writer.add_series(series)
    writer.flush(flush_of(columns_of(series, drawn("." * 498 + "xx", 100)), 1), 5 * NS)
    writer.end_series(0, 4_975 * MS)
    writer.finish(4_975 * MS, "ended after 5.0 s by Ctrl-C")
    t = Timeline.of(open_run(path))
    assert t.channels[0].loss() == Loss(500, 498, 2, 0, 0)
    (window,) = t.windows
    assert (window.lost, window.still_open) == (2, True)


@pytest.mark.parametrize("seed", range(8))
def test_windows_of_rows_at_random(path: Path, seed: int) -> None:
    """Through the file's 100 ms buckets, windows come out as from the rows themselves."""
    random = Random(seed)
    rate = random.choice([1, 3, 37, 400])
    series = [
        series_of(i, rate=Fraction(rate), seconds=30, qtype=qtype, offset_ns=i * NS // (3 * rate))
        for i, qtype in enumerate(("A", "AAAA"))
    ]
    troubled = [random.random() < 0.2 for _ in range(300)]
    dues = {s.index: pacer_of(s).take(30 * NS, 10**6).tolist() for s in series}
    lost = {(i, due) for i in dues for due in dues[i] if troubled[due * 10 // NS] and random.random() < 0.3}
    interval, good_again = NS // (2 * rate), max(NS, 5 * (NS // (2 * rate)))
    expected: list[list[int]] = []
    for due in sorted(due for _, due in lost):
        if expected and due - expected[-1][-1] <= good_again:
            expected[-1].append(due)
        else:
            expected.append([due])

    def fate(s: Series, due_ns: int) -> Outcome:
        return Outcome.SERVFAIL if (s.index, due_ns) in lost else Outcome.ANSWER

    windows = Timeline.of(written(path, series, fate)).windows
    assert [(w.from_ns, w.to_ns, w.lost) for w in windows] == [(e[0], e[-1] + interval, len(e)) for e in expected]
    for w in windows:
        assert w.planned == sum(w.from_ns <= due < w.to_ns for i in dues for due in dues[i])


def test_slow_rates_are_fractions(path: Path) -> None:
    series = [series_of(rate=Fraction(1, 3), seconds=60)]
    t = Timeline.of(written(path, series, drawn("..xx" + "." * 16, Fraction(1, 3))))
    assert seconds(t.windows) == [(6, 12)]


# -- loads that are not constant


def paces(*rates: tuple[int, float], most: int) -> Shape:
    """So many queries a second, for so many seconds each."""
    return Shape(legs=tuple(Leg(int(s * NS), Fraction(rate, most), Fraction(rate, most)) for rate, s in rates))


def lost_at(*seconds: float) -> Fate:
    """Rows due in the 100 ms that begin at any of these instants are lost."""
    tenths = {round(second * 10) for second in seconds}
    return lambda _, due_ns: Outcome.TIMEOUT if due_ns // (100 * MS) in tenths else Outcome.ANSWER


def test_a_window_is_as_exact_as_the_rate_of_its_moment(path: Path) -> None:
    shape = paces((100, 5), (1, 20), (10, 5), most=100)
    series = [replace(series_of(rate=100, seconds=40), shape=shape)]
    t = Timeline.of(written(path, series, lost_at(2, 10, 13, 27, 28.5)))
    assert [(w.from_ns / NS, w.to_ns / NS, w.resolution_ns / NS, w.lost, w.planned) for w in t.windows] == [
        (2, 2.1, 0.01, 10, 10),
        (10, 14, 1, 2, 4),  # two good queries between them are not five
        (27, 27.1, 0.1, 1, 1),
        (28.5, 28.6, 0.1, 1, 1),
    ]
    assert t.channels[0].loss() == Loss(670, 656, 14, 0, 0)
    assert t.channels[0].loss(((4 * NS, 6 * NS),)).planned == 101


def test_a_window_of_a_ramp_closes_after_five_queries_at_the_rate_then(path: Path) -> None:
    legs = (Leg(100 * NS, Fraction(0), Fraction(1)),)
    series = [replace(series_of(rate=10, seconds=100), shape=Shape(legs=legs))]
    dues = [int(due) for due in pacer_of(series[0]).take(100 * NS)]
    fate = lambda _, due: Outcome.TIMEOUT if dues.index(due) in (0, 5, 11, 400, 405) else Outcome.ANSWER  # noqa: E731
    t = Timeline.of(written(path, series, fate))
    assert [(w.from_ns, w.lost) for w in t.windows] == [(dues[0], 2), (dues[11], 1), (dues[400], 2)]
    for w, last in zip(t.windows, (5, 11, 405), strict=True):
        assert w.to_ns == pytest.approx(dues[last + 1], abs=2), "until the next query is due"
    assert t.windows[0].resolution_ns > 3 * t.windows[2].resolution_ns


def test_a_lane_that_pauses_is_not_said_to_be_fine_meanwhile(path: Path) -> None:
    pausing = paces((10, 10), (0, 10), (10, 1), most=10)
    series = [
        series_of(0, lane="all", rate=10, seconds=30),
        replace(series_of(1, lane="some", rate=10, seconds=30), shape=pausing),
    ]
    lost = lost_at(5, 15)
    fate = lambda s, due: lost(s, due) if s.lane == "all" else Outcome.ANSWER  # noqa: E731
    early, late = Timeline.of(written(path, series, fate)).windows
    assert [(other.lane, other.asked, other.fine) for other in early.others] == [("some", 1, 1)]
    assert late.others == ()


def test_a_pair_is_one_moment(path: Path) -> None:
    series = [replace(series_of(i, rate=5, qtype=qtype), pair=True) for i, qtype in enumerate(("A", "AAAA"))]
    (window,) = Timeline.of(written(path, series, lost_at(2, 2.4))).windows
    assert (window.from_ns, window.to_ns, window.planned, window.lost) == (2 * NS, 2_600 * MS, 6, 4)


def test_poisson_arrivals_are_counted_one_by_one(path: Path) -> None:
    series = [replace(series_of(rate=50, seconds=20), shape=Shape("poisson", seed=3))]
    dues = pacer_of(series[0]).take(20 * NS)
    t = Timeline.of(written(path, series, lost_at(*(k / 10 for k in range(50, 80)))))
    (window,) = t.windows
    mine = dues[(dues >= 5 * NS) & (dues < 8 * NS)]
    assert (window.from_ns, window.to_ns, window.lost) == (mine[0], mine[-1] + NS // 50, len(mine))
    assert window.planned == int(((dues >= window.from_ns) & (dues < window.to_ns)).sum())
    assert t.channels[0].loss().planned == len(dues)


def closed(path: Path, *rates: tuple[int, float], fate: Fate, pause_ns: int = 0) -> Timeline:
    """A closed loop that happened to ask as often as that."""
    most = max(rate for rate, _ in rates)
    asked = replace(series_of(rate=most, seconds=sum(s for _, s in rates)), shape=paces(*rates, most=most))
    writer = RunWriter.create(path, Head("closed", STARTED, asked.stop_ns))
    shape = Shape("max", window=100, pause_ns=pause_ns)
    writer.add_series([replace(asked, rate=Fraction(1_000_000), shape=shape)])
    writer.flush(flush_of(columns_of([asked], fate), 1), asked.stop_ns)
    writer.finish(asked.stop_ns)
    return Timeline.of(open_run(path))


def test_of_a_closed_loop_with_a_pause_every_row_is_known_by_100_ms(path: Path) -> None:
    """Also where a second has good rows alone, but none until its middle: there is no schedule to go by."""
    fate = lost_at(2, 3, 4, 5, 6)
    t = closed(path, (10, 2), (1, 4.9), (0, 0.6), (10, 4.5), fate=fate, pause_ns=100 * MS)
    (window,) = t.windows
    assert (window.from_ns, window.to_ns, window.lost, window.planned) == (2 * NS, 7_500 * MS, 5, 5)
    assert t.channels[0].loss() == Loss(70, 65, 5, 0, 0)


def test_a_closed_loop_s_window_lasts_until_the_next_good_row(path: Path) -> None:
    """What was outstanding is lost, nothing more is asked until it has timed out: an outage of 2 s or a little more."""
    t = closed(path, (1000, 2), (0, 2), (1000, 6), fate=lost_at(1.9))
    (window,) = t.windows
    assert (window.from_ns, window.to_ns, window.lost, window.planned) == (1900 * MS, 4 * NS, 100, 100)
    assert window.resolution_ns == 4 * NS - 1999 * MS
    assert t.channels[0].loss() == Loss(8000, 7900, 100, 0, 0)
    assert t.channels[0].loss(((5 * NS, 6 * NS),)) == Loss(1000, 1000, 0, 0, 0)


def test_a_closed_loop_s_windows_are_known_to_100_ms(path: Path) -> None:
    t = closed(
        path, (1000, 10), fate=lambda _, due: Outcome.SERVFAIL if due in (5_020 * MS, 9_990 * MS) else Outcome.ANSWER
    )
    assert [(w.from_ns, w.to_ns, w.still_open) for w in t.windows] == [
        (5_020 * MS, 5_100 * MS, False),
        (9_990 * MS, 10 * NS, True),
    ]
