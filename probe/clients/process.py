"""The clients' process: an order (JSON) in, a line for each lookup that has ended out; it ends when its stdin does.

A process of its own, at normal priority: the run's is idle, and a client that is late would look like slow DNS.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable

from probe.clients.profiles import CLIENTS
from probe.clients.steps import Answer
from probe.linux import enter_network
from probe.model import NS, Fate
from probe.resolv import read_resolv_conf

_LATE_NS = NS // 4
"""A client that asks so much after it was due is told of: then its answers are late, too."""


async def _lookup(client: str, name: str, look_up: Callable[[str], Awaitable[Answer]]) -> None:
    from_ns = time.monotonic_ns()
    answer = Answer(Fate.UNFINISHED)
    try:
        answer = await look_up(name)
    finally:
        _tell(from_ns, client, name, answer.fate, time.monotonic_ns() - from_ns, answer.error)


def _tell(*row: int | str) -> None:
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


async def _one_client(client: str, order: dict[str, object], phase: float) -> None:
    """Lookup i is due at start + (phase + i) / rate, whatever has become of the others; later if this process was."""
    servers = [(str(address), int(port)) for address, port in order["servers"]]  # type: ignore[attr-defined]
    look_up = CLIENTS[client].looks_up(read_resolv_conf(str(order["conf"])), servers)
    names, rate, begin = order["names"], float(str(order["rate"])), time.monotonic_ns()
    async with asyncio.TaskGroup() as lookups:
        for i in itertools.count():
            due_ns = begin + int((phase + i) / rate * NS)
            await asyncio.sleep((due_ns - time.monotonic_ns()) / NS)
            if (late_ns := time.monotonic_ns() - due_ns) > _LATE_NS:
                _tell(due_ns, "", "", "", late_ns, "")
                begin += late_ns
            name = names[i % len(names)]  # type: ignore[index, arg-type]
            lookups.create_task(_lookup(client, name, look_up))


async def _main(order: dict[str, object]) -> None:
    profiles: list[str] = order["profiles"]  # type: ignore[assignment]
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    clients = [
        asyncio.create_task(_one_client(profile, order, k / len(profiles))) for k, profile in enumerate(profiles)
    ]
    _tell()
    await asyncio.wait({*clients, over := asyncio.create_task(ended.wait())}, return_when=asyncio.FIRST_COMPLETED)
    for task in (*clients, over):
        task.cancel()
    for end in await asyncio.gather(*clients, over, return_exceptions=True):
        if isinstance(end, Exception):
            raise end


def main() -> None:
    """`python -m probe.clients.process ORDER`: an Asking, with its servers, their resolv.conf and a namespace."""
    order = json.loads(sys.argv[1])
    if order["namespace"]:
        enter_network(order["namespace"])
    asyncio.run(_main(order))


if __name__ == "__main__":
    main()
