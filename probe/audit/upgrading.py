"""A platform, the version to come -> how CoreDNS is upgraded there, and what that does to what people have set.

Whether machines are replaced: cluster-api controlplane/kubeadm/internal/filters.go, matchClusterConfiguration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_KUBEADM = {
    (1, 25): "1.9.3", (1, 26): "1.9.3", (1, 27): "1.10.1", (1, 28): "1.10.1", (1, 29): "1.11.1", (1, 30): "1.11.1",
    (1, 31): "1.11.3", (1, 32): "1.11.3", (1, 33): "1.12.0", (1, 34): "1.12.1", (1, 35): "1.13.1", (1, 36): "1.14.2",
    (1, 37): "1.14.6",
}  # fmt: skip
"""CoreDNS by kubeadm's Kubernetes: coredns/deployment, CoreDNS-k8s_version.md; from 1.32 on CoreDNSVersion in
kubernetes/kubernetes cmd/kubeadm/app/constants/constants.go, at v1.32.0 to v1.37.0."""
_SET_IMAGE = "kubectl -n kube-system set image deployment/coredns coredns=registry.k8s.io/coredns/coredns:v{target}"
_OWN = "is brought by {} together with its own version; it cannot be upgraded alone"


@dataclass(frozen=True, slots=True)
class Upgrade:
    """commands: with {target} for the version; expect: what it does beside the new version; commands () where CoreDNS
    comes with something else."""

    commands: tuple[str, ...]
    expect: tuple[str, ...]


UPGRADES: Mapping[str, Upgrade] = {
    "kubeadm": Upgrade(
        (_SET_IMAGE,),
        ("the image alone changes; the next `kubeadm upgrade apply` sets it again, to its own version",),
    ),
    "helm": Upgrade(
        ("helm -n kube-system upgrade RELEASE coredns/coredns -f values.yaml --set image.tag={target}",),
        ("values are kept; what was edited in the cluster is overwritten",),
    ),
    "eks": Upgrade(
        (
            "aws eks describe-addon-versions --addon-name coredns --kubernetes-version 1.X   # VERSION: of {target}",
            "aws eks update-addon --cluster-name CLUSTER --addon-name coredns --addon-version VERSION \\",
            "    --resolve-conflicts PRESERVE",
        ),
        ("PRESERVE keeps what is among the configuration values, and other edits; OVERWRITE takes these back",),
    ),
    "ack": Upgrade(
        ("# console: the cluster, Operations, Add-ons, CoreDNS, Upgrade",),
        (
            "about 2 minutes, more with many replicas",
            "old pods stay where new ones cannot start, and within 10 minutes it is rolled back by itself",
            "keeps the replicas, migrates the Corefile, and overwrites tolerations, requests and limits",
        ),
    ),
    "k3s": Upgrade((), (_OWN.format("k3s"), "its manifest is written anew; coredns-custom is kept")),
    "rke2": Upgrade((), (_OWN.format("RKE2"), "the values of the HelmChartConfig rke2-coredns are kept")),
    "openshift": Upgrade((), (_OWN.format("OpenShift"), "the DNS operator keeps what dns.operator/default says")),
    "aks": Upgrade((), (_OWN.format("AKS"), "coredns-custom is kept, all other edits are taken back")),
    "gke": Upgrade((), ("kube-dns " + _OWN.format("GKE"), "the ConfigMap kube-dns is kept")),
    "gardener": Upgrade((), (_OWN.format("Gardener"), "coredns-custom is kept, all other edits are taken back")),
    "kops": Upgrade((), (_OWN.format("kOps"), "kops update cluster applies its own manifest: set spec.kubeDNS")),
    "capi": Upgrade(
        (
            "kubectl --context MANAGEMENT -n NAMESPACE patch kubeadmcontrolplane NAME --type json --patch \\",
            (
                """    '[{{"op":"add","path":"/spec/kubeadmConfigSpec/clusterConfiguration/dns","value":"""
                """{{"imageTag":"v{target}"}}}}]'"""
            ),
        ),
        (
            "KubeadmControlPlane sets the image and migrates the Corefile, if its corefile-migration knows the version",
            (
                "editing it may replace the control plane's machines, one after the other: by dns with older versions"
                " of Cluster API (newer ones leave it out of that comparison), by any other field of"
                " clusterConfiguration with all of them"
            ),
        ),
    ),
}
"""By the names of PLATFORMS; a new one: how it is done there, what comes of it, a line here."""


def kubernetes_instead(platform: str, kubernetes: tuple[int, int] | None) -> tuple[str, ...]:
    """What it would mean to upgrade Kubernetes, and CoreDNS with it; () where that is not the question."""
    if platform not in ("kubeadm", "capi"):
        return ()
    later = (kubernetes[0], kubernetes[1] + 1) if kubernetes else None
    brings = _KUBEADM.get(later, "") if later else ""
    version = f"Kubernetes {later[0]}.{later[1]}" if later else "the next Kubernetes"
    first = f"{version} brings CoreDNS {brings}" if brings else f"{version} brings kubeadm's own CoreDNS with it"
    if platform == "capi":
        return (
            (
                f"{first}: change spec.version of the KubeadmControlPlane: every control plane machine is replaced,"
                " one after the other, CoreDNS is upgraded meanwhile, and its pods on machines that go are evicted:"
                " each of these moments is one of a pod's end"
            ),
            "controlplane.cluster.x-k8s.io/skip-coredns on it leaves CoreDNS as it is, at upgrades only",
        )
    return (
        (
            f"{first}: `kubeadm upgrade apply` changes CoreDNS's Deployment before the nodes are drained, and then each"
            " drain ends the pods there: each of these moments is one of a pod's end"
        ),
        "it may apply its own template to the Deployment, and migrate the Corefile (the old one: Corefile-backup)",
        "`kubeadm upgrade apply --skip-phases=addon/coredns` leaves CoreDNS as it is",
    )
