"""Steps and what was found -> a plan of requests, and, permitted, those requests: recorded before, taken back after."""

from __future__ import annotations

import asyncio
import getpass
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from lightkube.resources.core_v1 import Namespace

from probe.cluster import Planned, Undone, owners
from probe.cluster.kube import loading, objects
from probe.cluster.kube.actions import COREFILE, Change, Objects, PodOn
from probe.cluster.kube.actions import plan as plan_step
from probe.cluster.kube.api import Api, Json, NotNow, NotSeen, Selection
from probe.cluster.kube.discovery import Found
from probe.cluster.kube.patches import Deletion, Eviction, Patch, Thing, kubectl, operations
from probe.cluster.kube.records import NAMESPACE, PREFIX, Record, add, drop_last, mend, records
from probe.cluster.kube.scalers import scalers
from probe.errors import EnvironmentProblem, UsageError

_EVICTS = 60.0
"""Seconds for which an eviction that a PodDisruptionBudget does not allow is asked for again."""
_AGAIN = 1.0


@dataclass(frozen=True, slots=True)
class Permission:
    """What a person has said: that the cluster of this name may be changed, and even be left without endpoints."""

    cluster: str
    allow_outage: bool = False


async def names_of(api: Api) -> list[str]:
    """What --cluster may say: the context's cluster, and kube-system's UID. A pod knows no name but the UID.

    The UID is another one in each cluster, so that a Job is refused that was meant for another one.
    """
    names = [] if api.in_pod else [api.cluster]
    try:
        namespace = await api.one("get", Selection(Namespace, name=NAMESPACE))
    except NotSeen:
        if not names:
            raise
        return names
    return [*names, str(namespace["metadata"]["uid"])]


async def check_name(api: Api, name: str) -> None:
    """UsageError unless the cluster is called that."""
    names = await names_of(api)
    if name not in names:
        where = f"{api.server}, of {api.source}," if api.in_pod else api.source
        raise UsageError(f"--cluster {name}: {where} is cluster {' or '.join(names)}: nothing was changed")


def undo_command(api: Api, name: str) -> str:
    """What mends this cluster."""
    context = f" --context {api.context}" if api.context else ""
    return f"dnsprobe undo{context} --yes --cluster {name}"


@dataclass(slots=True)
class Acting:
    """A run's hand on the cluster. tell: gets what a person should know while it goes on."""

    api: Api
    found: Found
    ready: Callable[[], list[str]]
    """The names of the pods that count, the oldest first."""
    permission: Permission | None
    tell: Callable[[str], None]
    record: Record = field(init=False)
    pods: loading.Loading | None = None
    """Pods as they were before the Corefile was put back."""
    reloading: asyncio.Task[None] | None = None
    """They are to load it."""

    def __post_init__(self) -> None:
        now = datetime.now(UTC)
        name = f"{PREFIX}{now:%Y%m%dt%H%M%Sz}-{secrets.token_hex(2)}"
        self.record = Record(name, f"run by {_who()} from {now:%Y-%m-%dT%H:%M:%SZ} on", [], stands=False)

    async def look(self) -> Objects:
        """What there is now."""
        found, api = self.found, self.api
        maker, config = found.workload, next(iter(found.now(found.config)), None)
        nodelocal = found.cache
        pods = {objects.name_of(pod): objects.pod_view(pod) for pod in found.now(found.pods)}
        counts = [pods[name] for name in self.ready() if name in pods and pods[name].ready]
        namespace = found.pods.namespace
        return Objects(
            service=await _said(api, found.service),
            maker=await _said(api, maker) if maker else None,
            container=found.container,
            config=await _said(api, config) if config else None,
            nodelocal=await _said(api, nodelocal) if nodelocal else None,
            nodes={objects.name_of(node): node.to_dict() | {"kind": "Node"} for node in found.now(found.nodes)},
            pods=tuple(PodOn(Thing("Pod", namespace, pod.name), pod.node) for pod in counts),
            kubernetes=found.version,
        )

    async def plan(self, steps: Sequence[tuple[str, str]]) -> list[Planned]:
        """See Cluster.plan. An outage that is not allowed, and a record that is there, are refused where acting is."""
        if not steps:
            return []
        if self.permission:
            await check_name(self.api, self.permission.cluster)
            await self._check_records(self.permission)
        now, found = await self.look(), []
        things, others = await self._around(now)
        for word, value in steps:
            if why := owners.refusal(word, things, others):
                raise EnvironmentProblem(f"{word} {value}".strip() + f": {why}: nothing was changed")
            change = plan_step(word, value, now)
            commands = []
            for request in change.requests:
                commands.append(kubectl(request, now.said(request.thing)))
                now = now.after(request)
            for request in reversed(change.requests) if change.for_now else ():
                if isinstance(request, Patch):
                    back = Patch(request.thing, request.backwards)
                    commands.append(kubectl(back, now.said(request.thing)))
                    now = now.after(back)
            later = owners.warning(word, things)
            notes = (f"{word}: {later}",) if later else ()
            found.append(Planned(tuple(commands), self._outage(word, value, change), notes))
        return found

    async def _check_records(self, permission: Permission) -> None:
        """EnvironmentProblem if there are any of other runs."""
        if old := await records(self.api):
            names = ", ".join(f"{NAMESPACE}/{each.name} ({each.about})" for each in old)
            raise EnvironmentProblem(
                f"a run has not taken back what it changed, or goes on: {names}. Nothing was changed; once it has"
                f" ended: {undo_command(self.api, permission.cluster)}"
            )

    async def _around(self, now: Objects) -> tuple[list[Json], list[Json]]:
        """Objects that may say who keeps them, and those beside them that may scale them."""
        others, not_seen = await scalers(self.api, self.found.pods.namespace)
        for text in not_seen:
            self.tell(f"note: {text}")
        nodes = list(now.nodes.values())[:1]
        return [each for each in (now.maker, now.config, now.service, *nodes) if each], others

    def _outage(self, word: str, value: str, change: Change) -> str:
        """Why it can leave no ready endpoint; UsageError where we act and that is not allowed."""
        if change.outage and self.permission and not self.permission.allow_outage:
            what = f"{word} {value}".strip()
            raise UsageError(f"{what}: {change.outage}: add --allow-outage if that is meant: nothing was changed")
        return change.outage

    async def act(self, word: str, value: str) -> str:
        """See Cluster.act. The record stands before the first patch is made."""
        if self.permission is None:
            raise UsageError(f"{word} {value}".strip() + ": nothing is changed without --yes --cluster NAME")
        if not self.record.stands:
            await self._check_records(self.permission)
        now = await self.look()
        change = plan_step(word, value, now)
        self._outage(word, value, change)
        patched = 0
        for request in change.requests:
            if isinstance(request, Patch):
                patched += await self._patch(request, now)
            elif isinstance(request, Deletion):
                seconds = {"gracePeriodSeconds": 0} if request.force else {}
                body = {"apiVersion": "v1", "kind": "DeleteOptions", **seconds}
                await self.api.one("delete", request.thing.selection, body)
            else:
                await self._evict(request)
        if change.for_now and patched:
            await mend(self.api, self.record, self.tell, last=patched)
        return change.what

    async def _patch(self, patch: Patch, now: Objects) -> int:
        """How many patches stand in the record for it: none for one that is not to be taken back."""
        said = now.said(patch.thing)
        reads = any(edit.path == COREFILE for edit in patch.edits)
        pods = await loading.before(self.api, self.found) if reads else None
        if patch.lasting:
            await add(self.api, self.record, patch)
        try:
            await self.api.one("patch", patch.thing.selection, operations(said, patch.edits))
        except NotNow as problem:
            if patch.lasting:
                await drop_last(self.api, self.record)
            raise EnvironmentProblem(f"{patch.thing} was changed by someone else meanwhile, or: {problem}") from None
        if pods:
            self.tell(f"waiting until every pod has loaded the Corefile, for at most {loading.SECONDS:g} s")
            await pods.until_loaded()
        return int(patch.lasting)

    async def _evict(self, eviction: Eviction) -> None:
        until, told = time.monotonic() + _EVICTS, False
        while True:
            try:
                await self.api.one("create", eviction.thing.selection, eviction.body, "eviction")
            except NotNow as problem:
                if problem.code != 429 or time.monotonic() > until:
                    text = f"{eviction.thing.name} was not evicted within {_EVICTS:g} s"
                    raise EnvironmentProblem(f"{text}: {problem}") from None
                if not told:
                    self.tell(f"{eviction.thing.name}: its PodDisruptionBudget says not now; asked again for a minute")
                told = True
                await asyncio.sleep(_AGAIN)
            else:
                return

    async def undo(self, tell: Callable[[str], None]) -> Undone:
        """See Cluster.undo."""
        if not self.record.stands:
            return Undone()
        reload = any(edit.path == COREFILE for patch in self.record.patches for edit in patch.edits)
        if reload and not self.pods:
            self.pods = await loading.before(self.api, self.found)
        undone = await mend(self.api, self.record, tell)
        if self.pods and not any(COREFILE in conflict for conflict in undone.conflicts):
            self.reloading = asyncio.create_task(self._reloaded(self.pods))
            return replace(undone, moves=True)
        return undone

    async def _reloaded(self, pods: loading.Loading) -> None:
        try:
            await pods.until_loaded()
        except EnvironmentProblem as problem:
            self.tell(str(problem))

    async def close(self) -> None:
        """Wait for pods no more."""
        if self.reloading:
            self.reloading.cancel()
            await asyncio.gather(self.reloading, return_exceptions=True)


async def _said(api: Api, thing: Any) -> Json:
    """An object that is followed, as the API says it."""
    named = Thing(type(thing).__name__, str(thing.metadata.namespace), objects.name_of(thing))
    return await api.one("get", named.selection)


def _who() -> str:
    """Who runs this, for people."""
    pod, namespace = os.environ.get("DNSPROBE_POD"), os.environ.get("DNSPROBE_NAMESPACE", "")
    if pod:
        return f"pod {namespace}/{pod}"
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return socket.gethostname()
