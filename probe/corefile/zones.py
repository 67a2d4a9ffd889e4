"""Server blocks -> what each one serves, transport, zone and port; and which of them CoreDNS cannot serve.

Source: CoreDNS 1.15.0 core/dnsserver/register.go `InspectServerBlocks`, `validateZonesAndListeningAddresses`;
core/dnsserver/address.go `registerAndCheck`; plugin/normalize.go `SplitHostPort`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from probe.corefile.tree import Problem, ServerBlock

_PORTS = {"dns": 53, "tls": 853, "quic": 853, "grpc": 443, "https": 443, "https3": 443, "unix": 0}


@dataclass(frozen=True, slots=True)
class Address:
    """zone: in lower case, with its last dot; bound: the address or interface of `bind`, '' for all."""

    transport: str
    zone: str
    port: int
    bound: str = ""

    def __str__(self) -> str:
        """`dns://example.org.:53`."""
        return f"{self.transport}://{self.zone}:{self.port}" + f" on {self.bound}" * bool(self.bound)


def addresses_of(block: ServerBlock) -> tuple[Address, ...]:
    """What it serves, without what CoreDNS refuses; a zone in CIDR notation may be several."""
    bound = [one for each in block.all("bind") for one in each.arguments] or [""]
    found = []
    for text in block.zones:
        transport, rest = _transport(text)
        zones, port, wrong = _split(rest)
        if not wrong:
            port = _PORTS[transport] if port is None else port
            found += [Address(transport, zone, port, each) for zone in zones for each in bound]
    return tuple(found)


def zone_problems(blocks: Sequence[ServerBlock]) -> Iterator[Problem]:
    """Addresses that are none, and those of two server blocks."""
    there: dict[Address, list[tuple[str, ServerBlock]]] = {}
    for block in blocks:
        for text in block.zones:
            if wrong := _split(_transport(text)[1])[2]:
                yield Problem(block.line, block.file, f"`{text}` is no zone: {wrong}", "mend the address")
            elif text.endswith("{"):
                why = f"`{text}` is read as a zone: a space is missing before {{"
                yield Problem(block.line, block.file, why, "put a space before {", fatal=False)
        for address in addresses_of(block):
            bound = address.bound
            others = there.setdefault(replace(address, bound=""), [])
            other = next((each for where, each in others if where == bound or not where or not bound), None)
            if other is not None:
                what = "it is written twice" if other is block else f"line {other.line} serves that too"
                yield Problem(block.line, block.file, f"cannot serve {address}: {what}", "merge the server blocks")
            elif not block.all("view"):
                others.append((bound, block))


def _transport(text: str) -> tuple[str, str]:
    scheme, found, rest = text.partition("://")
    return (scheme, rest) if found and scheme in _PORTS else ("dns", text)


def _split(text: str) -> tuple[list[str], int | None, str]:
    """Zones, the port if there is one, and what is wrong."""
    host, colon, last = text.rpartition(":")
    if colon and not last:
        return [], None, "nothing follows the last colon"
    numbered = bool(colon) and last.isdecimal() and last.isascii()
    host, port = (host, int(last)) if numbered else (text, None)
    if port is not None and port > 65535:
        return [], port, "there is no such port"
    labels = host.removesuffix(".").split(".") if host != "." else []
    if host != "." and (not host or any(not label for label in labels)):
        return [], port, "it has an empty label"
    if len(host.encode()) > 255 or any(len(label.encode()) > 63 for label in labels):
        return [], port, "it, or a label of it, is too long"
    return [f"{zone.rstrip('.').lower()}." for zone in _reverse(host)], port, ""


def _reverse(host: str) -> list[str]:
    """Of `10.0.0.0/23` its reverse zones; any other host as it is."""
    try:
        network = ipaddress.ip_network(host, strict=False) if "/" in host else None
    except ValueError:
        network = None
    if network is None or not network.prefixlen:
        return [host]
    step = 8 if network.version == 4 else 4
    size = -(-network.prefixlen // step)
    unset = network.max_prefixlen // step - size
    subnets = network.subnets(new_prefix=size * step)
    return [".".join(each.network_address.reverse_pointer.split(".")[unset:]) for each in subnets]
