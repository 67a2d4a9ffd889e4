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
from typing import Any

import numpy as np

from probe.host import CLOCK_STEP_NS, wall_offset_ns
from probe.linux import Receiver, Sender, error_queue, own_drops, receive_buffer
from probe.model import TargetKind
from probe.outcome import Counter, Outcome, UnsentCause
from probe.questions import CHANNEL_BITS, Questions
from probe.transport.flight import Ints, Replies, State, count
from probe.transport.ledger import Ledger
from probe.transport.ports import FRESH_PLACES, FRESH_RING, OURS, Door, FreshPorts, PortLedger, Unsent
from probe.transport.rows import NEVER, READ_NS, Channel, Due, Finished, Harvest, no_rows
from probe.transport.turns import Runs, Turns

_RESENDS = 4
_REPLY_OCTETS = 832
"""What a short reply takes of a receive buffer, measured: 212,992 octets hold 256."""
_READ_LEAST_NS = 500_000


class Udp:
    """The transport `udp`: one flight table, one receive batch, one epoll set for all its sockets."""

    def __init__(self, questions: Questions, random: np.random.Generator, buffer: int) -> None:
        self.stall_ns = 50_000_000
        self.read_every_ns = READ_NS
        self._granted = 0
        """Octets of the smallest receive buffer; 0 before there is one."""
        self._questions, self._random = questions, random
        self._ledger = Ledger(questions, random)
        self._asked_buffer = buffer
        self._turns = Turns()
        self._doors: dict[int, Door] = {}
        self._fresh: dict[int, FreshPorts] = {}
        self._ports: dict[tuple[str, int, TargetKind], PortLedger] = {}
        self._spare: dict[int, list[int]] = {}
        # by socket index
        self._sockets: list[socket.socket | None] = []
        self._drops: dict[int, int] = {}
        self._bursting: set[int] = set()
        self._socket_of: dict[int, int] = {}
        self._epoll = select.epoll()
        # loaded rows, in runs that leave together: the first row, what to call, with what; and where the last ends
        self._packets = np.zeros((0, 8), np.uint8)
        self._sender = Sender()
        self._runs: list[tuple[int, Callable[[Any], object], Any]] = []
        self._next_run = 0
        # what came in
        self._receiver = Receiver()
        self._replies: list[Replies] = []
        self._errors: list[tuple[int, int, bytes]] = []
        self._read_at = 0
        self._heard = False
        self._offset = wall_offset_ns()
        self._spent = no_rows()

    # -- sockets

    def open(self, channel: Channel) -> None:
        to = channel.target
        door = Door(to)
        self._ledger.admit(channel)
        if channel.ports.policy == "fresh":
            ledger = self._ports.setdefault((to.address, to.port, to.kind), door.ledger())
            self._fresh[channel.index] = FreshPorts(channel, door, ledger, self._watch)
            self._fresh[channel.index].prepare()
            self._turns.admit(channel, 0, 0)
            return
        self._doors[channel.index] = door
        count = channel.ports.count
        first = self._ledger.flight.add_sockets(count, channel.index, channel.rows_each(count))
        self._turns.admit(channel, first, count)
        if channel.gso > 1:
            self._bursting.update(self._turns.sockets(channel.index))
        for _ in range(count):
            self._sockets.append(None)
            with contextlib.suppress(OSError, Unsent):  # a network that cannot be reached is its rows' outcome
                self._connect(len(self._sockets) - 1)
        if self._granted:
            replies_a_second = max(channel.rate / count, 1e-3)
            quarter = self._granted / _REPLY_OCTETS / 4 / replies_a_second
            self.read_every_ns = max(min(self.read_every_ns, int(quarter * 1e9)), _READ_LEAST_NS)

    def _connect(self, index: int) -> socket.socket:
        """Give a pool's socket its port, for good. OSError or Unsent if the network, or this machine, has none."""
        door = self._doors[int(self._ledger.flight.channel_of[index])]
        sock = door.new_socket()
        try:
            granted = receive_buffer(sock, self._asked_buffer)
            self._granted = min(self._granted or granted, granted)
            door.connect(sock)
        except (OSError, Unsent):
            sock.close()
            raise
        self._sockets[index] = sock
        self._register(sock, index)
        return sock

    def _watch(self, sock: socket.socket, channel: int) -> int:
        """Take a socket of fresh ports; its index."""
        if not self._spare.setdefault(channel, []):
            first = self._ledger.flight.add_sockets(FRESH_PLACES, channel, FRESH_RING)
            self._spare[channel] = list(range(first + FRESH_PLACES - 1, first - 1, -1))
            self._sockets += [None] * FRESH_PLACES
        index = self._spare[channel].pop()
        self._sockets[index] = sock
        self._register(sock, index)
        self._granted = self._granted or sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        return index

    def _register(self, sock: socket.socket, index: int) -> None:
        self._socket_of[sock.fileno()] = index
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def retire(self, channel: int) -> None:
        fresh = self._fresh.pop(channel, None)
        for index in fresh.sockets() if fresh else self._turns.sockets(channel):
            self._close(index)
        self._doors.pop(channel, None)

    def _close(self, index: int) -> None:
        sock, self._sockets[index] = self._sockets[index], None
        if sock is not None:
            del self._socket_of[sock.fileno()]
            sock.close()

    def source_port(self, source: int) -> int:
        sock = self._sockets[source] if 0 <= source < len(self._sockets) else None
        return int(sock.getsockname()[1]) if sock else 0

    def own_drops(self) -> Ints:
        drops = np.zeros(len(self._ledger.timeout), np.int64)
        for channel in self._doors:
            for index in self._turns.sockets(channel):
                sock = self._sockets[index]
                total = own_drops(sock) if sock else 0
                drops[channel] += total - self._drops.get(index, 0)
                self._drops[index] = total
        return drops

    def readable(self) -> int | None:
        return None

    def facts(self) -> dict[str, str]:
        return {"receive_buffer": str(self._granted)} if self._granted else {}

    def another(self) -> Udp:
        other = Udp(self._questions, self._random, self._asked_buffer)
        other._ports = self._ports
        return other

    def close(self) -> None:
        self._epoll.close()
        for sock in self._sockets:
            if sock:
                sock.close()

    # -- sending

    def load(self, rows: Due) -> None:
        self.settle()
        packets, octets = self._questions.queries(rows.question, rows.token)
        if self._turns.has_bursts and (octets != octets[0]).any():
            order = np.lexsort((octets, rows.channel, rows.release))
            rows, packets, octets = Due(*(column[order] for column in rows)), packets[order], octets[order]
        ledger = self._ledger
        late = ledger.late(rows, self.stall_ns)
        runs = self._turns.deal(rows, octets, late)
        rests: Ints | int = State.ANSWERED
        if self._fresh:
            self._take_fresh(rows, runs, late)
            rests = np.where(self._turns.count[rows.channel[runs.first[:-1]]] > 0, State.ANSWERED, State.NEVER)
        lengths = runs.lengths
        slots, ids = ledger.flight.reserve(runs.socket, lengths, ledger.instants(rows), rests)
        lost = np.flatnonzero(slots < 0)
        if len(lost):
            runs = runs.broken(lost)
            lengths = runs.lengths
        packets[:, 0], packets[:, 1] = ids >> 8, ids & 0xFF
        self._packets = packets
        self._sender.load(packets, octets)
        self._plan(rows, runs, slots, octets)
        ledger.load(rows, slots, np.repeat(runs.socket, lengths), ids, octets)

    def _take_fresh(self, rows: Due, runs: Runs, late: int) -> None:
        """Give rows of fresh ports their sockets, as far as some are idle; not those that come too late."""
        first = runs.first[:-1]
        channel = np.where(first < late, -1, rows.channel[first])
        for index, ports in self._fresh.items():
            at = np.flatnonzero(channel == index)
            if len(at):
                runs.socket[at] = ports.take(rows.token[runs.first[at]] >> CHANNEL_BITS)

    def _plan(self, rows: Due, runs: Runs, slots: Ints, octets: Ints) -> None:
        """What send() will call for each run."""
        first = runs.first[:-1]
        channels, sockets = rows.channel[first].tolist(), runs.socket.tolist()
        width, raw = self._packets.shape[1], self._packets.tobytes()
        self._runs = planned = list[tuple[int, Callable[[Any], object], Any]]()
        self._next_run = 0
        for i, j, index, slot, channel, length in zip(
            first.tolist(), runs.first[1:].tolist(), sockets, slots[first].tolist(), channels, octets[first].tolist(),
            strict=True,
        ):  # fmt: skip
            ports = self._fresh.get(channel)
            if ports is None:
                if slot < 0:
                    planned.append((i, _no_id, None))
                elif j - i == 1 and (sock := self._sockets[index]):
                    planned.append((i, sock.send, raw[i * width : i * width + length]))
                else:
                    planned.append((i, self._send_run, (i, j, index)))
            elif index >= 0:
                planned.append((i, ports.send, (index, raw[i * width : i * width + length])))
            else:
                planned.append((i, self._send_fresh, (i, channel, index, raw[i * width : i * width + length])))
        planned.append((len(rows.due), _no_id, None))

    @property
    def next_due(self) -> int:
        return self._ledger.next_due

    @property
    def started_until(self) -> int:
        return self._ledger.started_until

    def send(self, now: int, most: int = NEVER) -> int:
        rows = self._ledger.due(now, self.stall_ns, most)
        if not rows:
            return 0
        start, stop = rows.start, rows.stop
        runs, k = self._runs, self._next_run
        while runs[k][0] < start:
            k += 1
        began = time.monotonic_ns()
        row = start
        while row < stop:
            row, call, what = runs[k]
            k += 1
            try:
                call(what)
            except (OSError, Unsent) as error:
                self._trouble(row, error)
            row = runs[k][0]
        self._next_run = k
        self._ledger.sent(start, row, began, time.monotonic_ns())
        return row - start

    def _send_run(self, run: tuple[int, int, int]) -> None:
        """Send several rows from one socket, as one burst if that was asked for."""
        row, stop, index = run
        try:
            fd = (self._sockets[index] or self._connect(index)).fileno()
        except (OSError, Unsent) as error:
            for each in range(row, stop):
                self._trouble(each, error)
            return
        if index in self._bursting and stop - row > 1:
            with contextlib.suppress(OSError):
                row += self._sender.burst(fd, row, stop - row)
        while row < stop:
            try:
                row += self._sender.send(fd, row, stop - row)
            except OSError as error:
                self._trouble(row, error)
                row += 1

    def _send_fresh(self, what: tuple[int, int, int, bytes]) -> None:
        """Send a row from a new port; where no socket was free when it was loaded, take one now."""
        row, channel, index, octets = what
        ports, ledger = self._fresh[channel], self._ledger
        if index < 0:
            index = ports.take_one(int(ledger.rows.token[row]) >> CHANNEL_BITS)
            ledger.socket[row] = index
            ledger.slot[row], query_id = ledger.flight.reserve_one(index)
            ledger.query_id[row] = query_id
            self._packets[row, :2] = query_id >> 8, query_id & 0xFF
            octets = query_id.to_bytes(2, "big") + octets[2:]
        ports.send((index, octets))

    def _again(self, row: int) -> None:
        """Send a row's query once more: an earlier query's error came instead."""
        sock = self._sockets[int(self._ledger.socket[row])]
        if sock:
            sock.send(self._packets[row, : int(self._ledger.octets[row])].tobytes())

    def _trouble(self, row: int, error: OSError | Unsent) -> None:
        """A send failed: where the error is an earlier query's, take it from the socket's queue and send again."""
        if isinstance(error, Unsent):
            self._ledger.keep_back(row, error.cause)
            return
        socket, code = int(self._ledger.socket[row]), error.errno or 0
        for _ in range(_RESENDS):
            if code in OURS or code in (errno.EPERM, errno.EACCES) or not self._take_errors(socket):
                break
            try:
                self._again(row)
            except OSError as again:
                code = again.errno or 0
            else:
                return
        self._ledger.keep_back(row, OURS.get(code, -code))

    def _take_errors(self, socket: int) -> bool:
        """Keep what a socket's error queue holds for the next harvest; whether there was anything."""
        sock = self._sockets[socket] if socket >= 0 else None
        found = [(socket, code, payload) for code, payload in error_queue(sock)] if sock else []
        self._errors += found
        return bool(found)

    def settle(self) -> None:
        """Enter the rows sent since the last time in the flight table."""
        self._heard = False
        for row in self._ledger.kept_back if self._fresh else ():
            index, channel = int(self._ledger.socket[row]), int(self._ledger.rows.channel[row])
            if index >= 0 and channel in self._fresh:
                self._fresh[channel].release([index])
        self._ledger.settle()

    # -- receiving

    def read(self, now: int) -> None:
        self._read_at, self._heard = now, True
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
        if batch := self._batch():
            whole = [self._receiver.octets(i) for i in range(self._receiver.filled)]
            self._replies.append(batch._replace(head=batch.head.copy(), reply=whole.__getitem__))
            self._receiver.clear()

    def _batch(self) -> Replies | None:
        """The receive batch; valid until it is cleared."""
        got, n = self._receiver, self._receiver.filled
        if not n:
            return None
        sockets, now = got.sources[:n].copy(), time.monotonic_ns()
        offset = wall_offset_ns()
        stamps = got.stamps
        received = stamps - offset
        if not stamps.all():
            received[stamps == 0] = now
        if abs(offset - self._offset) > CLOCK_STEP_NS:  # the kernel's stamps are wall time: they say nothing then
            received[:] = now
            count(self._ledger.counters, Counter.CLOCK_STEPS, np.unique(self._ledger.flight.channel_of[sockets]))
        self._offset = offset
        return Replies(got.head[:n], got.lengths, sockets, received, got.octets)

    def harvest(self) -> Harvest:
        self._free(self._spent)
        if self._heard:
            self.settle()  # replies to rows sent since then may be among those that came
        replies = [*self._replies, *filter(None, [self._batch()])]
        self._replies.clear()
        ledger = self._ledger
        ledger.finished += [ledger.flight.settle(batch, ledger.counters) for batch in replies]
        self._receiver.clear()
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
        return self._ledger.flight.finish(slots, outcome, state=State.ANSWERED, errno=code)

    def _free(self, finished: Finished) -> None:
        """Give the sockets of rows that were handed over back to their channels' fresh ports."""
        if not self._fresh:
            return
        used = finished.socket >= 0
        sockets, sent = finished.socket[used], finished.sent[used]
        channels = self._ledger.flight.channel_of[sockets]
        timeouts = finished.outcome[used] == Outcome.TIMEOUT
        for channel, ports in self._fresh.items():
            mine = channels == channel
            ports.release(sockets[mine & ~timeouts].tolist())
            for i in np.flatnonzero(mine & timeouts).tolist():
                ports.release([int(sockets[i])], int(sent[i] + 2 * self._ledger.timeout[channel]))
        for channel, ports in self._fresh.items():
            self._ledger.counters[channel, Counter.PORTS_REUSED] += ports.reused()
            for index in ports.surplus():
                self._close(index)
                self._spare[channel].append(index)

    def drop(self) -> None:
        self.settle()
        self._ledger.drop()


def _no_id(_: Any) -> None:
    """Stands in for the send of a row for which its socket had no id left."""
    raise Unsent(UnsentCause.IDS)
