"""A run -> lines for a log: one every 5 s, and one for each step and note."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TextIO

from probe.live.events import said
from probe.live.tally import FINE, Tally
from probe.model import NS, Mark, Series
from probe.recorder import Flush
from probe.report.units import plain
from probe.scenario.plan import Plan
from probe.scenario.view import Unseen

LINE_NS = 5 * NS
NAMED = 3
"""Lanes and targets in trouble that a line names."""


class Lines(Unseen):
    """A View for logs. A log that cannot be written harms no run."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._tally = Tally()
        self._plan: Plan | None = None
        self._next_ns = LINE_NS
        self._waits = ""

    def begin(self, plan: Plan) -> None:
        self._plan = plan

    def added(self, series: list[Series]) -> None:
        self._tally.add(series)

    def flushed(self, flush: Flush, now_ns: int) -> None:
        self._tally.take(flush)
        if self._plan and now_ns >= self._next_ns:
            self._next_ns = (now_ns // LINE_NS + 1) * LINE_NS
            self.noted(self.line(self._plan, now_ns))

    def ended(self, pod: str) -> None:
        self._tally.end(pod)

    def marked(self, mark: Mark) -> None:
        if mark.kind == "step":
            self._say(said(mark))

    def waits(self, text: str) -> None:
        self._waits = text

    def noted(self, text: str) -> None:
        self._say(plain(text))

    def _say(self, text: str) -> None:
        with suppress(OSError):
            print(text, file=self._stream, flush=True)

    def line(self, plan: Plan, now_ns: int) -> str:
        """`10 s of 20 s: 400 asked/s, good 3,990, lost 10, waiting 0; vip-udp-fresh kube-dns: timeout`."""
        tally = self._tally
        asked = sum(tally.asked(channel) for channel in tally.channels)
        good, lost = (sum(part) for part in zip((0, 0), *map(tally.good_and_lost, tally.channels), strict=True))
        states = {channel: tally.state(channel) for channel in tally.channels}
        bad = [f"{lane} {target}: {state}" for (lane, target), state in states.items() if state not in FINE]
        more = [f"and {len(bad) - NAMED} more"] if len(bad) > NAMED else []
        pace = f" {plan.unplanned}" if plan.unplanned else ""
        far = f"{now_ns / NS:.0f} s of {plan.most}{plan.duration_ns / NS:.0f} s"
        waits = [plain(self._waits)] if self._waits else []
        counts = f"{asked:,} asked/s{pace}, good {good:,}, lost {lost:,}, waiting {tally.waiting:,}"
        return "; ".join([f"{far}: {counts}", *bad[:NAMED], *more, *waits])
