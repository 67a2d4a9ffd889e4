"""What the pods of a Job left -> one run file, and sentences about what of it is from a log, or not there at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from probe.collect.fromlog import Told, rebuilt, told_in
from probe.collect.pods import Left, Note
from probe.doubts import doubts_of
from probe.errors import EnvironmentProblem, UsageError
from probe.model import Series
from probe.runfile import merge, open_run
from probe.timeline.seen import seen_by

REMEDY = (
    "a run that is to leave something prints `--format jsonl`, stays with `--linger 10m` and a"
    " terminationGracePeriodSeconds of 60 or more; and begin to collect while the Job runs"
)
ASKED_NOTHING = "is left out: it has no series, for its prober ended before it asked anybody"


def put_together(
    found: Sequence[Left], out: Path, command: str, zones: Mapping[str, str], whence: str, note: Note
) -> None:
    """Writes `out`. whence: which cluster this is. EnvironmentProblem if there is nothing of any pod."""
    paths: list[Path] = []
    series: list[Series] = []
    for left in found:
        if left.file:
            try:
                series += _series_of(left.file)
                paths.append(left.file)
            except UsageError as problem:
                note(str(problem))
                left.file, left.why = None, str(problem)
    logs: dict[str, Told] = {}
    for left in found:
        told = None if left.file else told_in(left.log())
        if told and not told.series:
            note(f"{left.log_file}: {ASKED_NOTHING}")
        elif told:
            path = left.folder / f"{left.pod.name}.log.db"
            path.unlink(missing_ok=True)
            try:
                text = rebuilt(told, path, series)
            except UsageError as problem:
                left.why = f"{left.why}; {problem}" if left.why else str(problem)
                continue
            logs[left.pod.name] = told
            note(f"{left.pod}: its run file was gone{f' ({left.why})' if left.why else ''}: {text}")
            paths.append(path)
    missing = _missing(found, logs)
    for text in missing:
        note(text)
    if not paths:
        raise EnvironmentProblem(f"nothing is left of any pod, and there were {len(found)}; {REMEDY}")
    merge(
        *(paths, out, command, doubts_of, seen_by),
        partial=True, replaced=True, zones=zones, missing=missing, facts={"collected from": whence},
    )  # fmt: skip


def _series_of(file: Path) -> Sequence[Series]:
    """UsageError if it is no run file, or has none."""
    series = open_run(file, histograms=False).series
    if not series:
        raise UsageError(f"{file}: {ASKED_NOTHING}")
    return series


def _missing(found: Sequence[Left], logs: Mapping[str, Told]) -> list[str]:
    """A sentence for each pod of which nothing is left; none where it asked nothing and another took its place."""
    there = {left.pod.index for left in found if left.file or left.pod.name in logs}
    sentences = []
    for left in found:
        if left.file or left.pod.name in logs:
            continue
        log = left.log()
        if log and left.pod.index and left.pod.index in there:
            continue
        last = next((line for line in reversed(log) if not line.startswith("{")), "")
        said = f"; the last line of its log: {last}" if last else f"; {left.why}" if left.why else ""
        which = f", index {left.pod.index}" if left.pod.index else ""
        sentences.append(f"of {left.pod}{which} neither a run file nor the lines of one are left{said}; {REMEDY}")
    return sentences
