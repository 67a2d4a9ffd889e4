"""`dnsprobe doctor` on this machine, and where something is taken from it: what is said, what mends it, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from probe import linux
from probe.doctor import EXAMINATIONS, examine
from probe.doctor.examination import Examined, State
from probe.doctor.told import doctor_text, exit_code_of
from tests.apiserver import ApiServer
from tests.kube_objects import service
from tests.test_cli import ROOT, told

COLUMNS = 120


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cluster but that of the test."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    server = ApiServer(service())
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))
    yield server
    server.stop()


def one(name: str, examined: list[Examined]) -> Examined:
    return next(each for each in examined if each.id == name)


def apart(folder: Path, before: str = "", **environment: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON of a process of its own, after some words of a shell."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"{before}\nexec {sys.executable} -m probe.cli doctor --format json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    said = json.loads(done.stdout)
    return done.returncode, {each["id"]: each for each in said["examined"]} | {"": said}


def test_here_tests_run_and_so_do_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told("doctor", capsys)
    assert (code, out.partition(":")[0]) == (0, "READY")
    assert "sleeps of 1 ms end" in out
    assert max(map(len, out.splitlines())) <= COLUMNS
    assert [line for line in out.splitlines() if line.startswith("  MISSING")] == []


def test_the_same_for_programs(tmp_path: Path) -> None:
    code, said = apart(tmp_path)
    head = said.pop("")
    assert (code, head["ready"], head["schema_version"]) == (0, True, 1)
    assert list(said) == list(EXAMINATIONS)
    assert {each["state"] for each in said.values()} <= {"ok", "less"}
    assert [each["id"] for each in said.values() if (each["state"] == "ok") == bool(each["mend"])] == []


@pytest.mark.parametrize(
    ("option", "lost", "state"),
    [
        ("SO_TIMESTAMPNS", "stamps", State.MISSING),
        ("IP_RECVERR", "errors", State.MISSING),
        ("SO_MEMINFO", "drops", State.MISSING),
        ("IP_LOCAL_PORT_RANGE", "port_choice", State.LESS),
        ("UDP_SEGMENT", "bursts", State.LESS),
    ],
)
def test_a_kernel_that_lacks_an_option(option: str, lost: str, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, option, 32_000)  # which no kernel knows
    examined = examine()
    found = one(lost, examined)
    assert (found.state, bool(found.mend)) == (state, True)
    assert exit_code_of(examined) == (4 if state is State.MISSING else 0)
    head = "NOT READY: no run goes without " if state is State.MISSING else "READY: runs go; not there: "
    first = doctor_text(examined).partition("\n")[0]
    assert first.startswith(head)
    assert lost in first


def test_too_few_files(tmp_path: Path) -> None:
    code, said = apart(tmp_path, "ulimit -n 300")
    assert (code, said[""]["ready"], said["descriptors"]["state"]) == (4, False, "missing")
    assert said["descriptors"]["found"].startswith("300 open files (hard limit) carry 50 q/s of new ports")
    assert said["descriptors"]["mend"].startswith("ulimit -Hn")


def test_what_is_not_installed_is_named_with_what_gives_it(tmp_path: Path) -> None:
    code, said = apart(tmp_path, PATH="", DNSPROBE_COREDNS="/nowhere/coredns")
    assert code == 0
    assert said["programs"]["found"] == "no ip, nft, conntrack"
    assert said["programs"]["mend"] == "apt-get install iproute2 nftables conntrack"
    assert "DNSPROBE_COREDNS=/nowhere/coredns: no such program" in said["coredns"]["found"]


def test_without_rights(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root, to give it up: run it with sudo")
    script = (
        "import os; from probe.doctor import machine; os.setgroups([]); os.setuid(65534);"
        " print(machine.namespaces().text); machine.folder()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "user 65534 without CAP_NET_ADMIN, CAP_SYS_ADMIN\n"
    assert "PermissionError: [Errno 13]" in done.stderr


def test_a_folder_that_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/proc")
    found = one("folder", examine())
    assert (found.state, found.found.partition(": /proc/")[0]) == (State.LESS, "No such file or directory")


def test_an_api_that_answers(api: ApiServer) -> None:
    found = one("cluster", examine())
    assert found.state is State.OK
    assert f"http://127.0.0.1:{api.port}, context test in " in found.found
    assert found.found.endswith("kube-system/kube-dns at 10.96.0.10")


@pytest.mark.parametrize(
    ("refuse", "said"),
    [(401, "does not accept who we are (401)"), (403, "no right to"), (500, "refuses to get version")],
)
def test_an_api_that_refuses(refuse: int, said: str, api: ApiServer) -> None:
    api.refuse = lambda _: refuse
    found = one("cluster", examine())
    assert (found.state, said in found.found) == (State.LESS, True)


def test_an_api_that_says_nothing_is_given_up_in_time(api: ApiServer) -> None:
    api.hush(True)
    began = time.monotonic()
    found = one("cluster", examine())
    assert "no answer in 5 s" in found.found
    assert time.monotonic() - began < 9
    api.hush(False)


def test_a_name_that_nobody_looks_up_is_given_up_in_time(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = api.kubeconfig(tmp_path / "config")
    config.write_text(config.read_text().replace("127.0.0.1", "api.example"))
    answered = threading.Event()
    monkeypatch.setattr("probe.doctor.reach.socket.getaddrinfo", lambda *_: answered.wait(60))
    began = time.monotonic()
    found = one("cluster", examine())
    answered.set()
    assert "looking up api.example takes over 5 s: DNS is silent here" in found.found
    assert time.monotonic() - began < 9


@pytest.mark.usefixtures("api")
def test_no_such_context(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = told("doctor --context prod", capsys)
    assert (code, "--context 'prod'" in err) == (2, True)
