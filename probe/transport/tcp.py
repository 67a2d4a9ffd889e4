"""DNS over TCP (RFC 7766): `fresh` opens a connection for each query, `reused` pipelines all on one.

A lost connection is reopened when the next row is due.

In: rows that will be due. Out: finished rows, with the time the connection took apart. A row's timeout covers
connecting and waiting; its phase says where it was. TCP_NODELAY, and TCP_QUICKACK armed again after each read: without
them small batches stall on delayed acknowledgements.
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

from probe.linux import SO_TIMESTAMPNS, ask_for_stamps, wall_offset_ns
from probe.model import Phase
from probe.outcome import Counter, Outcome, UnsentCause
from probe.questions import Questions
from probe.transport.flight import Ints, Replies, State, count, rank_within
from probe.transport.ledger import Ledger
from probe.transport.ports import FRESH_RING, OURS, Unsent, address_of, bind_in_half
from probe.transport.rows import EMPTY, NEVER, READ_NS, Channel, Due, Finished, Harvest, no_rows

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_CHUNK = 1 << 18
_ANCILLARY = 64
_PROGRESS = (0, errno.EINPROGRESS)


class _Life(Enum):
    CONNECTING = auto()
    OPEN = auto()
    CLOSED = auto()


@dataclass(slots=True)
class _Connection:
    """One TCP connection. `place` is its socket number in the flight table, `serial` its own.

    queue: rows, as slot and frame, that wait for it to open; out: octets that wait for the kernel to take them.
    """

    channel: Channel
    place: int
    serial: int
    sock: socket.socket
    began: int
    life: _Life = _Life.CONNECTING
    queue: list[tuple[int, bytes]] = field(default_factory=list)
    out: bytearray = field(default_factory=bytearray)
    got: bytearray = field(default_factory=bytearray)
    heard: int = 0


class Tcp:
    """The transport `tcp`: one flight table and one epoll set for all its connections."""

    def __init__(self, questions: Questions, random: np.random.Generator, _buffer: int) -> None:
        self.stall_ns = 50_000_000
        self.read_every_ns = READ_NS
        self._questions = questions
        self._ledger = Ledger(questions, random)
        self._framed: list[bytes] = []
        self._channels: dict[int, Channel] = {}
        # by channel index: the flight socket of a reused channel, -1 for fresh ones
        self._reused = EMPTY
        self._idle: dict[int, list[int]] = {}
        self._connections: dict[int, _Connection] = {}
        self._by_fd: dict[int, _Connection] = {}
        self._serials = 0
        self._ports: dict[int, int] = {}
        self._closed: deque[tuple[int, int]] = deque()
        self._spent = no_rows()
        self._epoll = select.epoll()
        # what came in
        self._offset = wall_offset_ns()
        self._frames: list[tuple[int, int, bytes]] = []
        self._events: list[tuple[_Connection, Outcome, int]] = []
        self._read_at = 0

    # -- connections

    def open(self, channel: Channel) -> None:
        address_of(channel.target)
        self._ledger.admit(channel)
        self._reused = np.append(self._reused, np.full(len(self._ledger.timeout) - len(self._reused), -1))
        self._channels[channel.index] = channel
        if channel.ports.policy == "fresh":
            self._idle[channel.index] = []
        else:
            rows = int(channel.rate * channel.timeout_ns / 1e9 * 2.2) + 64
            self._reused[channel.index] = self._ledger.flight.add_sockets(1, channel.index, rows)

    def _connect(self, channel: Channel, place: int) -> _Connection:
        """Begin to connect. OSError or Unsent if there is no socket or port to be had."""
        now = time.monotonic_ns()
        family, _ = address_of(channel.target)
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            ask_for_stamps(sock)
            bind_in_half(sock, channel.target.kind)
            code = sock.connect_ex((channel.target.address, channel.target.port))
            if code == errno.EADDRNOTAVAIL:
                raise Unsent(UnsentCause.PORTS)
            if code in OURS:
                raise OSError(code, "connect")
        except (OSError, Unsent):
            sock.close()
            raise
        self._serials += 1
        connection = _Connection(channel, place, self._serials, sock, now)
        self._ports[connection.serial] = sock.getsockname()[1]
        self._connections[place] = connection
        if code in _PROGRESS:
            self._by_fd[sock.fileno()] = connection
            self._epoll.register(sock.fileno(), select.EPOLLOUT)
        else:
            self._events.append((connection, _outcome_of(code), code))
        return connection

    def _close(self, connection: _Connection) -> None:
        """Let go of a connection; its rows that still wait expire in their own time."""
        if connection.life is _Life.CLOSED:
            return
        connection.life = _Life.CLOSED
        self._by_fd.pop(connection.sock.fileno(), None)
        connection.sock.close()
        self._closed.append((self._read_at + 2 * connection.channel.timeout_ns, connection.serial))

    def retire(self, channel: int) -> None:
        connection = self._connections.get(int(self._reused[channel]))
        if connection:
            self._close(connection)
        self._reused[channel] = -1
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

    def close(self) -> None:
        self._epoll.close()
        for connection in self._connections.values():
            connection.sock.close()

    # -- sending

    def load(self, rows: Due) -> None:
        self.settle()
        n = len(rows.due)
        slots, ids, sockets = np.full(n, -1, np.int64), np.zeros(n, np.int64), self._reused[rows.channel]
        at = np.flatnonzero((sockets >= 0) & self._ledger.in_time(rows, self.stall_ns))
        if len(at):
            nth = rank_within(sockets[at])
            slots[at], ids[at] = self._ledger.flight.reserve(sockets[at], nth, rows.due[at])
        packets, octets = self._questions.queries(rows.question, rows.token)
        framed = np.empty((n, packets.shape[1] + 2), np.uint8)
        framed[:, 0], framed[:, 1] = octets >> 8, octets & 0xFF
        framed[:, 2:] = packets
        framed[:, 2], framed[:, 3] = ids >> 8, ids & 0xFF
        width, raw = framed.shape[1], framed.tobytes()
        self._framed = [raw[i * width : i * width + o + 2] for i, o in enumerate(octets.tolist())]
        self._ledger.load(rows, slots, sockets, ids, octets, Phase.CONNECT)
        self._ledger.source = np.full(n, -1, np.int64)

    @property
    def next_due(self) -> int:
        return self._ledger.next_due

    def send(self, now: int, most: int = NEVER) -> None:
        ledger = self._ledger
        rows = ledger.due(now, self.stall_ns, most)
        if not rows:
            return
        pipelined: dict[int, list[int]] = {}
        began = time.monotonic_ns()
        for row in rows:
            if ledger.socket[row] >= 0:
                pipelined.setdefault(int(ledger.rows.channel[row]), []).append(row)
            else:
                self._start_fresh(row)
        for channel, mine in pipelined.items():
            self._pipeline(self._channels[channel], mine)
        ledger.sent(rows, began, time.monotonic_ns())

    def _start_fresh(self, row: int) -> None:
        """Begin a connection for one row; its query follows once the connection is open."""
        index = int(self._ledger.rows.channel[row])
        channel, idle = self._channels[index], self._idle[index]
        place = idle.pop() if idle else self._ledger.flight.add_sockets(1, index, FRESH_RING)
        try:
            connection = self._connect(channel, place)
        except (OSError, Unsent) as error:
            idle.append(place)
            self._ledger.keep_back(row, _cause_of(error))
            return
        slot, query_id = self._ledger.flight.reserve_one(place)
        ledger = self._ledger
        ledger.slot[row], ledger.socket[row], ledger.source[row] = slot, place, connection.serial
        frame = self._framed[row]
        connection.queue.append((slot, frame[:2] + query_id.to_bytes(2, "big") + frame[4:]))

    def _pipeline(self, channel: Channel, rows: list[int]) -> None:
        """Put rows on the channel's one connection, opening it where there is none."""
        ledger = self._ledger
        place = int(self._reused[channel.index])
        connection = self._connections.get(place)
        cause = UnsentCause.IDS
        ready = [row for row in rows if ledger.slot[row] >= 0]
        if connection is None or connection.life is _Life.CLOSED:
            try:
                connection = self._connect(channel, place)
            except (OSError, Unsent) as error:
                cause, ready = _cause_of(error), []
        for row in set(rows) - set(ready):
            ledger.keep_back(row, cause)
        if connection is None or not ready:
            return
        ledger.source[ready] = connection.serial
        frames = [self._framed[row] for row in ready]
        if connection.life is _Life.OPEN:
            ledger.phase[ready] = Phase.ANSWER
            connection.out += b"".join(frames)
            self._write(connection)
        else:
            connection.queue += zip(ledger.slot[ready].tolist(), frames, strict=True)

    def _write(self, connection: _Connection) -> None:
        """Send what is queued, as far as the kernel takes it."""
        if connection.out:
            try:
                del connection.out[: connection.sock.send(connection.out)]
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                self._events.append((connection, Outcome.CONNECTION_LOST, error.errno or 0))
                return
        with contextlib.suppress(OSError):
            self._epoll.modify(connection.sock.fileno(), select.EPOLLIN | (select.EPOLLOUT if connection.out else 0))

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
            if connection.life is _Life.CONNECTING:
                self._opened(connection)
            elif event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._receive(connection)
            if connection.life is _Life.OPEN and event & select.EPOLLOUT:
                self._write(connection)
        for connection, outcome, code in self._events:
            self._failed(connection, outcome, code)
        self._events.clear()

    def _opened(self, connection: _Connection) -> None:
        """The connection is there, or could not be made."""
        code = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._events.append((connection, _outcome_of(code), code))
            return
        now = connection.heard = time.monotonic_ns()
        connection.life = _Life.OPEN
        self._ledger.counters[connection.channel.index, Counter.CONNECTS] += 1
        flight = self._ledger.flight
        waiting = [(slot, frame) for slot, frame in connection.queue if flight.is_pending(slot)]
        slots = np.array([slot for slot, _ in waiting], np.int64)
        flight.column("connect")[slots[:1]] = now - connection.began
        flight.column("sent")[slots] = now
        flight.column("phase")[slots] = Phase.ANSWER
        connection.out += b"".join(frame for _, frame in waiting)
        connection.queue.clear()
        self._write(connection)

    def _receive(self, connection: _Connection) -> None:
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
                if len(data) < _CHUNK:
                    break
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            ended, code = True, error.errno or 0
        got, at, end = connection.got, 0, len(connection.got)
        while at + 2 <= end and at + 2 + (length := got[at] << 8 | got[at + 1]) <= end:
            self._frames.append((connection.place, connection.heard, bytes(got[at + 2 : at + 2 + length])))
            at += 2 + length
        if at:
            del got[:at]
        if ended:
            self._events.append((connection, Outcome.CONNECTION_LOST, code))

    def _arrival(self, ancillary: list[tuple[int, int, bytes]]) -> int:
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = struct.unpack("=qq", data)
                return int(seconds * 1_000_000_000 + nanoseconds - self._offset)
        return time.monotonic_ns()

    def settle(self) -> None:
        self._ledger.settle()

    def _failed(self, connection: _Connection, outcome: Outcome, code: int) -> None:
        """A connection could not be made, or ended: its rows that still wait share that outcome."""
        if connection.life is _Life.CLOSED:
            return
        self._judge_frames()
        slots = self._waiting_on(connection)
        if outcome is Outcome.CONNECTION_LOST and len(slots):
            self._ledger.counters[connection.channel.index, Counter.CONNECTIONS_LOST] += 1
        self._ledger.finished.append(self._ledger.flight.finish(slots, outcome, 0, state=State.ANSWERED, errno=code))
        self._close(connection)

    def _waiting_on(self, connection: _Connection) -> Ints:
        """The slots of the rows that wait on this connection, not on an earlier one of the same channel."""
        slots = self._ledger.flight.waiting(connection.place)
        mine: Ints = slots[self._ledger.flight.column("source")[slots] == connection.serial]
        return mine

    @property
    def pending(self) -> int:
        return len(self._frames) + len(self._events)

    @property
    def in_flight(self) -> int:
        return self._ledger.in_flight

    def _judge_frames(self) -> None:
        """Settle the frames taken so far."""
        if not self._frames:
            return
        width = self._questions.width
        sockets, stamps, whole = zip(*self._frames, strict=True)
        head = np.frombuffer(b"".join([f[:width].ljust(width, b"\0") for f in whole]), np.uint8).reshape(-1, width)
        replies = Replies(
            head, np.array([len(f) for f in whole], np.int64), np.array(sockets, np.int64),
            np.array(stamps, np.int64), list(whole).__getitem__,
        )  # fmt: skip
        self._frames.clear()
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
        for place in finished.socket[finished.socket >= 0].tolist():
            idle = self._idle.get(int(self._ledger.flight.channel_of[place]))
            if idle is not None:
                self._close(self._connections[place])
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
            if self._reused[channel] != place or connection is None or connection.life is _Life.CLOSED:
                continue
            mine = expired.sent[(expired.socket == place) & (expired.source == connection.serial)]
            if connection.life is _Life.CONNECTING:
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
