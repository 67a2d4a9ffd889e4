"""Log-linear counts of durations -> the buckets of the catalogue, and their sum."""

from __future__ import annotations

import numpy as np

from probe.exporter.catalogue import DURATION_LE
from probe.exporter.snapshot import Floats, Ints
from probe.histogram import BINS, lower_edge_ns

_EDGES = np.array([lower_edge_ns(k) for k in range(BINS + 1)]) / 1e9
_STARTS = np.concatenate([[0], np.searchsorted(_EDGES[1:], DURATION_LE, side="right")])
"""Of each bucket, the first bin: up to the last one that ends by the bound before."""
_MIDDLES = (_EDGES[:-1] + _EDGES[1:]) / 2


def bucketed(counts: Ints) -> Ints:
    """int64[..., BINS] -> int64[..., LES], not cumulative.

    A bin that a bound cuts through counts above it, so that no duration is counted into a bucket it does not belong to.
    Bounds are 62.5 us x 2^k and bins 1/32 of an octave, which begin 0.06 % below each bound: a duration that is at most
    so much shorter than a bound counts in the next bucket, and every other where it belongs.
    """
    return np.add.reduceat(counts, _STARTS, axis=-1)


def summed(counts: Ints) -> Floats:
    """int64[..., BINS] -> seconds, each duration taken for the middle of its bin: at most 1.6 % off."""
    return np.asarray(counts @ _MIDDLES)
