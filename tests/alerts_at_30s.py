"""The shipped rules, profiles and scrape interval: seven minutes of labs side by side, and which alerts each sets off.

`make alerts` runs it; pytest does not find it by its name. What is the whole cluster's is scraped apart from what is a
node's, and the lab with nodes is scraped as a prober for each of them: Prometheus takes one process's page to pieces.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.alerting import Alerting, Prober, shipped

LENGTH_S = 450
AT_S = 60
"""When something is done to a lab: the counters' zeros have been scraped."""
SCRAPE_S = 30
LAB = {"readiness_period": "1s", "readiness_failures": 1}
STEPS = [{"wait": f"{AT_S}s"}]
LANES = [
    {"name": "vip-udp-fresh", "target": "service", "ports": "fresh", "rate": 100},
    {"name": "pods", "target": "pods", "ports": "fresh", "rate": 5},
]


def every_node(lab: dict[str, object], *steps: dict[str, object]) -> dict[str, object]:
    """The DaemonSet's scenario, while something happens."""
    return shipped("every-node", duration=f"{LENGTH_S + 240}s", lab=LAB | lab, steps=[*STEPS, *steps])


PROBERS = [
    # Nothing but a prober that stands still.
    Prober("quiet", shipped("every-node"), "serve"),
    Prober("stalled", shipped("every-node"), "serve"),
    # One of two pods ends at once, and the node goes on sending to it for 0.8 s. 100 queries/s: to 0.02 s.
    Prober(
        "short",
        shipped(
            "baseline",
            duration=f"{LENGTH_S + 240}s",
            lab=LAB | {"replicas": 2, "lameduck": "0s", "propagation": "800ms"},
        )
        | {
            "lanes": [lane | {"questions": ["kubernetes.default.svc.cluster.local"]} for lane in LANES],
            "steps": [*STEPS, {"scale": 1}],
        },
    ),
    # A rollout of three pods, each 10 s before the node knows.
    Prober(
        "lameduck",
        every_node({"lameduck": "0s", "propagation": "10s", "min_ready_seconds": "15s"}, {"restart": None}),
    ),
    # The same rollout, with a lameduck that is long enough.
    Prober(
        "rollout",
        every_node({"lameduck": "15s", "propagation": "10s", "min_ready_seconds": "15s"}, {"restart": None}),
    ),
    # kube-proxy of node-2 does not hear of anything any more; what ends on node-1 ends well.
    Prober(
        "route",
        every_node({"backend": "netns", "nodes": 2, "lameduck": "2s", "propagation": ["300ms", "1h"]}, {"scale": 2}),
        nodes=2,
    ),
    Prober("down", every_node({"lameduck": "0s", "propagation": "300ms"}, {"scale": 0})),
]
EXPECTED = {
    "quiet": {"Watchdog"},
    "stalled": {"Watchdog", "ProberUnhealthy"},
    "short": {"ShortOutage", "LameduckTooShort"},
    "lameduck": {"ShortOutage", "LameduckTooShort"},
    "rollout": set(),
    "route": {"ShortOutage", "ServiceRoutingStale"},
    "down": {"ShortOutage", "ClusterDNSDown", "NoReadyEndpoints"},
}


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alerting]:
    """All of it, seven minutes after the last of them began to ask."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for network namespaces: run `sudo make alerts`")
    folder = tmp_path_factory.mktemp("alerts")
    with Alerting(folder, PROBERS, SCRAPE_S) as alerting:
        asking = "count(max by (cluster) (dnsprobe_queries_good_total) > 0)"
        alerting.prometheus.wait_for(f"{asking} == {len(PROBERS)}", 180)
        alerting.prometheus.wait_for('max(dnsprobe_queries_scheduled_total{cluster="stalled"}) > 120', 120)
        alerting.stall("stalled", 3)
        time.sleep(LENGTH_S - AT_S)
        yield alerting


@pytest.mark.parametrize("cluster", EXPECTED)
def test_what_fires_is_what_has_happened(after: Alerting, cluster: str) -> None:
    fired = after.fired()[cluster]
    print(cluster, {name: f"{at - after.began:.0f} s" for name, at in fired.items()})
    machine = set() if cluster == "stalled" else {"ProberUnhealthy"}  # others that run here may take its CPU
    assert set(fired) - machine == EXPECTED[cluster]


def test_an_outage_of_800_ms_is_seen_through_a_scrape_of_30_s(after: Alerting) -> None:
    """Whenever asked, once the window is full: extrapolated to its edges, by up to a ninth."""
    counter = 'dnsprobe_outage_seconds_total{cluster="short", target_kind="service"}'
    (total,) = after.prometheus.query(counter)
    (seen,) = after.prometheus.query_range(
        f"increase({counter}[5m]) > 0 and count_over_time({counter}[5m]) >= 10", after.began, time.time(), 1
    )
    print(f"the counter {total.last:.3f} s; increase over 5 min {min(seen.values):.3f} to {max(seen.values):.3f} s")
    assert total.last == pytest.approx(0.8, abs=0.05)
    assert seen.values == pytest.approx([0.8] * len(seen.values), abs=0.1)


def test_a_whole_outage_pages_within_two_minutes(after: Alerting) -> None:
    starts = after.prometheus.query('dnsprobe_outage_start_timestamp_seconds{cluster="down", target_kind="service"}')
    began = min(start.last for start in starts)
    paged = after.fired()["down"]["ClusterDNSDown"]
    print(f"paged {paged - began:.0f} s after the first query that was lost")
    assert 0 < paged - began < 120
