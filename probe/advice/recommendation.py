"""Propagation, a Shutdown -> a Recommendation: what clients need, what to set, and what is lost even so."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from probe.advice.rule import (
    Clients,
    grace_for,
    least_lameduck,
    lost_for,
    margin_of,
    most_lameduck,
    safe_lameduck,
    serves_for,
)
from probe.cluster import Shutdown

QUICK = (5.0, 1)
"""Period and failures of a readiness probe that tells soon: the Helm chart's."""
_TO_MEASURE = 15.0
"""A lameduck under which most clusters can be measured: a propagation of up to 10 s is usual."""


@dataclass(frozen=True, slots=True)
class Need:
    """Of one kind of client, in seconds. least, safe: the smallest lameduck, without and with the margin; maybe inf.

    lost_now, lost_then: for how long those who asked the pod lose queries each time a pod goes, as it is set now and
    as it is recommended.
    """

    clients: Clients
    least: float
    safe: float
    lost_now: float
    lost_then: float


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to set. at_least: the propagation is only known to be no shorter, and the lameduck is one to measure under.

    lameduck: seconds; grace: the grace period it needs, whole seconds; most: the longest lameduck a grace period that
    cannot be changed has room for, else inf; settable: the platform lets lameduck be changed; lameduck_now: what a
    grace period that is too short leaves of it.
    """

    propagation: float
    margin: float
    at_least: bool
    shutdown: Shutdown
    needs: tuple[Need, ...]
    lameduck: float
    grace: int
    most: float
    settable: bool

    @property
    def lameduck_now(self) -> float:
        """What a grace period that is too short leaves of the lameduck that is set."""
        return serves_for(self.shutdown, self.shutdown.lameduck) - self.shutdown.pre_stop

    @property
    def raises_grace(self) -> bool:
        """The grace period is too short for it, and can be changed."""
        return self.grace > self.shutdown.grace_period and not self.shutdown.grace_fixed

    @property
    def changes_lameduck(self) -> bool:
        """What is set is not what should be."""
        return self.lameduck != self.shutdown.lameduck

    @property
    def quicker(self) -> float:
        """The lameduck that would be safe for all clients if readiness were probed as QUICK says."""
        period, failures = QUICK
        quick = replace(self.shutdown, readiness="ready", readiness_period=period, readiness_failures=failures)
        return max(safe_lameduck(clients, self.propagation, quick, self.margin) for clients in Clients)


def recommend(
    propagation: float,
    shutdown: Shutdown,
    *,
    at_least: bool = False,
    settable: bool = True,
    unheard: float = 0.0,
    asked_for: float = 0.0,
) -> Recommendation:
    """What is safe for all clients if the grace period has room for it, else the best there is; never less than is set.

    propagation: seconds, the longest of all nodes; unheard: for how long after it a query may have gone unseen.
    asked_for: a lameduck that is wanted in any case, as far as the grace period has room for it.
    """
    lameduck, margin = shutdown.lameduck, margin_of(propagation, unheard)
    if settable:
        lameduck = _to_measure(shutdown) if at_least else _best(propagation, shutdown, margin)
        lameduck = max(lameduck, min(asked_for, most_lameduck(shutdown)))
    grace = grace_for(shutdown, lameduck)
    longer = shutdown.grace_period if shutdown.grace_fixed else max(grace, shutdown.grace_period)
    then = replace(shutdown, grace_period=longer)
    needs = tuple(
        Need(
            clients,
            least_lameduck(clients, propagation, shutdown),
            safe_lameduck(clients, propagation, shutdown, margin),
            lost_for(clients, propagation, shutdown, shutdown.lameduck),
            lost_for(clients, propagation, then, lameduck),
        )
        for clients in Clients
    )
    return Recommendation(
        propagation, margin, at_least, shutdown, needs, lameduck, grace, most_lameduck(shutdown), settable
    )


def _to_measure(shutdown: Shutdown) -> float:
    """A lameduck that may outlast the propagation, since this one does not."""
    return min(most_lameduck(shutdown), max(_TO_MEASURE, 2 * shutdown.lameduck))


def _best(propagation: float, shutdown: Shutdown, margin: float) -> float:
    most, now = most_lameduck(shutdown), shutdown.lameduck
    fresh, fixed = (safe_lameduck(each, propagation, shutdown, margin) for each in (Clients.FRESH, Clients.FIXED))
    best = max(fresh, fixed)
    if math.isinf(best) or best > most:  # not for all: what is safe for fresh ports, and more only where it helps fixed
        best = min(fresh, most)
        lost = [lost_for(Clients.FIXED, propagation, shutdown, lameduck) for lameduck in (best, most)]
        best = most if lost[1] < lost[0] and math.isfinite(most) else best
    fits = grace_for(shutdown, now) <= shutdown.grace_period
    return now if best <= now and fits else best
