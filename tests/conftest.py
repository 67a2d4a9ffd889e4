"""Fixtures: servers that live as long as the session; and under DNSPROBE_NO_SKIP=1 a skip is a failure."""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, cast

import pytest

from tests.servers import BY_FIRST_LABEL, CoreDNS, Knot, Nsd, RealServer, Rule, ScriptedServer, need

NOT_LIFTABLE = ("needs IPv6",)
"""How the reasons of skips begin that no installation lifts: they stay skips even where skips are failures."""

os.environ.pop("KUBERNETES_SERVICE_HOST", None)
"""Tests are in no pod, wherever they run, unless they say so: a run in a pod asks TEST-NET-1, too."""

collect_ignore = [] if "DNSPROBE_E2E_PARTS" in os.environ else ["e2e"]
"""They are slow and need more than `make test` may ask for: `make e2e` runs them."""


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A run in this process that a signal ended ignores the next ones, for good: what later tests start would, too."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _serve(kind: type[RealServer], factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    server = kind.start(factory.mktemp(kind.__name__.lower()))
    yield server
    server.close()


@pytest.fixture(scope="session")
def knot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    yield from _serve(Knot, tmp_path_factory)


@pytest.fixture(scope="session")
def nsd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    yield from _serve(Nsd, tmp_path_factory)


@pytest.fixture(scope="session")
def coredns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    yield from _serve(CoreDNS, tmp_path_factory)


@pytest.fixture(scope="session")
def dnsperf() -> str:
    """The path of dnsperf."""
    return need("dnsperf", "make servers")


Start = Callable[..., ScriptedServer]


@pytest.fixture
def scripted() -> Iterator[Start]:
    """Starts scripted servers and ends them with the test: `scripted([Rule(...)], "::1")`."""
    servers: list[ScriptedServer] = []

    def start(rules: Sequence[Rule] = BY_FIRST_LABEL, address: str = "127.0.0.1") -> ScriptedServer:
        servers.append(ScriptedServer(rules, address))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that is tried again has the runs made again that its module shares, as they were made in real time."""
    if getattr(item, "execution_count", 1) > 1 and isinstance(item, pytest.Function):
        for fixtures in item._fixtureinfo.name2fixturedefs.values():
            for one in fixtures:
                if one.scope == "module" and not inspect.isgeneratorfunction(one.func):
                    one.finish(cast(Any, item._request))


def _strictly(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Make a failure of a skip that an installation would lift."""
    if os.environ.get("DNSPROBE_NO_SKIP") != "1" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith(NOT_LIFTABLE):
        report.outcome = "failed"
        report.longrepr = f"skipped, and DNSPROBE_NO_SKIP=1 allows none: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _strictly(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _strictly(report)
    return report
