"""Rows loaded, due, sent, kept back, settled, dropped: what the recorder is told of each."""

from __future__ import annotations

import errno
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from probe.model import NS, Phase, Ports, Question, Target, TargetKind
from probe.outcome import Counter, Outcome, UnsentCause
from probe.questions import Questions
from probe.transport.flight import State
from probe.transport.ledger import Ledger
from probe.transport.rows import NEVER, Channel, Due, Finished, Harvest

MS = NS // 1000
STALL = 50 * MS
CHANNELS = 3


def ledger_of(timeout_ns: int = NS, *, connections: bool = False) -> Ledger:
    questions = Questions()
    questions.add([Question.of("a.test"), Question.of("b.test")])
    ledger = Ledger(questions, np.random.default_rng(1), connections=connections)
    for index in range(CHANNELS):
        target = Target("t", TargetKind.SERVER, "127.0.0.1")
        ledger.admit(Channel(index, target, Ports("fixed"), 100.0, timeout_ns + index))
        ledger.flight.add_sockets(1, index, 256)
    return ledger


def load(ledger: Ledger, dues: list[int], first: int = 0, phase: Phase = Phase.NONE) -> None:
    """Row i is of series i % 4 + 10, question i % 2, and of the channel and socket i % 3."""
    nth = np.arange(first, first + len(dues))
    channel, due = nth % CHANNELS, np.array(dues, np.int64)
    slot, ids = ledger.flight.reserve(channel, np.ones(len(dues), np.int64), due, State.ANSWERED)
    ledger.load(Due.of(due, nth % 4 + 10, nth % 2, channel), slot, channel.copy(), ids, np.full(len(due), 24), phase)


def send(ledger: Ledger, now: int, took: int = 0) -> range:
    rows = ledger.due(now, STALL)
    if rows:
        ledger.sent(rows.start, rows.stop, now, now + took)
    return rows


def harvest(ledger: Ledger) -> Harvest:
    ledger.settle()
    return ledger.harvest()


def by_outcome(finished: Finished) -> dict[str, list[int]]:
    """Due instants by outcome."""
    found: dict[str, list[int]] = {}
    for due, outcome in zip(finished.due.tolist(), finished.outcome.tolist(), strict=True):
        found.setdefault(Outcome(outcome).label, []).append(due)
    return found


# -- when a row is due


def test_all_before_an_instant_have_started_if_no_row_that_leaves_later_was_due_before_it() -> None:
    """Rows leave at the tick after they were due, those of a burst with its last one."""
    ledger = ledger_of()
    assert ledger.started_until == NEVER
    due, release = np.array([11, 18, 12, 31]), np.array([20, 20, 25, 40])
    slot, ids = ledger.flight.reserve(due % CHANNELS, np.ones(4, np.int64), due, State.ANSWERED)
    rows = Due.of(due, due % 4, due % 2, due % CHANNELS)._replace(release=release)
    ledger.load(rows, slot, due % CHANNELS, ids, np.full(4, 24))
    seen = [ledger.started_until]
    for now in (20, 25, 40):
        send(ledger, now)
        seen.append(ledger.started_until)
    assert seen == [11, 12, 31, NEVER]


def test_a_row_is_sent_when_it_is_due_and_not_before() -> None:
    ledger = ledger_of()
    assert ledger.next_due == NEVER
    load(ledger, [10, 20, 20, 30])
    assert (ledger.next_due, ledger.in_flight) == (10, 0)
    assert send(ledger, 9) == range(0)
    assert send(ledger, 10) == range(1)
    assert (ledger.next_due, ledger.in_flight) == (20, 1)
    assert send(ledger, 29) == range(1, 3)
    assert send(ledger, 10**9) == range(0), "30 is further back than a stall: kept back"
    assert (ledger.next_due, ledger.in_flight) == (NEVER, 4)
    assert ledger.unsettled == range(4)
    assert by_outcome(harvest(ledger).finished) == {"unsent": [30]}
    assert (ledger.in_flight, ledger.unsettled) == (3, range(4, 4))


@pytest.mark.parametrize(("late", "missed"), [(STALL, 0), (STALL + 1, 1), (STALL + 2, 1), (STALL + 11, 2)])
def test_a_missed_slot_is_never_sent_late(late: int, missed: int) -> None:
    ledger = ledger_of()
    load(ledger, [0, 10, STALL, STALL + 100])
    expected = range(missed, 3)
    assert send(ledger, late) == expected
    found = harvest(ledger)
    assert found.finished.due.tolist() == [0, 10][:missed]
    assert set(found.finished.cause.tolist()) <= {UnsentCause.STALL}
    assert found.started.due.tolist() == [0, 10, STALL], "planned all the same"
    assert (found.started.sent > 0).tolist() == [i in expected for i in range(3)]
    assert ledger.next_due == STALL + 100


def test_rows_that_are_too_late_already_need_no_id() -> None:
    now = time.monotonic_ns()
    rows = Due.of(np.array([now - 2 * NS, now - STALL // 2, now + NS]), *[np.zeros(3, np.int64)] * 3)
    assert Ledger.late(rows, STALL) == 1


# -- when it was sent


@given(st.integers(1, 300), st.integers(1, 2**60), st.integers(0, 10**9))
def test_send_instants_lie_between_the_clock_reads_evenly(n: int, began: int, took: int) -> None:
    ledger = ledger_of()
    load(ledger, [began] * n)
    assert len(send(ledger, began, took)) == n
    sent = harvest(ledger).started.sent
    assert began <= sent[0]
    assert sent[-1] <= began + took
    assert (np.diff(sent) >= 0).all()
    assert np.ptp(np.diff(sent)) <= 1 if n > 1 else True
    assert abs((sent[0] - began) - (began + took - sent[-1])) <= 1, "as far from the first read as from the last"


def test_batches_between_settlements_keep_their_own_instants() -> None:
    ledger = ledger_of()
    load(ledger, [10, 20, 30, 40])
    send(ledger, 20, took=4)
    send(ledger, 40, took=8)
    assert harvest(ledger).started.sent.tolist() == [21, 23, 42, 46]


# -- what was kept back

REASONS: dict[UnsentCause | int, tuple[Outcome, int]] = {
    UnsentCause.STALL: (Outcome.UNSENT, 0),
    UnsentCause.IDS: (Outcome.UNSENT, 0),
    UnsentCause.DESCRIPTORS: (Outcome.UNSENT, 0),
    -errno.ECONNREFUSED: (Outcome.CONNECTION_REFUSED, errno.ECONNREFUSED),
    -errno.ENETUNREACH: (Outcome.NETWORK_ERROR, errno.ENETUNREACH),
    -errno.EPERM: (Outcome.NETWORK_ERROR, errno.EPERM),
}


def test_a_row_that_did_not_go_out_says_why_and_nothing_else() -> None:
    ledger = ledger_of()
    load(ledger, [100 + i for i in range(2 * len(REASONS))])
    rows = ledger.due(200, STALL)
    for row, why in enumerate(REASONS):
        ledger.keep_back(2 * row, why)
    ledger.sent(rows.start, rows.stop, 1000, 1000 + 4 * len(REASONS))
    found = harvest(ledger).finished
    assert found.due.tolist() == [100 + 2 * i for i in range(len(REASONS))]
    outcomes = [(Outcome(o), e) for o, e in zip(found.outcome.tolist(), found.errno.tolist(), strict=True)]
    assert outcomes == list(REASONS.values())
    assert [c for c, (o, _) in zip(found.cause.tolist(), outcomes, strict=True) if o is Outcome.UNSENT] == [
        UnsentCause.STALL, UnsentCause.IDS, UnsentCause.DESCRIPTORS,
    ]  # fmt: skip
    attempted = [1001 + 4 * i if o is not Outcome.UNSENT else 0 for i, (o, _) in enumerate(outcomes)]
    assert found.sent.tolist() == attempted
    for column in (found.received, found.phase, found.query_id, found.connect_ns):
        assert not column.any()
    assert (found.socket == -1).all()
    assert ledger.in_flight == len(REASONS)


def test_rows_that_were_kept_back_are_known_until_they_are_settled() -> None:
    ledger = ledger_of()
    load(ledger, list(range(1, 10)))
    send(ledger, 7)
    ledger.keep_back(3, UnsentCause.SOCKETS)
    assert ledger.kept_back == [3]
    ledger.settle()
    assert ledger.kept_back == []


# -- the whole account


@given(
    st.lists(st.integers(0, 30 * MS), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 120 * MS), st.integers(0, MS), st.booleans()), max_size=12),
    st.dictionaries(st.integers(0, 39), st.sampled_from(list(REASONS)), max_size=6),
)
def test_every_row_is_planned_once_and_has_one_outcome(
    gaps: list[int], turns: list[tuple[int, int, bool]], kept: dict[int, UnsentCause | int]
) -> None:
    """However sends, stalls and harvests fall: planned = sum of outcomes + in flight."""
    ledger, now = ledger_of(40 * MS), 1
    dues = (np.cumsum(gaps) + 1).tolist()
    load(ledger, dues)
    started: list[NDArray[np.int64]] = []
    finished: list[int] = []

    def take(cutoff: int) -> None:
        ledger.settle()
        ledger.finished.append(ledger.flight.expire(cutoff))
        found = ledger.harvest()
        started.append(found.started.due)
        finished.extend(found.finished.due.tolist())
        assert sum(map(len, started)) == len(finished) + ledger.in_flight

    for wait, took, settles in [*turns, (max(dues), 1, True), (0, 0, True)]:
        now += wait
        rows = ledger.due(now, STALL)
        for row in rows:
            if row in kept:
                ledger.keep_back(row, kept[row])
        if rows:
            ledger.sent(rows.start, rows.stop, now, now + took)
        now += took
        before = sum(map(len, started))
        assert before + len(ledger.unsettled) == len(finished) + ledger.in_flight
        if settles:
            take(now)
    assert ledger.next_due == NEVER
    take(now + NS)
    assert ledger.in_flight == 0
    assert np.concatenate(started).tolist() == dues, "in order of due"
    assert sorted(finished) == dues


def test_rows_enter_the_flight_table_as_they_were_loaded() -> None:
    ledger = ledger_of(connections=True)
    load(ledger, [1, 2, 3, 4, 5, 6], phase=Phase.CONNECT)
    ids = ledger.query_id.tolist()
    ledger.keep_back(1, UnsentCause.IDS)
    send(ledger, 6)
    ledger.settle()
    found = ledger.flight.expire(NS + 100)
    assert found.due.tolist() == [1, 4, 5, 3, 6], "by timeout, which differs by channel here"
    rows = found.due - 1
    assert found.series.tolist() == (rows % 4 + 10).tolist()
    assert found.question.tolist() == (rows % 2).tolist()
    assert found.socket.tolist() == (rows % 3).tolist()
    assert found.query_id.tolist() == [ids[row] for row in rows.tolist()]
    assert set(found.phase.tolist()) == {Phase.CONNECT}
    assert set(found.outcome.tolist()) == {Outcome.TIMEOUT}


def test_a_timeout_is_the_channels_own_counted_from_send() -> None:
    ledger = ledger_of(timeout_ns=1000)  # and 1001, 1002
    load(ledger, [1, 1, 1])
    send(ledger, 10, took=0)
    ledger.settle()
    assert [len(ledger.flight.expire(10 + after).due) for after in (999, 1000, 1001, 1002, 9999)] == [0, 1, 1, 1, 0]


def test_counters_are_handed_over_once() -> None:
    ledger = ledger_of()
    ledger.counters[2, Counter.LATE] += 3
    counters = ledger.harvest().counters
    assert (counters.sum(), counters[2, Counter.LATE]) == (3, 3)
    assert not ledger.harvest().counters.any()


def test_a_channel_that_joins_leaves_the_others_columns_alone() -> None:
    ledger = ledger_of(timeout_ns=5)
    ledger.counters[0, Counter.LATE] = 1
    ledger.admit(Channel(5, Target("t", TargetKind.SERVER, "::1"), Ports("fresh"), 1.0, 99))
    assert ledger.timeout.tolist() == [5, 6, 7, 0, 0, 99]
    assert ledger.counters[:, Counter.LATE].tolist() == [1, 0, 0, 0, 0, 0]


# -- dropped rows


def test_rows_that_are_dropped_were_never_due() -> None:
    """Rows 0 to 2 are on the wire; the rest is forgotten."""
    ledger = ledger_of()
    load(ledger, [10 * i + 1 for i in range(8)])
    send(ledger, 25)
    ledger.settle()
    ledger.drop()
    assert (ledger.in_flight, ledger.next_due) == (3, NEVER)
    assert send(ledger, 100) == range(0)
    assert harvest(ledger).started.due.tolist() == [1, 11, 21]
    assert ledger.in_flight == 3


def test_of_nothing_there_is_nothing_to_say() -> None:
    ledger = ledger_of()
    load(ledger, [])
    assert send(ledger, NS) == range(0)
    found = harvest(ledger)
    assert (len(found.started.due), len(found.finished.due)) == (0, 0)
    ledger.drop()
    assert ledger.next_due == NEVER
