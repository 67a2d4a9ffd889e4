"""A Snapshot from before an upgrade and one from after it -> what was overwritten, and the patch that puts it back.

What upgrades overwrite: ACK, upgrade CoreDNS automatically (tolerations, requests, limits); kubeadm, the Deployment
(kubernetes/kubernetes cmd/kubeadm/app/phases/addons/dns/dns.go, createCoreDNSAddon).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import unified_diff

from probe.advice import PLATFORMS
from probe.advice.forms import Maker
from probe.audit.check import Severity
from probe.audit.snapshot import CUSTOM, Snapshot, Unread, containers_of
from probe.audit.things import Json, Thing
from probe.model import Finding

_OF_SPEC = ("replicas", "minReadySeconds", "strategy", "updateStrategy")
_OF_POD = (
    "tolerations", "nodeSelector", "affinity", "topologySpreadConstraints", "priorityClassName", "dnsPolicy",
    "terminationGracePeriodSeconds", "volumes",
)  # fmt: skip
_OF_CONTAINER = ("resources", "readinessProbe", "livenessProbe", "lifecycle", "args", "env", "volumeMounts")
_OF_SERVICE = ("sessionAffinity", "sessionAffinityConfig", "internalTrafficPolicy", "trafficDistribution")
_PROXIES = ("kube-proxy-worker", "kube-proxy", "kube-proxy-config")
_TEMPLATE = "spec.template.spec"
_LINES = 40
_BY_KUBECTL = ("kubeadm", "ack", "capi", "kops", "k3s")
"""Platforms on which an edit in the cluster stays, until the next upgrade at least."""


@dataclass(frozen=True, slots=True)
class Overwritten:
    """A field of an object. pointer: its place as a JSON pointer (RFC 6901) in the object as it is now."""

    thing: Thing
    path: str
    pointer: str
    before: Json
    now: Json

    @property
    def operation(self) -> dict[str, Json]:
        """The operation of a JSON patch (RFC 6902) that puts it back: `add` takes the place of what is there."""
        if self.before is None:
            return {"op": "remove", "path": self.pointer}
        return {"op": "add", "path": self.pointer, "value": self.before}


def against(before: Snapshot, now: Snapshot, platform: str = "kubeadm") -> list[Finding]:
    """One for each object that is otherwise, or gone; the new image is what an upgrade is for, and informs.

    platform: a key of PLATFORMS, in whose form it is put back; what cannot be compared is not said to be as it was.
    """
    found: list[Finding] = []
    for compare in (_images, lambda b, n: _workload(b, n, platform), _service, _configs, _budgets):
        try:
            found += compare(before, now)
        except Unread as problem:
            text = f"{problem.kind}s cannot be compared: {problem}"
            found += [Finding("unread", Severity.UNKNOWN.value, text)] if text not in {f.text for f in found} else []
    return found


def overwritten(before: Thing, now: Thing) -> Iterator[Overwritten]:
    """What of a Deployment or DaemonSet is not as it was."""
    for name in _OF_SPEC:
        yield from _field(before, now, f"spec.{name}", f"/spec/{name}")
    for name in _OF_POD:
        yield from _field(before, now, f"{_TEMPLATE}.{name}", f"/spec/template/spec/{name}")
    there = [str(one.get("name")) for one in containers_of(before)]
    for n, container in enumerate(containers_of(now)):
        if str(container.get("name")) in there:
            for name in _OF_CONTAINER:
                path = f"{_TEMPLATE}.containers[{container.get('name')}].{name}"
                yield from _field(before, now, path, f"/spec/template/spec/containers/{n}/{name}")


def _field(before: Thing, now: Thing, path: str, pointer: str) -> Iterator[Overwritten]:
    was, is_ = before.at(path), now.at(path)
    if (was or None) != (is_ or None):  # {} and nothing are the same to the API
        yield Overwritten(now, path, pointer, was, is_)


def _images(before: Snapshot, now: Snapshot) -> Iterator[Finding]:
    path = f"{now.at_container}.image"
    was, is_ = before.workload.at(f"{before.at_container}.image"), now.workload.at(path)
    text = f"{now.workload} has another image" if was != is_ else f"{now.workload} still has the image {is_}"
    yield Finding("image", Severity.INFO.value, text, f"{path}: {was} -> {is_}" if was != is_ else "")


def _workload(before: Snapshot, now: Snapshot, platform: str) -> Iterator[Finding]:
    changes = list(overwritten(before.workload, now.workload))
    if not changes:
        return
    found = _put_back(now.workload, changes)
    pods, maker = PLATFORMS[platform].pods, Maker(now.workload.kind, now.workload.name, now.namespace, now.container)
    wanted = {change.path.rpartition(".")[2]: change.before for change in changes}
    mine = {name: value for name, value in wanted.items() if pods({name: value}, maker)}
    if platform in _BY_KUBECTL:
        notes = [line for line in pods(mine, maker).splitlines() if line.startswith("#")] if mine else []
        yield replace(found, remedy="\n".join([*notes, found.remedy]))
        return
    rest = [name for name in wanted if name not in mine]
    lasts = [f"# {', '.join(rest)}: {PLATFORMS[platform].keeps}"] if rest else []
    yield replace(found, remedy="\n".join([*([pods(mine, maker)] if mine else []), *lasts]))


def _service(before: Snapshot, now: Snapshot) -> Iterator[Finding]:
    if before.service and now.service:
        changes = [
            change
            for name in _OF_SERVICE
            for change in _field(before.service, now.service, f"spec.{name}", f"/spec/{name}")
        ]
        if changes:
            yield _put_back(now.service, changes)


def _put_back(thing: Thing, changes: list[Overwritten]) -> Finding:
    names = ", ".join(change.path.rpartition(".")[2] for change in changes)
    evidence = "\n".join(f"{change.path}: {_shown(change.before)} -> {_shown(change.now)}" for change in changes)
    patch = json.dumps([change.operation for change in changes], separators=(",", ":"))
    command = f"kubectl -n {thing.namespace} patch {thing.kind.lower()} {thing.name} --type json --patch"
    return Finding("overwritten", Severity.WARN.value, f"{thing}: {names}", evidence, f"{command} {shlex.quote(patch)}")


def _shown(value: Json) -> str:
    return "not set" if value is None else json.dumps(value)


def _configs(before: Snapshot, now: Snapshot) -> Iterator[Finding]:
    """Corefile, the person's own parts of it, kube-proxy's and NodeLocal DNSCache's configuration."""
    pairs = [(before.config, now.config)]
    names = [(CUSTOM, before.namespace), *((name, "kube-system") for name in (*_PROXIES, "node-local-dns"))]
    for name, namespace in names:
        with suppress(Unread):
            pairs.append((before.one("ConfigMap", name, namespace), now.one("ConfigMap", name, namespace)))
    for was, is_ in pairs:
        if was and is_ is None:
            yield _gone(was)
        elif was and is_ and (was.at("data") or {}) != (is_.at("data") or {}):
            yield _config(was, is_)


def _config(was: Thing, now: Thing) -> Finding:
    old, new = was.at("data") or {}, now.at("data") or {}
    lines: list[str] = []
    for key in sorted({*old, *new}):
        texts = (str(old.get(key, "")).splitlines(), str(new.get(key, "")).splitlines())
        lines += unified_diff(*texts, f"{key}, before", f"{key}, now", n=1, lineterm="")
    more = [f"and {len(lines) - _LINES} more lines"] if len(lines) > _LINES else []
    back = {key: old.get(key) for key in sorted({*old, *new}) if old.get(key) != new.get(key)}
    patch = json.dumps({"data": back}, separators=(",", ":"))
    migrated = ["# an upgrade may have to change a Corefile: see `dnsprobe audit --migrate` first"]
    command = f"kubectl -n {now.namespace} patch configmap {now.name} --type merge --patch {shlex.quote(patch)}"
    return Finding(
        "overwritten",
        Severity.WARN.value,
        f"{now}: {', '.join(back)}",
        "\n".join([*lines[:_LINES], *more]),
        "\n".join([*(migrated if "Corefile" in back else []), command]),
    )


def _gone(was: Thing) -> Finding:
    kept = {name: was.body[name] for name in ("apiVersion", "kind", "data", "spec") if name in was.body}
    meta = {name: was.at(f"metadata.{name}") for name in ("name", "namespace", "labels") if was.at(f"metadata.{name}")}
    apis = {"ConfigMap": "v1", "PodDisruptionBudget": "policy/v1", "HorizontalPodAutoscaler": "autoscaling/v2"}
    body = {"apiVersion": apis[was.kind], **kept, "metadata": meta}
    return Finding(
        "gone",
        Severity.WARN.value,
        f"{was}: is gone",
        remedy=f"kubectl create -f - <<'EOF'\n{json.dumps(body, separators=(',', ':'))}\nEOF",
    )


def _budgets(before: Snapshot, now: Snapshot) -> Iterator[Finding]:
    """PodDisruptionBudgets and autoscalers beside cluster DNS."""
    for kind in ("PodDisruptionBudget", "HorizontalPodAutoscaler"):
        with suppress(Unread):
            there = {one.name: one for one in now.all(kind, now.namespace)}
            for was in before.all(kind, before.namespace):
                if was.name not in there:
                    yield _gone(was)
                else:
                    changes = list(_field(was, there[was.name], "spec", "/spec"))
                    if changes:
                        yield _put_back(there[was.name], changes)
