"""Rates in, due instants out: the same in chunks of any size, exact at any rate and length, merged without a slip."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from probe.model import NS, Ports, Series, Target, TargetKind
from probe.schedule import Agenda, Batch, Constant, pacer_of, phase

WEEK = 7 * 24 * 3600 * NS
MS = NS // 1000
rates = st.one_of(
    st.fractions(Fraction(1, 1000), 1_000_000, max_denominator=1000),
    st.sampled_from([Fraction(1, 1000), Fraction(1_000_000), Fraction(999_999_999, 1000), Fraction(1, 3), Fraction(7)]),
)


def exactly(rate: Fraction, offset: int, start: int, stop: int, first: int, n: int) -> list[int]:
    """The n instants from index `first`, by the definition, in whole numbers of any size."""
    dues = (start + offset + i * NS * rate.denominator // rate.numerator for i in range(first, first + n))
    return [due for due in dues if due < stop]


def series_of(index: int, rate: Fraction, offset: int, start: int, stop: int) -> Series:
    target = Target("t", TargetKind.SERVER, "127.0.0.1")
    return Series(index, "lane", target, "udp", Ports("fresh"), "A", (), rate, offset, start, stop, NS)


# -- one series


@given(
    rates,
    st.integers(0, NS),
    st.integers(0, WEEK),
    st.integers(0, 10**12),
    st.lists(st.integers(1, 50), min_size=1, max_size=8),
)
def test_chunks_of_any_size_give_the_instants_of_the_definition(
    rate: Fraction, offset: int, start: int, first: int, chunks: list[int]
) -> None:
    first = min(first, int(rate * WEEK / NS))
    stop = start + offset + int((first + 100) / rate * NS)
    pacer = Constant(rate, offset, start, stop)
    pacer.skip(first)
    taken: list[int] = []
    for limit in chunks:
        part = pacer.take(stop, limit)
        assert part.dtype == np.int64
        assert len(part) <= limit
        taken += part.tolist()
    assert taken == exactly(rate, offset, start, stop, first, min(sum(chunks), len(taken) + 1))
    assert pacer.peek() == next(iter(exactly(rate, offset, start, stop, first + len(taken), 1)), None)


@given(rates, st.integers(0, NS), st.lists(st.integers(0, 4000), max_size=12))
def test_horizons_of_any_width_give_each_instant_once(rate: Fraction, offset: int, steps: list[int]) -> None:
    period = NS / rate
    stop = offset + int(period * 3000)
    whole = Constant(rate, offset, 0, stop).take(stop, 10_000).tolist()
    pacer, until, taken = Constant(rate, offset, 0, stop), 0, []
    for step in steps:
        until += int(step * period / 4)
        part = pacer.take(until, 10_000).tolist()
        assert all(due < until for due in part)
        assert (pacer.peek() or until) >= until
        taken += part
    assert taken + pacer.take(stop, 10_000).tolist() == whole
    assert len(whole) in (3000, 3001)


@given(rates, st.integers(0, NS), st.integers(0, NS), st.data())
def test_count_is_the_number_of_instants(rate: Fraction, offset: int, start: int, data: st.DataObject) -> None:
    stop = start + offset + int(NS / rate * 300)
    pacer = Constant(rate, offset, start, stop)
    dues = pacer.take(stop, 1000)
    anywhere = st.one_of(st.integers(-10, stop + NS), st.sampled_from(dues.tolist()).flatmap(near))
    a, b = data.draw(anywhere), data.draw(anywhere)
    assert pacer.count(a, b) == int(((dues >= a) & (dues < b)).sum())
    assert pacer.count(-WEEK, 2 * WEEK + stop) == len(dues)


def near(instant: int) -> st.SearchStrategy[int]:
    return st.integers(instant - 1, instant + 1)


@given(rates)
def test_a_week_is_exact_to_the_last_query(rate: Fraction) -> None:
    pacer = Constant(rate, 0, 0, WEEK)
    planned = pacer.count(0, WEEK)
    assert planned == -(-WEEK * rate.numerator // (NS * rate.denominator))
    pacer.skip(planned - 1)
    assert pacer.take(WEEK, 10).tolist() == exactly(rate, 0, 0, WEEK, planned - 1, 10)
    assert pacer.peek() is None
    assert pacer.take(2 * WEEK, 10).tolist() == []


@pytest.mark.parametrize("rate", [Fraction(1_000_000), Fraction(999_999_999, 1000), Fraction(1, 1000)])
def test_ten_million_rows_in_one_chunk_do_not_overflow(rate: Fraction) -> None:
    dues = Constant(rate, 5, 7, 10**20).take(10**18, 10_000_000)
    assert (np.diff(dues) >= 0).all()
    assert int(dues[-1]) == exactly(rate, 5, 7, 10**20, len(dues) - 1, 1)[0]


def test_nothing_is_due_in_a_schedule_that_is_over_before_it_begins() -> None:
    pacer = Constant(Fraction(10), 50 * MS, NS, NS + 50 * MS)
    assert pacer.peek() is None
    assert pacer.take(WEEK, 100).tolist() == []
    assert pacer.count(0, WEEK) == 0


def test_a_series_is_paced_by_its_own_fields() -> None:
    pacer = pacer_of(series_of(0, Fraction(4), 1, 10, NS))
    assert pacer.take(NS, 9).tolist() == [11, NS // 4 + 11, NS // 2 + 11, 3 * NS // 4 + 11]


def test_no_two_series_have_the_same_phase() -> None:
    phases = {phase(k) for k in range(65_536)}
    assert len(phases) == 65_536
    assert all(0 <= p < 1 for p in phases)
    assert min(abs(phase(k) - phase(k + 1)) for k in range(100)) > Fraction(1, 4), "neighbours stand far apart"


# -- many series


schedules = st.lists(
    st.tuples(
        st.fractions(Fraction(1), 2000, max_denominator=50),
        st.integers(0, 20 * MS),
        st.sampled_from([0, 0, 0, 30 * MS, 100 * MS]),
        st.integers(0, 250 * MS),
    ),
    min_size=1,
    max_size=6,
).map(lambda found: [series_of(i, *each) for i, each in enumerate(found)])


def rows_of(batches: Sequence[Batch]) -> list[tuple[int, int, int]]:
    return [row for batch in batches for row in zip(*(column.tolist() for column in batch), strict=True)]


def by_definition(series: Sequence[Series]) -> list[tuple[int, int, int]]:
    found = []
    for each in series:
        dues = pacer_of(each).take(each.stop_ns, 10_000).tolist()
        found += [(due, each.index, nth) for nth, due in enumerate(dues)]
    return found


@given(schedules, st.integers(1, 600), st.lists(st.integers(0, 40 * MS), max_size=10))
def test_an_agenda_gives_each_row_once_in_order(series: list[Series], limit: int, steps: list[int]) -> None:
    agenda = Agenda()
    for each in series:
        agenda.add(each)
    expected, batches, until, turns = by_definition(series), [], 0, iter(steps)
    while agenda.peek() is not None:
        until = max(until, agenda.reached) + next(turns, 40 * MS)
        before = agenda.reached
        batch = agenda.take(until, limit)
        batches.append(batch)
        assert before <= agenda.reached <= until
        assert len(batch.due) <= limit + 2 * len(series)
        assert ((batch.due >= before) & (batch.due < agenda.reached)).all(), "rows of the stretch that was taken"
        assert (agenda.peek() or agenda.reached) >= agenda.reached, "reached: nothing before it is left"
    rows = rows_of(batches)
    assert sorted(rows) == sorted(expected)
    assert [due for due, _, _ in rows] == sorted(due for due, _, _ in rows)


@given(schedules, st.integers(0, 200 * MS), st.integers(0, 200 * MS), st.data())
def test_a_series_can_end_earlier(series: list[Series], taken: int, later: int, data: st.DataObject) -> None:
    agenda = Agenda()
    for each in series:
        agenda.add(each)
    batches = [agenda.take(taken, 100_000)]
    ended = data.draw(st.sampled_from(series))
    stop = agenda.reached + later
    assume(stop <= ended.stop_ns)
    agenda.end(series_of(ended.index, ended.rate, ended.offset_ns, ended.start_ns, stop))
    while agenda.peek() is not None:
        batches.append(agenda.take(agenda.reached + 50 * MS, 512))
    expected = [row for row in by_definition(series) if row[1] != ended.index or row[0] < stop]
    assert sorted(rows_of(batches)) == sorted(expected)


def test_a_series_joins_while_the_others_go() -> None:
    agenda = Agenda()
    agenda.add(series_of(0, Fraction(10), 0, 0, NS))
    first = agenda.take(NS // 2, 1000)
    agenda.add(series_of(1, Fraction(10), 0, NS // 2, NS))
    rest = agenda.take(NS, 1000)
    assert first.series.tolist() == [0] * 5
    assert rest.due.tolist() == [NS // 2, NS // 2, *(NS // 10 * k for k in (6, 6, 7, 7, 8, 8, 9, 9))]
    assert rest.nth[rest.series == 0].tolist() == [5, 6, 7, 8, 9]
    assert rest.nth[rest.series == 1].tolist() == [0, 1, 2, 3, 4]


def test_an_empty_agenda_and_a_cleared_one_have_no_rows() -> None:
    agenda = Agenda()
    assert agenda.peek() is None
    assert agenda.take(NS, 10).due.tolist() == []
    agenda.add(series_of(0, Fraction(10), 0, 0, WEEK))
    agenda.clear()
    agenda.end(series_of(0, Fraction(10), 0, 0, NS))
    assert agenda.peek() is None
    assert agenda.take(agenda.reached + NS, 10).due.tolist() == []


def test_a_take_spans_a_second_at_most_however_few_its_rows() -> None:
    agenda = Agenda()
    agenda.add(series_of(0, Fraction(1, 2), 0, 0, WEEK))
    assert [agenda.take(WEEK, 512).due.tolist() for _ in range(4)] == [[0], [], [2 * NS], []]
    assert agenda.reached == 4 * NS


def test_the_past_is_taken_once() -> None:
    agenda = Agenda()
    agenda.add(series_of(0, Fraction(10), 0, 0, WEEK))
    agenda.take(NS, 100)
    assert agenda.take(NS // 2, 100).due.tolist() == []
    assert agenda.reached == NS


def test_the_rate_is_that_of_the_series_that_still_go() -> None:
    """Chunks are cut by it: were it to grow with every pod that came and went, they would shrink to nothing."""
    agenda = Agenda()
    agenda.add(series_of(0, Fraction(100), 0, 0, WEEK))
    for k in range(1, 50):
        start = k * NS
        agenda.add(series_of(k, Fraction(100), 0, start, WEEK))
        agenda.end(series_of(k, Fraction(100), 0, start, start + NS // 2))
        while agenda.reached < start + NS:
            agenda.take(start + NS, 1000)
    assert agenda.rate <= 200, "a series that is over leaves with the next that joins"
    agenda.clear()
    assert agenda.rate == 0
