"""Ids and slots: never used again within twice the timeout, matched only by their own socket."""

from __future__ import annotations

import numpy as np
import pytest

from probe.model import NS, Question
from probe.outcome import Counter, Outcome
from probe.questions import Questions
from probe.transport.flight import Flight, Replies, State, rank_within
from probe.transport.rows import Due

MS = NS // 1000


def flight_of(rows_each: int, sockets: int = 1) -> Flight:
    questions = Questions()
    questions.add([Question.of("a.test")])
    flight = Flight(questions, np.random.default_rng(1))
    flight.add_sockets(sockets, 0, rows_each)
    return flight


def launch(
    flight: Flight, due: np.ndarray[tuple[int], np.dtype[np.int64]], socket: int = 0
) -> tuple[list[int], list[int]]:
    n = len(due)
    sockets = np.full(n, socket)
    slots, ids = flight.reserve(np.array([socket]), np.array([n]), due, State.ANSWERED)
    ok = slots >= 0
    zeros = np.zeros(int(ok.sum()), np.int64)
    rows = Due.of(due[ok], zeros, zeros, zeros)
    flight.launch(slots[ok], rows, due[ok], sockets[ok], ids[ok], np.full(len(zeros), NS))
    return slots.tolist(), ids.tolist()


@pytest.mark.parametrize(
    ("groups", "ranks"),
    [([], []), ([5], [0]), ([7, 7, 3, 7], [0, 1, 0, 2]), ([1, 2, 1, 2], [0, 0, 1, 1])],
)
def test_rank_within(groups: list[int], ranks: list[int]) -> None:
    assert rank_within(np.array(groups, np.int64)).tolist() == ranks
    assert rank_within(np.array(groups, np.int64), np.ones(len(groups), np.int64)).tolist() == ranks


@pytest.mark.parametrize(
    ("groups", "weights", "before"),
    [([3, 3, 3], [5, 1, 2], [0, 5, 6]), ([7, 7, 3, 7, 3], [10, 20, 30, 40, 50], [0, 10, 0, 30, 30])],
)
def test_rank_within_by_weight(groups: list[int], weights: list[int], before: list[int]) -> None:
    assert rank_within(np.array(groups), np.array(weights)).tolist() == before


def test_runs_are_reserved_as_their_rows_would_be_one_by_one() -> None:
    """Also where two runs share a socket, and where one has none."""
    sockets, lengths = np.array([1, 0, -1, 1]), np.array([3, 2, 2, 4])
    together, alone = flight_of(64, sockets=2), flight_of(64, sockets=2)
    slots, ids = together.reserve(sockets, lengths, 0, State.ANSWERED)
    each = np.repeat(sockets, lengths)
    one_by_one = alone.reserve(each, np.ones(len(each), np.int64), 0, State.ANSWERED)
    assert slots.tolist() == one_by_one[0].tolist()
    assert ids.tolist() == one_by_one[1].tolist()
    assert slots[5:7].tolist() == [-1, -1]
    assert len({*slots.tolist()}) == 10


def test_an_id_is_used_again_only_after_all_others() -> None:
    flight = flight_of(65_536)
    _, ids = launch(flight, np.arange(65_536, dtype=np.int64))
    assert sorted(ids) == list(range(65_536))
    assert ids != sorted(ids), "ids must not be predictable"


def test_a_slot_rests_for_twice_the_timeout() -> None:
    flight = flight_of(4)
    slots, _ = launch(flight, np.array([1, 2, 3, 4], np.int64))
    assert -1 not in slots
    assert launch(flight, np.array([NS], np.int64))[0] == [-1], "still pending"
    flight.expire(2 * NS)
    assert launch(flight, np.array([2 * NS - MS], np.int64))[0] == [-1], "expired, but within twice the timeout"
    assert launch(flight, np.array([2 * NS + MS], np.int64))[0] != [-1]


def test_a_reply_is_matched_by_its_own_socket_only() -> None:
    flight = flight_of(64, sockets=2)
    slots, ids = launch(flight, np.arange(5, dtype=np.int64), socket=0)
    own = flight.slots_of(np.zeros(5, np.int64), np.array(ids))
    other = flight.slots_of(np.ones(5, np.int64), np.array(ids))
    assert own.tolist() == slots
    assert (other == -1).all()


def test_rows_expire_in_order_and_once() -> None:
    flight = flight_of(64)
    launch(flight, np.array([0, 10, 20], np.int64))
    assert flight.expire(NS + 10).due.tolist() == [0, 10]
    assert flight.in_flight == 1
    assert flight.expire(NS + 10).due.tolist() == []
    assert flight.expire(NS + 20).due.tolist() == [20]
    assert flight.in_flight == 0


def test_one_slot_is_never_given_to_two_rows_at_once() -> None:
    """More rows at once than the ring has slots: the surplus gets none, or its replies would not be found."""
    flight = flight_of(4)
    slots, _ = launch(flight, np.arange(6, dtype=np.int64))
    assert sorted(slots) == [-1, -1, 0, 1, 2, 3]
    assert flight.in_flight == 4
    assert sorted(flight.expire(10 * NS).due.tolist()) == [0, 1, 2, 3]


def replies_to(ids: list[int], received: list[int], socket: int = 0) -> Replies:
    """NXDOMAIN for each id, in this order."""
    wire = bytes.fromhex("0000 8183 0001 0000 0000 0000 0161 04 74657374 00 0001 0001")
    whole = [i.to_bytes(2, "big") + wire[2:] for i in ids]
    head = np.zeros((len(whole), 64), np.uint8)
    for row, each in zip(head, whole, strict=True):
        row[: len(each)] = np.frombuffer(each, np.uint8)
    n = len(whole)
    return Replies(head, np.full(n, len(wire)), np.full(n, socket), np.array(received), whole.__getitem__)


def test_a_row_has_its_first_reply_and_the_rest_is_counted() -> None:
    flight = flight_of(64)
    slots, ids = launch(flight, np.array([0, 10, 20, 30], np.int64))
    counters = np.zeros((1, len(Counter)), np.int64)
    a, b, c, d = ids
    stranger = next(i for i in range(65_536) if i not in ids)
    found = flight.settle(replies_to([a, b, a, stranger, c], [5, 15, 6, 7, 20 + NS + 1]), counters)
    assert sorted(zip(found.due.tolist(), found.received.tolist(), strict=True)) == [(0, 5), (10, 15)]
    assert set(found.outcome.tolist()) == {Outcome.NXDOMAIN}
    assert sorted(found.query_id.tolist()) == sorted([a, b])
    assert flight.waiting(0).tolist() == slots[2:]
    assert flight.expire(NS + 20).due.tolist() == [20]
    assert len(flight.settle(replies_to([a, c, d], [8, 9, 30 + NS]), counters).due) == 1, "d came just in time"
    assert counters[0, [Counter.DUPLICATE, Counter.UNMATCHED, Counter.LATE]].tolist() == [2, 1, 2]
    assert flight.in_flight == 0
    assert len(flight.expire(10 * NS).due) == 0


def test_a_reply_too_short_for_an_id_is_no_rows() -> None:
    """Behind it stand an earlier reply's octets, which would fit."""
    flight = flight_of(64)
    _, ids = launch(flight, np.array([0], np.int64))
    counters = np.zeros((1, len(Counter)), np.int64)
    for length in range(23):
        short = replies_to(ids, [5])._replace(lengths=np.array([length]))
        assert len(flight.settle(short, counters).due) == 0
    assert counters[0, Counter.UNMATCHED] == 23
