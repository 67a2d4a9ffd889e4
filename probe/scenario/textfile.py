"""A path -> the UTF-8 text in it, or its lines one by one, or a UsageError that names the path and what is wrong."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import BinaryIO

from probe.errors import UsageError

PIECE = 1 << 20
LONGEST_LINE = 1 << 16
"""A file that has no end of line for so many octets is no text."""
PATIENCE_S = 0.7


def read_text(path: str, what: str, most: int) -> str:
    """The text of a file, of stdin if path is `-`; `what` says in errors what was expected, `most` is in octets."""
    with _opened(path, what) as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise UsageError(f"{path}: longer than {most:,} octets, the most that is read of {what}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise UsageError(f"{path}:{line}: not UTF-8 text; {what} is expected there") from None


def lines_of(path: str, what: str) -> Generator[bytes]:
    """The lines of a file of any length, a piece of it in memory at a time; how far it is, on a terminal's stderr."""
    where = "stdin" if path == "-" else path
    count, rest = 0, b""
    with _opened(path, what) as file, _progress(where) as tell:
        while piece := file.read(PIECE):
            if not count and not rest:
                piece = piece.removeprefix(codecs.BOM_UTF8)
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
            count += len(lines)
            if len(rest) > LONGEST_LINE:
                raise UsageError(f"{where}:{count + 1}: no end of line in {LONGEST_LINE:,} octets; {what} is expected")
            tell(count)
    if rest:
        yield rest


@contextmanager
def _opened(path: str, what: str) -> Iterator[BinaryIO]:
    try:
        if path == "-":
            if sys.stdin is None:
                raise UsageError(f"stdin: is closed; {what} is expected there")
            yield sys.stdin.buffer
        else:
            with Path(path).open("rb") as file:
                yield file
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; {what} is expected there") from None
    except IsADirectoryError:
        raise UsageError(f"{path}: a directory; {what} is expected there") from None
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise UsageError(f"{path}: cannot be read: {reason}; {what} is expected there") from None


@contextmanager
def _progress(where: str) -> Iterator[Callable[[int], None]]:
    """What to tell the number of lines to; it says nothing of what is over before one would wonder."""
    begun = told = monotonic()

    def tell(count: int) -> None:
        nonlocal told
        if sys.stderr and sys.stderr.isatty() and monotonic() >= told + PATIENCE_S:
            told = monotonic()
            sys.stderr.write(f"\r{where}: {count:,} lines")
            sys.stderr.flush()

    try:
        yield tell
    finally:
        if told > begun:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
