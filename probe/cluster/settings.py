"""What a lab cluster is made of: nodes, pods, the Service in front of them, and how long things take."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, fields, replace
from typing import Any

from probe.cluster.values import READINESS, STRATEGY, pairs, seconds
from probe.errors import UsageError

_Z99 = 2.3263478740408408
"""The standard normal distribution's 99th percentile."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Seconds: always `low`; or anything from low to high, evenly; or, skewed, lognormal with that median and p99."""

    low: float
    high: float | None = None
    skewed: bool = False

    @property
    def longest(self) -> float:
        """The most it can be; of a skewed one its 99th percentile."""
        return self.low if self.high is None else self.high

    def draw(self) -> float:
        """One delay."""
        if not self.skewed:
            return random.uniform(self.low, self.longest)
        return random.lognormvariate(math.log(self.low), math.log(self.longest / self.low) / _Z99)

    def __str__(self) -> str:
        if self.high is None:
            return f"{self.low:g} s"
        return f"p50 {self.low:g} s p99 {self.high:g} s" if self.skewed else f"{self.low:g} s to {self.high:g} s"


_ALWAYS_SAID = ("replicas", "lameduck", "propagation", "proxy_mode", "kubernetes")


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:g} s" if isinstance(value, float) else str(value)


@dataclass(frozen=True, slots=True)
class LabSettings:
    """Durations in seconds. Defaults are kubeadm's, except a propagation that is known and short.

    `backend`: `loopback`, or `netns` (root): network namespaces, with the kernel's own NAT and conntrack.
    `nodes`: pods are spread over them; with netns each has a kube-proxy and a prober of its own.
    `ip_family`: `ipv4` or, with netns, `ipv6`.
    `coredns`: `auto` (the real one if found), `real`, a version of it such as 1.9.3, or `stand-in`.
    `propagation`: from an endpoint change to a node's proxy acting on it; one for all nodes, or one for each.
    `kubernetes`: the kube-proxy era, as "1.33"; >= 1.26 falls back to serving-terminating endpoints.
    `kernel`: for IPVS; before 5.9 a packet to a stale session is dropped even with expire_nodest_conn=1.
    `readiness`: what the readiness probe asks: `ready`, `health`, or `none` (Ready as soon as the process runs).
    `udp_timeout`: of Service sessions; None is the mode's own: 300 s for ipvs, 120 s for iptables.
    `max_unavailable`, `max_surge`, `min_ready_seconds`: the Deployment's strategy of a rolling update; kubeadm's is
    1 and 25 %, rounded up.
    `rollout_after`: from the start until somebody else restarts the Deployment; 0 is never.
    `configmap_delay`: from a patched Corefile to the file in a running pod; kubelets take up to a minute or so.
    `node_grace`: from a node's loss until its pods count as not ready (node-monitor-grace-period).
    `cache`: seconds, `cache` of the Corefile; 0 leaves it out. `upstream`: what `forward` leads to, a mode of
    probe.cluster.upstream; '' for no forward. `nodelocal`: whether a NodeLocal DNSCache runs on each node (netns).
    `teardown`: from the process's exit to the end of the pod's network (refused before, silent after).
    `port`: of DNS; None is 53 with netns, else 10053.
    """

    backend: str = "loopback"
    nodes: int = 1
    ip_family: str = "ipv4"
    replicas: int = 3
    lameduck: float = 5.0
    grace_period: float = 30.0
    pre_stop: float = 0.0
    readiness: str = "ready"
    readiness_period: float = 10.0
    readiness_failures: int = 3
    propagation: tuple[Delay, ...] = (Delay(1.0),)
    proxy_mode: str = "iptables"
    udp_timeout: float | None = None
    expire_nodest_conn: bool = True
    kubernetes: str = "1.33"
    kernel: str = "6.1"
    coredns: str = "auto"
    max_unavailable: int = 1
    max_surge: int = 1
    min_ready_seconds: float = 0.0
    start_delay: float = 0.0
    rollout_after: float = 0.0
    configmap_delay: float = 1.0
    node_grace: float = 40.0
    cache: float = 0.0
    upstream: str = ""
    nodelocal: bool = False
    teardown: float = 0.5
    port: int | None = None

    @property
    def dns_port(self) -> int:
        """The port of DNS on pods and Service."""
        return self.port or (53 if self.backend == "netns" else 10053)

    def facts(self) -> dict[str, str]:
        """What is not as it usually is, and what always matters, by its path in a scenario."""
        usual = LabSettings()
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            f"lab.{name}": _shown(value)
            for name, value in said.items()
            if value != getattr(usual, name) or name in _ALWAYS_SAID
        }

    def changed(self, word: str, value: str) -> LabSettings:
        """As that step has it, one of CHANGED; UsageError for what a lab cannot be set to."""
        if word == "readiness":
            return self._readiness(pairs(value, READINESS))
        if word == "strategy":
            wanted = pairs(value, STRATEGY)
            if any(text.endswith("%") for text in wanted.values()):
                raise UsageError(f"strategy {value}: in the lab say numbers of pods")
            unavailable, surge = (wanted.get(name, getattr(self, name)) for name in STRATEGY)
            return replace(self, max_unavailable=int(unavailable), max_surge=int(surge))
        wanted_s: dict[str, Any] = {word: float(seconds(value))}
        return replace(self, **wanted_s)

    def _readiness(self, wanted: dict[str, str]) -> LabSettings:
        asks = wanted.get("path", f"/{self.readiness}").removeprefix("/")
        if asks not in ("ready", "health") or self.readiness == "none":
            raise UsageError(f"readiness path /{asks}: the lab's pods are asked for /ready or /health")
        period = float(wanted.get("period", self.readiness_period))
        failures = int(wanted.get("failures", self.readiness_failures))
        return replace(self, readiness=asks, readiness_period=period, readiness_failures=failures)


CHANGED = {"grace_period": True, "pre_stop": True, "readiness": True, "strategy": False, "min_ready_seconds": False}
"""Settings that a step can change, and whether all pods are replaced for it."""
