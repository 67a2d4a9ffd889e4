"""The value of a step that changes how pods are made, as typed -> numbers, the same everywhere."""

from __future__ import annotations

import re

from probe.errors import UsageError

_SHARE = r"[0-9]{1,3}%?"
_PATTERNS = {
    "period": (r"([1-9][0-9]{0,3})s", "10s"),
    "failures": (r"([1-9][0-9]{0,2})", "3"),
    "path": (r"(/[A-Za-z0-9/_.-]{1,60})", "/ready"),
    "max_unavailable": (f"({_SHARE})", "1"),
    "max_surge": (f"({_SHARE})", "25%"),
}
READINESS = ("period", "failures", "path")
STRATEGY = ("max_unavailable", "max_surge")


def pairs(text: str, names: tuple[str, ...]) -> dict[str, str]:
    """`period 5s, failures 2` -> {"period": "5", "failures": "2"}; UsageError for anything else."""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition(" ")
        match = re.fullmatch(_PATTERNS[name][0], value.strip()) if name in names else None
        if match is None or name in found:
            usual = ", ".join(f"{name} {_PATTERNS[name][1]}" for name in names)
            raise UsageError(f"{text[:60]!r}: say one or more of `{usual}`")
        found[name] = match[1]
    return found


def seconds(text: str) -> int:
    """`30s` -> 30, as Kubernetes has it: whole seconds; UsageError for anything else."""
    if match := re.fullmatch(r"([0-9]{1,5})s", text):
        return int(match[1])
    raise UsageError(f"{text[:40]!r}: say whole seconds, such as 30s")
