"""The names every lab pod serves and what its ConfigMap says -> zone files and Corefile of a real CoreDNS."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from probe.errors import UsageError

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
    **{f"headless{n}.default.svc.{DOMAIN}": {"A": tuple(f"10.244.1.{i + 1}" for i in range(n))} for n in (20, 40, 100)},
}
"""Absolute name without the last dot -> type -> addresses. A type that is missing is NODATA, another name NXDOMAIN."""
SOA_NUMBERS = (1, 7200, 1800, 86400, TTL)
"""Serial, refresh, retry, expire, minimum (RFC 1035, 3.3.13)."""

READY_PORT = 8181
HEALTH_PORT = 8080
METRICS_PORT = 9153
RELOAD_EVERY, RELOAD_JITTER = 2.0, 1.0
"""Seconds: the least that the reload plugin takes. It looks every 1.5 to 2.5 s."""


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


def at(address: str, port: int) -> str:
    """`10.244.0.20:8080`, `[fd00::14]:8080`."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


_OWN = frozenset(
    ["lameduck", "ready", "forward", "bind", "errors", "health", "nsid", "prometheus", "reload", "cache", "file"]
)
"""What the lab's Corefile says by itself."""


def _block(text: str) -> str:
    """`cache 30 { serve_stale; prefetch 5 }`, each of its settings on a line of its own."""
    head, brace, rest = text.strip().partition("{")
    settings = [part.strip() for part in rest.rstrip("} ").split(";") if part.strip()]
    return "\n        ".join([f"{head.strip()} {{", *settings]) + "\n    }" if brace else head.strip()


@dataclass(frozen=True, slots=True)
class Corefile:
    """What the pods' ConfigMap says. lameduck, cache: seconds, 0 leaves them out. upstream: `address:port`, or ''.

    forward: its line, `upstream` standing for the address. others: lines of other plugins, as they stand.
    """

    lameduck: float = 0.0
    cache: float = 0.0
    ready: bool = True
    upstream: str = ""
    forward: str = "forward . upstream"
    others: tuple[str, ...] = ()

    def patched(self, text: str) -> Corefile:
        """With `lameduck 10s`, `cache 30s`, `ready off` `forward . upstream { prefer_udp }` in it, or another plugin.

        What is wrong with the line of another plugin CoreDNS says itself. UsageError for a value that cannot be.
        """
        word, _, value = text.strip().partition(" ")
        seconds = re.fullmatch(r"([0-9]{1,4}(?:\.[0-9]{1,3})?)s?", value.strip())
        if word == "ready" and value in ("on", "off"):
            return replace(self, ready=value == "on")
        if word == "lameduck" and seconds:
            return replace(self, lameduck=float(seconds[1]))
        if word == "cache" and seconds:
            return replace(self, cache=float(seconds[1]))
        if word == "forward" and value.startswith(". upstream"):
            return replace(self, forward=_block(text))
        if word not in _OWN:
            kept = tuple(line for line in self.others if line.split(" ", 1)[0] != word)
            return replace(self, others=(*kept, *[_block(text)] * (value != "off")))
        raise UsageError(
            f"{text[:40]!r}: say `lameduck 10s`, `cache 30s` (0s leaves them out), `ready on`, `ready off`,"
            " `forward . upstream { prefer_udp }`, or a plugin that the lab's Corefile does not have"
        )

    def write(self, folder: Path, name: str, address: str, port: int) -> Path:
        """It as one pod has it, with its zone files, to be run in `folder`. NSID is the pod's name.

        Without an upstream the root zone is served too, and empty: a name outside the cluster is NXDOMAIN.
        """
        (folder / "cluster.zone").write_text(_zone_file(f"{DOMAIN}.", RECORDS))
        (folder / "root.zone").write_text(_zone_file(".", {}))
        corefile = folder / "Corefile"
        # The reload plugin reads it whenever it likes: never half a file.
        (folder / "Corefile.new").write_text(self.text(name, address, port))
        (folder / "Corefile.new").rename(corefile)
        return corefile

    def text(self, name: str, address: str, port: int) -> str:
        """As one pod has it."""
        lameduck = f" {{\n        lameduck {round(self.lameduck * 1000)}ms\n    }}" if self.lameduck > 0 else ""
        lines = [
            f"bind {address}",
            "errors",
            f"health {at(address, HEALTH_PORT)}{lameduck}",
            *[f"ready {at(address, READY_PORT)}"] * self.ready,
            f"nsid {name}",
            f"prometheus {at(address, METRICS_PORT)}",
            f"reload {RELOAD_EVERY:g}s {RELOAD_JITTER:g}s",
            *[f"cache {self.cache:g}"] * (self.cache > 0),
            *self.others,
            f"file cluster.zone {DOMAIN}",
            self.forward.replace("upstream", self.upstream) if self.upstream else "file root.zone .",
        ]
        return "".join([f".:{port} {{\n", *(f"    {line}\n" for line in lines), "}\n"])
