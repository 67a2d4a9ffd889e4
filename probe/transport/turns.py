"""Rows that will be due -> which of a channel's sockets each leaves from, and which rows leave together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from probe.transport.flight import Ints, rank_within
from probe.transport.rows import EMPTY, Channel, Due

RUN = 64
"""At most so many rows of a tick leave from one source port, or on one connection, together."""


class Dealt(NamedTuple):
    """socket: of each row, -1 where its channel has none that stay; nth: how many rows dealt before it have that one.

    runs: where each run of rows that leave together begins, and where the last ends.
    """

    socket: Ints
    nth: Ints
    runs: Ints


class Turns:
    """The sockets of each channel, taken in turn. By channel index: count (0: none that stay), gso; int64."""

    def __init__(self) -> None:
        self._first = self._turn = self._most = self.count = self.gso = EMPTY

    def admit(self, channel: Channel, first: int, count: int) -> None:
        """A channel's sockets: `count` from number `first` on."""
        new = np.zeros(max(0, channel.index + 1 - len(self.count)), np.int64)
        self._first, self._turn = np.append(self._first, new), np.append(self._turn, new)
        self._most = np.append(self._most, new)
        self.count, self.gso = np.append(self.count, new), np.append(self.gso, new + 1)
        self._first[channel.index], self.count[channel.index], self.gso[channel.index] = first, count, channel.gso
        most = channel.gso if channel.gso > 1 else RUN
        self._most[channel.index] = min(most, max(1, channel.window // 4)) if channel.window else most

    def sockets(self, channel: int) -> range:
        """The numbers of a channel's sockets."""
        first = int(self._first[channel])
        return range(first, first + int(self.count[channel]))

    def deal(self, rows: Due, octets: Ints) -> Dealt:
        """Put rows in runs, and runs on sockets: rows of one channel and release, at most RUN or a burst of one length.

        Runs of a closed loop are at most a quarter of what may be outstanding.
        """
        n, channel = len(rows.due), rows.channel
        gso = self.gso[channel]
        breaks = np.ones(n + 1, np.bool_)
        breaks[1:n] = (rows.release[1:] != rows.release[:-1]) | (channel[1:] != channel[:-1])
        if (gso > 1).any():
            breaks[1:n] |= (gso[1:] > 1) & (octets[1:] != octets[:-1])
        begins = np.flatnonzero(breaks[:n])
        nth = np.arange(n) - np.repeat(begins, np.diff(np.append(begins, n)))
        breaks[:n] |= nth % self._most[channel] == 0
        runs = np.flatnonzero(breaks)
        begins, lengths = runs[:-1], np.diff(runs)
        mine = channel[begins]
        count, turn = self.count[mine], self._turn[mine] + rank_within(mine)
        np.add.at(self._turn, mine, np.int64(1))
        each = np.where(count > 0, self._first[mine] + turn % np.maximum(count, 1), -1)
        order = np.argsort(each, kind="stable")
        before = np.empty_like(each)
        before[order] = _since_first(lengths[order], each[order])
        nth = np.arange(n) - np.repeat(begins - before, lengths)
        return Dealt(np.repeat(each, lengths), nth, runs)


def _since_first(lengths: Ints, groups: Ints) -> Ints:
    """The sum of the lengths before each within its group; groups stand together."""
    before = np.cumsum(lengths) - lengths
    first = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]]))
    out: Ints = before - np.repeat(before[first], np.diff(np.append(first, len(groups))))
    return out
