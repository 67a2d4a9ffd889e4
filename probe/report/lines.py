"""A Run, also one that goes on -> JSON objects, one a line: what a log keeps when pod and run file are gone.

Every line stands alone: schema_version 1; type; run: its name and start; shard: I/N; node, pod: where the prober ran,
'' where nobody said; time: RFC 3339 in UTC; seconds: the same since the start. By type:

    begin    the run: name, command, scenario, objectives[], started, planned_seconds, dnsprobe, facts{}
    series   what one lane asks one target for one type, as the run file's table of that name has it; of its questions
             the first QUESTIONS_TOLD
    mark     something happened: kind, text, source, subject
    window   a disruption that is over, or that the run's end cut off: lane, target, class (an outcome); first_lost,
             last_lost: when these rows were due; first_good: when the next one was, null if still_open; lasted_seconds,
             resolution_seconds; planned, lost, lost_at_least: rows due meanwhile; inferred: a refusal that only others
             heard; others[]: lane, targets, fine; marks[]: the nearest ones: kind, text, subject, after_seconds: how
             long after the first loss, negative before it
    totals   of a lane and target, every row: planned = good + lost + unsent + in_flight; types{}: by type planned,
             in_flight, outcomes{}, not_good{}: how many of each outcome were not expected (unsent rows among them);
             counted[]: [from, to] seconds since the start in which a pod counts, from Ready to deletion, null for
             others; counted_lost: those of the rows that count; final: false for the state in the middle of a run,
             which has neither, but open_since: when a window began that is not over yet
    verdict  the last line: verdict; text: the report's first line; objectives[], doubts[] as in the JSON report; cut:
             why the run ended early, null if it did not; planned, good, lost
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from probe.model import NS, WHOLE, Mark, Series
from probe.outcome import Outcome
from probe.report.findings import Json
from probe.report.json import objective_json, outcome_counts
from probe.report.text import headline
from probe.report.units import moment, rfc3339
from probe.runfile import NODE_FACT, POD_FACT, Run, series_row
from probe.timeline import Channel, Timeline, Window, common
from probe.timeline.growing import Growing
from probe.verdict import spared, verdict_of

LINES_VERSION = 1
QUESTIONS_TOLD = 10
MARKS_NEAR = 3
"""So many marks go with a window: the nearest to its beginning."""
SERIES_COLUMNS = (
    *("series", "lane", "target", "target_kind", "address", "port", "side", "transport", "ports", "qtype"),
    *("questions", "question_count", "weights", "rate", "shape", "pair", "gso", "share"),
    *("offset_ns", "start_ns", "stop_ns", "timeout_ns"),
)
"""The table `series`; what is JSON there is so here."""
SERIES_JSON = ("questions", "weights", "shape")

Ints = NDArray[np.int64]
Line = dict[str, Json]


def lines_report(run: Run) -> str:
    """All lines of a run; the last one has no newline."""
    return "\n".join(Teller().rest(run))


class Teller:
    """Tells each thing once: some while the run goes, the rest when it is over."""

    def __init__(self) -> None:
        self._begun = False
        self._series = 0
        self._marks: set[Mark] = set()
        self._windows = Growing()

    @property
    def open_ns(self) -> int | None:
        """When the first window began that is not over, as far as the last look saw; None if all are."""
        return self._windows.open_ns

    def so_far(self, run: Run) -> Iterator[str]:
        """What is certain now, and has not been told. Of `run`, rows may be missing as Losses leaves them out."""
        yield from self._beginning(run)
        timeline = Timeline.of(run)
        yield from self._happened(timeline, self._windows.look(timeline))

    def totals(self, run: Run, rows: Ints, in_flight: Ints) -> Iterator[str]:
        """The state in the middle. rows: int64[S, outcomes, 2], good being 1; in_flight: int64[S]; S may be fewer than
        the series there are.
        """
        series = run.series[: len(rows)]
        for channel in dict.fromkeys(s.channel for s in series):
            mine = [s for s in series if s.channel == channel]
            window = self._windows.open.get(channel)
            since = None if window is None else rfc3339(run.head.started_unix_ns + window.from_ns)
            yield _text(
                run, "totals", run.end_ns, {**_totals(mine, rows, in_flight), "open_since": since, "final": False}
            )

    def left(self, run: Run) -> Iterator[str]:
        """Marks and windows that have not been told. The run is over."""
        yield from self._beginning(run)
        timeline = Timeline.of(run)
        yield from self._happened(timeline, self._windows.rest(timeline))

    def rest(self, run: Run) -> Iterator[str]:
        """Everything that has not been told, totals and the verdict. The run is whole."""
        yield from self._beginning(run)
        verdict = verdict_of(run)
        timeline = verdict.timeline
        yield from self._happened(timeline, self._windows.rest(timeline))
        rows, in_flight = outcome_counts(run)
        lost = 0
        for channel in timeline.channels:
            told = _totals(channel.series, rows, in_flight)
            loss = channel.loss()
            lost += loss.lost
            counted = [[a / NS, b / NS] for a, b in channel.counted] if channel.mortal else None
            yield _text(
                run, "totals", run.end_ns, {**told, "counted": counted, "counted_lost": loss.lost, "final": True}
            )
        end: Line = {
            "verdict": verdict.ruling.value,
            "text": headline(verdict),
            "objectives": [objective_json(judged) for judged in verdict.objectives],
            "doubts": [
                {"id": d.id, "text": d.text, "lanes": list(d.lanes), "hides_loss": d.hides_loss} for d in verdict.doubts
            ],
            "cut": run.cut or None,
            "planned": int(rows.sum() + in_flight.sum()),
            "good": int(rows[..., 1].sum()),
            "lost": int(rows[..., 0].sum() - rows[:, Outcome.UNSENT, 0].sum()),
            "counted_lost": lost,
        }
        yield _text(run, "verdict", run.end_ns, end)

    def _beginning(self, run: Run) -> Iterator[str]:
        if not self._begun:
            self._begun = True
            head = run.head
            begin: Line = {
                "name": head.name, "command": head.command, "scenario": head.scenario,
                "objectives": list(head.objectives), "started": rfc3339(head.started_unix_ns),
                "planned_seconds": head.planned_ns / NS, "dnsprobe": run.version, "facts": dict(head.facts),
            }  # fmt: skip
            yield _text(run, "begin", 0, begin)
        for s in run.series[self._series :]:
            yield _text(run, "series", s.start_ns, _series(s))
        self._series = len(run.series)

    def _happened(self, timeline: Timeline, windows: list[Window]) -> Iterator[str]:
        """Marks and windows that are new, in the order in which they became known."""
        run, channels = timeline.run, {channel.name: channel for channel in timeline.channels}
        new = [mark for mark in run.marks if mark not in self._marks]
        self._marks = set(run.marks)
        told = [(mark.at_ns, _text(run, "mark", mark.at_ns, _mark(mark))) for mark in new]
        told += [(w.to_ns, _text(run, "window", w.to_ns, _window(run, w, channels[w.lane, w.target]))) for w in windows]
        yield from (text for _, text in sorted(told, key=lambda pair: pair[0]))


def _text(run: Run, kind: str, at_ns: int, more: Line) -> str:
    head = run.head
    line: Line = {
        "schema_version": LINES_VERSION,
        "type": kind,
        "run": f"{head.name}@{moment(head.started_unix_ns)}",
        "shard": str(run.series[0].share if run.series else WHOLE),
        "node": head.facts.get(NODE_FACT, ""),
        "pod": head.facts.get(POD_FACT, ""),
        "time": moment(head.started_unix_ns + at_ns),
        "seconds": at_ns / NS,
    }
    return json.dumps({**line, **more}, allow_nan=False)


def _series(s: Series) -> Line:
    row: Line = dict(zip(SERIES_COLUMNS, series_row(s), strict=True))  # type: ignore[arg-type]
    told = row | {name: json.loads(str(row[name])) for name in SERIES_JSON}
    questions = told["questions"]
    weights = told["weights"]
    assert isinstance(questions, list)  # noqa: S101
    assert isinstance(weights, list)  # noqa: S101
    return told | {"questions": questions[:QUESTIONS_TOLD], "weights": weights[:QUESTIONS_TOLD]}


def _mark(mark: Mark) -> Line:
    return {"kind": mark.kind, "text": mark.text, "source": mark.source, "subject": mark.subject}


def _window(run: Run, w: Window, channel: Channel) -> Line:
    started, last_ns = run.head.started_unix_ns, w.to_ns - w.resolution_ns
    may_be = spared(channel, common(channel.counted, ((w.from_ns, w.to_ns),)))
    near = sorted(run.marks, key=lambda mark: abs(mark.at_ns - w.from_ns))[:MARKS_NEAR]
    near.sort(key=lambda mark: mark.at_ns)
    return {
        "lane": w.lane,
        "target": w.target,
        "class": w.outcome.label,
        "first_lost": rfc3339(started + w.from_ns),
        "last_lost": rfc3339(started + last_ns),
        "first_good": None if w.still_open else rfc3339(started + w.to_ns),
        "lasted_seconds": (w.to_ns - w.from_ns) / NS,
        "resolution_seconds": w.resolution_ns / NS,
        "planned": w.planned,
        "lost": w.lost,
        "lost_at_least": w.lost - may_be,
        "inferred": w.inferred,
        "still_open": w.still_open,
        "others": [{"lane": o.lane, "targets": o.asked, "fine": o.fine} for o in w.others],
        "marks": [
            {"kind": m.kind, "text": m.text, "subject": m.subject, "after_seconds": (m.at_ns - w.from_ns) / NS}
            for m in near
        ],
    }


def _totals(series: tuple[Series, ...] | list[Series], rows: Ints, in_flight: Ints) -> Line:
    """Of one channel; series of the same type are one."""
    types: dict[str, Json] = {}
    for qtype in dict.fromkeys(s.qtype for s in series):
        mine = [s.index for s in series if s.qtype == qtype]
        table, waiting = rows[mine].sum(axis=0), int(in_flight[mine].sum())
        types[qtype] = {
            "planned": int(table.sum()) + waiting,
            "in_flight": waiting,
            "outcomes": {o.label: int(n) for o in Outcome if (n := table[o].sum())},
            "not_good": {o.label: int(n) for o in Outcome if (n := table[o, 0])},
        }
    mine = [s.index for s in series]
    table, waiting = rows[mine].sum(axis=0), int(in_flight[mine].sum())
    unsent = int(table[Outcome.UNSENT, 0])
    return {
        "lane": series[0].lane,
        "target": series[0].target.name,
        "planned": int(table.sum()) + waiting,
        "good": int(table[:, 1].sum()),
        "lost": int(table[:, 0].sum()) - unsent,
        "unsent": unsent,
        "in_flight": waiting,
        "types": types,
        "counted": None,
        "counted_lost": None,
    }
