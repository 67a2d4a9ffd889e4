"""Run files of several clusters in, a line for each out, worst first, and what the command exits with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from probe.model import NS
from probe.outcome import Outcome
from probe.report.fleet import fleet_of, fleet_text
from probe.runfile import Run
from tests.synthetic import series_of, written
from tests.test_cli import told

REAL = {
    "cluster": "https://10.0.0.1:6443, context prod-eu in ~/.kube/config", "kubernetes": "v1.34.1",
    "pods": "registry.k8s.io/coredns/coredns:v1.12.1 on node-a, node-b", "kube-proxy": "ipvs, v1.34.1",
    "corefile": "lameduck 5 s, ready, no nsid", "made by": "Deployment coredns, 2 replicas",
}  # fmt: skip
LAB = {
    "cluster": "lab (netns: the kernel's own NAT and conntrack)", "coredns": "CoreDNS-1.15.0 (/usr/bin/coredns)",
    "lab.lameduck": "8 s", "lab.kubernetes": "1.33", "lab.proxy_mode": "iptables", "lab.replicas": "3",
}  # fmt: skip
MERGED = {**{f"shard 0: {k}": v for k, v in REAL.items()}, "collected from": "cluster staging, by context s in k"}


def made(path: Path, silent_s: float, facts: dict[str, str], objective: str = "longest_disruption <= 1s") -> Run:
    series = [series_of(rate=20, seconds=60)]
    return written(
        path, series, lambda _, due: Outcome.TIMEOUT if 10 * NS <= due < (10 + silent_s) * NS else Outcome.ANSWER,
        facts=facts, objectives=(objective,),
    )  # fmt: skip


def test_what_each_cluster_was_and_lost_worst_first(tmp_path: Path) -> None:
    runs = [
        made(tmp_path / "fine.db", 0, LAB),
        made(tmp_path / "bad.db", 3, REAL),
        made(tmp_path / "worse.db", 5, MERGED),
        made(tmp_path / "unknown.db", 0, {}, "p99(nobody) <= 1s"),
    ]
    lines = fleet_of(runs)
    assert [(Path(line.file).name, line.verdict) for line in lines] == [
        ("worse.db", "FAIL"), ("bad.db", "FAIL"), ("unknown.db", "INCONCLUSIVE"), ("fine.db", "PASS"),
    ]  # fmt: skip
    worse, bad, unknown, fine = lines
    about = ("1.34.1", "1.12.1", "ipvs", "5 s", "2")
    for line, cluster in ((worse, "staging"), (bad, "prod-eu")):
        assert line.cluster == cluster
        assert (line.kubernetes, line.coredns, line.proxy_mode, line.lameduck, line.replicas) == about
    assert (fine.cluster, fine.kubernetes, fine.coredns, fine.lameduck) == ("lab netns", "1.33", "1.15.0", "8 s")
    assert (bad.lost, bad.asked) == (60, 1200)
    assert bad.longest_seconds == pytest.approx(3.0)
    head, *rows = fleet_text(lines).splitlines()
    assert head.split()[:2] == ["cluster", "kubernetes"]
    assert "60 of 1,200" in rows[1]
    assert unknown.cluster == ""
    assert rows[2].split()[:2] == ["-", "-"]


@pytest.mark.parametrize(
    ("files", "code"),
    [("fine.db", 0), ("fine.db bad.db", 1), ("fine.db unknown.db", 3), ("bad.db fine.db none.db", 4), ("none.db", 4)],
)
def test_the_exit_code_is_the_worst(
    files: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made(tmp_path / "fine.db", 0, LAB)
    made(tmp_path / "bad.db", 3, REAL)
    made(tmp_path / "unknown.db", 0, {}, "p99(nobody) <= 1s")
    exit_code, out, err = told(f"fleet {files} --format json", capsys)
    report = json.loads(out)
    assert exit_code == code
    assert len(report["runs"]) == len(files.split()) - len(report["unreadable"])
    assert ("none.db: cannot be read" in err) == ("none.db" in report["unreadable"]) == ("none.db" in files)
