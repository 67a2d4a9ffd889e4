"""What a check of the audit is: a Snapshot and what is planned in, findings with evidence and remedy out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
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
    figures: what a run measured, by the names of FIGURES.
    """

    target: str = ""
    platform: str = "kubeadm"
    propagation: float = 10.0
    measured: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


FIGURES = {
    "resident_bytes": "the most memory that a CoreDNS process had",
    "throttled": "in which share of its CPU periods a CoreDNS container was throttled",
    "panics": "how many panics CoreDNS counted while the run went",
    "reload_failed": "how many reloads failed while the run went",
    "conntrack_share": "how full conntrack's table was at most, of what it holds",
    "loss": "the share of the planned queries to the Service that were not good",
    "seconds": "how long the run went",
}
"""What checks go by that no object of the API tells; each may be missing, which makes its check unknown."""


Evidence = tuple[Field | str, ...]
"""Fields of objects, or lines of a Corefile."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a check says of one thing. evidence: what it goes by."""

    severity: Severity
    text: str
    evidence: Evidence = ()
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
