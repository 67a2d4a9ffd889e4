"""A Bench in; what the prober holds in memory and on disk, and how its cost grows with rate and targets, out."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.load import NAME, WILD, Missing
from bench.plots import bars, steepest
from bench.processes import Overdue, Sample
from bench.rounds import Bench
from bench.scenarios import Watched, scenario, watched, watched_scenario
from bench.table import NONE, Demand, Section, number

MB = 1_000_000
MILLION = 1_000_000
RATES = (1_000, 3_000, 10_000, 30_000, 100_000)
TARGETS = (1, 2, 5, 10, 20, 50)
STEADY = 1.0
"""Seconds at the start and the end of a run that are no part of a steady cost."""


def memory(bench: Bench) -> list[Section]:
    """All processes at 100,000 q/s with 5 targets over minutes; a million names; the run file of 600 series."""
    return [_minutes(bench), _million(bench), _file(bench)]


def _minutes(bench: Bench) -> Section:
    seconds = 60 * bench.minutes
    minute = min(60.0, seconds / 3)
    bench.say(f"memory: {seconds:g} s at 100,000 q/s, 5 targets")
    text = scenario(bench.servers.port("knot"), 5, ["pool:16"], 100_000, seconds, "2s")
    run = watched_scenario(text, seconds, bench.folder, look_every=1.0)
    early = _middle(run, minute - 5, minute + 5, "pss")
    late = _middle(run, seconds - 12, seconds - 2, "pss")
    most = _most(run.samples) / MB
    change = abs(late / early - 1) if early and late else None
    costs = run.steady_cost(STEADY, minute), run.steady_cost(seconds - minute, seconds - STEADY)
    length = abs(costs[1] / costs[0] - 1) if costs[0] and costs[1] else None
    cells = (
        ("PSS at most, MB", number(most, 1)),
        ("RSS at most, MB", number(max(sample.rss for sample in run.samples) / MB, 1)),
        (f"PSS at {minute:g} s, MB", number(early and early / MB, 1)),
        (f"PSS at {seconds:g} s, MB", number(late and late / MB, 1)),
        (f"CPU us/query, first {minute:g} s", number(costs[0], 2)),
        (f"CPU us/query, last {minute:g} s", number(costs[1], 2)),
        ("lost", number(run.figures.lost)),
        ("unsent", number(run.figures.unsent)),
    )
    what = f"100,000 q/s, 5 targets, {bench.minutes:g} minutes"
    demands = (
        Demand(f"{what}: memory of all processes", "<=", 250, most, "{:,.0f} MB".format),
        Demand(f"{what}: change of memory from minute 1 to the end", "<=", 0.05, change, _percent),
        Demand(f"{what}: change of cost from minute 1 to the last", "<=", 0.1, length, _percent),
    )
    return Section(f"Memory, {what}", ("", "dnsprobe"), cells, demands, ("PSS: shared pages are counted once.",))


def _percent(part: float) -> str:
    return f"{100 * part:.1f} %"


def _middle(run: Watched, since: float, until: float, field: str) -> float | None:
    values = [getattr(sample, field) for sample in run.within(since, until)]
    return statistics.median(values) if values else None


def _million(bench: Bench) -> Section:
    """The same load, with one name and with a file of a million."""
    seconds, port = bench.seconds, bench.servers.port("knot")
    names = bench.folder / "million"
    with names.open("w") as file:
        file.writelines(f"n{i:07}.{WILD} A\n" for i in range(MILLION))
    found: list[tuple[str, ...]] = []
    notes: list[str] = []
    runs: list[Watched] = []
    for what, words in (("one name", ["-n", NAME]), ("a million names", ["-d", str(names)])):
        bench.say(f"memory: {what}")
        asked = ["-s", "127.0.0.1", "-p", str(port), "-Q", "10000", "--ports", "pool:64", *words]
        try:
            run = watched(asked, seconds, bench.folder)
        except (Missing, Overdue) as reason:
            notes.append(f"{what}: {reason}")
            continue
        runs.append(run)
        most = _most(run.samples) / MB
        cost = run.steady_cost(STEADY, seconds - STEADY)
        found.append((what, number(most, 1), number(cost, 2), number(run.figures.lost), number(run.figures.unsent)))
    names.unlink()
    extra = (_most(runs[1].samples) - _most(runs[0].samples)) / MB if len(runs) == 2 else None
    costs = [run.steady_cost(STEADY, seconds - STEADY) for run in runs]
    more = costs[1] / costs[0] - 1 if len(costs) == 2 and costs[0] and costs[1] else None
    demands = (
        Demand("a file of a million names: memory added", "<=", 100, extra, "{:,.0f} MB".format),
        Demand("a file of a million names: cost of a query added", "<=", 0.1, more, _percent),
    )
    headings = ("asked at 10,000 q/s", "PSS at most, MB", "CPU us/query, steady", "lost", "unsent")
    return Section("A data file of a million names", headings, tuple(found), demands, tuple(notes))


def _most(samples: Sequence[Sample]) -> int:
    return max(sample.pss for sample in samples)


def _file(bench: Bench) -> Section:
    """600 series by 50 targets, 6 lanes, 2 types: by how much the run file grows in the time between two lengths."""
    short, long = bench.seconds, 4 * bench.seconds
    rows, hours = [], []
    for total in (1_000, 10_000):
        sizes = []
        for seconds in (short, long):
            bench.say(f"run file: 600 series, {total:,} q/s, {seconds:g} s")
            text = scenario(bench.servers.port("knot"), 50, ["pool:16"] * 6, total, seconds, "1s", ("A", "AAAA"))
            watched_scenario(text, seconds, bench.folder, look_every=0)
            sizes.append(sum(file.stat().st_size for file in bench.folder.glob("run.db*")) / MB)
        hours.append((sizes[1] - sizes[0]) / (long - short) * 3600)
        rows.append((f"{total:,} q/s in all", number(sizes[0], 2), number(sizes[1], 2), number(hours[-1], 1)))
    demand = Demand("run file of 600 series at 1,000 q/s, an hour", "<=", 40, hours[0], "{:,.1f} MB".format)
    headings = ("", f"MB after {short:g} s", f"MB after {long:g} s", "MB an hour")
    return Section("Run file of 600 series", headings, tuple(rows), (demand,))


# --- Cost against rate and targets ---


def cost(bench: Bench) -> list[Section]:
    """CPU of dnsprobe against rate, and against targets; start-up and report left out."""
    port, seconds = bench.servers.port("knot"), max(bench.short, 2 * STEADY + 1)
    by_rate: dict[str, Watched | str] = {}
    for rate in (*map(str, RATES), "max"):
        asked = ["-s", "127.0.0.1", "-p", str(port), "-n", NAME, "-Q", rate, "--ports", "pool:64"]
        by_rate[f"{int(rate):,} q/s" if rate.isdigit() else rate] = _kept(bench, f"{rate} q/s", asked, seconds)
    by_targets: dict[str, Watched | str] = {}
    for targets in TARGETS:
        file = bench.folder / "cost.yaml"
        file.write_text(scenario(port, targets, ["pool:16"], 10_000, seconds, "1s"))
        by_targets[str(targets)] = _kept(bench, f"{targets} targets", [str(file)], seconds)
    return [
        _costs("Cost against rate, one target", "rate", by_rate, seconds, None),
        _costs("Cost against targets, 10,000 q/s in all", "targets", by_targets, seconds, TARGETS),
    ]


def _kept(bench: Bench, what: str, asked: list[str], seconds: float) -> Watched | str:
    bench.say(f"cost: {what}")
    try:
        return watched(asked, seconds, bench.folder)
    except (Missing, Overdue) as reason:
        return str(reason)


def _costs(
    title: str, what: str, runs: dict[str, Watched | str], seconds: float, axis: Sequence[int] | None
) -> Section:
    """A row for each run; its plot; how steep the CPU rises with rate or targets: 1 is linear."""
    found: list[tuple[str, ...]] = []
    notes: list[str] = []
    each: list[tuple[str, float]] = []
    rising: list[tuple[float, float]] = []
    for i, (name, run) in enumerate(runs.items()):
        if isinstance(run, str):
            notes.append(f"{name}: {run}")
            continue
        took = run.steady_cost(STEADY, seconds - STEADY / 2)
        sent = run.figures.sent / run.figures.asking
        cpu = None if took is None else took * sent / 1e6
        found.append(
            (name, number(sent), number(took, 2), NONE if cpu is None else f"{cpu:.3f}", number(run.figures.unsent))
        )
        if took is not None and cpu:
            each.append((name, took))
            rising.append((float(axis[i]) if axis else sent, cpu))
    demand = Demand(f"cost against {what}: steepest rise (1 is linear)", "<=", 1.05, steepest(rising), "{:.2f}".format)
    headings = (what, "sent/s", "CPU us/query", "cores", "unsent")
    plot = bars(f"CPU us/query by {what}", each, "us")
    return Section(title, headings, tuple(found), (demand,), tuple(notes), (plot,))
