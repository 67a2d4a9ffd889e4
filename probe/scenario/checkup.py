"""A cluster, or a pod's resolv.conf alone -> every path to DNS asked for four seconds: what came of each."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from probe.advice.checkup import ApiServer, Checkup, paths_of
from probe.advice.resolving import said_of
from probe.cluster import Cluster, Extent
from probe.cluster.kube.api import Denied, NotSeen, connect
from probe.cluster.zone import DOMAIN
from probe.engine import Engine
from probe.errors import EnvironmentProblem, UsageError
from probe.model import Lane, Target, TargetKind
from probe.resolv import ResolvConf, is_pod, own_resolv_conf
from probe.runfile import open_run
from probe.scenario.domain import in_domain
from probe.scenario.file import read_scenario_text
from probe.scenario.limits import Limits
from probe.scenario.plan import CLUSTER_TARGETS, Plan
from probe.scenario.run import run as run_plan
from probe.scenario.view import View

SCENARIO = """\
# Asks every path to cluster DNS for a few seconds.
# Changes: nothing.
# Undone: nothing to undo.
name: check
duration: 4s
lanes:
  - {name: service-udp, target: service, ports: fresh, rate: 5, timeout: 2s, types: [A], questions: &cluster
      [kubernetes.default.svc.cluster.local]}
  - {name: service-tcp, target: service, ports: fresh, rate: 5, timeout: 2s, types: [A], questions: *cluster,
     transport: tcp}
  - {name: service-udp-outside, target: service, ports: fresh, rate: 2, timeout: 3s, types: [A], questions: &outside
      [{name: "{random}.dnsprobe.invalid", expect: answer|nodata|nxdomain}]}
  - {name: pods-udp, target: pods, ports: fresh, rate: 2, timeout: 2s, types: [A], questions: *cluster}
  - {name: pods-tcp, target: pods, ports: fresh, rate: 2, timeout: 2s, types: [A], questions: *cluster, transport: tcp}
  - {name: pods-health, target: pods, transport: http, port: 8080, rate: 2, timeout: 2s, questions: [/health]}
  - {name: pods-ready, target: pods, transport: http, port: 8181, rate: 2, timeout: 2s, questions: [/ready]}
  - {name: nodes-connect, target: nodes, transport: connect, rate: 2, timeout: 2s}
  - {name: nodelocal-udp, target: nodelocal, ports: fresh, rate: 2, timeout: 2s, types: [A], questions: *cluster}
  - {name: nodelocal-tcp, target: nodelocal, ports: fresh, rate: 2, timeout: 2s, types: [A], questions: *cluster,
     transport: tcp}
  - {name: upstream-udp-outside, target: upstream, ports: fresh, rate: 2, timeout: 3s, types: [A], questions: *outside}
  - {name: upstream-tcp-outside, target: upstream, ports: fresh, rate: 2, timeout: 3s, types: [A], questions: *outside,
     transport: tcp}
"""
"""The name outside is in no cache, and nobody's (RFC 6761): an upstream that lives says NXDOMAIN. CoreDNS gives up on
one that is dead after 2 to 5 s, with SERVFAIL."""
_ASKED = tuple(selector for selector in CLUSTER_TARGETS if selector != "api")
"""The API server is asked by itself, what only it can say."""
MOST_PODS = 50
"""Of more pods so many are asked, at random."""
FINDS = 5.0
"""Seconds in which the API must have shown what there is."""
API_EVERY, API_PATIENCE = 1.0, 3.0
"""Seconds between two questions to the API server, and for each."""
API_TIMES = 4


def base_plan(settings: list[str]) -> Plan:
    """The scenario, with `lab.NAME=VALUE` put in; ScenarioError or UsageError for others."""
    for setting in settings:
        if not setting.startswith("lab."):
            raise UsageError(f"--set {setting!r}: here the lab alone can be set: lab.replicas=0")
    return read_scenario_text("check", SCENARIO, settings)


@dataclass(slots=True)
class Check:
    """One check of a cluster. context: of the kubeconfig whose API server is asked, too; None in the lab.

    resolver: of the pod that this process is in; None if it is in none.
    """

    cluster: Cluster
    base: Plan
    context: str | None = None
    resolver: ResolvConf | None = field(default_factory=lambda: own_resolv_conf() if is_pod() else None)
    _found: bool = False

    async def made(self, path: Path, view: View, command: str = "") -> tuple[Checkup, bool]:
        """What was seen, and whether it was interrupted. A run file is at `path` if there was anybody to ask.

        EnvironmentProblem if neither a cluster nor a pod's resolv.conf says whom.
        """
        began = time.monotonic()
        try:
            view.noted("looking for cluster DNS")
            blind = await self._find()
            if blind and not self.resolver:
                raise EnvironmentProblem(blind)
            targets = self._targets()
            plan = self._plan(targets)
            asking = asyncio.create_task(_api_server(self.context))
            try:
                seen, interrupted = self._seen(blind, targets), False
                if plan.lanes:
                    cluster = self.cluster if self._found else None
                    ending = await run_plan(plan, path, view, Engine(), cluster, command, limits=Limits(external=None))
                    interrupted, measured = ending.interrupted, open_run(ending.path)
                    told = dict.fromkeys(one.text for one in measured.intervals if one.kind == "intercepted")
                    facts = {**seen.facts, "interception": measured.head.facts.get("interception", "not looked for")}
                    paths, beside = paths_of(measured)
                    seen = replace(seen, paths=paths, beside=beside, intercepted=tuple(told), facts=facts)
                api = await asking
                return replace(seen, api=api, seconds=time.monotonic() - began), interrupted
            finally:
                asking.cancel()
        finally:
            await self.cluster.stop()

    @property
    def _in_lab(self) -> bool:
        return self.context is None

    async def _find(self) -> str:
        """Start the cluster; why it cannot be seen, or ''."""
        try:
            async with asyncio.timeout(None if self._in_lab else FINDS):
                await self.cluster.start()
        except EnvironmentProblem as problem:
            if self._in_lab:
                raise
            return str(problem)
        except TimeoutError:
            return f"the API server has not shown within {FINDS:g} s what there is"
        self._found = True
        return ""

    def _facts(self) -> dict[str, str]:
        return self.cluster.facts() if self._found else {}

    @property
    def _domain(self) -> str:
        said = self.resolver.domain if self.resolver else ""
        return self._facts().get("zone", "") or said or DOMAIN

    def _targets(self) -> list[Target]:
        """Whom to ask: what the cluster has, and the nameservers of this pod that are none of these."""
        targets: list[Target] = []
        for selector in _ASKED if self._found else ():
            there = self.cluster.targets(selector)
            targets += random.sample(there, MOST_PODS) if len(there) > MOST_PODS else there
        known = {target.address for target in targets if target.kind is not TargetKind.NODE}
        named = self.resolver.nameservers if self.resolver else ()
        return targets + [Target(f"nameserver {ip}", TargetKind.SERVER, ip) for ip in named if ip not in known]

    def _plan(self, targets: Sequence[Target]) -> Plan:
        """Each lane of the scenario once for each of its targets, by name."""
        base = in_domain(self.base, Extent(zones=(self._domain,)), lambda _: None).lanes
        lanes = [replace(lane, target=target.name) for target in targets for lane in self._lanes(base, target)]
        return replace(self.base, lanes=tuple(lanes), servers=tuple(targets))

    def _lanes(self, base: Sequence[Lane], target: Target) -> list[Lane]:
        """Those that ask it; a nameserver as the Service is, for names of the cluster if it should know any."""
        kind = target.kind
        if kind is not TargetKind.SERVER:
            selector = {TargetKind.POD: "pods", TargetKind.NODE: "nodes"}.get(kind, kind.value)
            return [lane for lane in base if lane.target == selector]
        knows = bool(self.resolver and self.resolver.domain)
        mine = [lane for lane in base if lane.target == "service" and (knows or lane.name.endswith("outside"))]
        return [replace(lane, name=lane.name.replace("service", "nameserver")) for lane in mine]

    def _seen(self, blind: str, targets: Sequence[Target]) -> Checkup:
        """All but paths and the API server."""
        facts = self._facts()
        ready = len(self.cluster.targets("pods")) if self._found else 0
        wanted = self.cluster.shutdown().replicas if self._found else 0
        others = (TargetKind.SERVER, TargetKind.NODE)
        ours = {target.address for target in targets if target.kind not in others}
        links = [name for _, name in socket.if_nameindex()]
        return Checkup(
            resolving=tuple(said_of(self.resolver, ours, links)) if self.resolver else (),
            resolver=self.resolver,
            in_lab=self._in_lab,
            ready=ready,
            wanted=wanted if wanted or self._in_lab or "made by" in facts else None,
            namespace=facts.get("service", "kube-system/").partition("/")[0],
            domain=self._domain,
            facts=facts,
            blind=blind,
            not_seen=tuple(text for text in facts.get("not seen", "").split("; ") if "(403)" in text),
        )


async def _api_server(context: str | None) -> ApiServer:
    """Ask for its version a few times; where there are no credentials, knock."""
    if context is None:
        return ApiServer()
    try:
        api = connect(context)
    except EnvironmentProblem as problem:
        return await _knocked(str(problem))
    seen = ApiServer(api.server)
    try:
        for nth in range(API_TIMES):
            await asyncio.sleep(API_EVERY if nth else 0)
            seen, began = replace(seen, asked=nth + 1), time.monotonic()
            async with asyncio.timeout(API_PATIENCE):
                version = await api.version()
            seen = replace(seen, version=version, reached=True, seconds=(*seen.seconds, time.monotonic() - began))
    except TimeoutError:
        return replace(seen, reached=False, problem=f"{api.server} has not answered for {API_PATIENCE:g} s")
    except EnvironmentProblem as problem:
        return replace(seen, reached=isinstance(problem, Denied | NotSeen), problem=str(problem))
    finally:
        await api.close()
    return seen


async def _knocked(why: str) -> ApiServer:
    """Open a connection to where the kubelet says the API server is. why: no credentials to ask with."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return ApiServer(problem=why)
    began = time.monotonic()
    try:
        async with asyncio.timeout(API_PATIENCE):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, ValueError) as problem:
        return ApiServer(host, asked=1, problem=f"{host} port {port} cannot be reached: {problem}")
    writer.close()
    return ApiServer(host, seconds=(time.monotonic() - began,), asked=1, reached=True)
