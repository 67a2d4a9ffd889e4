"""A dashboard's panels and a Prometheus -> what each query says, filled in as Grafana fills it in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import httpx2


@dataclass(frozen=True)
class Span:
    """The time shown: unix seconds, and how often Prometheus scrapes."""

    start: float
    end: float
    scraped: float = 5.0

    def step(self, points: int) -> float:
        """Seconds between points where that many fit: no shorter than a scrape, whole if there can be."""
        return max(self.scraped, float(ceil((self.end - self.start) / points)))


@dataclass(frozen=True)
class Told:
    """A series: its name as the legend has it, its labels, unix times, values."""

    name: str
    labels: dict[str, str]
    at: tuple[float, ...]
    values: tuple[float, ...]


def client(url: str) -> httpx2.Client:
    """Of a Prometheus; close it."""
    return httpx2.Client(base_url=url.rstrip("/"), timeout=30)


def chosen(dashboard: Mapping[str, Any], only: Mapping[str, str]) -> dict[str, str]:
    """The values of a dashboard's variables: all, but of those that are given."""
    return {
        each["name"]: only.get(each["name"], each["allValue"])
        for each in dashboard["templating"]["list"]
        if each["type"] == "query"
    }


def filled(expr: str, variables: Mapping[str, str], span: Span, step: float) -> str:
    """With Grafana's own variables and the dashboard's.

    https://grafana.com/docs/grafana/latest/datasources/prometheus/template-variables: $__rate_interval is
    max(step + scrape interval, 4 x scrape interval).
    """
    values = {
        "__rate_interval": f"{round(max(step + span.scraped, 4 * span.scraped) * 1000)}ms",
        "__range": f"{round((span.end - span.start) * 1000)}ms",
        "__interval_ms": str(round(step * 1000)),
        "__interval": f"{round(step * 1000)}ms",
    }
    return re.sub(r"\$(\w+)", lambda match: {**variables, **values}[match[1]], expr)


def ask(
    prometheus: httpx2.Client, panel: Mapping[str, Any], variables: Mapping[str, str], span: Span
) -> list[list[Told]]:
    """The series that each query of a panel gives; ValueError with Prometheus's own words if one is wrong."""
    step = span.step(panel["gridPos"]["w"] * 30)
    return [
        _ask(prometheus, target, filled(target["expr"], variables, span, step), span, step)
        for target in panel["targets"]
    ]


def regions(prometheus: httpx2.Client, mark: Mapping[str, Any], variables: Mapping[str, str], span: Span) -> list[Told]:
    """Annotations: each a series with two times, where it begins and where it ends."""
    step = span.step(300)
    expr = filled(mark["expr"], variables, span, step)
    found = []
    for told in _ask(prometheus, {"legendFormat": mark["titleFormat"]}, expr, span, step):
        start = last = told.at[0]
        for at in (*told.at[1:], float("inf")):
            if at > last + step:
                found.append(Told(told.name, told.labels, (start, last), (1, 1)))
                start = at
            last = at
    return found


def _ask(prometheus: httpx2.Client, target: Mapping[str, Any], expr: str, span: Span, step: float) -> list[Told]:
    if target.get("instant"):
        what, arguments = "query", {"query": expr, "time": span.end}
    else:
        what, arguments = "query_range", {"query": expr, "start": span.start, "end": span.end, "step": step}
    reply = prometheus.post(f"/api/v1/{what}", data=arguments).json()
    if reply["status"] != "success":
        raise ValueError(f"{expr}: {reply['error']}")
    found = []
    for each in reply["data"]["result"]:
        pairs = each["values"] if "values" in each else [each["value"]]
        at, values = zip(*((at, float(value)) for at, value in pairs), strict=True)
        found.append(Told(_name(target["legendFormat"], each["metric"]), each["metric"], at, values))
    return found


def _name(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], ""), legend).strip()
