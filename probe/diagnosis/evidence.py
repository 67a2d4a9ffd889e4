"""A Diagnosis and its Run -> what convinces others: a capture's filter with the lost queries' tuples, a ticket."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from probe.model import BESIDE, NS, Failure
from probe.outcome import REPLIED
from probe.runfile import Run
from probe.timeline import Window

MOST_PORTS = 12
"""A filter with more tuples is no longer one that anybody pastes."""
MOST_LINES = 8
INSTANCES = "kubectl get nodes -o custom-columns=NODE:.metadata.name,INSTANCE:.spec.providerID"
_NODE = re.compile(r"\bon (\S+?)(?:[,;]|$)")


@dataclass(frozen=True, slots=True)
class TicketLine:
    """The domain, the response code, the second in UTC, as Alibaba Cloud ACK asks for (troubleshooting DNS resolution
    failures)."""

    domain: str
    qtype: str
    code: str
    second: str


def failures_in(run: Run, windows: Sequence[Window]) -> list[Failure]:
    """The rows that were kept exactly and lie in these windows."""
    spans: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for w in windows:
        spans.setdefault((w.lane, w.target), []).append((w.from_ns, w.to_ns))
    return [f for f in run.failures if any(a <= f.due_ns < b for a, b in spans.get(run.series[f.series].channel, ()))]


def capture_filter(run: Run, failures: Sequence[Failure]) -> str:
    """For `tcpdump -r` of a capture made meanwhile; '' without a tuple. At most MOST_PORTS of them."""
    parts = []
    tuples = dict.fromkeys((run.series[f.series], f.source_port) for f in failures if f.source_port)
    by: dict[tuple[str, str, int], list[int]] = {}
    for series, port in list(tuples)[:MOST_PORTS]:
        transport = "udp" if series.transport == "udp" else "tcp"
        by.setdefault((transport, series.target.address, series.target.port), []).append(port)
    for (transport, address, port), sources in by.items():
        ports = " or ".join(f"port {source}" for source in sorted(set(sources)))
        parts.append(f"({transport} port {port} and host {address} and ({ports}))")
    return " or ".join(parts)


def ticket(run: Run, failures: Iterable[Failure]) -> list[TicketLine]:
    """A line for each second, name and code that DNS was asked; at most MOST_LINES."""
    lines = []
    for f in failures:
        series = run.series[f.series]
        if series.transport in BESIDE:
            continue
        at = datetime.fromtimestamp((run.head.started_unix_ns + f.due_ns) // NS, UTC)
        code = f.outcome.name if f.outcome in REPLIED else f.outcome.label
        lines.append(TicketLine(f.question.split(" ")[0], series.qtype, code, f"{at:%Y-%m-%d %H:%M:%S}"))
    return list(dict.fromkeys(lines))[:MOST_LINES]


def nodes_of(run: Run) -> list[str]:
    """Nodes of the CoreDNS pods, as far as the run knows them."""
    said = [run.head.facts.get("pods", ""), *(m.text for m in run.marks if m.kind == "pod_ready")]
    found = [node for text in said for node in _NODE.findall(text)]
    return list(dict.fromkeys(found))
