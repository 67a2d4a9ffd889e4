"""The Service's address in user space: clients' datagrams and connections in, through to the pods that Sessions names.

What it cannot do as the kernel does: refuse one flow. A UDP packet to a pod whose process is gone is lost in silence,
where a node would pass the pod's ICMP refusal on; a TCP client sees its connection opened and then reset, or left
unanswered, where a node would have its SYN refused or lost. With no endpoint at all the listeners are closed, so that
the kernel itself refuses, UDP and TCP; that ends established flows too, which conntrack would still pass to a pod that
serves, or, with kube-proxy from 1.32 up to the fix of kubernetes/kubernetes#139628, to pods that are long gone: there a
fixed port stays at timeout after a scale to zero, where here it is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable

from probe import linux
from probe.cluster.endpoints import Endpoint
from probe.cluster.sessions import Client, Sessions
from probe.model import NS

_BURST = 512
"""Datagrams taken from one socket per wake-up, so that the others have their turn."""

_UPSTREAMS = 4
"""Sockets per pod. Each has 65,536 ids: at 20,000 queries a second to one pod an id comes back after 13 s."""

_PENDING_NS = 10 * NS
_SYN_GIVES_UP = 127.0
"""Seconds until a client's connect to a silent address fails (net.ipv4.tcp_syn_retries = 6)."""

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, 0 s: close() sends a RST (socket(7))."""


def _udp_socket(size: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    linux.receive_buffer(sock, size)
    return sock


class _Upstream:
    """One connected socket to a pod, shared by all clients: ids are rewritten, and back on the reply."""

    def __init__(self, where: tuple[str, int], deliver: Callable[[bytes, Client, int], None]) -> None:
        self._sock = _udp_socket(1 << 20)
        self._sock.connect(where)
        self._deliver = deliver
        self._next = 0
        self._pending: dict[int, tuple[Client, bytes, int]] = {}
        asyncio.get_running_loop().add_reader(self._sock, self._readable)

    def send(self, query: bytes, client: Client, now: int) -> None:
        self._next = ident = (self._next + 1) & 0xFFFF
        self._pending[ident] = (client, query[:2], now)
        datagram = ident.to_bytes(2) + query[2:]
        try:
            self._sock.send(datagram)
        except ConnectionRefusedError:
            # The error belongs to an earlier datagram, and this one has not been sent.
            with contextlib.suppress(OSError):
                self._sock.send(datagram)
        except OSError:
            pass

    def _readable(self) -> None:
        now = time.monotonic_ns()
        for _ in range(_BURST):
            try:
                reply = self._sock.recv(65535)
            except BlockingIOError:
                return
            except OSError:
                continue
            waiting = self._pending.pop(int.from_bytes(reply[:2]), None)
            if waiting is not None and now - waiting[2] < _PENDING_NS:
                self._deliver(waiting[1] + reply[2:], waiting[0], now)

    def drops(self) -> int:
        return linux.own_drops(self._sock)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()


class Vip:
    """The Service. `program` is kube-proxy's sync; `attach` and `detach` are the pods' networks coming and going."""

    def __init__(self, address: str, port: int, sessions: Sessions) -> None:
        self._where = (address, port)
        self._sessions = sessions
        self._pods: dict[str, str] = {}
        self._upstreams: dict[str, list[_Upstream]] = {}
        self._turn = 0
        self._udp: socket.socket | None = None
        self._tcp: socket.socket | None = None
        self._relays: set[asyncio.Task[None]] = set()

    def attach(self, pod: str, address: str) -> None:
        """From now on packets to that pod reach its address."""
        self._pods[pod] = address

    def detach(self, pod: str) -> None:
        """The pod's network is gone: packets to it vanish."""
        del self._pods[pod]
        for upstream in self._upstreams.pop(pod, []):
            upstream.close()

    def drops(self) -> int:
        """Datagrams lost because this proxy was too slow, on the sockets that are open now: no pod's fault."""
        upstreams = (upstream for sockets in self._upstreams.values() for upstream in sockets)
        return sum(upstream.drops() for upstream in upstreams) + (linux.own_drops(self._udp) if self._udp else 0)

    def program(self, endpoints: tuple[Endpoint, ...]) -> None:
        """New flows go by these endpoints from now on; without any the Service refuses. OSError: address in use."""
        self._sessions.program(endpoints)
        if self._sessions.backends():
            self._open()
        else:
            self.close()

    def _open(self) -> None:
        if self._udp:
            return
        loop = asyncio.get_running_loop()
        self._udp = _udp_socket(4 << 20)
        self._udp.bind(self._where)
        self._tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._tcp.setblocking(False)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._tcp.bind(self._where)
        self._tcp.listen(1024)
        loop.add_reader(self._udp, self._datagrams)
        loop.add_reader(self._tcp, self._connections)

    def close(self) -> None:
        """Stop listening; idempotent. Connections that are open stay open."""
        loop = asyncio.get_running_loop()
        for sock in (self._udp, self._tcp):
            if sock:
                loop.remove_reader(sock)
                sock.close()
        self._udp = self._tcp = None

    def _datagrams(self) -> None:
        now = time.monotonic_ns()
        udp = self._udp
        for _ in range(_BURST):
            if udp is None:
                return
            try:
                query, client = udp.recvfrom(4096)
            except BlockingIOError:
                return
            pod = self._sessions.route(client, now)
            if pod in self._pods and len(query) > 1:
                self._upstream(pod).send(query, client, now)

    def _upstream(self, pod: str) -> _Upstream:
        sockets = self._upstreams.get(pod)
        if sockets is None:
            where = (self._pods[pod], self._where[1])
            sockets = self._upstreams[pod] = [_Upstream(where, self._deliver) for _ in range(_UPSTREAMS)]
        self._turn += 1
        return sockets[self._turn % _UPSTREAMS]

    def _deliver(self, reply: bytes, client: Client, now: int) -> None:
        self._sessions.replied(client, now)
        if self._udp:
            with contextlib.suppress(OSError):
                self._udp.sendto(reply, client)

    def _connections(self) -> None:
        for _ in range(_BURST):
            if self._tcp is None:
                return
            try:
                client, _ = self._tcp.accept()
            except OSError:
                return
            client.setblocking(False)
            task = asyncio.get_running_loop().create_task(self._relay(client))
            self._relays.add(task)
            task.add_done_callback(self._relays.discard)

    async def _relay(self, client: socket.socket) -> None:
        """One TCP connection: its pod is chosen now and kept until either side ends it."""
        address = self._pods.get(self._sessions.choose() or "")
        if address is None:
            await _leave_unanswered(client)
            return
        pod = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        pod.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(pod, (address, self._where[1]))
        except OSError:
            pod.close()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            return
        questions, replies_out = await asyncio.open_connection(sock=client)
        replies, questions_out = await asyncio.open_connection(sock=pod)
        try:
            await asyncio.gather(_pump(questions, questions_out), _pump(replies, replies_out))
        except OSError:
            for sock, writer in ((client, replies_out), (pod, questions_out)):
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()
        finally:
            replies_out.close()
            questions_out.close()


async def _leave_unanswered(client: socket.socket) -> None:
    """A connection to a pod whose network is gone: taken in, never answered, until the client has had enough."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_SYN_GIVES_UP):
            while await asyncio.get_running_loop().sock_recv(client, 4096):
                pass
    client.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Bytes from one side to the other; its end is passed on as an end."""
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    with contextlib.suppress(OSError):
        sink.write_eof()
