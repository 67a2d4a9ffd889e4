"""Queries in, replies as the rules say out: the scripted DNS server's own process, standard library only.

`tests.servers.ScriptedServer` starts it. It writes wire format by hand (RFC 1035, 4), so that the prober's own code
is not tested against itself, and plain replies are templates that only need the query's id.
"""

from __future__ import annotations

import heapq
import ipaddress
import math
import selectors
import socket
import struct
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from multiprocessing.connection import Connection
from typing import NamedTuple, TypeVar

QTYPES = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 65: "HTTPS"}
Send = Callable[[bytes], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """What becomes of a query. The fields go together freely: a delayed, truncated reply with another id.

    addresses are answered to the type they belong to; alias puts a CNAME in front of them. cut is how many bytes are
    left, from the end if negative. answers replaces the records' bytes, raw the whole message. delay is in seconds.
    hang_up and reset (a RST) end a TCP connection instead of answering; by UDP they are silence.
    """

    kind: str
    addresses: tuple[str, ...] = ("192.0.2.1", "2001:db8::1")
    alias: str = ""
    rcode: int = 0
    truncated: bool = False
    is_reply: bool = True
    other_name: str = ""
    other_qtype: int = 0
    id_xor: int = 0
    answers: bytes | None = None
    raw: bytes | None = None
    header_only: bool = False
    cut: int | None = None
    copies: int = 1
    delay: float = 0.0
    wrong_port: bool = False
    silent: bool = False
    hang_up: bool = False
    reset: bool = False

    @property
    def is_plain(self) -> bool:
        """One datagram, at once, with the query's id, from the port that was asked."""
        odd = self.delay or self.copies != 1 or self.wrong_port or self.silent or self.hang_up or self.reset
        return not odd and not self.id_xor and self.raw is None


REPLIES: dict[str, Reply] = {
    reply.kind: reply
    for reply in (
        Reply("answer"),
        Reply("nodata", addresses=()),
        Reply("cname", alias="target.test"),
        Reply("cname_to_nothing", alias="target.test", addresses=()),
        Reply("nxdomain", rcode=3, addresses=()),
        Reply("servfail", rcode=2, addresses=()),
        Reply("refused", rcode=5, addresses=()),
        Reply("formerr", rcode=1, addresses=()),
        Reply("notimp", rcode=4, addresses=()),
        Reply("header_only", rcode=1, addresses=(), header_only=True),
        Reply("truncated", truncated=True, addresses=()),
        Reply("truncated_with_answer", truncated=True),
        Reply("truncated_servfail", truncated=True, rcode=2, addresses=()),
        Reply("another_id", id_xor=0x5555),
        Reply("another_question", other_name="elsewhere.test"),
        Reply("another_type", other_qtype=16),
        Reply("not_a_reply", is_reply=False),
        Reply("wrong_port", wrong_port=True),
        Reply("cut_in_header", cut=7),
        Reply("cut_after_header", cut=12),
        Reply("cut_in_question", cut=15),
        Reply("cut_in_answer", cut=-3),
        Reply("garbage", raw=bytes(range(200, 255))),
        Reply("garbage_answer", answers=b"\xff" * 24),
        Reply("empty", raw=b""),
        Reply("twice", copies=2),
        Reply("late", delay=0.3),
        Reply("silent", silent=True),
        Reply("hang_up", hang_up=True),
        Reply("reset", reset=True),
    )
}
"""What a name asks for by its first label, unless rules say otherwise: `nxdomain.test` does not exist."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`reply` is for queries that fit name (a glob), qtype and transport ("": any), in [since, until).

    Times are seconds after the first query that came under these rules. The first rule that fits decides.
    """

    reply: Reply
    name: str = "*"
    qtype: str = ""
    transport: str = ""
    since: float = 0.0
    until: float = math.inf

    def fits(self, name: str, qtype: str, transport: str) -> bool:
        """Whether it may apply, but for the time."""
        return (
            fnmatchcase(name, self.name.lower().rstrip("."))
            and self.qtype in ("", qtype)
            and self.transport in ("", transport)
        )


BY_FIRST_LABEL = tuple(Rule(reply, name=f"{kind}.*") for kind, reply in REPLIES.items())


def encode_name(name: str) -> bytes:
    """A name as length-prefixed labels (RFC 1035, 3.1)."""
    labels = [label.encode() for label in name.rstrip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def read_question(query: bytes) -> tuple[str, int, bytes]:
    """Name in lower case without the last dot, type, and the question section as it stands. IndexError if cut."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("latin-1"))
        at += 1 + length
    (qtype,) = struct.unpack_from("!H", query, at + 1)
    return ".".join(labels).lower(), qtype, query[12 : at + 5]


def message(query: bytes, reply: Reply) -> bytes:
    """The whole reply to a query, with the query's id, before it is delayed, doubled or given another id."""
    if reply.raw is not None:
        return reply.raw
    flags = struct.unpack_from("!H", query, 2)[0] & 0x0100  # RD comes back as it was sent
    flags |= reply.is_reply << 15 | 0x0400 | reply.truncated << 9 | reply.rcode
    if reply.header_only:
        return query[:2] + struct.pack("!5H", flags, 0, 0, 0, 0)
    _, qtype, question = read_question(query)
    records = []
    owner = b"\xc0\x0c"
    if reply.alias:
        target = encode_name(reply.alias)
        records.append(struct.pack("!2sHHIH", owner, 5, 1, 5, len(target)) + target)
        owner = struct.pack("!H", 0xC000 | 12 + len(question) + 12)
    for address in map(ipaddress.ip_address, reply.addresses):
        if qtype == (1 if address.version == 4 else 28):
            packed = address.packed
            records.append(struct.pack("!2sHHIH", owner, qtype, 1, 5, len(packed)) + packed)
    if reply.other_name or reply.other_qtype:
        name = encode_name(reply.other_name) if reply.other_name else question[:-4]
        question = name + struct.pack("!HH", reply.other_qtype or qtype, 1)
    body = b"".join(records) if reply.answers is None else reply.answers
    whole = query[:2] + struct.pack("!5H", flags, 1, len(records), 0, 0) + question + body
    return whole[: reply.cut]


class Prepared(NamedTuple):
    """A reply made once for all queries that differ in their id alone; times in ns after the origin."""

    since: float
    until: float
    kind: int
    question: int
    reply: Reply
    is_plain: bool
    tail: bytes


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
        self.rules = (*rules, Rule(REPLIES["answer"]))
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
            )
            for rule in self.rules
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
            if choice.since <= since < choice.until:
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

    def __init__(self, control: Connection, address: str) -> None:
        self.control = control
        self.script = Script()
        self.selector = selectors.DefaultSelector()
        self.streams: set[Stream] = set()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.udp, self.listener = _bind(family, address)
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
                waiting = self._flush()
                for key, _ in self.selector.select(0.002 if waiting else self.script.due()):
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


def _bind(family: socket.AddressFamily, address: str) -> tuple[socket.socket, socket.socket]:
    """UDP and TCP on one port of the kernel's choice."""
    while True:
        udp = socket.socket(family, socket.SOCK_DGRAM)
        listener = socket.socket(family, socket.SOCK_STREAM)
        udp.bind((address, 0))
        try:
            listener.bind(udp.getsockname())
        except OSError:
            udp.close()
            listener.close()
            continue
        listener.listen(1024)
        for sock in (udp, listener):
            sock.setblocking(False)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        return udp, listener


def main(descriptor: int, address: str) -> None:
    """Serve on address until the other end of the descriptor's socket pair is closed."""
    Process(Connection(descriptor), address).run()
