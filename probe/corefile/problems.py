"""Server blocks -> what is wrong with them that the grammar does not see: names, doubles, zones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from probe.corefile.tree import Problem, ServerBlock


def problems_of(blocks: Sequence[ServerBlock]) -> Iterator[Problem]:
    """All of them, in no order."""
    yield from ()
