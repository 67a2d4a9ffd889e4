"""What the lab's DNS servers share: queries by UDP and TCP in; replies made of what a server knows about a name out."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from probe.cluster.zone import DOMAIN, SOA_NUMBERS, TTL, wire_name

AUTHORITATIVE, RECURSIVE, _TRUNCATED = 0x0400, 0x0080, 0x0200
"""The header's AA, RA and TC bits (RFC 1035, 4.1.1)."""
FORMERR, NOTIMP = 1, 4
_NSID = 3
"""The EDNS option (RFC 5001)."""
_TCP_IDLE = 10.0
_BURST = 512

Send = Callable[[bytes], None]
Answer = Callable[[bytes, str, Send], None]
"""A query, `udp` or `tcp`, and what sends a reply: now, later or never."""
Close = Callable[[], None]


class Found(NamedTuple):
    """What a server has for a name and type: RCODE, answers and their number, authority and its number of records."""

    rcode: int
    answers: int = 0
    body: bytes = b""
    authority: int = 0


def record(owner: bytes, qtype: int, rdata: bytes) -> bytes:
    """One resource record (RFC 1035, 4.1.3), class IN."""
    return owner + struct.pack("!HHIH", qtype, 1, TTL, len(rdata)) + rdata


def addresses(qtype: int, packed: list[bytes]) -> Found:
    """These addresses, for the name that was asked."""
    return Found(0, len(packed), b"".join(record(b"\xc0\x0c", qtype, each) for each in packed))


def denied(rcode: int, zone: str) -> Found:
    """No such name, or none of that type: what says so is the zone's SOA (RFC 2308)."""
    rdata = wire_name(f"ns.dns.{DOMAIN}") + wire_name(f"hostmaster.{DOMAIN}") + struct.pack("!5I", *SOA_NUMBERS)
    return Found(rcode, body=record(wire_name(zone), 6, rdata), authority=1)


class Reply(NamedTuple):
    """A reply after its id, and what it is counted by; qtype None: the question cannot be read."""

    rest: bytes
    qtype: int | None
    rcode: int


def is_query(message: bytes) -> bool:
    """Whether it deserves a reply: it has a header, and is no reply itself."""
    return len(message) >= 12 and not message[2] & 0x80


def reply_to(query: bytes, proto: str, find: Callable[[str, int], Found], bits: int, identity: str = "") -> Reply:
    """The reply to a query (RFC 1035, 4.1; RFC 6891 for OPT), with these bits in its header.

    find: name in lower case, type -> what there is. identity: what is said to those who ask for NSID, '' for nothing.
    By UDP a reply that is larger than the client takes is truncated: as many of its records are in it as fit.
    """
    flags = 0x8000 | int.from_bytes(query[2:4]) & 0x7900
    question = _read_question(query) if query[4:6] == b"\0\1" else None
    if question is None:
        return Reply(struct.pack("!5H", flags | FORMERR, 0, 0, 0, 0), None, FORMERR)
    name, qtype, end = question
    if flags & 0x7800:
        return Reply(struct.pack("!5H", flags | NOTIMP, 1, 0, 0, 0) + query[12:end], qtype, NOTIMP)
    found = find(name, qtype)
    opt = _opt(query[end:], identity) if query[10:12] != b"\0\0" else b""
    head = struct.pack("!5H", flags | bits | found.rcode, 1, found.answers, found.authority, 1 if opt else 0)
    rest = head + query[12:end] + found.body + opt
    if proto == "udp" and found.answers and (over := len(rest) + 2 - _udp_size(query[end:])) > 0:
        kept = max(0, found.answers - -(-over * found.answers // len(found.body)))
        head = struct.pack("!5H", flags | bits | _TRUNCATED | found.rcode, 1, kept, 0, 1 if opt else 0)
        rest = head + query[12:end] + found.body[: len(found.body) // found.answers * kept] + opt
    return Reply(rest, qtype, found.rcode)


def _udp_size(asked: bytes) -> int:
    """What fits the client's buffer, by the OPT record with which `asked` begins; at most 1,232 here, as by bufsize."""
    size = int.from_bytes(asked[3:5]) if asked[:3] == b"\0\0\x29" else 512
    return min(max(size, 512), 1232)


def _read_question(query: bytes) -> tuple[str, int, int] | None:
    """Name in lower case, type, and the question's end; None if the message is cut short or compressed."""
    labels, at = [], 12
    while at < len(query) and (length := query[at]):
        if length > 63:
            return None
        labels.append(query[at + 1 : at + 1 + length].decode("latin-1").lower())
        at += 1 + length
    if len(query) < at + 5:
        return None
    return ".".join(labels), int.from_bytes(query[at + 1 : at + 3]), at + 5


def _opt(asked: bytes, identity: str) -> bytes:
    """The OPT record that answers the one with which `asked` begins; nothing if it begins otherwise."""
    if asked[:3] != b"\0\0\x29":
        return b""
    name = identity.encode()
    option = struct.pack("!HH", _NSID, len(name)) + name if name and _asks_for_nsid(asked[11:]) else b""
    return b"\0" + struct.pack("!HHIH", 41, 1232, 0, len(option)) + option


def _asks_for_nsid(options: bytes) -> bool:
    while len(options) >= 4:
        code, length = struct.unpack_from("!HH", options)
        if code == _NSID:
            return True
        options = options[4 + length :]
    return False


def family(address: str) -> socket.AddressFamily:
    """The family of an IP address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def serve_udp(address: str, port: int, answer: Answer) -> Close:
    """Answer what comes from now on, until closed. OSError if it cannot be listened there."""
    sock = socket.socket(family(address), socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise

    def send(client: tuple[str, int], reply: bytes) -> None:
        try:
            sock.sendto(reply, client)
        except OSError:
            return  # closed meanwhile, or the buffer is full: a datagram may be lost

    def readable() -> None:
        for _ in range(_BURST):
            try:
                query, client = sock.recvfrom(4096)
            except BlockingIOError:
                return
            answer(query, "udp", partial(send, client))

    loop = asyncio.get_running_loop()
    loop.add_reader(sock, readable)

    def close() -> None:
        loop.remove_reader(sock)
        sock.close()

    return close


async def serve_tcp(address: str, port: int, answer: Answer) -> Close:
    """Answer what comes from now on, until closed; then its connections are closed, too. OSError as above."""
    open_now: set[asyncio.StreamWriter] = set()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(reply: bytes) -> None:
            if not writer.is_closing():
                writer.write(len(reply).to_bytes(2) + reply)

        open_now.add(writer)
        try:
            while True:
                length = int.from_bytes(await asyncio.wait_for(reader.readexactly(2), _TCP_IDLE))
                answer(await reader.readexactly(length), "tcp", send)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        except asyncio.CancelledError:
            pass  # the program ends; Python 3.11 would print a traceback for each connection that is still open
        finally:
            open_now.discard(writer)
            writer.close()

    server = await asyncio.start_server(connection, address, port)

    def close() -> None:
        server.close()
        for writer in open_now:
            writer.close()

    return close
