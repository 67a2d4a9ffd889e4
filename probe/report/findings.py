"""Diagnoses -> what a report says beside the windows that they explain, and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probe.diagnosis import Diagnosis
from probe.diagnosis.evidence import capture_filter, failures_in, nodes_of, ticket
from probe.diagnosis.querylog import Logged, matched
from probe.model import Finding, Sure
from probe.runfile import Run

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


def beside(found: Sequence[Diagnosis]) -> dict[int, str]:
    """By window's id, of the first window that each explains: the cause, or what to run to tell it from another one."""
    told = [d for d in found if d.finding.sure is not Sure.UNDETERMINED or len(d.findings) > 1]
    return {id(d.windows[0]): _said(d.finding) for d in told if d.windows}


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
    return {"lane": w.lane, "target": w.target, "from_seconds": w.from_ns / 1e9}


def diagnosis_json(run: Run, d: Diagnosis, log: Sequence[Logged] | None) -> Json:
    """One diagnosis, its cause first, with what convinces others."""
    failures = failures_in(run, d.windows)
    told = matched(failures, log) if log is not None else None
    return {
        "from_seconds": d.from_ns / 1e9,
        "to_seconds": d.to_ns / 1e9,
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
