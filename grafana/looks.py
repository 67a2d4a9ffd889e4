"""A panel's field options and a value -> its text, its colour: as Grafana would, for the preview."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

PALETTE = ("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0", "#508642", "#cca300")
"""Grafana's classic one, for series that have no colour of their own."""


def said(value: float | None, field: Mapping[str, Any], now: float = 0.0) -> str:
    """A value as text; now: unix seconds, for times that are told as from now."""
    if value is None:
        return str(field.get("noValue", "No data"))
    if mapped := _mapped(value, field):
        return str(mapped["text"])
    return _number(value, str(field.get("unit", "short")), field.get("decimals"), now)


def colour(value: float | None, field: Mapping[str, Any]) -> str:
    """By its mapping, else by the thresholds."""
    if value is not None and (mapped := _mapped(value, field)):
        return str(mapped["color"])
    steps = field.get("thresholds", {}).get("steps", [])
    passed = [step for step in steps if step["value"] is None or (value is not None and value >= step["value"])]
    return str(passed[-1]["color"]) if passed else "#7f8a99"


def series_colour(name: str, number: int, panel: Mapping[str, Any]) -> str:
    """By an override, else the next of the palette."""
    for each in properties(name, panel):
        if each["id"] == "color":
            return str(each["value"]["fixedColor"])
    return PALETTE[number % len(PALETTE)]


def properties(name: str, panel: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What overrides say of a series or column of that name."""
    return [
        each
        for override in panel["fieldConfig"]["overrides"]
        if _matches(name, override["matcher"])
        for each in override["properties"]
    ]


def _matches(name: str, matcher: Mapping[str, str]) -> bool:
    if matcher["id"] == "byRegexp":
        return bool(re.search(matcher["options"].strip("/"), name))
    return name == matcher["options"]


def _mapped(value: float, field: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for mapping in field.get("mappings", []):
        if mapping["type"] == "value" and (found := mapping["options"].get(f"{value:g}")):
            return dict(found)
        if mapping["type"] == "special" and mapping["options"]["match"] == "nan" and math.isnan(value):
            return dict(mapping["options"]["result"])
    return None


def _number(value: float, unit: str, decimals: int | None, now: float) -> str:
    if math.isnan(value):
        return "NaN"
    if unit == "dateTimeFromNow":
        return f"{timedelta(seconds=round(now - value / 1000))} ago"
    if unit == "percentunit":
        return f"{value * 100:.{1 if decimals is None else decimals}f}%"
    if unit == "s":
        scale, name = next(((s, n) for s, n in ((60, "min"), (1, "s"), (1e-3, "ms")) if abs(value) >= s), (1e-6, "µs"))
        return "0 s" if value == 0 else f"{_short(value / scale, decimals)} {name}"
    text = f"{value:,.0f}" if decimals == 0 else _short(value, decimals)
    return f"{text} req/s" if unit == "reqps" else text


def _short(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
