"""The Corefile and the pods' template -> whether a pod that goes answers until all nodes know, and how it reloads."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from probe.advice import PLATFORMS, Clients, Recommendation, recommend
from probe.advice.forms import KUBECTL
from probe.advice.recommendation import QUICK
from probe.advice.rule import DNS_STOP
from probe.audit.check import Check, Evidence, Planned, Said, Severity
from probe.audit.checks.subject import (
    at,
    by_label,
    can_have,
    container_field,
    corefile_to_have,
    kubectl,
    lameducks,
    of_coredns,
    pods_to_have,
    said_version,
    single,
    whole,
)
from probe.audit.quantity import numbers
from probe.audit.snapshot import Snapshot
from probe.audit.things import Field
from probe.corefile import Directive

ASKED_FOR = 15.0
"""Seconds of lameduck that the guides ask for at least."""
_GRACE = "spec.template.spec.terminationGracePeriodSeconds"
_PORTS = {"health": 8080, "ready": 8181, "prometheus": 9153}
_RELOAD_SLEEPS = (1, 9, 4)
"""The first version that does not go through lameduck at a reload."""


def advice(snapshot: Snapshot, planned: Planned) -> Recommendation:
    """What is lost now, and the one lameduck to have, with what the platform decides: what was measured asks for, and
    where that was assumed, what the guides do."""
    where = PLATFORMS[planned.platform]
    asked_for = 0.0 if planned.measured else ASKED_FOR
    return recommend(planned.propagation, where.seen(snapshot.shutdown), settable=where.settable, asked_for=asked_for)


def lasts(snapshot: Snapshot, planned: Planned) -> dict[Clients, float]:
    """For how many seconds each kind of client loses queries when a pod goes, as it is set."""
    return {need.clients: need.lost_now for need in advice(snapshot, planned).needs}


def _longer(snapshot: Snapshot, planned: Planned) -> str:
    """Commands for a lameduck that is long enough and a grace period with room for it, or for a quicker readiness."""
    where, told = PLATFORMS[planned.platform], advice(snapshot, planned)
    said = where.patch(told) or f"# cannot be changed here: {where.keeps}"
    period, failures = QUICK
    probe = {"readinessProbe": {"periodSeconds": int(period), "failureThreshold": failures}}
    if told.quicker < told.lameduck and can_have(snapshot, planned, probe):
        said += f"\n# or readiness every {period:g} s, one failure, and a lameduck of {told.quicker:g} s:\n"
        said += pods_to_have(snapshot, planned, probe)
    return said if planned.measured else f"{said}\n# measure it first: dnsprobe recommend"


def _ducks(snapshot: Snapshot) -> tuple[str, ...]:
    found = lameducks(snapshot.corefile) or list(snapshot.corefile.all("health"))
    return tuple(at(snapshot, one) for one in found) or (f"{whole(snapshot)}: no `health`",)


@of_coredns
@single
def lameduck(snapshot: Snapshot, planned: Planned) -> Said:
    """C03."""
    seen, evidence = snapshot.shutdown.lameduck, _ducks(snapshot)
    remedy = _longer(snapshot, planned)
    if not snapshot.corefile.all("health"):
        text = "no `health`: a pod closes the moment it is told to go, while nodes still send to it"
        return Said(Severity.FAIL, text, evidence, remedy)
    if seen <= 0:
        text = "`health` without lameduck: a pod closes the moment it is told to go, while nodes still send to it"
        return Said(Severity.FAIL, text, evidence, remedy)
    lost = lasts(snapshot, planned)
    if seen < ASKED_FOR and not (planned.measured and not any(lost.values())):
        text = f"lameduck {seen:g} s; the guides ask for {ASKED_FOR:g} s and more"
        return Said(Severity.WARN, text, evidence, remedy)
    if any(lost.values()):
        text = f"lameduck {seen:g} s, as the guides ask for; C05 says whether it is enough in this cluster"
        return Said(Severity.INFO, text, evidence)
    return Said(Severity.PASS, f"lameduck {seen:g} s", evidence)


@of_coredns
@single
def grace(snapshot: Snapshot, planned: Planned) -> Said:
    """C04."""
    seen = PLATFORMS[planned.platform].seen(snapshot.shutdown)
    duck, pause = snapshot.shutdown.lameduck, seen.pre_stop
    need = pause + duck
    said = snapshot.workload.field(_GRACE)
    evidence: Evidence = (said, container_field(snapshot, "lifecycle.preStop"), *_ducks(snapshot))
    parts = f"preStop {pause:g} s and lameduck {duck:g} s" if pause else f"lameduck {duck:g} s"
    if seen.grace_fixed:
        most = max(0.0, seen.grace_period - DNS_STOP - pause)
        lines = f"health {{\n    lameduck {math.floor(most)}s\n}}\n"
        remedy = f"# {seen.grace_fixed}: no more than {most:g} s of lameduck fit\n"
        remedy += corefile_to_have(planned, lines, new=True)
    else:
        remedy = pods_to_have(snapshot, planned, {"terminationGracePeriodSeconds": advice(snapshot, planned).grace})
    room = f"grace period {seen.grace_period:g} s"
    if seen.grace_period < need:
        text = f"{room} is shorter than {parts}: pods are killed while they serve"
        return Said(Severity.FAIL, text, evidence, remedy)
    if seen.grace_period < need + DNS_STOP:
        text = f"{room} leaves {seen.grace_period - need:g} s after {parts}: CoreDNS may need {DNS_STOP:g} s to stop"
        return Said(Severity.WARN, text, evidence, remedy)
    return Said(Severity.PASS, f"{room} has room for {parts}, and {DNS_STOP:g} s to stop", evidence)


@of_coredns
@single
def outlasts(snapshot: Snapshot, planned: Planned) -> Said:
    """C05."""
    seen = PLATFORMS[planned.platform].seen(snapshot.shutdown)
    told = advice(snapshot, planned)
    lost = {need.clients: need.lost_now for need in told.needs}
    where = planned.measured or "assumed, not measured"
    slow = f"a propagation of {planned.propagation:g} s ({where})"
    asked = f"readiness by /ready every {seen.readiness_period:g} s, {seen.readiness_failures} failures"
    evidence: Evidence = (*_ducks(snapshot), container_field(snapshot, "readinessProbe.periodSeconds"),
                container_field(snapshot, "readinessProbe.failureThreshold"), slow)  # fmt: skip
    remedy = _longer(snapshot, planned)
    if lost[Clients.FRESH]:
        text = (
            f"lameduck {seen.lameduck:g} s ends before nodes have learnt that the pod goes: with {slow} they send to a"
            f" closed pod for {lost[Clients.FRESH]:g} s, at each pod that is replaced"
        )
        return Said(Severity.FAIL if planned.measured else Severity.WARN, text, evidence, remedy)
    if lost[Clients.FIXED]:
        text = (
            f"clients that keep their source port (Envoy, c-ares, HAProxy) stay with a pod until it is not Ready:"
            f" {asked}; with lameduck {seen.lameduck:g} s they lose up to {lost[Clients.FIXED]:g} s"
        )
        return Said(Severity.WARN, text, evidence, remedy)
    return Said(Severity.PASS, f"lameduck {seen.lameduck:g} s outlasts {slow}, for all clients", evidence)


@of_coredns
@single
def readiness(snapshot: Snapshot, planned: Planned) -> Said:
    """C06."""
    probe = container_field(snapshot, "readinessProbe.httpGet")
    path = str((probe.value or {}).get("path") or "")
    plugins = snapshot.corefile.all("ready")
    add = corefile_to_have(planned, "ready", new=True)
    here = tuple(at(snapshot, one) for one in plugins) or (f"{whole(snapshot)}: no `ready`",)
    version = numbers(snapshot.coredns_version)
    if plugins and () < version < (1, 5, 0):
        text = f"CoreDNS {said_version(version)} does not know `ready`: its pods end as they start"
        return Said(Severity.FAIL, text, here, f"{KUBECTL} edit configmap coredns   # take out `ready`")
    if not plugins and path == "/ready":
        text = "the readiness probe asks /ready and the Corefile has no `ready`: no new pod ever becomes Ready"
        return Said(Severity.FAIL, text, (probe, *here), add)
    if not plugins:
        asked_for = planned.platform == "ack"
        text = "no `ready`: the template of the next version probes /ready, as all do by now; no new pod would be Ready"
        return Said(Severity.FAIL if asked_for else Severity.WARN, text, (probe, *here), add)
    port = _probed(snapshot, probe)
    listens = {_port(one) for one in plugins}
    if path == "/ready" and port and port not in listens:
        text = f"the probe asks port {port}, and `ready` listens on {', '.join(map(str, sorted(listens)))}"
        return Said(Severity.FAIL, text, (probe, *here), corefile_to_have(planned, f"ready :{port}", new=False))
    by_ready = {"readinessProbe": {"httpGet": {"path": "/ready", "port": min(listens), "scheme": "HTTP"}}}
    if path != "/ready":
        what = f"asks {path}" if path else "is missing"
        text = f"the readiness probe {what}: pods count as Ready before they know a record, and until lameduck is over"
        return Said(Severity.WARN, text, (probe, *here), pods_to_have(snapshot, planned, by_ready))
    return Said(Severity.PASS, "the probe asks /ready, and the Corefile has `ready`", (probe, *here))


def _probed(snapshot: Snapshot, probe: Field) -> int:
    """The number of its port, which may be the name of one of the container's."""
    port = (probe.value or {}).get("port")
    if isinstance(port, int) or str(port).isdecimal():
        return int(str(port))
    named = container_field(snapshot, f"ports[{port}].containerPort").value
    return int(named or 0)


def _port(directive: Directive) -> int:
    """Where a plugin listens: its argument, `:8181`, or its default."""
    said = directive.arguments[0].rpartition(":")[2] if directive.arguments else ""
    return int(said) if said.isdecimal() else _PORTS[directive.name]


@of_coredns
def listeners(snapshot: Snapshot, _planned: Planned) -> Iterator[Said]:
    """C07."""
    on: dict[int, dict[str, Directive]] = defaultdict(dict)
    for name in _PORTS:
        for one in snapshot.corefile.all(name):
            on[_port(one)].setdefault(name, one)
    found: list[Said] = []
    for port, those in on.items():
        if len(those) > 1:
            text = (
                f"{' and '.join(those)} share port {port}: CoreDNS starts, and the kernel gives each request to any one"
                " of them, so that checks fail at random"
            )
            remedy = f"{KUBECTL} edit configmap coredns   # health :8080, ready :8181, prometheus :9153"
            found.append(Said(Severity.FAIL, text, tuple(at(snapshot, one) for one in those.values()), remedy))
    blocks = [block for block in snapshot.corefile.blocks if block.all("health")]
    if len(blocks) > 1:
        each = [one for block in blocks for one in block.all("health")]
        text = (
            f"`health` stands in {len(blocks)} server blocks, though it is of the whole process: their lameducks come"
            f" one after the other, {snapshot.shutdown.lameduck:g} s in all"
        )
        remedy = f"{KUBECTL} edit configmap coredns   # leave `health` in the first server block alone"
        found.append(Said(Severity.WARN, text, tuple(at(snapshot, one) for one in each), remedy))
    seen = tuple(at(snapshot, one) for those in on.values() for one in those.values())
    yield from found or [
        Said(Severity.PASS, "each listens on a port of its own, `health` once", seen or (whole(snapshot),))
    ]


@of_coredns
@single
def reload(snapshot: Snapshot, planned: Planned) -> Said:
    """C08."""
    plugins = snapshot.corefile.all("reload")
    seen, version = snapshot.shutdown, numbers(snapshot.coredns_version)
    if not plugins:
        text = "no `reload`: an edit of the ConfigMap does nothing until the pods are restarted"
        remedy = corefile_to_have(planned, "reload", new=True)
        remedy += f"\n{KUBECTL} rollout restart {snapshot.workload.kind.lower()} {snapshot.workload.name}"
        return Said(Severity.WARN, text, (f"{whole(snapshot)}: no `reload`",), remedy)
    evidence: Evidence = (
        *(at(snapshot, one) for one in plugins),
        *_ducks(snapshot),
        container_field(snapshot, "image"),
    )
    bears = (seen.readiness_failures - 1) * seen.readiness_period if seen.readiness == "ready" else math.inf
    if not version and seen.lameduck >= bears:
        text = "CoreDNS's version is not known: before 1.9.4 each reload is unready for a whole lameduck"
        return Said(
            Severity.UNKNOWN, text, evidence, f"{kubectl(snapshot)} logs {by_label(snapshot)} --tail=-1 | grep CoreDNS-"
        )
    if () < version < _RELOAD_SLEEPS and seen.lameduck >= bears:
        text = (
            f"CoreDNS {said_version(version)} closes /ready for its whole lameduck of {seen.lameduck:g} s at every"
            f" reload, and the probe bears {bears:g} s: an edit of the Corefile may make all pods not Ready at once"
        )
        remedy = "# upgrade to 1.9.4 or later before lameduck is raised or the Corefile is edited"
        return Said(Severity.FAIL, text, evidence, remedy)
    if () < version < _RELOAD_SLEEPS and bears < math.inf:
        text = (
            f"reloads close /ready for {seen.lameduck:g} s (before 1.9.4), which the probe bears; a lameduck of"
            f" {bears:g} s or more would not be borne: upgrade first"
        )
        return Said(Severity.INFO, text, evidence)
    return Said(Severity.PASS, "the Corefile is reloaded, and readiness stays", evidence)


@single
def pre_stop(snapshot: Snapshot, planned: Planned) -> Said:
    """C09."""
    hook = container_field(snapshot, "lifecycle.preStop")
    kinds = hook.value or {}
    image = container_field(snapshot, "image")
    without = pods_to_have(snapshot, planned, {"lifecycle": None})
    if not kinds:
        return Said(Severity.PASS, "no preStop hook: lameduck does its work", (hook,))
    if "exec" in kinds:
        text = (
            "preStop runs a command, and CoreDNS's image has none to run: the hook fails at once, and there is no pause"
        )
        ours = "coredns" in str(image.value)
        return Said(Severity.FAIL if ours else Severity.WARN, text, (hook, image), without)
    if "sleep" in kinds:
        now = snapshot.kubernetes
        if now >= (1, 30):
            return Said(Severity.PASS, f"preStop sleeps {kinds['sleep'].get('seconds', 0)} s", (hook,))
        known = "alpha there, and off unless PodLifecycleSleepAction is on" if now == (1, 29) else "not known there"
        text = f"preStop `sleep` on Kubernetes {said_version(now)} is {known}: the pause may not be"
        return Said(Severity.WARN, text, (hook, f"version {said_version(now)}"), without)
    return Said(Severity.INFO, "preStop asks a URL: what that does is not known here", (hook,))


SHUTDOWN = (
    Check(
        "C03",
        "health with lameduck",
        "a pod must go on answering until every node has learnt that it goes",
        "Alibaba Cloud ACK, precautions for upgrading CoreDNS (15 s); EKS best practices; coredns plugin/health",
        lameduck,
    ),
    Check(
        "C04",
        "grace period",
        "preStop and lameduck are paid out of the grace period: what does not fit is cut off by SIGKILL",
        "kubelet killContainer; aws/aws-eks-best-practices#728; aws/containers-roadmap#2595",
        grace,
    ),
    Check(
        "C05",
        "lameduck, propagation and readiness",
        "lameduck must outlast what nodes need to learn of the pod's end, and for fixed source ports readiness, too",
        "coredns/helm#204; coredns/deployment#206; kubernetes/kubernetes#129617",
        outlasts,
    ),
    Check(
        "C06",
        "ready and the readiness probe",
        "a probe on /ready that nobody answers stops every rollout; none at all sends queries to pods without records",
        "Alibaba Cloud ACK, checks before upgrading CoreDNS",
        readiness,
    ),
    Check(
        "C07",
        "health, ready and prometheus: where and how often",
        "they are of the whole process: two on one port disturb each other, and several lameducks add up",
        "coredns plugin/health README; tried with CoreDNS 1.9.3 and 1.15.0",
        listeners,
    ),
    Check(
        "C08",
        "reload",
        "without it an edit does nothing, and before 1.9.4 every reload is unready for a whole lameduck",
        "coredns/coredns#5472",
        reload,
    ),
    Check(
        "C09",
        "preStop",
        "a hook that cannot run gives no pause, whatever it says",
        "KEP-3960; CoreDNS's image has no shell",
        pre_stop,
    ),
)
