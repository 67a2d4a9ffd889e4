"""The bench's nouns: what a tool is asked to do (Load), what came of it (Figures), and why nothing did (Missing)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NAME = "a.example.test"
BOTH = "dual.example.test"
"""It has an A and an AAAA."""
WILD = "w.example.test"
"""Every name below it has the address of a wildcard, so that no name need be asked twice."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of 127.0.0.1. rate: queries a second, 0 for as fast as replies allow; fresh: a port for each query.

    connections, outstanding: of TCP; 0 for what is best.
    """

    port: int
    seconds: float
    rate: int = 0
    transport: str = "udp"
    fresh: bool = False
    connections: int = 0
    outstanding: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """One run of one tool. Durations in seconds; None where a tool does not say.

    sent: queries; answered: with the answer; lost: sent, but not; unsent: due, but not sent, each by the tool's own
    report. asking: how long it asked; cpu: CPU seconds of all its processes, start-up included; server_cores: the
    server's meanwhile, in cores. own_drops, server_drops: datagrams that did not fit the tool's buffer, the server's;
    or connections that the server had no room for.
    """

    sent: int
    answered: int
    lost: int
    asking: float
    cpu: float
    unsent: int | None = None
    p50: float | None = None
    p99: float | None = None
    due_p50: float | None = None
    due_p99: float | None = None
    lag_p99: float | None = None
    own_drops: int | None = None
    server_cores: float | None = None
    server_drops: int | None = None

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.asking

    @property
    def served_rate(self) -> float:
        """Answers a second, and what the server itself had no room for."""
        return (self.answered + min(self.lost, self.server_drops or 0)) / self.asking

    @property
    def cost(self) -> float:
        """CPU microseconds for each query that was answered; infinite if none was."""
        return self.cpu / self.answered * 1e6 if self.answered else float("inf")

    @property
    def in_time(self) -> float | None:
        """Of the queries that were due, the share that was sent."""
        return None if self.unsent is None else self.sent / max(1, self.sent + self.unsent)


class Missing(Exception):
    """A tool, a server or an option that is not there; the message is the command that brings it, or the reason."""


@dataclass(frozen=True, slots=True)
class Turns:
    """What came of each tool, a Figures for each round; and why nothing came of the others."""

    figures: Mapping[str, list[Figures]]
    missing: Mapping[str, str]

    def of(self, tool: str) -> list[Figures]:
        """A tool's rounds; none if it is missing."""
        return list(self.figures.get(tool, ()))

    @property
    def tools(self) -> list[str]:
        """All that had a turn, or should have had one."""
        return [*self.figures, *self.missing]

    @property
    def notes(self) -> tuple[str, ...]:
        """Why tools are missing."""
        return tuple(f"{tool}: {reason}" for tool, reason in self.missing.items())
