"""A query's bytes and a Reply in, the reply's bytes out; and Rules: which queries get which Reply.

The wire format is written by hand (RFC 1035, 4), so that the prober's own code is not tested against itself.
"""

from __future__ import annotations

import ipaddress
import math
import struct
from dataclasses import dataclass
from fnmatch import fnmatchcase

QTYPES = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 65: "HTTPS"}


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

    Times are seconds after the first query that came under these rules. The first rule that fits decides; one that
    fits per_second queries a second leaves the others to the next.
    """

    reply: Reply
    name: str = "*"
    qtype: str = ""
    transport: str = ""
    since: float = 0.0
    until: float = math.inf
    per_second: float = math.inf

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
