"""A plan with `expect: endpoints` in it, a cluster -> the plan with the addresses that its EndpointSlices say now."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import replace

from probe.book import Shelf
from probe.cluster import Cluster
from probe.errors import EnvironmentProblem, UsageError
from probe.model import Expect, Learnt, Question
from probe.scenario.plan import Plan


async def with_endpoints(plan: Plan, cluster: Cluster | None, say: Callable[[str], None]) -> Plan:
    """A lane whose Service has none, or none to be seen, is left out, and that is said. UsageError without a cluster,
    EnvironmentProblem if no lane is left.

    Those of a Service that is changed while the run goes are compared with what was there when it began.
    """
    lanes, left_out = [], []
    for lane in plan.lanes:
        names = [] if isinstance(lane.questions, Shelf) else _compared(lane.questions)
        if not names:
            lanes.append(lane)
            continue
        if cluster is None:
            raise UsageError(f"lane {lane.name}: expect endpoints: needs a cluster: add --lab, or name a kubeconfig")
        found = {name: await _addresses(name, cluster) for name in names}
        if none := [name for name, addresses in found.items() if not addresses]:
            left_out.append(f"lane {lane.name} is left out: no EndpointSlices of {', '.join(none)} can be seen")
            continue
        lanes.append(replace(lane, questions=tuple(_expecting(q, found.get(q.name)) for q in lane.questions)))
    if not lanes:
        raise EnvironmentProblem(f"{'; '.join(left_out)}: name a headless Service that has pods which are Ready")
    for text in left_out:
        say(text)
    return replace(plan, lanes=tuple(lanes))


def _compared(questions: Sequence[Question]) -> list[str]:
    """The names whose answers are to be compared."""
    return list(dict.fromkeys(q.name for q in questions if q.expect.learnt is Learnt.ENDPOINTS))


async def _addresses(name: str, cluster: Cluster) -> frozenset[str]:
    """Of `service.namespace.svc.zone`."""
    service, _, rest = name.partition(".")
    return await cluster.headless(service, rest.partition(".")[0])


def _expecting(question: Question, addresses: frozenset[str] | None) -> Question:
    """Those of its family; of the other the usual."""
    if addresses is None or question.expect.learnt is not Learnt.ENDPOINTS:
        return question
    version = {"A": 4, "AAAA": 6}.get(question.qtype)
    mine = sorted(each for each in addresses if ipaddress.ip_address(each).version == version)
    return replace(question, expect=Expect.parse(",".join(mine), question.qtype))
