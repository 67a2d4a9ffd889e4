"""Rules as data and as files: promtool's checks and unit tests, metrics and labels that exist, a runbook for each."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from grafana.alerts import GROUPS, Alert, Recording, alerts, recordings
from probe.exporter.catalogue import COUNTER, HISTOGRAM, METRICS
from probe.outcome import MEANINGS, Blame, Outcome
from tests.servers import need

FOLDER = Path(__file__).parents[1] / "grafana"
TEST_FILES = sorted((FOLDER / "prometheus").glob("*.test.yaml"))
UNIT_TESTS = [test for path in TEST_FILES for test in yaml.safe_load(path.read_text())["tests"]]
ALERTS = {alert.full_name: alert for alert in alerts()}
RULES = [pytest.param(rule, id=_id) for group in GROUPS for rule in group.rules for _id in [getattr(rule, "name", "")]]
BY_PROMETHEUS = {"cluster", "job", "instance", "node", "le"}
OWN = {"up": set[str]()}
"""Prometheus's own about each page it scrapes (https://prometheus.io/docs/concepts/jobs_instances)."""


def promtool(*arguments: str) -> str:
    """What it says. AssertionError with it if that is an error."""
    program = need("promtool", "make servers")
    told = subprocess.run([program, *arguments], capture_output=True, check=False, text=True, timeout=120)
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


def test_promtool_takes_the_rules() -> None:
    said = promtool("check", "rules", "--lint=all", "--lint-fatal", str(FOLDER / "prometheus/rules.yaml"))
    assert f"{sum(len(group.rules) for group in GROUPS)} rules found" in said


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in TEST_FILES])
def test_the_rules_say_what_their_unit_tests_expect(path: Path) -> None:
    promtool("test", "rules", str(path))


def test_each_alert_fires_in_a_unit_test_and_is_silent_in_one() -> None:
    cases = [
        (case["alertname"], bool(case.get("exp_alerts"))) for test in UNIT_TESTS for case in test["alert_rule_test"]
    ]
    assert {name for name, fires in cases if fires} == set(ALERTS)
    assert {name for name, fires in cases if not fires} == set(ALERTS)
    assert len({test["name"] for test in UNIT_TESTS}) == len(UNIT_TESTS)


def test_prometheus_and_operator_get_the_same_groups() -> None:
    plain = yaml.safe_load((FOLDER / "prometheus/rules.yaml").read_text())
    rule = yaml.safe_load((FOLDER / "kubernetes/prometheusrule.yaml").read_text())
    assert rule["kind"] == "PrometheusRule"
    assert rule["spec"]["groups"] == plain["groups"]


# --- Expressions ---


def nodes(expr: Any) -> Iterator[Any]:
    """The expression and all within."""
    yield expr
    parts = [getattr(expr, name, None) for name in ("lhs", "rhs", "expr", "param", "vector_selector")]
    for part in [*parts, *(getattr(expr, "args", None) or [])]:
        if part is not None:
            yield from nodes(part)


def selectors(expr: str) -> list[Any]:
    """The vector selectors of an expression."""
    found = [node for node in nodes(promql_parser.parse(expr)) if isinstance(node, promql_parser.VectorSelector)]
    assert len(found) == len(re.findall(r"(?<![:\w])(?:\w+:)?dnsprobe_\w+(?::\w+)?|\bup\b", expr)), "one was missed"
    return found


def family(name: str | None) -> str:
    """The metric of the catalogue that a series belongs to."""
    assert name
    return name if name in METRICS else re.sub(r"_(bucket|count|sum)$", "", name)


def labels_of(name: str) -> set[str]:
    """Which labels the series of a name have; of what is recorded, those that it may keep."""
    if name in OWN:
        return OWN[name] | BY_PROMETHEUS
    if name in METRICS or family(name) in METRICS:
        return set(METRICS[family(name)].labels) | BY_PROMETHEUS
    return set().union(*(labels_of(each.name) for each in selectors(recordings()[name].expr)))


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_asks_for_what_there_is(rule: Alert | Recording) -> None:
    known = set(METRICS) | set(recordings()) | set(OWN)
    around: set[str] = set()
    for selector in selectors(rule.expr):
        assert {selector.name, family(selector.name)} & known, f"{selector.name} is in no table"
        labels = labels_of(selector.name)
        around |= labels
        matchers = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
        assert set(matchers) <= labels
        assert set(matchers.get("outcome", "answer").split("|")) <= {outcome.label for outcome in Outcome}
        if METRICS.get(family(selector.name), ("",))[0] == HISTOGRAM:
            assert selector.name != family(selector.name), "a histogram: _bucket, _count or _sum"
    used = re.findall(r"\b(?:by|on|without|group_left|group_right) \(([^)]*)\)", rule.expr)
    assert {label.strip() for group in used for label in group.split(",") if label.strip()} <= around


@pytest.mark.parametrize("rule", RULES)
def test_a_window_holds_two_scrapes_and_more(rule: Alert | Recording) -> None:
    scraped = re.findall(r"(dnsprobe_\w+_total)(?:\{[^}]*\})?\[(\d+)([smhd])\]", rule.expr)
    seconds = [int(n) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit] for _, n, unit in scraped]
    assert all(each >= 120 for each in seconds), "at a scrape interval of 30 s"
    counters = [s.name for s in selectors(rule.expr) if METRICS.get(s.name, ("",))[0] == COUNTER]
    if isinstance(rule, Alert):
        assert Counter(counters) == Counter(name for name, _, _ in scraped), "a counter outside of rate and increase"


def test_what_counts_as_unanswered_is_what_the_network_is_to_blame_for() -> None:
    recording = recordings()["channel:dnsprobe_queries_unanswered:sum"]
    (outcomes,) = re.findall(r'outcome=~"([^"]*)"', recording.expr)
    blamed = [outcome.label for outcome, meaning in MEANINGS.items() if meaning.blame is Blame.NETWORK]
    assert outcomes.split("|") == blamed


# --- Texts ---


@pytest.mark.parametrize("alert", [pytest.param(alert, id=alert.name) for alert in alerts()])
def test_an_alert_says_what_to_do(alert: Alert) -> None:
    assert alert.severity in ("critical", "warning", "info", "none")
    assert alert.description.endswith(".")
    assert not alert.summary.endswith(".")
    kept = re.findall(r"^\s*(?:max|min|sum|avg|count) by \(([^)]*)\)", alert.expr)
    if kept and " or\n" not in alert.expr:
        named = set(re.findall(r"\$labels\.(\w+)", alert.summary + alert.description))
        assert named <= {label.strip() for label in kept[0].split(",")}, "a label that is summed away"


def test_each_alert_has_its_section_in_the_runbook_and_each_section_its_alert() -> None:
    text = (FOLDER / "RUNBOOK.md").read_text()
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) != []
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(sections) == set(ALERTS)
    for name, section in sections.items():
        assert re.findall(r"^\*\*(\w+)[.]\*\*", section, re.MULTILINE) == ["Means", "Felt", "See", "Causes"], name
    assert set(re.findall(r"\(#(\w+)\)", text)) <= {name.lower() for name in ALERTS}
    assert all(alert.runbook.endswith(f"RUNBOOK.md#{name.lower()}") for name, alert in ALERTS.items())


def test_what_the_runbook_asks_prometheus_can_be_asked() -> None:
    text = (FOLDER / "RUNBOOK.md").read_text()
    queries = [line for block in re.findall(r"```promql\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert queries
    known = set(METRICS) | set(recordings()) | {"coredns_dns_request_duration_seconds"}
    for query in queries:
        found = [n for n in nodes(promql_parser.parse(query)) if isinstance(n, promql_parser.VectorSelector)]
        assert {family(selector.name) for selector in found} <= known, query
    inline = set(re.findall(r"\bdnsprobe_\w+", text))
    assert {family(name) for name in inline} <= {*METRICS, *(name.split(":")[1] for name in recordings())}


# --- What others read ---


def test_grafanas_own_rules_ask_the_same() -> None:
    told = yaml.safe_load((FOLDER / "provisioning/alerting/rules.yaml").read_text())
    plain = yaml.safe_load((FOLDER / "prometheus/rules.yaml").read_text())
    ours = {rule["alert"]: rule for group in plain["groups"] for rule in group["rules"] if "alert" in rule}
    theirs = {rule["title"]: rule for group in told["groups"] for rule in group["rules"]}
    assert list(theirs) == list(ours)
    assert len({rule["uid"] for rule in theirs.values()}) == len(theirs)
    (source,) = yaml.safe_load((FOLDER / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    for name, rule in theirs.items():
        a, b, c = rule["data"]
        assert (rule["condition"], c["model"]["expression"], rule["noDataState"]) == ("C", "A", "OK")
        assert b["model"]["expr"] == ours[name]["expr"]
        assert a["model"]["expr"] == f"({ours[name]['expr']}) * 0 + 1"
        assert {a["datasourceUid"], b["datasourceUid"]} == {source["uid"]}
        assert len(rule["uid"]) <= 40
        assert "$value " not in str(rule["annotations"]), "Grafana has $values, by refId"
        assert (rule["for"], rule.get("keepFiringFor")) == (
            ours[name].get("for", "0s"),
            ours[name].get("keep_firing_for"),
        )
        assert rule["labels"] == ours[name]["labels"]


def test_the_example_of_alertmanager_speaks_of_alerts_and_receivers_that_there_are() -> None:
    config = yaml.safe_load((FOLDER / "alertmanager.example.yaml").read_text())
    receivers = {each["name"] for each in config["receivers"]}
    routes = [config["route"], *config["route"]["routes"]]
    assert {route["receiver"] for route in routes} == receivers
    matchers = [text for route in routes for text in route.get("matchers", [])]
    for rule in config["inhibit_rules"]:
        matchers += rule["source_matchers"] + rule["target_matchers"]
    said = {"alertname": set(ALERTS), "severity": {alert.severity for alert in ALERTS.values()}}
    for text in matchers:
        label, how, value = re.fullmatch(r'(\w+)(=~?)"(.*)"', text).groups()  # type: ignore[union-attr]
        assert [each for each in said[label] if re.fullmatch(value if how == "=~" else re.escape(value), each)], text
        prefix, _, names = value.partition("(")
        for name in names.rstrip(")").split("|") if names else []:
            assert prefix + name in said[label], text
    for rule in config["inhibit_rules"]:
        if "DNSProbeProberUnhealthy" in str(rule["source_matchers"]):
            assert "instance" in rule["equal"], "a prober silences nobody but itself"


def test_amtool_takes_the_example() -> None:
    program = need("amtool", "make servers")
    told = subprocess.run(
        [program, "check-config", str(FOLDER / "alertmanager.example.yaml")],
        capture_output=True, check=False, text=True, timeout=30,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
