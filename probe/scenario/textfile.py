"""A path -> the UTF-8 text in it, of bounded size, or a UsageError that names the path and what is wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path

from probe.errors import UsageError


def read_text(path: str, what: str, most: int) -> str:
    """The text of a file, of stdin if path is `-`; `what` says in errors what was expected, `most` is in octets."""
    try:
        if path == "-":
            raw = sys.stdin.buffer.read(most + 1)
        else:
            with Path(path).open("rb") as file:
                raw = file.read(most + 1)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; {what} is expected there") from None
    except IsADirectoryError:
        raise UsageError(f"{path}: a directory; {what} is expected there") from None
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise UsageError(f"{path}: cannot be read: {reason}; {what} is expected there") from None
    if len(raw) > most:
        raise UsageError(f"{path}: longer than {most:,} octets, the most that is read of {what}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise UsageError(f"{path}:{line}: not UTF-8 text; {what} is expected there") from None
