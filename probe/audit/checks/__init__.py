"""Checks by their ids: a Snapshot and what is planned in, what each of them says out."""

from __future__ import annotations

from probe.audit.check import Check
from probe.audit.checks.replicas import REPLICAS
from probe.audit.checks.service import SERVICE
from probe.audit.checks.shutdown import SHUTDOWN

_ALL = (*SHUTDOWN, *REPLICAS, *SERVICE)

CHECKS: dict[str, Check] = {check.id: check for check in sorted(_ALL, key=lambda check: check.id)}
"""By id, as the reference's section 5 counts them; a new one: a function and a line at the foot of its file."""
