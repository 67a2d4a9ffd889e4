"""How much is asked, as typed -> a rate and its shape; which loads go together with what, or a UsageError."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from probe.book import Book, by_type
from probe.errors import UsageError
from probe.model import CONSTANT, NS, Leg, Ports, Question, Shape
from probe.scenario.quantity import MAX_RATE, duration_ns, rate_of, rate_text, seconds_text, whole

WINDOW = 200
"""Queries outstanding towards a target under `-Q max`, unless a person says otherwise."""
UNPLANNED = "as fast as replies allow"
NO_LIMIT = "there is no limit on outstanding queries: a schedule waits for no reply; it goes with a rate of `max` only"


@dataclass(frozen=True, slots=True)
class Load:
    """The highest rate of a lane and what it does over time; of a rate of `max` what bounds it."""

    rate: Fraction
    shape: Shape = CONSTANT

    @property
    def lasts_ns(self) -> int:
        """How long the rate changes."""
        return sum(leg.duration_ns for leg in self.shape.legs)


def load_of(text: str) -> Load:
    """`100` queries a second, or `max`."""
    if text.strip().lower() == "max":
        return Load(Fraction(MAX_RATE), Shape("max", window=WINDOW))
    try:
        return Load(rate_of(text))
    except UsageError as problem:
        raise UsageError(f"{problem}, or max: {UNPLANNED}") from None


def ceiling_of(text: str) -> Fraction | None:
    """The most queries a second towards other machines; `max` is no ceiling."""
    return None if text.strip().lower() == "max" else rate_of(text)


def window_of(text: str) -> int:
    """How many queries may be outstanding."""
    return whole(text, 1, 65_536, "the number of queries outstanding")


def pause_of(text: str) -> int:
    """How long after an outcome the next query follows, in ns: 1 ms to 1000 s."""
    return duration_ns(text, NS // 1000, 1000 * NS)


def burst_of(text: str) -> int:
    """How many queries leave as one burst: as many as the kernel's UDP_SEGMENT takes."""
    return whole(text, 2, 64, "the number of queries in a burst")


def pausing_rate_of(text: str) -> Fraction:
    """A rate that may be 0."""
    return Fraction(0) if re.fullmatch(r"0+(\.0+)?", text.strip()) else rate_of(text)


def ramp_of(text: str) -> Load:
    """`10:500:30`: from 10 to 500 queries a second within 30 s."""
    parts = text.split(":")
    if len(parts) != 3:
        raise UsageError(f"{text!r}: say FROM:TO:SECONDS, e.g. 10:500:30")
    return ramp(pausing_rate_of(parts[0]), rate_of(parts[1]), duration_ns(parts[2], NS // 10))


def ramp(first: Fraction, last: Fraction, over_ns: int) -> Load:
    """Evenly from one rate to another, then on with that."""
    most = max(first, last)
    return Load(most, Shape(legs=(Leg(over_ns, first / most, last / most),)))


def staged(paces: Sequence[tuple[Fraction, int]]) -> Load:
    """One rate after the other, each for so long (ns); the last one stays. UsageError if that is 0."""
    most = max(rate for rate, _ in paces)
    if not paces[-1][0]:
        raise UsageError("the last rate stays until the end of the run, so it must be above 0")
    return Load(most, Shape(legs=tuple(Leg(ns, rate / most, rate / most) for rate, ns in paces)))


def arriving(load: Load, arrivals: str) -> Load:
    """The load with `even` or `poisson` arrivals; UsageError for poisson ones of what has no schedule."""
    if arrivals not in ("even", "poisson"):
        raise UsageError(f"{arrivals!r}: say even or poisson")
    if not load.shape.scheduled:
        if arrivals == "poisson":
            raise UsageError("'poisson': goes with a rate: under max a query follows when a reply has come")
        return load
    return replace(load, shape=replace(load.shape, arrivals=arrivals))


def within(load: Load, window: int) -> Load:
    """The load with so many queries outstanding; UsageError if it has a schedule."""
    if load.shape.scheduled:
        raise UsageError(f"'{window}': {NO_LIMIT}")
    return replace(load, shape=replace(load.shape, window=window))


def pausing(load: Load, pause_ns: int) -> Load:
    """The load with a pause between an outcome and the next query. UsageError if it has a schedule, or comes to more
    than a lane may.
    """
    told = f"'{seconds_text(pause_ns)}'"
    if load.shape.scheduled:
        raise UsageError(f"{told}: a pause follows an outcome, and a schedule waits for none: say rate: max")
    rate = Fraction(load.shape.window * NS, pause_ns)
    if rate > MAX_RATE:
        raise UsageError(
            f"{told}: with {load.shape.window} outstanding up to {rate_text(rate)}: {MAX_RATE:,} is the most"
        )
    return Load(rate, replace(load.shape, pause_ns=pause_ns))


def check_slots(shape: Shape, types: Sequence[str]) -> None:
    """UsageError where a pause leaves a type without a query outstanding: each has closed loops of its own."""
    if shape.pause_ns and shape.window < len(types):
        which = f"{', '.join(types)} have loops of their own"
        raise UsageError(f"'{shape.window}': with a pause {which}: say {len(types)}, or fewer types")


def check_ports(transport: str, ports: Ports, shape: Shape) -> None:
    """UsageError for a socket each query where nothing bounds their number."""
    if shape.unbounded and ports.policy == "fresh":
        reused = "pool:64" if transport == "udp" else "reused"
        raise UsageError(f"ports fresh: under a rate of max nothing bounds how many a second are opened: say {reused}")


def check_length(load: Load, run_ns: int) -> None:
    """UsageError if the run ends before the rate is where it is meant to go."""
    if load.lasts_ns > run_ns:
        raise UsageError(f"takes {seconds_text(load.lasts_ns)}, but the run lasts {seconds_text(run_ns)}: run longer")


def check_burst(transport: str, ports: Ports, shape: Shape, changes: bool) -> None:
    """UsageError where bursts (UDP_SEGMENT) would measure something else. changes: steps are taken meanwhile."""
    why = "a burst crosses NAT as one packet: it meets one backend, and one loss is all of it"
    if transport != "udp":
        raise UsageError("bursts are for udp: tcp joins queries by itself")
    if changes:
        raise UsageError(f"not in a scenario with steps: {why}, so disruptions would look other than they are")
    if shape.pause_ns:
        raise UsageError("not with a pause: each query waits for an outcome of its own")
    if ports.policy != "pool" and shape.scheduled:
        raise UsageError(f"only with ports pool:K or a rate of max: {why}")


def check_pair(transport: str, shape: Shape, questions: Sequence[Question], weights: Sequence[int]) -> None:
    """UsageError unless every name is asked as A and as AAAA, equally often, in the same order, and on a schedule."""
    if transport != "udp":
        raise UsageError("pairs are for udp: glibc sends A and AAAA from one socket back to back")
    if not shape.scheduled:
        raise UsageError("pairs need a schedule: say a rate instead of max")
    types = by_type(questions)
    if set(types) != {"A", "AAAA"}:
        raise UsageError(f"a pair is A and AAAA of a name, and here {', '.join(types)} is asked: say types A and AAAA")
    if odd := _unpaired(types["A"], types["AAAA"]):
        raise UsageError(f"a pair is A and AAAA of a name: {odd} is not asked as both, in the same order")
    if weights:
        by = {t: [w for q, w in zip(questions, weights, strict=True) if q.qtype == t] for t in types}
        if by["A"] != by["AAAA"]:
            raise UsageError("a pair is A and AAAA of a name: both must have the same weight")


def _unpaired(one: Sequence[Question], other: Sequence[Question]) -> str:
    """The first name that is not in the same place of both; '' if there is none."""
    books = isinstance(one, Book) and isinstance(other, Book) and (one, other)
    if books and all(np.array_equal(*both) for both in zip(*((b.names, b.starts) for b in books), strict=True)):
        return ""
    pairs = zip(one, other, strict=False)
    shorter, longer = sorted((one, other), key=len)
    left = longer[len(shorter)].name if len(longer) > len(shorter) else ""
    return next((a.name for a, b in pairs if a.name != b.name), left)


def load_text(rate: Fraction, shape: Shape) -> str:
    """`100`, `10 to 500`, `100, 500`, `max`, `up to 10`: queries a second, for a table."""
    if not shape.scheduled:
        return "max" if shape.unbounded else f"up to {rate_text(rate).removesuffix(' q/s')}"
    rates = [rate_text(rate * leg.from_share).removesuffix(" q/s") for leg in shape.legs]
    if shape.legs and shape.legs[0].from_share != shape.legs[-1].to_share and len(shape.legs) == 1:
        rates = [f"{rates[0]} to {rate_text(rate * shape.legs[0].to_share).removesuffix(' q/s')}"]
    told = ", ".join(rates) or rate_text(rate).removesuffix(" q/s")
    return f"{told} poisson" if shape.arrivals == "poisson" else told
