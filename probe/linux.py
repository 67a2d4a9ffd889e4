"""What Linux offers beyond the socket module: datagrams in batches with kernel stamps, error queues, ports, timers.

In: sockets and file descriptors. Out: numpy rows and plain tuples. The only door to ctypes. Numbers are those of the
kernel's uapi headers on x86-64 and arm64: asm-generic/socket.h, linux/in.h, in6.h, errqueue.h, prctl.h.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
SO_MEMINFO = 55
SK_MEMINFO_DROPS = 8
IP_RECVERR = 11
IPV6_RECVERR = 25
IP_LOCAL_PORT_RANGE = 51
UDP_SEGMENT = 103
MSG_ERRQUEUE = 0x2000
MSG_TRUNC = 0x20
MSG_DONTWAIT = 0x40
_PR_SET_TIMERSLACK = 29
_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET = 0x40000000

SUPPORTED = sys.platform == "linux"
"""Elsewhere nothing here works, and nothing can be asked; this module can be imported all the same."""

_libc = ctypes.CDLL(None, use_errno=True)


HEAD = 320
"""Octets of a row that lie together: the longest question with a short reply fits (RFC 1035, 2.3.4)."""
_HEADER_WORDS = 8
"""A struct mmsghdr in words of 8 octets: name, namelen, iov, iovlen, control, controllen, flags, len."""


class Receiver:
    """Room for a batch of datagrams, filled by recvmmsg from any number of sockets, one after the other.

    head: uint8[rows, HEAD], how each begins; lengths: int64[rows]; stamps: int64[rows], CLOCK_REALTIME ns of arrival (0
    if unstamped); cut: bool[rows], longer than `most`; sources: int64[rows], as given to receive(). Valid up to
    `filled`. What goes beyond the head lies apart, so that short datagrams stay close together.
    """

    _CONTROL = 64

    def __init__(self, rows: int = 2048, most: int = 4096) -> None:
        self.rows, self.filled = rows, 0
        self.head = np.zeros((rows, HEAD), np.uint8)
        self._rest = np.zeros((rows, max(most - HEAD, 8)), np.uint8)
        self.sources = np.zeros(rows, np.int64)
        self._control = np.zeros((rows, self._CONTROL // 8), np.int64)
        index = np.arange(rows, dtype=np.int64)
        self._iovecs = np.empty((rows, 4), np.int64)
        self._iovecs[:, 0] = self.head.ctypes.data + index * HEAD
        self._iovecs[:, 1] = min(most, HEAD)
        self._iovecs[:, 2] = self._rest.ctypes.data + index * self._rest.shape[1]
        self._iovecs[:, 3] = max(most - HEAD, 0)
        self._headers = np.zeros((rows, _HEADER_WORDS), np.int64)
        self._headers[:, 2] = self._iovecs.ctypes.data + index * self._iovecs.strides[0]
        self._headers[:, 3] = 2
        self._headers[:, 4] = self._control.ctypes.data + index * self._CONTROL
        self._headers[:, 5] = self._CONTROL
        self._address = self._headers.ctypes.data
        self._recvmmsg = _libc.recvmmsg
        self._recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)

    def receive(self, fd: int, source: int) -> int:
        """Read what waits on fd, as far as there is room; how many datagrams. Pending socket errors are left aside."""
        first = self.filled
        room = self.rows - first
        if room <= 0:
            return 0
        n: int = self._recvmmsg(fd, self._address + first * _HEADER_WORDS * 8, room, MSG_DONTWAIT, None)
        if n <= 0:
            return 0
        self.sources[first : first + n] = source
        self.filled = first + n
        return n

    def octets(self, row: int) -> bytes:
        """All of a datagram, as far as it was not cut."""
        length = int(self._headers[row, 7]) & 0xFFFFFFFF
        head = self.head[row, : min(length, HEAD)].tobytes()
        return head if length <= HEAD else head + self._rest[row, : length - HEAD].tobytes()

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Bytes received of each datagram."""
        return self._headers[: self.filled, 7] & 0xFFFFFFFF

    @property
    def cut(self) -> NDArray[np.bool_]:
        """Datagrams that were longer than the room for one."""
        flags: NDArray[np.int64] = self._headers[: self.filled, 6] & MSG_TRUNC
        return flags.astype(np.bool_)

    @property
    def stamps(self) -> NDArray[np.int64]:
        """Kernel receive times, CLOCK_REALTIME ns; 0 where the kernel gave none."""
        words = self._control[: self.filled]
        stamps: NDArray[np.int64] = words[:, 2] * 1_000_000_000 + words[:, 3]
        stamped = words[:, 1] == SO_TIMESTAMPNS << 32 | socket.SOL_SOCKET
        return stamps if stamped.all() else np.where(stamped, stamps, 0)

    def clear(self) -> None:
        """Make room again; touches only the rows that were used."""
        self._headers[: self.filled, 5] = self._CONTROL
        self._control[: self.filled, 1] = 0
        self.filled = 0


class Sender:
    """A batch of datagrams to be sent on connected sockets, any run of rows by one system call.

    packets: uint8[n, <= HEAD], lengths: int64[n], both taken by load().
    """

    def __init__(self) -> None:
        self._iovecs = np.empty((0, 2), np.int64)
        self._headers = np.empty((0, _HEADER_WORDS), np.int64)
        self._address = 0
        self._sendmmsg = _libc.sendmmsg
        self._sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
        self._sendmsg = _libc.sendmsg
        self._sendmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
        self._segment = struct.Struct("=QiiHxxxxxx")
        self._control = ctypes.create_string_buffer(self._segment.size)
        self._lengths = np.empty(0, np.int64)
        self._dense: NDArray[np.uint8] | None = None
        self._steps = 0, 0
        self._vector = np.zeros(2, np.int64)
        self._burst = np.zeros(_HEADER_WORDS, np.int64)
        self._burst[2:6] = self._vector.ctypes.data, 1, ctypes.addressof(self._control), self._segment.size
        self._burst_address, self._vector_address = self._burst.ctypes.data, self._vector.ctypes.data

    def load(self, packets: NDArray[np.uint8], lengths: NDArray[np.int64]) -> None:
        """Take the next batch; `packets` must not move until all of it is sent."""
        n = len(packets)
        if n > len(self._iovecs):
            self._iovecs = np.empty((2 * n, 2), np.int64)
            self._headers = np.zeros((2 * n, _HEADER_WORDS), np.int64)
            self._headers[:, 2] = self._iovecs.ctypes.data + 16 * np.arange(2 * n)
            self._headers[:, 3] = 1
            self._address = self._headers.ctypes.data
        self._packets, self._lengths, self._dense = packets, lengths, None
        self._iovecs[:n, 0] = packets.ctypes.data + packets.strides[0] * np.arange(n)
        self._iovecs[:n, 1] = lengths

    def send(self, fd: int, first: int, count: int) -> int:
        """Send `count` rows from `first` on; how many the kernel took. OSError if it took none."""
        n: int = self._sendmmsg(fd, self._address + 8 * _HEADER_WORDS * first, count, MSG_DONTWAIT)
        if n < 0:
            raise _error()
        return n

    def burst(self, fd: int, first: int, count: int) -> int:
        """The same as one burst that the kernel cuts (UDP_SEGMENT): all rows but the last must be of one length.

        OSError if it took none; EIO where a device cannot do that.
        """
        if self._dense is None:
            self._dense = self._packets[:, : int(self._lengths.max())].copy()
            self._steps = self._dense.strides[0], self._dense.ctypes.data
        length = int(self._lengths[first])
        step, address = self._steps
        self._segment.pack_into(self._control, 0, self._segment.size - 6, socket.IPPROTO_UDP, UDP_SEGMENT, length)
        if length == step:  # they lie one behind the other
            self._vector[:] = address + step * first, (count - 1) * step + int(self._lengths[first + count - 1])
            self._burst[2:4] = self._vector_address, 1
        else:
            self._burst[2:4] = self._iovecs.ctypes.data + 16 * first, count
        if self._sendmsg(fd, self._burst_address, MSG_DONTWAIT) < 0:
            raise _error()
        return count


def _error() -> OSError:
    """The OSError of the call that has just failed."""
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


def error_queue(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Drain a socket's error queue (IP_RECVERR): (errno, the offending datagram's payload as far as ICMP quoted it)."""
    while True:
        try:
            payload, control, _, _ = sock.recvmsg(2048, 512, MSG_ERRQUEUE | MSG_DONTWAIT)
        except OSError:
            return
        for level, kind, data in control:
            if (level, kind) in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
                yield struct.unpack_from("=I", data)[0], payload


def ask_for_errors(sock: socket.socket) -> None:
    """Have ICMP errors queued with the datagram that caused them."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


def ask_for_stamps(sock: socket.socket) -> None:
    """Have each received datagram stamped by the kernel on arrival."""
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def receive_buffer(sock: socket.socket, size: int) -> int:
    """Ask for `size` bytes of receive buffer, above rmem_max where we may; what the kernel granted, in bytes."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size // 2)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size // 2)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def own_drops(sock: socket.socket) -> int:
    """Datagrams dropped so far because this socket's receive buffer was full (SO_MEMINFO)."""
    info = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 64)
    return int(struct.unpack_from("=I", info, SK_MEMINFO_DROPS * 4)[0]) if len(info) > SK_MEMINFO_DROPS * 4 else 0


def limit_ports(sock: socket.socket, low: int, high: int) -> bool:
    """Have the kernel choose this socket's port in [low, high]; False where it can't (before Linux 6.3)."""
    try:
        sock.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=I", high << 16 | low))
    except OSError:
        return False
    return True


def port_range() -> tuple[int, int]:
    """The kernel's range of ephemeral ports, both ends included."""
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    except OSError:
        return 32768, 60999
    return int(low), int(high)


def socket_address(address: str, port: int) -> tuple[int, bytes]:
    """An IP address and port -> (address family, struct sockaddr) for connector()."""
    if ":" in address:
        host, _, zone = address.partition("%")
        scope = socket.if_nametoindex(zone) if zone else 0
        packed = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0)
        return socket.AF_INET6, packed + socket.inet_pton(socket.AF_INET6, host) + struct.pack("=I", scope)
    packed = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_pton(socket.AF_INET, address)
    return socket.AF_INET, packed + bytes(8)


class Connector:
    """Connects datagram sockets to one address, giving a socket that is connected already a new source port."""

    def __init__(self, sockaddr: bytes) -> None:
        self._kept = ctypes.create_string_buffer(sockaddr, len(sockaddr)), ctypes.create_string_buffer(bytes(16), 16)
        self._address, self._nowhere = (ctypes.addressof(each) for each in self._kept)
        self._length = len(sockaddr)
        self._connect = _libc.connect
        self._connect.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)

    def reconnect(self, fd: int) -> int:
        """connect(AF_UNSPEC), then connect(): 0, or the errno."""
        self._connect(fd, self._nowhere, 16)
        return ctypes.get_errno() if self._connect(fd, self._address, self._length) < 0 else 0


def enter_network(path: str) -> None:
    """This thread uses the network namespace at `path` (/run/netns/NAME) from now on. OSError."""
    with Path(path).open("rb") as there:
        if _libc.setns(there.fileno(), _CLONE_NEWNET):
            raise _error()


def received_ns(sock: socket.socket) -> int:
    """When the kernel received what came last on a TCP connection, CLOCK_MONOTONIC to a timer tick (1 to 10 ms).

    This process may look at it much later. Source: struct tcp_info, tcpi_last_data_recv (include/uapi/linux/tcp.h).
    """
    ago_ms = int.from_bytes(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 56)[52:], sys.byteorder)
    return time.monotonic_ns() - ago_ms * 1_000_000


@contextmanager
def in_network(path: str) -> Iterator[None]:
    """Sockets that this thread makes meanwhile belong to the network namespace at `path`, for good. OSError."""
    with Path("/proc/thread-self/ns/net").open("rb") as home:
        enter_network(path)
        try:
            yield
        finally:
            _libc.setns(home.fileno(), _CLONE_NEWNET)


def fine_timers() -> None:
    """Timer slack of 1 ns for this thread: sleeps end when asked, not 50 us later."""
    _libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def die_with_parent(signal: int, parent: int) -> None:
    """Get `signal` when the parent ends; at once if it has ended already."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal)
