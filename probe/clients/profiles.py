"""A profile's name, a resolv.conf -> the client that looks names up in that way."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from probe.clients.cares import Cares
from probe.clients.channel import Channel
from probe.clients.glibc import Glibc
from probe.clients.go import Go
from probe.clients.java import NEGATIVE_NS, Java
from probe.clients.musl import Musl
from probe.clients.node import Node
from probe.clients.sockets import Server, walk
from probe.clients.steps import Answer, Client, Steps
from probe.resolv import ResolvConf


@dataclass(frozen=True, slots=True)
class Profile:
    """client: an application's process under a resolv.conf, its nameservers at some port.

    help: what is special; source: where it is written. real: it is there itself: a run's lookups are its own, and the
    emulated ones say beforehand what they will feel.
    keeps_ns: how long it says again that a name failed, without asking.
    """

    client: Callable[[ResolvConf, int], Client]
    help: str
    source: str
    real: Callable[[ResolvConf, Sequence[Server]], Cares] | None = None
    keeps_ns: int = 0

    def looks_up(self, conf: ResolvConf, servers: Sequence[Server]) -> Callable[[str], Awaitable[Answer]]:
        """A process that asks these servers, in conf's order, with real sockets: what its lookup of a name comes to."""
        if self.real:
            return self.real(conf, servers).lookup
        client = self.client(conf, servers[0][1])
        return lambda name: walk(client.lookup(name, time.monotonic_ns()), servers)


class _Threads:
    """A process that looks each name up in a thread that has nothing else to do."""

    def __init__(self, thread: Callable[[], Client]) -> None:
        self._thread = thread
        self._idle: list[Client] = []

    def lookup(self, name: str, at_ns: int) -> Steps[Answer]:
        thread = self._idle.pop() if self._idle else self._thread()
        answer = yield from thread.lookup(name, at_ns)
        self._idle.append(thread)
        return answer


def _with(conf: ResolvConf, *options: str, timeout: int = 0, attempts: int = 0) -> ResolvConf:
    return replace(
        conf,
        options=(*conf.options, *options),
        timeout=timeout or conf.timeout,
        attempts=attempts or conf.attempts,
    )


def _glibc(*options: str, timeout: int = 0, attempts: int = 0) -> Callable[[ResolvConf, int], Client]:
    return lambda conf, _: _Threads(lambda: Glibc(_with(conf, *options, timeout=timeout, attempts=attempts)))


_RES_SEND = "glibc resolv/res_send.c send_dg()"
CLIENTS: dict[str, Profile] = {
    "glibc": Profile(_glibc(), "A and AAAA from one port; both attempts from the same one", _RES_SEND),
    "glibc-single-request": Profile(_glibc("single-request"), "AAAA only after A's reply", _RES_SEND),
    "glibc-single-request-reopen": Profile(
        _glibc("single-request-reopen"), "AAAA after A's reply, from a port of its own", _RES_SEND
    ),
    "glibc-use-vc": Profile(_glibc("use-vc"), "TCP, a connection for each name", "glibc resolv/res_send.c send_vc()"),
    "glibc-rotate": Profile(_glibc("rotate"), "nameservers in turn", "glibc resolv/res_send.c nameserver_offset()"),
    "glibc-ack": Profile(
        _glibc("rotate", "single-request-reopen", timeout=2, attempts=3),
        "`timeout:2 attempts:3 rotate single-request-reopen`, as ACK's guide advises",
        "ACK: troubleshoot DNS resolution",
    ),
    "musl": Profile(
        lambda conf, _: Musl(conf),
        "all nameservers at once; never hears a refusal",
        "musl src/network/res_msend.c (1.2.5)",
    ),
    "musl-1.2.3": Profile(
        lambda conf, _: Musl(conf, tcp=False), "before 1.2.4: no TCP", "musl src/network/res_msend.c (1.2.3)"
    ),
    "go": Profile(Go, "a new port for each attempt and type", "Go src/net/dnsclient_unix.go tryOneName()"),
    "node": Profile(
        lambda conf, port: Node(_glibc()(conf, port)), "glibc, told as Node.js does", "Node.js lib/internal/errors.js"
    ),
    "c-ares": Profile(
        lambda conf, _: Channel(conf), "c-ares itself, a channel for each lookup", "c-ares by aiodns", Cares
    ),
    "java": Profile(
        lambda conf, port: Java(_glibc()(conf, port)),
        "glibc; a name is kept for 30 s, that it failed for 10 s",
        "JDK java.net.InetAddress, java.security",
        keeps_ns=NEGATIVE_NS,
    ),
}
