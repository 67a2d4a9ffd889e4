"""What killed labs left behind in; a machine without it out."""

from __future__ import annotations

import typer

from probe.cli import options
from probe.cli.output import say
from probe.cluster.leftovers import down as remove

EXAMPLES = options.examples("sudo dnsprobe lab down")

lab = typer.Typer(help="What the lab has on this machine.", no_args_is_help=True, add_completion=False)


@lab.command(epilog=EXAMPLES)
def down() -> None:
    """Remove what labs left behind that were killed together with their keeper: pods, network namespaces, folders."""
    found = remove()
    say("\n".join(f"removed {name}" for name in found) or "nothing was left behind")


@lab.callback()
def _lab() -> None:
    """So that `lab` stays a group, though it has one command."""
