"""A Snapshot -> metric families as prometheus_client renders them, one for each metric of the catalogue."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from probe import __version__
from probe.cluster import Phase
from probe.exporter.catalogue import COUNTER, DURATION_LE, HISTOGRAM, METRICS
from probe.exporter.snapshot import Floats, Ints, Labels, Snapshot, State
from probe.model import BESIDE
from probe.outcome import Counter, Outcome, UnsentCause
from probe.recorder import Duration

UNDER_WAY = (Phase.PROGRESSING, Phase.STALLED)
LE = (*map(floatToGoString, DURATION_LE), "+Inf")

Numbers = Ints | Floats
Value = tuple[Labels, float]
Bars = tuple[Labels, Sequence[int], float]
"""Labels; rows in each bucket, not cumulative; their sum in seconds."""


class Collector:
    """What prometheus_client asks at each scrape. It asks for a snapshot, and nobody else."""

    def __init__(self, now: Callable[[], Snapshot]) -> None:
        self._now = now

    def describe(self) -> list[Metric]:
        """Nothing beforehand."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric, whether there is anything of it or not."""
        shown = self._now()
        for name, metric in METRICS.items():
            if metric.type == HISTOGRAM:
                yield _histogram(name, BARS[name](shown))
                continue
            kind = CounterMetricFamily if metric.type == COUNTER else GaugeMetricFamily
            family = kind(name, metric.help, labels=metric.labels)
            for labels, value in VALUES[name](shown):
                family.add_metric(labels, value)
            yield family


def _histogram(name: str, bars: Iterable[Bars]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, METRICS[name].help, labels=METRICS[name].labels)
    for labels, each, total in bars:
        rows, buckets = 0, []
        for le, n in zip(LE, each, strict=True):
            rows += n
            buckets.append((le, rows))
        family.add_metric(labels, buckets, total)
    return family


def _outcomes(shown: Snapshot) -> Iterator[Value]:
    for channel, came in zip(shown.channels, shown.rows.sum(axis=2).tolist(), strict=True):
        for outcome in OUTCOMES[channel[2]]:
            yield (*channel, outcome.label), came[outcome]


def _channels(values: Callable[[Snapshot], Numbers], *, states: bool = False) -> Callable[[Snapshot], Iterator[Value]]:
    """A value of each channel; states: only of those that are asked."""

    def found(shown: Snapshot) -> Iterator[Value]:
        for channel, is_asked, value in zip(shown.channels, shown.channels_asked, values(shown).tolist(), strict=True):
            if is_asked or not states:
                yield channel, value

    return found


def _paths(values: Callable[[Snapshot], Numbers], *, states: bool = False) -> Callable[[Snapshot], Iterator[Value]]:
    """The same of each path."""

    def found(shown: Snapshot) -> Iterator[Value]:
        for path, is_asked, value in zip(shown.paths, shown.paths_asked, values(shown).tolist(), strict=True):
            if is_asked or not states:
                yield path, value

    return found


def _bars(duration: Duration) -> Callable[[Snapshot], Iterator[Bars]]:
    """Of each path."""
    return lambda shown: zip(
        shown.paths, shown.buckets[:, duration].tolist(), shown.sums[:, duration].tolist(), strict=True
    )


def _connects(shown: Snapshot) -> Iterator[Bars]:
    for (*target, transport), each, total in _bars(Duration.CONNECT)(shown):
        if transport == "tcp":
            yield tuple(target), each, total


def _lag(shown: Snapshot) -> Iterator[Bars]:
    yield (), shown.lag.tolist(), shown.lag_s


def _one(value: Callable[[Snapshot], float | None]) -> Callable[[Snapshot], Iterator[Value]]:
    """Without labels; nothing if there is none."""

    def found(shown: Snapshot) -> Iterator[Value]:
        if (said := value(shown)) is not None:
            yield (), float(said)

    return found


def _phases(shown: Snapshot) -> Iterator[Value]:
    for rollout in shown.rollouts:
        for phase in Phase:
            yield (rollout.name, phase.value), rollout.phase is phase


_BY_UDP = tuple(o for o in Outcome if o not in (Outcome.UNSENT, Outcome.CONNECTION_LOST))
_BY_CONNECTION = tuple(o for o in Outcome if o is not Outcome.UNSENT)
OUTCOMES = {"udp": _BY_UDP} | dict.fromkeys(("tcp", *BESIDE), _BY_CONNECTION)
"""What can come of a query that was sent, by transport."""

_SENT = [outcome for outcome in Outcome if outcome is not Outcome.UNSENT]

BARS: dict[str, Callable[[Snapshot], Iterable[Bars]]] = {
    "dnsprobe_query_duration_seconds": _bars(Duration.LATENCY),
    "dnsprobe_query_rtt_seconds": _bars(Duration.RTT),
    "dnsprobe_connect_duration_seconds": _connects,
    "dnsprobe_schedule_lag_seconds": _lag,
}

VALUES: dict[str, Callable[[Snapshot], Iterable[Value]]] = {
    "dnsprobe_queries_total": _outcomes,
    "dnsprobe_queries_good_total": _channels(lambda shown: shown.rows[..., 1].sum(axis=1)),
    "dnsprobe_queries_lost_total": _channels(lambda shown: shown.rows[:, _SENT, 0].sum(axis=1)),
    "dnsprobe_responses_late_total": _paths(lambda shown: shown.counters[:, Counter.LATE]),
    "dnsprobe_responses_duplicate_total": _paths(lambda shown: shown.counters[:, Counter.DUPLICATE]),
    "dnsprobe_responses_unmatched_total": _paths(lambda shown: shown.counters[:, Counter.UNMATCHED]),
    "dnsprobe_responses_truncated_with_answer_total": _paths(
        lambda shown: shown.counters[:, Counter.TRUNCATED_WITH_ANSWER]
    ),
    "dnsprobe_queries_in_flight": _paths(lambda shown: shown.in_flight, states=True),
    "dnsprobe_target_up": _paths(lambda shown: shown.up, states=True),
    "dnsprobe_target_terminating": lambda shown: shown.terminating,
    "dnsprobe_target_info": lambda shown: ((address, 1) for address in shown.addresses),
    "dnsprobe_outages_total": _channels(lambda shown: shown.outages),
    "dnsprobe_outage_seconds_total": _channels(lambda shown: shown.outage_s),
    "dnsprobe_outage_start_timestamp_seconds": _channels(lambda shown: shown.since, states=True),
    "dnsprobe_last_success_timestamp_seconds": _paths(lambda shown: shown.success, states=True),
    "dnsprobe_lookups_total": lambda shown: shown.lookups,
    "dnsprobe_lookups_slow_total": lambda shown: (((client,), n) for client, n in shown.slow_lookups),
    "dnsprobe_ready_endpoints": _one(lambda shown: shown.ready),
    "dnsprobe_rollout_in_progress": lambda shown: (((r.name,), r.phase in UNDER_WAY) for r in shown.rollouts),
    "dnsprobe_rollout_info": _phases,
    "dnsprobe_cluster_watched": _one(lambda shown: shown.watched),
    "dnsprobe_queries_scheduled_total": lambda shown: (((transport,), n) for transport, n in shown.scheduled),
    "dnsprobe_queries_sent_total": lambda shown: (((transport,), n) for transport, n in shown.sent),
    "dnsprobe_queries_unsent_total": lambda shown: (
        ((c.label,), n) for c, n in zip(UnsentCause, shown.unsent.tolist(), strict=True)
    ),
    "dnsprobe_socket_receive_drops_total": _one(lambda shown: shown.own_drops),
    "dnsprobe_cpu_throttled_seconds_total": _one(lambda shown: shown.withheld_s),
    "dnsprobe_prober_healthy": _one(lambda shown: shown.healthy),
    "dnsprobe_configured_queries_per_second": _one(lambda shown: shown.rate),
    "dnsprobe_run_state": lambda shown: (((state,), shown.state is state) for state in State),
    "dnsprobe_run_info": lambda shown: [((shown.scenario, shown.mode), 1)],
    "dnsprobe_runs_started_total": lambda shown: (((reason,), n) for reason, n in shown.started.items()),
    "dnsprobe_config_last_reload_successful": _one(lambda shown: shown.reloaded),
    "dnsprobe_build_info": lambda _: [((__version__, platform.python_version()), 1)],
}
