"""A plan on stdin -> its run in a process of its own: the run file, and on stdout what the sweep keeps of it.

A run lowers its process's priority, and what that process started next would inherit it: so each cell has one. It ends
in order, with its lab, on SIGTERM, which it also gets when the sweep dies.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from probe.cluster.lab import Lab
from probe.engine import Engine, EngineOptions
from probe.errors import EXIT_ENVIRONMENT, EXIT_INTERRUPTED, EXIT_PASS, DnsprobeError
from probe.linux import die_with_parent
from probe.runfile import open_run
from probe.scenario.plan import Plan
from probe.scenario.run import run
from probe.scenario.view import Unseen
from probe.sweep.measured import Measured, measured_of

QUIETLY = 19
"""How nice a cell is once its run is over: others may still be asking."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be run, by which process's order, and where its file goes."""

    plan: Plan
    path: Path
    command: str
    workers: int
    parent: int


def _carry_out(order: Order) -> tuple[int, Measured | None]:
    """The exit code, and what was measured if it is worth keeping."""
    engine = Engine(EngineOptions(workers=order.workers))
    ending = asyncio.run(run(order.plan, order.path, Unseen(), engine, Lab(order.plan.lab), order.command))
    if ending.interrupted:
        return EXIT_INTERRUPTED, None
    if ending.failed:
        sys.stderr.write(f"{ending.cut}\n")
        return EXIT_ENVIRONMENT, None
    os.nice(QUIETLY)
    return EXIT_PASS, measured_of(open_run(ending.path))


def main() -> None:
    """`python -m probe.sweep.cell`: an Order on stdin, pickled; a Measured on stdout, pickled; else why, on stderr."""
    order: Order = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - our own parent wrote it
    die_with_parent(signal.SIGTERM, order.parent)
    try:
        code, measured = _carry_out(order)
    except DnsprobeError as problem:
        sys.stderr.write(f"{problem}\n")
        sys.exit(problem.exit_code)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(EXIT_INTERRUPTED)
    if measured:
        sys.stdout.buffer.write(pickle.dumps(measured))
    sys.exit(code)


if __name__ == "__main__":
    main()
