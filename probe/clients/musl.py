"""A name, a resolv.conf -> getaddrinfo's steps as musl takes them.

Source: musl 1.2.5, src/network/res_msend.c (__res_msend_rc), src/network/lookup_name.c (name_from_dns,
name_from_dns_search); 1.2.3 for what was before TCP.
"""

from __future__ import annotations

from dataclasses import dataclass

from probe.clients.libc import MUSL, unanswered
from probe.clients.steps import Answer, Event, Hears, Query, Send, Socket, Steps, Wait
from probe.model import NS, Fate
from probe.outcome import REPLIED, Outcome
from probe.resolv import ResolvConf

_ACCEPTED = (Outcome.ANSWER, Outcome.NODATA, Outcome.NXDOMAIN)


@dataclass(frozen=True, slots=True)
class Musl:
    """It keeps nothing. tcp: a truncated answer is asked for again by TCP (since 1.2.4), else it is taken as it is."""

    conf: ResolvConf
    tcp: bool = True

    def lookup(self, name: str, at_ns: int) -> Steps[Answer]:
        """name_from_dns_search(): few dots bring the search list, which ends where no server says."""
        conf, now = self.conf, at_ns
        whole = name.endswith(".") or name.count(".") >= conf.ndots
        for full in [name] if whole else conf.names(name):
            queries = (Query.of(full, "A"), Query.of(full, "AAAA"))
            replies, now = yield from self._send(queries, now)
            for query in queries:
                if query not in replies:
                    return unanswered("EAI_AGAIN", MUSL)
                if replies[query].outcome is Outcome.NXDOMAIN:
                    break
            else:
                addresses = tuple(address for query in queries for address in replies[query].answers)
                if addresses:
                    return Answer(Fate.FOUND, addresses)
                return unanswered("EAI_NODATA" if self.tcp else "EAI_NONAME", MUSL)
        return unanswered("EAI_NONAME", MUSL)

    def _send(self, queries: tuple[Query, Query], now: int) -> Steps[tuple[dict[Query, Event], int]]:
        """__res_msend_rc(): everyone is asked at once, from one port, again and again; what was accepted, and when."""
        conf = self.conf
        # It counts in whole ms, so that a deadline is over when one more has begun.
        interval = conf.timeout * 1000 // conf.attempts * NS // 1000
        end, sock = now + conf.timeout * NS, Socket(hears=Hears.NOTHING)
        accepted: dict[Query, Event] = {}
        streams: dict[Query, Socket] = {}
        again, resends, sends = now, 0, list[Send]()
        while now < end and len(accepted) < len(queries):
            if now >= again:
                asked = [query for query in queries if query not in accepted and query not in streams]
                sends += [Send(sock, n, query) for query in asked for n in range(len(conf.nameservers))]
                again, resends = now + interval, 2 * len(queries)
            event = yield Wait(min(again, end), sends)
            now, sends = event.at_ns, []
            query = event.query
            if event.socket in streams.values():
                if event.outcome not in (*_ACCEPTED, Outcome.TRUNCATED) or not query:
                    break
                accepted[query] = event
            elif not query or event.outcome not in REPLIED or query in accepted or query in streams:
                continue
            elif event.outcome is Outcome.TRUNCATED and self.tcp:
                streams[query] = Socket("tcp")
                sends = [Send(streams[query], event.server, query)]
            elif event.outcome in (*_ACCEPTED, Outcome.TRUNCATED):
                accepted[query] = event
            elif event.outcome is Outcome.SERVFAIL and resends:
                resends -= 1
                sends = [Send(sock, event.server, query)]
        return accepted, now
