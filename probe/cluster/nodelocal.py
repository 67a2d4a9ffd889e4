"""NodeLocal DNSCache in the lab: a real CoreDNS on each node's link-local address, in front of the Service.

It forwards the cluster's names to the Service by TCP (force_tcp) and others to the upstream, and caches both. As
node-cache does, it takes its address away when it is told to end (kubernetes/dns cmd/node-cache, TeardownNetworking).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from probe.cluster.deployment import Emit
from probe.cluster.images import Image, spawn
from probe.cluster.network import LOCAL, Network
from probe.cluster.zone import DOMAIN, at
from probe.errors import EnvironmentProblem
from probe.model import Target, TargetKind

PORT = 53
_CACHE = 30
_START_TRIES, _TRY_EVERY = 500, 0.02


class NodeLocal:
    """The DaemonSet node-local-dns: a pod in the network of each node."""

    def __init__(self, network: Network, image: Image, service: Target, upstream: str, emit: Emit) -> None:
        self._network, self._image, self._emit = network, image, emit
        self._service, self._upstream = service, upstream
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        only = len(network.probers) == 1
        self.targets = tuple(
            Target(_named(network, i), TargetKind.NODELOCAL, LOCAL, PORT, "" if only else network.nodes[i], prober)
            for i, prober in enumerate(network.probers)
        )

    async def start(self) -> None:
        """On all nodes; returns once they listen. EnvironmentProblem if they do not."""
        for node in range(len(self.targets)):
            await self._start(node)

    async def _start(self, node: int) -> None:
        self._network.open_local(node)
        name = self._name(node)
        home = self._image.folder / name
        home.mkdir(exist_ok=True)
        (home / "Corefile").write_text(_corefile(self._service, self._upstream))
        words = [str(self._image.coredns), "-conf", "Corefile"]
        self._processes[node] = await spawn(self._network.node_words(node, words), self._image.folder, name, home)
        for _ in range(_START_TRIES):
            if await self._listens(node):
                return
            await asyncio.sleep(_TRY_EVERY)
        last = (self._image.log(name).read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise EnvironmentProblem(f"{name} does not answer on {LOCAL}: {last}")

    async def _listens(self, node: int) -> bool:
        with self._network.socket(socket.SOCK_STREAM, node) as sock, contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_connect(sock, (LOCAL, PORT))
            return True
        return False

    async def restart(self, pause: float) -> None:
        """As a rolling update of the DaemonSet: node by node, the new pod after `pause` seconds."""
        for node, process in list(self._processes.items()):
            name = self._name(node)
            self._emit("nodelocal_ended", "SIGTERM: its address goes", name)
            self._network.close_local(node)
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            await asyncio.sleep(pause)
            await self._start(node)
            self._emit("nodelocal_started", f"answers on {LOCAL}", name)

    def _name(self, node: int) -> str:
        return self.targets[node].name


def _named(network: Network, node: int) -> str:
    return "node-local-dns" if len(network.probers) == 1 else f"node-local-dns@{network.nodes[node]}"


def _corefile(service: Target, upstream: str) -> str:
    """As in the kubernetes/dns manifest, without the reverse zones."""
    blocks = [(DOMAIN, at(service.address, service.port), " {\n        force_tcp\n    }")]
    if upstream:
        blocks.append((".", upstream, ""))
    return "".join(
        f"{zone}:{PORT} {{\n    errors\n    cache {_CACHE}\n    bind {LOCAL}\n    forward . {where}{options}\n}}\n"
        for zone, where, options in blocks
    )
