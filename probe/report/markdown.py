"""A Run -> its summary in Markdown, for pull requests and chats: the answers and the tables, as GitHub reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from probe.model import NS
from probe.report.story import story_of
from probe.report.tables import Table, disruptions, lanes, objectives, pods_ends
from probe.report.units import date, plain
from probe.runfile import Run
from probe.verdict import verdict_of

ROWS = 20
"""Of a table; HTML and JSON have more."""


def markdown_report(run: Run) -> str:
    """GitHub's Markdown (GFM 0.29), ends with a newline. Nothing that others wrote is markup, a mention or a link."""
    verdict = verdict_of(run)
    story = story_of(verdict)
    lines = [f"## {story.ruling}: {inert(story.headline)}", ""]
    lines.append(f"{inert(run.head.name)}: {run.end_ns / NS:,.1f} s from {date(run.head.started_unix_ns)}")
    for what, said in {"What was lost": story.lost, "When": story.when, "Why": story.why}.items():
        lines += ["", f"**{what}**", "", *(f"- {inert(text)}" for text in said)]
    lines += ["", "**What to change**", "", *(line for text in story.change for line in block(text))]
    for table in (objectives(verdict), disruptions(verdict), pods_ends(run), lanes(verdict.timeline)):
        if table.rows:
            lines += ["", *table_markdown(table)]
    return "\n".join(lines) + "\n"


def block(text: str) -> list[str]:
    """A remedy as code, to be copied; one of a few words as they are."""
    shown = [plain(line) for line in text.split("\n")]
    if len(shown) == 1:
        return [inert(text)]
    fence = "`" * (3 + max(len(run) for run in re.findall("`*", text)))
    return [f"{fence}sh", *shown, fence]


def table_markdown(table: Table) -> list[str]:
    """Its title, the first rows, how many more there are."""
    sides = ["---:" if side == ">" else "---" for side in table.aligned]
    rows = [_row(table.heads), f"| {' | '.join(sides)} |", *map(_row, table.rows[:ROWS])]
    more = ["", f"and {len(table.rows) - ROWS} more"] if len(table.rows) > ROWS else []
    return [f"### {inert(table.title)}", "", *rows, *more]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(inert, cells))} |"


def inert(text: str) -> str:
    """Any text as text: punctuation escaped, and what GitHub would link or notify (@name, #1, www., ://) broken up."""
    shown = re.sub(r"([\\`*_\[\]<>|~#&!])", r"\\\1", plain(text))
    shown = re.sub(r"^([-+]|\d+[.)])(?= |$)", lambda m: f"{m[0][:-1]}\\{m[0][-1]}", shown)
    return re.sub(r"(?i)(@|://|www)", lambda m: f"{m[0][0]}<!-- -->{m[0][1:]}", shown)
