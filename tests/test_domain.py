"""Names of cluster.local, for which scenarios are written, in the domain that a cluster has."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from probe.book import BookWriter, Shelf
from probe.clients.asking import CONF_FACT
from probe.cluster import Extent
from probe.errors import UsageError
from probe.model import Question
from probe.scenario.domain import in_domain
from probe.scenario.file import read_scenario_text
from probe.scenario.headless import with_endpoints
from probe.scenario.plan import Plan

REVERSE = ("in-addr.arpa", "ip6.arpa")
SCENARIO = """
name: t
duration: 2s
lanes:
  - {name: vip, target: service, types: [A], search: [default.svc.cluster.local, corp.net], questions: [kube-dns]}
  - name: names
    target: service
    types: [A]
    questions: [kubernetes.default.svc.Cluster.Local., "{random}.default.svc.cluster.local", notcluster.local, a.test]
clients:
  profiles: [glibc]
  names: [kubernetes.default, kubernetes.default.svc.cluster.local]
  search: [default.svc.cluster.local, svc.cluster.local, cluster.local]
"""


def moved(*zones: str) -> tuple[Plan, list[str]]:
    said: list[str] = []
    return in_domain(read_scenario_text("t", SCENARIO, []), Extent(zones=zones), said.append), said


def names(plan: Plan) -> list[str]:
    return [question.name for lane in plan.lanes for question in lane.questions]


def test_names_are_asked_in_the_domain_of_the_cluster() -> None:
    plan, said = moved("", "prod.example", *REVERSE)
    assert names(plan) == [
        *("kube-dns.default.svc.prod.example", "kube-dns.corp.net", "kube-dns"),
        *("kubernetes.default.svc.prod.example.", "{random}.default.svc.prod.example", "notcluster.local", "a.test"),
    ]
    assert plan.clients
    assert plan.clients.names == ("kubernetes.default", "kubernetes.default.svc.prod.example")
    assert plan.clients.search == ("default.svc.prod.example", "svc.prod.example", "prod.example")
    assert "search default.svc.prod.example svc.prod.example prod.example" in plan.facts[CONF_FACT]
    assert said == [plan.facts["names"]] == ["names in cluster.local are asked in prod.example, the cluster's domain"]


@pytest.mark.parametrize("zones", [(), REVERSE, ("cluster.local", *REVERSE), ("prod.example", "cluster.local")])
def test_they_stay_where_the_cluster_knows_them_or_what_it_knows_is_not_seen(zones: tuple[str, ...]) -> None:
    assert moved(*zones) == (read_scenario_text("t", SCENARIO, []), [])


def test_a_domain_that_is_too_long_for_a_name_is_said() -> None:
    with pytest.raises(UsageError, match="kube-dns"):
        moved(".".join(["a" * 60] * 4))


def test_names_of_a_data_file_are_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = BookWriter(Question.of(""))
    writer.add(b"\7cluster\5local\0")
    plan = read_scenario_text("t", SCENARIO.partition("clients:")[0], [])
    plan = replace(plan, lanes=(replace(plan.lanes[0], questions=Shelf([writer.close()])),))
    monkeypatch.setattr(Shelf, "__iter__", None)  # there may be ten million
    assert in_domain(plan, Extent(zones=("prod.example",)), print) == plan
    assert asyncio.run(with_endpoints(plan, None, print)) == plan
