"""The metrics: name, type, labels, what each says, for the collector, the manual and every check of a query."""

from __future__ import annotations

from typing import NamedTuple

TARGET = ("target", "target_kind")
"""Whom: the Service's name, or a pod's; its kind as TargetKind has it."""
PATH = (*TARGET, "transport")
"""By which way: udp or tcp."""
CHANNEL = (*PATH, "ports", "query")
"""A lane and its target. ports: fresh, pool, fixed, reused; query: the lane, the scenario's name for its questions."""

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

DURATION_LE = tuple(62.5e-6 * 2**k for k in range(18))
"""Bounds of durations, in seconds, to 8.192: CoreDNS's own and two finer ones, so that both sides lie on one scale."""


class Metric(NamedTuple):
    """A metric family; its name as in a query, but for a histogram's _bucket, _count and _sum."""

    type: str
    labels: tuple[str, ...]
    help: str


METRICS: dict[str, Metric] = {
    "dnsprobe_queries_total": Metric(
        COUNTER, (*CHANNEL, "outcome"),
        "Queries that got an outcome; `unsent` is none of them, so a fault of the prober's own is no fault of DNS",
    ),
    "dnsprobe_queries_good_total": Metric(
        COUNTER, CHANNEL, "Queries whose outcome was the expected one: a service level is this by queries_total"
    ),
    "dnsprobe_queries_lost_total": Metric(
        COUNTER, CHANNEL,
        "Queries with any other outcome; the difference of two rates would not be exactly 0 where nothing is lost",
    ),
    "dnsprobe_query_duration_seconds": Metric(
        HISTOGRAM, PATH, "From the instant a query was due to its reply, of good ones: what a client would have waited"
    ),
    "dnsprobe_query_rtt_seconds": Metric(
        HISTOGRAM, PATH, "From sending a query to its reply, whatever it said: what network and server took"
    ),
    "dnsprobe_connect_duration_seconds": Metric(HISTOGRAM, TARGET, "From SYN to open TCP connection"),
    "dnsprobe_responses_late_total": Metric(
        COUNTER, PATH, "Replies that came after the query's timeout: it was slow, not lost"
    ),
    "dnsprobe_responses_duplicate_total": Metric(COUNTER, PATH, "Further replies to a query that had one"),
    "dnsprobe_responses_unmatched_total": Metric(COUNTER, PATH, "Replies that fit no query of their socket"),
    "dnsprobe_responses_truncated_with_answer_total": Metric(
        COUNTER, PATH, "Truncated replies that still carried records; all truncated ones are an outcome"
    ),
    "dnsprobe_queries_in_flight": Metric(GAUGE, PATH, "Queries that were due and have no outcome yet"),
    "dnsprobe_target_up": Metric(
        GAUGE, PATH, "0 once nothing was good for max(1 s, 5 queries), until something is good again"
    ),
    "dnsprobe_target_terminating": Metric(
        GAUGE, TARGET,
        "1 once a pod was told to go, as long as its counters stay: what it loses then is no outage",
    ),
    "dnsprobe_target_info": Metric(GAUGE, (*TARGET, "address"), "1: where a target is that is asked"),
    "dnsprobe_outages_total": Metric(
        COUNTER, CHANNEL, "Windows of disruption: from the first query that was not good until max(1 s, 5 queries) are"
    ),
    "dnsprobe_outage_seconds_total": Metric(
        COUNTER, CHANNEL, "How long windows of disruption lasted, to the last query that was not good"
    ),
    "dnsprobe_outage_start_timestamp_seconds": Metric(
        GAUGE, CHANNEL, "When the window of disruption began that goes on now; 0: none does"
    ),
    "dnsprobe_last_success_timestamp_seconds": Metric(
        GAUGE, PATH, "When the last query was due that was good; 0: none yet"
    ),
    "dnsprobe_lookups_total": Metric(
        COUNTER, ("client", "fate"),
        "Lookups by a client profile's rules, its retries included: found, not_found, failed, unfinished",
    ),
    "dnsprobe_lookups_slow_total": Metric(
        COUNTER, ("client",), "Lookups that found addresses, and took a client profile over 1 s"
    ),
    "dnsprobe_ready_endpoints": Metric(
        GAUGE, (), "Ready endpoints of the Service; absent while the cluster is not seen"
    ),
    "dnsprobe_rollout_in_progress": Metric(
        GAUGE, ("workload",), "1 while pods of a workload are being replaced: CoreDNS, kube-proxy, NodeLocal DNSCache"
    ),
    "dnsprobe_rollout_info": Metric(
        GAUGE, ("workload", "phase"), "1 for the phase it is in: waiting, progressing, completed, stalled, rolled back"
    ),
    "dnsprobe_cluster_watched": Metric(
        GAUGE, (), "1 while the cluster is seen, 0 while its watch is blind; absent if nothing is watched"
    ),
    "dnsprobe_queries_scheduled_total": Metric(COUNTER, ("transport",), "Queries that were due"),
    "dnsprobe_queries_sent_total": Metric(COUNTER, ("transport",), "Queries that were sent"),
    "dnsprobe_queries_unsent_total": Metric(
        COUNTER, ("reason",), "Queries that were due and not sent, the prober's own fault"
    ),
    "dnsprobe_schedule_lag_seconds": Metric(HISTOGRAM, (), "From the instant a query was due to its sending"),
    "dnsprobe_socket_receive_drops_total": Metric(
        COUNTER, (), "Replies dropped because the prober's own receive buffer was full"
    ),
    "dnsprobe_cpu_throttled_seconds_total": Metric(COUNTER, (), "CPU withheld from the prober by its cgroup's quota"),
    "dnsprobe_prober_healthy": Metric(
        GAUGE, (),
        "0 if of the last minute's queries over 1 % were unsent, or left 50 ms late, or over 1 % of its CPU time was"
        " withheld, or replies were dropped",
    ),
    "dnsprobe_configured_queries_per_second": Metric(GAUGE, (), "What the schedule asks for now"),
    "dnsprobe_run_state": Metric(GAUGE, ("state",), "1 for the state it is in: starting, running, draining, linger"),
    "dnsprobe_run_info": Metric(GAUGE, ("scenario", "mode"), "1: what runs, and whether as run or as serve"),
    "dnsprobe_runs_started_total": Metric(
        COUNTER, ("reason",),
        "Runs of this process: its start; serve begins anew when its file is read again, a worker died, the cluster"
        " could not be watched any more, the clock was set, or there is no room for more series",
    ),
    "dnsprobe_config_last_reload_successful": Metric(
        GAUGE, (), "0: the file that serve was told to read again is wrong, and the last good one goes on"
    ),
    "dnsprobe_build_info": Metric(GAUGE, ("version", "python_version"), "1: what this is"),
}  # fmt: skip
