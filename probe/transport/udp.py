"""DNS over UDP on connected sockets: `fixed` and `pool:K` reuse K source ports, `fresh` takes a new one for each query.

In: rows that will be due. Out: finished rows. Replies are stamped by the kernel on arrival, so reading late is
harmless; ICMP errors come by the error queue with the datagram that caused them (IP_RECVERR).

The send loop does two clock reads and the sends, nothing else: a row's send instant is interpolated between them.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from probe.linux import Receiver, error_queue, own_drops, receive_buffer, wall_offset_ns
from probe.outcome import Outcome, UnsentCause
from probe.transport.flight import Ints, Replies, State, rank_within
from probe.transport.ledger import Ledger
from probe.transport.ports import OURS, Door, FreshPorts, Unsent
from probe.transport.rows import EMPTY, READ_NS, Channel, Due, Finished, Harvest, no_rows
from probe.wire import Questions

_RESENDS = 4
_REPLY_OCTETS = 832
"""What a short reply takes of a receive buffer, measured: 212,992 octets hold 256."""
_READ_LEAST_NS = 500_000


class Udp:
    """The transport `udp`: one flight table, one receive batch, one epoll set for all its sockets."""

    def __init__(self, questions: Questions, random: np.random.Generator, buffer: int) -> None:
        self.stall_ns = 50_000_000
        self.read_every_ns = READ_NS
        self._granted: list[int] = []
        self._questions = questions
        self._ledger = Ledger(questions, random)
        self._asked_buffer = buffer
        self._idbytes = [i.to_bytes(2, "big") for i in range(65_536)]
        # by channel index; a channel without a pool (count 0) has fresh ports
        self._first = self._count = self._turn = EMPTY
        self._fresh: dict[int, FreshPorts] = {}
        self._pools: set[int] = set()
        # by socket index
        self._sockets: list[socket.socket | None] = []
        self._sends: list[Callable[[bytes], int]] = []
        self._drops: dict[int, int] = {}
        self._socket_of: dict[int, int] = {}
        self._epoll = select.epoll()
        # by loaded row: what to call with what
        self._calls: list[Callable[[bytes], int]] = []
        self._packets: list[bytes] = []
        # what came in
        self._receiver = Receiver()
        self._replies: list[Replies] = []
        self._errors: list[tuple[int, int, bytes]] = []
        self._read_at = 0
        self._spent = no_rows()

    # -- sockets

    def open(self, channel: Channel) -> None:
        door = Door(channel.target)
        self._ledger.admit(channel)
        new = np.zeros(len(self._ledger.timeout) - len(self._turn), np.int64)
        self._first, self._count, self._turn = (
            np.concatenate([column, new]) for column in (self._first, self._count, self._turn)
        )
        if channel.ports.policy == "fresh":
            self._fresh[channel.index] = FreshPorts(channel, door, self._ledger.flight, self._watch, self._idbytes)
            self._fresh[channel.index].prepare()
            return
        count = channel.ports.count
        rows_each = int(channel.rate * channel.timeout_ns / 1e9 * 2.2 / count) + 64
        self._first[channel.index] = self._ledger.flight.add_sockets(count, channel.index, rows_each)
        self._count[channel.index] = count
        self._pools.add(channel.index)
        for _ in range(count):
            index = len(self._sockets)
            self._sockets.append(None)
            self._sends.append(partial(self._connect_and_send, index, door))
            with contextlib.suppress(OSError, Unsent):  # a network that cannot be reached is its rows' outcome
                self._connect(index, door)
        if self._granted:
            replies_a_second = max(channel.rate / count, 1e-3)
            quarter = min(self._granted) / _REPLY_OCTETS / 4 / replies_a_second
            self.read_every_ns = max(min(self.read_every_ns, int(quarter * 1e9)), _READ_LEAST_NS)

    def _connect(self, index: int, door: Door) -> socket.socket:
        """Give a pool's socket its port, for good."""
        sock = self._sockets[index]
        if sock is None:
            sock = self._sockets[index] = door.new_socket()
            self._granted.append(receive_buffer(sock, self._asked_buffer))
            self._register(sock, index)
        door.connect(sock)
        self._sends[index] = sock.send
        return sock

    def _connect_and_send(self, index: int, door: Door, packet: bytes) -> int:
        """The send of a pool's socket that could not be connected so far."""
        return self._connect(index, door).send(packet)

    def _watch(self, sock: socket.socket) -> int:
        """Take a socket of fresh ports; its index."""
        index = len(self._sockets)
        self._sockets.append(sock)
        self._sends.append(sock.send)
        self._register(sock, index)
        if not self._granted:
            self._granted.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
        return index

    def _register(self, sock: socket.socket, index: int) -> None:
        self._socket_of[sock.fileno()] = index
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def retire(self, channel: int) -> None:
        fresh = self._fresh.pop(channel, None)
        first, count = int(self._first[channel]), int(self._count[channel])
        for index in fresh.sockets() if fresh else range(first, first + count):
            sock = self._sockets[index]
            if sock is not None:
                del self._socket_of[sock.fileno()]
                sock.close()
            self._sockets[index] = None
        self._pools.discard(channel)

    def source_port(self, source: int) -> int:
        sock = self._sockets[source] if 0 <= source < len(self._sockets) else None
        return int(sock.getsockname()[1]) if sock else 0

    def own_drops(self) -> Ints:
        drops = np.zeros(len(self._turn), np.int64)
        for channel in self._pools:
            first = int(self._first[channel])
            for index in range(first, first + int(self._count[channel])):
                sock = self._sockets[index]
                total = own_drops(sock) if sock else 0
                drops[channel] += total - self._drops.get(index, 0)
                self._drops[index] = total
        return drops

    def readable(self) -> int | None:
        return None

    def facts(self) -> dict[str, str]:
        return {"receive_buffer": str(min(self._granted))} if self._granted else {}

    def close(self) -> None:
        self._epoll.close()
        for sock in self._sockets:
            if sock:
                sock.close()

    # -- sending

    def load(self, rows: Due) -> None:
        self.settle()
        n = len(rows.due)
        slots, sockets, ids = np.full(n, -1, np.int64), np.full(n, -1, np.int64), np.zeros(n, np.int64)
        count = self._count[rows.channel]
        pooled = np.flatnonzero((count > 0) & self._ledger.in_time(rows, self.stall_ns))
        if len(pooled):
            channel = rows.channel[pooled]
            rank = rank_within(channel)
            turn = self._turn[channel] + rank
            sockets[pooled] = self._first[channel] + turn % count[pooled]
            self._turn += np.bincount(channel, minlength=len(self._turn))
            slots[pooled], ids[pooled] = self._ledger.flight.reserve(
                sockets[pooled], rank // count[pooled], rows.due[pooled]
            )
        tails, idbytes = self._questions.tails, self._idbytes
        questions = rows.question.tolist()
        if len(pooled) == n:
            sends = self._sends
            self._calls = [sends[s] for s in sockets.tolist()]
            self._packets = [idbytes[i] + tails[q] for i, q in zip(ids.tolist(), questions, strict=True)]
            for i in np.flatnonzero(slots < 0).tolist():
                self._calls[i] = _no_id
        else:
            self._calls, self._packets = [], []
            for c, s, slot, i, q in zip(
                rows.channel.tolist(), sockets.tolist(), slots.tolist(), ids.tolist(), questions, strict=True
            ):
                if c in self._fresh:
                    self._calls.append(self._fresh[c].send)
                    self._packets.append(tails[q])
                else:
                    self._calls.append(self._sends[s] if slot >= 0 else _no_id)
                    self._packets.append(idbytes[i] + tails[q])
        self._ledger.load(rows, slots, sockets, ids)

    @property
    def next_due(self) -> int:
        return self._ledger.next_due

    def send(self, now: int) -> None:
        rows = self._ledger.due(now, self.stall_ns)
        if not rows:
            return
        calls, packets, k, end = self._calls, self._packets, rows.start, rows.stop
        began = time.monotonic_ns()
        while k < end:
            try:
                while k < end:
                    calls[k](packets[k])
                    k += 1
            except (OSError, Unsent) as error:
                self._trouble(k, error)
                k += 1
        self._ledger.sent(rows, began, time.monotonic_ns())

    def _trouble(self, row: int, error: OSError | Unsent) -> None:
        """A send failed: where the error is an earlier query's, take it from the socket's queue and send again."""
        if isinstance(error, Unsent):
            self._ledger.keep_back(row, error.cause)
            return
        ledger = self._ledger
        fresh = self._fresh.get(int(ledger.rows.channel[row]))
        socket = fresh.current if fresh else int(ledger.socket[row])
        code = error.errno or 0
        for _ in range(_RESENDS):
            if code in OURS or code in (errno.EPERM, errno.EACCES) or not self._take_errors(socket):
                break
            try:
                _ = fresh.again() if fresh else self._calls[row](self._packets[row])
            except OSError as again:
                code = again.errno or 0
            except Unsent as again:
                self._ledger.keep_back(row, again.cause)
                return
            else:
                return
        if fresh:
            fresh.give_up()
        self._ledger.keep_back(row, OURS.get(code, -code))

    def _take_errors(self, socket: int) -> bool:
        """Keep what a socket's error queue holds for the next harvest; whether there was anything."""
        sock = self._sockets[socket]
        found = [(socket, code, payload) for code, payload in error_queue(sock)] if sock else []
        self._errors += found
        return bool(found)

    def settle(self) -> None:
        """Enter the rows sent since the last time in the flight table, those of fresh ports with their sockets."""
        for channel, ports in self._fresh.items():
            if ports.launched:
                mine = self._ledger.started(channel)
                self._ledger.slot[mine], self._ledger.socket[mine] = np.array(ports.launched, np.int64).T
                ports.launched.clear()
        self._ledger.settle()

    # -- receiving

    def read(self, now: int) -> None:
        self._read_at = now
        for fd, events in self._epoll.poll(0, len(self._sockets) or 1):
            index = self._socket_of[fd]
            if events & select.EPOLLERR:
                self._take_errors(index)
            if events & select.EPOLLIN:
                while self._receiver.receive(fd, index) and self._receiver.filled == self._receiver.rows:
                    self._set_aside()

    @property
    def pending(self) -> int:
        return self._receiver.filled + sum(len(r.lengths) for r in self._replies) + len(self._errors)

    @property
    def in_flight(self) -> int:
        return self._ledger.in_flight

    def _set_aside(self) -> None:
        """Copy the receive batch, to make room for more before the next harvest."""
        batch = self._batch(copy=True)
        if batch:
            self._replies.append(batch)

    def _batch(self, *, copy: bool) -> Replies | None:
        got, n = self._receiver, self._receiver.filled
        if not n:
            return None
        stamps = got.stamps
        received = np.where(stamps > 0, stamps - wall_offset_ns(), time.monotonic_ns())
        lengths, sockets = got.lengths.copy(), got.sources[:n].copy()
        data = got.data[:n].copy() if copy else got.data[:n]
        got.clear()
        return Replies(data, lengths, sockets, received, data)

    def harvest(self) -> Harvest:
        self._free(self._spent)
        self.settle()
        replies = [*self._replies, *filter(None, [self._batch(copy=False)])]
        self._replies.clear()
        ledger = self._ledger
        ledger.finished += [ledger.flight.settle(batch, ledger.counters) for batch in replies]
        ledger.finished += [self._refused(*error) for error in self._errors]
        ledger.finished.append(ledger.flight.expire(self._read_at))
        self._errors.clear()
        harvest = ledger.harvest()
        self._spent = harvest.finished
        return harvest

    def _refused(self, socket: int, code: int, payload: bytes) -> Finished:
        """The row whose datagram an ICMP error answers: by its id, or the socket's oldest if none was quoted."""
        if len(payload) >= 2:
            slots = self._ledger.flight.slots_of(np.array([socket]), np.array([payload[0] << 8 | payload[1]]))
            slots = slots[[slot >= 0 and self._ledger.flight.is_pending(slot) for slot in slots.tolist()]]
        else:
            slots = self._ledger.flight.waiting(socket)[:1]
        outcome = Outcome.CONNECTION_REFUSED if code == errno.ECONNREFUSED else Outcome.NETWORK_ERROR
        return self._ledger.flight.finish(slots, outcome, 0, state=State.ANSWERED, errno=code)

    def _free(self, finished: Finished) -> None:
        """Give the sockets of rows that were handed over back to their channels' fresh ports."""
        if not self._fresh:
            return
        used = finished.socket >= 0
        channels = self._ledger.flight.channel_of[finished.socket[used]]
        timeouts = finished.outcome[used] == Outcome.TIMEOUT
        sockets, sent = finished.socket[used], finished.sent[used]
        for channel, ports in self._fresh.items():
            for i in np.flatnonzero(channels == channel).tolist():
                rest_until = int(sent[i] + 2 * self._ledger.timeout[channel]) if timeouts[i] else 0
                ports.release(int(sockets[i]), rest_until)

    def drop(self) -> None:
        self.settle()
        self._ledger.drop()


def _no_id(_packet: bytes) -> int:
    """Stands in for the send of a row for which its socket had no id left."""
    raise Unsent(UnsentCause.IDS)
