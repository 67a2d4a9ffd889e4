"""A Timeline -> what each client profile would have felt in each window of disruption, and what real lookups did feel.

From the counts of a lane with fresh ports alone. What is assumed: each new flow (a source port, a connection) meets one
of the backends, evenly; it stays with it while that one is dead, and a dead one is dead to all its flows; both types of
a flow share its fate; TCP shares UDP's. A lookup may begin at any moment of the window. Drawn, alike each time.
"""

from __future__ import annotations

import errno
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random
from typing import NamedTuple

import numpy as np

from probe.clients import CLIENTS
from probe.clients.asking import CONF_FACT
from probe.clients.java import POSITIVE_NS
from probe.clients.simulated import simulate
from probe.clients.steps import FOREVER, Event, Hears, Send, Socket
from probe.model import BUCKET_NS, NS, SLOW_NS, Fate, Lookup
from probe.outcome import REPLIED, Outcome
from probe.recorder import Duration
from probe.resolv import ResolvConf, read_resolv_conf
from probe.timeline import Channel, Timeline, Window
from probe.timeline.spans import Ints

DRAWN = 400
"""Lookups of each profile in each window: a share is known to 0.025."""
PROCESSES = 100
"""At most, of a profile that keeps what it was told."""
NEAR_NS = 60 * NS
"""Windows that are so near have a part in what is felt in another: patience ends, what was told is kept."""
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


def predicted(timeline: Timeline, window: Window) -> list[Felt]:
    """What the profiles would have felt, c-ares as its emulation; none if the lane's ports are not fresh, or not UDP.

    They look up what the run's clients do, by their resolv.conf; of a run without any, one absolute name.
    """
    channel = next(c for c in timeline.channels if c.name == (window.lane, window.target))
    if channel.transport != "udp" or channel.ports.policy != "fresh":
        return []
    conf, names = _asked(timeline)
    pieces, rtt_ns = tuple(_pieces(timeline, channel, window)), _rtt_ns(timeline, channel)
    rng = Random(0)
    network = _Network(pieces, rtt_ns, _exists(names[0], conf), rng)
    found = []
    for client, profile in CLIENTS.items():
        fates: list[tuple[Fate, int]] = []
        times = _by_chance if not profile.keeps_ns else _from_birth(timeline, client, profile.keeps_ns, len(names))
        for process in times(window, rng):
            one = profile.client(conf, 53)
            for at_ns in process:
                answer, end_ns = simulate(one.lookup(names[0], at_ns), network, at_ns)
                if at_ns >= window.from_ns:
                    fates.append((answer.fate, end_ns - at_ns))
        found.append(Felt.of(client, fates))
    return found


Times = Callable[[Window, Random], Iterator[Iterable[int]]]
"""Processes, each with the instants (ns) at which it looks its name up."""


def _by_chance(window: Window, rng: Random) -> Iterator[Iterable[int]]:
    """Each lookup by a process of its own."""
    for k in range(DRAWN):
        yield [window.from_ns + int((k + rng.random()) / DRAWN * (window.to_ns - window.from_ns))]


def _from_birth(timeline: Timeline, client: str, keeps_ns: int, names: int) -> Times:
    """What a process says depends on what it said before: as often as the run's, and as old, else of any age."""
    at = [one.at_ns for one in timeline.run.lookups if one.client == client]
    every_ns = (at[-1] - at[0]) * names // (len(at) - 1) if len(at) > 1 else NS // 2
    born_ns, grown_ns = at[0] if at else -FOREVER, 2 * POSITIVE_NS

    def times(window: Window, rng: Random) -> Iterator[Iterable[int]]:
        until_ns = min(window.to_ns + keeps_ns, timeline.horizon_ns)
        processes = max(8, min(PROCESSES, 50 * DRAWN * every_ns // max(1, until_ns - window.from_ns)))
        for _ in range(processes):
            begun_ns = window.from_ns - int((1 + rng.random()) * POSITIVE_NS)
            first_ns = born_ns if window.from_ns - born_ns < grown_ns else begun_ns
            yield range(first_ns + int(rng.random() * every_ns), until_ns, max(1, every_ns))

    return times


def observed(lookups: Sequence[Lookup], window: Window) -> list[Felt]:
    """What the run's own lookups felt that began in a window, or as long after it as their client keeps a failure.

    Those that the run's end cut are left out.
    """
    ended = [one for one in lookups if window.from_ns <= one.at_ns and one.fate is not Fate.UNFINISHED]
    found = []
    for client in dict.fromkeys(one.client for one in lookups):
        until_ns = window.to_ns + (CLIENTS[client].keeps_ns if client in CLIENTS else 0)
        mine = [(one.fate, one.took_ns) for one in ended if one.client == client and one.at_ns < until_ns]
        found.append(Felt.of(client, mine))
    return found


def _asked(timeline: Timeline) -> tuple[ResolvConf, list[str]]:
    """The file that clients go by, and the names that they look up."""
    first, *lines = timeline.run.head.facts.get(CONF_FACT, "# name.example.").split("; ")
    return replace(read_resolv_conf("\n".join(lines)), nameservers=_SOMEONE), first.split()[1:]


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


def _pieces(timeline: Timeline, channel: Channel, window: Window) -> Iterator[_Piece]:
    """A window and those near it, in pieces of about a second, for what is lost may change; no 100 ms are in two."""
    from_ns, to_ns = window.from_ns - NEAR_NS, window.to_ns + NEAR_NS
    near = [w for w in timeline.by_channel[channel.name] if w.to_ns > from_ns and w.from_ns < to_ns]
    rows = timeline.run.counts
    bad = (rows.good == 0) & (rows.outcome != Outcome.UNSENT) & np.isin(rows.series, [s.index for s in channel.series])
    bad &= (rows.bucket >= near[0].from_ns // BUCKET_NS) & (rows.bucket <= near[-1].to_ns // BUCKET_NS)
    lost = _Lost(rows.bucket[bad], rows.series[bad], rows.outcome[bad], rows.n[bad])
    for w in near:
        count = max(1, (w.to_ns - w.from_ns) // NS)
        inner = [w.from_ns + k * (w.to_ns - w.from_ns) // count for k in range(1, count)]
        edges = [w.from_ns, *(edge // BUCKET_NS * BUCKET_NS for edge in inner), w.to_ns]
        yield from (_Piece(a, b, _shares(lost, channel, a, b)) for a, b in pairwise(edges))


class _Lost(NamedTuple):
    """Rows of a channel that were not good, int64[n] each."""

    bucket: Ints
    series: Ints
    outcome: Ints
    n: Ints


def _shares(lost: _Lost, channel: Channel, from_ns: int, to_ns: int) -> Shares:
    inside = (lost.bucket >= from_ns // BUCKET_NS) & (lost.bucket < -(-to_ns // BUCKET_NS))
    found: dict[str, list[tuple[float, Outcome]]] = {}
    for qtype in dict.fromkeys(s.qtype for s in channel.series):
        mine = [s for s in channel.series if s.qtype == qtype]
        planned = max(1.0, float(sum(s.own_rate for s in mine)) * (to_ns - from_ns) / NS)
        picked = inside & np.isin(lost.series, [s.index for s in mine])
        share = 0.0
        for outcome in Outcome:
            n = int(lost.n[picked & (lost.outcome == outcome)].sum())
            if n:
                share = min(1.0, share + n / planned)
                found.setdefault(qtype, []).append((share, outcome))
    return found


@dataclass(slots=True)
class _Network:
    """As it was in windows, and good otherwise. Each flow has its place among the backends, drawn once."""

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
        k = bisect_right(self.pieces, at_ns, key=lambda piece: piece.from_ns) - 1
        shares = self.pieces[k].shares if k >= 0 and at_ns < self.pieces[k].to_ns else {}
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
