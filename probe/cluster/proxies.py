"""EndpointSlices as they change -> each node's proxy that acts on them, late by its propagation delay."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from probe.cluster.deployment import Emit
from probe.cluster.endpoints import Endpoint
from probe.cluster.network import Network
from probe.cluster.settings import Delay


class Proxies:
    """The kube-proxies of a lab, one for each of the Service's `names`. Until `delays` are set they learn at once."""

    def __init__(self, network: Network, names: Sequence[str], emit: Emit) -> None:
        self.delays: tuple[Delay, ...] = ()
        self._network, self._names, self._emit = network, names, emit
        self._due = [0.0] * len(names)
        self._stale: dict[tuple[int, str], int] = {}
        self._coming: list[asyncio.Queue[tuple[float, tuple[Endpoint, ...]]]] = [asyncio.Queue() for _ in names]

    def learn(self, endpoints: tuple[Endpoint, ...]) -> None:
        """A change sets out for every node; on none it overtakes an earlier one."""
        self._emit("endpoints_changed", _shown(endpoints), self._names[0].partition("@")[0])
        for node, coming in enumerate(self._coming):
            delay = self.delays[node % len(self.delays)].draw() if self.delays else 0.0
            self._due[node] = max(self._due[node], time.monotonic() + delay)
            coming.put_nowait((self._due[node], endpoints))

    def gone(self, address: str) -> None:
        """Nothing answers at a pod's address any more: a node that keeps flows to it sends queries nowhere."""
        for node in range(len(self._names)):
            self._look(node, address)

    def _look(self, node: int, address: str) -> None:
        """Tell how many flows lead to an address that is gone, whenever that has changed."""
        flows = self._network.flows(node, address)
        if len(flows) != self._stale.get((node, address), 0):
            self._stale[node, address] = len(flows)
            kept = f"{len(flows)} flows lead to {address}, which is gone: {' '.join(flows[0].split())}" if flows else ""
            self._emit(
                "flows_stale" if flows else "flows_deleted", kept or f"none leads to {address}", self._names[node]
            )

    async def run(self) -> None:
        """Act on what arrives, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for node in range(len(self._names)):
                group.create_task(self._sync(node))

    async def _sync(self, node: int) -> None:
        while True:
            due, endpoints = await self._coming[node].get()
            await asyncio.sleep(due - time.monotonic())
            self._network.program(node, endpoints)
            self._emit("endpoints_programmed", _shown(endpoints), self._names[node])
            for address in [address for other, address in self._stale if other == node]:
                self._look(node, address)


def _shown(endpoints: tuple[Endpoint, ...]) -> str:
    """`ready: a, b; terminating, serving: c; not serving: d`."""
    groups = {
        "ready": [e.pod for e in endpoints if e.ready],
        "terminating, serving": [e.pod for e in endpoints if e.serving and e.terminating],
        "not serving": [e.pod for e in endpoints if not e.serving],
    }
    return "; ".join(f"{what}: {', '.join(pods) or 'none'}" for what, pods in groups.items() if pods or what == "ready")
