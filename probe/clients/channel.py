"""A name, a resolv.conf -> the steps that c-ares takes in a channel of its own: what the real one's lookups will feel.

Source: c-ares 1.34, src/lib/ares_getaddrinfo.c (next_dns_lookup, host_callback, terminate_retries), ares_process.c
(ares_send_query_int, ares_requeue_query, ares_calc_query_timeout, process_answer, process_timeouts,
handle_conn_error), ares_metrics.c (ares_metrics_server_timeout), ares_init.c (server_sort_cb). Left out: from 5 s
after a server failed, one in ten queries goes there, too (ares_probe_failed_server).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from probe.clients.steps import Answer, Event, Query, Send, Socket, Steps, Wait
from probe.model import NS, Edns, Fate
from probe.outcome import REPLIED, Outcome
from probe.resolv import ResolvConf

WORDS = {
    "ENODATA": "DNS server returned answer with no data",
    "ENOTFOUND": "Domain name not found",
    "ESERVFAIL": "DNS server returned general failure",
    "EREFUSED": "DNS server refused query",
    "ENOTIMP": "DNS server does not implement requested operation",
    "ECONNREFUSED": "Could not contact DNS servers",
    "ETIMEOUT": "Timeout while contacting DNS servers",
}
"""src/lib/ares_strerror.c."""
NOT_FOUND = ("ENODATA", "ENOTFOUND")
_ENDS = {Outcome.ANSWER: "", Outcome.NODATA: "ENODATA", Outcome.NXDOMAIN: "ENOTFOUND"}
_FAILURES = {Outcome.SERVFAIL: "ESERVFAIL", Outcome.REFUSED: "EREFUSED"}
_EDNS = Edns(1232)
_LEAST_NS, _MOST_NS = NS // 4, 5 * NS
"""Bounds of a timeout that is worked out (MIN_TIMEOUT_MS, MAX_TIMEOUT_MS)."""
_ENOUGH, _TIMES = 3, 5
"""From so many answers on, it is that many times their mean."""


class Channel:
    """An application over c-ares that makes a channel for each lookup."""

    def __init__(self, conf: ResolvConf) -> None:
        self._conf, self._rng = conf, Random(0)

    def lookup(self, name: str, at_ns: int) -> Steps[Answer]:
        """ares_getaddrinfo(name, AF_UNSPEC), by all names of the search list until one says something."""
        asking, nodata, code = _Asking(self._conf, self._rng, at_ns), False, ""
        for full in self._conf.names(name):
            ends = yield from asking.ask([Query.of(full, qtype, _EDNS) for qtype in ("A", "AAAA")])
            if addresses := tuple(address for end in ends if end.reply for address in end.reply.answers):
                return Answer(Fate.FOUND, addresses)
            code = ends[-1].code
            nodata |= code == "ENODATA"
            if code not in NOT_FOUND and ("." in full.rstrip(".") or code not in _FAILURES.values()):
                break
            code = "ENODATA" if nodata else code
        return Answer(Fate.NOT_FOUND if code in NOT_FOUND else Fate.FAILED, code=code, error=WORDS[code])


@dataclass(slots=True)
class _Server:
    """failures: in a row; failed_ns: when the last was; answers, total_ns: those that set its timeout."""

    failures: int = 0
    failed_ns: int = 0
    answers: int = 0
    total_ns: int = 0
    udp: Socket | None = None
    tcp: Socket | None = None


@dataclass(slots=True)
class _Asked:
    """A query on its way. tries: how often it has failed so far."""

    tries: int = 0
    tcp: bool = False
    last: bool = False
    server: int = 0
    socket: Socket | None = None
    sent_ns: int = 0
    until_ns: int = 0


@dataclass(frozen=True, slots=True)
class _End:
    """Why there is no answer, '' for one, and the last reply."""

    code: str
    reply: Event | None = None


@dataclass(slots=True)
class _Asking:
    """What a channel knows of its servers, and its queries that have not ended."""

    conf: ResolvConf
    rng: Random
    now: int
    _servers: list[_Server] = field(default_factory=list)
    _asked: dict[Query, _Asked] = field(default_factory=dict)
    _sends: list[Send] = field(default_factory=list)
    _ends: list[_End] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._servers = [_Server() for _ in self.conf.nameservers]

    def ask(self, queries: Sequence[Query]) -> Steps[list[_End]]:
        """All at once; their ends in the order in which they come."""
        self._ends = []
        for query in queries:
            self._asked[query] = _Asked()
            self._send(query)
            self.now += 1  # each ares_query() reads the clock, while those that are sent again share its time
        while self._asked:
            sends, self._sends = self._sends, []
            event = yield Wait(min(asked.until_ns for asked in self._asked.values()), sends)
            self.now = event.at_ns
            if event.socket is None:
                self._late()
            elif event.outcome not in REPLIED:
                self._broken(event.socket)
            elif event.query in self._asked and self._asked[event.query].socket is event.socket:
                self._replied(event.query, event)
        return self._ends

    def _send(self, query: Query) -> None:
        """ares_send_query_int(). Queries stay in the order in which they were sent last."""
        asked = self._asked[query] = self._asked.pop(query)
        server = min(self._servers, key=lambda server: (server.failures, server.failed_ns))
        if "rotate" in self.conf.options:
            server = self.rng.choice([other for other in self._servers if other.failures == server.failures])
        asked.server = next(n for n, other in enumerate(self._servers) if other is server)
        if asked.tcp:
            asked.socket = server.tcp = server.tcp or Socket("tcp")
        else:
            asked.socket = server.udp = server.udp or Socket(insists=False)
        asked.sent_ns, asked.until_ns = self.now, self.now + self._patience_ns(asked)
        self._sends.append(Send(asked.socket, asked.server, query))

    def _patience_ns(self, asked: _Asked) -> int:
        """ares_calc_query_timeout(): twice as long with each round, less up to a half of it, drawn."""
        server = self._servers[asked.server]
        mean_ns = server.total_ns // server.answers if server.answers >= _ENOUGH else 0
        timeout_ns = min(max(_TIMES * mean_ns or self.conf.timeout * NS, _LEAST_NS), _MOST_NS)
        rounds = asked.tries // len(self._servers)
        drawn_ns = int((timeout_ns << rounds) * (1 - self.rng.random() / 2 * (rounds > 0)))
        return max(drawn_ns, timeout_ns)

    def _failed(self, server: int) -> None:
        """server_increment_failures()."""
        self._servers[server].failures += 1
        self._servers[server].failed_ns = self.now

    def _again(self, query: Query, code: str, reply: Event | None = None) -> None:
        """ares_requeue_query()."""
        asked = self._asked[query]
        asked.tries += 1
        if asked.tries < len(self._servers) * self.conf.attempts and not asked.last:
            self._send(query)
        else:
            self._end(query, _End(code, reply))

    def _end(self, query: Query, end: _End) -> None:
        """host_callback(): once there are IPv4 addresses, the other query is not asked again."""
        del self._asked[query]
        self._ends.append(end)
        if not end.code and query.question.qtype == "A":
            for other in self._asked.values():
                other.last = True

    def _late(self) -> None:
        """process_timeouts(): what is asked again has another port."""
        late = [(query, asked) for query, asked in reversed(self._asked.items()) if asked.until_ns <= self.now]
        late.sort(key=lambda each: each[1].until_ns)
        for _, asked in late:
            self._failed(asked.server)
            self._leave(asked.server, asked.socket)
        for query, _ in late:
            self._again(query, "ETIMEOUT")

    def _leave(self, server: int, socket: Socket | None) -> None:
        """Nothing new is asked from there."""
        of = self._servers[server]
        of.udp, of.tcp = (None if each is socket else each for each in (of.udp, of.tcp))

    def _broken(self, socket: Socket) -> None:
        """handle_conn_error()."""
        mine = [query for query, asked in self._asked.items() if asked.socket is socket]
        if not mine:
            return
        server = self._asked[mine[0]].server
        self._failed(server)
        self._leave(server, socket)
        for query in mine:
            self._again(query, "ECONNREFUSED")

    def _replied(self, query: Query, event: Event) -> None:
        """process_answer()."""
        asked = self._asked[query]
        server = self._servers[asked.server]
        if event.outcome is Outcome.TRUNCATED and not asked.tcp:
            asked.tcp = True
            self._send(query)
        elif event.outcome in _FAILURES:
            self._failed(asked.server)
            self._again(query, _FAILURES[event.outcome], event)
        else:
            server.failures = server.failed_ns = 0
            server.answers += 1
            server.total_ns += self.now - asked.sent_ns
            code = _ENDS.get(event.outcome, "ENODATA")
            self._end(query, _End(code, event))
