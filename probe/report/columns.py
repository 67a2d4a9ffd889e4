"""Rows of texts -> the lines of a table; a sentence -> lines that fit a page."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

from probe.report.units import bounded

WIDTH, CELL, WORD = 110, 80, 400
"""Columns of a page; characters of a cell, and of a word: of a longer one the middle is left out."""
NO_BREAK = "\N{NO-BREAK SPACE}"

Row = Sequence[str]


def table(rows: Sequence[Row], aligned: str) -> list[str]:
    """Columns as wide as their widest cell, two spaces apart; `aligned` has < or > for each."""
    rows = [[bounded(cell, CELL) for cell in row] for row in rows]
    widths = [max((len(cell) for cell in column), default=0) for column in zip(*rows, strict=True)]
    cells = [[f"{cell:{a}{w}}" for cell, a, w in zip(row, aligned, widths, strict=True) if w] for row in rows]
    return ["  " + "  ".join(row).rstrip() for row in cells]


def wrapped(text: str, indent: int = 0, later: int | None = None) -> Iterable[str]:
    """`indent` before the first line, `later` before those after it (default the same)."""
    text = re.sub(rf"\S{{{WORD},}}", lambda word: bounded(word[0], WORD), text)
    rest = " " * (indent if later is None else later)
    lines = textwrap.wrap(
        text, WIDTH, initial_indent=" " * indent, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace(NO_BREAK, " ") for line in lines]
