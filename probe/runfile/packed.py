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
        series, duration, index, n = unpack_counts(counts, len(home))
        keys = (home[series] * len(Duration) + duration) * BINS + index
        series, duration, longest = unpack_maxima(maxima, len(home))
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
        return _packed(self.keys, self.counts, "<u4"), _packed(self.max_keys, self.maxima, "<u8")


def _packed(keys: Ints, values: Ints, dtype: str) -> bytes:
    """Steps between ascending keys, then values: octets of like weight stand together, which packs better."""
    steps = np.diff(keys, prepend=0).astype("<u4")
    columns = [c.view(np.uint8).reshape(-1, c.itemsize).T for c in (steps, values.astype(dtype))]
    return zlib.compress(b"".join(column.tobytes() for column in columns), 6)


def _unpacked(blob: bytes, dtype: str, below: int) -> tuple[Ints, Ints]:
    """The keys and values that _packed() took. ValueError for more than there can be: few octets may stand for many."""
    size = np.dtype(dtype).itemsize
    inflate = zlib.decompressobj()
    octets = np.frombuffer(inflate.decompress(blob, (4 + size) * below + 1), np.uint8)
    if not inflate.eof:
        raise ValueError("what is packed in it goes on")
    if not (k := len(octets) // (4 + size)):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    steps, values = (
        np.ascontiguousarray(part.reshape(-1, k).T).view(kind).reshape(k).astype(np.int64)
        for part, kind in ((octets[: 4 * k], "<u4"), (octets[4 * k :], dtype))
    )
    keys = np.cumsum(steps)
    if keys[-1] >= below:
        raise ValueError("what is packed in it is of series that it does not describe")
    return keys, values


def pack_sums(table: Ints) -> bytes:
    """A table's cells that are not zero, by their place in it."""
    flat = table.reshape(-1)
    keys = np.flatnonzero(flat)
    return _packed(keys, flat[keys], "<u8")


def unpack_sums(blob: bytes, cells: int) -> tuple[Ints, Ints]:
    """Places and cells, int64[k] each, of a table that has no more than so many."""
    return _unpacked(blob, "<u8", cells)


def unpack_counts(blob: bytes, series: int) -> Ints:
    """int64[4, k]: series, of which there are so many, duration, bin, count."""
    keys, counts = _unpacked(blob, "<u4", series * _CELLS)
    whose, cell = np.divmod(keys, _CELLS)
    return np.stack([whose, *np.divmod(cell, BINS), counts])


def unpack_maxima(blob: bytes, series: int) -> Ints:
    """int64[3, k]: series, of which there are so many, duration, the longest in ns."""
    keys, maxima = _unpacked(blob, "<u8", series * len(Duration))
    return np.stack([*np.divmod(keys, len(Duration)), maxima])


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
    def of(cls, columns: Columns, paused: Ints) -> PackedSecond:
        """Nothing of `columns` is kept: its arrays may be written again. paused: series known by 100 ms at any time."""
        counts, second = columns.counts, columns.second
        not_good = counts[..., 0].sum(axis=(1, 2)) > 0
        in_tenths = not_good.copy()
        in_tenths[paused[paused < len(in_tenths)]] = True
        whole = counts.sum(axis=1)
        whole[in_tenths] = 0
        series, outcome, good = np.nonzero(whole)
        seconds = _rows(second, series, outcome, good, whole[series, outcome, good])
        fine = np.where(in_tenths[:, None, None, None], counts, 0)
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
