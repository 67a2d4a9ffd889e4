"""What a rule of the decision table is: a Moment in, whether it fits out, with what was seen and which lanes told."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from probe.diagnosis.moment import Moment
from probe.model import NS, Sure
from probe.timeline import Window

KUBECTL = "kubectl -n kube-system"
LABEL = "-l k8s-app=kube-dns"


@dataclass(frozen=True, slots=True)
class Fit:
    """A rule that fits. seen: the numbers; windows: those that it explains; span: of what is no window.

    by: what tells the cause from its neighbours, each a lane or another witness: pods' ends, a counter. lameduck: from
    deletion until nodes had learnt of it, in seconds, where that is what the remedy depends on.
    """

    sure: Sure
    seen: str
    by: tuple[str, ...]
    windows: tuple[Window, ...] = ()
    span: tuple[int, int] | None = None
    propagation: float | None = None


Remedy = Callable[[Moment, Fit, str], str]
"""What fitted, and the platform that keeps CoreDNS -> commands."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the decision table. cause: a sentence; apart: what tells it from what looks alike.

    fits: what it says of a group of windows, or, with `whole`, of a run. lacks: the lane to run if it can only be
    suspected. unless: rules of windows that say more of the same.
    """

    row: str
    cause: str
    apart: str
    remedy: str | Remedy
    source: str
    fits: Callable[[Moment], Fit | None]
    lacks: str = ""
    whole: bool = False
    unless: tuple[str, ...] = ()


def seconds(ns: float) -> str:
    """`1.94 s`."""
    return f"{ns / NS:.3g} s" if ns >= NS // 100 else "0 s"


def at(ns: float) -> str:
    """`+5.04 s`, since the start."""
    return f"+{ns / NS:.2f} s"


def of_pod(remedy: str, name: str) -> str:
    """Its commands for a pod, POD in them, which stays if none is named."""
    return re.sub(r"\bPOD\b(?!-)", name, remedy) if name else remedy
