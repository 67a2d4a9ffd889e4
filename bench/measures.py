"""The measures by name, in the order in which they are taken."""

from __future__ import annotations

from collections.abc import Callable

from bench.exact import blackout, capture, pacing
from bench.harm import harm
from bench.memory import cost, memory
from bench.paths import fresh, lanes, tcp
from bench.rounds import Bench
from bench.scrape import scrape
from bench.speed import cpu, latency, saturation
from bench.standing import standing
from bench.table import Section

MEASURES: dict[str, Callable[[Bench], list[Section]]] = {
    "saturation": saturation,
    "cpu": cpu,
    "latency": latency,
    "lanes": lanes,
    "fresh": fresh,
    "tcp": tcp,
    "pacing": pacing,
    "capture": capture,
    "memory": memory,
    "cost": cost,
    "blackout": blackout,
    "standing": standing,
    "scrape": scrape,
    "harm": harm,
}
