"""A Verdict -> what its picture shows on one time axis: lanes, rates, latencies, what the cluster did, the prober."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from probe.diagnosis.pods import NEVER
from probe.model import BUCKET_NS, NS, Mark
from probe.outcome import Outcome
from probe.report.ends import End, ends_of
from probe.report.palette import BAD, OUTCOMES, QUIET, WARNING
from probe.report.rates import GOOD, latencies_of, rates_of
from probe.report.strips import UNDECIDED, Stretch, Strip, strips_of
from probe.report.units import bounded, count, short, since_start
from probe.timeline import Channel, Timeline
from probe.verdict import Verdict

ROWS, PODS = 24, 16
"""Strips and pods that have a row of their own, those that lost most and ended first; the others share one."""
LABEL = 38
"""Characters of a row's name."""
LEAST_TALL, LEAST_SEEN, UNCOUNTED = 0.3, 0.45, 0.35
"""A bar where next to nothing was lost, against one where all was: height, opacity; the opacity of one that does not
count."""
LABELS_APART = 0.14
"""A mark's words are written beside it where the next one is so much of the run away."""

COLOURS = {
    GOOD: OUTCOMES[Outcome.ANSWER],
    UNDECIDED: QUIET,
    **{o.label: OUTCOMES[o] for o in Outcome if o is not Outcome.ANSWER},
    Outcome.ANSWER.label: OUTCOMES[Outcome.NODATA],
}
"""What became of queries; an answer that was not good is as strange as NODATA."""
READY, ENDING, HOLE, OVER, ROLLOUT = "ready", "told to go, answers", "closed, still sent to", "closed", "rollout"
PHASES = {READY: "#9fc9e8", ENDING: WARNING, HOLE: BAD, OVER: QUIET, ROLLOUT: "#c9c2dd"}
"""Of pods; light where all is well, so that they are told apart in grey, too."""
STEPS_ROW, ENDPOINTS_ROW, OTHERS_ROW = "steps, rollouts", "endpoints", "Corefile, logs, nodes"
HELD_UP = {
    "throttled": "CPU withheld",
    "own_drops": "our buffer full",
    "watch_gap": "cluster not seen",
    "worker_died": "worker died",
    "overrun": "counts lost",
    "intercepted": "intercepted",
    "shard_missing": "shard missing",
}
"""Intervals of this prober's own trouble, and its row."""

Row = dict[str, str | float | int | None]


@dataclass(frozen=True, slots=True)
class Scene:
    """Rows by data set, every instant in ms of unix time; the names of each picture's rows, from the top; a title."""

    title: str
    lanes: tuple[str, ...]
    cluster: tuple[str, ...]
    prober: tuple[str, ...]
    outcomes: tuple[str, ...]
    phases: tuple[str, ...]
    data: dict[str, list[Row]]


class _Axis:
    """Nanoseconds of a run -> ms of unix time, to 10 us, never outside of the picture."""

    def __init__(self, timeline: Timeline, starts_ns: int | None) -> None:
        self._start = timeline.run.head.started_unix_ns if starts_ns is None else starts_ns
        self._end_ns = max(timeline.horizon_ns, BUCKET_NS)

    def __call__(self, ns: int) -> float:
        return round((self._start + min(max(ns, 0), self._end_ns)) / 1e6, 2)

    @property
    def length_ns(self) -> int:
        return self._end_ns


def scene_of(verdict: Verdict, starts_ns: int | None = None) -> Scene:
    """Everything that is drawn. Texts of others are plain and short. starts_ns: instead of the run's own t0."""
    timeline = verdict.timeline
    axis = _Axis(timeline, starts_ns)
    lanes, strips = _lanes(timeline, axis)
    cluster, phases = _cluster(timeline, axis)
    prober, held_up = _prober(timeline, axis)
    rates = _rates(timeline, axis)
    there = {str(row["what"]) for row in (*strips["spoilt"], *rates)}
    return Scene(
        title="The whole run (UTC): drag over it to zoom in, or click a disruption below; double-click to see all",
        lanes=lanes,
        cluster=cluster,
        prober=prober,
        outcomes=tuple(what for what in COLOURS if what in there or what == GOOD),
        phases=tuple(phase for phase in PHASES if any(row["what"] == phase for row in phases["pods"])),
        data={
            **strips,
            **phases,
            "rates": rates,
            "latency": list(_latency(verdict, axis)),
            "prober": held_up,
            "steps": [{"a": axis(at_ns)} for at_ns in _steps(timeline)],
            "ends": [{"a": axis(0)}, {"a": axis(axis.length_ns)}],
        },
    )


def channel_text(lane: str, target: str, most: int = LABEL) -> str:
    """`vip-udp → kube-dns`; of a long one the middle is left out."""
    return bounded(f"{short(lane)} → {short(target)}", most)


def _pod_text(name: str) -> str:
    """Its end tells it from others of its Deployment."""
    return bounded(short(name), LABEL)


def _names(texts: Iterable[str]) -> list[str]:
    """The same, each but once: `a`, `a (2)`."""
    found: list[str] = []
    for text in texts:
        same = sum(old == text or old.startswith(f"{text} (") for old in found)
        found.append(f"{text} ({same + 1})" if same else text)
    return found


def _lanes(timeline: Timeline, axis: _Axis) -> tuple[tuple[str, ...], dict[str, list[Row]]]:
    """A strip for each channel; if there are many, those that lost nothing share the last one."""
    strips = strips_of(timeline)
    own = list(range(len(strips)))
    if len(strips) > ROWS:
        worst = sorted(own, key=lambda k: (-strips[k].channel.loss().lost, -strips[k].lost, k))
        own = sorted(worst[: ROWS - 1])
    named = (f"{channel_text(*strips[k].channel.name)}: {_told([strips[k]])}" for k in own)
    names = dict(zip(own, _names(named), strict=True))
    others = [strip for k, strip in enumerate(strips) if k not in names]
    rest = f"{count(len(others))} others: {_told(others)}"
    asked: list[Row] = []
    spoilt: list[Row] = []
    for k, strip in enumerate(strips):
        row = names.get(k, rest)
        asked += [{"row": row, "a": axis(a), "b": axis(b)} for a, b in strip.asked]
        spoilt += [_spoilt(stretch, row, axis) for stretch in strip.spoilt]
    return (*names.values(), *([rest] if others else [])), {"asked": asked, "spoilt": spoilt}


def _told(strips: Sequence[Strip]) -> str:
    losses = [strip.channel.loss() for strip in strips]
    lost, asked = sum(loss.lost for loss in losses), sum(loss.asked for loss in losses)
    return f"{count(lost)} lost" if lost else "none lost" if asked else "none asked"


def _spoilt(stretch: Stretch, row: str, axis: _Axis) -> Row:
    bad = stretch.lost or stretch.unsent + stretch.undecided
    fraction = min(1.0, bad / max(1, stretch.of))
    said = [f"{count(stretch.lost)} lost"] if stretch.lost else []
    said += [f"{count(stretch.unsent)} unsent"] if stretch.unsent else []
    said += [f"{count(stretch.undecided)} undecided"] if stretch.undecided else []
    text = f"{', '.join(said)} of {count(stretch.of)}"
    return {
        "row": row,
        "a": axis(stretch.from_ns),
        "b": axis(stretch.to_ns),
        "what": stretch.what,
        "tall": round(LEAST_TALL + (1 - LEAST_TALL) * fraction, 2) if stretch.counts else LEAST_TALL,
        "seen": round(LEAST_SEEN + (1 - LEAST_SEEN) * math.sqrt(fraction), 2) if stretch.counts else UNCOUNTED,
        "counts": int(stretch.counts),
        "text": text if stretch.counts else f"{text}; the pod had been told to go: does not count",
    }


def _cluster(timeline: Timeline, axis: _Axis) -> tuple[tuple[str, ...], dict[str, list[Row]]]:
    run = timeline.run
    pods = list(_pods(timeline, axis))
    names = list(dict.fromkeys(str(row["row"]) for row in pods))
    rollouts: list[Row] = [
        {"row": STEPS_ROW, "a": axis(a), "b": axis(b), "what": ROLLOUT, "text": "a rollout"}
        for a, b in timeline.steps
        if a < b
    ]
    marks = [(row, mark) for mark in run.marks if (row := _row_of(mark, names))]
    used = {row for row, _ in marks} | {str(row["row"]) for row in rollouts}
    rows = (
        [row for row in (STEPS_ROW,) if row in used]
        + names
        + [row for row in (ENDPOINTS_ROW, OTHERS_ROW) if row in used]
    )
    return tuple(rows), {"pods": rollouts + pods, "marks": list(_marks(marks, axis))}


def _pods(timeline: Timeline, axis: _Axis) -> Iterator[Row]:
    """The lives of pods that came or went; at most PODS of them."""
    run = timeline.run
    ends = {end.life.name: end for end in ends_of(run)}
    lives = {i.subject: (i.from_ns, i.to_ns) for i in run.intervals if i.kind == "life"}
    changed = [pod for pod in dict.fromkeys([*lives, *ends]) if pod in ends or lives[pod][0] > 0]
    changed.sort(key=lambda pod: (lives.get(pod, (0, 0))[0], ends[pod].life.deleted_ns if pod in ends else NEVER))
    for pod in changed[:PODS]:
        for what, from_ns, to_ns in _life(lives.get(pod, (0, NEVER)), ends.get(pod)):
            if from_ns < to_ns:
                lasted = (min(to_ns, axis.length_ns) - from_ns) / NS
                bar: Row = {"row": _pod_text(pod), "a": axis(from_ns), "b": axis(to_ns), "what": what}
                yield bar | {"text": f"{what}: {lasted:.3f} s"}


def _life(counted: tuple[int, int], end: End | None) -> Iterator[tuple[str, int, int]]:
    if end is None:
        yield READY, *counted
        return
    life = end.life
    yield READY, counted[0], life.deleted_ns
    yield ENDING, life.deleted_ns, life.closed_ns
    if life.closed_ns < end.known_ns < NEVER:
        yield HOLE, life.closed_ns, end.known_ns
    elif life.gone_ns < NEVER:
        yield OVER, life.closed_ns, life.gone_ns


def _row_of(mark: Mark, pods: Sequence[str]) -> str:
    """The row that shows a mark, '' for none."""
    if mark.kind == "step" or mark.kind.startswith(("rollout", "replicaset")) or mark.kind in ("aborted", "ended"):
        return STEPS_ROW
    if (pod := _pod_text(mark.subject)) in pods:
        return pod
    if mark.kind.startswith(("endpoints", "proxy_")):
        return ENDPOINTS_ROW
    if mark.kind.startswith(("pod_", "clock_")) or mark.kind in ("sigterm", "not_seen", "waited", "watch_gap"):
        return ""
    return OTHERS_ROW


def _marks(marks: Sequence[tuple[str, Mark]], axis: _Axis) -> Iterator[Row]:
    """Words stand beside a mark of a step, and of the last row, where there is room."""
    free: dict[str, float] = {}
    for row, mark in marks:
        at = axis(mark.at_ns)
        worded = row in (STEPS_ROW, OTHERS_ROW) and at >= free.get(row, 0)
        if worded:
            free[row] = at + LABELS_APART * axis.length_ns / 1e6
        text = mark.text if mark.kind == "step" or not mark.text else f"{mark.kind}: {mark.text}"
        yield {
            "row": row,
            "a": at,
            "what": "log" if row == OTHERS_ROW else mark.kind,
            "text": short(f"{since_start(mark.at_ns)} {text}"),
            "word": short(mark.text if mark.kind == "step" else mark.kind, 22) if worded else "",
        }


def _steps(timeline: Timeline) -> list[int]:
    return sorted({a for a, _ in timeline.steps})[:50]


def _rates(timeline: Timeline, axis: _Axis) -> list[Row]:
    """Bars on top of each other: good ones below, then what was lost."""
    rates = rates_of(timeline)
    begins, ends = rates.edges[:-1] * BUCKET_NS, np.minimum(rates.edges[1:] * BUCKET_NS, axis.length_ns)
    seconds = np.maximum(ends - begins, 1) / NS
    below = np.zeros(len(seconds))
    found: list[Row] = []
    for what in (what for what in COLOURS if what in rates.rows):
        per_second = rates.rows[what] / seconds
        for k in np.flatnonzero(per_second > 0).tolist():
            y0, y1 = below[k], below[k] + per_second[k]
            text = f"{per_second[k]:,.4g} a second"
            bar: Row = {"a": axis(int(begins[k])), "b": axis(int(ends[k])), "what": what, "text": text}
            found.append(bar | {"y0": round(y0, 3), "y1": round(y1, 3)})
        below += per_second
    return found


def judged_channels(verdict: Verdict) -> list[Channel]:
    """Those that objectives are about; all, if they are about none."""
    channels = verdict.timeline.channels
    return [c for c in channels if any(j.objective.covers(c.lane) for j in verdict.objectives)] or list(channels)


def _latency(verdict: Verdict, axis: _Axis) -> Iterator[Row]:
    """In ms; null for what is infinite or was not measured."""
    for one in latencies_of(verdict.timeline, judged_channels(verdict)):
        never = math.isinf(one.p99)
        yield {
            "a": axis(one.from_ns),
            "b": axis(one.to_ns),
            "p50": _ms(one.p50),
            "p99": _ms(one.p99),
            "max": _ms(one.longest),
            "never": int(never),
            "text": f"p50 {_said(one.p50)}, p99 {_said(one.p99)}, longest answered {_said(one.longest)}",
        }


def _ms(ns: float) -> float | None:
    return round(max(ns, 1000) / 1e6, 4) if math.isfinite(ns) else None


def _said(ns: float) -> str:
    return "never" if math.isinf(ns) else "-" if math.isnan(ns) else f"{ns / 1e6:.3g} ms"


def _prober(timeline: Timeline, axis: _Axis) -> tuple[tuple[str, ...], list[Row]]:
    """When this prober was not itself; a row for each kind of trouble that there was."""
    run, found = timeline.run, list[Row]()
    on_time = "queries sent"
    for at_ns, to_ns, unsent in _unsent(timeline):
        text = f"{count(unsent)} due and not sent"
        found.append({"row": on_time, "a": axis(at_ns), "b": axis(to_ns), "what": "unsent", "text": text})
    for interval in run.intervals:
        if row := HELD_UP.get(interval.kind):
            text = short(interval.text)
            found.append(
                {"row": row, "a": axis(interval.from_ns), "b": axis(interval.to_ns), "what": "trouble", "text": text}
            )
    for mark in run.marks:
        if mark.kind == "clock_step":
            at, text = axis(mark.at_ns), short(mark.text)
            found.append({"row": "clock set", "a": at, "b": at, "what": "trouble", "text": text})
    rows = dict.fromkeys(str(row["row"]) for row in found)
    names = (on_time, *(row for row in rows if row != on_time))
    whole: Row = {"a": axis(0), "b": axis(axis.length_ns), "what": "fine", "text": ""}
    fine: list[Row] = [{"row": row, **whole} for row in names]
    return names, fine + found


def _unsent(timeline: Timeline) -> Iterator[tuple[int, int, int]]:
    """Of all lanes together: from, to, rows."""
    rows = timeline.run.counts
    mine = rows.outcome == Outcome.UNSENT
    bucket, place = np.unique(rows.bucket[mine], return_inverse=True)
    if not len(bucket):
        return
    n = np.bincount(place, rows.n[mine])
    width = 1
    while len(np.unique(bucket // width)) > 2_000:
        width *= 10
    cell, start = np.unique(bucket // width, return_index=True)
    for at, many in zip(cell.tolist(), np.add.reduceat(n, start).tolist(), strict=True):
        yield at * width * BUCKET_NS, (at + 1) * width * BUCKET_NS, int(many)
