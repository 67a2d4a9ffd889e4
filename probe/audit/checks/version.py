"""CoreDNS's version, image and Corefile -> what the running one does wrong, and what keeps the next from starting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import yaml

from probe.advice.forms import KUBECTL
from probe.audit.check import Check, Evidence, Planned, Said, Severity
from probe.audit.checks.subject import (
    container_field,
    counted,
    of_coredns,
    said_version,
    single,
    version_now,
    whole,
)
from probe.audit.migration import OLDEST, Change, migrate
from probe.audit.quantity import numbers
from probe.audit.releases import Kind
from probe.audit.snapshot import Snapshot, Unread
from probe.audit.things import Json, Thing
from probe.corefile import NEWEST, PLUGINS, release_of

_FAULTS: tuple[tuple[tuple[int, ...], tuple[int, ...], str], ...] = (
    ((1, 3, 1), (1, 3, 2), "crashes when the API server goes away (coredns#2629)"),
    ((0,), (1, 7, 0), "headless Services stay stale after the API server was away, and no probe fails (coredns#3860)"),
    ((0,), (1, 9, 4), "is not Ready for a whole lameduck at each reload (coredns#5472)"),
    ((1, 11, 0), (1, 11, 1), "forwards slowly over TLS"),
    ((1, 11, 4), (1, 12, 1), "has PTR records of endpoints with a hostname only (coredns#6898)"),
    ((0,), (1, 12, 1), "takes pods that terminate for others with `pods verified` (coredns#7119)"),
    ((0,), (1, 13, 0), "may hang when it is told to end while it reloads (coredns#7562)"),
)
"""From a version on, until another, what it does (coredns/coredns, notes/)."""
_OLD_REGISTRY = "k8s.gcr.io"
_LAST_THERE = (1, 10, 1)
"""The newest CoreDNS before k8s.gcr.io was frozen on 3 April 2023."""
_RENAMED = (1, 8, 0)
"""From here on the community's image is coredns/coredns, with a tag that begins with v."""
_RENAMES = ("kubeadm", "capi")
"""Who changes the path at that version without being told."""
_SAYS = {
    Kind.REMOVED: "has no longer",
    Kind.UNKNOWN: "does not know",
    Kind.DEPRECATED: "will soon be without",
    Kind.IGNORED: "passes over",
    Kind.DEFAULT: "has another default for",
}
_NOT_PULLED = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ImageInspectError")


@of_coredns
@single
def faults(snapshot: Snapshot, planned: Planned) -> Said:
    """C01."""
    version, image = version_now(snapshot), container_field(snapshot, "image")
    known = [text for first, mended, text in _FAULTS if first <= version < mended]
    said = f"CoreDNS {said_version(version)}"
    target = planned.target or "1.13.0 or later"
    remedy = f"# upgrade to {target}; before 1.9.4 in steps, each with its Corefile: dnsprobe audit --migrate"
    if version < (1, 7, 0):
        return Said(Severity.FAIL, f"{said} {'; '.join(known)}", (image,), remedy)
    if version < (1, 9, 4):
        return Said(Severity.WARN, f"{said} {'; '.join(known)}", (image,), remedy)
    if known:
        return Said(Severity.INFO, f"{said} {'; '.join(known)}", (image,), remedy)
    return Said(Severity.PASS, f"{said}: no fault of it is known here", (image,))


def image(snapshot: Snapshot, planned: Planned) -> Iterator[Said]:
    """C49."""
    field = container_field(snapshot, "image")
    now = str(field.value or "")
    stuck = [
        (pod, each)
        for pod in snapshot.pods
        for each in pod.at("status.containerStatuses") or []
        if ((each.get("state") or {}).get("waiting") or {}).get("reason") in _NOT_PULLED
    ]
    if stuck:
        pod, each = stuck[0]
        text = f"{pod.name} waits for {each.get('image') or now}: {each['state']['waiting']['reason']}"
        yield Said(Severity.FAIL, text, (field, str(pod)), f"{KUBECTL} describe pod {pod.name} | tail")
    next_one = _tagged(now, planned.target) if planned.target else now
    wished = [(next_one, str(field), planned.platform in _RENAMES), *_wished(snapshot)]
    to_come = numbers(planned.target)
    wrong = [said for ref, where, renames in wished if (said := _wrong(ref, where, to_come, renames))]
    yield from wrong
    if not stuck and not wrong:
        text = f"nothing is known against {next_one}; whether every node can pull it is not in the API"
        yield Said(Severity.PASS, text, (field,), f"# on a node, or where its mirror is: crictl pull {next_one}")


def _wished(snapshot: Snapshot) -> Iterator[tuple[str, str, bool]]:
    """The images that kubeadm and Cluster API are told to set, as they put them together (kubeadm, GetDNSImage)."""
    config = snapshot.one("ConfigMap", "kubeadm-config")
    if config is not None:
        try:
            said = yaml.safe_load(str(config.at("data[ClusterConfiguration]") or ""))
        except yaml.YAMLError:
            said = None
        if isinstance(said, Mapping):
            yield from _of_kubeadm(said, f"{config} data[ClusterConfiguration]")
    try:
        planes: tuple[Thing, ...] = snapshot.all("KubeadmControlPlane")
    except Unread:
        planes = ()
    for plane in planes:
        path = "spec.kubeadmConfigSpec.clusterConfiguration"
        yield from _of_kubeadm(plane.at(path) or {}, f"{plane} {path}")


def _of_kubeadm(cluster: Mapping[str, Json], where: str) -> Iterator[tuple[str, str, bool]]:
    dns = cluster.get("dns") or {}
    repository = str(dns.get("imageRepository") or "")
    tag = str(dns.get("imageTag") or "")
    if repository:
        yield f"{repository}/coredns:{tag}", f"{where} dns: {repository}, {tag or 'no tag'}", False


def _wrong(ref: str, where: str, to_come: tuple[int, ...], renames: bool) -> Said | None:
    """What is wrong with an image of the community's registries. renames: its keeper changes the path by itself."""
    name, tag = _name_and_tag(ref)
    registry = name.partition("/")[0]
    if registry not in (_OLD_REGISTRY, "registry.k8s.io"):
        return None
    version = numbers(tag) or to_come
    evidence: Evidence = (where,)
    path = name.partition("/")[2]
    if "coredns/coredns/coredns" in path:
        text = f"{name}: kubeadm adds `/coredns` to dns.imageRepository itself, and there is no such image"
        return Said(Severity.FAIL, text, evidence, f"# imageRepository: {registry}/coredns")
    if version >= _RENAMED and path == "coredns":
        text = f"{name} ends at 1.7.0: from 1.8.0 on the image is {registry}/coredns/coredns"
        severity = Severity.INFO if renames else Severity.FAIL
        return Said(severity, text, evidence, f"# registry.k8s.io/coredns/coredns:v{said_version(version)}")
    if version >= _RENAMED and tag and not tag.startswith("v"):
        text = f"{ref}: from 1.8.0 on its tags begin with v"
        return Said(Severity.FAIL, text, evidence, f"# {name}:v{said_version(version)}")
    if registry == _OLD_REGISTRY:
        newest = max(version, to_come)
        remedy = f"# registry.k8s.io/coredns/coredns:v{said_version(newest)}"
        if newest > _LAST_THERE:
            text = f"{_OLD_REGISTRY} has nothing newer than {said_version(_LAST_THERE)}: it was frozen in April 2023"
            return Said(Severity.FAIL, text, evidence, remedy)
        text = f"{_OLD_REGISTRY} was frozen in April 2023, and is to be switched off: a pod on a new node may not start"
        return Said(Severity.WARN, text, evidence, remedy)
    return None


def _tagged(image_now: str, target: str) -> str:
    """The same image of another version, with a v where its tag has one; where it has none, as CoreDNS's own have."""
    name, tag = _name_and_tag(image_now)
    return f"{name}:{'v' * (not tag or tag.startswith('v'))}{target.lstrip('v')}"


def _name_and_tag(ref: str) -> tuple[str, str]:
    """`localhost:5000/coredns:v1.12.1@sha256:...` without its digest; '' for no tag."""
    name, colon, tag = ref.partition("@")[0].rpartition(":")
    return (name, tag) if colon and "/" not in tag else (ref.partition("@")[0], "")


@of_coredns
def directives(snapshot: Snapshot, planned: Planned) -> Iterator[Said]:
    """C02."""
    if snapshot.config is None:
        raise Unread("ConfigMap", f"there is no Corefile in {snapshot.namespace}")
    text = str(snapshot.config.at("data[Corefile]") or "")
    target = planned.target or NEWEST
    named = f"CoreDNS {target}{'' if planned.target else ', the newest that is known here,'}"
    if not release_of(target) or release_of(target) < release_of(OLDEST):
        raise Unread("version", f"{target}: what changes is known from {OLDEST} on")
    found = migrate(text, snapshot.coredns_version, target, snapshot.corefile_parts)
    remedy = f"dnsprobe audit --migrate --target-version {target}   # prints the difference"
    for one in found.changes:
        severity = _severity(one)
        if severity is Severity.FAIL and not planned.target:
            severity = Severity.WARN
        where = f"{snapshot.config} {one.file or 'Corefile'}:{one.line}"
        yield Said(severity, f"{named} {_SAYS[one.kind]} {one.subject}: {one.why} ({one.source})", (where,), remedy)
    if not found.changes:
        yield Said(Severity.PASS, f"{named} takes every directive of the Corefile", (whole(snapshot),))


def _severity(change: Change) -> Severity:
    """FAIL where the target's pods end as they start."""
    plugin = change.subject.split("`")[-2]
    if change.kind is Kind.REMOVED or (change.kind is Kind.UNKNOWN and plugin in PLUGINS):
        return Severity.FAIL
    return Severity.INFO if change.kind is Kind.DEFAULT else Severity.WARN


@of_coredns
def grammar(snapshot: Snapshot, planned: Planned) -> Iterator[Said]:
    """C50."""
    del planned
    found = snapshot.corefile
    for problem in found.problems:
        severity = Severity.FAIL if problem.fatal else Severity.WARN
        remedy = f"{KUBECTL} edit configmap coredns   # line {problem.line}: {problem.remedy or 'take it out'}"
        file = problem.file or "Corefile"
        yield Said(severity, problem.text, (f"{snapshot.config} {file}:{problem.line}",), remedy)
    if not found.problems:
        text = f"the Corefile can be read: {counted(len(found.blocks), 'server block')}"
        yield Said(Severity.PASS, text, (whole(snapshot),))


VERSION = (
    Check(
        "C01",
        "CoreDNS's version and its known faults",
        "what the running version does wrong, it does during the upgrade, too",
        "CoreDNS, release notes; coredns/coredns#3860, #5472, #7562",
        faults,
    ),
    Check(
        "C02",
        "directives in the version to come",
        "a pod whose Corefile has a directive that its version does not know ends as it starts",
        "coredns/corefile-migration; a study of CoreDNS upgrades by kubeadm and Cluster API",
        directives,
    ),
    Check(
        "C49",
        "image of CoreDNS: path, tag, registry",
        "a new pod whose image cannot be pulled stops the rollout, or does not come back after a node is lost",
        "kubeadm, images.GetDNSImage; Kubernetes blog, k8s.gcr.io image registry will be frozen",
        image,
    ),
    Check(
        "C50",
        "the Corefile can be read",
        "a running pod keeps its old configuration; a new one that cannot read it does not start",
        "coredns/caddy caddyfile; Alibaba Cloud ACK, precautions for upgrading CoreDNS: samples with // comments",
        grammar,
    ),
)
