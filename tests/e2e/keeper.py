"""A node's folder and its test's end of a pipe -> with the test go its processes, cgroups, network and folder."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from pathlib import Path

from probe.cluster.keeper import sweep

CGROUPS = Path("/sys/fs/cgroup")
_PATIENCE = 20.0
"""Seconds in which processes that are killed leave their cgroups."""


def cgroups(name: str) -> list[Path]:
    """The node's cgroup in each hierarchy: of cgroup v1 there are several, of v2 one."""
    return [path for path in (CGROUPS / name, *CGROUPS.glob(f"*/{name}")) if path.is_dir()]


def remove_cgroups(name: str) -> None:
    """Remove the node's cgroups, the innermost first; processes in them may still be dying."""
    until = time.monotonic() + _PATIENCE
    while (tops := cgroups(name)) and time.monotonic() < until:
        for top in tops:
            for path in sorted((p for p in top.rglob("*") if p.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    path.rmdir()
            with contextlib.suppress(OSError):
                top.rmdir()
        time.sleep(0.1)


def main() -> None:
    """`python -m tests.e2e.keeper FOLDER`, with a pipe from the test as standard input."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    sweep(sys.argv[1])
    remove_cgroups(Path(sys.argv[1]).name)


if __name__ == "__main__":
    main()
