"""The lines of a run's log -> a run file, coarser than the prober's own: what a pod leaves that took its file along.

Exact: totals by lane, target, type and outcome, as of the last `totals` line; where windows begin and end, and what was
lost in each; marks; what the prober doubted when it ended. Spread evenly: rows inside of windows, good rows in the
rest. Not there: latencies, exact failures.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probe.errors import UsageError
from probe.histogram import BINS
from probe.model import BUCKET_NS, NS, Doubt, Interval, Mark, Series, TargetKind
from probe.outcome import Counter, Outcome, UnsentCause
from probe.recorder import BUCKETS, Columns, Duration, Flush
from probe.report.lines import LINES_VERSION, SERIES_COLUMNS, SERIES_JSON
from probe.runfile import LOG_FACT, Head, RunWriter, series_of_row
from probe.schedule import pacer_of

Line = dict[str, Any]
Channel = tuple[str, str]
Ints = NDArray[np.int64]

AT_ONCE = 1 << 18
"""Rows of a schedule that are in memory together."""
FOUND_ANEW = ("cut", "unfinished", "few_samples", "from_log")
"""Doubts that the run file shows by itself, once it is made."""

_LONGEST_NS = 25 * 3600 * NS
"""A Job's run lasts a day at the most."""
_MOST_LOST = 20_000_000
"""Of a lane and target; each is put in its place."""
_OUTCOMES = {o.label: o for o in Outcome}


@dataclass(slots=True)
class Told:
    """The lines of one prober, by what they are about; the last totals of each lane and target."""

    begin: Line
    series: list[Line] = field(default_factory=list)
    marks: list[Line] = field(default_factory=list)
    windows: dict[Channel, list[Line]] = field(default_factory=dict)
    totals: dict[Channel, Line] = field(default_factory=dict)
    verdict: Line | None = None

    @property
    def run(self) -> str:
        """Its name and start: the same in every line."""
        return str(self.begin["run"])

    @property
    def until_ns(self) -> int:
        """Up to when it is known what became of all rows."""
        return round(max((line["seconds"] for line in self.totals.values()), default=0) * NS)


def told_in(log: Iterable[str]) -> Told | None:
    """What the lines of a log say, also a log with other lines in it; None if no run begins there."""
    told: Told | None = None
    for text in log:
        try:
            line = json.loads(text) if text.startswith("{") else None
        except ValueError:
            continue
        if not isinstance(line, dict) or line.get("schema_version") != LINES_VERSION:
            continue
        kind, channel = line.get("type"), (str(line.get("lane")), str(line.get("target")))
        if kind == "begin":
            told = told or Told(line)
        elif told is None:
            continue
        elif kind == "series":
            told.series.append(line)
        elif kind == "mark":
            told.marks.append(line)
        elif kind == "window":
            told.windows.setdefault(channel, []).append(line)
        elif kind == "totals":
            told.totals[channel] = line
        elif kind == "verdict":
            told.verdict = line
    return told


def rebuilt(told: Told, path: Path, others: Iterable[Series] = ()) -> str:
    """Writes the run file; what it holds, in a sentence. others: series of files of the same load, whose questions are
    not shortened.

    UsageError for lines that no dnsprobe prints: then there is no file.
    """
    try:
        return _written(told, path, others)
    except (LookupError, ArithmeticError, TypeError, ValueError, AttributeError, MemoryError, UsageError) as problem:
        for file in (path, *(Path(f"{path}{end}") for end in ("-wal", "-shm"))):
            file.unlink(missing_ok=True)
        raise UsageError(f"its log has lines that no dnsprobe prints: {problem!r}") from None


def _written(told: Told, path: Path, others: Iterable[Series]) -> str:
    started_ns = _unix_ns(told.begin["started"])
    series = _series(told.series, others)
    if [s.index for s in series] != list(range(len(series))):
        raise ValueError("series that do not count from 0")
    until_ns = told.until_ns
    if not 0 <= until_ns <= _LONGEST_NS:
        raise ValueError(f"{until_ns / NS:.0f} s")
    end = told.verdict
    if end:
        text = "totals, windows and marks are its log's"
    elif until_ns:
        text = f"its log has windows and marks, and totals up to +{until_ns / NS:.0f} s"
    else:
        text = "its log has windows and marks, and no totals"
    text += "; rows inside of windows are spread evenly, and latencies are not known"
    begin = told.begin
    name, command, scenario = _texts(begin, "name", "command", "scenario")
    head = Head(
        name=name,
        started_unix_ns=started_ns,
        planned_ns=round(begin["planned_seconds"] * NS),
        command=command,
        scenario=scenario,
        objectives=tuple(map(str, begin["objectives"])),
        facts={**{str(fact): str(value) for fact, value in begin["facts"].items()}, LOG_FACT: text},
    )
    writer = RunWriter.create(path, head)
    writer.add_series(series)
    for line in told.marks:
        at_ns = round(line["seconds"] * NS)
        writer.mark(mark := Mark(at_ns, *_texts(line, "kind", "text", "source", "subject")))
        if mark.kind == "intercepted":
            writer.interval(Interval(at_ns, head.planned_ns, mark.kind, mark.text, mark.source, mark.subject))
    for line in told.totals.values():
        for from_s, to_s in line["counted"] or ():
            pod = line["target"]
            life = Interval(round(from_s * NS), round(to_s * NS), "life", f"{pod} counts", "log", pod)
            writer.interval(life)
    writer.doubts(_doubts(end) if end else ())
    end_ns = round(end["seconds"] * NS) if end else until_ns
    writer.interval(Interval(0, end_ns, "from_log", text, "log"))
    rows = _Rows.of(told, series, started_ns, until_ns)
    for second in range(rows.seconds):
        writer.flush(rows.flush(second), min((second + 1) * NS, end_ns))
    writer.finish(end_ns, str(end["cut"] or "") if end else f"its log ends after {until_ns / NS:.1f} s")
    return text


def _texts(line: Line, *names: str) -> list[str]:
    """Fields of a line that are texts; TypeError if one is not."""
    found = [line[name] for name in names]
    if not all(isinstance(text, str) for text in found):
        raise TypeError(f"{', '.join(names)} of a line `{line.get('type', '')}`")
    return found


def _unix_ns(text: str) -> int:
    """RFC 3339 with nanoseconds, as lines have it."""
    whole, _, rest = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * NS + int(rest.ljust(9, "0") or 0)


def _doubts(end: Line) -> list[Doubt]:
    """What the prober itself did wrong, which nothing else in its log shows."""
    told = [Doubt(str(d["id"]), str(d["text"]), tuple(d["lanes"]), bool(d["hides_loss"])) for d in end["doubts"]]
    return [doubt for doubt in told if doubt.id not in FOUND_ANEW]


def _series(lines: Sequence[Line], others: Iterable[Series]) -> list[Series]:
    """In the order of their numbers, which is that in which they were told."""
    whole = {(s.channel, s.qtype, s.transport, s.ports): s for s in others}
    found = []
    for line in lines:
        row = [json.dumps(line[name]) if name in SERIES_JSON else line[name] for name in SERIES_COLUMNS]
        mine = series_of_row(row)
        alike = whole.get((mine.channel, mine.qtype, mine.transport, mine.ports), mine)
        found.append(replace(mine, questions=alike.questions, weights=alike.weights))
    return found


@dataclass(slots=True)
class _Rows:
    """Rows by series, 100 ms and outcome: int64[S, B, O, 2], good being 1; sparse in nothing, for a log is short."""

    lost: dict[tuple[int, int], dict[Outcome, int]]
    """Not good, by series and bucket."""
    bad: dict[tuple[int, int], tuple[int, int]]
    """When the first and the last of these were due."""
    good: list[tuple[Ints, dict[Outcome, int]]]
    """Of each series: how many in each bucket, int64[B]; and how many of each outcome in all."""
    waiting: list[int]
    seconds: int

    @classmethod
    def of(cls, told: Told, series: Sequence[Series], started_ns: int, until_ns: int) -> _Rows:
        seconds = -(-until_ns // NS)
        rows = cls({}, {}, [(np.zeros(seconds * BUCKETS, np.int64), {}) for _ in series], [0] * len(series), seconds)
        members: dict[Channel, dict[str, list[Series]]] = {}
        for s in series:
            members.setdefault(s.channel, {}).setdefault(s.qtype, []).append(s)
        for channel, line in told.totals.items():
            types = members.get(channel, {})
            windows = [_span(w, started_ns) for w in told.windows.get(channel, ())]
            rows._channel(types, line, [w for w in windows if w.last_ns < until_ns], started_ns, until_ns)
        return rows

    def _channel(
        self, types: dict[str, list[Series]], line: Line, windows: Sequence[_Span], started_ns: int, until_ns: int
    ) -> None:
        left = {
            (qtype, _OUTCOMES[label]): n
            for qtype, told in line["types"].items()
            for label, n in told["not_good"].items()
            if qtype in types
        }
        if sum(left.values()) > _MOST_LOST or sum(w.lost for w in windows) > _MOST_LOST:
            raise ValueError(f"more than {_MOST_LOST:,} rows of {line['lane']} that were not good")
        unsent = {qtype: left.pop((qtype, Outcome.UNSENT), 0) for qtype in types}
        for w in windows:
            for at_ns in w.instants():
                if key := _likeliest(left, w.outcome):
                    left[key] -= 1
                    self._lose(types[key[0]][0].index, at_ns, key[1], until_ns)
        rest = [(key, n) for key, n in left.items() if n]
        for (qtype, outcome), n in rest:
            for at_ns in _elsewhere(types[qtype][0], line, started_ns, until_ns, n):
                self._lose(types[qtype][0].index, at_ns, outcome, until_ns)
        for qtype, of_type in types.items():
            told = line["types"].get(qtype, {"outcomes": {}, "not_good": {}, "in_flight": 0})
            first = of_type[0]
            for at_ns in np.linspace(first.start_ns, max(first.start_ns, until_ns - 1), unsent[qtype]).tolist():
                bucket = min(int(at_ns) // BUCKET_NS, self.seconds * BUCKETS - 1)
                lost = self.lost.setdefault((first.index, bucket), {})
                lost[Outcome.UNSENT] = lost.get(Outcome.UNSENT, 0) + 1
            good = {
                _OUTCOMES[label]: m
                for label, n in told["outcomes"].items()
                if (m := n - told["not_good"].get(label, 0))
            }
            self.waiting[first.index] = told["in_flight"]
            self.good[first.index] = self._spread(of_type, sum(good.values()), until_ns), good

    def _lose(self, index: int, at_ns: int, outcome: Outcome, until_ns: int) -> None:
        at_ns = min(at_ns, until_ns - 1)
        key = index, at_ns // BUCKET_NS
        lost = self.lost.setdefault(key, {})
        lost[outcome] = lost.get(outcome, 0) + 1
        first, last = self.bad.get(key, (at_ns, at_ns))
        self.bad[key] = min(first, at_ns), max(last, at_ns)

    def _spread(self, series: Sequence[Series], n: int, until_ns: int) -> Ints:
        """So many good rows where rows were due and not lost, int64[B]."""
        weights = np.zeros(self.seconds * BUCKETS)
        for s in series:
            for due in _instants(s, until_ns):
                weights += np.bincount(due // BUCKET_NS, minlength=len(weights))[: len(weights)]
        for (index, bucket), lost in self.lost.items():
            if index == series[0].index:
                weights[bucket] = max(0.0, weights[bucket] - sum(lost.values()))
        return _dealt(weights, n)

    def flush(self, second: int) -> Flush:
        """One second of it."""
        width, first = len(self.good), second * BUCKETS
        counts = np.zeros((width, BUCKETS, len(Outcome), 2), np.int64)
        first_bad, last_bad = (np.full((width, BUCKETS), -1, np.int64) for _ in range(2))
        for index, (of_bucket, outcomes) in enumerate(self.good):
            total = int(of_bucket.sum())
            before, mine = int(of_bucket[:first].sum()), of_bucket[first : first + BUCKETS]
            edges = before + np.concatenate([[0], np.cumsum(mine)])
            ends_at = 0
            for outcome, n in outcomes.items():
                # Rows are numbered through the run; each outcome has an even share of any stretch of them.
                part = np.floor(edges * (ends_at + n) / total) - np.floor(edges * ends_at / total)
                counts[index, :, outcome, 1] = np.diff(part).astype(np.int64)
                ends_at += n
            for k in range(BUCKETS):
                for outcome, n in self.lost.get((index, first + k), {}).items():
                    counts[index, k, outcome, 0] += n
                first_bad[index, k], last_bad[index, k] = self.bad.get((index, first + k), (-1, -1))
        planned = counts.sum(axis=(2, 3))
        if second == self.seconds - 1:
            planned[:, -1] += np.array(self.waiting, np.int64)
        none = np.zeros((width, len(Duration)), np.int64)
        columns = Columns(
            second, True, planned, counts, first_bad, last_bad, np.zeros((width, len(Duration), BINS), np.int64), none
        )
        unsent, counters = (np.zeros((width, len(kind)), np.int64) for kind in (UnsentCause, Counter))
        return Flush([columns], unsent, counters, np.zeros(BINS, np.int64), 0, [])


@dataclass(frozen=True, slots=True)
class _Span:
    """A window of a log."""

    first_ns: int
    last_ns: int
    lost: int
    outcome: Outcome

    def instants(self) -> list[int]:
        """When its lost rows were due, the first and the last exactly."""
        if self.lost <= 1:
            return [self.first_ns] * self.lost
        return [int(at) for at in np.linspace(self.first_ns, self.last_ns, self.lost)]


def _span(line: Line, started_ns: int) -> _Span:
    first, last = (_unix_ns(line[name]) - started_ns for name in ("first_lost", "last_lost"))
    return _Span(first, last, line["lost"], _OUTCOMES[line["class"]])


def _likeliest(left: dict[tuple[str, Outcome], int], outcome: Outcome) -> tuple[str, Outcome] | None:
    """What a lost row of a window of that class was: of its class, if there are any left."""
    some = [key for key, n in left.items() if n]
    return max(some, key=lambda key: (key[1] is outcome, left[key]), default=None)


def _instants(series: Series, until_ns: int) -> Iterator[Ints]:
    """When rows were due, so many at a time; of a closed loop that is not known: evenly."""
    if not series.shape.scheduled:
        yield np.arange(0, until_ns, BUCKET_NS)
        return
    pacer = pacer_of(series)
    while len(due := pacer.take(min(series.stop_ns, until_ns), AT_ONCE)):
        yield due


def _elsewhere(series: Series, line: Line, started_ns: int, until_ns: int, n: int) -> list[int]:
    """When rows were due that are in no window that was told: it was still open, or their pod was to go."""
    end_ns = min(series.stop_ns, until_ns) - 1
    if open_since := line.get("open_since"):
        from_ns = _unix_ns(open_since) - started_ns
    elif series.target.kind is TargetKind.POD and line["counted"]:
        from_ns = min(round(line["counted"][-1][1] * NS), end_ns)
    else:
        from_ns = max(series.start_ns, end_ns - NS)
    return [int(at) for at in np.linspace(min(from_ns, end_ns), end_ns, n)]


def _dealt(weights: NDArray[np.float64], n: int) -> Ints:
    """n rows over the buckets, in proportion, all of them."""
    if not len(weights):
        return np.zeros(0, np.int64)
    if not weights.any():
        weights = np.ones(len(weights))
    upto = np.floor(np.cumsum(weights) * n / weights.sum() + 1e-9).astype(np.int64)
    return np.asarray(np.diff(upto, prepend=0))
