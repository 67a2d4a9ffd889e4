"""Profiles, names, a rate -> a process that looks them up beside the run, and its Lookups as they come to their end."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from fractions import Fraction

from probe.errors import EnvironmentProblem
from probe.model import NS, Fate, Lookup, Mark
from probe.resolv import read_resolv_conf

CONF_FACT = "clients' resolv.conf"
_MOST_OCTETS = 1 << 20
_STOP_SECONDS = 3.0
_TRIES = 3
"""Of each query, by the most patient profile, whatever a resolv.conf says."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Which client profiles look up which names, each so often a second, in turn.

    target: whom they ask, as a lane's. search, ndots, options: as in the resolv.conf of a pod.
    """

    profiles: tuple[str, ...]
    names: tuple[str, ...]
    rate: float = 2.0
    target: str = "service"
    search: tuple[str, ...] = ()
    ndots: int = 5
    options: tuple[str, ...] = ()

    def resolv_conf(self, nameservers: tuple[str, ...]) -> str:
        """The file that its clients go by."""
        lines = [f"nameserver {address}" for address in nameservers]
        lines += [f"search {' '.join(self.search)}"] if self.search else []
        return "\n".join([*lines, f"options ndots:{self.ndots} {' '.join(self.options)}", ""])

    @property
    def most_rate(self) -> Fraction:
        """Queries a second that its lookups can come to: A and AAAA of every name that is tried, and all tries."""
        tries = max(_TRIES, read_resolv_conf(self.resolv_conf(())).attempts)
        return len(self.profiles) * Fraction(self.rate) * 2 * (1 + len(self.search)) * tries

    @property
    def told(self) -> str:
        """The run's fact that says what they go by: NAMES: search ...; options ...."""
        return "; ".join([f"# {' '.join(self.names)}", *self.resolv_conf(()).splitlines()])


class Lookups:
    """Start it before lowering this process's priority: its child inherits it. Instants are CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._was_ended = False

    async def start(self, asking: Asking, servers: tuple[tuple[str, int], ...], namespace: str) -> None:
        """servers: at most three, of one port; namespace: the network namespace they are asked from, '' for our own.

        EnvironmentProblem if the process ends at once: it has said why on stderr.
        """
        order = {**asdict(asking), "servers": servers, "namespace": namespace}
        order["conf"] = asking.resolv_conf(tuple(address for address, _ in servers))
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "probe.clients.process", json.dumps(order)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            limit=_MOST_OCTETS,
        )
        assert self._process.stdout  # noqa: S101
        if not await self._process.stdout.readline():  # its first says that it is there
            code = await self._process.wait()
            raise EnvironmentProblem(f"the clients' process did not start: it ended with exit code {code}")

    async def made(self) -> AsyncIterator[Lookup | Mark]:
        """Each that ends; after end(), those that had not.

        A Mark: the process was late, and so were its clients; or it ended by itself.
        """
        process = self._process
        while process and process.stdout and (line := await process.stdout.readline()):
            at_ns, client, name, fate, took_ns, error = json.loads(line)
            if client:
                yield Lookup(at_ns, client, name, Fate(fate), took_ns, error)
            else:
                text = f"lookups were {took_ns / NS:.1f} s late: this machine was busy, not DNS slow"
                yield Mark(at_ns, "clients_late", text, "clients")
        if process and not self._was_ended:
            text = f"the clients' process ended with exit code {await process.wait()}: nothing is looked up any more"
            yield Mark(time.monotonic_ns(), "clients_died", text, "clients")

    def end(self) -> None:
        """Nothing more is looked up."""
        self._was_ended = True
        if self._process and self._process.stdin:
            self._process.stdin.close()

    async def stop(self) -> None:
        """It is gone; idempotent."""
        process, self._process = self._process, None
        if not process:
            return
        if process.stdin:
            process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
