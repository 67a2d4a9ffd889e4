"""A check while it goes -> one line on a terminal that is overwritten, and is gone at its end."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TextIO

from probe.model import NS, Series
from probe.recorder import Flush
from probe.report.units import plain
from probe.scenario.plan import Plan
from probe.scenario.view import Unseen


class Brief(Unseen):
    """A View. Where stderr is no terminal it says nothing: the report comes soon enough."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._draws = bool(self._stream and self._stream.isatty())
        self._paths = 0
        self._duration_ns = 0

    def begin(self, plan: Plan) -> None:
        self._duration_ns = plan.duration_ns

    def added(self, series: list[Series]) -> None:
        self._paths += len(series)

    def flushed(self, flush: Flush, now_ns: int) -> None:
        del flush
        left = max(0, self._duration_ns - now_ns) / NS
        self.noted(f"asking {self._paths} paths: {left:.0f} s" if left else "waiting for the last answers")

    def noted(self, text: str) -> None:
        self._draw(f"{plain(text)} ...")

    def end(self) -> None:
        self._draw("")

    def _draw(self, text: str) -> None:
        """In place of the line before (ECMA-48: CR, erase in line)."""
        if self._draws:
            with suppress(OSError):
                print(f"\r\x1b[K{text[:79]}", end="", file=self._stream, flush=True)
