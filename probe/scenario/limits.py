"""What a person allows, what a cluster and this machine can take -> a load that may go out, or what it breaks."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from probe.cluster import Extent
from probe.cluster.zone import DOMAIN
from probe.errors import EnvironmentProblem, UsageError
from probe.model import BESIDE, Series, TargetKind
from probe.scenario.load import UNPLANNED
from probe.scenario.quantity import rate_text, whole

CEILING = Fraction(1000)
"""Queries a second in all towards anything but loopback, unless a person raises it."""
MOST_EXTERNAL = Fraction(10)
"""The same of each lane that asks an upstream, or a cluster for names that it has to ask an upstream for."""
MOST_TRACKED = Fraction(5, 100)
"""Of conntrack's table, for new source ports: it is the node's, and what does not fit into it is dropped."""
HELD_S, STREAM_S = 30, 120
"""How long conntrack holds a flow: nf_conntrack_udp_timeout, for one query and one reply; nf_conntrack_udp_timeout_
stream, for more, and nf_conntrack_tcp_timeout_time_wait
(Linux, Documentation/networking/nf_conntrack-sysctl.rst)."""
NONE = Fraction(0)
NODES, EVERY = "DNSPROBE_NODES", "every"
"""Set where each node asks the same, as in a DaemonSet: how many there are, or `every`: those that are Ready."""
_REVERSE = ("in-addr.arpa", "ip6.arpa")
_OF_CLUSTER = (TargetKind.SERVICE, TargetKind.POD, TargetKind.NODELOCAL)


def nodes_of(text: str) -> int:
    """How many nodes ask the same; 0 for `every`, which the cluster knows."""
    if text == EVERY:
        return 0
    try:
        return whole(text, 1, 100_000, f"how many nodes ask the same, or `{EVERY}`,")
    except UsageError as problem:
        raise UsageError(f"{NODES}={problem}") from None


@dataclass(frozen=True, slots=True)
class Limits:
    """None: no limit. total, external: queries a second of all lanes, shards and nodes, and of one lane over them.

    nodes: how many ask the same, 0 for every Ready one. tracked: flows that conntrack's table holds, 0 if not known.
    zones: whose names the cluster knows itself.
    """

    total: Fraction | None = CEILING
    external: Fraction | None = MOST_EXTERNAL
    nodes: int = 1
    tracked: int = 0
    zones: tuple[str, ...] = (DOMAIN, *_REVERSE)

    def within(self, extent: Extent) -> Limits:
        """As a cluster is. EnvironmentProblem if its nodes count and cannot be seen."""
        if not self.nodes and not extent.nodes:
            raise EnvironmentProblem(f"{NODES}={EVERY}: the cluster's nodes cannot be seen: say how many there are")
        return replace(self, nodes=self.nodes or extent.nodes, zones=extent.zones or self.zones)

    def check(self, series: Sequence[Series], lookups: Fraction = NONE) -> None:
        """UsageError with the numbers and the remedy if that is more than is allowed. Loopback is exempt.

        lookups: queries a second that clients beside them can come to, towards other machines (Plan.lookups).
        """
        leaving = [s for s in series if not ipaddress.ip_address(s.target.address).is_loopback]
        check_ceiling(series, self.total, self.nodes, lookups)
        self._check_external(leaving)
        self._check_tracked(leaving)

    def _check_external(self, leaving: Sequence[Series]) -> None:
        rates: dict[str, Fraction] = {}
        for one in leaving:
            if one.transport in BESIDE:
                continue
            if one.target.kind is TargetKind.UPSTREAM or (one.target.kind in _OF_CLUSTER and self._outside(one)):
                rates[one.lane] = rates.get(one.lane, Fraction(0)) + one.rate * self.nodes
        for lane, rate in rates.items():
            if self.external is not None and rate > self.external:
                raise UsageError(
                    f"lane {lane}: {rate_text(rate)} {_over(self.nodes)}for what upstream servers have to answer, which"
                    f" others own; {rate_text(self.external)} a lane is the limit: lower its rate, or raise the limit"
                    f" with --max-external-qps {_ceil(rate)}"
                )

    def _outside(self, one: Series) -> bool:
        """Whether any of its names is in none of the cluster's zones."""
        return not all(any(_is_in(question.name, zone) for zone in self.zones) for question in one.questions)

    def _check_tracked(self, leaving: Iterable[Series]) -> None:
        flows: dict[str, Fraction] = {}
        for one in leaving:
            if one.ports.policy == "fresh":
                flows[one.lane] = flows.get(one.lane, Fraction(0)) + _flows(one)
        most = MOST_TRACKED * self.tracked
        if not self.tracked or sum(flows.values()) <= most:
            return
        lane = max(flows, key=flows.__getitem__)
        held, slower = sum(flows.values()), most / sum(flows.values())
        raise UsageError(
            f"new source ports would hold {int(held):,} flows in this machine's conntrack table, most of them of lane"
            f" {lane}; {int(most):,}, {float(MOST_TRACKED):.0%} of its {self.tracked:,}, is the limit, for a full table"
            f" drops everybody's packets: ask at {float(slower):.0%} of these rates, or from ports pool:64"
        )


def _flows(one: Series) -> Fraction:
    """How many flows its new source ports keep in conntrack's table at a time."""
    if one.transport != "udp":
        return one.own_rate * STREAM_S
    return one.own_rate / 2 * STREAM_S if one.pair else one.own_rate * HELD_S


def _is_in(name: str, zone: str) -> bool:
    name, zone = name.rstrip(".").lower(), zone.rstrip(".").lower()
    return not zone or name == zone or name.endswith(f".{zone}")


def _over(nodes: int) -> str:
    return f"over {nodes:,} nodes " if nodes > 1 else ""


def _ceil(rate: Fraction) -> int:
    return -(-rate.numerator // rate.denominator)


def check_ceiling(series: Sequence[Series], ceiling: Fraction | None, nodes: int = 1, lookups: Fraction = NONE) -> None:
    """UsageError if more than `ceiling` queries a second would leave for other machines; None is no ceiling.

    Of all shards, for a series' rate is that of all; nodes: how many ask the same.
    """
    if ceiling is None:
        return
    leaving = [s for s in series if not ipaddress.ip_address(s.target.address).is_loopback]
    for one in leaving:
        if one.shape.unbounded:
            raise UsageError(
                f"lane {one.lane}: {UNPLANNED}, towards {one.target}: no ceiling protects another machine from that:"
                " say a rate, or allow it with --max-qps max"
            )
    rate = sum((s.rate for s in leaving), lookups) * nodes
    if rate > ceiling:
        theirs = f"(clients' lookups: up to {rate_text(lookups * nodes)}) " if lookups else ""
        raise UsageError(
            f"{rate_text(rate)} in all {_over(nodes)}{theirs}towards other machines; {rate_text(ceiling)} is the"
            f" ceiling that protects them: lower the rate, or raise it with --max-qps {_ceil(rate)}"
        )
