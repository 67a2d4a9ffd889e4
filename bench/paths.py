"""A Bench in; many lanes at once, a port for each query, and TCP, out."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from operator import attrgetter
from pathlib import Path

from bench.load import NAME, Figures, Load, Missing
from bench.rounds import Bench
from bench.scenarios import Watched, scenario, watched, watched_scenario
from bench.servers import silent_from
from bench.speed import chosen
from bench.table import COST, LOST, SPEED, UNSENT, Column, Demand, Section, compared, median, number, ratio, tabled
from bench.tools import Setting, Tool, dnsperf, dnsprobe

FRESH_RATE, FRESH_TIMEOUT = 50_000, 0.25
TCP_FRESH_RATE = 10_000


def lanes(bench: Bench) -> list[Section]:
    """5 targets by 3 port policies at 100,000 q/s in all, 50 by 3 at 10,000."""
    few, many = ("fresh", "pool:64", "fixed"), ("fresh", "pool:16", "fixed")
    columns = (COST, LOST, UNSENT)
    title = "Many lanes, UDP, knot, start-up included"
    first = bench.turns({"5 targets x 3": partial(_lanes, 5, few, "300ms")}, bench.knot(100_000))
    took = median(first.of("5 targets x 3"), COST.pick)
    demand = Demand("5 targets x 3 port policies at 100,000 q/s, CPU", "<=", 7, took, "{:.2f} us".format)
    notes = (f"Port policies {', '.join(few)}, and {', '.join(many)}; runs of {bench.seconds:g} s.",)
    second = bench.turns({"50 targets x 3": partial(_lanes, 50, many, "1s")}, bench.knot(10_000))
    unsent = median(second.of("50 targets x 3"), UNSENT.pick)
    none = Demand("50 targets x 3 at 10,000 q/s, unsent", "<=", 0, unsent, "{:,.0f}".format)
    return [
        tabled(f"{title}: 100,000 q/s in all", first, columns, (demand,)),
        tabled(f"{title}: 10,000 q/s in all", second, columns, (none,), notes),
    ]


def _lanes(targets: int, policies: tuple[str, ...], timeout: str, load: Load, folder: Path) -> Figures:
    text = scenario(load.port, targets, policies, load.rate, load.seconds, timeout)
    return watched_scenario(text, load.seconds, folder, look_every=0).figures


def fresh(bench: Bench) -> list[Section]:
    """A port for each query: answered, and against a server that falls silent for 2 s."""
    load = replace(bench.knot(FRESH_RATE), fresh=True)
    udp = _fresh("UDP", bench, load, ("-t", str(FRESH_TIMEOUT)))
    return [udp, _silence(bench)]


def _fresh(what: str, bench: Bench, load: Load, options: tuple[str, ...]) -> Section:
    name = f"dnsprobe --ports fresh {' '.join(options)}"
    turns = bench.turns({name: partial(dnsprobe, options=options)}, load)
    served, took = (median(turns.of(name), pick) for pick in (attrgetter("served_rate"), COST.pick))
    what = f"{what} fresh at {load.rate:,} q/s"
    demands = (
        Demand(f"{what}, answered/s or dropped by server", ">=", 0.999 * load.rate, served, "{:,.0f}".format),
        Demand(f"{what}, CPU: one core", "<=", 1e6 / load.rate, took, "{:.1f} us".format),
    )
    dropped = Column("dropped by server", attrgetter("server_drops"))
    return tabled(f"{what}, start-up included", turns, (SPEED, COST, LOST, dropped, UNSENT), demands)


def _silence(bench: Bench) -> Section:
    since, until, seconds = 2.0, 4.0, 8.0
    title = f"UDP fresh at {FRESH_RATE:,} q/s, a server silent from {since:g} s to {until:g} s"
    bench.say(title)
    with silent_from(since, until) as server:
        asked = ["-s", "127.0.0.1", "-p", str(server.port), "-n", NAME, "-Q", str(FRESH_RATE), "--ports", "fresh"]
        try:
            run = watched([*asked, "-t", str(FRESH_TIMEOUT)], seconds, bench.folder)
        except Missing as reason:
            return Section(title, ("",), (), notes=(str(reason),))
        left = sockets_towards(server.port)
    told = json.loads(run.report)["totals"]
    causes = {cause: n for cause, n in told["unsent_by_cause"].items() if n}
    unexplained = abs(told["planned"] - sum(told["outcomes"].values()))
    unexplained += abs(told["outcomes"]["unsent"] - sum(causes.values()))
    recovery = _recovery(run, until - since)
    before, most, after = (_files(run, *span) for span in ((1, since), (0, seconds), (until + 1, seconds)))
    rows = (
        ("planned", number(told["planned"])),
        *((outcome, number(n)) for outcome, n in told["outcomes"].items() if n),
        *((f"unsent: {cause}", number(n)) for cause, n in causes.items()),
        ("good again after the server, s", number(recovery, 3)),
        ("open files before the silence", number(before)),
        ("open files at most", number(most)),
        ("open files a second after it", number(after)),
        ("sockets left after the run", number(left)),
    )
    demands = (
        Demand("silent server, fresh: rows without an outcome or cause", "<=", 0, unexplained, "{:,.0f}".format),
        Demand("silent server, fresh: recovery, within one timeout", "<=", FRESH_TIMEOUT, recovery, "{:.3f} s".format),
        Demand("silent server, fresh: sockets left behind", "<=", 0, left, "{:,.0f}".format),
    )
    return Section(title, ("", "dnsprobe"), rows, demands)


def _recovery(run: Watched, silence: float) -> float | None:
    """Seconds from the server's first word to good rows again; None if nothing was lost."""
    spans = [
        [datetime.fromisoformat(window[end]).timestamp() for end in ("from", "to")]
        for window in json.loads(run.report)["windows"]
    ]
    return max(to for _, to in spans) - min(since for since, _ in spans) - silence if spans else None


def _files(run: Watched, since: float, until: float) -> int | None:
    return max((sample.files for sample in run.within(since, until)), default=None)


def sockets_towards(port: int) -> int:
    """UDP sockets of this machine that are connected to a port."""
    found = 0
    with suppress(OSError):
        lines = Path("/proc/net/udp").read_text().splitlines()[1:]
        found = sum(int(line.split()[2].rpartition(":")[2], 16) == port for line in lines)
    return found


def tcp(bench: Bench) -> list[Section]:
    """Connections that are used again, at saturation; a connection for each query at 10,000 q/s."""
    reused = replace(bench.knot(seconds=bench.short), transport="tcp")
    ten: dict[str, Tool] = {"dnsperf -c 10 -q 80": partial(dnsperf, setting=Setting(10, 80, 1))}
    sections = []
    for what, theirs, load in (
        ("TCP reused", bench.dnsperf(1, "tcp"), reused),
        ("TCP, 10 connections x 8 outstanding", ten, replace(reused, connections=10, outstanding=80)),
    ):
        (base,) = theirs
        turns = bench.turns(chosen("dnsprobe") | theirs, load)
        columns = (SPEED, compared(SPEED, base, "dnsperf"), COST, compared(COST, base, "dnsperf"), LOST)
        value = ratio(turns.of("dnsprobe"), turns.of(base), SPEED.pick)
        demand = Demand(f"{what}, answered/s to dnsperf -m tcp", ">=", 1.3, value)
        sections.append(tabled(f"{what}, saturation, knot", turns, columns, (demand,)))
    fresh_load = replace(bench.knot(TCP_FRESH_RATE), transport="tcp", fresh=True)
    return [*sections, _fresh("TCP", bench, fresh_load, ("-t", "1"))]
