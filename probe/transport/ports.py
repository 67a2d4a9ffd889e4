"""Source ports of UDP channels: a target's address -> connected sockets, each port in its half of the range.

Lanes towards pods and all other lanes take their ports from different halves: a port with a live Service session must
not ask a pod directly, or IPVS rewrites the pod's answer (reference: cluster DNS facts, 2.3).
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
from probe.model import Target, TargetKind
from probe.outcome import UnsentCause
from probe.transport.flight import Flight
from probe.transport.rows import Channel

OURS = {
    errno.EAGAIN: UnsentCause.SEND_BUFFER,
    errno.ENOBUFS: UnsentCause.SEND_BUFFER,
    errno.ENOMEM: UnsentCause.DESCRIPTORS,
    errno.EMFILE: UnsentCause.DESCRIPTORS,
    errno.ENFILE: UnsentCause.DESCRIPTORS,
}
"""Errors of socket calls that say nothing about DNS."""

FRESH_RING = 4
"""Slots of a fresh socket: it carries one row at a time, the others keep finished rows for late replies."""
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


def bind_in_half(sock: socket.socket, kind: TargetKind) -> None:
    """Have a TCP socket take its port from its target's half, by the kernel's choice or, before Linux 6.3, by ours."""
    low, high = half_of_ports(kind)
    if limit_ports(sock, low, high):
        return
    for _ in range(_DRAWS):
        with contextlib.suppress(OSError):
            sock.bind(("", low + secrets.randbelow(high - low + 1)))
            return
    raise Unsent(UnsentCause.PORTS)


class Door:
    """Makes sockets towards one target and connects them, each time from another port of the target's half."""

    def __init__(self, target: Target) -> None:
        self._family, address = address_of(target)
        self._connector = Connector(address)
        self._low, self._high = half_of_ports(target.kind)
        self._limited = True

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


class FreshPorts:
    """A channel's sockets for `fresh`: one row each at a time, a new port for each row.

    At most rate x timeout sockets, made when they are needed. One whose row timed out rests for another timeout, so
    that a late reply is still seen, unless it is the last one left.
    """

    def __init__(
        self, channel: Channel, door: Door, flight: Flight, watch: Callable[[socket.socket], int], idbytes: list[bytes]
    ) -> None:
        self._channel, self._flight, self._watch, self._idbytes = channel, flight, watch, idbytes
        self._door = door
        self._most = int(channel.rate * channel.timeout_ns / 1e9 * 1.05) + 16
        self._sockets: dict[int, socket.socket] = {}
        self._idle: deque[int] = deque()
        self._resting: deque[tuple[int, int]] = deque()
        self.current = -1
        self._packet, self._slot = b"", -1
        self.launched: list[tuple[int, int]] = []

    def prepare(self) -> None:
        """Have the first socket ready, if one is to be had."""
        with contextlib.suppress(Unsent):
            self.release(self._take())

    def send(self, tail: bytes) -> int:
        """Send a query, given without its id, from a new port. Unsent, or OSError: then try again() or give_up()."""
        self.current = index = self._take()
        try:
            self._door.connect(self._sockets[index])
        except Unsent:
            self.give_up()
            raise
        self._slot, query_id = self._flight.reserve_one(index)
        self._packet = self._idbytes[query_id] + tail
        return self.again()

    def again(self) -> int:
        """Send the same query once more: the first attempt got an earlier query's error."""
        n = self._sockets[self.current].send(self._packet)
        self.launched.append((self._slot, self.current))
        return n

    def give_up(self) -> None:
        """The query of the last send() stays unsent."""
        self._idle.append(self.current)

    def _take(self) -> int:
        if self._idle:
            return self._idle.popleft()
        if self._resting and self._resting[0][0] <= time.monotonic_ns():
            return self._resting.popleft()[1]
        if len(self._sockets) < self._most:
            try:
                sock = self._door.new_socket()
            except OSError as error:
                raise Unsent(OURS.get(error.errno or 0, UnsentCause.DESCRIPTORS)) from None
            index = self._watch(sock)
            self._flight.add_sockets(1, self._channel.index, FRESH_RING)
            self._sockets[index] = sock
            return index
        if self._resting:
            return self._resting.popleft()[1]
        raise Unsent(UnsentCause.SOCKETS)

    def sockets(self) -> list[int]:
        """The indices of all its sockets."""
        return list(self._sockets)

    def release(self, index: int, rest_until: int = 0) -> None:
        """The socket's row is done; it may be used again at once, or from rest_until (CLOCK_MONOTONIC ns) on."""
        if rest_until:
            self._resting.append((rest_until, index))
        else:
            self._idle.append(index)
