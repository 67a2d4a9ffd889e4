"""Pods before their Corefile is patched -> each of them once it has loaded the new one, and how they bore it.

A pod says so by its metric `coredns_reload_version_info` (a hash of what it has loaded), where it can be asked, else by
its log (plugin/reload, metrics.go; caddy, Instance.Restart).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from probe.cluster.kube import objects
from probe.cluster.kube.api import Api, NotSeen
from probe.cluster.kube.discovery import Found
from probe.cluster.scrape import scrape
from probe.cluster.zone import METRICS_PORT
from probe.errors import EnvironmentProblem

SECONDS = 180.0
"""For which pods may take: a kubelet brings a ConfigMap within some 90 s, reload looks every 30 +- 15 s."""
_LOOKS = 1.0
_VERSION, _FAILED = "coredns_reload_version_info", "coredns_reload_failed_total"
_DONE, _REFUSED = "Reloading complete", "Restart failed"


@dataclass(frozen=True, slots=True)
class _Said:
    """What a pod's metrics say: the hash of what it has loaded, and how often it could not."""

    version: str
    failed: float


@dataclass(frozen=True, slots=True)
class Loading:
    """Pods by name as they were before the patch; None for one whose metrics cannot be read from here."""

    api: Api
    found: Found
    before: dict[str, tuple[objects.PodView, _Said | None]]
    since: datetime

    async def until_loaded(self) -> None:
        """EnvironmentProblem if that takes too long, if a pod refuses it, restarts or is not Ready on the way."""
        until = time.monotonic() + SECONDS
        left = set(self.before)
        while left:
            now = {view.name: view for view in _views(self.found)}
            left &= now.keys()  # a pod that is new has read the new one
            for name in list(left):
                if await self._has_loaded(now[name]):
                    left.discard(name)
            if left and time.monotonic() > until:
                raise EnvironmentProblem(f"{', '.join(sorted(left))}: has not loaded the Corefile within {SECONDS:g} s")
            await asyncio.sleep(_LOOKS if left else 0)

    async def _has_loaded(self, now: objects.PodView) -> bool:
        was, said = self.before[now.name]
        if now.restarts > was.restarts:
            raise EnvironmentProblem(f"{now.name} was restarted while it was to load the Corefile")
        if not now.ready and not now.told:
            raise EnvironmentProblem(f"{now.name} is not Ready while it is to load the Corefile")
        if said is not None:
            says = await _metrics(now.address)
            if says and says.failed > said.failed:
                raise _refused(now)
            return says is not None and says.version != said.version
        asked = {"container": self.found.container, "sinceTime": f"{self.since:%Y-%m-%dT%H:%M:%SZ}"}
        try:
            log = "\n".join([line async for line in self.api.log(self.found.pods.namespace, now.name, **asked)])
        except NotSeen as problem:
            text = (
                f"whether {now.name} has loaded the Corefile cannot be seen: port {METRICS_PORT} not reached; {problem}"
            )
            raise EnvironmentProblem(text) from None
        if _REFUSED in log:
            raise _refused(now)
        return _DONE in log


def _refused(pod: objects.PodView) -> EnvironmentProblem:
    return EnvironmentProblem(f"{pod.name} could not load the Corefile, and keeps the former one: see its log")


async def before(api: Api, found: Found) -> Loading:
    """The pods as they are now."""
    views = list(_views(found))
    said = await asyncio.gather(*(_metrics(view.address) for view in views))
    return Loading(api, found, {v.name: (v, s) for v, s in zip(views, said, strict=True)}, datetime.now(UTC))


def _views(found: Found) -> list[objects.PodView]:
    """Pods that are not told to go."""
    return [view for view in map(objects.pod_view, found.now(found.pods)) if not view.told]


async def _metrics(address: str) -> _Said | None:
    """None if they cannot be read, or say nothing of reloads."""
    with suppress(OSError):
        page = await scrape(address, METRICS_PORT, "", {_VERSION, _FAILED})
        version = sorted(sample.labels["value"] for sample in page if sample.name == _VERSION)
        failed = [sample.value for sample in page if sample.name == _FAILED]
        if failed:  # the version is there after the first reload
            return _Said(" ".join(version), sum(failed))
    return None
