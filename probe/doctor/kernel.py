"""Sockets on the loopback device in; whether this kernel does with them what the engine asks of it out."""

from __future__ import annotations

import errno
import os
import platform
import select
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from probe.doctor.examination import Seen
from probe.linux import (
    Connector,
    Receiver,
    Sender,
    ask_for_errors,
    ask_for_stamps,
    error_queue,
    fine_timers,
    limit_ports,
    own_drops,
    port_range,
    socket_address,
)

_HERE = "127.0.0.1"
_PATIENCE_MS = 1000
_SLEEPS, _SLEEP_S, _LATE_S = 20, 0.001, 0.0005


@contextmanager
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A UDP socket that hears, and one that is connected to it."""
    family = socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    with socket.socket(*family) as ear, socket.socket(*family) as mouth:
        ear.bind((_HERE, 0))
        mouth.connect(ear.getsockname())
        yield ear, mouth


def _heard(sock: socket.socket, events: int = select.POLLIN) -> bool:
    """Whether something comes within a second."""
    poll = select.poll()
    poll.register(sock, events)
    return bool(poll.poll(_PATIENCE_MS))


def linux() -> Seen:
    """The system, and its kernel's version."""
    return Seen(sys.platform == "linux", f"{platform.system()} {platform.release()}, {platform.machine()}")


def batches() -> Seen:
    """recvmmsg takes several datagrams at once."""
    with _pair() as (ear, mouth):
        for each in (b"a", b"bc", b"def"):
            mouth.send(each)
        _heard(ear)
        receiver = Receiver(8, 64)
        n = receiver.receive(ear.fileno(), 0)
        return Seen(receiver.lengths.tolist() == [1, 2, 3], f"recvmmsg read {n} of 3 datagrams in one call")


def stamps() -> Seen:
    """SO_TIMESTAMPNS says when a datagram came, however late it is read."""
    with _pair() as (ear, mouth):
        ask_for_stamps(ear)
        mouth.send(b"x")
        _heard(ear)
        receiver = Receiver(8, 64)
        receiver.receive(ear.fileno(), 0)
        ago_s = (time.time_ns() - int(receiver.stamps.sum())) / 1e9
        stamped = len(receiver.stamps) == 1 and 0 <= ago_s < _PATIENCE_MS
        return Seen(stamped, f"SO_TIMESTAMPNS: {f'{ago_s * 1e6:,.0f} us old when read' if stamped else 'no stamp'}")


def errors() -> Seen:
    """IP_RECVERR hands back what was sent to a closed port."""
    with _pair() as (ear, mouth):
        ask_for_errors(mouth)
        ear.close()
        mouth.send(b"whose")
        _heard(mouth, 0)
        found = list(error_queue(mouth))
        said = ", ".join(f"{errno.errorcode.get(code, code)} of {payload!r}" for code, payload in found)
        return Seen(found == [(errno.ECONNREFUSED, b"whose")], f"IP_RECVERR: {said or 'nothing of a closed port'}")


def new_ports() -> Seen:
    """connect(AF_UNSPEC), then connect(), gives a socket another port."""
    with _pair() as (ear, mouth):
        connector = Connector(socket_address(_HERE, ear.getsockname()[1])[1])
        ports = set()
        for _ in range(3):  # one in thousands is the same by chance
            connector.reconnect(mouth.fileno())
            ports.add(mouth.getsockname()[1])
        return Seen(len(ports) > 1, f"connected 3 times, from {len(ports)} ports")


def port_choice() -> Seen:
    """IP_LOCAL_PORT_RANGE: the kernel takes a port where it is told to."""
    low, high = port_range()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return Seen(limit_ports(sock, low, high), "IP_LOCAL_PORT_RANGE (Linux 6.3)")


def drops() -> Seen:
    """SO_MEMINFO counts what did not fit into our own receive buffer."""
    with _pair() as (ear, _):
        return Seen(own_drops(ear) == 0, "SO_MEMINFO counts them")


def memory() -> Seen:
    """A memfd: memory that processes share, and that no file system holds."""
    os.close(os.memfd_create("dnsprobe-doctor", os.MFD_CLOEXEC))
    return Seen(True, "memfd_create")


def timers() -> Seen:
    """How late short sleeps end, in the median."""
    fine_timers()
    late = []
    for _ in range(_SLEEPS):
        began = time.monotonic()
        select.select([], [], [], _SLEEP_S)
        late.append(time.monotonic() - began - _SLEEP_S)
    median_s = sorted(late)[_SLEEPS // 2]
    return Seen(median_s < _LATE_S, f"sleeps of 1 ms end {median_s * 1e6:,.0f} us late")


def bursts() -> Seen:
    """UDP_SEGMENT: one call, a burst of datagrams."""
    with _pair() as (ear, mouth):
        sender = Sender()
        packets = np.full((4, 16), 7, np.uint8)
        sender.load(packets, np.full(4, 16))
        sender.burst(mouth.fileno(), 0, 4)
        _heard(ear)
        receiver = Receiver(8, 64)
        receiver.receive(ear.fileno(), 0)
        return Seen(receiver.lengths.tolist() == [16] * 4, f"UDP_SEGMENT: 4 sent at once came as {receiver.filled}")


def ipv6() -> Seen:
    """Whether there is IPv6 here at all."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
    return Seen(True, "[::1] is there")
