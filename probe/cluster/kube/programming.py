"""kube-proxies' own metric of how late they act on a change of endpoints -> its 99th percentile.

Source: kubernetes/kubernetes pkg/proxy/metrics, network_programming_duration_seconds: from a change of a Service or pod
until this node's rules are written.
"""

from __future__ import annotations

import math

from probe.cluster.kube.api import Api, Selection
from probe.cluster.kube.snapshot import KINDS, SYSTEM
from probe.cluster.scrape import samples_of
from probe.errors import EnvironmentProblem

METRIC = "kubeproxy_network_programming_duration_seconds_bucket"
_PORT = 10249
_ASKED = 5
_LEAST = 20
"""Of fewer changes there is no 99th percentile to speak of."""


async def programmed(api: Api, proxies: list[str]) -> tuple[float, str]:
    """Seconds, the upper end of the bucket that 99 % are in, and of how many changes on how many nodes.

    proxies: names of pods, of which some are asked through the API server. EnvironmentProblem if none can be.
    """
    counts: dict[float, float] = {}
    heard, why = 0, "there is no kube-proxy pod"
    for name in proxies[:_ASKED]:
        pod = Selection(KINDS["Pod"], SYSTEM, name=f"{name}:{_PORT}")
        try:
            page = b"".join([octets async for octets in api.octets(pod, "proxy", "/metrics")])
            for bound, n in buckets(page.decode(errors="replace")).items():
                counts[bound] = counts.get(bound, 0.0) + n
            heard += 1
        except (EnvironmentProblem, ValueError) as problem:
            why = str(problem)
    total = max(counts.values(), default=0.0)
    if total < _LEAST:
        told = f"{total:.0f} changes were seen: too few" if heard else why
        raise EnvironmentProblem(
            f"--propagation kube-proxy: {told}: its metricsBindAddress must be 0.0.0.0:{_PORT}, and pods/proxy allowed;"
            " or say a time, or --from-run"
        )
    seconds = min(bound for bound, n in counts.items() if n >= 0.99 * total)
    if math.isinf(seconds):
        seconds = max(bound for bound in counts if math.isfinite(bound))
    return seconds, f"kube-proxy's metric, 99 % of {total:,.0f} changes on {heard} nodes"


def buckets(page: str) -> dict[float, float]:
    """Changes by the bucket's upper end, in seconds, each with all smaller ones; ValueError for what is no metrics."""
    found: dict[float, float] = {}
    for sample in samples_of(page, {METRIC}):
        bound = float(sample.labels.get("le", "inf"))
        found[bound] = found.get(bound, 0.0) + sample.value
    return found
