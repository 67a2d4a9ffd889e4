"""Questions -> query octets, a batch at a time; batches of reply octets -> outcomes.

A reply counts only if socket, id, QR bit and question match: the caller checks socket and id, this module the rest.
Plain replies, a single address and nothing else, are compared with what they must be, all at once; what is odd goes
through the parser, which remembers what it saw.
"""

from __future__ import annotations

import ipaddress
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from probe.book import Book
from probe.model import BESIDE, Learnt, Question
from probe.outcome import Outcome
from probe.wire import LABEL_OCTETS, Judged, encode, judge, placeholder_of, qtype_number

HEADER = 12
PINNED_AFTER = 10
"""Replies to a `pinned` question after which the commonest outcome is the only good one."""
CHANNEL_BITS = 20
"""A row's token is its number within its series, shifted by this, and its channel: labels are made from it."""
_DATA_OCTETS = {1: 4, 28: 16}
"""Types, A and AAAA, whose data any octets of that number are."""
_QR, _OPCODE, _TC, _RCODE = 0x80, 0x78, 0x02, 0x0F
_OUTCOME_OF_RCODE = np.full(16, Outcome.OTHER_RCODE, np.int8)
_OUTCOME_OF_RCODE[[0, 2, 3, 5]] = (Outcome.ANSWER, Outcome.SERVFAIL, Outcome.NXDOMAIN, Outcome.REFUSED)
_MEMO_LIMIT = 8192
_LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz234567", np.uint8)
_TENS = 10 ** np.arange(LABEL_OCTETS - 1, -1, -1, dtype=np.int64)
_FIVES = np.arange(0, 5 * LABEL_OCTETS, 5, dtype=np.uint64)

Ints = NDArray[np.int64]
Octets = NDArray[np.uint8]


class Verdicts(NamedTuple):
    """What n replies say: matched bool[n]; outcome int8[n], where matched; truncated_with_answer bool[n].

    server: int64[n], which of Questions.servers answered, 0 where that is not known.
    """

    matched: NDArray[np.bool_]
    outcome: NDArray[np.int8]
    truncated_with_answer: NDArray[np.bool_]
    server: Ints


class _Kind(NamedTuple):
    """How a query, and the plain reply to it, look before and after the name.

    mask: which bits of that reply are certain; is_plain: whether there is such a reply at all.
    """

    query: tuple[bytes, bytes]
    plain: tuple[bytes, bytes]
    mask: tuple[bytes, bytes]
    is_plain: bool

    @classmethod
    def of(cls, question: Question) -> _Kind:
        """The kind of questions that differ from this one in their name alone."""
        qtype, expect = qtype_number(question.qtype), question.expect
        asked = qtype.to_bytes(2, "big") + b"\0\1"
        wire = encode(Question(".", question.qtype, expect, question.edns))
        data = bytes(_DATA_OCTETS.get(qtype, 0))
        known = bytes(len(data))
        if len(expect.addresses) == 1:
            address = ipaddress.ip_address(next(iter(expect.addresses))).packed
            if len(address) == len(data):
                data, known = address, b"\xff" * len(data)
        opt = b"\0\0\x29" + bytes(8) if question.edns else b""
        sure_of_opt = b"\xff\xff\xff\0\0\xff\xff\0\0\xff\xff" if question.edns else b""
        return cls(
            query=(wire[:HEADER], wire[HEADER + 1 :]),
            plain=(
                bytes([0, 0, _QR, 0, 0, 1, 0, 1, 0, 0, 0, bool(opt)]),
                asked + b"\xc0\x0c" + asked + bytes(4) + len(data).to_bytes(2, "big") + data + opt,
            ),
            mask=(
                bytes([0, 0, _QR | _OPCODE | _TC, _RCODE]) + b"\xff" * 8,
                b"\xff" * 10 + bytes(4) + b"\xff\xff" + known + sure_of_opt,
            ),
            is_plain=bool(data) and expect.learnt is not Learnt.SAME and (not expect.addresses or any(known)),
        )


class _Queries(NamedTuple):
    """The queries of n questions: uint8[n, w], and how many octets each has, int64[n]."""

    octets: Octets
    lengths: Ints

    @classmethod
    def of(cls, names: Octets, lengths: Ints, kind: _Kind) -> _Queries:
        """Those of n questions of a kind; names: uint8[n, >= the longest], in wire form."""
        inside = _inside(lengths)
        return cls(_spliced(kind.query, names, lengths, inside), lengths + (HEADER + len(kind.query[1])))


class _Replies(NamedTuple):
    """The plain replies to n questions, and which of their bits are certain: uint8[n, w], w a multiple of 8.

    lengths: of plain replies, 0 where no reply is; ends: of the question section; int64[n].
    """

    octets: Octets
    mask: Octets
    lengths: Ints
    ends: Ints

    @classmethod
    def of(cls, names: Octets, lengths: Ints, kind: _Kind) -> _Replies:
        """As _Queries.of()."""
        inside = _inside(lengths)
        return cls(
            octets=_spliced(kind.plain, names, lengths, inside),
            mask=_spliced(kind.mask, np.uint8(0xFF), lengths, inside),
            lengths=lengths + (HEADER + len(kind.plain[1])) if kind.is_plain else np.zeros_like(lengths),
            ends=lengths + (HEADER + 4),
        )


Forms = TypeVar("Forms", _Queries, _Replies)
"""How n questions look on the wire. octets come first, the other columns after them."""


def _inside(lengths: Ints) -> NDArray[np.bool_]:
    """Which octets of rows belong to their names."""
    inside: NDArray[np.bool_] = np.arange(int(lengths.max(initial=0))) < lengths[:, None]
    return inside


def _spliced(parts: tuple[bytes, bytes], names: Octets | np.uint8, lengths: Ints, inside: NDArray[np.bool_]) -> Octets:
    """Rows of what stands before the name, the name, what stands after it, zeros; their width is a multiple of 8."""
    before, after = (np.frombuffer(part, np.uint8) for part in parts)
    most = inside.shape[1]
    width = -(-(HEADER + most + len(after)) // 8) * 8
    around = np.zeros((most + 1, width), np.uint8)  # by length of name
    around[:, :HEADER] = before
    for length in range(int(lengths.min(initial=most)), most + 1):
        around[length, HEADER + length : HEADER + length + len(after)] = after
    rows = around.take(lengths, axis=0)
    np.copyto(
        rows[:, HEADER : HEADER + most], names[:, :most] if isinstance(names, np.ndarray) else names, where=inside
    )
    return rows


def _stacked(forms: Sequence[Forms]) -> Forms:
    """All rows of several lots, as wide as the widest."""
    width = max(each.octets.shape[1] for each in forms)

    def joined(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
        wide = [np.pad(c, ((0, 0), (0, width - c.shape[1]))) if c.ndim > 1 else c for c in columns]
        return np.concatenate(wide)

    return type(forms[0])(*map(joined, zip(*forms, strict=True)))


def _taken(forms: Forms, rows: Ints) -> Forms:
    """Some rows, copied."""
    columns: Any = (column.take(rows, axis=0) for column in forms)
    return type(forms)(*columns)


def _replaced(forms: Forms, at: Ints, others: Forms) -> Forms:
    """The forms, with others put in their place."""
    index = np.arange(len(forms.lengths))
    index[at] = len(forms.lengths) + np.arange(len(at))
    return _taken(_stacked([forms, others]), index)


class Questions:
    """The questions of a run, ready for the wire, numbered as they are added.

    servers: the NSIDs that replies named so far (RFC 5001), the first of them ''. secret: random labels come from it.
    """

    def __init__(self, secret: int = 0, most_servers: int = 64) -> None:
        self._secret = np.uint64(secret)
        self._most_servers = most_servers
        # by lot
        self._lots: list[Sequence[Question]] = []
        self._first_number, self._first_row = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._kinds: dict[int, _Kind] = {}
        # by row: each question has its own, those of a book share one
        none = np.zeros((0, 1), np.uint8), np.zeros(0, np.int64), _Kind.of(Question.of("."))
        self._queries, self._replies = _Queries.of(*none), _Replies.of(*none)
        self._good = np.zeros((0, len(Outcome)), np.bool_)
        self._pinned, self._same = np.zeros(0, np.bool_), np.zeros(0, np.bool_)
        self._label = np.zeros(0, np.int64)
        self._random = np.zeros(0, np.bool_)
        # what replies taught
        self._memo: dict[tuple[int, bytes], Judged] = {}
        self._pins: dict[int, Tally[int]] = {}
        self._said: dict[int, dict[int, frozenset[str]]] = {}
        self.servers = [""]
        self._is_pinned = False
        self.have_labels = False
        """Whether queries and replies depend on a row's token."""
        self.width = self._replies.octets.shape[1]
        """How many of a reply's first octets classify() looks at: a multiple of 8, at most linux.HEAD."""

    def __len__(self) -> int:
        return sum(len(lot) for lot in self._lots)

    def __getitem__(self, number: int) -> Question:
        lot = int(np.searchsorted(self._first_number, number, "right")) - 1
        return self._lots[lot][number - int(self._first_number[lot])]

    def add(self, questions: Sequence[Question]) -> int:
        """The number of the first of them; the rest follow. UsageError as encode()."""
        first, row, book = len(self), len(self._good), isinstance(questions, Book)
        if not questions:
            return first
        self._first_number = np.append(self._first_number, first)
        self._first_row = np.append(self._first_row, row)
        rows = [questions.kind] if isinstance(questions, Book) else [*map(_in_dns, questions)]
        if isinstance(questions, Book):
            self._kinds[len(self._lots)] = _Kind.of(questions.kind)
            around = max(len(part) for part in self._kinds[len(self._lots)].plain) + HEADER + 16
            self.width = max(self.width, -(-(int(np.diff(questions.starts).max()) + around) // 8) * 8)
        self._lots.append(questions)
        queries, replies = [self._queries], [self._replies]
        for question in rows:
            name = np.frombuffer(b"\0" if book else _name_in(encode(question)), np.uint8)
            one = name[None], np.array([len(name)]), _Kind.of(question)
            queries.append(_Queries.of(*one))
            replies.append(_Replies.of(*one))
        self._queries, self._replies = _stacked(queries), _stacked(replies)
        self.width = max(self.width, self._replies.octets.shape[1])
        good = np.zeros((len(rows), len(Outcome)), np.bool_)
        for line, question in zip(good, rows, strict=True):
            line[[int(o) for o in question.expect.outcomes]] = True
        self._good = np.concatenate([self._good, good])
        self._pinned = np.append(self._pinned, [q.expect.learnt is Learnt.PINNED for q in rows])
        self._same = np.append(self._same, [q.expect.learnt is Learnt.SAME for q in rows])
        labels = [None if book else placeholder_of(question) for question in rows]
        self._label = np.append(self._label, [label[1] if label else 0 for label in labels])
        self._random = np.append(self._random, [bool(label and label[0] == "random") for label in labels])
        self.have_labels, self._is_pinned = bool(self._label.any()), bool(self._pinned.any())
        return first

    def _rows_of(self, numbers: Ints) -> Ints:
        """The row of each question."""
        if not self._kinds:
            return numbers
        lots = np.searchsorted(self._first_number, numbers, "right") - 1
        inside = np.where(np.isin(lots, list(self._kinds)), 0, numbers - self._first_number[lots])
        rows: Ints = self._first_row[lots] + inside
        return rows

    def _of(self, kept: Forms, numbers: Ints, tokens: Ints) -> tuple[Forms, Ints]:
        """The forms of n rows, those of books made up and labels filled in, and where they stand in what is kept."""
        rows = self._rows_of(numbers)
        forms = None
        for lot, kind in self._kinds.items():
            book, first = self._lots[lot], int(self._first_number[lot])
            mine = np.flatnonzero((numbers >= first) & (numbers < first + len(book)))
            if len(mine) and isinstance(book, Book):
                of_book = type(kept).of(*book.names_of(numbers[mine] - first), kind)
                every = len(mine) == len(numbers)
                forms = of_book if every else _replaced(forms or _taken(kept, rows), mine, of_book)
        forms = forms or _taken(kept, rows)
        if self.have_labels and len(at := np.flatnonzero(self._label[rows])):
            where = (at[:, None], self._label[rows[at]][:, None] + np.arange(LABEL_OCTETS))
            forms.octets[where] = self._labels(tokens[at], self._random[rows[at]])
        return forms, rows

    def _labels(self, tokens: Ints, random: NDArray[np.bool_]) -> Octets:
        """What stands for `{random}` and `{number}`: uint8[n, LABEL_OCTETS]."""
        mixed = (tokens.astype(np.uint64) + self._secret) * np.uint64(0x9E3779B97F4A7C15)  # splitmix64
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
        letters = _LETTERS[((mixed[:, None] >> _FIVES) & np.uint64(31)).astype(np.int64)]
        digits = (tokens >> CHANNEL_BITS)[:, None] // _TENS % 10 + ord("0")
        return np.where(random[:, None], letters, digits).astype(np.uint8)

    def queries(self, numbers: Ints, tokens: Ints) -> tuple[Octets, Ints]:
        """The queries for n rows, id 0: uint8[n, w], and the octets of each."""
        if self._kinds or self.have_labels:
            forms, _ = self._of(self._queries, numbers, tokens)
            return forms.octets, forms.lengths
        return self._queries.octets.take(numbers, axis=0), self._queries.lengths.take(numbers)

    def good(self, numbers: Ints, outcomes: Ints) -> NDArray[np.bool_]:
        """Which of n outcomes are what their questions expect. What a `pinned` question expects is learnt here."""
        rows = self._rows_of(numbers)
        good: NDArray[np.bool_] = self._good[rows, outcomes]
        if self._is_pinned:
            for i in np.flatnonzero(self._pinned[rows] & good).tolist():
                good[i] = self._is_usual(int(numbers[i]), int(outcomes[i]))
        return good

    def _is_usual(self, number: int, outcome: int) -> bool:
        """Whether a pinned question is used to this outcome, or is still being watched."""
        seen = self._pins.setdefault(number, Tally())
        if seen.total() < PINNED_AFTER:
            seen[outcome] += 1
            return True
        return outcome == seen.most_common(1)[0][0]

    def classify(
        self,
        head: Octets,
        lengths: Ints,
        numbers: Ints,
        tokens: Ints,
        channels: Ints,
        reply: Callable[[int], bytes],
    ) -> Verdicts:
        """Judge n replies: head uint8[n, >= width]; question, token, channel int64[n]; reply(i): all of the i-th.

        Truncated wins over any RCODE. A header alone with an error RCODE counts as a reply (RFC 1035, 4.1.1: FORMERR).
        """
        if self._kinds or self.have_labels:
            forms, rows = self._of(self._replies, numbers, tokens)
            each = np.arange(len(numbers))
        elif len(numbers) and (numbers == numbers[0]).all():
            forms, rows, each = self._replies, numbers, numbers[:1]
        else:
            forms, rows, each = self._replies, numbers, numbers
        width = forms.octets.shape[1]
        differ = head[:, :width].view(np.uint64) ^ forms.octets.view(np.uint64).take(each, axis=0)
        differ &= forms.mask.view(np.uint64).take(each, axis=0)
        plain = lengths == forms.lengths.take(each)
        if differ.any():
            plain[np.flatnonzero(differ) // (width // 8)] = False
        n = len(lengths)
        verdicts = Verdicts(plain, np.zeros(n, np.int8), np.zeros(n, np.bool_), np.zeros(n, np.int64))
        rest = np.flatnonzero(~plain)
        if len(rest):
            of_rest = _taken(forms, np.broadcast_to(each, n)[rest])
            self._classify_odd(rest, head[rest], lengths[rest], of_rest, numbers, rows, channels, reply, verdicts)
        return verdicts

    def _classify_odd(
        self,
        at: Ints,
        head: Octets,
        lengths: Ints,
        forms: _Replies,
        numbers: Ints,
        rows: Ints,
        channels: Ints,
        reply: Callable[[int], bytes],
        verdicts: Verdicts,
    ) -> None:
        """Judge the replies `at` that are not plain, and enter what they say among the verdicts."""
        ends = forms.ends
        section = forms.octets[:, HEADER:]
        same = head[:, HEADER : HEADER + section.shape[1]] == section
        same |= np.arange(HEADER, HEADER + section.shape[1]) >= ends[:, None]
        asked = (head[:, 4].astype(np.int64) << 8) | head[:, 5]
        whole = (lengths >= ends) & (asked == 1)
        matched = same.all(axis=1) & whole
        for i in np.flatnonzero(~matched & whole).tolist():
            matched[i] = _same_but_for_case(head[i], section[i], int(ends[i]))
        rcode = head[:, 3] & _RCODE
        alone = (lengths == HEADER) & (asked == 0) & (rcode != 0)
        matched = (matched | alone) & ((head[:, 2] & _QR) != 0)
        truncated = (head[:, 2] & _TC) != 0
        outcome = np.where(truncated, np.int8(Outcome.TRUNCATED), _OUTCOME_OF_RCODE[rcode])
        counts = head[:, 6:HEADER]
        bare = (rcode != 0) & ~counts.any(axis=1) & (lengths == np.where(alone, HEADER, ends))
        bare &= (head[:, 2] & _OPCODE == 0) & ~self._same[rows[at]]
        for i in np.flatnonzero(matched & ~truncated & ~bare).tolist():
            k = int(at[i])
            number, end = int(numbers[k]), HEADER if alone[i] else int(ends[i])
            judged = self._examine(number, reply(k), end)
            outcome[i] = judged.outcome
            if judged.nsid:
                verdicts.server[k] = self._server(judged.nsid)
            if self._same[rows[k]] and self._good[rows[k], judged.outcome]:
                outcome[i] = self._agreed(number, int(channels[k]), judged)
        verdicts.matched[at] = matched
        verdicts.outcome[at] = outcome
        verdicts.truncated_with_answer[at] = truncated & ((counts[:, 0] | counts[:, 1]) > 0)

    def _examine(self, number: int, reply: bytes, end: int) -> Judged:
        """What a reply says, by full parsing; replies that differ in id and label alone are parsed once.

        That is right where names in records point to the question, and where they don't the label tells them apart.
        """
        key = (number, reply[2:HEADER] + reply[end:])
        judged = self._memo.get(key)
        if judged is None:
            if len(self._memo) >= _MEMO_LIMIT:
                self._memo.clear()
            judged = self._memo[key] = judge(self[number], reply)
        return judged

    def _server(self, nsid: str) -> int:
        """The number of an NSID; those beyond the first most_servers are not told apart."""
        if nsid not in self.servers:
            if len(self.servers) > self._most_servers:
                return 0
            self.servers.append(nsid)
        return self.servers.index(nsid)

    def _agreed(self, number: int, channel: int, judged: Judged) -> Outcome:
        """A reply is wrong if what no other channel's server said last is the same, and one has said something."""
        said = self._said.setdefault(number, {})
        said[channel] = judged.answers | {judged.outcome.label}
        others = [theirs for whose, theirs in said.items() if whose != channel]
        return judged.outcome if not others or said[channel] in others else Outcome.WRONG_ANSWER


def _in_dns(question: Question) -> Question:
    """Itself; of one that asks no DNS what it expects alone, for nothing else of it is ever looked at."""
    return Question(".", "A", question.expect) if question.qtype in BESIDE.values() else question


def _name_in(query: bytes) -> bytes:
    """The name in a query, in wire form."""
    end = HEADER
    while query[end]:
        end += query[end] + 1
    return query[HEADER : end + 1]


def _same_but_for_case(head: Octets, section: Octets, end: int) -> bool:
    """Question sections that differ only in ASCII case: names compare so (RFC 4343), and some servers fold them."""
    got, asked = bytes(head[HEADER:end]), bytes(section[: end - HEADER])
    return got[:-4].lower() == asked[:-4].lower() and got[-4:] == asked[-4:]
