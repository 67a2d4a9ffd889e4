"""Durations in, counts that add; counts in, quantiles within 1.6 % of what the durations say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from probe.histogram import BINS, FLOOR_NS, OCTAVES, SUBBITS, bins_of, lower_edge_ns, quantile_ns

CEILING_NS = FLOOR_NS << OCTAVES
WIDTH = 1 / (1 << SUBBITS)
EDGES = [lower_edge_ns(i) for i in range(BINS + 1)]
in_range = st.floats(math.log(FLOOR_NS), math.log(CEILING_NS - 1)).map(lambda x: int(math.exp(x)))


def counts_of(durations: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.bincount(bins_of(np.array(durations, np.int64)), minlength=BINS)


def test_bins_ascend_without_a_gap_and_are_at_most_3_2_percent_wide() -> None:
    assert EDGES[0] == FLOOR_NS
    assert EDGES[-1] == CEILING_NS
    widths = np.diff(EDGES) / np.array(EDGES[:-1])
    assert widths.min() > 0
    assert widths.max() <= WIDTH <= 0.032


def test_every_edge_opens_its_own_bin() -> None:
    edges = np.array(EDGES[:-1], np.int64)
    assert edges.tolist() == EDGES[:-1], "edges are whole nanoseconds"
    assert bins_of(edges).tolist() == list(range(BINS))
    assert bins_of(edges[1:] - 1).tolist() == list(range(BINS - 1))


@given(in_range)
def test_a_duration_stands_between_the_edges_of_its_bin(duration: int) -> None:
    (index,) = bins_of(np.array([duration])).tolist()
    assert EDGES[index] <= duration < EDGES[index + 1]


@given(st.integers(-(2**63), 2**63 - 1))
def test_whatever_the_duration_there_is_a_bin_for_it(duration: int) -> None:
    (index,) = bins_of(np.array([duration])).tolist()
    assert 0 <= index < BINS
    assert index > 0 or duration < EDGES[1]
    assert index < BINS - 1 or duration >= EDGES[-2]


@given(st.lists(in_range, min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_1_6_percent(durations: list[int], q: float) -> None:
    rank = max(1, math.ceil(q * len(durations) - 1e-9))
    exact = sorted(durations)[rank - 1]
    assert quantile_ns(counts_of(durations), q) == pytest.approx(exact, rel=0.016)


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99, 0.999, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_quantiles_agree_with_numpy(q: float, seed: int) -> None:
    durations = np.random.default_rng(seed).lognormal(math.log(2e6), 1.5, 50_000).astype(np.int64)
    expected = np.quantile(durations, q, method="inverted_cdf")
    assert quantile_ns(counts_of(durations.tolist()), q) == pytest.approx(expected, rel=0.016)


@given(st.lists(in_range, max_size=50), st.lists(in_range, max_size=50))
def test_counts_add(a: list[int], b: list[int]) -> None:
    assert (counts_of(a) + counts_of(b) == counts_of(a + b)).all()


@pytest.mark.parametrize(
    ("answered", "lost", "q", "infinite"),
    [(99, 1, 0.99, False), (99, 1, 0.991, True), (98, 2, 0.99, True), (0, 1, 0.0, True), (1, 10**6, 0.0, False)],
)
def test_lost_rows_count_as_infinite(answered: int, lost: int, q: float, infinite: bool) -> None:
    assert math.isinf(quantile_ns(counts_of([2_000_000] * answered), q, lost)) == infinite


def test_of_nothing_there_is_no_quantile() -> None:
    assert math.isnan(quantile_ns(np.zeros(BINS, np.int64), 0.5))
    assert math.isnan(quantile_ns(np.zeros(0, np.int64), 0.5))
    assert math.isinf(quantile_ns(np.zeros(0, np.int64), 0.5, lost=1))


def test_no_quantile_is_above_the_maximum_that_was_seen() -> None:
    counts = counts_of([1_000_000])
    assert quantile_ns(counts, 1.0) > 1_000_000
    assert quantile_ns(counts, 1.0, maximum=1_000_000) == 1_000_000


@given(hnp.arrays(np.int32, BINS, elements=st.integers(0, 2**31 - 1)))
def test_counts_that_fill_their_columns_do_not_overflow(counts: np.ndarray[tuple[int], np.dtype[np.int32]]) -> None:
    found = [quantile_ns(counts, q) for q in (0.0, 0.5, 0.9, 1.0)]
    assert not counts.any() or found == sorted(found)
