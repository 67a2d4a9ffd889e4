"""Rates and shapes in, due instants out: the same in chunks of any size and in slices, exact, merged without a slip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from probe.model import CONSTANT, NS, Leg, Ports, Series, Shape, Slice, Target, TargetKind
from probe.schedule import Agenda, Batch, Constant, Course, pacer_of, phase
from probe.schedule.pacers import BLOCK, BLOCKS

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


def series_of(index: int, rate: Fraction, offset: int, start: int, stop: int, shape: Shape = CONSTANT) -> Series:
    target = Target("t", TargetKind.SERVER, "127.0.0.1")
    return Series(index, "lane", target, "udp", Ports("fresh"), "A", (), rate, offset, start, stop, NS, shape=shape)


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


# -- shapes


DAY = 24 * 3600 * NS


def ramp(seconds: int, first: Fraction, last: Fraction) -> Leg:
    return Leg(seconds * NS, first, last)


def exact_rows(rate: Fraction, legs: Sequence[Leg], from_ns: int, to_ns: int) -> Fraction:
    """How many rows are due from one instant to another, in whole numbers of any size."""

    def until(ns: int) -> Fraction:
        rows, at, share = Fraction(0), 0, Fraction(1)
        for leg in legs:
            part = Fraction(min(max(ns - at, 0), leg.duration_ns), leg.duration_ns)
            share = leg.from_share + (leg.to_share - leg.from_share) * part
            rows += (leg.from_share + share) / 2 * part * leg.duration_ns
            at, share = at + leg.duration_ns, leg.to_share
        return (rows + max(0, ns - at) * share) * rate / NS

    return until(to_ns) - until(from_ns)


shares = st.fractions(0, 1, max_denominator=20)
legs_of = st.lists(st.builds(Leg, st.integers(1, 20 * NS), shares, shares), min_size=1, max_size=5).filter(
    lambda legs: legs[-1].to_share > 0
)


@given(st.fractions(Fraction(1), 100_000, max_denominator=1000), legs_of, st.integers(0, NS), st.integers(0, 90 * NS))
def test_a_row_is_due_when_the_rate_has_come_to_it(rate: Fraction, legs: list[Leg], offset: int, start: int) -> None:
    offset = int(offset / rate)
    pacer = pacer_of(series_of(0, rate, offset, start, 10**18, Shape(legs=tuple(legs))))
    for skip in (0, 1, 700, 100_000, 1_000_000):
        pacer.skip(skip)
        nth, due = pacer.nth, int(pacer.take(10**18, 1)[0])
        early, late = (exact_rows(rate, legs, start, due + off) for off in (-1000, 1000))
        assert start <= due
        assert early <= nth + offset * rate / NS <= late, "to a microsecond"


@pytest.mark.parametrize(("first", "last"), [(10, 100_000), (100_000, 10), (0, 50_000), (50_000, 1), (99_999, 100_000)])
def test_a_ramp_is_exact_to_a_microsecond_even_after_a_day(first: int, last: int) -> None:
    most = max(first, last)
    legs = [ramp(86_400, Fraction(first, most), Fraction(last, most))]
    pacer = pacer_of(series_of(0, Fraction(most), 0, 0, 2 * DAY, Shape(legs=tuple(legs))))
    planned = pacer.count(0, DAY)
    assert planned == -(-exact_rows(Fraction(most), legs, 0, DAY) // 1)
    for nth in (planned // 2, planned - 3, planned + 1000):
        pacer.skip(nth - pacer.nth)
        due = int(pacer.take(2 * DAY, 1)[0])
        early, late = (exact_rows(Fraction(most), legs, 0, due + off) for off in (-1000, 1000))
        assert early <= nth <= late


def test_steps_are_paced_as_if_each_were_a_run_of_its_own() -> None:
    legs = (
        ramp(2, Fraction(1, 5), Fraction(1, 5)),
        ramp(1, Fraction(0), Fraction(0)),
        ramp(1, Fraction(1), Fraction(1)),
    )
    dues = pacer_of(series_of(0, Fraction(10), 0, 0, 5 * NS, Shape(legs=legs))).take(WEEK).tolist()
    assert dues == [0, NS // 2, NS, 3 * NS // 2, *(3 * NS + k * NS // 10 for k in range(20))]


def test_a_series_that_starts_later_joins_at_the_rate_of_the_moment() -> None:
    shape = Shape(legs=(ramp(10, Fraction(0), Fraction(1)),))
    late = pacer_of(series_of(0, Fraction(1000), 0, 5 * NS, 60 * NS, shape))
    assert late.peek() == 5 * NS
    assert late.count(5 * NS, 5 * NS + NS // 10) == 51
    assert late.count(5 * NS, 10 * NS) == 3750
    assert late.count(10 * NS, 11 * NS) == 1000


def test_a_course_says_how_long_rows_last() -> None:
    flat, rising = Course(Fraction(10), ()), Course(Fraction(10), (ramp(10, Fraction(0), Fraction(1)),))
    assert flat.lasts(1, 0) == NS // 10 == flat.lasts(1, 77 * NS)
    assert rising.lasts(5, 0) == pytest.approx(10**0.5 * NS)
    assert rising.lasts(1, 20 * NS) == NS // 10
    assert [float(rows) for rows in (flat.rows(-5), flat.rows(3 * NS), rising.rows(10 * NS))] == [0, 30, 50]


def test_as_fast_as_replies_allow_has_no_schedule() -> None:
    series = series_of(0, Fraction(1_000_000), 0, 0, WEEK, Shape("max", window=100))
    pacer = pacer_of(series)
    assert (pacer.peek(), pacer.count(0, WEEK), len(pacer.take(WEEK))) == (None, 0, 0)
    agenda = Agenda()
    agenda.add(series)
    assert (agenda.peek(), agenda.rate, len(agenda.take(NS, 10).due)) == (None, 0, 0)


# -- poisson


def poisson(rate: int, seconds: int, legs: Sequence[Leg] = (), seed: int = 1) -> np.ndarray:
    shape = Shape("poisson", tuple(legs), seed)
    return pacer_of(series_of(0, Fraction(rate), 0, 0, seconds * NS, shape)).take(WEEK)


def distance_to_exponential(gaps: np.ndarray) -> float:
    """Kolmogorov and Smirnov's statistic, times the root of n: 1.95 is passed by one sample in a thousand."""
    ranked = 1 - np.exp(-np.sort(gaps) / gaps.mean())
    return float(np.abs(ranked - (np.arange(len(gaps)) + 0.5) / len(gaps)).max() * len(gaps) ** 0.5)


@pytest.mark.parametrize("seed", [0, 1, 2, 99])
def test_poisson_arrivals_have_exponential_gaps_that_know_nothing_of_each_other(seed: int) -> None:
    gaps = np.diff(poisson(1000, 300, seed=seed)).astype(float)
    assert distance_to_exponential(gaps) < 1.95
    scaled = (gaps - gaps.mean()) / gaps.std()
    for lag in (1, 2, BLOCK - 1, BLOCK):
        assert abs((scaled[lag:] * scaled[:-lag]).mean()) < 4 / len(gaps) ** 0.5
    edges = gaps[BLOCK - 1 :: BLOCK]
    assert edges.mean() == pytest.approx(1_000_000, rel=4 / len(edges) ** 0.5), "where one block meets the next, too"


@pytest.mark.parametrize("width", [10 * MS, 100 * MS, NS, 4 * NS])
def test_poisson_counts_vary_as_much_as_their_mean(width: int) -> None:
    """Also over stretches that are longer than a block, whose length is drawn by itself."""
    counts = np.bincount(poisson(1000, 2000) // width, minlength=2000 * NS // width)
    assert counts.var() / counts.mean() == pytest.approx(1, abs=5 * (2 / len(counts)) ** 0.5)
    assert counts.sum() == pytest.approx(2_000_000, abs=5 * 2_000_000**0.5)


def test_poisson_counts_of_many_seeds_vary_as_much_as_their_mean() -> None:
    """Over two stretches of blocks: a million rows, from the ends of blocks alone."""
    seconds = 2 * BLOCK * BLOCKS // 1_000_000
    series = series_of(0, Fraction(1_000_000), 0, 0, WEEK)
    counts = [pacer_of(replace(series, shape=Shape("poisson", seed=k))).count(0, seconds * NS) for k in range(200)]
    assert np.var(counts) / np.mean(counts) == pytest.approx(1, abs=5 * (2 / 200) ** 0.5)
    assert np.mean(counts) == pytest.approx(seconds * 1_000_000, abs=5 * (seconds * 1_000_000 / 200) ** 0.5)


def test_poisson_follows_a_ramp() -> None:
    legs = [ramp(100, Fraction(0), Fraction(1)), ramp(100, Fraction(1), Fraction(1, 10))]
    dues = poisson(1000, 300, legs)
    assert (np.diff(dues) >= 0).all()
    course = Course(Fraction(1000), legs)
    assert distance_to_exponential(np.diff(course.rows(dues))) < 1.95
    for second in (30, 90, 150, 250):
        planned = float(exact_rows(Fraction(1000), legs, second * NS, (second + 10) * NS))
        found = int(((dues >= second * NS) & (dues < (second + 10) * NS)).sum())
        assert found == pytest.approx(planned, abs=4 * planned**0.5)


def test_poisson_draws_depend_on_the_seed_alone() -> None:
    assert (poisson(100, 60) == poisson(100, 60)).all()
    assert poisson(100, 60, seed=2)[0] != poisson(100, 60)[0]
    assert poisson(1000, 60).tolist()[:3] == [1424953, 1576301, 4071483], "and never on numpy's version"


# -- slices, chunks, counts: of any shape


shapes = st.one_of(
    st.just(CONSTANT),
    st.builds(lambda legs: Shape(legs=tuple(legs)), legs_of),
    st.builds(
        lambda legs, seed: Shape("poisson", tuple(legs), seed), st.one_of(st.just([]), legs_of), st.integers(0, 9)
    ),
)
shaped = st.builds(
    lambda rate, offset, start, seconds, shape: series_of(0, rate, offset, start, start + seconds * NS, shape),
    st.fractions(Fraction(1), 500, max_denominator=50),
    st.integers(0, 20 * MS),
    st.sampled_from([0, 3 * NS]),
    st.integers(0, 8),
    shapes,
)


@given(shaped, st.integers(1, 7), st.lists(st.integers(1, 700), min_size=1, max_size=8))
def test_slices_have_each_row_once(series: Series, of: int, chunks: list[int]) -> None:
    whole = pacer_of(series).take(WEEK)
    assert (np.diff(whole) >= 0).all()
    for index in range(of):
        pacer, taken = pacer_of(replace(series, share=Slice(index, of))), []
        for limit in chunks * 2:
            taken += pacer.take(series.stop_ns - NS, limit).tolist()
        assert pacer.nth == index + of * len(taken)
        assert (pacer.peek() or series.stop_ns - NS) >= series.stop_ns - NS or len(taken) == 2 * sum(chunks)
        taken += pacer.take(WEEK).tolist()
        assert taken == whole[index::of].tolist()
        assert pacer.peek() is None


@given(shaped, st.integers(1, 3), st.data())
def test_counts_are_the_rows_of_any_stretch(series: Series, of: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, of - 1))
    pacer = pacer_of(replace(series, share=Slice(index, of)))
    dues = pacer_of(series).take(WEEK)[index::of]
    anywhere = st.integers(-10, series.stop_ns + NS)
    if len(dues):
        anywhere |= st.sampled_from(dues.tolist()).flatmap(near)
    for _ in range(3):
        a, b = data.draw(anywhere), data.draw(anywhere)
        assert pacer.count(a, b) == int(((dues >= a) & (dues < b)).sum())


@pytest.mark.parametrize("shape", [Shape("poisson"), Shape(legs=(ramp(10, Fraction(1, 9), Fraction(1)),))])
def test_counts_of_millions_of_rows_are_those_of_the_rows(shape: Shape) -> None:
    series = series_of(0, Fraction(100_000), 0, 0, 20 * NS, shape)
    dues, pacer = pacer_of(series).take(WEEK), pacer_of(series)
    assert len(dues) > BLOCK * BLOCKS
    for a, b in ((0, 20), (15, 16), (1, 2), (12, 3)):
        assert pacer.count(a * NS, b * NS) == int(((dues >= a * NS) & (dues < b * NS)).sum())


# -- many series


schedules = st.lists(
    st.tuples(
        st.fractions(Fraction(1), 2000, max_denominator=50),
        st.integers(0, 20 * MS),
        st.sampled_from([0, 0, 0, 30 * MS, 100 * MS]),
        st.integers(0, 250 * MS),
        st.one_of(st.just(CONSTANT), st.just(CONSTANT), shapes),
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
    agenda.end(replace(ended, stop_ns=stop))
    while agenda.peek() is not None:
        batches.append(agenda.take(agenda.reached + 50 * MS, 512))
    expected = [row for row in by_definition(series) if row[1] != ended.index or row[0] < stop]
    assert sorted(rows_of(batches)) == sorted(expected)


@given(schedules, st.integers(2, 4), st.integers(1, 600))
def test_the_agendas_of_all_slices_have_each_row_once(series: list[Series], of: int, limit: int) -> None:
    rows = []
    for index in range(of):
        agenda = Agenda()
        for each in series:
            agenda.add(replace(each, share=Slice(index, of)))
        while agenda.peek() is not None:
            rows += rows_of([agenda.take(agenda.reached + 50 * MS, limit)])
    assert sorted(rows) == sorted(by_definition(series))


@pytest.mark.parametrize(
    "shape", [CONSTANT, Shape("poisson", seed=5), Shape(legs=(ramp(1, Fraction(0), Fraction(1)),))]
)
def test_rows_of_a_pair_are_side_by_side(shape: Shape) -> None:
    agenda, share = Agenda(), Slice(1, 2)
    for k in range(4):
        one = series_of(k, Fraction(100), (k // 2) * MS, 0, 3 * NS, replace(shape, seed=shape.seed + k // 2))
        agenda.add(replace(one, share=share))
    rows = []
    while agenda.peek() is not None:
        rows += rows_of([agenda.take(agenda.reached + NS // 3, 64)])
    assert len(rows) > 200
    for (due, series, nth), follower in pairwise(rows):
        assert series % 2 or follower == (due, series + 1, nth)


@pytest.mark.parametrize("rate", [Fraction(1_000_000), Fraction(999_999_999, 1000), Fraction(1, 1000), Fraction(1, 3)])
def test_an_agenda_is_as_exact_as_a_pacer(rate: Fraction) -> None:
    """After a week, in the slice of the last of 999 workers; a second at a time."""
    series = replace(series_of(0, rate, 5, WEEK, 2 * WEEK), share=Slice(998, 999))
    agenda, pacer = Agenda(), pacer_of(series)
    agenda.add(series)
    agenda.reached = WEEK
    for _ in range(30):
        nth = pacer.nth
        batch = agenda.take(agenda.reached + NS, 2000)
        assert batch.due.tolist() == pacer.take(agenda.reached).tolist()
        assert batch.nth.tolist() == list(range(nth, pacer.nth, 999))
    assert agenda.peek() == pacer.peek()


def test_each_series_has_a_share_of_its_own() -> None:
    agenda = Agenda()
    agenda.add(replace(series_of(0, Fraction(10), 0, 0, NS), share=Slice(1, 2)))
    agenda.add(replace(series_of(1, Fraction(10), 0, 0, NS), share=Slice(2, 5)))
    batch = agenda.take(NS, 100)
    assert batch.nth[batch.series == 0].tolist() == [1, 3, 5, 7, 9]
    assert batch.nth[batch.series == 1].tolist() == [2, 7]
    assert agenda.rate == 7


@pytest.mark.parametrize("shape", [CONSTANT, Shape("poisson"), Shape(legs=(ramp(2, Fraction(0), Fraction(1)),))])
def test_a_batch_is_no_larger_than_asked_however_uneven_the_load(shape: Shape) -> None:
    """From nothing at all to a hundred thousand a second: a batch that is too large is itself a stall."""
    agenda = Agenda()
    for k in range(3):
        agenda.add(series_of(k, Fraction(100_000, 3), 0, 0, 3 * NS, replace(shape, seed=k)))
    total = 0
    while agenda.peek() is not None:
        batch = agenda.take(agenda.reached + 100 * MS, 512)
        assert len(batch.due) <= 512 + 3
        total += len(batch.due)
    assert total == sum(
        pacer_of(series_of(k, Fraction(100_000, 3), 0, 0, 3 * NS, replace(shape, seed=k))).count(0, WEEK)
        for k in range(3)
    )


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
