"""CoreDNS's command, and one pod from creation to the end of its network: what the kubelet does, as it does it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from probe.cluster.keeper import BADGE
from probe.cluster.network import Network
from probe.cluster.settings import LabSettings
from probe.cluster.zone import READY_PORT, write_corefile
from probe.errors import EnvironmentProblem, UsageError

_PROBE_TIMEOUT = 1.0
_FIRST_PROBES = 0.1
"""Seconds between probes until the first Ready: a kubelet probes a container that has just started out of turn."""
LEAST_GRACE = 2.0
"""Seconds a container has after SIGTERM, even if preStop has used the grace period up (kubelet, killContainer)."""
_BACKOFF_MAX = 300.0


def find_coredns() -> Path | None:
    """The real CoreDNS: DNSPROBE_COREDNS, else `coredns` on PATH, else where `make coredns` puts it; None if missing.

    EnvironmentProblem if DNSPROBE_COREDNS names something that cannot be run.
    """
    if named := os.environ.get("DNSPROBE_COREDNS"):
        if found := shutil.which(named):
            return Path(found).absolute()
        why = "is there, but not executable: chmod +x it" if Path(named).is_file() else "no such program"
        raise EnvironmentProblem(f"DNSPROBE_COREDNS={named}: {why}; run `make coredns`, or unset it")
    if found := shutil.which("coredns"):
        return Path(found).absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cached = cache / "dnsprobe" / "bin" / "coredns"
    return cached if os.access(cached, os.X_OK) else None


def choose_coredns(setting: str) -> Path | None:
    """`auto`, `real` or `stand-in` -> the program to run, None for the stand-in; says what is missing."""
    if setting == "stand-in":
        return None
    if setting not in ("auto", "real"):
        raise UsageError(f"coredns {setting!r}: say auto, real or stand-in")
    found = find_coredns()
    if found is None and setting == "real":
        raise EnvironmentProblem(
            "coredns: real, but there is no coredns: run `make coredns`, set DNSPROBE_COREDNS=/path/to/coredns, "
            "or say coredns: stand-in"
        )
    return found


async def version_of(coredns: Path) -> str:
    """`CoreDNS-1.15.0 (/path)`, as the program itself says; EnvironmentProblem if it is no CoreDNS."""
    remedy = "set DNSPROBE_COREDNS to a CoreDNS, run `make coredns`, or say coredns: stand-in"
    try:
        process = await asyncio.create_subprocess_exec(
            coredns,
            "-version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(10):
            out, err = await process.communicate()
    except OSError as problem:
        raise EnvironmentProblem(f"{coredns}: cannot be run: {problem.strerror}; {remedy}") from None
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise EnvironmentProblem(f"{coredns}: not a CoreDNS: `-version` does not end; {remedy}") from None
    said = (out.decode(errors="replace").splitlines() or [""])[0]
    if process.returncode or not said.startswith("CoreDNS-"):
        words = (err.decode(errors="replace").splitlines() or [said or "it said nothing"])[0][:200]
        ended = f"`-version` ended with exit code {process.returncode}"
        raise EnvironmentProblem(f"{coredns}: not a CoreDNS: {ended}: {words}; {remedy}")
    return f"{said} ({coredns})"


@dataclass(frozen=True, slots=True)
class Image:
    """What every pod of a lab runs, and the folder for its files. `coredns` None: the stand-in."""

    coredns: Path | None
    folder: Path
    network: Network

    async def start(self, pod: Pod) -> asyncio.subprocess.Process:
        """The pod's process, with its output in the pod's log."""
        home = self.folder / pod.name
        home.mkdir(exist_ok=True)
        port, lameduck = pod.settings.port, pod.settings.lameduck
        if self.coredns:
            write_corefile(home, pod.address, port, lameduck)
            command = [str(self.coredns), "-conf", "Corefile"]
        else:
            command = [sys.executable, "-m", "probe.cluster.standin", pod.address, str(port), str(lameduck), pod.name]
        with self.log(pod).open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self.network.words(pod.name, command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=home if self.coredns else None,
                env=os.environ | {BADGE: str(self.folder)},
                start_new_session=True,
            )

    def log(self, pod: Pod) -> Path:
        """Where the pod's output goes."""
        return self.folder / pod.name / "log"


async def is_ready(address: str, network: Network) -> bool:
    """One readiness probe: GET /ready answers 200 within the timeout."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_PROBE_TIMEOUT):
            reader, writer = await _connected(network.socket(socket.SOCK_STREAM), (address, READY_PORT))
            try:
                writer.write(f"GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
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


class Pod:
    """One pod. `live` is its whole life; `delete` starts the end of it. `ready` is the pod's Ready condition."""

    def __init__(
        self, name: str, address: str, settings: LabSettings, image: Image, tell: Tell, template: str = ""
    ) -> None:
        self.name = name
        self.template = template
        self.ready_since = 0.0
        self.address = address
        self.settings = settings
        self.ready = False
        self.times_ready = 0
        self.exits = 0
        self._image = image
        self._tell = tell
        self._deletion = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def terminating(self) -> bool:
        """deletionTimestamp is set."""
        return self._deletion.is_set()

    def delete(self) -> None:
        """As `kubectl delete pod --wait=false`."""
        if not self.terminating:
            self._deletion.set()
            self._tell(self, "pod_deleted", f"grace period {self.settings.grace_period:g} s")

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
            self._process = await self._image.start(self)
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
        failures = 0
        due = asyncio.get_running_loop().time()
        while True:
            if await is_ready(self.address, self._image.network):
                failures = 0
                self._set_ready(True)
            else:
                failures += 1
                if failures >= self.settings.readiness_failures:
                    self._set_ready(False)
            period = self.settings.readiness_period
            due += period if self.times_ready else min(period, _FIRST_PROBES)
            await asyncio.sleep(due - asyncio.get_running_loop().time())

    def _set_ready(self, ready: bool) -> None:
        if ready == self.ready:
            return
        self.ready = ready
        self.times_ready += ready
        self.ready_since = time.monotonic()
        lost = f"{self.settings.readiness_failures} readiness probes in a row failed"
        self._tell(self, "pod_ready" if ready else "pod_not_ready", self.address if ready else lost)

    async def _terminate(self, running: asyncio.Task[None]) -> None:
        """preStop, SIGTERM, SIGKILL. preStop is paid out of the grace period; at least 2 s are left after SIGTERM."""
        grace, pre_stop = self.settings.grace_period, min(self.settings.pre_stop, self.settings.grace_period)
        if self._process and pre_stop:
            self._tell(self, "pre_stop", f"sleep {pre_stop:g} s")
            await asyncio.wait([running], timeout=pre_stop)
        if self._process:
            left = max(LEAST_GRACE, grace - pre_stop)
            self._tell(self, "sigterm", f"{left:g} s until SIGKILL")
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await asyncio.wait([running], timeout=left)
        if self._process:
            self._tell(self, "sigkill", f"grace period {grace:g} s used up")
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await asyncio.wait([running])
