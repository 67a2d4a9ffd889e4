"""Finished rows -> time-bucketed columns in shared memory; recorders of several workers add."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from probe.model import Failure

BUCKETS = 10
"""100 ms buckets in a second."""


class Duration(IntEnum):
    """The durations that are kept as histograms."""

    LATENCY = 0
    """From due to reply: what a client on schedule would have waited."""
    RTT = 1
    """From send to reply: what network and server took."""
    CONNECT = 2
    """From SYN to open connection, TCP only."""


@dataclass(frozen=True, slots=True)
class Columns:
    """One second of due instants, every series of the run; S series, O outcomes, BINS histogram bins.

    A row counts in the bucket in which it was due, whenever it finished.
    planned: int64[S, 10]; counts: int64[S, 10, O, 2], the last axis 0 not good, 1 good;
    first_bad, last_bad: int64[S, 10], due instants in ns since t0 of the first and last row that was not good, -1 if none;
    durations: int64[S, 3, BINS] by Duration; maxima: int64[S, 3] in ns, 0 if none.
    sealed: no row of this second can change any more. in flight = planned - counts.sum((2, 3)), never negative.
    """

    second: int
    sealed: bool
    planned: NDArray[np.int64]
    counts: NDArray[np.int64]
    first_bad: NDArray[np.int64]
    last_bad: NDArray[np.int64]
    durations: NDArray[np.int64]
    maxima: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Flush:
    """What the parent hands to the run file each second.

    columns: every second that changed since the last flush, oldest first (unsealed ones come again).
    unsent: int64[S, len(UnsentCause)] and counters: int64[S, len(Counter)], cumulative;
    lag: int64[BINS], cumulative counts of send - due of every sent row; lag_max_ns. failures: new ones only.
    """

    columns: list[Columns]
    unsent: NDArray[np.int64]
    counters: NDArray[np.int64]
    lag: NDArray[np.int64]
    lag_max_ns: int
    failures: list[Failure]
