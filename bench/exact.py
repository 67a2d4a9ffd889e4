"""A Bench in; how exact the prober is, out: its schedule, its clock, and what it says of an outage."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path

from bench.capture import captured, round_trips
from bench.load import NAME, Figures, Load, Missing, Turns
from bench.rounds import Bench
from bench.servers import silent_from
from bench.speed import chosen
from bench.table import UNSENT, Column, Demand, Section, median, microseconds, number, share, tabled
from bench.tools import TOOLS, dnsperf_run, dnsprobe, dnspyre_run, read_dnsperf, read_dnspyre

RATES = (1_000, 10_000, 100_000)


def pacing(bench: Bench) -> list[Section]:
    """Whether the schedule is kept, with the default tick."""
    columns = (
        Column("sent of planned", attrgetter("in_time"), share),
        Column("lag p99", attrgetter("lag_p99"), microseconds),
        UNSENT,
    )
    found, demands = {}, []
    for rate in RATES:
        turns = bench.turns(chosen("dnsprobe"), bench.knot(rate, bench.seconds if rate == max(RATES) else bench.short))
        found[f"{rate:,} q/s"] = turns.of("dnsprobe")
        in_time, lag = (median(turns.of("dnsprobe"), column.pick) for column in columns[:2])
        demands += [
            Demand(f"{rate:,} q/s: sent of planned", ">=", 0.999, in_time, share),
            Demand(f"{rate:,} q/s: schedule lag p99", "<=", 0.001, lag, microseconds),
        ]
    return [tabled("Pacing, default tick", Turns(found, {}), columns, demands)]


def capture(bench: Bench) -> list[Section]:
    """dnsprobe's round trips beside those of a packet capture of the same traffic."""
    title, load = "RTT beside a packet capture at 1,000 q/s", bench.knot(RATES[0], bench.short)
    pairs: list[tuple[Figures, list[float]]] = []
    file = bench.folder / "lo.pcap"
    for turn in range(bench.rounds):
        bench.say(f"round {turn + 1}: {title}")
        try:
            with captured(load.port, file):
                figures = dnsprobe(load, bench.folder)
        except Missing as reason:
            return [Section(title, ("",), (), notes=(str(reason),))]
        pairs.append((figures, sorted(round_trips(file.read_bytes(), load.port))))
    ours = [[figures.p50 or 0, figures.p99 or 0] for figures, _ in pairs]
    seen = [[trips[len(trips) // 2], trips[len(trips) * 99 // 100]] for _, trips in pairs]
    off = [statistics.median(abs(a[i] - b[i]) for a, b in zip(ours, seen, strict=True)) for i in (0, 1)]
    found = tuple(
        (
            name,
            microseconds(statistics.median(x[i] for x in ours)),
            microseconds(statistics.median(x[i] for x in seen)),
            microseconds(off[i]),
        )
        for i, name in enumerate(("p50", "p99"))
    )
    demand = Demand("RTT p50 off a packet capture at 1,000 q/s", "<=", 50e-6, off[0], microseconds)
    return [Section(title, ("", "dnsprobe", "capture", "off (median of rounds)"), found, (demand,))]


# --- The blackout ---

Client = Callable[[Load, Path], Figures]


def _dnsperf_default(load: Load, folder: Path) -> Figures:
    return read_dnsperf(dnsperf_run(["-Q", str(load.rate)], load.port, load.seconds, folder))


def _dnsperf_wide(load: Load, folder: Path) -> Figures:
    return read_dnsperf(dnsperf_run(["-Q", str(load.rate), "-q", "65000"], load.port, load.seconds, folder))


def _dnspyre_one(load: Load, folder: Path) -> Figures:
    return read_dnspyre(dnspyre_run(1, load, folder))


BLACKOUT: dict[str, Client] = {
    "dnsprobe run -Q 1000 -l 12": TOOLS["dnsprobe"],
    "dnsperf -Q 1000 -l 12": _dnsperf_default,
    "dnsperf -Q 1000 -l 12 -q 65000": _dnsperf_wide,
    "dnspyre --rate-limit 1000 --duration 12s": _dnspyre_one,
}


def blackout(bench: Bench) -> list[Section]:
    """A server that answers, is silent for 3 s and recovers: what each tool says was lost."""
    since, until = 4.0, 7.0
    truth = round((until - since) * RATES[0])
    found: list[tuple[str, ...]] = []
    notes = [
        f"{NAME} A, 1,000 q/s for 12 s; the server is silent from {since:g} s to {until:g} s after the first query."
    ]
    ours = None
    for name, tool in BLACKOUT.items():
        bench.say(f"blackout: {name}")
        with silent_from(since, until) as server:
            try:
                figures = tool(Load(server.port, 12.0, RATES[0]), bench.folder)
            except Missing as reason:
                found.append((name,))
                notes.append(f"{name}: {reason}")
                continue
            met = server.received().by_kind().get("silent", 0)
        if tool is TOOLS["dnsprobe"]:
            ours = figures.lost
        said = f"{figures.lost:,} ({share(figures.lost / max(1, figures.sent))})"
        found.append((name, number(figures.sent), number(met), said, number(truth), share(figures.lost / truth)))
    headings = ("client", "sent", "met silence", "said to be lost", "an open loop loses", "share of it told")
    value = None if ours is None else abs(ours - truth)
    demand = Demand(
        "3 s blackout at 1,000 q/s: queries off the truth (3,000)", "<=", 0.001 * truth, value, "{:,.0f}".format
    )
    return [Section("A blackout of 3 s", headings, tuple(found), (demand,), tuple(notes))]
