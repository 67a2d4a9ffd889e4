"""The key `clients` of a scenario, or the line and key that are wrong in it -> who looks what up beside the lanes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Annotated

from pydantic import Field

from probe.clients import CLIENTS
from probe.clients.asking import Asking
from probe.errors import UsageError
from probe.model import Question, Target
from probe.resolv import ASKED_FACT, is_pod, own_resolv_conf
from probe.scenario.document import Document
from probe.scenario.fields import Part, Text, field_of
from probe.scenario.names import MOST_SUFFIXES, NDOTS, ndots_of, suffix_of
from probe.scenario.quantity import rate_of
from probe.wire import encode

MOST_RATE = 20
"""Lookups a second of one profile: it shows what people feel, it is no load."""


def _profile(text: str) -> str:
    if text in CLIENTS:
        return text
    nearest = get_close_matches(text, CLIENTS, 1, 0.0)[0]
    raise UsageError(f"{text!r}: unknown profile; nearest: {nearest}; profiles are {', '.join(CLIENTS)}")


def _name(text: str) -> str:
    encode(Question.of(text.rstrip(".") + ".", "A"))
    return text


def _rate(text: str) -> float:
    rate = float(rate_of(text))
    if rate > MOST_RATE:
        raise UsageError(f"{text!r}: at most {MOST_RATE} lookups a second of each profile; load is what lanes are for")
    return rate


class ClientKeys(Part):
    """Which profiles look up which names."""

    profiles: Annotated[list[Annotated[str, field_of(_profile)]], Field(min_length=1)]
    names: Annotated[list[Annotated[str, field_of(_name)]], Field(min_length=1, max_length=100)]
    rate: Annotated[float, field_of(_rate)] = 2.0
    target: Text = "service"
    search: list[Annotated[str, field_of(suffix_of)]] = Field([], max_length=MOST_SUFFIXES)
    ndots: Annotated[int, field_of(ndots_of)] = NDOTS
    options: list[Text] = Field([])


def asking_of(keys: ClientKeys, targets: list[str], document: Document) -> Asking:
    """ScenarioError with file, line and key if they ask nobody there is, or one of them is there twice."""
    if keys.target not in targets:
        said = f"{keys.target!r}: unknown target; targets are {', '.join(targets)}"
        raise document.error(("clients", "target"), said)
    for i, profile in enumerate(keys.profiles):
        if profile in keys.profiles[:i]:
            raise document.error(("clients", "profiles", i), f"{profile!r} is there twice")
    many = (tuple(keys.profiles), tuple(keys.names), keys.rate, keys.target, tuple(keys.search), keys.ndots)
    return Asking(*many, tuple(keys.options))


def resolvers_ask(asking: Asking | None, behind: Callable[[str], Sequence[Target]]) -> dict[str, str]:
    """The fact that says whom resolvers go to: the run's clients, or else those of the pod that this process is in."""
    own = own_resolv_conf().nameservers if is_pod() else ()
    named = [target.address for target in behind(asking.target)] if asking else own
    return {ASKED_FACT: ", ".join(dict.fromkeys(named))} if named else {}
