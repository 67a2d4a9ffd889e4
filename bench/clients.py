"""The two asyncio clients people know, for scale: names that were never asked before in, how many were answered out.

    python -m bench.clients aiodns|dnspython PORT SECONDS

So many coroutines ask one after the other. c-ares answers from a cache that pycares cannot switch off, so each name is
asked once (a wildcard answers them): every lookup is a datagram.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator

import aiodns
import dns.asyncquery
import dns.exception
import dns.message

from bench.load import WILD

WINDOW = 64
TIMEOUT = 2.0

Ask = Callable[[str], Awaitable[bool]]


def by_aiodns(port: int) -> Ask:
    """One resolver: the fastest way, which is safe only for names that are new."""
    resolver = aiodns.DNSResolver(["127.0.0.1"], udp_port=port, tcp_port=port, timeout=TIMEOUT, tries=1)

    async def ask(name: str) -> bool:
        try:
            return bool((await resolver.query_dns(name, "A")).answer)
        except aiodns.error.DNSError:
            return False

    return ask


def by_dnspython(port: int) -> Ask:
    """A message built, sent from a socket of its own, and its reply parsed, as dns.asyncquery.udp() does it."""

    async def ask(name: str) -> bool:
        query = dns.message.make_query(name, "A")
        try:
            return bool((await dns.asyncquery.udp(query, "127.0.0.1", timeout=TIMEOUT, port=port)).answer)
        except dns.exception.DNSException:
            return False

    return ask


async def asked(ask: Ask, seconds: float) -> dict[str, float]:
    """WINDOW coroutines ask until the time is over; what they sent and what was answered."""
    counts = {"sent": 0, "answered": 0}
    names: Iterator[str] = (f"n{i}.{WILD}" for i in itertools.count())
    end = time.monotonic() + seconds

    async def one_after_the_other() -> None:
        while time.monotonic() < end:
            counts["sent"] += 1
            answered = await ask(next(names))
            counts["answered"] += answered

    await asyncio.gather(*(one_after_the_other() for _ in range(WINDOW)))
    return {**counts, "seconds": seconds}


async def _main() -> None:
    name, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    sys.stdout.write(json.dumps(await asked(CLIENTS[name](port), seconds)) + "\n")


CLIENTS: dict[str, Callable[[int], Ask]] = {"aiodns": by_aiodns, "dnspython": by_dnspython}

if __name__ == "__main__":
    asyncio.run(_main())
