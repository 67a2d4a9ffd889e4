"""The command line: words typed in, a run or a report out; errors as sentences on stderr, exit codes of errors.py.

Only the command that is typed is imported: `dnsprobe --help` and TAB need none of them.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from probe import __version__
from probe.cli import options
from probe.cli.output import complain, say, silence
from probe.errors import EXIT_ENVIRONMENT, EXIT_INTERRUPTED, EXIT_PASS, EXIT_USAGE, DnsprobeError

COMMANDS = {
    "run": "Ask on schedule, write down what becomes of every query, and report it.",
    "serve": "Ask without end, change nothing, and be looked at: by Prometheus, and by `dnsprobe report --last 15m`.",
    "undo": (
        "Take back what runs changed in a cluster and could not take back themselves: list it, and with --yes do it."
    ),
    "stop": "End the runs of a Job with full reports: what was seen until now has its verdict.",
    "report": "Report a run again, with the exit code of its verdict: 0 pass, 1 an objective missed, 3 inconclusive.",
    "explain": (
        "Why was it lost, and what mends it? By lanes, pods' ends and what others counted; or what a message means."
    ),
    "compare": (
        "Lay runs of one scenario side by side: losses, disruptions, latencies, and which difference exceeds noise."
    ),
    "check": (
        "What is broken right now? Asks every path to cluster DNS for 4 s, changes nothing, and says what to do next."
    ),
    "audit": (
        "What will break in the next CoreDNS upgrade? Reads the cluster, changes nothing, and says what mends"
        " each point."
    ),
    "doctor": (
        "What has this machine of what dnsprobe uses? Kernel, limits, rights, CoreDNS, pictures, a cluster; what"
        " mends it."
    ),
    "recommend": (
        "Measure how long nodes go on sending to a pod that was deleted, and recommend the lameduck that loses nothing."
    ),
    "capacity": "Find the highest rate at which each server still meets the objectives.",
    "merge": "Put the shards of one load together and report them as one run; the exit code is that of its verdict.",
    "manifests": (
        "Print what has a scenario run in a cluster, for kubectl apply -f -. Other options are those of its run."
    ),
    "collect": (
        "Wait for a Job's probers, take their run files, fill from their logs what is gone, and report it as one run."
    ),
    "fleet": (
        "One line for each run, worst first: versions, lameduck, what was lost, the longest disruption, the verdict."
    ),
    "scenarios": "List the scenarios that come with dnsprobe, or say which keys one may have.",
    "demo": "Remove a CoreDNS pod in the lab, without and with a lameduck, and say what that saved (a minute).",
    "lab": "What the lab has on this machine.",
}
"""In the order of the help. A new one: a function and its module of that name, its EXAMPLES there, and a line here."""


class Commands(TyperGroup):
    """Lists every command by its line in COMMANDS, and goes on with the real one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Of the words that follow the options of dnsprobe itself: the command's name, the command, its words."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, loaded(name) if name and listed else None, rest


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        say(f"dnsprobe {__version__}")
        raise typer.Exit


@app.callback(
    epilog=options.examples(
        "dnsprobe demo",
        "dnsprobe run scale-down --lab",
        "dnsprobe run -s 10.96.0.10 -Q 100 -l 60 --fail 'loss > 0.1%'",
        "dnsprobe report run.db",
    )
)
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What becomes of DNS queries while a cluster changes.

    Exit codes: 0 pass, 1 an objective missed, 2 wrong usage, 3 inconclusive, 4 environment,
    130 interrupted (Ctrl-C, SIGTERM, SIGHUP).
    """


for _name, _about in COMMANDS.items():
    app.command(_name, help=_about)(lambda: None)


def loaded(name: str) -> Any:
    """The command of that name, of COMMANDS, as typer has it, with its options: its module is imported now."""
    module = import_module(f"probe.cli.{name}")
    what = getattr(module, name)
    if isinstance(what, typer.Typer):
        return typer.main.get_command(what)
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(name, epilog=module.EXAMPLES, context_settings=getattr(module, "SETTINGS", None))(what)
    return typer.main.get_command(alone)


def main(words: Sequence[str] | None = None) -> None:
    """The command `dnsprobe`, with the words of the command line."""
    try:
        sys.exit(app(words, prog_name="dnsprobe", standalone_mode=False) or EXIT_PASS)
    except DnsprobeError as problem:
        complain(str(problem))
        sys.exit(problem.exit_code)
    except TyperException as problem:
        if said := _misread(problem, sys.argv[1:] if words is None else words):
            complain(said)
        sys.exit(EXIT_USAGE)
    except OSError as problem:
        complain(f"{problem.strerror}{f': {problem.filename}' if problem.filename else ''}")
        sys.exit(EXIT_ENVIRONMENT)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(EXIT_INTERRUPTED)
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            try:
                stream.flush()
            except OSError:
                silence(stream)


def _misread(problem: Any, words: Sequence[str]) -> str:
    """What is wrong with the words, and what says which there are; '' where that was the help, which is printed."""
    text = problem.format_message().rstrip(".").replace(". Did", ": did")
    if not text:
        return ""
    # An option without its value comes without a context.
    typed = problem.ctx.command_path if problem.ctx else shlex.join(["dnsprobe", *words[:1]])
    return f"{text[0].lower()}{text[1:]}" + ("" if text.endswith("?") else f"; say {typed} --help")
