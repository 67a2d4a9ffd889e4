"""Replicas, template and strategy asked for -> pods that come and go, and the EndpointSlice that follows from them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from probe.cluster.endpoints import Endpoint
from probe.cluster.images import Image
from probe.cluster.network import Network
from probe.cluster.pods import Place, Pod, Template
from probe.cluster.rollout import Standing
from probe.cluster.settings import LabSettings
from probe.cluster.zone import Corefile
from probe.errors import UsageError
from probe.model import Target, TargetKind

NAME = "coredns"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""What Kubernetes makes names of: nothing that spells a word (apimachinery util/rand)."""
_COUNTS = {"pod_ready": "up", "pod_deleted": "down", "pod_gone": "gone"}
"""What these events say of the pod as a target."""
_EVICTED_AFTER = 300.0
"""Seconds that pods stay on a node that is unreachable: the default toleration (tolerationSeconds)."""
_CRASHES = 2
"""Exits of a pod that never was Ready from which on it is in a crash loop."""


class Emit(Protocol):
    """Tells of something that happened now."""

    def __call__(self, kind: str, text: str, subject: str, **counts: Target) -> None: ...


def _letters(n: int) -> str:
    return "".join(random.choices(_LETTERS, k=n))


class Deployment:
    """CoreDNS's Deployment with its ReplicaSets. `sliced` gets the EndpointSlice whenever it has changed.

    `left` gets the address of a pod that has gone.
    """

    def __init__(
        self,
        settings: LabSettings,
        network: Network,
        image: Image,
        tasks: asyncio.TaskGroup,
        emit: Emit,
        sliced: Callable[[tuple[Endpoint, ...]], None],
        left: Callable[[str], None],
    ) -> None:
        self.pods: list[Pod] = []
        self.corefile = Corefile(settings.lameduck, settings.cache)
        self.reserved: set[str] = set()
        """Addresses that no pod may get: others have them."""
        self.changed = asyncio.Event()
        """Set whenever something has happened to a pod."""
        self._settings, self._network, self._tasks = settings, network, tasks
        self._emit, self._sliced, self._left = emit, sliced, left
        self._replicas = 0
        self._template = self._new_template(image)
        self._templates = [self._template]
        self._rolling = False
        self._lost: set[int] = set()
        self._closed: set[int] = set()
        self._endpoints: tuple[Endpoint, ...] = ()

    def _new_template(self, image: Image) -> Template:
        return Template(_letters(10), image, lambda: self.corefile)

    def _active(self) -> list[Pod]:
        return [pod for pod in self.pods if not pod.terminating]

    # -- what people ask for

    def scale(self, replicas: int) -> None:
        """As `kubectl scale`. The ReplicaSet ends pods that are not Ready first, then the newest.

        (Its own order also counts co-located pods, and ages by their logarithm: with pods of one age that are spread
        evenly, this is what remains.)
        """
        self._replicas = replicas
        self._reconcile()

    def delete(self, name: str, *, force: bool = False) -> str:
        """As `kubectl delete pod --wait=false`: its name; the oldest if unnamed. The replacement is created at once."""
        active = self._active()
        if not active:
            raise UsageError("there is no pod to delete (replicas is 0)")
        found = next((pod for pod in active if name in ("", pod.name)), None)
        if found is None:
            raise UsageError(f"no pod {name!r}; there are {', '.join(pod.name for pod in active)}")
        found.delete(force=force)
        self._reconcile()
        return found.name

    def restart(self, image: Image | None = None) -> None:
        """As `kubectl rollout restart`: a new template; pods of the old one go as those of the new become available.

        image: as `kubectl set image`: one that there has been since the last restart has the template of that time.
        """
        known = next((template for template in self._templates if template.image == image), None)
        if known is self._template:
            return
        self._template = known or self._new_template(image or self._template.image)
        self._templates = [*self._templates, self._template] if image else [self._template]
        self._rolling = True
        self._emit("rollout_started", f"template {self._template.hash}", NAME)
        self._reconcile()

    def set(self, settings: LabSettings, *, roll: bool) -> None:
        """Other settings, for new pods and later rollouts; roll: all pods are replaced for it."""
        self._settings = settings
        if roll:
            self.restart()

    def evict(self, node: int) -> list[str]:
        """The pods of a node, told to go while none may come to it (`kubectl cordon`); their names."""
        self._closed.add(node)
        told = [pod for pod in self._active() if pod.node == node]
        for pod in told:
            pod.delete()
        self._reconcile()
        self._closed.discard(node)
        return [pod.name for pod in told]

    def lose(self, node: int) -> None:
        """A machine is gone; its pods count as they did until the control plane has not heard of it for node_grace."""
        self._lost.add(node)
        for pod in self.pods:
            if pod.node == node:
                pod.lose()
        loop = asyncio.get_running_loop()
        loop.call_later(self._settings.node_grace, self._forget, node)
        loop.call_later(self._settings.node_grace + _EVICTED_AFTER, self._evict, node)

    def _forget(self, node: int) -> None:
        self._emit("node_not_ready", f"not heard of for {self._settings.node_grace:g} s", self._network.nodes[node])
        for pod in list(self.pods):
            if pod.node == node:
                pod.forget()

    def _evict(self, node: int) -> None:
        for pod in self._active():
            if pod.node == node:
                pod.delete()
        self._reconcile()

    @property
    def standing(self) -> Standing:
        """How its rollout stands."""
        new = [pod for pod in self._active() if pod.template is self._template]
        crashed = (pod.name for pod in new if pod.exits >= _CRASHES and not pod.times_ready)
        stuck = next((f"pod {name}: container coredns is in a crash loop" for name in crashed), "")
        image = str(self._template.image.coredns or "stand-in")
        return Standing(NAME, self._template.hash, image, len(new), self._replicas, not self._rolling, stuck)

    def logs(self) -> list[tuple[Pod, Path]]:
        """Pods that run, and where their output goes."""
        return [(pod, pod.template.image.log(pod.name)) for pod in self.pods]

    # -- the controllers

    def _reconcile(self) -> None:
        """One pass of the Deployment's and the ReplicaSets' controllers."""
        active = self._active()
        old = [pod for pod in active if pod.template is not self._template]
        most = self._replicas + (self._settings.max_surge if old else 0)
        for _ in range(min(self._replicas - (len(active) - len(old)), most - len(active))):
            self._create()
        if old:
            self._replace(active, old)
            return
        if self._rolling and len(active) >= self._replicas and all(map(self._is_available, active)):
            self._rolling = False
            self._emit("rollout_done", f"template {self._template.hash}", NAME)
        newest_last = sorted(active, key=lambda pod: not pod.ready)
        for pod in reversed(newest_last[max(0, self._replicas) :]):
            pod.delete()

    def _create(self) -> None:
        """A pod on the node that has the fewest, as the scheduler's spreading has it."""
        nodes = [i for i in range(len(self._network.nodes)) if i not in self._lost | self._closed]
        node = min(nodes, key=lambda i: sum(pod.node == i for pod in self._active()))
        address = self._network.pod_address(node, self.reserved | {pod.address for pod in self.pods})
        name = f"{NAME}-{self._template.hash}-{_letters(5)}"
        pod = Pod(name, Place(address, node, self._network), self._template, self._settings, self._tell)
        self.pods.append(pod)
        self._tasks.create_task(pod.live())

    def _replace(self, active: list[Pod], old: list[Pod]) -> None:
        """Delete old pods as far as enough stay available; those that are not cost nothing, and go first."""
        spare = sum(map(self._is_available, active)) - (self._replicas - self._settings.max_unavailable)
        for pod in sorted(old, key=self._is_available):
            costs = self._is_available(pod)
            if costs and spare < 1:
                break
            spare -= costs
            pod.delete()
            asyncio.get_running_loop().call_soon(self._reconcile)  # there is room for another now

    def _is_available(self, pod: Pod) -> bool:
        """Ready for minReadySeconds, as the Deployment counts; it looks again when a pod may have become so."""
        left = pod.ready_since + self._settings.min_ready_seconds - time.monotonic() if pod.ready else 0.0
        if left > 0:
            asyncio.get_running_loop().call_later(left, self._reconcile)
        return pod.ready and left <= 0

    def _tell(self, pod: Pod, kind: str, text: str) -> None:
        """A pod's event; its target is up once, at its first Ready, and ends only if it ever was; then the slice."""
        if kind == "pod_created":
            self._network.attach(pod.name, pod.address, pod.node)
        elif kind == "pod_gone":
            self._network.detach(pod.name)
            self.pods.remove(pod)
            self._left(pod.address)
        turns = kind in _COUNTS and (pod.times_ready == 1 if kind == "pod_ready" else pod.times_ready > 0)
        target = Target(pod.name, TargetKind.POD, pod.address, self._settings.dns_port)
        self._emit(kind, text, pod.name, **({_COUNTS[kind]: target} if turns else {}))
        self.changed.set()
        self._slice()
        if self._rolling and kind in ("pod_ready", "pod_not_ready"):
            self._reconcile()

    def _slice(self) -> None:
        """The EndpointSlice as it is now. A pod is in it from its first Ready on, until its object has gone."""
        there = [pod for pod in self.pods if pod.times_ready and not pod.forced]
        endpoints = tuple(Endpoint(p.name, p.address, p.ready, p.terminating) for p in there)
        if endpoints != self._endpoints:
            self._endpoints = endpoints
            self._sliced(endpoints)
