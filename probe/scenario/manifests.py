"""A scenario, options of its run, an image -> the manifests that have it run in a cluster: deploy/, filled in."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from probe.errors import UsageError
from probe.model import NS
from probe.scenario.cells import read_matrix
from probe.scenario.file import MOST_OCTETS, read_scenario, shipped_scenarios
from probe.scenario.kustomize import Manifest, build, deploy_folder
from probe.scenario.plan import Plan
from probe.scenario.serve import without_end
from probe.scenario.steps import changes_of
from probe.scenario.textfile import read_text

KINDS = ("job", "indexed-job", "cronjob", "deployment", "daemonset")
"""The folders of deploy/overlays that take any scenario."""
ENDLESS = ("deployment", "daemonset")
"""Those whose pods run `dnsprobe serve`, which ends when it is told to."""
HOME, SYSTEM = "dnsprobe", "kube-system"
"""The namespaces that deploy/ is written for: the prober's, and that of cluster DNS."""
MOST_SHARDS = 1000
_INSTANCE = "app.kubernetes.io/instance"
_SCENARIOS = "/scenarios"
_BEYOND_S = 1800
"""How long a Job may take beside its run: until all are scheduled, and while results are waited for."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was typed. settings: those of `options` that are --set. cluster: the UID of the one that may be changed.

    shards: of an Indexed Job, 0 as its overlay has it. dns_namespace: where cluster DNS is.
    """

    scenario: str
    image: str
    kind: str = "job"
    options: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    name: str = ""
    namespace: str = HOME
    dns_namespace: str = SYSTEM
    cluster: str = ""
    shards: int = 0
    schedule: str = ""
    host_network: bool = False
    pod_monitor: bool = False


def manifests(wanted: Wanted) -> str:
    """One stream of YAML; UsageError for what cannot run so, ScenarioError for what is wrong with the scenario."""
    if read_matrix(wanted.scenario, list(wanted.settings)):
        raise UsageError(f"{wanted.scenario}: a matrix is many runs, of labs that a machine builds: it has no manifest")
    plan = read_scenario(wanted.scenario, list(wanted.settings))
    name = _name(wanted.name or plan.name)
    _check(wanted, plan)
    objects = build(deploy_folder() / "overlays" / wanted.kind)
    if changes_of(plan.steps):
        objects = build(deploy_folder() / "components" / "acting", objects)
    if wanted.host_network:
        objects = build(deploy_folder() / "components" / "host-network", objects)
    if wanted.pod_monitor:
        objects = build(deploy_folder() / "components" / "podmonitor", objects)
    workload = next(each for each in objects if "template" in str(each.get("spec", "")))
    _fill(workload, wanted, plan, name)
    if scenario := _own_scenario(wanted, name):
        objects.append(scenario)
        _mount(_pod(workload), scenario["metadata"]["name"])
    return yaml.dump_all(_placed(objects, wanted), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120)


class _Dumper(yaml.SafeDumper):
    """Says everything where it belongs."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def _name(text: str) -> str:
    if re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?", text):
        return text
    raise UsageError(f"--name {text!r}: Kubernetes' names are up to 52 small letters, digits and dashes")


def _check(wanted: Wanted, plan: Plan) -> None:
    changes = changes_of(plan.steps)
    if changes and wanted.kind != "job":
        raise UsageError(
            f"--kind {wanted.kind}: {plan.name} changes the cluster ({', '.join(changes)}), which one prober does,"
            " once: say --kind job"
        )
    if changes and not wanted.cluster:
        raise UsageError(f"{plan.name} changes the cluster ({', '.join(changes)}): say which, with --cluster UID")
    if wanted.cluster and not changes:
        raise UsageError(
            f"--cluster {wanted.cluster}: goes with a scenario that changes it; {plan.name} changes nothing"
        )
    if wanted.kind in ENDLESS:
        without_end(plan)
    if wanted.shards and wanted.kind != "indexed-job":
        raise UsageError("--shards: goes with --kind indexed-job")
    if wanted.schedule and wanted.kind != "cronjob":
        raise UsageError("--schedule: goes with --kind cronjob")
    if wanted.host_network and wanted.kind == "cronjob":
        raise UsageError("--host-network: not with --kind cronjob")


def _fill(workload: Manifest, wanted: Wanted, plan: Plan, name: str) -> None:
    workload["metadata"]["name"] = name
    spec, pod = _spec(workload), _pod(workload)
    if selector := spec.get("selector"):
        selector["matchLabels"][_INSTANCE] = spec["template"]["metadata"]["labels"][_INSTANCE] = name
    container = pod["containers"][0]
    container["image"] = wanted.image
    scenario = wanted.scenario if _is_shipped(wanted) else f"{_SCENARIOS}/{name}.yaml"
    acting = ["--yes", f"--cluster={wanted.cluster}"] if wanted.cluster else []
    container["args"] = [container["args"][0], scenario, *container["args"][2:], *acting, *wanted.options]
    if "activeDeadlineSeconds" in spec:
        spec["activeDeadlineSeconds"] = max(spec["activeDeadlineSeconds"], plan.duration_ns // NS + _BEYOND_S)
    if wanted.schedule:
        workload["spec"]["schedule"] = wanted.schedule
    if wanted.shards:
        spec["completions"] = spec["parallelism"] = wanted.shards
        (completions,) = [each for each in container["env"] if each["name"] == "JOB_COMPLETIONS"]
        completions["value"] = str(wanted.shards)


def _spec(workload: Manifest) -> Any:
    """The spec with the pods' template."""
    spec = workload["spec"]
    return spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec


def _pod(workload: Manifest) -> Any:
    return _spec(workload)["template"]["spec"]


def _is_shipped(wanted: Wanted) -> bool:
    """Whether it was named, not given as a file: then the image brings it."""
    return wanted.scenario in shipped_scenarios() and not Path(wanted.scenario).is_file()


def _own_scenario(wanted: Wanted, name: str) -> Manifest | None:
    """A ConfigMap with a scenario that the image does not bring; None for one that it brings."""
    if _is_shipped(wanted):
        return None
    text = read_text(wanted.scenario, "a scenario in YAML", MOST_OCTETS)
    meta = {"name": f"{name}-scenario", "namespace": HOME, "labels": {"app.kubernetes.io/name": HOME}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {f"{name}.yaml": text}}


def _mount(pod: Any, config: str) -> None:
    pod["volumes"].append({"name": "scenario", "configMap": {"name": config}})
    pod["containers"][0]["volumeMounts"].append({"name": "scenario", "mountPath": _SCENARIOS, "readOnly": True})


def _placed(objects: Iterable[Manifest], wanted: Wanted) -> Iterator[Manifest]:
    """In the namespaces that were named; bindings to another one's account have another name."""
    for each in objects:
        meta = each["metadata"]
        if each["kind"] == "Namespace":
            meta["name"] = wanted.namespace
        elif each["kind"].endswith("Binding"):
            for subject in each["subjects"]:
                subject["namespace"] = wanted.namespace
            if wanted.namespace != HOME and meta.get("namespace") != HOME:
                meta["name"] += f"-{wanted.namespace}"
        if meta.get("namespace") == HOME:
            meta["namespace"] = wanted.namespace
        yield each
        if meta.get("namespace") == SYSTEM != wanted.dns_namespace:
            there = copy.deepcopy(each)
            there["metadata"]["namespace"] = wanted.dns_namespace
            yield there
