"""A Snapshot: all that metrics say of one moment, which nobody changes any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from probe.cluster import Rollout
from probe.exporter.catalogue import DURATION_LE
from probe.model import Fate, Reason
from probe.outcome import Counter, Outcome, UnsentCause
from probe.recorder import Duration

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Labels = tuple[str, ...]
"""Values of labels, in the catalogue's order."""
LES = len(DURATION_LE) + 1
"""Buckets of a histogram, with +Inf."""


class State(StrEnum):
    """Where a run stands."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    LINGER = "linger"


def ints(*shape: int) -> Ints:
    """Zeros."""
    return np.zeros(shape, np.int64)


def floats(*shape: int) -> Floats:
    """Zeros."""
    return np.zeros(shape, np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Counts go on from run to run. C channels and P paths, by their labels; O outcomes.

    rows: int64[C, O, 2], good being 1. outages: int64[C], outage_s: float64[C], since: float64[C], when the open one
    began (s since 1970), 0 without.
    buckets: int64[P, 3, LES] by Duration, not yet cumulative; sums: float64[P, 3] in s; counters: int64[P, Counters];
    in_flight, up: int64[P]; success: float64[P], s since 1970, 0 for never.
    channels_asked, paths_asked: whether somebody is still asked there; of whom not there is no state, only counts.
    terminating, addresses: by target and its kind. scheduled, sent: by transport.
    lookups: by client profile and fate; slow_lookups: by client profile.
    ready: None if the cluster is not seen; watched: None if there is none. reloaded: None where nothing is.
    """

    state: State = State.STARTING
    scenario: str = ""
    mode: str = "run"
    started: Mapping[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))
    channels: tuple[Labels, ...] = ()
    channels_asked: tuple[bool, ...] = ()
    rows: Ints = field(default_factory=lambda: ints(0, len(Outcome), 2))
    outages: Ints = field(default_factory=lambda: ints(0))
    outage_s: Floats = field(default_factory=lambda: floats(0))
    since: Floats = field(default_factory=lambda: floats(0))
    paths: tuple[Labels, ...] = ()
    paths_asked: tuple[bool, ...] = ()
    buckets: Ints = field(default_factory=lambda: ints(0, len(Duration), LES))
    sums: Floats = field(default_factory=lambda: floats(0, len(Duration)))
    counters: Ints = field(default_factory=lambda: ints(0, len(Counter)))
    in_flight: Ints = field(default_factory=lambda: ints(0))
    up: Ints = field(default_factory=lambda: ints(0))
    success: Floats = field(default_factory=lambda: floats(0))
    terminating: tuple[tuple[Labels, bool], ...] = ()
    addresses: tuple[Labels, ...] = ()
    scheduled: tuple[tuple[str, int], ...] = ()
    sent: tuple[tuple[str, int], ...] = ()
    lookups: tuple[tuple[tuple[str, Fate], int], ...] = ()
    slow_lookups: tuple[tuple[str, int], ...] = ()
    unsent: Ints = field(default_factory=lambda: ints(len(UnsentCause)))
    lag: Ints = field(default_factory=lambda: ints(LES))
    lag_s: float = 0.0
    own_drops: int = 0
    withheld_s: float = 0.0
    healthy: bool = True
    rate: float = 0.0
    ready: int | None = None
    watched: bool | None = None
    rollouts: tuple[Rollout, ...] = ()
    reloaded: bool | None = None
