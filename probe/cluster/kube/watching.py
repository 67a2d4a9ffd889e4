"""Selections of objects -> each object whenever it changes, for as long as the API can be had, and the gaps between."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
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
_LASTS, _FALLS = 10.0, 3
"""A watch that lasts for less seconds has fallen; what refuses us after so many falls in a row is left alone."""
_SETTLES = 5.0
"""Seconds for which a refusal is asked again: an API server that has just started refuses before it knows the roles."""


class Watching:
    """Follows what is selected. `arrived` gets each new state as it comes, None for an object that is gone.

    `things`: what there is now. Kinds of Happened: watch_gap, when one begins, and again when it is over; not_seen.
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
        self._alive_ns = 0

    async def add(self, what: Selection) -> list[Any]:
        """What there is now; from here on it is followed. EnvironmentProblem if it cannot be read."""
        found, self._versions[what] = await self._api.list(what)
        self.things[what] = {name_of(thing): thing for thing in found}
        return found

    async def run(self) -> None:
        """Until cancelled."""
        falls = 0
        while True:
            self._alive_ns = began = time.monotonic_ns()
            problems = await self._until_blind()
            since, why = self._alive_ns, str(problems[0][1])
            falls = falls + 1 if since - began < _LASTS * NS else 0
            for what, problem in problems:
                if what and falls >= _FALLS and isinstance(problem, NotSeen):
                    self._forget(since, what, problem)
            self._tell(Stretch(since, "watch_gap", f"the cluster is not seen: {why}", SOURCE, since=since))
            await self._see_again(falls)
            now = time.monotonic_ns()
            text = f"the cluster was not seen from {_clock(since)} to {_clock(now)}, {(now - since) / NS:.1f} s: {why}"
            self._tell(Stretch(now, "watch_gap", text, SOURCE, since=since))

    async def _until_blind(self) -> list[tuple[Selection | None, EnvironmentProblem]]:
        """What ended and why, the API itself or some selections; _alive_ns is when all could still be seen."""
        tasks: dict[asyncio.Task[None], Selection | None] = {asyncio.create_task(self._beat()): None}
        for selection, version in self._versions.items():
            tasks[asyncio.create_task(self._follow(selection, version))] = selection
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, EnvironmentProblem):
                raise end
        found = zip(tasks.items(), ends, strict=True)
        return [(what, end) for (task, what), end in found if task in done and isinstance(end, EnvironmentProblem)]

    async def _follow(self, what: Selection, version: str) -> None:
        """Ends only by EnvironmentProblem."""
        try:
            async for kind, thing in self._api.watch(what, version):
                self._alive_ns = time.monotonic_ns()
                self._take(self._alive_ns, what, thing)
                if kind == "DELETED":
                    self._drop(self._alive_ns, what, name_of(thing))
        except EnvironmentProblem:
            self._alive_ns = time.monotonic_ns()
            raise

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_BEAT)
            try:
                async with asyncio.timeout(_PATIENCE):
                    with suppress(NotSeen):
                        await self._api.list(self._pulse)
            except TimeoutError:
                raise EnvironmentProblem(f"{self._api.server} has not answered for {_PATIENCE:g} s") from None
            self._alive_ns = time.monotonic_ns()

    def _forget(self, at: int, what: Selection, problem: NotSeen) -> None:
        """Follow it no more: all others can still be seen."""
        del self._versions[what]
        self._tell(Happened(at, "not_seen", str(problem), SOURCE))

    async def _see_again(self, falls: int) -> None:
        """List everything anew, as soon as that is possible; more slowly after falls that came one upon the other."""
        refused_until = 0.0
        for pause in _pauses(falls):
            await asyncio.sleep(pause)
            with suppress(EnvironmentProblem):
                lists = await asyncio.gather(*map(self._listed, list(self._versions)))
                refused_until = refused_until or time.monotonic() + _SETTLES
                if time.monotonic() >= refused_until or not any(isinstance(one, NotSeen) for _, one in lists):
                    break
        now = time.monotonic_ns()
        for what, (found, version) in zip(list(self._versions), lists, strict=True):
            if isinstance(version, NotSeen):
                self._forget(now, what, version)
                continue
            self._versions[what] = version
            for name in self.things[what].keys() - set(map(name_of, found)):
                self._drop(now, what, name)
            for thing in found:
                self._take(now, what, thing)

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
