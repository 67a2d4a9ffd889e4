"""Meters, read every few seconds -> samples of what has changed, and marks where something has begun to go wrong.

CoreDNS pods serve theirs on :9153, kube-proxy its own on :10249 (only to its own node, unless metricsBindAddress says
otherwise), this machine's conntrack in /proc. Names: coredns plugin/*/metrics.go (1.5.0 to 1.15.0) and
pkg/proxy/metrics/metrics.go (1.25 to 1.34). One reading is bounded by scrape.PATIENCE, all at once by MOST.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.samples import Sample as Scraped

from probe.cluster import Happened, Meter
from probe.cluster.scrape import REQUESTS, scrape
from probe.host import conntrack, wall_offset_ns
from probe.model import NS, Sample

EVERY = 5.0
"""Seconds from one reading to the next."""
MOST = 40
"""So many meters are read; of more the first."""
_AT_ONCE = 8
_AGAIN = 60.0
"""Seconds until what could not be read is tried again."""
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a meter: the sum, or the latest, of all samples of these names that have these labels.

    trouble: in words, if it is one that this number grows. step: what it is rounded down to, for what never rests.
    rare: a page has it only once it has happened.
    """

    name: str
    names: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""
    step: float = 0.0
    latest: bool = False
    rare: bool = False

    def of(self, page: Sequence[Scraped]) -> float | None:
        """None if the page has no such thing, and should."""
        mine = [s.value for s in page if s.name in self.names and self.labels.items() <= s.labels.items()]
        if not mine:
            return 0.0 if self.rare else None
        value = max(mine) if self.latest else sum(mine)
        return value // self.step * self.step if self.step else value


_RESPONSES = ("coredns_dns_responses_total", "coredns_dns_response_rcode_count_total")
_UPSTREAM = ("coredns_proxy_healthcheck_failures_total", "coredns_forward_healthcheck_failures_total")
"""The first from 1.11 on, the second before."""
COREDNS = (
    Metric("requests", (REQUESTS, "coredns_dns_request_count_total")),
    Metric("servfail", _RESPONSES, {"rcode": "SERVFAIL"}, "SERVFAIL answers", rare=True),
    Metric("refused", _RESPONSES, {"rcode": "REFUSED"}, "REFUSED answers", rare=True),
    Metric("panics", ("coredns_panics_total", "coredns_panic_count_total"), trouble="panics"),
    Metric("upstream_failures", _UPSTREAM, trouble="upstream checks failed", rare=True),
    Metric("upstreams_down", ("coredns_forward_healthcheck_broken_total",), trouble="queries found no upstream up"),
    Metric("rejects", ("coredns_forward_max_concurrent_rejects_total",), trouble="queries over max_concurrent"),
    Metric("cache_hits", ("coredns_cache_hits_total",)),
    Metric("reload_failed", ("coredns_reload_failed_total",), trouble="reloads failed"),
    Metric("health_failures", ("coredns_health_request_failures_total",), trouble="checks of its own health failed"),
    Metric("resident_bytes", ("process_resident_memory_bytes",), step=_MIB),
)
_SYNC = "kubeproxy_sync_proxy_rules"
_FAILED = (f"{_SYNC}_iptables_restore_failures_total", f"{_SYNC}_nftables_sync_failures_total")
_PROGRAMMED, _SECONDS, _SYNCED = "programmed", "programming_seconds", "synced_unix"
KUBE_PROXY = (
    Metric(_PROGRAMMED, ("kubeproxy_network_programming_duration_seconds_count",), rare=True),
    Metric(_SECONDS, ("kubeproxy_network_programming_duration_seconds_sum",), rare=True),
    Metric(_SYNCED, (f"{_SYNC}_last_timestamp_seconds",), latest=True),
    Metric("syncs", (f"{_SYNC}_duration_seconds_count",)),
    Metric("sync_seconds", (f"{_SYNC}_duration_seconds_sum",)),
    Metric("pending", (f"{_SYNC}_endpoint_changes_pending",)),
    Metric("sync_failures", _FAILED, trouble="syncs failed", rare=True),
    Metric("flows_deleted", ("kubeproxy_conntrack_reconciler_deleted_entries_total",)),
)
HOST = (
    Metric("conntrack_entries", ("entries",)),
    Metric("conntrack_drops", ("drop",), trouble="packets dropped: conntrack's table is full"),
    Metric("conntrack_early_drops", ("early_drop",), trouble="entries evicted: conntrack's table is full"),
    Metric("conntrack_insert_failed", ("insert_failed",), trouble="packets lost a race for their conntrack entry"),
)
METERS = {"coredns": COREDNS, "kube-proxy": KUBE_PROXY, "host": HOST}


class Reading:
    """One meter: its pages in, what has changed since the last one out. Times are CLOCK_MONOTONIC."""

    def __init__(self, meter: Meter, wall_offset: Callable[[], int] = wall_offset_ns) -> None:
        self.meter = meter
        self._wall_offset = wall_offset
        self._values: dict[str, float | None] = {}
        self._growing: set[str] = set()
        self._at = 0

    def take(self, at: int, page: Sequence[Scraped] | None) -> tuple[list[Sample], list[Happened]]:
        """A page that was read at `at`, None if it could not be; a sample of what could is told, too."""
        before = self._values
        read = {metric.name: metric.of(page) if page is not None else None for metric in METERS[self.meter.kind]}
        after = {name: value for name, value in read.items() if value is not None or name in before}
        samples = [self._sample(at, name, value) for name, value in after.items() if before.get(name, "") != value]
        told = list(self._troubles(at, before, after)) if page is not None else []
        if page is not None and self.meter.kind == "kube-proxy":
            told += self._programmed(at, before, after)
        self._values, self._at = after, at
        return samples, told

    def _sample(self, at: int, name: str, value: float | None) -> Sample:
        return Sample(at, self.meter.kind, self.meter.subject, name, value)

    def _troubles(
        self, at: int, before: Mapping[str, float | None], after: Mapping[str, float | None]
    ) -> list[Happened]:
        """What has begun to grow; a counter that has fallen is another process's."""
        found, growing = [], set()
        for metric in METERS[self.meter.kind]:
            old, new = before.get(metric.name), after.get(metric.name)
            if not metric.trouble or old is None or new is None or new <= old:
                continue
            growing.add(metric.name)
            if metric.name not in self._growing:
                text = f"{new - old:g} {metric.trouble} in the {(at - self._at) / NS:.0f} s before"
                found.append(self._told(at, "metric", text))
        self._growing = growing
        return found

    def _programmed(
        self, at: int, before: Mapping[str, float | None], after: Mapping[str, float | None]
    ) -> list[Happened]:
        """A sync that has brought changes of endpoints to this node's rules. By its node's clock, if that can be."""
        changes = (after.get(_PROGRAMMED) or 0) - (before.get(_PROGRAMMED) or 0)
        if before.get(_PROGRAMMED) is None or changes <= 0:
            return []
        mean = ((after.get(_SECONDS) or 0) - (before.get(_SECONDS) or 0)) / changes
        synced = round((after.get(_SYNCED) or 0) * NS) - self._wall_offset()
        when = "seen at the next reading"
        if self._at <= synced <= at:
            at, when = synced, "by its node's clock"
        of = "1 change" if changes == 1 else f"{changes:g} changes"
        return [self._told(at, "proxy_programmed", f"{of} of endpoints, {mean:.1f} s after on average; {when}")]

    def _told(self, at: int, kind: str, text: str) -> Happened:
        return Happened(at, kind, text, f"{self.meter.kind} metrics", self.meter.subject)


class Readings:
    """Reads what `meters` says there is, from the network namespace `home` ('' for our own), until cancelled.

    A pod that is told to end is read until it says no more.
    """

    def __init__(self, meters: Callable[[], Sequence[Meter]], home: str, every: float = EVERY) -> None:
        self._meters, self._home, self._every = meters, home, every
        self._readings: dict[Meter, Reading] = {}
        self._not_before: dict[Meter, float] = {}
        self._refused: set[str] = set()
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._read: dict[str, set[str]] = {}

    async def changes(self) -> AsyncIterator[tuple[list[Sample], list[Happened]]]:
        """Round by round."""
        due = time.monotonic()
        while True:
            now, there = time.monotonic(), self._meters()[:MOST]
            ending = [meter for meter in self._readings if meter not in there]
            due_now = [meter for meter in (*there, *ending) if self._not_before.get(meter, 0.0) <= now]
            for found in await asyncio.gather(*map(self._look, due_now)):
                yield found
            for meter in ending:
                if meter in self._not_before:
                    del self._readings[meter]
            due = max(due + self._every, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    def facts(self) -> dict[str, str]:
        """Whose metrics were read."""
        read = [f"{kind} of {', '.join(sorted(subjects))}" for kind, subjects in self._read.items()]
        return {"metrics": "; ".join(read)} if read else {}

    async def _look(self, meter: Meter) -> tuple[list[Sample], list[Happened]]:
        reading = self._readings.setdefault(meter, Reading(meter))
        async with self._gate:
            try:
                page = await self._page(meter)
            except OSError as problem:
                return self._failed(reading, problem)
        self._not_before.pop(meter, None)
        self._read.setdefault(meter.kind, set()).add(meter.subject)
        return reading.take(time.monotonic_ns(), page)

    async def _page(self, meter: Meter) -> list[Scraped]:
        if meter.kind == "host":
            return [Scraped(name, {}, value) for name, value in conntrack().items()]
        names = {name for metric in METERS[meter.kind] for name in metric.names}
        return await scrape(meter.address, meter.port, meter.vantage or self._home, names)

    def _failed(self, reading: Reading, problem: OSError) -> tuple[list[Sample], list[Happened]]:
        """Of each kind it is said once that one cannot be read; a pod that ends is no news."""
        meter, at = reading.meter, time.monotonic_ns()
        samples, told = reading.take(at, None)
        self._not_before[meter] = time.monotonic() + _AGAIN
        ever = meter.subject in self._read.get(meter.kind, ())
        if not ever and meter.kind != "host" and meter.kind not in self._refused:
            self._refused.add(meter.kind)
            why = str(problem) or type(problem).__name__
            text = f"metrics of {meter.kind}: {meter.address} port {meter.port}: {why}"
            told = [Happened(at, "not_seen", text, f"{meter.kind} metrics", meter.subject)]
        return samples, told
