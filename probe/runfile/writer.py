"""Flushes, marks and intervals -> a run file that is whole after each flush, whatever happens next."""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from probe import __version__
from probe.errors import EnvironmentProblem, UsageError
from probe.model import NS, Doubt, Failure, Interval, Lookup, Mark, Sample, Series
from probe.outcome import MEANINGS, Counter, Outcome, UnsentCause
from probe.recorder import BUCKETS, Flush
from probe.runfile import checkpoints, lookups
from probe.runfile.head import Head
from probe.runfile.packed import Ints, PackedSecond, Sparse
from probe.runfile.samples import rows_of
from probe.runfile.schema import APPLICATION_ID, QUESTIONS_KEPT, SCHEMA_VERSION, SLICE_SECONDS, TABLES, VIEWS

FAILURES_KEPT = 50_000
"""Rows in the table failures; what comes after is counted in run.failures_left_out, and in every total as always."""
PRUNE_SECONDS = 60
"""How often what is older than is kept is taken out."""

Statement = tuple[str, list[tuple[object, ...]]]

_INSERT_SERIES = "INSERT INTO series VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_REWRITE = {
    "seconds": ("DELETE FROM seconds WHERE second >= ? AND second < ?", "INSERT INTO seconds VALUES (?, ?, ?, ?, ?)"),
    "in_flight": ("DELETE FROM in_flight WHERE second >= ? AND second < ?", "INSERT INTO in_flight VALUES (?, ?, ?)"),
    "tenths": ("DELETE FROM tenths WHERE bucket >= ? AND bucket < ?", "INSERT INTO tenths VALUES (?, ?, ?, ?, ?)"),
    "bad": ("DELETE FROM bad WHERE bucket >= ? AND bucket < ?", "INSERT INTO bad VALUES (?, ?, ?, ?)"),
}
"""A second that comes again is taken out and written anew."""


class RunFileProblem(EnvironmentProblem):
    """The run file could not be written just now. Nothing is lost: the next flush writes what this one could not."""


class RunWriter:
    """Writes one run. flush() each second and finish() at the end touch the disk; all else waits for the next flush."""

    def __init__(self, path: Path, db: sqlite3.Connection, keep_ns: int = 0) -> None:
        self.path = path
        self._db, self._keep_ns = db, keep_ns
        self._waiting: list[Statement] = []
        self._latest: dict[str, list[tuple[object, ...]]] = {}
        self._kept: dict[int, PackedSecond] = {}
        self._dirty: set[int] = set()
        self._paused = np.empty(0, np.int64)
        self._failures, self._left_out = 0, 0
        self._flushes, self._checkpoint, self._pruned = 0, 0, 0

    @classmethod
    def create(cls, path: Path | str, head: Head, keep_ns: int = 0) -> RunWriter:
        """A new run file. UsageError if there is something at `path` already, or it cannot be created.

        keep_ns: what is older is taken out of the file while the run goes on; 0: nothing is.
        """
        path = Path(path)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644))
        except FileExistsError:
            raise UsageError(
                f"{path}: exists already; a run is never overwritten: name another file or remove it"
            ) from None
        except OSError as e:
            raise UsageError(f"{path}: cannot be created: {e.strerror}; name a file in a folder that exists") from None
        db = sqlite3.connect(path, timeout=0.25, isolation_level=None)
        writer = cls(path, db, keep_ns)
        writer._begin(head)
        try:
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.executescript(f"BEGIN; {TABLES} {VIEWS} COMMIT;")
            writer._commit()
        except sqlite3.Error as e:
            db.close()
            remove(path)
            raise EnvironmentProblem(f"{path}: cannot be written: {e}") from None
        return writer

    def _begin(self, head: Head) -> None:
        """What is known before the first query."""
        typed = (_storable(text) for text in (head.name, head.command, head.scenario))
        run = (*typed, head.started_unix_ns, head.planned_ns, json.dumps(head.objectives))
        self._later(
            "INSERT INTO run (version, name, command, scenario, started_unix_ns, planned_ns, objectives)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(__version__, *run)],
        )
        outcomes = [(int(o), o.label, MEANINGS[o].blame.value, MEANINGS[o].help) for o in Outcome]
        self._later("INSERT INTO outcomes VALUES (?, ?, ?, ?)", outcomes)
        self.add_facts(head.facts)
        self._later(checkpoints.INSERT, checkpoints.first_rows())

    def add_facts(self, facts: Mapping[str, str]) -> None:
        """More of the environment, known only later; a fact of the same name is replaced."""
        self._later("INSERT OR REPLACE INTO facts VALUES (?, ?)", list(facts.items()))

    def add_series(self, series: Sequence[Series]) -> None:
        """Series join the run, at its start or later."""
        paused = [s.index for s in series if s.shape.pause_ns]
        self._paused = np.concatenate([self._paused, np.array(paused, np.int64)])
        self._later(_INSERT_SERIES, [series_row(s) for s in series])

    def end_series(self, index: int, stop_ns: int) -> None:
        """A series is cut short: no row of it is due at or after stop_ns."""
        self._later("UPDATE series SET stop_ns = ? WHERE series = ?", [(stop_ns, index)])

    def mark(self, mark: Mark) -> None:
        """A moment on the timeline."""
        self._later(
            "INSERT INTO marks VALUES (?, ?, ?, ?, ?)", [(mark.at_ns, mark.kind, mark.text, mark.source, mark.subject)]
        )

    def interval(self, interval: Interval) -> None:
        """A stretch of the timeline; it replaces an earlier one of the same kind, subject and beginning.

        So a stretch whose end is not known yet can be written now, and again when it is.
        """
        i = interval
        row = (i.from_ns, i.to_ns, i.kind, i.text, i.source, i.subject)
        self._later("INSERT OR REPLACE INTO intervals VALUES (?, ?, ?, ?, ?, ?)", [row])

    def doubts(self, doubts: Iterable[Doubt]) -> None:
        """What others said that they did wrong, whose rows these are."""
        rows = [(d.id, d.text, json.dumps(d.lanes), d.hides_loss) for d in doubts]
        self._later("INSERT INTO doubts VALUES (?, ?, ?, ?)", rows)

    def lookup(self, lookup: Lookup) -> None:
        """A client's lookup has come to its end."""
        self._later(lookups.INSERT, lookups.rows_of([lookup]))

    def samples(self, samples: Iterable[Sample]) -> None:
        """What others' meters said, where it has changed."""
        for sql, rows in rows_of(samples):
            self._later(sql, rows)

    def flush(self, flush: Flush, in_run_ns: int) -> None:
        """Everything since the last flush, in one transaction, into the .db itself. `in_run_ns` is now, since t0.

        RunFileProblem if it cannot be written (disk full, locked, read-only): go on; the next flush writes it too.
        """
        for columns in flush.columns:
            self._kept[columns.second] = PackedSecond.of(columns, self._paused)
            self._dirty.add(columns.second)
        kept = flush.failures[: max(0, FAILURES_KEPT - self._failures)]
        self._failures += len(kept)
        self._left_out += len(flush.failures) - len(kept)
        self._later("INSERT INTO failures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_failure_row, kept))
        bins = np.flatnonzero(flush.lag)
        self._latest = {
            "INSERT OR REPLACE INTO unsent VALUES (?, ?, ?)": _cells(flush.unsent, UnsentCause),
            "INSERT OR REPLACE INTO counters VALUES (?, ?, ?)": _cells(flush.counters, Counter),
            "INSERT OR REPLACE INTO servers (nsid, series, n, first_ns, last_ns) VALUES (?, ?, ?, ?, ?)": [
                (nsid, s, int(by.n[s]), int(by.first_ns[s]), int(by.last_ns[s]))
                for nsid, by in flush.servers.items()
                for s in np.flatnonzero(by.n).tolist()
            ],
            "INSERT OR REPLACE INTO lag VALUES (?, ?)": list(zip(bins.tolist(), flush.lag[bins].tolist(), strict=True)),
            "UPDATE run SET flushed_ns = ?, lag_max_ns = ?, failures_left_out = ?": [
                (in_run_ns, flush.lag_max_ns, self._left_out)
            ],
        }
        pruned = self._note_sums(flush, in_run_ns)
        self._write()
        if pruned:
            (self._failures,) = self._db.execute("SELECT count(*) FROM failures").fetchone()

    def _note_sums(self, flush: Flush, in_run_ns: int) -> bool:
        """A checkpoint with each slice; now and then what is older than is kept goes: whether it is to go now.

        A first flush may be of all that there ever was: where runs are put together.
        """
        second = in_run_ns // (SLICE_SECONDS * NS) * SLICE_SECONDS
        self._flushes += 1
        if self._flushes == 1 or second <= self._checkpoint:
            return False
        self._checkpoint = second
        self._later(checkpoints.INSERT, checkpoints.rows_of(second, flush, self._left_out))
        if not self._keep_ns or second < self._pruned + PRUNE_SECONDS:
            return False
        self._pruned = second
        for sql in checkpoints.PRUNE:
            self._later(sql, [(second - self._keep_ns // NS,)])
        return True

    def finish(self, end_ns: int, cut: str = "") -> None:
        """The run is over; `cut` says why if it ended early. Closes the file, leaves nothing beside it.

        What cannot be written there even now is written elsewhere, with all the rest: `path` then says where.
        RunFileProblem if that cannot be done either.
        """
        self._later("UPDATE run SET end_ns = ?, cut = ?", [(end_ns, cut)])
        try:
            self._write()
        except RunFileProblem:
            if not self._waiting:
                raise
            self._go_elsewhere()
            self._write()
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._db.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error:
            pass  # someone is reading: the file is whole, only its -wal stays until they are done
        self._db.close()

    def _go_elsewhere(self) -> None:
        """On with a copy, in the machine's folder for temporary files. RunFileProblem, and all as it was."""
        copy = None
        try:
            number, name = tempfile.mkstemp(self.path.suffix, f"{self.path.stem}-")
            os.close(number)
            copy = sqlite3.connect(name, isolation_level=None)
            self._db.backup(copy)
        except (OSError, sqlite3.Error) as e:
            if copy:
                copy.close()
                Path(name).unlink()
            raise RunFileProblem(f"{self.path}: cannot be written, nor a copy of it: {e}") from None
        self._db.close()
        self._db, self.path = copy, Path(name)

    def _later(self, sql: str, rows: Iterable[tuple[object, ...]]) -> None:
        if rows := list(rows):
            self._waiting.append((sql, rows))

    def _write(self) -> None:
        try:
            self._commit()
        except sqlite3.Error as e:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise RunFileProblem(
                f"{self.path}: cannot be written now: {e}; the run goes on and what it counted is kept in memory:"
                " make room, unlock the file, or mount its folder to be written, and the next flush writes it"
            ) from None
        try:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as e:
            raise RunFileProblem(
                f"{self.path}: written, but not checkpointed: {e}; keep its -wal file with it"
            ) from None

    def _commit(self) -> None:
        """All that waits, in one transaction, which sqlite3.Error leaves open."""
        self._db.execute("BEGIN IMMEDIATE")
        for sql, rows in (*self._waiting, *self._latest.items()):
            self._db.executemany(sql, rows)
        for second in sorted(self._dirty):
            self._write_second(self._kept[second])
        for start in sorted({s - s % SLICE_SECONDS for s in self._dirty}):
            self._write_slice(start)
        self._db.execute("COMMIT")
        self._waiting.clear()
        self._latest.clear()
        self._dirty.clear()
        self._forget()

    def _write_second(self, packed: PackedSecond) -> None:
        first = packed.second * BUCKETS
        one, ten = (packed.second, packed.second + 1), (first, first + BUCKETS)
        for delete, insert, span, rows in (
            (*_REWRITE["seconds"], one, packed.seconds),
            (*_REWRITE["in_flight"], one, packed.in_flight),
            (*_REWRITE["tenths"], ten, packed.tenths),
            (*_REWRITE["bad"], ten, packed.bad),
        ):
            self._db.execute(delete, span)
            self._db.executemany(insert, rows)

    def _write_slice(self, start: int) -> None:
        self._db.execute("DELETE FROM histograms WHERE second >= ? AND second < ?", (start, start + SLICE_SECONDS))
        seconds = [self._kept[s] for s in range(start, start + SLICE_SECONDS) if s in self._kept]
        parts = [(p.second, 1, p.durations.only(p.lossy, True)) for p in seconds if len(p.lossy)]
        parts.append((start, SLICE_SECONDS, Sparse.total(p.durations.only(p.lossy, False) for p in seconds)))
        rows = [(second, width, *part.blobs()) for second, width, part in parts if len(part.keys)]
        self._db.executemany("INSERT INTO histograms VALUES (?, ?, ?, ?)", rows)

    def _forget(self) -> None:
        """A slice is over once a later second, and every second of its own, is sealed."""
        sealed = max((s for s, p in self._kept.items() if p.sealed), default=-1)
        changing = min((s for s, p in self._kept.items() if not p.sealed), default=sealed)
        over = min(sealed, changing) // SLICE_SECONDS * SLICE_SECONDS
        self._kept = {s: p for s, p in self._kept.items() if s >= over}


def remove(path: Path) -> None:
    """A run file that is of no use, and what SQLite left beside it, which it would read into a new file there."""
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        file.unlink(missing_ok=True)


def _cells(table: Ints, names: type[UnsentCause | Counter]) -> list[tuple[object, ...]]:
    labels = [name.label for name in names]
    return [(int(s), labels[c], int(table[s, c])) for s, c in np.argwhere(table)]


def _storable(text: str) -> str:
    """A command line may hold bytes that are no text: SQLite refuses them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _failure_row(f: Failure) -> tuple[object, ...]:
    return (f.series, f.due_ns, f.sent_ns, f.question, int(f.outcome), f.errno, f.phase, f.source_port, f.query_id)


def series_row(s: Series) -> tuple[object, ...]:
    """A series as the table of that name has it, column by column."""
    t = s.target
    questions = [
        (q.name, q.qtype, str(q.expect), q.edns and (q.edns.size, q.edns.do, q.edns.nsid))
        for q in s.questions[:QUESTIONS_KEPT]
    ]
    legs = [(leg.duration_ns, str(leg.from_share), str(leg.to_share)) for leg in s.shape.legs]
    shape = {"arrivals": s.shape.arrivals, "seed": s.shape.seed, "window": s.shape.window, "legs": legs}
    shape["pause"] = s.shape.pause_ns
    return (
        *(s.index, s.lane, t.name, t.kind.value, t.address, t.port, t.side),
        *(s.transport, str(s.ports), s.qtype),
        *(json.dumps(questions), len(s.questions), json.dumps(s.weights[:QUESTIONS_KEPT])),
        *(str(s.rate), json.dumps(shape), s.pair, s.gso, str(s.share)),
        *(s.offset_ns, s.start_ns, s.stop_ns, s.timeout_ns),
    )
