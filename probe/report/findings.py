"""Diagnoses -> what a report says beside the windows that they explain, and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from probe.diagnosis import Diagnosis, diagnose
from probe.diagnosis.evidence import capture_filter, failures_in, nodes_of, ticket
from probe.diagnosis.querylog import Logged, matched
from probe.model import NS, Finding, Sure
from probe.runfile import Run
from probe.timeline import Window
from probe.verdict import verdict_of

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


@lru_cache(maxsize=2)
def diagnoses_of(run: Run) -> tuple[Diagnosis, ...]:
    """By time. Worked out once for each Run, however many reports it has."""
    return tuple(diagnose(verdict_of(run).timeline))


def beside(found: Sequence[Diagnosis], shown: Sequence[Window]) -> dict[Window, str]:
    """By the first window of each that is shown: the cause, or what to run to tell it from another one."""
    told = [d for d in found if d.finding.sure is not Sure.UNDETERMINED or len(d.findings) > 1]
    firsts = ((next((w for w in d.windows if w in shown), None), d.finding) for d in told)
    return {first: _said(finding) for first, finding in firsts if first}


def _said(finding: Finding) -> str:
    if finding.sure is Sure.UNDETERMINED:
        return f"why: {finding.text}: {finding.apart}"
    return f"why: {finding.text} ({finding.sure}; dnsprobe explain: {finding.id})"


def findings_json(found: Sequence[Diagnosis]) -> list[Json]:
    """Every finding, with the windows that it is about."""
    return [
        {**finding_json(f), "windows": [_window(d, k) for k in range(len(d.windows))], "first": f is d.finding}
        for d in found
        for f in d.findings
    ]


def _window(d: Diagnosis, k: int) -> Json:
    w = d.windows[k]
    return {"lane": w.lane, "target": w.target, "from_seconds": w.from_ns / NS}


def diagnosis_json(run: Run, d: Diagnosis, log: Sequence[Logged] | None) -> Json:
    """One diagnosis, its cause first, with what convinces others."""
    failures = failures_in(run, d.windows)
    told = matched(failures, log) if log is not None else None
    return {
        "from_seconds": d.from_ns / NS,
        "to_seconds": d.to_ns / NS,
        "windows": [_window(d, k) for k in range(len(d.windows))],
        "findings": [finding_json(f) for f in d.findings],
        "capture_filter": capture_filter(run, failures),
        "ticket": [
            {"domain": t.domain, "type": t.qtype, "code": t.code, "second": t.second} for t in ticket(run, failures)
        ],
        "nodes": nodes_of(run),
        "logged": None if told is None else {"seen": len(told.seen), "unseen": told.unseen},
    }


def finding_json(f: Finding) -> dict[str, Json]:
    """One of `findings`."""
    return {
        "id": f.id,
        "severity": f.severity,
        "sure": f.sure.value if f.sure else None,
        "text": f.text,
        "evidence": f.evidence,
        "apart": f.apart,
        "remedy": f.remedy,
        "source": f.source,
    }
