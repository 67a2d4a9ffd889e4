"""Channels -> windows of disruption, each with its class and what happened elsewhere meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probe.model import BUCKET_NS, NS
from probe.outcome import Outcome
from probe.timeline.channel import Channel
from probe.timeline.spans import Spans, common, inside, joined

GOOD_AGAIN_NS, GOOD_AGAIN_ROWS = NS, 5
"""A window closes after this long, and this many queries, of good ones in a row."""
REFUSAL_REACH_NS, REFUSAL_REACH_ROWS = 2 * NS, 2
"""A kernel sends one ICMP refusal a second: silence this close to a refusal is a refusal that was not sent."""


class Elsewhere(NamedTuple):
    """Other channels of a lane during a window: how many should have been asked, and how many of these were, and lost nothing."""

    lane: str
    asked: int
    fine: int


class Elsewheres:
    """All channels of a run side by side, so that a window is compared with hundreds of them at once."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self._lanes = list(dict.fromkeys(c.lane for c in channels))
        self._lane = np.array([self._lanes.index(c.lane) for c in channels], np.int64)
        spans = [(k, *span, c.interval_ns) for k, c in enumerate(channels) for span in asked_spans(c)]
        self._asked = np.array(spans, np.int64).reshape(-1, 4).T
        mine = [inside(c.first_ns, c.counted) for c in channels]
        firsts = [np.concatenate([c.first_ns[m], c.unsent_ns]) for c, m in zip(channels, mine, strict=True)]
        lasts = [np.concatenate([c.last_ns[m], c.unsent_ns]) for c, m in zip(channels, mine, strict=True)]
        who = np.repeat(np.arange(len(channels)), [len(f) for f in firsts])
        none = np.empty(0, np.int64)
        first, last = np.concatenate([none, *firsts]), np.concatenate([none, *lasts])
        order = np.argsort(first, kind="stable")
        self._who, self._first, self._last = who[order], first[order], last[order]

    def during(self, channel: int, from_ns: int, to_ns: int) -> tuple[Elsewhere, ...]:
        """Every lane with other channels that had a query due in [from_ns, to_ns)."""
        who, begin, end, interval = self._asked
        asked = np.zeros(len(self._lane), bool)
        asked[who[np.minimum(end, to_ns) - np.maximum(begin, from_ns) >= interval]] = True
        near = slice(*np.searchsorted(self._first, [from_ns - BUCKET_NS, to_ns]))
        hit = np.zeros(len(self._lane), bool)
        hit[self._who[near][self._last[near] >= from_ns]] = True
        asked[channel] = False
        of_lane = np.bincount(self._lane[asked], minlength=len(self._lanes)).tolist()
        fine = np.bincount(self._lane[asked & ~hit], minlength=len(self._lanes)).tolist()
        return tuple(Elsewhere(lane, n, k) for lane, n, k in zip(self._lanes, of_lane, fine, strict=True) if n)


def asked_spans(channel: Channel) -> Spans:
    """When a channel's rows were due and counted."""
    return common(joined((s.start_ns, s.stop_ns) for s in channel.series), channel.counted)


@dataclass(frozen=True, slots=True)
class Window:
    """A disruption of one channel: from its first lost row's due instant to one query interval after its last one's.

    outcome: its class, what most of its lost rows became; inferred: a refusal that only others heard.
    still_open: not yet good again when the run ended. others: how the other channels fared meanwhile, by lane.
    """

    lane: str
    target: str
    from_ns: int
    to_ns: int
    resolution_ns: int
    outcome: Outcome
    planned: int
    lost: int
    inferred: bool = False
    still_open: bool = False
    others: tuple[Elsewhere, ...] = ()


def stretches(channel: Channel, *, unsent_too: bool = False) -> list[tuple[int, int]]:
    """The due instants of the first and last lost row of each window, before it has a class.

    unsent_too: as if every row that was not sent had been lost: the worst that can be hidden (to 100 ms).
    """
    mine = inside(channel.first_ns, channel.counted)
    first, last = channel.first_ns[mine], channel.last_ns[mine]
    if unsent_too:
        begin = channel.unsent_ns[inside(channel.unsent_ns, channel.counted)]
        first = np.concatenate([first, begin])
        last = np.concatenate([last, begin + max(0, BUCKET_NS - channel.interval_ns)])
        order = np.argsort(first, kind="stable")
        first, last = first[order], last[order]
    good_again = max(GOOD_AGAIN_NS, GOOD_AGAIN_ROWS * channel.interval_ns)
    found: list[tuple[int, int]] = []
    for begin_ns, end_ns in zip(first.tolist(), last.tolist(), strict=True):
        if found and _good_ns(channel, found[-1][1], begin_ns) <= good_again:
            found[-1] = (found[-1][0], max(found[-1][1], end_ns))
        else:
            found.append((begin_ns, end_ns))
    return found


def _good_ns(channel: Channel, from_ns: int, to_ns: int) -> int:
    """How long between two lost rows was good: slots that we missed ourselves are no evidence of that."""
    missed = channel.unsent[inside(channel.unsent_ns, ((from_ns, to_ns),))].sum()
    return to_ns - from_ns - int(missed) * channel.interval_ns


def windows_of(channels: Sequence[Channel], horizon_ns: int) -> list[Window]:
    """The windows of all channels of a run, in the order in which they began."""
    elsewhere = Elsewheres(channels)
    windows = [w for k in range(len(channels)) for w in _windows(k, channels, elsewhere, horizon_ns)]
    return sorted(windows, key=lambda w: (w.from_ns, w.lane, w.target))


def _windows(k: int, channels: Sequence[Channel], elsewhere: Elsewheres, horizon_ns: int) -> Iterable[Window]:
    channel = channels[k]
    good_again = max(GOOD_AGAIN_NS, GOOD_AGAIN_ROWS * channel.interval_ns)
    ends_ns = max((to_ns for _, to_ns in asked_spans(channel)), default=0)
    for first, last in stretches(channel):
        from_ns, to_ns = first, last + channel.interval_ns
        loss = channel.loss(((from_ns, to_ns),))
        outcome, inferred = _class(channel, channels, (first, last), answered=loss.good > 0)
        yield Window(
            lane=channel.lane,
            target=channel.target.name,
            from_ns=from_ns,
            to_ns=to_ns,
            resolution_ns=channel.interval_ns,
            outcome=outcome,
            planned=loss.planned,
            lost=loss.lost,
            inferred=inferred,
            still_open=last + good_again >= ends_ns >= horizon_ns,
            others=elsewhere.during(k, from_ns, to_ns),
        )


def _class(
    channel: Channel, channels: Sequence[Channel], stretch: tuple[int, int], *, answered: bool
) -> tuple[Outcome, bool]:
    """What most rows lost in a window became, and whether that is a refusal only others heard.

    Refusals are pooled over the refusing side (a TCP RST is one that is not rate-limited); but where the target still
    answered some rows (`answered`), silence is explained by the channel's own refusals only.
    """
    mine = (channel.first_ns >= stretch[0]) & (channel.first_ns <= stretch[1])
    mine &= inside(channel.first_ns, channel.counted)
    by_outcome = channel.lost[mine].sum(axis=0)
    if not by_outcome[Outcome.TIMEOUT]:
        return Outcome(int(by_outcome.argmax())), False
    refusals = int(by_outcome[Outcome.CONNECTION_REFUSED])
    side = channel.target.refusing_side
    heard = [c for c in channels if c is channel or (not answered and c.target.refusing_side == side)]
    reach = max(REFUSAL_REACH_NS, REFUSAL_REACH_ROWS * channel.interval_ns)
    near = mine & _near_refusal(channel, heard, reach)
    silent = int(channel.lost[near, Outcome.TIMEOUT].sum())
    by_outcome[Outcome.TIMEOUT] -= silent
    by_outcome[Outcome.CONNECTION_REFUSED] += silent
    outcome = Outcome(int(by_outcome.argmax()))
    return outcome, outcome is Outcome.CONNECTION_REFUSED and not refusals


def _near_refusal(channel: Channel, heard: Sequence[Channel], reach_ns: int) -> NDArray[np.bool_]:
    """Which of a channel's lossy 100 ms lie within reach of a refusal that any of `heard` got."""
    refused = [c.lost[:, Outcome.CONNECTION_REFUSED] > 0 for c in heard]
    begins = np.concatenate([c.first_ns[r] for c, r in zip(heard, refused, strict=True)])
    ends = np.concatenate([c.last_ns[r] for c, r in zip(heard, refused, strict=True)])
    order = np.argsort(begins, kind="stable")
    begins, ends = begins[order], np.maximum.accumulate(ends[order])
    before = np.searchsorted(begins, channel.last_ns + reach_ns, side="right")
    latest = np.concatenate([[np.iinfo(np.int64).min // 2], ends])[before]
    return np.asarray(latest >= channel.first_ns - reach_ns, bool)
