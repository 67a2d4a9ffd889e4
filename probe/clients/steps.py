"""What a stub resolver does, step by step: events in (a reply, an error, silence), sends and waits out, an Answer last.

A lookup is a generator that opens no socket and reads no clock. It yields a Wait: send these, then hand me the first
Event that comes until then. So it can be driven by real sockets (`probe.clients.sockets`) and in time that nobody
spends (`probe.clients.simulated`).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from probe.model import Edns, Fate, Question
from probe.outcome import Outcome

FOREVER = 1 << 62
"""A deadline, in ns, of who waits without one."""

T = TypeVar("T")


class Hears(StrEnum):
    """Which ICMP errors a UDP socket is told of (udp(7)): none if it is not connected, soft ones with IP_RECVERR."""

    NOTHING = "nothing"
    REFUSALS = "refusals"
    ALL = "all"


@dataclass(eq=False, slots=True)
class Socket:
    """A source port, or a TCP connection to one server. local: address:port, once it is open.

    insists: a datagram is sent all the same where send() told of an error, which is of one sent before (udp(7)).
    """

    transport: str = "udp"
    hears: Hears = Hears.REFUSALS
    local: str = ""
    insists: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One message: it has one id, however often, from wherever and to whomever it is sent."""

    question: Question

    @classmethod
    def of(cls, name: str, qtype: str, edns: Edns | None = None) -> Query:
        """For an absolute name, with or without its last dot."""
        return cls(Question.of(name.rstrip(".") + ".", qtype, "any", edns))


@dataclass(frozen=True, slots=True)
class Send:
    """A query to nameserver number `server`; the first one by TCP opens the connection."""

    socket: Socket
    server: int
    query: Query


@dataclass(frozen=True, slots=True)
class Wait:
    """Send these at once, then wait for an event until then (ns)."""

    until_ns: int
    sends: Sequence[Send] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """What came: a reply to `query`, an error of `socket`, or a TIMEOUT without a socket: the deadline.

    answers: the data of its records, sorted. errno: of an error; a CONNECTION_LOST without one is the other side's FIN.
    """

    at_ns: int
    outcome: Outcome
    socket: Socket | None = None
    server: int = 0
    query: Query | None = None
    answers: tuple[str, ...] = ()
    errno: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What an application is given: addresses, or an error's code and the words it would print."""

    fate: Fate
    addresses: tuple[str, ...] = ()
    code: str = ""
    error: str = ""


Steps = Generator[Wait, Event, T]
"""Something that takes steps and ends with a T."""


class Client(Protocol):
    """An application's process: what it keeps from one lookup to the next is in here."""

    def lookup(self, name: str, at_ns: int) -> Steps[Answer]:
        """A name as an application gives it, at an instant: A and AAAA (AF_UNSPEC)."""


def side_by_side(machines: Sequence[Steps[T]]) -> Steps[list[T]]:
    """Several at once, as threads do it; their ends in the order in which they come."""
    waits: dict[int, Wait] = {}
    owners: dict[Socket, int] = {}
    sends: list[Send] = []
    ends: list[T] = []

    def move(k: int, event: Event | None) -> None:
        try:
            waits[k] = wait = next(machines[k]) if event is None else machines[k].send(event)
        except StopIteration as end:
            waits.pop(k, None)
            ends.append(end.value)
        else:
            sends.extend(wait.sends)
            owners.update((send.socket, k) for send in wait.sends)

    for k in range(len(machines)):
        move(k, None)
    while waits:
        due, sends[:] = tuple(sends), []
        event = yield Wait(min(wait.until_ns for wait in waits.values()), due)
        if event.socket is None:
            for k in [k for k, wait in waits.items() if wait.until_ns <= event.at_ns]:
                move(k, event)
        elif owners.get(event.socket) in waits:
            move(owners[event.socket], event)
    return ends
