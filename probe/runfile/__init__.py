"""A run as one SQLite file: flushes, marks, intervals in while it goes; out comes a Run, even of one that was cut."""

from __future__ import annotations

from probe.runfile.head import Head
from probe.runfile.merge import merge
from probe.runfile.reader import Bad, Counts, Run, open_run
from probe.runfile.writer import FAILURES_KEPT, RunFileProblem, RunWriter

__all__ = ["FAILURES_KEPT", "Bad", "Counts", "Head", "Run", "RunFileProblem", "RunWriter", "merge", "open_run"]
