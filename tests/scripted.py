"""Queries in, replies as the rules say out: the scripted DNS server's own process, standard library only.

`tests.servers.ScriptedServer` starts it. Plain replies are templates that only need the query's id: 100,000 a second.
"""

from __future__ import annotations

import heapq
import selectors
import socket
import struct
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from multiprocessing.connection import Connection
from typing import NamedTuple, TypeVar

from tests.replies import BY_FIRST_LABEL, QTYPES, REPLIES, Reply, Rule, message, read_question

Send = Callable[[bytes], None]
T = TypeVar("T")


class Bucket:
    """A token bucket: `rate` queries a second, and what comes in 20 ms at once."""

    def __init__(self, rate: float) -> None:
        self.rate, self.most = rate, max(1.0, rate * 0.02)
        self.tokens, self.at = self.most, 0

    def take(self, now: int) -> bool:
        """Whether there was one left at that time, in ns."""
        self.tokens = min(self.most, self.tokens + (now - self.at) * self.rate / 1e9)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Prepared(NamedTuple):
    """A reply made once for all queries that differ in their id alone; times in ns after the origin."""

    since: float
    until: float
    kind: int
    question: int
    reply: Reply
    is_plain: bool
    tail: bytes
    bucket: Bucket | None


@dataclass
class Log:
    """What came in, a column each: when (CLOCK_MONOTONIC ns), from which port, with which id, and what became of it."""

    at_ns: array[int] = field(default_factory=lambda: array("q"))
    port: array[int] = field(default_factory=lambda: array("H"))
    id: array[int] = field(default_factory=lambda: array("H"))
    kind: array[int] = field(default_factory=lambda: array("H"))
    question: array[int] = field(default_factory=lambda: array("I"))
    kinds: list[str] = field(default_factory=list)
    questions: list[tuple[str, str, str]] = field(default_factory=list)
    connections: int = 0


def _place(items: list[T], item: T) -> int:
    if item not in items:
        items.append(item)
    return items.index(item)


class Script:
    """Rules applied: a query in, its reply sent now or later, a line in the log."""

    def __init__(self) -> None:
        self.log = Log()
        self.later: list[tuple[float, int, Send, bytes]] = []
        self.use(BY_FIRST_LABEL)

    def use(self, rules: tuple[Rule, ...]) -> None:
        """From now on these rules, on a clock that starts with the next query."""
        every = (*rules, Rule(REPLIES["answer"]))
        self.rules = [(rule, Bucket(rule.per_second) if isfinite(rule.per_second) else None) for rule in every]
        self.origin = 0
        self.prepared: dict[str, dict[bytes, list[Prepared]]] = {"udp": {}, "tcp": {}}

    def _prepare(self, query: bytes, transport: str) -> list[Prepared]:
        try:
            name, code, _ = read_question(query)
        except (IndexError, struct.error):
            return []
        qtype = QTYPES.get(code, str(code))
        question = _place(self.log.questions, (name, qtype, transport))
        return [
            Prepared(
                rule.since * 1e9,
                rule.until * 1e9,
                _place(self.log.kinds, rule.reply.kind),
                question,
                rule.reply,
                rule.reply.is_plain,
                message(query, rule.reply)[2:],
                bucket,
            )
            for rule, bucket in self.rules
            if rule.fits(name, qtype, transport)
        ]

    def take(self, query: bytes, port: int, transport: str, send: Send, send_wrong: Send) -> Reply | None:
        """Log a query and answer it; the Reply if the connection is to end."""
        now = time.monotonic_ns()
        table = self.prepared[transport]
        choices = table.get(query[2:])
        if choices is None:
            choices = table[query[2:]] = self._prepare(query, transport)
        self.origin = self.origin or now
        since = now - self.origin
        for choice in choices:
            if choice.since <= since < choice.until and (choice.bucket is None or choice.bucket.take(now)):
                break
        else:
            return None
        log = self.log
        log.at_ns.append(now)
        log.port.append(port)
        log.id.append(query[0] << 8 | query[1])
        log.kind.append(choice.kind)
        log.question.append(choice.question)
        if choice.is_plain:
            send(query[:2] + choice.tail)
            return None
        return self._oddly(query, choice, now, send_wrong if choice.reply.wrong_port else send)

    def _oddly(self, query: bytes, choice: Prepared, now: int, send: Send) -> Reply | None:
        reply = choice.reply
        if reply.silent:
            return None
        if reply.hang_up or reply.reset:
            return reply
        whole = reply.raw
        if whole is None:
            whole = struct.pack("!H", struct.unpack_from("!H", query)[0] ^ reply.id_xor) + choice.tail
        for _ in range(reply.copies):
            if reply.delay:
                heapq.heappush(self.later, (now + reply.delay * 1e9, len(self.log.at_ns), send, whole))
            else:
                send(whole)
        return None

    def due(self) -> float | None:
        """Send what was delayed until now; the seconds until the next one."""
        while self.later:
            wait = self.later[0][0] - time.monotonic_ns()
            if wait > 0:
                return wait / 1e9
            _, _, send, whole = heapq.heappop(self.later)
            send(whole)
        return None


class Stream:
    """One TCP connection: frames in (RFC 1035, 4.2.2), frames out."""

    def __init__(self, sock: socket.socket, port: int) -> None:
        self.sock, self.port = sock, port
        self.incoming, self.outgoing = b"", bytearray()

    def frames(self) -> Iterator[bytes]:
        """Whole queries that have come."""
        while len(self.incoming) >= 2:
            end = 2 + int.from_bytes(self.incoming[:2])
            if len(self.incoming) < end:
                return
            query, self.incoming = self.incoming[2:end], self.incoming[end:]
            yield query

    def send(self, whole: bytes) -> None:
        """Put a frame in the queue; `flush` writes it."""
        self.outgoing += struct.pack("!H", len(whole)) + whole

    def flush(self) -> bool:
        """Write what the socket takes; False if the connection is gone."""
        try:
            while self.outgoing:
                del self.outgoing[: self.sock.send(self.outgoing)]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True


class Process:
    """The loop: one UDP socket and one TCP listener on one port, and the test that holds the other end of `control`."""

    def __init__(self, control: Connection, address: str, port: int) -> None:
        self.control = control
        self.script = Script()
        self.selector = selectors.DefaultSelector()
        self.streams: set[Stream] = set()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.udp, self.listener = _bind(family, address, port)
        self.wrong = socket.socket(family, socket.SOCK_DGRAM)
        self.wrong.bind((address, 0))
        self.selector.register(control, selectors.EVENT_READ, self._obey)
        self.selector.register(self.udp, selectors.EVENT_READ, self._datagrams)
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        control.send(self.udp.getsockname()[1])

    def run(self) -> None:
        """Serve until the test closes its end."""
        try:
            while True:
                due = self.script.due()
                waiting = self._flush()
                for key, _ in self.selector.select(0.002 if waiting else due):
                    key.data()
        except EOFError:
            return

    def _obey(self) -> None:
        order = self.control.recv()
        while self._datagrams():
            pass  # what has arrived belongs to the rules and the log until now
        if order is not None:
            self.script.use(order)
        self.control.send(self.script.log)

    def _datagrams(self) -> bool:
        """Take a batch; whether there may be more."""
        udp, take = self.udp, self.script.take
        for _ in range(256):
            try:
                query, peer = udp.recvfrom(4096)
            except BlockingIOError:
                return False
            if len(query) >= 12:
                take(query, peer[1], "udp", _to(udp, peer), _to(self.wrong, peer))
        return True

    def _accept(self) -> None:
        sock, peer = self.listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = Stream(sock, peer[1])
        self.streams.add(stream)
        self.script.log.connections += 1
        self.selector.register(sock, selectors.EVENT_READ, lambda: self._read(stream))

    def _read(self, stream: Stream) -> None:
        try:
            data = stream.sock.recv(65536)
        except OSError:
            data = b""
        stream.incoming += data
        for query in stream.frames():
            ending = self.script.take(query, stream.port, "tcp", stream.send, stream.send)
            if ending is not None:
                if ending.reset:
                    stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return self._close(stream)
        if not data or not stream.flush():
            self._close(stream)
        return None

    def _flush(self) -> bool:
        """Write what is queued; whether a client that does not read keeps some of it waiting."""
        waiting = [stream for stream in self.streams if stream.outgoing]
        for stream in waiting:
            if not stream.flush():
                self._close(stream)
        return any(stream.outgoing for stream in waiting)

    def _close(self, stream: Stream) -> None:
        if stream in self.streams:
            self.streams.remove(stream)
            self.selector.unregister(stream.sock)
            stream.sock.close()


def _to(sock: socket.socket, peer: tuple[object, ...]) -> Send:
    def send(whole: bytes) -> None:
        with suppress(OSError):  # the asker is gone, or its buffer is full: UDP
            sock.sendto(whole, peer)

    return send


def _bind(family: socket.AddressFamily, address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """UDP and TCP on one port, 0: of the kernel's choice."""
    while True:
        udp = socket.socket(family, socket.SOCK_DGRAM)
        listener = socket.socket(family, socket.SOCK_STREAM)
        udp.bind((address, port))
        try:
            listener.bind(udp.getsockname())
        except OSError:
            udp.close()
            listener.close()
            if port:
                raise
            continue
        listener.listen(1024)
        for sock in (udp, listener):
            sock.setblocking(False)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        return udp, listener


def main(descriptor: int, address: str, port: int) -> None:
    """Serve on address until the other end of the descriptor's socket pair is closed."""
    Process(Connection(descriptor), address, port).run()
