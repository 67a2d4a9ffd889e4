"""A name, a resolv.conf -> net.LookupHost's steps as Go's own resolver takes them (CGO_ENABLED=0, or a static binary).

Source: Go 1.26, src/net/dnsclient_unix.go (goLookupIPCNAMEOrder, tryOneName, exchange, checkHeader, nameList),
src/net/dnsconfig.go (serverOffset), src/net/net.go (DNSError, OpError).
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from probe.clients.steps import Answer, Event, Query, Send, Socket, Steps, Wait, side_by_side
from probe.model import NS, Edns, Fate
from probe.outcome import REPLIED, Outcome
from probe.resolv import ResolvConf

_NO_SUCH_HOST = "no such host"
_EDNS = Edns(1232)


@dataclass(frozen=True, slots=True)
class _End:
    """Of one type of one name: addresses, or why there are none, and who said so last."""

    at_ns: int
    addresses: tuple[str, ...] = ()
    server: int = 0
    why: str = ""


class Go:
    """One process, which takes its nameservers in turn if resolv.conf says rotate."""

    def __init__(self, conf: ResolvConf, port: int = 53) -> None:
        self.conf = conf
        self._turn = -1
        self._servers = [f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip in conf.nameservers]

    def lookup(self, name: str, at_ns: int) -> Steps[Answer]:
        """A and AAAA of each name of the search list, until one has addresses."""
        conf, now = self.conf, at_ns
        last = _End(now, why=_NO_SUCH_HOST)
        serial = "single-request" in conf.options or "single-request-reopen" in conf.options
        for k, full in enumerate(conf.names(name)):
            ends = []
            if serial:
                for qtype in ("A", "AAAA"):
                    end = yield from self._try_one(full, qtype, now)
                    now = end.at_ns
                    ends.append(end)
            else:
                ends = yield from side_by_side([self._try_one(full, qtype, now) for qtype in ("A", "AAAA")])
                now = max(end.at_ns for end in ends)
            if addresses := tuple(address for end in ends for address in end.addresses):
                return Answer(Fate.FOUND, addresses)
            # The error of the name as it was given is preferred, else the first.
            last = ends[-1] if full.rstrip(".") == name.rstrip(".") else last if k else ends[0]
        fate = Fate.NOT_FOUND if last.why == _NO_SUCH_HOST else Fate.FAILED
        text = f"lookup {name} on {self._servers[last.server]}: {last.why}"
        return Answer(fate, code=last.why.rpartition(": ")[2], error=text)

    def _first_server(self) -> int:
        """serverOffset()."""
        self._turn += "rotate" in self.conf.options
        return max(0, self._turn)

    def _try_one(self, name: str, qtype: str, now: int) -> Steps[_End]:
        """tryOneName()."""
        first, count = self._first_server(), len(self.conf.nameservers)
        last = _End(now)
        for attempt in range(self.conf.attempts * count):
            server = (first + attempt) % count
            event, sock = yield from self._exchange(Query.of(name, qtype, _EDNS), server, now)
            now = event.at_ns
            if event.outcome is Outcome.ANSWER:
                return _End(now, event.answers, server)
            if event.outcome in (Outcome.NXDOMAIN, Outcome.NODATA, Outcome.TRUNCATED):
                return _End(now, (), server, _NO_SUCH_HOST)
            last = _End(now, (), server, self._why(event, sock, server))
        return last

    def _exchange(self, query: Query, server: int, now: int) -> Steps[tuple[Event, Socket]]:
        """exchange(): a new socket for each; after a truncated answer one by TCP, with a timeout of its own."""
        tcp = {"use-vc", "usevc", "tcp"}.intersection(self.conf.options)
        while True:
            sock = Socket("tcp" if tcp else "udp")
            event = yield Wait(now + self.conf.timeout * NS, [Send(sock, server, query)])
            now = event.at_ns
            if event.outcome is not Outcome.TRUNCATED or tcp:
                return event, sock
            tcp = {"tcp"}

    def _why(self, event: Event, sock: Socket, server: int) -> str:
        """As OpError and the resolver's own errors are printed."""
        if event.outcome in REPLIED:
            return "cannot unmarshal DNS message" if event.outcome is Outcome.MALFORMED else "server misbehaving"
        if event.outcome is Outcome.CONNECTION_LOST and not event.errno:
            return "EOF"
        where = f"{sock.local}->{self._servers[server]}" if sock.local else self._servers[server]
        operation = ("write" if event.errno == errno.EPERM else "read") if sock.local else "dial"
        call = operation if sock.local else "connect"
        if event.outcome is Outcome.TIMEOUT and event.errno != errno.ETIMEDOUT:
            return f"{operation} {sock.transport} {where}: i/o timeout"
        said = os.strerror(event.errno or errno.ECONNREFUSED).lower()
        return f"{operation} {sock.transport} {where}: {call}: {said}"
