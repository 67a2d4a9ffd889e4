"""The clock's process: pods that come and go in, the edges of those that end out, in messages of probe.cluster.control.

A process of its own, at normal priority: the run's is idle, and would look late exactly when the machine is busy. It
ends when the other side of its socket is gone.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable

from probe.cluster import Happened, control
from probe.cluster.edges import SOURCE, Attempt, PodEnd, Reply, attempt, ports_of
from probe.model import Target

_BEAT = 0.02
"""Seconds from one attempt on a port to the next."""
_AFTERWARDS = 2.0
"""Seconds for which a pod is still looked at once it is said to be gone."""


class Looks:
    """Tries the ports of pods that end. `home`: the network namespace of targets that name none; '' is our own."""

    def __init__(self, home: str, tell: Callable[[Happened], None]) -> None:
        self._home, self._tell = home, tell
        self._accepted: dict[str, set[int]] = {}
        self._until: dict[str, float] = {}
        self._blind: set[str] = set()

    async def follow(self, reader: asyncio.StreamReader) -> None:
        """Try a pod once when it is up, and from its deletion on until it is gone."""
        async with asyncio.TaskGroup() as looks:
            tasks = []
            while isinstance(happened := await control.read(reader), Happened):
                if (pod := happened.up) and pod.name not in self._accepted:
                    tasks.append(looks.create_task(self._meet(pod)))
                if (pod := happened.down) and pod.name not in self._until:
                    self._until[pod.name] = float("inf")
                    tasks.append(looks.create_task(self._watch(pod, happened.at)))
                if (pod := happened.gone) and pod.name in self._until:
                    self._until[pod.name] = time.monotonic() + _AFTERWARDS
            for task in tasks:
                task.cancel()

    async def _try(self, pod: Target, ports: list[int]) -> list[Attempt]:
        return await asyncio.gather(*(attempt(pod, port, pod.vantage or self._home) for port in ports))

    async def _meet(self, pod: Target) -> None:
        attempts = await self._try(pod, list(ports_of(pod)))
        self._accepted[pod.name] = {a.port for a in attempts if a.reply is Reply.OPEN}

    async def _watch(self, pod: Target, deleted_ns: int) -> None:
        end = PodEnd(pod, deleted_ns, self._accepted.pop(pod.name, set()))
        ports, due = list(ports_of(pod)), time.monotonic()
        while ports and not end.gone and time.monotonic() < self._until[pod.name]:
            for happened in end.take(await self._try(pod, ports)):
                self._tell(happened)
            self._say_blind(end)
            ports, due = end.ports, max(due + _BEAT, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
        del self._until[pod.name]

    def _say_blind(self, end: PodEnd) -> None:
        """Once for each port that has never accepted, whichever pod is the first."""
        for port, kind in ports_of(end.pod).items():
            if port not in end.accepted and kind not in self._blind:
                self._blind.add(kind)
                text = f"port {port} accepted nothing before the end either: there will be no {kind}"
                self._tell(Happened(end.told_ns, "clock_blind", text, SOURCE, end.pod.name))


async def _main(sock: socket.socket, home: str) -> None:
    reader, writer = await asyncio.open_connection(sock=sock)
    await Looks(home, lambda happened: control.write(writer, happened)).follow(reader)
    writer.close()


if __name__ == "__main__":
    asyncio.run(_main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2]))
