"""A Recommendation -> the change in the form that a platform keeps, and what the platform itself decides.

That `health` may stand twice in a server block, the last lameduck counting, is CoreDNS's
plugin/health/setup.go (the same in 1.9.3 and 1.15.0; tried with 1.15.0); that imports are reloaded too, plugin/reload.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from probe.advice import forms
from probe.advice.forms import KUBECTL, WAIT, Edit, Pods, compact
from probe.advice.recommendation import Recommendation
from probe.cluster import Shutdown
from probe.cluster.owners import OWNERS
from probe.errors import UsageError

_BLOCK = "health {{\n    lameduck {}\n}}\n"


@dataclass(frozen=True, slots=True)
class Platform:
    """Who keeps CoreDNS's objects.

    keeps: a sentence on what survives the platform's upgrades; patch: commands and files, to be pasted, with comments.
    edit: the same for lines of the Corefile; pods: for what makes the pods; each '' for what cannot be changed.
    usual: how its pods end unless somebody changed it, where that is not as with kubeadm, as values of the lab; fixed:
    what of Shutdown cannot be changed; settable: whether lameduck can be.
    """

    keeps: str
    patch: Callable[[Recommendation], str]
    edit: Edit
    pods: Pods
    usual: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, float | str] = field(default_factory=dict)
    settable: bool = True

    @property
    def usual_settings(self) -> list[str]:
        """`usual` as settings: lab.lameduck=10s."""
        return [f"lab.{name}={value}" for name, value in self.usual.items()]

    def seen(self, shutdown: Shutdown) -> Shutdown:
        """The same with what the platform decides."""
        return replace(shutdown, **self.fixed)  # type: ignore[arg-type]


def platform_of(name: str) -> Platform:
    """UsageError names those there are."""
    if name not in PLATFORMS:
        raise UsageError(f"{name!r}: say {', '.join(PLATFORMS)}")
    return PLATFORMS[name]


def _go(lameduck: float) -> str:
    """Go's time.ParseDuration: 12s, 4.6s."""
    return f"{lameduck:g}s"


def _grace_of_deployment(advice: Recommendation) -> list[str]:
    if not advice.raises_grace:
        return []
    spec = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": advice.grace}}}}
    return [
        "# this replaces all pods, and those that go still have the old grace period",
        f"{KUBECTL} patch deployment coredns --patch '{compact(spec)}'",
    ]


def _kubeadm(advice: Recommendation) -> str:
    lines = [forms.edited(_BLOCK.format(_go(advice.lameduck)), False)] if advice.changes_lameduck else []
    return "\n".join([*lines, *_grace_of_deployment(advice)])


def _helm(advice: Recommendation) -> str:
    lines = ["# in the values of the chart coredns/coredns:"]
    if advice.raises_grace:
        lines.append(f"terminationGracePeriodSeconds: {advice.grace}")
    if advice.changes_lameduck:
        lines += [
            "servers:            # a list is replaced as a whole: keep all the rest of it",
            "- plugins:",
            "  - name: health",
            "    configBlock: |-",
            f"      lameduck {_go(advice.lameduck)}",
        ]
    return "\n".join([*lines, "# then: helm -n kube-system upgrade RELEASE coredns/coredns -f values.yaml"])


def _eks(advice: Recommendation) -> str:
    return forms.by_addon(_BLOCK.format(_go(advice.lameduck)), False)


def _override(advice: Recommendation) -> str:
    """The ConfigMap that k3s and AKS leave to people; its files are imported into CoreDNS's first server block."""
    lines: list[str] = []
    if advice.changes_lameduck:
        data = {"data": {"lameduck.override": _BLOCK.format(_go(advice.lameduck))}}
        lines += [
            f"{KUBECTL} get configmap coredns -o yaml | grep 'import .*\\.override'   # must be there",
            f"{KUBECTL} create configmap coredns-custom   # unless it is there",
            f"{KUBECTL} patch configmap coredns-custom --type merge --patch '{compact(data)}'",
            *WAIT,
            "# a pod that ends must log `Going into lameduck mode for " + _go(advice.lameduck) + "`",
        ]
    return "\n".join([*lines, *_grace_of_deployment(advice)])


def _chart_config(advice: Recommendation) -> str:
    parts = []
    if advice.changes_lameduck:
        parts.append(forms.by_chart_config(_BLOCK.format(_go(advice.lameduck)), False))
    if advice.raises_grace:
        parts.append(forms.chart_config({"terminationGracePeriodSeconds": advice.grace}, forms.Maker()))
    return "\n".join(parts)


PLATFORMS: dict[str, Platform] = {
    "kubeadm": Platform(
        keeps=OWNERS["kubeadm"].keeps,
        patch=_kubeadm,
        edit=forms.edited,
        pods=forms.patched_until(
            "where kubeadm keeps it, its upgrade may reset it: give it this, too, as a patch corednsdeployment"
        ),
    ),
    "helm": Platform(
        keeps=OWNERS["helm"].keeps,
        patch=_helm,
        edit=forms.by_chart,
        pods=forms.chart_values,
        usual={"lameduck": "10s", "readiness_period": "5s", "readiness_failures": "1"},
    ),
    "eks": Platform(
        keeps=OWNERS["eks"].keeps,
        patch=_eks,
        edit=forms.by_addon,
        pods=forms.addon_values,
        fixed={"grace_period": 30.0, "grace_fixed": "the EKS add-on sets 30 s"},
    ),
    "k3s": Platform(
        keeps=OWNERS["k3s"].keeps,
        patch=_override,
        edit=forms.imported,
        pods=forms.patched_until("k3s writes its manifest anew with its next version: look for it then"),
        usual={"lameduck": "0s", "readiness_period": "2s", "readiness_failures": "3"},
    ),
    "openshift": Platform(
        keeps=OWNERS["openshift"].keeps,
        patch=forms.nothing,
        edit=forms.nothing,
        pods=forms.nothing,
        usual={"readiness_period": "3s", "readiness_failures": "3"},
        fixed={"lameduck": 20.0, "grace_period": 30.0},
        settable=False,
    ),
    "aks": Platform(
        keeps=OWNERS["aks"].keeps,
        patch=_override,
        edit=forms.imported,
        pods=forms.nothing,
        fixed={"grace_fixed": "AKS takes back edits of the Deployment"},
    ),
    "gke": Platform(
        keeps=OWNERS["gke"].keeps,
        patch=forms.nothing,
        edit=forms.nothing,
        pods=forms.nothing,
        fixed={"lameduck": 30.0, "grace_period": 30.0, "readiness": "kube-dns"},
        settable=False,
    ),
    "rke2": Platform(
        keeps=OWNERS["rke2"].keeps,
        patch=_chart_config,
        edit=forms.by_chart_config,
        pods=forms.chart_config,
    ),
    "kops": Platform(
        keeps=OWNERS["kops"].keeps,
        patch=_kubeadm,
        edit=forms.edited,
        pods=forms.patched_until("kOps applies its own manifest at each update of the cluster: do it again then"),
    ),
    "ack": Platform(
        keeps=OWNERS["ack"].keeps,
        patch=_kubeadm,
        edit=forms.edited,
        pods=forms.patched_until("an upgrade of ACK overwrites resources and tolerations: do it again then"),
    ),
    "capi": Platform(
        keeps=OWNERS["capi"].keeps,
        patch=_kubeadm,
        edit=forms.edited,
        pods=forms.patched,
    ),
    "gardener": Platform(
        keeps=OWNERS["gardener"].keeps,
        patch=_override,
        edit=forms.imported,
        pods=forms.nothing,
        fixed={"grace_fixed": "Gardener takes back edits of the Deployment"},
    ),
}
"""By --platform; a new one: what it decides, the form of its change, a line here."""
