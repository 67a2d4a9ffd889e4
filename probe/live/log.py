"""A run that goes on for months -> lines for a log: what happened and each disruption as it closes, with the time."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO

from probe.live.lines import NAMED, Lines
from probe.model import NS, Mark, Series
from probe.recorder import Flush
from probe.report.units import clock, plain, seconds
from probe.scenario.plan import Plan

SAID = (
    "rollout_", "pod_deleted", "pod_ready", "not_", "worker_died", "clients_died", "intercepted", "lab_", "clock_step",
    "ended",
)  # fmt: skip
"""Marks whose kinds begin so are worth a line; the run file has them all."""


class Log(Lines):
    """A View that says whom it asks, and nothing more while all is well."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._out = stream or sys.stderr
        self._begins = False

    def begin(self, plan: Plan) -> None:
        super().begin(plan)
        self._begins = True

    def added(self, series: list[Series]) -> None:
        """At the start alone: a log that counted what comes later would grow with each pod."""
        if self._begins:
            targets = list(dict.fromkeys(str(s.target) for s in series))
            more = [f"and {len(targets) - NAMED} more"] * (len(targets) > NAMED)
            self.noted(f"asks {', '.join([*targets[:NAMED], *more]) or 'nobody yet'}")
        self._begins = False

    def ended(self, pod: str) -> None:
        """Nor this."""

    def flushed(self, flush: Flush, now_ns: int) -> None:
        """No line every few seconds."""

    def marked(self, mark: Mark) -> None:
        if mark.kind.startswith(SAID):
            self.noted(f"{mark.source}: {' '.join(filter(None, (mark.kind, mark.subject, mark.text)))}")

    def noted(self, text: str) -> None:
        with suppress(OSError):
            for line in text.splitlines():
                print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {plain(line)}", file=self._out, flush=True)

    def tell(self, line: str) -> None:
        """A line of --format jsonl: a window is told."""
        told = json.loads(line)
        if told["type"] == "window":
            self.noted(window_text(told))


def window_text(told: dict[str, object]) -> str:
    """`vip-udp -> kube-dns: timeout for 0.812 s from 14:03:20.100, lost 8 of 9; fine meanwhile: pods`."""
    lasted = seconds(round(float(str(told["lasted_seconds"])) * NS))
    text = f"{told['lane']} -> {told['target']}: {told['class']} for {lasted}"
    text += f" from {clock(_ns(str(told['first_lost'])))}, lost {told['lost']:,} of {told['planned']:,}"
    others = told["others"]
    assert isinstance(others, list)  # noqa: S101
    fine = [str(other["lane"]) for other in others if other["fine"] == other["targets"]]
    text += f"; fine meanwhile: {', '.join(fine)}" if fine else ""
    return text + ("; still going on when the run ended" if told["still_open"] else "")


def _ns(moment: str) -> int:
    return int(datetime.fromisoformat(moment[:26] + "Z").timestamp() * NS)
