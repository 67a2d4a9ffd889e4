"""Questions in, query bytes out; reply bytes in, outcomes out: the table, and laws over bytes nobody meant."""

from __future__ import annotations

from collections.abc import Sequence

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.errors import UsageError
from probe.model import Question
from probe.outcome import Outcome
from probe.questions import _MEMO_LIMIT, HEADER, Questions, Verdicts
from probe.wire import encode, judge, qtype_number

NAME = "www.example.test."
A, AAAA, TXT = Question.of(NAME), Question.of(NAME, "AAAA"), Question.of(NAME, "TXT")
ALIAS = f"{NAME} 5 IN CNAME other.test."
TC, AA = dns.flags.TC, dns.flags.AA


def reply(
    question: Question,
    *records: str,
    rcode: int = 0,
    flags: int = 0,
    edns: bool = False,
    authority: Sequence[str] = (),
    asked: str = "",
    opcode: int = 0,
) -> bytes:
    """A reply as a server builds it; records as in a zone file, `asked`: the name as the server spells it."""
    query = dns.message.make_query(
        asked or question.name,
        dns.rdatatype.from_text(question.qtype),
        id=0x1234,
        use_edns=0 if edns or rcode > 15 else None,
    )
    message = dns.message.make_response(query)
    message.set_rcode(dns.rcode.Rcode(rcode))
    message.flags |= flags
    for section, texts in ((message.answer, records), (message.authority, authority)):
        for text in texts:
            owner, ttl, rdclass, rdtype, data = text.split(None, 4)
            section.append(dns.rrset.from_text(owner, int(ttl), rdclass, rdtype, data))
    wire = bytearray(message.to_wire())
    wire[2] |= opcode << 3
    return bytes(wire)


def classify(questions: Questions, replies: Sequence[bytes], asked: Sequence[int]) -> Verdicts:
    """As a transport does it: a wide table, in which an earlier reply's octets still stand behind each one."""
    width = max(questions.width, *map(len, replies))
    head = np.full((len(replies), width), 0xA5, np.uint8)
    for row, each in zip(head, replies, strict=True):
        row[: len(each)] = np.frombuffer(each, np.uint8)
    lengths = np.array([len(each) for each in replies], np.int64)
    zeros = np.zeros(len(replies), np.int64)
    return questions.classify(head, lengths, np.array(asked, np.int64), zeros, zeros, lambda i: replies[i])


def outcome_of(question: Question, *replies: bytes) -> list[str]:
    """The label of what each reply is, `unmatched` where it is none to this question."""
    questions = Questions()
    questions.add([Question.of("another.test", "AAAA"), question])
    verdicts = classify(questions, replies, [1] * len(replies))
    return [
        Outcome(o).label if m else "unmatched" for m, o in zip(verdicts.matched, verdicts.outcome.tolist(), strict=True)
    ]


OWN = f"{NAME} 5 IN A 192.0.2.1"
OTHERS = "other.test. 5 IN A 192.0.2.1"
SIX = f"{NAME} 5 IN AAAA 2001:db8::1"
SOA = "example.test. 5 IN SOA ns.test. host.test. 1 2 3 4 5"
LOOP = ("www.example.test. 5 IN CNAME b.test.", "b.test. 5 IN CNAME www.example.test.")
LONG = (ALIAS.replace("other", "c0"), *(f"c{i}.test. 5 IN CNAME c{i + 1}.test." for i in range(20)))
BARE = reply(A, OWN)[:-16]
HEADER_ALONE = b"\x12\x34\x81\x01" + bytes(8)
JUST = Question.of(NAME, "A", "192.0.2.1,192.0.2.2")

TABLE: dict[str, tuple[Question, bytes, str]] = {
    "an address": (A, reply(A, OWN), "answer"),
    "an address, authoritative": (A, reply(A, OWN, flags=AA), "answer"),
    "an address of IPv6": (AAAA, reply(AAAA, SIX), "answer"),
    "two addresses": (A, reply(A, OWN, OWN.replace("2.1", "2.2")), "answer"),
    "an address and OPT": (A, reply(A, OWN, edns=True), "answer"),
    "an address and a name server": (A, reply(A, OWN, authority=["test. 5 IN NS ns.test."]), "answer"),
    "a text": (TXT, reply(TXT, f'{NAME} 5 IN TXT "hello"'), "answer"),
    "a TTL of 2^31": (A, reply(A, OWN).replace(b"\0\0\0\5\0\4", b"\x80\0\0\0\0\4"), "answer"),
    "nothing": (A, reply(A), "nodata"),
    "nothing, and OPT": (A, reply(A, edns=True), "nodata"),
    "nothing, and SOA": (A, reply(A, authority=[SOA]), "nodata"),
    "another type": (A, reply(A, SIX), "nodata"),
    "another owner": (A, reply(A, OTHERS), "nodata"),
    "another class": (A, reply(A, OWN).replace(b"\0\1\0\1\0\0\0\5", b"\0\1\0\4\0\0\0\5"), "nodata"),
    "alias and address": (A, reply(A, ALIAS, OTHERS), "answer"),
    "address before alias": (A, reply(A, OTHERS, ALIAS), "answer"),
    "alias alone": (A, reply(A, ALIAS), "nodata"),
    "alias to another type": (A, reply(A, ALIAS, OTHERS.replace("A 192.0.2.1", "AAAA ::1")), "nodata"),
    "alias to an address of nobody": (A, reply(A, ALIAS, "third.test. 5 IN A 192.0.2.1"), "nodata"),
    "alias asked for": (Question.of(NAME, "CNAME"), reply(Question.of(NAME, "CNAME"), ALIAS), "answer"),
    "aliases in a circle": (A, reply(A, *LOOP), "malformed"),
    "21 aliases": (A, reply(A, *LONG), "malformed"),
    "alias to what is not": (A, reply(A, ALIAS, rcode=3), "nxdomain"),
    "anything": (Question.of(NAME, "ANY"), reply(Question.of(NAME, "ANY"), OWN, SIX), "answer"),
    "anything, of which there is nothing": (Question.of(NAME, "ANY"), reply(Question.of(NAME, "ANY")), "nodata"),
    "no such name": (A, reply(A, rcode=3), "nxdomain"),
    "no such name, and SOA": (A, reply(A, rcode=3, authority=[SOA]), "nxdomain"),
    "no such name, and OPT": (A, reply(A, rcode=3, edns=True), "nxdomain"),
    "server failure": (A, reply(A, rcode=2), "servfail"),
    "server failure, and OPT": (A, reply(A, rcode=2, edns=True), "servfail"),
    "refused": (A, reply(A, rcode=5), "refused"),
    "format error": (A, reply(A, rcode=1), "other_rcode"),
    "an RCODE of nobody": (A, reply(A, rcode=13), "other_rcode"),
    "BADVERS: 16, of which the header holds 0": (A, reply(A, rcode=16), "other_rcode"),
    "BADCOOKIE: 23, of which the header holds 7": (A, reply(A, rcode=23), "other_rcode"),
    "18, of which the header holds 2": (A, reply(A, rcode=18), "other_rcode"),
    "a failure that carries an address": (A, reply(A, OWN, rcode=2), "servfail"),
    "truncated": (A, reply(A, flags=TC), "truncated"),
    "truncated, with an address": (A, reply(A, OWN, flags=TC), "truncated"),
    "truncated, and a failure": (A, reply(A, rcode=2, flags=TC), "truncated"),
    "truncated in the middle of a record": (A, reply(A, OWN, flags=TC)[:-3], "truncated"),
    "the header alone": (A, HEADER_ALONE, "other_rcode"),
    "the header alone, truncated": (A, b"\x12\x34\x83\x02" + bytes(8), "truncated"),
    "the header alone, without an error": (A, b"\x12\x34\x81\x00" + bytes(8), "unmatched"),
    "the header alone, that counts a question": (A, HEADER_ALONE[:5] + b"\1" + bytes(6), "unmatched"),
    "the header alone, that counts an answer": (A, HEADER_ALONE[:7] + b"\1" + bytes(4), "malformed"),
    "other case": (A, reply(A, OWN.replace("www", "WWW"), asked="wWw.EXAMPLE.test."), "answer"),
    "other case, no such name": (A, reply(A, rcode=3, asked=NAME.upper()), "nxdomain"),
    "another name": (A, reply(A, OTHERS, asked="other.test."), "unmatched"),
    "a name of the same length": (A, reply(A, asked="www.example.tesu."), "unmatched"),
    "a name that goes on": (A, reply(A, asked=NAME + "test."), "unmatched"),
    "asked for another type": (A, reply(AAAA, SIX), "unmatched"),
    "asked for a type that differs in the bit of case": (
        Question.of(NAME, "TYPE65"),
        reply(Question.of(NAME, "TYPE97")),
        "unmatched",
    ),
    "the query itself": (A, encode(A), "unmatched"),
    "nothing at all": (A, b"", "unmatched"),
    "octets behind the last record": (A, reply(A, OWN) + b"\0", "malformed"),
    "octets behind the question": (A, reply(A, rcode=3) + b"\0", "malformed"),
    "no data in an address": (A, reply(A, OWN)[:-6] + b"\0\0", "malformed"),
    "an address of three octets": (A, reply(A, OWN)[:-6] + b"\0\3abc", "malformed"),
    "an address of five octets": (A, reply(A, OWN)[:-6] + b"\0\5abcde", "malformed"),
    "a pointer to itself": (A, BARE + b"\xc0\x22" + reply(A, OWN)[-14:], "malformed"),
    "a pointer ahead": (A, BARE + b"\xc0\xff" + reply(A, OWN)[-14:], "malformed"),
    "an answer to a NOTIFY": (A, reply(A, OWN, opcode=4), "malformed"),
    "an answer to an UPDATE": (A, reply(A, OWN, opcode=5), "malformed"),
    "the addresses expected": (JUST, reply(JUST, OWN, OWN.replace("2.1", "2.2")), "answer"),
    "the addresses expected, by an alias": (JUST, reply(JUST, ALIAS, OTHERS, OTHERS.replace("2.1", "2.2")), "answer"),
    "one of two addresses expected": (JUST, reply(JUST, OWN), "wrong_answer"),
    "more addresses than expected": (
        JUST,
        reply(JUST, OWN, OWN.replace("2.1", "2.2"), OWN.replace("2.1", "2.3")),
        "wrong_answer",
    ),
    "no address of two expected": (JUST, reply(JUST), "nodata"),
    "addresses expected, a failure": (JUST, reply(JUST, rcode=2), "servfail"),
    "a text, though addresses are expected": (
        Question.of(NAME, "TXT", "192.0.2.1"),
        reply(TXT, f'{NAME} 5 IN TXT "192.0.2.1"'),
        "wrong_answer",
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_what_a_reply_is(case: str) -> None:
    question, wire, expected = TABLE[case]
    assert outcome_of(question, wire) == [expected]


def test_all_at_once_they_are_the_same() -> None:
    questions = Questions()
    asked = list(dict.fromkeys(question for question, _, _ in TABLE.values()))
    questions.add(asked)
    replies = [wire for _, wire, _ in TABLE.values()]
    for _ in range(2):  # the second time from memory
        verdicts = classify(questions, replies, [asked.index(question) for question, _, _ in TABLE.values()])
        found = [
            Outcome(o).label if m else "unmatched" for m, o in zip(verdicts.matched, verdicts.outcome, strict=True)
        ]
        assert found == [expected for _, _, expected in TABLE.values()]


def test_only_what_the_question_expects_is_good() -> None:
    questions = Questions()
    assert questions.add([A, AAAA]) == 0
    assert questions.add([]) == 2
    assert questions.add([Question.of(NAME, "A", "nxdomain")]) == 2
    each = np.arange(len(Outcome))
    good = [
        {Outcome(int(o)).label for o in np.flatnonzero(questions.good(np.full_like(each, q), each))} for q in range(3)
    ]
    assert good == [{"answer"}, {"answer", "nodata"}, {"nxdomain"}]
    assert len(questions) == 3
    assert questions[1] is AAAA


def test_truncated_replies_say_whether_they_carry_answers() -> None:
    questions = Questions()
    questions.add([A])
    replies = [reply(A, OWN, flags=TC), reply(A, flags=TC), reply(A, OWN)]
    assert classify(questions, replies, [0, 0, 0]).truncated_with_answer.tolist() == [True, False, False]


@given(st.sets(st.ip_addresses(v=6), min_size=1, max_size=3).map(sorted))
def test_an_expected_address_is_found_however_a_server_or_a_person_spells_it(addresses: list[object]) -> None:
    question = Question.of(NAME, "AAAA", ",".join(map(str, addresses)))
    wire = reply(question, *(f"{NAME} 5 IN AAAA {address}" for address in addresses))
    assert outcome_of(question, wire) == ["answer"]


@pytest.mark.parametrize("spelt", ["::ffff:192.0.2.1", "::ffff:c000:201", "::192.0.2.1", "::2:3", "1:0:2::"])
def test_addresses_with_more_than_one_usual_spelling(spelt: str) -> None:
    question = Question.of(NAME, "AAAA", spelt)
    assert outcome_of(question, reply(question, f"{NAME} 5 IN AAAA {spelt}")) == ["answer"]


# -- laws

ASKED = list(dict.fromkeys(question for question, _, _ in TABLE.values()))
HARD = Questions()
HARD.add(ASKED)
MATCHED = [(q, wire) for q, wire, expected in TABLE.values() if expected != "unmatched"]
SOUND = [(q, w) for q, w, e in TABLE.values() if e not in ("unmatched", "malformed", "truncated") and len(w) > HEADER]


def check(cases: Sequence[tuple[Question, bytes]]) -> list[Outcome | None]:
    """What each reply is, None if unmatched; whatever is matched is what the parser alone says it is."""
    verdicts = classify(HARD, [wire for _, wire in cases], [ASKED.index(question) for question, _ in cases])
    found: list[Outcome | None] = []
    for i, (question, wire) in enumerate(cases):
        if not verdicts.matched[i]:
            found.append(None)
            continue
        assert wire[2] & 0x80, "a query is no reply"
        outcome = Outcome(int(verdicts.outcome[i]))
        expected = Outcome.TRUNCATED if wire[2] & 0x02 else judge(question, wire).outcome
        assert outcome is expected, (question, wire.hex())
        found.append(outcome)
    return found


@pytest.mark.parametrize("case", [case for case, (q, w, _) in TABLE.items() if (q, w) in SOUND])
def test_a_reply_that_is_cut_anywhere_is_no_reply_or_malformed(case: str) -> None:
    question, wire, _ = TABLE[case]
    cuts = check([(question, wire[:n]) for n in range(len(wire))])
    records = any(wire[6:HEADER])
    assert set(cuts) <= ({None, Outcome.MALFORMED} if records else {None})


@pytest.mark.parametrize(
    "case",
    [
        "an address",
        "an address of IPv6",
        "an address and OPT",
        "a text",
        "alias and address",
        "nothing, and SOA",
        "no such name",
        "the header alone",
        "other case",
        "the addresses expected",
    ],
)
def test_each_bit_that_flips_is_judged_as_the_parser_judges_it(case: str) -> None:
    question, wire, _ = TABLE[case]
    flips = []
    for bit in range(8 * 2, 8 * len(wire)):
        flipped = bytearray(wire)
        flipped[bit // 8] ^= 1 << bit % 8
        flips.append((question, bytes(flipped)))
    check(flips)


@given(
    st.sampled_from(MATCHED),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    st.integers(0, 400),
    st.binary(max_size=8),
)
def test_octets_that_were_changed_are_judged_as_the_parser_judges_them(
    case: tuple[Question, bytes], changes: list[tuple[int, int]], cut: int, tail: bytes
) -> None:
    question, wire = case
    changed = bytearray(wire)
    for at, octet in changes:
        changed[at % len(changed)] = octet
    check([(question, bytes(changed)), (question, bytes(changed)[:cut] + tail)])


@given(st.sampled_from(ASKED), st.binary(max_size=300))
def test_any_octets_are_something(question: Question, octets: bytes) -> None:
    section = encode(question)[HEADER:]
    start = b"\x12\x34\x80" + octets[:1].rjust(1) + b"\0\1"
    check([(question, octets), (question, start + octets[1:7].ljust(6, b"\0") + section + octets[7:])])
    judge(question, octets)


def test_what_is_remembered_of_odd_replies_is_bounded() -> None:
    questions = Questions()
    questions.add([TXT])
    once = reply(TXT, f'{NAME} 5 IN TXT "x"')
    classify(questions, [once] * 1000, [0] * 1000)
    assert len(questions._memo) == 1, "equal replies are parsed once"
    for k in range(3):
        many = [once + (k << 16 | i).to_bytes(4, "big") for i in range(_MEMO_LIMIT // 2 - 100)]
        classify(questions, many, [0] * len(many))
    assert 0 < len(questions._memo) <= _MEMO_LIMIT


# -- names and types


def label(n: int) -> str:
    return "x" * n


LONGEST = ".".join([label(63), label(63), label(63), label(61)])


@pytest.mark.parametrize(
    "name", [".", "a", "a.", label(63), LONGEST, LONGEST + ".", "_dns.a-b", "a b", r"a\.b", "ü.test"]
)
def test_names_that_fit(name: str) -> None:
    wire = encode(Question.of(name))
    query = dns.message.from_wire(wire)
    assert query.id == 0
    assert query.flags == dns.flags.RD
    assert query.opcode() == dns.opcode.QUERY
    assert query.question[0].name == dns.name.from_text(name)
    assert len(wire) <= HEADER + 255 + 4
    assert query.edns == -1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (label(64), "has 64 octets, 63 are allowed"),
        ("a." + label(70) + ".test.", "has 70 octets, 63 are allowed"),
        (label(300), "(300 characters)"),
        ("ü" * 60 + ".test", "has more than 63 octets, 63 are allowed"),
        (r"\065" * 64, "has more than 63 octets, 63 are allowed"),
        (LONGEST + "x", "256 octets on the wire, 255 are allowed"),
        (LONGEST + "x.", "256 octets on the wire, 255 are allowed"),
        ("a." * 127 + "a", "257 octets on the wire, 255 are allowed"),
        ("ü." * 127 + "a", "more than 255 octets on the wire, 255 are allowed"),
        ("a..b", "an empty label"),
        (".a", "an empty label"),
        ("..", "an empty label"),
        (r"a\300", "not a domain name"),
        (r"a\1", "not a domain name"),
    ],
)
def test_names_that_do_not_fit_say_which_limit_they_break(name: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        encode(Question.of(name))
    assert said in str(raised.value)
    assert len(str(raised.value)) < 300


@given(st.text(max_size=80))
def test_any_text_is_a_name_or_an_error_that_says_why(name: str) -> None:
    said = ""
    try:
        wire = encode(Question.of(name))
    except UsageError as error:
        said = str(error)
    assert said.startswith("name ") if said else len(wire) <= HEADER + 255 + 4


@pytest.mark.parametrize(("text", "number"), [("A", 1), ("aaaa", 28), ("TYPE65", 65), ("https", 65), ("ANY", 255)])
def test_types(text: str, number: int) -> None:
    assert qtype_number(text) == number
    assert encode(Question.of(NAME, text))[-4:-2] == number.to_bytes(2, "big")


@pytest.mark.parametrize("text", ["", "B", "TYPE65536", "TYPE", "TYPE-1", "TYPE²", "A A", "x" * 500, "\udc80"])
def test_no_types(text: str) -> None:
    with pytest.raises(UsageError, match=r"not a DNS type; say A, AAAA, TXT, ... or TYPE65") as raised:
        qtype_number(text)
    assert len(str(raised.value)) < 250


@pytest.mark.parametrize("text", ["AXFR", "IXFR", "OPT", "TSIG", "TKEY", "MAILB", "TYPE250"])
def test_types_that_are_no_plain_questions(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be asked for with a plain query"):
        qtype_number(text)
