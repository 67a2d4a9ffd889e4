"""What a panel shows, in a dozen words -> the JSON of a Grafana panel (classic schema)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from probe.report.palette import BAD, GOOD, KINDS, OUTCOMES, QUIET, SEQUENCE

Json = dict[str, object]

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24


@dataclass(frozen=True)
class Query:
    """PromQL, and how its series are called: `{{target}}`."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """A panel without its place: `width` of 24 columns, `height` in rows of 30 px.

    kind: Grafana's panel type. shape: `time_series`, `table` or `heatmap`; instant: only the last value is asked for.
    """

    kind: str
    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    width: int
    height: int
    field: Json
    options: Json
    custom: Json
    overrides: Sequence[Json] = ()
    transformations: Sequence[Json] = ()
    shape: str = "time_series"
    instant: bool = False

    def as_json(self, number: int, x: int, y: int) -> Json:
        """With its id and its place."""
        defaults: Json = {"unit": self.unit, **self.field}
        if self.custom:
            defaults["custom"] = self.custom
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "fieldConfig": {"defaults": defaults, "overrides": list(self.overrides)},
            "options": self.options,
            "transformations": list(self.transformations),
            "targets": [self._target(query, number) for number, query in enumerate(self.queries)],
        }

    def _target(self, query: Query, number: int) -> Json:
        return {
            "refId": chr(ord("A") + number),
            "datasource": DATASOURCE,
            "expr": query.expr,
            "legendFormat": query.legend,
            "format": self.shape,
            "instant": self.instant,
            "range": not self.instant,
        }


@dataclass(frozen=True)
class Row:
    """Panels side by side, under a heading if there is one."""

    panels: Sequence[Panel]
    title: str = ""


def placed(rows: Sequence[Row]) -> list[Json]:
    """The panels of a dashboard, row under row, with ids in reading order."""
    found: list[Json] = []
    y = 0
    for row in rows:
        if row.title:
            place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
            heading: Json = {"type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []}
            found.append({"id": len(found) + 1, **heading})
            y += 1
        x = 0
        for panel in row.panels:
            found.append(panel.as_json(len(found) + 1, x, y))
            x += panel.width
        y += max(panel.height for panel in row.panels)
    return found


# --- Colours ---


def thresholds(base: str, *steps: tuple[float, str]) -> Json:
    """A colour below all steps, and one from each step on."""
    told: list[Json] = [{"color": base, "value": None}, *({"color": colour, "value": at} for at, colour in steps)]
    return {"mode": "absolute", "steps": told}


def named(states: Mapping[int, tuple[str, str]]) -> list[Json]:
    """Values -> text and colour in their place."""
    options = {
        str(value): {"text": text, "color": colour, "index": index}
        for index, (value, (text, colour)) in enumerate(states.items())
    }
    return [{"type": "value", "options": options}]


def fixed(name: str, colour: str, *more: Json) -> Json:
    """A series of that name has this colour (and these properties) wherever it is."""
    return _override("byName", name, {"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}, *more)


def matching(pattern: str, *properties: Json) -> Json:
    """Series whose name matches the pattern have these properties."""
    return _override("byRegexp", f"/{pattern}/", *properties)


def _override(how: str, options: str, *properties: Json) -> Json:
    return {"matcher": {"id": how, "options": options}, "properties": list(properties)}


DASHED: Json = {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 6]}}
BARE: Json = {"id": "custom.fillOpacity", "value": 0}
ALONE: Json = {"id": "custom.stacking", "value": {"mode": "none", "group": "A"}}

BY_OUTCOME = tuple(fixed(outcome.label, colour) for outcome, colour in OUTCOMES.items())
BY_KIND = tuple(
    matching(f"^{kind}( |$)", {"id": "color", "value": {"mode": "fixed", "fixedColor": colour}})
    for kind, colour in KINDS.items()
)


def in_turn(*names: str) -> tuple[Json, ...]:
    """A colour for each name, always the same."""
    return tuple(fixed(name, SEQUENCE[at % len(SEQUENCE)]) for at, name in enumerate(names))


# --- Kinds of panels ---


def stat(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    colours: Json,
    width: int = 4,
    height: int = 4,
    states: Sequence[Json] = (),
    nothing: str = "",
    decimals: int | None = None,
    plain: bool = False,
) -> Panel:
    """A number, on its threshold's colour unless `plain`. nothing: what it says where there is no series."""
    field: Json = {"thresholds": colours, "mappings": list(states), "color": {"mode": "thresholds"}}
    field |= {"noValue": nothing} if nothing else {}
    field |= {"decimals": decimals} if decimals is not None else {}
    options: Json = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "none" if plain else "background",
        "graphMode": "none",
        "justifyMode": "center",
        "orientation": "auto",
        "textMode": "auto",
        "wideLayout": True,
    }
    return Panel("stat", title, description, unit, queries, width, height, field, options, {}, instant=True)


def lines(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    overrides: Sequence[Json] = (),
    width: int = 12,
    height: int = 8,
    mark: float | None = None,
    steps: bool = False,
    aside: bool = False,
    nothing: str = "",
    floor: float | None = 0,
    ceiling: float | None = None,
    logarithmic: bool = False,
) -> Panel:
    """Lines over time. mark: a dashed threshold; steps: no slopes; aside: a legend with numbers, beside it."""
    custom: Json = {
        "drawStyle": "line",
        "lineInterpolation": "stepAfter" if steps else "linear",
        "lineWidth": 2,
        "fillOpacity": 8,
        "showPoints": "auto",
        "pointSize": 4,
        "spanNulls": False,
        "stacking": {"mode": "none", "group": "A"},
        "thresholdsStyle": {"mode": "off" if mark is None else "dashed"},
        "scaleDistribution": {"type": "log", "log": 10} if logarithmic else {"type": "linear"},
    }
    field: Json = {"color": {"mode": "palette-classic"}}
    field |= {} if floor is None or logarithmic else {"min": floor}
    field |= {} if ceiling is None else {"max": ceiling}
    field |= {"noValue": nothing} if nothing else {}
    if mark is not None:
        field["thresholds"] = thresholds("transparent", (mark, BAD))
    return Panel(
        "timeseries", title, description, unit, queries, width, height, field, _legend(aside=aside), custom, overrides
    )


def stacked(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    overrides: Sequence[Json] = (),
    width: int = 12,
    height: int = 8,
    aside: bool = False,
) -> Panel:
    """Areas on top of each other, in steps."""
    panel = lines(
        title, description, unit, *queries, overrides=overrides, width=width, height=height, steps=True, aside=aside
    )
    custom = {**panel.custom, "fillOpacity": 75, "lineWidth": 1, "stacking": {"mode": "normal", "group": "A"}}
    return replace(panel, custom={**custom, "showPoints": "never"})


def timeline(
    title: str,
    description: str,
    *queries: Query,
    states: Mapping[int, tuple[str, str]],
    width: int = 24,
    height: int = 7,
    nothing: str = "",
) -> Panel:
    """A bar for each series, coloured and lettered by its state."""
    field: Json = {"mappings": named(states), "color": {"mode": "thresholds"}, "thresholds": thresholds(QUIET)}
    field |= {"noValue": nothing} if nothing else {}
    options: Json = {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "left",
        "rowHeight": 0.85,
        **_legend(aside=False),
        "tooltip": {"mode": "single", "sort": "none"},
    }
    custom: Json = {"fillOpacity": 85, "lineWidth": 0, "spanNulls": False}
    return Panel("state-timeline", title, description, "none", queries, width, height, field, options, custom)


def heat(title: str, description: str, unit: str, query: Query, *, width: int = 12, height: int = 8) -> Panel:
    """Buckets of a histogram over time, the more the darker."""
    options: Json = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Blues", "exponent": 0.5, "steps": 64, "reverse": False},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "unit": unit, "reverse": False},
    }
    custom: Json = {"scaleDistribution": {"type": "linear"}}
    field: Json = {}
    return Panel("heatmap", title, description, unit, [query], width, height, field, options, custom, shape="heatmap")


@dataclass(frozen=True)
class Column:
    """A column of numbers: its heading, the query it comes from, and how its cells look."""

    name: str
    expr: str
    unit: str = "short"
    decimals: int | None = None
    colours: Json | None = None
    states: Sequence[Json] = ()


def table(
    title: str,
    description: str,
    labels: Mapping[str, str],
    columns: Sequence[Column],
    *,
    sort: str,
    descending: bool = False,
    links: Mapping[str, str] | None = None,
    width: int = 24,
    height: int = 8,
) -> Panel:
    """A line for each set of labels. labels: label -> heading, in order; sort: which column; links: heading -> URL."""
    # What Grafana's Prometheus data source calls them: transformDFToTable.
    values = [f"Value #{chr(ord('A') + at)}" for at in range(len(columns))] if len(columns) > 1 else ["Value"]
    names = {**labels, **dict(zip(values, (column.name for column in columns), strict=True))}
    arranged: Json = {
        "excludeByName": {"Time": True},
        "indexByName": {name: at for at, name in enumerate(names)},
        "renameByName": names,
    }
    overrides = [_cells(column) for column in columns]
    overrides += [
        _override("byName", name, {"id": "links", "value": [{"title": "Show this one alone", "url": url}]})
        for name, url in (links or {}).items()
    ]
    field: Json = {"color": {"mode": "thresholds"}, "thresholds": thresholds(GOOD)}
    options: Json = {"showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": sort, "desc": descending}]}
    changes: list[Json] = [{"id": "merge", "options": {}}, {"id": "organize", "options": arranged}]
    queries = [Query(column.expr) for column in columns]
    return Panel(
        "table", title, description, "short", queries, width, height, field, options, {"align": "auto"}, overrides,
        changes, "table", instant=True,
    )  # fmt: skip


def _cells(column: Column) -> Json:
    properties: list[Json] = [{"id": "unit", "value": column.unit}]
    if column.decimals is not None:
        properties.append({"id": "decimals", "value": column.decimals})
    if column.states:
        properties.append({"id": "mappings", "value": list(column.states)})
    if column.colours:
        properties.append({"id": "thresholds", "value": column.colours})
    if column.colours or column.states:
        properties.append({"id": "custom.cellOptions", "value": {"type": "color-background", "mode": "basic"}})
    return _override("byName", column.name, *properties)


def _legend(*, aside: bool) -> Json:
    shown: Json = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    if aside:
        shown |= {"displayMode": "table", "placement": "right", "calcs": ["max", "lastNotNull"]}
    return {"legend": shown, "tooltip": {"mode": "multi", "sort": "desc"}}
