"""A run that goes on, looked at now and then -> its windows of disruption: those that are over, once, and open ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from probe.model import NS
from probe.recorder import Flush
from probe.runfile import Run, open_run
from probe.timeline import Timeline, Window, is_closed

MARGIN_S = 10
"""So much before an open window is read, too: refusals and other lanes around it."""

Name = tuple[str, str]
"""A channel's: lane and target."""


@dataclass(slots=True)
class Growing:
    """Says of each window once that it is over. open: the first one of each channel that was not at the last look."""

    open: dict[Name, Window] = field(default_factory=dict)
    _over_ns: dict[Name, int] = field(default_factory=dict)
    """Of each channel, the end of the last window that was over."""

    @property
    def open_ns(self) -> int | None:
        """When the first window began that is not over; None if all are."""
        return min((window.from_ns for window in self.open.values()), default=None)

    def look(self, timeline: Timeline) -> list[Window]:
        """What is over since the last look. Rows of before open_ns may be missing, if they are 10 s older."""
        channels = {channel.name: channel for channel in timeline.channels}
        decided_ns = min(timeline.horizon_ns, timeline.run.decided_ns)
        over, self.open = [], {}
        for window in self._new(timeline):
            name = window.lane, window.target
            if name not in self.open and is_closed(channels[name], window, decided_ns):
                over.append(window)
            else:
                self.open.setdefault(name, window)
        return self._said(over)

    def rest(self, timeline: Timeline) -> list[Window]:
        """All others; the run is over."""
        self.open = {}
        return self._said(self._new(timeline))

    def _new(self, timeline: Timeline) -> list[Window]:
        return [w for w in timeline.windows if w.from_ns >= self._over_ns.get((w.lane, w.target), 0)]

    def _said(self, windows: list[Window]) -> list[Window]:
        self._over_ns |= {(window.lane, window.target): window.to_ns for window in windows}
        return windows


class Losses:
    """Flushes -> whether there was a loss of which not all is known, and from when on a look has to read the run."""

    def __init__(self) -> None:
        self._lost: dict[int, tuple[int, int]] = {}
        """Of each series with such a loss: when the first and the last such row was due."""

    def take(self, flush: Flush) -> None:
        """What was lost in the seconds that changed."""
        for columns in flush.columns:
            for index in np.flatnonzero((columns.first_bad >= 0).any(axis=1)).tolist():
                bad = columns.first_bad[index]
                first_ns, last_ns = int(bad[bad >= 0].min()), int(columns.last_bad[index].max())
                first, last = self._lost.get(index, (first_ns, last_ns))
                self._lost[index] = min(first, first_ns), max(last, last_ns)

    def __bool__(self) -> bool:
        return bool(self._lost)

    def quiet(self, now_ns: int) -> bool:
        """Whether a series that lost something has lost nothing for a second."""
        return any(last_ns < now_ns - NS for _, last_ns in self._lost.values())

    def look(self, path: Path, now_ns: int) -> Run:
        """The run without what no window can need."""
        begins_ns = min((first_ns for first_ns, _ in self._lost.values()), default=now_ns)
        return open_run(path, histograms=False, since_second=max(0, begins_ns // NS - MARGIN_S))

    def settle(self, now_ns: int, open_ns: int | None) -> None:
        """The first window that is not over began at open_ns: what was lost before it need not be looked at again."""
        settled_ns = now_ns - MARGIN_S * NS if open_ns is None else open_ns
        self._lost = {
            index: (max(first_ns, settled_ns), last_ns)
            for index, (first_ns, last_ns) in self._lost.items()
            if last_ns >= settled_ns
        }
