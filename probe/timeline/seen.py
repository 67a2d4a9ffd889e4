"""A Run -> what its prober saw of each lane and target, to be kept where runs are merged."""

from __future__ import annotations

from collections.abc import Iterator

from probe.runfile import Run, Seen, SeenWindow
from probe.timeline import Timeline


def seen_by(run: Run) -> Iterator[Seen]:
    """Losses and windows, channel by channel, of rows that count."""
    timeline = Timeline.of(run)
    for channel in timeline.channels:
        loss = channel.loss()
        windows = tuple(
            SeenWindow(w.from_ns, w.to_ns, w.resolution_ns, w.outcome, w.planned, w.lost)
            for w in timeline.by_channel.get(channel.name, ())
        )
        counts = (loss.planned, loss.good, loss.lost, loss.unsent, loss.in_flight)
        yield Seen(channel.lane, channel.target.name, *counts, windows=windows)
