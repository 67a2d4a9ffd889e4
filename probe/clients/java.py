"""A libc's lookups, what Java keeps of them -> InetAddress's: a failure lasts 10 s even if DNS was away for one.

Source: JDK 21, java.net.InetAddress (getAddressesFromNameService, NameServiceAddresses.get, CachedLookup),
sun.net.InetAddressCachePolicy; java.security: networkaddress.cache.ttl (30 s without a security manager),
networkaddress.cache.negative.ttl (10 s).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from probe.clients.steps import Answer, Client, Event, Steps, Wait
from probe.model import NS, Fate

POSITIVE_NS, NEGATIVE_NS = 30 * NS, 10 * NS
_LOOK_NS = NS // 100


@dataclass(frozen=True, slots=True)
class _Kept:
    from_ns: int
    until_ns: int
    answer: Answer


class Java:
    """One JVM over a libc. Who asks for a name that is being looked up waits for what that comes to."""

    def __init__(self, libc: Client) -> None:
        self._libc = libc
        self._kept: dict[str, _Kept] = {}
        self._asking: set[str] = set()

    def lookup(self, name: str, at_ns: int) -> Steps[Answer]:
        """InetAddress.getAllByName(name)."""
        now = at_ns
        while name in self._asking:
            now = (yield Wait(now + _LOOK_NS)).at_ns
        kept = self._kept.get(name)
        if kept and now < kept.until_ns:
            if now < kept.from_ns:  # in time that nobody spends, lookups are made one after the other
                yield Wait(kept.from_ns)
            return kept.answer
        self._asking.add(name)
        try:
            answer, now = yield from _timed(self._libc.lookup(name, now), now)
        finally:
            self._asking.discard(name)
        if answer.fate is Fate.FOUND:
            self._kept[name] = _Kept(now, now + POSITIVE_NS, answer)
            return answer
        # Of a failure that it kept it tells no reason.
        said = f"java.net.UnknownHostException: {name}"
        self._kept[name] = _Kept(now, now + NEGATIVE_NS, replace(answer, error=said))
        return replace(answer, error=f"{said}: {answer.error}")


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
