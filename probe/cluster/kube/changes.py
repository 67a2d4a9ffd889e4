"""Views of objects, one after the other as they arrive -> what happened between them; knows no API and no clock."""

from __future__ import annotations

from collections.abc import Iterator

from probe.cluster import Happened
from probe.cluster.endpoints import Endpoint, shown
from probe.cluster.kube.corefile import changed_lines
from probe.cluster.kube.objects import ConfigView, EventView, NodeView, PodView, pod_target
from probe.cluster.kube.workloads import ReplicaSetView, WorkloadView
from probe.cluster.rollout import Rollouts
from probe.model import NS, Target

SOURCE = "kubernetes"
TOLD = (
    *("Killing", "Preempted", "TaintManagerEviction", "ScalingReplicaSet", "SuccessfulRescale"),
    *("NodeNotReady", "NodeReady", "NodeNotSchedulable", "NodeSchedulable", "RemovingNode"),
)
"""Events that are told though they are no warnings."""
_AGAIN_NS = 10 * NS
"""From one mark of an Event that repeats to the next, at least."""
_STEPS = 20
"""Of a DaemonSet's rollout so many steps are told, however many nodes there are."""


class Changes:
    """What was last seen of each object. `port`: of pods, for DNS.

    Kinds of Happened, of a pod: pod_created, pod_ready, pod_not_ready, pod_exited, pod_restarted, pod_deleted (it was
    told to end), pod_failed (it ended by itself, for good), pod_stuck (it does not become Ready, and why),
    pod_gone; of a Deployment or DaemonSet: scaled, rollout_started, rollout_progress, rollout_done, and what Rollouts
    tells; of a ReplicaSet: replicaset_current (its template is rolled out), replicaset_scaled; of a ConfigMap:
    corefile_patched, config_changed; of the Service: endpoints_changed; of a node: node_not_ready, node_ready,
    node_gone; of what an Event is about: event.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.pods: dict[str, Target] = {}
        """Pods that count: Ready once, and not told to end."""
        self._ended: dict[str, Target] = {}
        self._rolling: set[str] = set()
        self._events: dict[str, int] = {}
        self._endpoints: tuple[Endpoint, ...] | None = None
        self.rollouts = Rollouts(SOURCE)

    def pod(self, at: int, before: PodView | None, after: PodView | None) -> Iterator[Happened]:
        """From one version of a pod to the next; None is no such object."""
        if before and after and before.uid != after.uid:
            yield from self.pod(at, before, None)
            before = None
        if after is None:
            if before:
                yield from self._gone(at, before)
            return
        if before is None:
            yield _said(at, "pod_created", after.image, after.name)
        yield from self._readiness(at, before, after)
        if after.told and not (before and before.told):
            yield self._down(at, "pod_deleted", after.told, after.name)
        if after.failed and not after.told and not (before and before.failed):
            yield self._down(at, "pod_failed", after.failed, after.name, gone=True)
        if after.restarts > (before.restarts if before else 0):
            yield _said(at, "pod_restarted", f"restarts: {after.restarts}", after.name)
        for text in after.exits:
            if text not in (before.exits if before else ()):
                yield _said(at, "pod_exited", text, after.name)
        if after.stuck and after.stuck != (before.stuck if before else ""):
            yield _said(at, "pod_stuck", after.stuck, after.name)

    def _readiness(self, at: int, before: PodView | None, after: PodView) -> Iterator[Happened]:
        was = bool(before and before.ready)
        if after.ready and not was:
            target, first = pod_target(after, self.port), after.name not in self.pods and not after.told
            if first:
                self.pods[after.name] = target
            template = f", template {after.template}" if after.template else ""
            text = f"{after.address} on {after.node}{template}"
            yield Happened(at, "pod_ready", text, SOURCE, after.name, up=target if first else None)
        elif was and not after.ready:
            yield _said(at, "pod_not_ready", after.address, after.name)

    def _down(self, at: int, kind: str, text: str, pod: str, *, gone: bool = False) -> Happened:
        """It counts no more; what it still answers is looked at until it is gone."""
        target = self.pods.pop(pod, None)
        if target and not gone:
            self._ended[pod] = target
        return Happened(at, kind, text, SOURCE, pod, down=target, gone=target if gone else None)

    def _gone(self, at: int, before: PodView) -> Iterator[Happened]:
        if before.name in self.pods:
            yield self._down(at, "pod_deleted", "by force, or unseen: its object went at once", before.name)
        yield Happened(at, "pod_gone", before.address, SOURCE, before.name, gone=self._ended.pop(before.name, None))

    def workload(self, at: int, before: WorkloadView | None, after: WorkloadView | None) -> Iterator[Happened]:
        """From one version of a Deployment or DaemonSet to the next. One that comes or goes is told by its pods."""
        if not after:
            return
        if before and before.wanted != after.wanted:
            yield _said(at, "scaled", f"from {before.wanted} to {after.wanted} replicas", after.name)
        if before and before.revision != after.revision:
            self._rolling.add(after.name)
            yield _said(at, "rollout_started", f"template {after.template}, {after.image}", after.name)
        elif after.over and after.name in self._rolling:
            self._rolling.discard(after.name)
            yield _said(at, "rollout_done", f"template {after.template}, {after.image}", after.name)
        elif before and after.name in self._rolling:
            yield from self._progress(at, before, after)

    def _progress(self, at: int, before: WorkloadView, after: WorkloadView) -> Iterator[Happened]:
        step = max(1, after.wanted // _STEPS)
        if after.updated // step != before.updated // step:
            text = f"{after.updated} of {after.wanted} updated, {after.available} available"
            yield _said(at, "rollout_progress", text, after.name)

    def replica_set(self, at: int, before: ReplicaSetView | None, after: ReplicaSetView | None) -> Iterator[Happened]:
        """From one version of a ReplicaSet to the next. A rollback makes an old one the current one again."""
        if not after:
            return
        if not before or after.revision > before.revision:
            again = f", which was revision {before.revision}" if before else ""
            yield _said(at, "replicaset_current", f"revision {after.revision}{again}, {after.image}", after.name)
        if before and before.wanted != after.wanted:
            yield _said(at, "replicaset_scaled", f"from {before.wanted} to {after.wanted} replicas", after.name)

    def config(self, at: int, before: ConfigView | None, after: ConfigView | None) -> Iterator[Happened]:
        """From one version of a ConfigMap to the next."""
        one = after or before
        old, new = before.text if before else "", after.text if after else ""
        if one and old != new:
            kind = "corefile_patched" if one.corefile else "config_changed"
            yield _said(at, kind, changed_lines(old, new), one.name)

    def event(self, at: int, before: EventView | None, after: EventView | None) -> Iterator[Happened]:
        """From one version of an Event to the next: what repeats comes again, with a greater count."""
        if after is None:
            self._events.pop(before.name if before else "", None)
            return
        new = before is None or after.count > before.count
        if (
            new
            and (after.warning or after.reason in TOLD)
            and at - self._events.get(after.name, -_AGAIN_NS) >= _AGAIN_NS
        ):
            self._events[after.name] = at
            times = f", {after.count} times by now" if after.count > 1 else ""
            clock = f", the last at {after.last} by its reporter's clock" if after.last else ""
            yield _said(at, "event", f"{after.reason}: {after.text}{times}{clock}", after.about[1])

    def node(self, at: int, before: NodeView | None, after: NodeView | None) -> Iterator[Happened]:
        """From one version of a node to the next. One that comes is of no interest until it has pods."""
        if before and not after:
            yield _said(at, "node_gone", before.zone, before.name)
        elif before and after and before.ready != after.ready:
            yield _said(at, "node_ready" if after.ready else "node_not_ready", after.why, after.name)

    def endpoints(self, at: int, service: str, after: tuple[Endpoint, ...]) -> Iterator[Happened]:
        """The Service's endpoints are these now."""
        before, self._endpoints = self._endpoints, after
        if before is not None and before != after:
            yield _said(at, "endpoints_changed", shown(after), service)


def _said(at: int, kind: str, text: str, subject: str) -> Happened:
    return Happened(at, kind, text, SOURCE, subject)
