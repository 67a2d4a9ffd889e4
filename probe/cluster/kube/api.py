"""A kubeconfig's context, or a pod's service account -> the Kubernetes API, its refusals as sentences to act on."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from dataclasses import field as defaulted
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
from lightkube import ApiError, AsyncClient, ConfigError, KubeConfig, SingleConfig
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG, SERVICE_ACCOUNT
from lightkube.config.models import User
from lightkube.core.resource import api_info
from lightkube.resources.core_v1 import Pod
from msgspec import MsgspecError, Raw, Struct, field, json, yaml

from probe.errors import EnvironmentProblem, UsageError
from probe.linux import received_ns

Json = Any
"""An object as the API says it."""
_TIMEOUT = httpx2.Timeout(10.0, connect=5.0)
_METHODS = {"get": "GET", "create": "POST", "patch": "PATCH", "delete": "DELETE"}
_VERBS = {"list": "list, watch", "watch": "list, watch"}
"""What goes with what."""
_NOT_NOW = (409, 422, 429)
_PAGE = 500
"""Objects of one answer: what kubectl asks for."""
_GONE = 410


class Way(Struct):
    """What a kubeconfig says of the way to a cluster and lightkube does not read (client-go clientcmd/api/v1)."""

    server_name: str | None = field(name="tls-server-name", default=None)
    """Whose certificate the server has, if it is not that of its address."""
    proxy: str | None = field(name="proxy-url", default=None)

    async def name_server(self, request: httpx2.Request) -> None:
        """Ask for that name, and check for it."""
        if self.server_name:
            request.extensions["sni_hostname"] = self.server_name


class _NamedWay(Struct):
    name: str
    cluster: Way


class _Ways(Struct):
    clusters: list[_NamedWay]


class _PageMeta(Struct):
    rest: str | None = field(name="continue", default=None)


class _Page(Struct):
    """Of a list, or of a Status, which has no items."""

    metadata: _PageMeta
    items: list[Raw] | None = None


_stream: ContextVar[Any] = ContextVar("stream")
"""The connection of the reply that this task reads: lightkube keeps it to itself."""


async def _remember(reply: httpx2.Response) -> None:
    _stream.set(reply.extensions.get("network_stream"))


def _arrived_ns() -> int:
    """When the last of what this task reads has come."""
    stream = _stream.get(None)
    sock = stream.get_extra_info("socket") if stream else None
    return received_ns(sock) if sock else time.monotonic_ns()


class NotSeen(EnvironmentProblem):
    """Objects of one type cannot be read: no right to, no such type, or not understood. Others may be."""


class NoRight(NotSeen):
    """The API server knows who we are, and we may not (403)."""


class NotFound(NotSeen):
    """The API server has no such object, or no such type (404)."""


class Denied(EnvironmentProblem):
    """It answers, and does not accept who we are, or what we ask for."""


class NotNow(EnvironmentProblem):
    """The API server would not do it as things are: a patch's test failed (422), a conflict (409), a budget (429)."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Which objects: of one type of lightkube's, in a namespace ('' for types without), by labels, by name.

    about: the kind of object that events are about.
    """

    of: type[Any]
    namespace: str = ""
    labels: Mapping[str, str | list[str]] = defaulted(default_factory=dict)
    name: str = ""
    about: str = ""

    @property
    def where(self) -> dict[str, Any]:
        """As lightkube's list and watch have it."""
        by = {"metadata.name": self.name, "involvedObject.kind": self.about}
        fields = {name: value for name, value in by.items() if value} or None
        return {**({"namespace": self.namespace} if self.namespace else {}), "labels": self.labels, "fields": fields}

    @property
    def path(self) -> str:
        """Where the API has them, or the one with this name."""
        info = api_info(self.of)
        group, version = info.resource.group, info.resource.version
        where = [f"namespaces/{self.namespace}"] if self.namespace else []
        named = [self.name] if self.name else []
        return "/".join([f"apis/{group}" if group else "api", version, *where, info.plural, *named])

    def rule(self, verb: str, part: str = "") -> str:
        """The RBAC rule that lets this be done to them, and where it goes. part: of them, `eviction`."""
        info = api_info(self.of)
        role = f"its Role in {self.namespace}" if self.namespace else "its ClusterRole"
        resource = f"{info.plural}/{part}" if part else self.resource
        verbs = "get" if info.action and not part else _VERBS.get(verb, verb)
        return f'{role}: {{apiGroups: ["{info.resource.group}"], resources: [{resource}], verbs: [{verbs}]}}'

    @property
    def resource(self) -> str:
        """`pods`, `pods/log`."""
        info = api_info(self.of)
        return f"{info.plural}/{info.action}" if info.action else str(info.plural)

    def __str__(self) -> str:
        return f"{self.resource} in {self.namespace}" if self.namespace else self.resource


class Api:
    """The API of one cluster. `source`: where its address and credentials are from, for people; `context`: as it was
    asked for.

    EnvironmentProblem from every call says what is wrong; NotSeen, that it is about those objects alone.
    """

    def __init__(
        self, config: SingleConfig, source: str, context: str = "", way: Way | None = None, *, in_pod: bool = False
    ) -> None:
        way = way or Way()
        self.context = context
        self.source = source
        self.server = str(config.cluster.server)
        self.cluster = config.context.cluster
        self.in_pod = in_pod
        """Whether it is the cluster that this pod is in."""
        try:
            # lightkube asks for a user, if only for an empty one.
            config = config if config.user else config._replace(user=User())
            self._client: Any = AsyncClient(config, timeout=_TIMEOUT, proxy=way.proxy)
            self._client._client._client.event_hooks = {"request": [way.name_server], "response": [_remember]}
        except (OSError, ValueError, ImportError, ConfigError) as problem:
            raise EnvironmentProblem(f"{source}: its certificates or credentials cannot be used: {problem}") from None

    async def close(self) -> None:
        """Let go of all connections."""
        await self._client.close()

    async def list(self, what: Selection) -> tuple[list[Any], str]:
        """The objects there are, and the version of the whole, from which on they can be watched."""
        with self._told("list", what):
            listing = self._client.list(what.of, **what.where)
            found = [item async for item in listing]
            return found, str(listing.resourceVersion)

    async def pages(self, what: Selection, labels: str = "", fields: str = "") -> AsyncGenerator[Sequence[Raw], None]:
        """The objects there are, as the API says them, so many at a time; the selectors are the API's own.

        Where a page comes too late for the rest to be of the same moment (410), the rest is of now.
        """
        rest = ""
        while True:
            asked = {"limit": _PAGE, "labelSelector": labels, "fieldSelector": fields, "continue": rest}
            query = urlencode({name: value for name, value in asked.items() if value})
            with self._told("list", what):
                try:
                    page = json.decode((await self._said("GET", f"{what.path}?{query}")).content, type=_Page)
                except httpx2.HTTPStatusError as problem:
                    if problem.response.status_code != _GONE or not rest:
                        raise
                    page = json.decode(problem.response.content, type=_Page)
                    if not page.metadata.rest:
                        raise
            rest = page.metadata.rest or ""
            if page.items is not None:
                yield page.items
            if not rest:
                return

    async def count(self, what: Selection) -> int:
        """How many objects there are: one is read, the server counts the others (ListMeta, remainingItemCount)."""
        with self._told("list", what):
            said = (await self._said("GET", f"{what.path}?limit=1")).json()
            return len(said["items"]) + int(said["metadata"].get("remainingItemCount") or 0)

    async def watch(self, what: Selection, version: str) -> AsyncIterator[tuple[int, str, Any]]:
        """When it arrived, `ADDED`, `MODIFIED` or `DELETED`, the object; ends only by EnvironmentProblem.

        The kernel's instant, CLOCK_MONOTONIC: this process has the lowest priority, and on a busy machine reads late.
        """
        with self._told("watch", what):
            async with aclosing(self._client.watch(what.of, resource_version=version, **what.where)) as events:
                async for kind, thing in events:
                    yield _arrived_ns(), kind, thing

    async def log(self, namespace: str, pod: str, **asked: str) -> AsyncGenerator[str, None]:
        """A container's log, a line at a time, each with its time in front; `asked`: container, follow, previous, ...

        The parameters are PodLogOptions' (core/v1). It ends with its container; a pod that is gone has none. NotSeen if
        there is no right to read it, EnvironmentProblem if there is none just now.
        """
        patience_s = None if "follow" in asked else _TIMEOUT.read
        query = urlencode({"timestamps": "true", **asked})
        pod_log = self.octets(Selection(Pod, namespace, name=pod), "log", f"?{query}", patience_s=patience_s)
        rest = b""
        try:
            async with aclosing(pod_log):
                async for octets in pod_log:
                    *lines, rest = (rest + octets).split(b"\n")
                    for line in lines:
                        yield line.decode(errors="replace")
        except NotNow as problem:
            if problem.code != 404:
                raise
        if rest:
            yield rest.decode(errors="replace")

    async def octets(
        self, pod: Selection, part: str, path: str = "", *, patience_s: float | None = 10.0
    ) -> AsyncGenerator[bytes, None]:
        """What a pod's `log` or a port of its (`proxy`; the pod's name is then `NAME:PORT`) says, as it comes.

        path: what follows. patience_s: for the next of them; None for any time. NotSeen: no right to; NotNow: whatever
        else the API server, or the pod itself, refuses, with its status.
        """
        with self._told("get", pod, part):
            raw = self._client._client
            timeout = httpx2.Timeout(patience_s, connect=5.0)
            async with raw._client.stream("GET", f"{pod.path}/{part}{path}", timeout=timeout) as reply:
                if reply.is_error:
                    await reply.aread()
                    if reply.status_code not in (401, 403):
                        said = f"{pod.name}: its {part}: {reply.status_code}: {reply.text.strip()[:200]}"
                        raise NotNow(said, reply.status_code)
                raw.raise_for_status(reply)
                async for octets in reply.aiter_bytes():
                    yield octets

    async def version(self) -> str:
        """The server's own, `v1.34.1`."""
        with self._told("get", None):
            return str((await self._said("GET", "version")).json()["gitVersion"])

    async def date(self) -> int:
        """The server's clock, in whole seconds since 1970, as it answers."""
        with self._told("get", None):
            reply = await self._said("GET", "version")
            return int(parsedate_to_datetime(reply.headers["date"]).timestamp())

    async def one(self, verb: str, what: Selection, body: Json = None, part: str = "") -> Json:
        """`get`, `create`, `patch` (by a list of JSON patch operations, or a merge patch, RFC 7386) or `delete` the one
        that is named, or a part of it: the object, or what else the API says, as it says it. NotNow and NotSeen, too.

        As it says it: a patch's `test` is about what is there, not about what a typed object keeps of it. Whoever is
        cancelled meanwhile is so once the answer is there: what may be done is known to be, or not.
        """
        path = replace(what, name="").path if verb == "create" and not part else what.path
        kind = "merge-patch" if isinstance(body, dict) else "json-patch"
        headers = {"Content-Type": f"application/{kind}+json"} if verb == "patch" else None
        asking = asyncio.ensure_future(self._said(_METHODS[verb], f"{path}/{part}" if part else path, body, headers))
        with self._told(verb, what, part):
            try:
                return (await asyncio.shield(asking)).json()
            finally:
                await asyncio.wait({asking})

    async def _said(self, method: str, path: str, body: Json = None, headers: Mapping[str, str] | None = None) -> Any:
        """lightkube knows no /version, and nothing of objects as they are said."""
        raw = self._client._client
        reply = await raw._client.request(method, path, json=body, headers=headers)
        raw.raise_for_status(reply)
        return reply

    @contextmanager
    def _told(self, verb: str, what: Selection | None, part: str = "") -> Iterator[None]:
        try:
            yield
        except httpx2.HTTPStatusError as problem:
            raise self._refused(problem, verb, what, part) from None
        except httpx2.HTTPError as problem:
            raise self._unreachable(problem) from None
        except ConfigError as problem:
            raise EnvironmentProblem(f"{self.source}: {problem}") from None
        except (MsgspecError, KeyError, ValueError) as problem:
            raise NotSeen(f"{what or 'version'}: what {self.server} says is not understood: {problem}") from None

    def _refused(
        self, problem: httpx2.HTTPStatusError, verb: str, what: Selection | None, part: str
    ) -> EnvironmentProblem:
        code = problem.status.code if isinstance(problem, ApiError) else problem.response.status_code
        if code == 401:
            return Denied(
                f"{self.server} does not accept who we are (401): the token or client certificate of {self.source} is"
                " wrong or has expired: log in again"
            )
        if code == 403 and what:
            them = f"their {part}" if part else "them"
            return NoRight(f"{what}: no right to {verb} {them} (403): add to {what.rule(verb, part)}")
        if code == 403:
            return Denied(f"{self.server}: no right to {verb} version (403)")
        if code == 404:
            return NotFound(f"{what or 'version'}: {self.server} has no such thing (404)")
        text = f"{self.server} refuses to {verb} {what or 'version'}: {code}: {problem}"
        return NotNow(text, code) if code in _NOT_NOW else EnvironmentProblem(text)

    def _unreachable(self, problem: httpx2.HTTPError) -> EnvironmentProblem:
        text = str(problem) or type(problem).__name__
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return EnvironmentProblem(
                f"{self.server}: its certificate is not trusted ({text.rpartition(': ')[2]}): look at"
                f" certificate-authority of {self.source}"
            )
        return EnvironmentProblem(f"{self.server}, of {self.source}, cannot be reached: {text}")


def connect(context: str = "") -> Api:
    """The API as KUBECONFIG, a pod's service account or ~/.kube/config say, in this order; nothing is sent yet.

    context: one of a kubeconfig, '' for its current one. UsageError if there is no such context, EnvironmentProblem if
    there is nothing to go by.
    """
    named = [Path(text).expanduser() for text in os.environ.get("KUBECONFIG", "").split(os.pathsep) if text]
    token = Path(SERVICE_ACCOUNT) / "token"
    if not named and not context and "KUBERNETES_SERVICE_HOST" in os.environ and token.exists():
        config = KubeConfig.from_service_account(SERVICE_ACCOUNT).get()
        assert config, "a service account has a context"  # noqa: S101
        return Api(config, "this pod's service account", in_pod=True)
    files = named or [Path(DEFAULT_KUBECONFIG).expanduser()]
    there = [path for path in files if path.is_file()]
    if not there and "KUBERNETES_SERVICE_HOST" in os.environ and not named:
        raise EnvironmentProblem("this pod has no service account's token: the API cannot be asked from here")
    if not there:
        raise EnvironmentProblem(
            f"no cluster is known: {', '.join(map(str, files))}: no such file, and this is no pod of a cluster: set"
            " KUBECONFIG, or add --lab"
        )
    known: list[str] = []
    for path in there:
        config_of = _read(path)
        name = context or config_of.current_context
        if name in config_of.contexts:
            return Api(
                _chosen(config_of, name, path), f"context {name} in {path}", context, _way(config_of, name, path)
            )
        known += config_of.contexts
    files_text, names = ", ".join(map(str, there)), ", ".join(known) or "none"
    if context:
        raise UsageError(f"--context {context!r}: {files_text} has {names}")
    raise EnvironmentProblem(f"{files_text}: no current context: say --context NAME, one of {names}")


def _read(path: Path) -> KubeConfig:
    try:
        return KubeConfig.from_file(path)
    except Exception as problem:  # noqa: BLE001  a file may be wrong in many ways: its YAML, its keys, their types
        text = " ".join(f"{type(problem).__name__}: {problem}".split())
        raise EnvironmentProblem(f"{path}: not a kubeconfig that can be read: {text}") from None


def _way(config: KubeConfig, context: str, path: Path) -> Way:
    try:
        ways = yaml.decode(path.read_bytes(), type=_Ways).clusters
    except MsgspecError as problem:
        raise EnvironmentProblem(f"{path}: clusters: {problem}") from None
    return next((way.cluster for way in ways if way.name == config.contexts[context].cluster), Way())


def _chosen(config: KubeConfig, name: str, path: Path) -> SingleConfig:
    try:
        chosen = config.get(name)
    except KeyError as missing:
        raise EnvironmentProblem(f"{path}: context {name} names {missing}, which the file lacks") from None
    assert chosen, "a context that is there"  # noqa: S101
    return chosen
