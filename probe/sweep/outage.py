"""A run's marks and its windows -> how long its Service went on after the first step, and what ended it for good.

Only where it ended: where every lane through the Service was in a disruption when the run was over. What
ended it is the nearest of these to the first loss: the first pod's exit (lameduck over, or killed), or a proxy that has
learnt that no pod serves (readiness lost, while pods may still have answered).
"""

from __future__ import annotations

from collections.abc import Iterable

from probe.model import NS, Mark, TargetKind
from probe.runfile import Run
from probe.sweep.rollout import Endpoints
from probe.timeline import Timeline

NEAR_NS = NS
"""A pod's exit may be seen so much later than a row is lost for it: as ten pods end, the lab has much to do."""


def begun_ns(run: Run) -> int | None:
    """When the first step was taken."""
    return min((mark.at_ns for mark in run.marks if mark.kind == "step"), default=None)


def ended_by(timeline: Timeline) -> str:
    """`lameduck over`, `SIGKILL`, `readiness lost`; '' where the Service went on."""
    begun = begun_ns(timeline.run)
    names = {c.name for c in timeline.channels if c.target.kind is TargetKind.SERVICE}
    open_ = [w for w in timeline.windows if (w.lane, w.target) in names and w.still_open]
    if begun is None or not open_ or {(w.lane, w.target) for w in open_} != names:
        return ""
    first = min(w.from_ns for w in open_)
    before = [mark for mark in timeline.run.marks if begun <= mark.at_ns <= first + NEAR_NS]
    ends = [*_exits(before), *_empty(before)]
    return min(ends, key=lambda end: abs(end[0] - first), default=(0, "no mark says"))[1]


def _exits(marks: Iterable[Mark]) -> list[tuple[int, str]]:
    exits = [mark for mark in marks if mark.kind == "pod_exited"]
    return [(mark.at_ns, "lameduck over" if mark.text == "exit code 0" else "SIGKILL") for mark in exits[:1]]


def _empty(marks: Iterable[Mark]) -> list[tuple[int, str]]:
    programmed = [mark for mark in marks if mark.kind == "endpoints_programmed"]
    return [(mark.at_ns, "readiness lost") for mark in programmed if not Endpoints.of(mark).any_serves][:1]
