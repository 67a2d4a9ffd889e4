"""Points in, a plot in plain text and their steepest slope out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log

_EIGHTHS = " ▏▎▍▌▋▊▉"


def bars(title: str, points: Sequence[tuple[str, float]], unit: str, width: int = 50) -> str:
    """A line for each point: its name, a bar (the greatest number fills the width), the number."""
    most = max((value for _, value in points), default=0) or 1
    names = max((len(name) for name, _ in points), default=0)
    lines = [f"{name:>{names}} {_bar(value / most * width):<{width}} {value:,.2f} {unit}" for name, value in points]
    return "\n".join([title, *lines])


def _bar(length: float) -> str:
    whole, eighth = divmod(round(length * 8), 8)
    return "█" * whole + (_EIGHTHS[eighth] if eighth else "")


def steepest(points: Sequence[tuple[float, float]]) -> float | None:
    """The steepest slope between neighbours where both axes are logarithmic: 1 is linear. None without a slope.

    Neighbours less than a fifth apart are left out: there noise is steeper than anything.
    """
    near = [(x2 / x1, y2 / y1) for (x1, y1), (x2, y2) in pairwise(points)]
    return max((log(y) / log(x) for x, y in near if x >= 1.2), default=None)
