"""Probers as the pods of a Job, before a scripted API server -> their runs as one, whatever becomes of the pods."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probe.collect.fromlog import rebuilt, told_in
from probe.doubts import doubts_of
from probe.model import NS, Interval, Mark, TargetKind
from probe.outcome import Counter, Outcome
from probe.recorder import Duration
from probe.report.lines import lines_report
from probe.runfile import POD_FACT, Run, RunWriter, open_run
from probe.timeline import Timeline
from probe.verdict import Ruling, verdict_of
from tests.apiserver import ApiServer, Log
from tests.conftest import Start
from tests.kube_objects import Json, thing
from tests.servers import REPLIES, Rule, ScriptedServer
from tests.synthetic import series_of, written
from tests.test_cli import ROOT, words
from tests.test_linger import free_port

JOB, SPACE = "load", "dnsprobe"
LINGER = "--format jsonl --linger 60s"


def job(over: bool = False) -> Json:
    conditions = [{"type": "Complete", "status": "True"}] if over else []
    spec: Json = {"template": {"spec": {"containers": []}}}
    return thing("Job", JOB, namespace=SPACE, spec=spec, status={"conditions": conditions})


class Prober:
    """A run as the pod of a Job: the API server shows it, gives its log, and leads to its port."""

    def __init__(self, api: ApiServer, folder: Path, name: str, index: int, command: str) -> None:
        self.api, self.name, self.index = api, name, index
        self.file = folder / f"own-{name}.db"
        port = free_port()
        node = f"node-{name[-1]}"
        extra = {"DNSPROBE_POD": name, "DNSPROBE_NODE": node, "DNSPROBE_GRACE_PERIOD": "40", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "probe.cli", *words(f"run {command} -o {self.file} --metrics :{port}")],
            cwd=folder, env={**os.environ, **extra, "TERM": "dumb"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        labels = {"job-name": JOB, "batch.kubernetes.io/job-completion-index": str(index)}
        self.pod = thing(
            "Pod", name, namespace=SPACE, labels=labels,
            spec={"nodeName": node, "containers": []}, status=_status("Running", RUNS),
        )  # fmt: skip
        api.logs[name] = Log()
        api.ports[f"{name}:9553"] = port
        api.put(self.pod)
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        """As the kubelet does: its lines are its log; once it has ended its state says so."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.api.logs[self.name].add(line.rstrip("\n"))
        self.process.wait()
        self.api.logs[self.name].end()
        self.pod["status"] = _status("Failed", {"terminated": {"exitCode": self.process.returncode}})
        self.api.put(self.pod)

    def evict(self) -> None:
        """As the Eviction API has it: SIGTERM, and its grace period; the pod is gone once its process is."""
        self.pod["metadata"] |= {"deletionTimestamp": "2026-11-21T04:30:00Z", "deletionGracePeriodSeconds": 40}
        self.api.put(self.pod)
        self.process.send_signal(signal.SIGTERM)

    def vanish(self) -> None:
        """As on a node that dies: nothing of it is there any more."""
        self.process.kill()
        self.end()
        self.api.delete(self.pod)
        del self.api.logs[self.name]

    def end(self) -> str:
        """Wait for it; what it said on stderr."""
        self._reading.join(30)
        assert self.process.stdout
        assert self.process.stderr
        said = self.process.stderr.read()
        self.process.stdout.close()
        self.process.stderr.close()
        self.process.wait(10)
        return said


RUNS: Json = {"running": {}}


def _status(phase: str, state: Json) -> Json:
    one = {"name": "dnsprobe", "image": "i", "imageID": "i", "ready": True, "restartCount": 0, "state": state}
    return {"phase": phase, "containerStatuses": [one]}


@pytest.fixture
def api() -> Iterator[ApiServer]:
    server = ApiServer(job(), thing("Node", "node-a", labels={"topology.kubernetes.io/zone": "north"}))
    yield server
    server.stop()


@pytest.fixture
def probers(api: ApiServer, tmp_path: Path) -> Iterator[Callable[[str, int, str], Prober]]:
    """Starts probers, and ends those that are left."""
    some: list[Prober] = []

    def start(name: str, index: int, command: str) -> Prober:
        some.append(Prober(api, tmp_path, name, index, command))
        return some[-1]

    yield start
    for prober in some:
        if prober.process.poll() is None:
            prober.process.kill()
        if prober.process.stdout and not prober.process.stdout.closed:
            prober.end()


class Collecting:
    """`dnsprobe collect` of the Job, in a process of its own."""

    def __init__(self, api: ApiServer, folder: Path) -> None:
        environment = {**os.environ, "KUBECONFIG": str(api.kubeconfig(folder / "kubeconfig")), "PYTHONPATH": str(ROOT)}
        self.out = folder / "all.db"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "probe.cli", *words(f"collect job/{JOB} -o {self.out} --json {folder}/all.json")],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=60)
        assert "Traceback" not in err, err
        return self.process.returncode, out, err


def at(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rows(*runs: Run) -> dict[tuple[str, str, bool], int]:
    """Rows by lane, outcome and whether they were good, of some runs together; undecided ones, too."""
    found: dict[tuple[str, str, bool], int] = {}
    for run in runs:
        c = run.counts
        for s, outcome, good, n in zip(c.series, c.outcome, c.good, c.n, strict=True):
            key = run.series[s].lane, Outcome(outcome).label, bool(good)
            found[key] = found.get(key, 0) + int(n)
    return found


def load(server: ScriptedServer, seconds: int = 6) -> str:
    return f"-s 127.0.0.1 -p {server.port} -n a.test --type A --type AAAA -Q 100 -l {seconds} -t 1 {LINGER}"


def seen_late(prober: Prober, seconds: float) -> None:
    """Until its run has gone on for so long."""
    while not prober.file.exists():
        assert prober.process.poll() is None, prober.end()
        time.sleep(0.05)
    time.sleep(seconds)


def test_shards_that_linger_are_taken_and_let_go_and_add_up(
    api: ApiServer, probers: Callable[..., Prober], scripted: Start, tmp_path: Path
) -> None:
    server = scripted([Rule(REPLIES["silent"], since=2, until=3.5), Rule(REPLIES["answer"])])
    when = at(15)
    pods = [probers(f"load-{k}-{c}", k, f"{load(server)} --shard {k}/2 --start-at {when}") for k, c in enumerate("ab")]
    collecting = Collecting(api, tmp_path)
    said = [pod.end() for pod in pods]
    api.put(job(over=True))
    code, out, err = collecting.end()
    assert all("the run file was taken" in text for text in said), said
    own = [open_run(pod.file) for pod in pods]
    run = open_run(collecting.out)
    assert rows(run) == rows(*own)
    assert code == verdict_of(run).ruling.exit_code == 1
    assert out.startswith("FAIL: it hurt")
    assert [(v.shard, v.node, v.zone, v.pod, v.source) for v in run.vantages] == [
        ("0/2", "node-a", "north", "load-0-a", "run file"), ("1/2", "node-b", "", "load-1-b", "run file"),
    ]  # fmt: skip
    for vantage, mine in zip(run.vantages, own, strict=True):
        (channel,) = Timeline.of(mine).channels
        assert [(s.lost, len(s.windows)) for s in vantage.seen] == [(channel.loss().lost, 1)]
    assert sorted(file.name for file in collecting.out.with_name("all.db.parts").iterdir()) == [
        "load-0-a.db", "load-0-a.log", "load-1-b.db", "load-1-b.log",
    ]  # fmt: skip
    assert json.loads((tmp_path / "all.json").read_text())["verdict"] == "FAIL"
    assert "load-0-a on node-a" in err


def test_an_evicted_pod_is_taken_before_it_goes_and_the_one_in_its_place_goes_on(
    api: ApiServer, probers: Callable[..., Prober], scripted: Start, tmp_path: Path
) -> None:
    server = scripted([Rule(REPLIES["answer"])])
    when = at(15)
    first = probers("load-0-a", 0, f"{load(server, 20)} --shard 0/2 --start-at {when}")
    other = probers("load-1-b", 1, f"{load(server, 20)} --shard 1/2 --start-at {when}")
    collecting = Collecting(api, tmp_path)
    seen_late(first, 5)
    first.evict()
    second = probers("load-0-c", 0, f"{load(server, 20)} --shard 0/2")
    assert "the run file was taken" in first.end()
    api.delete(first.pod)
    for pod in (other, second):
        pod.end()
    api.put(job(over=True))
    code, _, err = collecting.end()
    run, own = open_run(collecting.out), [open_run(pod.file) for pod in (first, other, second)]
    (channel,) = Timeline.of(run).channels
    assert code == verdict_of(run).ruling.exit_code == Ruling.INCONCLUSIVE.exit_code, err
    assert channel.whole.planned == 2000, "what the whole load was"
    assert channel.whole.lost == 0
    gap_s = (own[2].head.started_unix_ns - own[0].head.started_unix_ns - own[0].end_ns) / NS
    assert channel.whole.in_flight == pytest.approx(50 * gap_s, abs=60), "what shard 0 missed, and no more"
    assert [(v.shard, v.pod, v.from_ns > 0) for v in run.vantages] == [
        ("0/2", "load-0-a", False), ("1/2", "load-1-b", False), ("0/2", "load-0-c", True),
    ]  # fmt: skip
    assert run.end_ns == 20 * NS


def test_of_a_pod_that_is_gone_the_log_has_what_it_lost(
    api: ApiServer, probers: Callable[..., Prober], scripted: Start, tmp_path: Path
) -> None:
    server = scripted([Rule(REPLIES["silent"], since=2, until=3.5), Rule(REPLIES["answer"])])
    when = at(15)
    pods = [
        probers(f"load-{k}-{c}", k, f"{load(server, 16)} --shard {k}/2 --start-at {when}") for k, c in enumerate("ab")
    ]
    collecting = Collecting(api, tmp_path)
    seen_late(pods[0], 12)
    pods[0].vanish()
    pods[1].end()
    api.put(job(over=True))
    code, out, _ = collecting.end()
    run, own = open_run(collecting.out), open_run(pods[1].file)
    assert code == 1
    assert [v.source for v in run.vantages] == ["log", "run file"]
    (channel,) = Timeline.of(run).channels
    (window,) = Timeline.of(run).windows
    (mine,) = Timeline.of(own).windows
    assert channel.whole.planned == pytest.approx(1600, abs=5)
    assert window.lost == pytest.approx(2 * mine.lost, abs=2)
    assert window.to_ns - window.from_ns == pytest.approx(mine.to_ns - mine.from_ns, abs=NS // 20)
    assert channel.whole.in_flight == pytest.approx(50 * 6, abs=60), "what came after its last totals, at +10 s"
    assert "the run file was gone with its pod: its log has windows and marks, and totals up to +10 s" in out


@pytest.mark.parametrize("whole", [False, True])
def test_a_prober_of_which_nothing_is_left_is_named_and_no_pass(
    whole: bool, api: ApiServer, probers: Callable[..., Prober], scripted: Start, tmp_path: Path
) -> None:
    """Of two shards, or of two that each ask all of it."""
    server = scripted([Rule(REPLIES["answer"])])
    slices = ["", ""] if whole else [f"--shard {k}/2 --start-at {at(15)}" for k in (0, 1)]
    mute = probers("load-0-a", 0, f"{load(server).replace(LINGER, '')} {slices[0]}")
    pod = probers("load-1-b", 1, f"{load(server)} --fail 'loss > 50%' {slices[1]}")
    mute.process.kill()
    collecting = Collecting(api, tmp_path)
    pod.end()
    api.put(job(over=True))
    code, out, err = collecting.end()
    assert code == 3, out
    for text in (out, err):
        assert "of load-0-a on node-a, index 0 neither a run file nor the lines of one are left" in " ".join(
            text.split()
        )
    assert "--linger 10m" in out
    assert rows(open_run(collecting.out)) == rows(open_run(pod.file))


def test_probers_that_each_ask_all_of_it_are_one_run_with_a_view_of_each(
    api: ApiServer, probers: Callable[..., Prober], scripted: Start, tmp_path: Path
) -> None:
    """They begin when they are ready, and each has a verdict of its own."""
    silent = scripted([Rule(REPLIES["silent"], since=2, until=3.5), Rule(REPLIES["answer"])])
    command = load(silent).replace(" -l 6", " -l 8")
    pods = [probers("load-0-a", 0, command)]
    time.sleep(2)
    pods.append(probers("load-1-b", 1, command))
    collecting = Collecting(api, tmp_path)
    for pod in pods:
        pod.end()
    api.put(job(over=True))
    code, out, _ = collecting.end()
    run, own = open_run(collecting.out), [open_run(pod.file) for pod in pods]
    assert code == 1
    assert rows(run) == rows(*own)
    (channel,) = Timeline.of(run).channels
    assert channel.loss(((0, run.end_ns),)).planned == channel.whole.planned == 1600
    assert {v.pod: v.seen[0].lost for v in run.vantages} == {
        pod.name: Timeline.of(mine).channels[0].whole.lost for pod, mine in zip(pods, own, strict=True)
    }
    assert "2, each of which asked all of it" in out


def test_who_may_not_use_the_proxy_gets_the_log_and_the_rule_to_add(
    api: ApiServer, probers: Callable[..., Prober], scripted: Start, tmp_path: Path
) -> None:
    api.refuse = lambda path: 403 if "/proxy/" in path else 0
    pod = probers("load-0-a", 0, load(scripted([Rule(REPLIES["answer"])])).replace("--linger 60s", "--linger 1s"))
    collecting = Collecting(api, tmp_path)
    assert "nobody has taken the run file in time" in pod.end()
    api.put(job(over=True))
    _, _, err = collecting.end()
    assert 'pods in dnsprobe: no right to get their proxy (403): add to its Role in dnsprobe: {apiGroups: [""],' in err
    assert "resources: [pods/proxy], verbs: [get]}" in err
    assert rows(open_run(collecting.out)) == rows(open_run(pod.file))


@pytest.mark.parametrize(
    ("words_", "code", "said"),
    [
        ("collect pod/x -o a.db", 2, "'pod/x': say job/NAME"),
        ("collect job/x -o a.db", 4, "job/x: there is none in dnsprobe, and no pod of it: see -n"),
        (
            "collect job/load -o a.db",
            4,
            "nothing is left of any pod, and there were 0; a run that is to leave something",
        ),
    ],
)
def test_what_cannot_be_collected_is_said(words_: str, code: int, said: str, api: ApiServer, tmp_path: Path) -> None:
    api.put(job(over=True))
    environment = {**os.environ, "KUBECONFIG": str(api.kubeconfig(tmp_path / "kubeconfig")), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "probe.cli", *words(words_)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "kubeconfig"]


def test_a_folder_that_cannot_be_written_ends_a_collection(api: ApiServer, tmp_path: Path) -> None:
    """As on a full disk: no file may grow above 1,000 octets."""
    api.put(thing("Pod", "load-0-a", namespace=SPACE, labels={"job-name": JOB}, status=_status("Running", RUNS)))
    api.logs["load-0-a"] = Log()
    for line in range(100):
        api.logs["load-0-a"].add(f"line {line} of many")
    environment = {**os.environ, "KUBECONFIG": str(api.kubeconfig(tmp_path / "kubeconfig")), "PYTHONPATH": str(ROOT)}
    command = ["prlimit", "--fsize=1000", sys.executable, "-m", "probe.cli", *words(f"collect job/{JOB} -o all.db")]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=40, check=False
    )
    said = "all.db.parts: cannot be written: File too large; make room, and collect again: what is there counts"
    assert (done.returncode, said in done.stderr) == (4, True), done.stderr


@pytest.mark.parametrize("there", ["no Job", "an older Job", "a younger Job"])
def test_what_an_interrupted_collection_kept_counts_once_its_pods_are_no_more(
    there: str, api: ApiServer, tmp_path: Path
) -> None:
    """Not so if a Job of the same name was made since."""
    folder = tmp_path / "all.db.parts"
    folder.mkdir()
    series = [series_of(rate=10, seconds=20)]
    runs = [
        written(folder / f"{name}.db", series, lambda *_: Outcome.ANSWER, name="kept", facts={POD_FACT: name})
        for name in ("load-0-a", "load-1-b", "other-0-c", "load-big-0-d", "load-big-e")
    ]
    (folder / "load-1-b.log").write_text(lines_report(runs[1]))
    (folder / "load-1-b.db").rename(folder / "load-1-b.log.db")
    if there == "no Job":
        api.delete(job())
    else:
        api.put(made := job(over=True))
        made["metadata"]["creationTimestamp"] = at(3600 if there == "a younger Job" else -3600)
    code, out, err = Collecting(api, tmp_path).end()
    if there == "a younger Job":
        assert (code, "nothing is left of any pod, and there were 0" in err) == (4, True), err
        return
    assert code == 3, err
    run = open_run(tmp_path / "all.db")
    assert rows(run) == rows(*runs[:2])
    assert [(v.pod, v.source) for v in run.vantages] == [("load-0-a", "run file"), ("load-1-b", "log")]
    for file in ("load-0-a.db", "load-1-b.log"):
        name = file.rpartition(".")[0]
        assert f"{name}: is no more; what an earlier collection kept of it counts: {file}\n" in err
    assert "the run file was gone with its pod" in out


@pytest.mark.parametrize("left", ["load-1-b.db", "load-1-b.log"])
def test_of_a_prober_that_asked_nobody_the_others_are_put_together(left: str, api: ApiServer, tmp_path: Path) -> None:
    """It ended between the head of its run and its series."""
    folder = tmp_path / "all.db.parts"
    folder.mkdir()
    series = [series_of(rate=10, seconds=20)]
    run = written(folder / "load-0-a.db", series, lambda *_: Outcome.ANSWER, objectives=("loss < 50%",))
    if left.endswith(".log"):
        (folder / left).write_text(lines_report(run).splitlines()[0] + "\n")
    else:
        RunWriter.create(folder / left, run.head).finish(NS)
    api.delete(job())
    code, out, err = Collecting(api, tmp_path).end()
    assert code == 3, err
    assert f"{left}: is left out: it has no series, for its prober ended before it asked anybody\n" in err
    assert "of load-1-b, index 1 neither a run file nor the lines of one are left" in " ".join(out.split())
    assert rows(open_run(tmp_path / "all.db")) == rows(run)


# -- a log alone


def test_a_run_file_made_from_a_log_has_its_totals_windows_and_verdict(tmp_path: Path) -> None:
    def fate(series: Any, due_ns: int) -> Outcome:
        if 11 * NS <= due_ns < 13 * NS and series.lane == "vip":
            return Outcome.TIMEOUT if series.qtype == "A" else Outcome.SERVFAIL
        if series.target.kind is TargetKind.POD and due_ns >= 30 * NS:
            return Outcome.CONNECTION_REFUSED
        return Outcome.UNSENT if due_ns // (NS // 7) == 400 else Outcome.ANSWER

    series = [
        series_of(0, "vip", rate=30, seconds=60),
        series_of(1, "vip", rate=7, seconds=60, qtype="AAAA", offset_ns=NS // 50),
        series_of(2, "pods", "pod-1", TargetKind.POD, rate=20, seconds=60),
    ]
    run = written(
        tmp_path / "run.db", series, fate,
        marks=[Mark(10 * NS, "step", "scale to 2", "scenario")],
        intervals=[Interval(0, 30 * NS, "life", "pod-1 counts", "cluster", "pod-1")],
    )  # fmt: skip
    told = told_in(["no line of a run", "{broken", *lines_report(run).splitlines()])
    assert told
    text = rebuilt(told, tmp_path / "again.db")
    again = open_run(tmp_path / "again.db")
    assert rows(again) == rows(run)
    assert len(again.in_flight.n) == 0
    mine, theirs = Timeline.of(again), Timeline.of(run)
    for one, other in zip(mine.channels, theirs.channels, strict=True):
        assert one.whole == other.whole
        assert one.counted == other.counted
        assert one.loss().lost == other.loss().lost
    told_windows = [(w.lane, w.target, w.from_ns, w.to_ns, w.outcome, w.planned, w.lost) for w in mine.windows]
    assert told_windows == [
        (w.lane, w.target, w.from_ns, w.to_ns, w.outcome, w.planned, w.lost) for w in theirs.windows
    ]
    assert [(mark.at_ns, mark.text) for mark in again.marks] == [(10 * NS, "scale to 2")]
    assert verdict_of(again).ruling is verdict_of(run).ruling is Ruling.FAIL
    assert (again.end_ns, again.cut, again.head.name) == (run.end_ns, "", run.head.name)
    assert "latencies are not known" in text
    assert np.isnan(mine.quantile_ns(mine.channels[1], Duration.LATENCY, 0.5))


DOUBTED = [
    Interval(0, 60 * NS, "intercepted", "the gateway answers", "preflight", "vip-udp"),
    Interval(0, 60 * NS, "overrun", "the counts of 2 s were overwritten before they were read", "engine"),
    Interval(20 * NS, 60 * NS, "worker_died", "worker 1 of 2 was killed", "engine", "vip-udp"),
]


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_file_made_from_a_log_doubts_what_the_prober_did(killed: bool, tmp_path: Path) -> None:
    """One that was killed has not said what it doubts; that it was intercepted is a mark from the beginning on."""
    run = written(
        tmp_path / "run.db", [series_of(rate=10, seconds=60)], lambda *_: Outcome.ANSWER,
        objectives=("loss < 50%",), counters={(0, Counter.OWN_DROPS): 3},
        marks=[Mark(0, "intercepted", "the gateway answers", "preflight", "vip-udp")], intervals=DOUBTED,
    )  # fmt: skip
    lines = lines_report(run).splitlines()
    told = told_in(lines[:-1] if killed else lines)
    assert told
    rebuilt(told, tmp_path / "again.db")
    again = open_run(tmp_path / "again.db")
    mine = {doubt.id: doubt for doubt in doubts_of(again)}
    own = [mine.pop(id_) for id_ in ("cut", "from_log") if id_ in mine]
    assert [doubt.id for doubt in own] == ["cut", "from_log"][not killed :]
    theirs = {doubt.id: doubt for doubt in doubts_of(run) if not killed or doubt.id == "intercepted"}
    assert list(theirs) == (["intercepted"] if killed else ["own_drops", "intercepted", "overrun", "worker_died"])
    assert mine == theirs
    assert verdict_of(again).ruling is verdict_of(run).ruling is Ruling.INCONCLUSIVE


def test_the_schedule_of_a_log_is_never_whole_in_memory(tmp_path: Path) -> None:
    """100 MB, were it so."""
    run = written(tmp_path / "run.db", [series_of(rate=10, seconds=60)], lambda *_: Outcome.ANSWER)
    told = told_in(lines_report(run).splitlines())
    assert told
    told.series[0]["rate"] = "200000"
    tracemalloc.start()
    rebuilt(told, tmp_path / "again.db")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30_000_000
    assert rows(open_run(tmp_path / "again.db")) == rows(run)


def test_a_log_without_a_run_in_it_makes_none() -> None:
    assert (
        told_in(["dnsprobe: all was ready 5 s after --start-at: say a later time", "{}", '{"type": "window"}']) is None
    )
