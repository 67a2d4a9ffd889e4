"""Targets, ways of asking and a rate in; a scenario's text, and what its run showed, out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path

from bench.load import BOTH, Figures
from bench.processes import Sample
from bench.servers import ADDRESSES
from bench.tools import dnsprobe_run, read_dnsprobe


@dataclass(frozen=True, slots=True)
class Watched:
    """A run of dnsprobe that was looked at: its figures, its report, samples, when t0 was (Unix seconds)."""

    figures: Figures
    report: str
    samples: tuple[Sample, ...]
    began: float

    def within(self, since: float, until: float) -> list[Sample]:
        """The samples between two instants, in seconds after t0."""
        return [s for s in self.samples if since <= s.at - self.began <= until]

    def steady_cost(self, since: float, until: float) -> float | None:
        """CPU microseconds a query between two instants: start-up and report left out. None without two samples."""
        found = self.within(since, until)
        if len(found) < 2:
            return None
        per_second = (found[-1].cpu - found[0].cpu) / (found[-1].at - found[0].at)
        return per_second / (self.figures.sent / self.figures.asking) * 1e6


def scenario(
    port: int,
    targets: int,
    ports: Sequence[str],
    total: int,
    seconds: float,
    timeout: str,
    types: Sequence[str] = ("A",),
) -> str:
    """A lane for each port policy, each asking so many targets; `total` queries a second in all."""
    each = Fraction(total, targets * len(ports))
    servers = [{"name": f"s{i}", "address": address, "port": port} for i, address in enumerate(ADDRESSES[:targets])]
    lanes = [
        {
            "name": f"lane{i}",
            "target": "servers",
            "ports": policy,
            "rate": round(float(each), 3),
            "timeout": timeout,
            "types": list(types),
            "questions": [BOTH],
        }
        for i, policy in enumerate(ports)
    ]
    return json.dumps({"name": "bench", "duration": f"{seconds:g}s", "servers": servers, "lanes": lanes}, indent=1)


def watched(asked: Sequence[str], seconds: float, folder: Path, look_every: float = 0.25) -> Watched:
    """`dnsprobe run` with these words, looked at while it runs."""
    report, ended = dnsprobe_run(list(asked), seconds, folder, look_every=look_every)
    began = datetime.fromisoformat(json.loads(report)["environment"]["started"]).timestamp()
    return Watched(read_dnsprobe(report, ended), report, ended.samples, began)


def watched_scenario(text: str, seconds: float, folder: Path, look_every: float = 0.25) -> Watched:
    """A scenario, looked at while it runs."""
    file = folder / "scenario.yaml"
    file.write_text(text)
    return watched([str(file)], seconds, folder, look_every)
