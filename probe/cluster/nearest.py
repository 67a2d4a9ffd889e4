"""A node's name, and pods as they come and go -> the few of them that a prober on that node asks, as Happened tells it.

Rendezvous hashing (Thaler and Ravishankar, 1998): every node ranks all pods by a hash of both names and takes the first
ones, so that nodes need no agreement, pods are asked from about as many nodes each, and one that comes or goes moves
only those that ask it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from probe.cluster import Happened
from probe.model import Target

SOURCE = "dnsprobe"


def nearest(node: str, pods: Iterable[Target], n: int) -> list[Target]:
    """The n of them that this node asks."""
    return sorted(pods, key=lambda pod: hashlib.sha256(f"{node}\0{pod.name}".encode()).digest())[:n]


@dataclass(slots=True)
class Nearest:
    """Which pods are asked from `node`: at most `most` of those that count. Kinds of Happened: asked, not_asked."""

    node: str
    most: int
    _live: dict[str, Target] = field(default_factory=dict)
    _asked: dict[str, Target] = field(default_factory=dict)

    def begin(self, pods: Iterable[Target]) -> None:
        """These count already."""
        self._live = {pod.name: pod for pod in pods}
        self._asked = {pod.name: pod for pod in nearest(self.node, self._live.values(), self.most)}

    def of(self, pods: Iterable[Target]) -> list[Target]:
        """Those of them that are asked now."""
        return [pod for pod in pods if pod.name in self._asked]

    def seen(self, happened: Happened) -> Iterator[Happened]:
        """It, its pod coming up or down only if it is asked; then what that changes for others."""
        up, down = happened.up, happened.down
        if up:
            self._live[up.name] = up
        if down:
            self._live.pop(down.name, None)
        before = self._asked
        self._asked = now = {pod.name: pod for pod in nearest(self.node, self._live.values(), self.most)}
        yield replace(
            happened,
            up=up if up and up.name in now else None,
            down=down if down and down.name in before else None,
        )
        for name, pod in before.items():
            if name not in now and not (down and down.name == name):
                yield self._told(happened.at, "not_asked", pod, down=pod, gone=pod)
        for name, pod in now.items():
            if name not in before and not (up and up.name == name):
                yield self._told(happened.at, "asked", pod, up=pod)

    def _told(self, at: int, kind: str, pod: Target, **counts: Target) -> Happened:
        text = f"{self.node} asks it {'from now on' if kind == 'asked' else 'no more'}: its nearest {self.most} changed"
        return Happened(at, kind, text, SOURCE, pod.name, **counts)
