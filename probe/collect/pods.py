"""A Job -> what each of its pods leaves: its run file once it is served, its log as it is written; in a folder."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probe.cluster.kube.jobs import OVER, RUNNING, JobPod, JobPods, JobState, NotSeen
from probe.errors import EnvironmentProblem

LOOK_S = 2.0
"""The pods are listed so often: a list goes on working where a watch must begin anew."""
SOON_S, SELDOM_S = 0.5, 10.0
"""A pod is asked for its file so often: once its run is over or it was told to go; and before."""
STILL_S = 30.0
"""So often it is said what is waited for."""
MOST_INDEX = 1 << 16
NAMED = 50
"""A pod has at least so much of the name of its Job, of which Kubernetes cuts off what makes it too long."""

Note = Callable[[str], None]


@dataclass(slots=True)
class Left:
    """What there is of one pod. file: its run file, None without one; log: its lines so far; why: there is no file."""

    pod: JobPod
    folder: Path
    gone: bool = False
    told: bool = False
    file: Path | None = None
    why: str = ""
    _seen: set[str] = field(default_factory=set)
    _stir: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """What an earlier collection left in the folder counts."""
        there = self.folder / f"{self.pod.name}.db"
        self.file = there if there.exists() else None
        self._seen = set(self.log())

    @property
    def log_file(self) -> Path:
        """Its log as far as it was read, line by line as it came."""
        return self.folder / f"{self.pod.name}.log"

    def log(self) -> list[str]:
        """The lines of its log."""
        if not self.log_file.exists():
            return []
        return self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()

    def take(self, lines: list[str]) -> None:
        """Lines of the log, some of which may be there already."""
        new = [line for line in lines if line not in self._seen]
        self._seen |= set(new)
        with self.log_file.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in new)
        if any('"type": "verdict"' in line for line in new):
            self.told = True
            self._stir.set()

    @property
    def ended(self) -> bool:
        """Nothing more will come of it."""
        return self.gone or self.pod.state == OVER

    def look(self, pod: JobPod | None) -> None:
        """As it is now; None once it is gone."""
        self.gone = pod is None
        self.pod = pod or self.pod
        if self.ended or self.pod.going:
            self._stir.set()

    async def wait(self) -> None:
        """Until it is to be asked again."""
        soon = self.told or self.pod.going
        try:
            await asyncio.wait_for(self._stir.wait(), SOON_S if soon else SELDOM_S)
        except TimeoutError:
            return
        self._stir.clear()
        if not self.ended:
            await asyncio.sleep(SOON_S / 2)


async def collected(pods: JobPods, folder: Path, port: int, note: Note) -> list[Left]:
    """Waits until the Job is over, and takes what its pods serve and print. What is taken is in the folder at once, and
    what is there of pods that are no more counts.

    EnvironmentProblem: there is no such Job, its pods cannot be listed, or the folder cannot be written. An API that
    goes away is waited for.
    """
    found: dict[str, Left] = {}
    tasks: list[asyncio.Task[None]] = []
    said_s = time.monotonic()
    try:
        while True:
            now, job = await _listed(pods, note, patient=bool(found))
            known = {*found, *(pod.name for pod in now)}
            found |= _kept(pods.name, folder, known, job.made_s if job else 0.0, note)
            if not job and not now and not found:
                raise EnvironmentProblem(
                    f"job/{pods.name}: there is none in {pods.namespace}, and no pod of it: see -n"
                )
            for left in _looked(found, now, folder, note):
                tasks += [asyncio.create_task(_follow(pods, left)), asyncio.create_task(_fetch(pods, left, port, note))]
            is_over = (not job or job.over) and all(left.ended for left in found.values())
            if is_over and tasks:  # a node that died never ends its logs
                await asyncio.wait(tasks, timeout=2 * SELDOM_S)
            _check(tasks, folder)
            if is_over:
                return list(found.values())
            if time.monotonic() - said_s > STILL_S:
                said_s = time.monotonic()
                note(_waiting(found))
            await asyncio.sleep(LOOK_S)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _listed(pods: JobPods, note: Note, *, patient: bool) -> tuple[list[JobPod], JobState | None]:
    """The pods there are, and their Job; patient: an API that goes away is waited for."""
    away = False
    while True:
        try:
            return await pods.now(), await pods.job()
        except NotSeen:
            raise
        except EnvironmentProblem as problem:
            if not patient:
                raise
            if not away:
                note(f"{problem}; waiting for it")
            away = True
            await asyncio.sleep(LOOK_S)


def _check(tasks: list[asyncio.Task[None]], folder: Path) -> None:
    """What ended one of them ends all: a folder that cannot be written."""
    for task in tasks:
        try:
            if task.done():
                task.result()
        except OSError as problem:
            remedy = "make room, and collect again: what is there counts"
            raise EnvironmentProblem(f"{folder}: cannot be written: {problem.strerror}; {remedy}") from None


def _kept(job: str, folder: Path, known: set[str], made_s: float, note: Note) -> dict[str, Left]:
    """What an earlier collection took of pods that are no more. What is older than the Job is another's of its name."""
    rest = "([0-9]+-)?[a-z0-9]+" if len(job) < NAMED else ".*"  # load-big-x7f2k is none of a Job `load`
    ours = re.compile(re.escape(f"{job}-"[:NAMED]) + rest)
    files: dict[str, list[str]] = {}
    for file in sorted(folder.iterdir()):
        mine = ours.fullmatch(file.stem) is not None and file.stem not in known
        if mine and file.suffix in (".db", ".log") and ".log.db" not in file.name and file.stat().st_mtime >= made_s:
            files.setdefault(file.stem, []).append(file.name)
    found = {}
    for name, names in files.items():
        index = name.removeprefix(f"{job}-").rpartition("-")[0]
        pod = JobPod(name, index if index.isdecimal() else "", node="", going=False, state=OVER)
        found[name] = Left(pod, folder, gone=True)
        note(f"{pod}: is no more; what an earlier collection kept of it counts: {', '.join(names)}")
    return found


def _looked(found: dict[str, Left], now: list[JobPod], folder: Path, note: Note) -> Iterator[Left]:
    """Those that are new."""
    there = {pod.name: pod for pod in now}
    for name, left in found.items():
        before = left.pod
        left.look(there.get(name))
        if left.pod.going and not before.going:
            note(f"{left.pod}: was told to go")
        elif left.pod.state != before.state:
            note(f"{left.pod}: {left.pod.state}")
    for name, pod in there.items():
        if name not in found:
            found[name] = Left(pod, folder)
            have = ", its run file is here already" if found[name].file else ""
            note(f"{pod}{f', index {pod.index}' if pod.index else ''}: {pod.state}{have}")
            yield found[name]


def _waiting(found: dict[str, Left]) -> str:
    open_ = [str(left.pod) for left in found.values() if not left.ended]
    have = sum(left.file is not None for left in found.values())
    return f"waiting for {', '.join(open_) or 'pods of the Job'}; {have} of {len(found)} run files are here"


async def _follow(pods: JobPods, left: Left) -> None:
    """Its log, from its beginning, over and over until the pod has ended: lines that are known are left out."""
    tries = 0
    while tries < 2:
        if left.pod.state in (RUNNING, OVER):
            tries += left.ended
            try:
                async for lines in _lines(pods.log(left.pod.name)):
                    left.take(lines)
            except EnvironmentProblem as problem:
                left.why = left.why or str(problem)
            else:
                tries += left.ended
        elif left.gone:
            return
        await asyncio.sleep(SOON_S)


async def _lines(octets: AsyncIterator[bytes]) -> AsyncIterator[list[str]]:
    """Whole lines, as many as came together."""
    rest = b""
    async for more in octets:
        *whole, rest = (rest + more).split(b"\n")
        if whole:
            yield [line.decode("utf-8", "replace") for line in whole]
    if rest:
        yield [rest.decode("utf-8", "replace")]


async def _fetch(pods: JobPods, left: Left, port: int, note: Note) -> None:
    """Its run file, as soon as it is served."""
    while not left.file and not left.ended:
        if left.pod.state == RUNNING:
            try:
                index = json.loads(await _read(pods.served(left.pod.name, port, "/")))
                if index["state"] == "over":
                    left.file = await _take(pods, left, port, index)
                    note(f"{left.pod}: {index['octets'] / 1e3:,.0f} kB, {index['verdict']}")
                    return
            except EnvironmentProblem as problem:
                left.why = str(problem)
            except (ValueError, KeyError, TypeError, zlib.error) as problem:
                left.why = f"what its port {port} serves is no run file of dnsprobe: {problem!r}"
        await left.wait()


async def _take(pods: JobPods, left: Left, port: int, index: dict[str, Any]) -> Path:
    """Fetches the file, and lets the pod go."""
    name = left.pod.name
    part, digest, unpacking = left.folder / f"{name}.db.part", hashlib.sha256(), zlib.decompressobj(wbits=31)
    with part.open("wb") as file:
        async for packed in pods.served(name, port, "/run.db.gz"):
            octets = unpacking.decompress(packed)
            digest.update(octets)
            file.write(octets)
            if file.tell() > index["octets"]:
                raise ValueError("it has more octets than were told")
    if digest.hexdigest() != index["sha256"]:
        raise ValueError("its digest is not the one that was told")
    part.rename(whole := part.with_suffix(""))
    try:
        await _read(pods.served(name, port, f"/taken?sha256={index['sha256']}"))
    except EnvironmentProblem as problem:
        left.why = f"it goes on serving, for it was not heard that it need not: {problem}"
    return whole


async def _read(octets: AsyncIterator[bytes]) -> bytes:
    """ValueError for more than an index has."""
    found = b""
    async for piece in octets:
        found += piece
        if len(found) > MOST_INDEX:
            raise ValueError(f"more than {MOST_INDEX:,} octets")
    return found
