"""LabSettings -> a Cluster that needs no cluster: CoreDNS pods and their Service on this machine.

This is the near end; everything runs in one child process (lab_process) with processes of its own for the pods.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from probe.cluster import Extent, Happened, Meter, Planned, Rollout, Shutdown, Undone, control
from probe.cluster.control import Act, Answer, Build, Built, Done, Refused, Request
from probe.cluster.endpoints import ready_in
from probe.cluster.images import choose_coredns, version_of
from probe.cluster.rollout import Rollouts, Standing
from probe.cluster.sessions import sessions_of
from probe.cluster.settings import CHANGED, LabSettings
from probe.cluster.site import ACTIONS, NETWORKS
from probe.cluster.upstream import mode_of
from probe.cluster.zone import DOMAIN, METRICS_PORT, RECORDS, Corefile
from probe.errors import EnvironmentProblem, UsageError
from probe.model import Target, TargetKind

MAX_REPLICAS = 100
"""A lab has 235 addresses, and pods that terminate keep theirs."""

MAX_NODES = 20
_STAND_IN = {"auto": "stand-in (no coredns found; `make coredns` builds it)", "stand-in": "stand-in"}
_SHORTEST_PERIOD = 0.05
_STOP_TIMEOUT = 10.0


def _check(settings: LabSettings) -> None:
    """UsageError for what no lab can be built from."""
    if not 0 <= settings.replicas <= MAX_REPLICAS:
        raise UsageError(f"replicas {settings.replicas}: a lab has 0 to {MAX_REPLICAS} pods")
    sessions_of(settings)
    _check_backend(settings)
    for name in (field.name for field in dataclasses.fields(settings)):
        value = getattr(settings, name)
        if isinstance(value, int | float) and value < 0:
            raise UsageError(f"lab setting {name} {value}: not below 0")
    if settings.readiness_period < _SHORTEST_PERIOD or settings.readiness_failures < 1:
        raise UsageError(f"lab settings: readiness_period from {_SHORTEST_PERIOD} s, readiness_failures from 1 on")
    if not settings.max_unavailable + settings.max_surge:
        raise UsageError("lab settings max_unavailable and max_surge: not both 0, or no pod could ever be replaced")
    if not 0 < settings.dns_port < 65536:
        raise UsageError(f"lab setting port {settings.port}: 1 to 65535")
    if not 1 <= settings.nodes <= MAX_NODES:
        raise UsageError(f"lab setting nodes {settings.nodes}: 1 to {MAX_NODES}")


def _check_backend(settings: LabSettings) -> None:
    """UsageError for what its backend does not have."""
    if settings.backend not in NETWORKS:
        raise UsageError(f"lab setting backend {settings.backend!r}: say {' or '.join(NETWORKS)}")
    if settings.backend == "netns" and settings.proxy_mode != "iptables":
        raise UsageError(
            f"lab setting proxy_mode {settings.proxy_mode}: with backend netns it is iptables alone;"
            " the loopback backend models IPVS"
        )
    if settings.backend != "netns" and settings.ip_family != "ipv4":
        raise UsageError(f"lab setting ip_family {settings.ip_family}: needs lab.backend: netns (root)")
    if settings.nodelocal and (settings.backend, settings.ip_family) != ("netns", "ipv4"):
        raise UsageError("lab setting nodelocal: needs lab.backend: netns (root), and ip_family ipv4")
    if settings.nodelocal and choose_coredns(settings.coredns) is None:
        raise EnvironmentProblem("lab setting nodelocal: needs the real CoreDNS: run `make coredns`")
    proxies = settings.nodes if settings.backend == "netns" else 1
    if len(settings.propagation) not in (1, proxies):
        raise UsageError(
            f"lab setting propagation: {len(settings.propagation)} delays, but nodes with a proxy: {proxies}; say one"
            " for all, or one for each (the loopback backend has one proxy)"
        )


_KINDS = {
    "service": TargetKind.SERVICE,
    "nodelocal": TargetKind.NODELOCAL,
    "upstream": TargetKind.UPSTREAM,
    "nodes": TargetKind.NODE,
    "api": TargetKind.API,
}


class Lab:
    """The lab, a Cluster. Start it before lowering this process's priority: its children inherit it.

    Kinds of Happened, of a pod: pod_created, pod_ready, pod_deleted, pre_stop, sigterm, pod_not_ready (its probes
    failed), sigkill, pod_exited, pod_gone, corefile_reloaded; of the Deployment: rollout_started, rollout_done,
    image_set, corefile_patched, deployment_patched; of the Service: endpoints_changed, endpoints_programmed (the change
    has reached the proxy of that node), lab_dropped (the lab lost datagrams itself, in the second before), flows_stale
    and flows_deleted (what conntrack has of flows to a pod that is gone, netns); of a node: view_ended, node_lost,
    node_not_ready, pods_evicted; of other servers: upstream_set, nodelocal_ended, nodelocal_started; lab_died (it ended
    unasked).
    """

    in_use = False

    def __init__(self, settings: LabSettings | None = None) -> None:
        self._settings = settings or LabSettings()
        _check(self._settings)
        self._coredns: Path | None = None
        self._version = "not started"
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._errors: IO[bytes] | None = None
        self._targets: tuple[Target, ...] = ()
        self.namespaces: tuple[str, ...] = ("",)
        self._network: Mapping[str, str] = {}
        self._pods: dict[str, Target] = {}
        self._rollouts = Rollouts("lab")
        self._ready = 0
        self._happened: asyncio.Queue[Happened | None] = asyncio.Queue()
        self._answers: asyncio.Queue[Answer] = asyncio.Queue()
        self._asking = asyncio.Lock()

    async def start(self) -> None:
        """Build; returns once all replicas are Ready and the Service answers. EnvironmentProblem says why not."""
        if self._process:
            return
        self._coredns = choose_coredns(self._settings.coredns)
        self._version = await version_of(self._coredns) if self._coredns else _STAND_IN[self._settings.coredns]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        near, far = socket.socketpair()
        with far:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "probe.cluster.lab_process",
                str(far.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[far.fileno()],
                start_new_session=True,
            )
        reader, self._writer = await asyncio.open_connection(sock=near)
        self._listening = asyncio.create_task(self._listen(reader))
        try:
            answer = await self._ask(Build(self._settings, self._coredns))
        except BaseException:
            await self.stop()
            raise
        if isinstance(answer, Built):
            self._targets, self.namespaces, self._network = answer.targets, answer.probers, answer.facts

    async def stop(self) -> None:
        """End the lab with all its pods; idempotent."""
        if self._writer:
            self._writer.close()
            self._writer = None
        if process := self._process:
            self._process = None
            try:
                async with asyncio.timeout(_STOP_TIMEOUT):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._listening:
            await self._listening
        if self._errors:
            self._errors.close()

    def targets(self, selector: str) -> list[Target]:
        """`service`, `nodelocal`, `upstream`, `nodes`, `api`, `pods` (Ready once and not deleted, in that order of
        time), or a name.

        The Service and NodeLocal are as many targets as there are nodes to ask them from.
        """
        if selector == "pods":
            return list(self._pods.values())
        if selector in _KINDS:
            return [target for target in self._targets if target.kind is _KINDS[selector]]
        named = [target for target in (*self._targets, *self._pods.values()) if target.name == selector]
        if not named:
            known = ", ".join([*_KINDS, "pods", *(target.name for target in self._targets), *self._pods])
            raise UsageError(f"target {selector!r}: the lab has {known}")
        return named

    async def happened(self) -> AsyncIterator[Happened]:
        """Everything from start() on; ends when the lab has: EnvironmentProblem if nobody asked it to. One reader."""
        while (event := await self._happened.get()) is not None:
            yield event
            if event.kind == "lab_died":
                raise EnvironmentProblem(event.text)

    def meters(self) -> list[Meter]:
        """Its pods."""
        pods = self._pods.values()
        return [Meter("coredns", pod.name, pod.address, METRICS_PORT, pod.vantage) for pod in pods]

    def facts(self) -> dict[str, str]:
        """The lab as a report shows it: backend, what the pods run, how it is set."""
        return {**self._network, "coredns": self._version, **self._settings.facts()}

    def rollouts(self) -> list[Rollout]:
        """CoreDNS's."""
        return self._rollouts.now

    def ready_endpoints(self) -> int | None:
        """As the lab's control plane has it; a proxy learns of it later."""
        return self._ready

    async def headless(self, service: str, namespace: str) -> frozenset[str]:
        """As its pods' zone has it."""
        records = RECORDS.get(f"{service}.{namespace}.svc.{DOMAIN}", {})
        return frozenset(address for addresses in records.values() for address in addresses)

    def extent(self) -> Extent:
        """Its nodes, and the zone that its pods serve."""
        return Extent(self._settings.nodes, (DOMAIN,))

    def shutdown(self) -> Shutdown:
        """As the lab was set."""
        settings = self._settings
        return Shutdown(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(Shutdown)[:-1]})

    def check(self, word: str, value: str) -> None:
        """UsageError or EnvironmentProblem if this lab could not carry out this action, as far as is known before."""
        settings = self._settings
        if word not in ACTIONS:
            raise UsageError(f"{word} {value}: the lab has no such setting: this step is for a real cluster")
        if word in CHANGED:
            _check(settings.changed(word, value))
        elif word == "set_image":
            if not re.fullmatch(r"[0-9.]+", value):
                raise UsageError(f"set_image {value}: the lab runs versions of CoreDNS: say one, such as 1.9.3")
            choose_coredns(value)
        elif word == "patch_corefile":
            Corefile().patched(value)
            if choose_coredns(settings.coredns) is None:
                raise EnvironmentProblem("the stand-in reads no Corefile: run `make coredns`, or say lab.coredns: real")
        elif word == "lose_node" and settings.nodes < 2:
            raise UsageError("lose_node: the first node stays: set lab.nodes to 2 or more")
        elif word == "evict_dns" and settings.nodes < 2:
            raise UsageError("evict_dns: the pods need another node to go to: set lab.nodes to 2 or more")
        elif word == "upstream":
            mode_of(value)
            if not settings.upstream:
                raise UsageError("upstream: there is none: say lab.upstream: answering")
        elif word == "restart_nodelocal" and not settings.nodelocal:
            raise UsageError("restart_nodelocal: there is none: say lab.nodelocal: true")

    async def act(self, word: str, value: str) -> str:
        """One of the lab's ACTIONS (see probe.cluster.site)."""
        if word == "set_image":
            value = f"{value} {choose_coredns(value)}"
        answer = await self._ask(Act(word, value))
        if word in CHANGED:
            self._settings = self._settings.changed(word, value)
        return answer.text if isinstance(answer, Done) else ""

    async def plan(self, _: Sequence[tuple[str, str]]) -> list[Planned]:
        """Nobody depends on it."""
        return []

    async def undo(self, _: Callable[[str], None]) -> Undone:
        """It ends with the run."""
        return Undone()

    def settled(self) -> bool:
        """Nothing is ever undone that could go on."""
        return True

    async def _ask(self, request: Request) -> Answer:
        async with self._asking:
            if self._writer is None:
                raise EnvironmentProblem("the lab is not running")
            control.write(self._writer, request)
            answer = await self._answers.get()
        if isinstance(answer, Refused):
            raise (UsageError if answer.usage else EnvironmentProblem)(answer.text)
        return answer

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while (message := await control.read(reader)) is not None:
            if isinstance(message, Happened):
                self._note(message)
            elif isinstance(message, Standing):
                if told := self._rollouts.see(time.monotonic_ns(), message):
                    self._note(told)
            elif isinstance(message, Built | Done | Refused):
                self._answers.put_nowait(message)
        if self._writer:
            self._writer.close()
            self._writer = None
            self._died()
        self._happened.put_nowait(None)

    def _note(self, event: Happened) -> None:
        if event.up:
            self._pods[event.up.name] = event.up
        if event.down:
            self._pods.pop(event.down.name, None)
        if event.kind == "endpoints_changed":
            self._ready = len(ready_in(event.text))
        self._happened.put_nowait(event)

    def _died(self) -> None:
        """Nobody asked it to: say so on the timeline, and to whoever waits for an answer."""
        text = "the lab's process has died"
        if self._errors:
            self._errors.seek(0)
            last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
            text = ": ".join([text, *last])
        self._happened.put_nowait(Happened(time.monotonic_ns(), "lab_died", text, "lab"))
        self._answers.put_nowait(Refused(text))
