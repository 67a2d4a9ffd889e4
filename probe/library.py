"""What `import probe` offers: a scenario or a server in, a run with its arrays out, made now or opened from its file.

>>> import probe
>>> run = probe.run("baseline", path, lab=True, settings=["duration=1s", "lab.coredns=stand-in"])
>>> run.series[0].lane, run.series[0].target.name, run.finished
('vip-udp-fresh', 'kube-dns', True)
>>> first = run.counts.series == 0
>>> int(run.counts.n[first].sum())  # its rows; those of which `good` is 0 were not answered as expected
25
>>> probe.verdict_of(run).timeline.channels[0].name
('vip-udp-fresh', 'kube-dns')
>>> probe.open_run(path).head.name
'baseline'
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

from probe.cluster import Cluster
from probe.cluster.kube import Kube
from probe.cluster.lab import Lab
from probe.engine import Engine, EngineOptions
from probe.errors import EnvironmentProblem, UsageError
from probe.host import most_tracked
from probe.runfile import Run, open_run
from probe.scenario.adhoc import Options, plan_of
from probe.scenario.cells import read_matrix
from probe.scenario.file import read_scenario
from probe.scenario.going import Ending
from probe.scenario.limits import CEILING, Limits
from probe.scenario.plan import Plan, check_load, expected_series
from probe.scenario.run import check_path
from probe.scenario.run import run as run_plan
from probe.scenario.signals import Signals, cancelling
from probe.scenario.steps import changes_of
from probe.scenario.view import Unseen
from probe.verdict import verdict_of

__all__ = ["Options", "open_run", "run", "verdict_of"]


def run(
    what: str | Path | Options,
    path: str | Path,
    *,
    lab: bool = False,
    settings: Sequence[str] = (),
    context: str = "",
    workers: int = 1,
    max_qps: int | Fraction = CEILING,
) -> Run:
    """Ask on schedule until it is over, as `dnsprobe run` does; the run file at `path`, opened.

    what: a shipped scenario's name, a YAML file, or Options, servers in dnsperf's letters, as text. settings:
    `PATH=VALUE`, put into the scenario. context: of the kubeconfig, for a scenario that asks a cluster and not the lab.
    workers: processes. max_qps: in all, towards anything but loopback and the lab.

    DnsprobeError says what is wrong, before anything is asked. Ctrl-C ends the run in order: KeyboardInterrupt comes
    once its file is whole. A cluster is never changed from here: UsageError.
    """
    plan, where = _plan_of(what, settings), Path(path)
    if changes_of(plan.steps) and not lab:
        raise UsageError(f"{plan.name} changes a cluster: dnsprobe run --yes --cluster NAME does that, or lab=True")
    limits = Limits(total=Fraction(max_qps), tracked=most_tracked())
    limits.check(expected_series(plan))
    check_load(plan, workers)
    check_path(where)
    cluster = Lab(plan.lab) if lab else Kube(context) if plan.cluster_needs else None
    ending = _Run(plan, where, cluster, workers, None if lab else limits).over()
    if ending.failed:
        raise EnvironmentProblem(
            f"{plan.name}: {ending.cut or 'a step could not be taken'}; its file is whole: {ending.path}"
        )
    return open_run(ending.path)


def _plan_of(what: str | Path | Options, settings: Sequence[str]) -> Plan:
    if isinstance(what, Options):
        if settings:
            raise UsageError("settings go with a scenario")
        return plan_of(what)
    if read_matrix(str(what), list(settings)):
        raise UsageError(f"{what}: has a matrix, which is many runs: dnsprobe run {what} --lab -o sweep.db")
    return read_scenario(str(what), list(settings))


class _Run:
    """A run in a thread of its own: a notebook has an event loop already, and a script keeps its signal handlers."""

    def __init__(self, plan: Plan, path: Path, cluster: Cluster | None, workers: int, limits: Limits | None) -> None:
        self._plan, self._path, self._cluster, self._limits = plan, path, cluster, limits
        self._workers = workers
        self._going: tuple[asyncio.AbstractEventLoop, Signals] | None = None

    def over(self) -> Ending:
        """How it ended. KeyboardInterrupt, if one came, once it has."""
        interrupted = False
        with ThreadPoolExecutor(1, "dnsprobe") as pool:
            ended = pool.submit(lambda: asyncio.run(self._made()))
            while True:
                try:
                    ending = ended.result()
                    break
                except KeyboardInterrupt:
                    interrupted = True
                    self._interrupt()
                except asyncio.CancelledError:
                    raise KeyboardInterrupt from None
        if interrupted:
            raise KeyboardInterrupt
        return ending

    def _interrupt(self) -> None:
        if self._going:
            loop, signals = self._going
            with suppress(RuntimeError):  # it is over
                loop.call_soon_threadsafe(lambda: signals.meaning("SIGINT"))

    async def _made(self) -> Ending:
        signals = Signals(cancelling())
        self._going = asyncio.get_running_loop(), signals
        engine = Engine(EngineOptions(workers=self._workers))
        args = self._plan, self._path, Unseen(), engine, self._cluster, "probe.run()"
        return await run_plan(*args, idle=False, limits=self._limits, signals=signals)
