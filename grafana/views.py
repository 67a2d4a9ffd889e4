"""Panels that more than one dashboard shows: states of targets, what was lost and how, how long it took."""

from __future__ import annotations

from grafana.panels import (
    ALONE,
    BARE,
    BY_KIND,
    BY_OUTCOME,
    DASHED,
    Column,
    Panel,
    Query,
    fixed,
    lines,
    matching,
    stacked,
    stat,
    table,
    thresholds,
    timeline,
)
from grafana.queries import (
    EXPECTED,
    FELT,
    HEALTHY,
    OBJECTIVE,
    believed,
    good_share,
    lasting_rate,
    lasting_total,
    lost_rate,
    lost_total,
    of,
    quantile,
    rate,
)
from probe.outcome import Outcome
from probe.report.palette import BAD, GOOD, OUTCOMES, QUIET, WARNING

LATE_S = 0.1
"""kubernetes/perf-tests' mark for p99: clusterloader2, dns-performance-metrics.yaml."""
ENOUGH = thresholds(BAD, (0.99, WARNING), (OBJECTIVE, GOOD))
FAST = thresholds(GOOD, (LATE_S / 2, WARNING), (LATE_S, BAD))
NONE_IS_GOOD = thresholds(GOOD, (1e-9, BAD))
ENDING = 4
TARGET = {0: ("down", BAD), 1: ("losing", WARNING), 2: ("up", GOOD)} | {
    ENDING + state: ("ending", QUIET) for state in (0, 1, 2)
}


def losing(*matchers: str) -> str:
    """Starts of the windows of disruption that go on now, as probers see them that are believed; none if none does."""
    return believed(of("dnsprobe_outage_start_timestamp_seconds", *matchers) + " > 0")


def felt() -> Panel:
    """The ways that clients take: up, losing, down."""
    return timeline(
        "The ways clients take",
        "The worst that any prober sees of the Service, NodeLocal DNSCache or the server that was named. losing: a"
        " part of the queries, in a disruption that goes on; down: nothing was good for max(1 s, 5 queries).",
        Query(_state("cluster, target, transport", FELT), "{{cluster}} {{target}} {{transport}}"),
        states=TARGET,
        height=5,
    )


def targets(height: int = 8) -> Panel:
    """Each target and transport: up, losing, down, ending."""
    state = _state("cluster, target, transport")
    ending = f"{ENDING} * max by (cluster, target) ({of('dnsprobe_target_terminating')})"
    return timeline(
        "Targets",
        "The worst that any prober sees of each target. losing: a part of the queries, in a disruption that goes on;"
        " down: nothing was good for max(1 s, 5 queries); ending: a pod that was told to go, which may lose what it"
        " likes.",
        Query(f"{state} + on (cluster, target) group_left () {ending} or {state}", "{{target}} {{transport}}"),
        states=TARGET,
        height=height,
    )


def _state(by: str, *matchers: str) -> str:
    """As TARGET says, but for ending."""
    path = "cluster, job, instance, node, target, target_kind, transport"
    losing_now = f"max by ({path}) ({of('dnsprobe_outage_start_timestamp_seconds', *matchers)} > bool 0)"
    return f"min by ({by}) ({of('dnsprobe_target_up', *matchers)} * on ({path}) (2 - {losing_now}))"


def lost(width: int = 12, height: int = 8) -> Panel:
    """Queries per second that were not good, by outcome."""
    never = of("dnsprobe_queries_total", f'outcome!~"{EXPECTED}"')
    return stacked(
        "Queries that were not good, by outcome",
        "Colours are the same in every panel. `unexpected`: an answer, NODATA or NXDOMAIN where another one of these"
        " was right. The line is all of them together: 0 is good. Pods that were told to go are left out.",
        "reqps",
        Query(lasting_rate(never, "outcome") + " > 0", "{{outcome}}"),
        # Rates of two counters are extrapolated apart where a loss begins: less than a twentieth may be just that.
        Query(f"{lost_rate()} - {lasting_rate(never)} > 0.05 * {lost_rate()}", "unexpected"),
        Query(lost_rate(), "all"),
        overrides=(
            *BY_OUTCOME,
            fixed("unexpected", OUTCOMES[Outcome.NXDOMAIN]),
            fixed("all", QUIET, ALONE, BARE),
        ),
        width=width,
        height=height,
        aside=True,
    )


def latency(width: int = 12, height: int = 8) -> Panel:
    """p50 and p99 of each kind of target."""
    name = "dnsprobe_query_duration_seconds"
    return lines(
        "Latency of good queries, by kind of target",
        "From the instant a query was due: what a client waits. The dashed red line is the mark of Kubernetes' own"
        " performance tests. Dashed: p50.",
        "s",
        *(Query(quantile(q / 100, name, "target_kind"), f"{{{{target_kind}}}} p{q}") for q in (99, 50)),
        overrides=(*BY_KIND, matching("p50$", DASHED, BARE)),
        mark=LATE_S,
        width=width,
        height=height,
        logarithmic=True,
    )


def share_lost(width: int = 12, height: int = 8) -> Panel:
    """Service beside pods."""
    asked = lasting_rate(of("dnsprobe_queries_total"), "target_kind")
    return lines(
        "Share lost: by the Service, and straight from pods",
        "The Service loses while no pod does: routing to pods is stale (kube-proxy, conntrack). Both lose: look at"
        " CoreDNS.",
        "percentunit",
        Query(f"{lost_rate('target_kind')} / ({asked} > 0)", "{{target_kind}}"),
        overrides=BY_KIND,
        width=width,
        height=height,
    )


def disruption(width: int = 12, height: int = 8) -> Panel:
    """Seconds of disruption, as the prober that saw most of it counted them."""
    seconds = of("dnsprobe_outage_seconds_total")
    return lines(
        "Seconds of disruption, lately",
        "What the counter of disruption grew by within four scrapes, as the worst placed prober and lane saw it. An"
        " outage of 800 ms is a plateau of 0.8 s, however rare the scrapes.",
        "s",
        Query(
            f"max by (target_kind, transport) (increase({seconds}[$__rate_interval]))", "{{target_kind}} {{transport}}"
        ),
        overrides=(*BY_KIND, matching("tcp$", DASHED)),
        width=width,
        height=height,
        steps=True,
    )


def lookups() -> Panel:
    """What applications felt, as client profiles did."""
    failed = rate(of("dnsprobe_lookups_total", 'fate=~"failed|not_found"'), "client")
    return lines(
        "Lookups of client profiles that failed or took over 1 s",
        "What applications notice: a lookup is all of a resolver's queries for a name, its retries among them, so that"
        " one that was lost is often felt as some seconds more.",
        "reqps",
        Query(failed, "{{client}} failed"),
        Query(rate(of("dnsprobe_lookups_slow_total"), "client"), "{{client}} slow"),
        overrides=(matching("slow$", DASHED),),
        nothing="no client profiles look names up",
        width=24,
        height=6,
    )


def lanes(*matchers: str, width: int = 24, height: int = 8) -> Panel:
    """Each lane and target: asked, lost, disrupted."""
    by = "target_kind, target, transport, ports, query"
    asked = of("dnsprobe_queries_total", *matchers)
    outages = of("dnsprobe_outages_total", *matchers)
    seconds = of("dnsprobe_outage_seconds_total", *matchers)
    return table(
        "Lanes and their targets, over the time shown",
        "The worst lane first, without pods that were told to go. Disruptions and their seconds are those of the"
        " prober that saw most of them. Prometheus extrapolates: few queries may be fractions.",
        {"query": "lane", "target": "target", "target_kind": "kind", "transport": "by", "ports": "ports"},
        [
            Column("asked", lasting_total(asked, by), decimals=0),
            Column("lost", lost_total(by, *matchers), decimals=0),
            Column("good", good_share(by, *matchers), "percentunit", 3, ENOUGH),
            Column("disruptions", lasting_total(outages, by, "max"), decimals=0),
            Column("seconds of disruption", lasting_total(seconds, by, "max"), "s", 1),
        ],
        sort="good",
        width=width,
        height=height,
    )


def healthy_probers() -> Panel:
    """Whether the probers may be believed."""
    return stat(
        "Healthy probers",
        "The share of probers that send on time and lose nothing by themselves. What the others see is left out of"
        " what is said of now.",
        "percentunit",
        Query(f"sum({HEALTHY}) / count({HEALTHY})"),
        colours=thresholds(BAD, (0.5, WARNING), (1, GOOD)),
        nothing="NONE",
        decimals=0,
    )
