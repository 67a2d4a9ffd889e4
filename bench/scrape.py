"""A Bench in; what it costs to be scraped, and whether a run at 100,000 q/s notices, out."""

from __future__ import annotations

import gzip
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from operator import attrgetter
from urllib.request import Request, urlopen

import numpy as np
from prometheus_client import CollectorRegistry

from bench.load import Figures, Missing
from bench.processes import Overdue
from bench.rounds import Bench
from bench.scenarios import scenario, watched
from bench.table import Demand, Section, median, microseconds, number, share
from probe.exporter.collector import Collector
from probe.exporter.page import GZIP_LEVEL, encoder_for
from probe.exporter.snapshot import LES, Snapshot, floats, ints
from probe.outcome import Counter, Outcome
from probe.recorder import Duration
from tests.servers import free_port

LINES = 5_000
RATE, TARGETS, LANES = 100_000, 50, 3
"""Of so many targets and lanes a page has about 5,000 lines."""
ASKED = 4
"""So many targets the run asks: with 150 channels one worker is too slow for this rate, scraped or not."""
PROMETHEUS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"
WAYS = ("without --metrics", "with it, not scraped", "scraped each second")


def scrape(bench: Bench) -> list[Section]:
    """A page of 5,000 lines by itself; a run that is scraped beside one that is not."""
    return [_page(bench), _run(bench)]


def _page(bench: Bench) -> Section:
    bench.say(f"scrape: a page of {LINES:,} lines")
    registry = CollectorRegistry(auto_describe=False)
    shown = _snapshot()
    registry.register(Collector(lambda: shown))
    rows, costs = [], []
    for name, accept in (("text, as Prometheus gets it", PROMETHEUS), ("OpenMetrics", "application/openmetrics-text")):
        encode, _ = encoder_for(accept)
        body = encode(registry)
        rendered = _cpu(lambda encode=encode: encode(registry))  # type: ignore[misc]
        packed = _cpu(lambda body=body: gzip.compress(body, GZIP_LEVEL))  # type: ignore[misc]
        costs.append((rendered + packed) / body.count(b"\n") * LINES)
        rows.append((name, number(body.count(b"\n")), number(rendered * 1e3, 1), number(packed * 1e3, 1)))
    collected = _cpu(lambda: list(Collector(lambda: shown).collect()))
    rows.append(("of that our own part", "-", number(collected * 1e3, 1), "-"))
    demand = Demand(f"a scrape of {LINES:,} lines, CPU", "<=", 0.060, costs[0], lambda s: f"{1e3 * s:.0f} ms")
    return Section("A page of metrics", ("", "lines", "CPU ms", "gzip, CPU ms"), tuple(rows), (demand,))


def _cpu(work: Callable[[], object], times: int = 20) -> float:
    """CPU seconds, the least of many."""
    found = []
    for _ in range(times):
        before = time.thread_time()
        work()
        found.append(time.thread_time() - before)
    return min(found)


def _snapshot() -> Snapshot:
    """TARGETS targets, each asked by LANES lanes over UDP."""
    targets = [f"coredns-7d5b9f8c6-{k:05}" for k in range(TARGETS)]
    lanes = [f"pods-udp-{k}" for k in range(LANES)]
    channels = tuple((target, "pod", "udp", "pool", lane) for target in targets for lane in lanes)
    c, p = len(channels), TARGETS
    random = np.random.default_rng(1)
    return Snapshot(
        channels=channels, channels_asked=(True,) * c, rows=random.integers(0, 10**6, (c, len(Outcome), 2)),
        outages=ints(c), outage_s=random.random(c), since=floats(c),
        paths=tuple((target, "pod", "udp") for target in targets), paths_asked=(True,) * p,
        buckets=random.integers(0, 10**6, (p, len(Duration), LES)), sums=random.random((p, len(Duration))),
        counters=ints(p, len(Counter)), in_flight=ints(p), up=ints(p), success=floats(p),
    )  # fmt: skip


def _run(bench: Bench) -> Section:
    port, seconds = free_port("127.0.0.1"), 2 * bench.seconds
    file = bench.folder / "scrape.yaml"
    file.write_text(scenario(bench.servers.port("knot"), ASKED, ["pool:64"], RATE, seconds, "1s"))
    found: dict[str, list[Figures]] = {way: [] for way in WAYS}
    pages: list[int] = []
    notes = []
    for turn in range(bench.rounds):
        for way in WAYS:
            bench.say(f"round {turn + 1}: {RATE:,} q/s, {way}")
            asked = [str(file)] + (["--metrics", f"127.0.0.1:{port}"] if way != WAYS[0] else [])
            try:
                with _scraper(port, pages) if way == WAYS[2] else nullcontext():
                    found[way].append(watched(asked, seconds, bench.folder, look_every=0).figures)
            except (Missing, Overdue) as reason:
                notes.append(f"{way}: {reason}")
    rows = tuple(
        (
            way,
            share(median(these, attrgetter("in_time"))),
            microseconds(median(these, attrgetter("lag_p99"))),
            number(median(these, attrgetter("cost")), 2),
        )
        for way, these in found.items()
    )
    pairs = list(zip(found[WAYS[1]], found[WAYS[2]], strict=False))
    late = [b.lag_p99 / a.lag_p99 for a, b in pairs if a.lag_p99 and b.lag_p99]
    less = [a.in_time - b.in_time for a, b in pairs if a.in_time is not None and b.in_time is not None]
    what = f"{RATE:,} q/s, scraped each second to not scraped"
    demands = (
        Demand(f"{what}: lag p99", "<=", 1.1, statistics.median(late) if late else None),
        Demand(f"{what}: less of sent/planned", "<=", 0.001, statistics.median(less) if less else None, share_of_one),
    )
    if pages:
        notes.append(f"{len(pages)} scrapes of {statistics.median(pages):,.0f} lines")
    headings = ("", "sent/planned", "lag p99", "CPU us/query, start-up included")
    return Section(f"A run at {RATE:,} q/s, scraped", headings, rows, demands, tuple(notes))


def share_of_one(part: float) -> str:
    """`0.01 %`."""
    return f"{100 * part:.2f} %"


@contextmanager
def _scraper(port: int, pages: list[int]) -> Iterator[None]:
    """Somebody who scrapes each second, as Prometheus does; how many lines each page had."""
    over = threading.Event()
    asks = Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": PROMETHEUS, "Accept-Encoding": "gzip"})

    def go() -> None:
        while not over.wait(1.0):
            with suppress(OSError), urlopen(asks, timeout=10) as reply:  # noqa: S310
                pages.append(gzip.decompress(reply.read()).count(b"\n"))

    scraping = threading.Thread(target=go)
    scraping.start()
    try:
        yield
    finally:
        over.set()
        scraping.join()
