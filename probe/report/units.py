"""Numbers, instants and foreign text -> what people read: the one place that formats them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from probe.model import NS

TEXT = 160
"""Characters of a name, or of what a tooltip says."""

Number = TypeVar("Number", int, float)


def count(n: int) -> str:
    """12,345."""
    return f"{n:,}"


def between(least: Number, most: Number, text: Callable[[Number], str]) -> str:
    """A range, `120 to 155`; one number where it reads the same, or where least is nan: not known."""
    low, high = text(least), text(most)
    return high if low == high or math.isnan(least) else f"{low} to {high}"


def share(fraction: float) -> str:
    """A percentage that never says 0 % or 100 % of anything in between; `-` for nan."""
    if math.isnan(fraction):
        return "-"
    percent = fraction * 100
    if percent in (0, 100):
        return f"{percent:.0f} %"
    text = f"{percent:.3g}" if percent < 99.5 else f"{math.floor(percent * 1000) / 1000:.3f}"
    return f"{text} %" if percent >= 0.001 else "<0.001 %"


def duration(ns: float) -> str:
    """Three digits and a unit: 850 us, 1.02 ms, 3.000 s; `never` for infinite, `-` for nan."""
    if math.isnan(ns):
        return "-"
    if math.isinf(ns):
        return "never"
    if ns >= NS:
        return f"{ns / NS:.3f} s"
    if ns == 0:
        return "0 s"
    for unit, size in (("ms", 10**6), ("us", 10**3)):
        if ns >= size * (1 - 1e-9):
            value = ns / size
            return f"{value:.0f} {unit}" if value >= 100 or value == int(value) else f"{value:.3g} {unit}"
    return f"{ns:.0f} ns"


def seconds(ns: int) -> str:
    """A length on the timeline, to the millisecond: 3.000 s; finer below one: 0.85 ms."""
    return f"{ns / NS:.3f} s" if ns >= 10**6 else duration(ns)


def since_start(ns: int) -> str:
    """An instant of the run: +2.345 s."""
    return f"{ns / NS:+.3f} s"


def clock(unix_ns: int) -> str:
    """Time of day, UTC, to the millisecond: 14:13:22.345."""
    whole, rest = divmod(unix_ns, NS)
    return f"{datetime.fromtimestamp(whole, UTC):%H:%M:%S}.{rest // 10**6:03d}"


def date(unix_ns: int) -> str:
    """Day and time, UTC, to the second: 2026-09-21 14:13:20 UTC."""
    return f"{datetime.fromtimestamp(unix_ns // NS, UTC):%Y-%m-%d %H:%M:%S} UTC"


def rfc3339(unix_ns: int) -> str:
    """RFC 3339 with nanoseconds: 2026-09-21T14:13:20.000000000Z."""
    whole, rest = divmod(unix_ns, NS)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def moment(unix_ns: int) -> str:
    """RFC 3339 with milliseconds: 2026-09-21T14:13:20.000Z."""
    whole, rest = divmod(unix_ns, NS)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 10**6:03d}Z"


def plain(text: str) -> str:
    """Text from the network or a file, safe on a terminal: control and invisible characters escaped, on one line."""
    return "".join(c if c == " " or unicodedata.category(c)[0] not in "CZ" else _escaped(c) for c in text)


def short(text: str, most: int = TEXT) -> str:
    """Text from the network or a file: plain, and not longer than that."""
    shown = plain(text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def bounded(text: str, most: int) -> str:
    """Of a text that is longer the middle is left out."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
