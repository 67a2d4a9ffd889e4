"""Runs that tell a story, as tests of reports need them: a blackout, a Service that loses a third, a pod that went."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from probe.model import NS, Interval, Mark, Series, TargetKind
from probe.outcome import Counter, Outcome
from probe.runfile import Run
from tests.synthetic import MS, drawn, series_of, written

FACTS = {"coredns": "stand-in (no coredns found)", "tick": "200 us", "receive_buffer": "4 MiB", "gso": "off"}
POD, SERVICE = TargetKind.POD, TargetKind.SERVICE
_GOOD, _TIMEOUT, _REFUSED = Outcome.ANSWER, Outcome.TIMEOUT, Outcome.CONNECTION_REFUSED


def clean(path: Path) -> Run:
    series = [
        series_of(0, "vip-udp", "kube-dns", rate=50, seconds=20),
        series_of(1, "vip-udp", "kube-dns", rate=50, seconds=20, qtype="AAAA", offset_ns=7 * MS),
        series_of(2, "pods", "coredns-7d9f-aaaaa", POD, rate=10, seconds=20, address="127.53.1.1"),
    ]
    return written(path, series, lambda *_: _GOOD, name="baseline", facts=FACTS, latency=830_000)


def blackout(path: Path) -> Run:
    """3 s of silence at 1,000 q/s, ad hoc."""
    series = [series_of(0, "udp-fresh", "127.0.0.1", TargetKind.SERVER, rate=1000, seconds=8, address="127.0.0.1")]
    return written(path, series, drawn("." * 2345 + "x" * 3000, 1000), name="adhoc", facts={"tick": "200 us"})


def a_third(path: Path) -> Run:
    """One of three pods goes with lameduck 0; the Service's rules follow after 3 s; the other pods are fine."""
    series = [series_of(0, "vip-udp", "kube-dns", rate=100, seconds=15)]
    for i in range(3):
        pod = f"coredns-7d9f-{'abc'[i] * 5}"
        series.append(series_of(i + 1, "pods", pod, POD, rate=10, seconds=15, address=f"127.53.1.{i + 1}"))

    def fate(s: Series, due_ns: int) -> Outcome:
        gone = s.target.name.endswith("c") and due_ns >= 5 * NS
        third = s.lane == "vip-udp" and 5 * NS <= due_ns < 8 * NS and due_ns // (10 * MS) % 3 == 0
        return _TIMEOUT if gone or third else _GOOD

    marks = [
        Mark(5 * NS, "step", "scale to 2", "scenario"),
        Mark(5 * NS + 2 * MS, "pod_deleted", "lameduck 0 s, grace period 30 s", "lab", "coredns-7d9f-ccccc"),
        Mark(5 * NS + 9 * MS, "pod_exited", "exit code 0", "lab", "coredns-7d9f-ccccc"),
        Mark(8 * NS, "endpoints_programmed", "kube-dns: 2 ready", "lab", "kube-dns"),
    ]
    lives = [Interval(0, 15 * NS, "life", "counts", "lab", s.target.name) for s in series[1:3]]
    lives.append(Interval(0, 5 * NS, "life", "counts", "lab", "coredns-7d9f-ccccc"))
    return written(path, series, fate, name="scale-down", marks=marks, intervals=lives, facts=FACTS)


def refusals(path: Path) -> Run:
    """A REJECT rule: one lane hears the refusals the kernel allows itself, the other nothing at all."""
    closed = "." * 30 + "rrrrrrttttrttttttttr" + "." * 50
    silent = "." * 30 + "tttttttttttttttttttt" + "." * 50
    series = [
        series_of(0, "vip-udp", "kube-dns", rate=10, side="node"),
        series_of(1, "vip-fixed", "kube-dns", rate=10, side="node", ports="fixed"),
    ]
    fates = [drawn(closed, 10), drawn(silent, 10)]
    return written(path, series, lambda s, due: fates[s.index](s, due), name="scale-to-zero", facts=FACTS)


def stalled(path: Path) -> Run:
    """The prober itself did not run for two seconds."""
    series = [series_of(0, "vip-udp", "kube-dns", rate=100, seconds=10)]
    return written(path, series, drawn("." * 400 + "u" * 200, 100), name="stalled", facts=FACTS)


def dropped(path: Path) -> Run:
    """Two windows, of refusals and of silence; our own receive buffer dropped 35 replies, nobody knows which."""
    series = [
        series_of(0, "vip-udp", "kube-dns", rate=100, seconds=20),
        series_of(1, "vip-udp", "kube-dns", rate=100, seconds=20, qtype="AAAA", offset_ns=5 * MS),
        series_of(2, "vip-fixed", "kube-dns", rate=50, seconds=20, ports="fixed"),
    ]
    fates = [
        drawn("." * 500 + "r" * 95 + "." * 400 + "x" * 25, 100),
        drawn("." * 995 + "x" * 25, 100),
        drawn("." * 500 + "x" * 10, 50),
    ]
    counters = {(0, Counter.OWN_DROPS): 35, (2, Counter.OWN_DROPS): 9}
    objectives = ("loss <= 2%", "loss(vip-udp) <= 3%", "longest_disruption <= 100ms", "p99(vip-fixed) <= 100ms")
    return written(
        path, series, lambda s, due: fates[s.index](s, due), name="fast", counters=counters, objectives=objectives
    )


def cut(path: Path) -> Run:
    """kill -9 after five seconds, rows in flight."""
    series = [series_of(0, "vip-udp", "kube-dns", rate=10, seconds=5)]
    return written(path, series, drawn("." * 45 + "?????", 10), name="cut", finish=False, facts=FACTS)


def over_tcp(path: Path) -> Run:
    """A connection per query, slower each second, in one of which the port is closed; every fifth name is unknown."""
    series = [series_of(0, "tcp-fresh", "127.0.0.1", TargetKind.SERVER, 50, 4, "tcp", address="127.0.0.1")]

    def fate(_: Series, due_ns: int) -> Outcome:
        if NS <= due_ns < 2 * NS:
            return _REFUSED
        return Outcome.NXDOMAIN if due_ns // (20 * MS) % 5 == 0 else _GOOD

    counters = {(0, Counter.CONNECTS): 150, (0, Counter.SENT_OCTETS): 5400, (0, Counter.RECEIVED_OCTETS): 10_500}
    return written(path, series, fate, name="adhoc", latency=lambda ns: (ns // NS + 1) * MS // 2, counters=counters)


def named(path: Path) -> Run:
    """Who answered, by NSID: pods share the Service's queries unevenly; some replies have no name; one pod lies."""
    series = [
        series_of(0, "vip-udp", "kube-dns", rate=50, seconds=20),
        series_of(1, "vip-udp", "kube-dns", rate=50, seconds=20, qtype="AAAA", offset_ns=7 * MS),
        series_of(2, "pods", "coredns-7d9f-aaaaa", POD, rate=10, seconds=20, address="127.53.1.1"),
        series_of(3, "pods", "coredns-7d9f-bbbbb", POD, rate=10, seconds=20, address="127.53.1.2"),
    ]
    shares = zip("abcdef", (510, 400, 40, 30, 5, 5), strict=True)
    nobody, each = (0, 0, 0), 20 * MS
    servers = {
        f"coredns-7d9f-{letter * 5}": ((n, k * each, (400 + n) * each), (n, k * each + 7 * MS, 19 * NS), nobody, nobody)
        for k, (letter, n) in enumerate(shares)
    }
    servers["dns\x1b[31m\n"] = (nobody, nobody, (150, 0, 149 * 100 * MS), nobody)
    return written(path, series, lambda *_: _GOOD, name="baseline", facts=FACTS, servers=servers)


def foreign(path: Path) -> Run:
    """Names that would move the cursor, recolour the terminal or hide: from a scenario, a cluster, a server."""
    evil = "pod\x1b[31m\n\u202etxt.\x07\u200b"
    series = [series_of(0, "vip-udp", evil, rate=10, seconds=10)]
    marks = [Mark(NS, "step", f"scale {evil}", "scenario", evil)]
    return written(path, series, drawn("xx", 10), name=evil, marks=marks, facts={evil: evil})


STORIES: dict[str, Callable[[Path], Run]] = {
    story.__name__: story
    for story in (clean, blackout, a_third, refusals, stalled, dropped, cut, over_tcp, named, foreign)
}
