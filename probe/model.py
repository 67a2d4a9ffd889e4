"""The nouns everyone shares: Question, Target, Ports, Lane, Series, Mark, Interval, Lookup, Finding, Doubt, Objective.

Time inside a run is an int of nanoseconds since the run's t0 (CLOCK_MONOTONIC); people see seconds and RFC 3339.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from fractions import Fraction

from probe.errors import UsageError
from probe.outcome import Outcome

NS = 1_000_000_000
BUCKET_NS = 100_000_000
"""Width of the finest time bucket that is recorded: 100 ms."""


class Learnt(StrEnum):
    """What is good where only the run tells: the commonest of a question's first replies, what others say, or what
    the EndpointSlices of the Service say that is named.
    """

    PINNED = "pinned"
    SAME = "same"
    ENDPOINTS = "endpoints"


@dataclass(frozen=True, slots=True)
class Expect:
    """What counts as good: a set of outcomes and, if any are given, exactly these addresses.

    learnt: PINNED, only the commonest of the set once ten replies to the question have been seen; SAME, only what the
    lane's other targets say, too; ENDPOINTS, only the addresses that are put in its place when the run begins.
    """

    outcomes: frozenset[Outcome]
    addresses: frozenset[str] = frozenset()
    learnt: Learnt | None = None

    @classmethod
    def parse(cls, text: str, qtype: str) -> Expect:
        """Outcomes joined by `|`, or `any`, `pinned`, `same` or `endpoints`, or addresses joined by commas; '' is the
        default.

        The default is an answer, and for AAAA an answer or NODATA. UsageError for anything else.
        """
        text = text.strip()
        if not text:
            return cls(_DEFAULT_AAAA if qtype.upper() == "AAAA" else _DEFAULT)
        if text.lower() == "any":
            return cls(_ANY)
        if text.lower() in tuple(Learnt):
            return cls(_FOUND, learnt=Learnt(text.lower()))
        words = [w.strip().lower() for w in text.split("|")]
        if all(w in _EXPECT_WORDS for w in words):
            return cls(frozenset(_EXPECT_WORDS[w] for w in words))
        try:
            if "%" in text:
                raise ValueError("a zone is never in a record")
            addresses = frozenset(str(ipaddress.ip_address(a.strip())) for a in text.split(","))
        except ValueError:
            raise UsageError(
                f"expect {text!r}: say {', '.join(_EXPECT_WORDS)}, some of these joined by |,"
                " any, pinned, same, endpoints, or addresses joined by commas"
            ) from None
        return cls(_DEFAULT, addresses)

    def __str__(self) -> str:
        if self.addresses:
            return ",".join(sorted(self.addresses))
        if self.learnt:
            return self.learnt.value
        if self.outcomes == _ANY:
            return "any"
        return "|".join(o.label for o in sorted(self.outcomes))


_DEFAULT = frozenset({Outcome.ANSWER})
_DEFAULT_AAAA = frozenset({Outcome.ANSWER, Outcome.NODATA})
_FOUND = frozenset({Outcome.ANSWER, Outcome.NODATA, Outcome.NXDOMAIN})
_EXPECT_WORDS = {o.label: o for o in (*sorted(_FOUND), Outcome.SERVFAIL, Outcome.REFUSED, Outcome.TRUNCATED)}
_ANY = frozenset(Outcome) - {
    Outcome.MALFORMED,
    Outcome.TIMEOUT,
    Outcome.CONNECTION_REFUSED,
    Outcome.NETWORK_ERROR,
    Outcome.CONNECTION_LOST,
    Outcome.UNSENT,
}


@dataclass(frozen=True, slots=True)
class Edns:
    """The OPT record of a query (RFC 6891): UDP size, DO bit (RFC 3225), NSID asked for (RFC 5001)."""

    size: int = 1232
    do: bool = False
    nsid: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked and what counts as a good reply. `name` is absolute: it is sent as it stands.

    A name may hold `{random}` or `{number}` once: each query then asks for another label, to defeat caches. Of a
    transport beside DNS the type is one of BESIDE's, and the name a path, or what the connection is to.
    """

    name: str
    qtype: str
    expect: Expect
    edns: Edns | None = None

    @classmethod
    def of(cls, name: str, qtype: str = "A", expect: str = "", edns: Edns | None = None) -> Question:
        """A question from text; UsageError if `expect` cannot be read."""
        return cls(name, qtype.upper(), Expect.parse(expect, qtype), edns)


BESIDE = {"connect": "CONNECT", "http": "GET"}
"""Transports that ask no DNS -> what stands for the type of their questions: a TCP connection is opened; a page is
asked for, its path being the name. Lanes beside DNS tell its faults from those of what it stands on."""


class TargetKind(StrEnum):
    """What stands behind an address. NODE: its kubelet; API: the API server."""

    SERVICE = "service"
    POD = "pod"
    NODELOCAL = "nodelocal"
    UPSTREAM = "upstream"
    SERVER = "server"
    NODE = "node"
    API = "api"


@dataclass(frozen=True, slots=True)
class Target:
    """One address that is asked. `side`: whose ICMP refusals it shares, a node's Services together, each pod alone.

    `vantage`: the network namespace it is asked from, a path; '' for the run's first one.
    """

    name: str
    kind: TargetKind
    address: str
    port: int = 53
    side: str = ""
    vantage: str = ""

    @property
    def refusing_side(self) -> str:
        """Targets with the same refusing side share one ICMP rate limit."""
        return self.side or self.address

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.name} ({host}:{self.port})"


def _pool(text: str) -> int:
    """The K of `pool:K`, 0 for another text. UsageError if K is out of bounds."""
    match = re.fullmatch(r"pool:0*([0-9]+)", text)
    count = int(match[1][:6]) if match else 0
    if match and not 1 <= count <= 28_000:
        raise UsageError(f"ports {text!r}: a pool has 1 to 28000 source ports")
    return count


@dataclass(frozen=True, slots=True)
class Ports:
    """How source ports, or TCP connections, are used: `fresh`, `pool:K`, `fixed`; TCP: `fresh`, `pool:K`, `reused`."""

    policy: str
    count: int = 1

    @classmethod
    def parse(cls, text: str, transport: str = "udp") -> Ports:
        """UsageError names what is allowed for the transport."""
        text = text.strip().lower()
        if transport == "tcp":
            if text in ("fresh", "reused"):
                return cls(text)
            if pool := _pool(text):
                return cls("pool", pool)
            raise UsageError(
                f"ports {text!r}: for tcp say fresh (a connection per query), reused (one connection),"
                " or pool:K (K connections)"
            )
        if text in ("fresh", "fixed"):
            return cls(text)
        if pool := _pool(text):
            return cls("pool", pool)
        raise UsageError(f"ports {text!r}: for udp say fresh, fixed or pool:K (K reused source ports, e.g. pool:64)")

    def __str__(self) -> str:
        return f"pool:{self.count}" if self.policy == "pool" else self.policy


@dataclass(frozen=True, slots=True)
class Leg:
    """A stretch of a load: for duration_ns the rate goes evenly from one share of the series' rate to another."""

    duration_ns: int
    from_share: Fraction
    to_share: Fraction


@dataclass(frozen=True, slots=True)
class Shape:
    """How the queries of a series lie in time; its `rate` is the highest there is.

    arrivals: `even`; `poisson`, whose gaps are exponential and drawn from `seed`; `max`, the one closed loop: as fast
    as replies allow, with at most `window` outstanding towards a target, no schedule (rows are due when they are sent);
    its `rate` only bounds what is sized by it. pause_ns: of a closed loop, each of the `window` slots asks again so
    long after the outcome of its last query, so that `rate` is window / pause; 0: at once.
    legs: what the rate does, from t0 on, whenever the series starts; after the last one it stays; none: it is constant.
    """

    arrivals: str = "even"
    legs: tuple[Leg, ...] = ()
    seed: int = 0
    window: int = 0
    pause_ns: int = 0

    @property
    def scheduled(self) -> bool:
        """Whether rows are due at instants that are known beforehand."""
        return self.arrivals != "max"

    @property
    def unbounded(self) -> bool:
        """A closed loop without a pause: only the replies bound its rate."""
        return not self.scheduled and not self.pause_ns


CONSTANT = Shape()


@dataclass(frozen=True, slots=True)
class Slice:
    """Which rows of a series are one worker's, or one machine's: those whose number is `index` modulo `of`."""

    index: int = 0
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Slice:
        """`0/4` to `3/4`, the slices of 4; UsageError for anything else."""
        if match := re.fullmatch(r"([0-9]{1,4})/([1-9][0-9]{0,3})", text.strip()):
            index, of = int(match[1]), int(match[2])
            if index < of:
                return cls(index, of)
            if index == of:
                raise UsageError(f"{text!r}: of {of} shards the last is {of - 1}/{of}: they count from 0")
        raise UsageError(f"{text!r}: say I/N, which of how many, counted from 0: 0/4, 1/4, 2/4, 3/4")

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"


WHOLE = Slice()


@dataclass(frozen=True, slots=True)
class Lane:
    """One way of asking. `target` selects whom: `service`, `pods`, ... or a target's name.

    `rate` is queries a second towards each target, shared evenly by the questions; 0 until it is known. pair: A and
    AAAA of a name leave one socket back to back, as glibc sends them. gso: up to so many queries leave as one burst
    (UDP_SEGMENT), 1 is none. port: of the targets, 0 for their own.
    """

    name: str
    target: str
    transport: str
    ports: Ports
    rate: Fraction
    timeout_ns: int
    questions: Sequence[Question]
    weights: tuple[int, ...] = ()
    """How often each question is asked among the others; empty: all alike."""
    shape: Shape = CONSTANT
    pair: bool = False
    gso: int = 1
    port: int = 0


@dataclass(frozen=True, slots=True)
class Series:
    """What one lane asks one target for one type: the unit that is scheduled, recorded and stored.

    Its questions are asked in turn, or by weight. Rows are due at start_ns + offset_ns + i / rate, before stop_ns,
    where the shape is constant.
    """

    index: int
    lane: str
    target: Target
    transport: str
    ports: Ports
    qtype: str
    questions: Sequence[Question]
    rate: Fraction
    offset_ns: int
    start_ns: int
    stop_ns: int
    timeout_ns: int
    weights: tuple[int, ...] = ()
    shape: Shape = CONSTANT
    pair: bool = False
    gso: int = 1
    share: Slice = WHOLE
    """Which of its rows are meant; `rate` is that of all."""

    @property
    def own_rate(self) -> Fraction:
        """Queries a second of its share."""
        return self.rate / self.share.of

    @property
    def slots(self) -> range:
        """Of a closed loop, which of the queries that may be outstanding at once are its share's: with a pause they are
        dealt as rows are, without one everybody has `window` of them.
        """
        shape, share = self.shape, self.share
        return range(share.index, shape.window, share.of) if shape.pause_ns else range(shape.window)

    @property
    def channel(self) -> tuple[str, str]:
        """Series of one lane and target share sockets, windows and a line in the report."""
        return (self.lane, self.target.name)


class Reason(StrEnum):
    """Why a run begins, in a process that has one after the other."""

    START = "start"
    RELOAD = "reload"
    WORKER = "worker"
    CLUSTER = "cluster"
    CLOCK = "clock"
    ROOM = "room"


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment on the timeline: what happened, to whom, who says so."""

    at_ns: int
    kind: str
    text: str
    source: str
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch [from_ns, to_ns) of the timeline: a pod's counted life, a watch gap, seconds that were lost."""

    from_ns: int
    to_ns: int
    kind: str
    text: str
    source: str
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a meter of others said: from at_ns on `metric` of `subject` was `value`; None: it could not be read."""

    at_ns: int
    source: str
    subject: str
    metric: str
    value: float | None


class Sure(StrEnum):
    """How sure a cause is. UNDETERMINED: too little was asked to tell it from others."""

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"
    UNDETERMINED = "undetermined"


class Fate(StrEnum):
    """What became of a lookup: addresses; no such name, said by a server; an error; or the run ended before it."""

    FOUND = "found"
    NOT_FOUND = "not_found"
    FAILED = "failed"
    UNFINISHED = "unfinished"


SLOW_NS = NS
"""Above this a lookup is slowed: people notice."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """A name that a client profile looked up. at_ns: when it asked; error: what an application would print."""

    at_ns: int
    client: str
    name: str
    fate: Fate
    took_ns: int
    error: str = ""

    @property
    def slowed(self) -> bool:
        """Whether it found addresses late."""
        return self.fate is Fate.FOUND and self.took_ns > SLOW_NS


@dataclass(frozen=True, slots=True)
class Finding:
    """What was concluded: a cause or a check, how sure, the evidence and the remedy.

    apart: what would tell it from causes that look alike; remedy: commands and files, to be pasted.
    """

    id: str
    severity: str
    text: str
    evidence: str = ""
    remedy: str = ""
    source: str = ""
    sure: Sure | None = None
    apart: str = ""


@dataclass(frozen=True, slots=True)
class Doubt:
    """What this prober did wrong itself, and the lanes on which that could hide a loss (empty: all)."""

    id: str
    text: str
    lanes: tuple[str, ...] = ()
    hides_loss: bool = True


class Phase(IntEnum):
    """How far a TCP row got."""

    NONE = 0
    CONNECT = 1
    ANSWER = 2

    @property
    def label(self) -> str:
        """`connect`, `answer`, or nothing."""
        return "" if self is Phase.NONE else self.name.lower()


@dataclass(frozen=True, slots=True)
class Failure:
    """One row that was not good, kept exactly. Times in ns since t0; phase is `connect` or `answer` for TCP."""

    series: int
    question: str
    due_ns: int
    sent_ns: int
    outcome: Outcome
    errno: int = 0
    phase: str = ""
    source_port: int = 0
    query_id: int = 0
