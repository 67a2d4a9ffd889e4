"""Checks by their ids: a Snapshot and what is planned in, what each of them says out."""

from __future__ import annotations

from probe.audit.check import Check
from probe.audit.checks.names import NAMES
from probe.audit.checks.nodelocal import NODELOCAL
from probe.audit.checks.ownership import OWNERSHIP
from probe.audit.checks.proxy import PROXY
from probe.audit.checks.replicas import REPLICAS
from probe.audit.checks.service import SERVICE
from probe.audit.checks.shutdown import SHUTDOWN
from probe.audit.checks.state import STATE
from probe.audit.checks.version import VERSION

_ALL = (*VERSION, *SHUTDOWN, *REPLICAS, *SERVICE, *PROXY, *NODELOCAL, *NAMES, *OWNERSHIP, *STATE)

CHECKS: dict[str, Check] = {check.id: check for check in sorted(_ALL, key=lambda check: check.id)}
"""By id; a new one: a function and a line at the foot of its file."""
