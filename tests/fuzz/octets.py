"""Octets that a fuzzer made up -> numbers, pieces, odd values; trees and rows with some of that put into them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

ODD: Final[tuple[Any, ...]] = (
    None, 0, 1, -1, 2, 7, 53, 255, 65_536, 10**6, 2**31, 2**32, 10**10, 10**15, 2**62, 2**63 - 1, -(2**63), 0.5, -1e9,
    1e308, float("inf"), True, False, "", "0", "-1", "x", "é", ".", "..", "[]", "{}", "[[]]", "null", '["a"]', "{",
    "1/0", "0/1", "1e999", "9" * 40, "a" * 300, "\0", "\ud800", "a\nb", "1s", b"", b"\0", b"x\x9c\3\0\0\0\0\1",
)  # fmt: skip
"""What a field may hold that nobody thought of."""


class Octets:
    """A cursor over octets; past their end all is zeros."""

    def __init__(self, octets: bytes) -> None:
        self._octets, self._at = octets, 0

    def __bool__(self) -> bool:
        """Whether there is more."""
        return self._at < len(self._octets)

    def number(self, below: int = 256) -> int:
        """A number, of one octet if that is enough, else of four."""
        return int.from_bytes(self.take(1 if below <= 256 else 4), "big") % below

    def take(self, n: int) -> bytes:
        """The next n; fewer where they end."""
        self._at += n
        return self._octets[self._at - n : self._at]

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._octets))

    def odd(self, former: Any) -> Any:
        """One of ODD; one near the former value, a piece of it, or octets as text."""
        kind = self.number()
        if kind < 2 * len(ODD):
            return ODD[kind % len(ODD)]
        if isinstance(former, int | float) and kind % 3:
            return former + self.number() - 128 if kind % 2 else former * (self.number() - 64)
        if isinstance(former, str | bytes | list) and kind % 3:
            at, n = self.number(len(former) + 1), self.number()
            return former[:at] if kind % 2 else former[at : at + n]
        return self.take(self.number(32)).decode("latin-1")


def changed_rows(tables: dict[str, list[list[Any]]], octets: Octets, most: int) -> None:
    """Cells that hold something else, rows that are gone, doubled, or moved to another place of their table."""
    names = list(tables)
    for _ in range(most):
        if not octets:
            return
        rows = tables[names[octets.number(len(names))]]
        what = octets.number()
        if not rows:
            continue
        row = octets.number(len(rows))
        column = what % max(1, len(rows[row]))
        if what < 16:
            del rows[row]
        elif what < 32:
            rows.insert(0, list(rows[row]))
        elif what < 40:
            rows.clear()
        else:
            rows[row][column] = octets.odd(rows[row][column])


def changed_tree(tree: Any, octets: Octets, most: int) -> Any:
    """A tree of lists and dicts, leaves or branches of which are gone, or something else."""
    for _ in range(most):
        if not octets:
            break
        places = list(_places(tree))
        if not places:
            break
        holder, key = places[octets.number(len(places))]
        what = octets.number()
        if what < 32:
            del holder[key]
        elif what < 64 and places:
            giver, given = places[octets.number(len(places))]
            holder[key] = giver[given] if isinstance(giver[given], str | int | float | None) else {}
        elif what < 80:
            holder[key] = {}
        elif what < 96:
            holder[key] = []
        else:
            holder[key] = octets.odd(holder[key])
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)
