"""Types by name or number in, what real servers make of them out, through the engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from probe.book import BookWriter
from probe.model import Question
from probe.wire import encode
from tests.probing import probe, series
from tests.servers import RealServer

TYPES = [
    # name, type -> what becomes of it
    ("1", "PTR", "answer"),
    ("service", "SRV", "answer"),
    ("service", "HTTPS", "answer"),
    ("service", "TYPE65", "answer"),
    ("service", "svcb", "answer"),
    ("service", "MX", "answer"),
    ("service", "TXT", "answer"),
    ("service", "CAA", "nodata"),
    ("service", "TYPE65280", "nodata"),
    ("alias", "CNAME", "answer"),
    ("alias", "TXT", "nodata"),
    ("nothing", "HTTPS", "nxdomain"),
]


@pytest.mark.parametrize("server", ["knot", "nsd", "coredns"])
def test_any_type_can_be_asked(server: str, request: pytest.FixtureRequest) -> None:
    """One series each, five queries a second."""
    real: RealServer = request.getfixturevalue(server)
    asked = [
        series("127.0.0.1", real.port, f"{name}.example.test", qtype=qtype, expect=good, rate=5, lane=f"{i}", index=i)
        for i, (name, qtype, good) in enumerate(TYPES)
    ]
    recorded = probe(*asked)
    for i, (_, _, good) in enumerate(TYPES):
        assert recorded.outcomes(i) == {good: 5}
    assert recorded.good() == recorded.planned() == 5 * len(TYPES)


def test_a_book_is_asked_in_turn(knot: RealServer) -> None:
    """Twenty names, of which one is there, each asked five times."""
    writer = BookWriter(Question.of("", "A", "nxdomain"))
    for i in range(20):
        writer.add(encode(Question.of(f"{'a' if i == 7 else f'n{i}'}.example.test"))[12:-4])
    one = replace(series("127.0.0.1", knot.port, "x", rate=100, expect="nxdomain"), questions=writer.close())
    recorded = probe(one)
    assert recorded.outcomes() == {"answer": 5, "nxdomain": 95}
    assert {failure.question for failure in recorded.failures} == {"a.example.test A"}
