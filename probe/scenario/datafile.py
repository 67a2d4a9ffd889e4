"""dnsperf's data file, `name SP type` a line, of any length -> questions, or a UsageError with file and line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from probe.book import PLAIN_QUESTIONS, BookWriter, Shelf
from probe.errors import UsageError
from probe.model import Question
from probe.scenario.names import Asking
from probe.scenario.textfile import lines_of
from probe.wire import encode, placeholder_of, qtype_number

MOST_QUESTIONS = 10_000_000
_FORMAT = "a line is a name and a type, e.g. `example.com A`"
_WHAT = "a data file (`name type` a line)"
_LABEL = rb"[A-Za-z0-9_*/+-]{1,63}"
_PLAIN = re.compile(rb"((?:%b\.)*%b\.?)[ \t]+([A-Za-z0-9]+)[ \t\r]*" % (_LABEL, _LABEL)).fullmatch
"""Lines whose names dnspython would only copy."""
_LENGTHS = [bytes([n]) for n in range(64)]
_MOST_OCTETS = 255
_BEFORE, _AFTER = 12, 4
"""Octets of a query before and after its name: header; type and class."""


def read_questions(path: str, expect: str = "", asking: Asking | None = None) -> Sequence[Question]:
    """The questions of a file, of stdin if path is `-`: lines of a name and a type; `;` begins a comment line.

    Names are absolute, with or without the last dot, unless there is a search list. Blank lines are skipped. Up to
    PLAIN_QUESTIONS of them in file order; more by type, in file order within each.
    """
    where = "stdin" if path == "-" else path
    reading = _Reading(expect, asking or Asking())
    with closing(lines_of(path, _WHAT)) as lines:
        for number, line in enumerate(lines, 1):
            try:
                reading.take(line)
            except UsageError as problem:
                raise UsageError(f"{where}:{number}: {problem}") from None
    questions = reading.close()
    if not questions:
        raise UsageError(f"{where}: no question in it; {_FORMAT}")
    return questions


class _Reading:
    """Lines -> a list of questions, or, once they are many, books by type."""

    def __init__(self, expect: str, asking: Asking) -> None:
        self._expect, self._asking = expect, asking
        self._plain: list[tuple[Question, bytes]] = []
        self._kinds: dict[bytes, Question] = {}
        self._books: dict[bytes, BookWriter] = {}
        self._left = MOST_QUESTIONS

    def take(self, line: bytes) -> None:
        """UsageError for a line that is no question, or one too many."""
        if not self._asking.search and (found := _PLAIN(line)):
            name, qtype = found[1], found[2].upper()
            octets = b"".join([_LENGTHS[len(label)] + label for label in name.split(b".")])
            if octets[-1]:  # no last dot
                octets += b"\0"
            if len(octets) <= _MOST_OCTETS:
                if book := self._books.get(qtype):
                    self._write(octets, book)
                else:
                    self._add(replace(self._kind(qtype), name=name.decode()), octets)
                return
        for question in self._read(line):
            self._add(question, encode(replace(question, edns=None))[_BEFORE:-_AFTER])

    def _kind(self, qtype: bytes) -> Question:
        if qtype not in self._kinds:
            qtype_number(qtype.decode())
            self._kinds[qtype] = Question.of("", qtype.decode(), self._expect, self._asking.edns)
        return self._kinds[qtype]

    def _read(self, line: bytes) -> list[Question]:
        """The questions a line stands for, one unless there is a search list; none if it is blank or a comment."""
        try:
            text = line.decode()
        except UnicodeDecodeError:
            raise UsageError(f"not UTF-8 text; {_WHAT} is expected there") from None
        words = text.split()
        if not words or text.startswith(";"):
            return []
        hint = "; a comment begins with ; in the first column" if words[0][0] in "#/;" else ""
        if len(words) != 2:
            raise UsageError(f"{_short(text)}: {_FORMAT}{hint}")
        name, qtype = words
        try:
            return self._asking.questions(name, qtype, self._expect)
        except UsageError as problem:
            raise UsageError(f"{problem}{hint}") from None

    def _add(self, question: Question, octets: bytes) -> None:
        """Keep a question as an object while they are few, else the octets of its name."""
        if not self._books and len(self._plain) == PLAIN_QUESTIONS:
            if self._asking.search:
                raise UsageError(f"more than {PLAIN_QUESTIONS:,} questions; with a search list that is the most")
            for each in self._plain:
                self._shelve(*each)
            self._plain.clear()
        if self._books:
            self._shelve(question, octets)
        else:
            self._plain.append((question, octets))

    def _shelve(self, question: Question, octets: bytes) -> None:
        if placeholder_of(question):
            few = f"up to {PLAIN_QUESTIONS:,} questions: it stands for any number of names"
            raise UsageError(f"name {question.name!r}: a label that changes goes with {few}")
        qtype = question.qtype.encode()
        if qtype not in self._books:
            self._books[qtype] = BookWriter(self._kind(qtype))
        self._write(octets, self._books[qtype])

    def _write(self, octets: bytes, book: BookWriter) -> None:
        if not self._left:
            raise UsageError(f"more than {MOST_QUESTIONS:,} questions, the most that are read")
        self._left -= 1
        book.add(octets)

    def close(self) -> Sequence[Question]:
        """All that was read."""
        if self._books:
            return Shelf([book.close() for book in self._books.values()])
        return tuple(question for question, _ in self._plain)


def _short(line: str) -> str:
    line = line.strip()
    return repr(line if len(line) <= 60 else line[:57] + "...")
