"""A Corefile's text -> what decides how its pods end and whom they ask; read with care, not in full.

Facts: coredns/caddy caddyfile/lexer.go (tokens, quotes, comments); plugin/health, plugin/forward, plugin/kubernetes,
plugin/log (setup.go: without a class all of them are logged).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from difflib import unified_diff
from itertools import takewhile

_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')
_PARTS = re.compile(r"([0-9]*\.?[0-9]+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_OPEN = "{"
_RESOLV_CONF = "/etc/resolv.conf"


@dataclass(frozen=True, slots=True)
class Read:
    """What a Corefile says. lameduck: the longest of its server blocks, seconds; plugins: all that are named in any.

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


def seconds_of(text: str) -> float:
    """Go's time.ParseDuration: `5s`, `1m30s`, `500ms`; 0 for what it would refuse, as a pod then does not start."""
    parts = _PARTS.findall(text)
    return sum(float(n) * _SECONDS[unit] for n, unit in parts) if "".join(n + u for n, u in parts) == text else 0.0


def tokens_of(line: str) -> list[str]:
    """Its words, without comments; none of an empty line."""
    return [word.strip('"') for word in takewhile(lambda word: not word.startswith("#"), _WORD.findall(line))]


def read_corefile(text: str) -> Read:
    """Server blocks and their plugins, one per line, each with a block of its own or none."""
    depth, zones, plugin, lameduck = 0, [], "", 0.0
    longest, plugins, forwards, imports = 0.0, set(), [], []
    own: list[str] = []
    logs: list[bool] = []
    for tokens in filter(None, map(tokens_of, text.splitlines())):
        if tokens[0] == "}":
            depth -= 1
            longest, lameduck = (max(longest, lameduck), 0.0) if depth == 0 else (longest, lameduck)
            continue
        if tokens[0] == "import":
            imports += tokens[1:2]
        elif depth == 0:
            zones = [word.rstrip(",") for word in tokens if word != _OPEN]
        elif depth == 1:
            plugin = tokens[0]
            plugins.add(plugin)
            if plugin == "forward" and tokens[1:2] == ["."] and any(is_root(zone) for zone in zones):
                forwards += [word for word in tokens[2:] if word != _OPEN]
            arguments = [word for word in tokens[1:] if word != _OPEN]
            if plugin == "kubernetes":
                own += [re.sub(r"^dns://|:[0-9]+$", "", zone) for zone in arguments or zones]
            elif plugin == "log":
                names = [word for word in arguments if _OPEN not in word]
                logs.append(not names or any(is_root(name) for name in names))
        elif plugin == "log" and tokens[0] == "class":
            logs[-1] &= "all" in tokens
        elif plugin == "health" and tokens[0] == "lameduck" and len(tokens) > 1:
            lameduck = seconds_of(tokens[1])  # of several in a server block the last one counts
        depth += tokens[-1] == _OPEN
    longest = max(longest, lameduck)
    return Read(longest, frozenset(plugins), tuple(forwards), tuple(imports), tuple(dict.fromkeys(own)), any(logs))


def is_root(zone: str) -> bool:
    """`.`, `.:53`, `dns://.:53`; a snippet in parentheses is none."""
    return re.fullmatch(r"(dns://)?\.?(:[0-9]+)?", zone) is not None


def changed_lines(before: str, after: str) -> str:
    """`-lameduck 5s, +lameduck 10s`: the lines that differ, up to 200 characters."""
    lines = list(unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))[2:]
    said = [f"{line[0]}{' '.join(line[1:].split())}" for line in lines if line[0] in "+-" and line[1:].strip()]
    text = ", ".join(said) or "white space alone"
    return text if len(text) <= 200 else f"{text[:197]}..."
