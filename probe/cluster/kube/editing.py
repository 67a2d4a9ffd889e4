"""A Corefile and a directive -> the Corefile with that directive, all else as it was, to the letter.

`lameduck 10s` goes into `health`; `PLUGIN off` takes a plugin out; `PLUGIN ARGUMENTS` replaces its arguments and keeps
its block; `PLUGIN ARGUMENTS { LINE; LINE }` replaces both. A plugin that is nowhere goes into the root zone's blocks.
"""

from __future__ import annotations

import re

from probe.corefile import addresses_of, parse_corefile
from probe.errors import UsageError

_INDENT = "    "


def edited_corefile(text: str, directive: str) -> str:
    """UsageError where it cannot be put in, or changes nothing."""
    name, _, rest = " ".join(directive.split()).partition(" ")
    lines = text.split("\n")
    servers = parse_corefile(text).blocks
    inside = "health" if name == "lameduck" else name
    holders = [one for one in servers if one.all(inside)]
    holders = holders or [one for one in servers if any(address.zone == "." for address in addresses_of(one))]
    if not holders:
        raise UsageError(
            f"patch_corefile {directive}: the Corefile has no block with {inside}, and none for the root zone"
        )
    if name == "cache" and (ttl := re.fullmatch(r"([0-9]+)s", rest)):
        # `cache 60s` would be a zone of that name (plugin/cache, setup.go)
        rest = ttl[1] if int(ttl[1]) else "off"
    edits: dict[tuple[int, int], list[str]] = {}  # a snippet's plugin is in several server blocks, and edited once
    for server in holders:
        there = server.all(inside)
        if len(there) > 1:
            raise UsageError(f"patch_corefile {directive}: {inside} is there {len(there)} times in one block")
        if not there and rest == "off":
            continue
        first, last = (there[0].line - 1, there[0].last_line) if there else (server.last_line - 1,) * 2
        old = lines[first:last]
        fresh = old or [f"{_INDENT}{inside}"]
        edits[first, last] = _lameduck(fresh, rest) if name == "lameduck" else _plugin(old, name, rest)
    for (first, last), new in sorted(edits.items(), reverse=True):
        lines[first:last] = new
    made = "\n".join(lines)
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
    has_block = bool(old) and re.search(r"\{\s*(#.*)?$", old[0]) is not None
    return [f"{indent}{words}{' {' if has_block else ''}", *old[1:]]


def _lameduck(old: list[str], value: str) -> list[str]:
    """`health` with that lameduck; 0s and off leave it out."""
    indent = re.match(r"\s*", old[0])[0]  # type: ignore[index]
    inner = [line for line in old[1:-1] if line.split()[:1] != ["lameduck"]]
    if value not in ("off", "0s"):
        was = [line for line in old[1:-1] if line not in inner]
        deeper = re.match(r"\s*", was[0])[0] if was else f"{indent}{_INDENT}"  # type: ignore[index]
        inner.append(f"{deeper}lameduck {value}")
    head = re.sub(r"\s*(\{\s*)?(#.*)?$", "", old[0])
    return [f"{head} {{", *inner, f"{indent}}}"] if inner else [head]
