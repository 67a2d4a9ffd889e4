"""Options and series -> a worker process that is ready; the parent's hold on it: orders, whether it lives, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe

from probe.engine.plan import EngineOptions, Orders
from probe.errors import DnsprobeError, EnvironmentProblem
from probe.model import Series
from probe.recorder import Room, Scalar

_START_SECONDS = 30.0
_STOP_SECONDS = 2.0


class WorkerProcess:
    """One worker and its room. It lives until close(), or until all its rows have their outcomes."""

    def __init__(self, room: Room, process: subprocess.Popen[bytes], orders: Connection) -> None:
        self.room = room
        self._process, self._orders = process, orders

    @classmethod
    def spawn(
        cls,
        options: EngineOptions,
        namespace: str,
        series: Sequence[Series],
        longest_timeout_ns: int,
        descriptors: Sequence[int],
    ) -> WorkerProcess:
        """A process that opens the sockets of `series`; it inherits `descriptors` under the same numbers.

        namespace: the network namespace it lives in, a path; '' for this process's own.
        """
        room, memory = Room.create(options.max_series, longest_timeout_ns)
        ours, theirs = Pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "probe.engine.worker", str(theirs.fileno()), str(memory), str(os.getpid())],
                pass_fds=(theirs.fileno(), memory, *descriptors),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            theirs.close()
            os.close(memory)
        worker = cls(room, process, ours)
        worker.send((options, namespace, room.places, tuple(series)))
        return worker

    async def ready(self) -> dict[str, str]:
        """Its facts, once it is warm. DnsprobeError with what it says is wrong, or if it says nothing."""
        deadline = time.monotonic() + _START_SECONDS
        while not self._orders.poll():
            if self.died or time.monotonic() > deadline:
                raise EnvironmentProblem(f"the engine's worker did not start: {self.died or 'no answer in 30 s'}")
            await asyncio.sleep(0.01)
        try:
            answer: dict[str, str] | DnsprobeError = self._orders.recv()
        except (EOFError, ConnectionError):
            raise EnvironmentProblem(f"the engine's worker did not start: {self.died or 'it closed its end'}") from None
        if isinstance(answer, DnsprobeError):
            raise answer
        return answer

    def send(self, order: Orders | tuple[EngineOptions, str, int, tuple[Series, ...]] | int) -> None:
        """An order, or t0; one who is dead gets none."""
        with contextlib.suppress(OSError):
            self._orders.send(order)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def died(self) -> str:
        """How it ended, if it left something undone; else nothing."""
        code = self._process.poll()
        if code is None or self.room.scalars[Scalar.DONE]:
            return ""
        return f"ended by {_signal(-code)}" if code < 0 else f"ended with exit code {code}"

    async def close(self) -> None:
        """End it, if it has not ended itself."""
        self._orders.close()
        try:
            await asyncio.to_thread(self._process.wait, _STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _signal(number: int) -> str:
    """Its name, and who may have sent it."""
    killed = "SIGKILL: somebody's, or the kernel's where memory runs out"
    return f"signal {number} ({killed if number == signal.SIGKILL else signal.strsignal(number)})"
