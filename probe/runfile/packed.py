"""One second of Columns -> the rows and sparse histograms that are stored; and the blobs histograms are kept in."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probe.histogram import BINS
from probe.recorder import BUCKETS, Columns, Duration

Ints = NDArray[np.int64]
Rows = list[tuple[int, ...]]

_CELLS = len(Duration) * BINS


@dataclass(frozen=True, slots=True)
class Sparse:
    """Histograms of many series: keys are (series x durations + duration) x BINS + bin; and the longest."""

    keys: Ints
    counts: Ints
    max_keys: Ints
    maxima: Ints

    @classmethod
    def of(cls, columns: Columns) -> Sparse:
        """What is not zero in a second's durations."""
        flat = columns.durations.reshape(-1)
        keys = np.flatnonzero(flat)
        longest = columns.maxima.reshape(-1)
        max_keys = np.flatnonzero(longest)
        return cls(keys, flat[keys], max_keys, longest[max_keys])

    @classmethod
    def unpacked(cls, counts: bytes, maxima: bytes, home: Ints) -> Sparse:
        """What blobs() made; series s of it becomes home[s], int64[series]."""
        series, duration, index, n = unpack_counts(counts)
        keys = (home[series] * len(Duration) + duration) * BINS + index
        series, duration, longest = unpack_maxima(maxima)
        return cls(keys, n, home[series] * len(Duration) + duration, longest)

    @classmethod
    def total(cls, parts: Iterable[Sparse]) -> Sparse:
        """Counts add; of two maxima the longer stays."""
        some = list(parts)
        keys, where = np.unique(np.concatenate([p.keys for p in some]), return_inverse=True)
        counts = np.zeros(len(keys), np.int64)
        np.add.at(counts, where, np.concatenate([p.counts for p in some]))
        max_keys, where = np.unique(np.concatenate([p.max_keys for p in some]), return_inverse=True)
        maxima = np.zeros(len(max_keys), np.int64)
        np.maximum.at(maxima, where, np.concatenate([p.maxima for p in some]))
        return cls(keys, counts, max_keys, maxima)

    def only(self, series: Ints, kept: bool) -> Sparse:
        """Those of the given series (kept) or those of all others (not kept)."""
        mine = np.isin(self.keys // _CELLS, series, invert=not kept)
        longest = np.isin(self.max_keys // len(Duration), series, invert=not kept)
        return Sparse(self.keys[mine], self.counts[mine], self.max_keys[longest], self.maxima[longest])

    def blobs(self) -> tuple[bytes, bytes]:
        """`counts` and `maxima` as the table histograms describes them."""
        series, cell = np.divmod(self.keys, _CELLS)
        duration, index = np.divmod(cell, BINS)
        counts = np.stack([series, duration, index, self.counts]).astype("<u4")
        series, duration = np.divmod(self.max_keys, len(Duration))
        maxima = np.stack([series, duration, self.maxima]).astype("<i8")
        return zlib.compress(counts.tobytes(), 6), zlib.compress(maxima.tobytes(), 6)


def unpack_counts(blob: bytes) -> Ints:
    """int64[4, k]: series, duration, bin, count."""
    return np.frombuffer(zlib.decompress(blob), "<u4").reshape(4, -1).astype(np.int64)


def unpack_maxima(blob: bytes) -> Ints:
    """int64[3, k]: series, duration, the longest in ns."""
    return np.frombuffer(zlib.decompress(blob), "<i8").reshape(3, -1).astype(np.int64)


@dataclass(frozen=True, slots=True)
class PackedSecond:
    """A second as it is stored: table rows, histograms, and the series that had a row that was not good."""

    second: int
    sealed: bool
    seconds: Rows
    tenths: Rows
    bad: Rows
    in_flight: Rows
    durations: Sparse
    lossy: Ints

    @classmethod
    def of(cls, columns: Columns) -> PackedSecond:
        """Nothing of `columns` is kept: its arrays may be written again."""
        counts, second = columns.counts, columns.second
        not_good = counts[..., 0].sum(axis=(1, 2)) > 0
        whole = counts.sum(axis=1)
        whole[not_good] = 0
        series, outcome, good = np.nonzero(whole)
        seconds = _rows(second, series, outcome, good, whole[series, outcome, good])
        fine = np.where(not_good[:, None, None, None], counts, 0)
        series, bucket, outcome, good = np.nonzero(fine)
        tenths = _rows(second * BUCKETS + bucket, series, outcome, good, fine[series, bucket, outcome, good])
        series, bucket = np.nonzero(columns.first_bad >= 0)
        first, last = columns.first_bad[series, bucket], columns.last_bad[series, bucket]
        bad = _rows(second * BUCKETS + bucket, series, first, last)
        waiting = columns.planned.sum(axis=1) - counts.sum(axis=(1, 2, 3))
        series = np.flatnonzero(waiting)
        in_flight = _rows(second, series, waiting[series])
        lossy = np.flatnonzero(not_good)
        return cls(second, columns.sealed, seconds, tenths, bad, in_flight, Sparse.of(columns), lossy)


def _rows(first: Ints | int, *columns: Ints) -> Rows:
    if isinstance(first, int):
        first = np.full(len(columns[0]), first, np.int64)
    return list(zip(first.tolist(), *(c.tolist() for c in columns), strict=True))
