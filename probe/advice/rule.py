"""Propagation, a Shutdown -> how long clients lose queries when a pod goes, and the lameduck that spares them.

Time counts from T0, the pod's deletion, in seconds; propagation is from a change of the pod until the last node knows.

    T0                   the pod is terminating: at T0 + propagation nodes give it no new flow
    T0 + preStop         SIGTERM: /ready is refused from now on, lameduck begins
    .. + unready_after   the readiness probe has failed: nodes know at .. + propagation
    T0 + serves_for()    the pod answers no more: lameduck is over, or the grace period

Facts: probe.cluster.endpoints says when kube-proxy deletes UDP flows; probe.cluster.sessions what IPVS does with them.
"""

from __future__ import annotations

import math
from enum import StrEnum

from probe.cluster import Shutdown
from probe.cluster.endpoints import Cleanup, era_of
from probe.cluster.pods import LEAST_GRACE

DNS_STOP = 5.0
"""The longest CoreDNS waits for queries in flight once lameduck is over (core/dnsserver, graceTimeout)."""
GRACE_MARGIN = 1.0
"""What a grace period is longer than what it must hold: SIGKILL is not to race with the last of it."""

_FINENESS = 10
"""Lameducks are given in tenths of a second."""


class Clients(StrEnum):
    """What tells clients apart: whether they come from a new source port each time."""

    FRESH = "fresh"
    """Go, glibc, dig: a new port for each query."""
    FIXED = "fixed"
    """Envoy, c-ares, nginx, HAProxy: one port for as long as they live."""


def margin_of(propagation: float, unheard: float = 0.0) -> float:
    """What a lameduck is longer than what was measured: half a second, or a tenth of it if that is more.

    Half a second is half of what kube-proxy lets pass between two syncs (minSyncPeriod), the tenth is for what varies
    with the load. unheard: for how long a query may have gone unseen, if that is more than either.
    """
    return max(0.5, propagation / 10, unheard)


def serves_for(shutdown: Shutdown, lameduck: float) -> float:
    """How long a deleted pod answers. The preStop hook is paid out of the grace period (kubelet, killContainer)."""
    pre_stop = min(shutdown.pre_stop, shutdown.grace_period)
    return pre_stop + min(lameduck, max(LEAST_GRACE, shutdown.grace_period - pre_stop))


def keeps_flows(shutdown: Shutdown) -> bool:
    """Whether a source port in use stays with a pod until it does not serve, and not only until it terminates."""
    return shutdown.proxy_mode != "ipvs" and era_of(shutdown.kubernetes).cleanup is not Cleanup.NOT_READY


def lost_for(clients: Clients, propagation: float, shutdown: Shutdown, lameduck: float) -> float:
    """How long such clients ask a pod that answers no more: those of one replica's share, each time a pod goes."""
    ends = serves_for(shutdown, lameduck)
    forgotten = propagation
    if clients is Clients.FIXED and keeps_flows(shutdown):
        forgotten += min(shutdown.pre_stop + shutdown.unready_after, ends)
    return max(0.0, forgotten - ends)


def least_lameduck(clients: Clients, propagation: float, shutdown: Shutdown) -> float:
    """The smallest lameduck at which lost_for() is 0, if the grace period allows it; inf if none is enough."""
    if clients is Clients.FIXED and keeps_flows(shutdown):
        return shutdown.unready_after + propagation
    return max(0.0, propagation - shutdown.pre_stop)


def safe_lameduck(clients: Clients, propagation: float, shutdown: Shutdown, margin: float) -> float:
    """least_lameduck() with the margin, rounded up to a tenth of a second."""
    least = least_lameduck(clients, propagation + margin, shutdown)
    return least if math.isinf(least) else math.ceil(round(least * _FINENESS, 6)) / _FINENESS


def grace_for(shutdown: Shutdown, lameduck: float) -> int:
    """The least terminationGracePeriodSeconds: preStop + lameduck + DNS_STOP + GRACE_MARGIN."""
    return math.ceil(round(shutdown.pre_stop + lameduck + DNS_STOP + GRACE_MARGIN, 6))


def most_lameduck(shutdown: Shutdown) -> float:
    """The longest lameduck that a grace period which cannot be changed has room for; inf if it can be."""
    if not shutdown.grace_fixed:
        return math.inf
    return max(0.0, shutdown.grace_period - shutdown.pre_stop - DNS_STOP - GRACE_MARGIN)
