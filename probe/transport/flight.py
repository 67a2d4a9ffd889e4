"""Rows in flight: ids given out, replies matched to rows, rows expired in the order in which they were sent.

In: sockets and the rows sent on them. Out: finished rows. One table of numpy columns for all sockets of a transport.

Each socket owns a ring of slots (a power of two, at most 65,536). Its k-th row has the id `permutation[(k + offset)
mod 65536]` and the slot `k mod ring`; so an id is taken again only after 65,536 rows of that socket, and a reply's id
leads back to k and to the slot. A finished row stays in its slot until the ring comes round: late and duplicate
replies find it there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probe.outcome import Counter, Outcome
from probe.questions import Questions
from probe.transport.rows import EMPTY, Due, Finished, no_rows

IDS = 65_536
QUARANTINE = 2
"""An id, and a slot, rests for this many timeouts before the same socket uses it again, from due to due."""
ROUNDING_NS = 1000

Ints = NDArray[np.int64]


class State(IntEnum):
    """What a slot holds."""

    FREE = 0
    PENDING = 1
    ANSWERED = 2
    EXPIRED = 3
    NEVER = 4


class Replies(NamedTuple):
    """Replies taken in: head uint8[n, >= questions.width], lengths, socket, received (CLOCK_MONOTONIC ns) int64[n].

    reply: all octets of the i-th.
    """

    head: NDArray[np.uint8]
    lengths: Ints
    socket: Ints
    received: Ints
    reply: Callable[[int], bytes]


class Flight:
    """The table: sockets are added; rows are reserved, launched, and finish by reply, error or expiry."""

    def __init__(self, questions: Questions, random: np.random.Generator) -> None:
        self._questions = questions
        self._random = random
        self.ids_of = random.permutation(IDS).astype(np.int32)
        self._k_of = np.argsort(self.ids_of).astype(np.int32)
        self.sockets = 0
        self._base, self._mask, self._offset = EMPTY.copy(), EMPTY.copy(), EMPTY.copy()
        self._next, self.channel_of = EMPTY.copy(), EMPTY.copy()
        self._slots = 0
        self._state = np.zeros(0, np.int8)
        self._columns: dict[str, Ints] = {name: EMPTY.copy() for name in _COLUMNS}
        self._queues: dict[int, deque[tuple[Ints, Ints, Ints]]] = {}
        self._rows = 0
        self.in_flight = 0

    def column(self, name: str) -> Ints:
        """A column of the table, by slot: one of _COLUMNS."""
        return self._columns[name]

    def add_sockets(self, count: int, channel: int, rows_each: int) -> int:
        """Rings of at least rows_each slots for `count` new sockets of a channel; the index of the first."""
        ring = min(IDS, 1 << max(0, (rows_each - 1).bit_length()))
        first = self.sockets
        self.sockets += count
        base = self._slots + ring * np.arange(count, dtype=np.int64)
        offset = self._random.integers(0, IDS, count)
        self._base, self._mask = np.append(self._base, base), np.append(self._mask, np.full(count, ring - 1))
        self._offset, self._next = np.append(self._offset, offset), np.append(self._next, np.zeros(count, np.int64))
        self.channel_of = np.append(self.channel_of, np.full(count, channel))
        self._slots += ring * count
        if self._slots > len(self._state):
            room = max(self._slots, 2 * len(self._state)) - len(self._state)
            self._state = np.concatenate([self._state, np.zeros(room, np.int8)])
            for name, column in self._columns.items():
                self._columns[name] = np.concatenate([column, np.zeros(room, np.int64)])
        return first

    def reserve(self, sockets: Ints, nth: Ints, due: Ints, rests: Ints | int = State.ANSWERED) -> tuple[Ints, Ints]:
        """Slots and ids for rows on these sockets, `nth` counting the rows of this call on the same socket from 0.

        Slot -1 where the slot is not yet free again: the row must stay unsent. rests: the first State in which a slot
        rests: ANSWERED; EXPIRED, where nothing comes twice; NEVER, where another port is taken first.
        """
        k = (self._next[sockets] + nth) & (IDS - 1)
        slots = self._base[sockets] + (k & self._mask[sockets])
        ids = self.ids_of[(k + self._offset[sockets]) & (IDS - 1)]
        np.add.at(self._next, sockets, _ONE)
        state = self._state[slots]
        rested = self._columns["due"][slots] + QUARANTINE * self._columns["timeout"][slots] <= due + ROUNDING_NS
        over = (state != _PENDING) & (rested | (state < rests))
        usable = (nth <= self._mask[sockets]) & ((state == State.FREE) | over)
        self._columns["k"][slots[usable]] = k[usable]
        return np.where(usable, slots, -1), ids

    def reserve_one(self, socket: int) -> tuple[int, int]:
        """As reserve(), for one row of a socket that carries one row at a time: slot and id."""
        k = int(self._next[socket])
        self._next[socket] = k + 1
        k %= IDS
        slot = int(self._base[socket]) + (k & int(self._mask[socket]))
        self._columns["k"][slot] = k
        return slot, int(self.ids_of[(k + int(self._offset[socket])) % IDS])

    def launch(
        self, slots: Ints, rows: Due, sent: Ints, socket: Ints, timeout: Ints, phase: Ints | int, source: Ints
    ) -> None:
        """Rows are on the wire, or on their way there (phase); `sent` ascending. They expire at sent + timeout."""
        n = len(slots)
        if not n:
            return
        numbers = self._rows + np.arange(n, dtype=np.int64)
        self._rows += n
        values = (rows.due, sent, rows.series, rows.question, rows.token, socket, timeout, numbers)
        self._state[slots] = State.PENDING
        for name, value in zip(_COLUMNS, values, strict=False):
            self._columns[name][slots] = value
        self._columns["connect"][slots] = 0
        self._columns["phase"][slots] = phase
        self._columns["source"][slots] = source
        self.in_flight += n
        first = int(timeout[0])
        if (timeout == first).all():
            self._queues.setdefault(first, deque()).append((sent + first, slots, numbers))
            return
        for each in np.unique(timeout).tolist():
            mine = timeout == each
            self._queues.setdefault(each, deque()).append((sent[mine] + each, slots[mine], numbers[mine]))

    def is_pending(self, slot: int) -> bool:
        """Whether the slot's row still waits."""
        return bool(self._state[slot] == _PENDING)

    def pending(self, slots: Ints) -> Ints:
        """Those of the slots whose rows still wait."""
        waiting: Ints = slots[self._state[slots] == State.PENDING]
        return waiting

    def slots_of(self, sockets: Ints, ids: Ints) -> Ints:
        """The slot of each id on its socket, -1 where that id is not of a row there."""
        k = (self._k_of[ids] - self._offset[sockets]) & (IDS - 1)
        slots = self._base[sockets] + (k & self._mask[sockets])
        known = (self._columns["k"][slots] == k) & (self._state[slots] != State.FREE)
        return np.where(known, slots, -1)

    def settle(self, replies: Replies, counters: Ints) -> Finished:
        """Match replies to rows and judge them. counters int64[channels, len(Counter)] takes what is not an outcome."""
        head, lengths, sockets = replies.head, replies.lengths, replies.socket
        columns = self._columns
        ids = (head[:, 0].astype(np.int64) << 8) | head[:, 1]
        slots = self.slots_of(sockets, ids)
        channels = self.channel_of[sockets]
        verdicts = self._questions.classify(
            head, lengths, columns["question"][slots], columns["token"][slots], channels, replies.reply
        )
        fits = (slots >= 0) & verdicts.matched & (lengths >= 12)
        server = verdicts.server
        outcome, received = verdicts.outcome.astype(np.int64), replies.received
        if not fits.all():
            count(counters, Counter.UNMATCHED, channels[~fits])
            slots, channels, outcome, received = slots[fits], channels[fits], outcome[fits], received[fits]
            lengths, server = lengths[fits], server[fits]
        order = np.arange(len(slots))
        columns["mark"][slots[::-1]] = order[::-1]
        state = self._state[slots]
        expired = columns["sent"][slots] + columns["timeout"][slots]
        late = (state == State.EXPIRED) | ((state == State.PENDING) & (received > expired))
        good = (columns["mark"][slots] == order) & (state == State.PENDING) & ~late
        if not good.all():
            count(counters, Counter.LATE, channels[late])
            count(counters, Counter.DUPLICATE, channels[~late & ~good])
            slots, channels, outcome, received = slots[good], channels[good], outcome[good], received[good]
            lengths, server = lengths[good], server[good]
        if verdicts.truncated_with_answer.any():
            cut = verdicts.truncated_with_answer[fits][good]
            count(counters, Counter.TRUNCATED_WITH_ANSWER, channels[cut])
        counters[:, Counter.RECEIVED_OCTETS] += np.bincount(channels, lengths, len(counters)).astype(np.int64)
        return self.finish(slots, outcome, received, state=State.ANSWERED, server=server)

    def expire(self, cutoff: int) -> Finished:
        """Rows whose timeout had passed at `cutoff` are timeouts. All replies that came before it must be settled."""
        slots = []
        for queue in self._queues.values():
            while queue and queue[0][0][0] <= cutoff:
                until, each, rows = queue.popleft()
                n = int(np.searchsorted(until, cutoff, "right"))
                if n < len(until):
                    queue.appendleft((until[n:], each[n:], rows[n:]))
                mine = (self._columns["row"][each[:n]] == rows[:n]) & (self._state[each[:n]] == State.PENDING)
                slots.append(each[:n][mine])
        return self.finish(np.concatenate(slots), Outcome.TIMEOUT, 0) if slots else no_rows()

    def waiting(self, socket: int) -> Ints:
        """The slots of the socket's rows that still wait, oldest first."""
        ring = slice(int(self._base[socket]), int(self._base[socket]) + int(self._mask[socket]) + 1)
        found = np.flatnonzero(self._state[ring] == _PENDING) + ring.start
        return found[np.argsort(self._columns["row"][found])]

    def finish(
        self,
        slots: Ints,
        outcome: Ints | int,
        received: Ints | int,
        *,
        state: State = State.EXPIRED,
        errno: int = 0,
        server: Ints | int = 0,
    ) -> Finished:
        """These rows are done. errno is the same for all of them."""
        n = len(slots)
        self._state[slots] = state
        self.in_flight -= n
        columns = self._columns
        socket = columns["socket"][slots]
        return Finished(
            series=columns["series"][slots],
            question=columns["question"][slots],
            due=columns["due"][slots],
            sent=columns["sent"][slots],
            received=np.full(n, received, np.int64),
            outcome=np.full(n, outcome, np.int64),
            cause=np.zeros(n, np.int64),
            errno=np.full(n, errno, np.int64),
            phase=columns["phase"][slots],
            socket=socket,
            source=columns["source"][slots],
            query_id=self.ids_of[(columns["k"][slots] + self._offset[socket]) & (IDS - 1)].astype(np.int64),
            connect_ns=columns["connect"][slots],
            server=np.full(n, server, np.int64),
        )


def rank_within(groups: Ints) -> Ints:
    """For each element, how many equal ones stand before it: [7, 7, 3, 7] -> [0, 1, 0, 2]."""
    if not len(groups) or (groups == groups[0]).all():
        return np.arange(len(groups), dtype=np.int64)
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))
    return ranks


def count(counters: Ints, counter: Counter, channels: Ints) -> None:
    """Add one to the counter for each channel named."""
    counters[:, counter] += np.bincount(channels, minlength=len(counters))


_COLUMNS = (
    "due", "sent", "series", "question", "token", "socket", "timeout", "row", "connect", "phase", "source", "k", "mark",
)  # fmt: skip
_ONE = np.int64(1)
_PENDING = int(State.PENDING)


def unsent(due: Ints, series: Ints, question: Ints, cause: Ints) -> Finished:
    """Rows that were due and not sent, with their causes."""
    n = len(due)
    zeros = np.zeros(n, np.int64)
    return Finished(
        series=series,
        question=question,
        due=due,
        sent=zeros,
        received=zeros,
        outcome=np.full(n, Outcome.UNSENT),
        cause=cause,
        errno=zeros,
        phase=zeros,
        socket=np.full(n, -1),
        source=np.full(n, -1),
        query_id=zeros,
        connect_ns=zeros,
        server=zeros,
    )
