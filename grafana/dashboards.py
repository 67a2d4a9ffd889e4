"""Rows of panels -> Grafana dashboards (classic JSON), with their variables, links and marks of rollouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from grafana import load_test, overview, prober_health, rollout
from grafana.panels import DATASOURCE, Json, Row, placed
from grafana.queries import of
from probe.report.palette import SEQUENCE

SCHEMA = 41
"""Grafana 10 and 11 read it as it is, newer ones migrate it as they load it."""
TAG = "dnsprobe"


@dataclass(frozen=True)
class Dashboard:
    """What a dashboard is called, what it answers, its rows, and how much time it shows first."""

    title: str
    description: str
    rows: Callable[[], list[Row]]
    since: str
    refresh: str


def text(name: str) -> str:
    """A dashboard as a file."""
    dashboard = DASHBOARDS[name]
    panels = placed(dashboard.rows())
    told: Json = {
        "uid": f"dnsprobe-{name}",
        "title": f"dnsprobe / {dashboard.title}",
        "description": dashboard.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": False,
        "timezone": "utc",
        "graphTooltip": 1,
        "time": {"from": f"now-{dashboard.since}", "to": "now"},
        "refresh": dashboard.refresh,
        "links": [_links()],
        "annotations": {"list": [_rollouts()]},
        "templating": {"list": _variables(json.dumps(panels))},
        "panels": panels,
    }
    return json.dumps(told, indent=2, ensure_ascii=False) + "\n"


def _links() -> Json:
    """To the other dashboards, side by side, with the same variables and time."""
    shared: Json = {"asDropdown": False, "includeVars": True, "keepTime": True, "targetBlank": False}
    return {"type": "dashboards", "title": "dnsprobe", "tags": [TAG], "icon": "external link", "tooltip": "", **shared}


def _rollouts() -> Json:
    """A region for the time in which pods of a workload were being replaced, asked of Prometheus itself."""
    expr = f"max by (workload) ({of('dnsprobe_rollout_in_progress')} == 1)"
    return {
        "name": "Rollouts",
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": SEQUENCE[3],
        "expr": expr,
        "target": {"refId": "Anno", "expr": expr, "interval": ""},
        "step": "",
        "titleFormat": "rollout of {{workload}}",
        "textFormat": "Pods of {{workload}} are being replaced.",
        "tagKeys": "workload",
        "useValueForTime": False,
    }


def _variables(panels: str) -> list[Json]:
    """All of them everywhere, so that links take them along; hidden where no panel is narrowed down by them."""
    build, up = of("dnsprobe_build_info"), of("dnsprobe_target_up")
    found = [
        _variable("cluster", "Cluster", "dnsprobe_build_info", ".*"),
        _variable("job", "Job", _until(build, "job"), ".+"),
        _variable("instance", "Prober", _until(build, "instance"), ".+"),
        _variable("node", "Node", _until(build, "node"), ".*"),
        _variable("target_kind", "Kind of target", _until(up, "target_kind"), ".*"),
        _variable("target", "Target", _until(up, "target"), ".*"),
        _variable("transport", "Transport", _until(up, "transport"), ".*"),
    ]
    if "$coredns_job" in panels:
        found.append(_variable("coredns_job", "CoreDNS's job", 'coredns_build_info{cluster=~"$cluster"}', ".+", "job"))
    found = [each | {"hide": 0 if f"${each['name']}" in panels else 2} for each in found]
    source: Json = {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus"}
    return [
        {**source, "current": {}, "hide": 0, "includeAll": False, "multi": False, "refresh": 1, "regex": ""},
        *found,
    ]


def _until(selector: str, label: str) -> str:
    """The selector with the matchers of the variables that are chosen before this one, and so not of itself."""
    return f"{selector.partition(f',{label}=~')[0]}}}"


def _variable(name: str, label: str, selector: str, everything: str, of_label: str = "") -> Json:
    """Any number of a label's values; all of them at first, and then series without the label count if `.*` does."""
    query = f"label_values({selector}, {of_label or name})"
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "query": {"qryType": 1, "query": query, "refId": f"variable-{name}"},
        "definition": query,
        "allValue": everything,
        "includeAll": True,
        "multi": True,
        "refresh": 2,
        "sort": 1,
        "regex": "",
        "skipUrlSync": False,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


DASHBOARDS: dict[str, Dashboard] = {
    "overview": Dashboard(
        "Overview", "Is cluster DNS up, for whom not, since when, and how much was lost.", overview.rows, "1h", "30s"
    ),
    "rollout": Dashboard(
        "Rollout", "What an upgrade, a restart or a scaling did to queries.", rollout.rows, "30m", "10s"
    ),
    "load-test": Dashboard(
        "Load test", "How much was asked, what came back, and what CoreDNS says of it.", load_test.rows, "15m", "10s"
    ),
    "prober-health": Dashboard(
        "Prober health", "Whether the probers may be believed, what they lost themselves.", prober_health.rows, "1h",
        "30s",
    ),
}  # fmt: skip
