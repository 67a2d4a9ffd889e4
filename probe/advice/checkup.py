"""A short run over every path to cluster DNS -> what came of each path, beside what was seen of the cluster."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from probe.model import BESIDE, NS, Target, TargetKind
from probe.outcome import Counter, Outcome
from probe.recorder import Duration
from probe.resolv import ResolvConf
from probe.runfile import Run
from probe.timeline import Channel, Timeline, ranked_ns

OUTSIDE = "outside"
"""How the names of lanes end that ask for a name outside the cluster."""
SLOW_NS = NS // 10
"""A median above this is slow: kubernetes/perf-tests' mark for the 99th percentile."""


class State(StrEnum):
    """Of a path: answered in time, in part, not at all, or it cannot be said."""

    OK = "ok"
    SLOW = "slow"
    LOSS = "LOSS"
    DEAD = "DEAD"
    UNKNOWN = "?"


@dataclass(frozen=True, slots=True)
class Path:
    """One target, asked in one way. outside: for names outside the cluster, not in its own zone.

    asked: rows that were sent and decided; p50_ns, worst_ns: from due to answer, nan where none was;
    outcome: what most of the rows became that were not answered as expected, refusals pooled; None if all were.
    connects: TCP connections that opened.
    """

    target: Target
    transport: str
    outside: bool
    asked: int
    answered: int
    p50_ns: float = math.nan
    worst_ns: float = math.nan
    outcome: Outcome | None = None
    connects: int = 0

    @property
    def state(self) -> State:
        """What a row says first."""
        if not self.asked:
            return State.UNKNOWN
        if self.answered < self.asked:
            return State.LOSS if self.answered else State.DEAD
        return State.SLOW if self.p50_ns > SLOW_NS else State.OK

    def __str__(self) -> str:
        what = f"{self.target.name} by {self.transport.upper()}{' for names outside' * self.outside}"
        why = f" ({self.outcome.label})" if self.outcome else ""
        return f"{what}: {self.answered} of {self.asked} answered{why}"


@dataclass(frozen=True, slots=True)
class ApiServer:
    """The API server as it answered. seconds: of each answer; problem: why it cannot be asked, or ''.

    reached: it said something, if only that we may not.
    """

    server: str = ""
    version: str = ""
    seconds: tuple[float, ...] = ()
    asked: int = 0
    problem: str = ""
    reached: bool = False


@dataclass(frozen=True, slots=True)
class Checkup:
    """All that a check has seen. resolver: this pod's own, None where this is no pod; resolving: what it means, in
    sentences. in_lab: there is no cluster. beside: what is no DNS: pods' /ready and /health, nodes' kubelets.

    ready, wanted: CoreDNS pods that are Ready, and how many there should be, None where they cannot be seen.
    namespace: where cluster DNS lives; blind: why the cluster's objects could not be read, or ''.
    intercepted: who else may have answered, sentences. seconds: how long all of it took.
    """

    paths: tuple[Path, ...] = ()
    beside: tuple[Path, ...] = ()
    api: ApiServer = ApiServer()
    resolver: ResolvConf | None = None
    resolving: tuple[str, ...] = ()
    in_lab: bool = False
    ready: int = 0
    wanted: int | None = None
    namespace: str = "kube-system"
    domain: str = "cluster.local"
    facts: Mapping[str, str] = field(default_factory=dict)
    blind: str = ""
    not_seen: tuple[str, ...] = ()
    intercepted: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def in_pod(self) -> bool:
        """Whether it was made in a pod of the cluster."""
        return self.resolver is not None

    def of(self, *kinds: TargetKind, transport: str = "", outside: bool = False) -> list[Path]:
        """Its paths to targets of some kinds."""
        return [
            path
            for path in self.paths
            if path.target.kind in kinds and path.outside == outside and transport in ("", path.transport)
        ]

    def reached(self, *names: str) -> bool | None:
        """Whether these targets, or any beside DNS, took a connection at all; None if none was tried."""
        asked = (*self.beside, *(path for path in self.paths if path.transport == "tcp")) if names else self.beside
        mine = [path for path in asked if path.asked and (not names or path.target.name in names)]
        return any(path.answered or path.connects for path in mine) if mine else None

    @property
    def broken(self) -> list[Path]:
        """Paths that fail those who use them. An upstream that only we cannot reach harms nobody."""
        bad = [path for path in self.paths if path.state in (State.LOSS, State.DEAD, State.SLOW)]
        relayed = [path for path in self.paths if path.outside and path.target.kind is not TargetKind.UPSTREAM]
        if relayed and not any(path in bad for path in relayed):
            bad = [path for path in bad if path.target.kind is not TargetKind.UPSTREAM]
        return bad


def paths_of(run: Run) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """One for each lane and target, in the order in which they joined: those that ask DNS, and those beside it."""
    timeline = Timeline.of(run)
    paths = [_path(timeline, channel) for channel in timeline.channels]
    return tuple(p for p in paths if p.transport not in BESIDE), tuple(p for p in paths if p.transport in BESIDE)


def _path(timeline: Timeline, channel: Channel) -> Path:
    loss = channel.loss()
    counts, longest = timeline.run.histograms.total([s.index for s in channel.series], Duration.LATENCY)
    windows = timeline.by_channel.get(channel.name, [])
    worst = max(windows, key=lambda window: window.lost, default=None)
    return Path(
        target=channel.target,
        transport=channel.transport,
        outside=channel.lane.endswith(OUTSIDE),
        asked=loss.asked,
        answered=loss.good,
        p50_ns=ranked_ns(counts, longest, 0.5),
        worst_ns=ranked_ns(counts, longest, 1.0),
        outcome=worst.outcome if worst and loss.lost else None,
        connects=int(timeline.run.counters[[s.index for s in channel.series], Counter.CONNECTS].sum()),
    )
