"""Objects of a cluster -> what cluster DNS is made of: its Service, workload, pods, Corefile, nodes, kube-proxy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from probe.audit.things import Thing


class Unread(Exception):
    """Objects of a kind could not be read, and why: a check that needs them says `unknown`."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


@dataclass(frozen=True)
class Snapshot:
    """One pass over the API, or a file. unread: kinds, as `NetworkPolicy`, that could not be read, and why.

    version: the API server's, `v1.34.1`; '' if it is not known. taken: when, ISO 8601.
    """

    things: tuple[Thing, ...]
    unread: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    taken: str = ""

    def all(self, kind: str, namespace: str = "") -> tuple[Thing, ...]:
        """The objects of a kind, by namespace and name. Unread if they could not be read."""
        if kind in self.unread:
            raise Unread(kind, self.unread[kind])
        return tuple(one for one in self._by_kind.get(kind, ()) if namespace in ("", one.namespace))

    def one(self, kind: str, name: str, namespace: str = "kube-system") -> Thing | None:
        """The one of that name; None if there is none."""
        return next((one for one in self.all(kind, namespace) if one.name == name), None)

    @cached_property
    def _by_kind(self) -> dict[str, list[Thing]]:
        found: dict[str, list[Thing]] = {}
        for one in sorted(self.things, key=lambda one: (one.kind, one.namespace, one.name)):
            found.setdefault(one.kind, []).append(one)
        return found
