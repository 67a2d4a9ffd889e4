"""The two shipped sweeps, each with a few short cells: what they are for is in their reports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from probe.scenario.cells import read_matrix
from probe.scenario.file import shipped_scenarios
from tests.test_cli import start
from tests.test_netns import needs_namespaces

SWEEP = """\
matrix:
  repeats: 1
  vary:
    lab.lameduck: [0s, 3s]
  under:
    lab.propagation: [1s]
  longer_by: [lab.lameduck, lab.propagation]
"""
GRACE = """\
matrix:
  repeats: 1
  vary:
    case:
      - {name: lameduck, lab.lameduck: 2s}
      - {name: grace, lab.lameduck: 10s, lab.grace_period: 3s}
      - {name: readiness, lab.lameduck: 9s, lab.readiness_period: 1s}
"""

CONNTRACK = """\
matrix:
  repeats: 1
  vary:
    lab.min_ready_seconds: [0s]
  under:
    lab.kubernetes: ["1.28", "1.33"]
"""


def swept(folder: Path, name: str, matrix: str, *settings: str) -> dict[str, Any]:
    """The JSON report of a shipped sweep with this matrix, run in the loopback lab by stand-ins."""
    text = shipped_scenarios()[name].read_text()
    text = re.sub(r"^matrix:\n(  .*\n)+", matrix, text, flags=re.MULTILINE)
    (folder / f"{name}.yaml").write_text(text)
    words = " ".join(f"--set {setting}" for setting in ("lab.coredns=stand-in", *settings))
    process = start(f"run {name}.yaml --lab {words} --json {name}.json -o {name}.db", folder)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    report: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return report


def test_the_shortest_lameduck_without_loss_is_named(tmp_path: Path) -> None:
    (block,) = swept(tmp_path, "lameduck-sweep", SWEEP, "duration=8s")["blocks"]
    without, with_ = block["rows"]
    assert without["lanes"]["vip-udp-fresh"]["lost"]["mean"] == pytest.approx(50 / 3, abs=8)
    longest = without["lanes"]["vip-udp-fresh"]["longest_seconds"]["most"]
    assert 0.4 < longest < 1.2, "a third of 50/s for 1 s: chance decides which is the first and the last"
    assert with_["lossless"]
    assert block["choices"][0]["settings"] == {"lab.lameduck": "3s"}


def test_what_ended_the_service_is_named(tmp_path: Path) -> None:
    settings = ("duration=20s", "lab.replicas=3", "lab.propagation=500ms")
    (block,) = swept(tmp_path, "lameduck-vs-grace", GRACE, *settings)["blocks"]
    told = {row["vary"]["case"]: (row["runs"][0]["ended_by"], healthy(row)) for row in block["rows"]}
    assert {case: ended for case, (ended, _) in told.items()} == {
        "lameduck": "lameduck over",
        "grace": "SIGKILL",
        "readiness": "readiness lost",
    }
    assert told["lameduck"][1] == pytest.approx(2, abs=0.3)
    assert told["grace"][1] == pytest.approx(3, abs=0.3)
    assert 2.4 < told["readiness"][1] < 3.9, "3 probes of 1 s, and the propagation"


@needs_namespaces
def test_a_port_in_use_is_dead_where_a_new_one_is_fine(tmp_path: Path) -> None:
    """By the version of kube-proxy; each port is on the pod that goes, or not: it loses 1.5 s or nothing."""
    settings = ("duration=13s", "lab.propagation=1500ms", "lab.lameduck=2s", "lab.readiness_period=10s")
    old, new = swept(tmp_path, "stale-conntrack", CONNTRACK, *settings)["blocks"]
    for block in (old, new):
        (row,) = block["rows"]
        lost = [row["lanes"][f"vip-udp-fixed-{n}"]["lost"]["most"] for n in range(1, 7)]
        assert row["lanes"]["vip-udp-fresh"]["lost"]["most"] == 0
        assert all(n <= 1 or 24 <= n <= 36 for n in lost), lost
        assert max(lost) <= 1 or block is new, "up to 1.28 flows go as the pod terminates"


def healthy(row: dict[str, Any]) -> float:
    return float(row["lanes"]["vip-udp-fresh"]["healthy_seconds"]["mean"])


def test_how_much_the_shipped_sweeps_are() -> None:
    whole = {name: read_matrix(name, []) for name in ("lameduck-sweep", "lameduck-vs-grace")}
    assert {name: (len(m.cells), m.repeats) for name, m in whole.items() if m} == {
        "lameduck-sweep": (24, 3),
        "lameduck-vs-grace": (8, 3),
    }
