"""A Verdict -> its five answers in a sentence or two each: the verdict, what was lost, when, why, what to change."""

from __future__ import annotations

from dataclasses import dataclass

from probe.report.ends import ends_of
from probe.report.scene import channel_text, judged_channels, short
from probe.report.tables import before_text, marks_before
from probe.report.text import headline
from probe.report.units import between, clock, count, seconds, share, since_start
from probe.timeline import Timeline, joined
from probe.verdict import Ruling, Verdict, spared

NAMED = 4
"""Lanes, disruptions and causes that are named; the tables have all."""


@dataclass(frozen=True, slots=True)
class Story:
    """ruling: one word. headline: the text report's first line without it. The rest: sentences, each a line."""

    ruling: Ruling
    headline: str
    lost: tuple[str, ...]
    when: tuple[str, ...]
    why: tuple[str, ...]
    change: tuple[str, ...]


def story_of(verdict: Verdict) -> Story:
    """What people ask first."""
    first = headline(verdict)
    return Story(
        verdict.ruling,
        first.partition(": ")[2].replace(" -> ", " → "),
        _lost(verdict),
        _when(verdict.timeline),
        _why(verdict),
        _change(verdict),
    )


def _lost(verdict: Verdict) -> tuple[str, ...]:
    channels = judged_channels(verdict)
    losses = [(c, c.loss()) for c in channels]
    lossy = sorted((pair for pair in losses if pair[1].lost), key=lambda pair: -pair[1].lost)
    asked = sum(loss.asked for _, loss in losses)
    if not lossy:
        return (f"None of {count(asked)} queries that objectives are about.",)
    said = []
    for c, loss in lossy[:NAMED]:
        surely = loss.lost - spared(c)
        part = between(surely / loss.asked, loss.share, share)
        said.append(f"{channel_text(*c.name)}: {between(surely, loss.lost, count)} of {count(loss.asked)} ({part})")
    if len(lossy) > NAMED:
        said.append(f"and some of {count(len(lossy) - NAMED)} other lanes and targets")
    if fine := len(losses) - len(lossy):
        said.append(f"{count(fine)} of {count(len(losses))} lanes and targets lost nothing")
    return tuple(said)


def _when(timeline: Timeline) -> tuple[str, ...]:
    """Disruptions of several lanes at a time are one."""
    start = timeline.run.head.started_unix_ns
    if not timeline.windows:
        return ("Never.",)
    spans = joined((w.from_ns, w.to_ns) for w in timeline.windows)
    longest = sorted(sorted(spans, key=lambda span: span[0] - span[1])[:NAMED])
    said = []
    for from_ns, to_ns in longest:
        those = [w for w in timeline.windows if w.from_ns < to_ns and w.to_ns > from_ns]
        on = (
            f"{count(len(those))} lanes and targets" if len(those) > 1 else channel_text(those[0].lane, those[0].target)
        )
        times = f"{clock(start + from_ns)} to {clock(start + to_ns)} UTC ({since_start(from_ns)})"
        said.append(f"{seconds(to_ns - from_ns)}: {times}, on {on}")
    if len(spans) > NAMED:
        said.append(f"and {count(len(spans) - NAMED)} shorter times")
    return tuple(said)


def _why(verdict: Verdict) -> tuple[str, ...]:
    timeline = verdict.timeline
    windows = timeline.windows
    said = []
    ends = [end for end in ends_of(timeline.run) if end.margin_ns is not None]
    late = sorted((end for end in ends if (end.margin_ns or 0) < 0), key=lambda end: end.margin_ns or 0)
    if late:
        early = f"{seconds(-(late[0].margin_ns or 0))} before the last proxy had forgotten it"
        more = f"; so did {count(len(late) - 1)} more" if len(late) > 1 else ""
        said.append(f"{short(late[0].pod)} closed its port {early}{more}")
    if ends and not late:
        least = min(end.margin_ns or 0 for end in ends)
        pods = "the pod" if len(ends) == 1 else f"each of {count(len(ends))} pods"
        said.append(f"{pods} that went answered for {seconds(least)} or more after the last proxy had forgotten it")
    if windows and not late:
        worst = max(windows, key=lambda w: w.to_ns - w.from_ns)
        said += [before_text(worst, mark) for mark in marks_before(timeline.run, worst)]
    said += [short(d.text.partition(":")[0], 300) for d in verdict.doubts][: NAMED - 1]
    return tuple(said) or ("Nothing happened, and this prober asked on time.",)


def _change(verdict: Verdict) -> tuple[str, ...]:
    if verdict.ruling is Ruling.PASS:
        return ("Nothing.",)
    return ("See the disruptions below.",)
