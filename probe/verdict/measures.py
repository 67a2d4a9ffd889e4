"""A channel's timeline -> one number: the measures objectives are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial

import numpy as np

from probe.model import NS
from probe.outcome import Outcome
from probe.recorder import Duration
from probe.timeline import Channel, Spans, Timeline, Window, common, stretches
from probe.timeline.spans import inside, touch

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
"""By the names of measures: which part of all rows a latency covers."""


class Reading(Enum):
    """How to read the rows whose fate is this prober's own fault."""

    AS_COUNTED = "unsent rows left out, what we or the lab dropped as the timeouts they look like"
    WORST = "as if every unsent row had been lost"
    BEST = "as if every lost row that may be no fault of DNS had been good; nobody knows how fast, so without latency"


@dataclass(frozen=True, slots=True)
class Measure:
    """`of` gives a channel's value within stretches (None: all that counts): a fraction of rows, or seconds.

    rows: with fewer of them a percentile is nothing but the maximum.
    """

    unit: str
    help: str
    of: Callable[[Timeline, Channel, Spans | None, Reading], float]
    rows: int = 1


def spared(channel: Channel, within: Spans | None = None) -> int:
    """How many lost rows may be no fault of DNS: of those that count, or of all that were due in some stretches.

    What the lab lost itself, and as many timeouts as our own receive buffer dropped replies: which ones is not known,
    nor when, so these may be any. What was lost for certain are the rows beyond that.
    """
    if not (channel.own_drops or channel.lab_at_fault):
        return 0
    spans = channel.counted if within is None else within
    ours = inside(channel.first_ns, common(spans, channel.lab_at_fault))
    silent = int(channel.lost[inside(channel.first_ns, spans) & ~ours, Outcome.TIMEOUT].sum())
    return int(channel.lost[ours].sum()) + min(channel.own_drops, silent)


def _shortest_ns(channel: Channel, window: Window) -> int:
    """How long a window lasted at least, had the rows that may be spared been good: those before it and after."""
    within = common(channel.counted, ((window.from_ns, window.to_ns),))
    left = window.lost - spared(channel, within)
    if left <= 0:
        return 0
    if left == window.lost:
        return window.to_ns - window.from_ns
    mine = inside(channel.first_ns, within)
    first, last = channel.first_ns[mine], np.maximum.accumulate(channel.last_ns[mine])
    total = channel.lost[mine].sum(axis=1).cumsum()
    before = np.concatenate([[0], total[:-1]])
    end = np.searchsorted(total, before + left)
    begins, ends = first[end < len(last)], last[end[end < len(last)]]
    return int((ends + channel.interval_ns(ends) - begins).min())


def _more_lost(channel: Channel, within: Spans | None, reading: Reading) -> int:
    if reading is Reading.WORST:
        return channel.loss(within).unsent
    spans = channel.counted if within is None else common(channel.counted, within)
    return -spared(channel, spans) if reading is Reading.BEST else 0


def _loss(_: Timeline, channel: Channel, within: Spans | None, reading: Reading) -> float:
    loss = channel.loss(within)
    more = _more_lost(channel, within, reading)
    asked = loss.asked + max(0, more)
    return max(0, loss.lost + more) / asked if asked else float("nan")


def _longest(timeline: Timeline, channel: Channel, within: Spans | None, reading: Reading) -> float:
    """BEST shortens each window by the rows that may be spared; WORST takes unsent rows for lost ones."""
    if not channel.loss(within).planned:
        return float("nan")
    if reading is Reading.WORST:
        ends = [(first, last + int(channel.interval_ns(last))) for first, last in stretches(channel, unsent_too=True)]
        lasted = [(a, b, b - a) for a, b in ends]
    else:
        best = reading is Reading.BEST
        windows = timeline.by_channel.get(channel.name, ())
        lasted = [(w.from_ns, w.to_ns, _shortest_ns(channel, w) if best else w.to_ns - w.from_ns) for w in windows]
    return max((ns for a, b, ns in lasted if touch(a, b, within)), default=0) / NS


def _latency(q: float, timeline: Timeline, channel: Channel, within: Spans | None, reading: Reading) -> float:
    more = _more_lost(channel, within, reading)
    return timeline.quantile_ns(channel, Duration.LATENCY, q, within, more_lost=more) / NS


MEASURES = {
    "loss": Measure("%", "rows that were not good, of all that were sent and decided", _loss),
    "longest_disruption": Measure("s", "the longest window of disruption", _longest),
    "p50": Measure("s", "median latency from due to a good reply; lost rows count as infinite", partial(_latency, 0.5)),
    "p90": Measure("s", "90 % of rows had a good reply by then; lost rows never", partial(_latency, 0.9)),
    "p99": Measure("s", "99 % of rows had a good reply by then; lost rows never", partial(_latency, 0.99), 100),
    "p999": Measure("s", "99.9 % of rows had a good reply by then; lost rows never", partial(_latency, 0.999), 1000),
    "max": Measure("s", "the longest latency; infinite if a row was lost", partial(_latency, 1.0)),
}
