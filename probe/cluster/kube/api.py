"""A kubeconfig's context, or a pod's service account -> the Kubernetes API, its refusals as sentences to act on."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from lightkube import ApiError, AsyncClient, ConfigError, KubeConfig, SingleConfig
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG, SERVICE_ACCOUNT
from lightkube.config.models import User
from lightkube.core.resource import api_info
from msgspec import MsgspecError

from probe.errors import EnvironmentProblem, UsageError

_TIMEOUT = httpx2.Timeout(10.0, connect=5.0)


class NotSeen(EnvironmentProblem):
    """Objects of one type cannot be read: no right to, no such type, or not understood. Others may be."""


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
    def rule(self) -> str:
        """The RBAC rule that lets them be read, and where it goes."""
        info = api_info(self.of)
        role = f"its Role in {self.namespace}" if self.namespace else "its ClusterRole"
        return f'{role}: {{apiGroups: ["{info.resource.group}"], resources: [{info.plural}], verbs: [list, watch]}}'

    def __str__(self) -> str:
        plural = str(api_info(self.of).plural)
        return f"{plural} in {self.namespace}" if self.namespace else plural


@dataclass(frozen=True, slots=True)
class Part:
    """What is got of one pod by a right of its own: `log`, or `proxy`, its ports."""

    name: str
    namespace: str
    pod: str

    @property
    def path(self) -> str:
        """Below the API server's address."""
        return f"api/v1/namespaces/{self.namespace}/pods/{self.pod}/{self.name}"

    @property
    def rule(self) -> str:
        """The RBAC rule that lets it be got, and where it goes."""
        return f'its Role in {self.namespace}: {{apiGroups: [""], resources: [pods/{self.name}], verbs: [get]}}'

    def __str__(self) -> str:
        return f"pods/{self.name} in {self.namespace}"


class Api:
    """The API of one cluster. `source`: where its address and credentials are from, for people.

    EnvironmentProblem from every call says what is wrong; NotSeen, that it is about those objects alone.
    """

    def __init__(self, config: SingleConfig, source: str) -> None:
        self.source = source
        self.server = str(config.cluster.server)
        self.cluster = config.context.cluster
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

    async def get(self, part: Part, path: str = "", *, patience_s: float | None = 10.0) -> AsyncIterator[bytes]:
        """The octets of a pod's log, or of what its port answers, as they come. path: what follows.

        patience_s: for the next of them; None for any time. NotSeen is also what the pod itself refuses.
        """
        with self._told("get", part):
            raw = self._client._client
            timeout = httpx2.Timeout(patience_s, connect=5.0)
            async with raw._client.stream("GET", part.path + path, timeout=timeout) as reply:
                if reply.is_error:
                    await reply.aread()
                    if reply.status_code not in (401, 403):
                        raise NotSeen(f"{part}: {part.pod}: {reply.status_code}: {reply.text.strip()[:200]}")
                raw.raise_for_status(reply)
                async for octets in reply.aiter_bytes():
                    yield octets

    async def version(self) -> str:
        """The server's own, `v1.34.1`."""
        with self._told("get", None):
            # lightkube knows no /version.
            raw = self._client._client
            reply = await raw._client.get("version")
            raw.raise_for_status(reply)
            return str(reply.json()["gitVersion"])

    @contextmanager
    def _told(self, verb: str, what: Selection | Part | None) -> Iterator[None]:
        try:
            yield
        except httpx2.HTTPStatusError as problem:
            raise self._refused(problem, verb, what) from None
        except httpx2.HTTPError as problem:
            raise self._unreachable(problem) from None
        except ConfigError as problem:
            raise EnvironmentProblem(f"{self.source}: {problem}") from None
        except (MsgspecError, KeyError, ValueError) as problem:
            raise NotSeen(f"{what or 'version'}: what {self.server} says is not understood: {problem}") from None

    def _refused(self, problem: httpx2.HTTPStatusError, verb: str, what: Selection | Part | None) -> EnvironmentProblem:
        code = problem.status.code if isinstance(problem, ApiError) else problem.response.status_code
        if code == 401:
            return EnvironmentProblem(
                f"{self.server} does not accept who we are (401): the token or client certificate of {self.source} is"
                " wrong or has expired: log in again"
            )
        if code == 403 and what:
            return NotSeen(f"{what}: no right to {verb} them (403): add to {what.rule}")
        if code == 404:
            return NotSeen(f"{what or 'version'}: {self.server} has no such thing (404)")
        return EnvironmentProblem(f"{self.server} refuses to {verb} {what or 'version'}: {code}: {problem}")

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
        return Api(config, "this pod's service account")
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
            return Api(_chosen(config_of, name, path), f"context {name} in {path}")
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
