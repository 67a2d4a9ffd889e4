"""Names as typed in, questions and queries out: search lists, labels that change, OPT records, whom they would load."""

from __future__ import annotations

import dns.message
import dns.rdatatype
import pytest

from probe.errors import UsageError
from probe.model import Edns, Question
from probe.scenario.names import Asking, edns_of, edns_size_of, ndots_of, suffix_of, suffixes_of
from probe.wire import LABEL_OCTETS, encode, placeholder_of

HEADER = 12
POD = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local")


@pytest.mark.parametrize(
    ("name", "ndots", "asked"),
    [
        # as a pod's glibc asks: + is a suffix, the name itself as it stands
        ("db", 5, "db+0 db+1 db+2 db"),
        ("db.other", 5, "db.other+0 db.other+1 db.other+2 db.other"),
        ("a.b.c.d.e", 5, "a.b.c.d.e+0 a.b.c.d.e+1 a.b.c.d.e+2 a.b.c.d.e"),
        ("a.b.c.d.e.f", 5, "a.b.c.d.e.f a.b.c.d.e.f+0 a.b.c.d.e.f+1 a.b.c.d.e.f+2"),
        ("db", 1, "db+0 db+1 db+2 db"),
        ("db.other", 1, "db.other db.other+0 db.other+1 db.other+2"),
        ("db", 0, "db db+0 db+1 db+2"),
        ("db.other.", 5, "db.other."),
        (".", 5, "."),
    ],
)
def test_a_search_list_is_walked_as_glibc_walks_it(name: str, ndots: int, asked: str) -> None:
    questions = Asking(search=POD, ndots=ndots).questions(name, "A", "192.0.2.1")
    spelt = [f"{base}.{POD[int(k)]}" if k else base for base, _, k in (w.partition("+") for w in asked.split())]
    assert [q.name for q in questions] == spelt
    assert [str(q.expect) for q in questions] == ["192.0.2.1" if q.name == name else "pinned" for q in questions]


@pytest.mark.parametrize(
    ("name", "expect", "said"),
    [
        ("kubernetes.default", "", "pinned"),
        ("kubernetes.default", "nxdomain", "nxdomain"),
        ("kubernetes.default.", "", "answer"),
        ("a.b.c.d.e.f", "", "answer"),
    ],
)
def test_a_short_name_that_is_asked_last_hardly_exists_itself(name: str, expect: str, said: str) -> None:
    asked = {q.name: str(q.expect) for q in Asking(search=POD).questions(name, "A", expect)}
    assert asked.pop(name) == said
    assert set(asked.values()) <= {"pinned"}


def test_without_a_search_list_a_name_is_asked_as_it_stands() -> None:
    assert Asking().questions("db", "aaaa", "nxdomain") == [Question.of("db", "AAAA", "nxdomain")]


@pytest.mark.parametrize(
    ("name", "word", "before"),
    [
        # what stands before the 13 octets on the wire
        ("{random}.test", "random", b"\x0d"),
        ("{number}.test.", "number", b"\x0d"),
        ("www.x{random}y.test", "random", b"\3www\x0fx"),
        ("0000000000000.{number}.test", "number", b"\x0d0000000000000\x0d"),
        ("b\\{.{random}.test", "random", b"\2b{\x0d"),
        ("\u00fc.{random}.test", "random", b"\x07xn--tda\x0d"),
    ],
)
def test_a_label_that_changes_is_thirteen_zeros_and_found_again(name: str, word: str, before: bytes) -> None:
    question = Question.of(name)
    query = encode(question)
    assert placeholder_of(question) == (word, HEADER + len(before))
    assert query[HEADER:].startswith(before + b"0" * LABEL_OCTETS)


@pytest.mark.parametrize("name", ["www.test", "\\{random}.test", "{}.test", "{a1}.test", "{random.test", "."])
def test_names_that_never_change(name: str) -> None:
    assert placeholder_of(Question.of(name)) is None
    encode(Question.of(name))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("{random}.{random}.test", "a label that changes is one {random} or one {number}"),
        ("{random}{number}.test", "a label that changes is one {random} or one {number}"),
        ("{Random}.test", "name '{Random}.test': a label that changes is one {random} or one {number}"),
        ("{rnd}.test", r"a brace as such is \{"),
        ("x" * 51 + "{random}.test", "has 64 octets, 63 are allowed"),
        ("{random}x" + ".abcdefg" * 30, "256 octets on the wire, 255 are allowed"),
    ],
)
def test_labels_that_cannot_change_so(name: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        encode(Question.of(name))
    assert said in str(caught.value)


def test_the_longest_names_that_can_change() -> None:
    assert len(encode(Question.of("x" * 50 + "{random}.test"))) == HEADER + 1 + 63 + 6 + 4
    assert len(encode(Question.of("{random}" + ".abcdefg" * 30))) == HEADER + 255 + 4


@pytest.mark.parametrize("size", [512, 1232, 65535])
@pytest.mark.parametrize("do", [False, True])
@pytest.mark.parametrize("nsid", [False, True])
def test_an_opt_record_as_dnspython_reads_it(size: int, *, do: bool, nsid: bool) -> None:
    query = encode(Question.of("www.test", "A", edns=Edns(size, do, nsid)))
    message = dns.message.from_wire(query)
    assert (message.edns, message.payload, message.ednsflags) == (0, size, 0x8000 if do else 0)
    assert [(int(o.otype), o.to_wire()) for o in message.options] == ([(3, b"")] if nsid else [])
    assert query.startswith(encode(Question.of("www.test"))[HEADER:], HEADER)


def test_what_an_opt_record_is_made_of() -> None:
    assert edns_of(None, dnssec=False, nsid=False) is None
    assert edns_of(None, dnssec=True, nsid=False) == Edns(1232, do=True)
    assert edns_of(None, dnssec=False, nsid=True) == Edns(1232, nsid=True)
    assert edns_of(4096, dnssec=False, nsid=False) == Edns(4096)


@pytest.mark.parametrize(
    "name",
    [
        "{random}.default.svc.cluster.local",
        "{number}.Cluster.Local.",
        "{random}.test",
        "a.{random}.b.example.com",
        "{number}.0.10.in-addr.arpa",
        "{number}.168.192.in-addr.arpa",
        "{number}.31.172.in-addr.arpa",
        "{random}.0.0.d.f.ip6.arpa",
    ],
)
def test_labels_may_change_where_the_servers_are_ours(name: str) -> None:
    assert [q.name for q in Asking().questions(name, "A")] == [name]


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("{random}.dnsprobe.dev", "the servers of dnsprobe.dev"),
        ("a.x{number}y.B.Dnsprobe.dev.", "the servers of b.dnsprobe.dev"),
        ("{random}.notexample.com", "the servers of notexample.com"),
        ("{random}.com", "the root servers, or those of com"),
        ("{random}", "the root servers"),
        ("cluster.local.{random}", "the root servers"),
        ("{number}.8.8.in-addr.arpa", "the servers of 8.8.in-addr.arpa"),
        ("{number}.32.172.in-addr.arpa", "the servers of 32.172.in-addr.arpa"),
    ],
)
def test_strangers_servers_are_loaded_by_flag_only(name: str, whose: str) -> None:
    with pytest.raises(UsageError, match=r"no cache knows a label that changes") as caught:
        Asking().questions(name, "A")
    assert f"would reach {whose}: if they may be loaded, say --external" in str(caught.value)
    assert Asking(external=True).questions(name, "A")


def test_a_search_list_may_lead_to_strangers() -> None:
    """A short name that changes ends as a question to the root."""
    with pytest.raises(UsageError, match=r"name '\{random\}\.shop': .* the root servers, or those of shop"):
        Asking(search=("svc.cluster.local",)).questions("{random}.shop", "A")


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (suffix_of, ".", "'.': empty; the name itself is always asked, too"),
        (suffix_of, "a..b", "name 'a..b': an empty label"),
        (suffix_of, "{random}.test", "a label that changes belongs in the name"),
        (ndots_of, "16", "'16': the number of dots is a whole number from 0 to 15"),
        (edns_size_of, "511", "'511': the size of UDP replies is a whole number from 512 to 65535"),
        (edns_size_of, "-s", "'-s': the size of UDP replies"),
    ],
)
def test_what_a_lane_cannot_be_asked_with(read: object, text: str, said: str) -> None:
    assert callable(read)
    with pytest.raises(UsageError) as caught:
        read(text)
    assert said in str(caught.value)


def test_search_lists() -> None:
    assert suffixes_of(["svc.cluster.local.", "cluster.local"]) == ("svc.cluster.local", "cluster.local")
    with pytest.raises(UsageError, match="33 suffixes; 32 are the most"):
        suffixes_of(["test"] * 33)
