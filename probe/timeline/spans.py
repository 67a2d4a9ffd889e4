"""Stretches of the timeline: which instants lie inside, what two lists of them have in common."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Spans = tuple[tuple[int, int], ...]
"""Stretches [from, to) in ns since t0, ascending, apart from each other."""


def inside(instants: Ints, spans: Spans) -> NDArray[np.bool_]:
    """Which instants lie in any of the stretches."""
    found = np.zeros(len(instants), bool)
    for from_ns, to_ns in spans:
        found |= (instants >= from_ns) & (instants < to_ns)
    return found


def touch(from_ns: int, to_ns: int, spans: Spans | None) -> bool:
    """Whether [from_ns, to_ns) has a part in any of the stretches; None is all there is."""
    return spans is None or any(from_ns < end_ns and to_ns > begin_ns for begin_ns, end_ns in spans)


def common(one: Spans, other: Spans) -> Spans:
    """The stretches that lie in both."""
    both = ((max(a, c), min(b, d)) for a, b in one for c, d in other)
    return tuple(sorted((a, b) for a, b in both if a < b))


def joined(spans: Iterable[tuple[int, int]]) -> Spans:
    """The stretches that lie in any, those that touch made one."""
    found: list[tuple[int, int]] = []
    for from_ns, to_ns in sorted(spans):
        if found and from_ns <= found[-1][1]:
            found[-1] = (found[-1][0], max(to_ns, found[-1][1]))
        else:
            found.append((from_ns, to_ns))
    return tuple(found)
