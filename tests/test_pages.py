"""An HTTP server in threads of its own: what it answers, to whom, and what those who harm it get."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from probe.errors import EnvironmentProblem, UsageError
from probe.pages import MOST, Address, Pages, say
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
