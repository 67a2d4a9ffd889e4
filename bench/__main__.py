"""Measures by name in; tables on the terminal, and all of them in bench/RESULTS.md, out.

`python -m bench` takes all measures, in about 40 minutes; `python -m bench cpu pacing` takes some, and writes no file
unless --out says where.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from bench.load import Missing
from bench.machine import about
from bench.measures import MEASURES
from bench.processes import Overdue
from bench.rounds import Bench
from bench.servers import Servers
from bench.table import Section, draw, draw_demands, markdown

RESULTS = Path(__file__).parent / "RESULTS.md"
ENOUGH_ROUNDS = 5


def main() -> int:
    """Measure, print, write."""
    options = _options()
    for kind in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, signal.default_int_handler)
    console = Console(width=140) if not sys.stdout.isatty() else Console()
    progress = Console(stderr=True)
    sections: list[Section] = []
    with tempfile.TemporaryDirectory(prefix="dnsprobe-bench-") as name:
        folder = Path(name)
        servers = Servers(folder)
        bench = Bench(options.rounds, options.seconds, options.minutes, folder, servers, progress.print)
        try:
            for measure in options.measures or MEASURES:
                for section in _taken(bench, measure):
                    sections.append(section)
                    draw(console, section)
        except KeyboardInterrupt:
            progress.print("interrupted: nothing is written")
            return 130
        finally:
            servers.close()
    draw_demands(console, sections)
    out = options.out or ("" if options.measures else str(RESULTS))
    if out:
        Path(out).write_text(markdown(sections, [*about(), ("runs", _runs(options))]), encoding="utf-8")
    return 0


def _taken(bench: Bench, measure: str) -> list[Section]:
    """A measure's sections; one that says why, where it cannot be taken."""
    try:
        return MEASURES[measure](bench)
    except (Missing, Overdue) as reason:
        return [Section(measure, ("",), (), notes=(str(reason),))]


def _runs(options: argparse.Namespace) -> str:
    few = "" if options.rounds >= ENOUGH_ROUNDS else f": FEWER THAN {ENOUGH_ROUNDS} ROUNDS, NO RESULT"
    return (
        f"medians of {options.rounds} rounds, ratios of the same round; {options.seconds:g} s where start-up counts, "
        f"else 0.4 of it; tools take turns{few}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=f"default all: {', '.join(MEASURES)}")
    parser.add_argument("--rounds", type=int, default=5, help="how often each tool has its turn (default 5)")
    parser.add_argument("--seconds", type=float, default=10, help="of a run (default 10)")
    parser.add_argument("--minutes", type=float, default=3, help="of the run that watches memory (default 3)")
    parser.add_argument("--out", default="", help="write Markdown here (default bench/RESULTS.md for all measures)")
    options = parser.parse_args()
    if unknown := [name for name in options.measures if name not in MEASURES]:
        parser.error(f"no measure {unknown[0]!r}; there are {', '.join(MEASURES)}")
    if not (1 <= options.rounds <= 50 and 1 <= options.seconds <= 60 and 0.1 <= options.minutes <= 60):
        parser.error("--rounds is from 1 to 50, --seconds from 1 to 60, --minutes from 0.1 to 60")
    return options


if __name__ == "__main__":
    sys.exit(main())
