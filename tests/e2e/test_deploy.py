"""What deploy/ holds, applied to a real Kubernetes: the image runs, as nobody, in a namespace that is strict."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.kubernetes import Kubernetes

NAMESPACE = "--namespace=dnsprobe"


@pytest.fixture(scope="module")
def strict(cluster: Kubernetes) -> Iterator[Kubernetes]:
    """The cluster with an empty namespace dnsprobe in which PodSecurity demands `restricted`."""
    cluster.kubectl("create", "namespace", "dnsprobe")
    cluster.kubectl("label", "namespace", "dnsprobe", "pod-security.kubernetes.io/enforce=restricted")
    yield cluster
    cluster.kubectl("delete", "namespace", "dnsprobe", "--wait")


def test_the_image_runs_as_any_user_on_a_root_that_nobody_writes_to(strict: Kubernetes, image: str) -> None:
    overrides = {
        "spec": {
            "securityContext": {"runAsNonRoot": True, "runAsUser": 4711, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "probe",
                    "image": image,
                    "args": ["scenarios"],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        }
    }
    words = ["run", "probe", NAMESPACE, f"--image={image}", "--restart=Never", f"--overrides={json.dumps(overrides)}"]
    strict.kubectl(*words)
    strict.until("wait", NAMESPACE, "pod/probe", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=10s")
    assert "baseline: 20 s; changes nothing" in strict.kubectl("logs", NAMESPACE, "probe")
