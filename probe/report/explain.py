"""A Run and its Diagnoses -> the cause of each disruption for people, as text or JSON; and what a message means."""

from __future__ import annotations

import json
from collections.abc import Sequence

from probe.diagnosis import Diagnosis
from probe.diagnosis.evidence import INSTANCES, capture_filter, failures_in, nodes_of, ticket
from probe.diagnosis.messages import Meaning
from probe.diagnosis.querylog import Logged, matched
from probe.report.columns import wrapped
from probe.report.findings import diagnosis_json
from probe.report.units import clock, count, plain, seconds, since_start
from probe.runfile import Run

FITS_TOO = 3
"""So many other causes are named that would fit as well."""


def explain_text(run: Run, found: Sequence[Diagnosis], log: Sequence[Logged] | None = None) -> str:
    """A part for each diagnosis, about 110 columns; its first line says the cause. log: CoreDNS's, None for none."""
    if not found:
        return (
            f"{plain(run.head.name)}: nothing was lost, nothing is slow, no rollout stands still: nothing to explain\n"
        )
    first = f"{plain(run.head.name)}: {count(len(found))} to explain" if len(found) > 1 else plain(run.head.name)
    parts = [[first], *(_part(run, d, log) for d in found)]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _part(run: Run, d: Diagnosis, log: Sequence[Logged] | None) -> list[str]:
    at = f"{since_start(d.from_ns)} ({clock(run.head.started_unix_ns + d.from_ns)} UTC)"
    lines = list(wrapped(f"{at}, {seconds(d.to_ns - d.from_ns)}: {headline(d)}", 0, 2))
    if d.windows:
        lanes = ", ".join(dict.fromkeys(f"{plain(w.lane)} -> {plain(w.target)}" for w in d.windows))
        lost = sum(w.lost for w in d.windows)
        lines += wrapped(
            f"explains   {count(len(d.windows))} window{'s' * (len(d.windows) > 1)}, {count(lost)} lost: {lanes}", 2, 13
        )
    lines += wrapped(f"seen       {plain(d.finding.evidence)}", 2, 13)
    lines += wrapped(f"tell apart {d.finding.apart}", 2, 13)
    fits = [f"{f.id} ({f.sure}): {f.text}" for f in d.findings[1 : 1 + FITS_TOO]]
    lines += [line for fit in fits for line in wrapped(f"fits too   {fit}", 2, 13)]
    lines += ["  remedy", *(f"    {line}" for line in d.finding.remedy.splitlines())]
    if d.finding.source:
        lines += wrapped(f"source     {d.finding.source}", 2, 13)
    return [*lines, *_for_others(run, d, log)]


def headline(d: Diagnosis) -> str:
    """`certain: nodes learn of a pod's end later than its lameduck lasts: ... [short_lameduck]`."""
    return f"{d.finding.sure}: {d.finding.text} [{d.finding.id}]"


def _for_others(run: Run, d: Diagnosis, log: Sequence[Logged] | None) -> list[str]:
    """What convinces who must be convinced: the capture's filter, the ticket's lines, what CoreDNS logged."""
    failures = failures_in(run, d.windows)
    if not failures:
        return []
    lines = []
    if filter_ := capture_filter(run, failures):
        lines += [
            "  capture    of a capture made meanwhile, the lost queries:",
            f"    tcpdump -nr capture.pcap '{filter_}'",
        ]
    if log is not None:
        lines += wrapped(f"log        {matched(failures, log)}", 2, 13)
    told = ticket(run, failures)
    nodes = (
        ", ".join(map(plain, nodes_of(run))) or "those of `kubectl -n kube-system get pods -l k8s-app=kube-dns -o wide`"
    )
    lines += ["  ticket     domain, type, code, second (UTC)"]
    lines += [f"    {plain(t.domain)}  {plain(t.qtype)}  {t.code}  {t.second}" for t in told]
    return [*lines, f"    nodes: {nodes}; their instances: {INSTANCES}"]


def explain_json(run: Run, found: Sequence[Diagnosis], log: Sequence[Logged] | None = None) -> str:
    """The same for programs: `diagnoses`, each with its findings, the cause first."""
    return json.dumps({"schema_version": 1, "diagnoses": [diagnosis_json(run, d, log) for d in found]}, indent=2) + "\n"


def meaning_text(meaning: Meaning | None, took: float | None) -> str:
    """What a message says of the query, and what to do next."""
    if meaning is None:
        return "no message of a resolver or of CoreDNS that is known here: say it as the application wrote it\n"
    about = " ".join(filter(None, (plain(meaning.name), f"asked of {plain(meaning.server)}" if meaning.server else "")))
    lines = [f"{meaning.client}{f', {about}' if about else ''}: {meaning.text}"]
    if len(meaning.outcomes) > 1:
        how = "say --took, how long the lookup took, to tell them apart" if took is None else f"it took {took:g} s"
        lines.append(f"it can be one of {len(meaning.outcomes)}: {how}")
    lines += [f"  - {text}" for text in meaning.help]
    lines += [f"  next: {text}" for text in meaning.next]
    return "\n".join(lines) + "\n"
