"""Text as people type it -> nanoseconds, rates, numbers and addresses, or a UsageError that says what is allowed."""

from __future__ import annotations

import ipaddress
import re
from fractions import Fraction

from probe.errors import UsageError
from probe.model import NS

_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": NS, "m": 60 * NS, "h": 3600 * NS}
_PART = r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ns|us|ms|s|m|h)"
DAY_NS = 24 * 3600 * NS
LEAST_TIMEOUT_NS, MOST_TIMEOUT_NS = NS // 1000, 60 * NS
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
MAX_RATE = 1_000_000
"""Queries a second of one lane: above what one machine can send."""


def duration_ns(text: str, least: int = 0, most: int = DAY_NS) -> int:
    """`30s`, `500ms`, `1m30s`, or plain seconds -> ns, at least `least` and at most `most`."""
    with_unit = text.strip()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", with_unit):
        with_unit += "s"
    if not re.fullmatch(f"({_PART})+", with_unit):
        raise UsageError(f"{text!r}: a duration is like 500ms, 30s, 1m30s, or plain seconds")
    total = sum(int(Fraction(number) * _UNITS[unit]) for number, unit in re.findall(_PART, with_unit))
    if not least <= total <= most:
        raise UsageError(f"{text!r}: a duration from {_typed(least)} to {_typed(most)} is allowed here")
    return total


def _typed(nanoseconds: int) -> str:
    """As people type it: `500ms`, `90s`, `168h`."""
    unit = max((u for u in _UNITS if nanoseconds % _UNITS[u] == 0), key=lambda u: _UNITS[u])
    return f"{nanoseconds // _UNITS[unit]}{unit}" if nanoseconds else "0s"


def rate_of(text: str) -> Fraction:
    """Queries a second: above 0, in thousandths."""
    allowed = f"a rate is a number of queries a second from 0.001 to {MAX_RATE:,}"
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text.strip()):
        raise UsageError(f"{text!r}: {allowed}")
    rate = Fraction(text.strip()).limit_denominator(1000)
    if not 0 < rate <= MAX_RATE:
        raise UsageError(f"{text!r}: {allowed}")
    return rate


def whole(text: str, least: int, most: int, what: str) -> int:
    """A whole number from `least` to `most`; `what` names it in the error."""
    if re.fullmatch(r"[0-9]{1,12}", text.strip()) and least <= int(text) <= most:
        return int(text)
    raise UsageError(f"{text!r}: {what} is a whole number from {least} to {most}")


def address_of(text: str) -> str:
    """The IP address of one host; `localhost` is 127.0.0.1; UsageError for a host name, a port, and many hosts."""
    bare = text.strip().removeprefix("[").removesuffix("]")
    if bare == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        if with_port := re.fullmatch(r"(\[.*\]|[^:]*):([0-9]+)", text.strip()):
            said = f"the port goes to -p {with_port[2]}, in a scenario to port: {with_port[2]}"
            raise UsageError(f"{text!r}: not an IP address: {said}") from None
        raise UsageError(
            f"{text!r}: not an IP address; a server is given by address, for finding it by name is what is being tested"
        ) from None
    if address.is_multicast or address.is_unspecified or address == _BROADCAST:
        raise UsageError(f"{text!r}: not the address of one host; queries go to one server, from one that can answer")
    return str(address)


def port_of(text: str) -> int:
    """A port number, 1 to 65535."""
    return whole(text, 1, 65535, "a port")


def timeout_of(text: str) -> int:
    """How long a query stays open, in ns: 1 ms to 60 s."""
    return duration_ns(text, LEAST_TIMEOUT_NS, MOST_TIMEOUT_NS)


def seconds_text(ns: int) -> str:
    """`2 s`, `0.5 s`: for messages."""
    return f"{ns / NS:.9f}".rstrip("0").rstrip(".") + " s"


def rate_text(rate: Fraction) -> str:
    """`100 q/s`, `33.333 q/s`."""
    return f"{float(rate):,.3f}".rstrip("0").rstrip(".") + " q/s"
