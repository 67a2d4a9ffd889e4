"""Loads of every shape through the engine: what a server sees, and what is recorded, is what was planned."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from probe.engine import EngineOptions
from probe.model import NS, Leg, Series, Shape
from probe.schedule import pacer_of
from tests.conftest import Start
from tests.probing import Recorded, probe, series
from tests.servers import REPLIES, Reply, Rule

ANSWER = [Rule(REPLIES["answer"])]


def planned_by_second(recorded: Recorded) -> list[int]:
    counts = {second: int(columns.planned.sum()) for second, columns in recorded.seconds.items()}
    return [counts[second] for second in sorted(counts) if counts[second]]


def due_by_second(asked: Series) -> list[int]:
    pacer = pacer_of(asked)
    return [pacer.count(at, at + NS) for at in range(0, asked.stop_ns, NS)]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "shape",
    [
        Shape(legs=(Leg(NS, Fraction(0), Fraction(1)),)),
        Shape(legs=(Leg(NS, Fraction(1, 10), Fraction(1, 10)), Leg(NS, Fraction(1), Fraction(1)))),
        Shape("poisson", seed=11),
    ],
    ids=["ramp", "steps", "poisson"],
)
def test_rows_are_asked_when_the_shape_says(shape: Shape, workers: int, scripted: Start) -> None:
    server = scripted(ANSWER)
    asked = replace(
        series("127.0.0.1", server.port, "a.test", rate=400, seconds=2, ports="pool:4"), shape=shape, offset_ns=0
    )
    recorded = probe(asked, options=EngineOptions(max_series=64, workers=workers))
    assert planned_by_second(recorded) == due_by_second(asked)
    unsent = recorded.outcomes().get("unsent", 0)
    arrivals = server.received().at_ns
    assert len(arrivals) == recorded.planned() - unsent
    if not unsent:
        dues = pacer_of(asked).take(asked.stop_ns)
        late = np.sort(arrivals) - arrivals.min() - (dues - dues[0])
        assert np.abs(np.median(late)) < 5_000_000


def test_a_pair_leaves_one_socket_back_to_back(scripted: Start) -> None:
    server = scripted(ANSWER)
    both = [
        replace(
            series("127.0.0.1", server.port, "a.test", qtype=qtype, rate=50, lane="pairs", index=i),
            offset_ns=0,
            pair=True,
        )
        for i, qtype in enumerate(("A", "AAAA"))
    ]
    recorded = probe(*both)
    assert recorded.good() == recorded.planned() == 100
    seen = server.received()
    rows = sorted(zip(seen.at_ns.tolist(), seen.port.tolist(), seen.qtype, strict=True))
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    assert [(a[2], aaaa[2]) for a, aaaa in pairs] == [("A", "AAAA")] * 50
    assert all(a[1] == aaaa[1] for a, aaaa in pairs), "one source port"
    assert len({a[1] for a, _ in pairs}) > 25, "another for the next pair"


def test_a_closed_loop_has_no_more_outstanding_than_its_window(scripted: Start) -> None:
    """A silent server: few queries at first, twice as many when they have timed out, never more than the window."""
    server = scripted([Rule(REPLIES["silent"])])
    asked = series("127.0.0.1", server.port, "a.test", rate=10_000, seconds=1, ports="pool:2", timeout=0.4)
    recorded = probe(replace(asked, shape=Shape("max", window=128)))
    assert recorded.outcomes() == {"timeout": 32 + 64 + 128}
    assert len(server.received()) == 32 + 64 + 128


def test_a_closed_loop_asks_as_fast_as_replies_allow(scripted: Start) -> None:
    server = scripted([Rule(Reply("slow", delay=0.05))])
    asked = series("127.0.0.1", server.port, "a.test", rate=10_000, seconds=1, ports="pool:2")
    recorded = probe(replace(asked, shape=Shape("max", window=64)))
    assert recorded.good() == recorded.planned()
    assert recorded.planned() == pytest.approx(64 / 0.05, rel=0.2)
