"""--metrics and --linger, a run -> its metrics served while it goes, its file once it is over; what became of that."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from probe import __version__
from probe.cli import options
from probe.cli.output import complain
from probe.errors import EnvironmentProblem, UsageError
from probe.exporter.page import PATH, Page
from probe.exporter.state import Exporter
from probe.pages import Address, Pages
from probe.runfile import open_run
from probe.scenario.going import Ending
from probe.scenario.linger import PORT, Lingering, grace_of
from probe.scenario.plan import Plan
from probe.scenario.quantity import duration_ns, seconds_text, whole
from probe.verdict import verdict_of

METRICS_AT = "DNSPROBE_METRICS"
"""The environment's word for --metrics."""

Stay = Callable[[Ending, int], None]
"""A run that is over and its exit code -> returns when nobody need stay for it any longer."""


@contextmanager
def served(metrics: str, linger: str, scrapes: str, plan: Plan) -> Iterator[tuple[Exporter | None, Stay]]:
    """As typed; '' for not at all. The port is taken at once, so that a run that nobody could look at never begins.

    UsageError, EnvironmentProblem: what was typed, or the port, cannot be used.
    """
    if scrapes and not linger:
        raise UsageError("--linger-scrapes: goes with --linger, which says for how long at most")
    if not (metrics or linger):
        yield None, lambda _, __: None
        return
    most_ns = options.typed("--linger", linger, duration_ns) if linger else 0
    enough = options.typed("--linger-scrapes", scrapes, _scrapes) if scrapes else 0
    grace = grace_of(os.environ)
    address = options.typed("--metrics", metrics, Address.of) if metrics else Address("", PORT)
    about = {"dnsprobe": __version__, "run": plan.name, "shard": str(plan.share), "facts": dict(plan.facts)}
    pages, exporter = _pages(address), Exporter()
    try:
        page = Page(exporter)
        server = Lingering(pages, about, lambda: _scraped(page.last_scrapes, enough))
        pages.add(PATH, page.answer)

        def stay(ending: Ending, code: int) -> None:
            if not linger:
                return
            ruling = verdict_of(open_run(ending.path)).ruling.value
            complain(f"{ending.path} is served on {address} for at most {seconds_text(most_ns)}: dnsprobe collect")
            told = {"verdict": ruling, "exit_code": code, "cut": ending.cut}
            complain(server.wait(ending.path, told, most_ns / 1e9, grace, ending.interrupted_ns))

        yield exporter, stay
    finally:
        pages.close()


def _pages(address: Address) -> Pages:
    try:
        return Pages(address)
    except EnvironmentProblem as problem:
        raise EnvironmentProblem(f"--metrics {problem}") from None


def _scrapes(text: str) -> int:
    return whole(text, 1, 1000, "the number of scrapes")


def _scraped(times: int, enough: int) -> str:
    return f"the last metrics were scraped {times} times" if enough and times >= enough else ""
