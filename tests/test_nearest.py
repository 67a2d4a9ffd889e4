"""A few pods for each node: who asks whom, what changes that, and a run that follows it by EndpointSlices alone."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from probe.cluster import Extent, Happened
from probe.cluster.kube import Kube
from probe.cluster.nearest import Nearest, nearest
from probe.model import NS, Target, TargetKind
from probe.runfile import open_run
from probe.scenario.domain import in_domain
from probe.scenario.file import read_scenario
from probe.scenario.limits import Limits
from probe.scenario.plan import first_series
from probe.timeline import Timeline
from tests.apiserver import ApiServer
from tests.kube_objects import Json, config_map, endpoint_slice, service
from tests.test_kube import ran, until

NODES = [f"node-{n}" for n in range(200)]


def pods(count: int) -> list[Target]:
    return [Target(f"coredns-{n}", TargetKind.POD, f"127.0.77.{n + 1}", 9) for n in range(count)]


def test_each_pod_is_asked_from_about_as_many_nodes() -> None:
    asked = Counter(pod.name for node in NODES for pod in nearest(node, pods(10), 2))
    assert sum(asked.values()) == 400
    assert len(asked) == 10
    # Binomial, 200 nodes at 0.2: 40 expected, 5.7 the standard deviation.
    assert all(abs(count - 40) < 4 * 5.7 for count in asked.values())
    assert statistics.mean(asked.values()) == 40


def test_a_pod_that_goes_moves_only_those_that_ask_it() -> None:
    for node in NODES:
        before = nearest(node, pods(10), 2)
        for gone in pods(10):
            after = nearest(node, [pod for pod in pods(10) if pod != gone], 2)
            assert set(before) - {gone} <= set(after)
            assert (after == before) == (gone not in before)


def test_fewer_pods_than_asked_for_are_all_asked() -> None:
    assert set(nearest("node-1", pods(1), 2)) == set(pods(1))


def told(events: list[Happened]) -> list[str]:
    """`kind subject up down gone`."""
    return [
        " ".join(
            [one.kind, one.subject, *(word for word in ("up", "down", "gone") if getattr(one, word))]
        )
        for one in events
    ]  # fmt: skip


def test_what_is_seen_of_pods_is_what_is_asked_of_them() -> None:
    first, second, third = nearest("node-1", pods(3), 3)
    mine = Nearest("node-1", 1)
    mine.begin([second, third])
    assert mine.of([third, second]) == [second]

    def seen(kind: str, pod: Target, **counts: Target) -> list[str]:
        return told(list(mine.seen(Happened(1, kind, "", "kubernetes", pod.name, **counts))))

    assert seen("pod_deleted", third, down=third) == [f"pod_deleted {third.name}"]
    assert seen("pod_ready", third, up=third) == [f"pod_ready {third.name}"]
    assert seen("pod_ready", first, up=first) == [f"pod_ready {first.name} up", f"not_asked {second.name} down gone"]
    assert seen("pod_deleted", first, down=first) == [f"pod_deleted {first.name} down", f"asked {second.name} up"]
    assert seen("pod_gone", first, gone=first) == [f"pod_gone {first.name} gone"]
    assert mine.of(pods(3)) == [second]


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[Target]:
    """Four pods, in the order in which this node would ask them."""
    monkeypatch.setenv("DNSPROBE_NODE", "node-1")
    return nearest("node-1", pods(4), 4)


def listed(*there: Target, terminating: tuple[Target, ...] = ()) -> Json:
    """The EndpointSlice with these pods."""
    return endpoint_slice(*((pod.name, pod.address, True, pod in terminating) for pod in there), port=9)


def served(*things: Json, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ApiServer:
    server = ApiServer(*things)
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(folder / "config")))
    return server


def test_of_the_api_only_the_service_and_its_endpoints_are_asked_for(
    order: list[Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = served(service(), listed(*order[:3]), folder=tmp_path, monkeypatch=monkeypatch)

    async def look() -> tuple[set[str], list[str], dict[str, str]]:
        kube = Kube(nearest=Nearest("node-1", 2))
        try:
            await kube.start()
            there = {pod.name for pod in kube.targets("pods")}
            api.put(listed(*order[:3], terminating=(order[0],)))
            seen = await until(kube, "pod_deleted", "asked")
            return there, told(seen), kube.facts()
        finally:
            await kube.stop()

    there, seen, facts = asyncio.run(look())
    api.stop()
    assert there == {order[0].name, order[1].name}
    assert seen == [
        "endpoints_changed kube-dns",
        f"pod_deleted {order[0].name} down",
        f"asked {order[2].name} up",
    ]
    assert {path.partition("?")[0].rpartition("/")[2] for path in api.asked} == {
        "version",
        "services",
        "endpointslices",
        "nodes",
        "configmaps",
    }
    for once in ("/api/v1/nodes", "/api/v1/namespaces/kube-system/configmaps"):
        assert api.asked.count(once) == 1, "nodes are counted, and the Corefile's zones read, once"
    assert "all but the Service and its EndpointSlices" in facts["not seen"]
    assert facts["pods"].startswith("3 on ")


def test_the_domain_is_known_though_nothing_of_the_corefile_is_followed(
    order: list[Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corefile = config_map(Corefile=".:53 {\n  kubernetes prod.example in-addr.arpa\n  forward . 127.0.0.9\n}\n")
    api = served(service(), listed(*order), corefile, folder=tmp_path, monkeypatch=monkeypatch)
    plan = read_scenario("every-node")

    async def look() -> tuple[Extent, dict[str, str], list[Target]]:
        kube = Kube(nearest=Nearest("node-1", 2))
        try:
            await kube.start()
            return kube.extent(), kube.facts(), kube.targets("upstream")
        finally:
            await kube.stop()

    extent, facts, upstream = asyncio.run(look())
    api.stop()
    assert (facts["zone"], upstream) == ("prod.example", [])
    asked = first_series(in_domain(plan, extent, print), lambda selector: order if selector == "pods" else [])
    away = [replace(one, target=replace(one.target, address="10.244.0.9")) for one in asked]
    Limits(total=None, nodes=400).within(extent).check(away)  # names of the cluster's own: no upstream is asked


def test_a_run_follows_its_pods_away_and_back(
    order: list[Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The nearest pod comes and goes: what was asked before it is asked again, as one channel with a gap."""
    ports = [{"name": "dns", "port": 9, "protocol": "UDP"}]
    api = served(
        service("kube-dns", "127.0.0.1", ports=ports), listed(*order[1:3]), folder=tmp_path, monkeypatch=monkeypatch
    )
    (tmp_path / "few.yaml").write_text(
        "name: few\nduration: 6s\nlanes:\n"
        "  - {name: pods, target: pods, rate: 20, questions: [{name: a.test, type: A, expect: any}]}\n"
    )

    def others() -> None:
        time.sleep(3)
        api.put(listed(*order[:3]))
        time.sleep(1.5)
        api.put(listed(*order[:3], terminating=(order[0],)))

    acting = threading.Thread(target=others)
    acting.start()
    code, said = ran(["run", str(tmp_path / "few.yaml"), "--per-node", "1", "-o", str(tmp_path / "few.db")], capsys)
    acting.join()
    api.stop()
    run = open_run(tmp_path / "few.db")
    assert code in {1, 3}, said  # nobody answers there
    assert [mark.subject for mark in run.marks if mark.kind in ("asked", "not_asked")] == [order[1].name] * 2
    asked = {one.target.name for one in run.series}
    assert asked == {order[0].name, order[1].name}
    lives = {
        pod: [(i.from_ns, i.to_ns) for i in run.intervals if i.kind == "life" and i.subject == pod] for pod in asked
    }
    assert len(lives[order[1].name]) == 2
    (both,) = [one for one in Timeline.of(run).channels if one.target == order[1]]
    away = lives[order[1].name][1][0] - lives[order[1].name][0][1]
    expected = 20 * (6 * NS - away) / NS
    # A series begins, and ends, a moment after it was ordered to: the engine's notice.
    assert expected - 20 <= both.loss().asked <= expected + 2
    assert both.loss().asked > sum(20 * (to - since) for since, to in lives[order[1].name][:1]) / NS
