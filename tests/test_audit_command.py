"""`dnsprobe audit`: its words, its plan, its formats, what a run adds, the lab, and kube-proxy's own metric."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from probe.advice import PLATFORMS
from probe.audit import CHECKS, Planned, Severity, Snapshot
from probe.audit.measured import CHECKS_OF, measured
from probe.audit.measured import told as said_of
from probe.audit.plan import Step, plan_of
from probe.audit.upgrading import UPGRADES
from probe.cluster.kube.programming import METRIC, buckets
from probe.diagnosis import RULES
from probe.model import Finding
from tests import kube_objects as k
from tests.apiserver import ApiServer
from tests.stories import a_third
from tests.test_advice import ran
from tests.test_audit import kubeadm, snapshot_of
from tests.test_cli import told

WRONG = {
    "--format xml": "say text, json, markdown, junit",
    "--fail-on info": "say fail, warn",
    "--vendor acme": "say kubeadm, helm",
    "--only C99": "no check: say C01",
    "--skip nothing": "no check",
    "--explain C00": "no check",
    "--target-version latest": "say three numbers",
    "--propagation soon": "--propagation",
    "--service dns": "--service",
    "--snapshot nowhere.yaml": "cannot be read",
    "--snapshot a.yaml --context prod": "there is no cluster to ask",
    "--snapshot a.yaml --propagation kube-proxy": "there is no cluster to ask",
    "--lab --context prod": "there is no cluster and no file",
    "--set lab.nodes=2": "--set goes with --lab",
    "--lab --set nodes=2": "lab.lameduck",
    "--save nowhere/x.yaml": "its folder does not exist",
    "--from-run nowhere.db": "nowhere.db",
}


@pytest.mark.parametrize(("words", "expected"), WRONG.items(), ids=WRONG)
def test_wrong_words_are_answered(
    words: str, expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = told(f"audit {words}", capsys)
    assert (code, out) == (2, "")
    assert expected in " ".join(err.split())


def file_of(tmp_path: Path, *things: k.Json) -> Path:
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps({"kind": "List", "items": list(things)}))
    return path


def pinned() -> list[k.Json]:
    """With sessionAffinity, which fails."""
    things = kubeadm()
    things[0]["spec"]["sessionAffinity"] = "ClientIP"
    return things


def test_exit_codes_follow_the_worst_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = file_of(tmp_path, *pinned())
    assert told(f"audit --snapshot {file} --only C16", capsys)[0] == 1
    assert told(f"audit --snapshot {file} --only c03", capsys)[0] == 0
    assert told(f"audit --snapshot {file} --only C03 --fail-on warn", capsys)[0] == 1
    assert told(f"audit --snapshot {file} --only C16,C03 --skip C16", capsys)[0] == 0
    assert told(f"audit --snapshot {file} --only C16 --against {file_of(tmp_path, *kubeadm())}", capsys)[0] == 0


def test_a_remedy_that_mends_two_points_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = told("audit --lab --set lab.lameduck=0s --only C03,C05", capsys)
    assert (out.count("mend:\n"), out.count("mend: as C03 says"), len(re.findall(r"lameduck [\d.]+s", out))) == (
        1,
        1,
        1,
    )
    _, page, _ = told("audit --lab --set lab.lameduck=0s --only C03,C05 --format markdown", capsys)
    assert (page.count("edit configmap coredns"), page.count("mended as C03 says")) == (1, 1)


def test_the_text_says_what_fails_first_and_what_passes_by_its_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = told(f"audit --snapshot {file_of(tmp_path, *pinned())} --target-version 1.13.1", capsys)
    heads = [line for line in out.splitlines() if line and line[0] != " "]
    assert heads[1:] == ["FAIL", "WARN", "UNKNOWN", "INFO", "PASS", "PLAN"]
    assert re.search(
        r"FAIL\n(.*\n)*?  C16  sessionAffinity of the Service\n(.*\n)*?       mend:\n         kubectl .*patch", out
    )
    assert "  CoreDNS      1.12.1 -> 1.13.1" in out
    assert max(map(len, (line for line in out.splitlines() if "kubectl" not in line and "http" not in line))) <= 115


def test_json_markdown_and_junit_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = file_of(tmp_path, *pinned())
    said = json.loads(told(f"audit --snapshot {file} --format json", capsys)[1])
    assert (said["exit_code"], {one["id"] for one in said["findings"]}) == (1, set(CHECKS))
    assert sum(said["counts"].values()) == len(CHECKS)
    assert next(step["title"] for step in said["plan"]).startswith("Keep what there is")
    suite = ET.fromstring(told(f"audit --snapshot {file} --format junit", capsys)[1].encode())  # noqa: S314
    assert [int(suite.attrib[name]) for name in ("tests", "failures", "skipped")] == [
        len(CHECKS),
        said["counts"]["fail"],
        said["counts"]["unknown"],
    ]
    page = told(f"audit --snapshot {file} --format markdown", capsys)[1]
    for one in said["findings"]:
        assert one["id"] in page
    assert "```sh\nkubectl -n kube-system patch service kube-dns" in page


def test_explain_says_why_and_whence(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told("audit --explain c05", capsys)
    assert (code, out.split()[0]) == (0, "C05")
    assert "why:" in out
    assert "source:" in out


def test_the_corefile_is_migrated_as_a_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    things = kubeadm()
    things[1] = k.deployment(container={"image": "k8s.gcr.io/coredns:1.6.7"})
    things[2]["data"]["Corefile"] = k.COREFILE.replace("# as ever", "\n       resyncperiod 5m")
    file = file_of(tmp_path, *things)
    code, out, _ = told(f"audit --snapshot {file} --migrate --target-version 1.12.1", capsys)
    assert code == 0
    assert "# Corefile:9: removed: `resyncperiod` of `kubernetes`" in out.partition("---")[0]
    assert "\n-       resyncperiod 5m\n" in out
    assert told(f"audit --snapshot {file} --migrate", capsys)[0] == 2
    assert told(f"audit --snapshot {file_of(tmp_path, k.service())} --migrate --target-version 1.12.1", capsys)[0] == 4


# -- the plan


def findings(*names: str) -> list[Finding]:
    return [Finding(name, Severity.WARN.value, "bad", remedy=f"mend {name}") for name in names]


def plan(things: list[k.Json], *names: str, **planned: Any) -> list[Step]:
    return plan_of(snapshot_of(*things, version="v1.31.2"), Planned(**planned), findings(*names))


def test_every_finding_has_its_step_in_the_order_of_the_guides() -> None:
    steps = plan(kubeadm(), *reversed(CHECKS))
    assert [step.title.split()[0] for step in steps] == [
        *("Keep", "Mend", "Mend", "Set", "Take", "Let", "Put", "Migrate", "Give", "Replicas,", "Ask", "See", "Look"),
        *("See", "Look", "Upgrade", "Or", "See"),
    ]
    covered = [check for step in steps for check in step.checks]
    assert set(covered) == set(CHECKS)
    assert [step.title for step in plan(kubeadm())] == [
        step.title for step in steps if not step.checks or step.checks[0] in ("C43", "C35")
    ]


def test_what_to_expect_is_worked_out() -> None:
    upgrade = next(step for step in plan(kubeadm(), target="1.12.3") if step.title.startswith("Upgrade CoreDNS"))
    assert upgrade.commands == (
        "kubectl -n kube-system set image deployment/coredns coredns=registry.k8s.io/coredns/coredns:v1.12.3",
    )
    text = " ".join(upgrade.expect)
    assert "2 pods in at least 2 rounds (maxSurge 1, maxUnavailable 0)" in text
    assert "for up to 10 s after a pod has gone" in text  # kubeadm()'s udpTimeout
    iptables = kubeadm()
    iptables[-1] = k.config_map("kube-proxy", **{"config.conf": "mode: iptables\n"})
    text = " ".join(next(step for step in plan(iptables) if step.title.startswith("Upgrade CoreDNS")).expect)
    assert "kube-proxy is in iptables mode" in text
    assert "with a lameduck of 5 s 1/2 of the clients on fixed source ports (Envoy, c-ares, nginx) lose all" in text
    assert "with a lameduck of 41 s no query from a fixed source port (Envoy, c-ares, nginx) is lost" in text


@pytest.mark.parametrize("platform", PLATFORMS)
def test_each_platform_has_its_upgrade(platform: str) -> None:
    assert platform in UPGRADES
    steps = plan(kubeadm(), platform=platform, target="1.13.1")
    upgrade = next(step for step in steps if step.title.startswith("Upgrade"))
    assert all("{" not in line or "imageTag" in line for line in upgrade.commands)
    instead = [step for step in steps if step.title.startswith("Or upgrade Kubernetes")]
    assert len(instead) == (platform in ("kubeadm", "capi"))
    if instead:
        assert "Kubernetes 1.32 brings CoreDNS 1.11.3" in instead[0].expect[0]
    if platform == "capi":
        patch = json.loads(shlex.split("".join(upgrade.commands).replace("\\", " "))[-1])
        assert patch[0]["value"] == {"imageTag": "v1.13.1"}
        assert "replace the control plane's machines" in " ".join(upgrade.expect)


def test_a_plan_without_rights_has_what_can_be_said() -> None:
    unread = dict.fromkeys(("Service", "Deployment", "DaemonSet", "ConfigMap", "Pod", "Node"), "no right")
    steps = plan_of(Snapshot((), unread), Planned(), [])
    assert "how the pods end could not be read" in " ".join(steps[-3].expect)


# -- what a run adds


def test_a_run_says_how_late_nodes_are_and_what_margin_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ran(tmp_path, 15.0, service=[7.0, 9.5])
    file = file_of(tmp_path, *kubeadm())
    said = json.loads(told(f"audit --snapshot {file} --from-run {run.path} --format json", capsys)[1])
    assert said["facts"]["propagation"].startswith("4.5 s, measured in")
    text = " ".join(said["measured"])
    assert (
        "clients on fresh source ports need a lameduck of 4.5 s at a propagation of 4.5 s; 5 s are set: 0.5 s" in text
    )
    said = json.loads(told(f"audit --snapshot {file} --from-run {run.path} --propagation 9s --format json", capsys)[1])
    assert said["facts"]["propagation"] == "9 s, --propagation"


def test_a_run_with_losses_names_the_checks_that_they_belong_to(tmp_path: Path) -> None:
    run = a_third(tmp_path / "run.db")
    seen = measured(run, "kubeadm")
    assert seen.propagation is None
    assert 0 < seen.figures["loss"] < 1
    said = list(said_of(seen, snapshot_of(*kubeadm())))
    assert any("queries lost" in text for text in said)
    assert "no pod that answers with an NSID" in said[-1]


def test_causes_and_checks_know_each_other() -> None:
    assert CHECKS_OF.keys() <= RULES.keys()
    assert {check for checks in CHECKS_OF.values() for check in checks} <= CHECKS.keys()


# -- the lab


@pytest.mark.parametrize(
    ("settings", "check", "severity"),
    [
        ("lab.lameduck=0s", "C03", "fail"),
        ("lab.lameduck=40s", "C04", "fail"),
        ("lab.replicas=1", "C10", "fail"),
        ("lab.backend=netns --set lab.nodes=3", "C11", "pass"),
        ("lab.readiness=health", "C06", "warn"),
        ("lab.proxy_mode=ipvs --set lab.kernel=5.4", "C21", "warn"),
        ("lab.kubernetes=1.25", "C23", "warn"),
    ],
)
def test_the_lab_is_audited_by_what_it_is_set_to(
    settings: str, check: str, severity: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = told(f"audit --lab --set lab.coredns=stand-in --set {settings} --only {check} --format json", capsys)
    said = json.loads(out)
    assert [one["severity"] for one in said["findings"]][:1] == [severity], said["findings"]
    assert said["facts"]["propagation"] == "1 s, lab.propagation"
    seconds = [text for one in said["findings"] for text in one["evidence"] if text.endswith(".0")]
    assert seconds == [], "Kubernetes has whole seconds"


# -- kube-proxy's own metric

PAGE = "".join(
    f'{METRIC}{{le="{le}"}} {n}\n' for le, n in (("0.25", 10), ("1", 80), ("4", 99), ("8", 100), ("+Inf", 100))
)


def test_the_percentile_is_the_upper_end_of_its_bucket() -> None:
    assert buckets(PAGE) == {0.25: 10, 1: 80, 4: 99, 8: 100, float("inf"): 100}
    assert buckets("other_metric 1\n") == {}


class Metrics(BaseHTTPRequestHandler):
    page = PAGE

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.page.encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def proxied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A page -> a cluster whose kube-proxy serves it."""
    pod = k.pod("kube-proxy-x", "127.0.0.1")
    pod["metadata"]["labels"] = {"k8s-app": "kube-proxy"}
    pod["spec"]["containers"] = [{"name": "kube-proxy", "image": "registry.k8s.io/kube-proxy:v1.34.1"}]
    server, metrics = ApiServer(*kubeadm(), pod), HTTPServer(("127.0.0.1", 0), Metrics)
    thread = Thread(target=metrics.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    server.ports["kube-proxy-x:10249"] = metrics.server_port
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
    yield lambda page: monkeypatch.setattr(Metrics, "page", page)
    metrics.shutdown()
    metrics.server_close()
    server.stop()


def test_kube_proxy_says_how_late_it_is(proxied: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = told("audit --propagation kube-proxy --only C05 --format json", capsys)
    assert json.loads(out)["facts"]["propagation"] == "4 s, kube-proxy's metric, 99 % of 100 changes on 1 nodes"
    proxied("nothing_of_it 1\n")
    code, _, err = told("audit --propagation kube-proxy", capsys)
    assert code == 4
    assert "0 changes were seen: too few" in err
