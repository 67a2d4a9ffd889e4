"""Objects in, an HTTP server that lists and watches them as the Kubernetes API does out, and faults on demand."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.kube_objects import Json

_PLURALS = {
    "Service": "services", "Pod": "pods", "ConfigMap": "configmaps", "Node": "nodes", "Deployment": "deployments",
    "DaemonSet": "daemonsets", "EndpointSlice": "endpointslices", "Job": "jobs",
}  # fmt: skip


def _selected(thing: Json, labels: str, fields: str) -> bool:
    """Whether selectors as lightkube writes them are met: `a=b`, `a in (b,c)`, `metadata.name=b`."""
    have = thing["metadata"]["labels"]
    for part in labels.replace(",", ", ").split(", ") if " in (" not in labels else [labels]:
        if " in (" in part:
            key, _, values = part.partition(" in (")
            if have.get(key) not in values.rstrip(")").split(","):
                return False
        elif part and have.get(part.partition("=")[0]) != part.partition("=")[2].lstrip("="):
            return False
    return not fields or thing["metadata"]["name"] == fields.partition("=")[2].lstrip("=")


def _chunk(request: BaseHTTPRequestHandler, octets: bytes) -> None:
    request.wfile.write(b"%x\r\n%s\r\n" % (len(octets), octets))
    request.wfile.flush()


class Log:
    """What a pod prints: lines that come, until it is ended."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ended = False
        self.stir = threading.Condition()

    def add(self, line: str) -> None:
        with self.stir:
            self.lines.append(line)
            self.stir.notify_all()

    def end(self) -> None:
        with self.stir:
            self.ended = True
            self.stir.notify_all()

    def follow(self) -> Iterator[str]:
        """From its beginning to its end."""
        for told in count():
            with self.stir:
                while len(self.lines) == told and not self.ended:
                    self.stir.wait(30)
                if len(self.lines) == told:
                    return
                line = self.lines[told]
            yield line


class ApiServer:
    """Listens on a port of loopback. `refuse`: a path with its query -> the status code of the answer, 0 as usual.

    logs: by pod; ports: by `pod:port`, the port of this machine that its proxy leads to.

    stop() and start() keep port and objects; a watch is held open until stop() or expire().
    """

    def __init__(self, *things: Json) -> None:
        self.refuse: Callable[[str], int] = lambda _: 0
        self.deaf = False
        self.logs: dict[str, Log] = {}
        self.ports: dict[str, int] = {}
        self.asked: list[str] = []
        self._changed = threading.Condition()
        self._log: list[tuple[int, str, Json]] = []
        self._things: dict[tuple[str, str], Json] = {}
        self._version = 100
        self._epoch = 0
        self.port = 0
        for thing in things:
            self.put(thing)
        self.start()

    def start(self) -> None:
        """Listen, on the same port as before."""
        outer = self

        class Request(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                with suppress(OSError):
                    outer._answer(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            connections: set[socket.socket]

            def process_request(self, request: Any, client_address: Any) -> None:
                self.connections.add(request)
                super().process_request(request, client_address)

        self._server = Server(("127.0.0.1", self.port), Request)
        self._server.connections = set()
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """As when its process is killed: every connection ends, further ones are refused."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.expire()
        for connection in self._server.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def hush(self, deaf: bool) -> None:
        """As when its process is halted: connections are accepted, and nothing is said until it goes on."""
        with self._changed:
            self.deaf = deaf
            self._changed.notify_all()

    def expire(self) -> None:
        """Tell every watch 410 Gone, and forget what has happened."""
        with self._changed:
            self._log.clear()
            self._epoch += 1
            self._changed.notify_all()

    def put(self, thing: Json) -> None:
        """Create or replace an object."""
        key = (thing["kind"], thing["metadata"]["name"])
        self._happen("MODIFIED" if key in self._things else "ADDED", thing)
        self._things[key] = thing

    def delete(self, thing: Json) -> None:
        """It is gone; `thing` is its last state."""
        del self._things[thing["kind"], thing["metadata"]["name"]]
        self._happen("DELETED", thing)

    def _happen(self, kind: str, thing: Json) -> None:
        with self._changed:
            self._version += 1
            thing["metadata"]["resourceVersion"] = str(self._version)
            self._log.append((self._version, kind, json.loads(json.dumps(thing))))
            self._changed.notify_all()

    def kubeconfig(self, path: Path) -> Path:
        """A file that leads here."""
        config = {
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "scripted", "user": "me"}}],
            "clusters": [{"name": "scripted", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "me", "user": {"token": "t"}}],
        }
        path.write_text(json.dumps(config))
        return path

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        url = urlsplit(request.path)
        self.asked.append(url.path)
        with self._changed:
            self._changed.wait_for(lambda: not self.deaf)
        if code := self.refuse(request.path):
            self._say(request, {"kind": "Status", "code": code, "message": f"said {code}"}, code)
            return
        if url.path == "/version":
            self._say(request, {"gitVersion": "v1.34.1"})
            return
        if "/proxy/" in url.path or url.path.endswith("/log"):
            self._pass_on(request, url.path, url.query)
            return
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        namespace = parts[parts.index("namespaces") + 1] if "namespaces" in parts else ""

        def meant(thing: Json) -> bool:
            if _PLURALS[thing["kind"]] != parts[-1] or thing["metadata"].get("namespace", "") != namespace:
                return False
            return _selected(thing, query.get("labelSelector", ""), query.get("fieldSelector", ""))

        if "watch" in query:
            self._stream(request, int(query["resourceVersion"]), meant)
            return
        with self._changed:
            items = [thing for thing in self._things.values() if meant(thing)]
            self._say(request, {"items": items, "metadata": {"resourceVersion": str(self._version)}})

    def _pass_on(self, request: BaseHTTPRequestHandler, path: str, query: str) -> None:
        """A pod's log, to its end; or what its port says, status and all."""
        name = path.partition("/pods/")[2].partition("/")[0]
        if path.endswith("/log"):
            if name not in self.logs:
                self._say(request, {"kind": "Status", "code": 404, "message": "no such pod"}, 404)
                return
            request.send_response(200)
            request.send_header("Transfer-Encoding", "chunked")
            request.end_headers()
            for line in self.logs[name].follow():
                _chunk(request, line.encode() + b"\n")
            request.wfile.write(b"0\r\n\r\n")
            return
        connection = HTTPConnection("127.0.0.1", self.ports.get(name, 1), timeout=10)
        try:
            connection.request("GET", f"/{path.partition('/proxy/')[2]}{f'?{query}' if query else ''}")
            reply = connection.getresponse()
            body = reply.read()
        except OSError as problem:
            self._say(request, {"kind": "Status", "code": 502, "message": f"dial tcp: {problem}"}, 502)
            return
        finally:
            connection.close()
        request.send_response(reply.status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    @staticmethod
    def _say(request: BaseHTTPRequestHandler, body: Json, code: int = 200) -> None:
        data = json.dumps(body).encode()
        request.send_response(code)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def _stream(self, request: BaseHTTPRequestHandler, version: int, meant: Callable[[Json], bool]) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.flush()

        def send(kind: str, thing: Json) -> None:
            _chunk(request, json.dumps({"type": kind, "object": thing}).encode() + b"\n")

        epoch, last = self._epoch, version

        def stirs() -> bool:
            return self._epoch > epoch or (not self.deaf and any(v > last for v, _, _ in self._log))

        while True:
            with self._changed:
                self._changed.wait_for(stirs)
                news = [event for event in self._log if event[0] > last]
                last = self._version
            for _, kind, thing in news:
                if meant(thing):
                    send(kind, thing)
            if self._epoch > epoch:
                send("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})
                request.wfile.write(b"0\r\n\r\n")
                request.close_connection = True
                return
