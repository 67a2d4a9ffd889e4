"""What cluster DNS is like now, for a person on call -> the rows of the dashboard `overview`."""

from __future__ import annotations

from grafana.panels import Column, Json, Panel, Query, Row, named, stat, table, thresholds
from grafana.queries import FELT, HEALTHY, OBJECTIVE, believed, good_share, of, quantile
from grafana.views import (
    ENOUGH,
    FAST,
    LATE_S,
    disruption,
    felt,
    healthy_probers,
    lanes,
    latency,
    lookups,
    losing,
    lost,
    share_lost,
)
from probe.report.palette import BAD, GOOD, WARNING

NOW = {3: ("UP", GOOD), 2: ("LOSING", WARNING), 1: ("DOWN FOR SOME", BAD), 0: ("DOWN", BAD)}
IN_DOUBT = 4
NOW |= {IN_DOUBT + state: (f"{text}?", WARNING) for state, (text, _) in NOW.items()}
SILENT: Json = {"type": "special", "options": {"match": "nan", "result": {"text": "no answers", "color": BAD}}}


def rows() -> list[Row]:
    """The dashboard."""
    return [
        Row([now(), since(), good(), budget(), p99(), healthy_probers()]),
        Row([felt()]),
        Row([lost(), share_lost()]),
        Row([latency(), disruption()]),
        Row([nodes()]),
        Row([lookups()]),
        Row([lanes(FELT, height=6)]),
    ]


def now() -> Panel:
    """Whether cluster DNS is up."""
    up = believed(of("dnsprobe_target_up", FELT))
    somewhere = f"min(max by (cluster, target, transport) ({up}))"
    nothing_lost = f"((count({losing(FELT)}) or vector(0)) == bool 0)"
    return stat(
        "Cluster DNS now",
        "What healthy probers see by the ways clients take: the Service, NodeLocal DNSCache, or the server that was"
        " named. DOWN: one of these answers nobody. DOWN FOR SOME: not every prober. LOSING: a part is lost."
        " With a question mark: no prober is healthy. UNKNOWN: there is none.",
        "none",
        Query(f"{somewhere} + min({up}) + {nothing_lost} + {IN_DOUBT} * (sum({HEALTHY}) == bool 0)"),
        colours=thresholds(WARNING),
        states=named(NOW),
        nothing="UNKNOWN",
        width=5,
    )


def since() -> Panel:
    """Since when queries are being lost."""
    return stat(
        "Losing queries since",
        "When the disruption began that goes on now, by the ways clients take; the oldest if there are several.",
        "dateTimeFromNow",
        Query(f"min({losing(FELT)}) * 1000 or clamp_max(count({HEALTHY}), 1)"),
        colours=thresholds(WARNING, (2, BAD)),
        states=named({1: ("not now", GOOD)}),
        nothing="UNKNOWN",
    )


def good() -> Panel:
    """Availability."""
    return stat(
        "Good queries",
        "The share of queries over the time shown that got the expected outcome, by the ways clients take. What a"
        " prober could not send counts neither way.",
        "percentunit",
        Query(good_share("", FELT)),
        colours=ENOUGH,
        decimals=3,
    )


def budget() -> Panel:
    """What part of the losses that are allowed has been lost."""
    return stat(
        "Error budget spent",
        f"{1 - OBJECTIVE:.1%} of the queries over the time shown may be lost: 100 % is all of that, 500 % five times as"
        " much.",
        "percentunit",
        Query(f"(1 - ({good_share('', FELT)})) / {1 - OBJECTIVE:g}"),
        colours=thresholds(GOOD, (0.5, WARNING), (1, BAD)),
        decimals=0,
    )


def p99() -> Panel:
    """How long clients wait."""
    return stat(
        "p99 now",
        "Of good queries lately, from the instant they were due, by the ways clients take."
        f" {1000 * LATE_S:g} ms is the mark of Kubernetes' own performance tests.",
        "s",
        Query(quantile(0.99, "dnsprobe_query_duration_seconds", "", FELT)),
        colours=FAST,
        states=[SILENT],
        nothing="no answers",
        width=3,
    )


def nodes() -> Panel:
    """Each prober, the worst first."""
    by = "cluster, node, instance"
    up, seconds = of("dnsprobe_target_up", FELT), of("dnsprobe_outage_seconds_total", FELT)
    duration = "dnsprobe_query_duration_seconds"
    return table(
        "Nodes: cluster DNS as each prober sees it",
        "By the ways clients take, over the time shown; the worst first. One bad node among good ones: its kube-proxy"
        " or conntrack. A prober that is not healthy may be the fault itself.",
        {"cluster": "cluster", "node": "node", "instance": "prober"},
        [
            Column("DNS now", f"min by ({by}) ({up})", states=named({1: ("up", GOOD), 0: ("DOWN", BAD)})),
            Column("good", good_share(by, FELT), "percentunit", 3, ENOUGH),
            Column("seconds of disruption", f"max by ({by}) (increase({seconds}[$__range]))", "s", 1),
            Column("p99", quantile(0.99, duration, by, FELT, over="$__range"), "s", None, FAST),
            Column("healthy", f"min by ({by}) ({HEALTHY})", states=named({1: ("yes", GOOD), 0: ("NO", BAD)})),
        ],
        sort="good",
        links={"prober": "/d/dnsprobe-prober-health?var-instance=${__value.raw}&${__url_time_range}"},
    )  # fmt: skip
