"""Objects of cluster DNS, as the API's JSON -> who keeps them as they are, and why a step would not last, or a warning.

Signs: labels, annotations, owners, images, the managers of `metadata.managedFields`. Facts: what each entry names. A
controller that takes a change back by itself would do so while it is measured, and fight with its undo: the step is
refused. Where only the next upgrade or restart does, that is a warning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

Json = Any
_KINDS = {
    "scale": ("Deployment",),
    "set_image": ("Deployment", "DaemonSet"),
    "grace_period": ("Deployment", "DaemonSet"),
    "pre_stop": ("Deployment", "DaemonSet"),
    "readiness": ("Deployment", "DaemonSet"),
    "strategy": ("Deployment", "DaemonSet"),
    "min_ready_seconds": ("Deployment", "DaemonSet"),
    "patch_corefile": ("ConfigMap",),
    "session_affinity": ("Service",),
}
"""Kinds of objects that a step changes for good; restart, delete_pod, kill_pod and evict_dns change none so."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who keeps an object. keeps: what lasts, in a sentence; takes_back: the words whose change it undoes by itself.

    instead: what to change so that it lasts; signs: whether an object is its.
    """

    name: str
    keeps: str
    instead: str
    signs: Callable[[Json], bool]
    takes_back: frozenset[str] = frozenset()


def _meta(thing: Json) -> dict[str, Json]:
    return thing.get("metadata") or {}


def _label(key: str, value: str = "") -> Callable[[Json], bool]:
    """Whether an object has a label or annotation; value: and nothing else in it."""

    def signed(thing: Json) -> bool:
        both = {**(_meta(thing).get("annotations") or {}), **(_meta(thing).get("labels") or {})}
        return both.get(key) == value if value else key in both

    return signed


def _managed(name: str) -> Callable[[Json], bool]:
    """Whether some of its fields are of a manager of that name, a glob."""
    return lambda thing: any(
        fnmatchcase(str(entry.get("manager", "")), name) for entry in _meta(thing).get("managedFields") or []
    )


def _image(pattern: str) -> Callable[[Json], bool]:
    """Whether a container of its pods is of such an image."""
    return lambda thing: any(re.search(pattern, one.get("image", "")) for one in _containers(thing))


def _owned(kind: str, group: str) -> Callable[[Json], bool]:
    def signed(thing: Json) -> bool:
        owners = _meta(thing).get("ownerReferences") or []
        return any(one.get("kind") == kind and str(one.get("apiVersion", "")).startswith(group) for one in owners)

    return signed


def _any(*signs: Callable[[Json], bool]) -> Callable[[Json], bool]:
    return lambda thing: any(sign(thing) for sign in signs)


def _containers(thing: Json) -> list[Json]:
    spec = thing.get("spec") or {}
    template = (spec.get("template") or {}).get("spec") or {} if isinstance(spec, dict) else {}
    return template.get("containers") or []


_ALL = frozenset(_KINDS)

OWNERS: dict[str, Owner] = {
    # Before those that they use, so that who has the last word is named.
    "argo": Owner(
        name="Argo CD",
        keeps="Argo CD takes back what is not in Git, at once where self-heal is on",
        instead="change it in Git, or turn its automatic sync off meanwhile: argocd app set APP --sync-policy none",
        signs=_any(
            _label("argocd.argoproj.io/tracking-id"), _label("argocd.argoproj.io/instance"), _managed("argocd*")
        ),
        takes_back=_ALL,
    ),  # argo-cd: docs/user-guide/resource_tracking.md, auto_sync.md
    "flux": Owner(
        name="Flux",
        keeps="Flux takes back what is not in Git at its next reconciliation",
        instead="change it in Git, or hold it meanwhile: flux suspend kustomization NAME, or helmrelease NAME",
        signs=_any(
            _label("kustomize.toolkit.fluxcd.io/name"),
            _label("helm.toolkit.fluxcd.io/name"),
            _managed("kustomize-controller"),
            _managed("helm-controller"),
        ),
        takes_back=_ALL,
    ),  # fluxcd/kustomize-controller: docs/spec/v1/kustomizations.md; helm-controller: driftDetection
    "openshift": Owner(
        name="OpenShift's DNS operator",
        keeps="the DNS operator sets lameduck to 20 s, a constant: it cannot be changed",
        instead="change dns.operator/default where that has it, or set its managementState to Unmanaged meanwhile",
        signs=_any(_label("dns.operator.openshift.io/owning-dns"), _owned("DNS", "operator.openshift.io")),
        takes_back=_ALL,
    ),  # openshift docs: networking/dns-operator, `managementState`
    "gardener": Owner(
        name="Gardener",
        keeps="Gardener's resource manager takes back every edit but those of coredns-custom",
        instead="change the Shoot, or the ConfigMap coredns-custom",
        signs=_label("resources.gardener.cloud/managed-by", "gardener"),
        takes_back=_ALL,
    ),  # gardener: docs/usage/networking/custom-dns-config.md; docs/concepts/resource-manager.md
    "eks": Owner(
        name="the EKS add-on",
        keeps="the add-on keeps its configuration values; `aws eks describe-addon-configuration` says what they may be"
        " (the Corefile can be among them, the grace period cannot: aws/containers-roadmap#2595)",
        instead="change its configuration values: aws eks update-addon --addon-name coredns --configuration-values ...",
        signs=_managed("eks"),
        takes_back=_ALL,
    ),  # EKS user guide: kubernetes-field-management; containers blog: "add-ons preserve customer edits"
    "aks": Owner(
        name="AKS",
        keeps="AKS takes back every edit but those of coredns-custom (coredns/coredns#4851)",
        instead="change the ConfigMap coredns-custom; for the replicas, coredns-autoscaler",
        signs=_any(_image(r"^mcr\.microsoft\.com/"), _label("kubernetes.azure.com/managedby", "aks")),
        takes_back=_ALL,
    ),
    "gke": Owner(
        name="GKE",
        keeps="GKE's own DNS is kube-dns, which has no lameduck: it goes on for its whole grace period of 30 s"
        " (kubernetes/kubernetes#45976)",
        instead="change the ConfigMaps kube-dns and kube-dns-autoscaler, which it leaves to people",
        signs=_image(r"(^gke\.gcr\.io|/gke)[^ ]*/k8s-dns|k8s-dns-kube-dns"),
        takes_back=_ALL,
    ),
    "addon-manager": Owner(
        name="the addon manager",
        keeps="the addon manager puts back its own manifest, again and again",
        instead="change the manifest in /etc/kubernetes/addons on the control plane",
        signs=_label("addonmanager.kubernetes.io/mode", "Reconcile"),
        takes_back=_ALL,
    ),  # kubernetes: cluster/addons/addon-manager/README.md
    "capi": Owner(
        name="Cluster API's KubeadmControlPlane",
        keeps="KubeadmControlPlane sets CoreDNS's image to its own, and migrates the Corefile when that changes",
        instead="change the image in its clusterConfiguration.dns, or annotate it with"
        " controlplane.cluster.x-k8s.io/skip-coredns",
        signs=_any(_label("cluster.x-k8s.io/machine"), _managed("capi-kubeadmcontrolplane*")),
        takes_back=frozenset({"set_image"}),
    ),  # cluster-api: controlplane/kubeadm/internal/workload_cluster_coredns.go
    "rke2": Owner(
        name="RKE2",
        keeps="RKE2 upgrades its chart rke2-coredns with its servers; the values of a HelmChartConfig are kept",
        instead="write a HelmChartConfig rke2-coredns",
        signs=_label("meta.helm.sh/release-name", "rke2-coredns"),
    ),
    "k3s": Owner(
        name="k3s",
        keeps="the ConfigMap coredns is written anew at each start of a server, coredns-custom is not"
        " (k3s-io/k3s#4397); look whether a change of the Deployment survives such a start",
        instead="change the ConfigMap coredns-custom",
        signs=_any(_label("objectset.rio.cattle.io/hash"), _managed("deploy@*"), _managed("k3s")),
    ),
    "kops": Owner(
        name="kOps",
        keeps="kOps applies its own manifest of CoreDNS with each update of the cluster",
        instead="change spec.kubeDNS of the cluster",
        signs=_any(_label("addon.kops.k8s.io/name"), _label("k8s-addon", "coredns.addons.k8s.io")),
    ),
    "ack": Owner(
        name="ACK",
        keeps="an upgrade of ACK's component keeps the replicas, migrates the Corefile, and overwrites tolerations and"
        " resources",
        instead="change it again after an upgrade",
        signs=_image(r"\.aliyuncs\.com/acs/"),
    ),
    "helm": Owner(
        name="Helm",
        keeps="the release's values are kept; what is edited in the cluster is overwritten by the next upgrade",
        instead="change the release's values",
        signs=_any(_label("app.kubernetes.io/managed-by", "Helm"), _label("meta.helm.sh/release-name")),
    ),
    "kubeadm": Owner(
        name="kubeadm",
        keeps="`kubeadm upgrade` keeps or migrates the Corefile, but may apply its own template to the Deployment:"
        " look at terminationGracePeriodSeconds after it",
        instead="give kubeadm a patch corednsdeployment (--patches), or skip its phase addon/coredns",
        signs=_managed("kubeadm"),
    ),
}
"""Who may keep cluster DNS, those first that have the last word; a new one: what it keeps, its signs, a line here."""


def owner_of(things: Iterable[Json]) -> Owner | None:
    """Who keeps objects that belong together: the first that has a sign on any of them."""
    there = list(things)
    return next((owner for owner in OWNERS.values() if any(owner.signs(thing) for thing in there)), None)


def refusal(word: str, things: Sequence[Json], around: Iterable[Json] = ()) -> str:
    """Why a step must not be taken: who would take it back, and what to do instead; '' if nobody would.

    things: Deployment or DaemonSet, ConfigMap and Service of cluster DNS, and a node. around: HorizontalPodAutoscalers
    and Deployments beside them.
    """
    if word == "scale" and (told := _scaled(things, around)):
        return told
    owner = _keeper(word, things)
    if owner and word in owner.takes_back:
        return f"{owner.name} keeps it as it is, and would take it back ({owner.keeps}): {owner.instead}"
    return ""


def warning(word: str, things: Sequence[Json]) -> str:
    """What becomes of a change later that lasts for now; '' if nothing is known of that."""
    owner = _keeper(word, things)
    return f"kept by {owner.name}: {owner.keeps}" if owner and word not in owner.takes_back else ""


def _keeper(word: str, things: Sequence[Json]) -> Owner | None:
    """Who keeps what a step changes: by the signs on it, and those that stand for a whole platform, on any of them."""
    mine = [thing for thing in things if thing.get("kind") in _KINDS.get(word, ())]
    if not mine:
        return None
    platform = next((OWNERS[key] for key in _WHOLE if any(OWNERS[key].signs(thing) for thing in things)), None)
    return platform or owner_of(mine)


_WHOLE = ("openshift", "gardener", "eks", "aks", "gke", "capi")
"""Whose sign on one of the objects, or on a node, means all of them."""


def _scaled(things: Sequence[Json], around: Iterable[Json]) -> str:
    """Who else sets the number of replicas."""
    names = {str(_meta(thing).get("name")) for thing in things if thing.get("kind") == "Deployment"}
    for thing in around:
        name, spec = _meta(thing).get("name"), thing.get("spec") or {}
        if thing.get("kind") == "HorizontalPodAutoscaler":
            target = spec.get("scaleTargetRef") or {}
            if target.get("kind") == "Deployment" and target.get("name") in names:
                return f"HorizontalPodAutoscaler {name} sets the replicas: change its minReplicas and maxReplicas"
        elif spec.get("replicas", 1) and names & set(_proportional(thing)):
            return (
                f"Deployment {name} is a cluster-proportional-autoscaler and sets the replicas again within seconds:"
                f" scale that one to 0 meanwhile, or change its ConfigMap {_flag(thing, 'configmap') or name}"
            )
    if any(OWNERS["eks"].signs(thing) for thing in things):
        return (
            "the EKS add-on sets the replicas, by its autoscaler where that is on: change autoScaling or replicaCount"
            " of its configuration values: aws eks update-addon --addon-name coredns --configuration-values ..."
        )
    return ""


def _proportional(thing: Json) -> Iterator[str]:
    """What a cluster-proportional-autoscaler scales: `--target=Deployment/coredns`, or several by commas."""
    for target in _flag(thing, "target").split(","):
        kind, _, name = target.strip().partition("/")
        if kind.lower() == "deployment":
            yield name


def _flag(thing: Json, name: str) -> str:
    """What a flag of its containers says: `--name=value`, or `--name value`."""
    for container in _containers(thing):
        words = [*(container.get("command") or []), *(container.get("args") or [])]
        for n, word in enumerate(words):
            if found := re.fullmatch(rf"--?{name}(?:=(.*))?", word):
                return str(found[1] if found[1] is not None else next(iter(words[n + 1 :]), ""))
    return ""
