"""Replicas asked for -> pods, the EndpointSlice that follows from them, and the node's proxy that learns of it late."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

from probe.cluster import Happened
from probe.cluster.control import Build, Built
from probe.cluster.endpoints import Endpoint
from probe.cluster.loopback import Loopback
from probe.cluster.netns import Netns
from probe.cluster.network import Network
from probe.cluster.pods import Image, Pod
from probe.cluster.settings import LabSettings
from probe.cluster.zone import wire_name
from probe.errors import EnvironmentProblem, UsageError
from probe.model import Target, TargetKind

SERVICE, DEPLOYMENT = "kube-dns", "coredns"
_SOURCE = "lab"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""What Kubernetes makes names of: nothing that spells a word (apimachinery util/rand)."""

_START_TIMEOUT = 30.0
_STARTS = 2
"""Exits of one pod before its first Ready after which the lab gives up building."""

_QUERY = b"\xd1\x5c\1\0\0\1\0\0\0\0\0\0" + wire_name("kubernetes.default.svc.cluster.local") + b"\0\1\0\1"
_COUNTS = {"pod_ready": "up", "pod_deleted": "down", "pod_gone": "gone"}
"""What these events say of the pod as a target."""


def _letters(n: int) -> str:
    return "".join(random.choices(_LETTERS, k=n))


class Deployment:
    """CoreDNS's Deployment on one node, with its Service. `happened` is told of each thing as it happens."""

    def __init__(self, build: Build, folder: Path, happened: Callable[[Happened], None]) -> None:
        self.settings = build.settings
        self.network = NETWORKS[build.settings.backend](build.settings, folder.name)
        self.service = Target(SERVICE, TargetKind.SERVICE, self.network.service, build.settings.port)
        self.pods: list[Pod] = []
        self._image = Image(build.coredns, folder, self.network)
        self._happened = happened
        self._replicas = 0
        self._template = _letters(10)
        self._rolling = False
        self._endpoints: tuple[Endpoint, ...] = ()
        self._programming: asyncio.Queue[tuple[float, tuple[Endpoint, ...]]] = asyncio.Queue()
        self._propagation = 0.0
        self._changed = asyncio.Event()
        self._tasks = asyncio.TaskGroup()

    async def run(self, built: asyncio.Future[Built]) -> None:
        """Build, then live until cancelled. `built` gets the Service once all is Ready, or what is missing."""
        async with self._tasks:
            self._tasks.create_task(self._program())
            self._tasks.create_task(self._watch_drops())
            self.scale(self.settings.replicas)
            try:
                async with asyncio.timeout(_START_TIMEOUT + self.settings.start_delay):
                    await self._all_ready()
            except TimeoutError:
                built.set_exception(EnvironmentProblem(f"pods are not Ready after {_START_TIMEOUT:g} s{self._log()}"))
            except EnvironmentProblem as problem:
                built.set_exception(problem)
            else:
                # Until here changes reach the proxy at once: nobody is asking yet.
                self._propagation = self.settings.propagation
                for pod in self.pods:
                    pod.ready_since = 0.0  # a cluster's pods have been Ready for long when it is upgraded
                built.set_result(Built(self.service, self.network.prober, self.network.facts()))

    async def _all_ready(self) -> None:
        while not all(pod.ready for pod in self.pods):
            self._changed.clear()
            await self._changed.wait()
            if any(pod.exits >= _STARTS and not pod.times_ready for pod in self.pods):
                raise EnvironmentProblem(f"CoreDNS ends as soon as it is started{self._log()}")
        while self.pods:
            if await self._answers():
                return
            await asyncio.sleep(0.02)

    async def _answers(self) -> bool:
        """One query to the Service by UDP has its answer within 0.2 s."""
        with self.network.socket(socket.SOCK_DGRAM, prober=True) as sock, contextlib.suppress(OSError, TimeoutError):
            sock.connect((self.service.address, self.service.port))
            sock.send(_QUERY)
            async with asyncio.timeout(0.2):
                return len(await asyncio.get_running_loop().sock_recv(sock, 512)) > 12
        return False

    def _log(self) -> str:
        """The last line a pod that is not ready wrote."""
        for pod in self.pods:
            with contextlib.suppress(OSError):
                lines = self._image.log(pod).read_text(errors="replace").strip().splitlines()
                if lines and not pod.ready:
                    return f": {lines[-1]}. `ss -lntup` shows who holds a port; coredns: stand-in does without CoreDNS"
        return ""

    def scale(self, replicas: int) -> None:
        """As `kubectl scale`. The ReplicaSet ends pods that are not Ready first, then the newest.

        (Its own order also counts co-located pods, and ages by their logarithm: with one node and pods of one age,
        this is what remains.)
        """
        self._replicas = replicas
        self._reconcile()

    def delete(self, name: str) -> str:
        """As `kubectl delete pod --wait=false`: its name; the oldest if unnamed. The replacement is created at once."""
        active = [pod for pod in self.pods if not pod.terminating]
        if not active:
            raise UsageError("delete_pod: there is no pod to delete (replicas is 0)")
        found = next((pod for pod in active if name in ("", pod.name)), None)
        if found is None:
            raise UsageError(f"delete_pod: no pod {name!r}; there are {', '.join(pod.name for pod in active)}")
        found.delete()
        self._reconcile()
        return found.name

    def restart(self) -> None:
        """As `kubectl rollout restart`: a new template; pods of the old one go as those of the new become available."""
        self._template = _letters(10)
        self._rolling = True
        self._emit("rollout_started", f"template {self._template}", DEPLOYMENT)
        self._reconcile()

    def _reconcile(self) -> None:
        """One pass of the Deployment's and the ReplicaSets' controllers."""
        active = [pod for pod in self.pods if not pod.terminating]
        old = [pod for pod in active if pod.template != self._template]
        most = self._replicas + (self.settings.max_surge if old else 0)
        for _ in range(min(self._replicas - (len(active) - len(old)), most - len(active))):
            self._create()
        if old:
            self._replace(active, old)
            return
        if self._rolling and len(active) >= self._replicas and all(map(self._is_available, active)):
            self._rolling = False
            self._emit("rollout_done", f"template {self._template}", DEPLOYMENT)
        newest_last = sorted(active, key=lambda pod: not pod.ready)
        for pod in reversed(newest_last[max(0, self._replicas) :]):
            pod.delete()

    def _create(self) -> None:
        address = self.network.pod_address({pod.address for pod in self.pods})
        name = f"coredns-{self._template}-{_letters(5)}"
        pod = Pod(name, address, self.settings, self._image, self._tell, self._template)
        self.pods.append(pod)
        self._tasks.create_task(pod.live())

    def _replace(self, active: list[Pod], old: list[Pod]) -> None:
        """Delete old pods as far as enough stay available; those that are not cost nothing, and go first."""
        spare = sum(map(self._is_available, active)) - (self._replicas - self.settings.max_unavailable)
        for pod in sorted(old, key=self._is_available):
            costs = self._is_available(pod)
            if costs and spare < 1:
                break
            spare -= costs
            pod.delete()
            asyncio.get_running_loop().call_soon(self._reconcile)  # there is room for another now

    def _is_available(self, pod: Pod) -> bool:
        """Ready for minReadySeconds, as the Deployment counts; it looks again when a pod may have become so."""
        left = pod.ready_since + self.settings.min_ready_seconds - time.monotonic() if pod.ready else 0.0
        if left > 0:
            asyncio.get_running_loop().call_later(left, self._reconcile)
        return pod.ready and left <= 0

    def _emit(self, kind: str, text: str, subject: str, **counts: Target) -> None:
        self._happened(Happened(time.monotonic_ns(), kind, text, _SOURCE, subject, **counts))

    def _tell(self, pod: Pod, kind: str, text: str) -> None:
        """A pod's event; its target is up once, at its first Ready, and ends only if it ever was; then the slice."""
        if kind == "pod_created":
            self.network.attach(pod.name, pod.address)
        elif kind == "pod_gone":
            self.network.detach(pod.name)
            self.pods.remove(pod)
        turns = kind in _COUNTS and (pod.times_ready == 1 if kind == "pod_ready" else pod.times_ready > 0)
        target = Target(pod.name, TargetKind.POD, pod.address, self.settings.port)
        self._emit(kind, text, pod.name, **({_COUNTS[kind]: target} if turns else {}))
        self._changed.set()
        self._slice()
        if self._rolling and kind in ("pod_ready", "pod_not_ready"):
            self._reconcile()

    def _slice(self) -> None:
        """The EndpointSlice as it is now; a change sets out for the proxy. A pod is in it from its first Ready on."""
        endpoints = tuple(Endpoint(p.name, p.address, p.ready, p.terminating) for p in self.pods if p.times_ready)
        if endpoints != self._endpoints:
            self._endpoints = endpoints
            self._emit("endpoints_changed", _shown(endpoints), SERVICE)
            self._programming.put_nowait((time.monotonic() + self._propagation, endpoints))

    async def _program(self) -> None:
        while True:
            due, endpoints = await self._programming.get()
            await asyncio.sleep(due - time.monotonic())
            self.network.program(endpoints)
            self._emit("endpoints_programmed", _shown(endpoints), SERVICE)

    async def _watch_drops(self) -> None:
        """Say it each second in which the lab itself lost datagrams, so that nobody blames DNS for them."""
        before = 0
        while True:
            await asyncio.sleep(1)
            now = self.network.drops()
            if now > before:
                self._emit("lab_dropped", f"{now - before} datagrams: more than the lab's Service can carry", SERVICE)
            before = now


def _shown(endpoints: tuple[Endpoint, ...]) -> str:
    """`ready: a, b; terminating, serving: c; not serving: d`."""
    groups = {
        "ready": [e.pod for e in endpoints if e.ready],
        "terminating, serving": [e.pod for e in endpoints if e.serving and e.terminating],
        "not serving": [e.pod for e in endpoints if not e.serving],
    }
    return "; ".join(f"{what}: {', '.join(pods) or 'none'}" for what, pods in groups.items() if pods or what == "ready")


NETWORKS: dict[str, Callable[[LabSettings, str], Network]] = {
    "loopback": lambda settings, _: Loopback(settings),
    "netns": Netns,
}
"""What a lab is built on, by lab.backend."""
