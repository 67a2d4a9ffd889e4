"""What is asked and what replies teach, through the engine: labels, weights, books, EDNS, NSID, expectations."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from probe.book import BookWriter
from probe.engine import EngineOptions
from probe.model import Edns, Question, Series
from probe.wire import encode
from tests.conftest import Start
from tests.probing import probe, series
from tests.servers import REPLIES, CoreDNS, Knot, Reply, Rule

EVERY = [("udp", "fresh"), ("udp", "pool:4"), ("tcp", "reused"), ("tcp", "pool:3"), ("tcp", "fresh")]


def asking(port: int, *questions: Question, rate: float = 200, transport: str = "udp", ports: str = "fresh") -> Series:
    """One series of these questions, all of one type."""
    one = series("127.0.0.1", port, "x", rate=rate, transport=transport, ports=ports, qtype=questions[0].qtype)
    return replace(one, questions=questions)


# -- labels


@pytest.mark.parametrize(("transport", "ports"), EVERY)
def test_each_query_has_a_label_of_its_own_and_its_reply_must_carry_it(
    transport: str, ports: str, scripted: Start
) -> None:
    server = scripted([Rule(REPLIES["nxdomain"])])
    question = Question.of("{random}.svc.test", "A", "nxdomain")
    recorded = probe(asking(server.port, question, transport=transport, ports=ports))
    assert recorded.outcomes() == {"nxdomain": 200}
    names = server.received().name.tolist()
    assert len(set(names)) == len(names) == 200
    assert all(len(name.split(".")[0]) == 13 and name.split(".")[0].isalnum() for name in names)


def test_numbered_labels_count_from_0(scripted: Start) -> None:
    server = scripted([Rule(REPLIES["answer"])])
    recorded = probe(asking(server.port, Question.of("n{number}.svc.test")))
    assert recorded.outcomes() == {"answer": 200}
    assert sorted(server.received().name.tolist()) == [f"n{i:013}.svc.test" for i in range(200)]


def test_a_reply_with_another_label_is_no_reply(scripted: Start) -> None:
    server = scripted([Rule(REPLIES["another_question"])])
    recorded = probe(asking(server.port, Question.of("{random}.svc.test"), rate=50))
    assert recorded.outcomes() == {"timeout": 50}
    assert recorded.counters() == {"unmatched": 50}


def test_the_two_of_a_pair_ask_for_one_label(scripted: Start) -> None:
    server = scripted([Rule(REPLIES["answer"])])
    pair = [
        replace(
            asking(server.port, Question.of("{random}.svc.test", qtype), rate=50),
            index=i, lane="pairs", offset_ns=0, pair=True,
        )
        for i, qtype in enumerate(("A", "AAAA"))
    ]  # fmt: skip
    recorded = probe(*pair)
    assert recorded.outcomes() == {"answer": 100}
    received = server.received()
    asked = Counter(zip(received.name.tolist(), received.port.tolist(), strict=True))
    assert len(asked) == 50
    assert set(asked.values()) == {2}, "A and AAAA of a name leave from one port"


# -- which question when


def test_questions_are_asked_by_weight(scripted: Start) -> None:
    server = scripted([Rule(REPLIES["answer"])])
    questions = [Question.of(f"{name}.test") for name in "abc"]
    recorded = probe(replace(asking(server.port, *questions), weights=(1, 3, 4)))
    assert recorded.outcomes() == {"answer": 200}
    assert Counter(server.received().name.tolist()) == {"a.test": 25, "b.test": 75, "c.test": 100}


@pytest.mark.parametrize(("transport", "ports"), [("udp", "pool:4"), ("tcp", "reused")])
def test_a_book_is_asked_in_turn_beside_other_questions(transport: str, ports: str, scripted: Start) -> None:
    server = scripted([Rule(REPLIES["answer"])])
    writer = BookWriter(Question.of("", "A"))
    names = [f"{'x' * (i % 50 + 1)}{i}.test" for i in range(150)]
    for name in names:
        wire = encode(Question.of(name))
        writer.add(wire[12 : wire.index(b"\0", 12) + 1])
    book = replace(asking(server.port, Question.of("x"), transport=transport, ports=ports), questions=writer.close())
    other = replace(asking(server.port, Question.of("single.test", "AAAA")), index=1, lane="other")
    recorded = probe(book, other)
    assert recorded.outcomes() == {"answer": 400}
    asked = Counter(server.received().where(qtype="A").name.tolist())
    assert asked == {name: 2 if i < 50 else 1 for i, name in enumerate(names)}


# -- EDNS


@pytest.mark.parametrize("workers", [1, 2])
def test_a_real_server_says_who_it_is(workers: int, knot: Knot) -> None:
    question = Question.of("a.example.test", "A", edns=Edns(nsid=True))
    options = EngineOptions(max_series=4, workers=workers)
    recorded = probe(asking(knot.port, question, rate=100), options=options)
    assert recorded.outcomes() == {"answer": 100}
    assert recorded.last
    ((name, by),) = recorded.last.servers.items()
    assert (name, *by.n, *by.first_ns, *by.last_ns) == ("knot-of-the-tests", 100, 0, 990_000_000)


@pytest.mark.parametrize(("edns", "outcome"), [(None, "truncated"), (Edns(1232), "truncated"), (Edns(4096), "answer")])
def test_edns_lets_a_large_answer_through(edns: Edns | None, outcome: str, knot: Knot) -> None:
    recorded = probe(asking(knot.port, Question.of("many.example.test", "A", "answer|truncated", edns), rate=50))
    assert recorded.outcomes() == {outcome: 50}
    assert recorded.good() == 50


@pytest.mark.parametrize("edns", [Edns(), Edns(do=True), Edns(nsid=True), Edns(4096, do=True, nsid=True)])
def test_coredns_answers_each_kind_of_edns(edns: Edns, coredns: CoreDNS) -> None:
    questions = (
        Question.of("a.example.test", "A", edns=edns),
        Question.of("nothing.example.test", "A", "nxdomain", edns),
    )
    recorded = probe(asking(coredns.port, *questions, rate=100, ports="pool:4"))
    assert recorded.outcomes() == {"answer": 50, "nxdomain": 50}
    assert recorded.good() == 100


# -- expectations that the run teaches


def test_after_ten_replies_only_the_usual_outcome_is_good(scripted: Start) -> None:
    server = scripted([Rule(REPLIES["nxdomain"], until=0.5), Rule(REPLIES["answer"])])
    recorded = probe(asking(server.port, Question.of("web.default.test", "A", "pinned"), rate=100))
    assert set(recorded.outcomes()) == {"nxdomain", "answer"}
    assert recorded.good() == recorded.outcomes()["nxdomain"]


def test_a_server_that_says_something_else_than_the_others_is_wrong(scripted: Start) -> None:
    fresh, old = Rule(REPLIES["answer"]), Rule(Reply("stale", addresses=("192.0.2.99",)))
    right, too, stale = (scripted([rule]) for rule in (fresh, fresh, old))
    asked = [
        replace(
            asking(server.port, Question.of("web.test", "A", "same"), rate=50),
            index=i, lane="pods", target=replace(asking(server.port, Question.of("x")).target, name=f"pod {i}"),
        )
        for i, server in enumerate((right, too, stale))
    ]  # fmt: skip
    recorded = probe(*asked)
    assert [recorded.good(i) for i in range(2)] == [50, 50] or min(recorded.good(i) for i in range(2)) >= 48
    assert recorded.outcomes(2).get("wrong_answer", 0) >= 48
