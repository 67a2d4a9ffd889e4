"""What an audit found -> the steps of this upgrade in their order, and what clients will feel in each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """checks: whose remedies it takes; commands: to be pasted; expect: sentences: how long, which clients."""

    title: str
    commands: tuple[str, ...] = ()
    expect: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
