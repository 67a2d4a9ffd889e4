"""--linger and --http, a run that is over -> its file served until it was taken; what became of that, said."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from probe import __version__
from probe.cli import options
from probe.cli.output import complain
from probe.runfile import open_run
from probe.scenario.linger import Lingering, grace_of, port_of
from probe.scenario.plan import Plan
from probe.scenario.quantity import duration_ns, seconds_text
from probe.scenario.run import Ending
from probe.verdict import verdict_of

Stay = Callable[[Ending, int], None]
"""A run that is over and its exit code -> returns when nobody need stay for its file any longer."""


@contextmanager
def lingering(linger: str, http: str, plan: Plan) -> Iterator[Stay]:
    """As typed; '' for not at all. The port is taken at once, so that a run whose file nobody could fetch never begins.

    UsageError, EnvironmentProblem: what was typed, or the port, cannot be used.
    """
    if not linger:
        yield lambda _, __: None
        return
    at_most_ns, grace = options.typed("--linger", linger, duration_ns), grace_of(os.environ)
    about = {"dnsprobe": __version__, "run": plan.name, "shard": str(plan.share), "facts": dict(plan.facts)}
    server = Lingering(options.typed("--http", http, port_of), about)
    try:

        def stay(ending: Ending, code: int) -> None:
            ruling = verdict_of(open_run(ending.path)).ruling.value
            complain(f"{ending.path} is served on port {http} for at most {seconds_text(at_most_ns)}: dnsprobe collect")
            told = {"verdict": ruling, "exit_code": code, "cut": ending.cut}
            complain(server.wait(ending.path, told, at_most_ns / 1e9, grace, ending.interrupted_ns))

        yield stay
    finally:
        server.close()
