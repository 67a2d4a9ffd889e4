"""Series -> what the load was, in words: rates, their shape, pairs, bursts."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from probe.model import NS, Leg, Series
from probe.report.units import count, duration, plain

LEGS_NAMED = 4
"""Of more legs than this the first ones are told, and how many there are."""


def load_text(series: Sequence[Series]) -> str:
    """`vip-udp 100 q/s; pods 10 q/s, Poisson arrivals`: towards each target, by lane; '' for no series."""
    told: dict[str, str] = {}
    for s in series:
        if s.lane not in told:
            mine = [other for other in series if other.channel == s.channel]
            told[s.lane] = f"{plain(s.lane)} {_load(s, _rate(mine))}"
    return "; ".join(told.values())


def _load(s: Series, rate: Fraction) -> str:
    shape = s.shape
    if shape.pause_ns:
        text = (
            f"at most {count(shape.window)} outstanding, the next {duration(shape.pause_ns)} after the outcome of each"
        )
        text += f", so up to {_number(rate)} q/s: a closed loop, its latency is rtt"
    elif not shape.scheduled:
        text = f"as fast as replies allow, at most {count(shape.window)} outstanding: a closed loop, its latency is rtt"
    elif shape.legs:
        text = ", ".join(_leg(leg, rate) for leg in shape.legs[:LEGS_NAMED])
        text += f", ... ({len(shape.legs)} legs)" if len(shape.legs) > LEGS_NAMED else ""
    else:
        text = f"{_number(rate)} q/s"
    text += ", Poisson arrivals" if shape.arrivals == "poisson" else ""
    text += ", A and AAAA in pairs" if s.pair else ""
    return text + (f", bursts of up to {s.gso} that are routed, refused and lost as one" if s.gso > 1 else "")


def _leg(leg: Leg, rate: Fraction) -> str:
    first, last = _number(rate * leg.from_share), _number(rate * leg.to_share)
    return f"{first if first == last else f'{first} to {last}'} q/s for {leg.duration_ns / NS:g} s"


def _rate(series: Sequence[Series]) -> Fraction:
    """Of all types together; a type that is asked in several series one after the other counts once."""
    fastest: dict[str, Fraction] = {}
    for s in series:
        fastest[s.qtype] = max(s.own_rate, fastest.get(s.qtype, Fraction(0)))
    return sum(fastest.values(), Fraction(0))


def _number(rate: Fraction) -> str:
    return f"{float(rate):,.3f}".rstrip("0").rstrip(".")
