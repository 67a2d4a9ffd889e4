"""Finished rows in, columns out: writers and a reader at full speed lose, double and change nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from probe.histogram import BINS, bins_of
from probe.model import NS, Phase
from probe.outcome import Counter, Outcome, UnsentCause
from probe.recorder import (
    BUCKETS,
    Columns,
    Duration,
    Flush,
    Reader,
    Recorder,
    Room,
    Rows,
    Scalar,
    places_for,
)
from probe.recorder import reader as reader_module
from probe.recorder.room import FAILURE_ROOM, NO_ROW
from probe.recorder.writer import FAILURES_A_SECOND

MS = NS // 1000
NOBODY = np.empty(0, np.int64)
Ints = NDArray[np.int64]


def rows_of(due: Ints, series: Ints | int = 0, outcome: Outcome = Outcome.ANSWER, **columns: int) -> Rows:
    """Rows that finished, alike but for due and series; they are good if answered."""
    n = len(due)
    replied = outcome is Outcome.ANSWER
    usual = {"question": 0, "sent": 0, "cause": 0, "errno": 0, "phase": 0, "source": 0, "query_id": 0, "connect": -1}
    usual |= {"latency": 2 * MS if replied else -1, "rtt": MS if replied else -1}
    return Rows(
        series=np.broadcast_to(np.asarray(series, np.int64), n),
        due=due,
        outcome=np.full(n, outcome, np.int64),
        good=np.full(n, replied),
        **{name: np.full(n, columns.get(name, value), np.int64) for name, value in usual.items()},
    )


def at(*instants: int) -> Ints:
    return np.array(instants, np.int64)


def same_port(_socket: int) -> int:
    return 40_000


@dataclass
class Pair:
    """A room with its writer and its reader."""

    room: Room
    writer: Recorder
    reader: Reader

    def plan(self, *due: int, series: int = 0) -> None:
        self.writer.record(np.full(len(due), series), at(*due), rows_of(NOBODY), same_port)

    def finish(self, *due: int, series: int = 0, outcome: Outcome = Outcome.ANSWER, **columns: int) -> None:
        self.writer.record(NOBODY, NOBODY, rows_of(at(*due), series, outcome, **columns), same_port)

    def flush(self, until_second: int, series: int = 1) -> Flush:
        return self.reader.flush(series, until_second)

    def column(self, second: int, series: int = 1) -> Columns:
        return next(c for c in self.flush(second, series).columns if c.second == second)


Make = Callable[..., Pair]


@pytest.fixture
def pair() -> Iterator[Make]:
    """Makes pairs, of `series` series with a timeout in ns."""
    descriptors: list[int] = []

    def make(series: int = 1, timeout_ns: int = 2 * NS) -> Pair:
        room, fd = Room.create(series + 3, timeout_ns)
        descriptors.append(fd)
        writer = Recorder(room)
        writer.series = series
        return Pair(room, writer, Reader([room], lambda number: f"q{number}"))

    yield make
    for fd in descriptors:
        os.close(fd)


# -- what is written is what is read


def test_a_row_counts_where_it_was_due_whenever_it_finished(pair: Make) -> None:
    both = pair(series=2)
    both.plan(5, 950 * MS, NS + 3, series=1)
    both.finish(950 * MS, series=1, outcome=Outcome.TIMEOUT, sent=951 * MS)
    both.finish(5, series=1, latency=3 * MS, rtt=MS, connect=7 * MS)
    found = both.column(0, 2)
    assert found.planned.tolist() == [[0] * 10, [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]]
    counts = {tuple(map(int, i)): int(found.counts[tuple(i)]) for i in np.argwhere(found.counts)}
    assert counts == {(1, 0, Outcome.ANSWER, 1): 1, (1, 9, Outcome.TIMEOUT, 0): 1}
    assert found.first_bad[1].tolist() == found.last_bad[1].tolist() == [*[-1] * 9, 950 * MS]
    assert (found.first_bad[0] == -1).all()
    for kind, value in ((Duration.LATENCY, 3 * MS), (Duration.RTT, MS), (Duration.CONNECT, 7 * MS)):
        (index,) = np.flatnonzero(found.durations[1, kind])
        assert (index, found.maxima[1, kind]) == (bins_of(at(value))[0], value)
    assert not found.sealed
    assert both.column(1, 2).planned.sum() == 1


def test_first_and_last_bad_are_of_rows_that_were_sent_and_not_good(pair: Make) -> None:
    both = pair()
    both.plan(*range(1, 8))
    both.finish(4, outcome=Outcome.TIMEOUT)
    both.finish(6, 2, outcome=Outcome.SERVFAIL)
    both.finish(1, 7, outcome=Outcome.UNSENT, cause=UnsentCause.IDS)
    both.finish(3, 5)
    found = both.column(0)
    assert (found.first_bad[0, 0], found.last_bad[0, 0]) == (2, 6)
    assert (found.first_bad[0, 1:] == -1).all()
    assert both.flush(0).unsent.tolist() == [[2 if cause is UnsentCause.IDS else 0 for cause in UnsentCause]]


def test_a_series_that_joins_within_a_second_has_no_bad_rows_of_before(pair: Make) -> None:
    both = pair(series=1)
    both.plan(100 * MS)
    both.writer.series = 3
    both.plan(500 * MS, 560 * MS, series=2)
    both.finish(560 * MS, series=2, outcome=Outcome.TIMEOUT)
    found = both.column(0, 3)
    assert (found.first_bad[1] == -1).all()
    assert found.first_bad[2].tolist() == found.last_bad[2].tolist() == [*[-1] * 5, 560 * MS, *[-1] * 4]


def test_counters_and_lag(pair: Make) -> None:
    both = pair(series=2)
    counters = np.arange(len(Counter))
    both.writer.count(1, counters)
    both.writer.count(1, counters)
    both.writer.lag(at(5_000, 70_000))
    both.writer.lag(NOBODY)
    both.writer.lag(at(6_000))
    both.writer.reached(3 * NS)
    found = both.flush(0, 2)
    assert found.counters.tolist() == [[0] * len(Counter), (2 * counters).tolist()]
    assert (found.lag.sum(), found.lag[bins_of(at(70_000))[0]], found.lag_max_ns) == (3, 1, 70_000)
    assert not both.reader.done
    both.writer.reached(3 * NS, done=True)
    assert both.reader.done


# -- when a second is over


def test_a_second_is_sealed_when_all_its_rows_are_planned_and_finished(pair: Make) -> None:
    both = pair()
    both.plan(10, 20)
    both.finish(10)
    assert not both.column(0).sealed
    both.writer.reached(NS - 1)
    both.finish(20)
    assert not both.column(0).sealed, "more may still come due"
    both.writer.reached(NS)
    assert both.column(0).sealed
    assert both.flush(0).columns == [], "a sealed second does not come again"


def test_a_second_that_waits_for_its_rows_comes_again_only_when_it_changed(pair: Make) -> None:
    both = pair()
    both.plan(10, NS + 10)
    both.writer.reached(2 * NS)
    assert [c.second for c in both.flush(1).columns] == [0, 1]
    assert both.flush(1).columns == []
    both.finish(NS + 10)
    assert [(c.second, c.sealed) for c in both.flush(1).columns] == [(1, True)]
    both.finish(10)
    assert next((c.second, c.sealed) for c in both.flush(1).columns) == (0, True)
    assert both.flush(1).columns == []


def test_seconds_without_rows_are_zeros_and_sealed(pair: Make) -> None:
    both = pair()
    both.writer.reached(3 * NS)
    found = both.flush(2).columns
    assert [(c.second, c.sealed, int(c.planned.sum())) for c in found] == [(k, True, 0) for k in range(3)]
    assert all((c.first_bad == -1).all() and (c.last_bad == -1).all() for c in found)


def test_a_second_in_the_middle_of_a_change_is_left_for_the_next_flush(
    pair: Make,
) -> None:
    both = pair()
    both.plan(10, NS + 10)
    both.room.version[0] += 1  # as the writer leaves it while it changes the second
    assert [c.second for c in both.flush(1).columns] == [1]
    both.room.version[0] += 1
    assert [c.second for c in both.flush(1).columns] == [0]


def test_what_two_workers_recorded_is_added(pair: Make) -> None:
    one, two = pair(), pair()
    reader = Reader([one.room, two.room], str)
    for both, due in ((one, 30), (two, 20)):
        both.plan(5, due)
        both.finish(due, outcome=Outcome.TIMEOUT)
        both.writer.lag(at(due * 1000))
        both.writer.reached(NS)
    one.finish(5, latency=MS)
    found = reader.flush(1, 0)
    (column,) = found.columns
    assert (column.planned[0, 0], column.counts.sum(), column.sealed) == (4, 3, False)
    assert (column.first_bad[0, 0], column.last_bad[0, 0]) == (20, 30)
    assert (found.lag.sum(), found.lag_max_ns) == (2, 30_000)
    assert [f.due_ns for f in found.failures] == [30, 20]
    two.finish(5, latency=9 * MS)
    (column,) = reader.flush(1, 0).columns
    assert column.sealed
    assert column.maxima[0, Duration.LATENCY] == 9 * MS


def test_who_answered_is_told_with_its_first_and_last_row_however_workers_number_them(pair: Make) -> None:
    """Names longer than what is kept of them are one server: its rows are put together, too."""
    one, two = pair(series=3), pair(series=3)
    reader = Reader([one.room, two.room], str)
    long = "x" * 64
    one.writer.answered_by(at(0, 2, 0), at(50, 9, 30), at(1, 1, 2), ["", "pod-a", "pod-b"])
    two.writer.answered_by(at(0, 0), at(0, 70), at(1, 2), ["", "pod-b", "pod-a"])
    two.writer.answered_by(
        at(0, 2, 1, 1), at(40, 8, 6, 5), at(2, 2, 3, 4), ["", "pod-b", "pod-a", long + "1", long + "2"]
    )
    told = {
        name: list(zip(by.n.tolist(), by.first_ns.tolist(), by.last_ns.tolist(), strict=True))
        for name, by in reader.flush(3, 0).servers.items()
    }
    none = (0, NO_ROW, -1)
    assert told == {
        "pod-a": [(3, 40, 70), none, (2, 8, 9)],
        "pod-b": [(2, 0, 30), none, none],
        long: [none, (2, 5, 6), none],
    }


# -- the ring


def test_the_ring_holds_the_longest_timeout_and_the_readers_absence() -> None:
    assert [places_for(ns) for ns in (1, NS, NS + 1, 30 * NS)] == [11, 11, 12, 40]


def test_a_place_is_given_to_a_later_second_clean(pair: Make) -> None:
    both = pair()
    places = both.room.places
    for second in range(3 * places):
        both.plan(second * NS + 5)
        both.finish(second * NS + 5, outcome=Outcome.TIMEOUT if second % 2 else Outcome.ANSWER)
        both.writer.reached((second + 1) * NS)
        (column,) = both.flush(second).columns
        bad = second * NS + 5 if second % 2 else -1
        assert (column.second, column.sealed, column.planned.sum(), column.counts.sum()) == (second, True, 1, 1)
        assert (column.first_bad[0, 0], column.last_bad[0, 0]) == (bad, bad)
        assert column.durations.sum() == (0 if second % 2 else 2)
    assert both.room.scalars[Scalar.OVERRUN] == 0


def test_the_writer_waits_for_a_reader_that_is_late(pair: Make) -> None:
    both = pair()
    places = both.room.places
    for second in range(places):
        both.plan(second * NS)
        both.finish(second * NS)
    both.writer.reached(places * NS)
    late = threading.Timer(0.15, lambda: seen.extend(both.flush(places - 1).columns))
    seen: list[Columns] = []
    began = time.monotonic()
    late.start()
    both.plan(places * NS)
    assert time.monotonic() - began > 0.1
    late.join()
    assert [(c.second, int(c.counts.sum())) for c in seen] == [(k, 1) for k in range(places)]
    assert both.room.scalars[Scalar.OVERRUN] == 0


# -- exact rows of failures


def test_failures_are_kept_exactly_and_capped_by_series_and_second(pair: Make) -> None:
    both = pair(series=2)
    for second in (0, 1):
        for series in (0, 1):
            dues = [second * NS + k for k in range(FAILURES_A_SECOND + 5)]
            both.plan(*dues, series=series)
            both.finish(*dues[:3], series=series, outcome=Outcome.TIMEOUT, question=series, sent=77, phase=Phase.ANSWER)
            both.finish(*dues[3:], series=series, outcome=Outcome.NETWORK_ERROR, errno=101, query_id=65_535)
    flush = both.flush(1, 2)
    assert [int(c.counts.sum()) for c in flush.columns] == [2 * (FAILURES_A_SECOND + 5)] * 2, "the rest are counts"
    found = flush.failures
    assert len(found) == 4 * FAILURES_A_SECOND
    kept = [f for f in found if f.series == 1 and f.due_ns >= NS]
    assert [f.due_ns for f in kept] == [NS + k for k in range(FAILURES_A_SECOND)]
    assert (kept[0].question, kept[0].sent_ns, kept[0].phase, kept[0].source_port) == ("q1", 77, "answer", 40_000)
    assert (kept[9].outcome, kept[9].errno, kept[9].query_id) == (Outcome.NETWORK_ERROR, 101, 65_535)
    assert both.flush(1, 2).failures == [], "they come once"


def test_good_and_unsent_rows_are_no_failures(pair: Make) -> None:
    both = pair()
    both.plan(1, 2)
    both.finish(1)
    both.finish(2, outcome=Outcome.UNSENT)
    assert both.flush(0).failures == []


def test_of_more_failures_than_there_is_room_for_the_last_are_kept(pair: Make) -> None:
    both = pair()
    for second in range(FAILURE_ROOM // FAILURES_A_SECOND + 3):
        both.finish(*range(second * NS, second * NS + FAILURES_A_SECOND), outcome=Outcome.TIMEOUT)
        both.room.scalars[Scalar.TAKEN] = second
    found = both.flush(0).failures
    assert len(found) == FAILURE_ROOM
    assert found[-1].due_ns == second * NS + FAILURES_A_SECOND - 1
    assert [f.due_ns for f in found] == sorted(f.due_ns for f in found)


# -- both at full speed


def test_rows_that_come_while_a_second_is_copied_are_not_sealed_away(
    pair: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = pair()
    both.plan(0)
    both.finish(0)
    whole = reader_module._copy

    def copied(*words: Any, **more: Any) -> Columns | None:
        column = whole(*words, **more)
        both.plan(900 * MS)
        both.finish(900 * MS)
        both.writer.reached(NS)
        return column

    with monkeypatch.context() as patched:
        patched.setattr(reader_module, "_copy", copied)
        assert not both.column(0).sealed
    found = both.column(0)
    assert (found.sealed, found.planned.sum()) == (True, 2)


SERIES, BATCH, SPAN = 3, 300, 40
"""Rows a batch; seconds of due instants that the writer runs through."""


def write(fd: int, places: int, seed: int) -> None:
    """A worker without a network: plans rows and finishes each in a later change, as fast as it can."""
    writer = Recorder(Room(fd, SERIES, places))
    writer.series = SERIES
    random = np.random.default_rng(seed)
    waiting = rows_of(NOBODY)
    step = NS // 20
    for k in range(SPAN * 20):
        due = np.sort(random.integers(k * step, (k + 1) * step, BATCH))
        series = random.integers(0, SERIES, BATCH)
        outcome = (Outcome.ANSWER, Outcome.TIMEOUT)[k % 2]
        writer.record(series, due, waiting, same_port)
        writer.reached((k + 1) * step)
        waiting = rows_of(due, series, outcome)
    writer.record(NOBODY, NOBODY, waiting, same_port)
    writer.reached(SPAN * NS, done=True)


@dataclass
class Account:
    """What the run file would hold: of each second the last that came."""

    seconds: dict[int, Columns] = field(default_factory=dict)
    failures: int = 0
    flushes: int = 0

    def take(self, flush: Flush) -> None:
        self.flushes += 1
        assert [c.second for c in flush.columns] == sorted({c.second for c in flush.columns})
        for new in flush.columns:
            old = self.seconds.get(new.second)
            assert (new.planned >= new.counts.sum((2, 3))).all(), "an outcome of a row that was never planned"
            if old is not None:
                assert not old.sealed or same(old, new), "a sealed second changed"
                assert (new.planned >= old.planned).all()
                assert (new.counts >= old.counts).all()
            bad = new.counts[:, :, Outcome.TIMEOUT].sum(2) > 0
            assert ((new.first_bad >= 0) == bad).all()
            assert (new.first_bad[bad] <= new.last_bad[bad]).all()
            assert (new.durations.sum((0, 2))[:2] == new.counts[:, :, Outcome.ANSWER].sum()).all(), "torn"
            self.seconds[new.second] = new
        self.failures += len(flush.failures)


def same(a: Columns, b: Columns) -> bool:
    names = ("planned", "counts", "first_bad", "last_bad", "durations", "maxima")
    return all((getattr(a, n) == getattr(b, n)).all() for n in names)


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_is_lost_or_doubled_between_writers_and_a_reader_at_full_speed(workers: int) -> None:
    """More seconds than the ring has places, so that the writers wait for the reader as well."""
    rooms, descriptors = zip(*(Room.create(SERIES, NS) for _ in range(workers)), strict=True)
    assert rooms[0].places < SPAN
    program = "import sys; from tests.test_recorder import write; write(*map(int, sys.argv[1:]))"
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(fd), str(rooms[0].places), str(k)], pass_fds=[fd])
        for k, fd in enumerate(descriptors)
    ]
    reader, account = Reader(rooms, str), Account()
    deadline = time.monotonic() + 30
    while not reader.done:
        assert time.monotonic() < deadline
        account.take(reader.flush(SERIES, SPAN - 1))
    account.take(reader.flush(SERIES, SPAN - 1))
    assert [each.wait(10) for each in writers] == [0] * workers
    for fd in descriptors:
        os.close(fd)
    assert account.flushes > 5
    assert all(column.sealed for column in account.seconds.values())
    assert list(account.seconds) == list(range(SPAN))
    totals = sum(c.counts.sum((0, 1)) for c in account.seconds.values())
    assert sum(int(c.planned.sum()) for c in account.seconds.values()) == workers * SPAN * 20 * BATCH
    assert totals[Outcome.ANSWER].tolist() == [0, workers * SPAN * 10 * BATCH]
    assert totals[Outcome.TIMEOUT].tolist() == [workers * SPAN * 10 * BATCH, 0]
    assert account.failures == workers * SPAN * SERIES * FAILURES_A_SECOND
    assert sum(r.scalars[Scalar.OVERRUN] for r in rooms) == 0


def test_shapes_are_as_the_columns_say(pair: Make) -> None:
    found = pair(series=2).column(0, 2)
    shapes = [a.shape for a in (found.planned, found.counts, found.first_bad, found.durations, found.maxima)]
    assert shapes == [(2, BUCKETS), (2, BUCKETS, len(Outcome), 2), (2, BUCKETS), (2, len(Duration), BINS), (2, 3)]
