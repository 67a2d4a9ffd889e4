"""schedule -> transport -> recorder, in a worker process; the parent's hold on it: start, begin, flush, stop.

In: series. Out: columns of finished rows, once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe

from probe.engine.plan import Catalogue, EngineOptions, Orders, check_limits
from probe.errors import DnsprobeError, EnvironmentProblem
from probe.model import NS, Series
from probe.recorder import Flush, Reader, Room, places_for

__all__ = ["Engine", "EngineOptions", "check_limits"]

LEAD_NS = 20_000_000
"""From begin() to t0."""
NOTICE_NS = 250_000_000
"""Changes to the schedule take effect no sooner than this: rows are prepared ahead."""
_START_SECONDS = 30.0
_STOP_SECONDS = 2.0


class Engine:
    """One run's worker. start(), begin(), then flush() once a second until `finished`; close() in any case."""

    def __init__(self, options: EngineOptions | None = None) -> None:
        self._options = options or EngineOptions()
        self._series: list[Series] = []
        self._catalogue = Catalogue()
        self._facts: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: Connection | None = None
        self._reader: Reader | None = None
        self.t0_ns = 0
        """CLOCK_MONOTONIC ns of t0."""
        self.t0_unix_ns = 0
        """Wall clock of t0, ns since 1970."""

    async def start(self, series: Sequence[Series], longest_timeout_ns: int = 0) -> None:
        """Spawn the worker, open its sockets, warm it up. DnsprobeError with the message for the person.

        longest_timeout_ns: of any series that may be added later.
        """
        check_limits(series)
        self._note(series)
        longest = max([longest_timeout_ns, *(s.timeout_ns for s in series)])
        room, memory = Room.create(self._options.max_series, longest)
        self._orders, theirs = Pipe()
        try:
            self._process = subprocess.Popen(  # noqa: ASYNC220  a fork of milliseconds, before the run begins
                [sys.executable, "-m", "probe.engine.worker", str(theirs.fileno()), str(memory), str(os.getpid())],
                pass_fds=(theirs.fileno(), memory),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            theirs.close()
            os.close(memory)
        self._reader = Reader([room], self._question_text)
        self._orders.send((self._options, places_for(longest), tuple(series)))
        answer = await self._answer()
        if isinstance(answer, DnsprobeError):
            raise answer
        self._facts = answer

    async def _answer(self) -> dict[str, str] | DnsprobeError:
        deadline = time.monotonic() + _START_SECONDS
        while not (self._orders and self._orders.poll()):
            if self.died or time.monotonic() > deadline:
                raise EnvironmentProblem(f"the engine's worker did not start: {self.died or 'no answer in 30 s'}")
            await asyncio.sleep(0.01)
        try:
            answer: dict[str, str] | DnsprobeError = self._orders.recv()
        except EOFError:
            raise EnvironmentProblem(f"the engine's worker did not start: {self.died or 'it closed its end'}") from None
        return answer

    def _note(self, series: Sequence[Series]) -> None:
        for each in series:
            if each.index != len(self._series):
                raise ValueError(f"series {each.index} is number {len(self._series)}: they count from 0, in order")
            self._series.append(each)
            self._catalogue.add(each)

    def _question_text(self, number: int) -> str:
        question = self._catalogue.questions[number]
        return f"{question.name} {question.qtype}"

    def begin(self) -> None:
        """Set t0, a moment from now; the series' times count from it."""
        self.t0_ns = time.monotonic_ns() + LEAD_NS
        self.t0_unix_ns = time.time_ns() + LEAD_NS
        self._send(self.t0_ns)

    def now_ns(self) -> int:
        """Time since t0 in ns; negative before it."""
        return time.monotonic_ns() - self.t0_ns

    def add(self, series: Sequence[Series]) -> list[Series]:
        """Put more series on the schedule while the run goes; as they are then: none starts sooner than NOTICE_NS."""
        soonest = self.now_ns() + NOTICE_NS
        added = [replace(s, start_ns=max(s.start_ns, soonest)) for s in series]
        added = [s for s in added if s.start_ns < s.stop_ns]
        if not added:
            return []
        if len(self._series) + len(added) > self._options.max_series:
            raise EnvironmentProblem(f"more than {self._options.max_series} series in one run")
        asked = [s for s in self._series if s.stop_ns + s.timeout_ns > soonest]
        check_limits([*asked, *added])
        self._note(added)
        self._send(Orders(add=tuple(added)))
        return added

    def end(self, indices: Sequence[int], stop_ns: int) -> list[Series]:
        """Let series stop at stop_ns, or NOTICE_NS from now if that is later; as they are then."""
        stop_ns = max(stop_ns, self.now_ns() + NOTICE_NS)
        ended = [replace(self._series[i], stop_ns=stop_ns) for i in indices if self._series[i].stop_ns > stop_ns]
        for each in ended:
            self._series[each.index] = each
        if ended:
            self._send(Orders(end=tuple(ended)))
        return ended

    def stop(self) -> None:
        """No new queries from now on; what is in flight still gets its outcome."""
        self._send(Orders(stop=True))

    def _send(self, order: Orders | int) -> None:
        if self._orders is not None:
            with contextlib.suppress(OSError):
                self._orders.send(order)

    def flush(self) -> Flush:
        """The columns that changed since the last flush; once a second."""
        if self._reader is None:
            raise RuntimeError("flush() before start()")
        return self._reader.flush(len(self._series), max(self.now_ns(), 0) // NS)

    @property
    def overrun(self) -> int:
        """Seconds whose counts were lost because flush() was not called for too long."""
        return self._reader.overrun if self._reader else 0

    @property
    def finished(self) -> bool:
        """Every row of the schedule has its outcome."""
        return self._reader is not None and self._reader.done

    @property
    def worker_pid(self) -> int:
        """The worker's process id, 0 before start()."""
        return self._process.pid if self._process else 0

    @property
    def died(self) -> str:
        """Why the worker is gone, if it is and should not be; else nothing."""
        code = self._process.poll() if self._process else None
        if code is None or (code == 0 and self.finished):
            return ""
        return f"worker ended by signal {-code}" if code < 0 else f"worker ended with exit code {code}"

    def facts(self) -> dict[str, str]:
        """What was granted and chosen: tick, receive_buffer, gso."""
        return dict(self._facts)

    async def close(self) -> None:
        """End the worker, if it has not ended itself."""
        if self._orders is not None:
            self._orders.close()
        if self._process is not None:
            try:
                await asyncio.to_thread(self._process.wait, _STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
