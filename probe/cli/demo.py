"""Two settings of the lab in; a run of each, and one sentence about what the second saved, out."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import typer

from probe.cli import options
from probe.cli.output import say
from probe.errors import EXIT_INTERRUPTED
from probe.report.json import json_report
from probe.runfile import Run, open_run

EXAMPLES = options.examples("dnsprobe demo")


def demo() -> None:
    """Remove a CoreDNS pod in the lab, without and with a lameduck, and say what that saved (a minute)."""
    folder = Path(tempfile.mkdtemp(prefix="dnsprobe-demo-"))
    # Ctrl-C reaches the run as well: it ends in order, then so do we.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    runs = []
    for lameduck in ("0s", "5s"):
        path = folder / f"lameduck-{lameduck}.db"
        words = ["run", "scale-down", "--lab", "--set", f"lab.lameduck={lameduck}", "-o", str(path)]
        say(f"$ dnsprobe {shlex.join(words)}", sys.stderr)
        # A process of its own: a run lowers its priority, and what it starts after that would inherit it.
        code = subprocess.run([sys.executable, "-m", "probe.cli", *words], check=False).returncode
        if code == EXIT_INTERRUPTED or not path.exists():
            raise typer.Exit(code)
        runs.append(open_run(path))
    say(f"{_saved(*runs)}\nCoreDNS: {runs[1].head.facts['coredns']}\nRun files: {folder}")


def _saved(before: Run, after: Run) -> str:
    """One sentence: what the second setting saved, through the Service."""
    lost, lasted, planned = [], [], 0
    for one in (before, after):
        told = json.loads(json_report(one))
        service = [s for s in told["series"] if s["target_kind"] == "service"]
        planned = sum(s["planned"] for s in service)
        lost.append(sum(s["lost"] for s in service))
        lanes = {s["lane"] for s in service}
        lasted.append(max((w["seconds"] for w in told["windows"] if w["lane"] in lanes), default=0.0))
    return (
        f"Lameduck 5 s, which outlasts the propagation of 3 s, saved {lost[0] - lost[1]:,} queries as one pod of three"
        f" went: {lost[0]:,} of {planned:,} to the Service were lost without it (longest disruption {lasted[0]:.1f} s),"
        f" {lost[1]:,} with it ({lasted[1]:.1f} s)."
    )
