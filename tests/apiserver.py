"""Objects in, an HTTP server that lists, watches and changes them as the Kubernetes API does out, faults on demand."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests import kube_objects
from tests.kube_objects import Json

_PLURALS = {
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "Service": "services", "Pod": "pods", "ConfigMap": "configmaps", "Node": "nodes", "Deployment": "deployments",
    "DaemonSet": "daemonsets", "EndpointSlice": "endpointslices", "ReplicaSet": "replicasets", "Event": "events",
    "Job": "jobs", "Namespace": "namespaces", "StatefulSet": "statefulsets", "NetworkPolicy": "networkpolicies",
    "PodDisruptionBudget": "poddisruptionbudgets", "ServiceAccount": "serviceaccounts", "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings", "KubeadmControlPlane": "kubeadmcontrolplanes",
}  # fmt: skip


def _selected(thing: Any, labels: str, fields: str) -> bool:
    """Whether selectors are met: `a=b`, `a in (b,c)`, `a`; `metadata.name=b`, and several of these, with `!=`."""
    have = thing["metadata"]["labels"]
    for part in labels.replace(",", ", ").split(", ") if " in (" not in labels else [labels]:
        if " in (" in part:
            key, _, values = part.partition(" in (")
            if have.get(key) not in values.rstrip(")").split(","):
                return False
        elif part and have.get(part.partition("=")[0]) != part.partition("=")[2].lstrip("="):
            return False
    return all(_is(thing, field) for field in filter(None, fields.split(",")))


def _is(thing: Any, field: str) -> bool:
    """`status.phase!=Failed`."""
    path, _, value = field.partition("=")
    for key in filter(None, path.rstrip("!=").split(".")):
        thing = thing.get(key, {})
    return (thing == value.lstrip("=")) is not path.endswith("!")


def _chunk(request: BaseHTTPRequestHandler, octets: bytes) -> None:
    request.wfile.write(b"%x\r\n%s\r\n" % (len(octets), octets))
    request.wfile.flush()


def _send(request: BaseHTTPRequestHandler, data: bytes, code: int = 200) -> None:
    request.send_response(code)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)


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

    def after(self, told: int) -> tuple[list[str], bool]:
        """The lines from this one on, once there are any, or a moment has passed; and whether all is said."""
        with self.stir:
            self.stir.wait_for(lambda: len(self.lines) > told or self.ended, 0.05)
            return self.lines[told:], self.ended


def _merged(thing: Json, body: Json) -> Json:
    """RFC 7386, one level deep."""
    return {**thing, **{key: {**thing.get(key, {}), **value} for key, value in body.items() if key != "metadata"}}


def patched(thing: Json, operations: list[Json]) -> Json:
    """RFC 6902's test, add, replace and remove; AssertionError for a test that fails, as evanphx/json-patch has it."""
    made: Json = json.loads(json.dumps(thing))
    for each in operations:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in each["path"].split("/")[1:]]
        inside: Any = made
        for part in parents:
            inside = inside[int(part) if isinstance(inside, list) else part]
        if each["op"] == "test":
            assert inside.get(last) == each["value"], each["path"]
        elif each["op"] == "remove":
            del inside[last]
        else:
            assert each["op"] == "add" or last in inside, each["path"]
            inside[last] = each["value"]
    return made


class ApiServer:
    """Listens on a port of loopback. `refuse`: a path with its query -> the status code of the answer, 0 as usual;
    `said`: what else that answer says. `deny`: the same for what changes something, from method and path; `guard`: for
    all, from method and path with its query. `sent`: what changed something, method and path, in order.

    canned: by path, a page's octets by its number, and how many pages there are, instead of objects.
    logs: by pod; ports: by `pod:port`, the port of this machine that its proxy leads to.

    stop() and start() keep port and objects; a watch is held open until stop() or expire().
    """

    def __init__(self, *things: Json) -> None:
        self.refuse: Callable[[str], int] = lambda _: 0
        self.deny: Callable[[str, str], int] = lambda _, __: 0
        self.guard: Callable[[str, str], int] = lambda _, __: 0
        self.said: Json = {}
        self.deaf = False
        self.logs: dict[str, Log] = {}
        self.ports: dict[str, int] = {}
        self.canned: dict[str, tuple[Callable[[int], bytes], int]] = {}
        self.asked: list[str] = []
        self.sent: list[tuple[str, str]] = []
        self._changed = threading.Condition()
        self._log: list[tuple[int, str, Json]] = []
        self.things: dict[tuple[str, str], Json] = {}
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

        for method in ("POST", "PATCH", "DELETE"):
            setattr(Request, f"do_{method}", Request.do_GET)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            connections: set[socket.socket]

            def process_request(self, request: Any, client_address: Any) -> None:
                self.connections.add(request)
                super().process_request(request, client_address)

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Who goes away in the middle is no fault of ours, nor of the command's whose stderr this is."""
                if not isinstance(sys.exception(), ConnectionError):
                    super().handle_error(request, client_address)

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
        self._happen("MODIFIED" if key in self.things else "ADDED", thing)
        self.things[key] = thing

    def one(self, kind: str, name: str) -> Json:
        """An object as it is."""
        return self.things[kind, name]

    def all(self, kind: str) -> list[Json]:
        """Those of a kind."""
        return [thing for (its, _), thing in list(self.things.items()) if its == kind]

    def delete(self, thing: Json) -> None:
        """It is gone; `thing` is its last state."""
        del self.things[thing["kind"], thing["metadata"]["name"]]
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
        length = int(request.headers.get("Content-Length") or 0)
        body = json.loads(request.rfile.read(length)) if length else None
        guarded = self.guard(request.command, request.path)
        if (
            code := guarded
            or self.refuse(request.path)
            or (request.command != "GET" and self.deny(request.command, url.path))
        ):
            self._say(request, {"kind": "Status", "code": code, "message": f"said {code}", **self.said}, code)
            return
        if request.command != "GET":
            self.sent.append((request.command, url.path))
            self._change(request, url.path.strip("/").split("/"), body)
            return
        if url.path == "/version":
            self._say(request, {"gitVersion": "v1.34.1"})
            return
        if "/proxy/" in url.path:
            self._pass_on(request, url.path, url.query)
            return
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path in self.canned:
            page, pages = self.canned[url.path]
            number = int(query.get("continue", 0))
            rest = f',"continue":"{number + 1}"' if number + 1 < pages else ""
            _send(request, b'{"metadata":{"resourceVersion":"1"%s},"items":[%s]}' % (rest.encode(), page(number)))
            return
        parts = url.path.strip("/").split("/")
        namespace = parts[parts.index("namespaces") + 1] if "namespaces" in parts[:-1] else ""

        def meant(thing: Json) -> bool:
            if _PLURALS[thing["kind"]] != parts[-1] or namespace not in ("", thing["metadata"].get("namespace", "")):
                return False
            return _selected(thing, query.get("labelSelector", ""), query.get("fieldSelector", ""))

        if parts[-1] == "log":
            self._log_of(request, parts[-2], query)
            return
        named = [thing for thing in self.things.values() if _PLURALS[thing["kind"]] == (parts[-2:] or [""])[0]
                 and thing["metadata"]["name"] == parts[-1]]  # fmt: skip
        if parts[-1] not in _PLURALS.values() or "metrics.k8s.io" in parts:
            self._say(
                request,
                named[0] if named else {"kind": "Status", "code": 404, "message": "none"},
                200 if named else 404,
            )
            return
        if "watch" in query:
            self._stream(request, int(query["resourceVersion"]), meant)
            return
        with self._changed:
            items = [thing for thing in self.things.values() if meant(thing)]
            first, most = int(query.get("continue", 0)), int(query.get("limit", len(items)))
            meta = {"resourceVersion": str(self._version)}
            if first + most < len(items):
                meta["continue"] = str(first + most)
            self._say(request, {"items": items[first : first + most], "metadata": meta})

    def _change(self, request: BaseHTTPRequestHandler, parts: list[str], body: Any) -> None:
        """POST, PATCH (JSON patch, or a merge patch of one level) and DELETE of one object, POST of an eviction.

        409 for one that is there already, 422 if a patch's test fails.
        """
        if request.command == "POST" and parts[-1] != "eviction":
            kind, name = next(kind for kind, each in _PLURALS.items() if each == parts[-1]), body["metadata"]["name"]
            if (kind, name) in self.things:
                self._say(request, {"kind": "Status", "code": 409, "message": f"{name} already exists"}, 409)
                return
            bare = kube_objects.thing(kind, name, namespace=parts[parts.index("namespaces") + 1])
            self.put({**bare, **body, "metadata": {**bare["metadata"], **body["metadata"]}})
            self._say(request, self.things[kind, name], 201)
            return
        plural, name = parts[-3:-1] if parts[-1] == "eviction" else parts[-2:]
        kind = next(kind for kind, each in _PLURALS.items() if each == plural)
        thing = self.things.get((kind, name))
        if thing is None:
            self._say(request, {"kind": "Status", "code": 404, "message": f"{name} not found"}, 404)
        elif request.command == "PATCH":
            try:
                made = patched(thing, body) if isinstance(body, list) else _merged(thing, body)
            except AssertionError as failed:
                self._say(request, {"kind": "Status", "code": 422, "message": f"testing {failed} failed"}, 422)
                return
            self.put(made)
            self._say(request, made)
        else:
            self.delete(thing)
            self._say(request, {"kind": "Status", "status": "Success"})

    def _pass_on(self, request: BaseHTTPRequestHandler, path: str, query: str) -> None:
        """To a pod's port: what it says, status and all."""
        name = path.split("/pods/")[1].split("/", maxsplit=1)[0]
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

    def write(self, pod: str, *lines: str) -> None:
        """Into a pod's log."""
        for line in lines:
            self.logs.setdefault(pod, Log()).add(line)

    def _log_of(self, request: BaseHTTPRequestHandler, pod: str, query: dict[str, str]) -> None:
        """As the kubelet has it: what was written since, to the second, and what is being written if it is followed."""
        name, since = f"{pod} previous" if "previous" in query else pod, query.get("sinceTime", "")
        if name not in self.logs and ("previous" in query or ("Pod", pod) not in self.things):
            code = 400 if "previous" in query else 404
            self._say(request, {"kind": "Status", "code": code, "message": "not found"}, code)
            return
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.flush()
        told, ended, epoch = 0, False, self._epoch
        while not ended:
            lines, ended = self.logs.setdefault(name, Log()).after(told)
            told += len(lines)
            if data := "".join(f"{line}\n" for line in lines if line.split()[0] >= since.rstrip("Z")).encode():
                _chunk(request, data)
            ended = ended or "follow" not in query or self._epoch > epoch
        request.wfile.write(b"0\r\n\r\n")

    @staticmethod
    def _say(request: BaseHTTPRequestHandler, body: Json, code: int = 200) -> None:
        _send(request, json.dumps(body).encode(), code)

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
