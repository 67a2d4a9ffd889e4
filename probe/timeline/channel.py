"""A Run -> its channels: what one lane asked one target, what of it was lost, and when."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from probe.model import BUCKET_NS, NS, Ports, Series, Target, TargetKind
from probe.outcome import Counter, Outcome
from probe.runfile import Run
from probe.timeline.pace import Pace, pace_of
from probe.timeline.spans import Ints, Spans, common, joined

LAB_REACH_NS = 2 * NS
"""The lab says each second that it lost datagrams, and its end is heard of at once: no row before that is touched."""
_EVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Loss:
    """Rows of a channel in some stretch. planned = good + lost + unsent + in_flight."""

    planned: int
    good: int
    lost: int
    unsent: int
    in_flight: int

    @property
    def asked(self) -> int:
        """Rows whose fate says something about DNS: neither unsent nor undecided."""
        return self.good + self.lost

    @property
    def share(self) -> float:
        """lost / asked; nan if nothing was asked."""
        return self.lost / self.asked if self.asked else math.nan


@dataclass(frozen=True)
class Channel:
    """What one lane asked one target, all types together: they share sockets, so they share windows.

    counted: when its rows count: a pod's from Ready to deletion, anything else's always; whole: all its rows.
    first_ns, last_ns, lost: a row per 100 ms and series in which something was lost, by first_ns: the exact due
    instants of the first and last lost row, and how many by outcome, int64[k, outcomes].
    unsent_ns, unsent and waiting_ns, waiting: rows by the beginning of their 100 ms, or second.
    own_drops: replies that our own receive buffer dropped; lab_at_fault: when the lab may have lost rows itself.
    """

    lane: str
    target: Target
    transport: str
    ports: Ports
    series: tuple[Series, ...]
    pace: Pace
    counted: Spans
    whole: Loss
    first_ns: Ints
    last_ns: Ints
    lost: Ints
    unsent_ns: Ints
    unsent: Ints
    waiting_ns: Ints
    waiting: Ints
    own_drops: int
    lab_at_fault: Spans

    @property
    def name(self) -> tuple[str, str]:
        """Lane and target."""
        return (self.lane, self.target.name)

    @property
    def mortal(self) -> bool:
        """A pod: what it does after it was told to go is no outage."""
        return self.target.kind is TargetKind.POD

    def interval_ns(self, at_ns: Ints | int, queries: Ints | int = 1) -> Ints:
        """How long so many queries take, from each of the instants on: no window can be known better than to one."""
        return self.pace.interval_ns(at_ns, queries)

    def loss(self, within: Spans | None = None) -> Loss:
        """What became of the rows that count, and are due in `within` if it is given.

        Good rows are known by the second or tenth only, so those of a stretch are what was due there less the others;
        never more than were recorded.
        """
        if within is None and not self.mortal:
            return self.whole
        spans = self.counted if within is None else common(self.counted, within)
        lost, unsent, waiting = (
            sum(int(rows[slice(*np.searchsorted(at_ns, span))].sum()) for span in spans)
            for rows, at_ns in (
                (self.lost, self.first_ns),
                (self.unsent, self.unsent_ns),
                (self.waiting, self.waiting_ns),
            )
        )
        others = lost + unsent + waiting
        good = min(max(0, self.pace.planned(spans) - others), self.whole.good)
        return Loss(good + others, good, lost, unsent, waiting)


def channels_of(run: Run, horizon_ns: int) -> tuple[Channel, ...]:
    """Channels in the order in which their first series joined."""
    groups: dict[tuple[str, str], list[Series]] = {}
    for s in run.series:
        groups.setdefault(s.channel, []).append(s)
    of_series = np.zeros(len(run.series), np.int64)
    for k, members in enumerate(groups.values()):
        of_series[[s.index for s in members]] = k
    tables = _Tables(run, of_series)
    whole = _whole(run, of_series, len(groups))
    # A run that was stopped has rows that were due while the worker had not yet heard of it.
    until_ns = max(horizon_ns, int(run.bad.last_ns.max(initial=-1)) + 1)
    return tuple(
        Channel(
            lane=members[0].lane,
            target=members[0].target,
            transport=members[0].transport,
            ports=members[0].ports,
            series=tuple(members),
            pace=pace_of(run, members),
            counted=_counted(run, members[0].target, until_ns),
            whole=whole[k],
            own_drops=int(run.counters[[s.index for s in members], Counter.OWN_DROPS].sum()),
            lab_at_fault=_lab_at_fault(run, members[0].target),
            **tables.of(k),
        )
        for k, members in enumerate(groups.values())
    )


def _whole(run: Run, of_series: Ints, channels: int) -> list[Loss]:
    """What was recorded of each channel, whether it counts or not."""
    rows, waiting = run.counts, run.in_flight
    kind = np.where(rows.good == 1, 0, np.where(rows.outcome == Outcome.UNSENT, 2, 1))
    table = np.zeros((channels, 4), np.int64)
    np.add.at(table, (of_series[rows.series], kind), rows.n)
    np.add.at(table, (of_series[waiting.series], np.full(len(waiting.n), 3)), waiting.n)
    return [Loss(sum(row), *row) for row in table.tolist()]


def _counted(run: Run, target: Target, until_ns: int) -> Spans:
    everything = ((0, until_ns),) if until_ns > 0 else ()
    if target.kind is not TargetKind.POD:
        return everything
    lives = [i for i in run.intervals if i.kind == "life" and i.subject == target.name]
    return common(everything, joined((i.from_ns, i.to_ns) for i in lives)) if lives else everything


def _lab_at_fault(run: Run, target: Target) -> Spans:
    """Its Service drops datagrams if asked too much; once it has died nothing of it answers."""
    spans = []
    for mark in run.marks:
        if mark.kind == "lab_dropped" and target.kind is TargetKind.SERVICE:
            spans.append((mark.at_ns - LAB_REACH_NS, mark.at_ns))
        elif mark.kind == "lab_died" and target.kind in (TargetKind.SERVICE, TargetKind.POD):
            spans.append((mark.at_ns - LAB_REACH_NS, _EVER))
    return joined(spans)


class _Tables:
    """The run's lost, unsent and undecided rows, by channel."""

    def __init__(self, run: Run, of_series: Ints) -> None:
        rows, bad = run.counts, run.bad
        not_good = (rows.good == 0) & (rows.outcome != Outcome.UNSENT)
        order = np.lexsort((bad.bucket, bad.series))
        keys = (bad.series << 40 | bad.bucket)[order]
        place = np.searchsorted(keys, rows.series[not_good] << 40 | rows.bucket[not_good])
        lost = np.zeros((len(order), len(Outcome)), np.int64)
        np.add.at(lost, (place, rows.outcome[not_good]), rows.n[not_good])
        first, last, channel = bad.first_ns[order], bad.last_ns[order], of_series[bad.series[order]]
        order = np.lexsort((first, channel))
        self._lost = channel[order], first[order], last[order], lost[order]
        unsent = rows.outcome == Outcome.UNSENT
        self._unsent = _sorted(of_series[rows.series[unsent]], rows.bucket[unsent] * BUCKET_NS, rows.n[unsent])
        waiting = run.in_flight
        self._waiting = _sorted(of_series[waiting.series], waiting.second * NS, waiting.n)

    def of(self, channel: int) -> dict[str, Ints]:
        """The arrays of one channel, by field."""
        pick = slice(*np.searchsorted(self._lost[0], [channel, channel + 1]))
        unsent = slice(*np.searchsorted(self._unsent[0], [channel, channel + 1]))
        waiting = slice(*np.searchsorted(self._waiting[0], [channel, channel + 1]))
        return {
            "first_ns": self._lost[1][pick],
            "last_ns": self._lost[2][pick],
            "lost": self._lost[3][pick],
            "unsent_ns": self._unsent[1][unsent],
            "unsent": self._unsent[2][unsent],
            "waiting_ns": self._waiting[1][waiting],
            "waiting": self._waiting[2][waiting],
        }


def _sorted(channel: Ints, at_ns: Ints, n: Ints) -> tuple[Ints, Ints, Ints]:
    order = np.lexsort((at_ns, channel))
    return channel[order], at_ns[order], n[order]
