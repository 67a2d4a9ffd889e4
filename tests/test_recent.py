"""What was good and lost in the last seconds: rows whose timeouts run, our own faults, pods that come and go."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from probe.model import NS, Series, Target, TargetKind
from probe.recorder import Flush
from probe.scenario.plan import series_of
from probe.scenario.recent import Counts, Recent
from tests.test_live import flush
from tests.test_plan import ONE, lane

POD = Target("coredns-a", TargetKind.POD, "127.53.0.101")


def series(*lanes: tuple[str, Target]) -> list[Series]:
    made = [
        series_of(lane("A", rate=Fraction(5), name=name), to, i, 0, 99 * NS)[0] for i, (name, to) in enumerate(lanes)
    ]
    return [replace(s, timeout_ns=2 * NS) for s in made]


def told(seconds: float, lanes: list[Series], *flushes: Flush) -> Recent:
    """A flush at the end of each second."""
    recent = Recent(seconds)
    for n, each in enumerate(flushes, 1):
        recent.add(each, lanes, n * NS)
    return recent


@pytest.mark.parametrize(
    ("drawn", "counts", "why"),
    [
        (["....."] * 4, Counts(15, 15), ""),
        (["....."] * 2, Counts(10, 10), "lane vip has been seen for 2.0 s of 3"),
        (["xxxxx", ".....", ".....", "....."], Counts(15, 15), ""),
        ([".....", "....x", ".....", "....."], Counts(15, 14, 1), "lane vip lost 1 of 15 in the last 3 s"),
        ([".....", "....u", ".....", "....."], Counts(15, 14, 0, 1), "lane vip was not asked 1 of 15 in the last 3 s"),
        ([".....", ".....", ".....", "..   "], Counts(15, 15), ""),
        ([".....", ".....", "..   ", "xx   "], Counts(10, 10), "lane vip lost 2 of 20 in the last 3 s"),
        ([".....", "", "", ""], Counts(), "lane vip was asked nothing in the last 3 s"),
    ],
    ids=["clean", "too young", "loss is past", "lost", "unsent", "timeouts run", "lost meanwhile", "asked nothing"],
)
def test_the_last_3_s(drawn: list[str], counts: Counts, why: str) -> None:
    drawing = [flush((n, " " not in text, [text])) for n, text in enumerate(drawn)]
    recent = told(3, series(("vip", ONE)), *drawing)
    assert (recent.counts(("v*",)), recent.unclean(3)) == (counts, why)


def test_what_is_never_decided_is_not_waited_for_and_not_clean() -> None:
    lanes = series(("vip", ONE))
    hangs = told(3, lanes, flush((0, False, ["..   "])), *[flush((n, False, ["....."])) for n in range(1, 6)])
    assert hangs.counts() == Counts(15, 15), "2 s of timeout and 2 s of patience after it was due"
    died = told(3, lanes, *[flush((n, True, ["..   " if n == 3 else "....."])) for n in range(5)])
    assert died.counts() == Counts(15, 12, 0, 3)
    assert died.unclean(3) == "lane vip was not asked 3 of 15 in the last 3 s"


def test_a_pod_counts_from_ready_to_deletion() -> None:
    recent = told(3, series(("vip", ONE), ("pods", POD)), *[flush((n, True, [".....", "xxxxx"])) for n in range(4)])
    assert recent.unclean(3, ("vip",)) == ""
    assert recent.counts(("pods",)) == Counts(15, 0, 15)
    recent.life("coredns-a", 0)
    assert recent.counts(("pods",)) == Counts(15, 0, 15)
    recent.life("coredns-a", 0, 3 * NS)
    assert recent.counts(("pods",)) == Counts(10, 0, 10)
    recent.life("coredns-a", 0, NS)
    assert recent.counts() == Counts(15, 15)
    recent.life("coredns-a", 2 * NS, 3 * NS)
    assert recent.counts() == Counts(20, 15, 5), "lived twice"


def test_a_lane_that_begins_later_has_been_seen_for_less() -> None:
    lanes = series(("vip", ONE), ("pods", POD))
    recent = Recent(3)
    recent.add(flush((0, True, ["....."])), lanes[:1], NS)
    for n in (1, 2, 3):
        recent.add(flush((n, True, [".....", "....."])), lanes, (n + 1) * NS)
    assert (recent.seen_for(), recent.seen_for(("vip",)), recent.seen_for(("nodelocal-*",))) == (3.0, 4.0, 0.0)
    assert recent.unclean(4, ("vip", "pods")) == "lane pods has been seen for 3.0 s of 4"
    assert recent.unclean(3) == ""
    assert recent.unclean(3, ("nodelocal-*",)) == "no lane matches nodelocal-*"
