"""Text such as `loss(vip-*) <= 0.1% within 60s of steps` -> an Objective, or a UsageError that says where it errs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from fractions import Fraction

from probe.errors import UsageError
from probe.model import BESIDE, NS, Series, TargetKind
from probe.verdict.measures import MEASURES

EXAMPLES = "loss(vip-*) <= 0.1%, longest_disruption(vip-*, nodelocal-*) <= 1s, p99 <= 100ms within 60s of steps"
SERVICE_LANES = ("vip-*", "nodelocal-*")
"""The lanes applications go through: the default objectives are about them."""
_INVERSE = {">": "<=", ">=": "<", "<": ">=", "<=": ">"}
_UNITS = {
    "%": Fraction(1, 100),
    "ns": Fraction(1, NS),
    "us": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
}
_SHARES, _TIMES = ("%",), ("ns", "us", "ms", "s", "m")
_TOKENS = re.compile(
    r"\s*(?P<measure>[A-Za-z_]\w*)\s*(?:\((?P<lanes>[^()]*)\))?"
    r"\s*(?P<operator><=|>=|<|>)?\s*(?P<number>\d+(?:\.\d*)?|\.\d+)?\s*(?P<unit>%|[a-z]+)?"
    r"(?P<within>\s*within\s+(?P<span>\d+(?:\.\d*)?)\s*(?P<span_unit>[a-z]+)\s+of\s+steps)?\s*"
)


@dataclass(frozen=True, slots=True)
class Objective:
    """What must hold. limit: a fraction of rows for loss, seconds for all else; within_ns: only so long after steps."""

    measure: str
    lanes: tuple[str, ...]
    operator: str
    limit: float
    text: str
    within_ns: int | None = None

    def covers(self, lane: str) -> bool:
        """Whether it is about a lane of that name."""
        return any(fnmatchcase(lane, glob) for glob in self.lanes)

    def met_by(self, actual: float) -> bool:
        """Whether a value meets the limit."""
        return {
            "<=": actual <= self.limit,
            "<": actual < self.limit,
            ">=": actual >= self.limit,
            ">": actual > self.limit,
        }[self.operator]

    @property
    def rows(self) -> int:
        """How many rows it takes to show that it is met: a loss of L cannot be seen in fewer than 1/L."""
        if self.measure == "loss" and self.limit:
            return math.ceil(1 / self.limit - 1e-9)
        return MEASURES[self.measure].rows

    @property
    def upper(self) -> bool:
        """Whether more is worse."""
        return self.operator in ("<", "<=")

    def __str__(self) -> str:
        return self.text


def parse_objective(text: str) -> Objective:
    """UsageError quotes the text, the position and examples."""
    found = _TOKENS.match(text)
    if not found:
        raise _wrong(text, 0, f"begin with a measure: {', '.join(MEASURES)}")
    measure = found["measure"]
    if measure not in MEASURES:
        raise _wrong(text, found.start("measure"), f"unknown measure {measure!r}: one of {', '.join(MEASURES)}")
    lanes = tuple(glob.strip() for glob in ("*" if found["lanes"] is None else found["lanes"]).split(","))
    if not all(lanes):
        raise _wrong(text, found.start("lanes"), "a lane's name is empty: separate globs by single commas")
    after = found.end("lanes") + 1 if found["lanes"] is not None else found.end("measure")
    if text[after:].lstrip().startswith("("):
        raise _wrong(text, after, "the ( before the lanes is never closed")
    if not found["operator"]:
        raise _wrong(text, after, "say <=, <, >= or > here")
    if not found["number"]:
        raise _wrong(text, found.end("operator"), "say a number here")
    allowed = _SHARES if MEASURES[measure].unit == "%" else _TIMES
    unit = found["unit"] or ""
    if unit not in allowed:
        raise _wrong(text, found.end("number"), f"{measure} needs a unit: {', '.join(allowed)}")
    if found.end() < len(text):
        raise _wrong(text, found.end(), "nothing more is understood, except `within 60s of steps`")
    within = None
    if found["within"]:
        if found["span_unit"] not in _TIMES:
            raise _wrong(text, found.start("span_unit"), f"a duration needs a unit: {', '.join(_TIMES)}")
        within = round(Fraction(found["span"]) * _UNITS[found["span_unit"]] * NS)
    limit = float(Fraction(found["number"]) * _UNITS[unit])
    return Objective(measure, lanes, found["operator"], limit, " ".join(text.split()), within)


def fail_condition(text: str) -> Objective:
    """`loss > 0.1%` (when to fail) -> the objective `loss <= 0.1%` (what must hold)."""
    condition = parse_objective(text)
    operator = _INVERSE[condition.operator]
    inverse = condition.text.replace(condition.operator, operator, 1)
    return replace(condition, operator=operator, text=inverse)


def default_objectives(series: Iterable[Series]) -> tuple[str, ...]:
    """What must hold if nobody says otherwise: on Service and node-local lanes, or else on all that ask DNS but not
    pods.
    """
    pods: dict[str, bool] = {}
    for s in series:
        pods[s.lane] = pods.get(s.lane, True) and (s.target.kind is TargetKind.POD or s.transport in BESIDE)
    service = [lane for lane in pods if any(fnmatchcase(lane, glob) for glob in SERVICE_LANES)]
    others = [lane for lane, pod in pods.items() if not pod]
    if service:
        lanes = f"({', '.join(SERVICE_LANES)})"
    else:
        lanes = "" if not others or len(others) == len(pods) else f"({', '.join(others)})"
    return (
        f"longest_disruption{lanes} <= 1s",
        f"loss{lanes} <= 0.1% within 60s of steps",
        f"p99{lanes} <= 100ms",
    )


def _wrong(text: str, position: int, what: str) -> UsageError:
    left = text[position:].strip() or "the end"
    return UsageError(f"objective {text!r}: character {position + 1}, at {left!r}: {what}; for example: {EXAMPLES}")
