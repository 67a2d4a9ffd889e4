"""A Load in, a tool's Figures out: its command line, and its report read.

Each tool is at its best: dnsperf with the sockets and the window that answered most on this machine, dnsprobe with 64
source ports, the clients in Python with 64 coroutines. A tool that is not there raises Missing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench.load import NAME, Figures, Load, Missing
from bench.processes import Ended, run

POOL = 64
SPARE_SECONDS = 30.0
"""How much longer than its load a command may take."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dnsprobe" / "bin"

Tool = Callable[[Load, Path], Figures]


def program(name: str, lift: str) -> str:
    """The path of a program, on PATH, in sbin or in the user's cache; Missing says which command brings it."""
    for path in (None, "/usr/sbin:/sbin", str(CACHE)):
        if found := shutil.which(name, path=path):
            return found
    raise Missing(f"needs {name}: run `{lift}`")


# --- dnsprobe ---


def dnsprobe(load: Load, folder: Path, options: tuple[str, ...] = (), *, terminal: bool = False) -> Figures:
    """The command as people run it, with its worker, its run file and its report."""
    ports = "fresh" if load.fresh else "reused" if load.transport == "tcp" else f"pool:{POOL}"
    if load.connections:
        ports = f"pool:{load.connections}"
        options = (*options, "--max-inflight", str(load.outstanding))
    asked = ["-s", "127.0.0.1", "-p", str(load.port), "-n", NAME, "-Q", str(load.rate or "max")]
    asked += ["-m", load.transport, "--ports", ports, *options]
    return read_dnsprobe(*dnsprobe_run(asked, load.seconds, folder, terminal=terminal))


def dnsprobe_run(
    asked: list[str], seconds: float, folder: Path, *, terminal: bool = False, look_every: float = 0.0
) -> tuple[str, Ended]:
    """`dnsprobe run` with these words, for so long: its report as JSON, and the process. Missing if it refuses."""
    out = folder / "run.db"
    for old in folder.glob("run.db*"):
        old.unlink()
    report = folder / "run.json"
    command = [sys.executable, "-m", "probe.cli", "run", *asked, "-o", str(out), "--json", str(report)]
    length = [] if asked[0].endswith(".yaml") else ["-l", f"{seconds:g}"]
    ended = run(command + length, seconds + SPARE_SECONDS, terminal=terminal, look_every=look_every)
    if ended.code not in (0, 1, 3):
        said = [line for line in (ended.err or ended.out).splitlines() if any(map(str.isalpha, line))]
        last = said[-1].removeprefix("dnsprobe: ").strip(" │") if said else str(ended.code)
        raise Missing(f"not in this build: {last.replace(f'{folder}/', '')}")
    return report.read_text(), ended


def read_dnsprobe(report: str, ended: Ended) -> Figures:
    """dnsprobe's JSON -> figures; latencies are those of its first series."""
    told = json.loads(report)
    totals, series, about = told["totals"], told["series"][0], told["environment"]
    answered, unsent = totals["outcomes"]["answer"], totals["outcomes"]["unsent"]
    sent = totals["planned"] - unsent
    return Figures(
        sent=sent,
        answered=answered,
        lost=sent - answered,
        unsent=unsent,
        asking=about["planned_seconds"],
        cpu=ended.cpu,
        p50=series["rtt_seconds"]["p50"],
        p99=series["rtt_seconds"]["p99"],
        due_p50=series["latency_seconds"]["p50"],
        due_p99=series["latency_seconds"]["p99"],
        lag_p99=about["schedule_lag_p99_seconds"],
        own_drops=totals["counters"]["own_drops"],
    )


# --- dnsperf ---


@dataclass(frozen=True, slots=True)
class Setting:
    """dnsperf's -c, -q and -T."""

    sockets: int
    window: int
    threads: int

    def __str__(self) -> str:
        return f"-T {self.threads} -c {self.sockets} -q {self.window}"


def dnsperf(load: Load, folder: Path, setting: Setting, *, each: bool = False) -> Figures:
    """dnsperf, with 4 MB of buffers. each: have it print each latency, for percentiles (its report has none)."""
    words = ["-c", str(setting.sockets), "-q", str(setting.window), "-T", str(setting.threads), "-b", "4096", "-t", "2"]
    words += ["-m", load.transport, *(["-Q", str(load.rate)] if load.rate else []), *(["-v"] if each else [])]
    return read_dnsperf(dnsperf_run(words, load.port, load.seconds, folder))


def dnsperf_run(words: list[str], port: int, seconds: float, folder: Path) -> Ended:
    """dnsperf with these words."""
    names = folder / "names"
    names.write_text(f"{NAME} A\n")
    command = [program("dnsperf", "make servers"), "-s", "127.0.0.1", "-p", str(port), "-d", str(names)]
    ended = run([*command, "-l", f"{seconds:g}", *words], seconds + SPARE_SECONDS)
    if ended.code:
        raise Missing(f"dnsperf refuses {' '.join(words)}: {ended.err.strip()[:80]}")
    return ended


def read_dnsperf(ended: Ended) -> Figures:
    """dnsperf's text -> figures, and percentiles from `> NOERROR name A 0.000123` lines where there are any."""

    def number(label: str) -> float:
        found = re.search(rf"{re.escape(label)}:\s+([0-9.]+)", ended.out)
        if not found:
            raise Missing(f"dnsperf has no {label!r} in its report")
        return float(found[1])

    each = sorted(float(latency) for latency in re.findall(r"^> NOERROR \S+ \S+ ([0-9.]+)$", ended.out, re.MULTILINE))
    return Figures(
        sent=int(number("Queries sent")),
        answered=int(number("Queries completed")),
        lost=int(number("Queries lost")),
        asking=number("Run time (s)"),
        cpu=ended.cpu,
        p50=each[len(each) // 2] if each else None,
        p99=each[len(each) * 99 // 100] if each else None,
    )


def best_setting(load: Load, folder: Path, threads: int, seconds: float) -> Setting:
    """The setting with which dnsperf gets most answers a second and loses 1 % at most, tried once each.

    Its first -q queries crawl at 20,000/s: a window of 65,000 takes 3 s to open.
    """
    settings = [Setting(c, q, threads) for c in (1, 4, 16, 64) for q in (100, 1000, 10_000, 65_000) if c >= threads]
    tried = {setting: dnsperf(replace(load, seconds=seconds), folder, setting) for setting in settings}
    return max(tried, key=lambda s: (-int(100 * tried[s].lost / max(1, tried[s].sent)), tried[s].rate))


# --- dnspyre, aiodns, dnspython, the floor ---


def dnspyre(load: Load, folder: Path) -> Figures:
    """dnspyre with 64 workers; 10 where it has a rate."""
    return read_dnspyre(dnspyre_run(10 if load.rate else POOL, load, folder))


def dnspyre_run(workers: int, load: Load, _folder: Path) -> Ended:
    """dnspyre with so many workers, each with a socket and one query on its way."""
    command = [program("dnspyre", "make dnspyre"), "--server", f"127.0.0.1:{load.port}", "--json", "--type", "A"]
    command += ["--duration", f"{load.seconds:g}s", "--concurrency", str(workers)]
    command += ["--rate-limit", str(load.rate)] if load.rate else []
    ended = run([*command, NAME], load.seconds + SPARE_SECONDS)
    if ended.code:
        raise Missing(f"dnspyre failed: {ended.err.strip()[:80]}")
    return ended


def read_dnspyre(ended: Ended) -> Figures:
    """dnspyre's JSON -> figures. Its latencies are whole milliseconds: left out."""
    told = json.loads(ended.out)
    lost = told["totalIOErrors"] + told["totalIDmismatch"]
    return Figures(
        sent=told["totalRequests"],
        answered=told["totalSuccessResponses"],
        lost=lost,
        asking=told["benchmarkDurationSeconds"],
        cpu=ended.cpu,
    )


def counting(module: str, words: tuple[str, ...], load: Load) -> Figures:
    """One of our own loops, which print what they sent and what came back."""
    ended = run([sys.executable, "-m", module, *words], load.seconds + SPARE_SECONDS)
    if ended.code:
        raise Missing(f"{module} failed: {(ended.err.strip().splitlines() or [''])[-1][:80]}")
    told = json.loads(ended.out)
    sent, answered = int(told["sent"]), int(told["answered"])
    return Figures(sent=sent, answered=answered, lost=sent - answered, asking=told["seconds"], cpu=ended.cpu)


def client(name: str, load: Load, _folder: Path) -> Figures:
    """aiodns or dnspython."""
    return counting("bench.clients", (name, str(load.port), f"{load.seconds:g}"), load)


def floor(gso: int, load: Load, _folder: Path) -> Figures:
    """The loop that checks nothing."""
    return counting("bench.floor", (str(load.port), str(load.rate), f"{load.seconds:g}", str(gso)), load)


GSO = ("--gso", "16")
TOOLS: dict[str, Tool] = {
    "dnsprobe": dnsprobe,
    "dnsprobe --gso 16": partial(dnsprobe, options=GSO),
    "dnsprobe on a terminal": partial(dnsprobe, terminal=True),
    "dnspyre": dnspyre,
    "aiodns": partial(client, "aiodns"),
    "dnspython": partial(client, "dnspython"),
    "floor": partial(floor, 1),
    "floor, 16 a send": partial(floor, 16),
}
"""All but dnsperf, whose best settings are found first."""
