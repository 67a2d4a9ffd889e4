"""Server blocks -> what is wrong with them that the grammar lets pass: names, doubles, comments of other languages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches

from probe.corefile.plugins import NEWEST, PLUGINS, PROPERTIES
from probe.corefile.tree import Directive, Problem, ServerBlock
from probe.corefile.zones import zone_problems

_FOREIGN = ("//", "/*", ";", "--")
"""How comments begin elsewhere."""
_OWN_LINE = "put it on a line of its own"
_OPEN = {"hosts", "template", "rewrite"}
"""Plugins whose blocks hold free text."""
_TAKES_ALL = {
    *("cache", "kubernetes", "log", "hosts", "file", "auto", "k8s_external", "etcd", "secondary"),
    *("ttl", "fallthrough"),
}
"""Plugins and properties that take any words, as zones for the most part: what was pasted there passes, and acts."""


def problems_of(blocks: Sequence[ServerBlock]) -> Iterator[Problem]:
    """All of them, in no order."""
    for block in blocks:
        if not block.zones:
            why = "a block without a zone: CoreDNS passes it over"
            yield Problem(block.line, block.file, why, "write `.:53` before it", fatal=False)
            strays = [each for each in block.directives if each.name not in PLUGINS]
            yield from (Problem(each.line, each.file, *_unknown(each, block)) for each in strays)
            continue
        once: dict[str, Directive] = {}
        for each in block.directives:
            yield from _of_plugin(each, block)
            first = once.setdefault(each.name, each)
            if first is not each and each.name in PLUGINS:
                yield from _double(first, each)
    yield from zone_problems(blocks)


def _double(first: Directive, each: Directive) -> Iterator[Problem]:
    where = f"`{each.name}` is in this server block already, line {first.line}"
    if PLUGINS[each.name].once:
        yield Problem(each.line, each.file, f"{where}: CoreDNS takes it once", "merge the two")
    elif (first.arguments, _words(first)) == (each.arguments, _words(each)):
        yield Problem(each.line, each.file, f"{where}, with the same words", "take one out", fatal=False)


def _words(one: Directive) -> list[object]:
    return [[each.name, each.arguments, _words(each)] for each in one.block]


def _of_plugin(each: Directive, block: ServerBlock) -> Iterator[Problem]:
    if each.name not in PLUGINS:
        yield Problem(each.line, each.file, *_unknown(each, block))
    else:
        known = PROPERTIES.get(each.name)
        for one in each.block:
            if one.name.startswith(_FOREIGN):
                yield _foreign(one, one.name, each.name not in _OPEN)
            elif known is not None and one.name not in known:
                yield Problem(one.line, one.file, *_stray(one, each, known))
                if one.name in PLUGINS:
                    break  # so are all after it
    for one in _all(each):
        fatal = one.name not in _TAKES_ALL and each.name not in _OPEN
        pasted = next((word for word in one.arguments if word.startswith(_FOREIGN[:2])), None)
        if pasted is not None and each.name in PLUGINS:
            yield _foreign(one, pasted, fatal)
        if "}" in one.arguments:
            yield Problem(one.line, one.file, f"`}}` is read as an argument of `{one.name}`", _OWN_LINE, fatal)


def _all(one: Directive) -> Iterator[Directive]:
    """It and what its block holds; the parser bounds the depth."""
    yield one
    for each in one.block:
        yield from _all(each)


def _foreign(one: Directive, word: str, fatal: bool) -> Problem:
    text = f"`{word}` begins no comment: CoreDNS reads it, and what follows, as words"
    return Problem(one.line, one.file, text, "begin the comment with #", fatal)


def _unknown(each: Directive, block: ServerBlock) -> tuple[str, str]:
    """What to say of a plugin that there is none of, and the remedy."""
    said = f"Unknown directive '{each.name}'"
    if each.name.startswith(_FOREIGN):
        return f"{said}: a comment does not begin so", "begin the comment with #"
    holder = next((plugin for plugin, known in PROPERTIES.items() if each.name in known), None)
    if holder:
        return f"{said}: it is a property of `{holder}`", f"put it into the block of `{holder}`"
    if each.block and ("." in each.name or ":" in each.name):
        return f"{said}: a server block within that of line {block.line}", "close that one with a `}` before it"
    if near := get_close_matches(each.name, PLUGINS, 1, 0.7):
        return said, f"say `{near[0]}`, if that is meant"
    return f"{said}: CoreDNS {NEWEST} has no such plugin", "take it out, unless this build of CoreDNS has it"


def _stray(one: Directive, plugin: Directive, known: Collection[str]) -> tuple[str, str]:
    said = f"unknown property '{one.name}' of `{plugin.name}`"
    if one.name in PLUGINS and one.name not in known:
        return (
            f"{said}: it is a plugin",
            f"close the block of `{plugin.name}`, line {plugin.line}, with a `}}` before it",
        )
    near = get_close_matches(one.name, known, 1)
    return said, f"say `{near[0]}`, if that is meant" if near else "take it out"
