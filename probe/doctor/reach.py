"""A context of the kubeconfig -> whether its API answers within 5 s, and which Service of it is cluster DNS."""

from __future__ import annotations

import asyncio

from probe.cluster.kube.api import connect
from probe.cluster.kube.discovery import find_service
from probe.cluster.kube.objects import cluster_ips, name_of
from probe.doctor.examination import Seen
from probe.errors import EnvironmentProblem

PATIENCE_S = 5.0


def cluster(context: str = "") -> Seen:
    """Asks for its version and its DNS Service, nothing else. UsageError if there is no such context."""
    return asyncio.run(_asked(context))


async def _asked(context: str) -> Seen:
    api = connect(context)
    try:
        async with asyncio.timeout(PATIENCE_S):
            text = f"{api.server}, {api.source}: Kubernetes {await api.version()}"
            service = await find_service(api, None)
            namespace = service.metadata.namespace if service.metadata else ""
            return Seen(True, f"{text}, {namespace}/{name_of(service)} at {', '.join(cluster_ips(service))}")
    except TimeoutError:
        raise EnvironmentProblem(f"{api.server}, {api.source}: no answer in {PATIENCE_S:g} s") from None
    finally:
        await api.close()
