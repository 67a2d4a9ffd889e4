"""Text in, nouns out: expectations, port policies, targets; and what they say when they are shown again."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.errors import UsageError
from probe.model import Expect, Learnt, Mark, Phase, Ports, Question, Target, TargetKind
from probe.outcome import Outcome

NEVER_GOOD = {"malformed", "timeout", "connection_refused", "network_error", "connection_lost", "unsent"}


@pytest.mark.parametrize(
    ("text", "qtype", "outcomes"),
    [
        ("", "A", {"answer"}),
        ("", "TXT", {"answer"}),
        ("", "AAAA", {"answer", "nodata"}),
        ("  ", "aaaa", {"answer", "nodata"}),
        ("answer", "AAAA", {"answer"}),
        ("NXDOMAIN", "A", {"nxdomain"}),
        (" nodata | NxDomain ", "A", {"nodata", "nxdomain"}),
        ("answer|answer", "A", {"answer"}),
        ("truncated", "A", {"truncated"}),
        ("servfail|refused", "A", {"servfail", "refused"}),
        ("Any", "A", {o.label for o in Outcome} - NEVER_GOOD),
    ],
)
def test_what_counts_as_good(text: str, qtype: str, outcomes: set[str]) -> None:
    expect = Expect.parse(text, qtype)
    assert {o.label for o in expect.outcomes} == outcomes
    assert not expect.addresses
    assert expect.learnt is None


@pytest.mark.parametrize(("text", "learnt"), [("pinned", Learnt.PINNED), (" Same", Learnt.SAME)])
def test_what_is_good_may_be_learnt(text: str, learnt: Learnt) -> None:
    found = frozenset({Outcome.ANSWER, Outcome.NODATA, Outcome.NXDOMAIN})
    assert Expect.parse(text, "A") == Expect(found, learnt=learnt)


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("192.0.2.1", {"192.0.2.1"}),
        ("192.0.2.2, 192.0.2.1 ,192.0.2.1", {"192.0.2.1", "192.0.2.2"}),
        ("2001:DB8:0:0:0:0:0:1", {"2001:db8::1"}),
    ],
)
def test_expected_addresses_mean_an_answer_of_exactly_these(text: str, addresses: set[str]) -> None:
    assert Expect.parse(text, "AAAA") == Expect(frozenset({Outcome.ANSWER}), frozenset(addresses))


@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "answer|yes",
        "answer||nodata",
        "|",
        ",",
        "192.0.2.1,",
        "192.0.2.300",
        "192.0.2.1|nodata",
        "timeout",
        "answer|same",
    ],
)
def test_what_cannot_be_expected_is_said_with_what_can(text: str) -> None:
    with pytest.raises(UsageError, match=r"say answer, .* any, pinned, same, endpoints, or addresses") as raised:
        Expect.parse(text, "A")
    assert repr(text) in str(raised.value)


def test_an_address_with_a_zone_is_in_no_dns_record() -> None:
    with pytest.raises(UsageError, match="addresses joined by commas"):
        Expect.parse("fe80::1%eth0", "AAAA")


ALL_WORDS = ("pinned", "same", "answer|nodata|nxdomain|servfail|refused|truncated")


@given(
    st.sampled_from(["", "any", "answer", "nodata", "nxdomain", "answer|nodata", "nxdomain|nodata|answer", *ALL_WORDS])
    | st.sets(st.ip_addresses(), min_size=1, max_size=4).map(lambda found: ",".join(map(str, found))),
    st.sampled_from(["A", "AAAA", "TXT"]),
)
def test_an_expectation_that_is_shown_reads_back_the_same(text: str, qtype: str) -> None:
    expect = Expect.parse(text, qtype)
    assert Expect.parse(str(expect), qtype) == expect


@given(st.ip_addresses(v=6))
def test_an_address_is_the_same_however_it_is_spelt(address: ipaddress.IPv6Address) -> None:
    assert Expect.parse(address.exploded.upper(), "AAAA") == Expect.parse(str(address), "AAAA")


def test_a_question_has_its_type_in_capitals() -> None:
    assert Question.of("a.test", "aaaa") == Question("a.test", "AAAA", Expect.parse("answer|nodata", "AAAA"))


@pytest.mark.parametrize(
    ("text", "transport", "ports", "shown"),
    [
        ("fresh", "udp", Ports("fresh"), "fresh"),
        (" Fixed ", "udp", Ports("fixed"), "fixed"),
        ("pool:1", "udp", Ports("pool", 1), "pool:1"),
        ("POOL:028000", "udp", Ports("pool", 28_000), "pool:28000"),
        ("fresh", "tcp", Ports("fresh"), "fresh"),
        ("reused", "tcp", Ports("reused"), "reused"),
        ("pool:4", "tcp", Ports("pool", 4), "pool:4"),
    ],
)
def test_port_policies(text: str, transport: str, ports: Ports, shown: str) -> None:
    assert Ports.parse(text, transport) == ports
    assert str(ports) == shown
    assert Ports.parse(shown, transport) == ports


@pytest.mark.parametrize(
    ("text", "transport", "said"),
    [
        ("pool:0", "udp", "a pool has 1 to 28000 source ports"),
        ("pool:28001", "udp", "a pool has 1 to 28000 source ports"),
        ("pool:" + "9" * 5000, "udp", "a pool has 1 to 28000 source ports"),
        ("pool", "udp", "for udp say fresh, fixed or pool:K"),
        ("pool:", "udp", "for udp say fresh, fixed or pool:K"),
        ("pool:-4", "udp", "for udp say fresh, fixed or pool:K"),
        ("pool:4.5", "udp", "for udp say fresh, fixed or pool:K"),
        ("reused", "udp", "for udp say fresh, fixed or pool:K"),
        ("", "udp", "for udp say fresh, fixed or pool:K"),
        ("fixed", "tcp", r"for tcp say fresh \(a connection per query\), reused \(one connection\), or pool:K"),
        ("pool:0", "tcp", "a pool has 1 to 28000"),
    ],
)
def test_port_policies_that_do_not_exist(text: str, transport: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Ports.parse(text, transport)


@pytest.mark.parametrize(
    ("target", "shown", "side"),
    [
        (Target("vip", TargetKind.SERVICE, "10.96.0.10", side="node"), "vip (10.96.0.10:53)", "node"),
        (Target("pod", TargetKind.POD, "fd00::5", 1053), "pod ([fd00::5]:1053)", "fd00::5"),
    ],
)
def test_a_target_shows_where_it_is_and_who_refuses_for_it(target: Target, shown: str, side: str) -> None:
    assert (str(target), target.refusing_side) == (shown, side)


def test_phases_as_people_read_them() -> None:
    assert [phase.label for phase in Phase] == ["", "connect", "answer"]


def test_nouns_do_not_change() -> None:
    mark = Mark(1, "scale", "3 to 2", "step")
    with pytest.raises(dataclasses.FrozenInstanceError):
        mark.at_ns = 2  # type: ignore[misc]
