"""Series -> what a worker needs, checked before anything starts: rates, ids, file descriptors, source ports."""

from __future__ import annotations

import math
import resource
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from probe.book import Book
from probe.errors import EnvironmentProblem, UsageError
from probe.linux import SUPPORTED, port_range
from probe.model import CONSTANT, Ports, Question, Series, Slice, Target, TargetKind
from probe.transport.ports import address_of
from probe.transport.rows import Channel

SPARE_DESCRIPTORS = 200
"""File descriptors for everything but query sockets."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """tick_ns: how often due rows are sent above 2,000 q/s. receive_buffer: asked of the kernel, bytes a socket.

    seed: makes ids predictable, for tests only. max_series: room for series that are added while the run goes.
    workers: how many processes share the queries, in each network namespace they are asked from.
    """

    tick_ns: int = 200_000
    receive_buffer: int = 4 << 20
    seed: int | None = None
    max_series: int = 1024
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Orders:
    """What the parent asks of a worker: series to add, series to end (with their new stop_ns), or to stop.

    last_ns: no series goes on from then on, ns since t0, and none will be added; 0 leaves that open.
    """

    add: tuple[Series, ...] = ()
    end: tuple[Series, ...] = ()
    last_ns: int = 0
    stop: bool = False


class Deal:
    """What of each series which worker gets: a share of its rows, ports and window; what is one port, one worker.

    Each worker lives in one network namespace and asks what is asked from there. There are `each` in the first, then as
    many in the next: `workers` in all.
    """

    def __init__(self, each: int, namespaces: Sequence[str] = ("",)) -> None:
        self._each, self._namespaces = each, namespaces
        self.workers = each * len(namespaces)
        self._owners: list[dict[tuple[str, str], int]] = [{} for _ in namespaces]

    def __str__(self) -> str:
        n = len(self._namespaces)
        return f"{self.workers}, {self._each} in each of {n} network namespaces" if n > 1 else str(self.workers)

    def namespace(self, worker: int) -> str:
        """Where a worker lives: a path, or '' for this process's own."""
        return self._namespaces[worker // self._each]

    def _home(self, target: Target) -> int:
        """Which of the namespaces a target is asked from; ValueError if it is none of them."""
        if target.vantage and target.vantage not in self._namespaces:
            raise ValueError(f"{target} is asked from {target.vantage!r}, which is none of {list(self._namespaces)}")
        return self._namespaces.index(target.vantage) if target.vantage else 0

    def part(self, series: Series, worker: int) -> Series:
        """Of another worker's port, or another namespace's target, no row, but the index, so that all count alike.

        A part's rows are rows of the series' own share: those of all workers together are exactly these.
        """
        home, nth = divmod(worker, self._each)
        nothing = replace(series, start_ns=series.stop_ns, rate=Fraction(1, 1000), shape=CONSTANT)
        if self._home(series.target) != home:
            return nothing
        if is_one_port(series.ports):
            owners = self._owners[home]
            owner = owners.setdefault(series.channel, len(owners) % self._each)
            return series if nth == owner else nothing
        share, n, shape = series.share, self._each, series.shape
        return replace(
            series,
            share=Slice(share.index + share.of * nth, share.of * n),
            ports=replace(series.ports, count=-(-series.ports.count // n)),
            shape=shape if shape.pause_ns else replace(shape, window=-(-shape.window // n)),
        )


def has_rows(part: Series) -> bool:
    """Whether any row of a part can be due: a worker has no use for a socket otherwise."""
    return part.start_ns < part.stop_ns and (len(part.slots) > 0 or not part.shape.window)


def is_one_port(ports: Ports) -> bool:
    """All rows leave by one source port or connection, by what is meant: `fixed`, `reused`, `pool:1`."""
    return ports.policy != "fresh" and ports.count == 1


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
            rate = float(sum(s.own_rate for s in mine))
            timeout = max(s.timeout_ns for s in mine)
            first = mine[0]
            window, paused = sum(len(s.slots) for s in mine), first.shape.pause_ns > 0
            channel = Channel(index, first.target, first.ports, rate, timeout, first.pair, first.gso, window, paused)
            found.append((channel, mine))
        return found


class Catalogue:
    """The distinct questions of a run, numbered in the order in which series bring them; parent and worker agree.

    A book is numbered as one stretch, whatever else asks for the same names.
    """

    def __init__(self) -> None:
        self._numbers: dict[Question | int, int] = {}
        self._firsts: list[int] = []
        self._parts: list[Sequence[Question]] = []
        self._count = 0

    def add(self, series: Series) -> Sequence[Question]:
        """The questions that are new with this series: a book, or some objects."""
        asked = series.questions
        if isinstance(asked, Book):
            new: Sequence[Question] = () if asked.fd in self._numbers else asked
            self._numbers.setdefault(asked.fd, self._count)
        else:
            new = [q for q in dict.fromkeys(asked) if q not in self._numbers]
            self._numbers.update({q: self._count + i for i, q in enumerate(new)})
        if new:
            self._firsts.append(self._count)
            self._parts.append(new)
            self._count += len(new)
        return new

    def first(self, book: Book) -> int:
        """The number of a book's first question; the others follow."""
        return self._numbers[book.fd]

    def numbers(self, series: Series) -> Sequence[int]:
        """The numbers of a series' questions, in its order."""
        asked = series.questions
        if isinstance(asked, Book):
            return range(self.first(asked), self.first(asked) + len(asked))
        return [self._numbers[q] for q in asked]

    def question(self, number: int) -> Question:
        """The question with this number."""
        k = bisect_right(self._firsts, number) - 1
        return self._parts[k][number - self._firsts[k]]


def check_limits(series: Sequence[Series], workers: int = 1, namespaces: Sequence[str] = ("",)) -> None:
    """Refuse what ids, ports or the hard limit of file descriptors cannot carry (a worker raises its soft limit).

    workers: in each of the network namespaces, each of which has source ports of its own. UsageError or
    EnvironmentProblem with the number needed and the way out.
    """
    if not SUPPORTED:
        raise EnvironmentProblem("queries are sent from Linux only: run dnsprobe in a container; reports work anywhere")
    for channel, mine in Channels().of(series):
        address_of(channel.target)
        _check_ids(channel, mine[0])
    deal = Deal(workers, namespaces)
    sockets: list[int] = []
    ports: dict[tuple[str, str], list[int]] = {}
    for worker in range(deal.workers):
        parts = [part for s in series if has_rows(part := deal.part(s, worker))]
        needs = [(c.target.kind, _sockets(c)) for c, _ in Channels().of(parts)]
        sockets.append(sum(need for _, need in needs))
        for kind, need in needs:
            side = deal.namespace(worker), "pods" if kind is TargetKind.POD else "other targets"
            ports.setdefault(side, []).append(need)
    low, high = port_range()
    half = (high - low + 1) // 2
    for (_, whom), needed in ports.items():
        if sum(needed) > half:
            pool = min(64, half // len(needed))
            raise EnvironmentProblem(
                f"rate x timeout needs up to {sum(needed):,} source ports towards {whom}, and {half:,} are theirs "
                f"(half of net.ipv4.ip_local_port_range {low}-{high}): lower the rate or the timeout, "
                f"or {f'use --ports pool:{pool}' if pool else 'ask fewer targets'}"
            )
    _check_descriptors(max(sockets), deal.workers)


def _check_descriptors(sockets: int, workers: int) -> None:
    """sockets: of the worker that needs most; each process has a limit of its own."""
    needed = sockets + SPARE_DESCRIPTORS
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        each = f" in each of {workers} workers" if workers > 1 else ""
        why = f"rate x timeout needs up to {sockets:,} sockets{each}, dnsprobe itself about {SPARE_DESCRIPTORS} files"
        less = ", lower the rate or the timeout, or use --ports pool:64" if sockets > SPARE_DESCRIPTORS else ""
        raise EnvironmentProblem(
            f"{why} more, and the hard limit of open files is {hard:,}: "
            f"raise it (ulimit -Hn {needed}, or LimitNOFILE={needed}){less}"
        )


def raise_soft_limit() -> None:
    """Let this process open as many files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _sockets(channel: Channel) -> int:
    """How many sockets a channel can need at once."""
    if channel.ports.policy == "fresh":
        return channel.most_at_once + 16
    return channel.ports.count


def _check_ids(channel: Channel, series: Series) -> None:
    """UsageError where its query ids cannot carry the rate."""
    seconds = channel.timeout_ns / 1e9
    most = 65_536 / (2 * seconds)
    if channel.ports.policy != "fresh" and series.transport == "udp" and channel.rate / channel.ports.count > most:
        pool = 1 << math.ceil(math.log2(channel.rate / most))
        count = f"{channel.ports.count} source port" + ("s" if channel.ports.count > 1 else "")
        raise UsageError(
            f"lane {series.lane}: {channel.rate:,.0f} q/s on {count} with a timeout of {seconds:g} s would use query "
            f"ids again too soon: a port carries 65,536 / (2 x timeout) = {most:,.0f} q/s; "
            f"say --ports pool:{max(pool, 2)}, or a shorter timeout"
        )
