"""Paths and who answers there -> an HTTP server in threads of its own, through which nobody can slow down a run."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from probe.errors import EnvironmentProblem, UsageError

PATIENCE_S = 60
"""A connection that says and takes nothing for so long is closed: longer than scrapes are usually apart."""
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
            self._server = _listening(address, self._answer)
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


def _listening(address: Address, answer: Answer) -> ThreadingHTTPServer:
    class Asked(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = PATIENCE_S

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            with suppress(OSError):
                answer(self)

        do_HEAD = do_GET  # noqa: N815

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 4 * MOST
        address_family = socket.AF_INET6 if _is_ipv6(address.host) else socket.AF_INET
        room = threading.Semaphore(MOST)

        def server_bind(self) -> None:
            if self.address_family == socket.AF_INET6:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(address.host)))
            TCPServer.server_bind(self)  # HTTPServer's would ask DNS for this machine's name

        def process_request(self, request: Any, client_address: Any) -> None:
            if not self.room.acquire(blocking=False):
                self.shutdown_request(request)
                return
            try:
                super().process_request(request, client_address)
            except BaseException:  # no thread could be started, which would have left the room
                self.room.release()
                raise

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                with suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST_URGENT)
                super().process_request_thread(request, client_address)
            finally:
                self.room.release()

        def handle_error(self, *_: object) -> None:
            """Who connects and goes away is no concern of the run's."""

    return Server((address.host, address.port), Asked)


def _is_ipv6(host: str) -> bool:
    return ":" in host if host else socket.has_dualstack_ipv6()
