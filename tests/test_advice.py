"""The lameduck that is recommended: the rule as tables, what runs say of propagation, what each platform is told."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from probe.advice import PLATFORMS, Clients, Departure, by_counter, by_nsid, platform_of, recommend
from probe.advice.rule import grace_for, least_lameduck, lost_for, margin_of, most_lameduck, safe_lameduck, serves_for
from probe.cluster import Shutdown
from probe.errors import UsageError
from probe.model import NS, Mark, TargetKind
from probe.outcome import Counter, Outcome
from probe.report.advice import advice_json, advice_text
from probe.runfile import Run
from tests.synthetic import series_of, written

INF = math.inf
KUBEADM = Shutdown(
    replicas=3, lameduck=5.0, grace_period=30.0, pre_stop=0.0, readiness="ready", readiness_period=10.0,
    readiness_failures=3, proxy_mode="iptables", kubernetes="1.33",
)  # fmt: skip
HELM = replace(KUBEADM, lameduck=10.0, readiness_period=5.0, readiness_failures=1)
EKS = replace(KUBEADM, grace_fixed="fixed")
FRESH, FIXED = Clients.FRESH, Clients.FIXED


# --- The rule ---


@pytest.mark.parametrize(
    ("changed", "fresh", "fixed"),
    [
        ({}, 4, 34),
        ({"kubernetes": "1.31"}, 4, 34),
        ({"kubernetes": "1.29"}, 4, 34),
        ({"kubernetes": "1.28"}, 4, 4),
        ({"proxy_mode": "ipvs"}, 4, 4),
        ({"proxy_mode": "nftables"}, 4, 34),
        ({"readiness_period": 5.0, "readiness_failures": 1}, 4, 9),
        ({"readiness": "health"}, 4, INF),
        ({"readiness": "none"}, 4, INF),
        ({"readiness": "none", "kubernetes": "1.25"}, 4, 4),
        ({"pre_stop": 3.0}, 1, 34),
        ({"pre_stop": 15.0}, 0, 34),
    ],
)
def test_the_least_lameduck_by_era_and_readiness(changed: dict[str, object], fresh: float, fixed: float) -> None:
    """Propagation 4 s. A new flow comes until T0 + D; an old one until D after the pod was seen not to serve."""
    shutdown = replace(KUBEADM, **changed)  # type: ignore[arg-type]
    assert [least_lameduck(clients, 4, shutdown) for clients in (FRESH, FIXED)] == [fresh, fixed]


@pytest.mark.parametrize("propagation", [0.1, 0.5, 2.0, 4.0, 10.0, 30.0])
@pytest.mark.parametrize("clients", Clients)
@pytest.mark.parametrize("shutdown", [KUBEADM, HELM, replace(HELM, kubernetes="1.28"), replace(HELM, pre_stop=2.0)])
def test_what_is_called_safe_loses_nothing_and_is_no_luxury(
    propagation: float, clients: Clients, shutdown: Shutdown
) -> None:
    margin = margin_of(propagation)
    least, safe = least_lameduck(clients, propagation, shutdown), safe_lameduck(clients, propagation, shutdown, margin)
    assert least <= safe <= 1.2 * least + 1
    longer = replace(shutdown, grace_period=float(grace_for(shutdown, safe)))
    assert lost_for(clients, propagation, longer, safe) == 0
    if least:
        assert lost_for(clients, propagation, longer, least) == pytest.approx(0)
        assert lost_for(clients, propagation, longer, max(0, least - 0.2)) > 0


@pytest.mark.parametrize(
    ("shutdown", "lameduck", "served", "fresh", "fixed"),
    [
        # Reference, 6.3; propagation 6 s.
        (KUBEADM, 0, 0, 6, 6),
        (KUBEADM, 5, 5, 1, 6),
        (KUBEADM, 15, 15, 0, 6),
        (KUBEADM, 30, 30, 0, 6),
        (replace(KUBEADM, grace_period=60.0), 33, 33, 0, 3),
        (replace(KUBEADM, grace_period=60.0), 36, 36, 0, 0),
        (replace(KUBEADM, pre_stop=5.0), 30, 30, 0, 6),
        (replace(KUBEADM, pre_stop=5.0), 0, 5, 1, 6),
        (replace(KUBEADM, pre_stop=40.0), 30, 32, 0, 6),
        (replace(KUBEADM, grace_period=3.0), 30, 3, 3, 6),
        (HELM, 10, 10, 0, 1),
        (HELM, 11, 11, 0, 0),
        (replace(HELM, kubernetes="1.28"), 5, 5, 1, 1),
        (replace(HELM, readiness="health"), 25, 25, 0, 6),
    ],
)
def test_what_a_setting_costs(shutdown: Shutdown, lameduck: float, served: float, fresh: float, fixed: float) -> None:
    assert serves_for(shutdown, lameduck) == served
    assert [lost_for(clients, 6, shutdown, lameduck) for clients in (FRESH, FIXED)] == [fresh, fixed]


@pytest.mark.parametrize(
    ("pre_stop", "lameduck", "grace"), [(0, 5, 11), (0, 24, 30), (5, 15, 26), (0, 4.5, 11), (0, 34.5, 41)]
)
def test_the_grace_period_holds_all_of_it(pre_stop: float, lameduck: float, grace: int) -> None:
    assert grace_for(replace(KUBEADM, pre_stop=float(pre_stop)), lameduck) == grace
    assert most_lameduck(replace(EKS, pre_stop=float(pre_stop))) == 24 - pre_stop
    assert most_lameduck(KUBEADM) == INF


# --- What is recommended ---


@pytest.mark.parametrize(
    ("shutdown", "propagation", "lameduck", "grace"),
    [
        (KUBEADM, 2, 32.5, 39),
        (HELM, 2, 10, 16),  # it is safe already: what is set stays
        (HELM, 6, 11.6, 18),
        (replace(KUBEADM, kubernetes="1.28"), 6, 6.6, 13),
        (replace(KUBEADM, lameduck=40.0), 2, 32.5, 39),  # safe if the grace period were not too short for it
        (replace(KUBEADM, readiness="health"), 6, 6.6, 13),  # nothing saves fixed ports: what fresh ones need
        # A grace period of 30 s that stays.
        (EKS, 2, 5, 11),  # R + D > 24 s and 24 s < R: more helps nobody
        (EKS, 6, 6.6, 13),
        (EKS, 40, 24, 30),  # too late for fresh ports, too
        (replace(EKS, lameduck=30.0), 2, 2.5, 9),
        (replace(EKS, readiness_period=5.0), 6, 21.6, 28),
        (replace(EKS, readiness_period=5.0), 12, 24, 30),  # not enough, but fixed ports lose 3 s instead of 12
    ],
)
def test_what_is_recommended(shutdown: Shutdown, propagation: float, lameduck: float, grace: int) -> None:
    advice = recommend(propagation, shutdown)
    assert (advice.lameduck, advice.grace) == (lameduck, grace)
    assert advice.grace <= shutdown.grace_period or advice.raises_grace


def test_what_is_lost_even_so() -> None:
    """Propagation 12 s, readiness lost after 15 s at most, and 24 s of lameduck is all that fits."""
    fresh, fixed = recommend(12, replace(EKS, readiness_period=5.0)).needs
    assert (fresh.lost_now, fresh.lost_then) == (7, 0)
    assert (fixed.lost_now, fixed.lost_then) == (12, 3)
    assert fixed.safe > 24


def test_a_lower_bound_gives_a_lameduck_to_measure_under() -> None:
    assert recommend(5, KUBEADM, at_least=True).lameduck == 15
    assert recommend(20, replace(KUBEADM, lameduck=20.0), at_least=True).lameduck == 40
    assert recommend(20, replace(EKS, lameduck=20.0), at_least=True).lameduck == 24
    assert recommend(20, replace(KUBEADM, lameduck=20.0), at_least=True, settable=False).lameduck == 20


def test_the_margin_is_half_a_second_or_a_tenth() -> None:
    assert [margin_of(d) for d in (0, 2, 5, 10)] == [0.5, 0.5, 0.5, 1]
    assert margin_of(2, unheard=0.8) == 0.8
    assert recommend(2, HELM, unheard=0.8).needs[0].safe == 2.8


# --- Propagation from a run ---

POD = "coredns-x-abcde"


def ran(
    folder: Path,
    direct_until: float,
    *,
    service: Sequence[float],
    others: Sequence[Mark] = (),
    ports: str = "fresh",
    again: int = 0,
    stalled: tuple[float, float] = (0, 0),
) -> Run:
    """20 s in which the pod was deleted at 5 s: through each node's Service it answered from the start until then.

    stalled: meanwhile this prober did not send.
    """
    services = [
        series_of(i, target=f"kube-dns@{i}", rate=100, seconds=20, ports=ports, address=f"127.53.0.{i + 10}")
        for i in range(len(service))
    ]
    pods = series_of(len(service), "pods", POD, TargetKind.POD, rate=20, seconds=20, address="127.53.0.99")
    told = [(round(until * 50), 0, round(until * NS)) for until in service]
    told.append((round(direct_until * 20), 0, round(direct_until * NS)))
    return written(
        folder / "run.db",
        [*services, pods],
        lambda _, due_ns: Outcome.UNSENT if stalled[0] <= due_ns / NS < stalled[1] else Outcome.ANSWER,
        marks=[Mark(5 * NS, "pod_deleted", "", "lab", POD), *others],
        servers={POD: told} if service[0] else {},
        counters={(0, Counter.PORTS_REUSED): again},
    )


@pytest.mark.parametrize(
    ("service", "direct_until", "others", "seconds", "at_least"),
    [
        ([7.0], 15.0, [], [2.0], [False]),
        ([7.0, 9.5], 15.0, [], [2.0, 4.5], [False, False]),
        ([7.0, 9.98], 10.0, [], [2.0, 4.98], [False, True]),
        ([9.7], 10.0, [], [4.7], [False]),
        ([9.98], 15.0, [("sigkill", 10)], [4.98], [True]),
        ([9.98], 15.0, [("pod_exited", 10)], [4.98], [True]),
        ([9.98], 15.0, [("pod_ready", 10)], [4.98], [False]),
        ([19.99], 19.99, [], [14.99], [True]),  # the run ended first
        ([4.99], 15.0, [], [0.0], [False]),  # no node sent it anything any more
        ([0.0], 15.0, [], [], []),  # no NSID
    ],
)
def test_the_last_answer_by_nsid(
    tmp_path: Path,
    service: list[float],
    direct_until: float,
    others: list[tuple[str, float]],
    seconds: list[float],
    at_least: list[bool],
) -> None:
    marks = [Mark(round(at * NS), kind, "", "lab", POD) for kind, at in others]
    found = by_nsid(ran(tmp_path, direct_until, service=service, others=marks))
    assert [one.seconds for one in found] == pytest.approx(seconds)
    assert [one.at_least for one in found] == at_least
    assert [one.node for one in found] == [f"kube-dns@{i}" for i in range(len(found))]


@pytest.mark.parametrize(("ports", "again"), [("pool:64", 0), ("fixed", 0), ("fresh", 3)])
def test_ports_that_come_again_tell_nothing_of_new_flows(tmp_path: Path, ports: str, again: int) -> None:
    assert by_nsid(ran(tmp_path, 15, service=[7.0], ports=ports, again=again)) == []


@pytest.mark.parametrize(
    ("until", "closes", "seconds", "at_least"),
    [
        (2.0, 5.0, 2.0, False),
        (0.5, 5.0, 0.6, False),
        (0.0, 5.0, 0.0, False),
        (9.0, 5.0, 5.0, True),
        (4.9, 5.0, 5.0, True),
    ],
)
def test_the_last_request_by_counter(
    tmp_path: Path, until: float, closes: float, seconds: float, at_least: bool
) -> None:
    """50 a second through the Service until then, 20 a second past it all the time; read every 0.2 s."""
    run = ran(tmp_path, 15, service=[0.0])
    after = [0.2 * i for i in range(round(closes / 0.2) + 1)]
    readings = [(round((5 + t) * NS), 1000 + round(50 * min(t, until)) + round(20 * t)) for t in after]
    found = by_counter(run, POD, readings)
    assert found is not None
    assert found.seconds == pytest.approx(seconds, abs=0.001)
    assert found.at_least == at_least


def test_what_was_not_sent_past_the_service_is_not_taken_for_what_came_through_it(tmp_path: Path) -> None:
    """As above, but from 8 to 9 s nothing was sent: 20 requests fewer, and the last through the Service at 7 s."""
    run = ran(tmp_path, 15, service=[0.0], stalled=(8, 9))
    after = [0.2 * i for i in range(26)]
    directly = [20 * t - 20 * min(max(t - 3, 0), 1) for t in after]
    readings = [
        (round((5 + t) * NS), 1000 + round(50 * min(t, 2)) + round(past))
        for t, past in zip(after, directly, strict=True)
    ]
    found = by_counter(run, POD, readings)
    assert found is not None
    assert found.seconds == pytest.approx(2.0, abs=0.001)


def test_without_readings_nothing_is_known(tmp_path: Path) -> None:
    run = ran(tmp_path, 15, service=[0.0])
    assert by_counter(run, POD, []) is None
    assert by_counter(run, "another", [(6 * NS, 1), (7 * NS, 2), (8 * NS, 3)]) is None


# --- Platforms, and what people read ---


def told(shutdown: Shutdown, propagation: float, platform: str, at_least: bool = False) -> tuple[str, str]:
    """The screen without its line breaks, and the patch."""
    where = platform_of(platform)
    advice = recommend(propagation, where.seen(shutdown), at_least=at_least, settable=where.settable)
    found = [Departure(POD, "kube-dns", propagation, at_least, 0.02)]
    patch = json.loads(advice_json(advice, found, platform, where))["patch"]
    return " ".join(advice_text(advice, found, platform, where).split()), patch


@pytest.mark.parametrize(
    ("platform", "patch", "said"),
    [
        (
            "kubeadm",
            ["lameduck 32.5s", '"terminationGracePeriodSeconds":39'],
            "32.5 s 5 s SHORT by 27.5 s",
        ),
        ("helm", ["name: health", "      lameduck 32.5s", "terminationGracePeriodSeconds: 39"], "set 32.5 s"),
        ("k3s", ["coredns-custom", '"lameduck.override":"health {\\n    lameduck 32.5s\\n}\\n"'], "k3s-io/k3s#4397"),
        ("eks", [], "fixed ports: 1 port in 3 dead for up to 2 s when a pod goes. What helps"),
        ("aks", [], "there is room for a lameduck of 24 s"),
        ("openshift", [], "nothing can be set: lameduck is 20 s here"),
        ("gke", [], "no lameduck is 30 s 1 port in 3 dead for up to 2 s"),
    ],
)
def test_each_platform_is_told_in_its_own_form(platform: str, patch: list[str], said: str) -> None:
    text, commands = told(KUBEADM, 2, platform)
    assert said in text
    assert bool(commands) == bool(patch)
    assert [line for line in patch if line not in commands] == []


@pytest.mark.parametrize("platform", ["eks", "aks"])
def test_where_grace_is_fixed_lameduck_alone_is_changed(platform: str) -> None:
    text, commands = told(KUBEADM, 8, platform)
    assert "lameduck 8.8s" in commands
    assert "terminationGracePeriodSeconds" not in commands
    assert "Still lost with it, fixed ports: 1 port in 3 dead for up to 8 s" in text


def test_what_is_safe_needs_no_patch() -> None:
    text, commands = told(HELM, 2, "kubeadm")
    assert text.startswith("SAFE: lameduck 10 s loses nothing when a pod goes")
    assert commands == ""


def test_a_lower_bound_is_said_as_one() -> None:
    text, commands = told(KUBEADM, 4.99, "kubeadm", at_least=True)
    assert text.startswith("NOT KNOWN YET: ")
    assert ">= 4.99 s at kube-dns" in text
    assert "kubeproxy_network_programming_duration_seconds" in text
    assert "> 4.99 s 5 s not known" in text
    assert "lameduck 15 s, to measure again" in text
    assert "lameduck 15s" in commands


def test_an_unknown_platform_is_told_which_there_are() -> None:
    with pytest.raises(UsageError, match="'minikube': say kubeadm, helm, eks"):
        platform_of("minikube")
    assert all(platform.keeps for platform in PLATFORMS.values())
