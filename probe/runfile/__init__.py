"""A run as one SQLite file: flushes, marks, intervals in while it goes; out comes a Run, even of one that was cut."""

from __future__ import annotations

from probe.runfile.aside import KEPT, SERVED, aside_of, set_aside
from probe.runfile.head import LOG_FACT, NODE_FACT, POD_FACT, ZONE_FACT, Head
from probe.runfile.merge import merge
from probe.runfile.reader import Bad, Counts, Run, open_run, series_of_row
from probe.runfile.stretch import STRETCH, open_stretch
from probe.runfile.vantage import Seen, SeenWindow, Vantage
from probe.runfile.writer import FAILURES_KEPT, RunFileProblem, RunWriter, series_row

__all__ = [
    "FAILURES_KEPT",
    "KEPT",
    "LOG_FACT",
    "NODE_FACT",
    "POD_FACT",
    "SERVED",
    "STRETCH",
    "ZONE_FACT",
    "Bad",
    "Counts",
    "Head",
    "Run",
    "RunFileProblem",
    "RunWriter",
    "Seen",
    "SeenWindow",
    "Vantage",
    "aside_of",
    "merge",
    "open_run",
    "open_stretch",
    "series_of_row",
    "series_row",
    "set_aside",
]
