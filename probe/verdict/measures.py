"""A channel's timeline -> one number: the measures objectives are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial

from probe.model import NS
from probe.recorder import Duration
from probe.timeline import Channel, Spans, Timeline, stretches


class Reading(Enum):
    """How to read the rows whose fate is this prober's own fault."""

    AS_COUNTED = "unsent rows left out, what we or the lab dropped as the timeouts they look like"
    WORST = "as if every unsent row had been lost"
    BEST = "as if every lost row that may be no fault of DNS had been good"


@dataclass(frozen=True, slots=True)
class Measure:
    """`of` gives a channel's value within stretches (None: all that counts): a fraction of rows, or seconds.

    rows: with fewer of them a percentile is nothing but the maximum.
    """

    unit: str
    help: str
    of: Callable[[Timeline, Channel, Spans | None, Reading], float]
    rows: int = 1


def _more_lost(channel: Channel, within: Spans | None, reading: Reading) -> int:
    if reading is Reading.WORST:
        return channel.loss(within).unsent
    return -channel.excused(within) if reading is Reading.BEST else 0


def _loss(_: Timeline, channel: Channel, within: Spans | None, reading: Reading) -> float:
    loss = channel.loss(within)
    more = _more_lost(channel, within, reading)
    asked = loss.asked + max(0, more)
    return max(0, loss.lost + more) / asked if asked else float("nan")


def _longest(timeline: Timeline, channel: Channel, within: Spans | None, reading: Reading) -> float:
    """BEST leaves out windows whose lost rows may all be excused; WORST takes unsent rows for lost ones."""
    if not channel.loss(within).planned:
        return float("nan")
    if reading is Reading.WORST:
        ends = [(first, last + channel.interval_ns) for first, last in stretches(channel, unsent_too=True)]
    else:
        ends = [
            (w.from_ns, w.to_ns)
            for w in timeline.by_channel.get(channel.name, ())
            if reading is not Reading.BEST or w.lost > channel.excused(((w.from_ns, w.to_ns),))
        ]
    if within is not None:
        ends = [(a, b) for a, b in ends if any(a < to_ns and b > from_ns for from_ns, to_ns in within)]
    return max((b - a for a, b in ends), default=0) / NS


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
