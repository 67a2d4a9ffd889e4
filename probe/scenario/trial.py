"""A server and a rate -> what became of it: a run with its file and verdict, and whether this prober was its limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from probe.doubts import LAG_NS
from probe.engine import Engine, EngineOptions
from probe.errors import UsageError
from probe.histogram import bins_of
from probe.host import cpu_ns
from probe.model import NS, Target
from probe.outcome import Counter, UnsentCause
from probe.recorder import Duration, Flush
from probe.runfile import Run, open_run
from probe.scenario.plan import Plan
from probe.scenario.run import run
from probe.scenario.view import Unseen
from probe.timeline import Loss, Timeline
from probe.verdict import QUANTILES, Judged, Ruling, verdict_of

UNSENT_SHARE = 0.01
"""Where more rows than this were not sent, the rate was not what was asked."""
LATE_SHARE = 0.01
"""Where more rows than this left late, that is worth a word."""
CPU_SHARE = 0.95
"""Above this a worker has used up its core."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one rate, in q/s. seconds: how long it was asked; cpu: the most a worker used of its core, 0 to 1.

    missed: the objective that was not met; limit: what of that may be this prober's own doing, or why the rate was not
    what was asked, else ''. throttled: a quota withheld CPU from it.
    """

    rate: int
    seconds: float
    loss: Loss
    p50_ns: float
    p99_ns: float
    cpu: float
    missed: Judged | None
    limit: str
    throttled: bool
    path: Path

    @property
    def met(self) -> bool:
        """Every objective, and at this rate."""
        return self.missed is None and not self.limit

    @property
    def sent(self) -> float:
        """Queries a second that left."""
        return (self.loss.planned - self.loss.unsent) / self.seconds

    @property
    def answered(self) -> float:
        """Queries a second that had a good answer."""
        return self.loss.good / self.seconds


@dataclass(frozen=True, slots=True)
class Trials:
    """Makes trials of a plan of one lane: its rate and its server are set. Run files go to `folder`.

    noted: hears what a run has to say; command: as typed.
    """

    plan: Plan
    options: EngineOptions
    folder: Path
    noted: Callable[[str], None]
    command: str = ""

    async def ask(self, target: Target, rate: int, nth: int) -> Trial | None:
        """Ask a server at a rate, for the nth time; None if that was interrupted. Nothing is in flight afterwards."""
        plan = at_rate(self.plan, target, rate)
        again = f"-{nth}" if nth > 1 else ""
        path = self.folder / f"{target.address.replace(':', '_')}-{rate}{again}.db"
        engine = Engine(self.options)
        watch = _Watch(engine, plan.duration_ns, self.noted)
        ending = await run(plan, path, watch, engine, command=self.command, idle=False)
        return None if ending.interrupted else trial_of(open_run(ending.path), rate, watch.cpu)


def new_folder(folder: Path) -> None:
    """Make the folder for run files. UsageError if there is something already, or it cannot be made."""
    if not folder.parent.is_dir():
        raise UsageError(f"-o {folder}: its folder does not exist; name one elsewhere")
    try:
        folder.mkdir()
    except FileExistsError:
        raise UsageError(f"-o {folder}: exists already; name another folder") from None
    except OSError as problem:
        raise UsageError(f"-o {folder}: cannot be made: {problem.strerror}; name one elsewhere") from None


def at_rate(plan: Plan, target: Target, rate: int) -> Plan:
    """The same plan for one server, at a rate."""
    lanes = tuple(replace(lane, rate=Fraction(rate)) for lane in plan.lanes)
    return replace(plan, lanes=lanes, servers=(target,))


def trial_of(measured: Run, rate: int, cpu: float) -> Trial:
    """What one run says of its rate."""
    verdict = verdict_of(measured)
    timeline = verdict.timeline
    (channel,) = timeline.channels
    missed = next((judged for judged in verdict.objectives if judged.ruling is not Ruling.PASS), None)
    late = _late(measured)
    fails_anyway = missed is not None and missed.ruling is Ruling.FAIL and _fails_without(late, missed, timeline, cpu)
    return Trial(
        rate=rate,
        seconds=measured.head.planned_ns / NS,
        loss=channel.loss(),
        p50_ns=timeline.quantile_ns(channel, Duration.LATENCY, 0.5),
        p99_ns=timeline.quantile_ns(channel, Duration.LATENCY, 0.99),
        cpu=cpu,
        missed=missed,
        limit="" if fails_anyway else _limit(measured, channel.loss(), late, cpu, missed),
        throttled=any(interval.kind == "throttled" for interval in measured.intervals),
        path=measured.path,
    )


def _late(measured: Run) -> float:
    """The share of rows that left later than LAG_NS after they were due, of those that left."""
    late = measured.lag[int(bins_of(np.array([LAG_NS]))[0]) + 1 :].sum()
    return float(late / max(1, measured.lag.sum()))


def _fails_without(late: float, missed: Judged, timeline: Timeline, cpu: float) -> bool:
    """Whether an objective is missed even if it was the rows that left late that were lost, or slow."""
    measure, objective = missed.objective.measure, missed.objective
    if measure == "loss":
        return not objective.met_by(max(0.0, missed.actual - late))
    if measure == "longest_disruption":
        return late <= LATE_SHARE
    (channel,) = timeline.channels
    fastest_ns = timeline.quantile_ns(channel, Duration.LATENCY, max(0.0, QUANTILES[measure] - late))
    return cpu <= CPU_SHARE and not objective.met_by(fastest_ns / NS)


def _limit(measured: Run, loss: Loss, late: float, cpu: float, missed: Judged | None) -> str:
    """What this prober did that an objective may have been missed for, or the rate; '' if nothing."""
    said = [measured.cut] if measured.cut else []
    unsure = missed is not None and missed.ruling is Ruling.INCONCLUSIVE
    if loss.unsent > (0 if unsure else UNSENT_SHARE * loss.planned):
        causes = [cause.label for cause in UnsentCause if measured.unsent[:, cause].any()]
        said.append(f"{100 * loss.unsent / loss.planned:.2g} % of the queries were not sent ({', '.join(causes)})")
    if (drops := int(measured.counters[:, Counter.OWN_DROPS].sum())) and unsure:
        said.append(f"{drops:,} replies were dropped by its own receive buffer")
    if late > (LATE_SHARE if unsure else 0) and missed:
        said.append(f"{100 * late:.2g} % of the queries left over {LAG_NS // 10**6} ms late")
    if cpu > CPU_SHARE and missed:
        said.append(f"{100 * cpu:.0f} % of its core was used")
    if said:
        said += [interval.text for interval in measured.intervals if interval.kind == "throttled"]
    return ", ".join(said)


class _Watch(Unseen):
    """A View: the most that a worker used of its core while queries were due."""

    def __init__(self, engine: Engine, until_ns: int, noted: Callable[[str], None]) -> None:
        self._engine, self._until_ns, self._noted = engine, until_ns, noted
        self._begun_ns = 0
        self._used_ns: dict[int, int] = {}
        self.cpu = 0.0

    def begin(self, _: Plan) -> None:
        self._begun_ns = self._engine.now_ns()
        self._used_ns = {pid: cpu_ns(pid) for pid in self._engine.worker_pids}

    def flushed(self, _: Flush, now_ns: int) -> None:
        if now_ns <= self._until_ns:
            most_ns = max(cpu_ns(pid) - before_ns for pid, before_ns in self._used_ns.items())
            self.cpu = most_ns / (now_ns - self._begun_ns)

    def noted(self, text: str) -> None:
        self._noted(text)
