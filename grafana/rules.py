"""The rules as data -> Prometheus's rule file, the Prometheus operator's PrometheusRule, Grafana's own alert rules."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import dedent

import yaml

from grafana.alerts import GROUPS, Alert, Group, Recording

MADE = "# Made by `make grafana` from grafana/alerts.py: change it there.\n"
DATASOURCE = "prometheus"
"""The uid of the data source that Grafana's rules ask."""


def prometheus() -> str:
    """The rule file (https://prometheus.io/docs/prometheus/latest/configuration/recording_rules)."""
    return MADE + _yaml({"groups": [_group(group) for group in GROUPS]})


def kubernetes() -> str:
    """The same as an object of the Prometheus operator; its Prometheus selects it by label."""
    return MADE + _yaml(
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "dnsprobe", "labels": {"app.kubernetes.io/name": "dnsprobe"}},
            "spec": {"groups": [_group(group) for group in GROUPS]},
        }
    )


def native() -> str:
    """The alerts as Grafana evaluates them; what is recorded it reads from Prometheus.

    https://grafana.com/docs/grafana/latest/alerting/set-up/provision-alerting-resources/file-provisioning
    """
    groups = [
        {
            "orgId": 1,
            "name": group.name,
            "folder": "dnsprobe",
            # Grafana evaluates every 10 s, or a multiple of it.
            "interval": "30s",
            "rules": [_native(alert) for alert in found],
        }
        for group in GROUPS
        if (found := [rule for rule in group.rules if isinstance(rule, Alert)])
    ]
    return MADE + _yaml({"apiVersion": 1, "groups": groups})


def _group(group: Group) -> dict[str, object]:
    return {"name": group.name, "interval": group.interval, "rules": [_rule(rule) for rule in group.rules]}


def _rule(rule: Recording | Alert) -> dict[str, object]:
    if isinstance(rule, Recording):
        return {"record": rule.record, "expr": _expr(rule)}
    waits = {"for": rule.for_, "keep_firing_for": rule.keep}
    return {
        "alert": rule.full_name,
        "expr": _expr(rule),
        **{key: value for key, value in waits.items() if value},
        "labels": {"severity": rule.severity},
        "annotations": _annotations(rule),
    }


def _annotations(alert: Alert) -> dict[str, object]:
    return {"summary": alert.summary, "description": alert.description, "runbook_url": alert.runbook}


def _native(alert: Alert) -> dict[str, object]:
    """A: 1 for each series that alerts, whatever its value. B: the value, for the text. C: the condition, A > 0."""
    texts = {key: str(text).replace("$value", "$values.B.Value") for key, text in _annotations(alert).items()}
    expr = _expr(alert)
    return {
        "uid": f"dnsprobe-{alert.name.lower()}",
        "title": alert.full_name,
        "condition": "C",
        "data": [
            _asks("A", f"({expr}) * 0 + 1"),
            _asks("B", expr),
            {
                "refId": "C",
                "datasourceUid": "__expr__",
                "relativeTimeRange": {"from": 0, "to": 0},
                "model": {
                    "refId": "C",
                    "type": "threshold",
                    "datasource": {"type": "__expr__", "uid": "__expr__"},
                    "expression": "A",
                    "conditions": [{"evaluator": {"type": "gt", "params": [0]}}],
                },
            },
        ],
        # An expression that finds nothing is an alert that does not fire.
        "noDataState": "OK",
        "execErrState": "Error",
        "for": alert.for_ or "0s",
        **({"keepFiringFor": alert.keep} if alert.keep else {}),
        "labels": {"severity": alert.severity},
        "annotations": texts,
    }


def _asks(ref: str, expr: str) -> dict[str, object]:
    return {
        "refId": ref,
        "datasourceUid": DATASOURCE,
        "relativeTimeRange": {"from": 600, "to": 0},
        "model": {
            "refId": ref,
            "expr": expr,
            "instant": True,
            "range": False,
            "intervalMs": 1000,
            "maxDataPoints": 43200,
        },
    }


def _expr(rule: Recording | Alert) -> str:
    return dedent(rule.expr).strip()


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as they stand, and no aliases for what occurs twice."""

    def ignore_aliases(self, _: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _yaml(document: Mapping[str, object]) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
