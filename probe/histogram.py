"""Durations in nanoseconds -> log-linear counts that add; counts -> quantiles."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

SUBBITS = 5
"""2^5 bins an octave: a bin is at most 3.2 % wide, a quantile (its middle) at most 1.6 % off."""
FLOOR_NS = 1024
"""Shorter durations land in the first bin."""
OCTAVES = 26
"""1.024 us x 2^26 = 68 s; longer durations land in the last bin."""
BINS = OCTAVES << SUBBITS

_SHIFT = 52 - SUBBITS
_FIRST = int(np.array([FLOOR_NS], np.float64).view(np.int64)[0]) >> _SHIFT


def bins_of(nanoseconds: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bin of each duration: int64[n] -> int64[n] in [0, BINS)."""
    # A double is its exponent, then its mantissa: shifted so far that SUBBITS of that are left, it counts bins.
    bits = nanoseconds.astype(np.float64).view(np.int64) >> _SHIFT
    bins: NDArray[np.int64] = np.minimum(np.maximum(bits - _FIRST, 0), BINS - 1)
    return bins


def lower_edge_ns(bin_index: int) -> float:
    """Where a bin begins, in ns."""
    octave, within = divmod(bin_index, 1 << SUBBITS)
    return math.ldexp(FLOOR_NS * (1.0 + within / (1 << SUBBITS)), octave)


def quantile_ns(counts: NDArray[np.integer], q: float, lost: int = 0, maximum: float = math.inf) -> float:
    """The q-quantile in ns: the middle of its bin, at most `maximum`; `lost` rows count as infinite.

    nan if there is nothing to rank. Rank is the ceiling: the smallest value that at least q of all rows do not exceed.
    """
    cumulative = np.cumsum(counts, dtype=np.int64)
    answered = int(cumulative[-1]) if len(cumulative) else 0
    if answered + lost == 0:
        return math.nan
    rank = max(1, math.ceil(q * (answered + lost) - 1e-9))
    if rank > answered:
        return math.inf
    index = int(np.searchsorted(cumulative, rank))
    return min((lower_edge_ns(index) + lower_edge_ns(index + 1)) / 2, maximum)


def quantiles_ns(counts: NDArray[np.float64], q: float) -> NDArray[np.float64]:
    """The q-quantile of each of many histograms, float64[n, BINS] -> ns, float64[n]; no row may be empty."""
    cumulative = np.cumsum(counts, axis=1)
    index = (cumulative < q * cumulative[:, -1:] - 1e-9).sum(axis=1)
    edges = np.array([lower_edge_ns(k) for k in range(BINS + 1)])
    return np.asarray((edges[index] + edges[index + 1]) / 2)
