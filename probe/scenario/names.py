"""A name as typed, how it is asked -> the questions it stands for; or a UsageError, also about whom they would load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from probe.cluster.zone import DOMAIN
from probe.errors import UsageError
from probe.model import Edns, Expect, Learnt, Question
from probe.scenario.quantity import whole
from probe.wire import encode, placeholder_of

MOST_SUFFIXES = 32
"""As many as Kubernetes allows in a pod's dnsConfig."""
NDOTS = 5
"""As Kubernetes writes it into a pod's resolv.conf."""
_PRIVATE = (
    *(f"{net}.in-addr.arpa" for net in ("10", "127", "168.192", "254.169")),
    *(f"{n}.172.in-addr.arpa" for n in range(16, 32)),
    *(f"{n}.100.in-addr.arpa" for n in range(64, 128)),
    *(f"{nibbles}.ip6.arpa" for nibbles in ("c.f", "d.f", "8.e.f", "9.e.f", "a.e.f", "b.e.f")),
)
"""Reverse zones of addresses that are nobody's (RFC 6303, RFC 7793)."""
_RESERVED = ("test", "example", "invalid", "localhost", "example.com", "example.net", "example.org")
"""RFC 6761."""
NEAR = (DOMAIN, *_PRIVATE, *_RESERVED)
"""Domains whose servers are ours, or that nobody serves."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How the names of a lane are asked.

    search, ndots: as in resolv.conf. external: a label that changes may load servers that are not ours.
    """

    edns: Edns | None = None
    search: tuple[str, ...] = ()
    ndots: int = NDOTS
    external: bool = False

    def questions(self, name: str, qtype: str, expect: str = "") -> list[Question]:
        """The questions in the order in which glibc asks them; UsageError for a bad name, type or expectation.

        What is expected holds for the name as it stands; which of the others exist is learnt. That of a name which is
        asked last, because it is short, is learnt, too, if nothing was said.
        """
        if not name.strip():
            raise UsageError(f"name {name!r}: empty; the root is `.`")
        absolute = Question.of(name, qtype, expect, self.edns)
        found = replace(absolute, expect=Expect.parse(Learnt.PINNED, qtype))
        asked = [replace(found, name=f"{name}.{suffix}") for suffix in self.search if not name.endswith(".")]
        first = name.count(".") >= self.ndots
        asked.insert(0 if first else len(asked), found if asked and not first and not expect else absolute)
        for question in asked:
            encode(question)
            if not self.external:
                _check_load(question)
        return asked


def _check_load(question: Question) -> None:
    """UsageError if queries for ever new names would load servers that may be a stranger's."""
    if not (found := placeholder_of(question)):
        return
    _, _, domain = question.name.lower().rstrip(".").partition(f"{{{found[0]}}}")[2].partition(".")
    if not any(domain == near or domain.endswith(f".{near}") for near in NEAR):
        whose = (
            f"the servers of {domain}" if "." in domain else f"the root servers{domain and f', or those of {domain}'}"
        )
        raise UsageError(
            f"name {question.name!r}: no cache knows a label that changes, so that each query would reach {whose}: if"
            " they may be loaded, say --external, in a scenario external: true"
        )


def suffix_of(text: str) -> str:
    """A suffix of the search list, without the last dot."""
    suffix = text.strip().removesuffix(".")
    if not suffix:
        raise UsageError(f"{text!r}: empty; the name itself is always asked, too")
    question = Question.of(suffix)
    encode(question)
    if placeholder_of(question):
        raise UsageError(f"{text!r}: a label that changes belongs in the name")
    return suffix


def suffixes_of(texts: Sequence[str]) -> tuple[str, ...]:
    """A search list."""
    if len(texts) > MOST_SUFFIXES:
        raise UsageError(f"{len(texts)} suffixes; {MOST_SUFFIXES} are the most, as in Kubernetes")
    return tuple(suffix_of(text) for text in texts)


def ndots_of(text: str) -> int:
    """From how many dots on a name is asked as it stands first; glibc knows up to 15."""
    return whole(text, 0, 15, "the number of dots")


def edns_size_of(text: str) -> int:
    """The octets of a UDP reply that we say we can take (RFC 6891, 6.2.3)."""
    return whole(text, 512, 65535, "the size of UDP replies")


def edns_of(size: int | None, dnssec: bool, nsid: bool) -> Edns | None:
    """The OPT record, if there is to be one."""
    if size is None and not dnssec and not nsid:
        return None
    edns = Edns(do=dnssec, nsid=nsid)
    return edns if size is None else replace(edns, size=size)
