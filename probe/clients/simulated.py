"""A resolver's steps, a network of which the fates are known -> the steps taken in time that nobody spends."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from typing import Protocol, TypeVar

from probe.clients.steps import Event, Send, Steps
from probe.outcome import Outcome

T = TypeVar("T")


class Network(Protocol):
    """What becomes of packets."""

    def events(self, send: Send, at_ns: int) -> Iterable[Event]:
        """What a query that is sent at an instant brings back, and when; nothing for one that is lost."""


def simulate(steps: Steps[T], network: Network, at_ns: int) -> tuple[T, int]:
    """The end of the steps, begun at at_ns, and when it comes (ns)."""
    coming: list[tuple[int, int, Event]] = []
    order = itertools.count()
    try:
        wait = next(steps)
        while True:
            for send in wait.sends:
                for event in network.events(send, at_ns):
                    heapq.heappush(coming, (event.at_ns, next(order), event))
            if coming and coming[0][0] < wait.until_ns:
                event = heapq.heappop(coming)[2]
            else:
                event = Event(wait.until_ns, Outcome.TIMEOUT)
            at_ns = max(at_ns, event.at_ns)
            wait = steps.send(event)
    except StopIteration as end:
        result: T = end.value
        return result, at_ns
