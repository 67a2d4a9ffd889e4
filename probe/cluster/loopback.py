"""LabSettings -> a lab's network on 127.53.x.0/24 of this machine: no root needed; the Service is in user space."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from probe.cluster.endpoints import Endpoint
from probe.cluster.network import Addresses
from probe.cluster.sessions import sessions_of
from probe.cluster.settings import LabSettings
from probe.cluster.vip import Vip
from probe.cluster.zone import HEALTH_PORT, METRICS_PORT, READY_PORT
from probe.errors import EnvironmentProblem


class Loopback:
    """A free block of addresses, the Service at .10 and pods from .20 on, with a Vip in front of them."""

    family = socket.AF_INET
    probers: tuple[str, ...] = ("",)

    def __init__(self, settings: LabSettings) -> None:
        x, self._claim = find_block(settings.dns_port)
        self.service, self._own = f"127.53.{x}.10", f"127.53.{x}.1"
        self.nodes = tuple(f"node-{i + 1}" for i in range(settings.nodes))
        self._addresses = Addresses(f"127.53.{x}.{{}}")
        self._vip = Vip(self.service, settings.dns_port, sessions_of(settings))

    def pod_address(self, node: int, taken: set[str]) -> str:
        del node
        return self._addresses.next(taken)

    def node_address(self, node: int) -> str:
        del node
        return self._own

    def attach(self, pod: str, address: str, node: int) -> None:
        del node
        self._vip.attach(pod, address)

    def detach(self, pod: str) -> None:
        self._vip.detach(pod)

    async def program(self, node: int, endpoints: tuple[Endpoint, ...]) -> None:
        del node
        self._vip.program(endpoints)

    def cut(self, node: int) -> None:
        """Nothing to do: the processes of a node that is lost stand still, and that is all there is of it."""

    def words(self, pod: str, words: Sequence[str]) -> list[str]:
        del pod
        return list(words)

    def open_local(self, node: int) -> None:
        del node
        raise EnvironmentProblem("NodeLocal DNSCache needs lab.backend: netns")

    def close_local(self, node: int) -> None:
        """There is none."""

    def node_words(self, node: int, words: Sequence[str]) -> list[str]:
        del node
        return list(words)

    def socket(self, kind: socket.SocketKind, node: int = 0, *, prober: bool = False) -> socket.socket:
        del node, prober
        sock = socket.socket(socket.AF_INET, kind)
        sock.setblocking(False)
        return sock

    async def flows(self, node: int, address: str) -> list[str]:
        del node, address
        return []

    def drops(self) -> int:
        return self._vip.drops()

    def facts(self) -> dict[str, str]:
        return {"cluster": "lab (loopback)"}


def _bound(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    """A socket bound there; the OSError's text names the port."""
    sock = socket.socket(socket.AF_INET, kind)
    try:
        sock.bind((address, port))
    except OSError as problem:
        sock.close()
        name = "udp" if kind == socket.SOCK_DGRAM else "tcp"
        raise OSError(problem.errno, f"{name} port {port}: {problem.strerror}") from None
    return sock


def find_block(port: int) -> tuple[int, socket.socket]:
    """The first free 127.53.x.0/24, ours while the socket is open: x, and the socket.

    EnvironmentProblem names the port that somebody holds on every address. A block is a lab's as long as the lab holds
    READY_PORT of .1; the other ports are tried there too, because a program that listens on 0.0.0.0 would be in every
    pod's way.
    """
    for x in range(256):
        address = f"127.53.{x}.1"
        try:
            for kind, number in (
                (socket.SOCK_DGRAM, port),
                (socket.SOCK_STREAM, port),
                (socket.SOCK_STREAM, HEALTH_PORT),
                (socket.SOCK_STREAM, METRICS_PORT),
            ):
                _bound(kind, address, number).close()
            claim = _bound(socket.SOCK_STREAM, address, READY_PORT)
        except PermissionError as problem:
            raise EnvironmentProblem(f"{problem.strerror}: choose lab setting `port` from 1024 on") from None
        except OSError as problem:
            last = problem.strerror
        else:
            return x, claim
    raise EnvironmentProblem(
        f"no address of 127.53.0.0/16 is free for the lab ({last}): `ss -lntup` shows who holds the port; end that "
        "program, or, for the DNS port, choose another (lab setting `port`)"
    )
