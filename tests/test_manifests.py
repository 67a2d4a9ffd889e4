"""deploy/ and `dnsprobe manifests`, by rules that need no cluster; tests/e2e/test_deploy.py applies them to one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from probe.cli import main
from probe.cluster.zone import HEALTH_PORT, METRICS_PORT, READY_PORT
from probe.exporter.page import PATH
from probe.scenario.cells import read_matrix
from probe.scenario.file import read_scenario, shipped_scenarios
from probe.scenario.kustomize import build, change, deploy_folder
from probe.scenario.linger import PORT, grace_of
from probe.scenario.manifests import ENDLESS, KINDS

OVERLAYS = sorted(path.name for path in (deploy_folder() / "overlays").iterdir())


def printed(words: str, capsys: pytest.CaptureFixture[str]) -> list[Any]:
    """The objects that `dnsprobe manifests` prints."""
    main_words = ["manifests", "--image", "registry.test/dnsprobe:1", *words.split()]
    with pytest.raises(SystemExit) as ended:
        main(main_words)
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    return list(yaml.safe_load_all(told.out))


def refused(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What it says instead, as one line."""
    with pytest.raises(SystemExit) as ended:
        main(["manifests", *words.split()])
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def workload(objects: list[Any]) -> Any:
    """The one object that makes pods."""
    (found,) = [each for each in objects if each["kind"] in ("Job", "CronJob", "Deployment", "DaemonSet")]
    return found


def spec(objects: list[Any]) -> Any:
    """Its spec, of a CronJob that of its Jobs."""
    found = workload(objects)["spec"]
    return found["jobTemplate"]["spec"] if "jobTemplate" in found else found


def container(objects: list[Any]) -> Any:
    (found,) = spec(objects)["template"]["spec"]["containers"]
    return found


def travels(file: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed mounts the file where the prober looks for it."""
    objects = printed(str(file), capsys)
    (config,) = [each for each in objects if each["kind"] == "ConfigMap"]
    assert config["data"] == {f"{name}.yaml": file.read_text()}
    (volume,) = [each for each in spec(objects)["template"]["spec"]["volumes"] if each["name"] == "scenario"]
    (mount,) = [each for each in container(objects)["volumeMounts"] if each["name"] == "scenario"]
    assert volume["configMap"]["name"] == config["metadata"]["name"]
    assert container(objects)["args"][1] == f"{mount['mountPath']}/{name}.yaml"


@pytest.mark.parametrize(
    ("operations", "becomes"),
    [
        ([{"op": "add", "path": "/b", "value": 2}], {"a": {"x/y": [1, 2]}, "b": 2}),
        ([{"op": "add", "path": "/a/x~1y/-", "value": 3}], {"a": {"x/y": [1, 2, 3]}}),
        ([{"op": "add", "path": "/a/x~1y/0", "value": 0}], {"a": {"x/y": [0, 1, 2]}}),
        ([{"op": "replace", "path": "/a/x~1y/1", "value": 5}], {"a": {"x/y": [1, 5]}}),
        ([{"op": "remove", "path": "/a/x~1y/0"}], {"a": {"x/y": [2]}}),
        ([{"op": "move", "from": "/a", "path": "/c"}, {"op": "add", "path": "/d", "value": {}}],
         {"c": {"x/y": [1, 2]}, "d": {}}),
    ],
)  # fmt: skip
def test_a_json_patch_changes_what_it_names(operations: list[Any], becomes: object) -> None:
    thing = {"a": {"x/y": [1, 2]}}
    change(thing, operations)
    assert thing == becomes


@pytest.mark.parametrize("word", ["replace", "remove"])
def test_a_patch_of_what_is_not_there_is_an_error(word: str) -> None:
    with pytest.raises(KeyError):
        change({"a": 1}, [{"op": word, "path": "/b", "value": 2}])


VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def not_restricted(pod: Any) -> list[str]:
    """What the profile `restricted` forbids (Kubernetes, Pod Security Standards, of 1.34)."""
    mine = pod.get("securityContext", {})
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    found += [f"volume {name}" for one in pod["volumes"] for name in one.keys() - {"name"} - VOLUMES]
    found += [name for name in ("sysctls", "windowsOptions", "seLinuxOptions") if name in mine]
    for one in [*pod["containers"], *pod.get("initContainers", []), *pod.get("ephemeralContainers", [])]:
        said = {**mine, **one.get("securityContext", {})}
        held = {
            "privileged": said.get("privileged", False) is False,
            "allowPrivilegeEscalation": said.get("allowPrivilegeEscalation") is False,
            "capabilities": said.get("capabilities") == {"drop": ["ALL"]},
            "runAsNonRoot": said.get("runAsNonRoot") is True,
            "runAsUser": said.get("runAsUser") != 0,
            "seccomp": said.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "procMount": "procMount" not in said,
            "hostPort": not any("hostPort" in port for port in one.get("ports", [])),
        }
        found += [name for name, holds in held.items() if not holds]
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_s_pods_are_restricted(overlay: str) -> None:
    """All but those in the node's network, for which their namespace says so."""
    objects = build(deploy_folder() / "overlays" / overlay)
    pod = spec(objects)["template"]["spec"]
    assert not_restricted(pod) == (["hostNetwork"] if overlay == "host-network" else [])
    (namespace,) = [each for each in objects if each["kind"] == "Namespace"]
    enforced = namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert enforced == ("privileged" if overlay == "host-network" else "restricted")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"hostPID": True}, ["hostPID"]),
        ({"volumes": [{"name": "node", "hostPath": {"path": "/"}}]}, ["volume hostPath"]),
        ({"securityContext": {}}, ["runAsNonRoot", "seccomp"]),
        ({"securityContext": {"runAsNonRoot": True, "runAsUser": 0}}, ["runAsUser", "seccomp"]),
        ({"initContainers": [{"name": "more"}]}, ["allowPrivilegeEscalation", "capabilities"]),
    ],
)
def test_what_is_not_restricted_is_found(change: dict[str, Any], found: list[str]) -> None:
    pod = spec(build(deploy_folder() / "overlays" / "job"))["template"]["spec"]
    assert not_restricted(pod | change) == found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_token_is_where_the_api_is_asked_and_nowhere_else(overlay: str) -> None:
    objects = build(deploy_folder() / "overlays" / overlay)
    assert spec(objects)["template"]["spec"]["automountServiceAccountToken"] is True
    accounts = [each for each in objects if each["kind"] == "ServiceAccount"]
    assert accounts
    assert [each["automountServiceAccountToken"] for each in accounts] == [False] * len(accounts)
    assert not [each for each in objects if each["kind"] == "Secret"]


PROXY_METRICS, KUBELET = 10249, 10250
API_PORTS = {"EKS, GKE, AKS": 443, "kubeadm, kind, k3s, RKE2, OpenShift": 6443, "minikube": 8443, "MicroK8s": 16443}
"""Of the API server itself, behind the Service's 443."""


def test_the_network_policy_lets_out_what_a_prober_asks() -> None:
    """Where a CNI looks after the Service's address was translated, the port is the endpoint's."""
    objects = build(deploy_folder() / "overlays" / "job")
    (policy,) = [each for each in objects if each["kind"] == "NetworkPolicy"]
    assert sorted(policy["spec"]["policyTypes"]) == ["Egress", "Ingress"]
    let_out = {(port["port"], port["protocol"]) for rule in policy["spec"]["egress"] for port in rule["ports"]}
    api = {(port, "TCP") for port in API_PORTS.values()}
    dns = {(port, way) for port in (53, 5353) for way in ("TCP", "UDP")}
    clock = {(port, "TCP") for port in (HEALTH_PORT, READY_PORT, METRICS_PORT)}
    assert let_out == api | dns | clock | {(PROXY_METRICS, "TCP"), (KUBELET, "TCP")}
    for name in shipped_scenarios():
        for lane in read_scenario(name, []).lanes if not read_matrix(name, []) else ():
            assert not lane.port or (lane.port, "UDP" if lane.transport == "udp" else "TCP") in let_out, (name, lane)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_is_a_prober_that_harms_nobody(overlay: str) -> None:
    objects = build(deploy_folder() / "overlays" / overlay)
    pod, one = spec(objects)["template"]["spec"], container(objects)
    assert pod["securityContext"]["runAsNonRoot"]
    assert "runAsUser" not in str(objects), "any user must do"
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "cpu" not in one["resources"]["limits"], "a prober that is throttled sends late"
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert pod["terminationGracePeriodSeconds"] >= 60
    assert pod["dnsPolicy"] == "Default"
    meta = spec(objects)["template"]["metadata"]
    meshes = {**meta["annotations"], **meta["labels"]}
    assert meshes["sidecar.istio.io/inject"] == meshes["ambient.istio.io/dns-capture"] == "false"
    assert (meshes["istio.io/dataplane-mode"], meshes["linkerd.io/inject"]) == ("none", "disabled")
    assert meshes["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert pod.get("hostNetwork", False) == (overlay == "host-network")


def _verbs(overlay: str) -> Iterator[tuple[str, str]]:
    """Each verb on each resource that an overlay grants outside the prober's own namespace."""
    for each in build(deploy_folder() / "overlays" / overlay):
        if each["kind"] in ("Role", "ClusterRole") and each["metadata"].get("namespace") != "dnsprobe":
            yield from (
                (verb, resource) for rule in each["rules"] for resource in rule["resources"] for verb in rule["verbs"]
            )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_who_acts_may_change_anything(overlay: str) -> None:
    changing = {(verb, what) for verb, what in _verbs(overlay) if verb not in ("get", "list", "watch")}
    acting = {("patch", what) for what in ("deployments", "daemonsets", "services", "configmaps")}
    acting |= {("patch", "nodes"), ("delete", "pods"), ("create", "pods/eviction")}
    acting |= {("create", "configmaps"), ("delete", "configmaps")}
    assert changing == (acting if overlay == "acting" else set())
    assert "secrets" not in {what for _, what in _verbs(overlay)}


ALIKE = {"job": "2", "job-kept": "2", "cronjob": "2", "host-network": "every", "daemonset": "every"}
"""How many probers ask the same; elsewhere one."""


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_prober_knows_how_long_it_has_and_how_many_there_are(overlay: str) -> None:
    objects = build(deploy_folder() / "overlays" / overlay)
    told = {one["name"]: one.get("value") for one in container(objects)["env"]}
    assert len(told) == len(container(objects)["env"])
    assert told["DNSPROBE_NODES"] == ALIKE.get(overlay, "1")
    assert grace_of(told) == spec(objects)["template"]["spec"]["terminationGracePeriodSeconds"]


def test_each_binding_has_its_role_and_its_account() -> None:
    for overlay in OVERLAYS:
        objects = build(deploy_folder() / "overlays" / overlay)
        there = {(each["kind"], each["metadata"]["name"], each["metadata"].get("namespace")) for each in objects}
        assert len(there) == len(objects)
        for each in [each for each in objects if each["kind"].endswith("Binding")]:
            role = each["roleRef"]
            assert (role["kind"], role["name"], each["metadata"].get("namespace")) in there
            assert all(("ServiceAccount", one["name"], one["namespace"]) in there for one in each["subjects"])
        assert ("ServiceAccount", spec(objects)["template"]["spec"]["serviceAccountName"], "dnsprobe") in there


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_printed_is_the_overlay_filled_in(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    overlay = build(deploy_folder() / "overlays" / kind)
    named = container(overlay)["args"][1]
    container(overlay)["image"] = "registry.test/dnsprobe:1"
    expected = yaml.safe_load(yaml.safe_dump(overlay).replace(named, "baseline"))
    assert printed(f"baseline --kind {kind}", capsys) == expected


def test_options_of_the_run_and_of_the_manifest(capsys: pytest.CaptureFixture[str]) -> None:
    objects = printed(
        "baseline --kind indexed-job --shards 7 --set duration=3h --max-qps 5000 -T 2 --name mine", capsys
    )
    assert workload(objects)["metadata"]["name"] == "mine"
    assert (spec(objects)["completions"], spec(objects)["parallelism"]) == (7, 7)
    assert {"name": "JOB_COMPLETIONS", "value": "7"} in container(objects)["env"]
    assert container(objects)["args"][-6:] == ["--set", "duration=3h", "--max-qps", "5000", "-T", "2"]
    assert spec(objects)["activeDeadlineSeconds"] == 14400
    longer = printed("baseline --set duration=4h --kind cronjob --schedule @daily", capsys)
    assert spec(longer)["activeDeadlineSeconds"] == 4 * 3600 + 1800
    assert workload(longer)["spec"]["schedule"] == "@daily"


@pytest.mark.parametrize("kind", KINDS)
def test_prometheus_finds_every_prober(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By annotations, or by the operator's PodMonitor that fits, and no policy is in its way."""
    objects = printed(f"baseline --kind {kind} --pod-monitor", capsys)
    template, (port,) = spec(objects)["template"], container(objects)["ports"]
    annotations = template["metadata"]["annotations"]
    assert (annotations["prometheus.io/scrape"], annotations["prometheus.io/path"]) == ("true", PATH)
    assert annotations["prometheus.io/port"] == str(port["containerPort"]) == str(PORT)
    is_job = kind in ("job", "indexed-job", "cronjob")
    monitors = [each for each in objects if each["kind"] == "PodMonitor"]
    mine = [each for each in monitors if each["spec"]["selector"]["matchExpressions"] == [
        {"key": "batch.kubernetes.io/job-name", "operator": "Exists" if is_job else "DoesNotExist"}
    ]]  # fmt: skip
    (monitor,) = mine
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == (port["name"], PATH)
    assert endpoint["relabelings"] == [{"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}]
    (policy,) = [each for each in objects if each["kind"] == "NetworkPolicy"]
    assert policy["spec"]["ingress"] == [{"ports": [{"port": PORT, "protocol": "TCP"}]}]


@pytest.mark.parametrize("kind", ENDLESS)
def test_who_stays_is_asked_over_http_whether_it_is_well(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    one = container(printed(f"every-node --kind {kind} --keep 6h --per-node 3", capsys))
    assert one["args"][:2] == ["serve", "every-node"]
    assert one["args"][-4:] == ["--keep", "6h", "--per-node", "3"]
    assert (one["readinessProbe"]["httpGet"], one["livenessProbe"]["httpGet"]) == (
        {"path": "/ready", "port": "http"},
        {"path": "/", "port": "http"},
    )


def test_a_scenario_of_one_s_own_travels_in_a_config_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shipped_scenarios()["baseline"].read_text().replace("name: baseline", "name: mine")
    (tmp_path / "file.yaml").write_text(text)
    travels(tmp_path / "file.yaml", "mine", capsys)


def test_so_does_one_that_the_image_has_if_it_is_given_as_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    travels(shipped_scenarios()["baseline"], "baseline", capsys)


def test_a_scenario_that_acts_gets_the_rights_and_is_run_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    objects = printed("scale-down --cluster production", capsys)
    assert spec(objects)["template"]["spec"]["serviceAccountName"] == "dnsprobe-acting"
    assert spec(objects)["completions"] == 1
    assert "podFailurePolicy" not in spec(objects), "an evicted prober would act again"
    assert container(objects)["args"][-2:] == ["--yes", "--cluster=production"]


def test_other_namespaces(capsys: pytest.CaptureFixture[str]) -> None:
    objects = printed("baseline --namespace team-a --service openshift-dns/dns-default", capsys)
    assert {each["metadata"].get("namespace") for each in objects} == {
        None,
        "team-a",
        "kube-system",
        "default",
        "openshift-dns",
    }
    (namespace,) = [each for each in objects if each["kind"] == "Namespace"]
    assert namespace["metadata"]["name"] == "team-a"
    bindings = [each for each in objects if each["kind"].endswith("Binding")]
    assert {one["namespace"] for each in bindings for one in each["subjects"]} == {"team-a"}
    assert "--service" in container(objects)["args"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("baseline", "--image: which?"),
        ("baseline --image x --kind pod", "--kind 'pod': say job, indexed-job,"),
        ("nothing --image x", "nothing: no such file or shipped scenario"),
        ("baseline --image x --lab", "--lab: a manifest is for a cluster"),
        ("baseline --image x -o run.db", "--out: the manifest says where results go"),
        ("baseline --image x -s 10.0.0.1", "--server: not with a scenario"),
        ("baseline --image x --set duration=never", "duration"),
        ("baseline --image x --nosuch", "no such option: --nosuch"),
        ("baseline --image x --shards 3", "--shards: goes with --kind indexed-job"),
        ("baseline --image x --kind indexed-job --shards 1", "--shards"),
        ("baseline --image x --schedule @daily", "--schedule: goes with --kind cronjob"),
        ("baseline --image x --cluster c", "--cluster c: goes with a scenario that changes it"),
        ("baseline --image x --name Upper", "--name 'Upper'"),
        ("scale-down --image x", "scale-down changes the cluster (scale to 2): say which, with --cluster UID"),
        ("scale-down --image x --cluster c --kind daemonset", "one prober does, once: say --kind job"),
        ("baseline --image x --kind daemonset --linger 5m", "no such option: --linger"),
        ("baseline --image x --kind deployment --metrics :1", "--metrics: the manifest says where results go"),
        ("lameduck-sweep --image x", "a matrix is many runs"),
    ],
)
def test_what_has_no_manifest_is_refused(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(words, capsys)
