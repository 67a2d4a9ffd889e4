"""A run file in, an HTTP server until it was taken out: by its own handlers, and by a whole run under signals."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from probe.errors import UsageError
from probe.pages import Address, Pages
from probe.scenario.linger import LEFT_S, USUAL_GRACE_S, Lingering, grace_of
from tests.conftest import Start
from tests.servers import ScriptedServer
from tests.test_cli import ANSWER, ROOT, words


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def asked(port: int, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        reply = connection.getresponse()
        return reply.status, dict(reply.headers), reply.read()
    finally:
        connection.close()


@pytest.fixture
def serving() -> Iterator[tuple[Lingering, int]]:
    port = free_port()
    pages = Pages(Address("", port))
    yield Lingering(pages, {"run": "synthetic", "shard": "0/2"}), port
    pages.close()


def test_before_the_end_there_is_an_index_and_no_file(serving: tuple[Lingering, int]) -> None:
    _, port = serving
    code, _, body = asked(port, "/")
    assert (code, json.loads(body)) == (200, {"state": "running", "run": "synthetic", "shard": "0/2"})
    for path in ("/run.db", "/run.db.gz", "/taken?sha256=x"):
        assert asked(port, path)[0] == 503
    assert asked(port, "/etc/passwd")[0] == 404


def test_the_file_is_served_until_who_has_read_it_says_so(serving: tuple[Lingering, int], tmp_path: Path) -> None:
    server, port = serving
    file = tmp_path / "mine.db"
    file.write_bytes(os.urandom(1_000_000) + bytes(1_000_000))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    seen: list[Any] = []

    def collect() -> None:
        while asked(port, "/run.db", "HEAD")[0] != 200:
            time.sleep(0.01)
        seen.append(json.loads(asked(port, "/")[2]))
        seen.append(asked(port, "/run.db"))
        seen.append(asked(port, "/run.db.gz"))
        seen.append(asked(port, "/taken?sha256=0")[0])
        seen.append(asked(port, f"/taken?sha256={digest}", "HEAD")[0])
        seen.append(server.taken)
        seen.append(asked(port, f"/taken?sha256={digest}")[0])

    collecting = threading.Thread(target=collect)
    collecting.start()
    begun = time.monotonic()
    assert server.wait(file, {"verdict": "PASS"}, 30, 30, None) == "the run file was taken"
    collecting.join()
    assert time.monotonic() - begun < 10
    index, plain, packed, *codes = seen
    assert index == index | {"state": "over", "file": "mine.db", "octets": 2_000_000, "sha256": digest}
    assert (index["verdict"], 20 < index["seconds_left"] <= 30) == ("PASS", True)
    assert plain[2] == gzip.decompress(packed[2]) == file.read_bytes()
    assert plain[1]["Content-Length"] == "2000000"
    assert len(packed[2]) < 1_100_000
    assert codes == [409, 200, False, 200]


@pytest.mark.parametrize(
    ("at_most", "grace", "signalled_s_ago", "lasts"),
    [(0.5, 30, None, 0.5), (30, LEFT_S + 1, 0.5, 0.5), (30, LEFT_S, 3, 0), (0.3, 60, 1, 0.3)],
)
def test_nobody_is_waited_for_longer_than_told(
    at_most: float, grace: float, signalled_s_ago: float | None, lasts: float,
    serving: tuple[Lingering, int], tmp_path: Path,
) -> None:  # fmt: skip
    (tmp_path / "run.db").write_bytes(b"x")
    signalled = None if signalled_s_ago is None else time.monotonic_ns() - int(signalled_s_ago * 1e9)
    begun = time.monotonic()
    assert serving[0].wait(tmp_path / "run.db", {}, at_most, grace, signalled) == (
        "nobody has taken the run file in time"
    )
    assert time.monotonic() - begun == pytest.approx(lasts, abs=0.3)


@pytest.mark.parametrize(("text", "seconds"), [("", USUAL_GRACE_S), ("60", 60), ("90s", 90), ("0.5m", 30)])
def test_the_grace_period_is_what_the_manifest_says(text: str, seconds: float) -> None:
    assert grace_of({"DNSPROBE_GRACE_PERIOD": text}) == seconds


def test_a_grace_period_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match=r"DNSPROBE_GRACE_PERIOD='soon'"):
        grace_of({"DNSPROBE_GRACE_PERIOD": "soon"})


def run(server: ScriptedServer, folder: Path, port: int, more: str, grace: str = "60") -> subprocess.Popen[str]:
    asks = f"run -s 127.0.0.1 -p {server.port} -n a.test -Q 50 -o run.db"
    command = f"{asks} --fail 'loss > 50%' --linger 10m --metrics :{port} {more}"
    return subprocess.Popen(
        [sys.executable, "-m", "probe.cli", *words(command)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb", "DNSPROBE_GRACE_PERIOD": grace},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def until_over(port: int, process: subprocess.Popen[str]) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            index = json.loads(asked(port, "/")[2])
        except OSError:
            index = {}
        if index.get("state") == "over":
            return dict(index)
        time.sleep(0.05)
    raise AssertionError(process.communicate()[1])


@pytest.mark.parametrize(("ended", "code"), [(False, 0), (True, 130)])
def test_a_run_stays_until_its_file_was_taken_and_exits_as_it_would(
    ended: bool, code: int, scripted: Start, tmp_path: Path
) -> None:
    server, port = scripted(ANSWER), free_port()
    with run(server, tmp_path, port, "-l 60" if ended else "-l 2") as process:
        if ended:
            while not (tmp_path / "run.db").exists():
                time.sleep(0.05)
            time.sleep(2)
            process.send_signal(signal.SIGTERM)
        index = until_over(port, process)
        assert index["seconds_left"] == pytest.approx(55 if ended else 600, abs=8)
        content = asked(port, "/run.db")[2]
        assert hashlib.sha256(content).hexdigest() == index["sha256"]
        assert asked(port, f"/taken?sha256={index['sha256']}")[0] == 200
        out, err = process.communicate(timeout=20)
    assert (process.returncode, index["exit_code"]) == (code, code), err
    assert "the run file was taken" in err
    assert index["verdict"] in out
    assert (tmp_path / "run.db").read_bytes() == content


def test_a_first_sigterm_leaves_the_grace_period_and_a_second_one_ends_it(scripted: Start, tmp_path: Path) -> None:
    server, port = scripted(ANSWER), free_port()
    with run(server, tmp_path, port, "-l 1") as process:
        assert until_over(port, process)["seconds_left"] > 500
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert 40 < json.loads(asked(port, "/")[2])["seconds_left"] <= 55
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "ended by a second SIGINT" in err
