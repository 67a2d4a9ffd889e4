"""One lane of a scenario, as its keys were read -> the lane, or the line and key that are wrong, and why."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fractions import Fraction
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from probe.book import by_type, pattern
from probe.model import BESIDE, NS, Lane, Ports, Question
from probe.scenario.document import Document, Place
from probe.scenario.fields import Name, Part, Port, Text, Truth, field_of
from probe.scenario.load import (
    Load,
    arriving,
    burst_of,
    check_burst,
    check_length,
    check_pair,
    check_ports,
    check_slots,
    load_of,
    pause_of,
    pausing,
    pausing_rate_of,
    ramp,
    staged,
    window_of,
    within,
)
from probe.scenario.names import MOST_SUFFIXES, NDOTS, Asking, edns_of, edns_size_of, ndots_of, suffix_of
from probe.scenario.plan import BESIDE_DNS
from probe.scenario.quantity import duration_ns, rate_of, timeout_of, whole
from probe.wire import qtype_number

TIMEOUT_NS = 2 * NS


@dataclass(frozen=True, slots=True)
class Around:
    """What a lane must fit: the targets there are, how long the run lasts (ns), whether steps are taken meanwhile."""

    targets: list[str]
    run_ns: int
    changes: bool


class QuestionKeys(Part):
    """A question: a name, perhaps of one type only."""

    name: Text
    type: Text = ""
    expect: Text = ""
    weight: Annotated[int, field_of(lambda text: whole(text, 1, 1000, "a weight"))] = 1


def _question(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


_Question = Annotated[QuestionKeys, BeforeValidator(_question, json_schema_input_type=str | QuestionKeys)]


class RampKeys(Part):
    """A rate that goes evenly from one to another."""

    first: Annotated[Fraction, field_of(pausing_rate_of)] = Field(alias="from")
    last: Annotated[Fraction, field_of(rate_of)] = Field(alias="to")
    over: Annotated[int, field_of(lambda text: duration_ns(text, NS // 10))]


class PaceKeys(Part):
    """A rate that stays for a while."""

    rate: Annotated[Fraction, field_of(pausing_rate_of)]
    ns: Annotated[int, field_of(lambda text: duration_ns(text, NS // 10))] = Field(alias="for")


class LaneKeys(Part):
    """A lane."""

    name: Name
    target: Text
    transport: Literal["udp", "tcp", "connect", "http"] = "udp"
    port: Port | None = None
    ports: Text = "fresh"
    rate: Annotated[Load, field_of(load_of)] | None = None
    ramp: RampKeys | None = None
    rates: Annotated[list[PaceKeys], Field(min_length=1)] | None = None
    arrivals: Text = "even"
    max_inflight: Annotated[int, field_of(window_of)] | None = None
    pause: Annotated[int, field_of(pause_of)] | None = None
    pair: Truth = False
    gso: Annotated[int, field_of(burst_of)] = 1
    timeout: Annotated[int, field_of(timeout_of)] = TIMEOUT_NS
    questions: Annotated[list[_Question], Field(min_length=1)] | None = None
    types: list[Text] = Field(["A", "AAAA"], min_length=1)
    search: list[Annotated[str, field_of(suffix_of)]] = Field([], max_length=MOST_SUFFIXES)
    ndots: Annotated[int, field_of(ndots_of)] = NDOTS
    edns: Annotated[int, field_of(edns_size_of)] | None = None
    dnssec: Truth = False
    nsid: Truth = False
    external: Truth = False


def lane_of(lane: LaneKeys, i: int, around: Around, document: Document) -> Lane:
    """Lane i of a scenario; ScenarioError with file, line and key."""
    here: Place = ("lanes", i)
    if lane.target not in around.targets:
        nearest = get_close_matches(lane.target, around.targets, 1, 0.0)[0]
        said = f"{lane.target!r}: unknown target; nearest: {nearest}; targets are {', '.join(around.targets)}"
        raise document.error((*here, "target"), said)
    ports = document.at((*here, "ports"), partial(Ports.parse, lane.ports, lane.transport))
    for k, qtype in enumerate(lane.types):
        document.at((*here, "types", k), partial(qtype_number, qtype))
    questions, weights = _questions(lane, here, document)
    load = _load(lane, here, around, list(by_type(questions)), document)
    if lane.target in BESIDE_DNS and lane.transport not in BESIDE:
        said = f"{lane.transport}: {lane.target} know no DNS: say {' or '.join(BESIDE)}"
        raise document.error((*here, "transport"), said)
    if lane.transport in BESIDE:
        _check_beside(lane, load, here, document)
    document.at((*here, "ports"), partial(check_ports, lane.transport, ports, load.shape))
    if lane.pair:
        document.at((*here, "pair"), partial(check_pair, lane.transport, load.shape, questions, weights))
    if lane.gso > 1:
        document.at((*here, "gso"), partial(check_burst, lane.transport, ports, load.shape, around.changes))
    return Lane(
        name=lane.name,
        target=lane.target,
        transport=lane.transport,
        ports=ports,
        rate=load.rate,
        timeout_ns=lane.timeout,
        questions=questions,
        weights=weights,
        shape=load.shape,
        pair=lane.pair,
        gso=lane.gso,
        port=lane.port or 0,
    )


_OF_DNS = ("types", "search", "ndots", "edns", "dnssec", "nsid", "external", "pair", "gso")
"""Keys that say how names are asked."""


def _check_beside(lane: LaneKeys, load: Load, here: Place, document: Document) -> None:
    """A lane that asks no DNS has a connection for each row, and no key that is about names."""
    for key in [key for key in _OF_DNS if key in lane.model_fields_set]:
        raise document.error((*here, key), f"is about DNS, which transport {lane.transport} does not ask: leave it out")
    if lane.ports != "fresh" or not load.shape.scheduled:
        key = "ports" if lane.ports != "fresh" else "rate"
        raise document.error((*here, key), f"transport {lane.transport} opens a connection for each row of a schedule")


def _page(asked: QuestionKeys, here: Place, document: Document) -> Question:
    """A path that is asked for."""
    if not re.fullmatch(r"/[!-~]*", asked.name) or {"type", "weight", "expect"} & asked.model_fields_set:
        raise document.error(here, f"{asked.name!r}: by http a path is asked for, such as /ready, and 200 expected")
    return Question.of(asked.name, BESIDE["http"])


def _load(lane: LaneKeys, here: Place, around: Around, types: Sequence[str], document: Document) -> Load:
    """How much a lane asks: one of rate, ramp and rates says it, or none: then it is 0, a share of what is usual."""
    given: dict[str, Callable[[], Load]] = {}
    if lane.rate:
        given["rate"] = partial(replace, lane.rate)
    if lane.ramp:
        given["ramp"] = partial(ramp, lane.ramp.first, lane.ramp.last, lane.ramp.over)
    if lane.rates:
        given["rates"] = partial(staged, [(pace.rate, pace.ns) for pace in lane.rates])
    if not given:
        given["rate"] = partial(Load, Fraction(0))
    key, *others = given
    if others:
        raise document.error((*here, others[0]), f"gives the rate itself: leave out {key}")
    load = document.at((*here, key), given[key])
    document.at((*here, key), partial(check_length, load, around.run_ns))
    load = document.at((*here, "arrivals"), partial(arriving, load, lane.arrivals))
    if lane.max_inflight is not None:
        load = document.at((*here, "max_inflight"), partial(within, load, lane.max_inflight))
    if lane.pause is None:
        return load
    if lane.max_inflight is None and not load.shape.scheduled:
        load = within(load, len(types))
    load = document.at((*here, "pause"), partial(pausing, load, lane.pause))
    document.at((*here, "max_inflight"), partial(check_slots, load.shape, types))
    return load


def _questions(lane: LaneKeys, here: Place, document: Document) -> tuple[tuple[Question, ...], tuple[int, ...]]:
    """A lane's questions, and their weights unless all are alike."""
    if lane.transport == "connect":
        if lane.questions:
            raise document.error((*here, "questions"), "a connection is opened, and nothing asked: leave them out")
        return (Question.of(lane.target, BESIDE["connect"]),), ()
    if not lane.questions:
        raise document.error((*here, "questions"), "missing; this key must be given")
    if lane.transport == "http":
        return tuple(_page(asked, (*here, "questions", j), document) for j, asked in enumerate(lane.questions)), ()
    if "ndots" in lane.model_fields_set and not lane.search:
        raise document.error((*here, "ndots"), "goes with search: without it a name is asked as it stands")
    asking = Asking(edns_of(lane.edns, lane.dnssec, lane.nsid), tuple(lane.search), lane.ndots, lane.external)
    weighed: list[tuple[Question, int]] = []
    for j, asked in enumerate(lane.questions):
        for qtype in [asked.type] if asked.type else lane.types:
            read = partial(asking.questions, asked.name, qtype, asked.expect)
            weighed += [(question, asked.weight) for question in document.at((*here, "questions", j), read)]
    questions, weights = tuple(q for q, _ in weighed), tuple(weight for _, weight in weighed)
    if len(set(weights)) == 1:
        return questions, ()
    for qtype in by_type(questions):
        mine = [weight for question, weight in weighed if question.qtype == qtype]
        document.at((*here, "questions"), partial(pattern, mine))
    return questions, weights
