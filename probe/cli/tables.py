"""Tables and texts in rich's words -> what a console makes of them."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.text import Text


def drawn(*parts: RenderableType) -> str:
    """What a console makes of them, as wide as stdout's terminal and in its colours."""
    console = Console()
    with console.capture() as capture:
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, Text))
    return capture.get().rstrip("\n")
