"""What can become of a query: exclusive outcomes, each with its help text and whose fault it is."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple


class Blame(StrEnum):
    """Where to look first when an outcome was not the expected one."""

    NOBODY = "nobody"
    SERVER = "server"
    NETWORK = "network"
    PROBER = "prober"


class Outcome(IntEnum):
    """One row, one outcome. The numbers are stored in run files: never renumber, only append."""

    ANSWER = 0
    NODATA = 1
    NXDOMAIN = 2
    SERVFAIL = 3
    REFUSED = 4
    OTHER_RCODE = 5
    TRUNCATED = 6
    WRONG_ANSWER = 7
    MALFORMED = 8
    TIMEOUT = 9
    CONNECTION_REFUSED = 10
    NETWORK_ERROR = 11
    CONNECTION_LOST = 12
    UNSENT = 13

    @property
    def label(self) -> str:
        """The name people, metrics and JSON see: `connection_refused`."""
        return self.name.lower()


class Meaning(NamedTuple):
    """What an outcome says, in one line, and where to look first."""

    help: str
    blame: Blame


MEANINGS: dict[Outcome, Meaning] = {
    Outcome.ANSWER: Meaning("NOERROR with a record of the type asked for", Blame.NOBODY),
    Outcome.NODATA: Meaning("NOERROR without a record of that type (RFC 2308, 2.2)", Blame.NOBODY),
    Outcome.NXDOMAIN: Meaning("the name does not exist (RCODE 3)", Blame.SERVER),
    Outcome.SERVFAIL: Meaning("the server failed (RCODE 2): often an upstream of CoreDNS that is dead", Blame.SERVER),
    Outcome.REFUSED: Meaning("RCODE 5: policy, or CoreDNS forward's max_concurrent", Blame.SERVER),
    Outcome.OTHER_RCODE: Meaning("any other RCODE: FORMERR, NOTIMP, ...", Blame.SERVER),
    Outcome.TRUNCATED: Meaning("TC bit set: ask again by TCP; wins over any RCODE", Blame.SERVER),
    Outcome.WRONG_ANSWER: Meaning(
        "NOERROR, but not the addresses expected; by HTTP: a status that is not 200", Blame.SERVER
    ),
    Outcome.MALFORMED: Meaning("a reply to our question that cannot be parsed", Blame.SERVER),
    Outcome.TIMEOUT: Meaning("silence until the timeout; for TCP with its phase, connect or answer", Blame.NETWORK),
    Outcome.CONNECTION_REFUSED: Meaning("ICMP port unreachable, or a TCP RST on connect", Blame.NETWORK),
    Outcome.NETWORK_ERROR: Meaning("unreachable or prohibited: ICMP, no route, EPERM of a local filter", Blame.NETWORK),
    Outcome.CONNECTION_LOST: Meaning("an open TCP connection ended before the answer", Blame.NETWORK),
    Outcome.UNSENT: Meaning("due, but not sent: this prober's own fault, counted with its cause", Blame.PROBER),
}

REPLIED = frozenset(
    {
        Outcome.ANSWER,
        Outcome.NODATA,
        Outcome.NXDOMAIN,
        Outcome.SERVFAIL,
        Outcome.REFUSED,
        Outcome.OTHER_RCODE,
        Outcome.TRUNCATED,
        Outcome.WRONG_ANSWER,
        Outcome.MALFORMED,
    }
)
"""Outcomes of rows that a server replied to: the ones that have a latency."""


class UnsentCause(IntEnum):
    """Why a row that was due was not sent. Stored in run files: only append."""

    STALL = 0
    IDS = 1
    SOCKETS = 2
    PORTS = 3
    SEND_BUFFER = 4
    DESCRIPTORS = 5

    @property
    def label(self) -> str:
        """The name people and JSON see."""
        return self.name.lower()


UNSENT_HELP: dict[UnsentCause, str] = {
    UnsentCause.STALL: "the prober was not scheduled in time: the slot was missed, not sent late",
    UnsentCause.IDS: "every query id of the socket was used within twice the timeout",
    UnsentCause.SOCKETS: "every socket of a `fresh` lane was waiting for its answer",
    UnsentCause.PORTS: "no free source port (EADDRNOTAVAIL, EAGAIN): widen ip_local_port_range, or ask from pool:K",
    UnsentCause.SEND_BUFFER: "the socket's send buffer or the device queue was full (EAGAIN, ENOBUFS)",
    UnsentCause.DESCRIPTORS: "no free file descriptor (EMFILE, ENFILE) or memory for a socket: raise ulimit -n",
}


class Counter(IntEnum):
    """What is counted beside the outcomes. Stored in run files: only append."""

    LATE = 0
    DUPLICATE = 1
    UNMATCHED = 2
    TRUNCATED_WITH_ANSWER = 3
    OWN_DROPS = 4
    TIMEOUT_CONNECT = 5
    TIMEOUT_ANSWER = 6
    CONNECTS = 7
    CONNECTIONS_LOST = 8
    SENT_OCTETS = 9
    RECEIVED_OCTETS = 10
    PORTS_REUSED = 11
    CLOCK_STEPS = 12

    @property
    def label(self) -> str:
        """The name people, metrics and JSON see."""
        return self.name.lower()


COUNTER_HELP: dict[Counter, str] = {
    Counter.LATE: "replies that came after the row's timeout",
    Counter.DUPLICATE: "further replies to a row that already had one",
    Counter.UNMATCHED: "datagrams or frames whose id, QR bit or question fit no row of their socket",
    Counter.TRUNCATED_WITH_ANSWER: "truncated replies that still carried answer records",
    Counter.OWN_DROPS: "datagrams the kernel dropped because our own receive buffer was full",
    Counter.TIMEOUT_CONNECT: "TCP rows that timed out while connecting",
    Counter.TIMEOUT_ANSWER: "TCP rows that timed out waiting for the answer",
    Counter.CONNECTS: "TCP connections that opened",
    Counter.CONNECTIONS_LOST: "open TCP connections that the other side ended while rows waited on them",
    Counter.SENT_OCTETS: "octets of the DNS messages that were sent",
    Counter.RECEIVED_OCTETS: "octets of the DNS messages that answered a row",
    Counter.PORTS_REUSED: "source ports that a `fresh` lane used again within conntrack's 30 s",
    Counter.CLOCK_STEPS: "batches of replies timed by this process, because the wall clock had stepped",
}
