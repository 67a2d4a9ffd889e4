"""Runs of many clusters -> one line each, worst first, as a table or as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from probe.model import NS
from probe.report.columns import table
from probe.report.units import count, plain, rfc3339, seconds, share
from probe.runfile import Run
from probe.verdict import Ruling, verdict_of

SCHEMA_VERSION = 1
HEADS = (
    *("cluster", "kubernetes", "coredns", "proxy", "lameduck", "replicas", "lost of asked", "share", "longest"),
    *("verdict", "when", "file"),
)
_ALIGNED = "<<<<>>>>><<<"


@dataclass(frozen=True, slots=True)
class Line:
    """A run: what its cluster was, as far as it could be seen ('' for what could not), and what came of it.

    planned, asked, lost: rows of all lanes while they counted; longest_seconds: its longest disruption, 0 for none.
    """

    cluster: str
    kubernetes: str
    coredns: str
    proxy_mode: str
    lameduck: str
    replicas: str
    planned: int
    asked: int
    lost: int
    longest_seconds: float
    verdict: str
    run: str
    started: str
    file: str


def fleet_of(runs: Sequence[Run]) -> list[Line]:
    """Worst first: FAIL, INCONCLUSIVE, PASS; of these the longest disruption, then the greatest share lost."""
    order = [Ruling.FAIL, Ruling.INCONCLUSIVE, Ruling.PASS]
    lines = [_line(run) for run in runs]
    return sorted(
        lines,
        key=lambda line: (
            order.index(Ruling(line.verdict)),
            -line.longest_seconds,
            -line.lost / max(1, line.asked),
            line.cluster,
            line.file,
        ),
    )


def _line(run: Run) -> Line:
    verdict = verdict_of(run)
    losses = [channel.loss() for channel in verdict.timeline.channels]
    about = _about(run.head.facts)
    return Line(
        **about,
        planned=sum(loss.planned for loss in losses),
        asked=sum(loss.asked for loss in losses),
        lost=sum(loss.lost for loss in losses),
        longest_seconds=max((w.to_ns - w.from_ns for w in verdict.timeline.windows), default=0) / NS,
        verdict=verdict.ruling.value,
        run=run.head.name,
        started=rfc3339(run.head.started_unix_ns),
        file=str(run.path),
    )


def _about(facts: Mapping[str, str]) -> dict[str, str]:
    """Of the facts of a real cluster, of the lab's, or of a merged run, whose shards' own are named by shard."""
    common = dict(facts)
    for name, value in facts.items():
        common.setdefault(name.partition(": ")[2] or name, value)

    def first(pattern: str, *names: str) -> str:
        for name in names:
            if match := re.search(pattern, common.get(name, "")):
                return match[1]
        return ""

    return {
        "cluster": first(r"cluster ([^,\s]+)", "collected from")
        or first(r"context (\S+)", "cluster")
        or first(r"(lab \(\w+|[^,]+)", "cluster").replace("(", ""),
        "kubernetes": first(r"v?([0-9.]+\S*)", "kubernetes", "lab.kubernetes"),
        "coredns": first(r":v?([0-9][^\s,@]*)", "pods") or first(r"(?:CoreDNS-)?(\S+)", "coredns"),
        "proxy_mode": first(r"(iptables|nftables|ipvs|[^\s,]+)", "kube-proxy", "lab.proxy_mode"),
        "lameduck": first(r"lameduck ([0-9.]+ s)", "corefile") or common.get("lab.lameduck", ""),
        "replicas": first(r"([0-9]+) replicas", "made by") or common.get("lab.replicas", ""),
    }


def fleet_text(lines: Sequence[Line]) -> str:
    """A line for each run, under a line of headings."""
    rows = [HEADS, *map(_row, lines)]
    return "\n".join(table(rows, _ALIGNED))


def _row(line: Line) -> tuple[str, ...]:
    about = (line.cluster, line.kubernetes, line.coredns, line.proxy_mode, line.lameduck, line.replicas)
    started = line.started.replace("T", " ")[:16]
    return (
        *(plain(text) or "-" for text in about),
        f"{count(line.lost)} of {count(line.asked)}",
        share(line.lost / line.asked) if line.asked else "-",
        seconds(round(line.longest_seconds * NS)) if line.longest_seconds else "-",
        line.verdict,
        started,
        plain(line.file),
    )


def fleet_json(lines: Sequence[Line], unreadable: Mapping[str, str]) -> str:
    """`runs[]` with Line's names, `unreadable` by file."""
    report = {
        "schema_version": SCHEMA_VERSION,
        "runs": [asdict(line) for line in lines],
        "unreadable": dict(unreadable),
    }
    return json.dumps(report, indent=2, allow_nan=False) + "\n"
