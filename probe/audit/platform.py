"""A Snapshot -> the platform that keeps CoreDNS's objects, and the sign that says so.

Signs on objects are those of probe.cluster.owners; kubectl leaves out managedFields unless it is asked for them,
so that images, names and versions count, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from probe.advice import PLATFORMS
from probe.audit.snapshot import SYSTEM, Snapshot, Unread, images_of
from probe.audit.things import Thing
from probe.cluster.owners import OWNERS

DEFAULT = "kubeadm"
_IMAGES = (
    ("eks", r"\.dkr\.ecr\.[^/]*/eks/|public\.ecr\.aws/eks-distro/"),
    ("ack", r"\.aliyuncs\.com/acs/"),
    ("aks", r"^mcr\.microsoft\.com/"),
    ("gke", r"(^|/)gke\.gcr\.io/|/gke-release/"),
    ("openshift", r"quay\.io/openshift|openshift-release-dev"),
    ("rke2", r"rancher/hardened-coredns"),
    ("k3s", r"rancher/mirrored-coredns"),
    ("gardener", r"gardener-project/"),
)
_VERSIONS = (("k3s", r"\+k3s"), ("rke2", r"\+rke2"), ("gke", r"-gke\."), ("ack", r"-aliyun"))
"""Of the API server; EKS's says nothing of whose CoreDNS it is."""
_MANY = ("helm", "kubeadm")
"""Whose signs others have, too."""


def detect(snapshot: Snapshot) -> tuple[str, str]:
    """A key of PLATFORMS, and the sign; kubeadm and '' if there is none."""
    return next(_signs(snapshot), (DEFAULT, ""))


def _signs(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    objects = list(_objects(snapshot))
    yield from _owners(objects, [key for key in OWNERS if key not in _MANY])
    for thing in objects:
        for image in images_of(thing) if thing.kind in ("Deployment", "DaemonSet") else ():
            yield from ((key, f"{thing} runs {image}") for key, pattern in _IMAGES if re.search(pattern, image))
    for key, pattern in _VERSIONS:
        if re.search(pattern, snapshot.version):
            yield key, f"the API server is {snapshot.version}"
    yield from _owners(objects, _MANY)
    with suppress(Unread):
        if snapshot.one("ConfigMap", "kubeadm-config", SYSTEM):
            yield "kubeadm", "configmap/kubeadm-config is there"


def _owners(objects: Sequence[Thing], keys: Iterable[str]) -> Iterator[tuple[str, str]]:
    for key in keys:
        for thing in objects:
            if key in PLATFORMS and OWNERS[key].signs(thing.body):
                yield key, f"the signs of {OWNERS[key].name} on {thing}"


def _objects(snapshot: Snapshot) -> Iterator[Thing]:
    """Workload, ConfigMap, Service, and a node; what cannot be read has no signs."""
    looks: list[Callable[[], Iterable[Thing | None]]] = [
        lambda: [snapshot.dns],
        lambda: [snapshot.config],
        lambda: [snapshot.service],
        lambda: snapshot.nodes[:1],
    ]
    for look in looks:
        with suppress(Unread):
            yield from filter(None, look())
