"""Sentences in, on stdout and stderr out: all that is said to a person or a program."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from probe.errors import EnvironmentProblem
from probe.report.units import plain


def say(text: str, stream: TextIO | None = None, what: str = "the output") -> None:
    """Print it, at once. A reader who has gone is no fault; EnvironmentProblem for a full disk."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError as problem:
        silence(stream)
        if not isinstance(problem, BrokenPipeError):
            raise EnvironmentProblem(f"{what} cannot be written: {problem.strerror}") from None


def complain(text: str) -> None:
    """A line about an error, or a note. Where stderr cannot be written either, nothing is left to say."""
    with suppress(EnvironmentProblem):
        say("dnsprobe: " + "\n".join(plain(line) for line in text.splitlines()), sys.stderr)


def silence(stream: TextIO) -> None:
    """What the stream still holds would fail once more when Python ends, and change the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
