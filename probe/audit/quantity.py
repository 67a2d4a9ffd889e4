"""Quantities, percentages and versions as the API writes them -> numbers."""

from __future__ import annotations

import math
import re

from probe.audit.things import Json

_QUANTITY = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([a-zA-Z]*)")
_UNITS = {"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_UNITS |= {f"{unit}i": 1024.0 ** (n + 1) for n, unit in enumerate("KMGTPE")}


def quantity(text: Json) -> float | None:
    """`100m` -> 0.1, `170Mi` -> octets (apimachinery resource.Quantity); None for what is none."""
    found = _QUANTITY.fullmatch(str(text))
    if not found or found[2] not in _UNITS:
        return None
    try:
        return float(found[1]) * _UNITS[found[2]]
    except ValueError:
        return None


def share_of(said: Json, whole: int, *, up: bool) -> int:
    """`1`, `25%` of so many pods: rounded up for maxSurge and a budget, down for a Deployment's maxUnavailable."""
    text = str(said)
    if text.endswith("%") and text[:-1].isdecimal():
        exact = whole * int(text[:-1]) / 100
        return math.ceil(exact) if up else math.floor(exact)
    return int(text) if text.lstrip("-").isdecimal() else 0


def numbers(version: str) -> tuple[int, ...]:
    """`v1.12.1-eksbuild.2`, `1.8.4` -> (1, 12, 1); empty if it is no version."""
    found = re.match(r"v?([0-9]+)\.([0-9]+)(?:\.([0-9]+))?", version)
    return tuple(int(part) for part in found.groups(default="0")) if found else ()
