"""A Corefile, CoreDNS's running and its target release -> the Corefile for the target, and why it had to change."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff

from probe.audit.releases import MIGRATIONS, Kind, Mend, Rule
from probe.corefile import PLUGINS, PROPERTIES, Directive, ServerBlock, parse_corefile, release_of
from probe.errors import UsageError

OLDEST = "1.6.5"
"""Before it the table does not reach."""
_INDENT = "    "


@dataclass(frozen=True, slots=True)
class Change:
    """Words of a Corefile that the target reads otherwise. line, file: where they stand, '' for the Corefile itself.

    subject: `resyncperiod` of `kubernetes`; done: the migrated Corefile takes care of it.
    """

    kind: Kind
    line: int
    file: str
    subject: str
    why: str
    source: str
    done: bool = False

    def __str__(self) -> str:
        """`Corefile:7: removed: upstream of kubernetes: why (source)`."""
        return f"{self.file or 'Corefile'}:{self.line}: {self.kind}: {self.subject}: {self.why} ({self.source})"


@dataclass(frozen=True, slots=True)
class Migration:
    """before, after: texts by file, '' for the Corefile itself. changes: by file and line."""

    running: str
    target: str
    changes: tuple[Change, ...]
    before: Mapping[str, str]
    after: Mapping[str, str]

    @property
    def text(self) -> str:
        """The migrated Corefile."""
        return self.after[""]

    @property
    def unsupported(self) -> tuple[Change, ...]:
        """What the target would refuse still: a person has to decide."""
        return tuple(one for one in self.changes if one.kind in (Kind.REMOVED, Kind.UNKNOWN) and not one.done)

    @property
    def diff(self) -> str:
        """Of all files, unified; '' if none changes."""
        lines: list[str] = []
        for file, text in self.after.items():
            name = file or "Corefile"
            names = (f"{name} (CoreDNS {self.running or 'now'})", f"{name} (CoreDNS {self.target})")
            lines += unified_diff(self.before[file].splitlines(), text.splitlines(), *names, lineterm="")
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True, order=True)
class _Edit:
    """Lines [first, last) of a file, from 0, and what stands there instead."""

    file: str
    first: int
    last: int
    lines: tuple[str, ...]


def migrate(text: str, running: str, target: str, files: Mapping[str, str] | None = None) -> Migration:
    """Whole lines change; all others, with their comments, stay as they are, to the letter.

    running: '' if it is not known, then no new default is named. files: as of parse_corefile; they are migrated too.
    UsageError: the target is no release, or one before OLDEST.
    """
    if not release_of(target) or release_of(target) < release_of(OLDEST):
        raise UsageError(f"CoreDNS {target!r}: name a release from {OLDEST} on, such as 1.14.2")
    before = {"": text, **(files or {})}
    lines = {file: content.split("\n") for file, content in before.items()}
    changes: list[Change] = []
    edits: list[_Edit] = []
    for block in parse_corefile(text, files).blocks:
        for plugin in block.directives:
            found = list(_found(plugin, running, target))
            for rule, one in found:
                made = _edits(rule, plugin, one, lines)
                edits += made
                changes.append(_change(rule.kind, plugin, one, rule.why, rule.source, done=bool(made)))
            changes += _unknown(plugin, target, [one for _, one in found])
        changes += _forwards(block, target)
    for edit in sorted(set(edits), reverse=True):
        lines[edit.file][edit.first : edit.last] = edit.lines
    after = {file: "\n".join(content) for file, content in lines.items()}
    ordered = sorted(dict.fromkeys(changes), key=lambda each: (each.file, each.line))
    return Migration(running, target, tuple(ordered), before, after)


def _change(kind: Kind, plugin: Directive, one: Directive, why: str, source: str, done: bool = False) -> Change:
    subject = f"`{plugin.name}`" if one is plugin else f"`{one.name}` of `{plugin.name}`"
    return Change(kind, one.line, one.file, subject, why, source, done)


def _found(plugin: Directive, running: str, target: str) -> Iterator[tuple[Rule, Directive]]:
    """What is said of it and its properties; of what is removed or does nothing the one rule that counts."""
    counts: dict[int, tuple[Rule, Directive]] = {}
    for rule in MIGRATIONS:
        if rule.plugin != plugin.name or not _holds(rule, running, target):
            continue
        for one in plugin.all(rule.name) if rule.name else (plugin,):
            if not rule.applies(plugin, one):
                continue
            if rule.kind is Kind.DEFAULT:
                yield rule, one
            elif id(one) not in counts or rule.kind is Kind.REMOVED:
                counts[id(one)] = (rule, one)
    yield from counts.values()


def _holds(rule: Rule, running: str, target: str) -> bool:
    now, then = release_of(running), release_of(target)
    if then < release_of(rule.release) or (rule.until and then >= release_of(rule.until)):
        return False
    changes = bool(now) and release_of(rule.seen_from) <= now < release_of(rule.release)
    return changes or rule.kind is not Kind.DEFAULT


def _unknown(plugin: Directive, target: str, known: Sequence[Directive]) -> Iterator[Change]:
    """What the target does not know, though no rule says so; those that one speaks of are known."""
    properties = PROPERTIES.get(plugin.name, {})
    here = PLUGINS.get(plugin.name)
    if here is None:
        why = "no release has this plugin: the target's image must have it compiled in, as the running one"
        yield _change(Kind.UNKNOWN, plugin, plugin, why, "plugin.cfg")
    elif not here.within(target) and plugin not in known:
        yield _change(Kind.UNKNOWN, plugin, plugin, f"{here.since} is the first release that has it", "plugin.cfg")
    for one in plugin.block if properties else ():
        each = properties.get(one.name)
        if one not in known and (each is None or not each.within(target)):
            why = f"{each.since} is the first release that knows it" if each else "no release knows it"
            yield _change(Kind.UNKNOWN, plugin, one, why, f"plugin/{plugin.name}/setup.go")


def _forwards(block: ServerBlock, target: str) -> Iterator[Change]:
    if release_of(target) < release_of("1.9.4"):
        for one in block.all("forward")[1:]:
            why = "before 1.9.4 a server block holds it once: give its zone a block of its own"
            yield _change(Kind.UNKNOWN, one, one, why, "CoreDNS notes 1.9.4 (coredns#5127)")


def _edits(rule: Rule, plugin: Directive, one: Directive, lines: Mapping[str, list[str]]) -> list[_Edit]:
    """None where it is not for us to decide, or where it shares its lines with other words."""
    if rule.mend is Mend.BY_HAND or not _has_own_lines(plugin, one, lines[one.file]):
        return []
    first, last = one.line - 1, one.last_line
    line = lines[one.file][first]
    indent = line[: len(line) - len(line.lstrip())]
    instead: tuple[str, ...] = ()
    if rule.mend is Mend.FIRST:
        instead = (re.sub(r"(\S+\s+\S+)[^#]*?(\s*(#.*)?)$", r"\1\2", line, count=1),)
    elif rule.mend is Mend.RESPONSE:
        instead = (f"{indent}response {line.lstrip()}", *lines[one.file][first + 1 : last])
    elif rule.mend is Mend.BOUND:
        instead = _bounded(lines[one.file][first:last], indent)
    made = [_Edit(one.file, first, last, instead)]
    all_of_it = [each for each in plugin.all("transfer") if each.arguments[:1] == ("to",)]
    if rule.mend is Mend.TRANSFER and one is all_of_it[0]:
        made.append(_transfer(plugin, [word for each in all_of_it for word in each.arguments[1:]], lines))
    return made


def _has_own_lines(plugin: Directive, one: Directive, lines: Sequence[str]) -> bool:
    first, last = lines[one.line - 1].lstrip(), lines[one.last_line - 1].lstrip()
    shared = one is not plugin and one.file == plugin.file and one.line == plugin.line
    return not shared and first.startswith(one.name) and (one.last_line == one.line or last.startswith("}"))


def _bounded(lines: Sequence[str], indent: str) -> tuple[str, ...]:
    """A `forward` with max_concurrent: at the end of its block, or in a new one."""
    bound = f"{indent}{_INDENT}max_concurrent 1000"
    if len(lines) > 1:
        inner = lines[1][: len(lines[1]) - len(lines[1].lstrip())] if len(lines) > 2 else f"{indent}{_INDENT}"
        return (*lines[:-1], f"{inner}{bound.strip()}", lines[-1])
    words, space, comment = re.fullmatch(r"(.*?)(\s*)(#.*)?", lines[0].rstrip("\r")).groups("")  # type: ignore[union-attr]
    return (f"{words} {{{space}{comment}".rstrip(), bound, f"{indent}}}")


def _transfer(plugin: Directive, targets: Sequence[str], lines: Mapping[str, list[str]]) -> _Edit:
    """The plugin `transfer` behind the plugin whose zones it hands out."""
    zones = plugin.arguments[1:] if plugin.name == "file" else plugin.arguments
    line = lines[plugin.file][plugin.line - 1]
    indent = line[: len(line) - len(line.lstrip())]
    block = (f"{' '.join([indent + 'transfer', *zones])} {{", f"{indent}{_INDENT}to {' '.join(targets)}", f"{indent}}}")
    return _Edit(plugin.file, plugin.last_line, plugin.last_line, block)
