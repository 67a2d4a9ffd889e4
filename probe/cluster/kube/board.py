"""A Job's notice board, a ConfigMap -> what its pods and people tell one another: ready, start, stop, stopped.

A note ends with the uid of the Job that it is about: those of an earlier Job of the same name are not seen.
"""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime

from lightkube.resources.core_v1 import ConfigMap, Pod

from probe.cluster.kube.api import Api, NotNow, Selection
from probe.cluster.kube.objects import pod_view

HOME = "dnsprobe"
"""The namespace of what is ours."""
INDEX = "batch.kubernetes.io/job-completion-index"
"""A label of a pod from 1.28 on, an annotation before, too."""
START, STOP, READY, STOPPED = "start", "stop", "ready-", "stopped-"
"""Keys of notes; to the latter two a shard's number and a pod's name are added."""


class Board:
    """The notes about one Job, which `uid` tells from others of its name. EnvironmentProblem if out of reach."""

    def __init__(self, api: Api, namespace: str, job: str, uid: str) -> None:
        self._api, self._uid = api, uid
        self._what = Selection(ConfigMap, namespace, name=f"dnsprobe-{job}")

    async def read(self) -> dict[str, str]:
        """What is there now."""
        found, _ = await self._api.list(self._what)
        notes = {key: text.rpartition(" ") for one in found for key, text in (one.data or {}).items()}
        return {key: text for key, (text, _, uid) in notes.items() if uid == self._uid}

    async def write(self, key: str, text: str) -> None:
        """A note, in place of the one with this key."""
        if not (await self._api.list(self._what))[0]:
            labels = {"app.kubernetes.io/name": "dnsprobe"}
            meta = {"name": self._what.name, "namespace": self._what.namespace, "labels": labels}
            with suppress(NotNow):  # another pod was faster
                await self._api.one("create", self._what, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
        await self._api.one("patch", self._what, {"data": {key: f"{text} {self._uid}"}})


def pods_of(namespace: str, job: str) -> Selection:
    """The pods of a Job. This label is older than batch.kubernetes.io/job-name, and all versions set it."""
    return Selection(Pod, namespace, {"job-name": job})


def said_of(pod: Pod) -> str:
    """Where it is, and why it is no further: `pending: cannot be scheduled: 0/2 nodes are available`."""
    view = pod_view(pod)
    phase = str(pod.status.phase).lower() if pod.status else "pending"
    where = f" on {view.node}" if view.node else ""
    return f"{phase}{where}{f': {view.stuck}' if view.stuck else ''}"


def text_of(unix_ns: int) -> str:
    """RFC 3339, to the microsecond."""
    moment = datetime.fromtimestamp(unix_ns // 10**9, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{unix_ns // 1000 % 10**6:06d}Z"


def now_text() -> str:
    """This machine's clock."""
    return text_of(time.time_ns())
