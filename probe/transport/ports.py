"""Source ports of UDP channels: a target's address -> connected sockets, each port in its half of the range.

Lanes towards pods and all other lanes take their ports from different halves: a port with a live Service session must
not ask a pod directly, or IPVS rewrites the pod's answer (Linux, net/netfilter/ipvs/ip_vs_core.c, ip_vs_out_hook).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable

from probe.errors import EnvironmentProblem
from probe.linux import Connector, ask_for_errors, ask_for_stamps, limit_ports, port_range, socket_address
from probe.model import NS, Target, TargetKind
from probe.outcome import UnsentCause
from probe.transport.flight import Ints
from probe.transport.rows import Channel

OURS = {
    errno.EAGAIN: UnsentCause.SEND_BUFFER,
    errno.ENOBUFS: UnsentCause.SEND_BUFFER,
    errno.ENOMEM: UnsentCause.DESCRIPTORS,
    errno.EMFILE: UnsentCause.DESCRIPTORS,
    errno.ENFILE: UnsentCause.DESCRIPTORS,
}
"""Errors of socket calls that say nothing about DNS."""

FRESH_PLACES = 64
"""Fresh sockets enter the flight table by so many: growing it costs, whatever is added."""
FRESH_RING = 4
"""Slots of a fresh socket: it carries one row at a time, the others keep finished rows for late replies."""
CONNTRACK_NS = 30 * NS
"""How long conntrack remembers a UDP flow that was answered once (nf_conntrack_udp_timeout)."""
_SHARE_IN_TURN = 0.8
_AHEAD_SECONDS = 0.04
"""Sockets for so long a time are made before the run begins; making one takes longer than using it."""
_CLOSED_AT_ONCE = 100
_CROWD = 6
"""Draws among so many times as few ports: 99.8 % are repeats, and are counted as such without a look."""
_DRAWS = 16


class Unsent(Exception):
    """A row cannot be put on a socket, through our own fault."""

    def __init__(self, cause: UnsentCause) -> None:
        self.cause = cause


def half_of_ports(kind: TargetKind) -> tuple[int, int]:
    """The source ports, both ends included, that lanes towards this kind of target use."""
    low, high = port_range()
    middle = (low + high + 1) // 2
    return (middle, high) if kind is TargetKind.POD else (low, middle - 1)


def address_of(target: Target) -> tuple[int, bytes]:
    """Address family and struct sockaddr. EnvironmentProblem where the address names a device that is not there."""
    try:
        return socket_address(target.address, target.port)
    except OSError as error:
        raise EnvironmentProblem(f"{target}: {error.strerror or error}") from None


def bind_in_half(sock: socket.socket, low: int, high: int) -> None:
    """Have a TCP socket take its port from its target's half, by the kernel's choice or, before Linux 6.3, by ours."""
    if limit_ports(sock, low, high):
        return
    for _ in range(_DRAWS):
        with contextlib.suppress(OSError):
            sock.bind(("", low + secrets.randbelow(high - low + 1)))
            return
    raise Unsent(UnsentCause.PORTS)


class PortLedger:
    """When each port was last used towards one target: conntrack, and IPVS, remember a flow that long."""

    def __init__(self, low: int, high: int) -> None:
        self._low = low
        self._used = [-CONNTRACK_NS] * (high - low + 1)
        shuffled = list(range(low, high + 1))
        secrets.SystemRandom().shuffle(shuffled)
        self._turns = deque(shuffled)

    def __len__(self) -> int:
        return len(self._used)

    def oldest(self) -> int:
        """The port whose turn it is; each has one before any has another."""
        port = self._turns.popleft()
        self._turns.append(port)
        return port

    def use(self, port: int) -> bool:
        """Note that a port is used now; whether that is again, too soon."""
        now, place = time.monotonic_ns(), port - self._low
        again = now - self._used[place] < CONNTRACK_NS
        self._used[place] = now
        return again


class Door:
    """Makes sockets towards one target and connects them, each time from another port of the target's half."""

    def __init__(self, target: Target) -> None:
        self._family, address = address_of(target)
        self._connector = Connector(address)
        self._low, self._high = half_of_ports(target.kind)
        self._limited = True

    def ledger(self) -> PortLedger:
        """An empty ledger of the ports that are used here."""
        return PortLedger(self._low, self._high)

    def new_socket(self) -> socket.socket:
        """A datagram socket, not connected yet, with kernel stamps and error queue. OSError if none is to be had."""
        sock = socket.socket(self._family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        ask_for_errors(sock)
        ask_for_stamps(sock)
        self._limited = limit_ports(sock, self._low, self._high)
        return sock

    def connect(self, sock: socket.socket) -> None:
        """Connect from a new port. Unsent if no port is free; OSError is the network's own error."""
        for _ in range(_DRAWS):
            code = self._connector.reconnect(sock.fileno())
            if code == errno.EAGAIN:
                break
            if code:
                raise OSError(code, os.strerror(code))
            if self._limited or self._low <= sock.getsockname()[1] <= self._high:
                return
        raise Unsent(UnsentCause.PORTS)

    def reconnect(self, fd: int) -> bool:
        """Connect from a new port, wherever the kernel takes it in the half; False: connect() says why not."""
        return self._limited and not self._connector.reconnect(fd)

    def connect_by(self, ledger: PortLedger, sock: socket.socket) -> None:
        """Connect from the port that was not used for longest. Unsent if none is free; OSError as connect()."""
        for _ in range(_DRAWS):
            port = ledger.oldest()
            if not (self._limited and limit_ports(sock, port, port)):
                return self.connect(sock)
            code = self._connector.reconnect(sock.fileno())
            if code == 0:
                return None
            if code != errno.EAGAIN:
                raise OSError(code, os.strerror(code))
        limit_ports(sock, self._low, self._high)
        return self.connect(sock)


class FreshPorts:
    """A channel's sockets for `fresh`: a query each at a time, or a pair of them, from a new port.

    At most rate x timeout sockets, made when they are needed, closed again when they are not. One whose row timed out
    rests for another timeout, so that a late reply is still seen, unless it is the last one left. Ports are taken in
    turn where all of them last for longer than conntrack remembers one; above that the kernel draws, which is cheaper,
    and repeats are counted.
    """

    def __init__(
        self, channel: Channel, door: Door, ledger: PortLedger, watch: Callable[[socket.socket, int], int]
    ) -> None:
        self._channel, self._door, self._ledger, self._watch = channel, door, ledger, watch
        self._in_turn = channel.rate * CONNTRACK_NS / 1e9 < _SHARE_IN_TURN * len(ledger)
        self._crowded = channel.rate * CONNTRACK_NS / 1e9 > _CROWD * len(ledger)
        self._reused = self._drawn = 0
        self._unused = len(ledger)
        self._most = channel.most_at_once + 16
        self._ahead = min(self._most, 1 + int(channel.rate * _AHEAD_SECONDS))
        self._least_idle = self._too_many = self._look_at = 0
        self._sockets: dict[int, socket.socket] = {}
        self._ends: dict[int, tuple[int, Callable[[bytes], int]]] = {}
        self._idle: deque[int] = deque()
        self._resting: deque[tuple[int, int]] = deque()
        self._stale: set[int] = set()
        # of pairs: the number and socket of the row loaded last, and of the one sent last; the rows on each socket
        self._loaded = self._sent = (-1, -1)
        self._rows: dict[int, int] = {}

    def prepare(self) -> None:
        """Have sockets ready for the first rows, as far as they are to be had."""
        with contextlib.suppress(Unsent):
            for _ in range(self._ahead):
                self._idle.append(self._new())

    def take(self, numbers: Ints) -> list[int]:
        """Sockets for rows with these numbers in their series, as far as some are idle; -1 for the rest."""
        idle = self._idle
        if not self._channel.pair:
            n = min(len(idle), len(numbers))
            taken = [idle.popleft() for _ in range(n)]
            self._least_idle = min(self._least_idle, len(idle))
            if not self._crowded:
                self._stale.update(taken)
            return taken + [-1] * (len(numbers) - n)
        taken = []
        for number in numbers.tolist():
            if number != self._loaded[0]:
                self._loaded = (number, idle.popleft() if idle else -1)
                self._stale.add(self._loaded[1])
            taken.append(self._put_on(self._loaded[1]))
        return taken

    def take_one(self, number: int) -> int:
        """A socket for one row, made if none is idle; for the second of a pair that of the first. Unsent if none."""
        if not self._channel.pair or number != self._sent[0] or not self._rows.get(self._sent[1]):
            self._sent = (number, self._any())
            self._stale.add(self._sent[1])
        return self._put_on(self._sent[1])

    def _put_on(self, index: int) -> int:
        """Count a row of a pair on its socket."""
        if self._channel.pair and index >= 0:
            self._rows[index] = self._rows.get(index, 0) + 1
        return index

    def surplus(self) -> list[int]:
        """Sockets to be closed, a few at a time: as many as were idle for a whole second, beyond what a start needs."""
        now = time.monotonic_ns()
        if now >= self._look_at:
            while self._resting and self._resting[0][0] <= now:
                self._idle.append(self._resting.popleft()[1])
            self._too_many = max(0, self._least_idle - self._ahead)
            self._least_idle, self._look_at = len(self._idle), now + NS
        n = min(self._too_many, len(self._idle), _CLOSED_AT_ONCE)
        self._too_many -= n
        gone = [self._idle.popleft() for _ in range(n)]
        for index in gone:
            del self._sockets[index], self._ends[index]
        return gone

    def _any(self) -> int:
        self._least_idle = 0
        if self._idle:
            return self._idle.popleft()
        if self._resting and self._resting[0][0] <= time.monotonic_ns():
            return self._resting.popleft()[1]
        if len(self._sockets) < self._most:
            return self._new()
        if self._resting:
            return self._resting.popleft()[1]
        raise Unsent(UnsentCause.SOCKETS)

    def _new(self) -> int:
        try:
            sock = self._door.new_socket()
        except OSError as error:
            raise Unsent(OURS.get(error.errno or 0, UnsentCause.DESCRIPTORS)) from None
        index = self._watch(sock, self._channel.index)
        self._sockets[index] = sock
        self._ends[index] = sock.fileno(), sock.send
        return index

    def send(self, what: tuple[int, bytes]) -> None:
        """Send a query on a socket, from a new port or from that of the other one of its pair. Unsent, or OSError."""
        index, octets = what
        fd, send = self._ends[index]
        if self._crowded and not self._channel.pair:
            if not self._door.reconnect(fd):
                self._door.connect(self._sockets[index])
            self._drawn += 1
        elif index in self._stale:
            self._connect(self._sockets[index])
            self._stale.discard(index)
        send(octets)

    def _connect(self, sock: socket.socket) -> None:
        if self._in_turn:
            self._door.connect_by(self._ledger, sock)
        else:
            self._door.connect(sock)
        self._reused += self._ledger.use(sock.getsockname()[1])

    def sockets(self) -> list[int]:
        """The indices of all its sockets."""
        return list(self._sockets)

    def release(self, indices: list[int], rest_until: int = 0) -> None:
        """Rows of these sockets are done: they may be used again, or from rest_until (CLOCK_MONOTONIC ns) on."""
        if self._channel.pair:
            for index in indices:
                self._rows[index] -= 1
            indices = [index for index in dict.fromkeys(indices) if not self._rows[index]]
        if rest_until:
            self._resting.extend((rest_until, index) for index in indices)
        else:
            self._idle.extend(indices)

    def reused(self) -> int:
        """How many ports were used again within conntrack's memory since the last call."""
        n, self._reused = self._reused, 0
        drawn, self._drawn = self._drawn, 0
        new = min(drawn, self._unused)
        self._unused -= new
        return n + drawn - new
