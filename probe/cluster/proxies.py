"""EndpointSlices as they change -> each node's proxy that acts on them, late by its propagation delay."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from probe.cluster.deployment import Emit
from probe.cluster.endpoints import Endpoint, shown
from probe.cluster.network import Network
from probe.cluster.settings import Delay


class _News(NamedTuple):
    """An EndpointSlice on its way to a node: when it is there (monotonic, s)."""

    due: float
    endpoints: tuple[Endpoint, ...]


class Proxies:
    """The kube-proxies of a lab, one for each of the Service's `names`. Until `delays` are set they learn at once."""

    def __init__(self, network: Network, names: Sequence[str], emit: Emit) -> None:
        self.delays: tuple[Delay, ...] = ()
        self._network, self._names, self._emit = network, names, emit
        self._due = [0.0] * len(names)
        self._coming: list[asyncio.Queue[_News]] = [asyncio.Queue() for _ in names]
        self._stale: list[dict[str, int]] = [{} for _ in names]
        self._tasks = asyncio.TaskGroup()

    def learn(self, endpoints: tuple[Endpoint, ...]) -> None:
        """A change sets out for every node; on none it overtakes an earlier one."""
        self._emit("endpoints_changed", shown(endpoints), self._names[0].partition("@")[0])
        for node, coming in enumerate(self._coming):
            delay = self.delays[node % len(self.delays)].draw() if self.delays else 0.0
            self._due[node] = max(self._due[node], time.monotonic() + delay)
            coming.put_nowait(_News(self._due[node], endpoints))

    def gone(self, address: str) -> None:
        """Nothing answers at a pod's address any more: a node that keeps flows to it sends queries nowhere."""
        for node, stale in enumerate(self._stale):
            stale[address] = 0
            self._tasks.create_task(self._look(node))

    async def run(self) -> None:
        """Act on what arrives, until cancelled."""
        async with self._tasks:
            for node in range(len(self._names)):
                self._tasks.create_task(self._sync(node))

    async def _sync(self, node: int) -> None:
        while True:
            news = await self._coming[node].get()
            await asyncio.sleep(news.due - time.monotonic())
            await self._network.program(node, news.endpoints)
            self._emit("endpoints_programmed", shown(news.endpoints), self._names[node])
            await self._look(node)
            self._stale[node] = {address: n for address, n in self._stale[node].items() if n}

    async def _look(self, node: int) -> None:
        """Tell how many flows lead to addresses that are gone, whenever that has changed."""
        for address in list(self._stale[node]):
            flows = await self._network.flows(node, address)
            if len(flows) == self._stale[node].get(address, 0):
                continue
            self._stale[node][address] = len(flows)
            if flows:
                text = f"flows that lead to {address}, which is gone: {len(flows)}: {' '.join(flows[0].split())}"
                self._emit("flows_stale", text, self._names[node])
            else:
                self._emit("flows_deleted", f"none leads to {address} any more", self._names[node])
