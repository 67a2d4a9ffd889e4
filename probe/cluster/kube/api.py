"""A kubeconfig's context, or a pod's service account -> the Kubernetes API, its refusals as sentences to act on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
from lightkube import ApiError, AsyncClient, ConfigError, KubeConfig, SingleConfig
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG, SERVICE_ACCOUNT
from lightkube.config.models import User
from lightkube.core.resource import api_info
from msgspec import MsgspecError

from probe.errors import EnvironmentProblem, UsageError

Json = Any
"""An object as the API says it."""
_TIMEOUT = httpx2.Timeout(10.0, connect=5.0)
_METHODS = {"get": "GET", "create": "POST", "patch": "PATCH", "delete": "DELETE"}
_VERBS = {"list": "list, watch", "watch": "list, watch"}
"""What goes with what."""
_NOT_NOW = (409, 422, 429)


class NotSeen(EnvironmentProblem):
    """Objects of one type cannot be read: no right to, no such type, or not understood. Others may be."""


class NotNow(EnvironmentProblem):
    """The API server would not do it as things are: a patch's test failed (422), a conflict (409), a budget (429)."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Which objects: of one type of lightkube's, in a namespace ('' for types without), by labels, by name."""

    of: type[Any]
    namespace: str = ""
    labels: Mapping[str, str | list[str]] = field(default_factory=dict)
    name: str = ""

    @property
    def where(self) -> dict[str, Any]:
        """As lightkube's list and watch have it."""
        fields = {"metadata.name": self.name} if self.name else None
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
        plural, verbs = f"{info.plural}/{part}" if part else info.plural, _VERBS.get(verb, verb)
        return f'{role}: {{apiGroups: ["{info.resource.group}"], resources: [{plural}], verbs: [{verbs}]}}'

    def __str__(self) -> str:
        plural = str(api_info(self.of).plural)
        return f"{plural} in {self.namespace}" if self.namespace else plural


class Api:
    """The API of one cluster. `source`: where its address and credentials are from, for people; `context`: as it was
    asked for.

    EnvironmentProblem from every call says what is wrong; NotSeen, that it is about those objects alone.
    """

    def __init__(self, config: SingleConfig, source: str, context: str = "", *, in_pod: bool = False) -> None:
        self.context = context
        self.source = source
        self.server = str(config.cluster.server)
        self.cluster = config.context.cluster
        self.in_pod = in_pod
        """Whether it is the cluster that this pod is in."""
        try:
            # lightkube asks for a user, if only for an empty one.
            config = config if config.user else config._replace(user=User())
            self._client: Any = AsyncClient(config, timeout=_TIMEOUT)
        except (OSError, ValueError, ConfigError) as problem:
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

    async def watch(self, what: Selection, version: str) -> AsyncIterator[tuple[str, Any]]:
        """`ADDED`, `MODIFIED` or `DELETED` and the object, as it happens; ends only by EnvironmentProblem."""
        with self._told("watch", what):
            async with aclosing(self._client.watch(what.of, resource_version=version, **what.where)) as events:
                async for event in events:
                    yield event

    async def version(self) -> str:
        """The server's own, `v1.34.1`."""
        with self._told("get", None):
            return str((await self._said("GET", "version")).json()["gitVersion"])

    async def one(self, verb: str, what: Selection, body: Json = None, part: str = "") -> Json:
        """`get`, `create`, `patch` (by a list of JSON patch operations) or `delete` the one that is named, or a part of
        it: the object, or what else the API says, just as it says it. NotNow and NotSeen, too.

        As it says it: a patch's `test` is about what is there, not about what a typed object keeps of it. Whoever is
        cancelled meanwhile is so once the answer is there: what may be done is known to be, or not.
        """
        path = replace(what, name="").path if verb == "create" and not part else what.path
        json_patch = {"Content-Type": "application/json-patch+json"} if verb == "patch" else None
        asking = asyncio.ensure_future(self._said(_METHODS[verb], f"{path}/{part}" if part else path, body, json_patch))
        with self._told(verb, what, part):
            try:
                return (await asyncio.shield(asking)).json()
            finally:
                await asyncio.wait({asking})

    async def log(self, what: Selection, container: str, since: datetime) -> str:
        """What a pod's container has written since then."""
        with self._told("get", what, "log"):
            path = f"{what.path}/log?container={container}&sinceTime={since:%Y-%m-%dT%H:%M:%SZ}"
            return str((await self._said("GET", path)).text)

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
            return EnvironmentProblem(
                f"{self.server} does not accept who we are (401): the token or client certificate of {self.source} is"
                " wrong or has expired: log in again"
            )
        if code == 403 and what:
            them = f"their {part}" if part else "them"
            return NotSeen(f"{what}: no right to {verb} {them} (403): add to {what.rule(verb, part)}")
        if code == 404:
            return NotSeen(f"{what or 'version'}: {self.server} has no such thing (404)")
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
            return Api(_chosen(config_of, name, path), f"context {name} in {path}", context)
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


def _chosen(config: KubeConfig, name: str, path: Path) -> SingleConfig:
    try:
        chosen = config.get(name)
    except KeyError as missing:
        raise EnvironmentProblem(f"{path}: context {name} names {missing}, which the file lacks") from None
    assert chosen, "a context that is there"  # noqa: S101
    return chosen
