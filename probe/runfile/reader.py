"""A run file, or a copy of one, finished or cut -> a Run: everything that timeline, verdict and report look at."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from probe.errors import UsageError
from probe.histogram import BINS
from probe.model import (
    NS,
    Doubt,
    Edns,
    Failure,
    Interval,
    Leg,
    Lookup,
    Mark,
    Ports,
    Question,
    Series,
    Shape,
    Slice,
    Target,
    TargetKind,
)
from probe.outcome import Counter, Outcome, UnsentCause
from probe.recorder import Answered, Duration
from probe.runfile.head import Head
from probe.runfile.lookups import read_lookups
from probe.runfile.packed import Ints, unpack_counts, unpack_maxima
from probe.runfile.samples import Metric, read_metrics
from probe.runfile.schema import APPLICATION_ID, SCHEMA_VERSION, UPGRADES
from probe.runfile.sound import check_values
from probe.runfile.vantage import Vantage, read_vantages
from probe.schedule import PACERS

Spans = Sequence[tuple[int, int]]
"""Stretches [from, to) of the run, ns since t0."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Finished rows by due bucket, int64[k] each: bucket is the first of `width` (1 or 10) buckets of 100 ms."""

    series: Ints
    bucket: Ints
    width: Ints
    outcome: Ints
    good: Ints
    n: Ints


@dataclass(frozen=True, slots=True)
class Bad:
    """Exact due instants of the first and last lost row (unsent apart) of a series and bucket, int64[k] each."""

    series: Ints
    bucket: Ints
    first_ns: Ints
    last_ns: Ints


@dataclass(frozen=True, slots=True)
class Waiting:
    """Rows that were due in a second and still undecided when it was last written, int64[k] each."""

    series: Ints
    second: Ints
    n: Ints


class Histograms:
    """The run's durations: entries sorted by series and duration, so that one series is one stretch of them."""

    def __init__(self, counts: Ints, maxima: Ints) -> None:
        """counts: int64[6, k]: second, width, series, duration, bin, count; maxima: int64[5, k]: ..., duration, ns."""
        self._counts = counts[:, np.lexsort((counts[0], counts[3], counts[2]))]
        self._maxima = maxima[:, np.lexsort((maxima[0], maxima[3], maxima[2]))]

    def within(self, from_second: int, to_second: int, home: Ints) -> Histograms:
        """Of the slices that touch [from_second, to_second), those of series s as home[s], int64[S], or left out: -1.

        Seconds count from from_second on.
        """

        def cut(table: Ints) -> Ints:
            mine = (table[0] < to_second) & (table[0] + table[1] > from_second) & (home[table[2]] >= 0)
            second, width, series, *rest = table[:, mine]
            return np.array([second - from_second, width, home[series], *rest])

        return Histograms(cut(self._counts), cut(self._maxima))

    def total(self, series: Iterable[int], duration: Duration, spans: Spans | None = None) -> tuple[Ints, int]:
        """Counts of some series together, int64[BINS], and the longest in ns (0 if none).

        With spans: of the slices (10 s; 1 s where something was lost) that touch any of them, each as a whole.
        """
        bins, longest = np.zeros(BINS, np.int64), 0
        for index in series:
            counts = _stretch(self._counts, index, duration, spans)
            np.add.at(bins, counts[4], counts[5])
            maxima = _stretch(self._maxima, index, duration, spans)
            longest = max(longest, int(maxima[4].max(initial=0)))
        return bins, longest

    def of(self, series: Iterable[int], duration: Duration) -> tuple[Ints, Ints]:
        """Of some series: second, width, bin, count, int64[4, k]; and the longest: second, width, ns, int64[3, m]."""
        mine = list(series)
        counts = self._counts[:, np.isin(self._counts[2], mine) & (self._counts[3] == duration)]
        maxima = self._maxima[:, np.isin(self._maxima[2], mine) & (self._maxima[3] == duration)]
        return counts[[0, 1, 4, 5]], maxima[[0, 1, 4]]


def _stretch(table: Ints, series: int, duration: Duration, spans: Spans | None) -> Ints:
    low, high = np.searchsorted(table[2], [series, series + 1])
    part = table[:, low:high]
    part = part[:, slice(*np.searchsorted(part[3], [duration, duration + 1]))]
    if spans is None:
        return part
    begins, ends = part[0] * NS, (part[0] + part[1]) * NS
    touched = np.zeros(part.shape[1], bool)
    for from_ns, to_ns in spans:
        touched |= (begins < to_ns) & (ends > from_ns)
    return part[:, touched]


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run as it was written. Times in ns since t0 (head.started_unix_ns); S series.

    end_ns: its end, or when it was last written if it never finished; cut: why it ended early, '' if it did not.
    going: it goes on.
    unsent: int64[S, len(UnsentCause)]; counters: int64[S, len(Counter)]; lag: int64[BINS], send minus due.
    servers: by the NSID of the server that answered. metrics: what others counted. lookups: clients'.
    doubts: of a merged run, those of its shards, of one made from a log, those told there; vantages: its probers.
    """

    path: Path
    version: str
    head: Head
    series: tuple[Series, ...]
    marks: tuple[Mark, ...]
    intervals: tuple[Interval, ...]
    failures: tuple[Failure, ...]
    failures_left_out: int
    counts: Counts
    bad: Bad
    in_flight: Waiting
    histograms: Histograms
    unsent: Ints
    counters: Ints
    lag: Ints
    lag_max_ns: int
    end_ns: int
    finished: bool
    cut: str
    doubts: tuple[Doubt, ...] = ()
    servers: Mapping[str, Answered] = field(default_factory=dict)
    vantages: tuple[Vantage, ...] = ()
    metrics: tuple[Metric, ...] = ()
    lookups: tuple[Lookup, ...] = ()
    going: bool = False

    @property
    def decided_ns(self) -> int:
        """What was due earlier has its outcome, or will have none: a worker that died leaves rows undecided for good.

        Later than end_ns where nothing was undecided then.
        """
        waiting_ns = int(self.in_flight.second.min(initial=1 << 32)) * NS
        patience_ns = max((s.timeout_ns for s in self.series), default=0) + NS
        return max(waiting_ns, self.end_ns - patience_ns)

    @property
    def ended(self) -> str:
        """Why the run was over, in order, before its duration was; '' if it was not."""
        return "; ".join(dict.fromkeys(mark.text for mark in self.marks if mark.kind == "ended"))


def open_run(path: Path | str, *, histograms: bool = True, since_second: int = 0) -> Run:
    """Reads a run file; never writes, not even beside it. UsageError says what is wrong with the file, if anything.

    One that an older dnsprobe wrote is upgraded, on a copy. histograms, since_second: as opened() has them.
    """
    with opened(path, histograms=histograms, since_second=since_second) as (run, _):
        return run


@contextmanager
def opened(
    path: Path | str, *, histograms: bool = True, since_second: int = 0
) -> Iterator[tuple[Run, sqlite3.Connection]]:
    """The same, with its database, which stays as it was read, also if the run is still going.

    histograms: they are most of a run; without them those of the Run are empty. since_second: rows that were due
    earlier are left out, so that who looks each second at a run that goes on need not read all of it each time.
    """
    path = Path(path)
    version = schema_of(path)
    if not 1 <= version <= SCHEMA_VERSION:
        raise UsageError(
            f"{path}: has run file schema {version}, this dnsprobe reads {SCHEMA_VERSION} and older: use a newer one"
        )
    with ExitStack() as stack:
        try:
            db = stack.enter_context(closing(_connect(path)))
            if begun := db.execute("SELECT 1 FROM sqlite_schema").fetchone():
                if version < SCHEMA_VERSION:
                    db = stack.enter_context(closing(_upgraded(db, version)))
                if not since_second:
                    check_values(db)
                if histograms and not since_second:
                    _check(db)
                run = _read(path, db, histograms, since_second)
        except (sqlite3.Error, zlib.error, UsageError, ValueError, KeyError, TypeError, IndexError) as e:
            raise UsageError(
                f"{path}: is a damaged run file: {' '.join(str(e).split())}; copy it again, with its -wal if it has one"
            ) from None
        if not begun:
            raise UsageError(f"{path}: is empty: its run ended before it had begun, or its -wal was not copied with it")
        yield run, db


def schema_of(path: Path) -> int:
    """The version of a run file's schema. UsageError for what is none of any dnsprobe."""
    try:
        octets = path.stat().st_size
        if path.is_dir() or not os.access(path, os.R_OK):
            reason = errno.EISDIR if path.is_dir() else errno.EACCES
            raise OSError(reason, os.strerror(reason))
    except OSError as e:
        raise UsageError(
            f"{path}: cannot be read: {e.strerror}; name a run file that `dnsprobe run -o` wrote"
        ) from None
    # Not by a descriptor of our own: to close it takes away the locks of whoever in this process writes the file.
    application, version = _pragmas(path) if octets else (0, 0)
    if not octets or application is None:
        what = "not a run file" if octets else "empty"
        raise UsageError(f"{path}: is {what}; name a file that `dnsprobe run -o` wrote")
    if application != APPLICATION_ID:
        raise UsageError(f"{path}: is an SQLite file of another application, not a run of dnsprobe")
    return version


def _pragmas(path: Path) -> tuple[int | None, int]:
    """Whose database it is, and its schema; None for what is none. One that is damaged is found out when it is read."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)) as db:
            (application,) = db.execute("PRAGMA application_id").fetchone()
            (version,) = db.execute("PRAGMA user_version").fetchone()
            return application, version
    except sqlite3.Error as e:
        return (None, 0) if e.sqlite_errorcode == sqlite3.SQLITE_NOTADB else (APPLICATION_ID, SCHEMA_VERSION)


def _connect(path: Path) -> sqlite3.Connection:
    """Without a -wal nobody is writing and the .db is all there is; immutable then works in a read-only folder too."""
    uri = path.resolve().as_uri()
    if Path(f"{path}-wal").exists():
        db = sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None)
        try:
            db.execute("SELECT 1 FROM run").fetchone()
            return db
        except sqlite3.OperationalError:
            db.close()
    return sqlite3.connect(f"{uri}?immutable=1", uri=True, isolation_level=None)


def _check(db: sqlite3.Connection) -> None:
    """ValueError for what SQLite finds wrong: damage may as well be in numbers that nobody would doubt.

    Of its pages alone: SQLite 3.40.0 to 3.41.0 find a NULL where there is none (tables without rowid).
    """
    (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found.startswith("***"):
        raise ValueError(found)


def _upgraded(db: sqlite3.Connection, version: int) -> sqlite3.Connection:
    """A copy, in a file without a name that SQLite removes, as this dnsprobe would have written it."""
    copy = sqlite3.connect("", isolation_level=None)
    try:
        db.backup(copy)
        for sql in UPGRADES[version - 1 :]:
            copy.executescript(f"BEGIN; {sql}; COMMIT;")
    except BaseException:
        copy.close()
        raise
    return copy


def _read(path: Path, db: sqlite3.Connection, histograms: bool, since: int) -> Run:
    db.execute("BEGIN")  # one snapshot, also of a run that is still going
    row = db.execute(
        "SELECT version, name, command, scenario, started_unix_ns, planned_ns, objectives, flushed_ns, end_ns, cut,"
        " failures_left_out, lag_max_ns FROM run"
    ).fetchone()
    if row is None:
        raise ValueError("it has no run in it")
    version, name, command, scenario, started, planned, objectives, flushed, end, cut, left_out, lag_max = row
    facts = dict(db.execute("SELECT name, value FROM facts ORDER BY name"))
    head = Head(name, started, planned, command, scenario, tuple(json.loads(objectives)), facts)
    series = tuple(series_of_row(r) for r in db.execute("SELECT * FROM series ORDER BY series"))
    counts = _counts(db, since)
    bad = Bad(*_columns(db, "SELECT series, bucket, first_ns, last_ns FROM bad WHERE bucket >= ?", 4, since * 10))
    if [s.index for s in series] != list(range(len(series))):
        raise ValueError("series that do not count from 0")
    for what, ends in ((counts.series, len(series)), (counts.outcome, len(Outcome)), (counts.good, 2)):
        if what.min(initial=0) < 0 or what.max(initial=-1) >= ends:
            raise ValueError("rows of a series that it does not describe, or of no outcome")
    lost = (counts.good == 0) & (counts.outcome != Outcome.UNSENT)
    if not np.isin(counts.series[lost] << 40 | counts.bucket[lost], bad.series << 40 | bad.bucket).all():
        raise ValueError("lost rows without the instants when they were due")
    if end is None:
        cut = f"the run was cut: the file was last written {flushed / NS:.1f} s after its start"
    lag = np.zeros(BINS, np.int64)
    bins, n = _columns(db, "SELECT bin, n FROM lag", 2)
    lag[bins] = n
    return Run(
        path=path,
        version=version,
        head=head,
        series=series,
        marks=tuple(
            Mark(*r) for r in db.execute("SELECT at_ns, kind, text, source, subject FROM marks ORDER BY at_ns, rowid")
        ),
        intervals=tuple(
            Interval(*r)
            for r in db.execute("SELECT from_ns, to_ns, kind, text, source, subject FROM intervals ORDER BY from_ns")
        ),
        failures=tuple(_failure(r) for r in db.execute("SELECT * FROM failures ORDER BY due_ns")),
        failures_left_out=left_out,
        counts=counts,
        bad=bad,
        in_flight=Waiting(*_columns(db, "SELECT series, second, n FROM in_flight WHERE second >= ?", 3, since)),
        histograms=_histograms(db if histograms else None, len(series)),
        unsent=_cells(db, "SELECT series, cause, n FROM unsent", len(series), {c.label: c for c in UnsentCause}),
        counters=_cells(db, "SELECT series, counter, n FROM counters", len(series), {c.label: c for c in Counter}),
        lag=lag,
        lag_max_ns=lag_max,
        end_ns=flushed if end is None else end,
        finished=end is not None,
        cut=cut,
        doubts=tuple(
            Doubt(id_, text, tuple(json.loads(lanes)), bool(hides))
            for id_, text, lanes, hides in db.execute("SELECT id, text, lanes, hides_loss FROM doubts ORDER BY rowid")
        ),
        servers=_servers(db, len(series)),
        vantages=read_vantages(db),
        metrics=read_metrics(db),
        lookups=read_lookups(db, since * NS),
    )


def _columns(db: sqlite3.Connection, sql: str, width: int, *values: int) -> Ints:
    rows = np.fromiter(db.execute(sql, values), dtype=np.dtype((np.int64, width)))
    return np.ascontiguousarray(rows.T)


def _counts(db: sqlite3.Connection, since: int) -> Counts:
    sql = (
        "SELECT series, second * 10, 10, outcome, good, n FROM seconds WHERE second >= ?"
        " UNION ALL SELECT series, bucket, 1, outcome, good, n FROM tenths WHERE bucket >= ?"
    )
    return Counts(*_columns(db, sql, 6, since, since * 10))


def _histograms(db: sqlite3.Connection | None, series: int) -> Histograms:
    counts: list[Ints] = [np.empty((6, 0), np.int64)]
    maxima: list[Ints] = [np.empty((5, 0), np.int64)]
    rows = db.execute("SELECT second, width, counts, maxima FROM histograms") if db else ()
    for second, width, packed, longest in rows:
        for parts, table in ((counts, unpack_counts(packed, series)), (maxima, unpack_maxima(longest, series))):
            when = np.broadcast_to(np.array([[second], [width]], np.int64), (2, table.shape[1]))
            parts.append(np.concatenate([when, table]))
    return Histograms(np.concatenate(counts, axis=1), np.concatenate(maxima, axis=1))


def _cells(db: sqlite3.Connection, sql: str, series: int, names: dict[str, UnsentCause] | dict[str, Counter]) -> Ints:
    table = np.zeros((series, len(names)), np.int64)
    for index, label, n in db.execute(sql):
        table[index, names[label]] = n
    return table


def _servers(db: sqlite3.Connection, series: int) -> dict[str, Answered]:
    found: dict[str, Answered] = {}
    for s, nsid, n, first, last in db.execute(
        "SELECT series, nsid, n, first_ns, last_ns FROM servers ORDER BY series, nsid"
    ):
        by = found.setdefault(nsid, Answered.none(series))
        by.n[s], by.first_ns[s], by.last_ns[s] = n, first, last
    return found


def series_of_row(row: Sequence[object]) -> Series:
    """A series from what the table of that name has of it, column by column."""
    index, lane, name, kind, address, port, side, transport, ports, qtype, *load, offset, start, stop, timeout = row
    questions, _, weights, rate, shape, pair, gso, share = load
    target = Target(str(name), TargetKind(str(kind)), str(address), int(str(port)), str(side))
    offset_ns, start_ns, stop_ns, timeout_ns = (int(str(t)) for t in (offset, start, stop, timeout))
    return Series(
        index=int(str(index)),
        lane=str(lane),
        target=target,
        transport=str(transport),
        ports=Ports.parse(str(ports), str(transport)),
        qtype=str(qtype),
        questions=tuple(_question(*question) for question in json.loads(str(questions))),
        rate=Fraction(str(rate)),
        weights=tuple(json.loads(str(weights))),
        shape=_shape(**json.loads(str(shape))),
        pair=bool(pair),
        gso=int(str(gso)),
        share=Slice.parse(str(share)),
        offset_ns=offset_ns,
        start_ns=start_ns,
        stop_ns=stop_ns,
        timeout_ns=timeout_ns,
    )


def _question(name: str, qtype: str, expect: str, edns: tuple[int, bool, bool] | None) -> Question:
    return Question.of(name, qtype, expect, edns and Edns(*edns))


def _shape(arrivals: str, legs: list[tuple[int, str, str]], seed: int, window: int, pause: int) -> Shape:
    if arrivals not in PACERS:
        raise ValueError(f"no pace is {arrivals!r}")
    return Shape(arrivals, tuple(Leg(ns, Fraction(a), Fraction(b)) for ns, a, b in legs), seed, window, pause)


def _failure(row: tuple[int, int, int, str, int, int, str, int, int]) -> Failure:
    series, due_ns, sent_ns, question, outcome, errno, phase, source_port, query_id = row
    return Failure(series, question, due_ns, sent_ns, Outcome(outcome), errno, phase, source_port, query_id)
