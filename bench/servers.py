"""Names in, servers on loopback out, each started when first asked for: knot, CoreDNS, and a scripted one."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.load import Load, Missing
from bench.processes import look
from tests.replies import REPLIES, Rule
from tests.servers import CoreDNS, Knot, RealServer, ScriptedServer

ADDRESSES = tuple(f"127.0.0.{i}" for i in range(1, 51))

_WILDCARD = "*.w      A 192.0.2.9\n"


class _ManyKnot(Knot):
    """Knot with one UDP worker on 50 loopback addresses."""

    @classmethod
    def _configure(cls, folder: Path, addresses: tuple[str, ...], port: int) -> list[str]:
        with (folder / "example.test.zone").open("a") as zone:
            zone.write(_WILDCARD)
        return super()._configure(folder, tuple(dict.fromkeys((*ADDRESSES, *addresses))), port)


class _WildCoreDNS(CoreDNS):
    """CoreDNS with the same zone, from the `file` plugin."""

    @classmethod
    def _configure(cls, folder: Path, addresses: tuple[str, ...], port: int) -> list[str]:
        with (folder / "example.test.zone").open("a") as zone:
            zone.write(_WILDCARD)
        return super()._configure(folder, addresses, port)


class Servers:
    """The servers of one run of the bench; all end with it."""

    _KINDS: dict[str, type[RealServer]] = {"knot": _ManyKnot, "CoreDNS": _WildCoreDNS}  # noqa: RUF012

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: dict[str, RealServer] = {}
        self._stack = ExitStack()

    def port(self, name: str) -> int:
        """The port of `knot` or `CoreDNS` on 127.0.0.1; Missing if it is not installed."""
        if name not in self._started:
            folder = self._folder / name
            folder.mkdir(exist_ok=True)
            try:
                server = self._KINDS[name].start(folder)
            except pytest.skip.Exception as lacking:
                raise Missing(str(lacking)) from None
            self._stack.callback(server.close)
            self._started[name] = server
        return self._started[name].port

    def spent(self, load: Load) -> tuple[float, int]:
        """CPU seconds of the server so far, and the datagrams or connections that did not fit its queues."""
        pids = [server.process.pid for server in self._started.values() if server.port == load.port]
        drops = _overflows() if load.transport == "tcp" else _dropped(load.port)
        return sum(look(pid).cpu for pid in pids), drops

    def close(self) -> None:
        """End all of them."""
        self._stack.close()


def _dropped(port: int) -> int:
    """Datagrams that did not fit the receive buffers of this machine's sockets with a port."""
    lines = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return sum(int(line[-1]) for line in lines if int(line[1].rpartition(":")[2], 16) == port)


def _overflows() -> int:
    """Connections that did not fit the queue of a listening socket of this machine: each waits a second for a retry."""
    lines = [line.split() for line in Path("/proc/net/netstat").read_text().splitlines() if line.startswith("TcpExt:")]
    return int(dict(zip(*lines, strict=True))["ListenOverflows"])


def silent_from(since: float, until: float) -> ScriptedServer:
    """A server that answers, is silent from `since` to `until` seconds after the first query, and answers again."""
    return ScriptedServer([Rule(REPLIES["silent"], since=since, until=until)])
