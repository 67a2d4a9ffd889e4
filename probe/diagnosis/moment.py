"""A Timeline and windows that lie together -> what each lane saw meanwhile: how much was lost, of what, by whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from probe.cluster.zone import DOMAIN
from probe.diagnosis.pods import NEVER, PodLife, pods_of
from probe.model import BESIDE, NS, Mark, Question, TargetKind
from probe.outcome import Outcome
from probe.recorder import Duration
from probe.timeline import Channel, Loss, Spans, Timeline, Window, common, ranked_ns

SERVICES = (TargetKind.SERVICE, TargetKind.SERVER)
"""Whom applications ask: the cluster's Service, or the address that somebody named."""
SILENT = frozenset({Outcome.TIMEOUT, Outcome.NETWORK_ERROR})
GONE = SILENT | {Outcome.CONNECTION_REFUSED, Outcome.CONNECTION_LOST}
"""What becomes of a query where nobody is."""
LOOK_NS = NS
"""Others are looked at for so long at least: in a shorter window they may have been asked nothing."""
STRAY = 0.02
"""A lane that lost no more than this has what everybody loses now and then."""
DEAD = 0.9
"""One that lost so much was not answered at all."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What one channel saw in a stretch. outcome: what most of its lost rows became, None if it lost none."""

    channel: Channel
    loss: Loss
    outcome: Outcome | None

    @property
    def share(self) -> float:
        """Lost of what was asked."""
        return self.loss.share

    @property
    def fine(self) -> bool:
        """It was asked, and lost next to nothing."""
        return self.loss.asked > 0 and self.share <= STRAY

    @property
    def hurt(self) -> bool:
        """It lost more than strays."""
        return self.loss.asked > 0 and self.share > STRAY

    @property
    def dead(self) -> bool:
        """It lost all, or nearly."""
        return self.loss.asked > 0 and self.share >= DEAD

    def __str__(self) -> str:
        what = f" ({self.outcome.label})" if self.outcome else ""
        who = f"{self.channel.lane} -> {self.channel.target.name}"
        return f"{who}: {self.loss.lost:,} of {self.loss.asked:,} lost{what}"


@dataclass(frozen=True)
class Moment:
    """Windows that lie together in time, none for a whole run, and everything that the run knows around them."""

    timeline: Timeline
    pods: Mapping[str, PodLife]
    channels: Mapping[tuple[str, str], Channel]
    outside: frozenset[tuple[str, str]]
    suffixed: frozenset[tuple[str, str]]
    windows: tuple[Window, ...] = ()
    _seen: dict[tuple[tuple[str, str], tuple[int, int], bool], Sight] = field(default_factory=dict)

    @classmethod
    def of_run(cls, timeline: Timeline) -> Moment:
        """All of a run; outside: channels that ask for names outside the cluster's zone alone; suffixed: see
        is_suffixed().
        """
        zone = timeline.run.head.facts.get("zone") or DOMAIN
        asks = [c for c in timeline.channels if c.transport not in BESIDE]
        outside = frozenset(c.name for c in asks if not any(_in_zone(q.name, zone) for q in _questions(c)))
        suffixed = frozenset(c.name for c in asks if any(_is_suffixed(q.name, zone) for q in _questions(c)))
        return cls(timeline, pods_of(timeline.run), {c.name: c for c in timeline.channels}, outside, suffixed)

    def at(self, windows: Sequence[Window]) -> Moment:
        """Of these windows alone."""
        return replace(self, windows=tuple(windows), _seen={})

    @cached_property
    def span(self) -> tuple[int, int]:
        """From the first window's beginning to the last one's end, of DNS if any is; the whole run without any."""
        windows = [w for w in self.windows if not self.is_beside(w)] or self.windows
        return spanned(windows) if windows else (0, self.timeline.horizon_ns)

    def channel(self, window: Window) -> Channel:
        """Whose window it is."""
        return self.channels[window.lane, window.target]

    def is_outside(self, channel: Channel) -> bool:
        """It asks for names outside the cluster's zone alone."""
        return channel.name in self.outside

    def is_suffixed(self, channel: Channel) -> bool:
        """It asks for names that a search list has made of others, and that are nobody's in the cluster's zone."""
        return channel.name in self.suffixed

    def is_beside(self, window: Window) -> bool:
        """Its lane asks no DNS."""
        return self.channel(window).transport in BESIDE

    def of(
        self, *kinds: TargetKind, transport: str = "", ports: Sequence[str] = (), outside: bool | None = None
    ) -> list[Window]:
        """Its windows of such channels, of any transport of DNS if none is said."""
        return [w for w in self.windows if self._is(self.channel(w), kinds, transport, ports, outside)]

    def _is(
        self, c: Channel, kinds: Sequence[TargetKind], transport: str, ports: Sequence[str], outside: bool | None
    ) -> bool:
        return (
            (not kinds or c.target.kind in kinds)
            and (c.transport == transport if transport else c.transport not in BESIDE)
            and (not ports or c.ports.policy in ports)
            and (outside is None or outside == self.is_outside(c))
        )

    def sights(
        self,
        span: tuple[int, int],
        *kinds: TargetKind,
        transport: str = "",
        ports: Sequence[str] = (),
        outside: bool | None = None,
        ended: bool = False,
    ) -> list[Sight]:
        """What such channels saw in a stretch, those that were asked in it.

        ended: what pods saw after they were told to go, too.
        """
        chosen = [c for c in self.timeline.channels if self._is(c, kinds, transport, ports, outside)]
        sights = [self._sight(c, looked(span), ended) for c in chosen]
        return [s for s in sights if s.loss.asked]

    def beside(self, span: tuple[int, int], *kinds: TargetKind, name: str = "") -> list[Sight]:
        """What lanes saw in a stretch that ask no DNS: pods' /ready and /health, connections to others."""
        sights = (s for transport in BESIDE for s in self.sights(span, *kinds, transport=transport))
        return [s for s in sights if name in ("", s.channel.target.name)]

    def sight(self, window: Window) -> Sight:
        """What the window's own channel saw in it."""
        return self._sight(self.channel(window), (window.from_ns, window.to_ns), False)

    def _sight(self, channel: Channel, span: tuple[int, int], ended: bool) -> Sight:
        key = (channel.name, span, ended)
        if key not in self._seen:
            spans = (span,) if ended or not channel.mortal else common(channel.counted, (span,))
            self._seen[key] = _sight(channel, spans)
        return self._seen[key]

    def live(self, span: tuple[int, int]) -> list[PodLife]:
        """Pods that were Ready and had not been told to go at its beginning."""
        return [p for p in self.pods.values() if p.ready_ns <= span[0] < p.deleted_ns]

    def ends(self, span: tuple[int, int], before_ns: int = NS) -> list[PodLife]:
        """Pods that were deleted, and closed in the stretch or shortly before it."""
        return [p for p in self.pods.values() if p.deleted and span[0] - before_ns <= p.closed_ns < span[1]]

    def marks(self, *kinds: str, span: tuple[int, int] | None = None) -> list[Mark]:
        """Those of these kinds, in a stretch if one is given."""
        from_ns, to_ns = span or (-NEVER, NEVER)
        return [m for m in self.timeline.run.marks if m.kind in kinds and from_ns <= m.at_ns < to_ns]

    def grown(self, source: str, name: str, span: tuple[int, int], reach_ns: int = 6 * NS) -> dict[str, float]:
        """By how much a counter of others grew around a stretch, by subject; they are read every few seconds."""
        found = {}
        for metric in self.timeline.run.metrics:
            if (metric.source, metric.name) != (source, name):
                continue
            known = ~np.isnan(metric.value)
            at_ns, value = metric.at_ns[known], metric.value[known]
            first = max(0, int(np.searchsorted(at_ns, span[0] - reach_ns, side="right")) - 1)
            last = int(np.searchsorted(at_ns, span[1] + reach_ns, side="right"))
            steps = np.diff(value[first:last])
            found[metric.subject] = float(np.where(steps < 0, 0, steps).sum())
        return found

    def unread(self, pod: str, span: tuple[int, int], reach_ns: int = 6 * NS) -> bool | None:
        """Whether a pod's metrics, asked by HTTP, could not be read around a stretch; None if they never were."""
        values = [
            float(value)
            for metric in self.timeline.run.metrics
            if (metric.source, metric.subject) == ("coredns", pod)
            for at_ns, value in zip(metric.at_ns.tolist(), metric.value.tolist(), strict=True)
            if span[0] <= at_ns < span[1] + reach_ns
        ]
        read = any(metric.subject == pod for metric in self.timeline.run.metrics)
        return bool(np.isnan(values).any()) if read else None

    def latency_ns(self, channel: Channel, q: float, span: tuple[int, int] | None = None) -> float:
        """A quantile of a channel's good answers, from due to answer; nan without any."""
        indices = [s.index for s in channel.series]
        spans: Spans | None = (span,) if span else None
        counts, longest = self.timeline.run.histograms.total(indices, Duration.LATENCY, spans)
        return ranked_ns(counts, longest, q)


def meet(one: Window, other: Window) -> bool:
    """They lie together, or nearly: what fails by one cause need not be asked in the same instant."""
    return one.from_ns < other.to_ns + LOOK_NS and other.from_ns < one.to_ns + LOOK_NS


def spanned(windows: Sequence[Window]) -> tuple[int, int]:
    """From the first beginning to the last end."""
    return min(w.from_ns for w in windows), max(w.to_ns for w in windows)


def looked(span: tuple[int, int]) -> tuple[int, int]:
    """A stretch, made as long as others must be looked at."""
    short = max(0, LOOK_NS - (span[1] - span[0]))
    return max(0, span[0] - short // 2), span[1] + (short + 1) // 2


def _sight(channel: Channel, spans: Spans) -> Sight:
    """What became of the rows that are due in the stretches, whether they count or not."""
    lost, unsent, waiting = np.zeros(len(Outcome), np.int64), 0, 0
    for span in spans:
        lost += channel.lost[slice(*np.searchsorted(channel.first_ns, span))].sum(axis=0)
        unsent += int(channel.unsent[slice(*np.searchsorted(channel.unsent_ns, span))].sum())
        waiting += int(channel.waiting[slice(*np.searchsorted(channel.waiting_ns, span))].sum())
    n = int(lost.sum())
    others = n + unsent + waiting
    good = min(max(0, channel.pace.planned(spans) - others), channel.whole.good)
    return Sight(channel, Loss(good + others, good, n, unsent, waiting), Outcome(int(lost.argmax())) if n else None)


def _questions(channel: Channel) -> Iterator[Question]:
    for s in channel.series:
        yield from s.questions


_MOST_LABELS = 4
"""Before the zone: POD.SERVICE.NAMESPACE.svc (Kubernetes DNS specification, 2.4)."""


def _in_zone(name: str, zone: str) -> bool:
    return f".{name.rstrip('.').lower()}".endswith(f".{zone}")


def _is_suffixed(name: str, zone: str) -> bool:
    """`www.example.com.default.svc.cluster.local`: more labels than a Service's pod or port has, or no `svc`."""
    if not _in_zone(name, zone):
        return False
    labels = name.rstrip(".").lower().removesuffix(zone).rstrip(".").split(".")
    return labels[-1] not in ("svc", "pod", "dns") or (len(labels) > _MOST_LABELS and not labels[0].startswith("_"))
