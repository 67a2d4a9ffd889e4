"""A Verdict -> what it rests on, as tables of texts: disruptions, ends of pods, phases, nodes, surroundings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probe.diagnosis.pods import NEVER
from probe.model import NS, Mark
from probe.outcome import Outcome
from probe.recorder import Duration
from probe.report.ends import End, ends_of
from probe.report.findings import diagnoses_of
from probe.report.nodes import RULE, Node, lagging_zones, nodes_of
from probe.report.scene import channel_text
from probe.report.story import sure_text
from probe.report.text import actual_text
from probe.report.units import between, clock, count, duration, seconds, share, short, since_start
from probe.runfile import Run
from probe.timeline import Channel, Spans, Timeline, Window, common, ranked_ns
from probe.verdict import Verdict, spared

SHOWN = 200
"""Rows of a table that could be endless; CSV and JSON have all of them."""
CAUSES_SHOWN = 40
MARKS_BEFORE = 3
NEAR_NS = 60 * NS
"""A mark is near a disruption if it came so shortly before."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of as many cells as there are heads; `aligned` has < or > for each; note: what to know, '' for nothing.

    spans: which part of the picture each row is about, [from, to] in ms of unix time; none if they are about no part.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    aligned: str
    note: str = ""
    spans: Sequence[tuple[float, float]] = ()


def tables_of(verdict: Verdict) -> list[Table]:
    """Those that have rows, in the order in which people need them."""
    run = verdict.timeline.run
    found = [
        disruptions(verdict),
        causes(run),
        pods_ends(run),
        phases(verdict.timeline),
        lanes(verdict.timeline),
        nodes(run),
        objectives(verdict),
        happened(run),
        doubts(verdict),
        surroundings(run),
    ]
    return [table for table in found if table.rows]


def disruptions(verdict: Verdict) -> Table:
    """The windows, in the order in which they began; the longest ones, if there are too many."""
    timeline = verdict.timeline
    kept = sorted(timeline.windows, key=lambda w: w.from_ns - w.to_ns)[:SHOWN]
    start = timeline.run.head.started_unix_ns
    why = {w: sure_text(diagnosis) for diagnosis in diagnoses_of(timeline.run) for w in diagnosis.windows}
    kept.sort(key=lambda w: w.from_ns)
    rows = []
    for w in kept:
        last_ns = w.to_ns - w.resolution_ns
        rows.append(
            (
                channel_text(w.lane, w.target, 80),
                f"{clock(start + w.from_ns)} ({since_start(w.from_ns)})",
                clock(start + last_ns),
                "not until the end" if w.still_open else clock(start + w.to_ns),
                f"{seconds(w.to_ns - w.from_ns)} ± {duration(w.resolution_ns)}",
                lost_of(timeline, w),
                f"{w.outcome.label}{' (by what others heard)' if w.inferred else ''}",
                why.get(w, "-"),
                elsewhere(w),
                "; ".join(before_text(w, m) for m in marks_before(timeline.run, w)) or "-",
            )
        )
    more = len(timeline.windows) - len(kept)
    note = (
        "All times UTC. A click on a row shows it in the picture. First good: when the next query was due, a good one."
    )
    note += f" {count(more)} shorter ones are not shown: --csv has all of them." if more else ""
    heads = (
        *("lane → target", "first lost", "last lost", "first good", "length", "lost of planned", "class"),
        *("cause", "other lanes meanwhile", "shortly before"),
    )
    spans = [_around(timeline, w) for w in kept]
    return Table("Disruptions", heads, rows, "<>>>>><<<<", note, spans)


def _around(timeline: Timeline, w: Window) -> tuple[float, float]:
    """A disruption with as much before and after it, a second at least."""
    more_ns, start = max(w.to_ns - w.from_ns, NS), timeline.run.head.started_unix_ns
    return (start + max(0, w.from_ns - more_ns)) / 1e6, (start + min(timeline.horizon_ns, w.to_ns + more_ns)) / 1e6


def causes(run: Run) -> Table:
    """What each disruption comes from, and what else it may come from."""
    start, found = run.head.started_unix_ns, diagnoses_of(run)
    worst = sorted(found, key=lambda d: -sum(w.lost for w in d.windows))[:CAUSES_SHOWN]
    rows = []
    for d in sorted(worst, key=lambda d: d.from_ns):
        f = d.finding
        others = "; or ".join(f"{short(other.text)} ({other.sure})" for other in d.findings[1:])
        seen = short(f.evidence, 1000) + (f" Or: {others}" if others else "")
        when = f"{clock(start + d.from_ns)} ({since_start(d.from_ns)})"
        told = (sure_text(d), seen, short(f.apart, 500), f.remedy, short(f.source))
        rows.append((when, *told))
    heads = ("from (UTC)", "cause", "what was seen", "what tells it from others", "what to change", "who says so")
    more = len(found) - len(rows)
    note = f"{count(more)} that lost less are not shown: dnsprobe explain has them." if more else ""
    return Table("Causes", heads, rows, ">" + "<" * 5, note)


def lost_of(timeline: Timeline, w: Window) -> str:
    """`101 of 302`; a range where some may be no fault of DNS."""
    channel = next(c for c in timeline.channels if c.name == (w.lane, w.target))
    surely = w.lost - spared(channel, common(channel.counted, ((w.from_ns, w.to_ns),)))
    return f"{between(surely, w.lost, count)} of {count(w.planned)}"


def elsewhere(w: Window) -> str:
    """How the other lanes fared during a disruption."""
    if not w.others:
        return "-"
    if all(o.fine == o.asked for o in w.others):
        return "all fine"
    fine = [short(o.lane) for o in w.others if o.fine == o.asked]
    some = [f"{short(o.lane)} ({o.fine} of {o.asked})" for o in w.others if 0 < o.fine < o.asked]
    none = [short(o.lane) for o in w.others if not o.fine]
    said = [f"fine: {', '.join(fine + some)}"] if fine + some else []
    return "; ".join(said + ([f"disturbed, too: {', '.join(none)}"] if none else []))


def marks_before(run: Run, w: Window) -> list[Mark]:
    """The last few things that happened until a disruption began; only those that are near."""
    near = [m for m in run.marks if w.from_ns - NEAR_NS <= m.at_ns <= w.from_ns + w.resolution_ns]
    return near[-MARKS_BEFORE:]


def before_text(w: Window, mark: Mark) -> str:
    """`pod_deleted coredns-x 0.012 s before`; a step in its own words."""
    ahead_ns = w.from_ns - mark.at_ns
    when = f"{seconds(ahead_ns)} before" if ahead_ns > 0 else "as it began"
    what = mark.text if mark.kind == "step" else f"{mark.kind} {mark.subject}"
    return f"{short(what.strip())} {when}"


def pods_ends(run: Run) -> Table:
    """Of each pod that was told to go, when, and whether it outlived what was sent to it."""
    rows = [
        (
            short(end.life.name),
            clock(run.head.started_unix_ns + end.life.deleted_ns),
            *(_after(end, ns) for ns in (end.life.sigterm_ns, end.life.over_ns, end.life.closed_ns, end.life.gone_ns)),
            *(_after(end, ns) for ns in (end.removed_ns, end.known_ns)),
            margin_text(end),
        )
        for end in ends_of(run)[:SHOWN]
    ]
    heads = (
        *("pod", "deleted (UTC)", "SIGTERM", "lameduck over", "DNS port closed", "gone"),
        *("no ready endpoint", "last proxy knew", "margin"),
    )
    note = (
        "Seconds after its deletion. Margin: from when the last proxy had forgotten the pod (where that was not seen,"
        " from when it was no ready endpoint) to its closed port; below 0 queries were sent to a closed port meanwhile."
    )
    return Table("How pods ended", heads, rows, "<>>>>>>>>", note)


def _after(end: End, ns: int) -> str:
    return "-" if ns == NEVER else f"{(ns - end.life.deleted_ns) / NS:+.3f}"


def margin_text(end: End) -> str:
    """`+1.997 s`; `-` where it was not seen."""
    return "-" if end.margin_ns is None else f"{end.margin_ns / NS:+.3f} s"


def change_of(timeline: Timeline) -> tuple[int, int] | None:
    """From the first step or rollout, else disruption, until these are over, and pods that were told to go are gone."""
    windows = [(w.from_ns, w.to_ns) for w in timeline.windows]
    lives = [end.life for end in ends_of(timeline.run)]
    gone = [
        (life.deleted_ns, ns) for life in lives for ns in (life.closed_ns, life.gone_ns) if ns < timeline.horizon_ns
    ]
    spans = [*timeline.steps, *windows, *gone]
    if not spans:
        return None
    from_ns = min(a for a, _ in (timeline.steps or windows or gone))
    return from_ns, max(from_ns, *(b for _, b in spans))


def phases(timeline: Timeline) -> Table:
    """Each lane and target before, during and after what changed."""
    change = change_of(timeline)
    title, heads = "Before, during, after", ("lane → target", *_thrice("asked", "lost", "p50", "p99"))
    if change is None:
        return Table(title, heads, (), "<" + ">" * 12)
    parts: list[Spans] = [
        tuple(span for span in [span] if span[0] < span[1])
        for span in ((0, change[0]), change, (change[1], timeline.horizon_ns))
    ]
    rows = [
        (channel_text(*c.name, 80), *(cell for part in parts for cell in _phase(timeline, c, part)))
        for c in timeline.channels[:SHOWN]
    ]
    start = timeline.run.head.started_unix_ns
    note = (
        f"During: from {clock(start + change[0])} ({since_start(change[0])}) to {clock(start + change[1])}"
        f" ({since_start(change[1])}), from the first step until it, pods' ends and disruptions were over."
        " Latencies are recorded by 10 s, or 1 s where rows were lost, and belong to each phase such a slice touches."
    )
    return Table(title, heads, rows, "<" + ">" * 12, note)


def _thrice(*names: str) -> tuple[str, ...]:
    return tuple(f"{when}: {name}" for when in ("before", "during", "after") for name in names)


def _phase(timeline: Timeline, channel: Channel, part: Spans) -> tuple[str, str, str, str]:
    loss = channel.loss(part)
    if not loss.asked:
        return "-", "-", "-", "-"
    p50, p99 = (timeline.quantile_ns(channel, Duration.LATENCY, q, part) for q in (0.5, 0.99))
    return count(loss.asked), f"{count(loss.lost)} ({share(loss.share)})", duration(p50), duration(p99)


def lanes(timeline: Timeline) -> Table:
    """What each lane asked each target, in all."""
    rows = []
    for c in timeline.channels[:SHOWN]:
        loss = c.loss()
        surely = loss.lost - spared(c)
        quantiles = (timeline.quantile_ns(c, Duration.LATENCY, q) for q in (0.5, 0.99, 1))
        counts = (count(loss.planned), count(loss.good), between(surely, loss.lost, count), share(loss.share))
        unsent = (count(loss.unsent), count(loss.in_flight))
        rows.append(
            (channel_text(*c.name, 80), f"{c.transport} {c.ports}", *counts, *unsent, *map(duration, quantiles))
        )
    heads = (
        *("lane → target", "how", "planned", "good", "lost", "share", "unsent", "undecided"),
        *("p50", "p99", "max"),
    )
    note = (
        "A pod counts from Ready to deletion. p50, p99, max: from when a query was due to its good reply; never: lost."
    )
    return Table("Lanes", heads, rows, "<<>>>>>>>>>", note)


def nodes(run: Run) -> Table:
    """Of a merged run, what each node lost of each lane and target."""
    found = nodes_of(run)
    channels = list(dict.fromkeys(channel for node in found for channel in node.seen))
    lossy = [c for c in channels if any(c in node.seen and node.seen[c].lost for node in found)]
    rows = [
        (
            short(node.name),
            short(node.zone),
            *(_seen(node, channel) for channel in lossy),
            seconds(node.longest_ns) if node.longest_ns else "-",
            "yes" if node.lags else "",
        )
        for node in found[:SHOWN]
    ]
    zones = lagging_zones(found)
    note = f"Lost of asked, and the longest disruption. {RULE[0].upper()}{RULE[1:]}."
    note += f" Zones that lag: {', '.join(map(short, zones))}." if zones else ""
    heads = ("node", "zone", *(channel_text(*c, 80) for c in lossy), "longest", "lags")
    return Table("Nodes", heads, rows, "<<" + ">" * (len(lossy) + 1) + "<", note)


def _seen(node: Node, channel: tuple[str, str]) -> str:
    if channel not in node.seen:
        return "-"
    seen = node.seen[channel]
    longest = max((w.to_ns - w.from_ns for w in seen.windows), default=0)
    return f"{count(seen.lost)} of {count(seen.good + seen.lost)}" + (f", {seconds(longest)}" if longest else "")


def objectives(verdict: Verdict) -> Table:
    """What had to hold, and whether it did."""
    rows = [
        (
            j.ruling.value,
            short(j.objective.text),
            actual_text(j),
            channel_text(j.lane, j.target, 80) if j.lane else "-",
            short(j.why, 1000),
        )
        for j in verdict.objectives
    ]
    return Table("Objectives", ("ruling", "objective", "actual", "where", "why"), rows, "<<><<")


def happened(run: Run) -> Table:
    """The marks, the first ones if there are too many."""
    start = run.head.started_unix_ns
    rows = [
        (
            clock(start + m.at_ns),
            since_start(m.at_ns),
            *map(short, (m.source, m.kind, m.subject)),
            short(m.text, 500),
        )
        for m in run.marks[: 5 * SHOWN]
    ]
    more = len(run.marks) - len(rows)
    note = f"{count(more)} later ones are not shown: --json has all of them." if more else ""
    return Table(
        "What happened", ("UTC", "since start", "who says so", "what", "whom", "details"), rows, ">><<<<", note
    )


def doubts(verdict: Verdict) -> Table:
    """What this prober did wrong itself."""
    rows = [
        (d.id, short(d.text, 2000), ", ".join(map(short, d.lanes)) or "all", "yes" if d.hides_loss else "")
        for d in verdict.doubts
    ]
    return Table("What to doubt", ("doubt", "why", "lanes", "could hide a loss"), rows, "<<<<")


def surroundings(run: Run) -> Table:
    """What the run was made with and against."""
    facts = {"run": run.head.name, "command": run.head.command, "dnsprobe": run.version, **run.head.facts}
    if run.lag.any():
        p99 = ranked_ns(run.lag, run.lag_max_ns, 0.99)
        facts["schedule lag"] = f"p99 {duration(p99)}, max {duration(run.lag_max_ns)} (from due to sent)"
    bad = int(run.counts.n[(run.counts.good == 0) & (run.counts.outcome != Outcome.UNSENT)].sum())
    if bad:
        facts["failures"] = f"{count(len(run.failures))} of {count(bad)} are in the run file one by one"
    rows = [(short(name), short(value, 2000)) for name, value in facts.items() if value]
    return Table("Made with", ("what", "value"), rows, "<<")
