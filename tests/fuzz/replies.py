"""Octets as replies -> each is judged as dnspython alone judges it, and is counted exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any, cast
from unittest.mock import patch

import numpy as np

from probe.book import BookWriter
from probe.model import NS, Edns, Question
from probe.outcome import Counter, Outcome
from probe.questions import CHANNEL_BITS, HEADER, Questions, Verdicts
from probe.transport.flight import Flight, Replies, State
from probe.transport.rows import Due, Finished, no_rows
from probe.transport.tcp import Connection, Tcp
from probe.wire import judge
from tests.fuzz.octets import Octets
from tests.test_wire import TABLE

MOST = 24
"""Replies of one input."""
_SPLICED, _AS_IT_IS = 1, 0


@cache
def _questions() -> Questions:
    """Of every sort: those of the table of tests, with EDNS, with labels that change, of a book."""
    questions = Questions(secret=7)
    several = dict.fromkeys(question for question, _, _ in TABLE.values())
    edns = Question.of("www.example.test.", "A", "", Edns(1232, nsid=True))
    questions.add([*several, edns, Question.of("{random}.example.test"), Question.of("x{number}.test", "AAAA")])
    book = BookWriter(Question.of("", "A"))
    for name in (b"\1a\4test\0", b"\7abcdefg\7example\4test\0", b"\0"):
        book.add(name)
    questions.add(book.close())
    return questions


def _forget(questions: Questions) -> None:
    """What replies taught it, so that an input does the same each time."""
    questions._memo.clear()
    questions._said.clear()
    del questions.servers[1:]


def _asked(questions: Questions, number: int, token: int) -> bytes:
    """The question section of a query."""
    octets, _ = questions.queries(np.array([number]), np.array([token]))
    query = bytes(octets[0])
    end = HEADER
    while query[end]:
        end += query[end] + 1
    return query[HEADER : end + 5]


def _slowly(question: Question, asked: bytes, reply: bytes) -> Outcome | None:
    """What a reply is, by the header and by dnspython; None if it is none to that question."""
    if len(reply) < HEADER or not reply[2] & 0x80:
        return None
    count, rcode = reply[4] << 8 | reply[5], reply[3] & 0x0F
    section = reply[HEADER : HEADER + len(asked)]
    same = count == 1 and (section[:-4].lower(), section[-4:]) == (asked[:-4].lower(), asked[-4:])
    if not same and not (len(reply) == HEADER and count == 0 and rcode):
        return None
    return Outcome.TRUNCATED if reply[2] & 0x02 else judge(question, reply).outcome


def _replies(octets: Octets) -> Iterator[tuple[int, bytes]]:
    """A number each and a reply, with the right question put behind its header where that is asked for."""
    questions = _questions()
    for _ in range(MOST):
        if not octets:
            return
        number, how, n = octets.number(len(questions)), octets.number(), octets.number(1024)
        reply = octets.take(n)
        if how == _SPLICED:
            reply = reply[:HEADER] + _asked(questions, number, number << CHANNEL_BITS) + reply[HEADER:]
        yield number, reply


def _classified(cases: list[tuple[int, bytes]]) -> Verdicts:
    """As a transport does it: a wide table, in which an earlier reply's octets still stand behind each one."""
    questions, n = _questions(), len(cases)
    head = np.full((n, max(questions.width, *(len(reply) for _, reply in cases))), 0xA5, np.uint8)
    for row, (_, reply) in zip(head, cases, strict=True):
        row[: len(reply)] = np.frombuffer(reply, np.uint8)
    lengths = np.array([len(reply) for _, reply in cases], np.int64)
    numbers = np.array([number for number, _ in cases], np.int64)
    zeros = np.zeros(n, np.int64)
    return questions.classify(head, lengths, numbers, numbers << CHANNEL_BITS, zeros, lambda i: cases[i][1])


def wire(octets: bytes) -> None:
    """All at once, from memory, and one by one replies are what dnspython alone says that they are."""
    questions = _questions()
    _forget(questions)
    cases = list(_replies(Octets(octets)))
    if not cases:
        return
    expected = [
        _slowly(questions[number], _asked(questions, number, number << CHANNEL_BITS), reply) for number, reply in cases
    ]
    several = (_classified(cases), _classified(cases), *(_classified([case]) for case in cases))
    found = [_outcomes(verdicts) for verdicts in several]
    assert found[0] == expected, "all at once"
    assert found[1] == expected, "from memory"
    assert [each for one in found[2:] for each in one] == expected, "one by one"


def _outcomes(verdicts: Verdicts) -> list[Outcome | None]:
    pairs = zip(verdicts.matched.tolist(), verdicts.outcome.tolist(), strict=True)
    return [Outcome(outcome) if matched else None for matched, outcome in pairs]


# -- batches of datagrams


@cache
def _flight() -> Flight:
    """Two channels, three sockets, few rows each; to be copied."""
    flight = Flight(_questions(), np.random.default_rng(1))
    flight.add_sockets(2, 0, 4)
    flight.add_sockets(1, 1, 2)
    return flight


class _Model:
    """What was launched and what became of it, said by hand beside a flight table."""

    def __init__(self) -> None:
        self.questions = _questions()
        _forget(self.questions)
        self.flight = deepcopy(_flight(), {id(self.questions): self.questions})
        self.counters = np.zeros((2, len(Counter)), np.int64)
        self.now = NS
        self.rows: dict[tuple[int, int], tuple[int, int]] = {}
        """Question and due instant of the rows that wait, by socket and id."""
        self.launched = self.finished = 0

    def launch(self, socket: int, number: int, n: int) -> None:
        due = self.now + np.arange(n, dtype=np.int64)
        slots, ids = self.flight.reserve(np.array([socket]), np.array([n]), due, State.ANSWERED)
        ok = slots >= 0
        slots, ids, due = slots[ok], ids[ok], due[ok]
        alike = [np.full(len(due), value, np.int64) for value in (0, number, number << CHANNEL_BITS, socket, NS)]
        series, numbers, tokens, sockets, timeouts = alike
        self.flight.launch(slots, Due(due, series, numbers, series, tokens, due), due, sockets, ids, timeouts)
        for query_id, at in zip(ids.tolist(), due.tolist(), strict=True):
            assert (socket, query_id) not in self.rows, "an id of a row that waits"
            self.rows[socket, query_id] = number, at
        self.launched += len(due)

    def settle(self, socket: list[int], datagrams: list[bytes], received: list[int]) -> None:
        n, width = len(datagrams), max(self.questions.width, 2)
        head = np.full((n, width), 0xA5, np.uint8)
        for row, datagram in zip(head, datagrams, strict=True):
            row[: len(datagram)] = np.frombuffer(datagram[:width], np.uint8)
        lengths = np.array([len(each) for each in datagrams], np.int64)
        before = int(self.counters[:, _BESIDE].sum())
        replies = Replies(head, lengths, np.array(socket), np.array(received), datagrams.__getitem__)
        done = self.flight.settle(replies, self.counters)
        beside = int(self.counters[:, _BESIDE].sum()) - before
        assert len(done.due) + beside == n, f"{n} datagrams: {len(done.due)} rows, {beside} counted beside"
        said: dict[tuple[int, int], set[Outcome | None]] = {}
        for where, datagram in zip(socket, datagrams, strict=True):
            key = where, int.from_bytes(datagram[:2], "big")
            if len(datagram) >= HEADER and key in self.rows:
                number = self.rows[key][0]
                asked = _asked(self.questions, number, number << CHANNEL_BITS)
                said.setdefault(key, set()).add(_slowly(self.questions[number], asked, datagram))
        self.take(done, said)

    def take(self, done: Finished, said: dict[tuple[int, int], set[Outcome | None]] | None = None) -> None:
        """Rows that are done: each was launched, has not been done, and is what one of its replies says."""
        columns = (done.socket, done.query_id, done.due, done.outcome)
        for socket, query_id, due, outcome in zip(*(column.tolist() for column in columns), strict=True):
            number, launched = self.rows.pop((socket, query_id))
            assert launched == due, number
            assert said is None or Outcome(outcome) in said[socket, query_id], (number, Outcome(outcome))
            self.finished += 1
        assert self.flight.in_flight == self.launched - self.finished == len(self.rows)


_BESIDE = [Counter.LATE, Counter.DUPLICATE, Counter.UNMATCHED]


def udp(octets: bytes) -> None:
    """Rows leave, datagrams come, errors too, time passes: each datagram is one row's outcome or counted beside."""
    read, model = Octets(octets), _Model()
    for _ in range(MOST):
        if not read:
            break
        what, socket = read.number(8), read.number(3)
        if what < 3:
            model.launch(socket, read.number(len(model.questions)), 1 + read.number(6))
        elif what == 3:
            model.now += NS * read.number() // 64
            model.take(model.flight.expire(model.now))
        elif what == 4:
            slots = model.flight.slots_of(np.array([socket]), np.array([read.number(65_536)]))
            slots = slots[[bool(slot >= 0 and model.flight.is_pending(slot)) for slot in slots.tolist()]]
            model.take(model.flight.finish(slots, Outcome.CONNECTION_REFUSED, state=State.ANSWERED, errno=111))
        else:
            _batch(read, model)
    model.take(model.flight.expire(1 << 61))
    assert not model.rows


def _batch(read: Octets, model: _Model) -> None:
    """Datagrams of one beat: with the ids of rows that wait, most of them, on their sockets or others."""
    sockets, datagrams, received = [], [], []
    waiting = list(model.rows.items())
    for _, octets in _replies(read):
        datagram, how, socket = octets, read.number(), read.number(3)
        if waiting and how < 192:
            (socket, query_id), (number, _) = waiting[how % len(waiting)]
            asked = _asked(model.questions, number, number << CHANNEL_BITS)
            header = query_id.to_bytes(2, "big") + octets[2:HEADER].ljust(HEADER - 2, b"\0")
            datagram = header + asked + octets[HEADER:]
        for at in (model.now, model.now + how * NS // 128)[how % 4 > 0 :]:
            datagrams.append(datagram)
            sockets.append(socket)
            received.append(at)
    if datagrams:
        model.settle(sockets, datagrams, received)


# -- streams


def tcp(octets: bytes) -> None:
    """However a stream is cut, its messages are the same, and are judged in their order."""
    read = Octets(octets)
    cuts = [1 + read.number(256) for _ in range(read.number(32))]
    stream = read.rest()
    whole = list(_messages(stream))
    assert _taken(stream, [len(stream)]) == whole, "in one piece"
    assert _taken(stream, cuts) == whole, f"cut after {cuts}"
    assert _taken(stream[:128], [1] * 128) == list(_messages(stream[:128])), "octet by octet"


def _messages(stream: bytes) -> Iterator[bytes]:
    """RFC 1035, 4.2.2."""
    while len(stream) >= 2 and len(stream) >= 2 + (n := int.from_bytes(stream[:2], "big")):
        yield stream[2 : 2 + n]
        stream = stream[2 + n :]


@cache
def _transport() -> Tcp:
    return Tcp(_questions(), np.random.default_rng(1), 0)


def _taken(stream: bytes, cuts: list[int]) -> list[bytes]:
    """What the transport makes of it, of pieces of these lengths and one with the rest; judged now and then."""
    transport = _transport()
    flight = transport._ledger.flight
    found: list[bytes] = []

    def settle(replies: Replies, counters: object) -> Finished:
        """Keeps what would be judged."""
        del counters
        got = [replies.reply(i) for i in range(len(replies.lengths))]
        assert all(bytes(head[: len(one)]) == one[: len(head)] for head, one in zip(replies.head, got, strict=True))
        assert set(replies.socket.tolist()) <= {3}
        found.extend(got)
        return no_rows()

    connection = Connection(cast("Any", None), place=3, serial=1, sock=cast("Any", None), began=0)
    with patch.object(flight, "settle", settle):
        for n in [*cuts, len(stream)]:
            connection.got += stream[:n]
            stream = stream[n:]
            transport._take_frames(connection)
            if n % 3 == 0:
                transport._judge_frames()
        transport._judge_frames()
    transport._ledger.finished.clear()
    return found
