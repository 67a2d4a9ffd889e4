"""A Corefile and a directive -> the Corefile with that directive, all else as it was, to the letter.

`lameduck 10s` goes into `health`; `PLUGIN off` takes a plugin out; `PLUGIN ARGUMENTS` replaces its arguments and keeps
its block; `PLUGIN ARGUMENTS { LINE; LINE }` replaces both. A plugin that is nowhere goes into the root zone's blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from probe.cluster.kube.corefile import is_root, tokens_of
from probe.errors import UsageError

_INDENT = "    "


@dataclass(frozen=True, slots=True)
class _Plugin:
    """Lines [first, last] of a plugin with its block, in a server block that ends in line `end`."""

    name: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class _Server:
    """A server block: its zones, its plugins, the line of its `}`."""

    zones: tuple[str, ...]
    plugins: tuple[_Plugin, ...]
    end: int


def _servers(lines: list[str]) -> Iterator[_Server]:
    depth, first, name = 0, 0, ""
    zones: tuple[str, ...] = ()
    plugins: list[_Plugin] = []
    for n, line in enumerate(lines):
        tokens = tokens_of(line)
        if not tokens:
            continue
        closes, opens = tokens[0] == "}", tokens[-1] == "{"
        if depth == 0 and opens:
            zones, plugins = tuple(word.rstrip(",") for word in tokens[:-1]), []
        elif depth == 1 and closes:
            yield _Server(zones, tuple(plugins), n)
        elif depth == 1:
            first, name = n, tokens[0]
            if not opens:
                plugins.append(_Plugin(name, n, n))
        elif depth == 2 and closes:
            plugins.append(_Plugin(name, first, n))
        depth += opens - closes


def edited_corefile(text: str, directive: str) -> str:
    """UsageError where it cannot be put in, or changes nothing."""
    name, _, rest = " ".join(directive.split()).partition(" ")
    lines = text.splitlines()
    servers = list(_servers(lines))
    inside = "health" if name == "lameduck" else name
    holders = [one for one in servers if any(each.name == inside for each in one.plugins)]
    holders = holders or [one for one in servers if any(map(is_root, one.zones))]
    if not holders:
        raise UsageError(
            f"patch_corefile {directive}: the Corefile has no block with {inside}, and none for the root zone"
        )
    if name == "cache" and (ttl := re.fullmatch(r"([0-9]+)s", rest)):
        # `cache 60s` would be a zone of that name (plugin/cache, setup.go)
        rest = ttl[1] if int(ttl[1]) else "off"
    for server in reversed(holders):
        there = [each for each in server.plugins if each.name == inside]
        if len(there) > 1:
            raise UsageError(f"patch_corefile {directive}: {inside} is there {len(there)} times in one block")
        for each in reversed(there):
            old = lines[each.first : each.last + 1]
            lines[each.first : each.last + 1] = _lameduck(old, rest) if name == "lameduck" else _plugin(old, name, rest)
        if not there and rest != "off":
            fresh = [f"{_INDENT}{inside}"]
            lines[server.end : server.end] = _lameduck(fresh, rest) if name == "lameduck" else _plugin([], name, rest)
    made = "\n".join(lines) + "\n" * text.endswith("\n")
    if made == text:
        raise UsageError(f"patch_corefile {directive}: the Corefile says so already")
    return made


def _plugin(old: list[str], name: str, rest: str) -> list[str]:
    """A plugin's lines, with other arguments, or with another block as well; none if it is `off`."""
    if rest == "off":
        return []
    indent = re.match(r"\s*", old[0])[0] if old else _INDENT  # type: ignore[index]
    arguments, block, inner = rest.partition("{")
    words = " ".join([name, *("" if arguments.strip() == "on" else arguments).split()])
    if block:
        options = [each.strip() for each in inner.rstrip().removesuffix("}").split(";") if each.strip()]
        return [f"{indent}{words} {{", *(f"{indent}{_INDENT}{each}" for each in options), f"{indent}}}"]
    has_block = bool(old) and tokens_of(old[0])[-1] == "{"
    return [f"{indent}{words}{' {' if has_block else ''}", *old[1:]]


def _lameduck(old: list[str], value: str) -> list[str]:
    """`health` with that lameduck; 0s and off leave it out."""
    indent = re.match(r"\s*", old[0])[0]  # type: ignore[index]
    inner = [line for line in old[1:-1] if tokens_of(line)[:1] != ["lameduck"]]
    if value not in ("off", "0s"):
        was = [line for line in old[1:-1] if line not in inner]
        deeper = re.match(r"\s*", was[0])[0] if was else f"{indent}{_INDENT}"  # type: ignore[index]
        inner.append(f"{deeper}lameduck {value}")
    head = re.sub(r"\s*(\{\s*)?(#.*)?$", "", old[0])
    return [f"{head} {{", *inner, f"{indent}}}"] if inner else [head]
