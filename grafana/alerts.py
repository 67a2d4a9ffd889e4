"""What is recorded and what is alerted on, as data: Prometheus's rules, Grafana's and the runbook are made from it.

`by (cluster)` everywhere: probers of one cluster are taken together, whichever of them counts Service queries (a
DaemonSet's) or watches the cluster (a Deployment's). Where no series has the label, there is one cluster, named ''.
Windows of 2m and more hold four scrapes at 30 s. increase() extrapolates to the edges of its window, so that `> 2.9`
is three that were counted. Annotations are Go templates that Prometheus and Grafana have in common.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

RUNBOOK = "grafana/RUNBOOK.md"
"""Where people read the runbook; each alert links to its section there."""
PREFIX = "DNSProbe"


@dataclass(frozen=True)
class Recording:
    """A rule that keeps what an expression says as a series of its own; level:metric:operation."""

    record: str
    expr: str


@dataclass(frozen=True)
class Alert:
    """A rule that fires for each series of its expression.

    for_, keep: how long it must hold until it fires, and goes on firing when it holds no more; '' is not at all.
    severity: critical wakes somebody, warning is read by day, info is looked up, none only proves that alerts arrive.
    """

    name: str
    severity: str
    summary: str
    description: str
    expr: str
    for_: str = ""
    keep: str = ""

    @property
    def full_name(self) -> str:
        """As Prometheus has it."""
        return PREFIX + self.name

    @property
    def runbook(self) -> str:
        """The address of its section."""
        return f"{RUNBOOK}#{self.full_name.lower()}"


@dataclass(frozen=True)
class Group:
    """Rules that are evaluated one after the other, every `interval`."""

    name: str
    interval: str
    rules: tuple[Recording | Alert, ...]


# --- What the others build on ---

COUNTS = (
    Recording("channel:dnsprobe_queries:sum", "sum without (outcome) (dnsprobe_queries_total)"),
    # What the network makes of a query: no server has replied.
    Recording(
        "channel:dnsprobe_queries_unanswered:sum",
        """
        sum without (outcome) (
          dnsprobe_queries_total{outcome=~"timeout|connection_refused|network_error|connection_lost"}
        )
        """,
    ),
    # Replies that are right or wrong by what they say, less the right ones; NXDOMAIN is right for some questions.
    Recording(
        "channel:dnsprobe_queries_wrong:sum",
        """
        sum without (outcome) (dnsprobe_queries_total{outcome=~"answer|nodata|nxdomain|wrong_answer"})
        - dnsprobe_queries_good_total
        """,
    ),
    *(
        Recording(
            f"pod:{name}:increase2m",
            f"""
            sum by (cluster, target) (
              increase({counted}{{target_kind="pod"}}[2m])
              unless on (cluster, instance) (dnsprobe_prober_healthy == 0)
            )
            unless on (cluster, target) (dnsprobe_target_terminating == 1)
            """,
        )
        for name, counted in (
            ("dnsprobe_queries", "channel:dnsprobe_queries:sum"),
            ("dnsprobe_queries_lost", "dnsprobe_queries_lost_total"),
        )
    ),
    # How many were told to end since then: a pod's gauge stays 1 for minutes after it has gone.
    *(
        Recording(
            f"cluster:dnsprobe_pods_ended:count{window}",
            f"""
            count by (cluster) (
              dnsprobe_target_terminating == 1 unless dnsprobe_target_terminating offset {window} == 1
            )
            """,
        )
        for window in ("3m", "6m")
    ),
    # A Service that loses, now and two minutes ago, though pods answer everybody and this prober, and none has ended.
    Recording(
        "instance:dnsprobe_service_stale:ratio2m",
        """
        max by (cluster, node, instance, target) (
          (increase(channel:dnsprobe_queries_unanswered:sum{target_kind="service"}[2m]) > 2.9)
          / (increase(channel:dnsprobe_queries:sum{target_kind="service"}[2m]) > 0)
          and increase(channel:dnsprobe_queries_unanswered:sum{target_kind="service"}[1m] offset 2m) > 0
        ) > 0.02
        unless on (cluster, instance) (dnsprobe_prober_healthy == 0)
        unless on (cluster, instance) (
          sum by (cluster, instance) (increase(dnsprobe_queries_lost_total{target_kind="pod"}[2m])) > 2.9
        )
        and on (cluster) (
          max by (cluster) (pod:dnsprobe_queries_lost:increase2m / (pod:dnsprobe_queries:increase2m > 0)) < 0.005
        )
        and on (cluster) (min by (cluster) (min_over_time(dnsprobe_ready_endpoints[3m])) > 0)
        unless on (cluster) cluster:dnsprobe_pods_ended:count3m
        """,
    ),
    Recording(
        "lane:dnsprobe_truncated:ratio5m",
        """
        sum by (cluster, target_kind, query) (
          increase(dnsprobe_queries_total{transport="udp", outcome="truncated"}[5m])
        )
        / (sum by (cluster, target_kind, query) (increase(channel:dnsprobe_queries:sum{transport="udp"}[5m])) > 0)
        """,
    ),
    Recording("cluster:dnsprobe_serving:count", 'count by (cluster, scenario) (dnsprobe_run_info{mode="serve"})'),
)

BUDGET_WINDOWS = ("30m", "1h", "2h", "6h", "1d", "3d")

BUDGET = (
    Recording(
        "cluster:dnsprobe_queries:rate5m",
        """
        sum by (cluster, target_kind, transport) (
          rate(channel:dnsprobe_queries:sum{target_kind=~"service|nodelocal"}[5m])
        )
        """,
    ),
    Recording(
        "cluster:dnsprobe_queries_lost:rate5m",
        """
        sum by (cluster, target_kind, transport) (
          rate(dnsprobe_queries_lost_total{target_kind=~"service|nodelocal"}[5m])
        )
        """,
    ),
    Recording(
        "cluster:dnsprobe_loss:ratio5m",
        "cluster:dnsprobe_queries_lost:rate5m / (cluster:dnsprobe_queries:rate5m > 0)",
    ),
    # Of the sums, not of every prober's own series: three days of those would be more samples than a query may read.
    *(
        Recording(
            f"cluster:dnsprobe_loss:ratio{window}",
            f"""
            avg_over_time(cluster:dnsprobe_queries_lost:rate5m[{window}])
            / (avg_over_time(cluster:dnsprobe_queries:rate5m[{window}]) > 0)
            """,
        )
        for window in BUDGET_WINDOWS
    ),
)

# --- What people feel ---

IN_CLUSTER = "{{ with $labels.cluster }} of {{ . }}{{ end }}"
FROM = "{{ or $labels.node $labels.instance }}"

SYMPTOMS = (
    Alert(
        "ClusterDNSDown",
        "critical",
        f"Cluster DNS{IN_CLUSTER} answers nobody by {{{{ $labels.transport }}}}",
        "No healthy prober gets a good reply from the {{ $labels.target_kind }} by {{ $labels.transport }}.",
        """
        max by (cluster, target_kind, transport) (
          dnsprobe_target_up{target_kind=~"service|nodelocal"}
          and on (cluster, instance) (dnsprobe_prober_healthy == 1)
        ) == 0
        """,
        for_="15s",
        keep="1m",
    ),
    Alert(
        "NodeDNSDown",
        "warning",
        f"{FROM} gets no DNS answers by {{{{ $labels.transport }}}}",
        f"{{{{ $labels.target }}}}{IN_CLUSTER} does not answer this one, but others.",
        """
        max by (cluster, node, instance, target_kind, target, transport) (
          dnsprobe_target_up{target_kind=~"service|nodelocal"}
        ) == 0
        unless on (cluster, instance) (dnsprobe_prober_healthy == 0)
        unless on (cluster, target_kind, transport) (
          max by (cluster, target_kind, transport) (
            dnsprobe_target_up{target_kind=~"service|nodelocal"}
            and on (cluster, instance) (dnsprobe_prober_healthy == 1)
          ) == 0
        )
        """,
        for_="30s",
        keep="1m",
    ),
    Alert(
        "ShortOutage",
        "warning",
        f"Cluster DNS{IN_CLUSTER} was disrupted by {{{{ $labels.transport }}}} for {{{{ $value | humanizeDuration }}}}",
        "So long within 5 minutes, towards the {{ $labels.target_kind }}: the worst lane of the prober that lost most,"
        " or of the average prober.",
        """
        max by (cluster, target_kind, transport) (
          max by (cluster, instance, target_kind, transport) (
            increase(dnsprobe_outage_seconds_total{target_kind=~"service|nodelocal"}[5m])
          )
          and on (cluster, instance, target_kind, transport) (
            sum by (cluster, instance, target_kind, transport) (
              increase(dnsprobe_queries_lost_total{target_kind=~"service|nodelocal"}[5m])
            ) > 2.9
          )
          unless on (cluster, instance) (dnsprobe_prober_healthy == 0)
        ) > 0.5
        or
        avg by (cluster, target_kind, transport) (
          max by (cluster, instance, target_kind, transport) (
            increase(dnsprobe_outage_seconds_total{target_kind=~"service|nodelocal"}[5m])
          )
          unless on (cluster, instance) (dnsprobe_prober_healthy == 0)
        ) > 0.5
        and on (cluster, target_kind, transport) (
          sum by (cluster, target_kind, transport) (
            increase(dnsprobe_queries_lost_total{target_kind=~"service|nodelocal"}[5m])
          ) > 2.9
        )
        """,
    ),
    Alert(
        "TCPBroken",
        "warning",
        f"DNS by TCP fails from {FROM}, by UDP it works",
        "{{ $value | humanizePercentage }} of the queries by TCP to the {{ $labels.target_kind }} were lost in 5"
        " minutes.",
        """
        (
          sum by (cluster, node, instance, target_kind) (
            increase(dnsprobe_queries_lost_total{target_kind=~"service|nodelocal", transport="tcp"}[5m])
          ) > 2.9
        )
        / sum by (cluster, node, instance, target_kind) (
          increase(channel:dnsprobe_queries:sum{target_kind=~"service|nodelocal", transport="tcp"}[5m])
        ) > 0.05
        and on (cluster, node, instance, target_kind) (
          sum by (cluster, node, instance, target_kind) (
            increase(dnsprobe_queries_lost_total{target_kind=~"service|nodelocal", transport="udp"}[5m])
          )
          / sum by (cluster, node, instance, target_kind) (
            increase(channel:dnsprobe_queries:sum{target_kind=~"service|nodelocal", transport="udp"}[5m])
          ) < 0.01
        )
        unless on (cluster, instance) (dnsprobe_prober_healthy == 0)
        """,
        for_="1m",
    ),
    Alert(
        "LatencyHigh",
        "warning",
        f"Cluster DNS{IN_CLUSTER} is slow by {{{{ $labels.transport }}}}",
        "1 % of the good replies of the {{ $labels.target_kind }} take {{ $value | humanizeDuration }} or longer.",
        """
        histogram_quantile(
          0.99,
          sum by (cluster, target_kind, transport, le) (
            rate(dnsprobe_query_duration_seconds_bucket{target_kind=~"service|nodelocal"}[5m])
            unless on (cluster, instance) (dnsprobe_prober_healthy == 0)
          )
        ) > 0.1
        """,
        for_="5m",
    ),
)

# --- What the service level is: 99.9 % of the queries good. Of a few minutes' queries a single lost one is more ---

BURN = (
    Alert(
        "ErrorBudgetBurn",
        "critical",
        f"Cluster DNS{IN_CLUSTER} loses so much that the month's budget is gone within days",
        "{{ $value | humanizePercentage }} of the queries to the {{ $labels.target_kind }} by {{ $labels.transport }}"
        " were lost; 0.1 % may be.",
        """
        (
          cluster:dnsprobe_loss:ratio1h > 14.4 * 0.001 and cluster:dnsprobe_loss:ratio5m > 14.4 * 0.001
          or
          cluster:dnsprobe_loss:ratio6h > 6 * 0.001 and cluster:dnsprobe_loss:ratio30m > 6 * 0.001
        )
        and cluster:dnsprobe_queries:rate5m offset 1h
        """,
    ),
    Alert(
        "ErrorBudgetBurnSlow",
        "warning",
        f"Cluster DNS{IN_CLUSTER} loses more than its budget bears",
        "{{ $value | humanizePercentage }} of the queries to the {{ $labels.target_kind }} by {{ $labels.transport }}"
        " were lost; 0.1 % may be.",
        """
        (
          cluster:dnsprobe_loss:ratio1d > 3 * 0.001 and cluster:dnsprobe_loss:ratio2h > 3 * 0.001
          or
          cluster:dnsprobe_loss:ratio3d > 0.001 and cluster:dnsprobe_loss:ratio6h > 0.001
        )
        and cluster:dnsprobe_queries:rate5m offset 6h
        """,
    ),
)

# --- Why ---

CAUSES = (
    Alert(
        "ServiceRoutingStale",
        "critical",
        f"Queries from {FROM} to {{{{ $labels.target }}}} lead nowhere",
        "{{ $value | humanizePercentage }} of them get no reply, though every pod answers and none has ended lately.",
        "instance:dnsprobe_service_stale:ratio2m",
        for_="30s",
        keep="5m",
    ),
    Alert(
        "LameduckTooShort",
        "warning",
        f"CoreDNS pods{IN_CLUSTER} end before nodes stop sending to them",
        "{{ $value | printf `%.0f` }} queries from new source ports were lost as a pod ended, while others were ready.",
        """
        sum by (cluster) (
          sum by (cluster, instance) (
            increase(channel:dnsprobe_queries_unanswered:sum{target_kind="service", ports="fresh"}[6m])
          )
          unless on (cluster, instance) (
            sum by (cluster, instance) (
              increase(channel:dnsprobe_queries_unanswered:sum{target_kind="service", ports="fresh"}[2m])
            ) > 0
          )
          unless on (cluster, instance) (dnsprobe_prober_healthy == 0)
          unless on (cluster, instance) max_over_time(instance:dnsprobe_service_stale:ratio2m[10m])
        ) > 2.9
        and on (cluster) (
          sum by (cluster) (
            increase(channel:dnsprobe_queries_unanswered:sum{target_kind="service", ports="fresh"}[6m])
          )
          / sum by (cluster) (increase(channel:dnsprobe_queries:sum{target_kind="service", ports="fresh"}[6m])) > 0.0005
        )
        and on (cluster) cluster:dnsprobe_pods_ended:count6m
        and on (cluster) (min by (cluster) (min_over_time(dnsprobe_ready_endpoints[6m])) > 0)
        """,
        keep="15m",
    ),
    Alert(
        "NoReadyEndpoints",
        "critical",
        f"No CoreDNS pod{IN_CLUSTER} is ready",
        "The Service has no ready endpoint: what still answers are pods that were told to end.",
        "max by (cluster) (dnsprobe_ready_endpoints) == 0",
        for_="15s",
    ),
    Alert(
        "PodBad",
        "warning",
        f"CoreDNS pod {{{{ $labels.target }}}}{IN_CLUSTER} loses queries",
        "{{ $value | humanizePercentage }} of the queries to it were lost in 2 minutes, and it was not told to end.",
        """
        (pod:dnsprobe_queries_lost:increase2m > 2.9) / pod:dnsprobe_queries:increase2m > 0.05
        """,
        for_="1m",
    ),
    Alert(
        "AnswersWrong",
        "critical",
        f"{{{{ $labels.target }}}}{IN_CLUSTER} gives wrong answers, and clients keep them",
        "{{ $value | printf `%.0f` }} replies to {{ $labels.query }} in 5 minutes: a wrong address, NXDOMAIN or no"
        " record.",
        """
        sum by (cluster, target_kind, target, query) (
          increase(channel:dnsprobe_queries_wrong:sum[5m])
          unless on (cluster, instance) (dnsprobe_prober_healthy == 0)
        ) > 2.9
        """,
        for_="1m",
    ),
    Alert(
        "TruncationSpike",
        "warning",
        f"DNS answers{IN_CLUSTER} no longer fit into UDP",
        "{{ $value | humanizePercentage }} of the replies to {{ $labels.query }} are truncated, twice what was usual.",
        """
        lane:dnsprobe_truncated:ratio5m > 0.01
        and on (cluster, target_kind, query) (
          sum by (cluster, target_kind, query) (increase(dnsprobe_queries_lost_total{transport="udp"}[5m]))
          / sum by (cluster, target_kind, query) (increase(channel:dnsprobe_queries:sum{transport="udp"}[5m])) > 0.01
        )
        unless lane:dnsprobe_truncated:ratio5m <= 2 * avg_over_time(lane:dnsprobe_truncated:ratio5m[1h] offset 1h)
        """,
        for_="5m",
    ),
)

# --- The probers themselves ---

PROBERS = (
    Alert(
        "ProberUnhealthy",
        "warning",
        f"The prober on {FROM} is too busy to be believed",
        "It sent late or not at all, was throttled, or dropped replies itself: what it says of DNS does not count.",
        "min by (cluster, node, instance) (dnsprobe_prober_healthy) == 0",
        keep="1m",
    ),
    Alert(
        "ProbersBlind",
        "critical",
        f"Fewer than half of the probers{IN_CLUSTER} can be believed",
        "Only {{ $value | humanizePercentage }} are healthy: nobody would see an outage of cluster DNS.",
        """
        avg by (cluster) (
          dnsprobe_prober_healthy
          or on (cluster, job, instance) (
            up == 0 and on (cluster, job, instance) last_over_time(dnsprobe_build_info[1h])
          )
        ) < 0.5
        """,
        for_="2m",
    ),
    Alert(
        "LoadNotReached",
        "info",
        f"The prober on {FROM} sends less than it should",
        "Only {{ $value | humanizePercentage }} of what was due was sent.",
        """
        sum by (cluster, node, instance) (rate(dnsprobe_queries_sent_total[2m]))
        / (sum by (cluster, node, instance) (rate(dnsprobe_queries_scheduled_total[2m])) > 0) < 0.99
        """,
        for_="3m",
    ),
    Alert(
        "Absent",
        "warning",
        f"Nobody watches cluster DNS{IN_CLUSTER} any more",
        "Probers of {{ $labels.scenario }} were there within the last day, and none is scraped now.",
        """
        max_over_time(cluster:dnsprobe_serving:count[1d])
        unless on (cluster, scenario) cluster:dnsprobe_serving:count
        """,
        for_="10m",
    ),
    Alert(
        "Watchdog",
        "none",
        f"A healthy prober watches cluster DNS{IN_CLUSTER}",
        "This fires as long as all is well: whoever gets it outside the cluster must be alarmed when it stops.",
        """
        count by (cluster) (
          dnsprobe_run_info{mode="serve"} and on (cluster, instance) (dnsprobe_prober_healthy == 1)
        )
        """,
    ),
)

GROUPS = (
    Group("dnsprobe-counts", "15s", COUNTS),
    Group("dnsprobe-budget", "30s", BUDGET + BURN),
    Group("dnsprobe-symptoms", "15s", SYMPTOMS),
    Group("dnsprobe-causes", "15s", CAUSES),
    Group("dnsprobe-probers", "15s", PROBERS),
)


def alerts() -> Iterator[Alert]:
    """Every alert, in the order of its group."""
    return (rule for group in GROUPS for rule in group.rules if isinstance(rule, Alert))


def recordings() -> dict[str, Recording]:
    """What is recorded, by its name."""
    return {rule.record: rule for group in GROUPS for rule in group.rules if isinstance(rule, Recording)}
