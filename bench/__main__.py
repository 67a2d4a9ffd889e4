"""Rates in, one table out: the whole of `dnsprobe run` beside dnsperf and a bare loop, on the same knot, in one run.

The tools take turns; each figure is the median of its rounds, and what counts is the ratio to dnsperf in the same
round. `floor` sends and receives in the same process and checks nothing. CPU is user + system time of all processes
of a tool. dnsperf gets its best settings: as many sockets, 65,000 outstanding queries, 4 MB buffers.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import pty
import re
import resource
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.servers import Knot

NAME = "a.example.test"
POOL = 64


@dataclass(frozen=True, slots=True)
class Figures:
    """One run of one tool. CPU in microseconds per answered query; durations in seconds, nan where a tool has none."""

    answered: int
    lost: int
    cpu: float
    p50: float
    p99: float
    lag_p99: float


def spent() -> float:
    """User and system time of all children that have ended, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def dnsprobe(port: int, rate: int, seconds: int, folder: Path) -> Figures:
    """The command as people run it: worker, run file written each second, live table drawn on a terminal."""
    out, before = folder / f"run-{time.monotonic_ns()}.db", spent()
    command = [sys.executable, "-m", "probe.cli", "run", "-s", "127.0.0.1", "-p", str(port), "-n", NAME, "--type", "A"]
    command += ["-Q", str(rate), "-l", str(seconds), "--ports", f"pool:{POOL}", "-o", str(out)]
    command += ["--json", str(out.with_suffix(".json"))]
    on_terminal(command)
    cpu = spent() - before
    report = json.loads(out.with_suffix(".json").read_text())
    latency, totals = report["series"][0]["latency_seconds"], report["totals"]
    lag = report["environment"]["schedule_lag_p99_seconds"]
    answered = totals["outcomes"]["answer"]
    p50, p99 = (math.inf if latency[q] is None else latency[q] for q in ("p50", "p99"))
    return Figures(answered, totals["planned"] - answered, cpu / answered * 1e6, p50, p99, lag)


def on_terminal(command: list[str]) -> None:
    """Run a command on a terminal of its own and read what it draws."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        while process.poll() is None:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    os.read(ours, 65_536)
                except OSError:
                    break
    os.close(ours)


def dnsperf(port: int, rate: int, seconds: int, folder: Path) -> Figures:
    """dnsperf at its best settings; its percentiles are not in its report."""
    (folder / "names").write_text(f"{NAME} A\n")
    before = spent()
    command = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(folder / "names"), "-Q", str(rate)]
    command += ["-l", str(seconds), "-c", str(POOL), "-q", "65000", "-b", "4096", "-T", "1", "-t", "2"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cpu = spent() - before
    answered, lost = (int(re.search(rf"Queries {word}:\s+(\d+)", text)[1]) for word in ("completed", "lost"))  # type: ignore[index]
    return Figures(answered, lost, cpu / answered * 1e6, float("nan"), float("nan"), float("nan"))


def floor(port: int, rate: int, seconds: int, _folder: Path) -> Figures:
    """A bare loop in a process of its own: paced send, and recv; nothing is checked or kept."""
    before = spent()
    command = [sys.executable, "-m", "bench", "--floor", str(port), str(rate), str(seconds)]
    answered = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    nan = float("nan")
    return Figures(answered, rate * seconds - answered, (spent() - before) / answered * 1e6, nan, nan, nan)


def bare_loop(port: int, rate: int, seconds: int) -> int:
    """Send rate x seconds equal queries on schedule; how many datagrams came back."""
    query = bytes.fromhex("0001010000010000000000000161076578616d706c6504746573740000010001")
    answered, sent, planned = 0, 0, rate * seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 << 20)
        sock.setblocking(False)
        began = time.monotonic()
        while answered < planned and time.monotonic() < began + seconds + 1:
            for _ in range(min(planned, int((time.monotonic() - began) * rate)) - sent):
                sock.send(query)
                sent += 1
            try:
                while True:
                    sock.recv(512)
                    answered += 1
            except BlockingIOError:
                time.sleep(0.0002)
    return answered


TOOLS: dict[str, Callable[[int, int, int, Path], Figures]] = {"dnsprobe": dnsprobe, "dnsperf": dnsperf, "floor": floor}


def median(figures: list[Figures], field: str) -> float:
    """The median of one figure over the rounds."""
    middle: float = statistics.median(getattr(f, field) for f in figures)
    return middle


def shown(seconds: float) -> str:
    """Milliseconds, or a dash where a tool has no such figure."""
    return "-" if math.isnan(seconds) else f"{seconds * 1e3:.2f}"


def measure(rates: list[int], rounds: int, seconds: int) -> Table:
    """All tools at each rate, in turn, `rounds` times."""
    table = Table(title=f"{rounds} rounds of {seconds} s, one knot on loopback, pool:{POOL}; medians")
    for heading in ("q/s", "tool", "answered", "lost", "CPU us/query", "to dnsperf", "p50 ms", "p99 ms", "lag p99 ms"):
        table.add_column(heading, justify="left" if heading == "tool" else "right")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "knot").mkdir()
        knot = Knot.start(folder / "knot")
        try:
            for rate in rates:
                runs: dict[str, list[Figures]] = {tool: [] for tool in TOOLS}
                for _ in range(rounds):
                    for tool, run in TOOLS.items():
                        runs[tool].append(run(knot.port, rate, seconds, folder))
                for tool, figures in runs.items():
                    ratio = statistics.median(a.cpu / b.cpu for a, b in zip(figures, runs["dnsperf"], strict=True))
                    table.add_row(
                        f"{rate:,}", tool, f"{median(figures, 'answered'):,.0f}", f"{median(figures, 'lost'):,.0f}",
                        f"{median(figures, 'cpu'):.1f}", f"{ratio:.2f}",
                        *(shown(median(figures, field)) for field in ("p50", "p99", "lag_p99")),
                    )  # fmt: skip
        finally:
            knot.close()
    return table


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--rates", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=int, default=5)
    arguments.add_argument("--floor", type=int, nargs=3, metavar=("PORT", "RATE", "SECONDS"), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.floor:
        sys.stdout.write(f"{bare_loop(*options.floor)}\n")
        return
    for program in ("knotd", "dnsperf"):
        if not shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
            sys.exit(f"bench needs {program}: run `make servers`")
    console = Console(width=120)
    console.print(measure(options.rates, options.rounds, options.seconds))
    console.print(
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    )


main()
