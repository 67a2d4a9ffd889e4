"""Questions -> template bytes, once; batches of reply bytes -> outcomes.

The only door to dnspython. A reply counts only if socket, id, QR bit and question match: the caller checks socket and
id, this module the rest.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import numpy as np
from numpy.typing import NDArray

from probe.errors import UsageError
from probe.model import Question
from probe.outcome import Outcome

HEADER = 12
LABEL_OCTETS = 13
"""Octets that stand for `{random}` or `{number}` in a name."""
_BRACED = re.compile(r"(?<!\\)\{([A-Za-z]+)\}")
_FIXED_RR = 12
"""A record's octets before its data when its owner is a compression pointer: 2 + type, class, TTL, length."""
_FORESEEN = np.array([0, 1, 2, 3, 4, 5, 10, 11])
"""Offsets in a record of what a plain one holds in owner, type, class and length; the TTL may be any."""
_DATA_OCTETS = {1: 4, 28: 16}
"""Types, A and AAAA, whose data any octets of that number are."""
_QR, _OPCODE, _TC = 0x80, 0x78, 0x02
_OUTCOME_OF_RCODE = np.full(16, Outcome.OTHER_RCODE, np.int8)
_OUTCOME_OF_RCODE[[0, 2, 3, 5]] = (Outcome.ANSWER, Outcome.SERVFAIL, Outcome.NXDOMAIN, Outcome.REFUSED)
_MEMO_LIMIT = 8192


class Verdicts(NamedTuple):
    """What n replies say: matched bool[n]; outcome int8[n], where matched; truncated_with_answer bool[n]."""

    matched: NDArray[np.bool_]
    outcome: NDArray[np.int8]
    truncated_with_answer: NDArray[np.bool_]


def encode(question: Question) -> bytes:
    """A query for the question, RD set, id 0; `{random}` or `{number}` in its name is LABEL_OCTETS times `0`.

    UsageError for a name or type that cannot be put on the wire.
    """
    return _encoded(question, "0")


def placeholder_of(question: Question) -> tuple[str, int] | None:
    """`random` or `number`, and where its LABEL_OCTETS octets begin in the query; None if the name has none."""
    words = _BRACED.findall(question.name)
    if not words:
        return None
    pairs = enumerate(zip(_encoded(question, "0"), _encoded(question, "1"), strict=True))
    return words[0], next(at for at, (one, other) in pairs if one != other)


def _encoded(question: Question, fill: str) -> bytes:
    name = _name(question.name, fill)
    query = dns.message.make_query(name, dns.rdatatype.RdataType(qtype_number(question.qtype)), id=0)
    if edns := question.edns:
        nsid: list[dns.edns.Option] = [dns.edns.GenericOption(dns.edns.OptionType.NSID, b"")]
        query.use_edns(0, dns.flags.DO if edns.do else 0, edns.size, options=nsid if edns.nsid else [])
    return query.to_wire()


def _name(text: str, fill: str) -> dns.name.Name:
    words = _BRACED.findall(text)
    if len(words) > 1 or not {"random", "number"}.issuperset(words):
        said = "a label that changes is one {random} or one {number}; a brace as such is \\{"
        raise UsageError(f"name {_shorten(text)!r}: {said}")
    filled = _BRACED.sub(fill * LABEL_OCTETS, text)
    try:
        return dns.name.from_text(filled)
    except dns.exception.DNSException as error:
        raise UsageError(f"name {_shorten(text)!r}: {_why_not_a_name(filled, error)}") from None


def qtype_number(qtype: str) -> int:
    """The number of a type such as `A`, `aaaa`, `TYPE65`. UsageError if there is none."""
    try:
        number = int(dns.rdatatype.from_text(qtype))
    except (dns.exception.DNSException, ValueError):
        raise UsageError(f"type {_shorten(qtype)!r}: not a DNS type; say A, AAAA, TXT, ... or TYPE65") from None
    if dns.rdatatype.is_metatype(dns.rdatatype.RdataType(number)) and number != dns.rdatatype.ANY:
        raise UsageError(f"type {qtype!r}: cannot be asked for with a plain query")
    return number


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def _why_not_a_name(name: str, error: dns.exception.DNSException) -> str:
    """A sentence that names the limit which a name breaks."""
    if isinstance(error, dns.name.LabelTooLong):
        label = max(name.split("."), key=len)
        return f"label {_shorten(label)!r} has {_octets(label, 0, 63)} octets, 63 are allowed (RFC 1035, 2.3.4)"
    if isinstance(error, dns.name.NameTooLong):
        return f"{_octets(name.removesuffix('.'), 2, 255)} octets on the wire, 255 are allowed (RFC 1035, 2.3.4)"
    if isinstance(error, dns.name.EmptyLabel):
        return "an empty label (two dots in a row, or a dot at the start)"
    return f"not a domain name: {error}"


def _octets(text: str, more: int, limit: int) -> str:
    """How many octets a text and `more` are, as far as they are its characters: not so with escapes and IDNA."""
    return str(len(text) + more) if text.isascii() and "\\" not in text else f"more than {limit}"


class Questions:
    """The questions of a run, ready for the wire; those of later series are added at the end.

    tails: each query's bytes after the id. good: bool[questions, outcomes], what each expects.
    """

    def __init__(self) -> None:
        self.tails: list[bytes] = []
        self._asked: list[Question] = []
        self._sections = np.zeros((0, 0), np.uint8)
        self._ends = np.zeros(0, np.int64)
        self._octets = np.zeros(0, np.int64)
        self._records = np.zeros((0, len(_FORESEEN)), np.uint8)
        self.good = np.zeros((0, len(Outcome)), np.bool_)
        self._memo: dict[tuple[int, bytes], Outcome] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def __getitem__(self, index: int) -> Question:
        return self._asked[index]

    def add(self, questions: Sequence[Question]) -> int:
        """The index of the first of them; the rest follow. UsageError as encode()."""
        first = len(self._asked)
        wires = [encode(q) for q in questions]
        self._asked += questions
        self.tails += [w[2:] for w in wires]
        ends = np.array([len(w) for w in wires], np.int64)
        width = max([int(ends.max(initial=0)) - HEADER, self._sections.shape[1]])
        sections = np.zeros((len(self._asked), width), np.uint8)
        sections[:first, : self._sections.shape[1]] = self._sections
        for row, wire in zip(sections[first:], wires, strict=True):
            row[: len(wire) - HEADER] = np.frombuffer(wire, np.uint8)[HEADER:]
        self._sections = sections
        self._ends = np.concatenate([self._ends, ends])
        qtypes = [qtype_number(q.qtype) for q in questions]
        octets = [0 if q.expect.addresses else _DATA_OCTETS.get(t, 0) for q, t in zip(questions, qtypes, strict=True)]
        records = [(0xC0, HEADER, t >> 8, t & 0xFF, 0, 1, 0, n) for t, n in zip(qtypes, octets, strict=True)]
        self._octets = np.concatenate([self._octets, np.array(octets, np.int64)])
        self._records = np.concatenate([self._records, np.array(records, np.uint8).reshape(-1, len(_FORESEEN))])
        good = np.zeros((len(questions), len(Outcome)), np.bool_)
        for row, question in zip(good, questions, strict=True):
            row[[int(o) for o in question.expect.outcomes]] = True
        self.good = np.concatenate([self.good, good])
        return first

    @property
    def width(self) -> int:
        """How many of a reply's first octets classify() looks at."""
        return HEADER + self._sections.shape[1] + _FIXED_RR

    def classify(
        self,
        head: NDArray[np.uint8],
        lengths: NDArray[np.int64],
        question: NDArray[np.int64],
        reply: Callable[[int], bytes],
    ) -> Verdicts:
        """Judge n replies: head uint8[n, >= width], lengths and question int64[n], reply(i) the whole of the i-th.

        Truncated wins over any RCODE. A header alone with an error RCODE counts as a reply (RFC 1035, 4.1.1: FORMERR).
        """
        ends = self._ends[question]
        section = self._sections[question]
        same = head[:, HEADER : HEADER + section.shape[1]] == section
        same |= np.arange(HEADER, HEADER + section.shape[1]) >= ends[:, None]
        answers = (head[:, 6].astype(np.int64) << 8) | head[:, 7]
        asked = (head[:, 4].astype(np.int64) << 8) | head[:, 5]
        rcode = head[:, 3] & 0x0F
        matched = same.all(axis=1) & (asked == 1) & (lengths >= ends)
        for i in np.flatnonzero(~matched & (lengths >= ends) & (asked == 1)):
            matched[i] = _same_but_for_case(head[i], section[i], int(ends[i]))
        alone = (lengths == HEADER) & (asked == 0) & (rcode != 0)
        matched |= alone
        matched &= (head[:, 2] & _QR) != 0

        truncated = (head[:, 2] & _TC) != 0
        outcome = np.where(truncated, np.int8(Outcome.TRUNCATED), _OUTCOME_OF_RCODE[rcode])
        plain = self._plain(head, lengths, question, np.where(alone, HEADER, ends))
        for i in np.flatnonzero(matched & ~truncated & ~plain):
            outcome[i] = self._examine(int(question[i]), reply(int(i)))
        return Verdicts(matched, outcome.astype(np.int8), truncated & (answers > 0))

    def _plain(
        self,
        head: NDArray[np.uint8],
        lengths: NDArray[np.int64],
        question: NDArray[np.int64],
        ends: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Replies that need no parser: no records and an error RCODE, or a single address of the type asked for."""
        counts = head[:, 6:HEADER]
        rcode = head[:, 3] & 0x0F
        bare = (rcode != 0) & ~counts.any(axis=1) & (lengths == ends)
        octets = self._octets[question]
        single = (counts[:, 1] == 1) & ~counts[:, [0, 2, 3, 4, 5]].any(axis=1) & (rcode == 0) & (octets > 0)
        single &= lengths == ends + _FIXED_RR + octets
        record = head[np.arange(len(lengths))[:, None], ends[:, None] + _FORESEEN]
        single &= (record == self._records[question]).all(axis=1)
        plain: NDArray[np.bool_] = (bare | single) & (head[:, 2] & _OPCODE == 0)
        return plain

    def _examine(self, question: int, reply: bytes) -> Outcome:
        """The outcome of a reply by full parsing; equal replies are parsed once."""
        key = (question, reply[2:])
        outcome = self._memo.get(key)
        if outcome is None:
            if len(self._memo) >= _MEMO_LIMIT:
                self._memo.clear()
            outcome = self._memo[key] = judge(self._asked[question], reply)
        return outcome


def judge(question: Question, reply: bytes) -> Outcome:
    """The outcome of one whole reply to the question, TC not set: rcode, CNAME chain, addresses (RFC 1034, 3.6.2)."""
    try:
        message = dns.message.from_wire(reply)
        if not isinstance(message, dns.message.QueryMessage):
            return Outcome.MALFORMED
        rcode = message.rcode()
        if rcode == dns.rcode.NOERROR:
            qtype = dns.rdatatype.RdataType(qtype_number(question.qtype))
            rrset = message.resolve_chaining().answer
            records = list(rrset) if rrset is not None else []
            if qtype == dns.rdatatype.ANY:
                records = [r for s in message.answer for r in s]
    except (dns.exception.DNSException, ValueError):
        return Outcome.MALFORMED
    if rcode != dns.rcode.NOERROR:
        return Outcome(int(_OUTCOME_OF_RCODE[rcode])) if rcode < 16 else Outcome.OTHER_RCODE
    if not records:
        return Outcome.NODATA
    if question.expect.addresses and _addresses(records) != question.expect.addresses:
        return Outcome.WRONG_ANSWER
    return Outcome.ANSWER


def _same_but_for_case(head: NDArray[np.uint8], section: NDArray[np.uint8], end: int) -> bool:
    """Question sections that differ only in ASCII case: names compare so (RFC 4343), and some servers fold them."""
    got, asked = bytes(head[HEADER:end]), bytes(section[: end - HEADER])
    return got[:-4].lower() == asked[:-4].lower() and got[-4:] == asked[-4:]


def _addresses(records: list[dns.rdata.Rdata]) -> frozenset[str]:
    """The addresses of A and AAAA records, spelt as Expect spells them."""
    kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
    return frozenset(str(ipaddress.ip_address(r.to_text())) for r in records if r.rdtype in kinds)
