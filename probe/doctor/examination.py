"""What an examination is: nothing in, whether this machine has something, what was seen and what mends it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """OK; LESS: runs go without it; MISSING: no run goes without it."""

    OK = "ok"
    LESS = "-"
    MISSING = "MISSING"


@dataclass(frozen=True, slots=True)
class Seen:
    """What an examination saw. mend: the command or the line that gives what is not there, '' for none."""

    well: bool
    text: str
    mend: str = ""


Look = Callable[[], Seen]
"""OSError and EnvironmentProblem, which it need not catch, mean that it is not there."""


@dataclass(frozen=True, slots=True)
class Examination:
    """One thing that a machine can have. gives: what is had with it; needed: every run needs it.

    mend: what gives it where the look does not say anything better.
    """

    area: str
    gives: str
    look: Look
    mend: str = ""
    needed: bool = False


@dataclass(frozen=True, slots=True)
class Examined:
    """One examination, made. found: what was seen; mend: '' where nothing is to be done."""

    id: str
    area: str
    state: State
    found: str
    gives: str
    mend: str
