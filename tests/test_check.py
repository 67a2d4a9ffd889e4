"""`dnsprobe check` on labs, on a scripted API and on a pod's resolv.conf alone: what it says and how it exits."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from probe.advice.checkup import Checkup, State
from probe.cluster.kube import Kube
from probe.cluster.lab import Lab
from probe.diagnosis.checked import causes_of, exit_code_of
from probe.engine import Engine
from probe.errors import EnvironmentProblem
from probe.live import Brief
from probe.model import NS, TargetKind
from probe.report.check import check_json, check_text
from probe.resolv import read_resolv_conf
from probe.runfile import open_run
from probe.scenario.checkup import Check, base_plan
from probe.scenario.file import read_scenario
from probe.scenario.run import run as run_plan
from tests.apiserver import ApiServer
from tests.confusion import Silent
from tests.kube_objects import config_map, endpoint_slice, pod, service
from tests.test_cli import ran, told

QUICK = ["lab.coredns=stand-in", "lab.replicas=2"]


def checked(check: Check, path: Path) -> Checkup:
    began = time.monotonic()
    seen, interrupted = asyncio.run(check.made(path, Brief()))
    assert not interrupted
    assert time.monotonic() - began < 15
    return seen


def in_lab(path: Path, *settings: str, before: Callable[[Lab], Any] | None = None) -> tuple[Checkup, list[str], int]:
    """What a check of a lab sees, its causes and exit code; `before`: what is done to the lab first."""

    async def made() -> Checkup:
        base = base_plan([*QUICK, *settings])
        lab = Lab(base.lab)
        await lab.start()
        if before:
            await before(lab)
        return (await Check(lab, base, resolver=None).made(path, Brief()))[0]

    seen = asyncio.run(made())
    causes = causes_of(seen)
    return seen, [cause.id for cause in causes], exit_code_of(seen, causes)


def test_a_lab_that_is_well(tmp_path: Path) -> None:
    seen, causes, code = in_lab(tmp_path / "run.db", "lab.upstream=answering")
    assert (causes, code) == ([], 0)
    assert {path.state for path in seen.paths} == {State.OK}
    assert [(path.target.kind, path.transport, path.outside) for path in seen.paths] == [
        (TargetKind.SERVICE, "udp", False),
        (TargetKind.SERVICE, "tcp", False),
        (TargetKind.SERVICE, "udp", True),
        *[(TargetKind.POD, transport, False) for _ in range(2) for transport in ("udp", "tcp")],
        (TargetKind.UPSTREAM, "udp", True),
        (TargetKind.UPSTREAM, "tcp", True),
    ]
    assert 50 < sum(path.asked for path in seen.paths) <= 96  # as few as that only on a machine that is held up
    assert len(check_text(seen, []).splitlines()) <= 24


def test_a_silent_upstream_is_the_cause_of_names_outside(tmp_path: Path) -> None:
    seen, causes, code = in_lab(tmp_path / "run.db", "lab.upstream=silent", "lab.coredns=auto")
    assert (causes, code) == (["upstream_silent"], 1)
    assert {(path.target.kind, path.outside) for path in seen.broken} == {
        (TargetKind.SERVICE, True),
        (TargetKind.UPSTREAM, True),
    }


def test_a_service_whose_pods_are_all_gone(tmp_path: Path) -> None:
    seen, causes, code = in_lab(tmp_path / "run.db", "lab.lameduck=0s", before=lambda lab: lab.act("scale", "0"))
    assert (causes, code, seen.ready) == (["no_pods"], 1, 0)


def test_the_command_prints_a_screen_or_json(tmp_path: Path) -> None:
    lab = "--lab --set lab.coredns=stand-in --set lab.replicas=1"
    code, out, err = ran(f"check {lab} -o kept.db", tmp_path)
    assert (code, out.splitlines()[0], err) == (0, "OK: all 5 paths answered", "")
    assert (tmp_path / "kept.db").exists()
    code, out, _ = ran(f"check {lab} --format json", tmp_path)
    said = json.loads(out)
    assert (code, said["state"], said["exit_code"], len(said["paths"])) == (0, "ok", 0, 5)
    assert 10 < said["paths"][0]["asked"] == said["paths"][0]["answered"] <= 20
    assert 0 < said["paths"][0]["p50_seconds"] <= said["paths"][0]["worst_seconds"] < 2
    assert [file.name for file in tmp_path.iterdir()] == ["kept.db"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("check --format dnsperf", "--format 'dnsperf': say text, json"),
        ("check --lab --context x", "--context: goes with a real cluster: with --lab"),
        ("check --set lab.replicas=1", "--set goes with --lab"),
        ("check --lab --set duration=1s", "here the lab alone can be set"),
        ("check --service kube-dns", "--service 'kube-dns': say NAMESPACE/NAME"),
        ("check --lab -o .", "exists already"),
    ],
)
def test_what_is_refused(command: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = told(command, capsys)
    assert code == 2
    assert said in err


# -- a scripted API


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Service and a pod on this machine's loopback where nobody listens."""
    server = ApiServer(
        service("kube-dns", "127.0.0.9"),
        endpoint_slice(("coredns-a", "127.0.0.8", True, False)),
        pod("coredns-a", "127.0.0.8"),
        config_map(),
    )
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))
    monkeypatch.setattr("probe.scenario.checkup.API_EVERY", 0.05)
    yield server
    server.stop()


def of_cluster(path: Path, resolv_conf: str | None = None) -> Checkup:
    conf = None if resolv_conf is None else read_resolv_conf(resolv_conf)
    return checked(Check(Kube(), replace(base_plan([]), duration_ns=NS), "", conf), path)


def test_of_a_cluster_its_api_server_is_asked_too(api: ApiServer, tmp_path: Path) -> None:
    api.refuse = lambda path: 403 if "/nodes" in path else 0
    seen = of_cluster(tmp_path / "run.db")
    assert (seen.api.version, len(seen.api.seconds), seen.api.reached) == ("v1.34.1", 4, True)
    assert {str(path.outcome.label) for path in seen.paths if path.outcome} == {"connection_refused"}
    assert (seen.ready, seen.wanted, seen.namespace, seen.domain) == (1, 1, "kube-system", "cluster.local")
    (missing,) = seen.not_seen
    assert missing == (
        'nodes: no right to list them (403): add to its ClusterRole: {apiGroups: [""], resources: [nodes],'
        " verbs: [list, watch]}"
    )
    text = check_text(seen, causes_of(seen))
    assert "NOT SEEN\n  - nodes: no right to list them (403): add to its ClusterRole:" in text


def test_another_domain_is_taken_from_the_corefile(api: ApiServer, tmp_path: Path) -> None:
    api.put(config_map(Corefile=".:53 {\n  kubernetes prod.example in-addr.arpa\n}\n"))
    assert of_cluster(tmp_path / "run.db").domain == "prod.example"


def test_a_scenario_is_asked_in_the_domain_of_the_cluster(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.put(config_map(Corefile=".:53 {\n  kubernetes prod.example in-addr.arpa\n}\n"))
    said: list[str] = []
    view = Silent()
    monkeypatch.setattr(view, "noted", said.append)
    plan = read_scenario("baseline", ["duration=1s"])
    asyncio.run(run_plan(plan, tmp_path / "run.db", view, Engine(), Kube(), idle=False))
    run = open_run(tmp_path / "run.db")
    assert {q.name for one in run.series for q in one.questions} == {
        "kubernetes.default.svc.prod.example",
        "no-such-name.default.svc.prod.example",
    }
    told = "names in cluster.local are asked in prod.example, the cluster's domain"
    assert told in said
    assert run.head.facts["names"] == told


def test_without_an_api_and_no_pod_there_is_nobody_to_ask(api: ApiServer, tmp_path: Path) -> None:
    api.stop()
    with pytest.raises(EnvironmentProblem, match="cannot be reached"):
        of_cluster(tmp_path / "run.db")
    api.start()
    api.refuse = lambda path: 403 if "/services" in path else 0
    with pytest.raises(EnvironmentProblem, match=r"services in kube-system: no right to list them \(403\): add to"):
        of_cluster(tmp_path / "run.db")


def test_an_api_that_says_nothing_is_waited_for_5_seconds(api: ApiServer, tmp_path: Path) -> None:
    api.hush(True)
    seen = of_cluster(tmp_path / "run.db", "nameserver 127.0.0.9\n")
    api.hush(False)
    assert seen.blind == "the API server has not shown within 5 s what there is"
    assert seen.api.problem.endswith("has not answered for 3 s")
    assert exit_code_of(seen, causes_of(seen)) == 1


@pytest.mark.parametrize(
    ("search", "lanes"),
    [
        ("search a.svc.cluster.local svc.cluster.local cluster.local\n", ["udp False", "tcp False", "udp True"]),
        ("", ["udp True"]),
    ],
)
def test_without_rights_a_pod_s_resolv_conf_says_whom_to_ask(
    search: str, lanes: list[str], api: ApiServer, tmp_path: Path
) -> None:
    """Names of the cluster are asked only of nameservers that should know them."""
    api.refuse = lambda path: 403 if path != "/version" else 0
    seen = of_cluster(tmp_path / "run.db", f"nameserver 127.0.0.9\nnameserver 127.0.0.8\n{search}")
    assert [f"{p.transport} {p.outside}" for p in seen.paths] == lanes * 2
    assert {path.target.name for path in seen.paths} == {"nameserver 127.0.0.9", "nameserver 127.0.0.8"}
    assert "no right to list them (403)" in seen.blind
    assert seen.api.reached
    causes = causes_of(seen)
    assert exit_code_of(seen, causes) == 1
    said = json.loads(check_json(seen, causes))
    assert said["resolver"]["nameservers"] == ["127.0.0.9", "127.0.0.8"]
    assert said["resolver"]["says"] == list(seen.resolving)


def test_nameservers_that_the_cluster_does_not_have_are_asked_too(api: ApiServer, tmp_path: Path) -> None:
    assert api.port
    seen = of_cluster(tmp_path / "run.db", "nameserver 127.0.0.9\nnameserver 127.0.0.7\n")
    assert [path.target.name for path in seen.of(TargetKind.SERVER, outside=True)] == ["nameserver 127.0.0.7"]
