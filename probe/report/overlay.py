"""A Comparison -> one HTML page: what changed, the runs' timelines above each other from their first step, tables."""

from __future__ import annotations

import math
from dataclasses import replace

from probe.report.chart import specification
from probe.report.compare import METHOD, QUANTILES, Comparison
from probe.report.compared import statement, worst_ruling
from probe.report.html import PICTURE, page, table_html, text_html
from probe.report.scene import COLOURS, PHASES, Row, Scene, channel_text, scene_of
from probe.report.tables import Table
from probe.report.units import count, duration, seconds, share, short

_DRAWN = ("overview", "lanes", "cluster")


def compared_html(found: Comparison) -> bytes:
    """HTML 5 in UTF-8, as html_report() writes it. Times in the picture are since a common start."""
    ruling = worst_ruling(found)
    names = " · ".join(f"#{k} {run.path.name}" for k, run in enumerate(found.runs, 1))
    said = "".join(f"<h1>{text_html(text)}</h1>" for text in statement(found))
    top = f'<header class="{ruling.lower()}"><b>{ruling}</b><div>{said}<p>{text_html(short(names))}</p></div></header>'
    tables = [lanes_table(found), settings_table(found), runs_table(found)]
    body = [top, PICTURE, *(part for table in tables if table.rows for part in table_html(table))]
    return page(f"{found.runs[0].head.name}: compared", body, specification(overlay(found), _DRAWN))


def overlay(found: Comparison) -> Scene:
    """All runs on one time axis, in which their first steps coincide: `#1` before the names of the first one's rows."""
    steps = [min((a for a, _ in verdict.timeline.steps), default=0) for verdict in found.verdicts]
    scenes = [
        scene_of(verdict, starts_ns=max(steps) - step) for verdict, step in zip(found.verdicts, steps, strict=True)
    ]
    data: dict[str, list[Row]] = {}
    for k, scene in enumerate(scenes, 1):
        for name, rows in scene.data.items():
            data.setdefault(name, []).extend(
                row | ({"row": _row(k, row["row"])} if "row" in row else {}) for row in rows
            )
    lanes = [(name.partition(" → ")[0], k, name) for k, scene in enumerate(scenes, 1) for name in scene.lanes]
    order = list(dict.fromkeys(lane for lane, _, _ in lanes))
    lanes.sort(key=lambda row: (order.index(row[0]), row[1]))
    return replace(
        scenes[0],
        title="All runs, by time since a common start: drag over it to zoom in, double-click to see all",
        lanes=tuple(_row(k, name) for _, k, name in lanes),
        cluster=tuple(_row(k, name) for k, scene in enumerate(scenes, 1) for name in scene.cluster),
        outcomes=tuple(what for what in COLOURS if any(what in scene.outcomes for scene in scenes)),
        phases=tuple(phase for phase in PHASES if any(phase in scene.phases for scene in scenes)),
        data=data,
    )


def _row(k: int, name: object) -> str:
    return f"#{k} {name}"


def lanes_table(found: Comparison) -> Table:
    """Each lane of each run, and what differs from the first."""
    rows = []
    for lane in found.lanes:
        sides = [(lane.before, ()), *lane.after]
        for k, (side, told) in enumerate(sides, 1):
            part = share(side.lost / side.asked if side.asked else math.nan)
            quantiles = (duration(side.quantile_ns(q)) for q in QUANTILES.values())
            beyond = "; ".join(f"{d.measure}: {d.text}" for d in told if d.exceeds)
            rows.append(
                (
                    channel_text(*lane.key, 80),
                    f"#{k}",
                    f"{count(side.lost)} of {count(side.asked)} ({part})",
                    count(len(side.windows)),
                    seconds(side.longest_ns) if side.longest_ns else "-",
                    *quantiles,
                    beyond or ("within noise" if told else ""),
                )
            )
    heads = ("lane → target", "run", "lost of asked", "disruptions", "longest", "p50", "p99", "differs from #1")
    return Table("Lanes", heads, rows, "<<>>>>><", METHOD)


def settings_table(found: Comparison) -> Table:
    """What was not the same in all runs."""
    rows = [(short(s.name), *(short(value, 1000) or "-" for value in s.values)) for s in found.settings]
    heads = ("setting", *(f"#{k}" for k, _ in enumerate(found.runs, 1)))
    return Table("What was not the same", heads, rows, "<" * len(heads))


def runs_table(found: Comparison) -> Table:
    """Which runs these are."""
    rows = [
        (f"#{k}", v.ruling.value, short(run.path.name), short(run.head.command, 400))
        for k, (v, run) in enumerate(zip(found.verdicts, found.runs, strict=True), 1)
    ]
    return Table("Runs", ("", "verdict", "file", "command"), rows, "<<<<")
