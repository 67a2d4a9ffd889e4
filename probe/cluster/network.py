"""What a lab's pods and their Service are connected by: the Network protocol, and the addresses a node hands out."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Protocol

from probe.cluster.endpoints import Endpoint

LOCAL = "169.254.20.10"
"""Where NodeLocal DNSCache listens on every node."""


class Network(Protocol):
    """Nodes, their pods' networks, their kube-proxies. Calls return when it is done; EnvironmentProblem if it cannot.

    What takes its time is awaited: other nodes and pods go on meanwhile. For one node one such call at a time.

    service: the Service's address. family: of all addresses. nodes: their names; they are counted from 0 below.
    probers: the network namespaces queries are asked from, '' for this machine's own, one for each node that has a
    kube-proxy: all, or the first alone.
    """

    service: str
    family: socket.AddressFamily
    nodes: tuple[str, ...]
    probers: tuple[str, ...]

    def pod_address(self, node: int, taken: set[str]) -> str:
        """The next address of a node in turn: one that has just been left is not used again soon."""

    def node_address(self, node: int) -> str:
        """Where a node itself can be reached from all probers."""

    def attach(self, pod: str, address: str, node: int) -> None:
        """A pod's network comes."""

    def detach(self, pod: str) -> None:
        """It goes: nothing answers there any more."""

    async def program(self, node: int, endpoints: tuple[Endpoint, ...]) -> None:
        """kube-proxy's sync: new flows go by these endpoints from now on, stale ones are treated as its era does."""

    def cut(self, node: int) -> None:
        """A node's links to the others are gone."""

    def words(self, pod: str, words: Sequence[str]) -> list[str]:
        """The command that runs these words in a pod's network."""

    def open_local(self, node: int) -> None:
        """The address of NodeLocal DNSCache comes to a node, untracked; EnvironmentProblem where that cannot be."""

    def close_local(self, node: int) -> None:
        """It goes."""

    def node_words(self, node: int, words: Sequence[str]) -> list[str]:
        """The command that runs these words in a node's network."""

    def socket(self, kind: socket.SocketKind, node: int = 0, *, prober: bool = False) -> socket.socket:
        """A non-blocking socket of a node, from which its kubelet probes; or of its prober."""

    async def flows(self, node: int, address: str) -> list[str]:
        """Established UDP flows to the Service that a node keeps leading to that address, as `conntrack -L` shows them.

        None where flows cannot be listed.
        """

    def drops(self) -> int:
        """Datagrams that the network lost itself so far."""

    def facts(self) -> dict[str, str]:
        """What a report should say of it."""


class Addresses:
    """235 addresses of a node, in turn; `form` has a place for the last part: `10.244.0.{}`."""

    _FIRST, _COUNT = 20, 235

    def __init__(self, form: str) -> None:
        self._form = form
        self._next = 0

    def next(self, taken: set[str]) -> str:
        """The next one that is not taken."""
        while True:
            address = str(ipaddress.ip_address(self._form.format(self._FIRST + self._next)))
            self._next = (self._next + 1) % self._COUNT
            if address not in taken:
                return address
