"""Checks by their ids: a Snapshot and what is planned in, what each of them says out."""

from __future__ import annotations

from probe.audit.check import Check

CHECKS: dict[str, Check] = {}
"""In the order of the reference's section 5; a new check: its function, its sentences, a line here."""
