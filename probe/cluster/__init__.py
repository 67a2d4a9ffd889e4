"""The Cluster protocol: what a scenario may see and do, the same in the lab and in a real cluster.

In: settings. Out: targets, marks and pods' lives as they happen; actions that change the cluster.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from probe.model import Target


@dataclass(frozen=True, slots=True)
class Happened:
    """Something the cluster did. `at` is CLOCK_MONOTONIC in ns; `kind` is a mark's kind, `subject` a pod or Service.

    A target that appears or ends comes with it: `up` from its first Ready, `down` from its deletion on
    (it counts until then), `gone` once nothing can answer there any more.
    """

    at: int
    kind: str
    text: str
    source: str
    subject: str = ""
    up: Target | None = None
    down: Target | None = None
    gone: Target | None = None


@dataclass(frozen=True, slots=True)
class Stretch(Happened):
    """Something that lasts: begun at `since` and going on, if `at` is no later; told again, it was over at `at`."""

    since: int = 0


@dataclass(frozen=True, slots=True)
class Meter:
    """Something that counts what it does: `coredns` or `kube-proxy`, of a pod or node, which serves that over HTTP.

    vantage: the network namespace it is asked from, a path; '' for the run's first one. `host`: this machine itself.
    """

    kind: str
    subject: str
    address: str = ""
    port: int = 0
    vantage: str = ""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """What decides how a CoreDNS pod ends, and how long others take to notice. Durations in seconds.

    readiness: what the readiness probe asks, `ready` (refused from SIGTERM on), `health` (until lameduck is over) or
    `none`. kubernetes: the version of kube-proxy, `1.33`. grace_fixed: why the grace period cannot be changed, or ''.
    """

    replicas: int
    lameduck: float
    grace_period: float
    pre_stop: float
    readiness: str
    readiness_period: float
    readiness_failures: int
    proxy_mode: str
    kubernetes: str
    grace_fixed: str = ""

    @property
    def unready_after(self) -> float:
        """R: the longest from SIGTERM until readiness fails for /ready is refused; inf if it never asks /ready."""
        return self.readiness_period * self.readiness_failures if self.readiness == "ready" else math.inf


class Cluster(Protocol):
    """Cluster DNS: one Service, its pods, and what can be done to them.

    namespaces: the network namespaces it can be asked from, paths, the first of them unless a target says otherwise; ''
    is this process's own. Known once it has started.
    """

    namespaces: tuple[str, ...]

    async def start(self) -> None:
        """Connect or build; return once the Service answers. EnvironmentProblem says what is missing."""

    async def stop(self) -> None:
        """Let go of everything; idempotent."""

    def targets(self, selector: str) -> list[Target]:
        """`service`, `nodelocal`, `upstream`, `pods`, or one target's name -> what is there now.

        UsageError for an unknown selector.
        """

    def happened(self) -> AsyncIterator[Happened]:
        """Everything that happens from start() on, in order of arrival; EnvironmentProblem if no more can be seen."""

    def meters(self) -> list[Meter]:
        """Whose metrics may be had now: CoreDNS pods', and nodes' kube-proxies'. Whether they can is found out."""

    def facts(self) -> dict[str, str]:
        """What this cluster is: backend, CoreDNS version or stand-in, proxy mode, settings."""

    def shutdown(self) -> Shutdown:
        """How its pods end, as far as their objects say so."""

    def check(self, word: str, value: str) -> None:
        """Asked before a run starts: UsageError or EnvironmentProblem if such a step cannot be taken here."""

    async def scale(self, replicas: int) -> None:
        """Set the number of CoreDNS replicas; returns when asked for, not when done."""

    async def restart(self) -> None:
        """Replace all pods by the Deployment's strategy, as `kubectl rollout restart`; returns when asked for."""

    async def delete_pod(self, pod: str = "", *, force: bool = False) -> str:
        """Delete one pod (the oldest if unnamed) as kubectl does; its name. The Deployment replaces it.

        force: as `kubectl delete pod --force --grace-period=0`: killed at once.
        """

    async def set_image(self, version: str) -> None:
        """A rolling update to another version of CoreDNS, `1.9.3`."""

    async def patch_corefile(self, patch: str) -> None:
        """Change one setting of the Corefile, `lameduck 10s`; pods reload it in their own time."""

    async def lose_node(self, node: str = "") -> str:
        """Cut a node off, the last one if unnamed, as when its machine dies; its name."""

    async def set_upstream(self, mode: str) -> None:
        """Let the upstream server behave otherwise: `silent`, `slow:2s`, ..."""

    async def restart_nodelocal(self) -> None:
        """Replace NodeLocal DNSCache on every node, one after the other."""
