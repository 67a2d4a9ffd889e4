"""An upstream DNS server for the lab: address, port, mode -> every name outside the cluster by UDP and TCP, or not.

The mode in force is a line on standard output, the first one as soon as it listens. A line on standard input is the
next mode; one that cannot be is answered by `error: ...`. It ends with its input, or at SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from probe.cluster.serving import (
    RECURSIVE,
    Close,
    Found,
    Send,
    addresses,
    denied,
    is_query,
    reply_to,
    serve_tcp,
    serve_udp,
)
from probe.cluster.zone import DOMAIN
from probe.errors import UsageError

_A, _AAAA = 1, 28
_SERVFAIL, _NXDOMAIN, _REFUSED = 2, 3, 5
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(ms|s)")

Find = Callable[[str, int], Found]


@dataclass(frozen=True, slots=True)
class Mode:
    """How it answers. find: name, type -> what it says, None for never; delay: seconds from a query to its reply."""

    find: Find | None
    delay: float = 0.0
    udp: bool = True
    tcp: bool = True


def mode_of(text: str) -> Mode:
    """A name of MODES, `slow` with its duration; UsageError names what there is."""
    word, _, given = text.partition(":")
    duration = _DURATION.fullmatch(given)
    if word in MODES and not given and word != "slow":
        return MODES[word]
    if word == "slow" and duration:
        return replace(MODES[word], delay=float(duration[1]) / (1000 if duration[2] == "ms" else 1))
    raise UsageError(f"upstream mode {text!r}: say {', '.join(MODES)}; slow takes a duration: slow:1500ms")


def find(name: str, qtype: int) -> Found:
    """Addresses that follow from the name, of 192.0.2.0/24 (RFC 5737) and 2001:db8::/32 (RFC 3849)."""
    if name == DOMAIN or name.endswith("." + DOMAIN):
        return denied(_NXDOMAIN, "")
    number = zlib.crc32(name.encode("latin-1"))
    if qtype == _A:
        return addresses(qtype, [bytes([192, 0, 2, 1 + number % 254])])
    if qtype == _AAAA:
        return addresses(qtype, [b"\x20\x01\x0d\xb8" + bytes(8) + number.to_bytes(4)])
    return denied(0, "")


def _always(found: Found) -> Find:
    return lambda _name, _qtype: found


class Upstream:
    """The server, in one mode at a time; in none before the first turn."""

    def __init__(self, address: str, port: int) -> None:
        self._where = address, port
        self._mode = MODES["closed"]
        self._udp: Close | None = None
        self._tcp: Close | None = None

    async def turn(self, mode: Mode) -> None:
        """Go by this mode from now on; replies on their way go by the old one. OSError, and no change, if it cannot."""
        try:
            if mode.udp and not self._udp:
                self._udp = serve_udp(*self._where, self._answer)
            if mode.tcp and not self._tcp:
                self._tcp = await serve_tcp(*self._where, self._answer)
            self._mode = mode
        finally:
            if self._udp and not self._mode.udp:
                self._udp()
                self._udp = None
            if self._tcp and not self._mode.tcp:
                self._tcp()
                self._tcp = None

    def _answer(self, query: bytes, proto: str, send: Send) -> None:
        if not self._mode.find or not is_query(query):
            return
        reply = query[:2] + reply_to(query, proto, self._mode.find, RECURSIVE).rest
        if self._mode.delay:
            asyncio.get_running_loop().call_later(self._mode.delay, send, reply)
        else:
            send(reply)


async def serve(address: str, port: int, first: str) -> None:
    """Serve until the input ends, or SIGTERM. UsageError for the mode, OSError if it cannot be listened."""
    loop, upstream, lines = asyncio.get_running_loop(), Upstream(address, port), asyncio.StreamReader()
    await upstream.turn(mode_of(first))
    loop.add_signal_handler(signal.SIGTERM, lines.feed_eof)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    _say(first)
    while line := (await lines.readline()).decode(errors="replace"):
        try:
            await upstream.turn(mode_of(line.strip()))
        except UsageError as problem:
            _say(f"error: {problem}")
        except OSError as problem:
            _say(f"error: listen {address}: {problem.strerror}")
        else:
            _say(line.strip())


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """`python -m probe.cluster.upstream ADDRESS PORT MODE`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("mode")
    given = parser.parse_args()
    try:
        asyncio.run(serve(given.address, given.port, given.mode))
    except UsageError as problem:
        parser.error(str(problem))
    except OSError as problem:
        raise SystemExit(f"listen {given.address}: {problem.strerror}") from None


MODES: dict[str, Mode] = {
    "answering": Mode(find),
    "slow": Mode(find),
    "silent": Mode(None),
    "refusing": Mode(_always(Found(_REFUSED))),
    "closed": Mode(None, udp=False, tcp=False),
    "udp_only": Mode(find, tcp=False),
    "nxdomain": Mode(_always(denied(_NXDOMAIN, ""))),
    "servfail": Mode(_always(Found(_SERVFAIL))),
}
"""What it can be told to be. `slow` is said with its delay: slow:1500ms."""

if __name__ == "__main__":
    main()
