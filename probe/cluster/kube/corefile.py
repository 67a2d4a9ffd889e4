"""A Corefile's text -> what decides how its pods end and whom they ask.

Facts: plugin/health, plugin/forward, plugin/kubernetes, plugin/log (setup.go: without a class all of them are logged).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from difflib import unified_diff

from probe.corefile import Directive, ServerBlock, addresses_of, duration_of, parse_corefile

_RESOLV_CONF = "/etc/resolv.conf"


@dataclass(frozen=True, slots=True)
class Read:
    """What a Corefile says. lameduck: of all server blocks, which sleep one after the other, seconds; plugins: all
    that are named in any.

    forwards: what names outside the cluster are forwarded to, as it is written. imports: files that were not read.
    zones: those of the plugin kubernetes, the cluster's own. logs: whether a line is written for every query.
    """

    lameduck: float = 0.0
    plugins: frozenset[str] = frozenset()
    forwards: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    logs: bool = False

    @property
    def upstreams(self) -> list[tuple[str, int]]:
        """Address and port of those forwards that are addresses and are asked in plain DNS."""
        found = []
        for text in self.forwards:
            match = re.fullmatch(r"(?:dns://)?(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)|([0-9a-fA-F:]+))(?::([0-9]+))?", text)
            address = match and (match[1] or match[2] or match[3])
            if match and address and _is_address(address):
                found.append((address, int(match[4] or 53)))
        return found

    @property
    def asks_resolv_conf(self) -> bool:
        """Whether the pods' own /etc/resolv.conf says where to forward to."""
        return _RESOLV_CONF in self.forwards


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def read_corefile(text: str) -> Read:
    """Of a Corefile alone: what it imports from other files is not known."""
    read = parse_corefile(text)
    forwards: list[str] = []
    zones: list[str] = []
    for block in read.blocks:
        of_root = any(address.zone == "." for address in addresses_of(block))
        each = [one.arguments for one in block.all("forward") if of_root and one.arguments[:1] == (".",)]
        forwards += [word for arguments in each for word in arguments[1:]]
        zones += [_zone(zone) for one in block.all("kubernetes") for zone in one.arguments or block.zones]
    return Read(
        lameduck=sum(map(_lameduck, read.blocks)),
        plugins=frozenset(one.name for block in read.blocks for one in block.directives),
        forwards=tuple(forwards),
        imports=read.imports,
        zones=tuple(dict.fromkeys(zones)),
        logs=any(map(_logs, read.all("log"))),
    )


def _lameduck(block: ServerBlock) -> float:
    """Seconds; of several in a server block the last one counts, and 0 for one with which a pod does not start."""
    said = [word for one in block.all("health") for each in one.all("lameduck") for word in each.arguments[:1]]
    return (duration_of(said[-1]) or 0.0) if said else 0.0


def _logs(log: Directive) -> bool:
    """Whether it logs every query."""
    names = [word for word in log.arguments if "{" not in word]
    classes = [each.arguments for each in log.all("class")]
    return (not names or "." in names) and all("all" in each for each in classes)


def _zone(text: str) -> str:
    """`dns://cluster.local.:53` -> `cluster.local`."""
    return re.sub(r"^dns://|:[0-9]+$", "", text).rstrip(".")


def changed_lines(before: str, after: str) -> str:
    """`-lameduck 5s, +lameduck 10s`: the lines that differ, up to 200 characters."""
    lines = list(unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))[2:]
    said = [f"{line[0]}{' '.join(line[1:].split())}" for line in lines if line[0] in "+-" and line[1:].strip()]
    text = ", ".join(said) or "white space alone"
    return text if len(text) <= 200 else f"{text[:197]}..."
