"""Ids and slots: never used again within twice the timeout, matched only by their own socket."""

from __future__ import annotations

import numpy as np
import pytest

from probe.model import NS, Question
from probe.transport import Due
from probe.transport.flight import Flight, rank_within
from probe.wire import Questions


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
    slots, ids = flight.reserve(sockets, np.arange(n), due)
    ok = slots >= 0
    zeros = np.zeros(int(ok.sum()), np.int64)
    flight.launch(slots[ok], Due(due[ok], zeros, zeros, zeros), due[ok], sockets[ok], np.full(len(zeros), NS))
    return slots.tolist(), ids.tolist()


@pytest.mark.parametrize(
    ("groups", "ranks"),
    [([], []), ([5], [0]), ([7, 7, 3, 7], [0, 1, 0, 2]), ([1, 2, 1, 2], [0, 0, 1, 1])],
)
def test_rank_within(groups: list[int], ranks: list[int]) -> None:
    assert rank_within(np.array(groups, np.int64)).tolist() == ranks


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
    assert launch(flight, np.array([2 * NS], np.int64))[0] == [-1], "expired, but within twice the timeout"
    assert launch(flight, np.array([2 * NS + 10], np.int64))[0] != [-1]


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
