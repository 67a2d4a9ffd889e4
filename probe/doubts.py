"""A Run -> what this prober did wrong itself, or did not see, and the lanes on which that could hide a loss."""

from __future__ import annotations

import ipaddress
import math
from collections import Counter as Tally
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probe.histogram import quantile_ns
from probe.model import NS, Doubt, Interval, Series, TargetKind
from probe.outcome import REPLIED, UNSENT_HELP, Counter, Outcome, UnsentCause
from probe.runfile import Run

FEWEST_ROWS = 30
"""A lane that decided fewer rows than this is no evidence: losing one row in ten would often go unseen."""
LAG_NS = 5_000_000
"""Queries that leave later than this after they were due (p99) load the prober's delay onto every latency."""
NAMED = 3
"""Stretches of time that a text names."""
ROUND = 64
"""A power of two from here on may be a limit that somebody set."""
FEWEST_PORTS = 8
"""A loss as large as a smaller pool is no coincidence worth a word."""
CHARGED = (832, 1280, 2304)
"""Octets of a receive buffer that Linux charges for a small, a middling and a large datagram."""

EXCUSES = ("own_drops", "lab_dropped", "lab_died")
"""Doubts about lost rows: they may be no fault of DNS."""

Lanes = tuple[str, ...]
Said = Iterable[tuple[str, Lanes]]
"""A text and the lanes it is about, none for all; nothing where there is no doubt."""


class Kind(NamedTuple):
    """A kind of doubt. hides_loss: rows that look good, or are not there, may have been lost."""

    help: str
    hides_loss: bool
    said: Callable[[Run], Said]


def doubts_of(run: Run) -> list[Doubt]:
    """The doubts of a run, gravest first; of a merged run those of its shards, instead of their sum."""
    found = []
    for id_, kind in DOUBTS.items():
        of_shards = [doubt for doubt in run.doubts if doubt.id == id_]
        found += of_shards or [Doubt(id_, text, lanes, kind.hides_loss) for text, lanes in kind.said(run)]
    return found


def _cut(run: Run) -> Said:
    if run.cut:
        undecided = int(run.in_flight.n.sum())
        left = f"; {undecided:,} rows were still in flight and are undecided" if undecided else ""
        yield f"{run.cut}{left}: what came after was not seen", ()


def _unfinished(run: Run) -> Said:
    for mark in run.marks:
        if mark.kind == "unfinished":
            yield f"{mark.text}: what came after was not seen", ()


def _shard_missing(run: Run) -> Said:
    for interval in _stretches(run, "shard_missing"):
        yield interval.text, ()


def _from_log(run: Run) -> Said:
    for interval in _stretches(run, "from_log"):
        yield f"the run file was gone with its pod: {interval.text}", ()


def _undecided(run: Run) -> Said:
    if not run.cut and run.in_flight.n.any():
        yield f"{run.in_flight.n.sum():,} rows never got an outcome", _lanes(run, run.in_flight.series.tolist())


def _unsent(run: Run) -> Said:
    rows = run.counts
    unsent, planned = _by_lane(run, rows.outcome == Outcome.UNSENT), _by_lane(run, rows.outcome >= 0)
    lanes = tuple(lane for lane, n in unsent.items() if n)
    if not lanes:
        return
    causes = run.unsent.sum(axis=0)
    why = ", ".join(f"{causes[c]:,} {c.label} ({UNSENT_HELP[c]})" for c in UnsentCause if causes[c])
    shares = ", ".join(_part(lane, unsent[lane], planned[lane]) for lane in lanes)
    text = f"{sum(unsent.values()):,} rows were due and never sent, this prober's own fault: {shares}"
    yield f"{text}; by cause: {why}" if why else text, lanes


def _own_drops(run: Run) -> Said:
    drops = run.counters[:, Counter.OWN_DROPS]
    if drops.any():
        text = f"{drops.sum():,} replies were dropped because our own receive buffer was full; they count as timeouts"
        text += ": up to that many were no loss"
        when = sorted((i.from_ns, i.to_ns) for i in run.intervals if i.kind == "own_drops")
        if when:
            shown = ", ".join(f"{from_ns / NS:+.0f} to {to_ns / NS:+.0f} s" for from_ns, to_ns in when[:NAMED])
            text += f"; when: {shown}" + (f" and {len(when) - NAMED} times more" if len(when) > NAMED else "")
        yield text, _lanes(run, np.flatnonzero(drops).tolist())


def _lab_dropped(run: Run) -> Said:
    seconds = sum(mark.kind == "lab_dropped" for mark in run.marks)
    if seconds:
        text = f"in {seconds} s the lab's Service dropped datagrams itself, asked for more than it can carry"
        yield f"{text}: what was lost around them may be no loss", _lanes_to(run, TargetKind.SERVICE)


def _lab_died(run: Run) -> Said:
    for mark in run.marks:
        if mark.kind == "lab_died":
            text = f"the lab ended by itself at {mark.at_ns / NS:+.1f} s: what was lost then is no fault of DNS"
            yield text, _lanes_to(run, TargetKind.SERVICE, TargetKind.POD)


def _few_samples(run: Run) -> Said:
    decided = _by_lane(run, run.counts.outcome != Outcome.UNSENT)
    few = {lane: n for lane, n in decided.items() if n < FEWEST_ROWS}
    if few:
        which = ", ".join(f"{lane} {n}" for lane, n in few.items())
        yield f"too few rows to say anything (under {FEWEST_ROWS}): {which}", tuple(few)


def _intercepted(run: Run) -> Said:
    for text in dict.fromkeys(interval.text for interval in _stretches(run, "intercepted")):
        yield text, tuple(i.subject for i in _stretches(run, "intercepted") if i.text == text)


def _overrun(run: Run) -> Said:
    for interval in _stretches(run, "overrun"):
        yield f"{interval.text}: this prober's own process stood still for too long", ()


def _worker_died(run: Run) -> Said:
    """What it had not decided is undecided, so is what it should have asked."""
    found = {i.text: i.from_ns for i in _stretches(run, "worker_died")}
    for text, from_ns in found.items():
        lanes = tuple(i.subject for i in _stretches(run, "worker_died") if i.text == text)
        yield f"{text} at {from_ns / NS:+.1f} s: what it had to ask of {', '.join(lanes)} then is undecided", lanes


def _throttled(run: Run) -> Said:
    """Which lane's rows they were is not known. Those that were not sent are unsent, and all others left."""
    found = sorted(_stretches(run, "throttled"), key=lambda i: i.from_ns - i.to_ns)
    if found:
        when = ", ".join(f"{i.from_ns / NS:+.1f} s to {i.to_ns / NS:+.1f} s {i.text}" for i in found[:NAMED])
        more = f", and {len(found) - NAMED} more" if len(found) > NAMED else ""
        text = f"this prober was held up, its queries left late or not at all: {when}{more}"
        yield f"{text}: give it a higher CPU limit, or none", ()


def _lag(run: Run) -> Said:
    """Late rows are not counted by lane."""
    lag = quantile_ns(run.lag, 0.99, maximum=run.lag_max_ns or math.inf)
    if lag > LAG_NS:
        text = f"queries left late: 1 % of them {lag / 1e6:.1f} ms or more after they were due (max"
        yield f"{text} {run.lag_max_ns / 1e6:.1f} ms): that much of latency is this prober's own, none of rtt", ()


def _ports_reused(run: Run) -> Said:
    """Only where an address may be translated on the way: a pod is asked directly, and so is this machine."""
    reused = run.counters[:, Counter.PORTS_REUSED] * np.array([_is_translated(s) for s in run.series], np.int64)
    n, sent = _summed(run, reused), _by_lane(run, run.counts.outcome != Outcome.UNSENT)
    lanes = tuple(lane for lane in n if n[lane] and sent[lane])
    if lanes:
        text = "queries that should have come from a new port came from one used towards the same target within"
        text += f" conntrack's 30 s: {', '.join(_part(lane, n[lane], sent[lane]) for lane in lanes)}; they may have met"
        text += " an old entry, even a stale one: a loss among them may be this prober's own making; lower the rate"
        yield text, lanes


def _clock_steps(run: Run) -> Said:
    """The kernel stamps replies by the wall clock; a batch that it stepped in is timed by this process."""
    batches = run.counters[:, Counter.CLOCK_STEPS]
    if batches.any():
        steps = ", ".join(f"{mark.at_ns / NS:+.1f} s" for mark in run.marks if mark.kind == "clock_step")
        text = f"the wall clock was set{f' at {steps}' if steps else ''}: {batches.sum():,} batches of replies were"
        text += " timed when this process read them, not when they came: their latency and rtt are less exact"
        yield text, _lanes(run, np.flatnonzero(batches).tolist())


def _artefact(run: Run) -> Said:
    """A limit of the tool is easily read as a loss of the server's: 100 rows of dnsperf are its -q, not an outage."""
    rows = run.counts
    silent = rows.n * ~np.isin(rows.outcome, [*REPLIED, Outcome.UNSENT])
    by_series = [np.bincount(rows.series, n, len(run.series)).tolist() for n in (silent, rows.n)]
    lost, planned = Tally[tuple[str, str]](), Tally[tuple[str, str]]()
    for s, gone, all_ in zip(run.series, *by_series, strict=True):
        lost[s.channel] += int(gone)
        planned[s.channel] += int(all_)
    which = {s.channel: _limit(run, s, lost[s.channel]) for s in run.series if lost[s.channel] < planned[s.channel]}
    found = [(lane, f"{lane} -> {target} lost {lost[lane, target]:,}, {w}") for (lane, target), w in which.items() if w]
    if found:
        text = "; ".join(text for _, text in found)
        lanes = tuple(dict.fromkeys(lane for lane, _ in found))
        yield f"{text}: a loss of just that size may come from a limit of this prober, or on the way", lanes


def _limit(run: Run, series: Series, n: int) -> str:
    """Which limit is just as large; '' for none."""
    granted = run.head.facts.get("receive_buffer", "")
    if n and n == series.shape.window and series.shape.unbounded:
        return "the most that may be outstanding"
    if n >= FEWEST_PORTS and n == series.ports.count:
        return "one for each source port"
    if granted.isdecimal() and n in [int(granted) // charged for charged in CHARGED]:
        return f"the replies that fit into our receive buffer of {int(granted):,} octets"
    return "a power of two" if n >= ROUND and n & (n - 1) == 0 else ""


def _is_translated(series: Series) -> bool:
    if series.target.kind is TargetKind.SERVER:
        try:
            return not ipaddress.ip_address(series.target.address).is_loopback
        except ValueError:  # in a file that is damaged
            return True
    return series.target.kind is not TargetKind.POD


def _part(lane: str, n: int, of: int) -> str:
    """`vip-udp 3 of 100 (3 %)`."""
    return f"{lane} {n:,} of {of:,} ({100 * n / of:.3g} %)"


def _stretches(run: Run, kind: str) -> list[Interval]:
    return [interval for interval in run.intervals if interval.kind == kind]


def _by_lane(run: Run, rows: NDArray[np.bool_]) -> dict[str, int]:
    """Rows of each lane, in the order in which lanes joined."""
    return _summed(run, np.bincount(run.counts.series[rows], run.counts.n[rows], minlength=len(run.series)))


def _summed(run: Run, of_series: NDArray[np.int64] | NDArray[np.float64]) -> dict[str, int]:
    """What each series has, by lane."""
    found: dict[str, int] = {}
    for s in run.series:
        found[s.lane] = found.get(s.lane, 0) + int(of_series[s.index])
    return found


def _lanes_to(run: Run, *kinds: TargetKind) -> Lanes:
    return _lanes(run, [s.index for s in run.series if s.target.kind in kinds])


def _lanes(run: Run, series: Iterable[int]) -> Lanes:
    return tuple(dict.fromkeys(run.series[index].lane for index in sorted(series)))


DOUBTS: dict[str, Kind] = {
    "cut": Kind("the run ended early: what came after was not seen", True, _cut),
    "unfinished": Kind("steps were not taken when the run ended, or what they await had not come", True, _unfinished),
    "shard_missing": Kind("a merged run lacks a shard: its rows are undecided", True, _shard_missing),
    "from_log": Kind("a run file was gone: totals and windows are from the pod's log", False, _from_log),
    "undecided": Kind("rows never got an outcome", True, _undecided),
    "unsent": Kind("rows were due and never sent, with their cause", True, _unsent),
    "own_drops": Kind("our own receive buffer was full: so many timeouts may be no loss", False, _own_drops),
    "lab_dropped": Kind("the lab's Service was asked for more than it can carry", False, _lab_dropped),
    "lab_died": Kind("the lab ended by itself", False, _lab_died),
    "few_samples": Kind(f"a lane has under {FEWEST_ROWS} rows", True, _few_samples),
    "intercepted": Kind("somebody on the way answers in place of those who are asked", True, _intercepted),
    "overrun": Kind("counts were overwritten before they were read", True, _overrun),
    "worker_died": Kind("a worker process died: its rows from then on are undecided", True, _worker_died),
    "throttled": Kind("the cgroup's quota withheld CPU: queries left late, or are `unsent`", False, _throttled),
    "lag": Kind("1 % of the queries left 5 ms or more after they were due: latency is too long", False, _lag),
    "ports_reused": Kind("`fresh` ports came again within conntrack's 30 s: losses may be ours", False, _ports_reused),
    "artefact": Kind("as many rows were lost as a limit of our own is large", False, _artefact),
    "clock_steps": Kind("the wall clock was set: some replies are timed less exactly", False, _clock_steps),
}
