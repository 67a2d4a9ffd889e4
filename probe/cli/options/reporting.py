"""The options of commands that report what run files hold: report, merge, compare, fleet, and --format of a run."""

from __future__ import annotations

from typing import Annotated

from probe.cli.options import RESULT, flag, option
from probe.report.formats import REPORTS

PAGES = "Files beside what is printed; html, png and svg need: pip install altair vl-convert-python"
CELL_HELP = "Of a sweep: that run, CELL or CELL.REPEAT, instead of the table."
PARTIAL_HELP = "Though shards are missing, or were killed: what these have not asked is undecided."
LAST_HELP = "That stretch before the end alone, or, of a run that goes on, before now (default all that is kept)."
FORMAT_HELP = f"What is printed: {', '.join(REPORTS)} (default text)."
OneCell = Annotated[str, option(RESULT, "", "--cell", "CELL", CELL_HELP)]
Last = Annotated[str, option(RESULT, "", "--last", "TIME", LAST_HELP)]
Partial = Annotated[bool, flag(RESULT, "", "--partial", PARTIAL_HELP)]
Format = Annotated[str, option(RESULT, "", "--format", "FORMAT", FORMAT_HELP)]
HtmlFile = Annotated[str, option(PAGES, "", "--html", "FILE", "The timeline to zoom in, and its tables: one page.")]
PngFile = Annotated[str, option(PAGES, "", "--png", "FILE", "The timeline as a picture.")]
SvgFile = Annotated[str, option(PAGES, "", "--svg", "FILE", "The same in vectors.")]
MarkdownFile = Annotated[str, option(PAGES, "", "--markdown", "FILE", "The summary, as GitHub reads it.")]
CsvFile = Annotated[str, option(PAGES, "", "--csv", "FILE", "The disruptions, a line each.")]
JunitFile = Annotated[str, option(PAGES, "", "--junit", "FILE", "The objectives as test cases.")]
ComparedFile = Annotated[str, option(RESULT, "", "--json", "FILE", "Write the comparison as JSON, too; - is stdout.")]
ComparedPage = Annotated[str, option(RESULT, "", "--html", "FILE", "The timelines above each other: one page.")]
FleetFormat = Annotated[str, option(RESULT, "", "--format", "FORMAT", "What is printed: text, json (default text).")]
