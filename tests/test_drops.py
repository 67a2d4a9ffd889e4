"""What our own receive buffers dropped, from cumulative counts to stretches of the timeline."""

from __future__ import annotations

import numpy as np

from probe.histogram import BINS
from probe.model import NS
from probe.outcome import Counter, UnsentCause
from probe.recorder import Flush
from probe.scenario.drops import OwnDrops
from tests.synthetic import series_of


def flush(*dropped: int) -> Flush:
    counters = np.zeros((len(dropped), len(Counter)), np.int64)
    counters[:, Counter.OWN_DROPS] = dropped
    return Flush([], np.zeros((len(dropped), len(UnsentCause)), np.int64), counters, np.zeros(BINS, np.int64), 0, [])


def test_a_stretch_lasts_as_long_as_each_second_has_drops() -> None:
    series = [series_of(i, f"lane-{i}") for i in range(3)]
    drops = OwnDrops()
    seen = [
        [(i.from_ns // NS, i.to_ns // NS, i.subject, i.text.split()[0]) for i in drops.look(flushed, series, at * NS)]
        for at, flushed in enumerate(
            [flush(0, 0), flush(5, 0), flush(9, 1), flush(9, 1), flush(10, 1, 1200)],  # the third series joins late
        )
    ]
    zero, one, two = (f"lane-{i} -> {series[i].target.name}" for i in range(3))
    assert seen == [
        [],
        [(0, 1, zero, "5")],
        [(0, 2, zero, "9"), (1, 2, one, "1")],
        [],
        [(3, 4, zero, "1"), (3, 4, two, "1,200")],
    ]
