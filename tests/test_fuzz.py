"""Targets, their seeds and a number -> some thousands of inputs, the same each time, none of which breaks anything."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest

from tests.fuzz.faults import Fault, fault_of, shortened
from tests.fuzz.octets import ODD, Octets
from tests.fuzz.targets import TARGETS, Target


def changed(octets: bytes, others: Sequence[bytes], words: Sequence[bytes], rng: random.Random) -> bytes:
    """With up to four changes: octets or bits that differ, pieces that are gone, doubled, of another input, words."""
    made = bytearray(octets)
    for _ in range(rng.randint(1, 4)):
        at, n = rng.randrange(len(made) + 1), rng.choice((1, 1, 2, 4, 16, 64))
        other = rng.choice(others)
        start = rng.randrange(len(other) + 1)
        what = rng.randrange(6 if words else 5)
        if what == 0 and at < len(made):
            made[at] = rng.randrange(256)
        elif what == 1 and at < len(made):
            made[at] ^= 1 << rng.randrange(8)
        elif what == 2:
            del made[at : at + n]
        elif what == 3:
            made[at:at] = made[at // 2 : at // 2 + n]
        elif what == 4:
            made[at : at + n] = other[start : start + n]
        elif words:
            made[at:at] = rng.choice(words)
    return bytes(made)


def inputs(target: Target) -> Iterator[bytes]:
    """Its seeds, then as many that were changed as the short form has."""
    seeds, rng = list(target.seeds()), random.Random(1)
    yield from seeds
    for _ in range(target.short):
        yield changed(rng.choice(seeds), seeds, target.words, rng)[: target.longest]


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_breaks(name: str) -> None:
    target = TARGETS[name]
    for octets in inputs(target):
        fault = fault_of(target, octets)
        assert fault is None or fault.site == "slow", f"{fault}: `make fuzz ARGS={name}`; {octets!r}"


def _breaks(octets: bytes) -> None:
    if b"a" in octets and b"b" in octets:
        raise ValueError("both")
    if b"c" in octets:
        raise ValueError("another")


BROKEN = Target(_breaks, lambda: [b""], seconds=60)


def test_a_fault_is_found_told_apart_and_shortened() -> None:
    octets = b"xx" * 40 + b"a" + b"yy" * 40 + b"b" + b"zz"
    fault = fault_of(BROKEN, octets)
    assert isinstance(fault, Fault)
    assert (fault.site.partition(" at ")[0], fault.text) == ("ValueError", "ValueError: both")
    assert shortened(BROKEN, octets, fault.site) == b"ab"
    other = fault_of(BROKEN, b"c")
    assert isinstance(other, Fault)
    assert other.site != fault.site
    assert fault_of(BROKEN, b"xyz") is None


def test_octets_that_end_are_zeros() -> None:
    read = Octets(b"\1\0\0\1\2ab")
    assert (read.number(), read.number(65_536), read.take(1), bool(read)) == (1, 258, b"a", True)
    assert (read.rest(), bool(read), read.number(), read.take(3), read.odd(5)) == (b"b", False, 0, b"", ODD[0])
