"""A command in; its output, the CPU of its whole tree of processes, and what that tree held while it ran, out."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOOK_SECONDS = 0.05
_TICK = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""An installed package has its bytecode beside it: compiling it each time would be counted as start-up."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A tree of processes at one moment (Unix seconds): CPU seconds so far, octets of memory, open files."""

    at: float
    cpu: float
    pss: int
    rss: int
    files: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended. cpu: user and system seconds of its whole tree, start-up included."""

    code: int
    out: str
    err: str
    cpu: float
    samples: tuple[Sample, ...] = ()


class Overdue(RuntimeError):
    """A command that did not end when it should have."""


def run(command: list[str], seconds: float, *, terminal: bool = False, look_every: float = 0.0) -> Ended:
    """Run a command to its end, at most `seconds` long; on a terminal of its own, looked at every so often, if asked.

    CPU is what wait4() says: the process, and the descendants that were waited for. Overdue if it had to be ended.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, _screen(terminal) as (ours, theirs):
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            stdin=theirs or subprocess.DEVNULL,
            stdout=theirs or out,
            stderr=theirs or err,
            start_new_session=True,
            cwd=ROOT,
            env=_ENVIRONMENT,
        )
        try:
            cpu, samples = _followed(process, began, seconds, look_every, ours)
        except BaseException:
            end(process)
            raise
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return Ended(process.returncode, texts[0], texts[1], cpu, tuple(samples))


def end(process: subprocess.Popen[bytes]) -> None:
    """End one process by its id: kindly, then not."""
    for kind, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        if process.returncode is None:
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                process.send_signal(kind)
                process.wait(patience)


@contextmanager
def _screen(asked: bool) -> Iterator[tuple[int, int]]:
    """The two ends of a terminal; (0, 0) if none was asked for."""
    ours, theirs = pty.openpty() if asked else (0, 0)
    try:
        yield ours, theirs
    finally:
        for descriptor in filter(None, (ours, theirs)):
            os.close(descriptor)


def _followed(
    process: subprocess.Popen[bytes], began: float, seconds: float, look_every: float, screen: int
) -> tuple[float, list[Sample]]:
    """Wait for the end; the CPU spent, and the samples taken."""
    samples: list[Sample] = []
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage.ru_utime + usage.ru_stime, samples
        since = time.monotonic() - began
        if since > seconds:
            raise Overdue(f"not ended in {seconds:g} s")
        if look_every and since >= len(samples) * look_every:
            samples.append(look(process.pid))
        if screen and select.select([screen], [], [], LOOK_SECONDS)[0]:
            os.read(screen, 65_536)
        elif not screen:
            time.sleep(LOOK_SECONDS)


def look(pid: int) -> Sample:
    """What a process and its descendants hold now."""
    return held(tree(pid))


def held(members: list[int]) -> Sample:
    """What these processes hold now."""
    at, cpu, pss, rss, files = time.time(), 0.0, 0, 0, 0
    for member in members:
        with suppress(OSError):
            fields = (_PROC / str(member) / "stat").read_text().rpartition(")")[2].split()
            cpu += (int(fields[11]) + int(fields[12])) / _TICK
            rss += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
            files += len(os.listdir(_PROC / str(member) / "fd"))  # noqa: PTH208  one call a process, not one a file
            rollup = (_PROC / str(member) / "smaps_rollup").read_text()
            pss += 1024 * sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return Sample(at, cpu, pss, rss, files)


def tree(pid: int) -> list[int]:
    """A process and its descendants, by id."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(entry.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found
