"""A Timeline -> queries a second by what became of them, and latencies, in buckets, finer where rows were lost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probe.histogram import BINS
from probe.model import BUCKET_NS, NS
from probe.outcome import Outcome
from probe.recorder import Duration
from probe.report.strips import UNDECIDED
from probe.timeline import Channel, Timeline, inside, joined, ranked_ns
from probe.timeline.spans import Ints

WIDTHS = (1, 2, 5, 10, 20, 50, 100, 200, 600, 1200, 3000, 6000, 18_000, 36_000)
"""Of buckets, in 100 ms."""
COARSE, FINE, MOST = 300, 60, 2_000
"""Buckets of the whole run, of the surroundings of a disruption, of all these together."""
SLICES = 600
"""Latencies over time, at the most."""
GOOD = "good"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rates:
    """Rows that count, by the buckets they were due in: edges, in 100 ms, int64[k+1]; rows by what became of them,
    float64[k] each (good ones are known by the second at times, and spread over it).
    """

    edges: Ints
    rows: dict[str, Floats]


@dataclass(frozen=True, slots=True)
class Latency:
    """Quantiles of latency from due, in ns, of the rows due in [from_ns, to_ns); lost ones are infinite."""

    from_ns: int
    to_ns: int
    p50: float
    p99: float
    longest: float
    lost: int


def rates_of(timeline: Timeline) -> Rates:
    """Of all channels. A pod counts from Ready to deletion."""
    edges = _edges(timeline)
    rows: dict[str, Floats] = {GOOD: np.zeros(len(edges) - 1)}

    def add(what: str, bucket: Ints, n: Ints | Floats) -> None:
        place = np.clip(np.searchsorted(edges, bucket, side="right") - 1, 0, len(edges) - 2)
        np.add.at(rows.setdefault(what, np.zeros(len(edges) - 1)), place, n)

    for channel in timeline.channels:
        mine = inside(channel.first_ns, channel.counted)
        for outcome in Outcome:
            if (lost := channel.lost[mine, outcome]).any():
                add(outcome.label, channel.first_ns[mine] // BUCKET_NS, lost)
        for what, at_ns, n in (
            (Outcome.UNSENT.label, channel.unsent_ns, channel.unsent),
            (UNDECIDED, channel.waiting_ns, channel.waiting),
        ):
            if (counted := inside(at_ns, channel.counted)).any():
                add(what, at_ns[counted] // BUCKET_NS, n[counted])
    for bucket, good in _good(timeline):
        add(GOOD, bucket, good)
    return Rates(edges, rows)


def _good(timeline: Timeline) -> Iterator[tuple[Ints, Floats]]:
    """Good rows that count, by 100 ms: those of a second are spread over it."""
    counts = timeline.run.counts
    good = counts.good == 1
    mortal = {s.index for channel in timeline.channels if channel.mortal for s in channel.series}
    for width in (1, 10):
        some = good & (counts.width == width)
        immortal = some & ~np.isin(counts.series, list(mortal))
        for step in range(width):
            yield counts.bucket[immortal] + step, counts.n[immortal] / width
        for channel in timeline.channels if mortal else ():
            mine = some & np.isin(counts.series, [s.index for s in channel.series if s.index in mortal])
            for step in range(width if mine.any() else 0):
                bucket = counts.bucket[mine] + step
                counted = inside(bucket * BUCKET_NS, channel.counted)
                yield bucket[counted], counts.n[mine][counted] / width


def _edges(timeline: Timeline) -> Ints:
    """The whole run in even buckets, and finer ones around disruptions, the longest first, as long as there is room."""
    last = max(1, -(-max(timeline.horizon_ns, 1) // BUCKET_NS))
    edges = set(_even(0, last, COARSE))
    around = joined((w.from_ns - (w.to_ns - w.from_ns) - NS, 2 * w.to_ns - w.from_ns + NS) for w in timeline.windows)
    for from_ns, to_ns in sorted(around, key=lambda span: span[0] - span[1]):
        finer = _even(max(0, from_ns // BUCKET_NS), min(last, -(-to_ns // BUCKET_NS)), FINE)
        if len(edges) + len(finer) <= MOST:
            edges |= set(finer)
    return np.array(sorted({*edges, last}), np.int64)


def _even(first: int, last: int, most: int) -> range:
    width = next((w for w in WIDTHS if (last - first) / w <= most), WIDTHS[-1])
    return range(first // width * width, last, width)


def latencies_of(timeline: Timeline, channels: Sequence[Channel]) -> list[Latency]:
    """Of some channels together, by 10 s or longer; by the second where rows were lost, and then of the
    series that lost some, for so they are recorded.
    """
    indices = [s.index for channel in channels for s in channel.series]
    counts, maxima = timeline.run.histograms.of(indices, Duration.LATENCY)
    lost = _lost_by_second(channels)
    fine = {*np.unique(counts[0][counts[1] == 1]).tolist(), *lost}
    fine = fine if len(fine) <= SLICES else set()
    length = next((w for w in (10, 20, 60, 120, 300, 600) if timeline.horizon_ns / NS / w <= SLICES), 1800)

    def slot_of(table: Ints) -> Ints:
        """A second of its own as it is, a slice as a negative number."""
        slots: Ints = np.where((table[1] == 1) & bool(fine), table[0], -1 - table[0] // length * length)
        return slots

    slots = np.unique(np.concatenate([slot_of(counts), np.array(sorted(fine), np.int64)]))
    bins, longest = np.zeros((len(slots), BINS), np.int64), np.zeros(len(slots), np.int64)
    np.add.at(bins, (np.searchsorted(slots, slot_of(counts)), counts[2]), counts[3])
    np.maximum.at(longest, np.searchsorted(slots, slot_of(maxima)), maxima[2])
    found = []
    for slot, row, most in zip(slots.tolist(), bins, longest.tolist(), strict=True):
        first, width = (slot, 1) if slot >= 0 else (-1 - slot, length)
        gone = 0 if fine and slot < 0 else sum(lost.get(first + k, 0) for k in range(width))
        p50, p99 = (ranked_ns(row, most, q, int(row.sum()), gone) for q in (0.5, 0.99))
        for a, b in [(first, first + 1)] if slot >= 0 else _without(first, width, fine):
            to_ns = min(b * NS, timeline.horizon_ns)
            if a * NS < to_ns:
                found.append(Latency(a * NS, to_ns, p50, p99, float(most) if most else math.nan, gone))
    return sorted(found, key=lambda latency: latency.from_ns)


def _without(first: int, width: int, fine: set[int]) -> list[tuple[int, int]]:
    """The seconds of a slice that have no latencies of their own, in stretches."""
    return list(joined((k, k + 1) for k in range(first, first + width) if k not in fine))


def _lost_by_second(channels: Sequence[Channel]) -> dict[int, int]:
    found: dict[int, int] = {}
    for channel in channels:
        mine = inside(channel.first_ns, channel.counted)
        for second, n in zip(
            (channel.first_ns[mine] // NS).tolist(), channel.lost[mine].sum(axis=1).tolist(), strict=True
        ):
            found[second] = found.get(second, 0) + n
    return found
