"""The names every lab pod serves -> zone files and Corefile of a real CoreDNS; the stand-in reads the same table."""

from __future__ import annotations

from pathlib import Path

TTL = 30
"""Seconds, as kubeadm's Corefile sets it."""

DOMAIN = "cluster.local"
RECORDS: dict[str, dict[str, tuple[str, ...]]] = {
    f"ns.dns.{DOMAIN}": {"A": ("10.96.0.10",)},
    f"kubernetes.default.svc.{DOMAIN}": {"A": ("10.96.0.1",)},
    f"kube-dns.kube-system.svc.{DOMAIN}": {"A": ("10.96.0.10",)},
    f"dnsprobe.default.svc.{DOMAIN}": {"A": ("10.96.0.53",)},
    f"dual.default.svc.{DOMAIN}": {"A": ("10.96.0.54",), "AAAA": ("fd00:10:96::54",)},
    f"headless.default.svc.{DOMAIN}": {"A": ("10.244.0.11", "10.244.0.12", "10.244.0.13")},
}
"""Absolute name without the last dot -> type -> addresses. A type that is missing is NODATA, another name NXDOMAIN."""

SOA_NUMBERS = (1, 7200, 1800, 86400, TTL)
"""Serial, refresh, retry, expire, minimum (RFC 1035, 3.3.13)."""

READY_PORT = 8181
HEALTH_PORT = 8080
METRICS_PORT = 9153


def wire_name(name: str) -> bytes:
    """A name in wire format, uncompressed (RFC 1035, 3.1)."""
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def _zone_file(origin: str, records: dict[str, dict[str, tuple[str, ...]]]) -> str:
    lines = [
        f"$ORIGIN {origin}",
        f"$TTL {TTL}",
        f"@ IN SOA ns.dns.{DOMAIN}. hostmaster.{DOMAIN}. {' '.join(map(str, SOA_NUMBERS))}",
        f"@ IN NS ns.dns.{DOMAIN}.",
    ]
    lines += [
        f"{name}. IN {qtype} {address}"
        for name, types in records.items()
        for qtype, addresses in types.items()
        for address in addresses
    ]
    return "\n".join(lines) + "\n"


def write_corefile(folder: Path, address: str, port: int, lameduck: float) -> Path:
    """The Corefile of one pod with its zone files, to be run in `folder`. Lameduck in seconds; 0 leaves the line out.

    The root zone is served too, and empty: nothing is forwarded, a name outside the cluster is NXDOMAIN.
    """
    (folder / "cluster.zone").write_text(_zone_file(f"{DOMAIN}.", RECORDS))
    (folder / "root.zone").write_text(_zone_file(".", {}))
    lameduck_block = f" {{\n        lameduck {round(lameduck * 1000)}ms\n    }}" if lameduck > 0 else ""
    corefile = folder / "Corefile"
    corefile.write_text(
        f".:{port} {{\n"
        f"    bind {address}\n"
        f"    errors\n"
        f"    health {address}:{HEALTH_PORT}{lameduck_block}\n"
        f"    ready {address}:{READY_PORT}\n"
        f"    prometheus {address}:{METRICS_PORT}\n"
        f"    file cluster.zone {DOMAIN}\n"
        f"    file root.zone .\n"
        f"}}\n"
    )
    return corefile
