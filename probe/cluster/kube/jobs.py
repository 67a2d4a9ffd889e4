"""A Job's name -> its pods as they are now, what each has logged, and what its HTTP port serves, by the API server."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Node, Pod

from probe.cluster.kube.api import Api, NotSeen, Selection, connect
from probe.cluster.kube.board import INDEX, pods_of
from probe.cluster.kube.objects import node_view
from probe.errors import EnvironmentProblem

__all__ = ["JobPod", "JobPods", "NotSeen"]

RUNNING, OVER = "running", "over"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
"""RFC 1123; files are named after pods."""


@dataclass(frozen=True, slots=True)
class JobPod:
    """One pod of a Job. index: '' where it is not an Indexed Job's. going: it was told to end.

    state: RUNNING, OVER (its containers have ended), or why it does not run yet.
    """

    name: str
    index: str
    node: str
    going: bool
    state: str

    def __str__(self) -> str:
        return f"{self.name} on {self.node}" if self.node else self.name


@dataclass(frozen=True, slots=True)
class JobState:
    """A Job. made_s: when, in s since 1970; over: it is complete or has failed."""

    made_s: float
    over: bool


class JobPods:
    """The pods of one Job. EnvironmentProblem from every call; NotSeen is about one thing alone. close() it."""

    def __init__(self, name: str, namespace: str, context: str = "") -> None:
        self.name, self.namespace = name, namespace
        self._api: Api = connect(context)

    @property
    def whence(self) -> str:
        """`cluster NAME, by context NAME in FILE`."""
        return f"cluster {self._api.cluster}, by {self._api.source}"

    async def close(self) -> None:
        """Let go of all connections."""
        await self._api.close()

    async def job(self) -> JobState | None:
        """As it is now; None if there is no such Job."""
        jobs, _ = await self._api.list(Selection(Job, self.namespace, name=self.name))
        if not jobs:
            return None
        meta, status = jobs[0].metadata, jobs[0].status
        made = meta and meta.creationTimestamp
        conditions = (status and status.conditions) or []
        over = any(c.type in ("Complete", "Failed") and c.status == "True" for c in conditions)
        return JobState(made.timestamp() if made else 0.0, over)

    async def now(self) -> list[JobPod]:
        """The pods there are, also those that have ended, or are to go."""
        pods, _ = await self._api.list(pods_of(self.namespace, self.name))
        seen = sorted(map(_seen, pods), key=lambda pod: (pod.index, pod.name))
        for pod in seen:
            if not _NAME.fullmatch(pod.name):
                raise EnvironmentProblem(f"{self._api.server}: {pod.name!r} is no name of a pod: this is no Kubernetes")
        return seen

    async def zones(self) -> dict[str, str]:
        """Of the nodes, those that have one; none if they may not be listed."""
        try:
            nodes, _ = await self._api.list(Selection(Node))
        except EnvironmentProblem:
            return {}
        return {node.name: node.zone for node in map(node_view, nodes) if node.zone}

    def log(self, pod: str) -> AsyncIterator[bytes]:
        """What a pod has printed from its beginning on, and prints until it ends."""
        return self._api.octets(self._pod(pod), "log", "?follow=true", patience_s=None)

    def served(self, pod: str, port: int, path: str) -> AsyncIterator[bytes]:
        """What its port answers to a GET, such as `/run.db`.

        By the pod's proxy: that takes the right to get pods/proxy. exec and cp take the right to run anything in it, a
        shell and tar in its image, and a container that has not ended.
        """
        return self._api.octets(self._pod(f"{pod}:{port}"), "proxy", path)

    def _pod(self, name: str) -> Selection:
        return Selection(Pod, self.namespace, name=name)


def _seen(pod: Any) -> JobPod:
    meta, spec = pod.metadata, pod.spec
    labels, annotations = meta.labels or {}, meta.annotations or {}
    return JobPod(
        name=meta.name,
        index=labels.get(INDEX) or annotations.get(INDEX) or "",
        node=(spec and spec.nodeName) or "",
        going=meta.deletionTimestamp is not None,
        state=_state(pod.status),
    )


def _state(status: Any) -> str:
    phase = (status and status.phase) or "Pending"
    if phase in ("Succeeded", "Failed"):
        return OVER
    states = [c.state for c in (status and status.containerStatuses) or [] if c.state]
    if any(state.running for state in states):
        return RUNNING
    if states and all(state.terminated for state in states):
        return OVER
    waiting = [f"{w.reason}: {w.message}" if w.message else str(w.reason) for s in states if (w := s.waiting)]
    unmet = [c.message for c in (status and status.conditions) or [] if c.status == "False" and c.message]
    return next(iter([*waiting, *unmet]), str(phase))
