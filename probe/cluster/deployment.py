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
from probe.cluster.pods import Image, Pod
from probe.cluster.sessions import Endpoint, sessions_of
from probe.cluster.vip import Vip
from probe.cluster.zone import HEALTH_PORT, METRICS_PORT, READY_PORT, wire_name
from probe.errors import EnvironmentProblem, UsageError
from probe.model import Target, TargetKind

SERVICE = "kube-dns"
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


class Block:
    """A free 127.53.x.0/24, ours while `claim` is open: the Service at .10, pods from .20 on."""

    def __init__(self, x: int, claim: socket.socket) -> None:
        self.claim = claim
        self.service = f"127.53.{x}.10"
        self._x = x
        self._next = 0

    def pod_address(self, taken: set[str]) -> str:
        """The next address in turn: one that has just been left is not used again soon."""
        while True:
            address = f"127.53.{self._x}.{20 + self._next}"
            self._next = (self._next + 1) % 235
            if address not in taken:
                return address


def _bound(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    """A socket bound there; the OSError's text names the port."""
    sock = socket.socket(socket.AF_INET, kind)
    try:
        sock.bind((address, port))
    except OSError as problem:
        sock.close()
        name = "udp" if kind == socket.SOCK_DGRAM else "tcp"
        raise OSError(problem.errno, f"{name} port {port}: {problem.strerror}") from None
    return sock


def find_block(port: int) -> Block:
    """The first free block; EnvironmentProblem names the port that somebody holds on every address.

    A block is a lab's as long as the lab holds READY_PORT of .1; the other ports are tried there too, because a
    program that listens on 0.0.0.0 would be in every pod's way.
    """
    for x in range(256):
        address = f"127.53.{x}.1"
        try:
            for kind, number in (
                (socket.SOCK_DGRAM, port),
                (socket.SOCK_STREAM, port),
                (socket.SOCK_STREAM, HEALTH_PORT),
                (socket.SOCK_STREAM, METRICS_PORT),
            ):
                _bound(kind, address, number).close()
            claim = _bound(socket.SOCK_STREAM, address, READY_PORT)
        except PermissionError as problem:
            raise EnvironmentProblem(f"{problem.strerror}: choose lab setting `port` from 1024 on") from None
        except OSError as problem:
            last = problem.strerror
        else:
            return Block(x, claim)
    raise EnvironmentProblem(
        f"no address of 127.53.0.0/16 is free for the lab ({last}): `ss -lntup` shows who holds the port; end that "
        "program, or, for the DNS port, choose another (lab setting `port`)"
    )


class Deployment:
    """CoreDNS's Deployment on one node, with its Service. `happened` is told of each thing as it happens."""

    def __init__(self, build: Build, folder: Path, happened: Callable[[Happened], None]) -> None:
        self.settings = build.settings
        self.block = find_block(build.settings.port)
        self.vip = Vip(self.block.service, build.settings.port, sessions_of(build.settings))
        self.service = Target(SERVICE, TargetKind.SERVICE, self.block.service, build.settings.port)
        self.pods: list[Pod] = []
        self._image = Image(build.coredns, folder)
        self._happened = happened
        self._replicas = 0
        self._template = _letters(10)
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
                built.set_result(Built(self.service))

    async def _all_ready(self) -> None:
        while not all(pod.ready for pod in self.pods):
            self._changed.clear()
            await self._changed.wait()
            if any(pod.exits >= _STARTS and not pod.times_ready for pod in self.pods):
                raise EnvironmentProblem(f"CoreDNS ends as soon as it is started{self._log()}")
        while self.pods:
            if await _answers(self.service):
                return
            await asyncio.sleep(0.02)

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

    def _reconcile(self) -> None:
        active = [pod for pod in self.pods if not pod.terminating]
        for _ in range(self._replicas - len(active)):
            address = self.block.pod_address({pod.address for pod in self.pods})
            pod = Pod(f"coredns-{self._template}-{_letters(5)}", address, self.settings, self._image, self._tell)
            self.pods.append(pod)
            self._tasks.create_task(pod.live())
        newest_last = sorted(active, key=lambda pod: not pod.ready)
        for pod in reversed(newest_last[max(0, self._replicas) :]):
            pod.delete()

    def _emit(self, kind: str, text: str, subject: str, **counts: Target) -> None:
        self._happened(Happened(time.monotonic_ns(), kind, text, _SOURCE, subject, **counts))

    def _tell(self, pod: Pod, kind: str, text: str) -> None:
        """A pod's event; its target is up once, at its first Ready, and ends only if it ever was; then the slice."""
        if kind == "pod_created":
            self.vip.attach(pod.name, pod.address)
        elif kind == "pod_gone":
            self.vip.detach(pod.name)
            self.pods.remove(pod)
        turns = kind in _COUNTS and (pod.times_ready == 1 if kind == "pod_ready" else pod.times_ready > 0)
        target = Target(pod.name, TargetKind.POD, pod.address, self.settings.port)
        self._emit(kind, text, pod.name, **({_COUNTS[kind]: target} if turns else {}))
        self._changed.set()
        self._slice()

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
            self.vip.program(endpoints)
            self._emit("endpoints_programmed", _shown(endpoints), SERVICE)

    async def _watch_drops(self) -> None:
        """Say it each second in which the lab itself lost datagrams, so that nobody blames DNS for them."""
        before = 0
        while True:
            await asyncio.sleep(1)
            now = self.vip.drops()
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


async def _answers(target: Target) -> bool:
    """One query by UDP has its answer within 0.2 s."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError, TimeoutError):
        sock.setblocking(False)
        sock.connect((target.address, target.port))
        sock.send(_QUERY)
        async with asyncio.timeout(0.2):
            return len(await asyncio.get_running_loop().sock_recv(sock, 512)) > 12
    return False
