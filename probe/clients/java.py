"""A libc's lookups, what Java keeps of them -> InetAddress's: a failure lasts 10 s even if DNS was away for one.

Source: JDK 21, java.net.InetAddress (getAddressesFromNameService, CachedLookup), sun.net.InetAddressCachePolicy;
java.security: networkaddress.cache.ttl (30 s without a security manager), networkaddress.cache.negative.ttl (10 s).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from probe.clients.steps import Answer, Client, Event, Steps, Wait
from probe.model import NS, Fate

POSITIVE_NS, NEGATIVE_NS = 30 * NS, 10 * NS


@dataclass(frozen=True, slots=True)
class _Kept:
    until_ns: int
    answer: Answer


class Java:
    """One JVM over a libc."""

    def __init__(self, libc: Client) -> None:
        self._libc = libc
        self._kept: dict[str, _Kept] = {}

    def lookup(self, name: str, at_ns: int) -> Steps[Answer]:
        """InetAddress.getAllByName(name)."""
        kept = self._kept.get(name)
        if kept and at_ns < kept.until_ns:
            return kept.answer
        answer, now = yield from _timed(self._libc.lookup(name, at_ns), at_ns)
        if answer.fate is not Fate.FOUND:
            answer = replace(answer, error=f"java.net.UnknownHostException: {name}: {answer.error}")
        lasts = POSITIVE_NS if answer.fate is Fate.FOUND else NEGATIVE_NS
        self._kept[name] = _Kept(now + lasts, answer)
        return answer


def _timed(steps: Steps[Answer], now: int) -> Steps[tuple[Answer, int]]:
    """The same steps, and when the last of them was taken."""
    event: Event | None = None
    while True:
        try:
            wait: Wait = next(steps) if event is None else steps.send(event)
        except StopIteration as end:
            return end.value, now
        event = yield wait
        now = event.at_ns
