"""Selections of objects -> each object whenever it changes, for as long as the API can be had, and the gaps between."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from probe.cluster import Happened, Stretch
from probe.cluster.kube.api import Api, NotSeen, Selection
from probe.cluster.kube.changes import SOURCE
from probe.cluster.kube.objects import name_of
from probe.errors import EnvironmentProblem
from probe.model import NS

_BEAT = 2.0
"""Seconds between two signs of life that the API is asked for: a watch whose server is gone may just stay silent."""
_PATIENCE = 3.0
"""Seconds without such a sign after which we are blind."""
_SLOWEST = 5.0
"""Seconds between two attempts to see again, at the most."""
_TOGETHER = 0.05
"""Seconds in which watches that end are taken as one: an API that goes takes all of them with it."""
_LASTS, _FALLS = 10.0, 3
"""A watch that lasts for less seconds has fallen; what refuses us after so many falls in a row is left alone."""
_SETTLES = 5.0
"""Seconds for which a refusal is asked again: an API server that has just started refuses before it knows the roles."""


class Watching:
    """Follows what is selected. `arrived` gets each new state as it comes, None for an object that is gone.

    `things`: what there is now. Kinds of Happened: watch_gap, when one begins, and again when it is over (its subject
    is what was not seen, '' for everything); not_seen.
    """

    def __init__(
        self,
        api: Api,
        pulse: Selection,
        arrived: Callable[[int, Selection, str, Any | None], None],
        tell: Callable[[Happened], None],
    ) -> None:
        self.things: dict[Selection, dict[str, Any]] = {}
        self._versions: dict[Selection, str] = {}
        self._api, self._pulse, self._arrived, self._tell = api, pulse, arrived, tell
        self._tasks: dict[Selection | None, asyncio.Task[EnvironmentProblem]] = {}
        self._begun_ns: dict[Selection | None, int] = {}
        self._alive_ns: dict[Selection | None, int] = {}
        """Last sign of life, and when it ended; of None, of anything."""
        self._falls: dict[Selection | None, int] = {}
        self._gaps: list[Stretch] = []
        """Those that have begun and are not over; a later one has all of those before it in it."""

    async def add(self, what: Selection) -> list[Any]:
        """What there is now; from here on it is followed. EnvironmentProblem if it cannot be read."""
        found, self._versions[what] = await self._api.list(what)
        self.things[what] = {name_of(thing): thing for thing in found}
        return found

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._begin()
                await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(_TOGETHER)
                await self._be_blind()
        finally:
            await self._end(list(self._tasks))

    def _begin(self) -> None:
        """Follow what is not followed. With None for the API itself."""
        for what in (None, *self._versions):
            if what not in self._tasks:
                self._begun_ns[what] = self._alive_ns[what] = time.monotonic_ns()
                self._tasks[what] = asyncio.create_task(self._follow(what) if what else self._beat())

    async def _end(self, whats: Sequence[Selection | None]) -> None:
        tasks = [self._tasks.pop(what) for what in whats]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _be_blind(self) -> None:
        """From the end of some watches until there are others in their place, or until more have ended."""
        ended = {what: task.result() for what, task in self._tasks.items() if task.done()}
        away = ended.get(None) or await self._away()
        whole = away is not None or ended.keys() >= self._versions.keys()
        since = self._alive_ns[None] if whole else min(self._alive_ns[what] for what in ended)
        why = str(away or next(iter(ended.values())))
        for what, problem in ended.items():
            brief = self._alive_ns[what] - self._begun_ns[what] < _LASTS * NS
            self._falls[what] = self._falls.get(what, 0) + 1 if brief else 0
            if what and self._falls[what] >= _FALLS and isinstance(problem, NotSeen):
                await self._forget(since, what, problem)
        blind = list(self._versions) if whole else [what for what in ended if what in self._versions]
        if not blind:
            return
        subject = "" if whole else ", ".join(dict.fromkeys(map(str, blind)))
        gap = Stretch(since, "watch_gap", f"{subject or 'the cluster'}: not seen: {why}", SOURCE, subject, since=since)
        self._tell(gap)
        self._gaps.append(gap)
        if whole:
            await self._end(list(self._tasks))
        if await self._see_again(blind, max(self._falls[what] for what in ended)):
            self._tell_over(why)

    def _tell_over(self, why: str) -> None:
        """All that was not seen is seen again."""
        now = time.monotonic_ns()
        for gap in self._gaps:
            times = f"from {_clock(gap.since)} to {_clock(now)}, {(now - gap.since) / NS:.1f} s"
            text = f"{gap.subject or 'the cluster'}: not seen {times}: {why}"
            self._tell(replace(gap, at=now, text=text))
        self._gaps.clear()

    async def _follow(self, what: Selection) -> EnvironmentProblem:
        """Why it ended."""
        try:
            async for at, kind, thing in self._api.watch(what, self._versions[what]):
                self._alive_ns[what] = self._alive_ns[None] = at
                self._take(at, what, thing)
                if kind == "DELETED":
                    self._drop(at, what, name_of(thing))
        except EnvironmentProblem as problem:
            self._alive_ns[what] = self._alive_ns[None] = time.monotonic_ns()
            return problem
        raise AssertionError("a watch ends by a problem alone")

    async def _beat(self) -> EnvironmentProblem:
        """Why the API itself is not seen any more."""
        while True:
            await asyncio.sleep(_BEAT)
            if away := await self._away():
                return away
            self._alive_ns[None] = time.monotonic_ns()

    async def _away(self) -> EnvironmentProblem | None:
        """Why the API cannot be seen, if so."""
        try:
            async with asyncio.timeout(_PATIENCE):
                with suppress(NotSeen):
                    await self._api.list(self._pulse)
        except TimeoutError:
            return EnvironmentProblem(f"{self._api.server} has not answered for {_PATIENCE:g} s")
        except EnvironmentProblem as problem:
            return problem
        return None

    async def _forget(self, at: int, what: Selection, problem: NotSeen) -> None:
        """Follow it no more: all others can still be seen."""
        del self._versions[what]
        if what in self._tasks:
            await self._end([what])
        self._tell(Happened(at, "not_seen", str(problem), SOURCE))

    async def _see_again(self, blind: Sequence[Selection], falls: int) -> bool:
        """List it anew, as soon as that is possible; more slowly after falls that came one upon the other.

        False: something else has ended meanwhile, so more is blind than was said.
        """
        refused_until = 0.0
        for pause in _pauses(falls):
            await asyncio.sleep(pause)
            if any(task.done() for what, task in self._tasks.items() if what not in blind):
                return False
            with suppress(EnvironmentProblem):
                lists = await asyncio.gather(*map(self._listed, blind))
                refused_until = refused_until or time.monotonic() + _SETTLES
                if time.monotonic() >= refused_until or not any(isinstance(one, NotSeen) for _, one in lists):
                    break
        now = time.monotonic_ns()
        await self._end([what for what in blind if what in self._tasks])
        for what, (found, version) in zip(blind, lists, strict=True):
            if isinstance(version, NotSeen):
                await self._forget(now, what, version)
                continue
            self._versions[what] = version
            for name in self.things[what].keys() - set(map(name_of, found)):
                self._drop(now, what, name)
            for thing in found:
                self._take(now, what, thing)
        return True

    async def _listed(self, what: Selection) -> tuple[Sequence[Any], str | NotSeen]:
        """What there is, and its version, or why it can be seen no more."""
        try:
            return await self._api.list(what)
        except NotSeen as problem:
            return [], problem

    def _take(self, at: int, what: Selection, thing: Any) -> None:
        self.things[what][name_of(thing)] = thing
        self._arrived(at, what, name_of(thing), thing)

    def _drop(self, at: int, what: Selection, name: str) -> None:
        self.things[what].pop(name, None)
        self._arrived(at, what, name, None)


def _pauses(falls: int) -> Iterator[float]:
    """At once, for a 410 wants nothing but that; then longer and longer, each its own time after a common fault."""
    if not falls:
        yield 0.0
    for n in itertools.count(falls):
        yield random.uniform(0.5, 1.0) * min(_SLOWEST, 0.25 * 2**n)


def _clock(monotonic_ns: int) -> str:
    """The time of day, UTC."""
    unix_ns = time.time_ns() - (time.monotonic_ns() - monotonic_ns)
    return f"{datetime.fromtimestamp(unix_ns / NS, UTC):%H:%M:%SZ}"
