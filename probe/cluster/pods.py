"""One pod from creation to the end of its network: what the kubelet does, as it does it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from probe.cluster.images import Image
from probe.cluster.network import Network
from probe.cluster.settings import LabSettings
from probe.cluster.zone import HEALTH_PORT, READY_PORT, Corefile

_PROBE_TIMEOUT = 1.0
_FIRST_PROBES = 0.1
"""Seconds between probes until the first Ready: a kubelet probes a container that has just started out of turn."""
LEAST_GRACE = 2.0
"""Seconds a container has after SIGTERM, even if preStop has used the grace period up (kubelet, killContainer)."""
_BACKOFF_MAX = 300.0


PROBED = {"ready": (READY_PORT, "/ready"), "health": (HEALTH_PORT, "/health")}
"""What a readiness probe asks, by lab.readiness; `none` asks nothing."""


async def is_ready(sock: socket.socket, address: str, probe: str) -> bool:
    """One readiness probe over this socket: its page answers 200 within the timeout."""
    port, page = PROBED[probe]
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_PROBE_TIMEOUT):
            reader, writer = await _connected(sock, (address, port))
            try:
                writer.write(f"GET {page} HTTP/1.1\r\nHost: dns\r\nConnection: close\r\n\r\n".encode())
                return (await reader.readline()).split()[1:2] == [b"200"]
            finally:
                writer.close()
    return False


async def _connected(sock: socket.socket, where: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        await asyncio.get_running_loop().sock_connect(sock, where)
        return await asyncio.open_connection(sock=sock)
    except BaseException:
        sock.close()
        raise


Tell = Callable[["Pod", str, str], None]
"""Pod, kind of event, text: called the moment something happens to a pod, after its attributes have changed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pod is: its address on a node, counted from 0."""

    address: str
    node: int
    network: Network


@dataclass(frozen=True, slots=True)
class Template:
    """What a ReplicaSet makes pods of. corefile: the ConfigMap as it is when a pod starts."""

    hash: str
    image: Image
    corefile: Callable[[], Corefile]


class Pod:
    """One pod. `live` is its whole life; `delete` starts the end of it. `ready` is the pod's Ready condition."""

    def __init__(self, name: str, place: Place, template: Template, settings: LabSettings, tell: Tell) -> None:
        self.name = name
        self.address, self.node = place.address, place.node
        self.template = template
        self.settings = settings
        self.ready = False
        self.ready_since = 0.0
        self.times_ready = 0
        self.exits = 0
        self.lost = False
        self.forced = False
        """Its object has gone already: nothing of it is in the EndpointSlice any more."""
        self._network = place.network
        self._tell = tell
        self._deletion = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def terminating(self) -> bool:
        """deletionTimestamp is set."""
        return self._deletion.is_set()

    def delete(self, *, force: bool = False) -> None:
        """As `kubectl delete pod --wait=false`, or with `--force --grace-period=0`: killed, and no object any more."""
        if not self.terminating:
            self.forced = force
            self._deletion.set()
            grace = 0 if force else self.settings.grace_period
            self._tell(self, "pod_deleted", f"grace period {grace:g} s")

    def lose(self) -> None:
        """Its machine has gone: nobody hears of it any more, and nothing it is told reaches it."""
        self.lost = True
        if self._process:
            self._process.send_signal(signal.SIGSTOP)

    def forget(self) -> None:
        """The control plane counts it as not ready: its node has not been heard of for too long."""
        self._set_ready(False, f"its node has not been heard of for {self.settings.node_grace:g} s")

    async def live(self) -> None:
        """Created, started and restarted, Ready and not, deleted, ended; returns when the pod's network is gone."""
        self._tell(self, "pod_created", self.address)
        running = asyncio.create_task(self._run())
        deletion = asyncio.create_task(self._deletion.wait())
        try:
            await asyncio.wait({running, deletion}, return_when=asyncio.FIRST_COMPLETED)
            if not self.terminating:
                running.result()
            await self._terminate(running)
        finally:
            running.cancel()
            deletion.cancel()
        await asyncio.sleep(self.settings.teardown)
        self._tell(self, "pod_gone", self.address)

    async def _run(self) -> None:
        """The container: started, probed, restarted when it ends by itself (at once, then after 10 s, 20 s, ...)."""
        for restart in itertools.count():
            backoff = min(10.0 * 2 ** (restart - 2), _BACKOFF_MAX) if restart > 1 else 0.0
            await asyncio.sleep(backoff if restart else self.settings.start_delay)
            template = self.template
            self._process = await template.image.start(
                self.name, self.address, self.settings.dns_port, template.corefile()
            )
            probing = asyncio.create_task(self._probe())
            try:
                code = await self._process.wait()
            finally:
                probing.cancel()
            self._process = None
            self.ready = False
            self.exits += 1
            shown = 128 - code if code < 0 else code
            self._tell(self, "pod_exited", f"exit code {shown}")
            if self.terminating:
                return

    async def _probe(self) -> None:
        """Ready at the first success, not ready after that many failures in a row; goes on while terminating."""
        if self.settings.readiness == "none":
            self._set_ready(True, self.address)
            return
        failures = 0
        due = asyncio.get_running_loop().time()
        while not self.lost:
            sock = self._network.socket(socket.SOCK_STREAM, self.node)
            if await is_ready(sock, self.address, self.settings.readiness):
                failures = 0
                self._set_ready(True, self.address)
            elif not self.lost:
                failures += 1
                if failures >= self.settings.readiness_failures:
                    self._set_ready(False, f"{failures} readiness probes in a row failed")
            period = self.settings.readiness_period
            due += period if self.times_ready else min(period, _FIRST_PROBES)
            await asyncio.sleep(due - asyncio.get_running_loop().time())

    def _set_ready(self, ready: bool, text: str) -> None:
        if ready == self.ready:
            return
        self.ready = ready
        self.times_ready += ready
        self.ready_since = time.monotonic()
        self._tell(self, "pod_ready" if ready else "pod_not_ready", text)

    async def _terminate(self, running: asyncio.Task[None]) -> None:
        """preStop, SIGTERM, SIGKILL. preStop is paid out of the grace period; at least 2 s are left after SIGTERM."""
        if self.lost:
            await asyncio.Event().wait()  # no kubelet is there to do it
        grace, pre_stop = self.settings.grace_period, min(self.settings.pre_stop, self.settings.grace_period)
        if self._process and pre_stop and not self.forced:
            self._tell(self, "pre_stop", f"sleep {pre_stop:g} s")
            await asyncio.wait([running], timeout=pre_stop)
        if self._process and not self.forced:
            left = max(LEAST_GRACE, grace - pre_stop)
            self._tell(self, "sigterm", f"{left:g} s until SIGKILL")
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await asyncio.wait([running], timeout=left)
        if self._process:
            self._tell(self, "sigkill", "deleted by force" if self.forced else f"grace period {grace:g} s used up")
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await asyncio.wait([running])
