"""Endpoints as they reach a node, and packets -> the pod each goes to: kube-proxy and the kernel, without sockets.

Pure: time is passed in, integer monotonic nanoseconds. Facts: net/netfilter/nf_conntrack_proto_udp.c,
net/netfilter/ipvs/ip_vs_core.c (ip_vs_in_hook).
"""

from __future__ import annotations

import random
from typing import Protocol

from probe.cluster.endpoints import Endpoint, Era, StaleFlows, era_of, usable, version
from probe.cluster.settings import LabSettings
from probe.errors import UsageError
from probe.model import NS

Client = tuple[str, int]
"""Source address and source port."""

TABLE_MAX = 131_072
"""Sessions held at once: kube-proxy's smallest nf_conntrack_max. A new flow beyond it is dropped."""


class Sessions(Protocol):
    """A proxy mode: which pod a packet, or a new TCP connection, goes to."""

    def program(self, endpoints: tuple[Endpoint, ...]) -> None:
        """The proxy's sync: from now on new flows go by these endpoints, and stale sessions are treated."""

    def backends(self) -> tuple[str, ...]:
        """Pods that get new flows; none: the Service refuses."""

    def choose(self) -> str | None:
        """The pod of a new TCP connection."""

    def route(self, client: Client, now: int) -> str | None:
        """The pod of one UDP packet; None: dropped in silence."""

    def replied(self, client: Client, now: int) -> None:
        """A pod's reply to that client went through."""


class _Flow:
    __slots__ = ("expires", "pod", "replied", "stream_from")

    def __init__(self, pod: str, stream_from: int) -> None:
        self.pod = pod
        self.expires = 0
        self.replied = False
        self.stream_from = stream_from


class _Table:
    """Flows by client. One that ran out is replaced when its client is met; all such leave when the table is full."""

    def __init__(self) -> None:
        self.flows: dict[Client, _Flow] = {}
        self._swept = 0

    def alive(self, client: Client, now: int) -> _Flow | None:
        flow = self.flows.get(client)
        return flow if flow is not None and flow.expires > now else None

    def open(self, client: Client, pod: str, now: int) -> _Flow | None:
        """A new flow; None if the table is full of living ones."""
        if len(self.flows) >= TABLE_MAX and client not in self.flows:
            if now - self._swept > NS:
                self._swept = now
                self.flows = {c: f for c, f in self.flows.items() if f.expires > now}
            if len(self.flows) >= TABLE_MAX:
                return None
        flow = self.flows[client] = _Flow(pod, now + 2 * NS)
        return flow


class Conntrack:
    """iptables mode: a random ready pod per new flow; then netfilter's DNAT holds, whatever becomes of the pod.

    Every packet refreshes a flow, replied to or not. Timeouts are nf_conntrack_udp_timeout (30 s) and, once replied to
    and older than 2 s, nf_conntrack_udp_timeout_stream (120 s), or the one that is given for both.
    """

    def __init__(self, era: Era, timeout: int | None = None, seed: int | None = None) -> None:
        self._era, self._stale = era, StaleFlows(era)
        self._timeouts = (timeout or 30 * NS, timeout or 120 * NS)
        self._random = random.Random(seed)
        self._backends: tuple[str, ...] = ()
        self._table = _Table()

    def program(self, endpoints: tuple[Endpoint, ...]) -> None:
        self._backends = usable(endpoints, self._era)
        stale = self._stale.sync(endpoints)
        gone = {e.pod for e in stale.of}
        flows = {} if stale.every else {c: f for c, f in self._table.flows.items() if f.pod not in gone}
        self._table.flows = flows

    def backends(self) -> tuple[str, ...]:
        return self._backends

    def choose(self) -> str | None:
        return self._random.choice(self._backends) if self._backends else None

    def route(self, client: Client, now: int) -> str | None:
        flow = self._table.alive(client, now)
        if flow is None:
            pod = self.choose()
            flow = self._table.open(client, pod, now) if pod else None
            if flow is None:
                return None
        self._refresh(flow, now)
        return flow.pod

    def replied(self, client: Client, now: int) -> None:
        if flow := self._table.alive(client, now):
            flow.replied = True
            self._refresh(flow, now)

    def _refresh(self, flow: _Flow, now: int) -> None:
        flow.expires = now + self._timeouts[flow.replied and now >= flow.stream_from]


class Ipvs:
    """IPVS mode: round robin per new flow; a packet refreshes its session while the session's pod is programmed.

    A removed pod leaves its sessions behind (kube-proxy deletes UDP real servers at once since 1.15). The next packet:
    expire_nodest_conn on, kernel >= 5.9: is given a new pod; before 5.9: is dropped, and the session with it;
    off: is dropped without refreshing, so the source port is dead until its last good packet plus the timeout, or until
    the pod is back. Every loss is silent.
    """

    def __init__(self, era: Era, expire_nodest_conn: bool, reschedule: bool, timeout: int | None = None) -> None:
        self._era = era
        self._expire_nodest_conn = expire_nodest_conn
        self._reschedule = reschedule
        self._timeout = timeout or 300 * NS
        self._backends: tuple[str, ...] = ()
        self._turn = 0
        self._table = _Table()

    def program(self, endpoints: tuple[Endpoint, ...]) -> None:
        self._backends = usable(endpoints, self._era)

    def backends(self) -> tuple[str, ...]:
        return self._backends

    def choose(self) -> str | None:
        if not self._backends:
            return None
        self._turn = (self._turn + 1) % len(self._backends)
        return self._backends[self._turn]

    def route(self, client: Client, now: int) -> str | None:
        flow = self._table.alive(client, now)
        if flow is not None and flow.pod not in self._backends:
            if not self._expire_nodest_conn:
                return None
            del self._table.flows[client]
            if not self._reschedule:
                return None
            flow = None
        if flow is None:
            pod = self.choose()
            flow = self._table.open(client, pod, now) if pod else None
            if flow is None:
                return None
        flow.expires = now + self._timeout
        return flow.pod

    def replied(self, client: Client, now: int) -> None:
        """A reply refreshes as well."""
        flow = self._table.alive(client, now)
        if flow is not None and flow.pod in self._backends:
            flow.expires = now + self._timeout


def sessions_of(settings: LabSettings) -> Sessions:
    """The proxy mode that the settings name; UsageError for an unknown mode or version."""
    era, kernel = era_of(settings.kubernetes), version(settings.kernel, "kernel")
    timeout = None if settings.udp_timeout is None else round(settings.udp_timeout * NS)
    if settings.proxy_mode == "iptables":
        return Conntrack(era, timeout)
    if settings.proxy_mode == "ipvs":
        return Ipvs(era, settings.expire_nodest_conn, kernel >= (5, 9), timeout)
    raise UsageError(f"proxy_mode {settings.proxy_mode!r}: say iptables or ipvs")
