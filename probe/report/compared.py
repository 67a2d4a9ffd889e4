"""A Comparison -> what changed, and whether that exceeds noise, as a page of text and as JSON.

JSON:
    schema_version  1
    statement[]     what changed, a sentence for each run after the first
    runs[]          file, name, command, started, verdict, lost, asked: of lanes that objectives are about
    lanes[]         lane, target (`pods` for all of them), judged; sides[]: of each run lost, asked, disruptions,
                    longest_seconds, p50_seconds, p99_seconds (from due, null if it is a lost row or there is none);
                    differences[]: of each run after the first: measure, text, exceeds_noise, by_chance (null if the
                    method has no such number)
    settings[]      name, values[]: what was not the same in all runs
    method          how noise is told
"""

from __future__ import annotations

import json
import math

from probe.model import NS
from probe.report.columns import Row, table, wrapped
from probe.report.compare import METHOD, QUANTILES, Comparison, Lane, Side
from probe.report.findings import Json
from probe.report.units import count, duration, plain, rfc3339, seconds, share
from probe.verdict import Ruling

SCHEMA_VERSION = 1


def statement(found: Comparison) -> list[str]:
    """For each run after the first: what it lost instead, and where that is more than chance."""
    lanes = [lane for lane in found.lanes if lane.judged] or list(found.lanes)
    said = []
    for k, verdict in enumerate(found.verdicts[1:], 1):
        before, after = (sum(_sides(lane)[i].lost for lane in lanes) for i in (0, k))
        asked = sum(_sides(lane)[k].asked for lane in lanes)
        was = found.verdicts[0].ruling
        ruling = f"{was} as before" if verdict.ruling is was else f"{verdict.ruling} instead of {was}"
        lost = f"lost {count(after)} of {count(asked)} instead of {count(before)}"
        lost = "lost nothing, as before" if not before and not after else lost
        said.append(f"#{k + 1}: {ruling}: {lost}; {_beyond(lanes, k)}")
    return said


def _beyond(lanes: list[Lane], k: int) -> str:
    fewer, more, other = list[str](), list[str](), list[str]()
    for lane in lanes:
        after, differences = lane.after[k - 1]
        for d in differences:
            if d.exceeds and d.measure == "loss":
                less = after.lost * lane.before.asked < lane.before.lost * after.asked
                (fewer if less else more).append(_name(lane))
            elif d.exceeds and d.measure in QUANTILES:
                other.append(f"{d.measure} on {_name(lane)} ({d.text})")
    said = [f"fewer lost on {', '.join(fewer)}"] * bool(fewer) + [f"more lost on {', '.join(more)}"] * bool(more)
    said += [f"another {', '.join(other)}"] * bool(other)
    return f"beyond noise: {'; '.join(said)}" if said else "no difference exceeds noise"


def _name(lane: Lane) -> str:
    return plain(" -> ".join(lane.key))


def _sides(lane: Lane) -> list[Side]:
    return [lane.before, *(side for side, _ in lane.after)]


def compared_text(found: Comparison) -> str:
    """About 110 columns of printable characters, ends with a newline."""
    told = [line for text in statement(found) for line in wrapped(text, 0, 4)]
    runs: list[Row] = [
        (f"#{k}", v.ruling.value, plain(run.path.name), plain(run.head.command))
        for k, (v, run) in enumerate(zip(found.verdicts, found.runs, strict=True), 1)
    ]
    parts = [
        told,
        ["RUNS", *table(runs, "<<<<")],
        ["WHAT WAS NOT THE SAME", *_settings_text(found)],
        ["LANES", *_lanes_text(found), *wrapped(METHOD, 2)],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _settings_text(found: Comparison) -> list[str]:
    lines: list[str] = []
    for setting in found.settings:
        values = (f"#{k} {plain(value) or '-'}" for k, value in enumerate(setting.values, 1))
        lines += wrapped(f"{plain(setting.name)}: {', '.join(values)}", 2, 6)
    return lines or ["  nothing that the runs tell"]


def _lanes_text(found: Comparison) -> list[str]:
    rows: list[Row] = [("", "lost of asked", "", "longest", "p50", "p99", "beyond noise")]
    for lane in found.lanes:
        differences = [(), *(d for _, d in lane.after)]
        for k, (side, told) in enumerate(zip(_sides(lane), differences, strict=True), 1):
            beyond = ", ".join(d.measure for d in told if d.exceeds) or ("-" if k > 1 else "")
            quantiles = (duration(side.quantile_ns(q)) for q in QUANTILES.values())
            lost = f"{count(side.lost)} of {count(side.asked)}"
            part = share(side.lost / side.asked if side.asked else math.nan)
            length = seconds(side.longest_ns) if side.longest_ns else "-"
            rows.append((f"#{k}", lost, part, length, *quantiles, beyond))
    head, *lines = table(rows, "<>>>>><")
    n = len(found.verdicts)
    return [
        head,
        *(line for i, lane in enumerate(found.lanes) for line in (f"  {_name(lane)}", *lines[i * n : i * n + n])),
    ]


def compared_json(found: Comparison) -> str:
    """One object, two spaces of indentation, ASCII, ends with a newline."""
    judged = [lane for lane in found.lanes if lane.judged] or list(found.lanes)
    runs: list[Json] = [
        {
            "file": str(run.path),
            "name": run.head.name,
            "command": run.head.command,
            "started": rfc3339(run.head.started_unix_ns),
            "verdict": verdict.ruling.value,
            "lost": sum(_sides(lane)[k].lost for lane in judged),
            "asked": sum(_sides(lane)[k].asked for lane in judged),
        }
        for k, (verdict, run) in enumerate(zip(found.verdicts, found.runs, strict=True))
    ]
    report: Json = {
        "schema_version": SCHEMA_VERSION,
        "statement": statement(found),
        "runs": runs,
        "lanes": [_lane_json(lane) for lane in found.lanes],
        "settings": [{"name": s.name, "values": list(s.values)} for s in found.settings],
        "method": METHOD,
    }
    return json.dumps(report, indent=2, allow_nan=False) + "\n"


def _lane_json(lane: Lane) -> Json:
    differences: list[Json] = [
        [
            {
                "measure": d.measure,
                "text": d.text,
                "exceeds_noise": d.exceeds,
                "by_chance": None if math.isnan(d.by_chance) else d.by_chance,
            }
            for d in told
        ]
        for _, told in lane.after
    ]
    return {
        "lane": lane.key[0],
        "target": lane.key[1],
        "judged": lane.judged,
        "sides": [_side_json(side) for side in _sides(lane)],
        "differences": differences,
    }


def _side_json(side: Side) -> Json:
    quantiles = {f"{name}_seconds": side.quantile_ns(q) / NS for name, q in QUANTILES.items()}
    return {
        "lost": side.lost,
        "asked": side.asked,
        "disruptions": len(side.windows),
        "longest_seconds": side.longest_ns / NS,
        **{name: value if math.isfinite(value) else None for name, value in quantiles.items()},
    }


def worst_ruling(found: Comparison) -> Ruling:
    """Of the runs after the first: what the command exits with."""
    return Ruling.worst({verdict.ruling for verdict in found.verdicts[1:]})
