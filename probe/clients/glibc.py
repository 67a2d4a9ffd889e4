"""A name, a resolv.conf -> getaddrinfo's steps as glibc takes them.

Source: glibc 2.36 as Debian 12 has it, which is 2.40's, resolv/res_send.c (__res_context_send, send_dg, send_vc),
resolv/res_query.c (__res_context_query, __res_context_search), resolv/nss_dns/dns-host.c (_nss_dns_gethostbyname4_r),
sysdeps/posix/getaddrinfo.c (get_nss_addresses). Before 2.38 a SERVFAIL under single-request cost the whole timeout.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from random import Random

from probe.clients.libc import GLIBC, unanswered
from probe.clients.steps import FOREVER, Answer, Event, Hears, Query, Send, Socket, Steps, Wait
from probe.model import NS, Fate
from probe.outcome import REPLIED, Outcome
from probe.resolv import ResolvConf

_PASSED_OVER = (Outcome.SERVFAIL, Outcome.REFUSED)
"""Replies that are none to send_dg: it waits for the other one, and asks on."""
_CODES = {"TRY_AGAIN": "EAI_AGAIN", "NO_DATA": "EAI_NODATA"}
"""h_errno -> getaddrinfo's error; all else is EAI_NONAME."""


class Glibc:
    """One thread: that it has learnt to ask one query after the other stays with it (_res.options)."""

    def __init__(self, conf: ResolvConf) -> None:
        self.conf = conf
        self.reopens = "single-request-reopen" in conf.options
        self.serial = self.reopens or "single-request" in conf.options
        self._turn = Random(0).getrandbits(16)

    def lookup(self, name: str, at_ns: int) -> Steps[Answer]:
        """getaddrinfo(name, AF_UNSPEC)."""
        found = yield from _Search(self, at_ns).search(name)
        if isinstance(found, str):
            return unanswered(_CODES.get(found, "EAI_NONAME"), GLIBC)
        return Answer(Fate.FOUND, tuple(address for event in found for address in event.answers))

    def first_server(self) -> int:
        """nameserver_offset()."""
        self._turn += 1
        return self._turn % len(self.conf.nameservers) if "rotate" in self.conf.options else 0


@dataclass(slots=True)
class _Search:
    """A lookup on its way. servers: the open socket of each; heard: gotsomewhere; rcode: the first answer buffer's."""

    thread: Glibc
    now: int
    sockets: dict[int, Socket] = field(default_factory=dict)
    heard: bool = False
    circuit: bool = False
    errno: int = 0
    rcode: Outcome = Outcome.NODATA

    def search(self, name: str) -> Steps[list[Event] | str]:
        """__res_context_search(): the replies that have addresses, or h_errno."""
        conf, absolute = self.thread.conf, name.endswith(".")
        saved, nodata, servfail = "", False, False
        if absolute or name.count(".") >= conf.ndots:
            found = yield from self.query(name)
            if absolute or not isinstance(found, str):
                return found
            saved = found
        found = saved
        for suffix in conf.search:
            found = yield from self.query(f"{name}.{suffix}")
            if not isinstance(found, str):
                return found
            if self.errno == errno.ECONNREFUSED:
                return "TRY_AGAIN"
            nodata |= found == "NO_DATA"
            again = found == "TRY_AGAIN" and self.rcode is Outcome.SERVFAIL
            servfail |= again
            if not (again or found in ("NO_DATA", "HOST_NOT_FOUND")):
                break
        if not saved:
            found = yield from self.query(name)
            if not isinstance(found, str):
                return found
        return saved or (nodata and "NO_DATA") or (servfail and "TRY_AGAIN") or found

    def query(self, name: str) -> Steps[list[Event] | str]:
        """__res_context_query() of A and AAAA: the replies that have addresses, or h_errno."""
        self.rcode, self.errno = Outcome.NODATA, 0
        replies = yield from self._send((Query.of(name, "A"), Query.of(name, "AAAA")))
        if not replies:
            return "TRY_AGAIN"
        if found := [reply for reply in replies if reply.outcome is Outcome.ANSWER]:
            return found
        outcomes = [reply.outcome for reply in replies]
        said = next((outcome for outcome in outcomes if outcome is not Outcome.NODATA), Outcome.NODATA)
        told = {Outcome.NXDOMAIN: "HOST_NOT_FOUND", Outcome.SERVFAIL: "TRY_AGAIN", Outcome.NODATA: "NO_DATA"}
        return told.get(said, "NO_RECOVERY")

    def _send(self, queries: tuple[Query, Query]) -> Steps[list[Event]]:
        """__res_context_send(): none is a failure, whose errno stays."""
        conf, first = self.thread.conf, self.thread.first_server()
        self.circuit, self.heard = "use-vc" in conf.options, False
        count, attempt = len(conf.nameservers), 0
        while attempt < conf.attempts:
            for shift in range(count):
                server = (first + shift) % count
                replies: list[Event] = []
                if not self.circuit:
                    replies = yield from self._by_datagrams(queries, server)
                if self.circuit:
                    attempt = conf.attempts  # at most one of them for each server
                    replies = yield from self._by_stream(queries, server)
                if replies:
                    self.sockets.clear()
                    return replies
            attempt += 1
        self.sockets.clear()
        if not self.circuit:
            self.errno = errno.ETIMEDOUT if self.heard else errno.ECONNREFUSED
        return []

    def _by_datagrams(self, queries: tuple[Query, Query], server: int) -> Steps[list[Event]]:
        """send_dg(). After silence the socket stays open: the next attempt has its source port, too."""
        thread, count = self.thread, len(self.thread.conf.nameservers)
        seconds = max(1, (thread.conf.timeout << server) // (count if server else 1))
        heard = self.heard
        while True:
            replies = yield from self._round(queries, server, self.now + seconds * NS)
            if replies is None:
                return []
            good = [reply for reply in replies if reply.outcome not in _PASSED_OVER]
            if len(replies) == 2 or (replies and thread.reopens):
                return good
            if not good:
                self.heard = True
                return []
            # One was answered, one was not: from now on one after the other, then each from a port of its own.
            if thread.serial:
                thread.reopens = True
                self.sockets.clear()
            thread.serial, self.heard = True, heard

    def _round(self, queries: tuple[Query, Query], server: int, until: int) -> Steps[list[Event] | None]:
        """From `retry` to the deadline: what was replied, in the order of arrival; None: the socket is of no use."""
        serial, reopens = self.thread.serial, self.thread.reopens
        sock = self.sockets.setdefault(server, Socket(hears=Hears.ALL))
        sends = [Send(sock, server, query) for query in queries[: 1 if serial else 2]]
        replies: list[Event] = []
        while len(replies) < 2:
            event = yield Wait(until, sends)
            self.now, sends = event.at_ns, []
            if event.socket is None:
                break
            if event.socket is not sock or any(event.query is reply.query for reply in replies):
                continue
            self.heard |= event.outcome in REPLIED
            if event.outcome in REPLIED and not replies:
                self.rcode = event.outcome
            self.circuit = event.outcome is Outcome.TRUNCATED
            passed_over = event.outcome in _PASSED_OVER
            if event.outcome not in REPLIED or self.circuit or (passed_over and serial and not replies):
                self.sockets.clear()
                return None
            replies.append(event)
            if serial and len(replies) < 2:
                if reopens:
                    self.sockets.clear()
                    sock = self.sockets[server] = Socket(hears=Hears.ALL)
                sends = [Send(sock, server, queries[1])]
        return replies

    def _by_stream(self, queries: tuple[Query, Query], server: int) -> Steps[list[Event]]:
        """send_vc(): both at once on a connection; it waits as long as the kernel does, which is for ever once open."""
        resets = 0
        while True:
            sock = Socket("tcp")
            sends = [Send(sock, server, query) for query in queries]
            replies: list[Event] = []
            while len(replies) < 2:
                event = yield Wait(FOREVER, sends)
                self.now, sends = event.at_ns, []
                if event.socket is None:
                    return []
                if event.socket is not sock:
                    continue
                if event.outcome not in REPLIED:
                    break
                self.rcode = replies[0].outcome if replies else event.outcome
                replies.append(event)
            else:
                return replies
            self.errno = event.errno
            if event.errno != errno.ECONNRESET or resets:
                return []
            resets += 1
