"""What a rollout did to queries -> the rows of the dashboard `rollout`."""

from __future__ import annotations

from grafana.panels import (
    BY_OUTCOME,
    Column,
    Panel,
    Query,
    Row,
    in_turn,
    lines,
    named,
    stacked,
    stat,
    table,
    thresholds,
    timeline,
)
from grafana.queries import FELT, lasting_rate, lost_rate, lost_total, of, quantile, rate
from grafana.views import FAST, disruption, lanes, latency, lost, share_lost, targets
from probe.report.palette import BAD, GOOD, QUIET, SEQUENCE, WARNING

PHASES = ("waiting", "progressing", "completed", "stalled", "rolled back")
COLOURS = (QUIET, SEQUENCE[0], GOOD, WARNING, BAD)
PHASE = {at: (name, colour) for at, (name, colour) in enumerate(zip(PHASES, COLOURS, strict=True), 1)}
UNWATCHED = "not watched"


def rows() -> list[Row]:
    """The dashboard."""
    return [
        Row([phase_now(), lost_in_all(), longest(), p99(), endpoints_now(), watched()]),
        Row([phases(), endpoints()]),
        Row([targets()]),
        Row([outcomes(), lost()]),
        Row([disruption(), share_lost()]),
        Row([latency(), by_phase()]),
        Row([lanes()]),
    ]


def _phase() -> str:
    """The phase of each workload as a number: its place in PHASES, from 1 on."""
    phases = (of("dnsprobe_rollout_info", f'phase="{name}"') for name in PHASES)
    return f"max by (workload) ({' or '.join(f'{at} * ({each} == 1)' for at, each in enumerate(phases, 1))})"


def phase_now() -> Panel:
    """How far rollouts are."""
    return stat(
        "Rollouts now",
        "Of CoreDNS, kube-proxy and NodeLocal DNSCache, as far as the cluster has them and is watched.",
        "none",
        Query(_phase(), "{{workload}}"),
        colours=thresholds(QUIET),
        states=named(PHASE),
        nothing=UNWATCHED,
        width=6,
    )


def lost_in_all() -> Panel:
    """How many queries were lost."""
    return stat(
        "Queries lost",
        "Over the time shown, by the ways clients take; Prometheus extrapolates, so that few may be off by some.",
        "short",
        Query(lost_total("", FELT)),
        colours=thresholds(GOOD, (0.5, BAD)),
        decimals=0,
    )


def longest() -> Panel:
    """How long queries were being lost."""
    seconds = of("dnsprobe_outage_seconds_total", FELT)
    return stat(
        "Disruption",
        "Seconds within disruptions over the time shown, by the ways clients take, as the worst placed prober and lane"
        " saw them.",
        "s",
        Query(f"max(increase({seconds}[$__range]))"),
        colours=thresholds(GOOD, (0.05, WARNING), (1, BAD)),
    )


def p99() -> Panel:
    """How long clients waited."""
    return stat(
        "p99",
        "Of good queries over the time shown, from the instant they were due, by the ways clients take.",
        "s",
        Query(quantile(0.99, "dnsprobe_query_duration_seconds", "", FELT, over="$__range")),
        colours=FAST,
    )


def endpoints_now() -> Panel:
    """How many pods the Service has now."""
    return stat(
        "Ready endpoints",
        "Of the Service of cluster DNS, now.",
        "short",
        Query(f"min({of('dnsprobe_ready_endpoints')})"),
        colours=thresholds(BAD, (1, WARNING), (2, GOOD)),
        nothing=UNWATCHED,
        width=3,
    )


def watched() -> Panel:
    """Whether the cluster is seen."""
    return stat(
        "Cluster",
        "blind: its API does not answer, and nothing is known of rollouts, endpoints and pods' ends until it does.",
        "none",
        Query(f"min({of('dnsprobe_cluster_watched')})"),
        colours=thresholds(QUIET),
        states=named({1: ("seen", GOOD), 0: ("BLIND", BAD)}),
        nothing="not watched",
        width=3,
    )


def phases() -> Panel:
    """Rollouts over time."""
    return timeline(
        "Rollouts",
        "Each workload's phase. Every dashboard marks the time in which pods are replaced.",
        Query(_phase(), "{{workload}}"),
        states=PHASE,
        width=12,
        height=6,
        nothing=UNWATCHED,
    )


def endpoints() -> Panel:
    """Endpoints and pods that end."""
    # A pod that has gone stays terminating as long as its counters; it is asked no more, though.
    ending = f"{of('dnsprobe_target_terminating')} and on (job, instance, target) {of('dnsprobe_target_info')}"
    return lines(
        "Ready endpoints, and pods that are ending",
        "A Service whose ready endpoints stay above 0 need lose nothing.",
        "short",
        Query(f"min({of('dnsprobe_ready_endpoints')})", "ready endpoints"),
        Query(f"count(max by (cluster, target) ({ending}) == 1) or vector(0)", "ending pods"),
        overrides=in_turn("ready endpoints", "ending pods"),
        height=6,
        steps=True,
    )


def outcomes() -> Panel:
    """All queries, by outcome."""
    return stacked(
        "Queries, by outcome",
        "All of them, the expected ones too, and those of pods that were ending. Colours are the same in every panel.",
        "reqps",
        Query(rate(of("dnsprobe_queries_total"), "outcome") + " > 0", "{{outcome}}"),
        overrides=BY_OUTCOME,
        aside=True,
    )


def by_phase() -> Panel:
    """What was lost in which phase."""
    asked = lasting_rate(of("dnsprobe_queries_total", FELT), "cluster")
    phase = f"max by (cluster, workload, phase) ({of('dnsprobe_rollout_info')} == 1)"

    def in_phase(each: str) -> str:
        return (
            f"sum by (cluster, workload, phase) (sum_over_time(({each})[$__range:$__interval])) * $__interval_ms / 1000"
        )

    return table(
        "What was lost in which phase",
        "By the ways clients take. Rates look back over four scrapes: what was lost just before a phase ended may be"
        " counted to the next one.",
        {name: name for name in ("cluster", "workload", "phase")},
        [
            Column("lasted", in_phase(phase), "s", 0),
            Column("asked", in_phase(f"{phase} * on (cluster) group_left () ({asked})"), decimals=0),
            Column(
                "lost",
                in_phase(f"{phase} * on (cluster) group_left () {lost_rate('cluster', FELT)}"),
                decimals=0,
                colours=thresholds(GOOD, (0.5, BAD)),
            ),
        ],
        sort="lost",
        descending=True,
        width=12,
    )
