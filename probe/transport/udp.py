"""DNS over UDP on connected sockets: `fixed` and `pool:K` reuse K source ports, `fresh` takes a new one for each query.

In: rows that will be due. Out: finished rows. Replies are stamped by the kernel on arrival, so reading late is
harmless; ICMP errors come by the error queue with the datagram that caused them (IP_RECVERR).

The send loop does two clock reads and the sends, nothing else: a row's send instant is interpolated between them.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable

import numpy as np

from probe.errors import EnvironmentProblem
from probe.linux import Receiver, error_queue, own_drops, receive_buffer, wall_offset_ns
from probe.outcome import Counter, Outcome, UnsentCause
from probe.transport import EMPTY, NEVER, Channel, Due, Finished, Harvest, Started, joined, joined_starts
from probe.transport.flight import Flight, Ints, Replies, State, rank_within, unsent
from probe.transport.ports import OURS, Door, FreshPorts, Unsent
from probe.wire import Questions

_RESENDS = 4


class Udp:
    """The transport `udp`: one flight table, one receive batch, one epoll set for all its sockets."""

    def __init__(self, questions: Questions, random: np.random.Generator, buffer: int = 4 << 20) -> None:
        self.stall_ns = 50_000_000
        self.granted_buffer = 0
        self._questions = questions
        self._flight = Flight(questions, random)
        self._asked_buffer = buffer
        self._idbytes = [i.to_bytes(2, "big") for i in range(65_536)]
        # by channel index; a channel without a pool (count 0) has fresh ports
        self._first, self._count, self._turn, self._timeout = (np.zeros(0, np.int64) for _ in range(4))
        self._counters = np.zeros((0, len(Counter)), np.int64)
        self._fresh: dict[int, FreshPorts] = {}
        # by socket index
        self._sockets: list[socket.socket] = []
        self._sends: list[Callable[[bytes], int]] = []
        self._drops: dict[int, int] = {}
        self._socket_of: dict[int, int] = {}
        self._epoll = select.epoll()
        # the loaded rows: what to call with what, when; [settled, cursor) are sent, but not in the table yet
        self._rows = Due(EMPTY, EMPTY, EMPTY, EMPTY)
        self._row_slot, self._row_socket = EMPTY, EMPTY
        self._dues: list[int] = []
        self._calls: list[Callable[[bytes], int]] = []
        self._packets: list[bytes] = []
        self._cursor = self._settled = 0
        self._batches: list[tuple[int, int, int, int]] = []
        self._kept_back: dict[int, UnsentCause | int] = {}
        self._errors: list[tuple[int, int, bytes]] = []
        # what came in
        self._receiver = Receiver()
        self._replies: list[Replies] = []
        self._read_at = 0
        self._started: list[Started] = []
        self._finished: list[Finished] = []

    # -- sockets

    def open(self, channel: Channel) -> None:
        grow = channel.index + 1 - len(self._turn)
        if grow > 0:
            new = np.zeros(grow, np.int64)
            self._first, self._count, self._turn, self._timeout = (
                np.concatenate([column, new]) for column in (self._first, self._count, self._turn, self._timeout)
            )
            self._counters = np.concatenate([self._counters, np.zeros((grow, len(Counter)), np.int64)])
        self._timeout[channel.index] = channel.timeout_ns
        if channel.ports.policy == "fresh":
            self._fresh[channel.index] = FreshPorts(channel, self._flight, self._watch, self._idbytes)
            return
        count = channel.ports.count
        rows_each = int(channel.rate * channel.timeout_ns / 1e9 * 2.2 / count) + 64
        self._first[channel.index] = self._flight.add_sockets(count, channel.index, rows_each)
        self._count[channel.index] = count
        door = Door(channel.target)
        for _ in range(count):
            try:
                sock = door.new_socket()
                door.connect(sock)
            except OSError as error:
                raise EnvironmentProblem(f"no UDP socket towards {channel.target}: {error.strerror}") from None
            self.granted_buffer = receive_buffer(sock, self._asked_buffer)
            self._watch(sock)

    def _watch(self, sock: socket.socket) -> int:
        index = len(self._sockets)
        self._sockets.append(sock)
        self._sends.append(sock.send)
        self._socket_of[sock.fileno()] = index
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return index

    def source_port(self, socket: int) -> int:
        return int(self._sockets[socket].getsockname()[1]) if 0 <= socket < len(self._sockets) else 0

    def own_drops(self) -> Ints:
        drops = np.zeros(len(self._turn), np.int64)
        for channel in np.flatnonzero(self._count).tolist():
            for index in range(int(self._first[channel]), int(self._first[channel] + self._count[channel])):
                total = own_drops(self._sockets[index])
                drops[channel] += total - self._drops.get(index, 0)
                self._drops[index] = total
        return drops

    def readable(self) -> int | None:
        return None

    def facts(self) -> dict[str, str]:
        return {"receive_buffer": str(self.granted_buffer)} if self.granted_buffer else {}

    def close(self) -> None:
        self._epoll.close()
        for sock in self._sockets:
            sock.close()

    # -- sending

    def load(self, rows: Due) -> None:
        self._settle()
        n = len(rows.due)
        slots, sockets, ids = np.full(n, -1, np.int64), np.full(n, -1, np.int64), np.zeros(n, np.int64)
        count = self._count[rows.channel]
        pooled = np.flatnonzero(count)
        if len(pooled):
            channel = rows.channel[pooled]
            turn = self._turn[channel] + rank_within(channel)
            sockets[pooled] = self._first[channel] + turn % count[pooled]
            self._turn += np.bincount(channel, minlength=len(self._turn))
            slots[pooled], ids[pooled] = self._flight.reserve(
                sockets[pooled], rank_within(sockets[pooled]), rows.due[pooled], self._timeout[channel]
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
                if s < 0:
                    self._calls.append(self._fresh[c].send)
                    self._packets.append(tails[q])
                else:
                    self._calls.append(self._sends[s] if slot >= 0 else _no_id)
                    self._packets.append(idbytes[i] + tails[q])
        self._rows, self._row_slot, self._row_socket = rows, slots, sockets
        self._dues = rows.due.tolist()
        self._cursor = self._settled = 0

    @property
    def next_due(self) -> int:
        return self._dues[self._cursor] if self._cursor < len(self._dues) else NEVER

    def send(self, now: int) -> None:
        i, dues = self._cursor, self._dues
        if i >= len(dues) or dues[i] > now:
            return
        j = bisect_right(dues, now, i)
        if dues[i] < now - self.stall_ns:
            missed = bisect_left(dues, now - self.stall_ns, i, j)
            self._kept_back.update(dict.fromkeys(range(i, missed), UnsentCause.STALL))
            i = missed
        calls, packets, k = self._calls, self._packets, i
        began = time.monotonic_ns()
        while k < j:
            try:
                while k < j:
                    calls[k](packets[k])
                    k += 1
            except (OSError, Unsent) as error:
                self._trouble(k, error)
                k += 1
        self._batches.append((i, j, began, time.monotonic_ns()))
        self._cursor = j

    def _trouble(self, row: int, error: OSError | Unsent) -> None:
        """A send failed: where the error is of an earlier query on that socket, take it from the queue and send again."""
        if isinstance(error, Unsent):
            self._kept_back[row] = error.cause
            return
        fresh = self._fresh.get(int(self._rows.channel[row])) if self._row_socket[row] < 0 else None
        socket = fresh.current if fresh else int(self._row_socket[row])
        code = error.errno or 0
        for _ in range(_RESENDS):
            if code in OURS or code in (errno.EPERM, errno.EACCES) or not self._take_errors(socket):
                break
            try:
                _ = fresh.again() if fresh else self._calls[row](self._packets[row])
            except OSError as again:
                code = again.errno or 0
            else:
                return
        if fresh:
            fresh.give_up()
        self._kept_back[row] = OURS.get(code, -code)

    def _take_errors(self, socket: int) -> bool:
        """Keep what a socket's error queue holds for the next harvest; whether there was anything."""
        found = [(socket, code, payload) for code, payload in error_queue(self._sockets[socket])]
        self._errors += found
        return bool(found)

    def _settle(self) -> None:
        """Give each row sent since the last time its send instant, and enter it in the flight table."""
        a, b = self._settled, self._cursor
        if a == b:
            return
        sent = np.zeros(b - a, np.int64)
        for i, j, began, ended in self._batches:
            if j > i:
                sent[i - a : j - a] = began + (np.arange(1, 2 * (j - i), 2) * (ended - began)) // (2 * (j - i))
        rows = Due(*(column[a:b] for column in self._rows))
        slots, sockets = self._row_slot[a:b].copy(), self._row_socket[a:b].copy()
        kept = np.zeros(b - a, np.bool_)
        kept[[row - a for row in self._kept_back]] = True
        for channel, ports in self._fresh.items():
            if ports.launched:
                mine = (rows.channel == channel) & ~kept
                slots[mine], sockets[mine] = np.array(ports.launched, np.int64).T
                ports.launched.clear()
        go = ~kept
        gone = Due(*(column[go] for column in rows))
        self._flight.launch(slots[go], gone, sent[go], sockets[go], self._timeout[gone.channel])
        self._started.append(Started(rows.series, rows.due, np.where(go, sent, 0)))
        if self._kept_back:
            self._give_up(rows, sent, a)
        self._settled = b
        self._batches.clear()

    def _give_up(self, rows: Due, sent: Ints, first: int) -> None:
        """Rows that were not put on the wire: unsent with their cause, or refused by this machine's own network."""
        codes = np.array(list(self._kept_back.values()), np.int64)
        at = np.array(list(self._kept_back), np.int64) - first
        self._kept_back.clear()
        finished = unsent(rows.due[at], rows.series[at], rows.question[at], np.maximum(codes, 0))
        network = codes < 0
        finished.outcome[network] = np.where(
            codes[network] == -errno.ECONNREFUSED, Outcome.CONNECTION_REFUSED, Outcome.NETWORK_ERROR
        )
        finished.errno[network] = -codes[network]
        finished.sent[network] = sent[at][network]
        self._finished.append(finished)

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
        return self._flight.in_flight + self._cursor - self._settled

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
        self._settle()
        replies = [*self._replies, *filter(None, [self._batch(copy=False)])]
        self._replies.clear()
        parts = [*self._finished, *(self._flight.settle(batch, self._counters) for batch in replies)]
        parts += [self._refused(*error) for error in self._errors]
        parts.append(self._flight.expire(self._read_at))
        self._finished.clear()
        self._errors.clear()
        finished = joined([part for part in parts if len(part.due)])
        self._free(finished)
        started = joined_starts(self._started)
        self._started.clear()
        counters = self._counters.copy()
        self._counters[:] = 0
        return Harvest(started, finished, counters)

    def _refused(self, socket: int, code: int, payload: bytes) -> Finished:
        """The row whose datagram an ICMP error answers: by its id, or the socket's oldest if none was quoted."""
        if len(payload) >= 2:
            slots = self._flight.slots_of(np.array([socket]), np.array([payload[0] << 8 | payload[1]]))
            slots = slots[[slot >= 0 and self._flight.is_pending(slot) for slot in slots.tolist()]]
        else:
            slots = self._flight.waiting(socket)[:1]
        outcome = Outcome.CONNECTION_REFUSED if code == errno.ECONNREFUSED else Outcome.NETWORK_ERROR
        return self._flight.finish(slots, outcome, 0, state=State.ANSWERED, errno=code)

    def _free(self, finished: Finished) -> None:
        """Give the sockets of finished rows back to their channels' fresh ports."""
        if not self._fresh:
            return
        used = finished.socket >= 0
        channels = self._flight.channel_of[finished.socket[used]]
        timeouts = finished.outcome[used] == Outcome.TIMEOUT
        sockets, sent = finished.socket[used], finished.sent[used]
        for channel, ports in self._fresh.items():
            for i in np.flatnonzero(channels == channel).tolist():
                rest_until = int(sent[i] + 2 * self._timeout[channel]) if timeouts[i] else 0
                ports.release(int(sockets[i]), rest_until)

    def drop(self, series: int | None) -> None:
        self._settle()
        keep = np.arange(self._cursor, len(self._dues))
        keep = keep[self._rows.series[keep] != series] if series is not None else keep[:0]
        self._rows = Due(*(column[keep] for column in self._rows))
        self._row_slot, self._row_socket = self._row_slot[keep], self._row_socket[keep]
        self._dues = [self._dues[i] for i in keep.tolist()]
        self._calls = [self._calls[i] for i in keep.tolist()]
        self._packets = [self._packets[i] for i in keep.tolist()]
        self._cursor = self._settled = 0


def _no_id(_packet: bytes) -> int:
    """Stands in for the send of a row for which its socket had no id left."""
    raise Unsent(UnsentCause.IDS)
