"""A Bench in; what deployed probers hold and cost, process by process, and how many series they serve, out."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from bench.load import Missing
from bench.processes import ROOT, end, held, tree
from bench.rounds import Bench
from bench.table import Demand, Section, number
from tests.servers import free_port

MB = 1_000_000
SETTLES = 10.0
"""Seconds after the first query that are no part of a steady cost."""
SCRAPED_EVERY = 15.0
PATIENCE = 60.0
PROFILES = {
    "DaemonSet": "serve every-node --lab --set lab.replicas=2 --format jsonl",
    "Deployment": "serve baseline --lab --format jsonl",
    "Job": "run watch-upgrade --lab --format jsonl --set lab.rollout_after=0s",
}
"""As deploy/ has them, but in the lab, whose own processes are left out. A DaemonSet's prober asks two pods."""
OURS = {"probe.engine.worker": "worker", "probe.cluster.clock_process": "pod clock"}


def standing(bench: Bench) -> list[Section]:
    """Of each profile, while nothing happens: CPU and memory of its processes, series of its page of metrics."""
    rows: list[tuple[str, ...]] = []
    demands: list[Demand] = []
    seconds = max(6 * bench.seconds, SCRAPED_EVERY)
    for profile, words in PROFILES.items():
        bench.say(f"standing: {profile}, {seconds:g} s")
        series, costs, holds = _measured(bench, words.split(), seconds)
        rows += [(profile, name, number(costs[name], 1), number(holds[name] / MB, 1), "") for name in costs]
        rows.append((profile, "all", number(sum(costs.values()), 1), number(sum(holds.values()) / MB, 1), str(series)))
        if profile == "DaemonSet":
            total, held = sum(costs.values()), sum(holds.values()) / MB
            demands = [
                Demand("DaemonSet: series", "<=", 300, series, "{:,.0f}".format),
                Demand("DaemonSet: millicores of all processes", "<=", 20, total, "{:,.1f}".format),
                Demand("DaemonSet: memory of all processes (PSS)", "<=", 120, held, "{:,.0f} MB".format),
            ]
    headings = ("profile", "process", "millicores", "PSS, MB", "series")
    note = f"Scraped every {SCRAPED_EVERY:g} s. The lab's processes are left out; a watch of a real API costs more."
    return [Section("What a prober that stays costs", headings, tuple(rows), tuple(demands), (note,))]


def _measured(bench: Bench, words: list[str], seconds: float) -> tuple[int, dict[str, float], dict[str, int]]:
    """Series; millicores and octets by process."""
    port = free_port()
    file = bench.folder / f"standing-{port}.db"
    command = [sys.executable, "-m", "probe.cli", *words, "--metrics", f"127.0.0.1:{port}", "-o", str(file)]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=ROOT, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        _await_ready(port)
        time.sleep(SETTLES)
        mine = {pid: name for pid in tree(process.pid) if (name := _name(pid, process.pid))}
        before = {pid: held([pid]) for pid in mine}
        for _ in range(int(seconds / SCRAPED_EVERY)):
            time.sleep(SCRAPED_EVERY)
            page = _page(port)
        after = {pid: held([pid]) for pid in mine}
    finally:
        end(process)
    series = sum(not line.startswith("#") for line in page.splitlines())
    lasted = {pid: after[pid].at - before[pid].at for pid in mine}
    costs = {name: 1000 * (after[pid].cpu - before[pid].cpu) / lasted[pid] for pid, name in mine.items()}
    return series, costs, {name: after[pid].pss for pid, name in mine.items()}


def _name(pid: int, parent: int) -> str:
    """What a process is to a prober; '' for one of the lab's."""
    if pid == parent:
        return "parent"
    with suppress(OSError):
        told = Path(f"/proc/{pid}/cmdline").read_text()
        return next((name for module, name in OURS.items() if module in told), "")
    return ""


def _await_ready(port: int) -> None:
    """Missing if it does not answer."""
    given_up = time.monotonic() + PATIENCE
    while time.monotonic() < given_up:
        with suppress(OSError):
            if 'state="running"} 1' in _page(port):
                return
        time.sleep(0.5)
    raise Missing(f"no prober asked anything within {PATIENCE:g} s")


def _page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        return str(reply.read().decode())
