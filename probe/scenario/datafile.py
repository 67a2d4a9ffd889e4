"""dnsperf's data file, `name SP type` a line, of any length -> questions, or a UsageError with file and line."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
_PLAIN = re.compile(rb"((?:%b\.)*%b)\.?[ \t]+([A-Za-z0-9]+)[ \t\r]*" % (_LABEL, _LABEL)).fullmatch
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
    for number, line in enumerate(lines_of(path, _WHAT), 1):
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
        self._plain: list[Question] = []
        self._books: dict[str, BookWriter] = {}
        self._book_of: dict[bytes, BookWriter] = {}
        """The book by the type as it is spelt."""
        self._left = MOST_QUESTIONS

    def take(self, line: bytes) -> None:
        """UsageError for a line that is no question, or one too many."""
        if self._books and (found := _PLAIN(line)):
            name, qtype = found.groups()
            octets = b"".join([_LENGTHS[len(label)] + label for label in name.split(b".")]) + b"\0"
            if len(octets) <= _MOST_OCTETS:
                self._write(octets, qtype)
                return
        for question in self._read(line):
            if not self._books and len(self._plain) == PLAIN_QUESTIONS:
                self._begin_books()
            if self._books:
                self._shelve(question)
            else:
                self._plain.append(question)

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

    def _begin_books(self) -> None:
        """Put into books what has been read so far."""
        if self._asking.search:
            raise UsageError(f"more than {PLAIN_QUESTIONS:,} questions; with a search list that is the most")
        for question in self._plain:
            self._shelve(question)
        self._plain.clear()

    def _shelve(self, question: Question) -> None:
        if placeholder_of(question):
            few = f"up to {PLAIN_QUESTIONS:,} questions: it stands for any number of names"
            raise UsageError(f"name {question.name!r}: a label that changes goes with {few}")
        self._write(encode(replace(question, edns=None))[_BEFORE:-_AFTER], question.qtype.encode())

    def _write(self, name: bytes, qtype: bytes) -> None:
        if not self._left:
            raise UsageError(f"more than {MOST_QUESTIONS:,} questions, the most that are read")
        self._left -= 1
        book = self._book_of.get(qtype)
        if book is None:
            qtype_number(qtype.decode())
            kind = Question.of("", qtype.decode(), self._expect, self._asking.edns)
            book = self._book_of[qtype] = self._books.get(kind.qtype) or BookWriter(kind)
            self._books[kind.qtype] = book
        book.add(name)

    def close(self) -> Sequence[Question]:
        return Shelf([book.close() for book in self._books.values()]) if self._books else tuple(self._plain)


def _short(line: str) -> str:
    line = line.strip()
    return repr(line if len(line) <= 60 else line[:57] + "...")
