"""Channels -> windows of disruption, each with its class and what happened elsewhere meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probe.model import BESIDE, BUCKET_NS, NS
from probe.outcome import Outcome
from probe.timeline.channel import Channel
from probe.timeline.spans import Ints, Spans, common, inside, joined

GOOD_AGAIN_NS, GOOD_AGAIN_ROWS = NS, 5
"""A window closes after this long, and this many queries, of good ones in a row."""
REFUSAL_REACH_NS, REFUSAL_REACH_ROWS = 2 * NS, 2
"""A kernel sends one ICMP refusal a second: silence this close to a refusal is a refusal that was not sent."""


class Elsewhere(NamedTuple):
    """Other channels of a lane meanwhile: how many were due to be asked, how many of them were and lost nothing."""

    lane: str
    asked: int
    fine: int


class Elsewheres:
    """All channels of a run side by side, so that a window is compared with hundreds of them at once."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self._lanes = list(dict.fromkeys(c.lane for c in channels))
        self._lane = np.array([self._lanes.index(c.lane) for c in channels], np.int64)
        self._interval = np.array([c.pace.gap_ns(0) for c in channels], np.int64)
        self._changing = [(k, c) for k, c in enumerate(channels) if not c.pace.steady]
        spans = [(k, *span) for k, c in enumerate(channels) for span in asked_spans(c)]
        self._asked = np.array(spans, np.int64).reshape(-1, 3).T
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
        who, begin, end = self._asked
        for k, changing in self._changing:
            self._interval[k] = changing.pace.gap_ns(from_ns)
        asked = np.zeros(len(self._lane), bool)
        asked[who[np.minimum(end, to_ns) - np.maximum(begin, from_ns) >= self._interval[who]]] = True
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
        last = np.concatenate([last, begin + (BUCKET_NS - channel.interval_ns(begin)).clip(0)])
        order = np.argsort(first, kind="stable")
        first, last = first[order], last[order]
    found: list[tuple[int, int]] = []
    for begin_ns, end_ns in zip(first.tolist(), last.tolist(), strict=True):
        if found and not _is_good_again(channel, found[-1][1], begin_ns):
            found[-1] = (found[-1][0], max(found[-1][1], end_ns))
        else:
            found.append((begin_ns, end_ns))
    return found


def _is_good_again(channel: Channel, last_ns: int, next_ns: int) -> bool:
    """Whether a window that lost a row last is over when the next one is lost."""
    if next_ns - last_ns <= GOOD_AGAIN_NS:
        return False
    return _good_ns(channel, last_ns, next_ns) > _good_again_ns(channel, last_ns)


def _good_again_ns(channel: Channel, from_ns: int) -> int:
    """How long a channel must have been good since a lost row for its window to be closed."""
    return max(GOOD_AGAIN_NS, int(channel.interval_ns(from_ns, GOOD_AGAIN_ROWS)))


def _good_ns(channel: Channel, from_ns: int, to_ns: int) -> int:
    """How long between two lost rows was good: slots that we missed ourselves are no evidence of that."""
    missed = channel.unsent[slice(*np.searchsorted(channel.unsent_ns, (from_ns, to_ns)))].sum()
    return to_ns - from_ns - int(channel.interval_ns(from_ns, missed))


def is_closed(channel: Channel, window: Window, decided_ns: int) -> bool:
    """Whether nothing that is due from decided_ns on can lengthen it: it was good again for long enough, or is over."""
    last_ns = window.to_ns - window.resolution_ns
    ends_ns = max((to_ns for _, to_ns in asked_spans(channel)), default=0)
    return min(last_ns + _good_again_ns(channel, last_ns), ends_ns) < decided_ns


def windows_of(channels: Sequence[Channel], horizon_ns: int) -> list[Window]:
    """The windows of all channels of a run, in the order in which they began."""
    elsewhere = Elsewheres(channels)
    sides: dict[tuple[str, bool], list[Channel]] = {}
    for c in channels:
        sides.setdefault(_side(c), []).append(c)
    heard = {side: refusals_of(members) for side, members in sides.items()}
    found: list[Window] = []
    for k, channel in enumerate(channels):
        classes = _Classes(channel, heard[_side(channel)])
        found += _windows(k, channel, classes, elsewhere, horizon_ns)
    return sorted(found, key=lambda w: (w.from_ns, w.lane, w.target))


def _side(channel: Channel) -> tuple[str, bool]:
    """Whose refusals it shares: /ready's, which is refused from SIGTERM on, says nothing about DNS."""
    return channel.target.refusing_side, channel.transport in BESIDE


def _windows(k: int, channel: Channel, classes: _Classes, elsewhere: Elsewheres, horizon_ns: int) -> Iterable[Window]:
    ends_ns = max((to_ns for _, to_ns in asked_spans(channel)), default=0)
    for first, last in stretches(channel):
        resolution_ns = int(channel.interval_ns(last))
        from_ns, to_ns = first, last + resolution_ns
        loss = channel.loss(((from_ns, to_ns),))
        outcome, inferred = classes.of(first, last, answered=loss.good > 0)
        yield Window(
            lane=channel.lane,
            target=channel.target.name,
            from_ns=from_ns,
            to_ns=to_ns,
            resolution_ns=resolution_ns,
            outcome=outcome,
            planned=loss.planned,
            lost=loss.lost,
            inferred=inferred,
            still_open=last + _good_again_ns(channel, last) >= ends_ns >= horizon_ns,
            others=elsewhere.during(k, from_ns, to_ns),
        )


class _Classes:
    """What the lost rows of a channel's windows became, silence near a refusal being a refusal.

    Refusals are pooled over the refusing side. But where the target still answered some rows, silence is explained by
    the channel's own refusals only; and TCP's is silence: what refuses there is a process that died, whose RSTs nobody
    limits, not a REJECT rule in front of everything, whose ICMP is limited for TCP as well.
    """

    def __init__(self, channel: Channel, side: tuple[Ints, Ints]) -> None:
        self._channel = channel
        self._counts = inside(channel.first_ns, channel.counted)
        self._near_own = _near(channel, refusals_of([channel] if channel.transport == "udp" else []))
        self._near_side = _near(channel, side)

    def of(self, first_ns: int, last_ns: int, *, answered: bool) -> tuple[Outcome, bool]:
        """The class of a window, and whether it is a refusal that only others heard."""
        pick = slice(*np.searchsorted(self._channel.first_ns, [first_ns, last_ns + 1]))
        lost = self._channel.lost[pick] * self._counts[pick, None]
        by_outcome = lost.sum(axis=0)
        refused = int(by_outcome[Outcome.CONNECTION_REFUSED])
        near = (self._near_own if answered else self._near_side)[pick]
        silent = int(lost[near, Outcome.TIMEOUT].sum())
        by_outcome[Outcome.TIMEOUT] -= silent
        by_outcome[Outcome.CONNECTION_REFUSED] += silent
        outcome = Outcome(int(by_outcome.argmax()))
        return outcome, outcome is Outcome.CONNECTION_REFUSED and not refused


def refusals_of(channels: Sequence[Channel]) -> tuple[Ints, Ints]:
    """When refusals came, to 100 ms: beginnings, ascending, and the latest end up to each."""
    refused = [c.lost[:, Outcome.CONNECTION_REFUSED] > 0 for c in channels]
    none = np.empty(0, np.int64)
    begins = np.concatenate([none, *(c.first_ns[r] for c, r in zip(channels, refused, strict=True))])
    ends = np.concatenate([none, *(c.last_ns[r] for c, r in zip(channels, refused, strict=True))])
    order = np.argsort(begins, kind="stable")
    return begins[order], np.maximum.accumulate(ends[order])


def _near(channel: Channel, refusals: tuple[Ints, Ints]) -> NDArray[np.bool_]:
    """Which of a channel's lossy 100 ms lie within reach of any of the refusals."""
    begins, ends = refusals
    reach = np.maximum(REFUSAL_REACH_NS, channel.interval_ns(channel.last_ns, REFUSAL_REACH_ROWS))
    before = np.searchsorted(begins, channel.last_ns + reach, side="right")
    latest = np.concatenate([[np.iinfo(np.int64).min // 2], ends])[before]
    return np.asarray(latest >= channel.first_ns - reach, bool)
