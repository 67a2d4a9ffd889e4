"""The command line: words typed in, a run or a report out; errors as sentences on stderr, exit codes of errors.py."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from probe import __version__
from probe.cli import (
    audit,
    capacity,
    check,
    collect,
    compare,
    doctor,
    explain,
    fleet,
    lab,
    manifests,
    options,
    recommend,
    report,
    run,
    scenarios,
    serve,
    stop,
    undo,
)
from probe.cli.output import complain, say, silence
from probe.errors import EXIT_ENVIRONMENT, EXIT_INTERRUPTED, DnsprobeError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
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


# In the order of the help. A new command: its function in a file of its own, its options in options.py, a line here.
app.command(epilog=run.EXAMPLES)(run.run)
app.command(epilog=serve.EXAMPLES)(serve.serve)
app.command(epilog=undo.EXAMPLES)(undo.undo)
app.command(epilog=stop.EXAMPLES)(stop.stop)
app.command(epilog=report.EXAMPLES)(report.report)
app.command(epilog=explain.EXAMPLES)(explain.explain)
app.command(epilog=compare.EXAMPLES)(compare.compare)
app.command(epilog=check.EXAMPLES)(check.check)
app.command(epilog=audit.EXAMPLES)(audit.audit)
app.command(epilog=doctor.EXAMPLES)(doctor.doctor)
app.command(epilog=recommend.EXAMPLES)(recommend.recommend)
app.command(epilog=capacity.EXAMPLES)(capacity.capacity)
app.command(epilog=report.MERGE_EXAMPLES)(report.merge)
app.command(epilog=manifests.EXAMPLES, context_settings=manifests.PASSED_ON)(manifests.manifests)
app.command(epilog=collect.EXAMPLES)(collect.collect)
app.command(epilog=fleet.EXAMPLES)(fleet.fleet)
app.command(epilog=scenarios.EXAMPLES)(scenarios.scenarios)
app.command(epilog=scenarios.DEMO_EXAMPLES)(scenarios.demo)
app.add_typer(lab.lab, name="lab")


def main(words: Sequence[str] | None = None) -> None:
    """The command `dnsprobe`, with the words of the command line."""
    try:
        app(words, prog_name="dnsprobe")
    except DnsprobeError as problem:
        complain(str(problem))
        sys.exit(problem.exit_code)
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
