"""Figures of many rounds in; medians, ratios of the same round, what was asked beside what was measured, tables out."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.load import Figures, Turns

Pick = Callable[[Figures], float | None]
NONE = "-"
_COMPARE: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True, slots=True)
class Demand:
    """What was asked of a number, and the number: `shown` makes both texts, so that neither is written by hand.

    value None: not measured.
    """

    what: str
    compare: str
    limit: float
    value: float | None
    shown: Callable[[float], str] = "{:.2f} x".format

    @property
    def asked(self) -> str:
        """`>= 1.40 x`."""
        return f"{self.compare} {self.shown(self.limit)}"

    @property
    def measured(self) -> str:
        """`1.43 x`, or what stands for nothing."""
        return "not measured" if self.value is None else self.shown(self.value)

    @property
    def holds(self) -> str:
        """`yes`, `no`, or a dash where nothing was measured."""
        if self.value is None:
            return NONE
        return "yes" if _COMPARE[self.compare](self.value, self.limit) else "no"


@dataclass(frozen=True, slots=True)
class Section:
    """One measure's table: the first column is words, the others are numbers. Notes stand below it."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    demands: tuple[Demand, ...] = ()
    notes: tuple[str, ...] = ()
    plots: tuple[str, ...] = ()


# --- Numbers ---


def median(figures: Iterable[Figures], pick: Pick) -> float | None:
    """The median over the rounds; None where a tool has no such number, or there was no round."""
    values = [value for value in map(pick, figures) if value is not None]
    return statistics.median(values) if values else None


def ratio(these: Sequence[Figures], those: Sequence[Figures], pick: Pick) -> float | None:
    """The median of the ratios of the same round; None without both."""
    pairs = [(pick(a), pick(b)) for a, b in zip(these, those, strict=False)]
    ratios = [a / b for a, b in pairs if a is not None and b]
    return statistics.median(ratios) if ratios else None


def number(value: float | None, digits: int = 0) -> str:
    """`1,234`, or a dash."""
    return NONE if value is None else f"{value:,.{digits}f}"


def times(value: float | None) -> str:
    """`1.43 x`, or a dash."""
    return NONE if value is None else f"{value:.2f} x"


def microseconds(value: float | None) -> str:
    """Seconds as `207 us`, or a dash."""
    return NONE if value is None else f"{value * 1e6:,.0f} us"


def share(value: float | None) -> str:
    """A part of one as `99.95 %`, or a dash."""
    return NONE if value is None else f"{100 * value:.4g} %"


# --- Columns ---


@dataclass(frozen=True, slots=True)
class Column:
    """A number of each tool: its median, or the median of its ratios to another tool's in the same round (`to`)."""

    heading: str
    pick: Pick
    shown: Callable[[float | None], str] = number
    to: str = ""

    def cell(self, turns: Turns, tool: str) -> str:
        """What stands in a tool's row."""
        figures = turns.of(tool)
        return self.shown(ratio(figures, turns.of(self.to), self.pick) if self.to else median(figures, self.pick))


def precise(value: float | None) -> str:
    """`3.87`, or a dash."""
    return number(value, 2)


SPEED = Column("answered/s", attrgetter("rate"))
COST = Column("CPU us/query", attrgetter("cost"), precise)
LOST = Column("lost", attrgetter("lost"))
UNSENT = Column("unsent", attrgetter("unsent"))


def compared(column: Column, tool: str, name: str) -> Column:
    """The same number as a ratio to a tool's, which is called `name` for short."""
    return Column(f"to {name}", column.pick, times, tool)


def tabled(
    title: str,
    turns: Turns,
    columns: Sequence[Column],
    demands: Sequence[Demand] = (),
    notes: Sequence[str] = (),
) -> Section:
    """A row for each tool; why tools are missing is among the notes."""
    rows = tuple((tool, *(column.cell(turns, tool) for column in columns)) for tool in turns.tools)
    return Section(title, ("", *(c.heading for c in columns)), rows, tuple(demands), (*notes, *turns.notes))


# --- Tables ---

DEMANDS = ("asked in the issue", "asked", "measured", "holds")


def demand_rows(sections: Sequence[Section]) -> list[tuple[str, ...]]:
    """Everything that was asked, in order."""
    return [(d.what, d.asked, d.measured, d.holds) for section in sections for d in section.demands]


def markdown(sections: Sequence[Section], about: Sequence[tuple[str, str]]) -> str:
    """The whole of RESULTS.md."""
    parts = ["# What `make bench` measured", _markdown_table(("run", ""), about, "---")]
    if rows := demand_rows(sections):
        parts += ["## Must show", _markdown_table(DEMANDS, rows)]
    for section in sections:
        parts += [f"## {section.title}"]
        parts += [_markdown_table(section.headings, section.rows)] if section.rows else []
        parts += [f"```\n{plot}\n```" for plot in section.plots]
        parts += ["\n".join(f"- {note}" for note in section.notes)] if section.notes else []
    return "\n\n".join(parts) + "\n"


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], rule: str = "---:") -> str:
    cells = [[*(cell.replace("|", "\\|") for cell in row)] for row in (headings, *rows)]
    cells = [row + [NONE] * (len(headings) - len(row)) for row in cells]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    ruled = "|" + "|".join(["---", *[rule] * (len(headings) - 1)]) + "|"
    return "\n".join([lines[0], ruled, *lines[1:]])


def draw(console: Console, section: Section) -> None:
    """A section on the terminal."""
    console.print(Text(f"\n{section.title}", "bold"))
    if section.rows:
        console.print(_drawn(section.headings, section.rows))
    for line in (*section.plots, *section.notes):
        console.print(Text(line))


def draw_demands(console: Console, sections: Sequence[Section]) -> None:
    """What was asked beside what was measured, on the terminal."""
    console.print(Text("\nMust show", "bold"))
    console.print(_drawn(DEMANDS, demand_rows(sections)))


def _drawn(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", no_wrap=not i)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
