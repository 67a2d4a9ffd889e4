"""DNS over TCP (RFC 7766): `fresh` opens a connection for each query, `reused` pipelines all on one, `pool:K` on K.

A lost connection is reopened when the next row is due.

In: rows that will be due. Out: finished rows, with the time the connection took apart. A row's timeout covers
connecting and waiting; its phase says where it was. Connections that carry more than a query have TCP_NODELAY, and
TCP_QUICKACK armed again after each read: without them small batches stall on delayed acknowledgements.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np

from probe.host import wall_offset_ns
from probe.linux import SO_TIMESTAMPNS, ask_for_stamps
from probe.model import Phase
from probe.outcome import Counter, Outcome, UnsentCause
from probe.questions import CHANNEL_BITS, Questions
from probe.transport.flight import Ints, Replies, State, count
from probe.transport.ledger import Ledger
from probe.transport.ports import FRESH_PLACES, FRESH_RING, OURS, Unsent, address_of, bind_in_half, half_of_ports
from probe.transport.rows import NEVER, READ_NS, Channel, Due, Finished, Harvest, no_rows
from probe.transport.turns import Turns

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_CHUNK = 1 << 18
_ANCILLARY = 64
_PROGRESS = (0, errno.EINPROGRESS)
_ANSWER = int(Phase.ANSWER)
_HUNG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_WATCHED = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class _Life(Enum):
    CONNECTING = auto()
    OPEN = auto()
    CLOSED = auto()


_CONNECTING, _OPEN, _CLOSED = _Life


@dataclass(slots=True)
class Connection:
    """One TCP connection. `place` is its socket number in the flight table, `serial` its own.

    queue: rows, as slot and frame, that wait for it to open; out: octets that wait for the kernel to take them.
    number: of the last row in its series, for the other one of a pair. rows: of a fresh one, that are not done yet.
    """

    channel: Channel
    place: int
    serial: int
    sock: socket.socket
    began: int
    life: _Life = _CONNECTING
    queue: list[tuple[int, bytes]] = field(default_factory=list)
    out: bytearray = field(default_factory=bytearray)
    got: bytearray = field(default_factory=bytearray)
    heard: int = 0
    number: int = -1
    rows: int = 0

    @property
    def is_open(self) -> bool:
        """It was accepted, and has not ended."""
        return self.life is _OPEN


class Tcp:
    """The transport `tcp`: one flight table and one epoll set for all its connections."""

    def __init__(self, questions: Questions, random: np.random.Generator, buffer: int) -> None:
        self.stall_ns = 50_000_000
        self.read_every_ns = READ_NS
        self._questions, self._random, self._asked_buffer = questions, random, buffer
        self._ledger = Ledger(questions, random, connections=True)
        self._channels: dict[int, Channel] = {}
        self._families: dict[int, int] = {}
        self._halves: dict[int, tuple[int, int]] = {}
        self._turns = Turns()
        self._idle: dict[int, list[int]] = {}
        self._last: dict[int, Connection] = {}
        # loaded rows, in runs that leave together, and their frames back to back
        self._frames = b""
        self._begins: list[int] = []
        self._runs: list[tuple[int, int]] = []
        self._next_run = 0
        # by place in the flight table, by file descriptor, by serial
        self._connections: dict[int, Connection] = {}
        self._by_fd: dict[int, Connection] = {}
        self._serials = 0
        self._ports: dict[int, int] = {}
        self._closed: deque[tuple[int, int]] = deque()
        self._spent = no_rows()
        self._epoll = select.epoll()
        # what came in
        self._offset = wall_offset_ns()
        self._got: list[tuple[int, int, int, bytes]] = []
        self._begins_of: list[int] = []
        self._lengths_of: list[int] = []
        self._octets = 0
        self._events: list[tuple[Connection, Outcome, int]] = []
        self._read_at = 0

    # -- connections

    def open(self, channel: Channel) -> None:
        self._families[channel.index], _ = address_of(channel.target)
        self._halves[channel.index] = half_of_ports(channel.target.kind)
        self._ledger.admit(channel)
        self._channels[channel.index] = channel
        if channel.ports.policy == "fresh":
            self._idle[channel.index] = []
            self._turns.admit(channel, 0, 0)
            return
        count = channel.ports.count
        first = self._ledger.flight.add_sockets(count, channel.index, channel.rows_each(count))
        self._turns.admit(channel, first, count)

    def _connect(self, channel: Channel, place: int) -> Connection:
        """Begin to connect. OSError or Unsent if there is no socket or port to be had."""
        now = time.monotonic_ns()
        kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        sock = socket.socket(self._families[channel.index], kind)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            if channel.index not in self._idle:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ask_for_stamps(sock)
            bind_in_half(sock, *self._halves[channel.index])
            code = sock.connect_ex((channel.target.address, channel.target.port))
            if code == errno.EADDRNOTAVAIL:
                raise Unsent(UnsentCause.PORTS)
            if code in OURS:
                raise OSError(code, "connect")
        except (OSError, Unsent):
            sock.close()
            raise
        self._serials += 1
        connection = Connection(channel, place, self._serials, sock, now)
        self._ports[connection.serial] = sock.getsockname()[1]
        self._connections[place] = connection
        if code in _PROGRESS:
            self._by_fd[sock.fileno()] = connection
            self._epoll.register(sock.fileno(), _WATCHED)
        else:
            self._events.append((connection, _outcome_of(code), code))
        return connection

    def _close(self, connection: Connection) -> None:
        """Let go of a connection; its rows that still wait expire in their own time."""
        if connection.life is _CLOSED:
            return
        connection.life = _CLOSED
        self._by_fd.pop(connection.sock.fileno(), None)
        connection.sock.close()
        self._closed.append((self._read_at + 2 * connection.channel.timeout_ns, connection.serial))

    def retire(self, channel: int) -> None:
        for place in self._turns.sockets(channel):
            if place in self._connections:
                self._close(self._connections[place])
        self._channels.pop(channel)

    def source_port(self, source: int) -> int:
        return self._ports.get(source, 0)

    def own_drops(self) -> Ints:
        return np.zeros(len(self._ledger.timeout), np.int64)

    def readable(self) -> int | None:
        return self._epoll.fileno() if self._channels else None

    def facts(self) -> dict[str, str]:
        if not self._channels:
            return {}
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            return {"tcp_receive_buffer": str(sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))}

    def another(self) -> Tcp:
        return type(self)(self._questions, self._random, self._asked_buffer)

    def close(self) -> None:
        self._epoll.close()
        for connection in self._connections.values():
            connection.sock.close()

    # -- sending

    def load(self, rows: Due) -> None:
        self.settle()
        packets, octets = self._questions.queries(rows.question, rows.token)
        runs = self._turns.deal(rows, octets, self._ledger.late(rows, self.stall_ns))
        n = len(rows.due)
        slots, ids = self._ledger.flight.reserve(runs.socket, runs.lengths, self._ledger.instants(rows), State.EXPIRED)
        framed = np.empty((n, packets.shape[1] + 2), np.uint8)
        framed[:, 0], framed[:, 1] = octets >> 8, octets & 0xFF
        framed[:, 2:] = packets
        framed[:, 2], framed[:, 3] = ids >> 8, ids & 0xFF
        self._frames = framed[np.arange(framed.shape[1]) < (octets + 2)[:, None]].tobytes()
        self._begins = [0, *np.cumsum(octets + 2).tolist()]
        alone = np.flatnonzero(slots < 0)
        runs = runs.broken(alone) if len(alone) else runs
        self._runs, self._next_run = list(zip(runs.first[:-1].tolist(), runs.first[1:].tolist(), strict=True)), 0
        self._ledger.load(rows, slots, np.repeat(runs.socket, runs.lengths), ids, octets, Phase.CONNECT)
        self._ledger.source = np.full(n, -1, np.int64)

    @property
    def next_due(self) -> int:
        return self._ledger.next_due

    @property
    def started_until(self) -> int:
        return self._ledger.started_until

    def send(self, now: int, most: int = NEVER) -> int:
        ledger = self._ledger
        rows = ledger.due(now, self.stall_ns, most)
        if not rows:
            return 0
        began = time.monotonic_ns()
        stop = rows.start
        while self._next_run < len(self._runs) and self._runs[self._next_run][0] < rows.stop:
            first, end = self._runs[self._next_run]
            self._next_run += 1
            if first < rows.start:
                continue
            stop = end
            if ledger.socket[first] < 0:
                self._start_fresh(first)
            elif ledger.slot[first] < 0:
                ledger.keep_back(first, UnsentCause.IDS)
            else:
                self._pipeline(range(first, end))
        ledger.sent(rows.start, stop, began, time.monotonic_ns())
        return stop - rows.start

    def _frame(self, row: int) -> bytes:
        return self._frames[self._begins[row] : self._begins[row + 1]]

    def _start_fresh(self, row: int) -> None:
        """Begin a connection for one row, or take that of the row before, if they are a pair.

        The query follows once the connection is open.
        """
        ledger = self._ledger
        index, number = int(ledger.rows.channel[row]), int(ledger.rows.token[row]) >> CHANNEL_BITS
        channel, idle = self._channels[index], self._idle[index]
        connection = self._last.get(index) if channel.pair else None
        if connection is None or connection.number != number or connection.life is _CLOSED:
            if not idle:
                first = ledger.flight.add_sockets(FRESH_PLACES, index, FRESH_RING)
                idle += range(first, first + FRESH_PLACES)
            try:
                connection = self._connect(channel, idle[-1])
            except (OSError, Unsent) as error:
                ledger.keep_back(row, _cause_of(error))
                return
            idle.pop()
            connection.number = number
            self._last[index] = connection
        connection.rows += 1
        slot, query_id = ledger.flight.reserve_one(connection.place)
        ledger.slot[row], ledger.socket[row], ledger.source[row] = slot, connection.place, connection.serial
        frame = self._alone(row, query_id)
        if connection.life is _OPEN:
            ledger.phase[row] = _ANSWER
            connection.out += frame
            self._write(connection)
        else:
            connection.queue.append((slot, frame))

    def _alone(self, row: int, query_id: int) -> bytes:
        """What is sent for a row that has a connection of its own."""
        frame = self._frame(row)
        return frame[:2] + query_id.to_bytes(2, "big") + frame[4:]

    def _pipeline(self, rows: range) -> None:
        """Put rows on their connection, opening it where there is none."""
        ledger = self._ledger
        place = int(ledger.socket[rows.start])
        connection = self._connections.get(place)
        if connection is None or connection.life is _CLOSED:
            channel = self._channels[int(ledger.rows.channel[rows.start])]
            try:
                connection = self._connect(channel, place)
            except (OSError, Unsent) as error:
                for row in rows:
                    ledger.keep_back(row, _cause_of(error))
                return
        mine = slice(rows.start, rows.stop)
        ledger.source[mine] = connection.serial
        if connection.life is _OPEN:
            ledger.phase[mine] = _ANSWER
            connection.out += self._frames[self._begins[rows.start] : self._begins[rows.stop]]
            self._write(connection)
        else:
            connection.queue += zip(ledger.slot[mine].tolist(), map(self._frame, rows), strict=True)

    def _write(self, connection: Connection) -> None:
        """Send what is queued, as far as the kernel takes it."""
        if connection.out:
            try:
                del connection.out[: connection.sock.send(connection.out)]
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                self._events.append((connection, Outcome.CONNECTION_LOST, error.errno or 0))

    # -- receiving

    def read(self, now: int) -> None:
        self._read_at = now
        events = self._epoll.poll(0, len(self._by_fd) or 1)
        if events or self._events:
            self.settle()
            self._offset = wall_offset_ns()
        for fd, event in events:
            connection = self._by_fd.get(fd)
            if connection is None:
                continue
            if connection.life is _CONNECTING:
                self._opened(connection)
            elif event & select.EPOLLOUT and connection.out:
                self._write(connection)
            if connection.life is _OPEN and event & ~select.EPOLLOUT:
                self._receive(connection, event & _HUNG_UP)
        for connection, outcome, code in self._events:
            self._failed(connection, outcome, code)
        self._events.clear()

    def _opened(self, connection: Connection) -> None:
        """The connection is there, or could not be made."""
        code = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._events.append((connection, _outcome_of(code), code))
            return
        now = connection.heard = time.monotonic_ns()
        connection.life = _OPEN
        self._ledger.counters[connection.channel.index, Counter.CONNECTS] += 1
        flight = self._ledger.flight
        connect, sent, phase = (flight.column(name) for name in ("connect", "sent", "phase"))
        took = now - connection.began
        for slot, frame in connection.queue:
            if flight.is_pending(slot):
                connect[slot], sent[slot], phase[slot] = took, now, _ANSWER
                connection.out += frame
                took = 0
        connection.queue.clear()
        self._write(connection)

    def _receive(self, connection: Connection, hung_up: int) -> None:
        """Take whole frames (RFC 1035, 4.2.2) off a connection."""
        ended = False
        code = 0
        try:
            while True:
                data, ancillary, _, _ = connection.sock.recvmsg(_CHUNK, _ANCILLARY)
                if not data:
                    ended = True
                    break
                connection.got += data
                connection.heard = self._arrival(ancillary)
                if len(data) < _CHUNK and not hung_up:
                    break
            if connection.channel.index not in self._idle:
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            ended, code = True, error.errno or 0
        self._take_frames(connection)
        if ended:
            self._events.append((connection, Outcome.CONNECTION_LOST, code))

    def _take_frames(self, connection: Connection) -> None:
        """Put the whole frames that came aside, for the next judgement."""
        got, before, at, last = bytes(connection.got), self._octets, 0, len(connection.got) - 2
        n = len(self._begins_of)
        while at <= last and (after := at + 2 + (got[at] << 8 | got[at + 1])) <= last + 2:
            self._begins_of.append(before + at + 2)
            self._lengths_of.append(after - at - 2)
            at = after
        if at:
            self._octets += len(got)
            self._got.append((connection.place, connection.heard, len(self._begins_of) - n, got))
            del connection.got[:at]

    def _arrival(self, ancillary: list[tuple[int, int, bytes]]) -> int:
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = struct.unpack("=qq", data)
                return int(seconds * 1_000_000_000 + nanoseconds - self._offset)
        return time.monotonic_ns()

    def settle(self) -> None:
        self._ledger.settle()

    def _failed(self, connection: Connection, outcome: Outcome, code: int) -> None:
        """A connection could not be made, or ended: its rows that still wait share that outcome."""
        if connection.life is _CLOSED:
            return
        self._judge_frames()
        slots = self._waiting_on(connection)
        if outcome is Outcome.CONNECTION_LOST and len(slots):
            self._ledger.counters[connection.channel.index, Counter.CONNECTIONS_LOST] += 1
        self._ledger.finished.append(self._ledger.flight.finish(slots, outcome, state=State.ANSWERED, errno=code))
        self._close(connection)

    def _waiting_on(self, connection: Connection) -> Ints:
        """The slots of the rows that wait on this connection, not on an earlier one of the same channel."""
        slots = self._ledger.flight.waiting(connection.place)
        mine: Ints = slots[self._ledger.flight.column("source")[slots] == connection.serial]
        return mine

    @property
    def pending(self) -> int:
        return len(self._begins_of) + len(self._events)

    @property
    def in_flight(self) -> int:
        return self._ledger.in_flight

    def _judge_frames(self) -> None:
        """Settle the frames taken so far."""
        if not self._got:
            return
        width = self._questions.width
        octets = np.frombuffer(b"".join([got for *_, got in self._got]) + bytes(width), np.uint8)
        at, lengths = np.array(self._begins_of, np.int64), np.array(self._lengths_of, np.int64)
        sockets, stamps = (np.repeat([lot[i] for lot in self._got], [lot[2] for lot in self._got]) for i in (0, 1))
        head = octets[at[:, None] + np.arange(width)]
        replies = Replies(head, lengths, sockets, stamps, lambda i: octets[at[i] : at[i] + lengths[i]].tobytes())
        for lot in (self._got, self._begins_of, self._lengths_of):
            lot.clear()
        self._octets = 0
        self._ledger.finished.append(self._ledger.flight.settle(replies, self._ledger.counters))

    def harvest(self) -> Harvest:
        self._release(self._spent)
        self.settle()
        self._judge_frames()
        expired = self._ledger.flight.expire(self._read_at)
        connecting = expired.phase == Phase.CONNECT
        channels = self._ledger.flight.channel_of[expired.socket]
        count(self._ledger.counters, Counter.TIMEOUT_CONNECT, channels[connecting])
        count(self._ledger.counters, Counter.TIMEOUT_ANSWER, channels[~connecting])
        self._ledger.finished.append(expired)
        self._give_up_on_silence(expired)
        harvest = self._ledger.harvest()
        self._spent = harvest.finished
        return harvest

    def _release(self, finished: Finished) -> None:
        """Close the connections of `fresh` rows that were handed over, and forget the ports of old connections."""
        if self._idle:
            for place in finished.socket[finished.socket >= 0].tolist():
                idle = self._idle.get(int(self._ledger.flight.channel_of[place]))
                connection = self._connections.get(place)
                if idle is not None and connection:
                    connection.rows -= 1
                    if not connection.rows:
                        self._close(connection)
                        idle.append(place)
        while self._closed and self._closed[0][0] < self._read_at:
            self._ports.pop(self._closed.popleft()[1], None)

    def _give_up_on_silence(self, expired: Finished) -> None:
        """Close `reused` connections that did not open, or said nothing, for a whole timeout.

        The next row opens another. Rows that wait for one to open go over to the next; a row that was sent expires in
        its own time.
        """
        for place in np.unique(expired.socket).tolist():
            channel = int(self._ledger.flight.channel_of[place])
            connection = self._connections.get(place)
            if channel in self._idle or connection is None or connection.life is _CLOSED:
                continue
            mine = expired.sent[(expired.socket == place) & (expired.source == connection.serial)]
            if connection.life is _CONNECTING:
                patient = connection.began + connection.channel.timeout_ns > self._read_at
            else:
                patient = not len(mine) or connection.heard > mine.max()
            if patient:
                continue
            self._close(connection)
            waiting = [(slot, frame) for slot, frame in connection.queue if self._ledger.flight.is_pending(slot)]
            if waiting:
                with contextlib.suppress(OSError, Unsent):
                    successor = self._connect(connection.channel, place)
                    successor.queue = waiting
                    self._ledger.flight.column("source")[[slot for slot, _ in waiting]] = successor.serial

    def drop(self) -> None:
        self.settle()
        self._ledger.drop()


def _cause_of(error: OSError | Unsent) -> UnsentCause:
    return error.cause if isinstance(error, Unsent) else OURS.get(error.errno or 0, UnsentCause.DESCRIPTORS)


def _outcome_of(code: int) -> Outcome:
    """What an errno of connect means."""
    if code in (errno.ECONNREFUSED, errno.ECONNRESET):
        return Outcome.CONNECTION_REFUSED
    return Outcome.TIMEOUT if code == errno.ETIMEDOUT else Outcome.NETWORK_ERROR
