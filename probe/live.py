"""What a run does, second by second -> a table on a terminal, or a line every 5 s; always on stderr."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TextIO

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from probe.histogram import BINS, quantile_ns
from probe.model import NS, Mark, Series
from probe.outcome import Outcome
from probe.recorder import Columns, Duration, Flush
from probe.scenario.plan import Plan

RECENT = 5
"""Seconds that state and percentiles look back: long enough for the timeouts of a silent server."""
LATELY = f"last {RECENT} s"
MARKS = 6
ROWS = 30
FRAME_S = 0.25
LINE_NS = 5 * NS

_COLOURS = {"good": "green", "-": "", "ended": "dim"}

Channel = tuple[str, str]
Ints = NDArray[np.int64]


@dataclass(slots=True)
class _Second:
    """One second of one channel: rows by [outcome, good], planned rows, latencies."""

    planned: int
    counts: Ints
    latency: Ints


@dataclass(slots=True)
class Tally:
    """Counts per channel that follow the flushes: what is sealed is added up, what is not comes again."""

    channels: list[Channel] = field(default_factory=list)
    _ended: dict[Channel, tuple[int, int]] = field(default_factory=dict)
    _of_series: list[int] = field(default_factory=list)
    _sealed: dict[Channel, Ints] = field(default_factory=dict)
    _open: dict[int, dict[Channel, _Second]] = field(default_factory=dict)
    _recent: deque[tuple[int, dict[Channel, _Second]]] = field(default_factory=lambda: deque(maxlen=RECENT))

    def add(self, series: Sequence[Series]) -> None:
        """Series that began, in the order of their indices."""
        for one in series:
            if one.channel not in self._sealed:
                self.channels.append(one.channel)
                self._sealed[one.channel] = np.zeros((len(Outcome), 2), np.int64)
            self._of_series.append(self.channels.index(one.channel))

    def take(self, flush: Flush) -> None:
        """A flush's seconds."""
        for columns in flush.columns:
            second = self._second(columns)
            self._open.pop(columns.second, None)
            if columns.sealed:
                for channel, part in second.items():
                    self._sealed[channel] += part.counts
            else:
                self._open[columns.second] = second
            kept = {number: earlier for number, earlier in self._recent if number != columns.second}
            kept[columns.second] = second
            self._recent = deque(sorted(kept.items())[-RECENT:], maxlen=RECENT)

    def _second(self, columns: Columns) -> dict[Channel, _Second]:
        of_series = np.array(self._of_series[: len(columns.planned)])
        made = {}
        for i, channel in enumerate(self.channels):
            mine = of_series == i
            rows = np.flatnonzero(mine)
            made[channel] = _Second(
                planned=int(columns.planned[rows].sum()),
                counts=columns.counts[rows].sum((0, 1)),
                latency=columns.durations[rows, Duration.LATENCY].sum(0),
            )
        return made

    def end(self, target: str) -> None:
        """What a target does from now on does not count."""
        self._ended |= {channel: self.good_and_lost(channel) for channel in self.channels if channel[1] == target}

    def good_and_lost(self, channel: Channel) -> tuple[int, int]:
        """Rows that were good, and rows sent that were not, while the channel counted."""
        if channel in self._ended:
            return self._ended[channel]
        unsealed = [parts[channel].counts for parts in self._open.values() if channel in parts]
        counts = np.sum([self._sealed[channel], *unsealed], axis=0)
        return int(counts[:, 1].sum()), int(counts[:, 0].sum() - counts[Outcome.UNSENT, 0])

    def state(self, channel: Channel) -> str:
        """What the rows of the last seconds say: `good`, or the commonest outcome of those that were not."""
        if channel in self._ended:
            return "ended"
        parts = [parts[channel].counts for _, parts in self._recent if channel in parts]
        counts = np.sum(parts, axis=0) if parts else np.zeros((len(Outcome), 2), np.int64)
        if counts[:, 0].any():
            return Outcome(int(counts[:, 0].argmax())).label
        return "good" if counts.any() else "-"

    def asked(self, channel: Channel) -> int:
        """Rows due in the last whole second."""
        parts = self._recent[max(-2, -len(self._recent))][1] if self._recent else {}
        return parts[channel].planned if channel in parts else 0

    def quantiles(self, channel: Channel) -> tuple[float, float]:
        """p50 and p99 of the latency in ns among rows answered in the last seconds; nan if there were none."""
        parts = [parts[channel].latency for _, parts in self._recent if channel in parts]
        counts = np.sum(parts, axis=0) if parts else np.zeros(BINS, np.int64)
        return quantile_ns(counts, 0.5), quantile_ns(counts, 0.99)


def _milliseconds(ns: float) -> str:
    return "-" if ns != ns else f"{ns / 1e6:.2f} ms"  # noqa: PLR0124 nan is the one number unlike itself


def _said(mark: Mark) -> str:
    return f"{mark.at_ns / NS:6.1f} s  {' '.join(part for part in (mark.kind, mark.subject, mark.text) if part)}"


def _time_left(plan: Plan, now_ns: int) -> str:
    left = max(0, -(-(plan.duration_ns - now_ns) // NS))
    return f"{left // 60}:{left % 60:02d} left" if left else "waiting for the last answers"


class LiveTable:
    """A View on a terminal: lanes, marks, time left; at most 4 frames a second."""

    def __init__(self, console: Console | None = None) -> None:
        self._live = Live(console=console or Console(stderr=True), auto_refresh=False, transient=True)
        self._tally = Tally()
        self._marks: deque[Mark] = deque(maxlen=MARKS)
        self._plan: Plan | None = None
        self._now_ns = 0
        self._drawn = 0.0

    def begin(self, plan: Plan) -> None:
        self._plan = plan
        self._live.start()

    def added(self, series: list[Series]) -> None:
        self._tally.add(series)

    def flushed(self, flush: Flush, now_ns: int) -> None:
        self._tally.take(flush)
        self._now_ns = now_ns
        self._draw()

    def ended(self, pod: str) -> None:
        self._tally.end(pod)

    def marked(self, mark: Mark) -> None:
        self._marks.append(mark)
        self._draw()

    def noted(self, text: str) -> None:
        self._live.console.print(Text(text))

    def end(self) -> None:
        self._live.stop()

    def _draw(self) -> None:
        if self._plan and time.monotonic() - self._drawn >= FRAME_S:
            self._drawn = time.monotonic()
            self._live.update(self.frame(self._plan), refresh=True)

    def frame(self, plan: Plan) -> Group:
        """What the screen shows now."""
        title = f"{plan.name}: {self._now_ns / NS:.0f} s, {_time_left(plan, self._now_ns)}"
        table = Table(box=SIMPLE_HEAD, pad_edge=False, title=Text(title, "bold"), title_justify="left")
        for heading in ("lane", "target"):
            table.add_column(heading, no_wrap=True)
        for heading in ("asked/s", "good", "lost", LATELY, "p50", "p99"):
            table.add_column(heading, justify="left" if heading == LATELY else "right", no_wrap=True)
        for channel in self._tally.channels[:ROWS]:
            asked = self._tally.asked(channel)
            good, lost = self._tally.good_and_lost(channel)
            now = self._tally.state(channel)
            table.add_row(
                Text(channel[0]),
                Text(channel[1]),
                f"{asked:,}",
                f"{good:,}",
                Text(f"{lost:,}", "red" if lost else ""),
                Text(now, _COLOURS.get(now, "red")),
                *(_milliseconds(q) for q in self._tally.quantiles(channel)),
            )
        more = len(self._tally.channels) - ROWS
        lines = [Text(f"and {more} more")] if more > 0 else []
        lines += [Text(_said(mark), no_wrap=True, overflow="ellipsis") for mark in self._marks]
        return Group(table, *lines)


class Lines:
    """A View for logs: a line every 5 s of the run, a line for each step and note."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._tally = Tally()
        self._plan: Plan | None = None
        self._next_ns = LINE_NS

    def begin(self, plan: Plan) -> None:
        self._plan = plan

    def added(self, series: list[Series]) -> None:
        self._tally.add(series)

    def flushed(self, flush: Flush, now_ns: int) -> None:
        self._tally.take(flush)
        if self._plan and now_ns >= self._next_ns:
            self._next_ns = (now_ns // LINE_NS + 1) * LINE_NS
            self._say(self.line(self._plan, now_ns))

    def ended(self, pod: str) -> None:
        self._tally.end(pod)

    def marked(self, mark: Mark) -> None:
        if mark.kind == "step":
            self._say(_said(mark))

    def noted(self, text: str) -> None:
        self._say(text)

    def end(self) -> None:
        self._stream.flush()

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def line(self, plan: Plan, now_ns: int) -> str:
        """`10 s of 20 s: 400 asked/s, good 3,990, lost 10; vip-udp-fresh kube-dns: timeout`."""
        asked = good = lost = 0
        bad = []
        for channel in self._tally.channels:
            asked += self._tally.asked(channel)
            good += self._tally.good_and_lost(channel)[0]
            lost += self._tally.good_and_lost(channel)[1]
            if (now := self._tally.state(channel)) not in _COLOURS:
                bad.append(f"{channel[0]} {channel[1]}: {now}")
        more = [f"and {len(bad) - 3} more"] if len(bad) > 3 else []
        text = f"{now_ns / NS:.0f} s of {plan.duration_ns / NS:.0f} s: {asked:,} asked/s, good {good:,}, lost {lost:,}"
        return "; ".join([text, *bad[:3], *more])


def fitting_view() -> LiveTable | Lines:
    """The table if stderr is a terminal that can draw it, else lines."""
    console = Console(stderr=True)
    return LiveTable(console) if console.is_terminal and not console.is_dumb_terminal else Lines()
