"""Lines of CoreDNS's query log, and lost queries -> which of them CoreDNS saw, and what it answered, by port and id."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from probe.model import BESIDE, Failure
from probe.wire import LABEL_OCTETS

_LINE = re.compile(
    r"\[INFO\] \[?(?P<client>[0-9a-fA-F.:]+?)\]?:(?P<port>\d+) - (?P<id>\d+) "
    r'"(?P<type>\S+) \S+ (?P<name>\S+) (?P<proto>udp|tcp) [^"]*" (?P<rcode>\S+) .*? (?P<took>[0-9.]+)s'
)
"""plugin/log's common format, CoreDNS 1.5.0 to 1.15.0; kubectl may have put the pod's name before it."""


@dataclass(frozen=True, slots=True)
class Logged:
    """What CoreDNS wrote of one query. took: seconds; rcode `-` where it sent no answer."""

    client: str
    port: int
    id: int
    qtype: str
    name: str
    rcode: str
    took: float


@dataclass(frozen=True, slots=True)
class Matched:
    """Of lost queries: those that the log has, and how many it does not have."""

    seen: tuple[tuple[Failure, Logged], ...]
    unseen: int

    def __str__(self) -> str:
        if not self.seen:
            return f"none of {self.unseen:,} lost queries is in the log: they did not reach the CoreDNS that wrote it"
        rcodes = ", ".join(f"{n:,} {rcode}" for rcode, n in Counter(one.rcode for _, one in self.seen).most_common(4))
        slowest = max(one.took for _, one in self.seen)
        said = f"{len(self.seen):,} of {len(self.seen) + self.unseen:,} lost queries are in the log: CoreDNS answered"
        return f"{said} {rcodes}, the slowest after {slowest:.3f} s; what we did not hear was lost on its way"


def read_log(lines: Iterable[str]) -> list[Logged]:
    """The queries in it; other lines are left out."""
    return [
        Logged(m["client"], int(m["port"]), int(m["id"]), m["type"], m["name"].lower(), m["rcode"], float(m["took"]))
        for m in map(_LINE.search, lines)
        if m
    ]


def matched(failures: Sequence[Failure], log: Iterable[Logged]) -> Matched:
    """A source port and an id together are one query; the name guards against one that came again."""
    by = {(one.port, one.id): one for one in log}
    sent = [f for f in failures if f.source_port and f.question.split(" ")[-1] not in BESIDE.values()]
    found = [
        (f, one)
        for f in sent
        if (one := by.get((f.source_port, f.query_id))) and _is_name(f.question.split(" ")[0], one.name)
    ]
    return Matched(tuple(found), len(sent) - len(found))


def _is_name(asked: str, name: str) -> bool:
    """Whether it is the name asked for, in which octets of a label may be drawn anew for each query."""
    fixed = re.split(r"\{\w+\}", asked.lower().rstrip("."))
    return re.fullmatch(rf"[a-z0-9]{{{LABEL_OCTETS}}}".join(map(re.escape, fixed)), name.rstrip(".")) is not None
