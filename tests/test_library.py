"""The Python API: its doctests, runs from scripts, from threads and from a running event loop; what it refuses."""

from __future__ import annotations

import asyncio
import doctest
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import probe
from probe import library
from probe.errors import UsageError
from probe.outcome import Outcome
from tests.conftest import Start
from tests.servers import REPLIES, Rule, closed_port
from tests.test_cli import ROOT

QUICK = ["duration=1s", "lab.coredns=stand-in"]


def test_its_doctests(tmp_path: Path) -> None:
    found = doctest.testmod(library, extraglobs={"path": tmp_path / "run.db"})
    assert (found.attempted > 3, found.failed) == (True, 0)


def test_to_import_it_imports_nothing() -> None:
    script = "import sys; before = set(sys.modules); import probe; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-S", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "numpy" not in done.stdout
    assert "probe." not in done.stdout


def test_numpy_starts_no_threads_of_its_own() -> None:
    script = "import probe; probe.open_run; import os; print(os.environ['OPENBLAS_NUM_THREADS'])"
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "1\n"


def test_what_is_offered_is_there() -> None:
    assert [name for name in probe.__all__ if getattr(probe, name) is not getattr(library, name)] == []
    with pytest.raises(AttributeError, match="has no attribute 'rum'"):
        probe.rum  # noqa: B018


def test_a_server_in_dnsperf_s_letters(scripted: Start, tmp_path: Path) -> None:
    server = scripted([Rule(REPLIES["answer"])])
    asked = probe.Options(servers=["127.0.0.1"], port=str(server.port), rate="100", length="1")
    run = probe.run(asked, tmp_path / "run.db")
    assert (int(run.counts.n.sum()), run.cut, run.finished) == (100, "", True)
    assert set(run.counts.outcome.tolist()) == {Outcome.ANSWER}


def test_in_a_running_event_loop_as_notebooks_have_one(tmp_path: Path) -> None:
    asked = probe.Options(servers=["127.0.0.1"], port=str(closed_port("127.0.0.1")), rate="50", length="1")

    async def cell() -> int:
        return int(probe.run(asked, tmp_path / "run.db").counts.n.sum())

    assert asyncio.run(cell()) == 50


def test_in_a_thread(tmp_path: Path) -> None:
    runs: list[int] = []
    asked = probe.Options(servers=["127.0.0.1"], port=str(closed_port("127.0.0.1")), rate="50", length="1")
    thread = threading.Thread(target=lambda: runs.append(int(probe.run(asked, tmp_path / "run.db").counts.n.sum())))
    thread.start()
    thread.join(30)
    assert runs == [50]


def test_ctrl_c_ends_it_in_order_and_is_heard(tmp_path: Path) -> None:
    script = (
        "import probe, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # these tests may run in the background
        f"asked = probe.Options(servers=['127.0.0.1'], port='{closed_port('127.0.0.1')}', rate='50', length='60')\n"
        "try:\n    probe.run(asked, 'run.db')\n"
        "except KeyboardInterrupt:\n"
        "    print(probe.open_run('run.db').cut, signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        while not (tmp_path / "run.db").exists():
            assert process.poll() is None
        threading.Event().wait(1.5)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert out.startswith("ended after ")
    assert out.endswith("by Ctrl-C True\n")


@pytest.mark.parametrize(
    ("what", "how", "said"),
    [
        ("scale-down", {}, "scale-down changes a cluster: dnsprobe run --yes --cluster NAME does that, or lab=True"),
        ("scale-dwn", {"lab": True}, "scale-dwn: no such file or shipped scenario; nearest: scale-down"),
        ("lameduck-sweep", {"lab": True}, "lameduck-sweep: has a matrix, which is many runs: dnsprobe run"),
        ("baseline", {"lab": True, "settings": ["lab.lameduk=0"]}, "lab.lameduk: unknown key; nearest: lameduck"),
        (probe.Options(servers=["192.0.2.1"], rate="2000"), {}, "1,000 q/s is the ceiling"),
        (probe.Options(servers=["127.0.0.1"]), {"settings": ["duration=1s"]}, "settings go with a scenario"),
    ],
)
def test_what_is_refused(what: str | library.Options, how: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        probe.run(what, tmp_path / "run.db", **how)  # type: ignore[arg-type]
    assert said in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_run_file_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "run.db").write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        probe.run("baseline", tmp_path / "run.db", lab=True, settings=QUICK)
