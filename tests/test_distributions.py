"""The audit of each distribution's cluster as it makes it by default -> the golden text, reviewed line by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from probe.audit import audit
from probe.audit.check import Planned
from probe.audit.files import read_files, write_text
from probe.audit.platform import detect
from tests.distributions import DISTRIBUTIONS, GOLDEN, said

PLATFORM = {"deployment": "kubeadm", "nodelocal": "kubeadm"}
FAILS = {
    "kubeadm": ["C11"],  # kubeadm init's only node has both pods
    "deployment": ["C10", "C13"],
    "helm": ["C10", "C13"],
    "ack": ["C20", "C21"],
    "k3s": ["C03", "C10", "C13"],
}
"""What is truly wrong with a default, and nothing else may be called so."""


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distributions_audit_is_as_it_was_reviewed(name: str) -> None:
    """`python -m tests.distributions` writes it anew: read the difference before it is committed."""
    assert said(DISTRIBUTIONS[name]()) == (GOLDEN / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_default_cluster_fails_where_it_truly_does(name: str) -> None:
    lines = (GOLDEN / f"{name}.txt").read_text().splitlines()
    assert [line.split()[1] for line in lines if line.startswith("fail")] == FAILS.get(name, [])


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distribution_is_known_by_its_signs(name: str) -> None:
    assert detect(DISTRIBUTIONS[name]().snapshot())[0] == PLATFORM.get(name, name)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_file_of_it_is_audited_alike(name: str, tmp_path: Path) -> None:
    snapshot = DISTRIBUTIONS[name]().snapshot()
    (tmp_path / "saved.yaml").write_text(write_text(snapshot, "saved.yaml"))
    read = read_files([tmp_path / "saved.yaml"])
    assert audit(read, Planned()) == audit(snapshot, Planned())


def test_there_is_no_other_golden_text() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(DISTRIBUTIONS)
