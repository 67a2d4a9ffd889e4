"""A context, a Service -> the Cluster that a Kubernetes API shows: it is watched, and nothing in it is changed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NoReturn

from lightkube.resources.apps_v1 import DaemonSet, Deployment, ReplicaSet
from lightkube.resources.core_v1 import ConfigMap, Event, Node, Pod, Service
from lightkube.resources.discovery_v1 import EndpointSlice

from probe.cluster import Happened, Meter, Shutdown
from probe.cluster.kube import objects, workloads
from probe.cluster.kube.api import Api, Selection, connect
from probe.cluster.kube.changes import Changes
from probe.cluster.kube.discovery import Found, discover, find_service
from probe.cluster.kube.logs import Logs
from probe.cluster.kube.watching import Watching
from probe.cluster.zone import METRICS_PORT
from probe.errors import UsageError
from probe.model import Target

_READ_ONLY = "acting on a real cluster is not in this version: add --lab to do it in the lab"

_COMPARED: dict[type[Any], tuple[Callable[[Any], Any], Callable[..., Iterator[Happened]]]] = {
    Pod: (objects.pod_view, Changes.pod),
    Deployment: (workloads.workload_view, Changes.workload),
    DaemonSet: (workloads.workload_view, Changes.workload),
    ReplicaSet: (workloads.replica_set_view, Changes.replica_set),
    ConfigMap: (objects.config_view, Changes.config),
    Node: (objects.node_view, Changes.node),
    Event: (objects.event_view, Changes.event),
}


def named_service(text: str) -> tuple[str, str]:
    """`openshift-dns/dns-default` -> namespace and name; UsageError for anything else."""
    label = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
    if match := re.fullmatch(f"({label})/({label})", text):
        return match[1], match[2]
    raise UsageError(f"{text!r}: say NAMESPACE/NAME, such as kube-system/kube-dns")


class Kube:
    """A real cluster. What happens in it: see Changes and Watching; `at` is when the watch's event arrived.

    context: of the kubeconfig, '' for its current one. service: namespace and name, None to find it.
    """

    namespaces: tuple[str, ...] = ("",)

    def __init__(self, context: str = "", service: tuple[str, str] | None = None) -> None:
        self._context, self._named = context, service
        self._api: Api | None = None
        self._started: tuple[Found, Changes] | None = None
        self._views: dict[tuple[Selection, str], Any] = {}
        self._happened: asyncio.Queue[Happened | None] = asyncio.Queue()
        self._watch: asyncio.Task[None] | None = None
        self._logs: Logs | None = None

    async def start(self) -> None:
        """Find the Service and its pods, and watch from then on. EnvironmentProblem: what is missing or not permitted.

        Whether the Service answers is for the run to find out.
        """
        self._api = api = connect(self._context)
        try:
            version = await api.version()
            service = await find_service(api, self._named)
            meta = service.metadata
            pulse = Selection(Service, str(meta.namespace) if meta else "", name=objects.name_of(service))
            watching = Watching(api, pulse, self._arrived, self._happened.put_nowait)
            found = await discover(api, watching, service, version)
        except BaseException:
            await self.stop()
            raise
        changes = Changes(objects.pod_port(found.now(found.slices)))
        self._started = found, changes
        self._logs = Logs(api, found.pods.namespace, self._happened.put_nowait)
        for what, things in watching.things.items():
            for name, thing in things.items():
                list(self._compared(0, what, name, thing))  # what was there before we looked has not happened
        self._watch = asyncio.create_task(watching.run())
        self._watch.add_done_callback(lambda _: self._happened.put_nowait(None))

    async def stop(self) -> None:
        """Look no more; idempotent."""
        if self._watch:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._logs:
            await self._logs.stop()
        if api := self._api:
            self._api = None
            await api.close()

    def _arrived(self, at: int, what: Selection, name: str, thing: Any | None) -> None:
        for happened in self._compared(at, what, name, thing):
            self._happened.put_nowait(happened)

    def _compared(self, at: int, what: Selection, name: str, thing: Any | None) -> Iterator[Happened]:
        """What has happened to an object since its last version."""
        found, changes = self._now
        if what.of is EndpointSlice:
            endpoints = objects.endpoints_of(found.now(found.slices))
            yield from changes.endpoints(at, objects.name_of(found.service), endpoints)
            return
        if what.of is Event and thing and not found.concerns(objects.about(thing)):
            return
        if what == found.pods:
            self._read_log(at, name, thing)
        view, compare = _COMPARED[what.of]
        before, after = self._views.pop((what, name), None), view(thing) if thing else None
        if after:
            self._views[what, name] = after
        yield from compare(changes, at, before, after)

    def _read_log(self, at: int, name: str, pod: Pod | None) -> None:
        """The log of a pod that is there, from now on if it was there before us."""
        if self._logs and pod and pod.spec:
            self._logs.follow(name, objects.dns_container(pod.spec).name, from_now=not at)
        elif self._logs:
            self._logs.leave(name)

    @property
    def _now(self) -> tuple[Found, Changes]:
        assert self._started, "it has started"  # noqa: S101
        return self._started

    def targets(self, selector: str) -> list[Target]:
        """`service` (one of each family), `nodelocal`, `upstream`, `pods` (Ready once and not deleted), or a name."""
        found, changes = self._now
        service, pods = objects.service_targets(found.service), list(changes.pods.values())
        kinds = {"service": service, "nodelocal": found.nodelocal(), "upstream": found.upstream(), "pods": pods}
        if selector in kinds:
            return kinds[selector]
        every = [target for targets in kinds.values() for target in targets]
        named = [target for target in every if target.name == selector]
        if not named:
            known = ", ".join([*kinds, *(target.name for target in every)])
            raise UsageError(f"target {selector!r}: the cluster has {known}")
        return named

    async def happened(self) -> AsyncIterator[Happened]:
        """Everything from start() to stop(). One reader."""
        while (event := await self._happened.get()) is not None:
            yield event
        if self._watch and not self._watch.cancelled():
            self._watch.result()

    def meters(self) -> list[Meter]:
        """CoreDNS pods that count, then kube-proxies: this node's, those of CoreDNS's nodes, others."""
        found, changes = self._now
        pods = changes.pods.values()
        return [*(Meter("coredns", pod.name, pod.address, METRICS_PORT) for pod in pods), *found.proxy_meters()]

    def facts(self) -> dict[str, str]:
        """What was found, and what could not be seen and why."""
        return self._now[0].facts()

    def shutdown(self) -> Shutdown:
        """As its objects say now; what cannot be seen is as Kubernetes has it by default."""
        return self._now[0].shutdown()

    # -- no action is taken: UsageError

    def check(self, word: str, value: str) -> None:
        """UsageError for every step that changes something."""
        _refuse(f"{word} {value}".strip())

    async def scale(self, replicas: int) -> None:
        _refuse(f"scale {replicas}")

    async def restart(self) -> None:
        _refuse("restart")

    async def delete_pod(self, pod: str = "", *, force: bool = False) -> str:
        _refuse(f"{'kill_pod' if force else 'delete_pod'} {pod}".strip())

    async def set_image(self, version: str) -> None:
        _refuse(f"set_image {version}")

    async def patch_corefile(self, patch: str) -> None:
        _refuse(f"patch_corefile {patch}")

    async def lose_node(self, node: str = "") -> str:
        _refuse(f"lose_node {node}".strip())

    async def set_upstream(self, mode: str) -> None:
        _refuse(f"upstream {mode}")

    async def restart_nodelocal(self) -> None:
        _refuse("restart_nodelocal")


def _refuse(what: str) -> NoReturn:
    raise UsageError(f"{what}: {_READ_ONLY}")
