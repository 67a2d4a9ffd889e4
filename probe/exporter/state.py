"""Runs, one after the other, each told as a View is told -> a Snapshot each second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from probe.clients.asking import Asking
from probe.cluster import Cluster
from probe.exporter.buckets import bucketed, summed
from probe.exporter.health import Done, Health
from probe.exporter.outages import Outage, Outages, closing_ns
from probe.exporter.snapshot import LES, Ints, Labels, Snapshot, State, floats, ints
from probe.histogram import BINS
from probe.host import Quotas
from probe.model import BUCKET_NS, NS, Fate, Lookup, Mark, Reason, Series, TargetKind
from probe.outcome import Counter, Outcome, UnsentCause
from probe.recorder import Columns, Duration, Flush, Sum
from probe.recorder.sums import planned, rows
from probe.schedule import Course
from probe.timeline.growing import Name

FORGET_NS = 600 * NS
"""So long after nobody is asked there any more a channel's counts are left out: whoever scrapes has them by then."""
DOWN_NS, DOWN_ROWS = NS, 5
"""A path is down once nothing was good for so long, and for so many queries."""
NEVER = -1

N = TypeVar("N", np.int64, np.float64)


class Asked(Protocol):
    """Of a plan, what is needed here."""

    @property
    def duration_ns(self) -> int:
        """How long it asks."""

    @property
    def clients(self) -> Asking | None:
        """Which client profiles look names up beside it."""


class Exporter:
    """Keeps what is counted from run to run. `now` is replaced, never changed: any thread may look at it."""

    def __init__(self, mode: str = "run", clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._left_ns: dict[Labels, int] = {}
        """Channels that nobody asks any more: since when."""
        self.ending: set[str] = set()
        """Pods that were told to go."""
        self.losing: dict[Name, float] = {}
        """Channels on which the last run ended amid an outage: since when, s since 1970."""
        self.now = Snapshot(mode=mode)

    def watching(
        self, scenario: str, path: Path, cluster: Cluster | None = None, reason: Reason = Reason.START
    ) -> Watching:
        """A View of the next run, whose file will be at `path`; and why it begins."""
        self._left_ns = {c: since_ns for c, since_ns in self._left_ns.items() if c in self.now.channels}
        self.ending &= {target for target, *_ in self.now.channels}
        started = {**self.now.started, reason: self.now.started[reason] + 1}
        self.now = replace(self.now, state=State.STARTING, scenario=scenario, started=started)
        return Watching(self, path, cluster)

    def reloaded(self, *, well: bool) -> None:
        """Whether the file that was to be read again could be."""
        self.now = replace(self.now, reloaded=well)

    def asks(self, series: Sequence[Series]) -> None:
        """These are asked, from now on."""
        for one in series:
            self._left_ns.pop(channel_of(one), None)
        self.ending -= {one.target.name for one in series}

    def leaves(self, series: Iterable[Series]) -> None:
        """These are asked no more."""
        for one in series:
            self._left_ns.setdefault(channel_of(one), self._clock())

    def known(self, channels: Iterable[Labels]) -> dict[Labels, bool]:
        """Which of them are not forgotten, and whether they are still asked."""
        now_ns = self._clock()
        return {c: c not in self._left_ns for c in channels if now_ns - self._left_ns.get(c, now_ns) < FORGET_NS}


class Watching:
    """A View of one run; what it counts comes on top of what earlier ones left."""

    def __init__(self, exporter: Exporter, path: Path, cluster: Cluster | None) -> None:
        self._exporter, self._cluster = exporter, cluster
        self._base = exporter.now
        self._series: list[Series] = []
        self._courses: dict[int, Course] = {}
        self._gone: set[str] = set()
        self._let_go: set[str] = set()
        """Pods that others ask from now on: they live."""
        self._duration_ns = 0
        self._t0_unix_ns = 0
        self._rows, self._planned = rows(), planned()
        self._buckets = Sum(lambda columns: bucketed(columns.durations), (len(Duration), LES), np.int64)
        self._sums = Sum(lambda columns: summed(columns.durations), (len(Duration),), np.float64)
        self._good_ns, self._bad_ns = ints(0), ints(0)
        """Of each series, when its last good row was due, to 100 ms, and its last lost one."""
        self._good: dict[Labels, tuple[int, int]] = {}
        """Of each path, when its last good row was due, and how many were lost until that was known."""
        self._sent: dict[str, int] = {}
        self._outages = Outages(path)
        self._lost_before = exporter.losing
        self._quotas = Quotas()
        self._withheld_ns = self._quotas.withheld_ns()
        self._health = Health(Done(0, 0, 0, 0, self._withheld_ns, ints(BINS)))
        self._flush = Flush([], ints(0, len(UnsentCause)), ints(0, len(Counter)), ints(BINS), 0, [])
        self._lookups = dict(self._base.lookups)
        self._slow = dict(self._base.slow_lookups)
        self._now_ns, self._healthy, self._drains = 0, True, False

    def begin(self, plan: Asked) -> None:
        self._duration_ns = plan.duration_ns
        for client in plan.clients.profiles if plan.clients else ():
            self._slow.setdefault(client, 0)
            for fate in Fate:
                self._lookups.setdefault((client, fate), 0)
        self._show(State.RUNNING)

    def added(self, series: list[Series]) -> None:
        self._series += series
        self._courses |= {s.index: Course(s.own_rate, s.shape.legs) for s in series if s.shape.legs}
        named = {s.target.name for s in series}
        self._gone -= named
        self._let_go -= named
        self._good_ns = _latest(self._good_ns, np.full(len(self._series), NEVER))
        self._bad_ns = _latest(self._bad_ns, np.full(len(self._series), NEVER))
        self._exporter.asks(series)
        self._show(self._state)

    def flushed(self, flush: Flush, now_ns: int) -> None:
        self._t0_unix_ns = self._t0_unix_ns or time.time_ns() - now_ns
        for table in (self._rows, self._planned, self._buckets, self._sums):
            table.take(flush)
        for columns in flush.columns:
            self._good_ns = _latest(self._good_ns, _last_good_ns(columns))
            self._bad_ns = _latest(self._bad_ns, columns.last_bad.max(axis=1))
        self._flush, self._now_ns = flush, now_ns
        self._outages.take(flush, now_ns)
        self._healthy = self._is_well()
        self._drains = self._drains or now_ns >= self._duration_ns
        self._show(self._state)

    def ended(self, pod: str) -> None:
        if pod not in self._let_go:
            self._exporter.ending.add(pod)

    def gone(self, pod: str) -> None:
        self._gone.add(pod)
        self._exporter.leaves(s for s in self._series if s.target.name == pod)

    def marked(self, mark: Mark) -> None:
        if mark.kind == "not_asked":
            self._let_go.add(mark.subject)

    def looked_up(self, lookup: Lookup) -> None:
        self._lookups[lookup.client, lookup.fate] += 1
        self._slow[lookup.client] += lookup.slowed

    def waits(self, text: str) -> None: ...

    def noted(self, text: str) -> None: ...

    def drains(self) -> None:
        self._drains = True
        self._show(self._state)

    def end(self) -> None:
        still = self._outages.finish(self._now_ns)
        self._exporter.losing = {name: self._since_s(name, outage) for name, outage in still.items()}
        self._exporter.leaves(self._series)
        self._show(State.LINGER)

    @property
    def _state(self) -> State:
        return State.DRAINING if self._drains else State.RUNNING

    def _is_well(self) -> bool:
        came, due = self._rows.now(), int(self._planned.now().sum())
        undecided = due - int(came.sum()) - int(self._waiting().sum())
        missed = int(came[:, Outcome.UNSENT].sum()) + undecided
        withheld_ns = self._quotas.withheld_ns()
        return self._health.take(Done(self._now_ns, due, missed, self._own_drops(), withheld_ns, self._flush.lag))

    def _own_drops(self) -> int:
        return int(self._flush.counters[:, Counter.OWN_DROPS].sum())

    def _lost(self) -> Ints:
        """Rows of each series that were sent and not good, int64[S]."""
        came = self._rows.now()[..., 0]
        lost: Ints = came.sum(axis=1) - came[:, Outcome.UNSENT]
        return lost

    def _waiting(self) -> Ints:
        """Rows of each series that have no outcome yet, int64[S]."""
        waiting: Ints = self._planned.unsealed() - self._rows.unsealed().sum(axis=(1, 2))
        return waiting

    # -- everything that is known, put together

    def _show(self, state: State) -> None:
        mine = [channel_of(s) for s in self._series]
        known = self._exporter.known(dict.fromkeys([*self._base.channels, *mine]))
        shown = self._of_run(replace(self._exporter.now, state=state, healthy=self._healthy))
        shown = self._of_channels(shown, known, mine)
        self._exporter.now = self._of_paths(shown, [channel[:3] for channel in mine])

    def _of_run(self, shown: Snapshot) -> Snapshot:
        base, flush = self._base, self._flush
        ready = self._cluster.ready_endpoints() if self._cluster else None
        return replace(
            shown,
            scheduled=_by_transport(base.scheduled, self._scheduled()),
            sent=_by_transport(base.sent, self._really_sent()),
            unsent=base.unsent + flush.unsent.sum(axis=0),
            lag=base.lag + bucketed(flush.lag),
            lag_s=base.lag_s + float(summed(flush.lag)),
            lookups=tuple(self._lookups.items()),
            slow_lookups=tuple(self._slow.items()),
            own_drops=base.own_drops + self._own_drops(),
            withheld_s=base.withheld_s + (self._quotas.withheld_ns() - self._withheld_ns) / NS,
            rate=sum(map(self._rate, self._series)),
            ready=ready,
            watched=None if self._cluster is None else ready is not None,
            rollouts=tuple(self._cluster.rollouts()) if self._cluster else (),
        )

    def _of_channels(self, shown: Snapshot, known: dict[Labels, bool], mine: list[Labels]) -> Snapshot:
        base, axis = self._base, _Axis(tuple(known), self._base.channels, mine)
        firsts = {s.channel: s.index for s in reversed(self._series)}
        counts, lasted_s, since = ints(len(mine)), floats(len(mine)), floats(len(mine))
        for name, outage in self._outages.now.items():
            if (first := firsts.get(name)) is None:
                continue
            counts[first], lasted_s[first] = outage.number - self._goes_on(name, outage), outage.lasted_ns / NS
            since[first] = self._since_s(name, outage)
        pods = dict.fromkeys(channel[:2] for channel in known if channel[1] == TargetKind.POD)
        asked = [s for s in self._series if known.get(channel_of(s))]
        return replace(
            shown,
            channels=axis.labels,
            channels_asked=tuple(known.values()),
            rows=axis.total(base.rows, self._rows.now()),
            outages=axis.total(base.outages, counts),
            outage_s=axis.total(base.outage_s, lasted_s),
            since=axis.total(floats(len(base.channels)), since),
            terminating=tuple((pod, pod[0] in self._exporter.ending) for pod in pods),
            addresses=tuple(dict.fromkeys((s.target.name, s.target.kind, s.target.address) for s in asked)),
        )

    def _goes_on(self, name: Name, outage: Outage) -> bool:
        """Whether its first window is the one in which the last run ended: it was not good for long enough since."""
        first = next(s for s in self._series if s.channel == name)
        return name in self._lost_before and outage.first_ns < first.start_ns + closing_ns(first)

    def _since_s(self, name: Name, outage: Outage) -> float:
        """When the open window began, s since 1970; 0 if none is."""
        if outage.since_ns is None:
            return 0.0
        goes_on = outage.since_ns == outage.first_ns and self._goes_on(name, outage)
        return self._lost_before[name] if goes_on else self._unix_s(outage.since_ns)

    def _of_paths(self, shown: Snapshot, mine: list[Labels]) -> Snapshot:
        base = self._base
        alive = dict.fromkeys(channel[:3] for channel in shown.channels)
        asked = {c[:3] for c, is_asked in zip(shown.channels, shown.channels_asked, strict=True) if is_asked}
        axis = _Axis(tuple(alive), base.paths, mine)
        started = np.array([s.start_ns for s in self._series], np.int64)
        good, bad = axis.latest(self._good_ns), axis.latest(self._bad_ns)
        since = np.where(good == NEVER, axis.latest(started), good)
        lost = axis.total(ints(len(base.paths)), self._lost())
        for path, good_ns, n in zip(alive, good.tolist(), lost.tolist(), strict=True):
            if good_ns > self._good.get(path, (NEVER, 0))[0]:
                self._good[path] = good_ns, n
        lost -= np.array([self._good.get(path, (NEVER, 0))[1] for path in alive], np.int64)
        return replace(
            shown,
            paths=axis.labels,
            paths_asked=tuple(path in asked for path in alive),
            buckets=axis.total(base.buckets, self._buckets.now()),
            sums=axis.total(base.sums, self._sums.now()),
            counters=axis.total(base.counters, self._flush.counters),
            in_flight=axis.total(ints(len(base.paths)), self._waiting()),
            up=((bad - since < DOWN_NS) | (lost < DOWN_ROWS)).astype(np.int64),
            success=np.where(good == NEVER, 0.0, (self._t0_unix_ns + good) / NS),
        )

    def _unix_s(self, at_ns: int) -> float:
        return (self._t0_unix_ns + at_ns) / NS

    def _rate(self, series: Series) -> float:
        """Queries a second that its schedule asks for now; 0 where there is none."""
        over = series.target.name in self._gone or not series.start_ns <= self._now_ns < series.stop_ns
        if over or series.shape.unbounded:
            return 0.0
        if course := self._courses.get(series.index):
            return float(np.diff(course.rows(self._now_ns + np.array([0, NS])))[0])
        return float(series.own_rate)

    def _scheduled(self) -> dict[str, int]:
        return self._summed(self._planned.now())

    def _really_sent(self) -> dict[str, int]:
        """A row that is waited for counts though it may come to nothing, so what was said is never taken back."""
        now = self._summed(self._rows.now()[..., 1].sum(axis=1) + self._lost())
        for transport, waiting in self._summed(self._waiting()).items():
            self._sent[transport] = max(self._sent.get(transport, 0), now[transport] + waiting)
        return self._sent

    def _summed(self, table: Ints) -> dict[str, int]:
        """By transport."""
        found = dict.fromkeys((s.transport for s in self._series), 0)
        for series, n in zip(self._series, table.tolist(), strict=False):
            found[series.transport] += n
        return found


class _Axis:
    """The rows of a table, by labels: what earlier runs left there, and what each series adds."""

    def __init__(self, labels: tuple[Labels, ...], base: Sequence[Labels], mine: Sequence[Labels]) -> None:
        self.labels = labels
        place = {label: k for k, label in enumerate(labels)}
        nowhere = len(labels)
        self._base = np.array([place.get(label, nowhere) for label in base], np.int64)
        self._mine = np.array([place.get(label, nowhere) for label in mine], np.int64)

    def total(self, base: NDArray[N], new: NDArray[N]) -> NDArray[N]:
        """Both; `new` may lack the last series."""
        table = np.zeros((len(self.labels) + 1, *base.shape[1:]), base.dtype)
        np.add.at(table, self._base, base)
        np.add.at(table, self._mine[: len(new)], new)
        return table[:-1]

    def latest(self, new: Ints) -> Ints:
        """The largest of the series' values; NEVER without any."""
        table = np.full(len(self.labels) + 1, NEVER)
        np.maximum.at(table, self._mine[: len(new)], new)
        return table[:-1]


def channel_of(series: Series) -> Labels:
    """Its labels, as CHANNEL has them."""
    target = series.target
    return (target.name, target.kind.value, series.transport, series.ports.policy, series.lane)


def _by_transport(base: tuple[tuple[str, int], ...], more: dict[str, int]) -> tuple[tuple[str, int], ...]:
    before = dict(base)
    return tuple((transport, before.get(transport, 0) + more.get(transport, 0)) for transport in {**before, **more})


def _last_good_ns(columns: Columns) -> Ints:
    """When the last good row of each series was due, to the beginning of its 100 ms."""
    good = columns.counts[..., 1].sum(axis=2) > 0
    bucket = good.shape[1] - 1 - good[:, ::-1].argmax(axis=1)
    return np.where(good.any(axis=1), columns.second * NS + bucket * BUCKET_NS, NEVER)


def _latest(before: Ints, now: Ints) -> Ints:
    """The larger of both; either may lack the last series."""
    latest = np.full(max(len(before), len(now)), NEVER)
    latest[: len(before)] = before
    latest[: len(now)] = np.maximum(latest[: len(now)], now)
    return latest
