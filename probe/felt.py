"""A Timeline -> what each client profile would have felt in each window of disruption, and what real lookups did feel.

From the counts of a lane with fresh ports alone. What is assumed: each new flow (a source port, a connection) meets one
of the backends, evenly; it stays with it while that one is dead, and a dead one is dead to all its flows; both types of
a flow share its fate; TCP shares UDP's. A lookup may begin at any moment of the window. Drawn, from a seed.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random

import numpy as np

from probe.clients import CLIENTS
from probe.clients.asking import CONF_FACT
from probe.clients.simulated import simulate
from probe.clients.steps import Event, Hears, Send, Socket
from probe.model import BUCKET_NS, NS, SLOW_NS, Fate, Lookup
from probe.outcome import REPLIED, Outcome
from probe.recorder import Duration
from probe.resolv import ResolvConf, read_resolv_conf
from probe.timeline import Channel, Timeline, Window

DRAWN = 400
"""Lookups of each profile in each window: a share is known to 0.025."""
_SYN_AGAIN_S = (0, 1, 3, 7, 15, 31, 63)
"""When Linux sends a SYN that is not answered (tcp_syn_retries 6); it gives up after 127 s."""
_ERRNOS = {Outcome.CONNECTION_REFUSED: errno.ECONNREFUSED, Outcome.NETWORK_ERROR: errno.EHOSTUNREACH}
_SOMEONE = ("192.0.2.53",)

Shares = Mapping[str, Sequence[tuple[float, Outcome]]]
"""By type: outcomes of rows that were lost, each with the share of all rows up to and with it."""


@dataclass(frozen=True, slots=True)
class Felt:
    """Lookups of one profile that began in a window: how many, shares that failed or were slowed, how long these took.

    worst_ns, and mean_ns of those that were slowed; 0 if none was.
    """

    client: str
    lookups: int
    failed: float
    slowed: float
    mean_ns: float
    worst_ns: int

    @classmethod
    def of(cls, client: str, lookups: Sequence[tuple[Fate, int]]) -> Felt:
        """From what each came to, and how long it took, ns."""
        slow = [took for fate, took in lookups if fate is Fate.FOUND and took > SLOW_NS]
        failed = sum(fate is not Fate.FOUND for fate, _ in lookups)
        n = max(1, len(lookups))
        worst = max((took for _, took in lookups), default=0)
        return cls(client, len(lookups), failed / n, len(slow) / n, sum(slow) / len(slow) if slow else 0.0, worst)


def predicted(timeline: Timeline, window: Window, seed: int = 0) -> list[Felt]:
    """What the emulated profiles would have felt; none if the lane's ports are not fresh, or it does not ask by UDP.

    They look up what the run's clients do, by their resolv.conf; of a run without any, one absolute name.
    """
    channel = next(c for c in timeline.channels if c.name == (window.lane, window.target))
    if channel.transport != "udp" or channel.ports.policy != "fresh":
        return []
    conf, name = _asked(timeline)
    pieces, rtt_ns, exists = _pieces(timeline, channel, window), _rtt_ns(timeline, channel), _exists(name, conf)
    rng = Random(seed)
    found = []
    for client, profile in CLIENTS.items():
        if profile.client is None or profile.remembers:
            continue
        fates = []
        for k in range(DRAWN):
            at_ns = window.from_ns + int((k + rng.random()) / DRAWN * (window.to_ns - window.from_ns))
            network = _Network(pieces, rtt_ns, exists, rng)
            answer, end_ns = simulate(profile.client(conf, 53).lookup(name, at_ns), network, at_ns)
            fates.append((answer.fate, end_ns - at_ns))
        found.append(Felt.of(client, fates))
    return found


def observed(lookups: Sequence[Lookup], window: Window) -> list[Felt]:
    """What the run's own lookups felt that began in a window; those that the run's end cut are left out."""
    mine = [one for one in lookups if window.from_ns <= one.at_ns < window.to_ns and one.fate is not Fate.UNFINISHED]
    clients = dict.fromkeys(one.client for one in lookups)
    return [Felt.of(client, [(one.fate, one.took_ns) for one in mine if one.client == client]) for client in clients]


def _asked(timeline: Timeline) -> tuple[ResolvConf, str]:
    """The file that clients go by, and the first of the names that they look up."""
    first, *lines = timeline.run.head.facts.get(CONF_FACT, "# name.example.").split("; ")
    return replace(read_resolv_conf("\n".join(lines)), nameservers=_SOMEONE), first.split()[1]


def _exists(name: str, conf: ResolvConf) -> str:
    """The one absolute name that a name stands for: NAME.NAMESPACE.svc.DOMAIN if the search list leads there."""
    names = [full.rstrip(".") for full in conf.names(name)]
    return next((full for full in names if full.split(".")[2:3] == ["svc"]), name.rstrip("."))


def _rtt_ns(timeline: Timeline, channel: Channel) -> int:
    median = timeline.quantile_ns(channel, Duration.RTT, 0.5)
    return int(median) if math.isfinite(median) else NS // 1000


@dataclass(frozen=True, slots=True)
class _Piece:
    from_ns: int
    to_ns: int
    shares: Shares


def _pieces(timeline: Timeline, channel: Channel, window: Window) -> tuple[_Piece, ...]:
    """The window in pieces of about a second, for what is lost may change in it; no 100 ms are in two of them."""
    count = max(1, (window.to_ns - window.from_ns) // NS)
    inner = [window.from_ns + k * (window.to_ns - window.from_ns) // count for k in range(1, count)]
    edges = [window.from_ns, *(edge // BUCKET_NS * BUCKET_NS for edge in inner), window.to_ns]
    return tuple(_Piece(a, b, _shares(timeline, channel, a, b)) for a, b in pairwise(edges))


def _shares(timeline: Timeline, channel: Channel, from_ns: int, to_ns: int) -> Shares:
    rows = timeline.run.counts
    inside = (rows.good == 0) & (rows.outcome != Outcome.UNSENT)
    inside &= (rows.bucket >= from_ns // BUCKET_NS) & (rows.bucket < -(-to_ns // BUCKET_NS))
    found: dict[str, list[tuple[float, Outcome]]] = {}
    for qtype in dict.fromkeys(s.qtype for s in channel.series):
        mine = [s for s in channel.series if s.qtype == qtype]
        planned = max(1.0, float(sum(s.own_rate for s in mine)) * (to_ns - from_ns) / NS)
        picked = inside & np.isin(rows.series, [s.index for s in mine])
        share = 0.0
        for outcome in Outcome:
            n = int(rows.n[picked & (rows.outcome == outcome)].sum())
            if n:
                share = min(1.0, share + n / planned)
                found.setdefault(qtype, []).append((share, outcome))
    return found


@dataclass(slots=True)
class _Network:
    """As it was in a window, and good before and after. Each flow has its place among the backends, drawn once."""

    pieces: Sequence[_Piece]
    rtt_ns: int
    exists: str
    rng: Random
    _places: dict[tuple[Socket, int], float] = field(default_factory=dict)

    def events(self, send: Send, at_ns: int) -> Iterator[Event]:
        if send.socket.transport == "tcp":
            yield from self._by_stream(send, at_ns)
            return
        outcome = self._fate(send, at_ns)
        hears = send.socket.hears
        if outcome in REPLIED and outcome is not Outcome.MALFORMED:
            yield self._reply(send, at_ns, outcome)
        elif (outcome is Outcome.CONNECTION_REFUSED and hears is not Hears.NOTHING) or (
            outcome is Outcome.NETWORK_ERROR and hears is Hears.ALL
        ):
            yield self._error(send, at_ns, outcome)

    def _by_stream(self, send: Send, at_ns: int) -> Iterator[Event]:
        for seconds in _SYN_AGAIN_S:
            then_ns = at_ns + seconds * NS
            outcome = self._fate(send, then_ns)
            if outcome is Outcome.CONNECTION_REFUSED:
                yield self._error(send, then_ns, outcome)
                return
            if outcome in REPLIED and outcome is not Outcome.MALFORMED:
                plain = Outcome.ANSWER if outcome is Outcome.TRUNCATED else outcome
                yield self._reply(send, then_ns + self.rtt_ns, plain)
                return
        yield Event(at_ns + 127 * NS, Outcome.TIMEOUT, send.socket, send.server, errno=errno.ETIMEDOUT)

    def _fate(self, send: Send, at_ns: int) -> Outcome:
        """ANSWER, unless a piece says otherwise of this flow and type; a type that no lane asked fares as the other."""
        place = self._places.setdefault((send.socket, send.server), self.rng.random())
        shares = next((piece.shares for piece in self.pieces if piece.from_ns <= at_ns < piece.to_ns), {})
        mine = shares.get(send.query.question.qtype, next(iter(shares.values()), ()))
        return next((outcome for upto, outcome in mine if place < upto), Outcome.ANSWER)

    def _reply(self, send: Send, at_ns: int, outcome: Outcome) -> Event:
        there = send.query.question.name.rstrip(".") == self.exists
        if outcome in (Outcome.ANSWER, Outcome.WRONG_ANSWER):
            outcome = Outcome.ANSWER if there else Outcome.NXDOMAIN
        answers = ("192.0.2.1",) if outcome is Outcome.ANSWER else ()
        return Event(at_ns + self.rtt_ns, outcome, send.socket, send.server, send.query, answers)

    def _error(self, send: Send, at_ns: int, outcome: Outcome) -> Event:
        return Event(at_ns + self.rtt_ns, outcome, send.socket, send.server, errno=_ERRNOS[outcome])
