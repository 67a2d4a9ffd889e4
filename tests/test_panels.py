"""Every panel's queries, asked of a real Prometheus that scraped real runs: none is wrong or empty without reason."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import pytest
import vl_convert

from grafana.asking import Span, Told, ask, chosen, regions
from grafana.dashboards import DASHBOARDS
from grafana.preview import LABEL, draw
from tests.situations import STOPPED_S, Lived, lived

FOLDER = Path(__file__).parents[1] / "grafana" / "dashboards"
FILES: dict[str, Any] = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in DASHBOARDS}
IN_THE_LAB = ("outage", "rollout", "truncation", "stall")
SITUATIONS = (*IN_THE_LAB, "load")

MAY_BE_EMPTY: dict[str, tuple[str, ...]] = {
    # A server that is named has no cluster around it.
    "Rollouts now": ("load",),
    "Ready endpoints": ("load",),
    "Cluster": ("load",),
    "Rollouts": ("load",),
    "What was lost in which phase": ("load",),
    # Pods of the lab serve their own metrics where nobody scrapes them here; `load` asks a CoreDNS that is scraped.
    "CoreDNS: queries and replies": IN_THE_LAB,
    "CoreDNS: its own time, and its upstreams'": IN_THE_LAB,
    "CoreDNS: answered from its cache": IN_THE_LAB,
    # Of these, one has a `clients` section.
    "Lookups of client profiles that failed or took over 1 s": tuple(each for each in SITUATIONS if each != "outage"),
    # A run reads its scenario once: only `serve` reads it again.
    "Configuration": SITUATIONS,
}
"""Panels that may have nothing to show, and in which situations; all of these say so in words of their own."""

PANELS = [(name, panel) for name in FILES for panel in FILES[name]["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def all_lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    with lived(tmp_path_factory.mktemp("situations")) as found:
        yield found


def shown(found: Lived, situation: str, dashboard: str, panel: Any, span: Span | None = None) -> list[Told]:
    """The series that a panel shows of one situation, over all its time if no other is given."""
    only = {"node": situation} if situation in IN_THE_LAB else {}
    variables = chosen(FILES[dashboard], only)
    return [each for query in ask(found.client, panel, variables, span or found.spans[situation]) for each in query]


def panel(dashboard: str, title: str) -> Any:
    """By its title."""
    return next(each for name, each in PANELS if name == dashboard and each["title"] == title)


@pytest.mark.parametrize(("dashboard", "one"), [pytest.param(d, p, id=f"{d}: {p['title']}") for d, p in PANELS])
def test_a_panel_shows_something_in_every_situation(dashboard: str, one: Any, all_lived: Lived) -> None:
    allowed = MAY_BE_EMPTY.get(one["title"], ())
    told = {each: shown(all_lived, each, dashboard, one) for each in SITUATIONS}
    empty = [each for each in SITUATIONS if not any(math.isfinite(v) for series in told[each] for v in series.values)]
    assert [each for each in empty if each not in allowed] == []
    if allowed:
        assert one["fieldConfig"]["defaults"].get("noValue") or one["type"] == "table", (
            "it does not say why it is empty"
        )


@pytest.mark.parametrize("name", FILES)
def test_a_dashboard_can_be_drawn_and_says_who_drew_it(name: str, all_lived: Lived) -> None:
    drawn = draw(all_lived.client, FILES[name], all_lived.spans["outage"], {"node": "outage"})
    titles = [escape(one["title"]) for one in FILES[name]["panels"]]
    assert [text for text in (LABEL, *titles) if f">{text}</text>" not in drawn] == []
    assert vl_convert.svg_to_png(drawn).startswith(b"\x89PNG")


def test_what_may_be_empty_is_a_panel() -> None:
    assert set(MAY_BE_EMPTY) <= {one["title"] for _, one in PANELS}


def test_an_outage_is_seen_as_one(all_lived: Lived) -> None:
    lost = {
        each.name: max(each.values)
        for each in shown(all_lived, "outage", "overview", panel("overview", "Queries that were not good, by outcome"))
    }
    assert lost["connection_refused"] > 50
    assert lost["all"] >= lost["connection_refused"]
    ways = shown(all_lived, "outage", "overview", panel("overview", "The ways clients take"))
    assert {each.name: min(each.values) for each in ways} == {"lab kube-dns udp": 0, "lab kube-dns tcp": 0}
    down = next(at for each in ways for at, value in zip(each.at, each.values, strict=True) if value == 0)
    span = Span(all_lived.spans["outage"].start, down, 2)
    now = shown(all_lived, "outage", "overview", panel("overview", "Cluster DNS now"), span)
    assert now[0].values[0] % 4 in (0, 1), "DOWN, or for some"
    since = shown(all_lived, "outage", "overview", panel("overview", "Losing queries since"), span)
    assert 0 < down - since[0].values[0] / 1000 < 15
    seconds = shown(all_lived, "outage", "rollout", panel("rollout", "Disruption"))
    assert 8 < seconds[0].values[0] < 15, "ten seconds without pods, and what it takes to go and to come"


def test_a_rollout_is_marked_and_told_by_phase(all_lived: Lived) -> None:
    variables = chosen(FILES["rollout"], {"node": "rollout"})
    (marks,) = FILES["rollout"]["annotations"]["list"]
    found = regions(all_lived.client, marks, variables, all_lived.spans["rollout"])
    assert [each.name for each in found] == ["rollout of coredns"]
    phases = shown(all_lived, "rollout", "rollout", panel("rollout", "Rollouts"))
    assert [each.name for each in phases] == ["coredns"]
    assert list(dict.fromkeys(phases[0].values)) == [1, 2, 3], "waiting, progressing, completed"
    told = shown(all_lived, "rollout", "rollout", panel("rollout", "What was lost in which phase"))
    assert {each.labels["phase"] for each in told} == {"waiting", "progressing", "completed"}
    states = {
        value for each in shown(all_lived, "rollout", "rollout", panel("rollout", "Targets")) for value in each.values
    }
    assert any(value >= 4 for value in states), "no pod was seen ending"
    assert shown(all_lived, "stall", "rollout", panel("rollout", "Rollouts"))[0].values[-1] == 1


def test_truncation_is_named(all_lived: Lived) -> None:
    told = shown(all_lived, "truncation", "overview", panel("overview", "Queries that were not good, by outcome"))
    assert {each.name for each in told} - {"timeout"} == {"truncated", "all"}


def test_a_stalled_prober_is_its_own_fault(all_lived: Lived) -> None:
    title = "Unsent queries, by reason"
    unsent = {
        each.name: max(each.values)
        for each in shown(all_lived, "stall", "prober-health", panel("prober-health", title))
    }
    assert unsent["stall"] > 10
    (health,) = shown(all_lived, "stall", "prober-health", panel("prober-health", "Probers"))
    assert health.values[-1] == 0
    lost = shown(all_lived, "stall", "rollout", panel("rollout", "Queries lost"))
    asked = 130 * (all_lived.spans["stall"].end - all_lived.spans["stall"].start - STOPPED_S)
    assert lost[0].values[0] < asked / 100, "what was not sent is not lost"


def test_a_prober_that_nobody_gave_a_cluster_or_a_node_is_shown(all_lived: Lived) -> None:
    told = shown(all_lived, "load", "prober-health", panel("prober-health", "What runs where"))
    assert any("cluster" not in each.labels and each.labels["scenario"] == "adhoc" for each in told)
