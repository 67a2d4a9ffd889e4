"""A Service's endpoints as a sync of kube-proxy sees them -> who gets new flows, and whose UDP flows it deletes.

Facts: kubernetes pkg/proxy/topology.go (CategorizeEndpoints), endpoints.go and endpointschangetracker.go
(detectStaleConnections, later detectStaleConntrackEntries), conntrack/cleanup.go (CleanStaleEntries), and the pull
requests that are named below.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from probe.errors import UsageError


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One pod of an EndpointSlice. serving is the pod's Ready; ready is serving and not terminating."""

    pod: str
    address: str
    serving: bool
    terminating: bool

    @property
    def ready(self) -> bool:
        return self.serving and not self.terminating


def shown(endpoints: tuple[Endpoint, ...]) -> str:
    """`ready: a, b; terminating, serving: c; not serving: d`."""
    groups = {
        "ready": [e.pod for e in endpoints if e.ready],
        "terminating, serving": [e.pod for e in endpoints if e.serving and e.terminating],
        "not serving": [e.pod for e in endpoints if not e.serving],
    }
    return "; ".join(f"{what}: {', '.join(pods) or 'none'}" for what, pods in groups.items() if pods or what == "ready")


def ready_in(text: str) -> list[str]:
    """Whom shown() called ready."""
    ready = text.partition(";")[0].removeprefix("ready: ")
    return [] if ready == "none" else ready.split(", ")


class Cleanup(Enum):
    """When a sync deletes the UDP flows of an endpoint."""

    NOT_READY = auto()
    """Up to 1.28: as it was ready and is not any more: a pod that terminates, though it serves (#106163). From 1.26 on
    a fixed port may get a new flow to it at once, by the fallback; nothing deletes that one (#119249)."""
    NOT_SERVING = auto()
    """1.29 to 1.31, as of their last patches: as it served and does not any more. The first patches waited for it to
    leave the slice while it served, which a pod that ends does not do: its flows stayed (#119394, #127780)."""
    RECONCILE = auto()
    """From 1.32 on: whatever points to an endpoint that does not serve, unless the Service has none that serves
    (#127318)."""
    RECONCILE_IDLE = auto()
    """From 1.37 on: in a Service without any, too (#139629)."""


@dataclass(frozen=True, slots=True)
class Era:
    """What a version of kube-proxy does. fallback: pods that serve and terminate get new flows where none is ready."""

    fallback: bool
    cleanup: Cleanup


_CLEANUPS = (
    ((1, 37), Cleanup.RECONCILE_IDLE),
    ((1, 32), Cleanup.RECONCILE),
    ((1, 29), Cleanup.NOT_SERVING),
    ((0, 0), Cleanup.NOT_READY),
)


def era_of(kubernetes: str) -> Era:
    """The era of a version such as 1.33; UsageError if it is none."""
    number = version(kubernetes, "kubernetes")
    return Era(number >= (1, 26), next(cleanup for first, cleanup in _CLEANUPS if number >= first))


def version(text: str, what: str) -> tuple[int, int]:
    """`1.33`, `v1.33.2` -> (1, 33); UsageError for anything else."""
    if match := re.match(r"v?(\d+)\.(\d+)", text):
        return int(match[1]), int(match[2])
    raise UsageError(f"{what} {text!r}: say a version such as {'1.33' if what == 'kubernetes' else '6.1'}")


def usable(endpoints: tuple[Endpoint, ...], era: Era) -> tuple[str, ...]:
    """Pods that get new flows: the ready ones; if none, and with the fallback, the serving ones that terminate."""
    ready = tuple(e.pod for e in endpoints if e.ready)
    return ready or (tuple(e.pod for e in endpoints if e.serving) if era.fallback else ())


@dataclass(frozen=True, slots=True)
class Stale:
    """Flows to the Service that a sync deletes: those of these endpoints, or every one."""

    of: tuple[Endpoint, ...] = ()
    every: bool = False


class StaleFlows:
    """What kube-proxy remembers from sync to sync, to find UDP flows that lead nowhere."""

    def __init__(self, era: Era) -> None:
        self._cleanup = era.cleanup
        self._before: tuple[Endpoint, ...] = ()
        self._seen: dict[str, Endpoint] = {}

    def sync(self, endpoints: tuple[Endpoint, ...]) -> Stale:
        """The endpoints are these now. By event, all flows go as well when a first endpoint gets ready."""
        before, self._before = self._before, endpoints
        self._seen |= {e.address: e for e in endpoints}
        serving = {e.address for e in endpoints if e.serving}
        if self._cleanup in (Cleanup.RECONCILE, Cleanup.RECONCILE_IDLE):
            if not serving and self._cleanup is Cleanup.RECONCILE:
                return Stale()
            stale = Stale(tuple(e for a, e in self._seen.items() if a not in serving))
            self._seen = {e.address: e for e in endpoints}  # what is gone gets no flow any more: once is enough
            return stale
        ready = {e.address for e in endpoints if e.ready}
        if self._cleanup is Cleanup.NOT_READY:
            of = tuple(e for e in before if e.ready and e.address not in ready)
        else:
            of = tuple(e for e in before if e.serving and e.address not in serving)
        return Stale(of, every=bool(ready) and not any(e.ready for e in before))
