"""The run files of one load's shards in; one run file of them, and its report, out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probe.cli import options
from probe.cli.files import check_json
from probe.cli.options import reporting
from probe.cli.reports import check_format, print_report
from probe.doubts import doubts_of
from probe.runfile import merge as merge_shards
from probe.runfile import open_run
from probe.scenario.run import check_path
from probe.timeline.seen import seen_by

EXAMPLES = options.examples("dnsprobe merge -o all.db shard0.db shard1.db", "dnsprobe merge -o all.db shard*.db")


def merge(
    files: Annotated[list[str], typer.Argument(help="What each `dnsprobe run --shard` wrote.", show_default=False)],
    out: options.MergedFile,
    partial: reporting.Partial = False,
    form: reporting.Format = "text",
    json_file: options.JsonFile = "",
) -> None:
    """Put the shards of one load together and report them as one run; the exit code is that of its verdict."""
    check_format(form)
    check_path(Path(out))
    check_json(json_file, Path(out), *map(Path, files))
    merge_shards([Path(file) for file in files], Path(out), options.command_line(), doubts_of, seen_by, partial)
    raise typer.Exit(print_report(open_run(out), form, json_file))
