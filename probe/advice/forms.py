"""A change of the Corefile, or of what makes CoreDNS's pods -> commands and files, in the form that a platform keeps.

Facts: EKS, `aws eks describe-addon-configuration`, whose schema has no other keys; chart
coredns/coredns, values.yaml; RKE2: HelmChartConfig, docs.rke2.io/helm; k3s: manifests/coredns.yaml, which is no
chart: coredns-custom alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

Settings = Mapping[str, Any]
"""What pods' makers are to have, by the API's names: {"replicas": 2}, {"resources": {...}}; None takes away."""

KUBECTL = "kubectl -n kube-system"
WAIT = (
    "# wait two minutes: the pods load it by themselves, if the Corefile has `reload`",
    "# (CoreDNS before 1.9.4 is not Ready for a whole lameduck at each reload: upgrade it first)",
)
_OF_POD = ("terminationGracePeriodSeconds", "priorityClassName", "topologySpreadConstraints", "affinity", "dnsPolicy")
_OF_CONTAINER = ("resources", "readinessProbe", "lifecycle")
_EKS = ("replicas", "topologySpreadConstraints", "affinity", "resources")
_HELM = (*_EKS, "terminationGracePeriodSeconds", "priorityClassName", "rollingUpdate", "readinessProbe")
_VALUES = {"replicas": "replicaCount"}


@dataclass(frozen=True, slots=True)
class Maker:
    """The Deployment or DaemonSet that makes CoreDNS's pods. container: the one of its pods that answers."""

    kind: str = "Deployment"
    name: str = "coredns"
    namespace: str = "kube-system"
    container: str = "coredns"


Pods = Callable[[Settings, Maker], str]
Edit = Callable[[str, bool], str]
"""Lines that the Corefile is to have, and whether they are new there or change what stands there."""


def compact(tree: object) -> str:
    """JSON without spaces."""
    return json.dumps(tree, separators=(",", ":"))


def indented(text: str) -> list[str]:
    """Its lines, by four spaces."""
    return [f"    {line}" for line in text.splitlines()]


def nothing(*_: object) -> str:
    """Of what cannot be changed."""
    return ""


# -- the Corefile


def edited(lines: str, _new: bool) -> str:
    """By hand."""
    edit = [f"{KUBECTL} edit configmap coredns   # in the Corefile:", *indented(lines)]
    return "\n".join([f"{KUBECTL} get configmap coredns -o yaml > coredns-before.yaml", *edit, *WAIT])


def by_addon(lines: str, _new: bool) -> str:
    """EKS: among the add-on's configuration values."""
    return "\n".join(
        [
            f"{KUBECTL} get configmap coredns -o jsonpath='{{.data.Corefile}}' > Corefile",
            "# in Corefile:",
            *indented(lines),
            *_described(),
            _updated("\"$(jq --rawfile corefile Corefile '.corefile = $corefile' values.json)\""),
        ]
    )


def _described() -> list[str]:
    return [
        "aws eks describe-addon --cluster-name CLUSTER --addon-name coredns \\",
        "    --query addon.configurationValues --output text > values.json   # if it is None: write {} into it",
    ]


def _updated(values: str) -> str:
    return (
        "aws eks update-addon --cluster-name CLUSTER --addon-name coredns --resolve-conflicts PRESERVE \\\n"
        f"    --configuration-values {values}"
    )


def imported(lines: str, new: bool) -> str:
    """AKS, k3s, Gardener: a file of coredns-custom, imported into the first server block, can add a directive only."""
    if not new:
        return ""
    name = re.split(r"\W", lines, maxsplit=1)[0]
    data = {"data": {f"{name}.override": lines if lines.endswith("\n") else f"{lines}\n"}}
    return "\n".join(
        [
            f"{KUBECTL} get configmap coredns -o yaml | grep 'import .*\\.override'   # must be there",
            f"{KUBECTL} create configmap coredns-custom   # unless it is there",
            f"{KUBECTL} patch configmap coredns-custom --type merge --patch '{compact(data)}'",
            *WAIT,
        ]
    )


def by_chart(lines: str, _new: bool) -> str:
    """Helm: a plugin of the values' servers."""
    said = ["# in the values of the chart coredns/coredns:", *_servers(lines)]
    return "\n".join([*said, "# then: helm -n kube-system upgrade RELEASE coredns/coredns -f values.yaml"])


def _servers(lines: str) -> list[str]:
    head, *block = lines.splitlines()
    name, *parameters = head.removesuffix("{").split()
    said = ["servers:            # a list is replaced as a whole: keep all the rest of it", "- plugins:"]
    said.append(f"  - name: {name}")
    if parameters:
        said.append(f"    parameters: {' '.join(parameters)}")
    if inside := [line.strip() for line in block if line.strip() not in ("", "}")]:
        said += ["    configBlock: |-", *(f"      {line}" for line in inside)]
    return said


def by_chart_config(lines: str, _new: bool) -> str:
    """RKE2: the values of its chart rke2-coredns."""
    return _chart_config(_servers(lines))


def _chart_config(values: list[str]) -> str:
    head = ["apiVersion: helm.cattle.io/v1", "kind: HelmChartConfig", "metadata:", "  name: rke2-coredns"]
    head += ["  namespace: kube-system", "spec:", "  valuesContent: |-"]
    return "\n".join(["kubectl apply -f - <<EOF", *head, *indented("\n".join(values)), "EOF"])


# -- what makes the pods


def patch_of(settings: Settings, container: str) -> dict[str, Any]:
    """A strategic merge patch of a Deployment or DaemonSet."""
    spec: dict[str, Any] = {}
    pod: dict[str, Any] = {}
    inside: dict[str, Any] = {}
    for name, value in settings.items():
        if name == "rollingUpdate":
            spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": value}
        else:
            (pod if name in _OF_POD else inside if name in _OF_CONTAINER else spec)[name] = value
    if inside:
        pod["containers"] = [{"name": container, **inside}]
    return {"spec": spec | ({"template": {"spec": pod}} if pod else {})}


def patched(settings: Settings, maker: Maker) -> str:
    """By kubectl."""
    return (
        f"kubectl -n {maker.namespace} patch {maker.kind.lower()} {maker.name}"
        f" --patch '{compact(patch_of(settings, maker.container))}'"
    )


def patched_until(what: str) -> Pods:
    """By kubectl, with the word who takes it back, and when."""
    return lambda settings, maker: f"# {what}\n{patched(settings, maker)}"


def addon_values(settings: Settings, _: Maker) -> str:
    """EKS: the add-on's configuration values, where its schema has them all."""
    if not _all_in(settings, _EKS):
        return ""
    values = compact(_named(settings))
    merged = "\"$(jq --argjson more '" + values + "' '. * $more' values.json)\""
    return "\n".join([*_described(), _updated(merged)])


def chart_values(settings: Settings, _: Maker) -> str:
    """Helm's."""
    if not _all_in(settings, _HELM):
        return ""
    said = [f"{name}: {compact(value)}" for name, value in _named(settings).items()]
    return "\n".join(
        [
            "# in the values of the chart coredns/coredns:",
            *said,
            "# then: helm -n kube-system upgrade RELEASE coredns/coredns -f values.yaml",
        ]
    )


def chart_config(settings: Settings, _: Maker) -> str:
    """RKE2's."""
    if not _all_in(settings, _HELM):
        return ""
    return _chart_config([f"{name}: {compact(value)}" for name, value in _named(settings).items()])


def _all_in(settings: Settings, known: Collection[str]) -> bool:
    return all(name in known for name in settings)


def _named(settings: Settings) -> dict[str, Any]:
    return {_VALUES.get(name, name): value for name, value in settings.items()}
