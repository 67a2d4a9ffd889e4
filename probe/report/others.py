"""What others counted during a run -> a line for each of them: CoreDNS pods, kube-proxies, this machine's conntrack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from probe.cluster.meters import EVERY
from probe.model import NS
from probe.report.columns import wrapped
from probe.report.units import count, plain
from probe.runfile import Run
from probe.runfile.samples import Metric

SHOWN = 20
_ALWAYS = {"coredns": ("requests", "servfail"), "kube-proxy": (), "host": ()}
_WORDS = {
    "requests": "requests",
    "servfail": "SERVFAIL",
    "refused": "REFUSED",
    "panics": "panics",
    "upstream_failures": "failed checks of upstreams",
    "upstreams_down": "queries with no upstream up",
    "rejects": "queries over max_concurrent",
    "cache_hits": "cache hits",
    "reload_failed": "failed reloads",
    "health_failures": "failed checks of its own health",
    "sync_failures": "failed syncs",
    "flows_deleted": "flows deleted",
    "conntrack_drops": "packets dropped for want of room",
    "conntrack_early_drops": "entries evicted for want of room",
    "conntrack_insert_failed": "packets lost in a race for an entry",
}


def others_text(run: Run) -> list[str]:
    """Nothing if nobody's metrics were read. Those that lost something come first."""
    by: dict[tuple[str, str], dict[str, Metric]] = {}
    for metric in run.metrics:
        by.setdefault((metric.source, metric.subject), {})[metric.name] = metric
    lines = [f"{plain(subject)} ({plain(source)}): {text}" for (source, subject), mine in by.items()
             if (text := _said(_ALWAYS.get(source, ()) if _again(run, mine) else (), mine))]  # fmt: skip
    more = [f"  ... and {count(len(lines) - SHOWN)} more: table samples has them all"] if len(lines) > SHOWN else []
    return [part for line in lines[:SHOWN] for part in wrapped(line, 2, 6)] + more


def _again(run: Run, mine: Mapping[str, Metric]) -> bool:
    """Whether it was read more than once: of a single reading nothing is known to have stayed as it was."""
    return any(
        np.isfinite(m.value).sum() > 1 or [*m.at_ns[1:], run.end_ns][0] - m.at_ns[0] >= 2 * EVERY * NS
        for m in mine.values()
        if len(m.at_ns)
    )


def _said(always: Sequence[str], mine: Mapping[str, Metric]) -> str:
    grown = {name: metric.grown for name, metric in mine.items() if name in _WORDS}
    told = [f"{count(round(n))} {_WORDS[name]}" for name, n in grown.items() if n or name in always]
    if "programmed" in mine and (changes := mine["programmed"].grown):
        mean = mine["programming_seconds"].grown / changes
        told.insert(0, f"{count(round(changes))} changes of endpoints programmed, {mean:.1f} s after on average")
    if "syncs" in mine and (syncs := mine["syncs"].grown):
        told.append(f"{count(round(syncs))} syncs of {1e3 * mine['sync_seconds'].grown / syncs:,.0f} ms")
    if "resident_bytes" in mine and (most := mine["resident_bytes"].most):
        told.append(f"up to {most / (1 << 20):,.0f} MiB")
    if "conntrack_entries" in mine and (most := mine["conntrack_entries"].most):
        told.append(f"up to {count(round(most))} conntrack entries")
    return ", ".join(told)
