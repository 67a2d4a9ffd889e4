"""What was asked and what came back, beside what CoreDNS says itself -> the rows of the dashboard `load-test`."""

from __future__ import annotations

from grafana.panels import (
    DASHED,
    Panel,
    Query,
    Row,
    fixed,
    heat,
    in_turn,
    lines,
    stat,
    thresholds,
)
from grafana.prober_health import lag, unsent
from grafana.queries import good_share, of, quantile, rate
from grafana.views import ENOUGH, FAST, LATE_S, lanes, lost
from probe.report.palette import BAD, GOOD, QUIET, WARNING

COREDNS: dict[str, tuple[str, ...]] = {
    "coredns_dns_requests_total": ("server", "zone", "view", "proto", "family", "type"),
    "coredns_dns_responses_total": ("server", "zone", "view", "rcode", "plugin"),
    "coredns_dns_request_duration_seconds": ("server", "zone", "view"),
    "coredns_cache_hits_total": ("server", "type", "zones", "view"),
    "coredns_cache_misses_total": ("server", "zones", "view"),
    "coredns_proxy_request_duration_seconds": ("proxy_name", "to", "rcode"),
    "coredns_forward_max_concurrent_rejects_total": (),
    "coredns_panics_total": (),
}
"""CoreDNS's own metrics and their labels as 1.14.7 has them: plugin/metrics, cache, pkg/proxy, forward."""


def rows() -> list[Row]:
    """The dashboard."""
    return [
        Row([asked_now(), sent_share(), good_now(), good_of_all(), p99_due(), p99_rtt()]),
        Row([rates(), lost()]),
        Row([quantiles(), durations()]),
        Row([in_flight(), lag(width=8), unsent(width=8)]),
        Row([served(), served_durations(), served_from_cache()], "What CoreDNS says itself"),
        Row([odd(), lanes(width=16)]),
    ]


# --- What was asked ---


def asked_now() -> Panel:
    """What the schedule asks for."""
    return stat(
        "Asked for",
        "What the schedules of all probers ask for now.",
        "reqps",
        Query(f"sum({of('dnsprobe_configured_queries_per_second')})"),
        colours=thresholds(QUIET),
        nothing="nothing runs",
        plain=True,
    )


def sent_share() -> Panel:
    """Whether the prober keeps up."""
    sent, due = (of(f"dnsprobe_queries_{name}_total") for name in ("sent", "scheduled"))
    return stat(
        "Sent of what was due",
        "Over the time shown. Below 99 % the prober is the limit, not DNS: give it more CPU, workers or machines.",
        "percentunit",
        Query(f"sum(increase({sent}[$__range])) / (sum(increase({due}[$__range])) > 0)"),
        colours=thresholds(BAD, (0.99, WARNING), (0.999, GOOD)),
        decimals=2,
    )


def good_now() -> Panel:
    """What DNS keeps up with."""
    return stat(
        "Answered well",
        "Queries per second, lately, that got the expected outcome.",
        "reqps",
        Query(rate(of("dnsprobe_queries_good_total"))),
        colours=thresholds(QUIET),
        nothing="nothing runs",
        plain=True,
    )


def good_of_all() -> Panel:
    """Availability."""
    return stat(
        "Good queries",
        "The share of queries over the time shown that got the expected outcome.",
        "percentunit",
        Query(good_share()),
        colours=ENOUGH,
        decimals=3,
    )


def p99_due() -> Panel:
    """What clients wait."""
    return stat(
        "p99 from due",
        "Of good queries over the time shown, from the instant they were due: what a client on schedule waits.",
        "s",
        Query(quantile(0.99, "dnsprobe_query_duration_seconds", over="$__range")),
        colours=FAST,
    )


def p99_rtt() -> Panel:
    """What network and server take."""
    return stat(
        "p99 from sent",
        "Of replies over the time shown, from the query's sending: what network and server take. Far below the one from"
        " due: the prober is late.",
        "s",
        Query(quantile(0.99, "dnsprobe_query_rtt_seconds", over="$__range")),
        colours=FAST,
    )


def rates() -> Panel:
    """Asked for, due, sent, good."""
    return lines(
        "Queries due, sent, and answered well",
        "sent below due: the prober does not keep up. good below sent: DNS does not.",
        "reqps",
        Query(f"sum({of('dnsprobe_configured_queries_per_second')})", "asked for"),
        Query(rate(of("dnsprobe_queries_scheduled_total")), "due"),
        Query(rate(of("dnsprobe_queries_sent_total")), "sent"),
        Query(rate(of("dnsprobe_queries_good_total")), "good"),
        overrides=(*in_turn("due", "sent", "good"), fixed("asked for", QUIET, DASHED)),
        aside=True,
    )


def durations() -> Panel:
    """The distribution of latency."""
    buckets = of("dnsprobe_query_duration_seconds_bucket")
    return heat(
        "Latency of good queries, from due",
        "How many took how long; two bands are two populations: another path, a cache, a second attempt of somebody's.",
        "s",
        Query(f"sum by (le) (increase({buckets}[$__rate_interval]))", "{{le}}"),
    )


def quantiles() -> Panel:
    """Client and server on one scale."""
    due, rtt = "dnsprobe_query_duration_seconds", "dnsprobe_query_rtt_seconds"
    served = f"sum by (le) (rate({coredns('coredns_dns_request_duration_seconds_bucket')}[$__rate_interval]))"
    return lines(
        "p99: from due, from sent, of a TCP connect, and as CoreDNS says",
        "from sent far above CoreDNS's own: the network, or queues before CoreDNS. from due above from sent: the"
        " prober. The dashed red line is the mark of Kubernetes' own performance tests.",
        "s",
        Query(quantile(0.99, due), "from due"),
        Query(quantile(0.99, rtt), "from sent"),
        Query(quantile(0.99, "dnsprobe_connect_duration_seconds"), "TCP connect"),
        Query(f"histogram_quantile(0.99, {served})", "CoreDNS"),
        overrides=in_turn("from due", "from sent", "TCP connect", "CoreDNS"),
        mark=LATE_S,
        logarithmic=True,
        aside=True,
    )


def in_flight() -> Panel:
    """Queries without an outcome yet."""
    return lines(
        "In flight",
        "Queries that were due and have no outcome yet: rate times latency, and with what is lost, rate times timeout.",
        "short",
        Query(f"sum by (target_kind, transport) ({of('dnsprobe_queries_in_flight')})", "{{target_kind}} {{transport}}"),
        width=8,
    )


def odd() -> Panel:
    """Replies beside the one that counts."""
    names = ("late", "duplicate", "unmatched", "truncated_with_answer")
    return lines(
        "Odd replies",
        "late: after the timeout, so DNS is slow and does not lose. duplicate, unmatched: somebody repeats or forges"
        " replies. truncated with answer: some clients take it as it is.",
        "reqps",
        *(Query(rate(of(f"dnsprobe_responses_{name}_total")), name.replace("_", " ")) for name in names),
        overrides=in_turn(*(name.replace("_", " ") for name in names)),
        width=8,
    )


# --- What CoreDNS says ---


def coredns(metric: str) -> str:
    """A selector of what CoreDNS says itself."""
    return f'{metric}{{cluster=~"$cluster",job=~"$coredns_job"}}'


def served() -> Panel:
    """Queries as CoreDNS counts them."""
    return lines(
        "CoreDNS: queries and replies",
        "All its clients' queries, ours among them. Queries that we sent and it did not get were lost before it.",
        "reqps",
        Query(rate(coredns("coredns_dns_requests_total"), "proto"), "queries {{proto}}"),
        Query(rate(coredns("coredns_dns_responses_total"), "rcode"), "{{rcode}}"),
        Query(rate(coredns("coredns_forward_max_concurrent_rejects_total")), "rejected by forward"),
        Query(rate(coredns("coredns_panics_total")), "panics"),
        overrides=(fixed("rejected by forward", WARNING), fixed("panics", BAD)),
        width=8,
        nothing="CoreDNS is not scraped",
    )


def served_durations() -> Panel:
    """CoreDNS's own time, and its upstreams'."""
    own, upstream = "coredns_dns_request_duration_seconds_bucket", "coredns_proxy_request_duration_seconds_bucket"
    return lines(
        "CoreDNS: its own time, and its upstreams'",
        "p99 by CoreDNS's own clock, which starts when it has read a query: what waited in its socket's queue is not"
        " in it.",
        "s",
        *(
            Query(
                f"histogram_quantile({q:g}, sum by (le) (rate({coredns(own)}[$__rate_interval])))", f"own p{q * 100:g}"
            )
            for q in (0.99, 0.5)
        ),
        Query(
            f"histogram_quantile(0.99, sum by (le, to) (rate({coredns(upstream)}[$__rate_interval])))",
            "upstream {{to}} p99",
        ),
        overrides=in_turn("own p99", "own p50"),
        width=8,
        logarithmic=True,
        nothing="CoreDNS is not scraped",
    )


def served_from_cache() -> Panel:
    """What CoreDNS's cache saves."""
    hits, misses = (rate(coredns(f"coredns_cache_{name}_total")) for name in ("hits", "misses"))
    return lines(
        "CoreDNS: answered from its cache",
        "The share of queries. A cache hides upstreams' faults until its entries run out.",
        "percentunit",
        Query(f"{hits} / ({hits} + {misses} > 0)", "cache hits"),
        overrides=in_turn("cache hits"),
        width=8,
        ceiling=1,
        nothing="no cache, or CoreDNS is not scraped",
    )
