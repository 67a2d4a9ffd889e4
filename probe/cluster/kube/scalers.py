"""An API, a namespace -> what may scale cluster DNS there."""

from __future__ import annotations

from typing import Any

from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler

from probe.cluster.kube.api import Api, NotSeen, Selection


async def scalers(api: Api, namespace: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Autoscalers and Deployments, as JSON; and what could not be read, and why."""
    found: list[dict[str, Any]] = []
    not_seen: list[str] = []
    kinds: tuple[type[Any], ...] = (HorizontalPodAutoscaler, Deployment)
    for kind in kinds:
        try:
            there, _ = await api.list(Selection(kind, namespace))
        except NotSeen as problem:
            not_seen.append(f"whether something scales cluster DNS: {problem}")
        else:
            found += [{**one.to_dict(), "kind": kind.__name__} for one in there]
    return found, not_seen
