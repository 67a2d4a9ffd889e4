"""What a prober did, second by second -> whether its last minute is fit to judge DNS by."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from probe.exporter.snapshot import Ints
from probe.histogram import quantile_ns
from probe.model import NS

MINUTE_NS = 60 * NS
MOST_UNSENT = 0.01
"""A larger share of the rows that were due: 0.6 s of the last minute."""
MOST_WITHHELD = 0.01
"""A larger share of the last minute: 0.6 s of CPU time."""
LAG_NS = 50_000_000
"""Queries that leave later than this after they were due (p99). From 5 ms on (the doubt `lag`) latency is too long, but
nothing looks lost; and who is not healthy is not heard when DNS is down, so that a busy node must not be enough."""


class Done(NamedTuple):
    """From t0 to at_ns. missed: rows that were due and not sent, or whose worker died; lag: rows by bin."""

    at_ns: int
    due: int
    missed: int
    own_drops: int
    withheld_ns: int
    lag: Ints


class Health:
    """Of the last minute."""

    def __init__(self, start: Done) -> None:
        self._seen = deque([start])

    def take(self, done: Done) -> bool:
        """Whether it is well now."""
        self._seen.append(done)
        while len(self._seen) > 2 and self._seen[1].at_ns <= done.at_ns - MINUTE_NS:
            self._seen.popleft()
        before = self._seen[0]
        lag_ns = quantile_ns(done.lag - before.lag, 0.99)
        return (
            done.missed - before.missed <= MOST_UNSENT * (done.due - before.due)
            and not lag_ns > LAG_NS
            and not math.isinf(lag_ns)
            and done.own_drops == before.own_drops
            and done.withheld_ns - before.withheld_ns <= MOST_WITHHELD * MINUTE_NS
        )
