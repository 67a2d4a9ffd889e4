"""A sweep while it goes -> a few lines on a terminal, or a line for a log as each run ends; time left in both."""

from __future__ import annotations

import sys
import time
from collections import deque
from contextlib import suppress
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from probe.model import TargetKind
from probe.report.units import count, plain
from probe.sweep.file import Made, Turn
from probe.sweep.run import SweepView

LAST = 8
"""Runs that ended last, on a terminal."""
FRAME_S = 1.0


def what_became_of(made: Made) -> str:
    """`7.2 lab.propagation=2s lab.lameduck=0s: lost 63 on vip-udp-fresh, 12 on vip-tcp-fresh`."""
    name = f"{made.turn.name} {made.turn.cell.name}"
    if made.measured is None:
        return plain(f"{name}: {'to be made again, alone' if made.state == 'crowded' else 'FAILED'}: {made.why}")
    lost: dict[str, int] = {}
    for result in made.measured.results:
        if result.kind != TargetKind.POD:
            lost[result.lane] = lost.get(result.lane, 0) + result.lost
    text = ", ".join(f"{count(n)} on {lane}" for lane, n in lost.items() if n)
    doubt = f"; inconclusive: {made.why}" if made.why else ""
    doubt += ": to be made again, alone" if made.state == "crowded" else ""
    return plain(f"{name}: {f'lost {text}' if text else 'lost nothing'}{doubt}")


def left(seconds: float) -> str:
    """`3:20 left`, `1:03:20 left`."""
    s = max(0, round(seconds))
    hours, minutes = divmod(s // 60, 60)
    return f"{hours}:{minutes:02d}:{s % 60:02d} left" if hours else f"{minutes}:{s % 60:02d} left"


class SweepLines:
    """A SweepView for logs. A log that cannot be written harms no sweep."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def begin(self, done: int, to_do: int, jobs: int, left_s: float) -> None:
        there = f"; {count(done)} are there already" if done else ""
        self.noted(f"{count(to_do)} runs, {jobs} at a time, {left(left_s)}{there}")

    def started(self, turn: Turn) -> None:
        """Its end is said."""

    def ended(self, made: Made, done: int, of: int, left_s: float) -> None:
        self.noted(f"{count(done)} of {count(of)}, {left(left_s)}: {what_became_of(made)}")

    def noted(self, text: str) -> None:
        with suppress(OSError):
            print(plain(text), file=self._stream, flush=True)

    def end(self) -> None:
        """Every line is there already."""


class LiveSweep:
    """A SweepView on a terminal: how far it is, what runs, what ended last. A terminal that goes harms no sweep."""

    def __init__(self, console: Console) -> None:
        self._running: dict[Turn, float] = {}
        self._last: deque[str] = deque(maxlen=LAST)
        self._done, self._of, self._jobs, self._over_at = 0, 0, 1, 0.0
        self._console = console
        self._live = Live(console=console, get_renderable=self.frame, refresh_per_second=1 / FRAME_S, transient=True)

    def begin(self, done: int, to_do: int, jobs: int, left_s: float) -> None:
        self._done, self._of, self._jobs, self._over_at = done, done + to_do, jobs, time.monotonic() + left_s
        with suppress(OSError):
            self._live.start()

    def started(self, turn: Turn) -> None:
        self._running[turn] = time.monotonic()

    def ended(self, made: Made, done: int, of: int, left_s: float) -> None:
        self._running.pop(made.turn, None)
        self._done, self._of, self._over_at = done, of, time.monotonic() + left_s
        self._last.append(what_became_of(made))

    def noted(self, text: str) -> None:
        self._last.append(plain(text))

    def end(self) -> None:
        with suppress(OSError):
            self._live.stop()

    def frame(self) -> Group:
        """What the screen shows now."""
        now = time.monotonic()
        far = f"{self._jobs} at a time, {left(self._over_at - now)}"
        lines = [Text(f"{count(self._done)} of {count(self._of)} runs, {far}", "bold")]
        lines += [Text(f"  {text}") for text in list(self._last)]
        for turn, since in list(self._running.items()):
            lines.append(Text(f"  {turn.name} {plain(turn.cell.name)}: {now - since:.0f} s", "dim"))
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(*lines[: max(2, self._console.height - 1)])


def fitting_sweep_view() -> SweepView:
    """Lines that change if stderr is a terminal that can draw them, else lines that stay."""
    console = Console(stderr=True)
    return LiveSweep(console) if console.is_terminal and not console.is_dumb_terminal else SweepLines()
