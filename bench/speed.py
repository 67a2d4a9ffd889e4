"""A Bench in; how fast each tool is, what a query costs it, how long an answer takes by its clock, out."""

from __future__ import annotations

from operator import attrgetter

from bench.load import Load, Missing, Turns
from bench.rounds import Bench
from bench.table import (
    COST,
    LOST,
    SPEED,
    UNSENT,
    Column,
    Demand,
    Section,
    compared,
    median,
    microseconds,
    precise,
    ratio,
    tabled,
    times,
)
from bench.tools import TOOLS, Tool

PROBES = ("dnsprobe", "dnsprobe --gso 16")
CLIENTS = ("dnspyre", "aiodns", "dnspython")
FLOORS = ("floor", "floor, 16 a send")
RATE, SLOW_RATE = 100_000, 10_000


def chosen(*names: str) -> dict[str, Tool]:
    """These tools."""
    return {name: TOOLS[name] for name in names}


def saturation(bench: Bench) -> list[Section]:
    """As fast as replies allow, one target: all tools against knot, and once against CoreDNS."""
    one = bench.dnsperf(1)
    (base,) = one
    tools = chosen(*PROBES) | one | bench.dnsperf(2) | chosen(*CLIENTS, *FLOORS)
    columns = (
        SPEED,
        compared(SPEED, base, "dnsperf -T 1"),
        COST,
        compared(COST, base, "dnsperf -T 1"),
        LOST,
        Column("dropped by server", attrgetter("server_drops")),
        Column("server, cores", attrgetter("server_cores"), precise),
    )
    turns = bench.turns(tools, bench.knot(seconds=bench.short))
    ours, gso, floor = (ratio(turns.of(name), turns.of(base), SPEED.pick) for name in (*PROBES, FLOORS[0]))
    busy = median(turns.of(FLOORS[0]), attrgetter("server_cores"))
    what = "UDP, saturation, answered/s to dnsperf with one thread pair"
    demands = (
        Demand(what, ">=", 1.4, ours),
        Demand(f"{what}, --gso 16", ">=", 1.5, gso),
        Demand(f"{what}: the aim", ">=", 2.0, max((x for x in (ours, gso) if x is not None), default=None)),
    )
    between = (
        f"Between this and 2 x: the floor, which only sends and receives, makes {times(floor)}"
        f" with the same server on the same cores, of which the server takes {precise(busy)}."
    )
    buffer = "A tool that loses what the server's receive buffer dropped has a window wider than that buffer."
    title = "Saturation, UDP, one target"
    knot = tabled(f"{title}: knot with one UDP worker", turns, columns, demands, (between, buffer))
    try:
        load = Load(bench.servers.port("CoreDNS"), bench.short)
    except Missing as lacking:
        return [knot, Section(f"{title}: CoreDNS", ("",), (), notes=(str(lacking),))]
    return [knot, tabled(f"{title}: CoreDNS, one round", bench.turns(tools, load, 1), columns)]


def cpu(bench: Bench) -> list[Section]:
    """What a query costs at 100,000 q/s: CPU of all processes of a tool, start-up included, and start-up apart."""
    one = bench.dnsperf(1)
    (base,) = one
    tools, drawn = chosen(*PROBES) | one | chosen(*FLOORS), chosen("dnsprobe on a terminal")
    load = bench.knot(RATE, 2 * bench.seconds)
    turns = bench.turns(tools, load)
    turns = Turns({**turns.figures, **bench.turns(drawn, load, 1).figures}, turns.missing)
    started = bench.turns(tools | drawn, bench.knot(1, 1.0), 1)
    answered, lag = Column("answered", attrgetter("answered")), Column("lag p99", attrgetter("lag_p99"), microseconds)
    columns = (COST, compared(COST, base, "dnsperf -T 1"), answered, LOST, UNSENT, lag)
    ours, gso = (ratio(turns.of(name), turns.of(base), COST.pick) for name in PROBES)
    what = f"client CPU per answered query at {RATE:,} q/s to dnsperf"
    demands = (Demand(what, "<=", 0.65, ours), Demand(f"{what}, --gso 16", "<=", 0.45, gso))
    title = f"CPU at {RATE:,} q/s, runs of {load.seconds:g} s, start-up included"
    cost = tabled(title, turns, columns, demands, ("dnsprobe on a terminal: one round; the others write to a file.",))
    rows = []
    for name in started.figures:
        start = median(started.of(name), attrgetter("cpu"))
        each = [(f.cpu - (start or 0)) / max(1, f.answered) * 1e6 for f in turns.of(name)]
        rows.append((name, precise(start), precise(sorted(each)[len(each) // 2] if each else None)))
    headings = ("", "start-up, CPU s", "CPU us/query without it")
    return [cost, Section("CPU of start-up: a run of 1 s at 1 q/s", headings, tuple(rows))]


def latency(bench: Bench) -> list[Section]:
    """How long an answer takes at 10,000 q/s, by each tool's clock."""
    columns = (
        Column("RTT p50", attrgetter("p50"), microseconds),
        Column("RTT p99", attrgetter("p99"), microseconds),
        Column("from due p50", attrgetter("due_p50"), microseconds),
        Column("from due p99", attrgetter("due_p99"), microseconds),
        LOST,
    )
    tools = chosen("dnsprobe") | bench.dnsperf(1, each=True)
    note = "dnsperf's report has no percentiles: it prints each latency (-v), which slows it."
    return [
        tabled(
            f"Latency at {SLOW_RATE:,} q/s",
            bench.turns(tools, bench.knot(SLOW_RATE, bench.short)),
            columns,
            notes=(note,),
        )
    ]
