"""`dnsprobe serve` goes on: scraped, reported on, told another scenario, robbed of its worker; ends when told to."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from probe.errors import EnvironmentProblem, UsageError
from probe.model import NS, Lane, Reason, Series, Target, TargetKind
from probe.runfile import KEPT, Head, RunWriter, aside_of, open_run, set_aside
from probe.scenario import serve
from probe.scenario.file import read_scenario_text
from probe.scenario.going import Ending
from probe.scenario.plan import ENDLESS_NS, Plan, series_of
from probe.scenario.serve import Asked, Parts, Serving, without_end
from tests.conftest import Start
from tests.servers import REPLIES, Rule, free_port
from tests.synthetic import STARTED
from tests.test_cli import start, told

ANSWER = [Rule(REPLIES["answer"])]
PATIENCE_S = 30.0


def scenario(port: int, rate: str = "20", name: str = "mine") -> str:
    return f"""name: {name}
duration: 1s
servers: [{{name: it, address: 127.0.0.1, port: {port}}}]
lanes: [{{name: udp, target: it, rate: {rate}, questions: [a.example.test]}}]
objectives: [loss <= 5%]
"""


def until(true: Callable[[], object], what: str) -> Any:
    """What it says at last."""
    given_up = time.monotonic() + PATIENCE_S
    while not (said := true()):
        assert time.monotonic() < given_up, what
        time.sleep(0.1)
    return said


class Served:
    """A `dnsprobe serve` in a process of its own."""

    def __init__(self, folder: Path, words: str) -> None:
        self.folder, self.port = folder, free_port()
        self.process = start(f"serve {words} --metrics 127.0.0.1:{self.port}", folder)

    def page(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            assert self.process.poll() is None, self.process.communicate()
            return 0, ""

    def metric(self, name: str) -> float:
        """The sum of its samples; -1 if there is none."""
        found = re.findall(rf"^dnsprobe_{name}(?:{{.*}})? (\S+)$", self.page("/metrics")[1], re.MULTILINE)
        return sum(map(float, found)) if found else -1

    def good(self, more_than: float = 0) -> float:
        """Waits until more queries than that were good; how many."""
        return float(
            until(lambda: max(0, (n := self.metric("queries_good_total")) - more_than) and n, "no query was good")
        )

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[[str], Served]]:
    """Starts one in the test's folder."""
    there: list[Served] = []

    def begin(words: str) -> Served:
        there.append(Served(tmp_path, words))
        return there[-1]

    yield begin
    for one in there:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def test_it_goes_on_is_scraped_reported_and_ends_when_told(
    serving: Callable[[str], Served], scripted: Start, tmp_path: Path
) -> None:
    """The scenario lasts a second, which does not count; there is a lane of 20 q/s, asked to the end."""
    (tmp_path / "mine.yaml").write_text(scenario(scripted(ANSWER).port))
    it = serving("mine.yaml --keep 5m --format jsonl")
    it.good(100)
    assert it.page("/ready")[0] == 200
    assert json.loads(it.page("/")[1]) == json.loads(it.page("/")[1]) | {
        "mode": "serve",
        "run": "mine",
        "state": "running",
    }
    reported = start("report --last 1m --json report.json", tmp_path)
    out, err = reported.communicate(timeout=PATIENCE_S)
    assert (reported.returncode, err) == (0, ""), out
    assert "goes on" in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["verdict"], report["cut"]) == ("PASS", None)
    assert not {doubt["id"] for doubt in report["doubts"]} & {"cut", "undecided", "few_samples"}
    assert report["totals"]["in_flight"] == 0
    asked = report["totals"]["planned"]
    code, lines, log = it.end()
    assert code == 0, log
    assert "ended after" in log
    kinds = [json.loads(line)["type"] for line in lines.splitlines()]
    assert kinds[:2] == ["begin", "series"]
    run = open_run(tmp_path / "dnsprobe-serve.db")
    assert run.counts.n.sum() > asked > 50
    assert run.head.facts[KEPT] == "the last 300 s"
    assert run.head.planned_ns == ENDLESS_NS
    assert [file.name for file in tmp_path.glob("*.db*")] == ["dnsprobe-serve.db"]


def test_another_scenario_takes_the_place_of_the_one_before_unless_it_is_wrong(
    serving: Callable[[str], Served], scripted: Start, tmp_path: Path
) -> None:
    """As a ConfigMap is changed: the link between is put elsewhere. A wrong file is told, and the good one goes on."""
    port, current, files = scripted(ANSWER).port, tmp_path / "..data", tmp_path / "mine.yaml"

    def put(name: str, text: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.yaml").write_text(text)
        (tmp_path / "new").symlink_to(name)
        (tmp_path / "new").rename(current)

    put("v1", scenario(port))
    files.symlink_to("..data/mine.yaml")
    it = serving("mine.yaml")
    before = it.good(20)
    put("v2", scenario(port, "100", "second"))
    until(lambda: 'scenario="second"' in it.page("/metrics")[1], "it was not read again")
    assert it.good(before + 100) > before, "what was counted goes on"
    assert 'dnsprobe_runs_started_total{reason="reload"} 1.0' in it.page("/metrics")[1]
    aside = aside_of(tmp_path / "dnsprobe-serve.db")
    first = open_run(aside)
    assert (first.head.name, first.cut) == ("mine", "")
    assert "was read again" in first.ended
    put("v3", scenario(port, "fast"))
    until(lambda: it.metric("config_last_reload_successful") == 0, "a wrong scenario is not told")
    good = it.good()
    it.good(good)
    it.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    put("v4", scenario(port, "100", "second"))
    until(lambda: it.metric("config_last_reload_successful") == 1, "the good one again")
    code, _, log = it.end(signal.SIGINT)
    assert code == 0
    assert log.count("mine.yaml:4: lanes[0].rate: 'fast': a rate is") == 2
    assert "the last good scenario goes on" in log
    assert "nothing has changed" in log, log
    assert not aside_of(tmp_path / "dnsprobe-serve.db", 2).exists(), "the same scenario is no new run"
    assert open_run(tmp_path / "dnsprobe-serve.db").head.facts[serve.BEGUN].partition(" ")[2].startswith("reload: ")


def test_in_the_lab_each_lane_is_asked_and_a_rollout_is_seen(serving: Callable[[str], Served], tmp_path: Path) -> None:
    it = serving("--lab --set lab.rollout_after=3s --set lab.coredns=stand-in -o lab.db")
    until(lambda: it.metric("rollout_info") >= 1 and it.metric("ready_endpoints") == 3, "the lab's rollout")
    it.good(10)
    until(lambda: 'target_terminating{target="' in it.page("/metrics")[1], "pods were told to go")
    code, _, log = it.end()
    assert code == 0, log
    assert "rollout_started coredns" in log
    assert re.search(
        r"asks kube-dns \(127\.53\.\d+\.10:10053\), coredns-\S+ \(\S+:10053\), \S+ \(\S+\), and 1 more\n", log
    )
    lanes = {s.lane for s in open_run(tmp_path / "lab.db").series}
    assert lanes == {"vip-udp-fresh", "vip-udp-fixed", "vip-tcp-fresh", "pods"}


def test_a_worker_that_dies_at_once_ends_it_for_whoever_started_it(
    serving: Callable[[str], Served], scripted: Start, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(scenario(scripted(ANSWER).port))
    it = serving("mine.yaml -o mine.db")
    it.good(20)
    listed = subprocess.check_output(["ps", "-o", "pid=,args=", "--ppid", str(it.process.pid)], text=True)
    (worker,) = [line.split()[0] for line in listed.splitlines() if "probe.engine.worker" in line]
    os.kill(int(worker), signal.SIGKILL)
    _, err = it.process.communicate(timeout=PATIENCE_S)
    assert it.process.returncode == 4
    assert re.search(r"the worker ended after .* by signal 9 .*; it is not begun anew, for that was within 60 s", err)
    assert open_run(tmp_path / "mine.db").counts.n.sum() > 20, "the file is whole"
    again = serving("mine.yaml -o mine.db")
    again.good(20)
    assert open_run(aside_of(tmp_path / "mine.db")).cut.startswith("the worker ended")
    other = start("serve mine.yaml -o mine.db --metrics 127.0.0.1:0", tmp_path)
    _, err = other.communicate(timeout=PATIENCE_S)
    assert other.returncode == 2
    other = start(f"serve mine.yaml -o mine.db --metrics 127.0.0.1:{free_port()}", tmp_path)
    _, err = other.communicate(timeout=PATIENCE_S)
    assert (other.returncode, "another process writes it" in err) == (4, True), err
    late = start("report mine.db --last 30m", tmp_path)
    _, err = late.communicate(timeout=PATIENCE_S)
    assert re.search(r"note: mine.db has the last .* alone: what was before is in mine.db.1", err)
    assert again.end()[0] == 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("serve scale-down", "scale-down changes the cluster (scale to 2): serve changes nothing"),
        ("serve lameduck-sweep --lab", "a matrix is many runs"),
        ("serve nosuch", "nosuch: no such file or shipped scenario"),
        ("serve --format json", "--format 'json': say text, jsonl"),
        ("serve --keep 5s", "--keep '5s': a duration from 1m to 168h"),
        ("serve --lab --service a/b", "--service: goes with a scenario in a real cluster"),
        ("serve --lab --metrics nowhere", "--metrics 'nowhere': say ADDRESS:PORT"),
        ("serve --lab --set lanes[0].rate=max --set lanes[0].users=1", "lanes[0]"),
        ("report --last 15m", "dnsprobe-serve.db: cannot be read: No such file"),
    ],
)
def test_what_it_cannot_do_is_refused(
    command: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = told(command, capsys)
    assert (code, said in " ".join(err.split())) == (2, True), err


def kept_file(path: Path, age_s: float = 0, *, served: bool = True, seconds: int = 1) -> None:
    facts = {KEPT: "the last hour"} if served else {}
    RunWriter.create(path, Head(path.name, STARTED, NS, facts=facts)).finish(seconds * NS)
    os.utime(path, (time.time() - age_s,) * 2)


def test_an_earlier_file_stands_aside_and_not_for_ever(tmp_path: Path) -> None:
    """.2 is too old, .3 was made by `dnsprobe run`, which nobody removes."""
    path = tmp_path / "x.db"
    for name, age_s, served in (
        ("x.db", 0, True),
        ("x.db.1", 10, True),
        ("x.db.2", 4000, True),
        ("x.db.3", 4000, False),
    ):
        kept_file(tmp_path / name, age_s, served=served)
    set_aside(path, 3600 * NS)
    names = {file.name: open_run(file).head.name for file in tmp_path.iterdir()}
    assert names == {"x.db.1": "x.db", "x.db.2": "x.db.1", "x.db.4": "x.db.3"}
    for _ in range(15):
        kept_file(path)
        set_aside(path, 3600 * NS)
    assert sum(KEPT in open_run(file).head.facts for file in tmp_path.iterdir()) <= 10


def test_what_is_no_run_file_is_left_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("something dear")
    with pytest.raises(UsageError, match="not a run file"):
        set_aside(tmp_path / "x.db", NS)
    assert (tmp_path / "x.db").read_text() == "something dear"


def test_a_file_of_another_dnsprobe_goes_aside_too_and_an_empty_one_goes(tmp_path: Path) -> None:
    """Who is upgraded, or was ended before it wrote a thing, serves on."""
    path = tmp_path / "x.db"
    kept_file(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 999")
    set_aside(path, NS)
    path.touch()
    set_aside(path, NS)
    assert [file.name for file in tmp_path.iterdir()] == ["x.db.1"]
    with pytest.raises(UsageError, match="schema 999"):
        open_run(tmp_path / "x.db.1")


def test_a_killed_run_s_log_goes_with_it(tmp_path: Path) -> None:
    """Its last seconds may be in the log alone."""
    path = tmp_path / "x.db"
    writer = RunWriter.create(path, Head("x", STARTED, NS))
    with pytest.raises(EnvironmentProblem, match="another process writes it"):
        set_aside(path, NS)
    writer._db.close()  # as its process's end does
    set_aside(path, NS)
    assert [file.name for file in tmp_path.iterdir()] == ["x.db.1"]


class FakeEngine:
    """As a run left it."""

    def __init__(self) -> None:
        self.t0_ns, self.t0_unix_ns, self.lasted_ns = 1, time.time_ns(), 0
        self.series: list[Any] = []
        self.deaths: list[Any] = []
        self.room = 1024

    def now_ns(self) -> int:
        return self.lasted_ns


class Heard:
    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.texts: list[str] = []

    def begins(self, reason: Reason) -> None:
        self.reasons.append(reason)

    def reloaded(self, good: bool) -> None:
        self.texts.append(f"reloaded {good}")

    def noted(self, text: str) -> None:
        self.texts.append(text)


CUT = Ending(Path(), "ended after 90.0 s by the cluster: its API is gone")
DIED = Ending(Path(), "the worker ended after 90.0 s: by signal 9", died=True)
INTERRUPTED = Ending(Path(), "ended after 90.0 s by SIGTERM", interrupted=True)


@pytest.mark.parametrize(
    ("runs", "reasons"),
    [
        ([(INTERRUPTED, 90)], ["start"]),
        ([(DIED, 90), (INTERRUPTED, 1)], ["start", "worker"]),
        ([(CUT, 90), (DIED, 61), (INTERRUPTED, 5)], ["start", "cluster", "worker"]),
        ([(CUT, 90), (DIED, 59)], ["start", "cluster", EnvironmentProblem]),
        ([(EnvironmentProblem("no API"), 0)], ["start", EnvironmentProblem]),
    ],
)
def test_a_run_that_fails_is_begun_anew_if_that_took_a_minute(
    runs: list[tuple[Ending | Exception, float]], reasons: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines: list[FakeEngine] = []

    async def run(plan: Plan, path: Path, _: object, engine: FakeEngine, *__: object, **___: object) -> Ending:
        ending, lasted_s = runs[len(engines) - 1]
        engine.lasted_ns = int(lasted_s * NS)
        await asyncio.sleep(0)
        assert plan.duration_ns == ENDLESS_NS
        if isinstance(ending, Exception):
            raise ending
        return replace(ending, path=path)

    def parts(_: Plan, __: Reason) -> Parts:
        engines.append(FakeEngine())
        nothing: Any = None
        engine: Any = engines[-1]
        return Parts(nothing, engine, None, lambda: None)

    monkeypatch.setattr(serve, "run", run)
    heard, plan = Heard(), without_end(read_scenario_text("x", scenario(53), []))
    asked = Asked(tmp_path / "x", lambda: plan, parts, tmp_path / "x.db", 60 * NS, None, "")
    found: list[Any]
    try:
        asyncio.run(Serving(asked, heard).to_the_end())
        found = [*heard.reasons]
    except EnvironmentProblem:
        found = [*heard.reasons, EnvironmentProblem]
    assert found == reasons


@pytest.mark.parametrize(
    ("gone", "there", "jumped_s", "reason"),
    [
        (0, 10, 0.0, Reason.START),
        (200, 210, 0.4, Reason.START),
        (257, 300, 0.0, Reason.ROOM),
        (1, 930, 0.0, Reason.ROOM),
        (0, 930, 0.0, Reason.START),
        (0, 10, 1.5, Reason.CLOCK),
        (0, 10, -3600.0, Reason.CLOCK),
    ],
)
def test_it_begins_anew_before_it_has_no_room_or_tells_wrong_times(
    gone: int, there: int, jumped_s: float, reason: Reason
) -> None:
    async def looked() -> Reason:
        engine: Any = FakeEngine()
        (one,) = without_end(read_scenario_text("x", scenario(53), [])).lanes
        series = serve_series(one, there)
        engine.series = [replace(s, stop_ns=50 * NS) if s.index < gone else s for s in series]
        engine.lasted_ns = 100 * NS
        engine.t0_unix_ns = time.time_ns() - 100 * NS - int(jumped_s * NS)
        going = serve._Going(engine)
        going.look()
        return going.reason

    assert asyncio.run(looked()) is reason


def serve_series(lane: Lane, n: int) -> list[Series]:
    return [series_of(lane, Target(f"pod-{i}", TargetKind.POD, "127.0.0.1", 53), i, 0, ENDLESS_NS)[0] for i in range(n)]
