"""What stands beside DNS: `connect` opens a TCP connection for each row, `http` asks it for a page; no DNS is said.

In: rows that will be due. Out: finished rows: an open connection is an answer, and so is status 200; another status is
a wrong answer. All else is as with DNS over TCP.
"""

from __future__ import annotations

import re

import numpy as np

from probe.outcome import Outcome
from probe.transport.flight import State
from probe.transport.tcp import Connection, Tcp

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")
_MOST = 64
"""Octets within which a status line has said its status (RFC 9112, 4)."""


class Connect(Tcp):
    """The transport `connect`."""

    def _alone(self, row: int, query_id: int) -> bytes:
        del row, query_id
        return b""

    def _opened(self, connection: Connection) -> None:
        super()._opened(connection)
        self._done(connection, Outcome.ANSWER)

    def _take_frames(self, connection: Connection) -> None:
        """What is said there, if anything, does not count."""
        connection.got.clear()

    def _done(self, connection: Connection, outcome: Outcome) -> None:
        """The row of an open connection has what it asked for."""
        if connection.is_open:
            found = self._ledger.flight.finish(self._waiting_on(connection), outcome, state=State.ANSWERED)
            self._ledger.finished.append(found._replace(received=np.full(len(found.due), connection.heard)))


class Http(Connect):
    """The transport `http`: GET, and the status alone is read."""

    def _alone(self, row: int, query_id: int) -> bytes:
        del query_id
        host = self._channels[int(self._ledger.rows.channel[row])].target.address
        path = self._questions[int(self._ledger.rows.question[row])].name
        return f"GET {path} HTTP/1.0\r\nHost: {f'[{host}]' if ':' in host else host}\r\n\r\n".encode()

    def _opened(self, connection: Connection) -> None:
        Tcp._opened(self, connection)

    def _take_frames(self, connection: Connection) -> None:
        if status := _STATUS.match(connection.got):
            self._done(connection, Outcome.ANSWER if status[1] == b"200" else Outcome.WRONG_ANSWER)
        elif len(connection.got) > _MOST:
            self._done(connection, Outcome.MALFORMED)
