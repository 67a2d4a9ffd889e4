"""A sweep file's turns -> runs, some at a time, each in a process of its own and recorded as it ends."""

from __future__ import annotations

import asyncio
import os
import pickle
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from probe.errors import EnvironmentProblem
from probe.model import NS
from probe.scenario.plan import Plan, expected_series
from probe.scenario.signals import Signals
from probe.sweep.cell import Order
from probe.sweep.file import Made, SweepFile, Turn
from probe.sweep.measured import Measured

AROUND_S = 3.0
"""What a run takes besides its duration, until that has been measured: the lab comes and goes, last answers."""
HOPELESS = 3
"""So many runs that cannot be made, before any could be, end a sweep."""
USED = 0.65
"""How much of a machine's cores the cells may use together: queries leave on time only where a core is free."""
START_S, CELL_CORES, POD_CORES, QUERY_CORES = 1.6, 0.05, 0.005, 0.0005
"""What a cell costs: CPU seconds to begin and end; and in cores, by itself, a pod, a query a second (measured)."""


class SweepView(Protocol):
    """Who watches a sweep. Every call returns at once."""

    def begin(self, done: int, to_do: int, jobs: int, left_s: float) -> None:
        """So many runs were made before, so many are to be made, so many at a time; left_s: how long that takes."""

    def started(self, turn: Turn) -> None:
        """A run's process was started."""

    def ended(self, made: Made, done: int, of: int, left_s: float) -> None:
        """A run is in the file; left_s: how long those that are left take."""

    def noted(self, text: str) -> None:
        """A sentence for the person."""

    def end(self) -> None:
        """The last frame; called once, whatever happened."""


def jobs_for(plans: Sequence[Plan]) -> int:
    """How many cells this machine bears at a time, by the most expensive of them."""
    cores = len(os.sched_getaffinity(0))
    return max(1, int(USED * cores / max(_cores(plan) for plan in plans)))


def _cores(plan: Plan) -> float:
    rate = sum(float(series.rate) for series in expected_series(plan))
    going = CELL_CORES + POD_CORES * plan.lab.replicas + QUERY_CORES * rate
    return going + START_S / (plan.duration_ns / NS)


def seconds_for(plans: Sequence[Plan], jobs: int, around_s: float = AROUND_S) -> float:
    """How long so many at a time take, about: never less than the longest of them."""
    each = [plan.duration_ns / NS + around_s for plan in plans]
    return max(sum(each) / jobs, max(each, default=0.0))


async def run_turns(file: SweepFile, view: SweepView, jobs: int, workers: int, command: str) -> bool:
    """Make every run that is left; whether that was interrupted: what is recorded then stays, the rest waits.

    Those that were crowded are made again, alone, and kept as they are then. EnvironmentProblem if nothing can be run.
    """
    going = _Going(file, view, jobs, workers, command)
    signals = Signals(going.interrupt)
    folder = going.folder
    shutil.rmtree(folder, ignore_errors=True)  # of a sweep that was killed
    folder.mkdir()
    turns = file.turns()
    going.of = file.done() + len(turns)
    view.begin(file.done(), len(turns), jobs, seconds_for([turn.cell.plan for turn in turns], jobs))
    try:
        together = [turn for turn in turns if not turn.alone]
        await going.make(together, jobs)
        await going.make([turn for turn in file.turns() if turn.alone], 1)
    finally:
        view.end()
        signals.close()
        shutil.rmtree(folder, ignore_errors=True)
    return going.interrupted


@dataclass(slots=True)
class _Going:
    """A sweep between its first run and its last."""

    file: SweepFile
    view: SweepView
    jobs: int
    workers: int
    command: str
    of: int = 0
    interrupted: bool = False
    stopped: bool = False
    running: dict[Turn, asyncio.subprocess.Process] = field(default_factory=dict)
    waiting: list[Turn] = field(default_factory=list)
    around_s: list[float] = field(default_factory=list)
    failures: int = 0
    successes: int = 0

    @property
    def folder(self) -> Path:
        """Where run files are while they are written: beside the sweep file."""
        return self.file.path.with_name(f"{self.file.path.name}-cells")

    def interrupt(self, name: str) -> None:
        """Ctrl-C, SIGTERM or SIGHUP: what runs ends in order, and is not recorded."""
        if not self.interrupted:
            self.view.noted(f"{'Ctrl-C' if name == 'SIGINT' else name}: the {len(self.running)} that run are ended")
        self.interrupted = True
        self.stop()

    def stop(self) -> None:
        """No more runs."""
        self.stopped = True
        for process in self.running.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    async def make(self, turns: Sequence[Turn], jobs: int) -> None:
        """So many at a time, in order."""
        self.waiting = list(turns)
        lines = {asyncio.create_task(self._line()) for _ in range(min(jobs, len(turns)))}
        if not lines:
            return
        done, rest = await asyncio.wait(lines, return_when=asyncio.FIRST_EXCEPTION)
        if rest:  # one has broken: the others end in order
            self.stop()
            await asyncio.wait(rest)
        for line in (*done, *rest):
            line.result()

    async def _line(self) -> None:
        while self.waiting and not self.stopped:
            made = await self._make(self.waiting.pop(0))
            if made is None:
                continue
            self.file.record(made)
            self._tell(made)
            if self.failures == HOPELESS and not self.successes:
                raise EnvironmentProblem(f"{HOPELESS} runs could not be made, and none could: {made.why}")

    async def _make(self, turn: Turn) -> Made | None:
        """One run; None if it was interrupted."""
        beside, begun_s, started_ns = len(self.running), time.monotonic(), time.time_ns()
        path = self.folder / f"{turn.name}.db"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "probe.sweep.cell"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=[self.file.lock],
            start_new_session=True,
        )
        self.running[turn] = process
        if self.stopped:
            self.stop()
        self.view.started(turn)
        order = Order(turn.cell.plan, path, self.command, self.workers, os.getpid())
        out, err = await process.communicate(pickle.dumps(order))
        del self.running[turn]
        beside = max(beside, len(self.running))
        wall_s = time.monotonic() - begun_s
        if self.stopped:
            return None
        if not out or not path.exists():
            said = err.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
            self.failures += 1
            state = "crowded" if beside and not turn.alone else "failed"
            return Made(turn, state, said[-1], beside, started_ns, wall_s)
        self.successes += 1
        self.around_s.append(wall_s - turn.cell.plan.duration_ns / NS)
        measured: Measured = pickle.loads(out)  # noqa: S301 - our own child wrote it
        run = path.read_bytes()
        path.unlink()
        again = measured.crowded and beside > 0 and not turn.alone
        return Made(turn, "crowded" if again else "done", measured.unsure, beside, started_ns, wall_s, measured, run)

    def _tell(self, made: Made) -> None:
        around_s = sum(self.around_s) / len(self.around_s) if self.around_s else AROUND_S
        plans = [turn.cell.plan for turn in (*self.waiting, *self.running)]
        left_s = seconds_for(plans, self.jobs, around_s) if plans else 0.0
        self.view.ended(made, self.file.done(), self.of, left_s)
