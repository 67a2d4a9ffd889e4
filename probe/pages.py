"""Paths and who answers there -> an HTTP server in threads of its own, through which nobody can slow down a run."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from probe.errors import EnvironmentProblem, UsageError

PATIENCE_S = 60
"""A connection that takes nothing for so long, or has not asked anything in full, is closed: longer than scrapes are
usually apart."""
MOST_HEAD = 1 << 14
"""Octets of a request's line and headers; Prometheus sends some 300."""
MOST = 16
"""So many connections at once; what comes beside them is closed at once."""
LEAST_URGENT = 19

Request = BaseHTTPRequestHandler
Answer = Callable[[Request], None]
"""Answers a GET or a HEAD."""
Headers = Mapping[str, str | int]


class Address(NamedTuple):
    """Where to listen; host '' is every address of this machine."""

    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Address:
        """`127.0.0.1:9553`, `[::1]:9553`; `:9553` or `9553` for all addresses. UsageError for anything else."""
        host, _, port = text.strip().rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        if port.isascii() and port.isdecimal() and 1 <= int(port) <= 65_535:
            if not host:
                return cls("", int(port))
            with suppress(ValueError):
                if (ipaddress.ip_address(bare).version == 6) == (host == f"[{bare}]"):
                    return cls(bare, int(port))
        raise UsageError(
            f"{text!r}: say ADDRESS:PORT, such as 127.0.0.1:9553 or [::1]:9553, or :9553 for all addresses"
        )

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Pages:
    """Serves from its making on; EnvironmentProblem if it cannot. Of what it has not it says 404. close() it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._answers: dict[str, Answer] = {}
        try:
            self._server = _Server(address, self._answer)
        except OSError as problem:
            raise EnvironmentProblem(
                f"{address}: cannot be listened on: {problem.strerror}; name another port"
            ) from None
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def add(self, path: str, answer: Answer) -> None:
        """From now on there is this page."""
        self._answers[path] = answer

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: Request) -> None:
        if answer := self._answers.get(urlsplit(request.path).path):
            answer(request)
        else:
            say(request, {"error": f"there is {', '.join(self._answers)}"}, HTTPStatus.NOT_FOUND)


def head(request: Request, code: HTTPStatus, headers: Headers) -> None:
    """The beginning of an answer."""
    request.send_response(code)
    for name, value in headers.items():
        request.send_header(name, str(value))
    request.end_headers()


def whole(request: Request, body: bytes, headers: Headers, code: HTTPStatus = HTTPStatus.OK) -> None:
    """An answer whose length is known; of a HEAD its headers."""
    head(request, code, {"Content-Length": len(body), **headers})
    if request.command != "HEAD":
        request.wfile.write(body)
        request.wfile.flush()


def say(
    request: Request, told: Mapping[str, object], code: HTTPStatus = HTTPStatus.OK, more: Headers | None = None
) -> None:
    """An answer in JSON."""
    whole(request, json.dumps(told).encode() + b"\n", {"Content-Type": "application/json", **(more or {})}, code)


class _Head:
    """A connection's input, of which each request has its share: what a person sends must not fill the memory."""

    def __init__(self, file: Any) -> None:
        self._file, self.left = file, MOST_HEAD
        self.close = file.close

    def readline(self, limit: int) -> bytes:
        """LineTooLong, which is answered by 431, beyond it."""
        line: bytes = self._file.readline(min(limit, self.left + 1))
        self.left -= len(line)
        if self.left < 0:
            raise LineTooLong("request")
        return line


class _Asked(BaseHTTPRequestHandler):
    """One connection, and its requests one after the other."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "dnsprobe", ""
    timeout = PATIENCE_S
    server: _Server
    rfile: Any

    def setup(self) -> None:
        super().setup()
        self.rfile = _Head(self.rfile)

    def handle_one_request(self) -> None:
        self.server.unasked[self.connection] = time.monotonic() + PATIENCE_S
        self.rfile.left = MOST_HEAD
        try:
            super().handle_one_request()
        finally:
            self.server.unasked.pop(self.connection, None)

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.unasked.pop(self.connection, None)
        with suppress(OSError):
            self.server.answer(self)

    do_HEAD = do_GET  # noqa: N815


class _Server(ThreadingHTTPServer):
    """unasked: until when each connection must have asked something in full (CLOCK_MONOTONIC, s)."""

    daemon_threads = True
    request_queue_size = 4 * MOST

    def __init__(self, address: Address, answer: Answer) -> None:
        self.answer = answer
        self.unasked: dict[socket.socket, float] = {}
        self._room = threading.Semaphore(MOST)
        self._everywhere = not address.host
        self.address_family = socket.AF_INET6 if _is_ipv6(address.host) else socket.AF_INET
        super().__init__((address.host, address.port), _Asked)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not self._everywhere))
        TCPServer.server_bind(self)  # HTTPServer's would ask DNS for this machine's name

    def service_actions(self) -> None:
        """Every tenth of a second: a timeout alone is never met by who sends an octet now and then."""
        for connection, until in list(self.unasked.items()):
            if time.monotonic() > until:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started, which would have left the room
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST_URGENT)
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, *_: object) -> None:
        """Who connects and goes away is no concern of the run's."""


def _is_ipv6(host: str) -> bool:
    return ":" in host if host else socket.has_dualstack_ipv6()
