"""A plan written for cluster.local, the zones of a cluster -> the plan with those names in that cluster's domain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from probe.book import Shelf
from probe.clients.asking import CONF_FACT
from probe.cluster import Extent
from probe.cluster.zone import DOMAIN
from probe.model import Lane, Question
from probe.scenario.plan import Plan
from probe.wire import encode


def in_domain(plan: Plan, extent: Extent, say: Callable[[str], None]) -> Plan:
    """Said if that changes anything; where the zones are not known nothing does. Names of a data file stay as they are.
    UsageError for one that would be too long.
    """
    domain = extent.domain
    if not domain or DOMAIN in extent.zones:
        return plan
    moved = replace(plan, lanes=tuple(_moved(lane, domain) for lane in plan.lanes))
    if clients := plan.clients:
        names, search = (tuple(_in(name, domain) for name in each) for each in (clients.names, clients.search))
        clients = replace(clients, names=names, search=search)
        moved = replace(moved, clients=clients, facts={**plan.facts, CONF_FACT: clients.told})
    if moved == plan:
        return plan
    text = f"names in {DOMAIN} are asked in {domain}, the cluster's domain"
    say(text)
    return replace(moved, facts={**moved.facts, "names": text})


def _moved(lane: Lane, domain: str) -> Lane:
    if isinstance(lane.questions, Shelf):
        return lane
    return replace(lane, questions=tuple(_asked(question, domain) for question in lane.questions))


def _asked(question: Question, domain: str) -> Question:
    name = _in(question.name, domain)
    if name == question.name:
        return question
    moved = replace(question, name=name)
    encode(moved)
    return moved


def _in(name: str, domain: str) -> str:
    bare = name.removesuffix(".")
    if not f".{bare.lower()}".endswith(f".{DOMAIN}"):
        return name
    return f"{bare[: -len(DOMAIN)]}{domain}{name[len(bare) :]}"
