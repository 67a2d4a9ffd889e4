"""A transport's rows from loaded to finished: which are due, which went out and when, what was kept back.

In: rows that will be due. Out: what was started and finished since the last harvest. UDP and TCP put rows on the wire
differently; what they owe the recorder is the same, and stands here.
"""

from __future__ import annotations

import errno
import time
from bisect import bisect_left, bisect_right

import numpy as np

from probe.model import Phase
from probe.outcome import Counter, Outcome, UnsentCause
from probe.questions import Questions
from probe.transport.flight import Flight, Ints, unsent
from probe.transport.rows import EMPTY, NEVER, Channel, Due, Finished, Harvest, Started, joined, joined_starts, no_due


class Ledger:
    """Loaded rows stand in columns; [settled, cursor) have started, but are not in the flight table yet.

    slot, socket, query_id, octets, phase, source: int64 by loaded row, for the transport to fill in until settle().
    """

    def __init__(self, questions: Questions, random: np.random.Generator, *, connections: bool = False) -> None:
        self.flight = Flight(questions, random, connections=connections)
        self.timeout = EMPTY
        """By channel index, in ns."""
        self.counters = np.zeros((0, len(Counter)), np.int64)
        """By channel index: what is counted beside the outcomes, since the last harvest."""
        self.next_due = NEVER
        """When the next row that has not started is to be sent; NEVER if there is none."""
        self.rows = no_due()
        self.slot = self.socket = self.query_id = self.octets = self.phase = self.source = EMPTY
        self.finished: list[Finished] = []
        self._releases: list[int] = []
        self._earliest = EMPTY
        """By row: the earliest due instant of it and all that are sent after it."""
        self._settled = self._cursor = 0
        # of rows that were sent together: first and stop, one after the other; and when that began and ended
        self._bounds: list[int] = []
        self._instants: list[int] = []
        self._kept_back: dict[int, UnsentCause | int] = {}
        self._started: list[Started] = []

    def admit(self, channel: Channel) -> None:
        """Make room for a channel in the columns that go by channel."""
        grow = channel.index + 1 - len(self.timeout)
        if grow > 0:
            self.timeout = np.concatenate([self.timeout, np.zeros(grow, np.int64)])
            self.counters = np.concatenate([self.counters, np.zeros((grow, len(Counter)), np.int64)])
        self.timeout[channel.index] = channel.timeout_ns

    def load(
        self, rows: Due, slot: Ints, socket: Ints, query_id: Ints, octets: Ints, phase: Phase = Phase.NONE
    ) -> None:
        """Take the next rows; all earlier ones must have been settled."""
        self.rows, self.slot, self.socket, self.query_id, self.octets = rows, slot, socket, query_id, octets
        self.phase = np.full(len(rows.due), phase, np.int64)
        self.source = socket
        self._releases = rows.release.tolist()
        self._earliest = np.minimum.accumulate(rows.due[::-1])[::-1]
        self._settled = 0
        self._move_to(0)

    def _move_to(self, row: int) -> None:
        """All rows before this one have started."""
        self._cursor = row
        self.next_due = self._releases[row] if row < len(self._releases) else NEVER

    @property
    def started_until(self) -> int:
        """Every loaded row due before this instant has started; NEVER if all have.

        Not next_due: what is sent then was due up to a tick, or a burst, before.
        """
        return int(self._earliest[self._cursor]) if self._cursor < len(self._earliest) else NEVER

    @staticmethod
    def late(rows: Due, stall_ns: int) -> int:
        """How many rows, the first, due() will keep back at once for being late: they need no id."""
        return int(np.searchsorted(rows.release, time.monotonic_ns() - stall_ns))

    @staticmethod
    def instants(rows: Due) -> Ints | int:
        """About when rows are sent: those of closed loops from now on."""
        return time.monotonic_ns() if _are_closed(rows) else rows.due

    @property
    def unsettled(self) -> range:
        """Rows that have started and are not in the table yet."""
        return range(self._settled, self._cursor)

    def due(self, now: int, stall_ns: int, most: int = NEVER) -> range:
        """The rows to send now. Those late by more than stall_ns are kept back: a missed slot is never sent."""
        if self.next_due > now or self.next_due == NEVER:
            return range(0)
        i, releases = self._cursor, self._releases
        j = bisect_right(releases, now, i)
        if releases[i] < now - stall_ns:
            missed = bisect_left(releases, now - stall_ns, i, j)
            self._kept_back.update(dict.fromkeys(range(i, missed), UnsentCause.STALL))
            self._move_to(missed)
            i = missed
        return range(i, min(j, i + most))

    def sent(self, row: int, stop: int, began: int, ended: int) -> None:
        """Rows [row, stop) went out between two clock reads, evenly."""
        self._bounds += (row, stop)
        self._instants += (began, ended)
        self._move_to(stop)

    def keep_back(self, row: int, why: UnsentCause | int) -> None:
        """A row did not go out: through our own fault (a cause), or refused by this machine's network (-errno)."""
        self._kept_back[row] = why

    @property
    def kept_back(self) -> list[int]:
        """The unsettled rows that did not go out."""
        return list(self._kept_back)

    def settle(self) -> None:
        """Give each row started since the last time its send instant, and enter it in the flight table."""
        a, b = self._settled, self._cursor
        if a == b:
            return
        sent = self._sent_instants(a, b)
        rows = Due(*(column[a:b] for column in self.rows))
        columns = (self.slot, self.socket, self.query_id, self.octets, self.phase, self.source)
        slot, socket, query_id, octets, phase, source = (column[a:b] for column in columns)
        if _are_closed(rows):
            rows = rows._replace(due=np.where(sent > 0, sent, rows.due))
        started, gone, launched = Started(rows.series, rows.due, sent), rows, sent
        if self._kept_back:
            go = np.ones(b - a, np.bool_)
            go[[row - a for row in self._kept_back]] = False
            started = started._replace(sent=np.where(go, sent, 0))
            gone, launched = Due(*(column[go] for column in rows)), sent[go]
            slot, socket, query_id = slot[go], socket[go], query_id[go]
            octets, phase, source = octets[go], phase[go], source[go]
        self.flight.launch(slot, gone, launched, socket, query_id, self.timeout[gone.channel], phase, source)
        self.counters[:, Counter.SENT_OCTETS] += np.bincount(gone.channel, octets, len(self.timeout)).astype(np.int64)
        self._started.append(started)
        if self._kept_back:
            self._give_up(rows, sent)
        self._settled = b
        self._bounds.clear()
        self._instants.clear()

    def _sent_instants(self, a: int, b: int) -> Ints:
        """When rows [a, b) were sent: those of a batch evenly between its two clock reads. None were sent: 0."""
        if not self._bounds:
            return np.zeros(b - a, np.int64)
        # the first of a batch half a step after it began; doubles count from there, where they don't round yet
        origin = self._instants[0]
        middles = np.arange(a + 0.5, b)
        offsets = np.interp(middles, self._bounds, np.array(self._instants, np.int64) - origin)
        sent: Ints = offsets.astype(np.int64) + origin
        return sent

    def _give_up(self, rows: Due, sent: Ints) -> None:
        """Rows that did not go out: unsent with their cause, or refused by this machine's own network."""
        codes = np.array(list(self._kept_back.values()), np.int64)
        at = np.array(list(self._kept_back), np.int64) - self._settled
        self._kept_back.clear()
        network = codes < 0
        error = np.where(codes == -errno.ECONNREFUSED, Outcome.CONNECTION_REFUSED, Outcome.NETWORK_ERROR)
        finished = unsent(rows.due[at], rows.series[at], rows.question[at], np.maximum(codes, 0))
        self.finished.append(
            finished._replace(
                outcome=np.where(network, error, finished.outcome),
                errno=np.where(network, -codes, 0),
                sent=np.where(network, sent[at], 0),
            )
        )

    @property
    def in_flight(self) -> int:
        """Rows that have started and have no outcome yet."""
        return self.flight.in_flight + len(self.unsettled)

    def harvest(self) -> Harvest:
        """Everything since the last harvest; all that started is settled."""
        finished = joined([part for part in self.finished if len(part.due)])
        harvest = Harvest(joined_starts(self._started), finished, self.counters.copy())
        self.finished.clear()
        self._started.clear()
        self.counters[:] = 0
        return harvest

    def drop(self) -> None:
        """Forget the rows that have not started; what has must be settled."""
        self.load(no_due(), EMPTY, EMPTY, EMPTY, EMPTY)


def _are_closed(rows: Due) -> bool:
    """Whether these are rows of a closed loop: it is loaded apart from those that have a schedule."""
    return len(rows.due) > 0 and int(rows.due[0]) >= NEVER - 1
