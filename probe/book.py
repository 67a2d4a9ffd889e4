"""Names in wire form -> a sequence of questions, flat in memory that processes share; weights -> whose turn it is.

A question as an object takes half a kilobyte, in a book its name's octets and four more.
"""

from __future__ import annotations

import mmap
import os
import re
import weakref
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from io import BufferedWriter
from itertools import accumulate, chain
from math import gcd
from typing import overload

import numpy as np
from numpy.typing import NDArray

from probe.errors import UsageError
from probe.model import Question

_LONGEST = 255
"""Octets of a name (RFC 1035, 2.3.4): so many can be read from where any name begins."""
PLAIN_QUESTIONS = 4096
"""Up to so many questions are a tuple of objects; more are a book for each type."""
MOST_TURNS = 10_000


class Book(Sequence[Question]):
    """Questions that differ in nothing but their names.

    kind: any of them, with the name ''. names: uint8[octets], in wire form (RFC 1035, 3.1), back to back. starts:
    uint32[n + 1]: name i is names[starts[i]:starts[i + 1]]. Both lie in the memfd `fd`: a process that inherited it
    under the same number unpickles the book and maps the same pages.
    """

    def __init__(self, kind: Question, fd: int, octets: int, count: int) -> None:
        self.kind = kind
        self.fd = fd
        memory = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        names = np.frombuffer(memory, np.uint8, octets + _LONGEST)
        self.names = names[:octets]
        self._windows = np.lib.stride_tricks.as_strided(names, (octets, _LONGEST), (1, 1), writeable=False)
        self.starts = np.frombuffer(memory, np.uint32, count + 1, _aligned(octets + _LONGEST))

    def __reduce__(self) -> tuple[type[Book], tuple[Question, int, int, int]]:
        return Book, (self.kind, self.fd, len(self.names), len(self))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def names_of(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The names of n questions, uint8[n, the longest], other octets behind shorter ones; and their lengths."""
        first = self.starts[numbers].astype(np.int64)
        lengths = self.starts[numbers + 1] - first
        return self._windows[first, : int(lengths.max())], lengths

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Question, ...]: ...
    def __getitem__(self, index: int | slice) -> Question | tuple[Question, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        i = range(len(self))[index]
        return replace(self.kind, name=name_text(self.names[self.starts[i] : self.starts[i + 1]].tobytes()))


class BookWriter:
    """A book while it is written: add() each name, then close()."""

    def __init__(self, kind: Question) -> None:
        self._kind = kind
        self._fd = os.memfd_create("dnsprobe-book", os.MFD_CLOEXEC)
        self._file = open(self._fd, "wb", closefd=False)  # noqa: SIM115  a memfd has no path
        self._octets = 0
        self._starts = array("I", [0])
        self._lose = weakref.finalize(self, _lose, self._file, self._fd)

    def add(self, name: bytes) -> None:
        """A name in wire form, uncompressed."""
        self._file.write(name)
        self._octets += len(name)
        self._starts.append(self._octets)

    def close(self) -> Book:
        """The book; its memory is given back when it is forgotten."""
        self._file.write(bytes(_aligned(self._octets + _LONGEST) - self._octets))
        self._file.write(self._starts)
        self._file.close()
        book = Book(self._kind, self._fd, self._octets, len(self._starts) - 1)
        self._lose.detach()
        weakref.finalize(book, os.close, self._fd)
        return book


def _lose(file: BufferedWriter, descriptor: int) -> None:
    """What the file still holds goes first: later, another file may have that number."""
    with suppress(OSError):
        file.close()
    os.close(descriptor)


class Shelf(Sequence[Question]):
    """Books of several types, each once, as one sequence: book after book."""

    def __init__(self, books: Sequence[Book]) -> None:
        self.books = tuple(books)
        self._ends = list(accumulate(map(len, books)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __iter__(self) -> Iterator[Question]:
        return chain.from_iterable(self.books)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Question, ...]: ...
    def __getitem__(self, index: int | slice) -> Question | tuple[Question, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        i = range(len(self))[index]
        k = int(np.searchsorted(self._ends, i, side="right"))
        return self.books[k][i - self._ends[k]]


def by_type(questions: Sequence[Question]) -> Mapping[str, Sequence[Question]]:
    """The questions of each type, in their order; books stay books."""
    if isinstance(questions, Shelf):
        return {book.kind.qtype: book for book in questions.books}
    types: dict[str, list[Question]] = {}
    for question in questions:
        types.setdefault(question.qtype, []).append(question)
    return {qtype: tuple(asked) for qtype, asked in types.items()}


def pattern(weights: Sequence[int]) -> tuple[int, ...]:
    """Whose turn it is: each index as often as it weighs, spread evenly (smooth weighted round robin), to be repeated.

    As short as can be, by the greatest common divisor. UsageError above MOST_TURNS.
    """
    left = np.array(weights, np.int64) // gcd(*weights)
    turns = int(left.sum())
    if turns > MOST_TURNS:
        raise UsageError(
            f"weights that add up to {turns:,} when divided by their greatest common divisor; {MOST_TURNS:,} is the"
            " most: say rounder or smaller ones"
        )
    credit, order = np.zeros_like(left), []
    for _ in range(turns):
        credit += left
        ahead = int(credit.argmax())
        credit[ahead] -= turns
        order.append(ahead)
    return tuple(order)


def name_text(name: bytes) -> str:
    """A name in wire form as text that reads back: without the last dot, escaped (RFC 1035, 5.1); the root is `.`."""
    labels, at = [], 0
    while name[at]:
        label = name[at + 1 : at + 1 + name[at]].decode("latin-1")
        labels.append(_TOLD.sub(_escaped, label))
        at += 1 + name[at]
    return ".".join(labels) or "."


_TOLD = re.compile(r"[^!-~]|[\\\".;()@${}]")
"""Octets that stand for something else in text. A brace could open a label that changes."""


def _escaped(found: re.Match[str]) -> str:
    return f"\\{found[0]}" if "!" <= found[0] <= "~" else f"\\{ord(found[0]):03}"


def _aligned(octets: int) -> int:
    """Where the starts begin: a multiple of their four octets."""
    return -(-octets // 4) * 4
