"""A Run -> its disruptions as CSV, a line each, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io

from probe.model import NS
from probe.report.tables import before_text, marks_before
from probe.report.units import plain, rfc3339
from probe.runfile import Run
from probe.timeline import Channel, Window, common
from probe.verdict import spared, verdict_of

HEADS = (
    *("lane", "target", "class", "first_lost", "last_lost", "first_good", "seconds", "resolution_seconds", "planned"),
    *("lost", "lost_at_least", "inferred", "still_open", "others_asked", "others_fine", "shortly_before"),
)


def csv_report(run: Run) -> str:
    """RFC 4180 with \\n; names as in the JSON report; times RFC 3339, first_good empty for one still going on."""
    verdict = verdict_of(run)
    channels = {channel.name: channel for channel in verdict.timeline.channels}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADS)
    for window in verdict.timeline.windows:
        writer.writerow(_row(run, window, channels[window.lane, window.target]))
    return text.getvalue()


def _row(run: Run, w: Window, channel: Channel) -> list[str]:
    start = run.head.started_unix_ns
    may_be = spared(channel, common(channel.counted, ((w.from_ns, w.to_ns),)))
    before = "; ".join(before_text(w, mark) for mark in marks_before(run, w))
    return [
        *(inert(w.lane), inert(w.target), w.outcome.label),
        *(rfc3339(start + w.from_ns), rfc3339(start + w.to_ns - w.resolution_ns)),
        "" if w.still_open else rfc3339(start + w.to_ns),
        *(f"{(w.to_ns - w.from_ns) / NS:.9f}", f"{w.resolution_ns / NS:.9f}"),
        *(str(w.planned), str(w.lost), str(w.lost - may_be), str(w.inferred).lower(), str(w.still_open).lower()),
        *(str(sum(o.asked for o in w.others)), str(sum(o.fine for o in w.others))),
        inert(before),
    ]


def inert(text: str) -> str:
    """Text that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    shown = plain(text)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown
