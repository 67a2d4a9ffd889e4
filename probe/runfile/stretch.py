"""A run file, and how far back -> the Run of that stretch alone, of a run that is over as of one that goes on.

What such a Run holds belongs to the stretch: its t0 is where the stretch begins, so whoever looks at a run can look at
it. Only sums that are kept by the time of a flush (counters, causes of unsent rows, lag, who answered) are those of the
seconds between two flushes: of rows that were due a timeout earlier or later.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from probe.histogram import lower_edge_ns
from probe.model import NS, Interval, Leg, Mark, Series
from probe.recorder import BUCKETS, Answered
from probe.runfile.checkpoints import LEFT_OUT, NEAR_S, SERVER, Checkpoint, read_checkpoint, read_checkpoints
from probe.runfile.packed import Ints
from probe.runfile.reader import Bad, Counts, Run, Waiting, opened
from probe.runfile.samples import Metric
from probe.runfile.schema import SLICE_SECONDS

ALIVE_S = 10.0
"""A run that goes on writes its file every second: one that was not written for so long is no more."""
STRETCH = "stretch"
"""The fact that says of which run this is a part."""


def open_stretch(path: Path | str, last_ns: int = 0) -> Run:
    """The last so many ns of a run, or all that is kept of it (0); UsageError as open_run() has it.

    It begins up to 10 s earlier, where sums are known, and, of a run that goes on, ends where all is decided.
    """
    with opened(path) as (run, db):
        going = not run.finished and _is_written(Path(path))
        known = read_checkpoints(db)
        to_ns = max(0, min(run.decided_ns, run.end_ns // NS * NS - NS)) if going else run.end_ns
        kept_s = known[0] if known else 0
        from_s = max(kept_s, (to_ns - last_ns) // NS if last_ns else 0)
        if not from_s and not going:
            return run
        base = _base(db, known, from_s)
        if base is None:
            from_s = from_s // SLICE_SECONDS * SLICE_SECONDS
        return _cut(run, base.second if base else from_s, to_ns, base, going)


def _is_written(path: Path) -> bool:
    """By a process that lives: it has the log open, and wrote just now."""
    log = Path(f"{path}-wal")
    if not log.exists():
        return False
    with suppress(OSError):
        return time.time() - max(log.stat().st_mtime, path.stat().st_mtime) < ALIVE_S
    return False


def _base(db: sqlite3.Connection, known: Sequence[int], from_s: int) -> Checkpoint | None:
    """The last checkpoint before; None if there is none nearby: then nobody knows the stretch's own sums."""
    before = max((second for second in known if second <= from_s), default=-math.inf)
    return read_checkpoint(db, int(before)) if from_s - before <= NEAR_S else None


def _cut(run: Run, from_s: int, to_ns: int, base: Checkpoint | None, going: bool) -> Run:
    from_ns = from_s * NS
    home = _home(run, from_ns)
    rows = run.counts
    counts = _Rows(rows.series, rows.bucket, BUCKETS, from_s, to_ns, home)
    bad = _Rows(run.bad.series, run.bad.bucket, BUCKETS, from_s, to_ns, home)
    waiting = _Rows(run.in_flight.series, run.in_flight.second, 1, from_s, to_ns, home)
    kept = np.flatnonzero(home >= 0)
    sums = _Sums(run, base)
    text = f"the last {(to_ns - from_ns) / NS:,.0f} s of a run that lasted {run.end_ns / NS:,.0f} s"
    if going:
        text = f"{(to_ns - from_ns) / NS:,.0f} s of a run that goes on, {run.end_ns / NS:,.0f} s after its start"
    if base is None and from_s:
        text += "; counters, lag and who answered are those of the whole run, and left out"
    return replace(
        run,
        head=replace(
            run.head,
            started_unix_ns=run.head.started_unix_ns + from_ns,
            planned_ns=to_ns - from_ns if going else max(0, run.head.planned_ns - from_ns),
            facts={**run.head.facts, STRETCH: text},
        ),
        series=tuple(_later(run.series[s], int(home[s]), from_ns) for s in kept),
        marks=tuple(_marks(run.marks, from_ns, to_ns)),
        intervals=tuple(_intervals(run.intervals, from_ns, to_ns)),
        failures=tuple(
            replace(f, series=int(home[f.series]), due_ns=f.due_ns - from_ns, sent_ns=max(0, f.sent_ns - from_ns))
            for f in run.failures
            if from_ns <= f.due_ns < to_ns and home[f.series] >= 0
        ),
        failures_left_out=sums.failures_left_out,
        counts=Counts(counts.series, counts.at, *counts.of(rows.width, rows.outcome, rows.good, rows.n)),
        bad=Bad(bad.series, bad.at, *(instants - from_ns for instants in bad.of(run.bad.first_ns, run.bad.last_ns))),
        in_flight=Waiting(waiting.series, waiting.at, *waiting.of(run.in_flight.n)),
        histograms=run.histograms.within(from_s, -(-to_ns // NS), home),
        unsent=sums.unsent[kept],
        counters=sums.counters[kept],
        lag=sums.lag,
        lag_max_ns=sums.lag_max_ns,
        end_ns=to_ns - from_ns,
        cut="" if going else run.cut,
        doubts=tuple(replace(doubt, text=f"of the whole run: {doubt.text}") for doubt in run.doubts),
        servers=dict(sums.servers(kept, from_ns)),
        vantages=(),
        metrics=tuple(_metric(metric, from_ns, to_ns) for metric in run.metrics),
        going=going,
    )  # fmt: skip


def _home(run: Run, from_ns: int) -> Ints:
    """Which series of the stretch each series is: int64[S]; -1 if it was over before."""
    mine = np.array([s.stop_ns > from_ns for s in run.series], bool)
    return np.where(mine, np.cumsum(mine) - 1, -1)


class _Rows:
    """Those rows of a table that are due in the stretch; `at` counts `each` a second, from its beginning on."""

    def __init__(self, series: Ints, at: Ints, each: int, from_s: int, to_ns: int, home: Ints) -> None:
        self._mine = (at >= from_s * each) & (at * NS < to_ns * each) & (home[series] >= 0)
        self.series, self.at = home[series[self._mine]], at[self._mine] - from_s * each

    def of(self, *columns: Ints) -> Iterator[Ints]:
        """Other columns of the table."""
        return (column[self._mine] for column in columns)


class _Sums:
    """What has been counted since the start, less what had been at the base; nothing where no base is known."""

    def __init__(self, run: Run, base: Checkpoint | None) -> None:
        self._run, self._base = run, base
        self.unsent = self._less("unsent", run.unsent)
        self.counters = self._less("counters", run.counters)
        self.lag = self._less("lag", run.lag)
        self.failures_left_out = int(self._less(LEFT_OUT, np.array([run.failures_left_out]))[0])
        top = int(np.flatnonzero(self.lag)[-1]) if self.lag.any() else -1
        self.lag_max_ns = min(run.lag_max_ns, int(lower_edge_ns(top + 1)))

    def _less(self, what: str, table: Ints) -> Ints:
        if self._base is None:
            return np.zeros_like(table)
        return table - self._base.table(what, table.size).reshape(table.shape)

    def servers(self, kept: Ints, from_ns: int) -> Iterator[tuple[str, Answered]]:
        """Who answered; of one who had done so before, the first row was due at the stretch's beginning or later."""
        for nsid, by in self._run.servers.items():
            n = self._less(f"{SERVER}{nsid}", by.n)[kept]
            if n.any():
                first = np.where(n > 0, np.maximum(by.first_ns[kept] - from_ns, 0), np.iinfo(np.int64).max)
                yield nsid, Answered(n, first, np.where(n > 0, by.last_ns[kept] - from_ns, -1))


def _later(s: Series, index: int, from_ns: int) -> Series:
    """A series as it is to whom the run begins then: its rows are due at the same instants, along legs to one row."""
    shape = replace(s.shape, legs=tuple(_rest(s.shape.legs, from_ns)))
    return replace(s, index=index, shape=shape, start_ns=s.start_ns - from_ns, stop_ns=s.stop_ns - from_ns)


def _rest(legs: Sequence[Leg], from_ns: int) -> Iterator[Leg]:
    """What is left of the legs at an instant; once they are over, how the last one left the rate."""
    at = 0
    for leg in legs:
        begin, at = max(at, from_ns), at + leg.duration_ns
        if begin < at:
            done = 1 - Fraction(at - begin, leg.duration_ns)
            share = leg.from_share + (leg.to_share - leg.from_share) * done
            yield replace(leg, duration_ns=at - begin, from_share=share)
    if legs and at <= from_ns:
        yield Leg(1, legs[-1].to_share, legs[-1].to_share)


def _marks(marks: Sequence[Mark], from_ns: int, to_ns: int) -> Iterator[Mark]:
    """Those of the stretch, and the beginning of a rollout that was going on when it began."""
    rolling: dict[str, Mark] = {}
    for mark in marks:
        if mark.kind == "rollout_started" and mark.at_ns < from_ns:
            rolling[mark.subject] = mark
        elif mark.kind == "rollout_done" and mark.at_ns < from_ns:
            rolling.pop(mark.subject, None)
    mine = [*rolling.values(), *(mark for mark in marks if from_ns <= mark.at_ns <= to_ns)]
    return (replace(mark, at_ns=mark.at_ns - from_ns) for mark in mine)


def _intervals(intervals: Sequence[Interval], from_ns: int, to_ns: int) -> Iterator[Interval]:
    for interval in intervals:
        if interval.to_ns > from_ns and interval.from_ns < to_ns:
            yield replace(interval, from_ns=interval.from_ns - from_ns, to_ns=interval.to_ns - from_ns)


def _metric(metric: Metric, from_ns: int, to_ns: int) -> Metric:
    """From the value that stood when the stretch began."""
    first = max(0, int(np.searchsorted(metric.at_ns, from_ns, side="right")) - 1)
    mine = slice(first, int(np.searchsorted(metric.at_ns, to_ns)))
    return replace(metric, at_ns=np.maximum(metric.at_ns[mine] - from_ns, 0), value=metric.value[mine])
