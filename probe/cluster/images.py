"""The CoreDNS that pods run: found, asked for its version, started with its Corefile in a pod's network."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probe.cluster.keeper import BADGE
from probe.cluster.network import Network
from probe.cluster.zone import Corefile
from probe.errors import EnvironmentProblem, UsageError


def find_coredns() -> Path | None:
    """The real CoreDNS: DNSPROBE_COREDNS, else `coredns` on PATH, else where `make coredns` puts it; None if missing.

    EnvironmentProblem if DNSPROBE_COREDNS names something that cannot be run.
    """
    if named := os.environ.get("DNSPROBE_COREDNS"):
        if found := shutil.which(named):
            return Path(found).absolute()
        why = "is there, but not executable: chmod +x it" if Path(named).is_file() else "no such program"
        raise EnvironmentProblem(f"DNSPROBE_COREDNS={named}: {why}; run `make coredns`, or unset it")
    if found := shutil.which("coredns"):
        return Path(found).absolute()
    cached = _cache() / "coredns"
    return cached if os.access(cached, os.X_OK) else None


def choose_coredns(setting: str) -> Path | None:
    """`auto`, `real`, a version, or `stand-in` -> the program to run, None for the stand-in; says what is missing."""
    if setting == "stand-in":
        return None
    if re.fullmatch(r"v?[0-9]+\.[0-9]+\.[0-9]+", setting):
        version = setting.removeprefix("v")
        cached = _cache() / f"coredns-{version}"
        if not os.access(cached, os.X_OK):
            raise EnvironmentProblem(f"CoreDNS {version}: not there: run `make coredns COREDNS_VERSION={version}`")
        return cached
    if setting not in ("auto", "real"):
        raise UsageError(f"coredns {setting!r}: say auto, real, stand-in, or a version such as 1.9.3")
    found = find_coredns()
    if found is None and setting == "real":
        raise EnvironmentProblem(
            "coredns: real, but there is no coredns: run `make coredns`, set DNSPROBE_COREDNS=/path/to/coredns, "
            "or say coredns: stand-in"
        )
    return found


def _cache() -> Path:
    """Where `make coredns` puts what it builds."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dnsprobe" / "bin"


async def version_of(coredns: Path) -> str:
    """`CoreDNS-1.15.0 (/path)`, as the program itself says; EnvironmentProblem if it is no CoreDNS."""
    remedy = "set DNSPROBE_COREDNS to a CoreDNS, run `make coredns`, or say coredns: stand-in"
    try:
        process = await asyncio.create_subprocess_exec(
            coredns,
            "-version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(10):
            out, err = await process.communicate()
    except OSError as problem:
        raise EnvironmentProblem(f"{coredns}: cannot be run: {problem.strerror}; {remedy}") from None
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise EnvironmentProblem(f"{coredns}: not a CoreDNS: `-version` does not end; {remedy}") from None
    said = (out.decode(errors="replace").splitlines() or [""])[0]
    if process.returncode or not said.startswith("CoreDNS-"):
        words = (err.decode(errors="replace").splitlines() or [said or "it said nothing"])[0][:200]
        ended = f"`-version` ended with exit code {process.returncode}"
        raise EnvironmentProblem(f"{coredns}: not a CoreDNS: {ended}: {words}; {remedy}")
    return f"{said} ({coredns})"


@dataclass(frozen=True, slots=True)
class Image:
    """What a pod runs, and the lab's folder, where each pod has one for its files. `coredns` None: the stand-in."""

    coredns: Path | None
    folder: Path
    network: Network

    async def start(self, name: str, address: str, port: int, corefile: Corefile) -> asyncio.subprocess.Process:
        """The process of the pod `name`, with its output in the pod's log."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        if self.coredns:
            corefile.write(home, name, address, port)
            command = [str(self.coredns), "-conf", "Corefile"]
        else:
            duck = str(corefile.lameduck)
            command = [sys.executable, "-m", "probe.cluster.standin", address, str(port), duck, name]
        return await spawn(self.network.words(name, command), self.folder, name, home if self.coredns else None)

    def log(self, name: str) -> Path:
        """Where the pod's output goes."""
        return self.folder / name / "log"


async def spawn(
    words: Sequence[str], lab: Path, name: str, home: Path | None = None, *, stdin: int = asyncio.subprocess.DEVNULL
) -> asyncio.subprocess.Process:
    """A process of the lab: it carries the lab's badge, and its output goes to its log."""
    (lab / name).mkdir(exist_ok=True)
    with (lab / name / "log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *words,
            stdin=stdin,
            stdout=log,
            stderr=log,
            cwd=home,
            env=os.environ | {BADGE: str(lab)},
            start_new_session=True,
        )
