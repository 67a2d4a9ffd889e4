"""Drawings, or a rule for every row -> a real run file, written minute by minute."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from probe.histogram import BINS, bins_of
from probe.model import BUCKET_NS, NS, Failure, Interval, Mark, Ports, Question, Series, Target, TargetKind
from probe.outcome import REPLIED, Counter, Outcome, UnsentCause
from probe.recorder import BUCKETS, Answered, Columns, Duration, Flush
from probe.runfile import Head, Run, RunWriter, open_run
from probe.schedule import pacer_of

MS = 1_000_000
STARTED = 1_790_000_000 * NS
"""t0 of every synthetic run: 2026-09-21T14:13:20Z."""

MINUTE = 60
"""Seconds in a flush here: the engine flushes each one, the disk takes its time."""

Fate = Callable[[Series, int], "Outcome | None"]
"""What becomes of the row of a series that is due at an instant; None: undecided."""
Latency = int | Callable[[int], int]
"""ns from due to reply, of every row that is replied to, or of the row that is due at an instant."""

LEGEND: dict[str, Outcome | None] = {
    ".": Outcome.ANSWER,
    "x": Outcome.TIMEOUT,
    "t": Outcome.TIMEOUT,
    "r": Outcome.CONNECTION_REFUSED,
    "s": Outcome.SERVFAIL,
    "n": Outcome.NXDOMAIN,
    "c": Outcome.CONNECTION_LOST,
    "u": Outcome.UNSENT,
    "?": None,
}


def series_of(
    index: int = 0,
    lane: str = "vip-udp",
    target: str = "service",
    kind: TargetKind = TargetKind.SERVICE,
    rate: Fraction | int = 1,
    seconds: float = 10,
    transport: str = "udp",
    ports: str = "fresh",
    qtype: str = "A",
    offset_ns: int = 0,
    start_ns: int = 0,
    address: str = "127.53.0.10",
    side: str = "",
) -> Series:
    """One series, with what a test does not care about filled in."""
    return Series(
        index=index,
        lane=lane,
        target=Target(target, kind, address, 53, side),
        transport=transport,
        ports=Ports.parse(ports, transport),
        qtype=qtype,
        questions=(Question.of("kubernetes.default.svc.cluster.local.", qtype),),
        rate=Fraction(rate),
        offset_ns=offset_ns,
        start_ns=start_ns,
        stop_ns=start_ns + int(seconds * NS),
        timeout_ns=2 * NS,
    )


def columns_of(series: Sequence[Series], fate: Fate, latency: Latency = MS, sealed: bool = True) -> list[Columns]:
    """The columns of a whole run, one for each second."""
    width = len(series)
    last = max(s.stop_ns for s in series)
    found = [_empty(second, width, sealed) for second in range(-(-last // NS))]
    for i, s in enumerate(series):
        for due in pacer_of(s).take(s.stop_ns, 10**9).tolist():
            columns, bucket = found[due // NS], due % NS // BUCKET_NS
            columns.planned[i, bucket] += 1
            outcome = fate(s, due)
            if outcome is None:
                continue
            good = outcome in s.questions[0].expect.outcomes
            columns.counts[i, bucket, outcome, int(good)] += 1
            latency_ns = latency if isinstance(latency, int) else latency(due)
            replied = outcome in REPLIED
            connected = replied and (s.transport, s.ports.policy) == ("tcp", "fresh")
            lasted = [(Duration.RTT, latency_ns)] * replied + [(Duration.LATENCY, latency_ns)] * good
            lasted += [(Duration.CONNECT, latency_ns // 2)] * connected
            for duration, ns in lasted:
                columns.durations[i, duration, bins_of(np.array([ns]))[0]] += 1
                columns.maxima[i, duration] = max(ns, columns.maxima[i, duration])
            if not good and outcome is not Outcome.UNSENT:
                if columns.first_bad[i, bucket] < 0:
                    columns.first_bad[i, bucket] = due
                columns.last_bad[i, bucket] = due
    return found


def _empty(second: int, series: int, sealed: bool) -> Columns:
    return Columns(
        second=second,
        sealed=sealed,
        planned=np.zeros((series, BUCKETS), np.int64),
        counts=np.zeros((series, BUCKETS, len(Outcome), 2), np.int64),
        first_bad=np.full((series, BUCKETS), -1, np.int64),
        last_bad=np.full((series, BUCKETS), -1, np.int64),
        durations=np.zeros((series, len(Duration), BINS), np.int64),
        maxima=np.zeros((series, len(Duration)), np.int64),
    )


def flush_of(columns: list[Columns], series: int, failures: Iterable[Failure] = (), lag_ns: int = 20_000) -> Flush:
    """A flush of some columns; unsent rows are put down to stalls."""
    unsent = np.zeros((series, len(UnsentCause)), np.int64)
    lag = np.zeros(BINS, np.int64)
    for c in columns:
        unsent[:, UnsentCause.STALL] += c.counts[:, :, Outcome.UNSENT].sum(axis=(1, 2))
        lag[bins_of(np.array([lag_ns]))[0]] += c.counts.sum() - c.counts[:, :, Outcome.UNSENT].sum()
    return Flush(columns, unsent, np.zeros((series, len(Counter)), np.int64), lag, lag_ns, list(failures))


def written(
    path: Path,
    series: Sequence[Series],
    fate: Fate,
    *,
    name: str = "synthetic",
    marks: Iterable[Mark] = (),
    intervals: Iterable[Interval] = (),
    objectives: tuple[str, ...] = (),
    facts: dict[str, str] | None = None,
    latency: Latency = MS,
    counters: Mapping[tuple[int, Counter], int] | None = None,
    servers: Mapping[str, Sequence[tuple[int, int, int]]] | None = None,
    finish: bool = True,
    cut: str = "",
) -> Run:
    """Writes the run to `path` and reads it again; without finish, as kill -9 leaves it: the .db alone.

    counters: what was counted beside the rows, by series and counter; servers: of each series, by who
    answered, how many rows and when (ns) the first and the last were due.
    """
    columns = columns_of(series, fate, latency)
    end_ns = max(s.stop_ns for s in series)
    head = Head(name, STARTED, end_ns, f"dnsprobe run {name}", "", objectives, facts or {})
    writer = RunWriter.create(path, head)
    writer.add_series(series)
    for mark in marks:
        writer.mark(mark)
    for interval in intervals:
        writer.interval(interval)
    for at in range(0, len(columns), MINUTE):
        total = flush_of(columns[: at + MINUTE], len(series))
        for (index, counter), n in (counters or {}).items():
            total.counters[index, counter] = n
        new = columns[at : at + MINUTE]
        named = {nsid: Answered(*np.array(told).T) for nsid, told in (servers or {}).items()}
        writer.flush(replace(total, columns=new, servers=named), (at + len(new)) * NS)
    if finish:
        writer.finish(end_ns, cut)
        return open_run(path)
    copy = path.with_suffix(".copy.db")
    copy.write_bytes(path.read_bytes())
    writer.finish(end_ns)
    path.unlink()
    return open_run(copy)


def drawn(drawing: str, rate: Fraction | int = 1) -> Fate:
    """One sign a row, in due order (see LEGEND); rows after the drawing's end are good."""

    def fate(series: Series, due_ns: int) -> Outcome | None:
        i = round((due_ns - series.start_ns - series.offset_ns) * rate / NS)
        return LEGEND[drawing[i]] if i < len(drawing) else Outcome.ANSWER

    return fate
