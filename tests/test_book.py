"""Names in, questions out of memory that two processes map; weights in, turns out."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.book import MOST_TURNS, Book, BookWriter, Shelf, by_type, name_text, pattern
from probe.errors import UsageError
from probe.model import Edns, Question
from probe.wire import encode

KIND = Question.of("", "A", "nxdomain", Edns(do=True))


def book(*names: str, qtype: str = "A") -> Book:
    writer = BookWriter(Question.of("", qtype, "nxdomain", Edns(do=True)))
    for name in names:
        writer.add(encode(Question.of(name))[12:-4])
    return writer.close()


def test_a_book_is_its_names_back_to_back_and_where_each_begins() -> None:
    b = book("a.test", ".", "bc.test")
    assert b.names.tobytes() == b"\1a\4test\0" + b"\0" + b"\2bc\4test\0"
    assert b.starts.tolist() == [0, 8, 9, 18]
    assert [a.dtype.name for a in (b.names, b.starts)] == ["uint8", "uint32"]
    assert b.kind == KIND


def test_a_book_reads_as_the_sequence_of_its_questions() -> None:
    b = book("a.test", ".", "bc.test", "a.test")
    whole = [Question.of(name, "A", "nxdomain", Edns(do=True)) for name in ("a.test", ".", "bc.test", "a.test")]
    assert list(b) == whole
    assert (b[-1], b[1:3], b[::2]) == (whole[-1], tuple(whole[1:3]), tuple(whole[::2]))
    with pytest.raises(IndexError):
        b[4]


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=3))
def test_any_name_reads_back_as_dnspython_reads_it(labels: list[bytes]) -> None:
    wire = b"".join(bytes([len(x)]) + x for x in labels) + b"\0"
    assert dns.name.from_text(name_text(wire)).to_wire() == wire


def test_a_brace_of_a_name_never_becomes_a_label_that_changes() -> None:
    assert name_text(b"\x08{random}\0") == r"\{random\}"


def test_another_process_maps_the_same_pages() -> None:
    b = book(*(f"n{i}.test" for i in range(10_000)))
    code = (
        "import pickle, sys, os; b = pickle.load(sys.stdin.buffer); "
        "print(len(b), b[9999].name, os.fstat(b.fd).st_ino, b.kind.expect)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(b),
        pass_fds=[b.fd],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.decode().split() == ["10000", "n9999.test", str(os.fstat(b.fd).st_ino), "nxdomain"]
    assert len(pickle.dumps(b)) < 1000


def test_a_forgotten_book_and_one_that_was_not_finished_leave_no_descriptor() -> None:
    def descriptors() -> list[str]:
        return sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208  names are enough

    gc.collect()  # what others left
    before = descriptors()
    kept, given_up = book("a.test"), BookWriter(KIND)
    given_up.add(b"\x01a\x04test\x00")  # not written yet when its descriptor goes, which Python 3.13 tells
    assert len(descriptors()) > len(before)
    del kept, given_up
    gc.collect()
    assert descriptors() == before


def test_a_shelf_is_book_after_book() -> None:
    shelf = Shelf([book("a.test", "b.test"), book("c.test", qtype="MX")])
    told = [(q.name, q.qtype) for q in shelf]
    assert told == [("a.test", "A"), ("b.test", "A"), ("c.test", "MX")]
    assert [(q.name, q.qtype) for q in shelf[1:]] == told[1:]
    assert [shelf[i].name for i in (0, 1, 2, -1)] == ["a.test", "b.test", "c.test", "c.test"]
    assert len(shelf) == 3


def test_by_type_keeps_order_and_books() -> None:
    plain = tuple(Question.of(f"n{i}.test", qtype) for i, qtype in enumerate(("A", "MX", "A")))
    assert by_type(plain) == {"A": (plain[0], plain[2]), "MX": (plain[1],)}
    a, mx = book("a.test", "b.test"), book("c.test", qtype="MX")
    assert by_type(Shelf([a, mx])) == {"A": a, "MX": mx}


@pytest.mark.parametrize(
    ("weights", "turns"),
    [
        ((1,), "a"),
        ((7,), "a"),
        ((2, 2), "ab"),
        ((3, 1), "aaba"),
        ((30, 10), "aaba"),
        ((5, 1, 1), "aabacaa"),
        ((1, 2, 3), "cbacbc"),
    ],
)
def test_turns_by_weight(weights: tuple[int, ...], turns: str) -> None:
    assert "".join("abc"[i] for i in pattern(weights)) == turns


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_turns_are_as_many_as_the_weight_and_spread_evenly(weights: list[int]) -> None:
    turns = pattern(weights)
    share = {i: w / sum(weights) for i, w in enumerate(weights)}
    assert {i: n / len(turns) for i, n in Counter(turns).items()} == pytest.approx(share)
    for i, part in share.items():
        at = [k for k, turn in enumerate(turns + turns) if turn == i]
        assert max(b - a for a, b in pairwise(at)) <= 2 / part + 1


def test_weights_that_need_too_long_a_pattern_are_refused() -> None:
    assert len(pattern([1000] * 9 + [999])) == 9 * 1000 + 999
    assert len(pattern([1000] * MOST_TURNS)) == MOST_TURNS
    with pytest.raises(UsageError, match=r"weights that add up to 10,999 .* 10,000 is the most: say rounder"):
        pattern([1000] * 10 + [999])
