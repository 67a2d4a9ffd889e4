"""Dashboards as files: dashboard-linter's rules, metrics and labels that exist, panels in their places, colours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import promql_parser
import pytest
import yaml

from grafana.dashboards import DASHBOARDS
from grafana.load_test import COREDNS
from grafana.panels import COLUMNS
from probe.exporter.catalogue import HISTOGRAM, METRICS
from probe.model import TargetKind
from probe.outcome import Outcome
from probe.report.palette import BAD, GOOD, KINDS, OUTCOMES, QUIET, SEQUENCE, WARNING

FOLDER = Path(__file__).parents[1] / "grafana"
FILES = {path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / "dashboards").glob("*.json"))}
BY_PROMETHEUS = ("cluster", "job", "instance", "node")
OWN = {"scrape_duration_seconds": ()}
"""Prometheus's own about each page it scrapes (https://prometheus.io/docs/concepts/jobs_instances)."""
BUILTIN = {"$__rate_interval": "1m", "$__range": "1h", "$__interval_ms": "15000", "$__interval": "15s"}


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All but headings."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def expressions() -> Iterator[tuple[str, str]]:
    """Where each expression stands, and itself: panels' and annotations'."""
    for name, dashboard in FILES.items():
        for panel in panels(dashboard):
            yield from ((f"{name}: {panel['title']} {each['refId']}", each["expr"]) for each in panel["targets"])
        yield from ((f"{name}: {each['name']}", each["expr"]) for each in dashboard["annotations"]["list"])


def filled(expr: str) -> str:
    """As Grafana sends it while nothing is chosen."""
    for name, value in BUILTIN.items():
        expr = expr.replace(name, value)
    return re.sub(r"\$\w+", ".*", expr)


EXPRESSIONS = dict(expressions())
PANELS = [pytest.param(d, p, id=f"{name}: {p['title']}") for name, d in FILES.items() for p in panels(d)]


def nodes(expr: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The expression and all within, each with those around it, the nearest last."""
    yield expr, above
    parts = [getattr(expr, name, None) for name in ("lhs", "rhs", "expr", "param", "vector_selector")]
    for part in [*parts, *(getattr(expr, "args", None) or [])]:
        if part is not None:
            yield from nodes(part, (*above, expr))


def selectors(expr: str) -> list[tuple[Any, tuple[Any, ...]]]:
    """The vector selectors of an expression, each with what is around it."""
    found = [
        pair for pair in nodes(promql_parser.parse(filled(expr))) if isinstance(pair[0], promql_parser.VectorSelector)
    ]
    assert len(found) == len(re.findall(r"(?:dnsprobe|coredns|scrape)_\w+\{", expr)), "a selector was not walked to"
    return found


def test_every_dashboard_is_a_file_and_every_file_a_dashboard() -> None:
    assert set(FILES) == set(DASHBOARDS)


@pytest.mark.parametrize("name", FILES)
def test_a_dashboard_is_made_to_be_read(name: str) -> None:
    dashboard = FILES[name]
    assert dashboard["editable"] is False
    assert dashboard["timezone"] == "utc"
    assert dashboard["graphTooltip"] == 1
    assert dashboard["uid"] == f"dnsprobe-{name}"
    (link,) = dashboard["links"]
    assert set(link["tags"]) <= set(dashboard["tags"])
    assert (link["includeVars"], link["keepTime"]) == (True, True)
    (marks,) = dashboard["annotations"]["list"]
    assert "dnsprobe_rollout_in_progress" in marks["expr"]


@pytest.mark.parametrize("name", FILES)
def test_variables_narrow_down_and_bear_labels_that_are_absent(name: str) -> None:
    variables = {each["name"]: each for each in FILES[name]["templating"]["list"]}
    source = variables.pop("datasource")
    assert (source["type"], source["query"], source["label"]) == ("datasource", "prometheus", "Data source")
    assert list(variables)[:7] == ["cluster", "job", "instance", "node", "target_kind", "target", "transport"]
    for each, variable in variables.items():
        assert variable["datasource"]["uid"] == "${datasource}"
        assert (variable["multi"], variable["includeAll"], variable["refresh"]) == (True, True, 2)
        assert variable["allValue"] == (".+" if each in ("job", "instance", "coredns_job") else ".*")
        asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
        assert asked
        promql_parser.parse(filled(asked[1]))
        chosen_before = list(variables)[: list(variables).index(each)]
        assert set(re.findall(r"\$(\w+)", asked[1])) <= set(chosen_before), "a variable that depends on a later one"
    texts = json.dumps([panel["targets"] for panel in panels(FILES[name])])
    hidden = {each for each, variable in variables.items() if variable["hide"]}
    assert hidden == {each for each in variables if f"${each}" not in texts}, (
        "what narrows nothing down is for the links"
    )


@pytest.mark.parametrize(("dashboard", "panel"), PANELS)
def test_a_panel_says_what_it_shows(dashboard: dict[str, Any], panel: dict[str, Any]) -> None:
    del dashboard
    assert panel["title"]
    assert re.search(r"[.)]$", panel["description"]), "a description is a sentence"
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    assert {each["uid"] for each in [panel["datasource"], *(t["datasource"] for t in panel["targets"])]} == {
        "${datasource}"
    }
    colours = re.findall(r"#[0-9a-f]{6}", json.dumps(panel))
    assert set(colours) <= {*OUTCOMES.values(), *KINDS.values(), *SEQUENCE, GOOD, WARNING, BAD, QUIET}


@pytest.mark.parametrize("name", FILES)
def test_panels_have_ids_of_their_own_and_no_two_one_place(name: str) -> None:
    found = FILES[name]["panels"]
    assert [panel["id"] for panel in found] == list(range(1, len(found) + 1))
    taken: set[tuple[int, int]] = set()
    for panel in found:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, f"{panel['title']} lies over another panel"
        assert at["x"] + at["w"] <= COLUMNS
        taken |= cells
    rows = {y: {x for x, at in taken if at == y} for _, y in taken}
    assert [y for y, columns in rows.items() if len(columns) != COLUMNS] == [], "a hole in a row"


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_a_query_asks_for_what_there_is(where: str) -> None:
    expr = EXPRESSIONS[where]
    for selector, above in selectors(expr):
        name = re.sub(r"_(bucket|count|sum)$", "", selector.name) if selector.name not in METRICS else selector.name
        labels = [matcher.name for matcher in selector.matchers.matchers]
        if name in COREDNS:
            assert set(labels) <= {"cluster", "job", *COREDNS[name]}
            assert 'job=~"$coredns_job"' in expr
        else:
            known = {**{metric: family.labels for metric, family in METRICS.items()}, **OWN}
            assert name in known, f"{name} is not in the catalogue"
            assert set(labels) <= {*BY_PROMETHEUS, *known[name]}
            assert set(BY_PROMETHEUS) <= set(labels), "a selector that some variable does not narrow down"
        if name in METRICS and METRICS[name].type == HISTOGRAM:
            assert selector.name != name, f"{name} is a histogram: _bucket, _count or _sum"
        around = [node for node in above if not isinstance(node, promql_parser.ParenExpr)]
        functions = [node.func.name for node in around if isinstance(node, promql_parser.Call)]
        if re.search("_(total|bucket|count|sum)$", selector.name):
            assert functions, f"the counter {selector.name} is in no rate or increase"
            assert functions[-1] in ("rate", "increase")
        if functions and functions[-1] == "rate":
            assert re.search(rf"rate\({selector.name}\{{[^}}]*\}}\[\$__rate_interval\]\)", expr)


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_what_is_grouped_or_joined_by_is_a_label_of_something(where: str) -> None:
    expr = EXPRESSIONS[where]
    labels = {*BY_PROMETHEUS, "le"}
    for selector, _ in selectors(expr):
        name = re.sub(r"_(bucket|count|sum)$", "", selector.name) if selector.name not in METRICS else selector.name
        labels |= set(METRICS[name].labels if name in METRICS else {**COREDNS, **OWN}[name])
    used = re.findall(r"(?:by|on|group_left|group_right) \(([^)]*)\)", expr)
    assert {label.strip() for group in used for label in group.split(",") if label.strip()} <= labels


@pytest.mark.parametrize(("dashboard", "panel"), PANELS)
def test_a_legend_names_labels_that_its_query_keeps(dashboard: dict[str, Any], panel: dict[str, Any]) -> None:
    del dashboard
    for target in panel["targets"]:
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert re.search(rf"by \([^)]*\b{label}\b[^)]*\)", target["expr"]), f"{label} is summed away"


# --- Colours ---

SIGHT = {
    "usual": np.eye(3),
    "no red cones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green cones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no blue cones": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
"""Machado, Oliveira, Fernandes 2009, severity 1: what linear RGB is to whom."""
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(colours: list[str], sight: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """CIE L*a*b* (D65) of #rrggbb as somebody sees it."""
    rgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ SIGHT[sight].T, 0, 1) @ TO_XYZ.T / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(("colours", "least"), [(list(OUTCOMES.values()), 15), ([GOOD, WARNING, BAD], 15)])
def test_colours_are_told_apart_by_everybody(colours: list[str], least: float, sight: str) -> None:
    seen = lab(colours, sight)
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=2) + np.where(np.eye(len(colours)), np.inf, 0)
    assert apart.min() >= least


def test_every_outcome_and_kind_of_target_has_its_colour() -> None:
    assert list(OUTCOMES) == list(Outcome)
    assert set(KINDS) == set(TargetKind)


# --- What sets Grafana up ---


def test_what_compose_mounts_is_there_and_speaks_of_the_same_data_source() -> None:
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    assert set(compose) == {"dnsprobe", "prometheus", "grafana"}
    mounts = {to: FOLDER / here for each in compose.values() for here, to, _ in map(_split, each.get("volumes", []))}
    assert all(path.is_dir() for path in mounts.values())
    assert (FOLDER / compose["dnsprobe"]["build"] / "Dockerfile").resolve().is_file()
    (source,) = yaml.safe_load((FOLDER / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    scraping = yaml.safe_load((FOLDER / "prometheus/prometheus.yaml").read_text())
    assert source["jsonData"]["timeInterval"] == scraping["global"]["scrape_interval"]
    assert source["url"] == "http://prometheus:9090"
    (job,) = scraping["scrape_configs"]
    port = job["static_configs"][0]["targets"][0].removeprefix("dnsprobe:")
    assert compose["dnsprobe"]["command"][-1].endswith(f":{port}")
    (provider,) = yaml.safe_load((FOLDER / "provisioning/dashboards/dnsprobe.yaml").read_text())["providers"]
    assert mounts[provider["options"]["path"]] == FOLDER / "dashboards"
    home = Path(compose["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (mounts[str(home.parent)] / home.name).is_file()


def _split(mount: str) -> tuple[str, str, str]:
    here, to, how = mount.split(":")
    assert how == "ro"
    return here, to, how


def test_every_dashboard_is_a_config_map_that_the_sidecar_finds() -> None:
    told = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert told["generatorOptions"]["labels"]["grafana_dashboard"] == "1"
    maps = {each["name"]: each["files"] for each in told["configMapGenerator"]}
    assert maps == {f"dnsprobe-{name}": [f"dashboards/{name}.json"] for name in FILES}
    largest = max((FOLDER / file).stat().st_size for files in maps.values() for file in files)
    assert largest < 1_000_000, "a ConfigMap holds at most 1 MiB"
