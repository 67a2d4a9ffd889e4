"""What the preview says of values and fills into queries is what Grafana would."""

from __future__ import annotations

import math
from typing import Any

import pytest

from grafana.asking import Span, filled
from grafana.looks import PALETTE, colour, said, series_colour
from grafana.panels import BY_OUTCOME, named, thresholds
from probe.outcome import Outcome
from probe.report.palette import BAD, GOOD, OUTCOMES, WARNING


@pytest.mark.parametrize(
    ("value", "field", "text"),
    [
        (0.0008, {"unit": "s"}, "800 µs"),
        (0.8, {"unit": "s"}, "800 ms"),
        (90.0, {"unit": "s"}, "1.5 min"),
        (0.99912, {"unit": "percentunit", "decimals": 3}, "99.912%"),
        (1234.5, {"unit": "reqps"}, "1,234 req/s"),
        (0.25, {"unit": "reqps"}, "0.25 req/s"),
        (2879.4, {"unit": "short", "decimals": 0}, "2,879"),
        (940_000.0, {"unit": "dateTimeFromNow"}, "0:01:00 ago"),
        (math.nan, {"unit": "s"}, "NaN"),
        (math.nan, {"mappings": [{"type": "special", "options": {"match": "nan", "result": {"text": "no"}}}]}, "no"),
        (1.0, {"unit": "none", "mappings": named({1: ("UP", GOOD)})}, "UP"),
        (None, {"noValue": "not watched"}, "not watched"),
        (None, {}, "No data"),
    ],
)
def test_a_value_is_said_in_its_unit(value: float | None, field: dict[str, Any], text: str) -> None:
    assert said(value, field, now=1000.0) == text


@pytest.mark.parametrize(
    ("value", "expected"), [(None, GOOD), (-1, GOOD), (0.5, WARNING), (0.99, WARNING), (1, BAD), (7, BAD)]
)
def test_a_colour_holds_from_its_threshold_on(value: float | None, expected: str) -> None:
    assert colour(value, {"thresholds": thresholds(GOOD, (0.5, WARNING), (1, BAD))}) == expected


def test_a_series_has_the_colour_of_its_outcome_or_the_next_one() -> None:
    panel = {"fieldConfig": {"overrides": list(BY_OUTCOME)}}
    assert series_colour("timeout", 3, panel) == OUTCOMES[Outcome.TIMEOUT]
    assert series_colour("time", 3, panel) == PALETTE[3]


@pytest.mark.parametrize(
    ("seconds", "scraped", "expected"),
    [
        (3600, 30, "rate(a_total{node=~'.*'}[120000ms]) + b[3600000ms] * 30000"),
        (3600, 5, "rate(a_total{node=~'.*'}[20000ms]) + b[3600000ms] * 10000"),
        (86400, 30, "rate(a_total{node=~'.*'}[270000ms]) + b[86400000ms] * 240000"),
    ],
)
def test_grafanas_own_variables_follow_the_time_and_the_scrapes(seconds: float, scraped: float, expected: str) -> None:
    span = Span(0, seconds, scraped)
    expr = "rate(a_total{node=~'$node'}[$__rate_interval]) + b[$__range] * $__interval_ms"
    assert filled(expr, {"node": ".*"}, span, span.step(360)) == expected
