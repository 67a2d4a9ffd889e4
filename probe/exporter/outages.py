"""A run while it goes -> of each channel how many windows of disruption there were, and how long they lasted so far."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from probe.errors import DnsprobeError
from probe.model import NS, TargetKind
from probe.recorder import Flush
from probe.timeline import Timeline, Window
from probe.timeline.growing import Growing, Losses, Name

NEWS_NS = 5 * NS
"""A pod that was told to go may lose queries before that is heard of: its window counts after so long, or once over."""
REST = 20
"""After a look at the run file there is none for so many times as long as it took of CPU."""


class Outage(NamedTuple):
    """Windows of a channel: how many, the open one among them; how long, in ns; since when one is open, ns since t0."""

    number: int = 0
    lasted_ns: int = 0
    since_ns: int | None = None


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

    def finish(self, now_ns: int) -> None:
        """The run is over, and so are its windows."""
        self._look(now_ns, is_last=True)

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


def _count(found: dict[Name, Outage], window: Window, *, is_open: bool) -> None:
    name = window.lane, window.target
    before = found.get(name, Outage())
    since_ns = window.from_ns if is_open else None
    found[name] = Outage(before.number + 1, before.lasted_ns + window.to_ns - window.from_ns, since_ns)


def _grown(before: Outage | None, now: Outage | None) -> Outage:
    """A window may turn out to be shorter: its pod was told to go before."""
    before, now = before or Outage(), now or Outage()
    return Outage(max(before.number, now.number), max(before.lasted_ns, now.lasted_ns), now.since_ns)
