"""Whom a run is to ask from inside a pod -> whether somebody else answers on the way, and on which lanes that tells.

Service meshes redirect port 53 of the pods that are in them: all of it (Istio's CNI plugin and ambient mode), or what
goes to the nameservers of resolv.conf alone (Istio's sidecar: istio/istio#30647, #35237), and then answer themselves.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from probe.cluster import Cluster
from probe.cluster.scrape import scrape
from probe.cluster.zone import METRICS_PORT
from probe.model import Edns, Question, Series, Target, TargetKind
from probe.resolv import is_pod
from probe.wire import encode

NOWHERE = {"ipv4": "192.0.2.1", "ipv6": "2001:db8::1"}
"""Addresses that nobody has: TEST-NET-1 (RFC 5737), the documentation prefix (RFC 3849)."""
COUNTER, COREDNS = "coredns_dns_do_requests_total", "coredns_build_info"
"""Of all requests those with the DO bit: hardly any client in a cluster sets it, so that others do not hide ours."""
_WAYS = ("udp", "tcp")
TIMES, ROUNDS = 8, 3
PATIENCE = 1.0
"""Seconds for one answer."""
MOST_PODS = 20
"""With more pods than this it is not counted which of them the Service's queries reach."""


@dataclass(frozen=True, slots=True)
class Looked:
    """found: by lane, why it is doubtful; said: all that was looked at, for the report; '' if nothing was."""

    found: Mapping[str, str] = field(default_factory=dict)
    said: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """As the run's file has it."""
        return {"interception": self.said} if self.said else {}


async def look(series: Sequence[Series], cluster: Cluster | None, domain: str) -> Looked:
    """Ask where nobody is, a pod that counts, and the Service before pods that count; only from inside a pod.

    Nothing is looked for where all targets are this machine's, or in namespaces of the lab's.
    """
    away = [one for one in series if not ipaddress.ip_address(one.target.address).is_loopback]
    if not is_pod() or not away or (cluster and "" not in cluster.namespaces):
        return Looked()
    query = encode(Question.of(f"kubernetes.default.svc.{domain}", "A", edns=Edns(do=True)))
    ways = [group for way in _WAYS if (group := [one for one in away if one.transport == way])]
    counting = [
        (group, among)
        for target, among in _counting(away, cluster)
        for way in ways
        if (group := [replace(one, target=target) for one in way if one.target.kind is target.kind])
    ]
    nowhere = asyncio.gather(*(_asked_nowhere(group, query) for group in ways))
    # Who is silent here is not waited for again and again.
    alive = await asyncio.gather(*(_asked(group[0].target, group[0].transport, query) for group, _ in counting))
    groups, answers = ways, list(await nowhere)
    for (group, among), answered in zip(counting, alive, strict=True):
        if answered:
            groups.append(group)
            answers.append(await _counted(group[0].target, among, group[0].transport, query))
    found: dict[str, str] = {}
    for (bad, text), group in zip(answers, groups, strict=True):
        for one in group if bad else ():
            found.setdefault(one.lane, text)
    return Looked(found, "; ".join(text for _, text in answers))


def _counting(away: Sequence[Series], cluster: Cluster | None) -> Iterator[tuple[Target, list[Target]]]:
    """A pod with itself, and the Service with its pods; not where NodeLocal DNSCache may answer in its place."""
    pods = cluster.targets("pods") if cluster else []
    if pods:
        yield pods[0], pods[:1]
    services = [one.target for one in away if one.target.kind is TargetKind.SERVICE]
    if services and cluster and 0 < len(pods) <= MOST_PODS and not cluster.targets("nodelocal"):
        yield services[0], pods


async def _asked_nowhere(series: Sequence[Series], query: bytes) -> tuple[bool, str]:
    """Whether somebody answers there, by the transport of these, and that in words."""
    transport, families = series[0].transport, {"ipv6" if ":" in one.target.address else "ipv4" for one in series}
    addresses = [NOWHERE[family] for family in sorted(families)]
    tries = [Target("nobody", TargetKind.SERVER, address) for address in addresses for _ in range(TIMES)]
    answers = await asyncio.gather(*(_asked(target, transport, query) for target in tries))
    spoke = [target.address for target, answered in zip(tries, answers, strict=True) if answered]
    if spoke:
        text = f"{spoke[0]} is nobody's address, and answered by {transport.upper()}: queries from here are redirected"
        return True, f"{text}, and say nothing about cluster DNS"
    return False, f"nobody answered at {' and '.join(addresses)} by {transport.upper()}"


async def _counted(target: Target, pods: Sequence[Target], transport: str, query: bytes) -> tuple[bool, str]:
    """Whether the target answered queries that its pods did not count, and that in words, or why it is not known.

    In a rollout the Service leads to pods, too, that end and are no longer among these: only to such ones time after
    time it does not.
    """
    whose, text = "its own counter" if [target] == list(pods) else "its pods' counters", ""
    for _ in range(ROUNDS):
        try:
            before = await _count(pods)
            n = sum(await asyncio.gather(*(_asked(target, transport, query) for _ in range(TIMES))))
            rose = await _count(pods) - before
        except OSError as problem:
            return False, f"what pods count of {target.name} was not seen: {str(problem) or type(problem).__name__}"
        text = f"{target.name} answered {n} queries by {transport.upper()}, of which {whose} saw {max(0, rose)}"
        if rose >= n / 4:
            return False, text
    return True, f"{text}: somebody on the way answers in its place"


async def _count(pods: Sequence[Target]) -> int:
    """Requests with the DO bit that CoreDNS pods had so far; OSError where one does not say."""
    total = 0
    for pod in pods:
        samples = await scrape(pod.address, METRICS_PORT, "", {COUNTER, COREDNS})
        if not any(sample.name == COREDNS for sample in samples):
            raise OSError(f"{pod.name} is no CoreDNS that counts")
        total += round(sum(sample.value for sample in samples if sample.name == COUNTER))
    return total


async def _asked(target: Target, transport: str, query: bytes) -> bool:
    """Whether anybody answered one query, with any answer, within PATIENCE."""
    query = secrets.token_bytes(2) + query[2:]
    stream = transport == "tcp"
    family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
    loop = asyncio.get_running_loop()
    try:
        with socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            async with asyncio.timeout(PATIENCE):
                await loop.sock_connect(sock, (target.address, target.port))
                await loop.sock_sendall(sock, (len(query).to_bytes(2) if stream else b"") + query)
                reply = await loop.sock_recv(sock, 4096)
                return reply[2:4] == query[:2] if stream else reply[:2] == query[:2]
    except OSError:
        return False
