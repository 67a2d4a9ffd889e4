"""Counts and latencies of two runs -> whether they differ by more than chance: Fisher's exact test, and a bootstrap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from probe.histogram import quantiles_ns
from probe.timeline.spans import Ints

LEVEL = 0.01
"""A difference that chance alone makes more rarely than this exceeds noise."""
DRAWS = 1_000
FEWEST_SLICES = 5
"""Latencies of fewer slices than this say nothing of how much they vary."""


def fisher(lost: int, of: int, other_lost: int, other_of: int) -> float:
    """How probable it is, both losing alike, that the counts differ as much as they do, or more (two-sided).

    R. A. Fisher, Statistical Methods for Research Workers, 1934, 21.02; sums what is not more probable than the counts.
    """
    whole, gone = of + other_of, lost + other_lost
    first, last = max(0, gone - other_of), min(gone, of)
    k = np.arange(first, last, dtype=np.float64)
    # From one table to the next: the ratio of their hypergeometric probabilities.
    steps = np.log((gone - k) / (k + 1)) + np.log((of - k) / (whole - gone - of + k + 1))
    log_p = np.concatenate([[0.0], np.cumsum(steps)])
    p = np.exp(log_p - log_p.max())
    return float(min(1.0, p[p <= p[lost - first] * (1 + 1e-7)].sum() / p.sum()))


def ratio_range(slices: Ints, other: Ints, q: float) -> tuple[float, float] | None:
    """Between which bounds the q-quantile of `other` to that of `slices` lies, 99 of 100 times (percentile bootstrap).

    Histograms by slices of time, int64[n, BINS], from which as many are drawn again and again, whole slices at a time,
    as neighbours are alike (Kuensch 1989); None if there are too few of them.
    """
    if min(len(slices), len(other)) < FEWEST_SLICES:
        return None
    draw = np.random.default_rng(1)
    one, two = (quantiles_ns(_drawn(draw, some), q) for some in (slices, other))
    low, high = np.quantile(two / one, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def _drawn(draw: np.random.Generator, slices: Ints) -> NDArray[np.float64]:
    """Sums of slices that were drawn, float64[DRAWS, BINS]."""
    n = len(slices)
    times = draw.multinomial(n, np.full(n, 1 / n), size=DRAWS)
    return np.asarray(times.astype(np.float64) @ slices.astype(np.float64))
