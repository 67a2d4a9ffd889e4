"""The shipped rules on a real Prometheus beside real labs, in a short form; `make alerts` has the whole of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.alerting import Alerting, Prober, shipped

LAB = {"readiness_period": "1s", "readiness_failures": 1, "lameduck": "0s"}


def test_what_fires_is_what_has_happened(tmp_path: Path) -> None:
    """Scraped every 5 s. A Service loses all its pods; from another one of two ends 0.8 s before its node knows."""
    names = ["kubernetes.default.svc.cluster.local"]
    lanes = [{"name": "vip-udp-fresh", "target": "service", "ports": "fresh", "rate": 100, "questions": names}]
    short = {"lab": LAB | {"replicas": 2, "propagation": "800ms"}, "lanes": lanes}
    probers = [
        Prober("stalled", shipped("every-node"), "serve"),
        Prober(
            "down",
            shipped("every-node", lab=LAB | {"propagation": "300ms"}, steps=[{"wait": "12s"}, {"scale": 0}]),
        ),
        Prober("short", shipped("baseline", duration="5m", steps=[{"wait": "12s"}, {"scale": 1}]) | short),
    ]
    with Alerting(tmp_path, probers, interval=5) as alerting:
        prometheus = alerting.prometheus
        prometheus.wait_for('dnsprobe_queries_good_total{cluster="stalled"} > 5', 120)
        alerting.stall("stalled", 3)
        (began,) = prometheus.wait_for('max(dnsprobe_outage_start_timestamp_seconds{cluster="down"} > 0)', 120)
        prometheus.wait_for('ALERTS{alertname="DNSProbeClusterDNSDown", alertstate="firing"}', 120)
        paged_s = time.time() - began.last
        prometheus.wait_for('ALERTS{alertname="DNSProbeProberUnhealthy", cluster="stalled", alertstate="firing"}', 40)
        prometheus.wait_for('ALERTS{alertname="DNSProbeShortOutage", cluster="short", alertstate="firing"}', 60)
        fired = {cluster: set(each) for cluster, each in alerting.fired().items()}
        (lost,) = prometheus.query('dnsprobe_outage_seconds_total{cluster="short"}')
    assert fired["stalled"] - {"Watchdog"} == {"ProberUnhealthy"}
    told = {"ClusterDNSDown", "ShortOutage", "NoReadyEndpoints", "ProberUnhealthy"}
    assert {"ClusterDNSDown"} <= fired["down"] <= told
    assert {"ShortOutage"} <= fired["short"] <= {"ShortOutage", "ProberUnhealthy"}
    assert paged_s < 90
    assert lost.last == pytest.approx(0.8, abs=0.1)
