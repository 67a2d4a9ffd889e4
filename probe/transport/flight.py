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
from probe.transport.rows import EMPTY, IDS, Due, Finished, no_rows

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
    """The table: sockets are added; rows are reserved, launched, and finish by reply, error or expiry.

    connections: whether rows have a phase and a source of their own, and the time it took to connect.
    """

    def __init__(self, questions: Questions, random: np.random.Generator, *, connections: bool = False) -> None:
        self._questions = questions
        self._random = random
        self.ids_of = random.permutation(IDS).astype(np.int32)
        self._k_of = np.argsort(self.ids_of).astype(np.int32)
        self.sockets = 0
        self._base, self._mask, self._offset = EMPTY.copy(), EMPTY.copy(), EMPTY.copy()
        self._next, self.channel_of = EMPTY.copy(), EMPTY.copy()
        self._slots = 0
        self._state = np.zeros(0, np.int8)
        self._connections = connections
        names = _COLUMNS + (_OF_CONNECTIONS if connections else ())
        self._columns: dict[str, Ints] = {name: EMPTY.copy() for name in names}
        self._queues: dict[int, deque[tuple[Ints, Ints]]] = {}
        self.in_flight = 0

    def column(self, name: str) -> Ints:
        """A column of the table, by slot: one of _COLUMNS, or of _OF_CONNECTIONS where there are any."""
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

    def reserve(self, socket: Ints, lengths: Ints, due: Ints | int, rests: Ints | int) -> tuple[Ints, Ints]:
        """Slots and ids for the rows of runs, one after the other: each run has its socket, and so many rows.

        Slot -1 where the slot is not yet free again: the row must stay unsent; and where the run has no socket, -1.
        rests, of each run: the first State in which a slot rests: ANSWERED; EXPIRED, where nothing comes twice; NEVER,
        where another port is taken first.
        """
        n = int(lengths.sum())
        if not self.sockets:
            return np.full(n, -1), np.zeros(n, np.int64)
        before = rank_within(socket, lengths)
        first = self._next[socket] + before
        np.add.at(self._next, socket, np.where(socket < 0, 0, lengths))
        # what each row adds to these: how many of its run stand before it
        nth = np.arange(n) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        k = (np.repeat(first, lengths) + nth) & (IDS - 1)
        mask = np.repeat(self._mask[socket], lengths)
        slots = np.repeat(self._base[socket], lengths) + (k & mask)
        ids = self.ids_of[(k + np.repeat(self._offset[socket], lengths)) & (IDS - 1)].astype(np.int64)
        state = self._state[slots]
        usable = (self._columns["rest"][slots] <= due + ROUNDING_NS) & (state != _PENDING)
        if not usable.all():
            over = state < np.repeat(np.broadcast_to(rests, len(socket)), lengths)
            usable = (usable | over) & (state != _PENDING)
        if (before + lengths > self._mask[socket] + 1).any():
            usable &= np.repeat(before, lengths) + nth <= mask
        if (socket < 0).any():
            without = np.repeat(socket < 0, lengths)
            usable &= ~without
            ids[without] = 0
        if not usable.all():
            self._columns["k"][slots[usable]] = k[usable]
            return np.where(usable, slots, -1), ids
        self._columns["k"][slots] = k
        return slots, ids

    def reserve_one(self, socket: int) -> tuple[int, int]:
        """As reserve(), for one row of a socket that carries one row at a time: slot and id."""
        k = int(self._next[socket])
        self._next[socket] = k + 1
        k %= IDS
        slot = int(self._base[socket]) + (k & int(self._mask[socket]))
        self._columns["k"][slot] = k
        return slot, int(self.ids_of[(k + int(self._offset[socket])) % IDS])

    def launch(
        self,
        slots: Ints,
        rows: Due,
        sent: Ints,
        socket: Ints,
        query_id: Ints,
        timeout: Ints,
        phase: Ints | int = 0,
        source: Ints | int = 0,
    ) -> None:
        """Rows are on the wire, or on their way there (phase); `sent` ascending. They expire at sent + timeout."""
        n = len(slots)
        if not n:
            return
        until = sent + timeout
        columns = self._columns
        self._state[slots] = _PENDING
        columns["due"][slots] = rows.due
        columns["sent"][slots] = sent
        columns["series"][slots] = rows.series
        columns["question"][slots] = rows.question
        if self._questions.have_labels:
            columns["token"][slots] = rows.token
        columns["socket"][slots] = socket
        columns["id"][slots] = query_id
        columns["until"][slots] = until
        columns["rest"][slots] = rows.due + QUARANTINE * timeout
        if self._connections:
            columns["connect"][slots] = 0
            columns["phase"][slots] = phase
            columns["source"][slots] = source
        self.in_flight += n
        first = int(timeout[0])
        if (timeout == first).all():
            self._queues.setdefault(first, deque()).append((until, slots))
            return
        for each in np.unique(timeout).tolist():
            mine = timeout == each
            self._queues.setdefault(each, deque()).append((until[mine], slots[mine]))

    def is_pending(self, slot: int) -> bool:
        """Whether the slot's row still waits."""
        return bool(self._state[slot] == _PENDING)

    def slots_of(self, sockets: Ints, ids: Ints) -> Ints:
        """The slot of each id on its socket, -1 where that id is not of a row there."""
        k = (self._k_of[ids] - self._offset[sockets]) & (IDS - 1)
        slots = self._base[sockets] + (k & self._mask[sockets])
        known = (self._columns["k"][slots] == k) & (self._state[slots] != State.FREE)
        return np.where(known, slots, -1)

    def settle(self, replies: Replies, counters: Ints) -> Finished:
        """Match replies to rows and judge them. counters int64[channels, len(Counter)] takes what is not an outcome."""
        head, lengths, sockets, received = replies.head, replies.lengths, replies.socket, replies.received
        columns = self._columns
        ids = head[:, :2].view(">u2")[:, 0].astype(np.int64)
        k = (self._k_of[ids] - self._offset[sockets]) & (IDS - 1)
        slots = self._base[sockets] + (k & self._mask[sockets])
        question, state = columns["question"][slots], self._state[slots]
        channels = self.channel_of[sockets]
        tokens = columns["token"][slots] if self._questions.have_labels else EMPTY
        verdicts = self._questions.classify(head, lengths, question, tokens, channels, replies.reply)
        outcome, server = verdicts.outcome.astype(np.int64), verdicts.server
        known = (columns["k"][slots] == k) & verdicts.matched
        good = known & (received <= columns["until"][slots]) & (state == _PENDING)
        order = np.arange(len(slots), dtype=np.int64)
        columns["mark"][slots] = order
        if not (good.all() and (columns["mark"][slots] == order).all()):
            fits = known & (state != State.FREE)
            count(counters, Counter.UNMATCHED, channels[~fits])
            # the first of several replies to one row is the one that counts
            columns["mark"][slots[fits][::-1]] = order[fits][::-1]
            late = fits & ~good & (state != State.ANSWERED)
            good &= fits & (columns["mark"][slots] == order)
            count(counters, Counter.LATE, channels[late])
            count(counters, Counter.DUPLICATE, channels[fits & ~late & ~good])
            slots, channels, outcome, received = slots[good], channels[good], outcome[good], received[good]
            lengths, server, sockets = lengths[good], server[good], sockets[good]
            ids, question = ids[good], question[good]
        if verdicts.truncated_with_answer.any():
            cut = verdicts.truncated_with_answer & good
            count(counters, Counter.TRUNCATED_WITH_ANSWER, self.channel_of[replies.socket[cut]])
        counters[:, Counter.RECEIVED_OCTETS] += np.bincount(channels, lengths, len(counters)).astype(np.int64)
        return self._finished(slots, State.ANSWERED, outcome, received, sockets, ids, question)._replace(server=server)

    def expire(self, cutoff: int) -> Finished:
        """Rows whose timeout had passed at `cutoff` are timeouts. All replies that came before it must be settled."""
        slots = []
        for queue in self._queues.values():
            while queue and queue[0][0][0] <= cutoff:
                until, rows = queue.popleft()
                if until[-1] > cutoff:
                    n = int(np.searchsorted(until, cutoff, "right"))
                    queue.appendleft((until[n:], rows[n:]))
                    until, rows = until[:n], rows[:n]
                waiting = self._state[rows] == _PENDING
                if waiting.any():
                    slots.append(rows[waiting & (self._columns["until"][rows] == until)])
        return self.finish(np.concatenate(slots), Outcome.TIMEOUT) if slots else no_rows()

    def waiting(self, socket: int) -> Ints:
        """The slots of the socket's rows that still wait, oldest first."""
        ring = slice(int(self._base[socket]), int(self._base[socket]) + int(self._mask[socket]) + 1)
        found = np.flatnonzero(self._state[ring] == _PENDING) + ring.start
        return found[np.argsort(self._columns["until"][found], kind="stable")]

    def finish(self, slots: Ints, outcome: Outcome, *, state: State = State.EXPIRED, errno: int = 0) -> Finished:
        """These rows are done, without a reply."""
        columns, n = self._columns, len(slots)
        found = self._finished(
            slots,
            state,
            np.full(n, outcome, np.int64),
            np.zeros(n, np.int64),
            columns["socket"][slots],
            columns["id"][slots],
            columns["question"][slots],
        )
        return found._replace(errno=np.full(n, errno, np.int64)) if errno else found

    def _finished(
        self, slots: Ints, state: State, outcome: Ints, received: Ints, socket: Ints, query_id: Ints, question: Ints
    ) -> Finished:
        """Take rows out of flight."""
        self._state[slots] = state
        n = len(slots)
        self.in_flight -= n
        columns, zeros = self._columns, np.zeros(n, np.int64)
        of_connections = [columns[name][slots] if self._connections else None for name in _OF_CONNECTIONS]
        connect, phase, source = of_connections
        return Finished(
            series=columns["series"][slots],
            question=question,
            due=columns["due"][slots],
            sent=columns["sent"][slots],
            received=received,
            outcome=outcome,
            cause=zeros,
            errno=zeros,
            phase=zeros if phase is None else phase,
            socket=socket,
            source=socket if source is None else source,
            query_id=query_id,
            connect_ns=zeros if connect is None else connect,
            server=zeros,
        )


def rank_within(groups: Ints, weights: Ints | None = None) -> Ints:
    """For each element, how many equal ones stand before it, or their weights: [7, 7, 3, 7] -> [0, 1, 0, 2]."""
    n = len(groups)
    if not n or (groups == groups[0]).all():
        return np.arange(n, dtype=np.int64) if weights is None else np.cumsum(weights) - weights
    if np.bincount(groups - groups.min()).max() == 1:
        return np.zeros(n, np.int64)
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    if weights is None:
        before = np.arange(n, dtype=np.int64)
    else:
        weights = weights[order]
        before = np.cumsum(weights) - weights
    ranks = np.empty(n, np.int64)
    ranks[order] = before - np.repeat(before[starts], np.diff(starts, append=n))
    return ranks


def count(counters: Ints, counter: Counter, channels: Ints) -> None:
    """Add one to the counter for each channel named."""
    counters[:, counter] += np.bincount(channels, minlength=len(counters))


_COLUMNS = ("due", "sent", "series", "question", "token", "socket", "id", "until", "rest", "k", "mark")
"""until: when the row expires; rest: until when its id rests; k: which row of its socket it is; mark: see settle()."""
_OF_CONNECTIONS = ("connect", "phase", "source")
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
