"""What a run does, second by second -> a table on a terminal, or a line every 5 s; always on stderr."""

from rich.console import Console

from probe.live.brief import Brief
from probe.live.lines import Lines
from probe.live.log import Log
from probe.live.table import LiveTable
from probe.live.telling import Telling
from probe.live.together import Together

__all__ = ["Brief", "Lines", "LiveTable", "Log", "Telling", "Together", "fitting_view"]


def fitting_view() -> LiveTable | Lines:
    """The table if stderr is a terminal that can draw it, else lines."""
    console = Console(stderr=True)
    return LiveTable(console) if console.is_terminal and not console.is_dumb_terminal else Lines()
