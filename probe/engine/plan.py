"""Series -> what a worker needs, checked before anything starts: rates, ids, file descriptors, source ports."""

from __future__ import annotations

import math
import resource
from collections.abc import Sequence
from dataclasses import dataclass

from probe.errors import EnvironmentProblem, UsageError
from probe.linux import SUPPORTED, port_range
from probe.model import Question, Series, TargetKind
from probe.transport.ports import address_of
from probe.transport.rows import Channel

SPARE_DESCRIPTORS = 200
"""File descriptors for everything but query sockets."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """tick_ns: how often due rows are sent above 2,000 q/s. receive_buffer: asked of the kernel, bytes a socket.

    seed: makes ids predictable, for tests only. max_series: room for series that are added while the run goes.
    """

    tick_ns: int = 200_000
    receive_buffer: int = 4 << 20
    seed: int | None = None
    max_series: int = 1024


@dataclass(frozen=True, slots=True)
class Orders:
    """What the parent asks of a worker: series to add, series to end (with their new stop_ns), or to stop."""

    add: tuple[Series, ...] = ()
    end: tuple[Series, ...] = ()
    stop: bool = False


class Channels:
    """The channels of a run, numbered as they come; a target that comes back gets new ones."""

    def __init__(self) -> None:
        self._count = 0

    def of(self, series: Sequence[Series]) -> list[tuple[Channel, list[Series]]]:
        """The channels of these series, each with its series; those of one channel must come in one call."""
        groups: dict[tuple[str, str, str], list[Series]] = {}
        for each in series:
            groups.setdefault((each.transport, *each.channel), []).append(each)
        found = []
        for mine in groups.values():
            index, self._count = self._count, self._count + 1
            rate = float(sum(s.rate for s in mine))
            timeout = max(s.timeout_ns for s in mine)
            found.append((Channel(index, mine[0].target, mine[0].ports, rate, timeout), mine))
        return found


class Catalogue:
    """The distinct questions of a run, numbered in the order in which series bring them; parent and worker agree."""

    def __init__(self) -> None:
        self._numbers: dict[Question, int] = {}
        self.questions: list[Question] = []

    def add(self, series: Series) -> list[Question]:
        """The questions that are new with this series."""
        new = [q for q in dict.fromkeys(series.questions) if q not in self._numbers]
        self._numbers.update({q: len(self.questions) + i for i, q in enumerate(new)})
        self.questions += new
        return new

    def numbers(self, series: Series) -> list[int]:
        """The numbers of a series' questions, in its order."""
        return [self._numbers[q] for q in series.questions]


def check_limits(series: Sequence[Series]) -> None:
    """Refuse what ids, ports or the hard limit of file descriptors cannot carry (a worker raises its soft limit).

    UsageError or EnvironmentProblem with the number needed and the way out.
    """
    if not SUPPORTED:
        raise EnvironmentProblem("queries are sent from Linux only: run dnsprobe in a container; reports work anywhere")
    channels = [(channel, mine[0]) for channel, mine in Channels().of(series)]
    sockets = 0
    ports = {"pods": 0, "other targets": 0}
    for channel, first in channels:
        address_of(channel.target)
        need = _sockets(channel, first)
        sockets += need
        ports["pods" if channel.target.kind is TargetKind.POD else "other targets"] += need
    low, high = port_range()
    half = (high - low + 1) // 2
    for side, count in ports.items():
        if count > half:
            raise EnvironmentProblem(
                f"rate x timeout needs up to {count:,} source ports towards {side}, and {half:,} are theirs "
                f"(half of net.ipv4.ip_local_port_range {low}-{high}): lower the rate or the timeout, "
                "or use --ports pool:64"
            )
    needed = sockets + SPARE_DESCRIPTORS
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        why = f"rate x timeout needs up to {sockets:,} sockets, dnsprobe itself about {SPARE_DESCRIPTORS} files more"
        less = ", lower the rate or the timeout, or use --ports pool:64" if sockets > SPARE_DESCRIPTORS else ""
        raise EnvironmentProblem(
            f"{why}, and the hard limit of open files is {hard:,}: "
            f"raise it (ulimit -Hn {needed}, or LimitNOFILE={needed}){less}"
        )


def raise_soft_limit() -> None:
    """Let this process open as many files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _sockets(channel: Channel, series: Series) -> int:
    """How many sockets a channel can need at once. UsageError where its ids cannot carry the rate."""
    seconds = channel.timeout_ns / 1e9
    if channel.ports.policy == "fresh":
        return int(channel.rate * seconds * 1.05) + 16
    most = 65_536 / (2 * seconds)
    if series.transport == "udp" and channel.rate / channel.ports.count > most:
        pool = 1 << math.ceil(math.log2(channel.rate / most))
        count = f"{channel.ports.count} source port" + ("s" if channel.ports.count > 1 else "")
        raise UsageError(
            f"lane {series.lane}: {channel.rate:,.0f} q/s on {count} with a timeout of {seconds:g} s would use query "
            f"ids again too soon: a port carries 65,536 / (2 x timeout) = {most:,.0f} q/s; "
            f"say --ports pool:{max(pool, 2)}, or a shorter timeout"
        )
    return channel.ports.count
