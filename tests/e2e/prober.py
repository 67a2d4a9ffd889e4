"""This machine's Python, what requirements.txt names as installed here, and the project -> the prober's image.

It stands in for the Dockerfile's, which needs a registry: same command, same user, same root that nobody writes to.
"""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from tests.e2e import image

NAME = "localhost/dnsprobe:e2e"
PROJECT = Path(__file__).parents[2]
_STDLIB = Path(sysconfig.get_path("stdlib"))
_VERSION = f"python{sysconfig.get_python_version()}"
_NEVER = re.compile(
    r"(^|/)(site-packages|dist-packages|tests?|idlelib|ensurepip|lib2to3|tkinter|turtledemo|config-.*)/|_tkinter"
)
"""Of the standard library, and of the project's dependencies: what nothing here imports."""


def write(path: Path) -> None:
    """Write the image NAME to a tar: Python and libraries are one layer, kept in memory, the project is the other."""
    layers = [_python(), image.layer(_project())]
    image.write(
        *(path, NAME, layers, ["python3", "-m", "probe.cli"]),
        *("PATH=/usr/bin", f"PYTHONPATH=/app:/usr/lib/{_VERSION}/libraries", "PYTHONDONTWRITEBYTECODE=1"),
    )


def _project() -> Iterator[tuple[str, Path]]:
    for folder in ("probe", "scenarios", "deploy"):
        for file in _below(PROJECT / folder):
            yield f"app/{file.relative_to(PROJECT)}", file


@functools.cache
def _python() -> bytes:
    """Python at /usr, libraries of requirements.txt beside its own, shared objects where the loader looks first."""
    names = re.findall(r"^([a-z0-9-]+)==", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)
    tree = [(f"usr/lib/{_VERSION}/{file.relative_to(_STDLIB)}", file) for file in _below(_STDLIB)]
    for name in names:
        tree += [(f"usr/lib/{_VERSION}/libraries/{place}", file) for place, file in _installed(name)]
    python = Path(sys.executable).resolve()
    binaries = [python, *(file for _, file in tree if ".so" in file.suffixes)]
    loaded = [
        (str(path)[1:] if path.name.startswith("ld-") else f"lib/{path.name}", path) for path in _shared(binaries)
    ]
    return image.layer([("usr/bin/python3", python), *tree, *loaded])


def _below(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not _NEVER.search(str(file.relative_to(folder))):
            yield file


def _installed(name: str) -> Iterator[tuple[str, Path]]:
    """The files of a distribution; none of what is only needed to build, and so is not installed."""
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        return
    for file in files:
        path = Path(str(file.locate()))
        if ".." not in file.parts and not _NEVER.search(str(file)) and path.is_file():
            yield str(file), path


def _shared(binaries: Iterable[Path]) -> set[Path]:
    """What the loader loads for them from outside of Python's own folders."""
    said = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
    found = {Path(path) for path in re.findall(r"(?:=> |^\s)(/\S+) \(0x", said, re.MULTILINE)}
    return {path for path in found if "site-packages" not in path.parts}
