"""Rows out, finished rows back: what every transport takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from probe.model import Ports, Target

READ_NS = 5_000_000
"""How often replies are read at the least."""
IDS = 65_536
"""A query's id has 16 bits (RFC 1035, 4.1.1)."""
NEVER = 1 << 62
"""An instant that does not come."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One lane towards one target: the unit that owns sockets. Rates in queries a second, all its series together.

    pair: rows of one number leave from one socket. gso: rows of one tick leave as bursts of so many. window: how many
    rows of a closed loop may be outstanding; 0 where rows have a schedule. paused: it is one with pauses: its rate is
    what it comes to at the most.
    """

    index: int
    target: Target
    ports: Ports
    rate: float
    timeout_ns: int
    pair: bool = False
    gso: int = 1
    window: int = 0
    paused: bool = False

    @property
    def most_at_once(self) -> int:
        """About how many of its rows are outstanding at the most."""
        return self.window or int(self.rate * self.timeout_ns / 1e9 * 1.05)

    def rows_each(self, sockets: int) -> int:
        """How many rows each of its sockets must have room for. Those of a closed loop may all be on one."""
        if self.window and not self.paused:
            return IDS
        return int(self.rate * self.timeout_ns / 1e9 * 2.2 / sockets) + 64 + self.window


class Due(NamedTuple):
    """Rows that will be due, int64[n] each; times are CLOCK_MONOTONIC ns.

    release: when the row is sent, ascending: its due instant, or the tick after it; rows of one release stand together
    by channel. token: see questions.CHANNEL_BITS.
    """

    due: NDArray[np.int64]
    series: NDArray[np.int64]
    question: NDArray[np.int64]
    channel: NDArray[np.int64]
    token: NDArray[np.int64]
    release: NDArray[np.int64]

    @classmethod
    def of(
        cls, due: NDArray[np.int64], series: NDArray[np.int64], question: NDArray[np.int64], channel: NDArray[np.int64]
    ) -> Due:
        """Rows that are sent the moment they are due, each the first of its series."""
        return cls(due, series, question, channel, channel, due)


class Finished(NamedTuple):
    """Rows that have their outcome, n of them. Times are CLOCK_MONOTONIC ns; received is 0 where there was no reply.

    cause is an UnsentCause where outcome is UNSENT, errno the error of a refused or failed row, phase a Phase,
    socket the row's place in the flight table, source what Transport.source_port() takes (-1: neither),
    connect_ns the time a TCP connection took to open (0: none), server which of Questions.servers answered (0: none).
    """

    series: NDArray[np.int64]
    question: NDArray[np.int64]
    due: NDArray[np.int64]
    sent: NDArray[np.int64]
    received: NDArray[np.int64]
    outcome: NDArray[np.int64]
    cause: NDArray[np.int64]
    errno: NDArray[np.int64]
    phase: NDArray[np.int64]
    socket: NDArray[np.int64]
    source: NDArray[np.int64]
    query_id: NDArray[np.int64]
    connect_ns: NDArray[np.int64]
    server: NDArray[np.int64]


class Started(NamedTuple):
    """Rows that came due since the last harvest, sent or not: what the recorder counts as planned."""

    series: NDArray[np.int64]
    due: NDArray[np.int64]
    sent: NDArray[np.int64]


class Harvest(NamedTuple):
    """What a transport hands over at each beat. counters: int64[channels, len(Counter)], increments."""

    started: Started
    finished: Finished
    counters: NDArray[np.int64]


class Transport(Protocol):
    """Puts rows on the wire when they are due and says what became of each. All times are CLOCK_MONOTONIC ns."""

    def open(self, channel: Channel) -> None:
        """Make sockets for a channel. EnvironmentProblem if that cannot be done at all."""

    def load(self, rows: Due) -> None:
        """Take the next rows, once all earlier ones are sent."""

    @property
    def next_due(self) -> int:
        """When the next loaded row is to be sent; NEVER if all are sent."""

    @property
    def started_until(self) -> int:
        """Every loaded row due before this instant has started; NEVER if all have."""

    def send(self, now: int, most: int = NEVER) -> int:
        """Send what is due at `now`, about `most` rows; how many. Rows late by more than the stall limit are UNSENT."""

    def read(self, now: int) -> None:
        """Take in replies and errors that wait; cheap when there are none."""

    @property
    def pending(self) -> int:
        """Replies taken in and not judged yet."""

    @property
    def in_flight(self) -> int:
        """Rows sent and without an outcome at the last harvest."""

    def settle(self) -> None:
        """Enter the rows sent so far in the table: harvest()'s first part, apart so that no single step takes long."""

    def harvest(self) -> Harvest:
        """Judge replies, expire rows, hand over everything since the last harvest. Call after read()."""

    def drop(self) -> None:
        """Forget loaded rows that are not sent yet. They were never due."""

    def retire(self, channel: int) -> None:
        """Close a channel's sockets: all its rows are done, and none will come."""

    def source_port(self, source: int) -> int:
        """The source port of a row in the last harvest, by its `source`; 0 if unknown."""

    read_every_ns: int
    """Replies that waited longer than this could overflow our own receive buffers."""

    stall_ns: int
    """Rows due longer ago than this are not sent any more."""

    def own_drops(self) -> NDArray[np.int64]:
        """Datagrams lost in our own receive buffers since the last call: int64[channels]."""

    def readable(self) -> int | None:
        """A file descriptor that turns readable when read() should be called at once; None if the beat suffices."""

    def facts(self) -> dict[str, str]:
        """What was granted: receive buffers, port ranges."""

    def another(self) -> Transport:
        """One of its kind with rows of its own; which ports were used lately both know."""

    def close(self) -> None:
        """Close every socket."""


EMPTY = np.empty(0, np.int64)


def no_due() -> Due:
    """Rows that will be due, none."""
    return Due(*([EMPTY] * len(Due._fields)))


def no_rows() -> Finished:
    """Finished rows, none."""
    return Finished(*([EMPTY] * len(Finished._fields)))


def joined(parts: list[Finished]) -> Finished:
    """All finished rows of several lots."""
    if not parts:
        return no_rows()
    if len(parts) == 1:
        return parts[0]
    return Finished(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def joined_starts(parts: list[Started]) -> Started:
    """All started rows of several lots."""
    return Started(*(np.concatenate(column) for column in zip(Started(EMPTY, EMPTY, EMPTY), *parts, strict=True)))
