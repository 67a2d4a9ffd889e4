"""A run file -> served over HTTP once the run is over, until somebody has taken it, or the time is up.

    GET  /            what there is, as JSON: state (running or over), run, shard, node, pod; and once it is over file,
                      octets, sha256, verdict, exit_code, seconds_left
    GET  /run.db      the file; /run.db.gz compressed; HEAD tells their headers; 503 while the run goes
    GET  /taken?sha256=...  says that it was read whole: who has its digest has read it; nobody need wait any longer

That is a GET, too, so that the right to get pods/proxy is all that a collector needs.
"""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from types import FrameType
from urllib.parse import parse_qs, urlsplit

from probe.errors import EnvironmentProblem, UsageError
from probe.scenario.quantity import duration_ns, whole

PORT = 9553
GRACE = "DNSPROBE_GRACE_PERIOD"
"""The pod's terminationGracePeriodSeconds, which its manifest tells: no pod is told its own."""
USUAL_GRACE_S = 30.0
LEFT_S = 5.0
"""Of the grace period, what is left for Python to end."""
PIECE = 1 << 18
PATIENCE_S = 30
"""A connection that says and takes nothing for so long is closed."""
NUMBERS = (signal.SIGINT, signal.SIGTERM)

Headers = dict[str, str | int]


def grace_of(environment: Mapping[str, str]) -> float:
    """Seconds from SIGTERM to SIGKILL; UsageError for what is none."""
    if not (text := environment.get(GRACE, "").strip()):
        return USUAL_GRACE_S
    try:
        return duration_ns(text) / 1e9
    except UsageError as problem:
        raise UsageError(f"{GRACE}={problem}") from None


def port_of(text: str) -> int:
    """A TCP port, 1 to 65535."""
    return whole(text, 1, 65_535, "a port")


class Lingering:
    """Serves from its making on. EnvironmentProblem if the port is in use. close() it in any case."""

    def __init__(self, port: int, about: Mapping[str, object]) -> None:
        self._about = about
        self._file: Path | None = None
        self._said: dict[str, object] = {}
        self._digest = ""
        self._ends_at = 0.0
        self._stir = threading.Event()
        self.taken = False
        try:
            self._server = _listening(port, self._answer)
        except OSError as problem:
            raise EnvironmentProblem(f"--http {port}: cannot be listened on: {problem.strerror}") from None
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()

    def wait(
        self, file: Path, about: Mapping[str, object], at_most: float, grace: float, signalled_ns: int | None
    ) -> str:
        """Serve the file, which changes no more; why that is over, as a sentence.

        at_most: seconds; after a signal no longer than is left of `grace` seconds from then on, and a second one ends
        it. signalled_ns: when the first one came (CLOCK_MONOTONIC), if it did. Only in the main thread.
        """
        with file.open("rb") as octets:
            self._digest = hashlib.file_digest(octets, "sha256").hexdigest()
        self._said = {"file": file.name, "octets": file.stat().st_size, "sha256": self._digest, **about}
        self._ends_at = time.monotonic() + at_most
        heard = 0
        why = "nobody has taken the run file in time"

        def hear(number: int, _: FrameType | None) -> None:
            nonlocal heard, why
            heard += 1
            if heard > 1:
                why, self._ends_at = f"ended by a second {signal.Signals(number).name}", 0
            else:
                self._ends_at = min(self._ends_at, time.monotonic() + grace - LEFT_S)
            self._stir.set()

        if signalled_ns is not None:
            heard = 1
            self._ends_at = min(self._ends_at, signalled_ns / 1e9 + grace - LEFT_S)
        before = {number: signal.signal(number, hear) for number in NUMBERS}
        try:
            self._file = file
            while not self.taken and (left := self._ends_at - time.monotonic()) > 0:
                self._stir.wait(min(left, 1.0))
                self._stir.clear()
        finally:
            for number, was in before.items():
                signal.signal(number, was)
        return "the run file was taken" if self.taken else why

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        url = urlsplit(request.path)
        file = self._file
        if url.path == "/":
            left = {"seconds_left": round(max(0.0, self._ends_at - time.monotonic()), 1)} if file else {}
            state = {"state": "over" if file else "running"}
            _say(request, {**state, **self._about, **self._said, **left} if file else {**state, **self._about})
        elif url.path not in ("/run.db", "/run.db.gz", "/taken"):
            _say(request, {"error": "there is /, /run.db, /run.db.gz and /taken"}, HTTPStatus.NOT_FOUND)
        elif not file:
            told = {"error": "the run is still going: its file is served when it is over"}
            _say(request, told, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": 1})
        elif url.path == "/taken":
            if parse_qs(url.query).get("sha256") != [self._digest]:
                _say(request, {"error": "that is not the digest of this file"}, HTTPStatus.CONFLICT)
                return
            _say(request, {"taken": self._digest})
            if request.command == "GET":
                self.taken = True
                self._stir.set()
        else:
            self._send(request, file, compressed=url.path.endswith(".gz"))

    def _send(self, request: BaseHTTPRequestHandler, file: Path, *, compressed: bool) -> None:
        kind = "application/gzip" if compressed else "application/vnd.sqlite3"
        how: Headers = {"Transfer-Encoding": "chunked"} if compressed else {"Content-Length": file.stat().st_size}
        _head(request, HTTPStatus.OK, {"Content-Type": kind, "ETag": f'"{self._digest}"', **how})
        if request.command == "HEAD":
            return
        for piece in _gzip(file) if compressed else _pieces(file):
            request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if compressed else piece)
        if compressed:
            request.wfile.write(b"0\r\n\r\n")


def _listening(port: int, answer: Callable[[BaseHTTPRequestHandler], None]) -> ThreadingHTTPServer:
    class Request(BaseHTTPRequestHandler):
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
        address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

        def server_bind(self) -> None:
            if self.address_family == socket.AF_INET6:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            TCPServer.server_bind(self)  # HTTPServer's would ask DNS for this machine's name

        def handle_error(self, *_: object) -> None:
            """Who connects and goes away is no concern of the run's."""

    return Server(("", port), Request)


def _head(request: BaseHTTPRequestHandler, code: HTTPStatus, headers: Headers) -> None:
    request.send_response(code)
    for name, value in headers.items():
        request.send_header(name, str(value))
    request.end_headers()


def _say(
    request: BaseHTTPRequestHandler,
    told: Mapping[str, object],
    code: HTTPStatus = HTTPStatus.OK,
    more: Headers | None = None,
) -> None:
    body = json.dumps(told).encode() + b"\n"
    _head(request, code, {"Content-Type": "application/json", "Content-Length": len(body), **(more or {})})
    if request.command != "HEAD":
        request.wfile.write(body)
        request.wfile.flush()


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as octets:
        while piece := octets.read(PIECE):
            yield piece


def _gzip(file: Path) -> Iterator[bytes]:
    packing = zlib.compressobj(wbits=31)
    for piece in _pieces(file):
        if packed := packing.compress(piece):
            yield packed
    yield packing.flush()
