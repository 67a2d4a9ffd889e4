"""Lanes x targets -> series: what is asked of whom, at which rate, from when to when; and what a plan adds up to."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from fractions import Fraction

from probe.book import by_type
from probe.clients.asking import Asking
from probe.cluster.pods import LEAST_GRACE
from probe.cluster.settings import LabSettings
from probe.engine import check_limits
from probe.errors import DnsprobeError, EnvironmentProblem, UsageError
from probe.model import NS, WHOLE, Lane, Series, Shape, Slice, Target, TargetKind
from probe.scenario.load import UNPLANNED
from probe.scenario.steps import Step, awaits, changes_of
from probe.schedule import pacer_of, phase
from probe.verdict import Objective, parse_objective

CLUSTER_TARGETS = ("service", "pods", "nodelocal", "upstream", "nodes", "api")
BESIDE_DNS = {"nodes": TargetKind.NODE, "api": TargetKind.API}
"""Those that know no DNS."""
ALL_SERVERS = "servers"
Whom = Callable[[str], list[Target]]
"""What stands behind a selector."""
ENDLESS_NS = 10 * 365 * 86_400 * NS
"""How long a run is planned to last that goes on until it is told to end."""
DEFAULT_TOTAL = Fraction(50)
"""Queries a second of all lanes that say no rate, shared evenly by their targets."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked scenario, or its like from options. `scenario` is its YAML; `facts` are shown in the report.

    `places`: where each lane stands in its file, `x.yaml:12: lanes[0]`. `share`: what of it this machine asks.
    """

    name: str
    duration_ns: int
    lanes: tuple[Lane, ...]
    scenario: str = ""
    servers: tuple[Target, ...] = ()
    lab: LabSettings = field(default_factory=LabSettings)
    steps: tuple[Step, ...] = ()
    objectives: tuple[str, ...] = ()
    abort_on: tuple[str, ...] = ()
    clients: Asking | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    share: Slice = WHOLE
    places: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def cluster_needs(self) -> list[str]:
        """What of this plan needs a cluster: lanes' targets and steps, as texts; empty if nothing does."""
        named = {server.name for server in self.servers}
        asked = [lane for lane in self.lanes if lane.target in CLUSTER_TARGETS and lane.target not in named]
        lanes = [f"lane {lane.name} (target: {lane.target})" for lane in asked]
        awaited = [f"step {step}" for step in self.steps if step.word == "wait_for"]
        return lanes + awaited + [f"step {change}" for change in changes_of(self.steps)]

    @property
    def most(self) -> str:
        """`at most ` where steps may end the run before its duration is over; or ''."""
        return "at most " if awaits(self.steps) else ""

    @property
    def notes(self) -> list[str]:
        """What is allowed but hardly meant."""
        lab = self.lab
        cut = lab.lameduck > max(LEAST_GRACE, lab.grace_period - lab.pre_stop)
        if not cut or not self.cluster_needs:
            return []
        told, grace = f"{lab.lameduck:g} s + {lab.pre_stop:g} s", f"{lab.grace_period:g} s"
        return [f"SIGKILL cuts the lameduck: {told} of preStop > {grace} of grace (lab.grace_period)"]

    @property
    def unplanned(self) -> str:
        """That some lanes are bound by nothing but replies; '' if none is."""
        return UNPLANNED if any(lane.shape.unbounded for lane in self.lanes) else ""

    @property
    def longest_timeout_ns(self) -> int:
        """The longest a query sent last can stay open."""
        return max(lane.timeout_ns for lane in self.lanes)

    def targets(self, selector: str, cluster: Whom) -> list[Target]:
        """Whom a lane asks: the servers of the plan, or what `cluster` says stands behind the selector."""
        named = [server for server in self.servers if selector in (ALL_SERVERS, server.name)]
        return named or (cluster(selector) if selector in CLUSTER_TARGETS else [])

    def lookups(self, cluster: Whom) -> Fraction:
        """Queries a second that its clients, of all shards, can come to; none where loopback is whom they ask."""
        if not self.clients:
            return Fraction(0)
        asked = self.targets(self.clients.target, cluster)[:1]
        away = [one for one in asked if not ipaddress.ip_address(one.address).is_loopback]
        return len(away) * self.clients.most_rate * self.share.of


def series_of(lane: Lane, target: Target, index: int, start_ns: int, stop_ns: int) -> list[Series]:
    """One series per question type, counted from `index`, each with its share of the lane's rate and its own phase."""
    made = []
    target = replace(target, port=lane.port or target.port)
    whole = sum(lane.weights) or len(lane.questions)
    types = by_type(lane.questions)
    for k, qtype in enumerate(sorted(types) if lane.pair else types, index):
        questions = types[qtype]
        weights = tuple(w for q, w in zip(lane.questions, lane.weights, strict=False) if q.qtype == qtype)
        part = Fraction(sum(weights) or len(questions), whole)
        rate = max((lane.rate * part).limit_denominator(1000), Fraction(1, 1000))
        beat = index if lane.pair else k  # of a pair, A and AAAA are due together
        shape = _part(lane.shape, part, beat)
        if shape.pause_ns:
            rate = Fraction(shape.window * NS, shape.pause_ns)
        made.append(
            Series(
                index=k,
                lane=lane.name,
                target=target,
                transport=lane.transport,
                ports=lane.ports,
                qtype=qtype,
                questions=questions,
                rate=rate,
                offset_ns=int(phase(beat) * NS / rate),
                start_ns=start_ns,
                stop_ns=stop_ns,
                timeout_ns=lane.timeout_ns,
                weights=weights,
                shape=shape,
                pair=lane.pair,
                gso=lane.gso,
            )
        )
    return made


def _part(shape: Shape, part: Fraction, beat: int) -> Shape:
    """A lane's shape as one type has it: its own draws, its part of the window."""
    if shape.arrivals == "poisson":
        return replace(shape, seed=shape.seed + beat)
    return shape if shape.scheduled else replace(shape, window=max(1, int(shape.window * part)))


def rated(plan: Plan, cluster: Whom) -> Plan:
    """The plan with a rate for each lane that says none: what DEFAULT_TOTAL leaves for each of their targets now."""
    silent = [lane for lane in plan.lanes if not lane.rate]
    asked = sum(len(plan.targets(lane.target, cluster)) for lane in silent)
    rate = max((DEFAULT_TOTAL / max(1, asked)).limit_denominator(1000), Fraction(1, 1000))
    return replace(plan, lanes=tuple(replace(lane, rate=lane.rate or rate) for lane in plan.lanes))


def first_series(plan: Plan, cluster: Whom) -> list[Series]:
    """The series a run begins with: a lane that has nobody to ask has none (DNS that others run shows no pods).

    EnvironmentProblem if that is so of all of them.
    """
    series: list[Series] = []
    for lane in rated(plan, cluster).lanes:
        for target in plan.targets(lane.target, cluster):
            series += series_of(lane, target, len(series), 0, plan.duration_ns)
    if not series:
        raise EnvironmentProblem("; ".join(nobody(lane) for lane in plan.lanes))
    return [replace(s, share=plan.share) for s in series]


def nobody(lane: Lane) -> str:
    """Said of a lane without series."""
    return f"lane {lane.name}: nothing stands behind target {lane.target} at the start"


def expected_series(plan: Plan) -> list[Series]:
    """first_series() as the lab would make it, without starting anything."""
    return first_series(plan, expected_targets(plan))


def expected_targets(plan: Plan) -> Whom:
    """What would stand behind a selector in the lab."""

    def stand_for(selector: str) -> list[Target]:
        if selector == "upstream":
            return [Target(selector, TargetKind.UPSTREAM, "127.53.0.99", plan.lab.dns_port)]
        if selector in BESIDE_DNS:
            count = plan.lab.nodes if selector == "nodes" else 1
            return [Target(f"{selector}-{n}", BESIDE_DNS[selector], "127.53.0.1", 10250) for n in range(1, count + 1)]
        if selector == "pods":
            pods = range(1, plan.lab.replicas + 1)
            return [Target(f"pod {n}", TargetKind.POD, f"127.53.0.{n + 100}", plan.lab.dns_port) for n in pods]
        name, kind = {"service": ("kube-dns", TargetKind.SERVICE)}.get(selector, (selector, TargetKind.NODELOCAL))
        nodes = plan.lab.nodes if plan.lab.backend == "netns" else 1
        views = [name] if nodes == 1 else [f"{name}@node-{n + 1}" for n in range(nodes)]
        return [Target(view, kind, "127.53.0.10", plan.lab.dns_port) for view in views]

    return stand_for


def planned(series: Sequence[Series]) -> int:
    """How many queries these series have from start to stop; of a closed loop with a pause, how many at the most."""
    return sum(
        math.ceil(s.own_rate * (s.stop_ns - s.start_ns) / NS)
        if s.shape.pause_ns
        else pacer_of(s).count(s.start_ns, s.stop_ns)
        for s in series
    )


def planned_text(series: Sequence[Series]) -> str:
    """`1,200`, `up to 1,200`, and of what nothing but replies bounds that nothing else does."""
    n = planned(series)
    if any(s.shape.unbounded for s in series):
        return f"{n:,} and, {UNPLANNED}, more" if n else UNPLANNED
    return f"{n:,}" if all(s.shape.scheduled for s in series) else f"up to {n:,}"


def checked_objective(text: str, lanes: Sequence[str]) -> Objective:
    """What parse_objective() reads; UsageError if it is about no lane of these."""
    objective = parse_objective(text)
    if not any(objective.covers(lane) for lane in lanes):
        begins = objective.lanes[0].rstrip("*")
        nearest = max(lanes, key=lambda lane: SequenceMatcher(None, begins, lane[: len(begins)]).ratio())
        raise UsageError(f"objective {text!r}: matches no lane; nearest: {nearest}; lanes are {', '.join(lanes)}")
    return objective


def check_load(plan: Plan, workers: int = 1) -> None:
    """Refuse what ids, ports or file descriptors cannot carry; for a scenario with the line of the lane that is it."""
    series = expected_series(plan)
    try:
        check_limits(series, workers)
    except DnsprobeError as problem:
        sockets = {lane.name: Fraction(0) for lane in plan.lanes}
        for one in series:
            sockets[one.lane] += one.rate * one.timeout_ns if one.ports.policy == "fresh" else 0
        named = re.match(r"lane (\S+): ", str(problem))
        lane = named[1] if named else max(sockets, key=sockets.__getitem__)
        if lane not in plan.places or not (named or sockets[lane]):
            raise
        raise type(problem)(f"{plan.places[lane]}: {str(problem).replace('--ports ', 'ports: ')}") from None
