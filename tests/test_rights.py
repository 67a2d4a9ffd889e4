"""What deploy/ grants -> an API that refuses all else: whatever a prober does there goes, and no verb is left over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from probe.cluster.kube import Kube
from probe.cluster.kube.acting import Permission
from probe.cluster.kube.actions import ACTIONS
from probe.cluster.kube.api import connect
from probe.cluster.kube.membership import Membership
from probe.cluster.kube.snapshot import read
from probe.cluster.nearest import Nearest
from probe.scenario.kustomize import build, deploy_folder
from tests.apiserver import ApiServer, Log
from tests.kube_objects import Json, config_map, job, pod, thing
from tests.test_actions import PATCHES, made_by
from tests.test_kube import kubeadm

VERBS = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}


@dataclass(frozen=True)
class Asked:
    """A request as RBAC sees it (Kubernetes, "Determine the request verb"); namespace '' for all, or none."""

    verb: str
    resource: str
    group: str
    namespace: str
    name: str

    @classmethod
    def of(cls, method: str, path: str) -> Asked | None:
        """None for what is no resource, such as /version: it is everybody's."""
        url = urlsplit(path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        if parts[0] not in ("api", "apis"):
            return None
        group, parts = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
        namespace, parts = (parts[1], parts[2:]) if parts[0] == "namespaces" and len(parts) > 2 else ("", parts)
        resource, name, *part = [*parts, ""][:3] if len(parts) < 3 else parts
        verb = VERBS.get(method, "get" if name else "watch" if "watch" in query else "list")
        selected = query.get("fieldSelector", "").removeprefix("metadata.name=")
        return cls(verb, "/".join([resource, *filter(None, part)]), group, namespace, name or selected)


@dataclass
class Rights:
    """Of one ServiceAccount. used: what was asked of them; refused: what was asked beside them."""

    rules: list[tuple[str, Json]]
    used: set[tuple[str, str, str]] = field(default_factory=set)
    refused: list[Asked] = field(default_factory=list)

    @classmethod
    def of(cls, objects: list[Any], account: str) -> Rights:
        """By the bindings of an overlay; ClusterRoles that a RoleBinding names are of its namespace alone."""
        roles = {(one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]): one for one in objects
                 if one["kind"] in ("Role", "ClusterRole")}  # fmt: skip
        rules = []
        for one in objects:
            if one["kind"].endswith("Binding") and account in {each["name"] for each in one["subjects"]}:
                place, ref = one["metadata"].get("namespace", ""), one["roleRef"]
                role = roles[ref["kind"], place if ref["kind"] == "Role" else "", ref["name"]]
                rules += [(place, rule) for rule in role["rules"]]
        return cls(rules)

    @property
    def granted(self) -> set[tuple[str, str, str]]:
        """Namespace ('' for all), resource, verb."""
        return {
            (place, what, verb) for place, rule in self.rules for what in rule["resources"] for verb in rule["verbs"]
        }

    def judge(self, method: str, path: str) -> int:
        """403 for what is not granted."""
        asked = Asked.of(method, path)
        if asked is None:
            return 0
        found = [place for place, rule in self.rules if self._fits(asked, place, rule)]
        self.used |= {(place, asked.resource, asked.verb) for place in found}
        if not found:
            self.refused.append(asked)
        return 0 if found else 403

    @staticmethod
    def _fits(asked: Asked, place: str, rule: Json) -> bool:
        names = rule.get("resourceNames")
        return (
            place in ("", asked.namespace)
            and asked.group in rule["apiGroups"]
            and asked.resource in rule["resources"]
            and asked.verb in rule["verbs"]
            and (names is None or asked.name in names)
        )


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """kubeadm's cluster, in which nobody has to load a Corefile, and a Job's pod in it."""
    whole = made_by()  # with the API server's defaults
    server = ApiServer(
        *kubeadm(),
        whole.service,
        whole.maker,
        thing("Namespace", "kube-system"),
        *job(pods=1),
        config_map("coredns-custom"),
    )
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": "kube-system"}
    role = {"kind": "ClusterRole", "name": "system:coredns"}
    server.put(thing("ClusterRoleBinding", "system:coredns", subjects=[subject], roleRef=role))
    for name in ("coredns-a", "coredns-b"):
        server.logs[name] = log = Log()
        log.add("2099-01-01T00:00:00Z [INFO] Reloading complete")
        log.end()
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))
    yield server
    server.stop()


async def looked(_: ApiServer) -> None:
    """A run, and one of a prober for each node."""
    for nearest in (None, Nearest("node-1", 1)):
        kube = Kube(nearest=nearest)
        await kube.start()
        await asyncio.sleep(2.0)  # watches begin, logs are read
        await kube.stop()


async def joined(_: ApiServer) -> None:
    """A pod of a Job, which agrees with the others when to start, and hears that it is to stop."""
    one = Membership.of({"DNSPROBE_JOB": "watch", "DNSPROBE_NAMESPACE": "dnsprobe", "DNSPROBE_POD": "watch-0"}, connect)
    assert one
    await one.start(0, 1, lambda _: None)
    hears = asyncio.create_task(one.told_to_stop(lambda _: None))
    await asyncio.sleep(0.5)
    hears.cancel()
    await one.stops(lambda _: None)
    await one.close()


async def acted(server: ApiServer) -> None:
    """Every step, alone, and taken back."""
    passing = [(word, "") for word in ACTIONS if word not in {word for word, *_ in PATCHES}]
    for word, value in [*((word, value) for word, value, *_ in PATCHES), *passing]:
        for each in (pod(), pod("coredns-b", "127.244.0.3")):  # as a Deployment makes them
            server.put(each)
        kube = Kube(permission=Permission("scripted", allow_outage=True))
        try:
            await kube.start()
            await kube.plan([(word, value)])
            await kube.act(word, value)
            assert not (await kube.undo(lambda _: None)).conflicts
        finally:
            await kube.stop()


async def audited(_: ApiServer) -> None:
    api = connect("")
    found = await read(api)
    await api.close()
    assert not [why for why in found.unread.values() if "403" in why]


AUDIT = deploy_folder() / "components/audit/rights.yaml"
JOB, ACTING = (build(deploy_folder() / "overlays" / name) for name in ("job", "acting"))
ACCOUNTS = {
    "looks": (JOB, "dnsprobe", (looked, joined)),
    "acts": (ACTING, "dnsprobe-acting", (looked, joined, acted)),
    "audits": ([*JOB, *yaml.safe_load_all(AUDIT.read_text())], "dnsprobe", (looked, joined, audited)),
}


@pytest.mark.parametrize("who", ACCOUNTS)
def test_a_prober_needs_all_its_rights_and_no_others(who: str, api: ApiServer) -> None:
    objects, account, does = ACCOUNTS[who]
    rights = Rights.of(objects, account)
    api.guard = rights.judge
    for each in does:
        asyncio.run(each(api))
    assert rights.refused == []
    assert rights.granted - rights.used == set()
