"""A Run's marks -> each pod's end, from its deletion to the closed socket, and the margin it left the Service."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from probe.model import Mark
from probe.runfile import Run

_SIGTERM = ("sigterm", "clock_sigterm")
_LAMEDUCK_OVER = ("clock_lameduck_over",)
_CLOSED = ("clock_closed", "sigkill", "pod_exited", "pod_gone")
_GONE = ("pod_gone", "clock_gone")


@dataclass(frozen=True, slots=True)
class End:
    """One pod's end, each moment in ns since t0, None where nobody saw it.

    removed_ns: from when on it was no ready endpoint any more; known_ns: when the last proxy acted on that;
    closed_ns: when its DNS port was closed, at the latest.
    """

    pod: str
    deleted_ns: int
    sigterm_ns: int | None
    lameduck_over_ns: int | None
    closed_ns: int | None
    gone_ns: int | None
    removed_ns: int | None
    known_ns: int | None

    @property
    def margin_ns(self) -> int | None:
        """From when the last proxy had forgotten it, or if nobody saw that, the API, to its closed socket.

        Below 0 new queries were sent to a socket that was closed.
        """
        forgotten_ns = self.removed_ns if self.known_ns is None else self.known_ns
        return None if self.closed_ns is None or forgotten_ns is None else self.closed_ns - forgotten_ns


def ends_of(run: Run) -> list[End]:
    """Of every pod that was deleted, in that order; of one that was killed, from then on."""
    first: dict[str, Mark] = {}
    for mark in run.marks:
        if mark.kind in ("pod_deleted", "sigkill") and mark.subject:
            first.setdefault(mark.subject, mark)
    return [_end(run, mark) for mark in first.values()]


def _end(run: Run, deletion: Mark) -> End:
    pod, at_ns = deletion.subject, deletion.at_ns
    mine = [mark for mark in run.marks if mark.subject == pod and mark.at_ns >= at_ns]

    def when(kinds: Iterable[str]) -> int | None:
        return min((mark.at_ns for mark in mine if mark.kind in kinds), default=None)

    return End(
        pod,
        at_ns,
        when(_SIGTERM),
        when(_LAMEDUCK_OVER),
        when(_CLOSED),
        when(_GONE),
        _forgotten(run.marks, "endpoints_changed", deletion),
        _forgotten(run.marks, "endpoints_programmed", deletion),
    )


def _forgotten(marks: Sequence[Mark], kind: str, deletion: Mark) -> int | None:
    """When the last who told of endpoints, which were with that pod before, told of them without it."""
    before = {m.subject: m for m in marks if m.kind == kind and m.at_ns < deletion.at_ns}
    found: dict[str, int] = {}
    for mark in marks:
        told_of = mark.kind == kind and mark.at_ns >= deletion.at_ns and mark.subject not in found
        if told_of and deletion.subject not in ready_of(mark.text):
            old = before.get(mark.subject)
            if old is None or deletion.subject in ready_of(old.text):
                found[mark.subject] = mark.at_ns
    return max(found.values(), default=None)


def ready_of(text: str) -> list[str]:
    """The pods that a mark of endpoints calls ready: `kube-dns: ready: a, b; terminating, serving: c` -> a, b."""
    match = re.search(r"(?:^|: )ready: ([^;]*)", text)
    return [pod for pod in match[1].split(", ") if pod != "none"] if match else []
