"""Pages of metrics, one after the other -> samples of what changed, marks where trouble begins; and a lab's, whole."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample as Scraped

from probe.cli import main
from probe.cluster import Meter
from probe.cluster.meters import COREDNS, Reading, Readings
from probe.cluster.scrape import REQUESTS
from probe.host import conntrack
from probe.model import NS, Sample
from probe.report.others import others_text
from probe.runfile import Run, open_run
from probe.runfile.samples import TABLES, Metric, fullest, read_metrics, rows_of
from tests.test_scrape import http, serving

POD = Meter("coredns", "a", "127.0.0.1")
PROXY = Meter("kube-proxy", "node-1", "127.0.0.1")
SERVFAIL = 'coredns_dns_responses_total{rcode="SERVFAIL"}'
PANICS = "coredns_panics_total"
RSS, MIB = "process_resident_memory_bytes", 1 << 20
SYNC = "kubeproxy_sync_proxy_rules_last_timestamp_seconds"
PROGRAMMING = "kubeproxy_network_programming_duration_seconds"


def page(**values: float) -> list[Scraped]:
    """A CoreDNS's page; names as above."""
    text = "".join(f"{name} {value}\n" for name, value in values.items())
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def read(meter: Meter, *pages: list[Scraped] | None, wall_offset: int = 0) -> tuple[list[str], list[str]]:
    """Read every 5 s, from 10 s on: the samples without those that are 0 at first, and the marks."""
    reading, samples, marks = Reading(meter, lambda: wall_offset), list[str](), list[str]()
    for n, one in enumerate(pages):
        found, told = reading.take((10 + 5 * n) * NS, one)
        samples += [
            f"{s.at_ns // NS} {s.metric} {'-' if s.value is None else f'{s.value:g}'}" for s in found if n or s.value
        ]
        marks += [f"{mark.at / NS:g} {mark.kind} {mark.text}" for mark in told]
    return samples, marks


@pytest.mark.parametrize(
    ("pages", "samples", "marks"),
    [
        ([{REQUESTS: 5}, {REQUESTS: 5}, {REQUESTS: 7}], ["10 requests 5", "20 requests 7"], []),
        (
            [{REQUESTS: 5}, None, {REQUESTS: 1}],
            ["10 requests 5", "15 requests -", "15 servfail -", "20 requests 1", "20 servfail 0"],
            [],
        ),
        (
            [{PANICS: 0}, {PANICS: 2, SERVFAIL: 1}, {PANICS: 3, SERVFAIL: 1}, {PANICS: 3}, {PANICS: 4}],
            ["15 servfail 1", "15 panics 2", "20 panics 3", "25 servfail 0", "30 panics 4"],
            [
                "15 metric 1 SERVFAIL answers in the 5 s before",
                "15 metric 2 panics in the 5 s before",
                "30 metric 1 panics in the 5 s before",
            ],
        ),
        ([{PANICS: 9}, {PANICS: 0}], ["10 panics 9", "15 panics 0"], []),
        (
            [{RSS: 54.9e6}, {RSS: 55.1e6}, {RSS: 55.6e6}],
            [f"{10 * n} resident_bytes {(51 + n) * MIB:g}" for n in (1, 2)],
            [],
        ),
    ],
)  # fmt: skip
def test_what_changes_is_a_sample_and_trouble_that_begins_a_mark(
    pages: list[dict[str, float] | None], samples: list[str], marks: list[str]
) -> None:
    found, told = read(POD, *(None if one is None else page(**one) for one in pages))
    assert [
        sample for sample in found if sample.split()[1] in ("requests", "servfail", "panics", "resident_bytes")
    ] == samples
    assert told == marks


@pytest.mark.parametrize(
    ("synced", "wall_offset", "mark"),
    [
        (1012.5, 1000, "12.5 proxy_programmed 2 changes of endpoints, 1.8 s after on average; by its node's clock"),
        (1012.5, 1005, "15 proxy_programmed 2 changes of endpoints, 1.8 s after on average; seen at the next reading"),
    ],
)
def test_a_proxy_that_has_programmed_changes_is_marked_by_its_own_clock_if_that_can_be(
    synced: float, wall_offset: int, mark: str
) -> None:
    before = page(**{f"{PROGRAMMING}_count": 3, f"{PROGRAMMING}_sum": 4.0, SYNC: 1001.0})
    after = page(**{f"{PROGRAMMING}_count": 5, f"{PROGRAMMING}_sum": 7.6, SYNC: synced})
    assert read(PROXY, before, after, after, wall_offset=wall_offset * NS)[1] == [mark]


def test_the_first_change_that_a_proxy_programs_counts_too() -> None:
    first = page(**{f"{PROGRAMMING}_count": 1, f"{PROGRAMMING}_sum": 0.3, SYNC: 12.0})
    assert read(PROXY, page(**{SYNC: 1.0}), first)[1] == [
        "12 proxy_programmed 1 change of endpoints, 0.3 s after on average; by its node's clock"
    ]


async def rounds(readings: Readings, n: int) -> list[str]:
    """What the first n meters' looks tell."""
    found: list[str] = []
    changes = readings.changes()
    for _ in range(n):
        _, told = await anext(changes)
        found += [f"{mark.kind} {mark.subject}: {mark.text}" for mark in told]
    return found


def test_a_page_that_cannot_be_had_is_said_once_of_each_kind() -> None:
    with serving(http(f"{REQUESTS} 1\n")) as port:
        there = [Meter("coredns", name, "127.0.0.1", port) for name in "ab"]
        gone = [Meter("kube-proxy", name, "127.0.0.1", 1) for name in "cd"]
        readings = Readings(lambda: [*there, *gone], "", every=0.05)
        assert asyncio.run(rounds(readings, 8)) == [
            "not_seen c: metrics of kube-proxy: 127.0.0.1 port 1: [Errno 111] Connect call failed ('127.0.0.1', 1)"
        ]
        assert readings.facts() == {"metrics": "coredns of a, b"}


def test_a_pod_that_ends_is_read_until_it_says_no_more() -> None:
    with serving(http(f"{REQUESTS} 1\n")) as port:
        meters = [Meter("coredns", "a", "127.0.0.1", port)]
        readings = Readings(lambda: meters, "", every=0.05)

        async def look() -> list[list[str]]:
            changes, found = readings.changes(), []
            found.append([s.metric for s in (await anext(changes))[0] if s.value])
            meters.clear()
            found.append([s.metric for s in (await anext(changes))[0]])
            return found

        assert asyncio.run(look()) == [["requests"], []]


def test_conntrack_is_counted_over_all_cpus(tmp_path: Path) -> None:
    for name, text in {
        "proc/sys/net/netfilter/nf_conntrack_count": "12\n",
        "proc/net/stat/nf_conntrack": "entries  insert_failed drop\n0000000c  0000000a 00000000\n0c 01 ff\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert conntrack(tmp_path) == {"entries": 12, "insert_failed": 11, "drop": 255}


def stored(samples: list[Sample]) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:")
    db.executescript(TABLES)
    for sql, rows in rows_of(samples):
        db.executemany(sql, rows)
    return db


def test_samples_come_back_and_shards_add_what_others_lack() -> None:
    mine = [Sample(0, "coredns", "a", "requests", 5), Sample(5 * NS, "coredns", "a", "requests", None),
            Sample(9 * NS, "coredns", "a", "requests", 7), Sample(12 * NS, "coredns", "a", "requests", 2)]  # fmt: skip
    other = [Sample(0, "coredns", "a", "requests", 5), Sample(0, "kube-proxy", "n", "synced_unix", 1.5),
             Sample(0, "kube-proxy", "n", "syncs", 2.0**64)]  # fmt: skip
    one, two = (read_metrics(stored(samples)) for samples in (mine, other))
    assert one[0].at_ns.tolist() == [0, 5 * NS, 9 * NS, 12 * NS]
    assert one[0].grown == 4  # 5 -> 7, then another process
    assert fullest([two, one]) == [*mine, *other[1:]]


def test_a_day_of_twenty_busy_pods_is_small(tmp_path: Path) -> None:
    """Two metrics of each pod never rest; a tenth of a day is written."""
    names, subjects = [metric.name for metric in COREDNS], [f"coredns-{n}" for n in range(20)]
    day = [
        Sample(n * 5 * NS, "coredns", subject, name, n * 5000.0)
        for n in range(1_728)
        for subject in subjects
        for name in (("requests", "cache_hits") if n else names)
    ]
    db = sqlite3.connect(tmp_path / "day.db")
    db.executescript(TABLES)
    for sql, rows in rows_of(day):
        db.executemany(sql, rows)
    db.commit()
    assert (tmp_path / "day.db").stat().st_size < 1_500_000


LAB = """\
name: metered
duration: 12s
lanes: [{name: vip, target: service, rate: 20, questions: [kubernetes.default.svc.cluster.local]}]
steps: [{wait: 6s}, restart]
"""


def test_a_lab_s_pods_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.yaml").write_text(LAB)
    with pytest.raises(SystemExit):
        main(["run", str(tmp_path / "x.yaml"), "--lab", "-o", str(tmp_path / "x.db")])
    out = capsys.readouterr().out
    run = open_run(tmp_path / "x.db")
    requests = {m.subject: m.grown for m in run.metrics if m.name == "requests"}
    assert len(requests) > 2
    assert 20 < sum(requests.values()) < 300
    assert "WHAT OTHERS COUNTED" in out
    assert others_text(run)
    assert all(subject in run.head.facts["metrics"] for subject in requests)


@pytest.mark.parametrize(
    ("read", "said"),
    [
        ([(0, 7.0)], ["  z (coredns): 0 requests"]),
        ([(0, 7.0), (5, 9.0)], ["  z (coredns): 2 requests"]),
        ([(0, 7.0), (5, np.nan)], []),
        ([(16, 7.0)], []),
    ],
)
def test_of_a_single_reading_nothing_is_said_to_have_stayed(read: list[tuple[int, float]], said: list[str]) -> None:
    at, values = np.array([t * NS for t, _ in read]), np.array([v for _, v in read])
    run = SimpleNamespace(end_ns=20 * NS, metrics=(Metric("coredns", "z", "requests", at, values),))
    assert others_text(cast(Run, run)) == said
