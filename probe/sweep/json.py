"""A sweep's Table -> one JSON object, for programs: stable names and order, RFC 3339 in UTC, durations in seconds.

    schema_version  1; it changes when a name goes or changes its meaning, not when one is added
    name, command, file, started, dnsprobe (its version)
    vary[], under[] names of the axes
    repeats; runs, made, failed: how many there are to be, were made, and could not be
    lanes[]         those that the table is about, which ask no pods: name, transport, ports
    blocks[]        one for each combination of circumstances: under{}: value by axis; rows[]; choices[]
    .rows[]         one for each choice: cell; vary{}: value by axis; settings[]: PATH=VALUE; repeats: how many were
                    measured; lanes{}: by name: lost{} (attempts a run), longest_seconds{}, healthy_seconds{} (from the
                    first step to the first loss), each mean, least, most of the repeats; rollout_seconds{}: likewise,
                    of those whose rollout was over; margin_seconds{}: the least of all, by kind of source ports: fresh,
                    reused; lossless; doubts[]: why it is no evidence
    .rows[].runs[]  repeat, state (waiting, crowded: to be made again, alone; done; failed), why, verdict, beside (how
                    many ran with it), started, wall_seconds, rollout_seconds, margin_seconds{}, ended_by (what ended
                    the Service for good, '' if it went on); lanes[]: what each lost on each target: lane, target,
                    planned, good, lost, lost_at_least, unsent, longest_seconds, class, healthy_seconds
    .choices[]      the first is about all lanes; others, if they differ, about one policy of ports: ports ('' for all);
                    lanes[]; cell: the cheapest without loss, null if none was; settings{}: its values by axis;
                    rollout_seconds, margin_seconds{}; next_cheaper: cell, lost (a run), null if there is none;
                    lost_least: the same of the one that lost least, where none was without loss; text: the sentence

What is not known is null.
"""

from __future__ import annotations

import json
import math

from probe.report.findings import Json
from probe.report.units import rfc3339
from probe.sweep.reader import CellRun
from probe.sweep.table import Block, Choice, Lane, Row, Spread, Table
from probe.sweep.text import sentences

SCHEMA_VERSION = 1


def sweep_json(told: Table) -> str:
    """One object, two spaces of indentation, ASCII, ends with a newline."""
    sweep = told.sweep
    states = [run.state for run in sweep.runs]
    report: dict[str, Json] = {
        "schema_version": SCHEMA_VERSION,
        "name": sweep.name,
        "command": sweep.command,
        "file": str(sweep.path),
        "started": rfc3339(sweep.started_unix_ns),
        "dnsprobe": sweep.version,
        "vary": list(sweep.vary),
        "under": list(sweep.under),
        "repeats": sweep.repeats,
        "runs": len(states),
        "made": states.count("done"),
        "failed": states.count("failed"),
        "lanes": [{"name": lane.name, "transport": lane.transport, "ports": lane.ports} for lane in told.lanes],
        "blocks": [_block(told, block) for block in told.blocks],
    }
    return json.dumps(report, indent=2, allow_nan=False) + "\n"


def _block(told: Table, block: Block) -> Json:
    texts = sentences(told, block)
    return {
        "under": dict(zip(told.sweep.under, block.under, strict=True)),
        "rows": [_row(told, row) for row in block.rows],
        "choices": [_choice(told, choice, text) for choice, text in zip(block.choices, texts, strict=True)],
    }


def _row(told: Table, row: Row) -> Json:
    return {
        "cell": row.cell.number,
        "vary": _values(told, row),
        "settings": list(row.cell.settings),
        "repeats": row.measured,
        "lanes": {lane.name: _lane(row, lane) for lane in told.lanes},
        "rollout_seconds": _spread(row.rollout),
        "margin_seconds": row.margins,
        "lossless": row.lossless(told.lanes),
        "doubts": list(row.doubts),
        "runs": [_run(run) for run in row.cell.runs],
    }


def _values(told: Table, row: Row) -> dict[str, str]:
    return dict(zip(told.sweep.vary, row.cell.vary, strict=True))


def _lane(row: Row, lane: Lane) -> Json:
    spreads = {"lost": row.lost, "longest_seconds": row.longest, "healthy_seconds": row.healthy}
    return {what: _spread(of[lane.name]) for what, of in spreads.items()}


def _spread(values: Spread) -> Json:
    return {"mean": _known(values.mean), "least": _known(values.least), "most": _known(values.most)}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _run(run: CellRun) -> Json:
    measured = run.measured
    return {
        "repeat": run.repeat,
        "state": run.state,
        "why": run.why,
        "verdict": measured.verdict if measured else None,
        "beside": run.beside,
        "started": rfc3339(run.started_unix_ns) if run.started_unix_ns else None,
        "wall_seconds": run.wall_s,
        "rollout_seconds": measured.rollout if measured else None,
        "margin_seconds": measured.margins if measured else {},
        "ended_by": measured.ended_by if measured else "",
        "lanes": [
            {
                "lane": result.lane,
                "target": result.target,
                "planned": result.planned,
                "good": result.good,
                "lost": result.lost,
                "lost_at_least": result.lost_at_least,
                "unsent": result.unsent,
                "longest_seconds": result.longest,
                "class": result.outcome,
                "healthy_seconds": result.healthy,
            }
            for result in (measured.results if measured else ())
        ],
    }


def _choice(told: Table, choice: Choice, text: str) -> Json:
    row = choice.row
    return {
        "ports": choice.ports,
        "lanes": [lane.name for lane in choice.lanes],
        "cell": row.cell.number if row else None,
        "settings": _values(told, row) if row else {},
        "rollout_seconds": _known(row.rollout.mean) if row else None,
        "margin_seconds": choice.margins,
        "next_cheaper": _other(choice.cheaper, choice),
        "lost_least": _other(choice.least, choice),
        "text": text,
    }


def _other(row: Row | None, choice: Choice) -> Json:
    return {"cell": row.cell.number, "lost": row.lost_on(choice.lanes)} if row else None
