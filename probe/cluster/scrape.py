"""An address that serves metrics over HTTP -> those of its samples that are asked for; prometheus-client reads them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Collection

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from probe.cluster.zone import METRICS_PORT
from probe.linux import in_network
from probe.model import Target

PATIENCE = 1.0
"""Seconds for one page."""
LARGEST = 8 << 20
"""Octets of a page; a CoreDNS of many zones and servers has some 100 KiB."""
REQUESTS = "coredns_dns_requests_total"


async def scrape(address: str, port: int, namespace: str, names: Collection[str]) -> list[Sample]:
    """The samples of these names, in the page's order, asked from a network namespace ('' for our own).

    OSError, of which TimeoutError is one, if there is no such page, or it cannot be read.
    """
    try:
        return samples_of(await _page(address, port, namespace), names)
    except ValueError as problem:
        raise OSError(f"not metrics: {problem}") from None


def samples_of(page: str, names: Collection[str]) -> list[Sample]:
    """The samples of these names in a page, in its order; ValueError for what is no metrics."""
    wanted = tuple(names)
    lines = [line for line in page.splitlines() if line.startswith(wanted)]
    families = text_string_to_metric_families("\n".join([*lines, ""]))
    return [sample for family in families for sample in family.samples if sample.name in names]


async def requests_of(pod: Target, namespace: str) -> int:
    """How many queries a CoreDNS pod has had so far, by its own count; OSError if it does not say."""
    found = await scrape(pod.address, METRICS_PORT, pod.vantage or namespace, {REQUESTS})
    return round(sum(sample.value for sample in found))


def is_ours(address: str) -> bool:
    """Whether it is an address of this process's own network: as a node's is in its own."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
    return True


async def _page(address: str, port: int, namespace: str) -> str:
    """HTTP/1.0, so that the body comes as it is and ends with the connection (RFC 1945, 7.2.2)."""
    with in_network(namespace) if namespace else contextlib.nullcontext():
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    with sock:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            await loop.sock_connect(sock, (address, port))
            host = f"[{address}]" if ":" in address else address
            request = f"GET /metrics HTTP/1.0\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
            await loop.sock_sendall(sock, request.encode())
            page = bytearray()
            while len(page) < LARGEST and (part := await loop.sock_recv(sock, 1 << 16)):
                page += part
    head, found, body = bytes(page).partition(b"\r\n\r\n")
    if not found:
        raise OSError("no answer")
    said = head.splitlines()[0].decode(errors="replace") if head else ""
    if head.split(None, 2)[1:2] != [b"200"]:
        raise OSError(f"no metrics: {said}")
    return body.decode(errors="replace")
