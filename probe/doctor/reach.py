"""A context of the kubeconfig -> whether its API answers within 5 s, and which Service of it is cluster DNS."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

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
        _look_up(api.server)
        async with asyncio.timeout(PATIENCE_S):
            text = f"{api.server}, {api.source}: Kubernetes {await api.version()}"
            service = await find_service(api, None)
            namespace = service.metadata.namespace if service.metadata else ""
            return Seen(True, f"{text}, {namespace}/{name_of(service)} at {', '.join(cluster_ips(service))}")
    except TimeoutError:
        raise EnvironmentProblem(f"{api.server}, {api.source}: no answer in {PATIENCE_S:g} s") from None
    finally:
        await api.close()


def _look_up(server: str) -> None:
    """EnvironmentProblem if nobody says within 5 s where it is; a thread that asks cannot be stopped, only left."""
    host = urlsplit(server).hostname

    def ask() -> None:
        with suppress(OSError):  # whoever connects says it better
            socket.getaddrinfo(host, None)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    if thread.is_alive():
        raise EnvironmentProblem(f"{server}: looking up {host} takes over {PATIENCE_S:g} s: DNS is silent here")
