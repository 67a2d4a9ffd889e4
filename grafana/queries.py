"""Names in the catalogue of metrics -> PromQL that a dashboard's variables narrow down."""

from __future__ import annotations

from probe.exporter.catalogue import METRICS
from probe.outcome import Outcome

WHO = ",".join(f'{label}=~"${label}"' for label in ("cluster", "job", "instance", "node"))
"""Of labels that Prometheus adds to what a prober says. cluster and node may be absent: =~".*" matches that, too."""
FELT = 'target_kind=~"service|nodelocal|server"'
"""The ways that clients take; a pod or an upstream server that is down may be felt by nobody."""
OBJECTIVE = 0.999
"""The share of queries that is to be good."""
EXPECTED = "|".join(outcome.label for outcome in (Outcome.ANSWER, Outcome.NODATA, Outcome.NXDOMAIN))
"""Outcomes that may be the expected one."""


def of(metric: str, *matchers: str) -> str:
    """A selector: what the variables choose of a metric, narrowed down; `target_kind` in a matcher is in its place."""
    family = next((METRICS[name] for name in (metric, metric.removesuffix("_bucket")) if name in METRICS), None)
    if not family:
        raise KeyError(f"{metric} is not in probe/exporter/catalogue.py")
    said = [matcher.split("=")[0].rstrip("!") for matcher in matchers]
    chosen = [label for label in ("target_kind", "target", "transport") if label in family.labels]
    if "target_kind" in said:  # what clients feel does not depend on which pods somebody looks at
        chosen = [label for label in chosen if label == "transport"]
    narrowed = ",".join([WHO, *(f'{label}=~"${label}"' for label in chosen), *matchers])
    return f"{metric}{{{narrowed}}}"


def rate(selector: str, by: str = "") -> str:
    """Per second, in sum."""
    return f"{_sum(by)}(rate({selector}[$__rate_interval]))"


def lasting_rate(selector: str, by: str = "") -> str:
    """Per second, in sum, without pods that were told to go: what these lose is no fault."""
    return f"{_sum(by)}(rate({selector}[$__rate_interval]) {_UNLESS} {_ENDING} == 1)"


def lasting_total(selector: str, by: str = "", how: str = "sum") -> str:
    """In sum (or `how` else) over the time shown, without pods that were told to go in it."""
    return f"{_sum(by, how)}(increase({selector}[$__range]) {_UNLESS} max_over_time({_ENDING}[$__range]) == 1)"


def lost_rate(by: str = "", *matchers: str) -> str:
    """Queries per second that were not good."""
    return lasting_rate(of("dnsprobe_queries_lost_total", *matchers), by)


def lost_total(by: str = "", *matchers: str) -> str:
    """Queries over the time shown that were not good."""
    return lasting_total(of("dnsprobe_queries_lost_total", *matchers), by)


def good_share(by: str = "", *matchers: str) -> str:
    """The share of queries over the time shown that was good; nothing where none was asked."""
    asked = lasting_total(of("dnsprobe_queries_total", *matchers), by)
    return f"1 - {lost_total(by, *matchers)} / ({asked} > 0)"


def quantile(q: float, metric: str, by: str = "", *matchers: str, over: str = "$__rate_interval") -> str:
    """A quantile of a histogram of the catalogue, in seconds; NaN where nothing was counted."""
    labels = f"le,{by}" if by else "le"
    function = "rate" if over == "$__rate_interval" else "increase"
    return f"histogram_quantile({q:g}, sum by ({labels}) ({function}({of(f'{metric}_bucket', *matchers)}[{over}])))"


HEALTHY = of("dnsprobe_prober_healthy")


def believed(vector: str) -> str:
    """Of that, what healthy probers say; what all say in a cluster where none is healthy."""
    said = f"{HEALTHY} == 1"
    return f"({vector} and on (cluster, job, instance) {said} or {vector} unless on (cluster) {said})"


_UNLESS = "unless on (cluster, job, instance, target)"
_ENDING = of("dnsprobe_target_terminating")


def _sum(by: str, how: str = "sum") -> str:
    return f"{how} by ({by}) " if by else how
