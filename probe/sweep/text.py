"""A sweep's Table -> a page of plain text: what each setting lost, and under it the cheapest one that lost nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from probe.report.columns import Row as Cells
from probe.report.columns import table, wrapped
from probe.report.units import count, date, plain
from probe.sweep.rollout import FRESH, REUSED
from probe.sweep.table import ALIKE_S, Block, Choice, Row, Spread, Table

CHEAPEST, DOUBTED = "*", "!"
"""Signs of a row: what to choose; what is no evidence, though it may have lost nothing."""
DOUBTS_SHOWN = 10
"""Of one block; JSON has them all."""
PORTS = {"fresh": "fresh ports", "pool": "a pool of ports", "fixed": "fixed ports", "reused": "reused connections"}
MARGINS = {FRESH: "fresh ports", REUSED: "ports used again"}


def sweep_text(told: Table) -> str:
    """About 110 columns, more if there are many lanes; ends with a newline."""
    parts = [_head(told), *(_block(told, block) for block in told.blocks), _legend(told)]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _head(told: Table) -> list[str]:
    sweep = told.sweep
    states = [run.state for run in sweep.runs]
    made = states.count("done")
    missing = f"{count(made)} of them made" if made < len(states) else "all made"
    failed = f", {count(states.count('failed'))} could not run" if "failed" in states else ""
    cells = f"{count(len(sweep.cells))} cells x {sweep.repeats}"
    text = f"{sweep.name}: {cells} = {count(len(states))} runs, {missing}{failed}"
    return [plain(line) for line in (text, f"from {date(sweep.started_unix_ns)}", sweep.command) if line]


def _block(told: Table, block: Block) -> list[str]:
    named = ", ".join(f"{axis} {value}" for axis, value in zip(told.sweep.under, block.under, strict=True))
    lines = [plain(f"UNDER {named}")] if named else ["ALL"]
    chosen = block.choices[0].row
    rows = [*_headings(told), *(_cells(told, row, row is chosen) for row in block.rows)]
    lines += table(rows, "<>" + "<" * len(told.sweep.vary) + ">" * len(told.lanes) + ">")
    doubts = [f"cell {row.cell.number}, {doubt}" for row in block.rows for doubt in row.doubts]
    for doubt in doubts[:DOUBTS_SHOWN]:
        lines += wrapped(plain(f"{DOUBTED} {doubt}"), 2, 4)
    if len(doubts) > DOUBTS_SHOWN:
        lines.append(f"  {DOUBTED} and {count(len(doubts) - DOUBTS_SHOWN)} more: the JSON report has them all")
    if any(row.ended_by for row in block.rows):
        lines += ["", "  from the first step to the first loss, and what ended the Service", *_outages(told, block), ""]
    for sentence in sentences(told, block):
        lines += wrapped(plain(sentence), 2, 4)
    return lines


def _headings(told: Table) -> list[Cells]:
    lanes = [plain(lane.name) for lane in told.lanes]
    beside = ["" for _ in told.sweep.vary]
    return [
        ["", "", *beside, *lanes, ""],
        ["", "cell", *map(plain, told.sweep.vary), *("lost, longest" for _ in lanes), "rollout"],
    ]


def _cells(told: Table, row: Row, chosen: bool) -> Cells:
    losses = [_loss(row.lost[lane.name], row.longest[lane.name]) for lane in told.lanes]
    sign = CHEAPEST if chosen else DOUBTED if row.doubts else ""
    return [sign, str(row.cell.number), *map(plain, row.cell.vary), *losses, _seconds(row.rollout.mean)]


def _outages(told: Table, block: Block) -> list[str]:
    """How long each lane was served, and why no longer."""
    beside = ["" for _ in told.sweep.vary[1:]]
    rows: list[Cells] = [["cell", told.sweep.vary[0], *beside, *(lane.name for lane in told.lanes), "ended by"]]
    for row in block.rows:
        healthy = [_range(row.healthy[lane.name]) for lane in told.lanes]
        rows.append([str(row.cell.number), *row.cell.vary, *healthy, ", ".join(row.ended_by)])
    return table(
        [list(map(plain, row)) for row in rows], ">" + "<" * len(told.sweep.vary) + ">" * len(told.lanes) + "<"
    )


def _range(values: Spread) -> str:
    """`5.02 s`, `5.02-5.31 s`, `-`."""
    if math.isnan(values.mean) or values.least == values.most:
        return _seconds(values.mean)
    return f"{values.least:.2f}-{values.most:.2f} s"


def _loss(lost: Spread, longest: Spread) -> str:
    return f"{_spread(lost)}, {_seconds(longest.most)}" if lost.most > 0 else _spread(lost)


def _spread(values: Spread) -> str:
    """`66.3 (63-70)`, `0`, `-`."""
    if math.isnan(values.mean):
        return "-"
    if values.least == values.most:
        return count(int(values.most))
    return f"{values.mean:,.1f} ({values.least:,.0f}-{values.most:,.0f})"


def _seconds(s: float) -> str:
    return "-" if math.isnan(s) else f"{s:.2f} s" if s else "0 s"


def sentences(told: Table, block: Block) -> list[str]:
    """What to choose here, or why nothing can be; a sentence for all lanes, and one for each policy if they differ."""
    ended = [row for row in block.rows if row.ended_by]
    if ended and len(ended) == len([row for row in block.rows if row.measured]):
        longest = max(ended, key=_served)
        served = f"{_setting(told, longest)} ({_served(longest):.1f} s until the first loss)"
        return [f"every setting ends in an outage; the one that served longest is {served}"]
    return [_sentence(told, choice) for choice in block.choices]


def _served(row: Row) -> float:
    """Seconds until the first loss on any lane, the mean."""
    return min((s.mean for s in row.healthy.values() if not math.isnan(s.mean)), default=0.0)


def _sentence(told: Table, choice: Choice) -> str:
    begin = f"for {PORTS.get(choice.ports, choice.ports)}" if choice.ports else "for all lanes"
    if choice.row is None:
        if choice.least is None:
            return f"{begin}: nothing was measured yet"
        sure = "" if choice.least.lost_on(choice.lanes) else " for certain"
        least = f"{_setting(told, choice.least)}, which lost least, {_fate(choice.least, choice)}"
        return f"{begin}: no setting was without loss{sure}; {least}"
    row = choice.row
    margins = ", ".join(f"{_seconds(s)} for {MARGINS[kind]}" for kind, s in choice.margins.items())
    known = [f"rollout {_seconds(row.rollout.mean)}"] if not math.isnan(row.rollout.mean) else []
    known += [f"margin {margins}"] if margins else []
    repeats = f"{row.measured} repeats" if row.measured > 1 else "one run alone"
    text = f"{begin}: {_setting(told, row)} is the cheapest without loss in {repeats}"
    text += f" ({'; '.join(known)})" if known else ""
    if choice.cheaper:
        text += f"; the next cheaper, {_setting(told, choice.cheaper)}, {_fate(choice.cheaper, choice)}"
    return text


def _fate(row: Row, choice: Choice) -> str:
    lost = row.lost_on(choice.lanes)
    if lost:
        lanes = [lane.name for lane in choice.lanes if row.lost[lane.name].most]
        return f"lost {lost:,.1f} a run ({', '.join(lanes)})"
    if row.doubts:
        return f"lost nothing, but is no evidence: {row.doubts[0]}"
    below = [f"{_seconds(row.margins[kind])} for {MARGINS[kind]}" for kind in row.margins if row.margins[kind] < 0]
    return f"lost nothing by luck alone: its margin is {', '.join(below)}"


def _setting(told: Table, row: Row) -> str:
    return ", ".join(f"{axis} {value}" for axis, value in zip(told.sweep.vary, row.cell.vary, strict=True))


def _legend(told: Table) -> Sequence[str]:
    text = (
        "lost: attempts a run, the mean of all repeats (the least to the most); longest: the longest disruption of any"
        " repeat; rollout: from the first step to the last pod gone or Ready, or the rollout's end, the mean;"
        f" {CHEAPEST}: the cheapest, the shortest rollout without loss on any lane in any repeat (of those within"
        f" {ALIKE_S:g} s the first given); margin: how long before it stopped serving nothing was sent any more to a"
        f" pod, the least of all. One run: dnsprobe report {told.sweep.path} --cell CELL.REPEAT"
    )
    return list(wrapped(plain(text)))
