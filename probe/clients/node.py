"""A libc's lookups -> dns.lookup()'s of Node.js, which net and http use: getaddrinfo, told in words of its own.

Source: Node.js 20, lib/dns.js (lookup), lib/internal/errors.js (DNSException). That libuv lets two of its four threads
wait for names (deps/uv/src/threadpool.c, slow_work_thread_threshold), so that others wait for these, is not in here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from probe.clients.steps import Answer, Client, Steps
from probe.model import Fate


@dataclass(frozen=True, slots=True)
class Node:
    """One process over a libc."""

    libc: Client

    def lookup(self, name: str, at_ns: int) -> Steps[Answer]:
        """dns.lookup(name)."""
        answer = yield from self.libc.lookup(name, at_ns)
        if answer.fate is Fate.FOUND:
            return answer
        code = "ENOTFOUND" if answer.code in ("EAI_NONAME", "EAI_NODATA") else answer.code
        return replace(answer, code=code, error=f"getaddrinfo {code} {name}")
