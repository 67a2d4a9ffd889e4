"""An HTTP server in threads of its own: what it answers, to whom, and what those who harm it get."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest

from probe.errors import EnvironmentProblem, UsageError
from probe.pages import MOST, Address, Pages, say, whole
from tests.drilling import running
from tests.servers import free_port, has_ipv6


def asked(
    port: int, path: str, method: str = "GET", host: str = "127.0.0.1", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body."""
    connection = HTTPConnection(host, port, timeout=5)
    try:
        connection.request(method, path, headers=headers or {})
        reply = connection.getresponse()
        return reply.status, dict(reply.headers), reply.read()
    finally:
        connection.close()


@pytest.fixture
def pages() -> Iterator[Pages]:
    made = Pages(Address("127.0.0.1", free_port("127.0.0.1")))
    made.add("/", lambda request: say(request, {"it": "works"}))
    made.add("/more", lambda request: say(request, {"more": request.path}))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("text", "host", "port", "said"),
    [
        ("9553", "", 9553, ":9553"),
        (":9553", "", 9553, ":9553"),
        ("127.0.0.1:1", "127.0.0.1", 1, "127.0.0.1:1"),
        ("[::1]:65535", "::1", 65535, "[::1]:65535"),
        (" 0.0.0.0:80 ", "0.0.0.0", 80, "0.0.0.0:80"),
    ],
)
def test_where_to_listen(text: str, host: str, port: int, said: str) -> None:
    address = Address.of(text)
    assert (address, str(address)) == ((host, port), said)


@pytest.mark.parametrize(
    "text", ["", "x", "0", "65536", "::1:9553", "[127.0.0.1]:1", "localhost:9553", "127.0.0.1", "[::1]", "1:2:3"]
)
def test_where_one_cannot_listen(text: str) -> None:
    with pytest.raises(UsageError, match=r"say ADDRESS:PORT"):
        Address.of(text)


def test_paths_are_answered_and_others_told_what_there_is(pages: Pages) -> None:
    port = pages.address.port
    assert asked(port, "/")[0::2] == (200, b'{"it": "works"}\n')
    assert asked(port, "/more?x=1")[2] == b'{"more": "/more?x=1"}\n'
    assert asked(port, "/", "HEAD")[0::2] == (200, b"")
    assert asked(port, "/etc/passwd")[0::2] == (404, b'{"error": "there is /, /more"}\n')
    assert asked(port, "/", "POST")[0] == 501


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_without_an_address_it_listens_everywhere(host: str) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("needs IPv6: this machine's loopback has no ::1")
    port = free_port("127.0.0.1")
    made = Pages(Address("", port))
    assert asked(port, "/", host=host)[0] == 404
    made.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
def test_where_it_cannot_listen_it_says_so(host: str, pages: Pages) -> None:
    with pytest.raises(EnvironmentProblem, match=rf"{host}:{pages.address.port}: cannot be listened on"):
        Pages(Address(host, pages.address.port))


def test_who_says_nothing_takes_no_place_from_others(pages: Pages) -> None:
    """There is room for so many; once they are gone there is again."""
    mute = [socket.create_connection(pages.address) for _ in range(MOST - 1)]
    for one in mute[:5]:
        one.sendall(b"GET / HTTP/1.1\r\n")
    time.sleep(0.3)
    assert asked(pages.address.port, "/")[0] == 200
    late = [socket.create_connection(pages.address) for _ in range(10)]
    time.sleep(0.3)
    for one in late[5:]:
        one.settimeout(5)
        assert one.recv(1) == b"", "closed at once"
    for one in mute + late:
        one.close()
    time.sleep(0.5)
    assert asked(pages.address.port, "/")[0] == 200


# -- who means harm


def heard(port: int, octets: bytes, more: bytes = b"", patience: float = 5.0) -> tuple[list[int], bool]:
    """The status of each answer to these octets, and whether the connection is closed then; more: sent without end."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as sock:
        told, closed = bytearray(), False
        with suppress(ConnectionError):
            sock.sendall(octets)
            for _ in range(1 << 10 if more else 0):  # far more than any buffer on the way holds
                sock.sendall(more)
        with suppress(TimeoutError, ConnectionError):
            while part := sock.recv(1 << 16):
                told += part
            closed = True
    return [int(code) for code in re.findall(rb"^HTTP/1.1 (\d+)", told, re.MULTILINE)], closed


GET = b"GET / HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("octets", "codes", "closed"),
    [
        (GET + b"\r\n", [200], False),
        (GET + b"\r\n" + GET + b"\r\n", [200, 200], False),
        (GET + b"Connection: close\r\n\r\n", [200], True),
        (b"GET /?" + b"a" * 8_000 + b" HTTP/1.1\r\n\r\n", [200], False),
        (b"GET /" + b"a" * 20_000, [], True),
        (GET + b"A: " + b"a" * 20_000, [431], True),
        (GET + b"".join(b"H%d: a\r\n" % n for n in range(200)) + b"\r\n", [431], True),
        (GET + b"Content-Length: 5\r\n\r\nhello", [200], False),
        (GET + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", [200], True),
        (b"GET http://elsewhere.test/ HTTP/1.1\r\n\r\n", [200], False),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", [404], False),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n\r\n", [404], False),
        (b"GET //etc/passwd HTTP/1.1\r\n\r\n", [404], False),
        (b"GET / HTTP/2.0\r\n\r\n", [], True),
        (b"GET / HTTP/1.1 and more\r\n\r\n", [], True),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n", [], True),
        (b"\x00" * 20_000, [], True),
        (b"\r\n", [], True),
        *((method + b" / HTTP/1.1\r\n\r\n", [501], True)
          for method in (b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"PRI")),
        (b"CONNECT elsewhere.test:443 HTTP/1.1\r\n\r\n", [501], True),
    ],
)  # fmt: skip
def test_what_is_no_request_of_ours_is_refused(pages: Pages, octets: bytes, codes: list[int], closed: bool) -> None:
    assert heard(pages.address.port, octets, patience=5.0 if closed else 1.0) == (codes, closed)
    assert asked(pages.address.port, "/")[0] == 200


@pytest.mark.parametrize(
    "octets",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 1000000000000\r\n\r\n",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        GET + b"Content-Length: 1000000000000\r\n\r\n",
        GET + b"A: ",
        b"",
    ],
)
def test_what_never_ends_is_not_read_to_its_end(pages: Pages, octets: bytes) -> None:
    _, closed = heard(pages.address.port, octets, b"a" * (1 << 16))
    assert closed or octets  # an answer that was sent may be lost with what was still on its way
    assert asked(pages.address.port, "/")[0] == 200


def test_who_sends_an_octet_now_and_then_is_closed_in_time(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probe.pages.PATIENCE_S", 1.0)
    began = time.monotonic()
    with socket.create_connection(pages.address) as sock, suppress(ConnectionError):
        sock.sendall(GET + b"A: ")
        while time.monotonic() < began + 20:
            sock.sendall(b"a")
            time.sleep(0.05)
    assert 0.5 < time.monotonic() - began < 10
    assert asked(pages.address.port, "/")[0] == 200


def test_who_reads_nothing_is_closed_in_time(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probe.pages._Asked.timeout", 1.0)
    pages.add("/large", lambda request: whole(request, bytes(64 << 20), {}))
    before = threading.active_count()
    with ExitStack() as stack:
        for _ in range(MOST):
            sock = stack.enter_context(socket.create_connection(pages.address))
            sock.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        deadline = time.monotonic() + 20
        while threading.active_count() < before + MOST and time.monotonic() < deadline:
            time.sleep(0.02)
        while threading.active_count() > before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert threading.active_count() <= before
        assert asked(pages.address.port, "/")[0] == 200


SERVED = """
import sys
from probe.pages import Address, Pages, say
pages = Pages(Address("127.0.0.1", int(sys.argv[1])))
pages.add("/", lambda request: say(request, {}))
print(flush=True)
sys.stdin.read()
"""


def test_memory_and_threads_are_bounded_whatever_is_sent() -> None:
    """Ten times as many connections as there is room for, each with headers without end."""
    port = free_port()
    words = [sys.executable, "-c", SERVED, str(port)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        before, most = _status(process.pid, "VmHWM"), 0
        for _ in range(10):
            with ThreadPoolExecutor(MOST) as many:
                going = [many.submit(heard, port, GET + b"A: ", b"a" * (1 << 16)) for _ in range(MOST)]
                while not all(each.done() for each in going):
                    most = max(most, _status(process.pid, "Threads"))
                    time.sleep(0.01)
        after = _status(process.pid, "VmHWM")
        process.stdin.close()
    assert most <= MOST + 2
    assert after - before < 10_000, "KiB"


def _status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@pytest.mark.parametrize("listens", [False, True])
def test_a_run_listens_nowhere_unless_it_is_told_to(listens: bool, tmp_path: Path) -> None:
    at = f"127.0.0.1:{free_port()}"
    with running(tmp_path, *(["--metrics", at] if listens else []), seconds=20) as going:
        going.until(1)
        processes = [going.process.pid, *going.children("")]
        mine = set(map(_leads, (link for pid in processes for link in Path(f"/proc/{pid}/fd").iterdir())))
        found = {address for address, inode in _listening() if f"socket:[{inode}]" in mine}
        if listens:
            there = json.loads(asked(int(at.rpartition(":")[2]), "/nothing")[2])["error"].removeprefix("there is ")
            assert set(there.split(", ")) == {"/", "/metrics", "/run.db", "/run.db.gz", "/taken"}
    assert found == ({at} if listens else set())


def _leads(link: Path) -> str:
    """Where a descriptor leads; '' for one that is closed by now."""
    with suppress(OSError):
        return str(link.readlink())
    return ""


def _listening() -> Iterator[tuple[str, str]]:
    """TCP sockets that listen, and their inodes (proc(5), /proc/net/tcp)."""
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            host, _, port = local.partition(":")
            if state == "0A":
                yield (
                    f"{socket.inet_ntoa(bytes.fromhex(host)[::-1]) if len(host) == 8 else host}:{int(port, 16)}",
                    rest[5],
                )
