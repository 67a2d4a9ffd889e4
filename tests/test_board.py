"""A Job's notice board on a scripted API: a start that all agree on, who is missing, and a stop that is heard."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from probe.cluster.kube import membership
from probe.cluster.kube.api import connect
from probe.cluster.kube.board import text_of
from probe.cluster.kube.membership import Membership
from probe.cluster.kube.stopping import stop_job
from probe.errors import EnvironmentProblem
from probe.model import NS
from probe.runfile import open_run
from probe.scenario.ready import ReadyFile
from probe.scenario.recent import Recent
from tests.apiserver import ApiServer
from tests.conftest import Start
from tests.kube_objects import job, job_pod, thing
from tests.servers import REPLIES, Rule
from tests.test_cli import start
from tests.test_kube import forbidden, ran
from tests.test_live import flush
from tests.test_plan import ONE
from tests.test_recent import series

UNSCHEDULED = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node fits"}]


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    server = ApiServer(*job(pods=3))
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))
    monkeypatch.setattr(membership, "PATIENCE", 3.0)
    yield server
    server.stop()


def on_the_board(api: ApiServer) -> dict[str, str]:
    boards = [config for config in api.all("ConfigMap") if config["metadata"]["name"] == "dnsprobe-watch"]
    return dict(boards[0].get("data", {})) if boards else {}


def member(pod: str, name: str = "watch") -> Membership:
    made = Membership.of({"DNSPROBE_JOB": name, "DNSPROBE_NAMESPACE": "dnsprobe", "DNSPROBE_POD": pod}, connect)
    assert made
    return made


async def starts(index: int, of: int, said: list[str]) -> int | str:
    """When that shard starts, or why it does not."""
    one = member(f"watch-{index}")
    try:
        at = await one.start(index, of, said.append)
        assert one.facts()["start"].endswith(f"Z: job/watch's {of} shards were ready")
        return at
    except EnvironmentProblem as problem:
        return str(problem)
    finally:
        await one.close()


async def all_of(*jobs: Coroutine[Any, Any, int | str]) -> list[int | str]:
    return await asyncio.gather(*jobs)


def test_shards_agree_on_one_start(api: ApiServer) -> None:
    said: list[str] = []
    one, two, three = asyncio.run(all_of(*(starts(n, 3, said) for n in range(3))))
    assert isinstance(one, int)
    assert one == two == three
    assert time.time_ns() < one < time.time_ns() + 4 * NS
    notes = on_the_board(api)
    assert notes.keys() == {"start", "ready-0", "ready-1", "ready-2"}
    assert notes["start"] == f"{text_of(one)} uid-1"
    assert {text.split()[1] for text in notes.values()} == {"uid-1"}


def test_an_earlier_job_of_that_name_is_not_mistaken(api: ApiServer) -> None:
    old = {"start": "2026-01-01T00:00:00Z uid-0", "stop": "2026-01-01T00:00:00Z uid-0", "ready-1": "x uid-0"}
    api.put(thing("ConfigMap", "dnsprobe-watch", namespace="dnsprobe", data=old))
    first, second = asyncio.run(all_of(*(starts(n, 2, []) for n in range(2))))
    assert isinstance(first, int)
    assert first == second
    assert first > time.time_ns()


def test_shards_that_are_missing_are_named_with_what_their_pods_say(api: ApiServer) -> None:
    api.put(job_pod("watch-2", 2, phase="Pending", conditions=UNSCHEDULED))
    api.delete(job_pod("watch-1", 1))
    said: list[str] = []
    (why,) = asyncio.run(all_of(starts(0, 4, said)))
    assert why == (
        "waiting for shards 1, 2, 3 of 4 to be ready, for 3 s now;"
        " shard 1 has no pod: the Job's parallelism must be its completions;"
        " shard 2: pod watch-2 is pending: cannot be scheduled: no node fits;"
        " shard 3 has no pod: the Job's parallelism must be its completions"
    )
    assert said == ["ready; waiting for shards 1, 2, 3 of 4 to be ready"]


def test_a_start_that_nobody_publishes(api: ApiServer) -> None:
    api.refuse = lambda path: 403 if "/pods?labelSelector" in path else 0
    first = asyncio.run(all_of(starts(1, 2, [])))
    assert first == ["waiting for shard 0 of 2 to be ready, for 3 s now"]


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (
            ("configmaps",),
            r"configmaps in dnsprobe: no right to list them \(403\): add to its Role in dnsprobe",
        ),
        (("dnsprobe-watch",), r"configmaps in dnsprobe: no right to patch them \(403\): add to .*verbs: \[patch\]"),
        (("pods",), r"pods in dnsprobe: no right to list them \(403\): add to its Role in dnsprobe"),
    ],
)
def test_a_right_that_is_missing_is_named(api: ApiServer, refused: tuple[str, ...], said: str) -> None:
    api.refuse = forbidden(*refused)
    (why,) = asyncio.run(all_of(starts(0, 1, [])))
    assert re.match(said, str(why))


def test_a_pod_of_no_job_is_said(api: ApiServer) -> None:
    api.delete(job_pod("watch-0", 0))
    (why,) = asyncio.run(all_of(starts(0, 1, [])))
    assert why == "DNSPROBE_POD: there is no pod watch-0 of a Job in dnsprobe"


def test_this_machine_s_clock_is_compared_with_the_api_s(api: ApiServer) -> None:
    async def clock() -> str:
        one = member("watch-0")
        assert api.port
        await one.start(0, 1, print)
        await one.close()
        return one.facts()["clock"]

    found = re.fullmatch(r"([-+][0-9.]+) to ([-+][0-9.]+) s from the API server's", asyncio.run(clock()))
    assert found
    assert -0.5 < float(found[1]) <= 0 <= float(found[2]) < 0.5


# -- stop


async def told(patience: float, *others: Coroutine[Any, Any, Any]) -> list[str]:
    """What `stop` says."""
    api = connect()
    tasks = [asyncio.create_task(other) for other in others]
    try:
        return [text async for text in stop_job(api, "dnsprobe", "watch", patience)]
    finally:
        await asyncio.gather(*tasks)
        await api.close()


async def hears(pod: str) -> None:
    one = member(pod)
    assert (await one.told_to_stop(print)).startswith("told so by `dnsprobe stop` at 20")
    await one.stops(print)
    await one.close()


def test_each_pod_says_that_it_stops(api: ApiServer) -> None:
    api.put(job_pod("watch-2", 2, phase="Succeeded"))
    said = asyncio.run(told(10, hears("watch-0"), hears("watch-1")))
    assert said[0] == "job/watch in dnsprobe is told to stop"
    assert sorted(re.sub("[0-9.]+ s", "T", text) for text in said[1:]) == [
        "pod watch-0: stops, after T",
        "pod watch-1: stops, after T",
        "pod watch-2: has ended",
    ]


def test_who_does_not_hear_it_is_named(api: ApiServer) -> None:
    api.put(job_pod("watch-1", 1, phase="Pending", conditions=UNSCHEDULED))
    with pytest.raises(EnvironmentProblem, match=r"not heard in 4 s, but it stays on the board: pod watch-1 is p"):
        asyncio.run(told(4, hears("watch-0"), hears("watch-2")))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["stop", "job/other"], 4, "there is no Job other in dnsprobe: say -n NAMESPACE"),
        (["stop", "pod/watch"], 2, "'pod/watch': say job/NAME"),
        (["stop", "job/watch", "--wait", "x"], 2, "--wait 'x': a duration is like"),
    ],
)
def test_what_cannot_be_stopped(
    api: ApiServer, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert api.asked == []
    found, text = ran(words, capsys)
    assert (found, said in text) == (code, True), text


ASKS = """\
name: asks
duration: 60s
lanes:
  - name: vip
    target: server
    rate: 50
    questions: [{{name: a.test, type: A, expect: any}}]
servers:
  - {{name: server, address: 127.0.0.1, port: {port}}}
"""


def in_pod(tmp_path: Path, index: int, words: str) -> subprocess.Popen[str]:
    job = {"DNSPROBE_JOB": "watch", "DNSPROBE_NAMESPACE": "dnsprobe", "DNSPROBE_POD": f"watch-{index}"}
    completions = {"JOB_COMPLETION_INDEX": str(index), "JOB_COMPLETIONS": "2"}
    return start(words, tmp_path, **job, **completions)


def test_a_job_s_run_is_started_together_and_stopped_in_order(
    api: ApiServer, scripted: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = scripted([Rule(REPLIES["answer"])])
    api.delete(job_pod("watch-2", 2))
    (tmp_path / "asks.yaml").write_text(ASKS.format(port=server.port))
    (tmp_path / "ready").write_text("stale")
    command = "run asks.yaml --start-at job --fail 'loss > 5%' --ready-file ready"
    pods = [in_pod(tmp_path, n, f"{command}-{n} -o {n}.db") for n in range(2)]
    deadline = time.monotonic() + 20
    while "start" not in on_the_board(api) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(6)
    api.stop()  # probing goes on, and the stop is heard once the API is back
    time.sleep(3)
    api.start()
    code, said = ran(["stop", "job/watch"], capsys)
    assert (code, len(re.findall(r"pod watch-[01]: stops, after", said))) == (0, 2), said
    for process in pods:
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert "told so by `dnsprobe stop`" in err
    runs = [open_run(tmp_path / f"{n}.db") for n in range(2)]
    assert runs[0].head.started_unix_ns == runs[1].head.started_unix_ns
    for run in runs:
        assert (run.cut, run.finished, int(run.in_flight.n.sum())) == ("", True, 0)
        assert run.ended.startswith("told so by `dnsprobe stop` at ")
        assert 6 * NS < run.end_ns < 30 * NS
        assert run.counts.n.sum() == pytest.approx(25 * run.end_ns / NS, abs=2)
        assert run.head.facts["start"].endswith("Z: job/watch's 2 shards were ready")
    code, said = ran(["merge", "-o", str(tmp_path / "all.db"), *(str(run.path) for run in runs)], capsys)
    assert code == 0, said


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (["--start-at", "job"], {}, "--start-at job: this is no pod of an Indexed Job of many: JOB_COMPLETION_INDEX"),
        (
            ["--start-at", "job"],
            {"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "2"},
            "--start-at job: this is no pod of a Job: DNSPROBE_JOB and DNSPROBE_NAMESPACE are not set",
        ),
        (["--ready-file", "none/ready"], {}, "--ready-file none/ready: cannot be written: No such file or directory"),
    ],
)
def test_what_needs_a_job(
    words: list[str],
    environment: dict[str, str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, text = ran(["run", "-s", "127.0.0.1", "-l", "1", *words], capsys)
    assert (code, said in text) == (2, True), text


# -- the readiness gate


def test_a_file_is_there_from_a_clean_baseline_to_the_end(tmp_path: Path) -> None:
    path, lanes, said = tmp_path / "ready", series(("vip", ONE)), list[str]()
    path.write_text("of a run that was killed")
    ready = ReadyFile(path, 3)
    there = []
    recent = Recent(3)
    for n, drawing in enumerate([".....", "....x", ".....", ".....", ".....", "xxxxx"]):
        recent.add(flush((n, True, [drawing])), lanes, (n + 1) * NS)
        ready.look(recent, (n + 1) * NS, said.append)
        there.append(path.exists())
    assert there == [False] * 4 + [True] * 2
    assert said == ["baseline clean for 3 s: ready for the upgrade"]
    ready.close()
    assert not path.exists()


def test_a_baseline_that_is_not_clean_is_said_now_and_then(tmp_path: Path) -> None:
    lanes, said = series(("vip", ONE)), list[str]()
    ready, recent = ReadyFile(tmp_path / "ready", 3), Recent(3)
    for n in range(80):
        recent.add(flush((n, True, ["....x"])), lanes, (n + 1) * NS)
        ready.look(recent, (n + 1) * NS, said.append)
    assert said == ["not ready for the upgrade: lane vip lost 3 of 15 in the last 3 s"] * 2
