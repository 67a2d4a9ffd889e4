"""A context, a Service -> the Cluster that a Kubernetes API shows: it is watched and, with permission, changed."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from lightkube.resources.apps_v1 import DaemonSet, Deployment, ReplicaSet
from lightkube.resources.core_v1 import ConfigMap, Event, Node, Pod, Service
from lightkube.resources.discovery_v1 import EndpointSlice

from probe.cluster import Extent, Happened, Meter, Planned, Rollout, Shutdown, Stretch, Undone
from probe.cluster.kube import objects, workloads
from probe.cluster.kube.acting import Acting, Permission, names_of
from probe.cluster.kube.actions import ACTIONS
from probe.cluster.kube.api import Api, NotSeen, Selection, connect
from probe.cluster.kube.changes import Changes
from probe.cluster.kube.discovery import Found, discover, discover_endpoints, find_service
from probe.cluster.kube.logs import Logs
from probe.cluster.kube.watching import Watching
from probe.cluster.nearest import Nearest
from probe.cluster.zone import METRICS_PORT
from probe.errors import UsageError
from probe.model import Target

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

    context: of the kubeconfig, '' for its current one. service: namespace and name, None to find it. nearest: which
    pods are asked, None for all; then only the Service and its EndpointSlices are followed, and `at` of a pod is when
    these changed. permission: to change it. tell: gets what a person should know while a step goes on.
    """

    namespaces: tuple[str, ...] = ("",)
    in_use = True

    def __init__(
        self,
        context: str = "",
        service: tuple[str, str] | None = None,
        nearest: Nearest | None = None,
        permission: Permission | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._context, self._named, self._nearest = context, service, nearest
        self._permission, self._tell = permission, tell
        self._api: Api | None = None
        self._hand: Acting | None = None
        self._started: tuple[Found, Changes] | None = None
        self._views: dict[tuple[Selection, str], Any] = {}
        self._listed: dict[str, objects.PodView] = {}
        self._happened: asyncio.Queue[Happened | None] = asyncio.Queue()
        self._watch: asyncio.Task[None] | None = None
        self._logs: Logs | None = None
        self._gaps: frozenset[str] = frozenset()

    async def start(self) -> None:
        """Find the Service and its pods, and watch from then on. EnvironmentProblem: what is missing or not permitted.

        Whether the Service answers is for the run to find out.
        """
        if self._api:
            return
        self._api = api = connect(self._context)
        try:
            version = await api.version()
            service = await find_service(api, self._named)
            meta = service.metadata
            pulse = Selection(Service, str(meta.namespace) if meta else "", name=objects.name_of(service))
            watching = Watching(api, pulse, self._arrived, self._seen)
            look = discover if self._nearest is None else discover_endpoints
            found = await look(api, watching, service, version)
        except BaseException:
            await self.stop()
            raise
        changes = Changes(objects.pod_port(found.now(found.slices)))
        self._started = found, changes
        self._hand = Acting(api, found, lambda: list(changes.pods), self._permission, self._tell)
        self._logs = Logs(api, found.pods.namespace, self._happened.put_nowait)
        list(self._rollouts(0))
        for what, things in watching.things.items():
            for name, thing in things.items():
                list(self._compared(0, what, name, thing))  # what was there before we looked has not happened
        if self._nearest:
            self._nearest.begin(changes.pods.values())
        self._watch = asyncio.create_task(watching.run())
        self._watch.add_done_callback(lambda _: self._happened.put_nowait(None))

    async def stop(self) -> None:
        """Look no more; idempotent."""
        if self._hand:
            await self._hand.close()
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
            for each in self._nearest.seen(happened) if self._nearest else (happened,):
                self._happened.put_nowait(each)
        if what.of in (Pod, Deployment, DaemonSet):
            for happened in self._rollouts(at):
                self._happened.put_nowait(happened)

    def _seen(self, event: Happened) -> None:
        """A gap of the watch, of all of it or a part, or its end."""
        if isinstance(event, Stretch) and self._started:
            self._gaps = self._gaps | {event.subject} if event.at == event.since else self._gaps - {event.subject}
            self._now[1].rollouts.look(blind=bool(self._gaps))
        self._happened.put_nowait(event)

    def _rollouts(self, at: int) -> Iterator[Happened]:
        """What has come of rollouts: of what makes the pods, and of kube-proxy and NodeLocal DNSCache."""
        found, changes = self._now
        standing = [workloads.standing_of(daemons) for daemons in found.now(found.daemons)]
        if found.workload:
            pods = [objects.pod_view(pod) for pod in found.now(found.pods)]
            standing.append(workloads.standing_of(found.workload, pods))
        told = (changes.rollouts.see(at, each) for each in standing)
        yield from filter(None, told)

    def _compared(self, at: int, what: Selection, name: str, thing: Any | None) -> Iterator[Happened]:
        """What has happened to an object since its last version."""
        found, changes = self._now
        if what.of is EndpointSlice:
            endpoints = objects.endpoints_of(found.now(found.slices))
            yield from changes.endpoints(at, objects.name_of(found.service), endpoints)
            if self._nearest:
                listed = objects.listed_pods(found.now(found.slices))
                for pod in sorted(self._listed.keys() | listed.keys()):
                    yield from changes.pod(at, self._listed.get(pod), listed.get(pod))
                self._listed = listed
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
        """`service` (one of each family), `nodelocal`, `upstream`, `nodes`, `api`, `pods` (Ready once and not deleted),
        or a name.
        """
        found, changes = self._now
        service, pods = objects.service_targets(found.service), list(changes.pods.values())
        pods = self._nearest.of(pods) if self._nearest else pods
        kinds = {"service": service, "nodelocal": found.nodelocal(), "upstream": found.upstream(), "pods": pods}
        kinds |= {"nodes": found.kubelets(), "api": found.api_server()}
        if selector in kinds:
            return kinds[selector]
        every = [target for targets in kinds.values() for target in targets]
        named = [target for target in every if target.name == selector]
        if not named:
            known = ", ".join([*kinds, *(target.name for target in every)])
            raise UsageError(f"target {selector!r}: the cluster has {known}")
        return named

    def rollouts(self) -> list[Rollout]:
        """Of what makes the pods, of kube-proxy and of NodeLocal DNSCache, as far as they can be seen."""
        return self._now[1].rollouts.now

    def ready_endpoints(self) -> int | None:
        """As its EndpointSlices say."""
        found, _ = self._now
        return None if self._gaps else sum(e.ready for e in objects.endpoints_of(found.now(found.slices)))

    async def happened(self) -> AsyncIterator[Happened]:
        """Everything from start() to stop(). One reader."""
        while (event := await self._happened.get()) is not None:
            yield event
        if self._watch and not self._watch.cancelled():
            self._watch.result()

    def meters(self) -> list[Meter]:
        """CoreDNS pods that count, then kube-proxies: this node's, those of CoreDNS's nodes, others; where all nodes
        have a prober, none."""
        if self._nearest:
            return []
        found, changes = self._now
        pods = changes.pods.values()
        return [*(Meter("coredns", pod.name, pod.address, METRICS_PORT) for pod in pods), *found.proxy_meters()]

    def facts(self) -> dict[str, str]:
        """What was found, and what could not be seen and why."""
        return self._now[0].facts()

    async def headless(self, service: str, namespace: str) -> frozenset[str]:
        """Of those that are Ready, as CoreDNS has it (plugin/kubernetes/object, EndpointSliceToEndpoints)."""
        found, _ = self._now
        what = Selection(EndpointSlice, namespace, {"kubernetes.io/service-name": service})
        try:
            slices, _ = await found.api.list(what)
        except NotSeen as problem:
            found.miss(str(problem))
            return frozenset()
        endpoints = (each for one in slices for each in one.endpoints or [])
        ready = (each for each in endpoints if not each.conditions or each.conditions.ready in (None, True))
        return frozenset(str(ipaddress.ip_address(address)) for each in ready for address in each.addresses)

    def extent(self) -> Extent:
        """Ready nodes, and whose names it knows itself."""
        return self._now[0].extent()

    def shutdown(self) -> Shutdown:
        """As its objects say now; what cannot be seen is as Kubernetes has it by default."""
        return self._now[0].shutdown()

    # -- what changes it: see probe.cluster.kube.acting

    def check(self, word: str, value: str) -> None:
        """UsageError for a step that only a lab has; the rest is known once the objects are."""
        if word not in ACTIONS:
            raise UsageError(f"{word} {value}".strip() + ": only a lab does that: add --lab")

    async def plan(self, steps: Sequence[tuple[str, str]]) -> list[Planned]:
        """See Cluster.plan; a cluster that may be changed is refused if a record in it says that another run did."""
        return await self._acting.plan(steps)

    async def act(self, word: str, value: str) -> str:
        """See Cluster.act."""
        return await self._acting.act(word, value)

    async def undo(self, tell: Callable[[str], None]) -> Undone:
        """See Cluster.undo."""
        return await self._acting.undo(tell)

    def settled(self) -> bool:
        """See Cluster.settled."""
        found, _ = self._now
        ending = any(objects.pod_view(pod).told for pod in found.now(found.pods))
        over = found.workload is None or workloads.workload_view(found.workload).over
        reloading = self._acting.reloading
        return over and not ending and (reloading is None or reloading.done())

    async def names(self) -> list[str]:
        """What --cluster may say of it."""
        return await names_of(self._acting.api)

    @property
    def _acting(self) -> Acting:
        assert self._hand, "it has started"  # noqa: S101
        return self._hand
