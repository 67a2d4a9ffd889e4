"""Series in, everything the engine recorded of them out: for tests that talk to real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from probe.engine import Engine, EngineOptions
from probe.histogram import quantile_ns
from probe.model import NS, Failure, Ports, Question, Series, Target, TargetKind
from probe.outcome import Counter, Outcome, UnsentCause
from probe.recorder import Columns, Duration, Flush
from probe.schedule import phase


@dataclass
class Recorded:
    """All flushes of a run, added up; the last state of each second counts."""

    series: list[Series]
    seconds: dict[int, Columns] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    last: Flush | None = None
    facts: dict[str, str] = field(default_factory=dict)

    def take(self, flush: Flush) -> None:
        for column in flush.columns:
            assert (column.planned.sum((1,)) >= column.counts.sum((1, 2, 3))).all(), "more outcomes than planned"
            self.seconds[column.second] = column
        self.failures += flush.failures
        self.last = flush

    def _sum(self, take: Callable[[Columns], NDArray[np.int64]], series: int | None) -> NDArray[np.int64]:
        shown = range(len(self.series)) if series is None else [series]
        rows = [take(c)[i] for c in self.seconds.values() for i in shown if i < len(c.planned)]
        total: NDArray[np.int64] = np.sum(rows, axis=0)
        return total

    def planned(self, series: int | None = None) -> int:
        return int(self._sum(lambda c: c.planned.sum(1), series))

    def outcomes(self, series: int | None = None) -> dict[str, int]:
        totals = self._sum(lambda c: c.counts.sum((1, 3)), series)
        return {o.label: int(totals[o]) for o in Outcome if totals[o]}

    def good(self, series: int | None = None) -> int:
        return int(self._sum(lambda c: c.counts[..., 1].sum((1, 2)), series))

    def counters(self, series: int | None = None) -> dict[str, int]:
        assert self.last is not None
        counters = self.last.counters if series is None else self.last.counters[series : series + 1]
        told = [c for c in Counter if c not in (Counter.SENT_OCTETS, Counter.RECEIVED_OCTETS, Counter.PORTS_REUSED)]
        return {c.label: int(n) for c in told if (n := counters[:, c].sum())}

    def unsent(self) -> dict[str, int]:
        assert self.last is not None
        return {c.label: int(n) for c in UnsentCause if (n := self.last.unsent[:, c].sum())}

    def quantile(self, kind: Duration, q: float) -> float:
        """In seconds."""
        return quantile_ns(self._sum(lambda c: c.durations[:, kind], None), q) / NS

    def lag(self, q: float) -> float:
        """In seconds."""
        assert self.last is not None
        return quantile_ns(self.last.lag, q) / NS


def series(
    address: str,
    port: int,
    *names: str,
    rate: float = 100,
    seconds: float = 1.0,
    transport: str = "udp",
    ports: str = "fresh",
    qtype: str = "A",
    expect: str = "",
    timeout: float = 0.5,
    lane: str = "",
    kind: TargetKind = TargetKind.SERVER,
    index: int = 0,
) -> Series:
    """One series with the usual settings."""
    exact = Fraction(rate).limit_denominator(1000)
    return Series(
        index=index,
        lane=lane or f"{transport}-{ports}-{address}-{port}",
        target=Target("server", kind, address, port),
        transport=transport,
        ports=Ports.parse(ports, transport),
        qtype=qtype,
        questions=tuple(Question.of(name, qtype, expect) for name in names),
        rate=exact,
        offset_ns=int(phase(index) * NS / exact),
        start_ns=0,
        stop_ns=int(seconds * NS),
        timeout_ns=int(timeout * NS),
    )


def probe(
    *wanted: Series,
    options: EngineOptions | None = None,
    meanwhile: Callable[[Engine], None] | None = None,
    namespaces: Sequence[str] = ("",),
) -> Recorded:
    """Run the engine on these series until every row has its outcome."""
    return asyncio.run(_probe(wanted, options or EngineOptions(max_series=64), meanwhile, namespaces))


async def _probe(
    wanted: Sequence[Series],
    options: EngineOptions,
    meanwhile: Callable[[Engine], None] | None,
    namespaces: Sequence[str],
) -> Recorded:
    engine = Engine(options)
    recorded = Recorded(list(wanted))
    try:
        await engine.start(wanted, namespaces=namespaces)
        engine.begin()
        longest = max(s.stop_ns + s.timeout_ns for s in wanted) / NS
        if meanwhile:
            meanwhile(engine)
        while not engine.finished:
            assert not engine.died, engine.died
            assert engine.now_ns() / NS < longest + 10, "the engine does not finish"
            recorded.take(engine.flush())
            await asyncio.sleep(0.1)
        recorded.take(engine.flush())
        recorded.facts = engine.facts()
        assert all(c.sealed for c in recorded.seconds.values())
    finally:
        await engine.close()
    assert recorded.planned() == sum(recorded.outcomes().values())
    return recorded
