"""What a lab's pods and their Service are connected by: the Network protocol, and the addresses a node hands out."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Protocol

from probe.cluster.endpoints import Endpoint


class Network(Protocol):
    """One node, its pods' networks and its kube-proxy. Calls return when it is done; EnvironmentProblem if it cannot.

    service: the Service's address. prober: the network namespace queries are asked from, '' for this machine's own.
    """

    service: str
    prober: str

    def pod_address(self, taken: set[str]) -> str:
        """The next address in turn: one that has just been left is not used again soon."""

    def attach(self, pod: str, address: str) -> None:
        """A pod's network comes."""

    def detach(self, pod: str) -> None:
        """It goes: nothing answers there any more."""

    def program(self, endpoints: tuple[Endpoint, ...]) -> None:
        """kube-proxy's sync: new flows go by these endpoints from now on, stale ones are treated as its era does."""

    def words(self, pod: str, words: Sequence[str]) -> list[str]:
        """The command that runs these words in a pod's network."""

    def socket(self, kind: socket.SocketKind, *, prober: bool = False) -> socket.socket:
        """A non-blocking IPv4 socket of the node, from which the kubelet probes; or of the prober."""

    def drops(self) -> int:
        """Datagrams that the network lost itself so far."""

    def facts(self) -> dict[str, str]:
        """What a report should say of it."""


class Addresses:
    """The addresses of one /24 from .20 on, in turn."""

    _FIRST, _COUNT = 20, 235

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._next = 0

    def next(self, taken: set[str]) -> str:
        """The next one that is not taken."""
        while True:
            address = f"{self._prefix}.{self._FIRST + self._next}"
            self._next = (self._next + 1) % self._COUNT
            if address not in taken:
                return address
