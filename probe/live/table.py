"""A run -> a table on a terminal of any size: lanes and targets, time left, what happened last."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from probe.live.events import MOST, Events
from probe.live.tally import ENDED, FINE, GOOD, RECENT, Channel, Tally
from probe.model import NS, Mark, Series
from probe.outcome import Outcome
from probe.recorder import Flush
from probe.report.units import duration, plain
from probe.scenario.plan import Plan
from probe.scenario.view import Unseen

FRAME_S = 0.25
LATELY = f"last {RECENT} s"
ALIGNED = {"lane": "<", "target": "<", "asked/s": ">", "good": ">", "lost": ">", LATELY: "<", "p50": ">", "p99": ">"}
EXPENDABLE = ("p50", "asked/s", "p99", "good")
"""Columns that go first where the terminal is narrow."""
WIDTHS = {LATELY: max(len(o.label) for o in Outcome), "p50": 7, "p99": 7}
"""Columns that have this width from the start, so that nothing moves when something goes wrong."""
SHORTEST = {"target": 8, "lane": 8, LATELY: 4}
"""How far texts are cut: a target at its beginning, for the end of a pod's name tells it apart. Numbers never are."""
GAP = 2

_COLOURS = {GOOD: "green", ENDED: "dim"}
_RED = "red"

Row = dict[str, str]
"""What stands in a line of the table, by column."""


class LiveTable(Unseen):
    """A View on a terminal; at most 4 frames a second. A terminal that goes away harms no run."""

    def __init__(self, console: Console | None = None) -> None:
        self._live = Live(console=console or Console(stderr=True), auto_refresh=False, transient=True)
        self._tally = Tally()
        self._events = Events()
        self._plan: Plan | None = None
        self._now_ns = 0
        self._drawn = 0.0
        self._waits = ""

    def begin(self, plan: Plan) -> None:
        self._plan = plan
        with suppress(OSError):
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
        self._events.add(mark)
        self._draw()

    def waits(self, text: str) -> None:
        self._waits = plain(text)

    def noted(self, text: str) -> None:
        with suppress(OSError):
            self._live.console.print(Text(plain(text)))

    def end(self) -> None:
        with suppress(OSError):
            self._live.stop()

    def _draw(self) -> None:
        if self._plan and time.monotonic() - self._drawn >= FRAME_S:
            self._drawn = time.monotonic()
            with suppress(OSError):
                self._live.update(self.frame(self._plan), refresh=True)

    def frame(self, plan: Plan) -> Group:
        """What the screen shows now."""
        width, height = self._live.console.width, self._live.console.height
        waiting = f"waiting {self._tally.waiting:,}"
        left = ", ".join(filter(None, (self._waits, _time_left(plan, self._now_ns), plan.unplanned, waiting)))
        # Title, headings, an empty line and the cursor's are always there.
        events = self._events.lines(min(MOST, max(1, (height - 4) // 3)))
        shown, others = self._chosen(max(1, height - 4 - len(events)))
        lines = [Text(f"{plan.name}: {self._now_ns / NS:.0f} s, {left}", "bold")]
        lines += fitting([self._row(channel) for channel in shown], width)
        if others:
            lost = sum(self._tally.good_and_lost(channel)[1] for channel in others)
            lines.append(Text(f"and {len(others)} more, lost {lost:,}", "dim"))
        lines += [Text(), *map(Text, events)] if events else []
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(*lines)

    def _chosen(self, room: int) -> tuple[list[Channel], list[Channel]]:
        """The channels to show and the others: those that lose go first if there is no room for all."""
        channels = self._tally.channels
        if len(channels) <= room:
            return channels, []
        ranked = sorted(channels, key=self._rank)
        return ranked[: room - 1], ranked[room - 1 :]

    def _rank(self, channel: Channel) -> int:
        state = self._tally.state(channel)
        return 0 if state not in FINE else 3 if state == ENDED else 2 - bool(self._tally.good_and_lost(channel)[1])

    def _row(self, channel: Channel) -> Row:
        good, lost = self._tally.good_and_lost(channel)
        p50, p99 = map(duration, self._tally.quantiles(channel))
        lane, target = channel
        numbers = {"asked/s": f"{self._tally.asked(channel):,}", "good": f"{good:,}", "lost": f"{lost:,}"}
        return {"lane": lane, "target": target, **numbers, LATELY: self._tally.state(channel), "p50": p50, "p99": p99}


def _time_left(plan: Plan, now_ns: int) -> str:
    left = max(0, -(-(plan.duration_ns - now_ns) // NS))
    return f"{plan.most}{left // 60}:{left % 60:02d} left" if left else "waiting for the last answers"


def fitting(rows: Sequence[Row], width: int) -> list[Text]:
    """A line of headings and one for each row, at most `width` columns wide."""
    wide = {column: max([len(column), WIDTHS.get(column, 0), *(len(r[column]) for r in rows)]) for column in ALIGNED}

    def excess() -> int:
        return sum(wide.values()) + GAP * (len(wide) - 1) - width

    spare = max(0, wide["target"] - SHORTEST["target"])
    for column in EXPENDABLE:
        if excess() > spare:
            del wide[column]
    for column, shortest in SHORTEST.items():
        wide[column] -= max(0, min(excess(), wide[column] - shortest))
    return [_line({column: column for column in ALIGNED}, wide, "dim"), *(_line(row, wide) for row in rows)]


def _line(row: Row, wide: dict[str, int], style: str = "") -> Text:
    line = Text(style=style)
    for column, width in wide.items():
        text = row[column]
        if len(text) > width:
            text = f"…{text[1 - width :]}" if column == "target" else f"{text[: width - 1]}…"
        colour = "" if style else _colour(column, text)
        line.append(f"{text:{ALIGNED[column]}{width}}", colour)
        line.append(" " * GAP)
    line.rstrip()
    return line


def _colour(column: str, text: str) -> str:
    if column == LATELY:
        return _COLOURS.get(text, "" if text in FINE else _RED)
    return _RED if column == "lost" and text != "0" else ""
