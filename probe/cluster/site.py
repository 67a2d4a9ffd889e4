"""A Build -> all that a lab's process holds: network, Deployment, proxies, upstream, NodeLocal; and its ACTIONS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from probe.cluster import Happened
from probe.cluster.control import Build, Built
from probe.cluster.deployment import NAME, Deployment
from probe.cluster.images import Image, spawn
from probe.cluster.loopback import Loopback
from probe.cluster.netns import Netns
from probe.cluster.network import Network
from probe.cluster.nodelocal import NodeLocal
from probe.cluster.pods import Pod
from probe.cluster.proxies import Proxies
from probe.cluster.rollout import Standing
from probe.cluster.settings import CHANGED, LabSettings
from probe.cluster.zone import RELOAD_EVERY, RELOAD_JITTER, at, wire_name
from probe.errors import EnvironmentProblem, UsageError
from probe.model import Target, TargetKind

SERVICE = "kube-dns"
UPSTREAM = "upstream"
_SOURCE = "lab"
_START_TIMEOUT = 30.0
_STARTS = 2
"""Exits of one pod before its first Ready after which the lab gives up building."""
_ASK_AGAIN = 0.02
_NOTICE = 1.0
"""Seconds from the end of a lost node's own view to its loss: the prober on it stops asking first."""
_RELOADED = b"Reloading complete"
"""What CoreDNS writes when a new Corefile is in force (caddy, Instance.Restart)."""
_QUERY = b"\xd1\x5c\1\0\0\1\0\0\0\0\0\0" + wire_name("kubernetes.default.svc.cluster.local") + b"\0\1\0\1"


class Site:
    """One lab. `happened` is told of each thing as it happens, and how the Deployment stands when that changes."""

    def __init__(self, build: Build, folder: Path, happened: Callable[[Happened | Standing], None]) -> None:
        self.settings = settings = build.settings
        self.network = NETWORKS[settings.backend](settings, folder.name)
        only = len(self.network.probers) == 1
        self.services = tuple(
            Target(
                SERVICE if only else f"{SERVICE}@{node}",
                *(TargetKind.SERVICE, self.network.service, settings.dns_port),
                side="" if only else node,
                vantage=prober,
            )
            for node, prober in zip(self.network.nodes, self.network.probers, strict=False)
        )
        self._happened = happened
        self._tasks = asyncio.TaskGroup()
        self._image = Image(build.coredns, folder, self.network)
        self.proxies = Proxies(self.network, [s.name for s in self.services], self.emit)
        self.deployment = Deployment(
            settings, self.network, self._image, self._tasks, self.emit, self.proxies.learn, self.proxies.gone
        )
        self._stood = self.deployment.standing
        self.upstream: Target | None = None
        self._modes: asyncio.subprocess.Process | None = None
        self.nodelocal: NodeLocal | None = None
        self._beside: list[Target] = []
        self._gone: set[int] = set()

    def emit(self, kind: str, text: str, subject: str, **counts: Target) -> None:
        """It happened now."""
        self._happened(Happened(time.monotonic_ns(), kind, text, _SOURCE, subject, **counts))
        if (standing := self.deployment.standing) != self._stood:
            self._stood = standing
            self._happened(standing)

    async def run(self, built: asyncio.Future[Built]) -> None:
        """Build, then live until cancelled. `built` gets the targets once all is Ready, or what is missing."""
        async with self._tasks:
            self._tasks.create_task(self.proxies.run())
            self._tasks.create_task(self._watch_drops())
            try:
                async with asyncio.timeout(_START_TIMEOUT + self.settings.start_delay):
                    await self._build()
            except TimeoutError:
                built.set_exception(EnvironmentProblem(f"pods are not Ready after {_START_TIMEOUT:g} s{self._log()}"))
            except EnvironmentProblem as problem:
                built.set_exception(problem)
            else:
                # Until here changes reach the proxies at once: nobody is asking yet.
                self.proxies.delays = self.settings.propagation
                for pod in self.deployment.pods:
                    pod.ready_since = 0.0  # a cluster's pods have been Ready for long when it is upgraded
                others = (
                    *self._beside,
                    *([self.upstream] if self.upstream else []),
                    *(self.nodelocal.targets if self.nodelocal else []),
                )
                built.set_result(Built((*self.services, *others), self.network.probers, self.network.facts()))
                self._tasks.create_task(self._someone_else())

    async def _build(self) -> None:
        await self._open_beside()
        if self.settings.upstream:
            await self._start_upstream()
        self.deployment.scale(self.settings.replicas)
        await self._all_ready()
        if self.settings.nodelocal:
            upstream = at(self.upstream.address, self.upstream.port) if self.upstream else ""
            self.nodelocal = NodeLocal(self.network, self._image, self.services[0], upstream, self.emit)
            await self.nodelocal.start()

    async def _open_beside(self) -> None:
        """What takes connections on each node as its kubelet would, and on the first as the API server would."""
        kubelets = [(name, TargetKind.NODE, node) for node, name in enumerate(self.network.nodes)]
        for name, kind, node in (*kubelets, ("kube-apiserver", TargetKind.API, 0)):
            sock = self.network.socket(socket.SOCK_STREAM, node)
            sock.bind((self.network.node_address(node), 0))
            port = sock.getsockname()[1]
            await asyncio.start_server(lambda _, writer: writer.close(), sock=sock)
            target = Target(name, kind, self.network.node_address(node), port, vantage=self.network.probers[0])
            self._beside.append(target)

    async def _start_upstream(self) -> None:
        """A server of its own, asked for all that is not the cluster's; it takes a mode a line, and says it again."""
        port = self.settings.dns_port
        address = self.network.pod_address(0, set())
        self.deployment.reserved.add(address)
        self.network.attach(UPSTREAM, address, 0)
        words = [sys.executable, "-m", "probe.cluster.upstream", address, str(port), self.settings.upstream]
        self._modes = await spawn(
            self.network.words(UPSTREAM, words), self._image.folder, UPSTREAM, stdin=asyncio.subprocess.PIPE
        )
        self.upstream = Target(UPSTREAM, TargetKind.UPSTREAM, address, port, vantage=self.network.probers[0])
        self.deployment.corefile = replace(self.deployment.corefile, upstream=at(address, port))

    async def _all_ready(self) -> None:
        deployment = self.deployment
        while not all(pod.ready for pod in deployment.pods):
            deployment.changed.clear()
            await deployment.changed.wait()
            if any(pod.exits >= _STARTS and not pod.times_ready for pod in deployment.pods):
                raise EnvironmentProblem(f"CoreDNS ends as soon as it is started{self._log()}")
        for node in range(len(self.services)):
            answered = False
            while not answered:
                answered = await self._answers(node)

    async def _answers(self, node: int) -> bool:
        """One query to the Service by UDP, as a node sees it, has its answer within 0.2 s; else a moment has passed."""
        sock = self.network.socket(socket.SOCK_DGRAM, node, prober=True)
        with sock, contextlib.suppress(OSError, TimeoutError):
            sock.connect((self.network.service, self.settings.dns_port))
            sock.send(_QUERY)
            async with asyncio.timeout(0.2):
                return len(await asyncio.get_running_loop().sock_recv(sock, 512)) > 12
        await asyncio.sleep(_ASK_AGAIN)
        return False

    def _log(self) -> str:
        """The last line a pod that is not ready wrote."""
        for pod, log in self.deployment.logs():
            with contextlib.suppress(OSError):
                lines = log.read_text(errors="replace").strip().splitlines()
                if lines and not pod.ready:
                    return f": {lines[-1]}. `ss -lntup` shows who holds a port; coredns: stand-in does without CoreDNS"
        return ""

    async def _someone_else(self) -> None:
        """Whoever restarts the Deployment while a run looks on."""
        if self.settings.rollout_after:
            await asyncio.sleep(self.settings.rollout_after)
            self.deployment.restart()

    async def _watch_drops(self) -> None:
        """Say it each second in which the lab itself lost datagrams, so that nobody blames DNS for them."""
        before = 0
        while True:
            await asyncio.sleep(1)
            now = self.network.drops()
            if now > before:
                self.emit("lab_dropped", f"{now - before} datagrams: more than the lab's Service can carry", SERVICE)
            before = now

    # -- ACTIONS: a value in, what it was done to out; UsageError or EnvironmentProblem says why it cannot be done

    async def scale(self, replicas: str) -> str:
        """As `kubectl scale`."""
        self.deployment.scale(int(replicas))
        return replicas

    async def restart(self, _: str) -> str:
        """As `kubectl rollout restart`."""
        self.deployment.restart()
        return NAME

    async def delete_pod(self, pod: str) -> str:
        """As `kubectl delete pod --wait=false`."""
        return self.deployment.delete(pod)

    async def kill_pod(self, pod: str) -> str:
        """As `kubectl delete pod --force --grace-period=0`."""
        return self.deployment.delete(pod, force=True)

    async def set_image(self, value: str) -> str:
        """As `kubectl set image`: version and program."""
        version, _, program = value.partition(" ")
        self._image = replace(self._image, coredns=Path(program))
        self.emit("image_set", f"CoreDNS {version}", NAME)
        self.deployment.restart(self._image)
        return version

    async def set(self, value: str, word: str) -> str:
        """As a patch of the Deployment."""
        self.settings = self.settings.changed(word, value)
        self.emit("deployment_patched", f"{word} {value}", NAME)
        self.deployment.set(self.settings, roll=CHANGED[word])
        return value

    async def evict_dns(self, name: str) -> str:
        """As `kubectl drain`, of CoreDNS's pods alone: of a node, or the oldest pod's."""
        if len(self.network.nodes) < 2:
            raise UsageError("evict_dns: the pods need another node to go to: set lab.nodes to 2 or more")
        active = [pod for pod in self.deployment.pods if not pod.terminating]
        names = [self.network.nodes[pod.node] for pod in active]
        if not names or name not in ("", *names):
            raise UsageError(
                f"evict_dns {name}: no CoreDNS pod is there; they are on {', '.join(dict.fromkeys(names))}"
            )
        node = name or names[0]
        self.emit("pods_evicted", ", ".join(self.deployment.evict(self.network.nodes.index(node))), node)
        return node

    async def patch_corefile(self, text: str) -> str:
        """A patched ConfigMap: new pods have it at once, running ones after configmap_delay; then they reload."""
        self.deployment.corefile = self.deployment.corefile.patched(text)
        self.emit("corefile_patched", text, NAME)
        for pod, log in self.deployment.logs():
            if not pod.lost:
                self._tasks.create_task(self._reload(pod, log))
        return text

    async def _reload(self, pod: Pod, log: Path) -> None:
        await asyncio.sleep(self.settings.configmap_delay)
        if pod not in self.deployment.pods:
            return
        before = await asyncio.to_thread(_said, log, _RELOADED)
        pod.template.corefile().write(log.parent, pod.name, pod.address, self.settings.dns_port)
        deadline = time.monotonic() + RELOAD_EVERY + RELOAD_JITTER + self.deployment.corefile.lameduck + 30
        while pod in self.deployment.pods and time.monotonic() < deadline:
            if await asyncio.to_thread(_said, log, _RELOADED) > before:
                self.emit("corefile_reloaded", "CoreDNS says: Reloading complete", pod.name)
                return
            await asyncio.sleep(0.05)

    async def lose_node(self, name: str) -> str:
        """A node without its links, the last if unnamed; its own prober, a program on it, stops asking before."""
        nodes = self.network.nodes
        left = [i for i in range(1, len(nodes)) if i not in self._gone]
        wanted = [i for i in left if name in ("", nodes[i])]
        if not wanted:
            there = f"say {' or '.join(nodes[i] for i in left)}" if left else "set lab.nodes to 2 or more"
            raise UsageError(f"lose_node {name or 'last'}: there is no such node to lose, the first one stays: {there}")
        node = wanted[-1]
        self._gone.add(node)
        for target in (*self.services, *(self.nodelocal.targets if self.nodelocal else ())):
            if target.side == nodes[node]:
                self.emit("view_ended", "its node is about to be lost", target.name, down=target, gone=target)
        await asyncio.sleep(_NOTICE)
        self.network.cut(node)
        self.deployment.lose(node)
        self.emit("node_lost", "its links are cut, its processes stand still", nodes[node])
        return nodes[node]

    async def set_upstream(self, mode: str) -> str:
        """The upstream server's mode from now on."""
        if not self._modes or not self._modes.stdin:
            raise UsageError("there is no upstream: say lab.upstream: answering")
        self._modes.stdin.write(f"{mode}\n".encode())
        await self._modes.stdin.drain()
        self.emit("upstream_set", mode, UPSTREAM)
        return mode

    async def restart_nodelocal(self, _: str) -> str:
        """A rolling update of node-local-dns."""
        if not self.nodelocal:
            raise UsageError("there is no NodeLocal DNSCache: say lab.nodelocal: true")
        self._tasks.create_task(self.nodelocal.restart(self.settings.start_delay))
        return "node-local-dns"


def _said(log: Path, words: bytes) -> int:
    """How often something stands in a log."""
    return log.read_bytes().count(words)


ACTIONS: dict[str, Callable[[Site, str], Awaitable[str]]] = {
    "scale": Site.scale,
    "restart": Site.restart,
    "delete_pod": Site.delete_pod,
    "kill_pod": Site.kill_pod,
    "set_image": Site.set_image,
    "patch_corefile": Site.patch_corefile,
    "evict_dns": Site.evict_dns,
    **{word: partial(Site.set, word=word) for word in CHANGED},
    "lose_node": Site.lose_node,
    "upstream": Site.set_upstream,
    "restart_nodelocal": Site.restart_nodelocal,
}
"""What can be done to a lab, by the step's word."""

NETWORKS: dict[str, Callable[[LabSettings, str], Network]] = {
    "loopback": lambda settings, _: Loopback(settings),
    "netns": Netns,
}
"""What a lab is built on, by lab.backend."""
