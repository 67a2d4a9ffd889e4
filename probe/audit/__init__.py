"""Snapshot -> findings: what will break in the next CoreDNS upgrade, with the command that mends each point."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from probe.audit.check import Check, Planned, Severity
from probe.audit.checks import CHECKS
from probe.audit.snapshot import Snapshot, Unread
from probe.errors import UsageError
from probe.model import Finding

__all__ = ["CHECKS", "Check", "Planned", "Severity", "Snapshot", "Unread", "audit"]


def audit(
    snapshot: Snapshot, planned: Planned, only: Collection[str] = (), skip: Collection[str] = ()
) -> list[Finding]:
    """Worst first, then in the order of CHECKS. only, skip: ids; UsageError names those there are.

    A Finding's id is its check's; what a check goes by and could not be read makes it unknown.
    """
    for name in (*only, *skip):
        if name not in CHECKS:
            raise UsageError(f"{name!r}: say {', '.join(CHECKS)}")
    asked = [check for name, check in CHECKS.items() if (not only or name in only) and name not in skip]
    found = [finding for check in asked for finding in _said(check, snapshot, planned)]
    order = list(Severity)
    return sorted(found, key=lambda finding: order.index(Severity(finding.severity)))


def _said(check: Check, snapshot: Snapshot, planned: Planned) -> Iterator[Finding]:
    try:
        for said in list(check.look(snapshot, planned)):
            evidence = "\n".join(map(str, said.evidence))
            yield Finding(check.id, said.severity.value, said.text, evidence, said.remedy, check.source)
    except Unread as problem:
        yield Finding(check.id, Severity.UNKNOWN.value, f"cannot be said: {problem}", source=check.source)
