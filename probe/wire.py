"""A question -> the octets of its query; a whole reply -> what it says: the only door to dnspython."""

from __future__ import annotations

import ipaddress
import re
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
import dns.rdtypes.ANY.CNAME  # dnspython loads the code of a type when it first meets one: not while queries wait
import dns.rdtypes.ANY.OPT
import dns.rdtypes.ANY.SOA
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA

from probe.errors import UsageError
from probe.model import Question
from probe.outcome import Outcome

LABEL_OCTETS = 13
"""Octets that stand for `{random}` or `{number}` in a name."""
_BRACED = re.compile(r"(?<!\\)\{([A-Za-z]+)\}")
_RCODES = {
    dns.rcode.SERVFAIL: Outcome.SERVFAIL,
    dns.rcode.NXDOMAIN: Outcome.NXDOMAIN,
    dns.rcode.REFUSED: Outcome.REFUSED,
}
_NSID = dns.edns.OptionType.NSID


class Judged(NamedTuple):
    """What one reply says: its outcome, the data of its answer, and the server's NSID, '' where it names none."""

    outcome: Outcome
    answers: frozenset[str] = frozenset()
    nsid: str = ""


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


def judge(question: Question, reply: bytes) -> Judged:
    """What a whole reply to the question says, TC not set: rcode, CNAME chain, addresses (RFC 1034, 3.6.2)."""
    try:
        message = dns.message.from_wire(reply)
        if not isinstance(message, dns.message.QueryMessage):
            return Judged(Outcome.MALFORMED)
        nsid = next((o.to_text().removeprefix("NSID ") for o in message.options if o.otype == _NSID), "")
        rcode = message.rcode()
        if rcode != dns.rcode.NOERROR:
            return Judged(_RCODES.get(rcode, Outcome.OTHER_RCODE), nsid=nsid)
        rrset = message.resolve_chaining().answer
        records = list(rrset) if rrset is not None else []
        if qtype_number(question.qtype) == dns.rdatatype.ANY:
            records = [r for s in message.answer for r in s]
        answers = frozenset(r.to_text() for r in records)
    except (dns.exception.DNSException, ValueError):
        return Judged(Outcome.MALFORMED)
    if not records:
        return Judged(Outcome.NODATA, nsid=nsid)
    if question.expect.addresses and _addresses(records) != question.expect.addresses:
        return Judged(Outcome.WRONG_ANSWER, answers, nsid)
    return Judged(Outcome.ANSWER, answers, nsid)


def _addresses(records: list[dns.rdata.Rdata]) -> frozenset[str]:
    """The addresses of A and AAAA records, spelt as Expect spells them."""
    kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
    return frozenset(str(ipaddress.ip_address(r.to_text())) for r in records if r.rdtype in kinds)
