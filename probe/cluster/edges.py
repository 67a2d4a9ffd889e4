"""A pod's TCP ports, tried again and again -> SIGTERM, the end of lameduck, closed listeners, no network: its edges.

CoreDNS closes its ports one by one as it ends (plugin/ready, plugin/health, core/dnsserver; 1.5.0 to 1.15.0), and a
connect to a closed port is refused as long as the pod has a network.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import Enum, auto

from probe.cluster import Happened
from probe.cluster.zone import HEALTH_PORT, READY_PORT
from probe.linux import in_network
from probe.model import NS, Target

SOURCE = "tcp edges"
_PATIENCE = 0.1
"""Seconds after which a connect without a reply is given up: long for a cluster, short of the kernel's first repeat."""
_SILENCE_NS = NS
"""No reply to any attempt for so long: the network is gone."""
_RESET = struct.pack("=ii", 1, 0)
"""struct linger: close() resets, so that nothing stays in TIME_WAIT."""


class Reply(Enum):
    """What became of a connect. UNTRIED: a fault on our side, which says nothing of the pod."""

    OPEN = auto()
    REFUSED = auto()
    SILENT = auto()
    UNTRIED = auto()


_REPLIES = {
    0: Reply.OPEN,
    errno.EISCONN: Reply.OPEN,
    errno.ECONNRESET: Reply.OPEN,  # accepted, and closed before we looked
    errno.ECONNREFUSED: Reply.REFUSED,
    errno.EALREADY: Reply.SILENT,
    errno.ETIMEDOUT: Reply.SILENT,
    errno.EHOSTUNREACH: Reply.SILENT,
    errno.ENETUNREACH: Reply.SILENT,
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One connect, from when to when in CLOCK_MONOTONIC ns."""

    port: int
    from_ns: int
    to_ns: int
    reply: Reply


async def attempt(pod: Target, port: int, vantage: str) -> Attempt:
    """Connect to a pod's port from a network namespace ('' for our own), and leave at once."""
    from_ns = time.monotonic_ns()
    try:
        with in_network(vantage) if vantage else nullcontext():
            sock = socket.socket(socket.AF_INET6 if ":" in pod.address else socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return Attempt(port, from_ns, time.monotonic_ns(), Reply.UNTRIED)
    with sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        code = await _connected(sock, (pod.address, port))
        return Attempt(port, from_ns, time.monotonic_ns(), _REPLIES.get(code, Reply.UNTRIED))


async def _connected(sock: socket.socket, where: tuple[str, int]) -> int:
    """The errno of a connect, 0 if it was accepted, EALREADY if nothing has come when patience is over.

    What has come is asked of the kernel, not of a timer: this process may have been kept from running meanwhile.
    """
    code = sock.connect_ex(where)
    if code == errno.EINPROGRESS:
        code = sock.connect_ex(where)  # a pod on this machine has replied by now
    if code == errno.EALREADY:
        loop, writable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(sock, writable.set)
        try:
            async with asyncio.timeout(_PATIENCE):
                await writable.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_writer(sock)
        code = sock.connect_ex(where)
    return code


def ports_of(pod: Target) -> dict[int, str]:
    """The TCP ports whose closing tells something -> the kind of Happened that tells it, in the order they close."""
    return {READY_PORT: "clock_sigterm", HEALTH_PORT: "clock_lameduck_over", pod.port: "clock_closed"}


@dataclass(slots=True)
class PodEnd:
    """One pod's end as its ports show it. told_ns: its deletion; accepted: the ports that did before.

    An edge lies between the last attempt that connected (or the deletion) and the first that was refused; its instant
    is the middle. A port that has never accepted has none.
    """

    pod: Target
    told_ns: int
    accepted: set[int]
    gone: bool = False
    _closed: set[int] = field(default_factory=set)
    _open_ns: dict[int, int] = field(default_factory=dict)
    _replied_ns: int = 0
    _silent_ns: int = 0

    @property
    def ports(self) -> list[int]:
        """Those to try next: what has not closed yet, or else one that will fall silent."""
        known = [port for port in ports_of(self.pod) if port in self.accepted]
        return [port for port in known if port not in self._closed] or known[-1:]

    def take(self, attempts: Sequence[Attempt]) -> list[Happened]:
        """What these attempts at one moment show."""
        found = []
        for each in attempts:
            if each.reply is Reply.OPEN:
                self.accepted.add(each.port)
                self._open_ns[each.port] = each.from_ns
            elif each.reply is Reply.REFUSED and each.port in self.accepted - self._closed:
                self._closed.add(each.port)
                found.append(self._edge(each))
        replied = [a.from_ns for a in attempts if a.reply in (Reply.OPEN, Reply.REFUSED)]
        silent = [a.from_ns for a in attempts if a.reply is Reply.SILENT and a.port in self.accepted]
        if replied:
            self._replied_ns, self._silent_ns = max(replied), 0
        elif silent:
            self._silent_ns = self._silent_ns or min(silent)
            if max(silent) - self._silent_ns > _SILENCE_NS:
                self.gone = True
                from_ns = self._replied_ns or self.told_ns
                found.append(self._between(from_ns, self._silent_ns, "clock_gone", "nothing replies any more"))
        return found

    def _edge(self, refused: Attempt) -> Happened:
        text = f"port {refused.port} refuses"
        if not (open_ns := self._open_ns.get(refused.port, 0)):
            text = f"{text} at the first attempt after its deletion"
        return self._between(open_ns or self.told_ns, refused.to_ns, ports_of(self.pod)[refused.port], text)

    def _between(self, from_ns: int, to_ns: int, kind: str, text: str) -> Happened:
        half = max(0, to_ns - from_ns) // 2
        return Happened(from_ns + half, kind, f"{text} (+-{half / 1e6:.0f} ms)", SOURCE, self.pod.name)
