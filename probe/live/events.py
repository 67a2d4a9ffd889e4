"""Marks -> the few lines of what happened last: the last step stays, endpoint events in a row are one."""

from __future__ import annotations

from collections import deque

from probe.model import NS, Mark
from probe.report.units import plain

MOST = 6
_ENDPOINTS = "endpoints_"


def said(mark: Mark, before: int = 0) -> str:
    """`   4.0 s  step scale to 2`; `before`: how many of its kind this one stands for, too."""
    more = f"(after {before} more)" if before else ""
    return plain(f"{mark.at_ns / NS:6.1f} s  {' '.join(filter(None, (mark.kind, more, mark.subject, mark.text)))}")


class Events:
    """What happened last."""

    def __init__(self) -> None:
        self._last: deque[tuple[Mark, int]] = deque(maxlen=MOST)
        self._step: Mark | None = None

    def __len__(self) -> int:
        return len(self._last)

    def add(self, mark: Mark) -> None:
        """Take note of a mark."""
        if mark.kind == "step":
            self._step = mark
        before = -1
        if self._last and all(m.kind.startswith(_ENDPOINTS) for m in (self._last[-1][0], mark)):
            before = self._last.pop()[1]
        self._last.append((mark, before + 1))

    def lines(self, most: int) -> list[str]:
        """At most that many, oldest first; the last step is among them."""
        shown = list(self._last)[-most:]
        if self._step and all(mark is not self._step for mark, _ in shown):
            shown = [(self._step, 0), *shown[max(0, len(shown) + 1 - most) :]]
        return [said(mark, before) for mark, before in shown]
