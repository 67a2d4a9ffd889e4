"""The Cluster protocol: what a scenario may see and do, the same in the lab and in a real cluster.

In: settings. Out: targets, marks and pods' lives as they happen; actions that change the cluster.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
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


class Phase(StrEnum):
    """How far a rollout has come since the run began."""

    WAITING = "waiting"
    PROGRESSING = "progressing"
    COMPLETED = "completed"
    STALLED = "stalled"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far a workload's pods have been replaced, and why they are no further. updated: pods of the newest template.

    CLOCK_MONOTONIC in ns: began; since, its phase's beginning; changed, when anything of it did, or might have unseen.
    """

    name: str
    phase: Phase
    updated: int
    wanted: int
    why: str = ""
    began: int = 0
    since: int = 0
    changed: int = 0
    available: int = 0


@dataclass(frozen=True, slots=True)
class Planned:
    """What a step would do: its requests as one would type them. outage: why it can leave no ready endpoint, or ''.

    notes: what becomes of the change later.
    """

    commands: tuple[str, ...]
    outage: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Undone:
    """What became of taking back. moves: pods come, go or reload for it; conflicts: what others have set since."""

    moves: bool = False
    conflicts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Extent:
    """What a load has to go by. nodes: those that are Ready, 0 if they cannot be seen; zones: whose names the cluster
    knows itself, none if that cannot be seen.
    """

    nodes: int = 0
    zones: tuple[str, ...] = ()

    @property
    def domain(self) -> str:
        """The cluster's, `cluster.local`: the first of its zones that is not the root, nor a reverse one, by name or as
        CIDR; '' if there is none.
        """
        return next((zone for zone in self.zones if zone and not zone.endswith(".arpa") and "/" not in zone), "")


class Cluster(Protocol):
    """Cluster DNS: one Service, its pods, and what can be done to them.

    namespaces: the network namespaces it can be asked from, paths, the first of them unless a target says otherwise; ''
    is this process's own. Known once it has started. in_use: people depend on it, and it outlives the run.
    """

    namespaces: tuple[str, ...]
    in_use: bool

    async def start(self) -> None:
        """Connect or build; return once the Service answers. EnvironmentProblem says what is missing; idempotent."""

    async def stop(self) -> None:
        """Let go of everything; idempotent."""

    def targets(self, selector: str) -> list[Target]:
        """`service`, `nodelocal`, `upstream`, `pods`, or one target's name -> what is there now.

        `nodes`, `api`: the kubelets of CoreDNS's nodes and the API server, which take connections and know no DNS.
        UsageError for an unknown selector.
        """

    def happened(self) -> AsyncIterator[Happened]:
        """Everything that happens from start() on, in order of arrival; EnvironmentProblem if no more can be seen."""

    def meters(self) -> list[Meter]:
        """Whose metrics may be had now: CoreDNS pods', and nodes' kube-proxies'. Whether they can is found out."""

    def facts(self) -> dict[str, str]:
        """What this cluster is: backend, CoreDNS version or stand-in, proxy mode, settings."""

    def rollouts(self) -> list[Rollout]:
        """Of each workload that can be seen, how far its rollout has come since start()."""

    def ready_endpoints(self) -> int | None:
        """How many endpoints of the Service are ready; None while the cluster, or a part of it, is not seen."""

    async def headless(self, service: str, namespace: str) -> frozenset[str]:
        """The addresses that a headless Service's name stands for now, by its EndpointSlices: of endpoints that are
        ready; empty if there are none, or they cannot be seen.
        """

    def extent(self) -> Extent:
        """How large it is, as far as a load has to go by that."""

    def shutdown(self) -> Shutdown:
        """How its pods end, as far as their objects say so."""

    def check(self, word: str, value: str) -> None:
        """Asked before a run starts: UsageError or EnvironmentProblem if such a step cannot be taken here."""

    async def act(self, word: str, value: str) -> str:
        """Take a step that changes the cluster, by its word (see probe.scenario.steps); what it was done to.

        It returns when asked for, not when done; a patched Corefile of a cluster in use, once all pods have it.
        UsageError or EnvironmentProblem says why it cannot be taken.
        """

    async def plan(self, steps: Sequence[tuple[str, str]]) -> list[Planned]:
        """What act() would do, one step after the other; nothing for a cluster that ends with the run.

        UsageError or EnvironmentProblem if a step cannot be taken, or not as permitted.
        """

    async def undo(self, tell: Callable[[str], None]) -> Undone:
        """Take back what act() changed, the last first; `tell` gets each. Nothing in a cluster that ends with the run.

        EnvironmentProblem if it cannot be reached.
        """

    def settled(self) -> bool:
        """Whether no rollout is under way, no pod is ending, and none is to load a Corefile that was put back."""
