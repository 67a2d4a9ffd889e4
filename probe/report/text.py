"""A Run -> a page of plain text for people; its first line says whether it hurt, how much and when."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from probe.model import NS
from probe.outcome import REPLIED, Counter, Outcome
from probe.recorder import Duration
from probe.report.clients import clients_text
from probe.report.columns import NO_BREAK, Row
from probe.report.columns import table as _table
from probe.report.columns import wrapped as _wrapped
from probe.report.findings import beside, diagnoses_of
from probe.report.load import load_text
from probe.report.nodes import nodes_text
from probe.report.others import others_text
from probe.report.units import between, clock, count, date, duration, plain, seconds, share, short, since_start
from probe.runfile import STRETCH, Run
from probe.timeline import Channel, Elsewhere, Timeline, Window, common, ranked_ns
from probe.verdict import MEASURES, Judged, Ruling, Verdict, spared, verdict_of

WINDOWS_SHOWN = 40
"""More windows than this are shown by length; JSON has them all."""

NAME = 60
"""Characters of a lane's or a target's name, or of a fact's."""

MARK = 200
"""Characters of what a mark says; JSON has all of them."""

OCTETS = (Counter.SENT_OCTETS, Counter.RECEIVED_OCTETS)
"""Counters that are no rows: JSON has them."""

SERVERS_NAMED = 4
"""Of more servers than this that answered a lane, those that answered most; JSON has them all."""


def text_report(run: Run) -> str:
    """About 110 columns of printable characters, ends with a newline."""
    verdict = verdict_of(run)
    timeline = verdict.timeline
    parts = [
        [headline(verdict), *_about(run)],
        ["OBJECTIVES", *_objectives(verdict.objectives)],
        ["LANES", *_lanes(timeline)],
        *([["NODES", *told]] if (told := nodes_text(run)) else []),
        ["DISRUPTIONS", *_windows(timeline)],
        *([["WHAT CLIENTS FELT", *felt]] if (felt := clients_text(timeline)) else []),
        ["WHAT HAPPENED", *_marks(run)],
        *([["WHAT OTHERS COUNTED", *others]] if (others := others_text(run)) else []),
        ["WHAT TO DOUBT", *_doubts(verdict)],
        ["MADE WITH", *_facts(run)],
    ]
    return "\n\n".join("\n".join(line.rstrip() for line in part) for part in parts) + "\n"


def headline(verdict: Verdict) -> str:
    """One line however long it is: the first thing people read, and what a search finds."""
    timeline = verdict.timeline
    judged = [c for c in timeline.channels if any(j.objective.covers(c.lane) for j in verdict.objectives)]
    channels = judged or list(timeline.channels)
    losses = [c.loss() for c in channels]
    lost, asked = sum(loss.lost for loss in losses), sum(loss.asked for loss in losses)
    surely = lost - sum(spared(c) for c in channels)
    text = f"none of {count(asked)} queries was lost in {timeline.run.end_ns / NS:,.1f} s"
    if lost:
        worst = _worst(timeline, channels)
        fate = "not answered as expected" if worst.outcome in REPLIED else "lost"
        text = f"{between(surely, lost, count)} of {count(asked)} queries {fate}"
        text += f" ({between(surely / asked, lost / asked, share)}), {_at_worst(timeline, worst)}"
    if verdict.ruling is Ruling.INCONCLUSIVE:
        return f"{verdict.ruling}: {text}, but {_reason(verdict)}"
    if verdict.ruling is Ruling.FAIL and not lost:
        missed = next(j for j in verdict.objectives if j.ruling is Ruling.FAIL)
        return f"{verdict.ruling}: {text}, but {plain(missed.objective.text)} was missed: {actual_text(missed)}"
    if verdict.ruling is Ruling.PASS and lost:  # a person's own objectives may bear any loss
        return f"{verdict.ruling}: {text}; met: {', '.join(plain(j.objective.text) for j in verdict.objectives)}"
    return f"{verdict.ruling}: {'it hurt: ' if lost and verdict.ruling is Ruling.FAIL else ''}{text}"


def _worst(timeline: Timeline, channels: Sequence[Channel]) -> Window:
    """The longest window of some channels."""
    names = {c.name for c in channels}
    windows = [w for w in timeline.windows if (w.lane, w.target) in names]
    return max(windows, key=lambda w: (w.to_ns - w.from_ns, not w.inferred))


def _at_worst(timeline: Timeline, w: Window) -> str:
    at = f"{clock(timeline.run.head.started_unix_ns + w.from_ns)} UTC ({since_start(w.from_ns)})"
    return f"at worst for {seconds(w.to_ns - w.from_ns)} from {at}: {_channel(w)}, {w.outcome.label}"


def _reason(verdict: Verdict) -> str:
    """In a few words why an objective has no answer."""
    why = (j.why for j in verdict.objectives if j.ruling is Ruling.INCONCLUSIVE)
    return plain(re.split("[:;]", next(why, "there was no objective"))[0])


def _about(run: Run) -> list[str]:
    head = run.head
    lines = [f"{short(head.name)}: {run.end_ns / NS:,.1f} s from {date(head.started_unix_ns)}"]
    if STRETCH in head.facts:
        lines += _wrapped(plain(head.facts[STRETCH]))
    if run.cut:
        lines += _wrapped(f"CUT SHORT: {plain(run.cut)} (planned: {head.planned_ns / NS:,.1f} s)")
    if run.ended:
        lines += _wrapped(f"ended: {plain(run.ended)} (at most: {head.planned_ns / NS:,.1f} s)")
    if head.command:
        lines.append(short(head.command, 1000))
    if load := load_text(run.series):
        lines += _wrapped(f"load on each target: {load}", 0, 2)
    return lines


def _objectives(objectives: Sequence[Judged]) -> list[str]:
    """A line each; a reason that several in a row share is said once, after the last of them."""
    rows: list[Row] = []
    for j in objectives:
        state = {Ruling.PASS: "met", Ruling.FAIL: "MISSED", Ruling.INCONCLUSIVE: "UNKNOWN"}[j.ruling]
        who = f"{j.lane} -> {j.target}" if j.lane else ""
        rows.append((state, plain(j.objective.text), actual_text(j), plain(who)))
    found: list[str] = []
    for i, line in enumerate(_table(rows, "<<><")):
        why, after = objectives[i].why, objectives[i + 1].why if i + 1 < len(objectives) else ""
        found += [line, *(_wrapped(plain(why), 11) if why != after else [])]
    return found or ["  none"]


def actual_text(judged: Judged) -> str:
    """What an objective was measured as: as counted; a range where lost rows may be no fault of DNS."""
    if MEASURES[judged.objective.measure].unit == "%":
        return between(judged.at_best, judged.actual, share)
    return between(judged.at_best * NS, judged.actual * NS, duration)


def _lanes(timeline: Timeline) -> list[str]:
    missed = any(c.loss().unsent for c in timeline.channels)
    head = ("lane -> target", "", "planned", "unsent" if missed else "", "good", "lost", "share", "p50", "p99", "max")
    rows: list[Row] = [head]
    for c in timeline.channels:
        loss = c.loss()
        quantiles = (timeline.quantile_ns(c, Duration.LATENCY, q) for q in (0.5, 0.99, 1))
        unsent = count(loss.unsent) if missed else ""
        surely = loss.lost - spared(c)
        lost = between(surely, loss.lost, count)
        part = between(surely / loss.asked, loss.share, share) if loss.asked else share(loss.share)
        numbers = (count(loss.planned), unsent, count(loss.good), lost, part)
        rows.append((_channel(c), f"{c.transport} {c.ports}", *numbers, *map(duration, quantiles)))
    head_line, *of_channels = _table(rows, "<<>>>>>>>>")
    lines = [head_line]
    for c, line in zip(timeline.channels, of_channels, strict=True):
        lines += [line, *_wrapped(_answered_by(timeline.run, c), 6, 8)]
    lines.append("  p50, p99, max: from when a query was due to its good reply; never: that row was lost")
    if any(spared(c) for c in timeline.channels):
        lines.append(
            "  lost: from what certainly was to what looks so, for some may be no fault of DNS: see the doubts"
        )
    planned = sum(c.whole.planned for c in timeline.channels)
    beside = planned - sum(c.loss().planned for c in timeline.channels)
    if beside > 0:
        lines.append(f"  pods count from Ready to deletion: {count(beside)} rows outside of that are not shown here")
    return [*lines, *_wrapped(_totals(timeline, planned), 2)]


def _answered_by(run: Run, channel: Channel) -> str:
    """Who named itself in how many of all replies, '' if nobody did."""
    mine = [s.index for s in run.series if s.channel == channel.name]
    named = {nsid: int(by.n[mine].sum()) for nsid, by in run.servers.items() if by.n[mine].any()}
    if not named:
        return ""
    rows = run.counts
    replies = int(rows.n[np.isin(rows.series, mine) & np.isin(rows.outcome, [*REPLIED])].sum())
    nameless = max(0, replies - sum(named.values()))
    ranked = sorted(named.items(), key=lambda server: -server[1])
    told = [(plain(nsid), n) for nsid, n in ranked[:SERVERS_NAMED]]
    rest = [n for _, n in ranked[SERVERS_NAMED:]]
    told += [(f"{len(rest)} more", sum(rest)), ("without a name", nameless)]
    whole = sum(n for _, n in told)
    return "answered by: " + ", ".join(f"{who} {share(n / whole)}".replace(" ", NO_BREAK) for who, n in told if n)


def _totals(timeline: Timeline, planned: int) -> str:
    run, rows = timeline.run, timeline.run.counts
    outcomes = {o: int(rows.n[rows.outcome == o].sum()) for o in Outcome}
    said = [f"{count(n)}{NO_BREAK}{o.label}" for o, n in outcomes.items() if n]
    undecided = int(run.in_flight.n.sum())
    said += [f"{count(undecided)} in flight"] if undecided else []
    text = f"all rows: {count(planned)} planned = {' + '.join(said) or '0'}"
    seen = {Counter(i): int(n) for i, n in enumerate(run.counters.sum(axis=0)) if n and i not in OCTETS}
    counters = [f"{count(n)}{NO_BREAK}{counter.label}" for counter, n in seen.items()]
    return f"{text}; beside these: {', '.join(counters)}" if counters else text


def _windows(timeline: Timeline) -> list[str]:
    """A line each, with what else is known of it; what explains several is said beside the first of them."""
    windows = timeline.windows
    if not windows:
        return ["  none"]
    shown = sorted(windows, key=lambda w: w.from_ns - w.to_ns)[:WINDOWS_SHOWN]
    start = timeline.run.head.started_unix_ns
    rows: list[Row] = [("from", "(UTC)", "to (UTC)", "length", "lost of planned", "class", "lane -> target")]
    kept = [w for w in windows if w in shown]
    channels = {c.name: c for c in timeline.channels}
    for w in kept:
        length = f"{seconds(w.to_ns - w.from_ns)} (to {duration(w.resolution_ns)})"
        channel = channels[w.lane, w.target]
        surely = w.lost - spared(channel, common(channel.counted, ((w.from_ns, w.to_ns),)))
        lost = f"{between(surely, w.lost, count)} of {count(w.planned)}"
        times = (since_start(w.from_ns), clock(start + w.from_ns), clock(start + w.to_ns))
        rows.append((*times, length, lost, w.outcome.label, _channel(w)))
    head, *lines = _table(rows, ">>>>><<")
    found = [head]
    causes = beside(diagnoses_of(timeline.run), kept)
    for w, line in zip(kept, lines, strict=True):
        found += [line, *_wrapped(_beside(w, channels[w.lane, w.target]), 13), *_wrapped(plain(causes.get(w, "")), 13)]
    if len(windows) > len(shown):
        found.append(f"  ... and {count(len(windows) - len(shown))} shorter ones: the JSON report has them all")
    return found


def _beside(w: Window, channel: Channel) -> str:
    """What else is known about a window."""
    said = []
    if w.outcome is Outcome.CONNECTION_REFUSED and not (w.inferred or channel.loss().good):
        said.append(f"refused from first to last: nobody listens at {plain(str(channel.target))}")
    if w.inferred:
        said.append("refused, by what other lanes heard: this one got no refusal itself (the kernel limits them)")
    if w.still_open:
        said.append("still going on when the run ended")
    if w.outcome is Outcome.TRUNCATED:
        said.append("the answer does not fit into a datagram: ask by TCP")
    elif w.outcome in REPLIED and w.lost == w.planned:
        said.append(f"every answer was {w.outcome.label}: check the names, and what is expected of them")
    fine = [o for o in w.others if o.fine]
    if fine and all(o.fine == o.asked for o in w.others):
        said.append("every other lane was fine")
    elif fine:
        said.append("fine meanwhile: " + ", ".join(_fine(o) for o in fine))
    elif w.others:
        said.append("no other lane was fine")
    return "; ".join(said)


def _marks(run: Run) -> list[str]:
    if not run.marks:
        return ["  nothing was marked"]
    start = run.head.started_unix_ns
    lines = _table([(since_start(m.at_ns), clock(start + m.at_ns), plain(m.source), plain(m.kind)) for m in run.marks],
                   ">><<")  # fmt: skip
    width = max(map(len, lines)) + 2
    told: list[str] = []
    for m, line in zip(run.marks, lines, strict=True):
        first, *more = [*_wrapped(short(_of(m.subject, m.text), MARK), width), ""]
        told += [f"{line:{width}}{first[width:]}", *filter(None, more)]
    return told


def _of(subject: str, text: str) -> str:
    return f"{subject}: {text}" if subject and subject not in text else text


def _doubts(verdict: Verdict) -> list[str]:
    if not verdict.doubts:
        return ["  nothing: every query was sent on time and decided"]
    return [line for d in verdict.doubts for line in _wrapped(f"- {plain(d.text)}", 2, 4)]


def _facts(run: Run) -> list[str]:
    facts = {"run file": str(run.path), "dnsprobe": run.version, **run.head.facts}
    if run.lag.any():
        p99, longest = ranked_ns(run.lag, run.lag_max_ns, 0.99), run.lag_max_ns
        facts["schedule lag"] = f"p99 {duration(p99)}, max {duration(longest)} (from due to sent)"
    if run.failures:
        bad = int(run.counts.n[(run.counts.good == 0) & (run.counts.outcome != Outcome.UNSENT)].sum())
        facts["failures"] = f"{count(len(run.failures))} of {count(bad)} kept exactly in the run file, the rest counted"
    told = [(short(name, NAME), short(value, 2000)) for name, value in facts.items()]
    width = max(len(name) for name, _ in told)
    return [line for name, value in told for line in _wrapped(f"{name:{width}}  {value}", 2, width + 4)]


def _channel(of: Channel | Window) -> str:
    target = of.target if isinstance(of, Window) else of.target.name
    return f"{short(of.lane, NAME)} -> {short(target, NAME)}"


def _fine(of: Elsewhere) -> str:
    lane = plain(of.lane)
    return lane if of.fine == of.asked else f"{lane} ({count(of.fine)} of {count(of.asked)} targets)"
