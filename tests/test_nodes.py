"""Labs of several nodes: each has a proxy and a prober of its own; by IPv6 as by IPv4; and what they are set to."""

from __future__ import annotations

import contextlib
import random
import signal
import tempfile
from pathlib import Path

import pytest

from probe.cluster.images import find_coredns
from probe.cluster.lab import Lab
from probe.cluster.settings import Delay, LabSettings
from probe.cluster.zone import Corefile
from probe.errors import EnvironmentProblem, ScenarioError, UsageError
from probe.scenario.file import read_scenario_text
from tests.test_netns import namespaces, needs_namespaces, running, wait_for
from tests.test_runs import from_second, lost, reported, second_of, windows

SCENARIO = """\
name: nodes
duration: 7s
lab:
  backend: netns
  coredns: stand-in
  nodes: 2
  ip_family: {family}
  replicas: 3
  lameduck: 0s
  propagation: [500ms, 2s]
  readiness_period: 1s
  readiness_failures: 1
  teardown: 300ms
lanes:
  - {{name: fresh, target: service, rate: 100, nsid: true, timeout: 500ms, questions: &n [ns.dns.cluster.local]}}
  - {{name: tcp, target: service, transport: tcp, ports: fresh, rate: 20, timeout: 500ms, questions: *n}}
  - {{name: pods, target: pods, rate: 20, timeout: 500ms, questions: *n}}
steps:
  - wait: 2s
  - scale: 2
"""


@needs_namespaces
def test_each_node_learns_in_its_own_time(tmp_path: Path) -> None:
    for family in ("ipv4", "ipv6"):
        (tmp_path / f"{family}.yaml").write_text(SCENARIO.format(family=family))
    reports = reported(tmp_path, ipv4="ipv4.yaml --lab", ipv6="ipv6.yaml --lab")
    for family, report in reports.items():
        by_node = {w["target"]: w for w in windows(report, "fresh")}
        assert by_node.keys() == {"kube-dns@node-1", "kube-dns@node-2"}, family
        assert by_node["kube-dns@node-1"]["seconds"] == pytest.approx(0.5, abs=0.25)
        assert by_node["kube-dns@node-2"]["seconds"] == pytest.approx(2.0, abs=0.25)
        for window in by_node.values():
            assert from_second(report, window) == pytest.approx(second_of(report, "sigterm"), abs=0.2)
        assert lost(report, "fresh") == pytest.approx(2.5 * 100 / 3, abs=30)
        assert lost(report, "tcp") > 0
        assert windows(report, "pods") == []
        programmed = [m for m in report["marks"] if m["kind"] == "endpoints_programmed"]
        assert {m["subject"] for m in programmed} == by_node.keys()
        (series,) = [s for s in report["series"] if s["target"] == "kube-dns@node-2" and s["lane"] == "fresh"][:1]
        assert len(series["answered_by"]) == 3, "pods on both nodes are reached from either"
    assert reports["ipv6"]["environment"]["lab.ip_family"] == "ipv6"


@pytest.mark.parametrize(
    ("text", "delay"),
    [
        ("2s", Delay(2.0)),
        ("0s", Delay(0.0)),
        ("500ms to 5s", Delay(0.5, 5.0)),
        ("p50 1s p99 8s", Delay(1.0, 8.0, skewed=True)),
    ],
)
def test_delays_as_they_are_written(text: str, delay: Delay) -> None:
    assert _lab(f"propagation: {text}").propagation == (delay,)


def test_a_list_has_a_delay_for_each_node() -> None:
    assert _lab("nodes: 2, propagation: [1s, 2s to 3s]").propagation == (Delay(1.0), Delay(2.0, 3.0))


@pytest.mark.parametrize("text", ["fast", "5s to 1s", "p50 8s p99 1s", "p50 0s p99 1s", "1s 2s", "{a: 1s}"])
def test_delays_nobody_can_mean(text: str) -> None:
    with pytest.raises(ScenarioError, match=r"x\.yaml:3: lab\.propagation"):
        _lab(f"propagation: {text}")


def _lab(settings: str) -> LabSettings:
    lane = "{name: a, target: service, rate: 1, questions: [a.example]}"
    text = f"name: x\nduration: 5s\nlab: {{{settings}}}\nlanes: [{lane}]\n"
    return read_scenario_text("x.yaml", text, []).lab


def test_what_delays_are_drawn() -> None:
    random.seed(7)
    assert {Delay(2.0).draw() for _ in range(5)} == {2.0}
    even = sorted(Delay(1.0, 5.0).draw() for _ in range(2000))
    assert 1 <= even[0] < 1.1
    assert 4.9 < even[-1] <= 5
    skewed = sorted(Delay(1.0, 8.0, skewed=True).draw() for _ in range(20_000))
    assert skewed[10_000] == pytest.approx(1, rel=0.1)
    assert skewed[19_800] == pytest.approx(8, rel=0.15)


@pytest.mark.parametrize(
    ("settings", "word", "value", "text"),
    [
        (LabSettings(), "lose_node", "", r"the first node stays: set lab\.nodes to 2 or more"),
        (LabSettings(), "upstream", "silent", r"there is none: say lab\.upstream: answering"),
        (LabSettings(), "evict_dns", "", r"the pods need another node to go to: set lab\.nodes to 2 or more"),
        (LabSettings(), "session_affinity", "none", r"the lab has no such setting: this step is for a real cluster"),
        (LabSettings(), "set_image", "a/coredns:v1", r"the lab runs versions of CoreDNS: say one, such as 1\.9\.3"),
        (LabSettings(), "strategy", "max_surge 25%", r"in the lab say numbers of pods"),
        (LabSettings(), "strategy", "max_surge 0, max_unavailable 0", r"not both 0, or no pod could ever be replaced"),
        (
            LabSettings(),
            "readiness",
            "path /live",
            r"readiness path /live: the lab's pods are asked for /ready or",
        ),
        (LabSettings(upstream="answering"), "upstream", "lazy", r"upstream mode 'lazy': say answering, "),
        (LabSettings(), "restart_nodelocal", "", r"there is none: say lab\.nodelocal: true"),
        (LabSettings(coredns="stand-in"), "patch_corefile", "lameduck 5s", r"the stand-in reads no Corefile: run "),
        (LabSettings(), "patch_corefile", "lameduck soon", r"'lameduck soon': say `lameduck 10s`, "),
        (
            LabSettings(),
            "set_image",
            "0.0.1",
            r"CoreDNS 0\.0\.1: not there: run `make coredns ",
        ),
    ],
)
def test_steps_a_lab_cannot_take_are_refused_before_it_starts(
    settings: LabSettings, word: str, value: str, text: str
) -> None:
    with pytest.raises((UsageError, EnvironmentProblem), match=text):
        Lab(settings).check(word, value)


def test_a_patched_corefile() -> None:
    corefile = Corefile(lameduck=5.0)
    assert corefile.patched("lameduck 10s") == Corefile(lameduck=10.0)
    assert corefile.patched("lameduck 0s").lameduck == 0
    assert corefile.patched("cache 30s").cache == 30
    assert not corefile.patched("ready off").ready


def test_the_corefile_a_pod_gets(tmp_path: Path) -> None:
    lines = Corefile(2.5, 30, upstream="[fd00::5]:53").write(tmp_path, "pod-a", "fd00::20", 53).read_text()
    for line in ("health [fd00::20]:8080 {", "lameduck 2500ms", "nsid pod-a", "cache 30", "forward . [fd00::5]:53"):
        assert line in lines
    assert "root.zone" not in lines


@needs_namespaces
@pytest.mark.skipif(find_coredns() is None, reason="needs the real CoreDNS: make coredns")
def test_nothing_is_left_of_a_killed_lab_with_all_there_is(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(SCENARIO.format(family="ipv4").replace("duration: 7s", "duration: 60s"))
    more = "lab.coredns=real", "lab.nodelocal=true", "lab.upstream=answering"
    process, lab = running(f"run all.yaml --lab {' '.join(f'--set {m}' for m in more)} -o all.db", tmp_path)
    wait_for(lambda: len(namespaces(lab)) == 5 + 3 + 1)  # two nodes and probers, a switch; three pods; the upstream
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    wait_for(lambda: namespaces(lab) == [])
    badge = f"DNSPROBE_LAB={tempfile.gettempdir()}/{lab}".encode()
    left = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            left += [environ.parent.name] * (badge in environ.read_bytes())
    assert left == []
