"""What a client or CoreDNS wrote, and how long it took -> what became of the query, and where to look next.

Facts: probe.clients; Alibaba Cloud ACK, troubleshooting DNS resolution failures, error messages. That
a message can mean two things is told so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from probe.outcome import MEANINGS, Outcome

_X, _T, _R, _S, _F = (
    Outcome.NXDOMAIN,
    Outcome.TIMEOUT,
    Outcome.CONNECTION_REFUSED,
    Outcome.SERVFAIL,
    Outcome.REFUSED,
)
PATIENT = 4.5
"""Seconds from which on a lookup has waited for an answer that did not come: glibc, Go and musl wait 5 s, dig 5 s."""
QUICK = 1.0
"""Seconds up to which nothing has been waited for."""
DEAF = "musl"
"""How long it took says nothing."""
_NAME = re.compile(
    r"lookup ([\w.-]+)|resolve(?: host)?:? '?([\w.-]+\.[\w-]+)|UnknownHostException: ([\w.-]+)"
    r"|(?:getaddrinfo|query\w+) E\w+ ([\w.-]+)"
)
_SERVER = re.compile(r" on (\S+:\d+):|->(\S+:\d+)|#53\((\S+?)\)")

NEXT = {
    _X: "check the name: `svc.namespace.svc.cluster.local`, the search list and ndots; external: ask the upstream",
    _T: "the server was not heard: dnsprobe check, or dnsprobe run causes beside it: stale flow, pod, node or network",
    _R: "nobody listens, or a rule rejects: no Ready pod, a pod that has just closed: dnsprobe check",
    _S: "CoreDNS failed: its upstream is dead (names outside) or it has lost the API server (names of the cluster)",
    _F: "refused by policy of the upstream, or by forward's max_concurrent under load: ask it directly",
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a message means. outcomes: what may have become of the query, the likelier first."""

    client: str
    outcomes: tuple[Outcome, ...]
    text: str
    name: str = ""
    server: str = ""

    @property
    def help(self) -> tuple[str, ...]:
        """A line for each outcome."""
        return tuple(f"{o.label}: {MEANINGS[o].help}" for o in self.outcomes)

    @property
    def next(self) -> tuple[str, ...]:
        """What to do next, likewise."""
        return tuple(NEXT[o] for o in self.outcomes if o in NEXT)


def meaning_of(message: str, took: float | None = None) -> Meaning | None:
    """None for a message that nobody is known to write. took: seconds."""
    for pattern, client, outcomes, text in MESSAGES:
        if re.search(pattern, message, re.IGNORECASE):
            name, server = _found(_NAME, message), _found(_SERVER, message)
            return Meaning(client, _by_time(outcomes, None if client == DEAF else took), text, name, server)
    return None


def _by_time(outcomes: tuple[Outcome, ...], took: float | None) -> tuple[Outcome, ...]:
    """Of several what fits the time: silence takes a timeout, anything else next to none."""
    if took is None or len(outcomes) < 2 or _T not in outcomes:
        return outcomes
    if took >= PATIENT:
        return (_T,)
    return tuple(o for o in outcomes if o is not _T) if took <= QUICK else outcomes


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return next(filter(None, match.groups()), "") if match else ""


_CANNOT_TELL = (
    "the libc says the same of a name that is not there and, after 5 s of silence or more, of a server that is not"
)
MESSAGES: tuple[tuple[str, str, tuple[Outcome, ...], str], ...] = (
    (
        r"plugin/errors: .*(i/o timeout|no route|unreachable)",
        "CoreDNS",
        (_T,),
        "CoreDNS's upstream was silent: its clients got SERVFAIL",
    ),
    (r"plugin/errors: .*connection refused", "CoreDNS", (_R,), "CoreDNS's upstream refused the connection"),
    (r"Unknown directive", "CoreDNS", (), "the Corefile has a plugin that this version does not know: it ends"),
    (r"Failed to watch", "CoreDNS", (), "CoreDNS lost the API server; harmless while lookups do not fail"),
    (r"conntrack: table full|conntrack full", "kernel", (_T,), "conntrack's table is full: new flows are dropped"),
    (r"no such host", "Go", (_X, Outcome.NODATA), "the server says that the name does not exist, or has no address"),
    (
        r"query\w+ ENOTFOUND|Domain name not found",
        "c-ares, Node.js (dns.resolve)",
        (_X,),
        "the name does not exist, as the server says",
    ),
    (
        r"query\w+ ENODATA|DNS server returned answer with no data",
        "c-ares, Node.js (dns.resolve)",
        (Outcome.NODATA,),
        "the name is there, and has nothing of the type that was asked for",
    ),
    (
        r"getaddrinfo EAI_AGAIN",
        "Node.js (dns.lookup)",
        (_T, _R, _S, _F),
        "the libc got no usable answer; two names at a time are looked up, and others wait until these are given up",
    ),
    (
        r"getaddrinfo ENOTFOUND",
        "Node.js (dns.lookup)",
        (_X, Outcome.NODATA),
        "the name does not exist, or has no address: it says the same of both",
    ),
    (r"i/o timeout", "Go", (_T,), "no answer within 5 s; Go asks twice, each time from a new port"),
    (r"server misbehaving", "Go", (_S, _F), "the server answered with SERVFAIL or REFUSED"),
    (
        r"status: NXDOMAIN|can't find .*: NXDOMAIN|not found: 3\(NXDOMAIN\)",
        "dig, nslookup, host",
        (_X,),
        "the name does not exist",
    ),
    (
        r"status: SERVFAIL|can't find .*: SERVFAIL|2\(SERVFAIL\)|ESERVFAIL|DNS server returned general failure",
        "dig, c-ares",
        (_S,),
        "the server failed",
    ),
    (
        r"status: REFUSED|can't find .*: REFUSED|5\(REFUSED\)|EREFUSED|DNS server refused query",
        "dig, c-ares",
        (_F,),
        "the server refused by policy or load",
    ),
    (
        r"ECONNREFUSED|connection refused|Could not contact DNS servers",
        "Go, dig, c-ares",
        (_R,),
        "ICMP port unreachable or a TCP reset",
    ),
    (r"no servers could be reached|connection timed out", "dig", (_T,), "no answer within 5 s, three times"),
    (
        r"ETIMEOUT|DNS server returned.*timeout|Timeout while contacting DNS",
        "c-ares",
        (_T,),
        "no answer, each time it was asked; before 1.34.6 c-ares keeps its source port",
    ),
    (
        r"EAI_AGAIN|Temporary failure in name resolution|gaierror.*-3",
        "libc",
        (_T, _R, _S, _F),
        "the libc got no usable answer: at once where it was refused or failed, after 5 to 10 s of silence",
    ),
    (
        r"Try again",
        DEAF,
        (_T, _R, _S, _F),
        "no usable answer in 5 s, whatever came: musl hears no refusal and waits on",
    ),
    (r"Name does not resolve", DEAF, (_X, Outcome.NODATA), "the name does not exist, or has no address"),
    (
        r"No address associated with hostname|Name has no usable address",
        "libc",
        (Outcome.NODATA,),
        "the name is there, and has no address of the type that was asked for",
    ),
    (
        r"UnknownHostException: [\w.-]+\s*$",
        "Java",
        (),
        "said again of a lookup that failed up to 10 s before, and nobody was asked: its first message has the reason",
    ),
    (
        r"UnknownHostException",
        "Java",
        (_X, _T),
        f"{_CANNOT_TELL}; Java keeps saying so for 10 s (networkaddress.cache.negative.ttl)",
    ),
    (r"bad address", "busybox, musl", (_X, _T), f"{_CANNOT_TELL}; musl waits 5 s, and ignores REFUSED and ICMP"),
    (
        (
            r"ENOTFOUND|EAI_NONAME|gaierror.*-2|Name or service not known|Could not resolve host|getaddrinfo failed"
            r"|nodename nor servname|Unknown host"
        ),
        "ping, curl, PHP, Node.js (getaddrinfo)",
        (_X, _T),
        _CANNOT_TELL,
    ),
    (
        r"Non-recoverable error|cannot unmarshal DNS message",
        "musl, Go",
        (Outcome.SERVFAIL, Outcome.MALFORMED),
        "a reply came that the resolver could do nothing with",
    ),
)
"""Pattern, who writes it, what it can mean, in words; the first that is found counts."""
