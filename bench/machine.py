"""Nothing in; what a run of the bench was made with and on, as pairs of words, out."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.load import Missing
from bench.processes import ROOT
from bench.tools import program
from probe import __version__
from probe.cluster.images import find_coredns

_VERSION = re.compile(r"v?(\d+\.\d+(?:\.\d+)?)")


def about() -> list[tuple[str, str]]:
    """Date, machine, kernel, and the version of everything that was measured or measures."""
    return [
        ("date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ("machine", f"{_processor()}, {os.cpu_count()} cores, {_memory()}"),
        ("kernel", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("network", "loopback; client and server share the cores"),
        ("dnsprobe", f"{__version__} {_commit()}".strip()),
        ("Python", platform.python_version()),
        *((name, version(name)) for name in ("numpy", "dnspython", "aiodns", "pycares")),
        *((name, _said(name, word, lift)) for name, word, lift in _PROGRAMS),
        ("CoreDNS", _coredns()),
    ]


_PROGRAMS = (
    ("dnsperf", "-h", "make servers"),
    ("dnspyre", "--version", "make dnspyre"),
    ("knotd", "--version", "make servers"),
    ("tcpdump", "--version", "make servers"),
)


def _said(name: str, word: str, lift: str) -> str:
    """The version a program says it has; on stdout or stderr, the first that looks like one."""
    try:
        path = program(name, lift)
    except Missing as lacking:
        return str(lacking)
    told = subprocess.run([path, word], capture_output=True, text=True, check=False, timeout=10)
    after_word = (told.stdout + told.stderr).partition("ersion")[2]
    found = _VERSION.search(after_word)
    return found[1] if found else "unknown"


def _coredns() -> str:
    path = find_coredns()
    if path is None:
        return "run `make coredns`"
    told = subprocess.run([str(path), "-version"], capture_output=True, text=True, check=False, timeout=10).stdout
    return told.partition("\n")[0].removeprefix("CoreDNS-")


def _processor() -> str:
    told = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return told[1] if told else platform.processor() or platform.machine()


def _memory() -> str:
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"


def _commit() -> str:
    """Which commit, and whether the tree differs from it; nothing outside a checkout."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return told.stdout.strip()
