"""A port, a rate and a time in; how many queries came back at the least cost: sends and recvmmsg, nothing checked.

    python -m bench.floor PORT RATE SECONDS GSO

RATE 0 keeps a window of queries on their way, as fast as replies allow. GSO is how many queries one send() carries.
All queries are equal and have one id; replies are counted, not read.
"""

from __future__ import annotations

import ctypes
import json
import select
import socket
import struct
import sys
import time

SOCKETS, WINDOW = 64, 3
GSO_SOCKETS = 12
"""So that 12 windows of 16, as 64 of 3, fit a server's receive buffer of 208 KB, which holds about 200 queries."""
TICK, DRAIN = 0.000_2, 0.005
ROWS, STRIDE = 256, 512
UDP_SEGMENT = 103
QUERY = bytes.fromhex("00010100000100000000000001610765 78616d706c65047465737400 00010001".replace(" ", ""))
"""a.example.test A, RD set, id 1."""

_libc = ctypes.CDLL(None, use_errno=True)


class Sink:
    """recvmmsg into memory that nobody reads."""

    def __init__(self) -> None:
        self._data = ctypes.create_string_buffer(ROWS * STRIDE)
        self._vectors = (ctypes.c_uint64 * (2 * ROWS))()
        self._headers = (ctypes.c_uint64 * (8 * ROWS))()  # struct mmsghdr is 64 octets where pointers have 8
        for i in range(ROWS):
            self._vectors[2 * i] = ctypes.addressof(self._data) + i * STRIDE
            self._vectors[2 * i + 1] = STRIDE
            self._headers[8 * i + 2] = ctypes.addressof(self._vectors) + 16 * i
            self._headers[8 * i + 3] = 1

    def drain(self, descriptor: int) -> int:
        """How many datagrams waited, at most ROWS."""
        n: int = _libc.recvmmsg(descriptor, self._headers, ROWS, socket.MSG_DONTWAIT, None)
        return max(n, 0)


def opened(port: int, gso: int) -> list[socket.socket]:
    """Sockets that are connected to the server, with 4 MB of receive buffer asked for."""
    sockets = []
    for _ in range(SOCKETS if gso == 1 else GSO_SOCKETS):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 << 20)
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        if gso > 1:
            sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=I", len(QUERY)))
        sockets.append(sock)
    return sockets


def send(sock: socket.socket, count: int, gso: int) -> None:
    """Send so many queries, `gso` by one call."""
    for _ in range(count // gso):
        sock.send(QUERY * gso)
    if count % gso:
        sock.send(QUERY * (count % gso))


def paced(port: int, rate: int, seconds: float, gso: int) -> tuple[int, int]:
    """Send on a schedule; how many were sent and came back."""
    sockets, sink = opened(port, gso), Sink()
    planned, sent, answered, turn = int(rate * seconds), 0, 0, 0
    began = time.monotonic()
    drain_at = began + DRAIN
    while (now := time.monotonic()) < began + seconds + 1 and answered < planned:
        due = min(planned, int((now - began) * rate)) - sent
        sent += due
        while due:
            send(sockets[turn % len(sockets)], min(gso, due), gso)
            due -= min(gso, due)
            turn += 1
        if now >= drain_at:
            answered += sum(sink.drain(sock.fileno()) for sock in sockets)
            drain_at = now + DRAIN
        time.sleep(TICK)
    return sent, answered


def flood(port: int, seconds: float, gso: int) -> tuple[int, int]:
    """Send one for each that came back; how many were sent and came back. A window that was lost is sent again."""
    sockets, sink = opened(port, gso), Sink()
    poll = select.epoll()
    by_descriptor = {sock.fileno(): sock for sock in sockets}
    sent = answered = 0
    for descriptor in by_descriptor:
        poll.register(descriptor, select.EPOLLIN)
    ready: list[tuple[int, int]] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not ready:
            window = max(WINDOW, gso)
            for sock in sockets:
                send(sock, window, gso)
            sent += window * len(sockets)
        for descriptor, _ in ready:
            came = sink.drain(descriptor)
            send(by_descriptor[descriptor], came, gso)
            answered += came
            sent += came
        ready = poll.poll(0.1)
    while ready := poll.poll(0.1):
        answered += sum(sink.drain(descriptor) for descriptor, _ in ready)
    return sent, answered


def main() -> None:
    """Print what was sent and came back, and in how many seconds, as JSON."""
    port, rate, seconds, gso = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    sent, answered = paced(port, rate, seconds, gso) if rate else flood(port, seconds, gso)
    sys.stdout.write(json.dumps({"sent": sent, "answered": answered, "seconds": seconds}) + "\n")


if __name__ == "__main__":
    main()
