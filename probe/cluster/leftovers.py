"""What labs left on this machine though nobody is there any more to take it away: found, and removed."""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path

from probe.cluster.keeper import NAMESPACES, sweep

PREFIX = "dnsprobe-lab-"
"""How the folder of a lab, and each of its network namespaces, begins."""


def leftovers() -> list[Path]:
    """The folders of labs without a keeper, there or not."""
    found = {path.name for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*")}
    for path in NAMESPACES.glob(f"{PREFIX}*"):
        if match := re.match(rf"{PREFIX}[^-]+", path.name):
            found.add(match[0])
    return sorted(Path(tempfile.gettempdir()) / name for name in found - _kept())


def _kept() -> set[str]:
    """The names of labs whose keeper is alive: it does what is to be done."""
    names = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"probe.cluster.keeper" in words:
                    names.add(Path(words[words.index(b"probe.cluster.keeper") + 1].decode()).name)
    return names


def down() -> list[str]:
    """Remove all leftovers: processes, namespaces, folders; the names of the labs they were of."""
    found = leftovers()
    for folder in found:
        sweep(str(folder))
    return [folder.name for folder in found]
