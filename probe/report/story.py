"""A Verdict -> its five answers in a sentence or two each: the verdict, what was lost, when, why, what to change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probe.diagnosis import Diagnosis
from probe.model import BUCKET_NS, Sure
from probe.report.ends import End, ends_of
from probe.report.findings import diagnoses_of
from probe.report.scene import channel_text, judged_channels
from probe.report.text import headline
from probe.report.units import between, clock, count, seconds, share, short, since_start
from probe.timeline import Spans, Timeline, inside, joined
from probe.verdict import Ruling, Verdict, spared

NAMED = 4
"""Lanes and disruptions that are named; the tables have all."""
CAUSES = 2
"""Causes that are named, those of most losses."""


@dataclass(frozen=True, slots=True)
class Story:
    """ruling: one word. headline: the text report's first line without it. The rest: sentences, each a line.

    change: remedies, of several lines each, to be pasted.
    """

    ruling: Ruling
    headline: str
    lost: tuple[str, ...]
    when: tuple[str, ...]
    why: tuple[str, ...]
    change: tuple[str, ...]


def story_of(verdict: Verdict) -> Story:
    """What people ask first."""
    timeline = verdict.timeline
    told = headline(verdict).partition(": ")[2].replace(" -> ", " → ")
    found = sorted(diagnoses_of(timeline.run), key=lambda d: -sum(w.lost for w in d.windows))[:CAUSES]
    return Story(verdict.ruling, told, _lost(verdict), _when(timeline), _why(verdict, found), _change(verdict, found))


def _lost(verdict: Verdict) -> tuple[str, ...]:
    losses = [(c, c.loss()) for c in judged_channels(verdict)]
    lossy = sorted((pair for pair in losses if pair[1].lost), key=lambda pair: -pair[1].lost)
    asked, unsent = (sum(getattr(loss, what) for _, loss in losses) for what in ("asked", "unsent"))
    unknown = (f"{count(unsent)} more were due and never sent: nobody knows.",) if unsent else ()
    if not lossy:
        return (f"Nothing, of {count(asked)} queries.", *unknown)
    said = []
    for c, loss in lossy[:NAMED]:
        surely = loss.lost - spared(c)
        part = between(surely / loss.asked, loss.share, share)
        said.append(f"{channel_text(*c.name)}: {between(surely, loss.lost, count)} of {count(loss.asked)} ({part})")
    if len(lossy) > NAMED:
        said.append(f"and some of {count(len(lossy) - NAMED)} other lanes and targets")
    if fine := len(losses) - len(lossy):
        said.append(f"{count(fine)} of {count(len(losses))} lanes and targets lost nothing")
    return (*said, *unknown)


def _when(timeline: Timeline) -> tuple[str, ...]:
    """Disruptions of several lanes at a time are one."""
    start = timeline.run.head.started_unix_ns
    blind = sorted(_blind(timeline), key=lambda span: span[0] - span[1])
    unknown = [
        f"{seconds(b - a)} unknown: {clock(start + a)} to {clock(start + b)} UTC, not sent" for a, b in blind[:1]
    ]
    if not timeline.windows:
        return (f"Never, in {seconds(timeline.horizon_ns)} from {clock(start)} UTC.", *unknown)
    spans = joined((w.from_ns, w.to_ns) for w in timeline.windows)
    said = []
    for from_ns, to_ns in sorted(sorted(spans, key=lambda span: span[0] - span[1])[:NAMED]):
        those = [w for w in timeline.windows if w.from_ns < to_ns and w.to_ns > from_ns]
        one = channel_text(those[0].lane, those[0].target)
        on = f"{count(len(those))} lanes and targets" if len(those) > 1 else one
        times = f"{clock(start + from_ns)} to {clock(start + to_ns)} UTC ({since_start(from_ns)})"
        said.append(f"{seconds(to_ns - from_ns)}: {times}, on {on}")
    if len(spans) > NAMED:
        said.append(f"and {count(len(spans) - NAMED)} shorter times")
    return (*said, *unknown)


def _blind(timeline: Timeline) -> Spans:
    """When rows were due that count and were not sent, to 100 ms."""
    those = (c.unsent_ns[inside(c.unsent_ns, c.counted)].tolist() for c in timeline.channels)
    return joined((ns, ns + BUCKET_NS) for some in those for ns in some)


def sure_text(diagnosis: Diagnosis) -> str:
    """`pods close the moment they are told to (certain)`."""
    finding = diagnosis.finding
    sure = f" ({finding.sure})" if finding.sure and finding.sure is not Sure.UNDETERMINED else ""
    return f"{short(finding.text, 300)}{sure}"


def _why(verdict: Verdict, found: Sequence[Diagnosis]) -> tuple[str, ...]:
    said = [sure_text(diagnosis) for diagnosis in found]
    said += _margins(ends_of(verdict.timeline.run))
    if not any(diagnosis.windows for diagnosis in found) and verdict.ruling is not Ruling.PASS:
        said += [short(why, 300) for why in dict.fromkeys(j.why for j in verdict.objectives) if why]
    return tuple(dict.fromkeys(said)) or ("Nothing was lost, and this prober asked on time.",)


def _margins(ends: Sequence[End]) -> list[str]:
    """How the pods that went and the proxies that had to forget them were in step."""
    seen = sorted((end.margin_ns, end.life.name) for end in ends if end.margin_ns is not None)
    if not seen:
        return []
    margin_ns, pod = seen[0]
    if margin_ns >= 0:
        pods = "the pod that went" if len(seen) == 1 else f"each of {count(len(seen))} pods that went"
        return [f"{pods} answered for {seconds(margin_ns)} or more after the Service had forgotten it"]
    others = sum(other < 0 for other, _ in seen) - 1
    more = f"; so did {count(others)} more" if others else ""
    return [f"{short(pod)} closed its port {seconds(-margin_ns)} before the Service had forgotten it{more}"]


def _change(verdict: Verdict, found: Sequence[Diagnosis]) -> tuple[str, ...]:
    """Of several causes, each remedy once."""
    remedies = tuple(dict.fromkeys(d.finding.remedy for d in found if d.finding.remedy))
    return remedies or (("Nothing.",) if verdict.ruling is Ruling.PASS else ("No cause was found: see the tables.",))
