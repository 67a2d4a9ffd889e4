"""Drawn lanes and marks -> the cause that the rules name and how sure; messages, query logs, what convinces others."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from probe.advice import PLATFORMS
from probe.cli import main
from probe.clients.libc import GLIBC, MUSL
from probe.cluster.images import find_coredns
from probe.diagnosis import RULES, Diagnosis, diagnose
from probe.diagnosis.evidence import capture_filter, failures_in, nodes_of, ticket
from probe.diagnosis.messages import MESSAGES, meaning_of
from probe.diagnosis.pods import pods_of
from probe.diagnosis.querylog import matched, read_log
from probe.felt import _pieces
from probe.model import BESIDE, NS, Failure, Interval, Mark, Question, Series, TargetKind
from probe.outcome import Counter, Outcome
from probe.report.explain import explain_json, explain_text
from probe.resolv import ASKED_FACT
from probe.runfile import Run
from probe.runfile.samples import Metric
from probe.scenario.plan import BESIDE_DNS
from probe.timeline import Timeline
from tests.confusion import CASES
from tests.confusion import _one as made
from tests.stories import STORIES
from tests.synthetic import LEGEND, series_of, written
from tests.test_netns import needs_namespaces

NAME = "kubernetes.default.svc.cluster.local"
RATE = 20
LETTERS = {**LEGEND, "f": Outcome.REFUSED, "T": Outcome.TRUNCATED, "w": Outcome.WRONG_ANSWER, "S": Outcome.ANSWER}
"""S: an answer that comes late."""
THIRDS = {"3": "x.", "4": "s.", "5": "xS"}
"""A third is the first of both, the rest the other."""
KINDS = {
    "vip": TargetKind.SERVICE,
    "up": TargetKind.UPSTREAM,
    "nl": TargetKind.NODELOCAL,
    "srv": TargetKind.SERVER,
} | BESIDE_DNS
NAMES = {"out": "{random}.example.com", "suffixed": "www.example.com.default.svc.cluster.local"}
LATE_NS = 300_000_000
SECONDS = 10


def lane(index: int, text: str) -> tuple[Series, str]:
    """`vip udp fixed 3s+2x`: target, transport, ports, then sign by sign for how long; the rest is good.

    `pod-a` is a pod; after the ports `out`: for names outside the cluster, `suffixed`: for one of nobody, `pair`.
    """
    target, transport, ports, *more, drawing = text.split()
    kind = KINDS.get(target, TargetKind.POD)
    one = series_of(
        index, "-".join([target, transport, ports, *more]), target, kind, RATE, SECONDS, transport, ports,
        offset_ns=index * 1_000_000, address=f"10.0.0.{len(target)}{index % 7}",
    )  # fmt: skip
    name = next((NAMES[word] for word in more if word in NAMES), NAME)
    question = Question.of(name, BESIDE.get(transport, "A"), "nxdomain" if "suffixed" in more else "")
    signs = "".join(part[-1] * round(RATE * float(part[:-1])) for part in drawing.split("+") if part[:-1])
    return replace(one, questions=(question,), pair="pair" in more), signs


def run_of(path: Path, lanes: Sequence[str], marks: str = "", facts: dict[str, str] | None = None) -> Run:
    """marks: `4:pod-a:pod_deleted:grace period 30 s, ...`; `~` in a text is a comma.

    Not marks: nsid, how many queries of the first lane a pod answered; requests, what a pod had counted then; drops,
    the replies to a lane that our own buffer dropped, for a second.
    """
    drawings = [lane(i, text) for i, text in enumerate(lanes)]
    pods = {s.target.name for s, _ in drawings if s.target.kind is TargetKind.POD}
    told = [part.strip().replace("~", ",").split(":", 3) for part in marks.split(",") if part.strip()]
    ends = {who: float(at) for at, who, kind, *_ in told if kind == "pod_deleted"}
    begins = {who: float(at) for at, who, kind, *_ in told if kind == "pod_ready"}
    lives = [
        Interval(int(begins.get(p, 0) * NS), int(ends.get(p, SECONDS) * NS), "life", "counts", "lab", p) for p in pods
    ]
    drops = [(int(float(at) * NS), who, int(text)) for at, who, kind, text in told if kind == "drops"]

    def sign(index: int, due_ns: int) -> str:
        drawing = drawings[index][1]
        i = round((due_ns - drawings[index][0].offset_ns) * RATE / NS)
        mark = drawing[i] if i < len(drawing) else "."
        return THIRDS[mark][i % 3 > 0] if mark in THIRDS else mark

    run = written(
        path,
        [s for s, _ in drawings],
        lambda s, due_ns: LETTERS[sign(s.index, due_ns)],
        marks=[
            Mark(int(float(at) * NS), kind, text, "test", who) for at, who, kind, text in told if kind not in OTHERS
        ],
        intervals=[*lives, *(Interval(at, at + NS, "own_drops", "", "engine", who) for at, who, _ in drops)],
        facts=facts or {},
        latency=lambda due_ns: LATE_NS if sign(due_ns % (NS // RATE) // 1_000_000, due_ns) == "S" else 1_000_000,
        counters={(s.index, Counter.OWN_DROPS): n for _, who, n in drops for s, _ in drawings if s.lane == who},
        servers={
            who: [(int(text) * (not s.index), 0, SECONDS * NS - 1) for s, _ in drawings]
            for _, who, kind, text in told
            if kind == "nsid"
        },
    )
    read = [(float(at), who, float(text)) for at, who, kind, text in told if kind == "requests"]
    metrics = []
    for pod in dict.fromkeys(who for _, who, _ in read):
        mine = np.array([(at * NS, n) for at, who, n in read if who == pod])
        metrics.append(Metric("coredns", pod, "requests", mine[:, 0].astype(np.int64), mine[:, 1]))
    return replace(run, metrics=tuple(metrics))


OTHERS = ("nsid", "requests", "drops")
PODS = ["pod-a udp fresh .", "pod-b udp fresh .", "pod-c udp fresh ."]
THIRD = ["vip udp fresh 4.+2" + "3", *PODS]
GOES = "3:pod-a:pod_deleted:grace period 30 s"
IPTABLES, IPVS = {"kube-proxy": "iptables"}, {"kube-proxy": "ipvs, v1.30"}
STALE = ["vip udp fixed 4.+4x", "vip udp fresh .", "vip tcp fresh .", *PODS]
CLOSED = f"{GOES}, 3:pod-a:clock_sigterm:, 4:pod-a:clock_closed:"
OUT = "vip udp fresh out 3.+5"
ENDS = "3:pod-n:pod_exited:exit code 1, 4:pod-n:pod_exited:exit code 1"
REPLACED = (
    "3:pod-a:pod_deleted:grace period 30 s, 3:pod-b:pod_deleted:grace period 30 s, 3:pod-c:pod_created:,"
    " 3.5:pod-c:pod_ready:, 4:pod-a:clock_closed:, 4:pod-b:clock_closed:"
)
ALL_GO = (
    "3:pod-a:pod_deleted:grace period 30 s, 3:pod-b:pod_deleted:grace period 30 s, 4:pod-a:clock_closed:,"
    " 4:pod-b:clock_closed:"
)
NOBODY = [f"{who} {how} fresh 2.+8x" for who in ("vip", "pod-a") for how in ("udp", "tcp")]
SUFFIXED = "vip udp fresh suffixed 3n+7."
LOCAL = ["nl udp fresh .", "vip udp fresh .", "pod-a udp fresh ."]

ROWS: list[tuple[list[str], str, dict[str, str], str]] = [
    (["vip udp fresh .", *PODS], "", {}, ""),
    (THIRD, CLOSED, {}, "short_lameduck certain"),
    (THIRD, f"{CLOSED}, 4.1:pod-a:pod_exited:exit code 0", {}, "short_lameduck certain"),
    (THIRD, f"{GOES}, 4:pod-a:clock_sigterm:, 4:pod-a:clock_closed:", {}, "no_lameduck certain"),
    (THIRD, f"{CLOSED}, 4.1:pod-a:pod_exited:exit code 137", {}, "short_grace certain"),
    (THIRD, "4:pod-a:pod_deleted:by force, 4:pod-a:clock_closed:", {}, "killed certain"),
    (THIRD, "4:pod-a:pod_exited:exit code 137", {}, "crashed certain"),
    (THIRD[:1], CLOSED, {}, "short_lameduck likely"),  # nobody says whether the other pods were well
    (["vip udp fresh 4.+4x", "vip tcp fresh 4.+4x", *PODS], "", {}, "kube_proxy likely"),
    (["vip udp fresh 4.+4x"], "", {}, "undetermined undetermined"),
    (["srv udp fresh 10r"], "", {}, "not_listening likely"),
    (["srv udp fresh 4.+6r"], "", {}, "undetermined undetermined"),
    (STALE, CLOSED, IPTABLES, "stale_flow certain"),
    (STALE, CLOSED, IPVS, "ipvs_session certain"),
    (STALE, CLOSED, {}, "undetermined undetermined"),
    (STALE[:1], CLOSED, IPTABLES, "undetermined undetermined"),  # nobody says whether new ports were well
    (
        ["vip udp fresh 2.+8x", "vip tcp fresh .", "pod-a udp fresh 2.+8x", "pod-a tcp fresh ."],
        "",
        {},
        "udp_blocked certain",
    ),
    (
        ["vip udp fresh 2.+8x", "vip tcp fresh 2.+8x", "pod-a udp fresh 2.+8x", "pod-a tcp fresh 2.+8x"],
        "",
        {},
        "network likely",
    ),
    (
        ["vip udp fresh 2.+83", "vip udp fixed 2.+83", "pod-a udp fresh 2.+83", "pod-b udp fresh 2.+83"],
        "",
        {},
        "client_node likely",
    ),
    (
        ["vip udp fresh 2.+83", "vip udp fixed .", "pod-a udp fresh 2.+83", "pod-b udp fresh 2.+83"],
        "",
        {},
        "conntrack_full likely",
    ),
    ([f"{OUT}s", "vip udp fresh .", "up udp fresh 3.+5x"], "", {}, "upstream_silent certain"),
    ([f"{OUT}s", "vip udp fresh .", "up udp fresh 3.+5s"], "", {}, "upstream_fails certain"),
    ([f"{OUT}s", "vip udp fresh .", "up udp fresh ."], "", {}, "way_upstream likely"),
    ([f"{OUT}s", "vip udp fresh ."], "", {}, "undetermined undetermined"),
    ([f"{OUT}f", "vip udp fresh .", "up udp fresh 3.+5f"], "", {}, "upstream_refuses certain"),
    ([f"{OUT}f", "vip udp fresh .", "up udp fresh ."], "", {}, "max_concurrent likely"),
    ([f"{OUT}f", "vip udp fresh ."], "", {}, "undetermined undetermined"),
    ([f"{OUT}n", "vip udp fresh .", "up udp fresh 3.+5n"], "", {}, "upstream_denies certain"),
    (
        ["vip tcp fresh out 3.+5s", "vip udp fresh out .", "up udp fresh .", "up tcp fresh 3.+5x"],
        "",
        {},
        "upstream_without_tcp certain",
    ),
    (["vip udp fresh 10T", "vip tcp fresh ."], "", {}, "too_big certain"),
    (
        ["vip udp fresh 5.+2" + "4", "pod-a udp fresh .", "pod-b udp fresh 5.+2s"],
        "5:pod-b:pod_created:, 5:pod-b:pod_ready:",
        {},
        "unsynced certain",
    ),
    (["vip udp fresh 10" + "4", "pod-a udp fresh .", "pod-b udp fresh 10n"], "", {}, "other_answers likely"),
    (["vip udp fresh 10s", "pod-a udp fresh 10s", "pod-b udp fresh 10s"], "", {}, "no_api likely"),
    (["vip udp fresh 10n", "pod-a udp fresh 10n"], "", {}, "no_record likely"),
    (["nl udp fresh 3.+2x", "vip udp fresh ."], "", {}, "nodelocal likely"),
    (["vip udp fresh 4u", "pod-a udp fresh 4u"], "", {}, "stall certain"),
    (
        ["vip udp fresh 4.+3r", *PODS],
        "3:coredns:corefile_patched:cache 60, 4:pod-a:pod_not_ready:, 4:pod-b:pod_not_ready:",
        {},
        "reload_lameduck certain",
    ),
    (["vip udp fresh 4.+3x", *PODS], f"3:coredns:rollout_started:template 2, {REPLACED}", {}, "all_replaced certain"),
    (["vip udp fresh 4.+3x", *PODS], REPLACED, {}, "all_evicted certain"),
    (["vip udp fresh 4.+6x", *PODS[:2]], ALL_GO, {}, "no_pods certain"),
    (["vip udp fresh 3.3.+6x", *PODS[:2]], ALL_GO, {"kubernetes": "v1.25.3"}, "no_fallback certain"),
    (STALE, CLOSED, {"cni": "cilium 1.17"}, "socket_lb certain"),
    (["vip tcp reused 4.+0.1c", *PODS], CLOSED, {}, "reused_tcp certain"),
    ([*NOBODY, "pod-a http fresh ."], "", {}, "port_blocked likely"),
    ([*NOBODY, "pod-a http fresh 2.+8x"], "", {}, "network likely"),
    (["pod-a udp fresh 4.+6x", "pod-a tcp fresh 4.+6x", "vip udp fresh 4.+63", *PODS[1:]], "", {}, "node_lost likely"),
    (
        ["nodes connect fresh 4.+6x", "pod-a http fresh 4.+6x", *(f"pod-{p} udp fresh 4.+6x" for p in "ab"), PODS[2]],
        "",
        {},
        "node_lost certain",
    ),
    (
        ["pod-a udp fresh 4.+6x", "pod-a http fresh .", "vip udp fresh 4.+63", *PODS[1:]],  # it is reached by HTTP
        "",
        {},
        "undetermined undetermined",
    ),
    (["pod-a udp fresh 4.+65", "vip udp fresh 4.+63", *PODS[1:]], "", {}, "pod_stuck likely"),
    (["vip udp fresh 4.+6x", "pod-a udp fresh 4.+6x", *PODS[1:]], "0:pod-a:nsid:80", {}, "affinity certain"),
    (
        PODS,
        f"2:pod-n:pod_created:, {ENDS}, 4:pod-n:log:Unknown directive 'bogus'",
        {},
        "stuck_rollout certain",
    ),
    (
        PODS,
        "0.5:coredns:corefile_patched:ready off, 1:coredns:rollout_started:template 2, 1:pod-n:pod_created:",
        {},
        "never_ready certain",
    ),
    (["pod-a udp fresh 10S", "vip udp fresh .", *PODS[1:]], "", {}, "one_slow likely"),
    (["vip udp fresh 10S", *(f"pod-{p} udp fresh 10S" for p in "abc")], "", {}, "all_slow likely"),
    (["vip udp fresh .", *PODS], "0:pod-a:nsid:200", {}, "one_for_all certain"),
    (["vip udp fresh 3.+1x", *PODS], "3:vip-udp-fresh:drops:20", {}, "prober likely"),
    ([SUFFIXED, "vip udp fresh ."], "", {}, "autopath likely"),
    ([SUFFIXED, "vip udp fresh ."], "2:coredns:corefile_patched:autopath @kubernetes", {}, "autopath certain"),
    (["vip udp fresh pair 2.+83", "vip udp fresh .", *PODS], "", {}, "race likely"),
    (["vip udp fresh pair 2.+83", "vip udp fresh 2.+83", *PODS], "", {}, "undetermined undetermined"),
    (["api connect fresh 3.+4x", "vip udp fresh .", "nodes connect fresh ."], "", {}, "api_server likely"),
    (["pod-a http fresh 3.+4r", *PODS], "", {}, "unready likely"),
    (["pod-a udp fresh 3.+4w", "pod-b udp fresh 3.+4w", "vip udp fresh ."], "", {}, "stale_records likely"),
    (LOCAL, "0:pod-a:requests:0, 9:pod-a:requests:400", {ASKED_FACT: "10.0.0.31"}, "nodelocal_unused likely"),
    (LOCAL, "0:pod-a:requests:0, 9:pod-a:requests:200", {ASKED_FACT: "10.0.0.31"}, ""),  # it is NodeLocal's, too
    (LOCAL, "0:pod-a:requests:0, 9:pod-a:requests:400", {ASKED_FACT: "10.0.0.20, 10.0.0.31"}, ""),
    (
        PODS,
        "2:coredns:rollout_started:template 2~ coredns:v1.12, 3:coredns:scaled:from 4 to 2 replicas",
        {"pods": "coredns:v1.11 on node-1"},
        "overwritten likely",
    ),
    (
        PODS,
        "2:coredns:rollout_started:template 2~ coredns:v1.11, 3:coredns:scaled:from 4 to 2 replicas",
        {"pods": "coredns:v1.11 on node-1"},
        "",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("lanes", "marks", "facts", "said"), ROWS)
def test_the_rules_name_the_cause(
    tmp_path: Path, lanes: list[str], marks: str, facts: dict[str, str], said: str
) -> None:
    run = run_of(tmp_path / "run.db", lanes, marks, facts)
    found = diagnose(Timeline.of(run))
    assert [f"{d.finding.id} {d.finding.sure}" for d in found] == ([said] if said else [])
    windows = [w for d in found for w in d.windows]
    assert len(windows) == len(Timeline.of(run).windows), "each window is explained once"


def test_every_rule_has_a_row_that_yields_it() -> None:
    assert set(RULES) <= {said.split()[0] for *_, said in ROWS if said}


def test_what_cannot_be_told_apart_says_what_to_run(tmp_path: Path) -> None:
    (one,) = diagnose(Timeline.of(run_of(tmp_path / "run.db", [f"{OUT}f", "vip udp fresh ."])))
    assert one.finding.text == "undetermined between max_concurrent, upstream_refuses"
    assert one.finding.apart == "run it with `upstream`"
    assert [f.sure for f in one.findings[1:]] == ["possible", "possible"]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_remedy_is_the_one_that_the_platform_keeps(tmp_path: Path, platform: str) -> None:
    run = run_of(tmp_path / "run.db", THIRD, CLOSED, {"readiness": "ready, 1 s x 1"})
    (one,) = diagnose(Timeline.of(run), platform)
    assert one.finding.remedy
    if PLATFORMS[platform].settable:
        assert "lameduck 4.4s" in one.finding.remedy, (
            "the last loss came 2.9 s after the deletion, a probe fails in 1 s"
        )


@pytest.mark.parametrize("drawing", ["2.+2.3x", "2.+3.13", "2.+0.1x", "2.+1x+0.5.+3.2s"])
def test_what_is_lost_in_the_pieces_of_a_window_is_what_the_window_lost(tmp_path: Path, drawing: str) -> None:
    timeline = Timeline.of(run_of(tmp_path / "run.db", [f"vip udp fresh {drawing}"]))
    for window in timeline.windows:
        near = _pieces(timeline, timeline.channels[0], window)
        pieces = [p for p in near if window.from_ns <= p.from_ns < window.to_ns]
        assert [p.from_ns for p in pieces] == [window.from_ns, *(p.to_ns for p in pieces[:-1])]
        lost = sum(p.shares["A"][-1][0] * (p.to_ns - p.from_ns) * RATE / NS for p in pieces if p.shares)
        assert lost == pytest.approx(window.lost, abs=len(pieces)), "no 100 ms are in two of them"


@pytest.mark.parametrize("story", STORIES)
def test_each_window_of_any_run_is_in_one_diagnosis(tmp_path: Path, story: str) -> None:
    timeline = Timeline.of(STORIES[story](tmp_path / "run.db"))
    told = [id(w) for d in diagnose(timeline) for w in d.windows]
    assert sorted(told) == sorted(map(id, timeline.windows))


def test_every_rule_says_all_of_it() -> None:
    for id_, rule in RULES.items():
        assert all((rule.cause, rule.apart, rule.source, rule.remedy)), id_
        assert rule.row[0] in "UFM1234567890", id_
        remedy = rule.remedy if isinstance(rule.remedy, str) else ""
        assert [line for line in remedy.splitlines() if len(line) > 76] == [], "a screen has 80 columns"
        assert remedy.count("{") == remedy.count("}"), id_


def test_the_life_of_a_pod_is_read_from_marks(tmp_path: Path) -> None:
    marks = f"{CLOSED}, 4.2:pod-a:pod_exited:exit code 137, 5:pod-b:pod_exited:exit code 2"
    pods = pods_of(run_of(tmp_path / "run.db", PODS, marks))
    assert (pods["pod-a"].lameduck_s, pods["pod-a"].exit_code, pods["pod-a"].grace) == (1.0, 137, 30.0)
    assert pods["pod-b"].crashes == [(5 * NS, 2)]
    assert not pods["pod-b"].deleted


# --- for others ---


def with_failures(run: Run) -> tuple[Run, list[Diagnosis]]:
    lost = [
        Failure(
            0,
            "kubernetes.default.svc.cluster.local A",
            4 * NS + (i + 2) * NS // 20,
            0,
            Outcome.TIMEOUT,
            0,
            "",
            40000 + i,
            i,
        )
        for i in (0, 3, 6)
    ]
    run = replace(run, failures=tuple(lost))
    return run, diagnose(Timeline.of(run))


def test_lost_queries_are_found_in_a_capture_a_log_and_a_ticket(tmp_path: Path) -> None:
    run, (one,) = with_failures(run_of(tmp_path / "run.db", THIRD, f"{CLOSED}, 9:pod-b:pod_ready:10.0.0.9 on node-7"))
    failures = failures_in(run, one.windows)
    assert capture_filter(run, failures) == (
        f"(udp port 53 and host {run.series[0].target.address} and (port 40000 or port 40003 or port 40006))"
    )
    if tcpdump := subprocess.run(["which", "tcpdump"], capture_output=True, text=True, check=False).stdout.strip():
        subprocess.run([tcpdump, "-d", capture_filter(run, failures)], capture_output=True, check=True)
    assert [(t.domain, t.qtype, t.code, t.second) for t in ticket(run, failures)] == [
        (NAME, "A", "timeout", "2026-09-21 14:13:24")
    ]
    assert nodes_of(run) == ["node-7"]
    log = read_log(
        [
            "[INFO] plugin/reload: Running configuration SHA512 = 1",
            f'[pod/coredns-a/coredns] [INFO] 10.1.0.5:40003 - 3 "A IN {NAME}. udp 54 false 512" NOERROR qr 106 0.1s',
            f'[INFO] 10.1.0.5:40006 - 7 "A IN {NAME}. udp 54 false 512" NOERROR qr 106 0.1s',
            '[INFO] [fd00::5]:40000 - 0 "A IN other.example. udp 54 false 512" - - 0 2.0s',
        ]
    )
    assert [(one.port, one.id, one.rcode) for one in log] == [
        (40003, 3, "NOERROR"),
        (40006, 7, "NOERROR"),
        (40000, 0, "-"),
    ]
    told = matched(failures, log)
    assert ([f.source_port for f, _ in told.seen], told.unseen) == ([40003], 2), (
        "an id or a name of another is no match"
    )
    text = explain_text(run, [one], log)
    for said in ("[short_lameduck]", "tcpdump -nr", "log        1 of 3 lost", "2026-09-21 14:13:24", "lameduck 33.4s"):
        assert said in text
    told_json = json.loads(explain_json(run, [one], log))["diagnoses"][0]
    assert told_json["findings"][0]["sure"] == "certain"
    assert told_json["logged"] == {"seen": 1, "unseen": 2}


def test_what_asked_no_dns_is_found_in_a_capture_alone(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run.db", ["api connect fresh 3.+4x", "vip udp fresh ."])
    lost = [Failure(0, "api CONNECT", 4 * NS, 0, Outcome.TIMEOUT, 0, "connect", 40000)]
    assert capture_filter(run, lost).startswith("(tcp port ")
    assert (ticket(run, lost), matched(lost, []).unseen) == ([], 0)


@pytest.mark.parametrize(
    ("asked", "logged", "same"),
    [
        ("x.example.com", "x.example.com.", True),
        ("x.example.com.", "y.example.com.", False),
        ("{random}.example.com", "abcdefghijklm.example.com.", True),
        ("api-{random}-x.example.com", "api-abcdefghijklm-x.example.com.", True),
        ("api-{random}-x.example.com", "api-abcdefghijklm-y.example.com.", False),
        ("{number}.x", "0000000000042.x.", True),
        ("{random}.example.com", "example.com.", False),
    ],
)
def test_a_label_that_changes_is_found_in_a_log(asked: str, logged: str, same: bool) -> None:
    failure = Failure(0, f"{asked} A", 0, 0, Outcome.TIMEOUT, 0, "", 4000, 7)
    line = f'[INFO] 10.1.0.5:4000 - 7 "A IN {logged} udp 54 false 512" NOERROR qr 106 0.1s'
    assert len(matched([failure], read_log([line])).seen) == same


@pytest.mark.parametrize(
    ("message", "took", "outcomes"),
    [
        ("dial tcp: lookup x.y on 10.96.0.10:53: no such host", None, "nxdomain nodata"),
        ("dial tcp: lookup x on 10.96.0.10:53: read udp 1.2.3.4:5->10.96.0.10:53: i/o timeout", 5, "timeout"),
        ("lookup x on 10.96.0.10:53: server misbehaving", None, "servfail refused"),
        ("read udp 1.2.3.4:5->10.96.0.10:53: read: connection refused", None, "connection_refused"),
        ("ping: a.b.c: Name or service not known", None, "nxdomain timeout"),
        ("curl: (6) Could not resolve host: a.b.c", 0.01, "nxdomain"),
        ("php_network_getaddresses: getaddrinfo failed: Name or service not known", 10, "timeout"),
        ("Temporary failure in name resolution", 0.01, "connection_refused servfail refused"),
        ("Error: getaddrinfo EAI_AGAIN api.example.com", 10, "timeout"),
        ("Error: getaddrinfo ENOTFOUND api.example.com", 0.1, "nxdomain nodata"),
        ("Error: queryA ETIMEOUT api.example.com", None, "timeout"),
        ("Error: queryAaaa ENOTFOUND api.example.com", None, "nxdomain"),
        ("java.net.UnknownHostException: a.b: Name or service not known", None, "nxdomain timeout"),
        ("java.net.UnknownHostException: a.b", 0, ""),
        (";; ->>HEADER<<- opcode: QUERY, status: NXDOMAIN, id: 4242", None, "nxdomain"),
        (";; connection timed out; no servers could be reached", None, "timeout"),
        ("[ERROR] plugin/errors: 2 a.com. A: read udp 10.0.0.53:58814->10.0.0.2:53: i/o timeout", None, "timeout"),
        ("/etc/coredns/Corefile:4 - Error during parsing: Unknown directive 'ready'", None, ""),
        ("wget: bad address 'a.b.c'", 5, "timeout"),
    ],
)
def test_a_message_says_what_became_of_the_query(message: str, took: float | None, outcomes: str) -> None:
    meaning = meaning_of(message, took)
    assert meaning is not None
    assert " ".join(o.label for o in meaning.outcomes) == outcomes
    assert len({text for *_, text in MESSAGES}) > 10


@pytest.mark.parametrize("words", [*GLIBC.items(), *MUSL.items()])
def test_every_word_that_a_libc_prints_is_known(words: tuple[str, str]) -> None:
    code, text = words
    meaning = meaning_of(f"lookup of {NAME}: {text}")
    assert meaning
    assert (Outcome.TIMEOUT in meaning.outcomes) == (code == "EAI_AGAIN" or text == GLIBC["EAI_NONAME"]), (
        "musl can tell"
    )


def test_a_message_names_its_name_and_server() -> None:
    meaning = meaning_of("dial tcp: lookup api.example.com on 10.96.0.10:53: no such host")
    assert meaning is not None
    assert (meaning.name, meaning.server) == ("api.example.com", "10.96.0.10:53")
    assert meaning_of("Segmentation fault") is None


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["{run}"], 0, "certain: nodes learn of a pod's end later"),
        (["{run}", "--json", "-", "--platform", "eks"], 0, "aws eks update-addon"),
        (["--error", "lookup x on 10.96.0.10:53: i/o timeout", "--took", "5s"], 0, "timeout: silence"),
        (["--error", "Segmentation fault"], 3, "no message of a resolver"),
        (["{run}", "--error", "x"], 2, "one of them"),
        (["{run}", "--took", "5s"], 2, "--took goes with --error"),
        (["{run}", "--log", "{run}"], 2, "no line of CoreDNS's query log"),
        (["{run}", "--platform", "mine"], 2, "kubeadm"),
    ],
)
def test_the_command_explains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    run = run_of(tmp_path / "run.db", THIRD, CLOSED)
    with pytest.raises(SystemExit) as ended:
        main(["explain", *(word.format(run=run.path) for word in words)])
    out, err = capsys.readouterr()
    assert (ended.value.code or 0) == code
    assert said in out + err


SHORT = ("short lameduck", "upstream silent", "UDP 53 blocked", "stale conntrack")


@pytest.mark.skipif(find_coredns() is None, reason="needs the real CoreDNS: run `make coredns`")
@needs_namespaces
def test_labs_with_a_hidden_cause(tmp_path: Path) -> None:
    """All of them: make confusion."""
    with ThreadPoolExecutor(len(SHORT)) as pool:
        told = list(pool.map(lambda cause: made(cause, tmp_path / f"{cause}.db"), SHORT))
    assert [cause for cause, said, _ in told if said not in CASES[cause].names] == [], told
