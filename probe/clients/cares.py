"""A name, a resolv.conf -> the lookup that the real c-ares makes of it, which is what Node's dns.resolve and Envoy use.

c-ares keeps answers (ARES_QCACHE, since 1.31) and pycares has no switch for that: each lookup has a channel of its own.
So it has a port of its own, too, where Envoy's would stay the same.
"""

from __future__ import annotations

import asyncio
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiodns
import aiodns.error

from probe.clients.steps import Answer
from probe.model import Fate
from probe.resolv import ResolvConf

_CODES = {getattr(aiodns.error, word): word for word in aiodns.error.__all__ if word.startswith("ARES_")}
_NOT_FOUND = (aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_ENODATA)


class Cares:
    """An application over c-ares. servers: address and port, all of one port."""

    def __init__(self, conf: ResolvConf, servers: Sequence[tuple[str, int]]) -> None:
        port = servers[0][1]
        self._begun = False
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".conf", delete=False) as file:
            file.write("".join(f"nameserver {address}\n" for address, _ in servers))
            file.write(f"search {' '.join(conf.search)}\n" if conf.search else "")
            file.write(f"options ndots:{conf.ndots} timeout:{conf.timeout} attempts:{conf.attempts}\n")
        weakref.finalize(self, Path(file.name).unlink, missing_ok=True)
        # Its thread may read the file again as soon as it is made, and then has nothing but what is in there.
        self._options: dict[str, Any] = {
            "servers": [f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address, _ in servers],
            "udp_port": port,
            "tcp_port": port,
            "domains": list(conf.search) or None,
            "ndots": conf.ndots,
            "timeout": float(conf.timeout),
            "tries": conf.attempts,
            "rotate": "rotate" in conf.options,
            "lookups": "b",
            "resolvconf_path": file.name,
        }

    def _channel(self) -> aiodns.DNSResolver:
        return aiodns.DNSResolver(loop=asyncio.get_running_loop(), **self._options)

    async def lookup(self, name: str) -> Answer:
        """ares_getaddrinfo(name, AF_UNSPEC)."""
        if not self._begun:
            # The first channel of a process that has a search list asks nobody and says ECONNREFUSED (1.34.9).
            self._begun = True
            await self._channel().close()
        resolver = self._channel()
        try:
            found = await resolver.getaddrinfo(name)
        except aiodns.error.DNSError as problem:
            number, text = problem.args
            fate = Fate.NOT_FOUND if number in _NOT_FOUND else Fate.FAILED
            return Answer(fate, code=_CODES[number], error=text)
        finally:
            await resolver.close()
        return Answer(Fate.FOUND, tuple(sorted(str(node.addr[0], "ascii") for node in found.nodes)))
