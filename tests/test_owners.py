"""Who keeps cluster DNS as it is: signs on objects -> which steps are refused, with whose name and which remedy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probe.advice import PLATFORMS
from probe.cluster.kube.api import connect
from probe.cluster.kube.scalers import scalers
from probe.cluster.owners import OWNERS, owner_of, refusal, warning
from tests.apiserver import ApiServer
from tests.kube_objects import Json, config_map, deployment, node, service, thing

LASTING = ("scale", "set_image", "grace_period", "strategy", "patch_corefile", "session_affinity")
FLEETING = ("restart", "delete_pod", "kill_pod", "evict_dns", "wait", "mark")


def signed(one: Json, **parts: Any) -> Json:
    """An object with labels, annotations, owners or managers."""
    return {**one, "metadata": {**one["metadata"], **parts}}


def managers(*names: str) -> Json:
    return {"managedFields": [{"manager": name, "operation": "Apply"} for name in ("kubectl", *names)]}


def labels(key: str, value: str = "x") -> Json:
    return {"labels": {"k8s-app": "kube-dns", key: value}}


def noted(key: str, value: str = "x") -> Json:
    return {"annotations": {key: value}}


def maker(image: str = "registry.k8s.io/coredns/coredns:v1.12.1", kind: str = "Deployment", **parts: Any) -> Json:
    return {**signed(deployment(container={"image": image}), **parts), "kind": kind}


def dns(maker: Json, **parts: Any) -> list[Json]:
    """The objects of cluster DNS, `parts` on all of them."""
    return [signed(one, **parts) if parts else one for one in (maker, config_map(), service())]


OPERATOR: Json = {"ownerReferences": [{"kind": "DNS", "apiVersion": "operator.openshift.io/v1", "name": "default"}]}
MODE = "addonmanager.kubernetes.io/mode"


@pytest.mark.parametrize(
    ("things", "owner", "refused"),
    [
        (dns(maker()), "", ()),
        (dns(maker(), **noted("argocd.argoproj.io/tracking-id")), "argo", LASTING),
        (dns(maker(), **managers("argocd-controller")), "argo", LASTING),
        (dns(maker(), **labels("kustomize.toolkit.fluxcd.io/name")), "flux", LASTING),
        (dns(maker(), **labels("helm.toolkit.fluxcd.io/name")), "flux", LASTING),
        ([*dns(maker(**noted("argocd.argoproj.io/tracking-id")))], "argo", LASTING[:4]),
        (dns(maker(kind="DaemonSet"), **labels("dns.operator.openshift.io/owning-dns")), "openshift", LASTING[1:]),
        (dns(maker(kind="DaemonSet", **OPERATOR)), "openshift", LASTING[1:]),
        (dns(maker(**managers("eks"))), "eks", LASTING),
        (dns(maker(**managers("eksctl"))), "", ()),
        (dns(maker("mcr.microsoft.com/oss/v2/kubernetes/coredns:v1"), **labels(MODE, "Reconcile")), "aks", LASTING),
        (dns(maker("mcr.microsoft.com/oss/kubernetes/coredns:v1.9.4")), "aks", LASTING),
        (dns(maker("gke.gcr.io/k8s-dns-kube-dns:1.23.0-gke.9@sha256:1")), "gke", LASTING),
        (dns(maker(), **labels("resources.gardener.cloud/managed-by", "gardener")), "gardener", LASTING),
        (dns(maker(), **labels(MODE, "Reconcile")), "addon-manager", LASTING),
        (dns(maker(), **labels(MODE, "EnsureExists")), "", ()),
        ([*dns(maker(**managers("kubeadm"))), signed(node(), **noted("cluster.x-k8s.io/machine"))], "capi",
         ("set_image",)),
        (dns(maker(), **noted("meta.helm.sh/release-name", "rke2-coredns")), "rke2", ()),
        (dns(maker(), **labels("objectset.rio.cattle.io/hash")), "k3s", ()),
        (dns(maker(), **labels("app.kubernetes.io/managed-by", "Helm")), "helm", ()),
        (dns(maker(), **labels("k8s-addon", "coredns.addons.k8s.io")), "kops", ()),
        (dns(maker("registry-vpc.cn-hangzhou.aliyuncs.com/acs/coredns:v1.9.3.10")), "ack", ()),
        (dns(maker(), **managers("kubeadm")), "kubeadm", ()),
    ],
)  # fmt: skip
def test_a_step_is_refused_where_it_would_not_last(things: list[Json], owner: str, refused: tuple[str, ...]) -> None:
    known = owner_of(things)
    assert (known.name if known else "") == (OWNERS[owner].name if owner else "")
    assert tuple(word for word in LASTING if refusal(word, things)) == refused
    assert not any(refusal(word, things) or warning(word, things) for word in FLEETING)
    for word in refused:
        said = refusal(word, things)
        assert OWNERS[owner].name in said or "add-on" in said
        assert OWNERS[owner].keeps in said or word == "scale"
        assert not warning(word, things)
    if owner and "set_image" not in refused:
        assert warning("set_image", things) == f"kept by {OWNERS[owner].name}: {OWNERS[owner].keeps}"


def test_what_is_said_names_who_and_what_to_do_instead() -> None:
    assert refusal("patch_corefile", dns(maker(), **labels("kustomize.toolkit.fluxcd.io/name"))) == (
        "Flux keeps it as it is, and would take it back (Flux takes back what is not in Git at its next reconciliation)"
        ": change it in Git, or hold it meanwhile: flux suspend kustomization NAME, or helmrelease NAME"
    )
    assert refusal("set_image", [{"kind": "Deployment"}, {}]) == ""


def autoscaler(kind: str, name: str, **spec: Any) -> Json:
    return thing(kind, name, spec=spec)


def proportional(*words: str, replicas: int = 1) -> Json:
    pods = {"spec": {"containers": [{"name": "autoscaler", "command": ["/cluster-proportional-autoscaler", *words]}]}}
    return autoscaler("Deployment", "coredns-autoscaler", replicas=replicas, template=pods)


def hpa(kind: str = "Deployment", name: str = "coredns") -> Json:
    return autoscaler("HorizontalPodAutoscaler", "dns", maxReplicas=9, scaleTargetRef={"kind": kind, "name": name})


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ([], ""),
        ([deployment()], ""),
        ([hpa()], "HorizontalPodAutoscaler dns sets the replicas: change its minReplicas and maxReplicas"),
        ([hpa(name="web"), hpa(kind="StatefulSet")], ""),
        ([proportional("--target=Deployment/coredns", "--configmap=dns-ladder")], "change its ConfigMap dns-ladder"),
        ([proportional("--target", "deployment/coredns")], "change its ConfigMap coredns-autoscaler"),
        (
            [proportional("--target=deployment/web,deployment/coredns")],
            "Deployment coredns-autoscaler is a cluster-prop",
        ),
        ([proportional("--target=Deployment/coredns", replicas=0)], ""),
        ([proportional("--target=Deployment/kube-dns")], ""),
    ],
)
def test_nothing_is_scaled_under_an_autoscaler(beside: list[Json], said: str) -> None:
    things = dns(maker())
    told = refusal("scale", things, beside)
    assert (said in told, bool(told)) == (True, bool(said))
    assert not refusal("set_image", things, beside)


def test_autoscalers_are_read_and_a_missing_right_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ApiServer(hpa(), deployment(), thing("Deployment", "web", namespace="default"))
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))

    async def look() -> tuple[list[Json], list[str]]:
        api = connect()
        try:
            return await scalers(api, "kube-system")
        finally:
            await api.close()

    found, not_seen = asyncio.run(look())
    assert refusal("scale", dns(maker()), found).startswith("HorizontalPodAutoscaler dns sets the replicas")
    assert ([one["kind"] for one in found], not_seen) == (["HorizontalPodAutoscaler", "Deployment"], [])
    refuse: Callable[[str], int] = lambda path: 403 if "horizontalpodautoscalers" in path else 0  # noqa: E731
    server.refuse = refuse
    found, not_seen = asyncio.run(look())
    assert [one["kind"] for one in found] == ["Deployment"]
    (said,) = not_seen
    assert said == (
        "whether something scales cluster DNS: horizontalpodautoscalers in kube-system: no right to list them (403):"
        ' add to its Role in kube-system: {apiGroups: ["autoscaling"], resources: [horizontalpodautoscalers], verbs:'
        " [list, watch]}"
    )
    server.stop()


def test_advice_and_refusals_have_one_table() -> None:
    assert {name: platform.keeps for name, platform in PLATFORMS.items()} == {n: OWNERS[n].keeps for n in PLATFORMS}
