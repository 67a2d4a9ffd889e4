"""Rows that will be due -> which of a channel's sockets each leaves from, and which rows leave together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from probe.transport.flight import Ints, rank_within
from probe.transport.rows import EMPTY, Channel, Due

RUN = 64
"""At most so many rows of a tick leave from one source port, or on one connection, together."""


class Runs(NamedTuple):
    """Rows in runs that leave together, one after the other.

    first: where each begins, and where the last ends, int64[r + 1]; socket: which it leaves from, int64[r], -1 where
    that is seen when it leaves, or where it comes too late.
    """

    first: Ints
    socket: Ints

    @property
    def lengths(self) -> Ints:
        """How many rows each run has."""
        return self.first[1:] - self.first[:-1]

    def broken(self, rows: Ints) -> Runs:
        """The same, with each of these rows in a run of its own."""
        first = np.union1d(self.first, np.concatenate([rows, rows + 1]))
        return Runs(first, self.socket[np.searchsorted(self.first, first[:-1], "right") - 1])


class Turns:
    """The sockets of each channel, taken in turn. By channel index: count (0: none that stay), gso; int64."""

    def __init__(self) -> None:
        self._first = self._turn = self._most = self.count = self.gso = EMPTY
        self.has_bursts = False

    def admit(self, channel: Channel, first: int, count: int) -> None:
        """A channel's sockets: `count` from number `first` on."""
        new = np.zeros(max(0, channel.index + 1 - len(self.count)), np.int64)
        self._first, self._turn = np.append(self._first, new), np.append(self._turn, new)
        self._most = np.append(self._most, new)
        self.count, self.gso = np.append(self.count, new), np.append(self.gso, new + 1)
        self._first[channel.index], self.count[channel.index], self.gso[channel.index] = first, count, channel.gso
        self.has_bursts = self.has_bursts or channel.gso > 1
        most = channel.gso if channel.gso > 1 else RUN
        self._most[channel.index] = min(most, max(1, channel.window // 4)) if channel.window else most

    def sockets(self, channel: int) -> range:
        """The numbers of a channel's sockets."""
        first = int(self._first[channel])
        return range(first, first + int(self.count[channel]))

    def deal(self, rows: Due, octets: Ints, late: int = 0) -> Runs:
        """Put rows in runs, and runs on sockets: rows of one channel and release, at most RUN or a burst of one length.

        Runs of a closed loop are at most a quarter of what may be outstanding. Rows of channels without sockets that
        stay are runs of their own. The first `late` rows will not be sent.
        """
        n, channel = len(rows.due), rows.channel
        breaks = np.ones(n + 1, np.bool_)
        inner = breaks[1:n]
        np.not_equal(rows.release[1:], rows.release[:-1], out=inner)
        if len(self.count) > 1:
            inner |= channel[1:] != channel[:-1]
            inner |= self.count[channel[1:]] == 0
        elif not self.count[0]:
            inner[:] = True
        if self.has_bursts:
            inner |= (self.gso[channel[1:]] > 1) & (octets[1:] != octets[:-1])
        if late:
            breaks[1:late] = False
            breaks[late] = True
        bounds = np.flatnonzero(breaks)
        first, lengths = bounds[:-1], bounds[1:] - bounds[:-1]
        most = self._most[channel[first]]
        if (lengths > most).any():
            pieces = -(-lengths // most)
            nth = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
            first = np.repeat(first, pieces) + nth * np.repeat(most, pieces)
            bounds = np.append(first, n)
        mine = channel[first]
        count = self.count[mine]
        socket = self._first[mine] + (self._turn[mine] + rank_within(mine)) % np.maximum(count, 1)
        socket[(count == 0) | (first < late)] = -1
        np.add.at(self._turn, mine, np.int64(1))
        return Runs(bounds, socket)
