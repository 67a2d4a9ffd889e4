"""What a check of the audit is: a Snapshot and what is planned in, findings with evidence and remedy out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from probe.audit.snapshot import Snapshot
from probe.audit.things import Field


class Severity(StrEnum):
    """How bad it is, worst first. UNKNOWN: what the check goes by could not be read."""

    FAIL = "fail"
    WARN = "warn"
    UNKNOWN = "unknown"
    INFO = "info"
    PASS = "pass"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Planned:
    """What a person is about to do, and what was measured.

    target: CoreDNS's version to come, '' if that is not known. platform: a key of PLATFORMS. propagation: seconds from
    an endpoint's change until the last node acts on it; measured: where that figure comes from, '' if it is assumed.
    """

    target: str = ""
    platform: str = "kubeadm"
    propagation: float = 10.0
    measured: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """What a check says of one thing. evidence: the fields, or lines of the Corefile, that it goes by."""

    severity: Severity
    text: str
    evidence: tuple[Field | str, ...] = ()
    remedy: str = ""


Look = Callable[[Snapshot, Planned], Iterator[Said]]
"""Says at least one thing; Unread, which it need not catch, makes the check unknown."""


@dataclass(frozen=True, slots=True)
class Check:
    """One point of the audit. id: `C16`; title: what is looked at; why: one sentence, why it matters; source."""

    id: str
    title: str
    why: str
    source: str
    look: Look
