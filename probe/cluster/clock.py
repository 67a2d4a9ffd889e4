"""The clock of a pod's end, read from outside without API or logs: pods that come and go in, the edges they show out.

Kinds of Happened: clock_sigterm (/ready's port is refused), clock_lameduck_over (/health's is), clock_closed (the DNS
port is, by TCP), clock_gone (nothing replies any more), clock_blind (which of them cannot be seen, and why; said once).
This is the near end; the attempts are made by a process (clock_process).
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator

from probe.cluster import Happened, control
from probe.cluster.edges import SOURCE

_MARGIN = 10.0
"""Seconds after its grace period for which a pod that is not said to be gone is looked at."""


class PodClock:
    """Start it before lowering this process's priority: its child inherits it."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def start(self, home: str) -> None:
        """home: the network namespace of pods that name none, '' for our own."""
        near, far = socket.socketpair()
        with far:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "probe.cluster.clock_process", str(far.fileno()), home),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[far.fileno()],
                start_new_session=True,
            )
        self._reader, self._writer = await asyncio.open_connection(sock=near)

    async def stop(self) -> None:
        """Look no more; idempotent."""
        if self._writer:
            self._writer.close()
            self._writer = None
        if self._process:
            await self._process.wait()
            self._process = None

    def hear(self, happened: Happened, grace_period: float) -> None:
        """Something happened in the cluster: a pod that is deleted is looked at for its grace period at the most."""
        if happened.up or happened.down or happened.gone:
            self._pass_on(happened)
        if pod := happened.down:
            over = Happened(happened.at, "", "", SOURCE, pod.name, gone=pod)
            asyncio.get_running_loop().call_later(grace_period + _MARGIN, self._pass_on, over)

    def _pass_on(self, happened: Happened) -> None:
        if self._writer and not self._writer.is_closing():
            control.write(self._writer, happened)

    async def edges(self) -> AsyncIterator[Happened]:
        """What the ports show, as it shows; ends with the process."""
        while self._reader and isinstance(edge := await control.read(self._reader), Happened):
            yield edge
        text = "the process that looks at ports has ended: no more edges are seen"
        yield Happened(time.monotonic_ns(), "clock_blind", text, SOURCE)
