"""Whether the probers may be believed -> panels of themselves, and the rows of the dashboard `prober-health`."""

from __future__ import annotations

from grafana.panels import Column, Panel, Query, Row, lines, named, stat, table, thresholds, timeline
from grafana.queries import HEALTHY, WHO, of, quantile, rate
from grafana.views import healthy_probers
from probe.exporter.health import LAG_NS
from probe.model import NS
from probe.report.palette import BAD, GOOD, QUIET, WARNING

LAG_S = LAG_NS / NS
"""As dnsprobe_prober_healthy has it."""
MAY_BE_BELIEVED = {1: ("healthy", GOOD), 0: ("UNHEALTHY", BAD)}


def rows() -> list[Row]:
    """The dashboard."""
    return [
        Row([healthy_probers(), not_sent(), lag_now(), drops_now(), throttled_now(), stale()]),
        Row([health()]),
        Row([unsent(), lag()]),
        Row([sent_share(), lost_by_itself(), scrapes()]),
        Row([runs()]),
    ]


def not_sent() -> Panel:
    """What was due and not sent."""
    return stat(
        "Unsent",
        "Queries over the time shown that were due and not sent: the prober's own fault, never counted against DNS.",
        "short",
        Query(f"sum(increase({of('dnsprobe_queries_unsent_total')}[$__range]))"),
        colours=thresholds(GOOD, (0.5, BAD)),
        decimals=0,
    )


def lag_now() -> Panel:
    """How late queries were sent."""
    return stat(
        "Schedule lag, p99",
        "From the instant a query was due to its sending, over the time shown.",
        "s",
        Query(quantile(0.99, "dnsprobe_schedule_lag_seconds", over="$__range")),
        colours=thresholds(GOOD, (LAG_S, BAD)),
    )


def drops_now() -> Panel:
    """Replies that the prober lost."""
    return stat(
        "Own receive drops",
        "Replies over the time shown that its own receive buffer had no room for: they look like timeouts and are"
        " none.",
        "short",
        Query(f"sum(increase({of('dnsprobe_socket_receive_drops_total')}[$__range]))"),
        colours=thresholds(GOOD, (0.5, BAD)),
        decimals=0,
    )


def throttled_now() -> Panel:
    """CPU that was withheld."""
    return stat(
        "CPU withheld",
        "By the cgroup's quota, over the time shown. A prober needs requests, and no CPU limit.",
        "s",
        Query(f"sum(increase({of('dnsprobe_cpu_throttled_seconds_total')}[$__range]))"),
        colours=thresholds(GOOD, (0.01, WARNING), (1, BAD)),
    )


def stale() -> Panel:
    """Whether serve runs what it was told to."""
    return stat(
        "Configuration",
        "old: the file that `serve` was told to read again is wrong, and the last good one goes on.",
        "none",
        Query(f"min({of('dnsprobe_config_last_reload_successful')})"),
        colours=thresholds(QUIET),
        states=named({1: ("as told", GOOD), 0: ("OLD", BAD)}),
        nothing="never read again",
    )


def health() -> Panel:
    """Each prober over time."""
    return timeline(
        "Probers",
        "unhealthy: in the last minute queries were unsent, late (p99 above the dashed line below) or throttled, or"
        " replies were dropped. A gap: its page was not scraped.",
        Query(f"min by (cluster, node, instance) ({HEALTHY})", "{{node}} {{instance}}"),
        states=MAY_BE_BELIEVED,
    )


def unsent(width: int = 12) -> Panel:
    """Why queries were not sent."""
    return lines(
        "Unsent queries, by reason",
        "stall: the prober was not scheduled in time. ids, sockets, ports, descriptors, send_buffer: it ran out of"
        " them.",
        "reqps",
        Query(rate(of("dnsprobe_queries_unsent_total"), "reason"), "{{reason}}"),
        width=width,
        aside=width > 8,
    )


def lag(width: int = 12) -> Panel:
    """How late, over time."""
    return lines(
        "Schedule lag",
        "From the instant a query was due to its sending, all probers together. The dashed red line: where p99 makes a"
        " prober unhealthy.",
        "s",
        *(Query(quantile(q, "dnsprobe_schedule_lag_seconds"), f"p{q * 100:g}") for q in (0.5, 0.99, 0.999)),
        mark=LAG_S,
        width=width,
        logarithmic=True,
    )


def sent_share() -> Panel:
    """Sent of due, each prober."""
    sent, due = (rate(of(f"dnsprobe_queries_{name}_total"), "instance") for name in ("sent", "scheduled"))
    return lines(
        "Sent of what was due, by prober",
        "Below 100 % the prober is the limit.",
        "percentunit",
        Query(f"{sent} / ({due} > 0)", "{{instance}}"),
        floor=None,
        ceiling=1,
        width=8,
    )


def lost_by_itself() -> Panel:
    """Drops and throttling, each prober."""
    return lines(
        "Own receive drops, and CPU withheld, by prober",
        "Replies per second that its receive buffer had no room for; CPU that the cgroup's quota withheld, in seconds"
        " per second.",
        "short",
        Query(rate(of("dnsprobe_socket_receive_drops_total"), "instance"), "drops/s {{instance}}"),
        Query(rate(of("dnsprobe_cpu_throttled_seconds_total"), "instance"), "CPU {{instance}}"),
        width=8,
    )


def scrapes() -> Panel:
    """What asking the prober costs."""
    taken = f"scrape_duration_seconds{{{WHO}}} and on (job, instance) {of('dnsprobe_build_info')}"
    return lines(
        "Duration of scrapes, by prober",
        "As Prometheus measures it. A prober's page is made beside its queries, at idle priority: slow is a full"
        " machine.",
        "s",
        Query(f"max by (instance) ({taken})", "{{instance}}"),
        width=8,
    )


def runs() -> Panel:
    """What each prober is and does."""
    rate_now = of("dnsprobe_configured_queries_per_second")
    prober = "on (cluster, job, instance)"
    told = (
        f"{prober} group_left ({labels}) ({metric})"
        for labels, metric in (
            ("scenario, mode", of("dnsprobe_run_info")),
            ("version", of("dnsprobe_build_info")),
            ("state", of("dnsprobe_run_state") + " == 1"),
        )
    )
    by = "cluster, node, instance, scenario, mode, state, version"
    return table(
        "What runs where",
        "Scenario, mode, state and version of each prober, and the rate that its schedule asks for now.",
        {name: {"instance": "prober"}.get(name, name) for name in by.split(", ")},
        [Column("asks for", f"max by ({by}) ({' * '.join([rate_now, *told])})", "reqps")],
        sort="prober",
    )
