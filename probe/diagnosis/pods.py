"""The marks of a Run -> the life of each CoreDNS pod as it was told: deleted, SIGTERM, closed, gone, its exit code."""

from __future__ import annotations

import re
from dataclasses import dataclass

from probe.model import NS, Mark
from probe.runfile import Run

_GRACE = re.compile(r"grace period ([0-9.]+) s")
_CODE = re.compile(r"exit code ([0-9]+)")
NEVER = 1 << 62
"""Later than any instant of a run: what was not seen to happen."""
_EARLY_NS = 2 * NS
"""A pod that is seen to be Ready so soon after t0 may have been so before."""


@dataclass(frozen=True, slots=True)
class PodLife:
    """One pod; instants in ns since t0, NEVER where nothing was told.

    ready_ns: its first Ready, 0 if it was so when the run began. sigterm_ns: /ready's port was refused, or it was told
    SIGTERM. over_ns: /health's was. closed_ns: DNS itself, by TCP, or its process has ended. exits: (when, code) of its
    container, code -1 if it was not told. grace: what the deletion gave it, in seconds; None if it was not told.
    """

    name: str
    created_ns: int = NEVER
    ready_ns: int = NEVER
    unready_ns: int = NEVER
    deleted_ns: int = NEVER
    sigterm_ns: int = NEVER
    over_ns: int = NEVER
    closed_ns: int = NEVER
    gone_ns: int = NEVER
    grace: float | None = None
    by_force: bool = False
    exits: tuple[tuple[int, int], ...] = ()

    @property
    def deleted(self) -> bool:
        """It was told to go, in the run."""
        return self.deleted_ns < NEVER

    @property
    def killed(self) -> bool:
        """Its end was no end in order: by force, or with a grace period of nothing."""
        return self.by_force or self.grace == 0

    @property
    def exit_code(self) -> int | None:
        """Of its end, once it was told to go; None if it was not told."""
        codes = [code for at_ns, code in self.exits if at_ns >= self.deleted_ns]
        return codes[-1] if codes and codes[-1] >= 0 else None

    @property
    def crashes(self) -> list[tuple[int, int]]:
        """Exits that nobody asked for."""
        return [(at_ns, code) for at_ns, code in self.exits if at_ns < self.deleted_ns]

    @property
    def lameduck_s(self) -> float | None:
        """From SIGTERM to closed, as it was seen; None if either was not."""
        if NEVER in (self.sigterm_ns, self.closed_ns):
            return None
        return max(0.0, (self.closed_ns - self.sigterm_ns) / NS)


def pods_of(run: Run) -> dict[str, PodLife]:
    """Every pod that a mark or a counted life names, in the order in which they are named."""
    marks: dict[str, list[Mark]] = {}
    for mark in run.marks:
        if mark.kind.startswith(("pod_", "clock_")) or mark.kind in ("sigterm", "sigkill"):
            marks.setdefault(mark.subject, []).append(mark)
    begins = {i.subject: i.from_ns for i in reversed(run.intervals) if i.kind == "life"}
    names = [name for name in dict.fromkeys((*begins, *marks)) if name]
    return {name: _life(name, marks.get(name, []), begins.get(name, NEVER)) for name in names}


def _life(name: str, marks: list[Mark], begins_ns: int) -> PodLife:
    def first(*kinds: str, after_ns: int = 0) -> int:
        return min((m.at_ns for m in marks if m.kind in kinds and m.at_ns >= after_ns), default=NEVER)

    deleted = next((m for m in marks if m.kind in ("pod_deleted", "pod_failed")), None)
    grace = _GRACE.search(deleted.text) if deleted else None
    exits = tuple((m.at_ns, _code(m.text)) for m in marks if m.kind == "pod_exited")
    ready_ns = min(begins_ns, first("pod_ready"))
    return PodLife(
        name,
        created_ns=first("pod_created"),
        ready_ns=0 if ready_ns < _EARLY_NS and first("pod_created") == NEVER else ready_ns,
        unready_ns=first("pod_not_ready"),
        deleted_ns=deleted.at_ns if deleted else NEVER,
        sigterm_ns=first("clock_sigterm", "sigterm"),
        over_ns=first("clock_lameduck_over"),
        closed_ns=first("clock_closed", "pod_exited", after_ns=deleted.at_ns if deleted else NEVER),
        gone_ns=first("clock_gone", "pod_gone"),
        grace=float(grace[1]) if grace else None,
        by_force=bool(deleted and "by force" in deleted.text) or any("by force" in m.text for m in marks),
        exits=exits,
    )


def _code(text: str) -> int:
    found = _CODE.search(text)
    return int(found[1]) if found else -1
