"""What a Corefile is made of: server blocks, their plugins, the plugins' properties, and what is wrong with it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PARTS = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong in a line. file: '' for the Corefile itself. remedy: what to do about it.

    fatal: CoreDNS refuses the file; else it takes it, and does something else than what it looks like.
    """

    line: int
    file: str
    text: str
    remedy: str = ""
    fatal: bool = True

    def __str__(self) -> str:
        """`Corefile:7: text; remedy`."""
        return f"{self.file or 'Corefile'}:{self.line}: {self.text}" + f"; {self.remedy}" * bool(self.remedy)


@dataclass(frozen=True, slots=True)
class Directive:
    """A plugin of a server block, or a property of a plugin. line, file: where its name stands.

    arguments: the words after it on its line; block: what stands between its braces; last_line: where that ends.
    """

    name: str
    arguments: tuple[str, ...] = ()
    line: int = 0
    file: str = ""
    block: tuple[Directive, ...] = ()
    last_line: int = 0

    def all(self, name: str) -> tuple[Directive, ...]:
        """Those properties of its block."""
        return tuple(one for one in self.block if one.name == name)

    def last(self, name: str) -> Directive | None:
        """The last of them, which for most is the one that counts; None if there is none."""
        return next((one for one in reversed(self.block) if one.name == name), None)


@dataclass(frozen=True, slots=True)
class ServerBlock:
    """zones: its addresses as they are written: `.:53`, `dns://example.org`. line, file: where the first one stands.

    last_line: of its `}`, in the same file.
    """

    zones: tuple[str, ...]
    line: int
    file: str
    directives: tuple[Directive, ...]
    last_line: int = 0

    def all(self, name: str) -> tuple[Directive, ...]:
        """The plugins of that name."""
        return tuple(one for one in self.directives if one.name == name)

    def last(self, name: str) -> Directive | None:
        """The last of them; None if there is none."""
        return next((one for one in reversed(self.directives) if one.name == name), None)


@dataclass(frozen=True, slots=True)
class Corefile:
    """imports: patterns of `import` that found nothing among the snippets and files."""

    blocks: tuple[ServerBlock, ...] = ()
    problems: tuple[Problem, ...] = ()
    imports: tuple[str, ...] = ()

    def all(self, plugin: str) -> tuple[Directive, ...]:
        """The plugins of that name in all server blocks."""
        return tuple(one for block in self.blocks for one in block.all(plugin))


def duration_of(text: str) -> float | None:
    """Seconds, as Go's time.ParseDuration reads `5s`, `1m30s`, `-1.5h`, `0`; None for what it refuses."""
    unsigned = text[1:] if text[:1] in ("+", "-") else text
    if unsigned == "0":
        return 0.0
    parts = _PARTS.findall(unsigned)
    if not parts or "".join(n + unit for n, unit in parts) != unsigned:
        return None
    return sum(float(n) * _SECONDS[unit] for n, unit in parts) * (-1.0 if text[0] == "-" else 1.0)
