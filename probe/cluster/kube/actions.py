"""A step's word and value, and the objects as they are -> the requests that are that step; nothing is sent here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from probe.cluster.kube.api import Json
from probe.cluster.kube.editing import edited_corefile
from probe.cluster.kube.patches import (
    Deletion,
    Eviction,
    Patch,
    Request,
    Thing,
    edit,
    edited,
    pointer_part,
    value_at,
)
from probe.cluster.values import READINESS, STRATEGY, pairs, seconds
from probe.errors import EnvironmentProblem, UsageError

_TEMPLATE = "/spec/template/spec"
_RESTARTED = f"/spec/template/metadata/annotations/{pointer_part('kubectl.kubernetes.io/restartedAt')}"
_SLEEP_SINCE = (1, 30)
"""The Kubernetes whose API server takes `lifecycle.preStop.sleep` (KEP-3960, beta)."""
COREFILE = "/data/Corefile"


@dataclass(frozen=True, slots=True)
class PodOn:
    """A pod that is Ready and not told to go, and the node it is on."""

    thing: Thing
    node: str


@dataclass(frozen=True, slots=True)
class Objects:
    """What steps act on, as the API says it; None is what there is none of, or what cannot be seen.

    maker: the Deployment or DaemonSet, container: of its containers the one that answers. pods: the oldest first.
    kubernetes: the API server's version, `v1.34.1`. nodes: those of pods, by name.
    """

    service: Json
    maker: Json
    container: str
    config: Json
    nodelocal: Json
    nodes: dict[str, Json]
    pods: tuple[PodOn, ...]
    kubernetes: str

    def after(self, request: Request) -> Objects:
        """As they are then, as far as a later step can know."""
        if isinstance(request, Patch):
            for name in ("service", "maker", "config", "nodelocal"):
                said = getattr(self, name)
                if said and Thing.of(said["kind"], said) == request.thing:
                    return replace(self, **{name: edited(said, request.edits)})
        return self

    def said(self, thing: Thing) -> Json:
        """The object that is meant."""
        known = [said for said in (self.service, self.maker, self.config, self.nodelocal, *self.nodes.values()) if said]
        return next((said for said in known if Thing.of(said["kind"], said) == thing), None)


@dataclass(frozen=True, slots=True)
class Change:
    """What a step does. what: to what, for the timeline; outage: why it can leave no ready endpoint, '' if it cannot.

    for_now: its patches are taken back as soon as the rest of it is done.
    """

    what: str
    requests: tuple[Request, ...]
    outage: str = ""
    for_now: bool = False


def plan(word: str, value: str, objects: Objects) -> Change:
    """What that step is here; UsageError or EnvironmentProblem says why it cannot be taken."""
    return ACTIONS[word](value, objects)


def _patch(said: Json, *fields: tuple[str, Json], lasting: bool = True) -> Patch:
    edits = tuple(one for one in (edit(said, path, after) for path, after in fields) if one)
    return Patch(Thing.of(said["kind"], said), edits, lasting)


def _changed(what: str, said: Json, *fields: tuple[str, Json]) -> Change:
    """A patch of these fields; EnvironmentProblem if they are so already: then there is nothing to measure."""
    patch = _patch(said, *fields)
    if not patch.edits:
        raise EnvironmentProblem(f"{patch.thing} is so already: {what}")
    return Change(what, (patch,), _outage_of(edited(said, patch.edits)) if patch.rolls else "")


def _maker(objects: Objects, word: str) -> Json:
    if objects.maker is None:
        raise EnvironmentProblem(f"{word}: the Deployment that makes the pods cannot be seen")
    return objects.maker


def _container(objects: Objects) -> str:
    return f"{_TEMPLATE}/containers/{objects.container}"


def _outage_of(maker: Json) -> str:
    """Why a rollout by this one's strategy can leave no pod available; '' if it cannot."""
    if maker["kind"] == "DaemonSet":
        return ""
    replicas, strategy = maker["spec"].get("replicas", 1), maker["spec"].get("strategy", {})
    if strategy.get("type") == "Recreate":
        return "strategy Recreate ends all pods before it starts new ones"
    allowed = value_at(strategy, "/rollingUpdate/maxUnavailable")
    off = _share(allowed if allowed is not None else "25%", replicas)
    if replicas and off >= replicas:
        return f"of {replicas} replicas {off} may be unavailable (maxUnavailable {allowed})"
    return ""


def _share(value: int | str, replicas: int) -> int:
    """maxUnavailable as the Deployment's controller has it: a percentage is rounded down."""
    return int(value.rstrip("%")) * replicas // 100 if isinstance(value, str) else value


def _scale(value: str, objects: Objects) -> Change:
    maker = _maker(objects, "scale")
    if maker["kind"] != "Deployment":
        raise UsageError(f"scale {value}: a {maker['kind']} makes the pods: one on each node")
    found = _changed(value, maker, ("/spec/replicas", int(value)))
    return found if int(value) else replace(found, outage="no replica is left")


def _restart(_: str, objects: Objects) -> Change:
    maker = _maker(objects, "restart")
    return Change("", (_restarted(maker),), _outage_of(maker))


def _restart_nodelocal(_: str, objects: Objects) -> Change:
    if objects.nodelocal is None:
        raise UsageError("restart_nodelocal: there is no DaemonSet node-local-dns, or it cannot be seen")
    return Change("", (_restarted(objects.nodelocal),))


def _restarted(said: Json) -> Patch:
    """As `kubectl rollout restart` does it."""
    return _patch(said, (_RESTARTED, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"), lasting=False)


def _set_image(value: str, objects: Objects) -> Change:
    maker, path = _maker(objects, "set_image"), f"{_container(objects)}/image"
    image = other_image(value_at(maker, path), value)
    return _changed(image, maker, (path, image))


def other_image(image: str, value: str) -> str:
    """`1.9.3` -> the same registry, name and manner of tag; anything else is an image in full."""
    if not re.fullmatch(r"v?[0-9]+\.[0-9]+\.[0-9]+\S*", value) or "/" in value:
        return value
    name, _, tag = image.partition("@")[0].rpartition(":")
    if "/" in tag or not name:  # the colon was a port's, or there was none
        name, tag = image.partition("@")[0], "v"
    return f"{name}:{'v' * tag.startswith('v')}{value.removeprefix('v')}"


_OUTAGES = {
    "ready off": "readiness fails on every pod without `ready`",
    "health off": "liveness fails without `health`: all pods are restarted",
    "kubernetes off": "the cluster's own names are answered no more",
}
"""What pods lose with a plugin of the Corefile, where that is cluster DNS."""


def _patch_corefile(value: str, objects: Objects) -> Change:
    if objects.config is None:
        raise EnvironmentProblem(f"patch_corefile {value}: the Corefile's ConfigMap cannot be seen")
    before = value_at(objects.config, COREFILE) or ""
    if "reload" not in {tokens[0] for line in before.splitlines() if (tokens := line.split())}:
        raise UsageError(f"patch_corefile {value}: the Corefile has no `reload`: running pods would not read it")
    if value == "reload off":
        raise UsageError("patch_corefile reload off: pods would not read the Corefile that is put back after it")
    after = edited_corefile(before, value)
    found = _changed(value, objects.config, (COREFILE, after))
    return replace(found, outage=_OUTAGES.get(value, ""))


def _grace_period(value: str, objects: Objects) -> Change:
    path = f"{_TEMPLATE}/terminationGracePeriodSeconds"
    return _changed(value, _maker(objects, "grace_period"), (path, seconds(value)))


def _pre_stop(value: str, objects: Objects) -> Change:
    maker, path = _maker(objects, "pre_stop"), f"{_container(objects)}/lifecycle/preStop"
    version = re.match(r"v?([0-9]+)\.([0-9]+)", objects.kubernetes)
    if version and (int(version[1]), int(version[2])) < _SLEEP_SINCE:
        raise EnvironmentProblem(
            f"pre_stop {value}: Kubernetes {objects.kubernetes} has no `lifecycle.preStop.sleep`, which 1.30 brings; an"
            " exec sleep is impossible in CoreDNS's image, which has no shell"
        )
    sleep = {"sleep": {"seconds": seconds(value)}} if seconds(value) else None
    if sleep is None and value_at(maker, path) and len(value_at(maker, path.removesuffix("/preStop"))) == 1:
        path = path.removesuffix("/preStop")  # the API server keeps no empty lifecycle
    return _changed(value, maker, (path, sleep))


def _readiness(value: str, objects: Objects) -> Change:
    maker, probe = _maker(objects, "readiness"), f"{_container(objects)}/readinessProbe"
    if value_at(maker, f"{probe}/httpGet") is None:
        raise UsageError(f"readiness {value}: the container has no readiness probe by HTTP to change")
    names = {"period": "periodSeconds", "failures": "failureThreshold", "path": "httpGet/path"}
    wanted = pairs(value, READINESS)
    fields = [(f"{probe}/{names[name]}", text if name == "path" else int(text)) for name, text in wanted.items()]
    return _changed(value, maker, *fields)


def _strategy(value: str, objects: Objects) -> Change:
    maker = _maker(objects, "strategy")
    at = "/spec/updateStrategy" if maker["kind"] == "DaemonSet" else "/spec/strategy"
    if value_at(maker, f"{at}/rollingUpdate") is None:
        raise UsageError(f"strategy {value}: it is {value_at(maker, f'{at}/type')}, which has no such settings")
    names = {"max_unavailable": "maxUnavailable", "max_surge": "maxSurge"}
    fields = [
        (f"{at}/rollingUpdate/{names[name]}", text if text.endswith("%") else int(text))
        for name, text in pairs(value, STRATEGY).items()
    ]
    return _changed(value, maker, *fields)


def _min_ready_seconds(value: str, objects: Objects) -> Change:
    return _changed(value, _maker(objects, "min_ready_seconds"), ("/spec/minReadySeconds", seconds(value) or None))


def _session_affinity(value: str, objects: Objects) -> Change:
    """Without affinity there is no configuration of it, and the API server has one ready for the other."""
    affinity = {"none": "None", "client_ip": "ClientIP"}[value]
    configured = [("/spec/sessionAffinityConfig", None)] if affinity == "None" else []
    return _changed(value, objects.service, ("/spec/sessionAffinity", affinity), *configured)


def _pod(value: str, objects: Objects) -> PodOn:
    """The one that is meant; the oldest if none is said."""
    pods = objects.pods[::-1] if value == "newest" else objects.pods
    found = next((pod for pod in pods if value in ("", "oldest", "newest", pod.thing.name)), None)
    if found is None:
        there = ", ".join(pod.thing.name for pod in objects.pods) or "none"
        raise EnvironmentProblem(f"no pod {value or 'is Ready'}; Ready are {there}")
    return found


def _delete_pod(value: str, objects: Objects, *, force: bool = False) -> Change:
    pod = _pod(value, objects)
    alone = f"{pod.thing.name} is the only pod that is Ready" if len(objects.pods) == 1 else ""
    return Change(pod.thing.name, (Deletion(pod.thing, force),), alone)


def _kill_pod(value: str, objects: Objects) -> Change:
    return _delete_pod(value, objects, force=True)


def _evict_dns(value: str, objects: Objects) -> Change:
    node = value or _pod("", objects).node
    mine = [pod for pod in objects.pods if pod.node == node]
    if not mine:
        there = ", ".join(dict.fromkeys(pod.node for pod in objects.pods))
        raise EnvironmentProblem(f"evict_dns {node}: no CoreDNS pod is Ready there; they are on {there}")
    if node not in objects.nodes:
        raise EnvironmentProblem(f"evict_dns {node}: the node cannot be seen")
    alone = f"all pods that are Ready are on {node}" if len(mine) == len(objects.pods) else ""
    cordon = _patch(objects.nodes[node], ("/spec/unschedulable", True))
    return Change(node, (*([cordon] if cordon.edits else []), *(Eviction(p.thing) for p in mine)), alone, for_now=True)


ACTIONS: dict[str, Callable[[str, Objects], Change]] = {
    "scale": _scale,
    "restart": _restart,
    "delete_pod": _delete_pod,
    "kill_pod": _kill_pod,
    "evict_dns": _evict_dns,
    "set_image": _set_image,
    "patch_corefile": _patch_corefile,
    "grace_period": _grace_period,
    "pre_stop": _pre_stop,
    "readiness": _readiness,
    "strategy": _strategy,
    "min_ready_seconds": _min_ready_seconds,
    "session_affinity": _session_affinity,
    "restart_nodelocal": _restart_nodelocal,
}
"""What can be done to a real cluster, by the step's word."""
