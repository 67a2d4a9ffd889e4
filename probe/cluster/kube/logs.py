"""CoreDNS pods as they come and go -> the lines of their logs that matter, as they are written; many alike as one.

The API server passes a log on from the kubelet; every line comes with the time at which its node took it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from probe.cluster import Happened
from probe.cluster.kube.api import Api, NotSeen
from probe.cluster.kube.objects import short
from probe.errors import EnvironmentProblem
from probe.model import NS

SOURCE = "log"
MOST_PODS = 20
"""So many logs are followed at once."""
_MOST_LINES, _MEANWHILE = 5_000, 10.0
"""A log with more lines in so many seconds is left alone: the API server has to pass them all on."""
_SHORTEST, _LONGEST = 0.5, 8.0
"""Seconds from the end of a log to the next attempt to read it."""
_COUNTED = 0.25
"""Seconds between two looks whether something has repeated for long enough to be told."""
_RAREST_NS = 32 * NS
"""What repeats is told after 1 s, 2 s, 4 s, ... and at last this often, as a number; after twice that in peace anew."""

_MATTERS = re.compile(
    r"\[(?:ERROR|FATAL|PANIC|WARNING)\]|SIG[A-Z]+[0-9]?:|[Rr]eload|lameduck|Still waiting on|Running configuration"
    r"|^CoreDNS-|^panic:|^fatal error:|^[EF][0-9]{4} "
)
_DIGEST = re.compile(r"([0-9a-f]{12})[0-9a-f]{52,}")
"""Of what reload says was loaded: its beginning tells it from another."""
_BRIEF = r"\1..."
_QUERY = re.compile(r"\[INFO\] \S+ - [0-9]+ \"")
_TROUBLE = re.compile(r"\[(?:ERROR|WARNING)\] \S+|^[EF](?=[0-9]{4} )")


def matters(line: str) -> str:
    """What a line of CoreDNS's log counts as; '' if it tells nothing, as queries do. Errors of one plugin are alike.

    Source: coredns plugin/pkg/log, plugin/{errors,health,ready,reload}, coremain/run.go (1.5.0 to 1.15.0).
    """
    if _QUERY.match(line) or not _MATTERS.search(line):
        return ""
    trouble = _TROUBLE.match(line)
    return trouble[0] if trouble else line


@dataclass(slots=True)
class _Alike:
    """Lines that count as the same: when they were told last, for how long they are only counted, what has come."""

    told_ns: int
    pause_ns: int = NS
    more: int = 0
    last: str = ""


class Said:
    """Lines of one pod in, what is to be told of them out: the first at once, those like it as a number."""

    def __init__(self, pod: str) -> None:
        self._pod = pod
        self._alike: dict[str, _Alike] = {}

    def take(self, at: int, line: str, clock: str) -> list[Happened]:
        """A line that came at `at` and was written at `clock`."""
        if not (kind := matters(line)):
            return []
        known = self._alike.get(kind)
        if known and (known.more or at - known.told_ns < known.pause_ns):
            known.more, known.last = known.more + 1, line
            return []
        self._alike[kind] = _Alike(at)
        return [self._one(at, f"{short(_DIGEST.sub(_BRIEF, line))} ({clock} by its node's clock)")]

    def due(self, at: int) -> list[Happened]:
        """What was counted for long enough."""
        found = []
        for kind, alike in list(self._alike.items()):
            if at - alike.told_ns < alike.pause_ns:
                continue
            if alike.more:
                seconds = (at - alike.told_ns) / NS
                text = f"{alike.more} more of {kind} in {seconds:.0f} s, the last: {short(alike.last)}"
                found.append(self._one(at, text))
                pause_ns = min(_RAREST_NS, 2 * alike.pause_ns)
                self._alike[kind] = _Alike(at, pause_ns)
            elif at - alike.told_ns > 2 * _RAREST_NS:
                del self._alike[kind]
        return found

    def _one(self, at: int, text: str) -> Happened:
        return Happened(at, "log", text, SOURCE, self._pod)


@dataclass(slots=True)
class _Log:
    """One pod's. upto: when the last line that was read was written."""

    pod: str
    container: str
    said: Said
    upto: datetime | None


class Logs:
    """Follows the logs of pods. Kinds of Happened: log; not_seen, each said once."""

    def __init__(self, api: Api, namespace: str, tell: Callable[[Happened], None]) -> None:
        self._api, self._namespace, self._tell = api, namespace, tell
        self._followed: dict[str, tuple[_Log, asyncio.Task[None]]] = {}
        self._missed: set[tuple[str, str]] = set()
        self._forbidden = False
        self._counts: asyncio.Task[None] | None = None

    def follow(self, pod: str, container: str, *, from_now: bool) -> None:
        """From its beginning, or what is written from now on; a pod that is followed is left alone."""
        if pod in self._followed or self._forbidden:
            return
        if len(self._followed) >= MOST_PODS:
            self._miss(f"logs: those of {MOST_PODS} pods are followed at once, no more")
            return
        self._counts = self._counts or asyncio.create_task(self._tell_counts())
        log = _Log(pod, container, Said(pod), datetime.now(UTC) if from_now else None)
        self._followed[pod] = log, asyncio.create_task(self._follow(log))

    def leave(self, pod: str) -> None:
        """It is gone."""
        if followed := self._followed.pop(pod, None):
            followed[1].cancel()

    async def stop(self) -> None:
        """Follow none; idempotent."""
        tasks = [*(task for _, task in self._followed.values()), *([self._counts] if self._counts else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _miss(self, text: str, pod: str = "") -> None:
        if (pod, text) not in self._missed:
            self._missed.add((pod, text))
            self._tell(Happened(time.monotonic_ns(), "not_seen", text, SOURCE, pod))

    async def _tell_counts(self) -> None:
        while True:
            await asyncio.sleep(_COUNTED)
            for log, _ in self._followed.values():
                for happened in log.said.due(time.monotonic_ns()):
                    self._tell(happened)

    async def _follow(self, log: _Log) -> None:
        """A log ends with its container; the next one's is another, and what was missed is in the previous one's."""
        pause = _SHORTEST
        while True:
            began = time.monotonic()
            for how in ("previous", "follow"):
                try:
                    await self._read(log, how)
                except NotSeen as problem:
                    self._forbidden = True
                    self._miss(str(problem))
                    return
                except _TooMuch:
                    text = f"its log: more than {_MOST_LINES} lines in {_MEANWHILE:g} s: it is not followed any more"
                    self._miss(text, log.pod)
                    return
                except EnvironmentProblem:
                    pass  # the container has not started, there was none before it, or the API is away: see the gaps
            pause = _SHORTEST if time.monotonic() - began > _LONGEST else min(_LONGEST, 2 * pause)
            await asyncio.sleep(pause)

    async def _read(self, log: _Log, how: str) -> None:
        """All lines that were written after log.upto, which they put forward."""
        since, recent = log.upto, deque[float](maxlen=_MOST_LINES)
        asked = {"container": log.container, how: "true"}
        if since:
            asked["sinceTime"] = f"{since:%Y-%m-%dT%H:%M:%SZ}"
        async with aclosing(self._api.log(self._namespace, log.pod, **asked)) as lines:
            async for line in lines:
                at, (stamp, _, text) = time.monotonic_ns(), line.partition(" ")
                with suppress(ValueError):  # a line without its time is part of a longer one
                    written = datetime.fromisoformat(stamp)
                    if not since or written > since:
                        log.upto = written
                        for happened in log.said.take(at, text, f"{written:%H:%M:%S.%f}"[:-3] + "Z"):
                            self._tell(happened)
                recent.append(at / NS)
                if len(recent) == _MOST_LINES and recent[-1] - recent[0] < _MEANWHILE:
                    raise _TooMuch


class _TooMuch(Exception):
    """Nobody should make the API server pass all of this on."""
