"""A Run -> its timeline: channels (lane and target), what each lost and when, windows of disruption by class."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from probe.histogram import quantile_ns
from probe.model import NS
from probe.recorder import Duration
from probe.runfile import Run
from probe.timeline.channel import Channel, Loss, channels_of
from probe.timeline.spans import Ints, Spans, common, inside, joined
from probe.timeline.windows import Elsewhere, Window, is_closed, stretches, windows_of

__all__ = [
    "Channel",
    "Elsewhere",
    "Loss",
    "Spans",
    "Timeline",
    "Window",
    "common",
    "inside",
    "is_closed",
    "joined",
    "ranked_ns",
    "stretches",
]


@dataclass(frozen=True)
class Timeline:
    """A run as its channels saw it. horizon_ns: what is due later was never recorded.

    steps: when the cluster was being changed: at steps, which are instants, and in rollouts, from beginning to end.
    """

    run: Run
    horizon_ns: int
    channels: tuple[Channel, ...]
    windows: tuple[Window, ...]
    steps: Spans

    @classmethod
    def of(cls, run: Run) -> Timeline:
        """Everything is worked out here, once."""
        horizon = _horizon(run)
        channels = channels_of(run, horizon)
        return cls(run, horizon, channels, tuple(windows_of(channels, horizon)), tuple(_steps(run, horizon)))

    @cached_property
    def by_channel(self) -> dict[tuple[str, str], list[Window]]:
        """The windows of each channel that has any, by its name."""
        found: dict[tuple[str, str], list[Window]] = {}
        for w in self.windows:
            found.setdefault((w.lane, w.target), []).append(w)
        return found

    def quantile_ns(
        self, channel: Channel, duration: Duration, q: float, within: Spans | None = None, *, more_lost: int = 0
    ) -> float:
        """The q-quantile (1: the max) of latency, lost rows counting as infinite, or of another duration.

        nan if there is nothing to rank. more_lost: rows to count as lost besides those that were (less, if negative).
        """
        spans = channel.counted if within is None else common(channel.counted, within)
        whole = within is None and not channel.mortal
        indices = [s.index for s in channel.series]
        counts, longest = self.run.histograms.total(indices, duration, None if whole else spans)
        if duration is not Duration.LATENCY:
            return ranked_ns(counts, longest, q)
        loss = channel.loss(within)
        return ranked_ns(counts, longest, q, loss.good, loss.lost + more_lost)


def ranked_ns(counts: Ints, longest: int, q: float, good: int = 0, lost: int = 0) -> float:
    """The q-quantile of durations: of `good` rows, which are in counts, and `lost` ones, which count as infinite.

    counts may hold some rows more than those that are good (whole slices of the run file): they stand for these.
    longest: the exact maximum, which is q = 1 unless a row was lost; nan if there is nothing to rank.
    """
    lost = max(0, lost)
    if lost and q * (good + lost) > good + 1e-6:
        return math.inf
    if q == 1 and counts.any():
        return float(longest)
    beyond = round(lost * int(counts.sum()) / good) if lost else 0
    return min(quantile_ns(counts, q, beyond, longest), longest)


def _steps(run: Run, horizon_ns: int) -> Iterator[tuple[int, int]]:
    rolling: dict[str, int] = {}
    for mark in sorted(run.marks, key=lambda mark: mark.at_ns):
        if mark.kind == "step":
            yield mark.at_ns, mark.at_ns
        elif mark.kind == "rollout_started":
            rolling.setdefault(mark.subject, mark.at_ns)
        elif mark.kind == "rollout_done" and mark.subject in rolling:
            yield rolling.pop(mark.subject), mark.at_ns
    yield from ((from_ns, max(from_ns, horizon_ns)) for from_ns in rolling.values())


def _horizon(run: Run) -> int:
    """A run that ended as planned, or goes on, is recorded to its end, any other to its last recorded second."""
    if (run.finished or run.going) and not run.cut:
        return run.end_ns
    seconds = (run.counts.bucket.max(initial=-1) // 10, run.in_flight.second.max(initial=-1))
    return min(run.end_ns, (int(max(seconds)) + 1) * NS)
