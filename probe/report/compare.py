"""Runs of one scenario -> side by side: losses, lengths, latencies, settings; what differs, and whether by chance."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from probe.errors import UsageError
from probe.histogram import BINS
from probe.model import NS, Series, TargetKind
from probe.recorder import Duration
from probe.report.chance import LEVEL, fisher, ratio_range
from probe.report.units import plain, share
from probe.runfile import Run
from probe.timeline import Channel, Window, ranked_ns
from probe.timeline.spans import Ints
from probe.verdict import Verdict, verdict_of

PODS = "pods"
"""The target under which all pods of a lane are compared: each run has others."""
QUANTILES = {"p50": 0.5, "p99": 0.99}
CHANGED = "# --set "
"""So begins a line that probe.scenario.file adds to a scenario's text: a setting that was changed."""
PASSING = ("conntrack", "cpu steal", "metrics", "prober's pod", "prober's node", "ntp", "clock")
"""Facts that differ from run to run and are no setting."""
REPEATED, SLOWER = 1.5, 1.25
"""By how many times losses and latencies of a run and of its repeat may differ."""
METHOD = (
    "A difference exceeds noise where chance makes it in fewer than"
    f" {LEVEL:.0%} of cases and it is larger than that of a run and its repeat, for rows of one disruption share a"
    f" cause. Losses: Fisher's exact test of the rows, two-sided, {REPEATED:g} times as many, and the run that lost"
    " fewer did not end in a disruption. Lengths: more apart"
    " than both are known to, and their losses differ, too. Latencies: percentile bootstrap over slices of 10 s, and"
    f" {SLOWER:g} times as long. One disruption in one of two runs may still be chance: repeat both to know (a matrix"
    " with --repeats)."
)

Key = tuple[str, str]


@dataclass(frozen=True)
class Side:
    """One lane and target of one run."""

    channels: tuple[Channel, ...]
    windows: tuple[Window, ...]
    run: Run

    @cached_property
    def lost(self) -> int:
        """Rows that count."""
        return sum(c.loss().lost for c in self.channels)

    @cached_property
    def asked(self) -> int:
        """Rows whose fate is known."""
        return sum(c.loss().asked for c in self.channels)

    @cached_property
    def longest(self) -> Window | None:
        """The longest disruption."""
        return max(self.windows, key=_length_ns, default=None)

    @property
    def longest_ns(self) -> int:
        """Its length, 0 for none."""
        return _length_ns(self.longest) if self.longest else 0

    @cached_property
    def _indices(self) -> list[int]:
        return [s.index for c in self.channels for s in c.series]

    def quantile_ns(self, q: float) -> float:
        """Of latency from due, lost rows as infinite; nan if nothing was asked."""
        counts, longest = self.run.histograms.total(self._indices, Duration.LATENCY)
        return ranked_ns(counts, longest, q, self.asked - self.lost, self.lost)

    @cached_property
    def slices(self) -> Ints:
        """Latencies of good rows by slices of 10 s, int64[n, BINS]."""
        counts, _ = self.run.histograms.of(self._indices, Duration.LATENCY)
        first, place = np.unique(counts[0] // 10, return_inverse=True)
        bins = np.zeros((len(first), BINS), np.int64)
        np.add.at(bins, (place, counts[2]), counts[3])
        return bins


def _length_ns(w: Window) -> int:
    return w.to_ns - w.from_ns


@dataclass(frozen=True, slots=True)
class Difference:
    """What one measure says. exceeds: more than noise; by_chance: how often chance makes it, nan if nobody knows."""

    measure: str
    text: str
    exceeds: bool
    by_chance: float = math.nan


@dataclass(frozen=True, slots=True)
class Lane:
    """One lane and target: before, and each other run with what differs there."""

    key: Key
    judged: bool
    before: Side
    after: tuple[tuple[Side, tuple[Difference, ...]], ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """Something that was not the same in all runs; '' where a run has nothing of that name."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The first run is what the others are compared with."""

    verdicts: tuple[Verdict, ...]
    lanes: tuple[Lane, ...]
    settings: tuple[Setting, ...]

    @property
    def runs(self) -> list[Run]:
        return [verdict.timeline.run for verdict in self.verdicts]


def compare(runs: Sequence[Run]) -> Comparison:
    """UsageError says why runs cannot be compared."""
    for other in runs[1:]:
        _check(runs[0], other)
    verdicts = tuple(verdict_of(run) for run in runs)
    sides = [_sides(verdict) for verdict in verdicts]
    covered = [j.objective for j in verdicts[0].objectives]
    lanes = []
    for key, before in sides[0].items():
        after = tuple((side[key], tuple(_differences(before, side[key]))) for side in sides[1:])
        lanes.append(Lane(key, any(o.covers(key[0]) for o in covered), before, after))
    return Comparison(verdicts, tuple(lanes), tuple(_settings(runs)))


def _check(one: Run, other: Run) -> None:
    """The same lanes, asked alike, judged alike."""
    why = list(_unlike(one, other))
    if why:
        more = f"; and {len(why) - 3} more" if len(why) > 3 else ""
        raise UsageError(f"{other.path} cannot be compared with {one.path}: {'; '.join(why[:3])}{more}")


def _unlike(one: Run, other: Run) -> Iterator[str]:
    for run in (one, other):
        if not run.finished or run.cut:
            yield f"{run.path} was cut short ({plain(run.cut)}): run it again"
    if one.head.name != other.head.name:
        yield f"scenario {plain(one.head.name)} in the one, {plain(other.head.name)} in the other"
    taken = [sum(mark.kind == "step" for mark in run.marks) for run in (one, other)]
    if taken[0] != taken[1]:
        yield f"{taken[0]} steps were taken in the one, {taken[1]} in the other"
    asked = [_asked(run) for run in (one, other)]
    for name in dict.fromkeys((*asked[0], *asked[1])):
        both = [lanes.get(name) for lanes in asked]
        if None in both:
            yield f"lane {plain(name)} is in {(one, other)[both[0] is None].path} alone"
            continue
        for what in both[0] or {}:
            a, b = ((lane or {}).get(what, "none") for lane in both)
            if a != b:
                yield f"lane {plain(name)}: {what} {plain(a)} in the one, {plain(b)} in the other"
    if one.head.objectives != other.head.objectives:
        told = [", ".join(run.head.objectives) or "the default ones" for run in (one, other)]
        yield f"objectives: {plain(told[0])} in the one, {plain(told[1])} in the other"


def _asked(run: Run) -> dict[str, dict[str, str]]:
    """How each lane asks, by what to call that; pods are as many as there are."""
    lanes: dict[str, list[Series]] = {}
    for s in run.series:
        lanes.setdefault(s.lane, []).append(s)
    found = {}
    for name, series in lanes.items():
        targets = sorted({s.target.name for s in series if s.target.kind is not TargetKind.POD})
        rates: dict[str, Fraction] = {}
        for s in series:
            rates[s.qtype] = max(s.own_rate, rates.get(s.qtype, Fraction(0)))
        found[name] = {
            "targets": ", ".join(targets) or PODS,
            "how": ", ".join(sorted({f"{s.transport} {s.ports}" for s in series})),
            "queries a second": f"{float(sum(rates.values())):g}",
            "arrivals": ", ".join(sorted({f"{s.shape.arrivals} {len(s.shape.legs)} legs" for s in series})),
            "timeout": ", ".join(sorted({f"{s.timeout_ns / NS:g} s" for s in series})),
            "questions": ", ".join(sorted({f"{q.name} {q.qtype} {q.expect}" for s in series for q in s.questions})),
        }
    return found


def _sides(verdict: Verdict) -> dict[Key, Side]:
    channels: dict[Key, list[Channel]] = {}
    for c in verdict.timeline.channels:
        channels.setdefault((c.lane, PODS if c.mortal else c.target.name), []).append(c)
    by, run = verdict.timeline.by_channel, verdict.timeline.run
    return {
        key: Side(tuple(mine), tuple(w for c in mine for w in by.get(c.name, ())), run)
        for key, mine in channels.items()
    }


def _differences(before: Side, after: Side) -> Iterator[Difference]:
    """Of losses, of the longest disruption, of latencies."""
    p = fisher(before.lost, before.asked, after.lost, after.asked)
    shares = [side.lost / side.asked if side.asked else math.nan for side in (before, after)]
    fewer = after if shares[1] < shares[0] else before
    lossy = p < LEVEL and max(shares) > REPEATED * min(shares) and not any(w.still_open for w in fewer.windows)
    yield Difference("loss", f"{share(shares[0])} to {share(shares[1])}", lossy, p)
    known = sum(side.longest.resolution_ns for side in (before, after) if side.longest)
    apart = abs(after.longest_ns - before.longest_ns)
    lengths = f"{before.longest_ns / NS:.3f} s to {after.longest_ns / NS:.3f} s"
    yield Difference("longest disruption", lengths, apart > known and lossy)
    for name, q in QUANTILES.items():
        bounds = ratio_range(before.slices, after.slices, q)
        if bounds is None:
            yield Difference(name, "too few slices of 10 s to say", False)
        else:
            low, high = bounds
            apart = low > SLOWER or high < 1 / SLOWER
            yield Difference(name, f"{low:.2f} to {high:.2f} times, of good replies", apart)


def _settings(runs: Sequence[Run]) -> Iterator[Setting]:
    told: list[dict[str, str]] = [{"dnsprobe": run.version, **run.head.facts} for run in runs]
    for name in dict.fromkeys(name for facts in told for name in facts):
        values = tuple(facts.get(name, "") for facts in told)
        if len(set(values)) > 1 and not name.startswith(PASSING):
            yield Setting(name, values)
    texts = [run.head.scenario.splitlines() for run in runs]
    said = [tuple(line.removeprefix(CHANGED) for line in text if line.startswith(CHANGED)) for text in texts]
    if len(set(said)) > 1:
        yield Setting("--set", tuple(", ".join(settings) for settings in said))
    first, *_ = plain_texts = [[line for line in text if not line.startswith(CHANGED)] for text in texts]
    changes = []
    for text in plain_texts:
        lines = list(difflib.unified_diff(first, text, lineterm="", n=0))[2:]
        changes.append("; ".join(line for line in lines if not line.startswith("@@")))
    if any(changes):
        yield Setting("scenario", tuple(changes))
