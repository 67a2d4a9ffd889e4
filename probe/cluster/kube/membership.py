"""A pod of a Job, by its environment -> the start that all its pods agree on, and the word that they are to stop."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from lightkube.resources.core_v1 import Pod

from probe.cluster.kube.api import Api, NotSeen, Selection
from probe.cluster.kube.board import INDEX, READY, START, STOP, STOPPED, Board, now_text, pods_of, said_of, text_of
from probe.cluster.kube.objects import name_of
from probe.errors import EnvironmentProblem
from probe.model import NS

JOB, NAMESPACE, POD = "DNSPROBE_JOB", "DNSPROBE_NAMESPACE", "DNSPROBE_POD"
"""A Job's manifest sets them, by the downward API."""
PATIENCE = 300.0
"""Seconds that a pod waits for the others: a node may have to be made for them."""
_LEAD_NS = 3 * NS
"""From the decision on a start to it: all must have read it by then."""
_OFTEN, _SELDOM = 0.5, 2.0
"""Seconds between two looks at the board."""
_TICKS, _TICK = 12, 0.1
"""Looks at the API server's clock, seconds apart: it shows whole seconds, so that they must see one end."""

Say = Callable[[str], None]


class Membership:
    """A pod of a Job. What it says for people goes to `say`."""

    source = "dnsprobe stop"

    def __init__(self, api: Api, namespace: str, job: str, pod: str) -> None:
        self._api, self._namespace, self._job, self._pod = api, namespace, job, pod
        self._board: Board | None = None
        self._facts: dict[str, str] = {}

    @classmethod
    def of(cls, environment: Mapping[str, str], connect: Callable[[], Api]) -> Membership | None:
        """As the manifest says; None if this is no pod of a Job."""
        job, namespace = environment.get(JOB), environment.get(NAMESPACE)
        if not job or not namespace:
            return None
        return cls(connect(), namespace, job, environment.get(POD) or socket.gethostname())

    async def close(self) -> None:
        """Let go of the API."""
        await self._api.close()

    def facts(self) -> dict[str, str]:
        """What is known of the start that was agreed on."""
        return self._facts

    async def _joined(self) -> Board:
        """The board. Which Job it is about our own pod says: its name may be another's by now."""
        if not self._board:
            found, _ = await self._api.list(Selection(Pod, self._namespace, name=self._pod))
            owners = [owner for pod in found for owner in pod.metadata.ownerReferences or [] if owner.kind == "Job"]
            if not owners:
                raise EnvironmentProblem(f"{POD}: there is no pod {self._pod} of a Job in {self._namespace}")
            self._board = Board(self._api, self._namespace, self._job, owners[0].uid)
        return self._board

    async def start(self, index: int, of: int, say: Say) -> int:
        """The instant, in ns since 1970, that shard 0 published once all were ready; this shard is so from now on.

        EnvironmentProblem names the shards that are missing after PATIENCE.
        """
        board = await self._joined()
        await self._compare_clocks()
        await board.write(f"{READY}{index}", now_text())
        until, said = time.monotonic() + PATIENCE, ""
        while True:
            try:
                notes = await board.read()
                missing = [n for n in range(of) if f"{READY}{n}" not in notes]
                waits = f"waiting for {_shards(missing, of)} to be ready" if missing else "waiting for shard 0's start"
                if not (index or missing or START in notes):
                    await board.write(START, text_of(time.time_ns() + _LEAD_NS))
            except NotSeen:
                raise
            except EnvironmentProblem as problem:
                notes, missing, waits = {}, [], str(problem)
            if STOP in notes:
                raise EnvironmentProblem(f"job/{self._job} was told to stop before it began")
            if START in notes:
                self._facts["start"] = f"{notes[START]}: job/{self._job}'s {of} shards were ready"
                return int(datetime.fromisoformat(notes[START]).timestamp() * 1e6 + 0.5) * 1000
            if time.monotonic() > until:
                raise EnvironmentProblem("; ".join([f"{waits}, for {PATIENCE:g} s now", *await self._why(missing)]))
            if waits != said and (index or missing):
                said = waits
                say(f"ready; {waits}")
            await asyncio.sleep(_OFTEN)

    async def _why(self, missing: list[int]) -> list[str]:
        """What the pods of these shards say, if they can be seen."""
        with suppress(EnvironmentProblem):
            pods, _ = await self._api.list(pods_of(self._namespace, self._job))
            by_index = {(pod.metadata.annotations or {}).get(INDEX): pod for pod in pods if pod.metadata}
            return [_reason(n, by_index.get(str(n))) for n in missing]
        return []

    async def _compare_clocks(self) -> None:
        """With the API server's, which all shards can ask: how far theirs are apart is not known otherwise."""
        least, most = -math.inf, math.inf
        for _ in range(_TICKS):
            before = time.time()
            date = await self._api.date()
            least, most = max(least, before - date - 1), min(most, time.time() - date)
            await asyncio.sleep(_TICK)
        known = f"{least:+.2f} to {most:+.2f} s from the API server's"
        self._facts["clock"] = known if least <= most else "not known: the API server's is not one clock"

    async def told_to_stop(self, say: Say) -> str:
        """Returns once somebody has said so: how. While the API is away nobody is heard."""
        said = False
        while True:
            try:
                notes = await (await self._joined()).read()
                if STOP in notes:
                    return f"told so by `dnsprobe stop` at {notes[STOP]}"
            except EnvironmentProblem as problem:
                if not said:
                    said = True
                    say(f"`dnsprobe stop` would not be heard: {problem}")
            await asyncio.sleep(_SELDOM)

    async def stops(self, say: Say) -> None:
        """Tell whoever said so that this pod has heard it."""
        try:
            await (await self._joined()).write(f"{STOPPED}{self._pod}", now_text())
        except EnvironmentProblem as problem:
            say(f"nobody can be told that this pod stops: {problem}")


def _shards(missing: list[int], of: int) -> str:
    return f"shard{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))} of {of}"


def _reason(index: int, pod: Any) -> str:
    if pod is None:
        return f"shard {index} has no pod: the Job's parallelism must be its completions"
    return f"shard {index}: pod {name_of(pod)} is {said_of(pod)}"
