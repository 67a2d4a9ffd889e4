"""A target, an input -> what is wrong, by the line where it was raised; and a shorter input that shows it, too."""

from __future__ import annotations

import resource
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.targets import Target

_ROOM = 1 << 30
"""Octets of memory that an input may take."""


def bound_memory() -> None:
    """Of this process, for good: what takes more than _ROOM from now on is a MemoryError."""
    octets = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (octets + _ROOM, octets + _ROOM))


@dataclass(frozen=True, slots=True)
class Fault:
    """site: by which two faults are told apart. text: the exception."""

    site: str
    text: str


def fault_of(target: Target, octets: bytes) -> Fault | None:
    """What an input shows: an exception that nobody declared, a law that does not hold, too much time or memory."""
    began = time.process_time()
    try:
        target.check(octets)
    except Exception as problem:  # noqa: BLE001  whatever it is, that is what is looked for
        frames = traceback.extract_tb(problem.__traceback__)[1:]
        ours = [frame for frame in frames if "/probe/" in frame.filename or "/fuzz/" in frame.filename] or frames
        where = ours[-1].filename.rpartition("/probe/")[2].rpartition("/tests/")[2]
        text = "".join(traceback.format_exception_only(problem)).strip()
        return Fault(f"{type(problem).__name__} at {where}:{ours[-1].lineno}", text[:500])
    took = time.process_time() - began
    return Fault("slow", f"took {took:.1f} s of CPU") if took > target.seconds else None


def shortened(target: Target, octets: bytes, site: str, seconds: float = 20.0) -> bytes:
    """With pieces taken out as long as the same fault shows, half of it first; for so long at the most."""
    until, piece = time.monotonic() + seconds, len(octets) // 2
    while piece and time.monotonic() < until:
        at = 0
        while at < len(octets) and time.monotonic() < until:
            less = octets[:at] + octets[at + piece :]
            fault = fault_of(target, less)
            if fault and fault.site == site:
                octets = less
            else:
                at += piece
        piece //= 2
    return octets
