"""Fixtures: the cluster that KUBECONFIG names, else one that is started here and is gone with the session."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.e2e import prober
from tests.e2e.kubernetes import Kubernetes
from tests.e2e.machine import remains
from tests.servers import need

Kubectl = Callable[..., str]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Kubernetes]:
    """The cluster made here: for tests that change it, stop its parts or ask in its network."""
    if os.environ.get("KUBECONFIG") or "DNSPROBE_E2E_PARTS" not in os.environ:
        pytest.skip("needs the cluster that is made here: sudo make e2e, without KUBECONFIG")
    if os.geteuid() != 0:
        pytest.skip("needs root: sudo make e2e")
    for program in ("nft", "conntrack"):
        need(program, "make servers")
    made = Kubernetes.up()
    yield made
    made.close()
    assert not [each for machine in made.machines for each in remains(machine.name)]


@pytest.fixture(scope="session")
def image(cluster: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of the prober's image, once every node of the cluster made here has it."""
    tar = tmp_path_factory.mktemp("image") / "prober.tar"
    prober.write(tar)
    cluster.load(tar)
    tar.unlink()
    return prober.NAME


@pytest.fixture(scope="session")
def kubectl(request: pytest.FixtureRequest) -> Kubectl:
    """What kubectl prints, of whichever cluster: tests with it alone read, and change nothing."""
    if not os.environ.get("KUBECONFIG"):
        cluster: Kubernetes = request.getfixturevalue("cluster")
        return cluster.kubectl
    program = need("kubectl", "https://kubernetes.io/docs/tasks/tools")
    return lambda *words: subprocess.run([program, *words], check=True, capture_output=True, text=True).stdout
