"""Runs in, pages of metrics out: from a real run over HTTP, and from flushes by hand where the clock matters."""

from __future__ import annotations

import gzip
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from probe.exporter.buckets import bucketed, summed
from probe.exporter.catalogue import DURATION_LE, METRICS
from probe.exporter.collector import BARS, VALUES, Collector
from probe.exporter.page import PATH, Page
from probe.exporter.state import FORGET_NS, Exporter
from probe.histogram import BINS, bins_of
from probe.model import NS, Interval, Mark, Reason, Series, TargetKind
from probe.model import Fate as LookupFate
from probe.outcome import Outcome
from probe.pages import Address, Pages
from probe.runfile import Head, RunWriter, open_run
from probe.timeline import Timeline
from tests.conftest import Start
from tests.servers import REPLIES, Rule, need
from tests.synthetic import STARTED, Fate, columns_of, drawn, flush_of, series_of
from tests.test_cli import child, start, told, until
from tests.test_linger import free_port
from tests.test_pages import asked

Key = tuple[str, frozenset[tuple[str, str]]]
Samples = dict[Key, float]
VIP = {"target": "kube-dns", "transport": "udp"}
MISSING = {"dnsprobe_config_last_reload_successful"}
"""What a run that is not `serve` has none of."""


def read(text: str) -> Samples:
    """A page's samples by name and labels; each but once."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    page = {(s.name, frozenset(s.labels.items())): float(s.value) for s in samples}
    assert len(page) == len(samples), "a sample is there twice"
    return page


def values(page: Samples, name: str, **labels: str) -> list[float]:
    """Of all samples that have these labels."""
    return [value for (called, has), value in page.items() if called == name and has >= frozenset(labels.items())]


def total(page: Samples, name: str, **labels: str) -> float:
    return sum(values(page, name, **labels))


def family(name: str) -> str:
    """Whose sample it is."""
    return name if name in METRICS else re.sub(r"_(bucket|count|sum)$", "", name)


# -- a run in the lab, scraped each second


@dataclass(frozen=True)
class Scraped:
    texts: list[str]
    pages: list[Samples]
    file: Path


def scraping(port: int, process: subprocess.Popen[str], every_s: float = 1.0) -> list[str]:
    """Pages until it ends; the last one of all."""
    texts: list[str] = []
    deadline = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < deadline:
        try:
            code, _, body = asked(port, "/metrics")
            assert code == 200
            texts.append(body.decode())
        except OSError:
            pass
        time.sleep(every_s)
    return texts


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Scraped:
    """One of three pods goes at once while the node keeps sending to it for 3 s."""
    folder, port = tmp_path_factory.mktemp("lab"), free_port()
    command = "run scale-down --lab --set lab.lameduck=0s --set duration=12s -o run.db"
    command += " --set clients.profiles=[glibc,musl] --set clients.names=[kubernetes.default.svc.cluster.local]"
    with start(f"{command} --metrics 127.0.0.1:{port} --linger 60s --linger-scrapes 2", folder) as process:
        texts = scraping(port, process)
        _, err = process.communicate(timeout=30)
    assert "the last metrics were scraped 2 times" in err
    return Scraped(texts, [read(text) for text in texts], folder / "run.db")


def test_promtool_finds_nothing_to_mend(lab: Scraped) -> None:
    promtool = need("promtool", "make servers")
    for text in (lab.texts[0], lab.texts[-1]):
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_page_and_the_catalogue_have_the_same_names_types_and_labels(lab: Scraped) -> None:
    assert {*VALUES, *BARS} == {*METRICS}
    types = {name: kind for text in lab.texts for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)}
    assert types == {name: metric.type for name, metric in METRICS.items()}
    found: dict[str, set[frozenset[str]]] = {}
    for page in lab.pages:
        for name, labels in page:
            found.setdefault(family(name), set()).add(frozenset(label for label, _ in labels if label != "le"))
    assert found == {name: {frozenset(METRICS[name].labels)} for name in METRICS if name not in MISSING}


def test_all_series_of_counters_are_there_at_0_before_they_count(lab: Scraped) -> None:
    begin = next(page for page in lab.pages if values(page, "dnsprobe_queries_total"))
    for name, labels in lab.pages[-1]:
        if METRICS[family(name)].type != "gauge":
            assert (name, labels) in begin
    for transport, outcomes in (("udp", 12), ("tcp", 13)):
        told = {
            dict(labels)["outcome"]
            for (n, labels) in begin
            if n == "dnsprobe_queries_total" and ("transport", transport) in labels
        }
        assert len(told) == outcomes
    assert "unsent" not in {dict(labels).get("outcome") for _, labels in begin}
    assert lab.pages[0] != begin, "metrics are served before anything is known of whom to ask"
    assert values(lab.pages[0], "dnsprobe_queries_unsent_total") == [0] * 6


def test_counters_never_go_back(lab: Scraped) -> None:
    for before, after in pairwise(lab.pages):
        for (name, labels), value in before.items():
            if METRICS[family(name)].type != "gauge":
                assert after[name, labels] >= value, (name, labels)
    for page in lab.pages:
        for (name, labels), good in page.items():
            if name == "dnsprobe_queries_good_total":
                assert good <= total(page, "dnsprobe_queries_total", **dict(labels))


def test_in_the_end_the_page_says_what_the_report_says(lab: Scraped) -> None:
    run, page = open_run(lab.file), lab.pages[-1]
    timeline = Timeline.of(run)
    for channel in timeline.channels:
        labels = {"query": channel.lane, "target": channel.target.name}
        whole = channel.whole
        assert total(page, "dnsprobe_queries_good_total", **labels) == whole.good
        assert total(page, "dnsprobe_queries_lost_total", **labels) == whole.lost
        assert total(page, "dnsprobe_queries_total", **labels) == whole.good + whole.lost
        windows = timeline.by_channel.get(channel.name, [])
        assert total(page, "dnsprobe_outages_total", **labels) == len(windows)
        lasted_s = sum(w.to_ns - w.from_ns for w in windows) / NS
        assert total(page, "dnsprobe_outage_seconds_total", **labels) == pytest.approx(lasted_s)
    assert timeline.windows
    assert total(page, "dnsprobe_queries_scheduled_total") == sum(c.whole.planned for c in timeline.channels)
    for outcome in Outcome:
        n = int(run.counts.n[run.counts.outcome == outcome].sum())
        if outcome is Outcome.UNSENT:
            assert total(page, "dnsprobe_queries_unsent_total") == n
        else:
            assert total(page, "dnsprobe_queries_total", outcome=outcome.label) == n
    made = [(lookup.client, lookup.fate.value) for lookup in run.lookups]
    assert {client for client, _ in made} == {"glibc", "musl"}
    for client in ("glibc", "musl"):
        fates = [fate.value for fate in LookupFate]
        counts = [total(page, "dnsprobe_lookups_total", client=client, fate=fate) for fate in fates]
        assert counts == [made.count((client, fate)) for fate in fates]
        slow = sum(lookup.slowed for lookup in run.lookups if lookup.client == client)
        assert values(page, "dnsprobe_lookups_slow_total", client=client) == [slow]
    for transport in ("udp", "tcp"):
        counted = total(page, "dnsprobe_query_duration_seconds_count", transport=transport)
        assert counted == total(page, "dnsprobe_queries_good_total", transport=transport)


def test_a_pod_that_was_told_to_go_has_no_state_any_more_and_stays_told(lab: Scraped) -> None:
    (gone,) = {
        dict(labels)["target"] for (n, labels), v in lab.pages[-1].items() if n == "dnsprobe_target_terminating" and v
    }
    before = next(page for page in lab.pages if values(page, "dnsprobe_target_up", target=gone))
    assert total(before, "dnsprobe_target_terminating", target=gone) == 0
    running = [page for page in lab.pages if total(page, "dnsprobe_run_state", state="running")]
    assert values(running[-1], "dnsprobe_target_up", target=gone) == [], "who is gone is in no state"
    assert values(running[-1], "dnsprobe_queries_good_total", target=gone) != []
    assert [values(running[k], "dnsprobe_ready_endpoints") for k in (0, -1)] == [[3], [2]]
    assert values(running[-1], "dnsprobe_target_up", **VIP, target_kind="service") == [1]


# -- runs against a server that does as told


def served(command: str, folder: Path, more: str = "") -> tuple[subprocess.Popen[str], int]:
    port = free_port()
    return start(f"run {command} -o run.db --metrics 127.0.0.1:{port} {more}", folder), port


@pytest.mark.parametrize("lost_s", [0.8, 2.5])
def test_a_short_outage_is_as_long_as_it_was_however_seldom_one_looks(
    lost_s: float, scripted: Start, tmp_path: Path
) -> None:
    server = scripted([Rule(REPLIES["silent"], since=2, until=2 + lost_s), Rule(REPLIES["answer"])])
    asks = f"-s 127.0.0.1 -p {server.port} -n a.test -Q 100 -t 1 -l 8"
    process, port = served(asks, tmp_path, "--linger 60s --linger-scrapes 1")
    with process:
        pages = [read(text) for text in scraping(port, process, 0.5)]
        process.communicate(timeout=30)
    page, run = pages[-1], open_run(tmp_path / "run.db")
    assert total(page, "dnsprobe_outage_seconds_total") == pytest.approx(lost_s, abs=0.1)
    assert total(page, "dnsprobe_outages_total") == 1
    assert (
        total(page, "dnsprobe_queries_total", outcome="timeout")
        == run.counts.n[run.counts.outcome == Outcome.TIMEOUT].sum()
    )
    downs = [page for page in pages if values(page, "dnsprobe_target_up") == [0]]
    assert bool(downs) == (lost_s > 2), "less than a second is no state that one could look at"
    while_open = [total(page, "dnsprobe_outage_start_timestamp_seconds") for page in pages]
    assert any(while_open) or lost_s < 1
    for began in filter(None, while_open):
        assert began == pytest.approx(run.head.started_unix_ns / NS + 2, abs=1)


def test_a_prober_that_stands_still_blames_itself(scripted: Start, tmp_path: Path) -> None:
    server = scripted([Rule(REPLIES["answer"])])
    process, port = served(f"-s 127.0.0.1 -p {server.port} -n a.test -Q 100 -l 60", tmp_path)

    def now() -> Samples:
        try:
            return read(asked(port, "/metrics")[2].decode())
        except OSError:
            return {}

    with process:
        until(lambda: total(now(), "dnsprobe_queries_good_total") > 200)
        worker = child(process, "probe.engine")
        os.kill(worker, signal.SIGSTOP)
        time.sleep(3)
        os.kill(worker, signal.SIGCONT)
        until(lambda: total(now(), "dnsprobe_queries_unsent_total") > 200)
        page = now()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert values(page, "dnsprobe_prober_healthy") == [0]
    assert values(page, "dnsprobe_target_up") == [1]
    assert total(page, "dnsprobe_queries_unsent_total", reason="stall") > 200
    assert total(page, "dnsprobe_outages_total") == 0


# -- flushes by hand


class Told:
    """A run whose seconds are told one by one, and are in its file as they are in a real one's."""

    def __init__(
        self,
        exporter: Exporter,
        path: Path,
        series: Sequence[Series],
        fate: Fate,
        lag_ns: int = 0,
        reason: Reason = Reason.START,
    ) -> None:
        self.series, self.columns, self.lag_ns = list(series), columns_of(series, fate), lag_ns
        self.duration_ns, self.clients = max(s.stop_ns for s in series), None
        self.writer = RunWriter.create(path, Head(path.stem, STARTED, self.duration_ns, "", "", (), {}))
        self.writer.add_series(series)
        self.view = exporter.watching(path.stem, path, reason=reason)
        self.view.begin(self)
        self.view.added(self.series)
        self.at = 0

    def until(self, second: int) -> None:
        for second_ in range(self.at, second):
            flush = flush_of(self.columns[: second_ + 1], len(self.series), lag_ns=self.lag_ns)
            flush = replace(flush, columns=[self.columns[second_]])
            self.writer.flush(flush, (second_ + 1) * NS)
            self.view.flushed(flush, (second_ + 1) * NS)
        self.at = second

    def life(self, pod: str, from_s: int, to_s: int) -> None:
        self.writer.interval(Interval(from_s * NS, to_s * NS, "life", f"{pod} counts", "cluster", pod))

    def end(self) -> None:
        self.writer.finish(self.at * NS)
        self.view.end()


def page_of(exporter: Exporter) -> Samples:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(lambda: exporter.now))
    return read(generate_latest(registry).decode())


def pod_of(index: int, name: str, seconds: int = 30) -> Series:
    return series_of(index, "pods", name, TargetKind.POD, rate=10, seconds=seconds)


@pytest.mark.parametrize(("told_at", "outages", "seconds"), [(None, 1, 6.0), (10, 0, 0.0), (13, 1, 3.0)])
def test_what_a_pod_loses_once_it_was_told_to_go_is_no_outage(
    told_at: int | None, outages: int, seconds: float, tmp_path: Path
) -> None:
    """It answers nothing from 10 s to 16 s, and has an end or none."""
    exporter = Exporter()
    lost = range(10 * NS, 16 * NS)

    def fate(_: Series, due_ns: int) -> Outcome:
        return Outcome.TIMEOUT if due_ns in lost else Outcome.ANSWER

    run = Told(exporter, tmp_path / "r.db", [pod_of(0, "a")], fate)
    run.life("a", 0, 30)
    run.until(told_at or 12)
    if told_at:
        run.life("a", 0, told_at)
        run.view.ended("a")
    run.until(30)
    run.end()
    page = page_of(exporter)
    assert total(page, "dnsprobe_outages_total") == outages
    assert total(page, "dnsprobe_outage_seconds_total") == pytest.approx(seconds, abs=0.11)
    assert total(page, "dnsprobe_target_terminating") == bool(told_at)
    assert total(page, "dnsprobe_queries_total", outcome="timeout") == 60


def test_a_pod_that_another_prober_asks_now_is_not_on_its_way_out(tmp_path: Path) -> None:
    exporter = Exporter()
    run = Told(exporter, tmp_path / "r.db", [pod_of(0, "a"), pod_of(1, "b")], drawn(""))
    run.until(2)
    run.view.marked(Mark(2 * NS, "not_asked", "its nearest 1 changed", "dnsprobe", "a"))
    for pod in ("a", "b"):
        run.view.ended(pod)
        run.view.gone(pod)
    run.until(3)
    page = page_of(exporter)
    assert [total(page, "dnsprobe_target_terminating", target=pod) for pod in ("a", "b")] == [0, 1]
    assert values(page, "dnsprobe_target_up") == []
    run.end()


def test_lanes_beside_dns_are_transports_of_their_own(tmp_path: Path) -> None:
    """One page has a pod's DNS by TCP, its /ready and whether its port opens."""
    exporter = Exporter()
    transports = ("tcp", "connect", "http")
    series = [series_of(i, each, "a", TargetKind.POD, transport=each, seconds=10) for i, each in enumerate(transports)]
    run = Told(exporter, tmp_path / "r.db", series, drawn("..x"))
    run.until(3)
    page = page_of(exporter)
    assert [total(page, "dnsprobe_queries_lost_total", transport=each) for each in transports] == [1, 1, 1]
    assert len(values(page, "dnsprobe_queries_total", transport="http")) == 13
    assert len(values(page, "dnsprobe_connect_duration_seconds_count", target="a")) == 1
    run.end()


def test_the_window_that_is_open_grows_and_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the queries are lost from 5 s to 25 s; it is looked at after each second."""
    monkeypatch.setattr("probe.exporter.outages.REST", 0)
    exporter = Exporter()

    def fate(_: Series, due_ns: int) -> Outcome:
        return Outcome.TIMEOUT if 5 * NS <= due_ns < 25 * NS and due_ns // (NS // 10) % 2 else Outcome.ANSWER

    run = Told(exporter, tmp_path / "r.db", [series_of(0, rate=10, seconds=40)], fate)
    seen = []
    for second in range(1, 41):
        run.until(second)
        page = page_of(exporter)
        seen.append((total(page, "dnsprobe_outages_total"), total(page, "dnsprobe_outage_seconds_total")))
        is_open = total(page, "dnsprobe_outage_start_timestamp_seconds") > 0
        assert is_open == (6 <= second <= 25), second
    assert [n for n, _ in seen] == [0] * 5 + [1] * 35
    assert all(0 <= after - before <= 1.3 for (_, before), (_, after) in pairwise(seen))
    run.end()
    assert total(page_of(exporter), "dnsprobe_outage_seconds_total") == pytest.approx(20, abs=0.2)


@pytest.mark.parametrize(
    ("second", "outages", "seconds", "same"),
    [
        ("x" * 4 + "." * 6, 1, 8, True),
        ("." * 6 + "x" * 2 + "." * 2, 2, 6, False),
        ("." * 10, 1, 4, False),
    ],
)
def test_an_outage_in_which_a_run_began_anew_is_one(
    second: str, outages: int, seconds: float, same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between them nothing was asked: nobody knows that it was over."""
    monkeypatch.setattr("probe.exporter.outages.REST", 0)
    exporter = Exporter("serve")
    began = 0.0
    for k, drawing in enumerate(("......xxxx", second)):
        run = Told(exporter, tmp_path / f"{k}.db", [series_of(0, "vip", seconds=10)], drawn(drawing))
        run.until(3)
        if k:
            since = total(page_of(exporter), "dnsprobe_outage_start_timestamp_seconds")
            assert (since == began) == same, "since when DNS fails is not since when it was asked anew"
        run.until(10)
        began = began or total(page_of(exporter), "dnsprobe_outage_start_timestamp_seconds")
        run.end()
    page = page_of(exporter)
    assert began
    assert total(page, "dnsprobe_outages_total", query="vip") == outages
    assert total(page, "dnsprobe_outage_seconds_total") == pytest.approx(seconds, abs=1.1)


def test_runs_that_follow_each_other_go_on_counting(tmp_path: Path) -> None:
    exporter = Exporter("serve")
    fate = drawn("..x...")
    for k, reason in enumerate((Reason.START, Reason.RELOAD)):
        lanes = ["vip", "old" if not k else "new"]
        series = [series_of(i, lane, seconds=10) for i, lane in enumerate(lanes)]
        run = Told(exporter, tmp_path / f"{k}.db", series, fate, reason=reason)
        page = page_of(exporter)
        assert total(page, "dnsprobe_queries_good_total", query="vip") == 9 * k
        assert values(page, "dnsprobe_queries_good_total", query="new") == [0] * k
        assert values(page, "dnsprobe_queries_good_total", query="old") == [9 * k]
        run.until(10)
        run.end()
    page = page_of(exporter)
    good = [total(page, "dnsprobe_queries_good_total", query=query) for query in ("vip", "old", "new")]
    assert good == [18, 9, 9]
    assert total(page, "dnsprobe_queries_scheduled_total") == total(page, "dnsprobe_queries_sent_total") == 40
    assert total(page, "dnsprobe_outages_total", query="vip") == 2
    started = [total(page, "dnsprobe_runs_started_total", reason=reason) for reason in Reason]
    assert started == [1, 1, 0, 0, 0, 0]
    assert total(page, "dnsprobe_query_duration_seconds_count") == 36
    assert total(page, "dnsprobe_schedule_lag_seconds_count") == 40


def test_a_pod_that_is_gone_is_forgotten_after_10_minutes_and_not_before(tmp_path: Path) -> None:
    now_ns = 0
    exporter = Exporter(clock=lambda: now_ns)
    run = Told(exporter, tmp_path / "r.db", [pod_of(0, "stays"), pod_of(1, "goes")], drawn(""))
    run.until(5)
    run.view.ended("goes")
    run.view.gone("goes")
    run.until(6)
    page = page_of(exporter)
    assert values(page, "dnsprobe_queries_good_total", target="goes") == [60]
    for name in ("target_up", "target_info", "queries_in_flight", "outage_start_timestamp_seconds"):
        assert values(page, f"dnsprobe_{name}", target="goes") == []
    before = {name for name, labels in page if ("target", "stays") in labels}
    now_ns = FORGET_NS - 1
    run.until(7)
    assert values(page_of(exporter), "dnsprobe_target_terminating", target="goes") == [1]
    now_ns = FORGET_NS
    run.until(8)
    page = page_of(exporter)
    assert [labels for _, labels in page if ("target", "goes") in labels] == []
    assert {name for name, labels in page if ("target", "stays") in labels} == before
    assert total(page, "dnsprobe_queries_scheduled_total") == 160, "what has no target goes on"
    run.view.added([replace(pod_of(2, "goes"), start_ns=8 * NS)])
    assert values(page_of(exporter), "dnsprobe_target_terminating", target="goes") == [0]
    run.end()


@pytest.mark.parametrize(
    ("drawing", "lag_ms", "healthy"),
    [
        ("." * 70, 1, 1),
        ("." * 70, 60, 0),
        ("." * 70, 40, 1),
        ("." * 30 + "u" + "." * 39, 1, 0),
        ("u" + "." * 69, 1, 1),
        ("x" * 70, 1, 1),
    ],
)
def test_the_last_minute_decides_whether_a_prober_is_healthy(
    drawing: str, lag_ms: int, healthy: int, tmp_path: Path
) -> None:
    exporter = Exporter()
    run = Told(exporter, tmp_path / "r.db", [series_of(0, rate=1, seconds=70)], drawn(drawing), lag_ms * 1_000_000)
    run.until(70)
    assert values(page_of(exporter), "dnsprobe_prober_healthy") == [healthy]
    run.end()


@pytest.mark.parametrize(
    ("drawing", "ups"),
    [
        ("....xxxxxxx...", [1] * 8 + [0] * 3 + [1] * 3),
        ("....xxxx.xxxxx", [1] * 13 + [0]),
        ("....uuuuuuu...", [1] * 14),
        ("....uuuuuxxxx.", [1] * 14),
        ("xxxxxxx.......", [1] * 4 + [0] * 3 + [1] * 7),
    ],
)
def test_a_path_is_down_once_it_lost_five_in_a_row(drawing: str, ups: list[int], tmp_path: Path) -> None:
    exporter = Exporter()
    run = Told(exporter, tmp_path / "r.db", [series_of(0, rate=1, seconds=14)], drawn(drawing))
    seen = []
    for second in range(1, 15):
        run.until(second)
        seen += values(page_of(exporter), "dnsprobe_target_up")
    run.end()
    assert seen == ups


def test_no_duration_is_in_a_bucket_below_it() -> None:
    rng = np.random.default_rng(1)
    both = rng.integers(1, 20 * NS, 20_000), np.geomspace(1, 60 * NS, 20_000).astype(np.int64)
    durations = np.unique(np.concatenate(both))
    counts = np.bincount(bins_of(durations), minlength=BINS)
    cumulative = bucketed(counts).cumsum()
    for le, n in zip(DURATION_LE, cumulative.tolist(), strict=False):
        assert (durations <= le * NS * 0.9993).sum() <= n <= (durations <= le * NS).sum()
    assert cumulative[-1] == len(durations)
    assert float(summed(counts)) == pytest.approx(durations.sum() / NS, rel=0.016)


def test_names_from_outside_are_written_so_that_they_can_be_read(tmp_path: Path) -> None:
    exporter = Exporter()
    lane = 'a"b\\c\nd{}=,'
    run = Told(exporter, tmp_path / "r.db", [series_of(0, lane, seconds=2)], drawn(""))
    run.end()
    assert values(page_of(exporter), "dnsprobe_queries_good_total", query=lane) == [0]


# -- the page


def test_the_page_in_the_formats_that_are_asked_for(tmp_path: Path) -> None:
    exporter = Exporter()
    pages = Pages(Address("127.0.0.1", free_port()))
    page = Page(exporter)
    pages.add(PATH, page.answer)
    pages.add("/ready", page.ready)
    run = Told(exporter, tmp_path / "r.db", [series_of(0, seconds=5)], drawn(""))
    run.until(3)
    port = pages.address.port
    _, headers, plain = asked(port, "/metrics")
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    _, headers, packed = asked(port, "/metrics", headers={"Accept-Encoding": "gzip"})
    assert (headers["Content-Encoding"], gzip.decompress(packed)) == ("gzip", plain)
    openmetrics = "application/openmetrics-text;version=1.0.0"
    _, headers, body = asked(port, "/metrics", headers={"Accept": f"{openmetrics},text/plain;version=0.0.4;q=0.5"})
    assert body == plain, "text costs half, and Prometheus takes both"
    _, headers, body = asked(port, "/metrics", headers={"Accept": openmetrics})
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    told = {
        s.name
        for family in read_openmetrics(body.decode())  # type: ignore[no-untyped-call]
        for s in family.samples
    }
    assert told == {name for name, _ in read(plain.decode())}
    assert page.last_scrapes == 0
    assert asked(port, "/ready")[0] == 200
    run.view.drains()
    assert asked(port, "/ready")[0] == 503
    assert total(page_of(exporter), "dnsprobe_run_state", state="draining") == 1
    run.until(4)
    assert total(page_of(exporter), "dnsprobe_run_state", state="draining") == 1, "its last seconds change nothing"
    run.end()
    assert asked(port, "/ready")[0] == 503
    assert asked(port, "/metrics", "HEAD")[0] == 200
    assert page.last_scrapes == 0
    asked(port, "/metrics")
    until(lambda: page.last_scrapes == 1)
    pages.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-s 127.0.0.1 -n a.test --metrics localhost:1", "--metrics 'localhost:1': say ADDRESS:PORT"),
        ("-s 127.0.0.1 -n a.test --linger-scrapes 2", "--linger-scrapes: goes with --linger"),
        ("-s 127.0.0.1 -n a.test --linger 1s --linger-scrapes 0", "--linger-scrapes '0'"),
        ("lameduck-sweep --lab --metrics :9553", "--metrics: not with a matrix"),
    ],
)
def test_wrong_words(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = told(f"run {words}", capsys)
    assert (code, said in " ".join(err.split())) == (2, True), err


def test_a_port_in_use_ends_the_run_before_it_begins(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, err = told(f"run -s 127.0.0.1 -n a.test --metrics {where}", capsys)
    assert (code, f"--metrics {where}: cannot be listened on: Address already in use" in err) == (4, True), err
