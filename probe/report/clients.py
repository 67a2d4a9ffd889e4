"""A Timeline -> what its clients felt, and what each profile would have felt in each window: lines, and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from probe.felt import Felt, observed, predicted
from probe.model import NS, Fate, Lookup
from probe.report.columns import Row, table, wrapped
from probe.report.findings import Json
from probe.report.units import count, plain, seconds, share, since_start
from probe.runfile import Run
from probe.timeline import Timeline, Window
from probe.verdict import verdict_of

WINDOWS_TOLD = 10
"""Of more windows than this, the longest; each costs seconds of drawing."""
ERRORS_TOLD = 3


def clients_text(timeline: Timeline) -> list[str]:
    """Nothing of a run that had no clients."""
    if not timeline.run.lookups:
        return []
    rows: list[Row] = [("client", "lookups", "failed", "no such name", "> 1 s", "longest")]
    for client, mine in _by_client(timeline):
        fates = Counter(one.fate for one in mine)
        slow = sum(one.slowed for one in mine)
        numbers = (len(mine), fates[Fate.FAILED], fates[Fate.NOT_FOUND], slow)
        rows.append((plain(client), *map(count, numbers), seconds(max(one.took_ns for one in mine))))
    lines = table(rows, "<>>>>>")
    for client, mine in _by_client(timeline):
        errors = Counter(one.error for one in mine if one.error)
        told = "; ".join(f"{plain(error)} ({count(n)})" for error, n in errors.most_common(ERRORS_TOLD))
        lines += wrapped(f"{plain(client)} printed: {told}", 2, 6) if told else []
    for window, said in _foreseen(timeline.run):
        lines += _felt_text(timeline.run, window, said)
    return lines


def clients_json(timeline: Timeline) -> dict[str, Json]:
    """`lookups` by client, and `felt` in each window; nothing of a run that had no clients."""
    if not timeline.run.lookups:
        return {}
    return {
        "lookups": [
            {
                "client": client,
                **{fate.value: sum(one.fate is fate for one in mine) for fate in Fate},
                "slowed": sum(one.slowed for one in mine),
                "longest_seconds": max(one.took_ns for one in mine) / NS,
                "errors": dict(Counter(one.error for one in mine if one.error).most_common(ERRORS_TOLD)),
            }
            for client, mine in _by_client(timeline)
        ],
        "felt": [
            {
                "lane": window.lane,
                "target": window.target,
                "from_seconds": window.from_ns / NS,
                "predicted": [_felt_json(felt) for felt in said],
                "observed": [_felt_json(felt) for felt in observed(timeline.run.lookups, window)],
            }
            for window, said in _foreseen(timeline.run)
        ],
    }


def _by_client(timeline: Timeline) -> Iterator[tuple[str, list[Lookup]]]:
    lookups = timeline.run.lookups
    for client in dict.fromkeys(one.client for one in lookups):
        yield client, [one for one in lookups if one.client == client]


@lru_cache(maxsize=2)
def _foreseen(run: Run) -> tuple[tuple[Window, list[Felt]], ...]:
    """The windows that are told of, and what was felt by their counts. Drawn once for each Run and all its reports.

    Windows of Services and their like, whom clients ask, by lanes that say what a new flow meets.
    """
    timeline = verdict_of(run).timeline
    whom = {c.name for c in timeline.channels if not c.mortal and c.transport == "udp" and c.ports.policy == "fresh"}
    mine = [w for w in timeline.windows if (w.lane, w.target) in whom]
    longest = sorted(mine, key=lambda w: w.from_ns - w.to_ns)[:WINDOWS_TOLD]
    return tuple((w, predicted(timeline, w)) for w in mine if w in longest)


def _felt_text(run: Run, window: Window, said: list[Felt]) -> list[str]:
    real = {felt.client: felt for felt in observed(run.lookups, window)}
    head = (
        "by its counts",
        "fail",
        "take over 1 s",
        "on average",
        "looked up",
        "failed",
        "took > 1 s",
        "on average",
    )
    rows: list[Row] = [head]
    for felt in said:
        mine = real.get(felt.client)
        told = (count(mine.lookups), *_shares(mine)) if mine else ("", "", "", "")
        rows.append((felt.client, *_shares(felt), *told))
    title = f"  in the window at {since_start(window.from_ns)} of {plain(f'{window.lane} -> {window.target}')}:"
    return [title, *(f"  {line}" for line in table(rows, "<>>>>>>>"))]


def _shares(felt: Felt) -> tuple[str, str, str]:
    mean = seconds(round(felt.mean_ns)) if felt.slowed else ""
    return share(felt.failed), share(felt.slowed), mean


def _felt_json(felt: Felt) -> dict[str, Json]:
    return {
        "client": felt.client,
        "lookups": felt.lookups,
        "failed": felt.failed,
        "slowed": felt.slowed,
        "mean_slowed_seconds": felt.mean_ns / NS,
        "longest_seconds": felt.worst_ns / NS,
    }
