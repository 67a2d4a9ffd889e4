"""A run while it goes -> of each channel how many windows of disruption there were, and how long they lasted so far."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from probe.errors import DnsprobeError
from probe.model import NS, Series, TargetKind
from probe.recorder import Flush
from probe.timeline import Timeline, Window
from probe.timeline.growing import Growing, Losses, Name
from probe.timeline.windows import GOOD_AGAIN_NS, GOOD_AGAIN_ROWS

NEWS_NS = 5 * NS
"""A pod that was told to go may lose queries before that is heard of: its window counts after so long, or once over."""
REST = 20
"""After a look at the run file there is none for so many times as long as it took of CPU."""


class Outage(NamedTuple):
    """Windows of a channel: how many, the open one among them; how long, in ns; since when one is open, ns since t0.

    first_ns: when the first of them began.
    """

    number: int = 0
    lasted_ns: int = 0
    since_ns: int | None = None
    first_ns: int = 0


class Outages:
    """Looks into the run file while something is lost, not otherwise. What it has said only grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._losses, self._windows = Losses(), Growing()
        self._over: dict[Name, Outage] = {}
        self._rests_until_ns = 0
        self.now: dict[Name, Outage] = {}
        """Of each channel that has any."""

    def take(self, flush: Flush, now_ns: int) -> None:
        """The seconds that changed."""
        self._losses.take(flush)
        if self._losses and time.monotonic_ns() >= self._rests_until_ns:
            self._look(now_ns, is_last=False)

    def finish(self, now_ns: int) -> dict[Name, Outage]:
        """The run is over, and so are its windows; the channels of which one was still open."""
        self._look(now_ns, is_last=False)
        still = {name: outage for name, outage in self.now.items() if outage.since_ns is not None}
        self._look(now_ns, is_last=True)
        return still

    def _look(self, now_ns: int, *, is_last: bool) -> None:
        before_ns = time.thread_time_ns()
        with suppress(DnsprobeError, OSError):
            timeline = Timeline.of(self._losses.look(self._path, now_ns))
            for window in self._windows.rest(timeline) if is_last else self._windows.look(timeline):
                _count(self._over, window, is_open=False)
            self._losses.settle(now_ns, self._windows.open_ns)
            mortal = {channel.name for channel in timeline.channels if channel.target.kind is TargetKind.POD}
            found = dict(self._over)
            for name, window in self._windows.open.items():
                if name not in mortal or now_ns - window.from_ns >= NEWS_NS:
                    _count(found, window, is_open=True)
            self.now = {name: _grown(self.now.get(name), found.get(name)) for name in self.now | found}
        self._rests_until_ns = time.monotonic_ns() + REST * (time.thread_time_ns() - before_ns)


def closing_ns(series: Series) -> float:
    """After so long without a lost query a window is over."""
    return max(GOOD_AGAIN_NS, GOOD_AGAIN_ROWS * NS / float(series.own_rate)) if series.own_rate else GOOD_AGAIN_NS


def _count(found: dict[Name, Outage], window: Window, *, is_open: bool) -> None:
    name = window.lane, window.target
    before = found.get(name, Outage())
    since_ns = window.from_ns if is_open else None
    first_ns = before.first_ns if before.number else window.from_ns
    found[name] = Outage(before.number + 1, before.lasted_ns + window.to_ns - window.from_ns, since_ns, first_ns)


def _grown(before: Outage | None, now: Outage | None) -> Outage:
    """A window may turn out to be shorter: its pod was told to go before."""
    before, now = before or Outage(), now or Outage()
    number, lasted_ns = max(before.number, now.number), max(before.lasted_ns, now.lasted_ns)
    return Outage(number, lasted_ns, now.since_ns, now.first_ns if now.number else before.first_ns)
