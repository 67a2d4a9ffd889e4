"""A panel's JSON and the series its queries gave -> the inside of its picture, as SVG."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import pairwise
from typing import Any, Literal

import altair as alt
import vl_convert

from grafana.asking import Span, Told
from grafana.looks import colour, properties, said, series_colour

BACK, CARD, TEXT, WEAK, GRID = "#111217", "#181b1f", "#d8d9da", "#8e9099", "#2c3235"
HEAD, FOOT, LETTER = 30, 26, 6.4
"""Pixels: a panel's title, a legend's line, a letter of it."""

Field = Mapping[str, Any]


def body(
    panel: Field, told: Sequence[Sequence[Told]], width: int, height: int, span: Span, marks: Sequence[Told]
) -> str:
    """What is below a panel's title."""
    kind = panel["type"]
    series = [each for query in told for each in query]
    if kind == "stat":
        return _stat(panel, series, width, height, span)
    if not series:
        nothing = panel["fieldConfig"]["defaults"].get("noValue", "No data")
        return _text(width / 2, height / 2, nothing, WEAK, 15, "middle")
    if kind == "table":
        return _table(panel, told, width, height)
    if kind == "state-timeline":
        return _timeline(panel, series, width, height, span)
    if kind == "heatmap":
        return _placed(_heat(series, width - 16, height - HEAD - 8, span), 8, HEAD)
    return _lines(panel, series, width, height, span, marks)


def _text(x: float, y: float, text: str, fill: str, size: int, anchor: str = "start", weight: int = 400) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )


def _placed(chart: alt.LayerChart, x: float, y: float) -> str:
    """A chart as SVG within SVG."""
    drawn: str = vl_convert.vegalite_to_svg(chart.to_dict())
    return re.sub(r"<svg ", f'<svg x="{x:.0f}" y="{y:.0f}" ', drawn[drawn.index("<svg ") :], count=1)


def _stat(panel: Field, series: Sequence[Told], width: int, height: int, span: Span) -> str:
    field = panel["fieldConfig"]["defaults"]
    shown: list[tuple[str, float | None]] = [(each.name, each.values[-1]) for each in series]
    shown = shown or [("", None)]
    plain = panel["options"]["colorMode"] == "none"
    parts = []
    high = height / len(shown)
    for number, (name, value) in enumerate(shown):
        fill = "none" if plain else colour(value, field)
        parts.append(f'<rect y="{number * high:.0f}" width="{width}" height="{high:.0f}" fill="{fill}" rx="3"/>')
        text = said(value, field, span.end)
        size = min(40, int(width / max(4, len(text)) * 1.6), int(high * 0.45))
        lower = HEAD / 2 if len(shown) == 1 else 0
        middle = number * high + high / 2 + size * 0.35 + lower
        parts.append(_text(width / 2, middle, text, "#ffffff" if not plain else TEXT, size, "middle", 600))
        if len(shown) > 1:
            parts.append(_text(10, number * high + high / 2 + 5 + HEAD / 3, name, "#ffffff", 12))
    return "".join(parts)


def _table(panel: Field, told: Sequence[Sequence[Told]], width: int, height: int) -> str:
    arranged = next(each["options"] for each in panel["transformations"] if each["id"] == "organize")
    names: Mapping[str, str] = arranged["renameByName"]
    values = [name for name in names if name.startswith("Value")]
    lines: dict[tuple[tuple[str, str], ...], dict[str, str | float]] = {}
    for name, query in zip(values, told, strict=True):
        for each in query:
            line = lines.setdefault(tuple(sorted(each.labels.items())), dict(each.labels))
            line[name] = each.values[-1]
    kept = [name for name in names if any(name in line for line in lines.values())]
    by, descending = panel["options"]["sortBy"][0]["displayName"], panel["options"]["sortBy"][0]["desc"]
    key = next((name for name in names if names[name] == by), "")
    ordered = sorted(lines.values(), key=lambda line: _sortable(line.get(key)), reverse=descending)
    longest = [max(len(names[name]), 10, *(len(_word(line.get(name))) for line in ordered)) + 2 for name in kept]
    ends = [8 + (width - 16) * sum(longest[:at]) / sum(longest) for at in range(len(kept) + 1)]
    parts = [
        _text(at + 4, HEAD + 18, names[name], "#6e9fff", 12, weight=600) for name, at in zip(kept, ends, strict=False)
    ]
    room = int((height - HEAD - 30) / 24)
    for row, line in enumerate(ordered[:room]):
        y = HEAD + 28 + row * 24
        for at, name in enumerate(kept):
            parts.append(_cell(panel, names[name], line.get(name), ends[at], y, ends[at + 1] - ends[at]))
    if len(ordered) > room:
        parts.append(_text(width - 12, 20, f"{room} of {len(ordered)} lines", WEAK, 11, "end"))
    return "".join(parts)


def _word(value: str | float | None) -> str:
    return value if isinstance(value, str) else ""


def _sortable(value: str | float | None) -> tuple[int, float, str]:
    if isinstance(value, float):
        return (0, value if not math.isnan(value) else math.inf, "")
    return (1, 0, value or "")


def _cell(panel: Field, name: str, value: str | float | None, x: float, y: float, wide: float) -> str:
    if not isinstance(value, float):
        return _text(x + 4, y + 16, str(value or ""), TEXT, 12)
    field = {each["id"].removeprefix("custom."): each["value"] for each in properties(name, panel)}
    text = _text(x + 8, y + 16, said(value, field), TEXT, 12)
    if "cellOptions" not in field:
        return text
    return f'<rect x="{x:.0f}" y="{y}" width="{wide - 2:.0f}" height="22" fill="{colour(value, field)}"/>{text}'


def _timeline(panel: Field, series: Sequence[Told], width: int, height: int, span: Span) -> str:
    field = panel["fieldConfig"]["defaults"]
    left = min(width * 0.25, 20 + LETTER * max(len(each.name) for each in series))
    plot = width - left - 16
    row = (height - HEAD - 2 * FOOT) / len(series)
    parts, used = [], dict[str, str]()
    step = min((b - a for each in series for a, b in pairwise(each.at)), default=span.scraped)
    for number, each in enumerate(sorted(series, key=lambda told: told.name)):
        y = HEAD + number * row
        parts.append(_text(left - 6, y + row / 2 + 4, each.name[-int(left / LETTER) :], TEXT, 11, "end"))
        for start, end, value in _stretches(each, step):
            x, fill, text = (
                left + (start - span.start) / (span.end - span.start) * plot,
                colour(value, field),
                said(value, field),
            )
            wide = max(1.0, min(end, span.end) - start) / (span.end - span.start) * plot
            used[text] = fill
            parts.append(
                f'<rect x="{x:.1f}" y="{y + row / 12:.1f}" width="{wide:.1f}" height="{row / 1.2:.1f}" fill="{fill}"/>'
            )
            if wide > LETTER * len(text) + 8 and row > 13:
                parts.append(_text(x + 5, y + row / 2 + 4, text, "#ffffff", 11))
    axis = alt.Chart(_rows([{"at": at * 1000} for at in (span.start, span.end)])).mark_point(opacity=0)
    drawn = _dressed([axis.encode(x=_time(span, 12))], plot, 1)
    return "".join(parts) + _placed(drawn, left - 5, height - 2 * FOOT - 6) + _below(used, width, height)


def _stretches(told: Told, step: float) -> list[tuple[float, float, float]]:
    """Runs of one value: from, until, which."""
    found: list[tuple[float, float, float]] = []
    for at, value in zip(told.at, told.values, strict=True):
        if found and found[-1][2] == value and at - found[-1][1] < step / 2:
            found[-1] = (found[-1][0], at + step, value)
        else:
            found.append((at, at + step, value))
    return found


def _below(used: Mapping[str, str], width: int, height: int) -> str:
    parts, x = [], 12.0
    for name, fill in used.items():
        parts.append(f'<rect x="{x:.0f}" y="{height - 15}" width="14" height="4" rx="2" fill="{fill}"/>')
        parts.append(_text(x + 19, height - 9, name, TEXT, 11))
        x += 34 + LETTER * len(name)
        if x > width - 34 - LETTER * len(name):
            break
    return "".join(parts)


def _aside(named: Mapping[str, str], series: Mapping[str, Told], field: Field, x: float, wide: float) -> str:
    """A legend with the highest and the last value."""
    parts = [
        _text(x + wide - 70, HEAD + 8, "max", "#6e9fff", 11, "end"),
        _text(x + wide, HEAD + 8, "last", "#6e9fff", 11, "end"),
    ]
    for number, (name, fill) in enumerate(list(named.items())[:14]):
        y = HEAD + 26 + number * 17
        values = [value for value in series[name].values if not math.isnan(value)] or [math.nan]
        parts.append(f'<rect x="{x:.0f}" y="{y - 5}" width="14" height="4" rx="2" fill="{fill}"/>')
        parts.append(_text(x + 19, y, name[: int((wide - 150) / LETTER)], TEXT, 11))
        parts.append(_text(x + wide - 70, y, said(max(values), field), TEXT, 11, "end"))
        parts.append(_text(x + wide, y, said(values[-1], field), TEXT, 11, "end"))
    return "".join(parts)


def _lines(panel: Field, series: Sequence[Told], width: int, height: int, span: Span, marks: Sequence[Told]) -> str:
    field = panel["fieldConfig"]["defaults"]
    named = {each.name: series_colour(each.name, number, panel) for number, each in enumerate(series)}
    aside = panel["options"]["legend"]["placement"] == "right"
    wide = width * 0.4 if aside else 0
    plot, high = width - wide - 24, height - HEAD - (8 if aside else FOOT)
    chart = _dressed(_layers(panel, series, named, span, marks), plot, high)
    legend = (
        _aside(named, {each.name: each for each in series}, field, width - wide + 12, wide - 28)
        if aside
        else _below(named, width, height)
    )
    return _placed(chart, 8, HEAD) + legend


def _layers(
    panel: Field, series: Sequence[Told], named: Mapping[str, str], span: Span, marks: Sequence[Told]
) -> list[alt.Chart]:
    field, custom = panel["fieldConfig"]["defaults"], panel["fieldConfig"]["defaults"]["custom"]
    form: Literal["step-after", "linear"] = "step-after" if custom["lineInterpolation"] == "stepAfter" else "linear"
    piled = {name for name in named if custom["stacking"]["mode"] == "normal"}
    piled -= {name for name in piled for each in properties(name, panel) if each["id"] == "custom.stacking"}
    hue = alt.Color("name:N", legend=None, scale=alt.Scale(domain=list(named), range=list(named.values())))
    y = alt.Y("value:Q", title=None, axis=_axis(field["unit"]), scale=_scale(panel, series), stack=None)
    layers = [_regions(marks)] if marks else []
    if rows := [row for each in series if each.name in piled for row in _points(each, span)]:
        base = alt.Chart(_rows(_full(rows)))
        layers.append(
            base.mark_area(interpolate=form, opacity=0.8).encode(x=_time(span), y=y.copy().stack("zero"), color=hue)
        )
    for each in series:
        if each.name not in piled:
            dash = any(found["id"] == "custom.lineStyle" for found in properties(each.name, panel))
            base = alt.Chart(_rows(_points(each, span)))
            point = len(each.at) < 3
            line = base.mark_line(interpolate=form, strokeDash=[6, 4] if dash else [1, 0], strokeWidth=1.8, point=point)
            layers.append(line.encode(x=_time(span), y=y, color=hue))
    if custom["thresholdsStyle"]["mode"] == "dashed":
        step = field["thresholds"]["steps"][-1]
        rule = alt.Chart(_rows([{"value": step["value"]}])).mark_rule(color=step["color"], strokeDash=[8, 5])
        layers.append(rule.encode(y=y))
    return layers


def _regions(marks: Sequence[Told]) -> alt.Chart:
    data = _rows([{"at": each.at[0] * 1000, "end": each.at[1] * 1000} for each in marks])
    drawn: alt.Chart = alt.Chart(data).mark_rect(opacity=0.16, color="#cc79a7").encode(x="at:T", x2="end:T")
    return drawn


def _scale(panel: Field, series: Sequence[Told]) -> alt.Scale:
    field = panel["fieldConfig"]["defaults"]
    if field["custom"]["scaleDistribution"]["type"] == "log":
        return alt.Scale(type="log", nice=False)
    highest = max((value for each in series for value in each.values if math.isfinite(value)), default=0)
    scale = alt.Scale(zero="min" in field, nice=True)
    if "max" in field or highest == 0:
        scale.domainMax = field.get("max", 1)
    if "min" in field:
        scale.domainMin = field["min"]
    return scale


def _points(told: Told, span: Span) -> list[dict[str, Any]]:
    """Rows, with a null where there is a gap."""
    step = min((b - a for a, b in pairwise(told.at)), default=span.scraped)
    rows: list[dict[str, Any]] = []
    for number, (at, value) in enumerate(zip(told.at, told.values, strict=True)):
        if number and at - told.at[number - 1] > 1.5 * step:
            rows.append({"name": told.name, "at": (at - step / 2) * 1000, "value": None})
        rows.append({"name": told.name, "at": at * 1000, "value": value if math.isfinite(value) else None})
    return rows


def _full(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every series at every instant, 0 where it is absent: areas on top of each other need that."""
    known = {(row["name"], row["at"]): row["value"] for row in rows}
    names, instants = dict.fromkeys(row["name"] for row in rows), sorted({row["at"] for row in rows})
    return [{"name": name, "at": at, "value": known.get((name, at)) or 0} for name in names for at in instants]


def _heat(series: Sequence[Told], width: int, height: int, span: Span) -> alt.LayerChart:
    ordered = sorted(series, key=lambda each: float(each.name))
    step = min((b - a for each in series for a, b in pairwise(each.at)), default=span.scraped)
    rows, below = [], dict[float, float]()
    floor = float(ordered[0].name) / 2
    for each in ordered:
        for at, value in zip(each.at, each.values, strict=True):
            if (count := value - below.get(at, 0)) > 1e-6 and math.isfinite(float(each.name)):
                rows.append(
                    {"at": at * 1000, "end": (at + step) * 1000, "low": floor, "high": float(each.name), "n": count}
                )
            below[at] = value
        floor = float(each.name)
    y = alt.Y("low:Q", title=None, axis=_axis("s"), scale=alt.Scale(type="log", nice=False))
    n = alt.Color("n:Q", legend=None, scale=alt.Scale(type="sqrt", range=["#10233a", "#9ecae1"]))
    chart = alt.Chart(_rows(rows)).mark_rect().encode(x=_time(span), x2="end:T", y=y, y2="high:Q", color=n)
    return _dressed([chart], width, height)


def _rows(rows: Sequence[Mapping[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=list(rows))


def _time(span: Span, ticks: int = 5) -> alt.X:
    ends = [alt.DateTime(**_parts(at)) for at in (span.start, span.end)]
    form = "%H:%M" if span.end - span.start > 900 else "%H:%M:%S"
    return alt.X(
        "at:T", title=None, scale=alt.Scale(type="utc", domain=ends), axis=alt.Axis(format=form, tickCount=ticks)
    )


def _parts(at: float) -> dict[str, Any]:
    when = datetime.fromtimestamp(at, UTC)
    return {
        "year": when.year, "month": when.month, "date": when.day, "hours": when.hour, "minutes": when.minute,
        "seconds": when.second, "utc": True,
    }  # fmt: skip


def _axis(unit: str) -> alt.Axis:
    form, after = {"percentunit": (".3~%", ""), "s": ("~s", "s")}.get(unit, ("~s", ""))
    return alt.Axis(labelExpr=f"format(datum.value, '{form}') + '{after}'", tickCount=5)


def _dressed(layers: Sequence[alt.Chart], width: float, height: float) -> alt.LayerChart:
    sized: alt.LayerChart = (
        alt.LayerChart(layer=list(layers))
        .properties(width=width, height=height, background="transparent", padding=0)
        .properties(autosize=alt.AutoSizeParams(type="fit", contains="padding"))
        .configure_view(stroke=None)
        .configure_axis(gridColor=GRID, domainColor=GRID, tickColor=GRID, labelColor=WEAK, labelFontSize=10)
    )
    return sized
