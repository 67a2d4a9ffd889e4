"""A Scene -> its picture as a Vega-Lite specification, by Altair: one time axis, outcomes in their colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from probe.report.palette import BAD, QUIET
from probe.report.scene import COLOURS, PHASES, Scene

Spec = dict[str, Any]
"""Vega-Lite's own JSON."""

PARTS = ("overview", "lanes", "cluster", "rates", "latency", "prober")
"""From the top."""
WIDTH, NAMES = 900, 290
"""Pixels of the time axis, and of the names on its left."""
STRIP, POD, OVERVIEW = 20, 15, 22
"""Pixels of a row."""
_TIME = "utcFormat(datum.value, utcmilliseconds(datum.value) ? '%H:%M:%S.%L' : '%H:%M:%S')"
_GRID = "#8884"


def spec_of(scene: Scene, drawn: Sequence[str] = PARTS) -> Spec:
    """One picture above the other, those of PARTS that are named; dragging over the first one zooms all others."""
    pictures = _Drawing(scene)
    parts = [getattr(pictures, name)() for name in drawn if name != "cluster" or scene.cluster]
    chart = alt.vconcat(*parts, spacing=14).resolve_scale(color="independent").resolve_legend(color="independent")
    # Altair validates what it is given here, not the rows: these are put in afterwards.
    spec: Spec = chart.to_dict()
    return spec | {"datasets": scene.data, "background": None, "config": {"font": "system-ui, sans-serif"}}


class _Drawing:
    """The pictures of a scene, one method for each."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._brush = alt.selection_interval(
            name="zoom", encodings=["x"], mark=alt.BrushConfig(fill="#8888", fillOpacity=0.25)
        )

    def _layer(self, data: str) -> alt.Chart:
        return alt.Chart(alt.NamedData(name=data))

    def _x(self, field: str = "a", axis: bool = False, zoomed: bool = True) -> alt.X:
        scale = alt.Scale(type="utc", domain={"param": "zoom"} if zoomed else alt.Undefined, nice=False)
        ticks = (
            alt.Axis(labelExpr=_TIME, title=None, grid=False, labelOverlap=True, labelSeparation=12) if axis else None
        )
        return alt.X(f"{field}:T", scale=scale, axis=ticks)

    def _rows(self, names: tuple[str, ...]) -> alt.Y:
        axis = alt.Axis(
            title=None,
            minExtent=NAMES,
            maxExtent=NAMES,
            labelLimit=NAMES - 8,
            ticks=False,
            domain=False,
            labelPadding=6,
        )
        return alt.Y("row:N", scale=alt.Scale(domain=list(names), paddingInner=0.1, paddingOuter=0.1), axis=axis)

    def _amount(self, field: str, scale: Any, **axis: Any) -> alt.Y:
        of = alt.Axis(title=None, minExtent=NAMES, maxExtent=NAMES, grid=True, gridColor=_GRID, **axis)
        return alt.Y(f"{field}:Q", scale=scale, axis=of)

    def _colour(self, names: tuple[str, ...], colours: dict[str, str], title: str | None) -> alt.Color:
        scale = alt.Scale(domain=list(names), range=[colours[name] for name in names])
        legend = alt.Legend(orient="top", title=title, symbolType="square", titleOrient="left") if title else None
        return alt.Color("what:N", scale=scale, legend=legend)

    def _frame(self, axis: bool = False) -> list[alt.Chart]:
        """What every picture has: steps as lines from top to bottom, and the whole run's ends, unseen."""
        ends = self._layer("ends").mark_point(opacity=0).encode(x=self._x(axis=axis))
        steps = self._layer("steps").mark_rule(strokeDash=[3, 3], opacity=0.6, clip=True)
        return [ends, steps.encode(x=self._x(axis=axis))]

    def _picture(self, layers: list[alt.Chart], title: str, height: float) -> alt.LayerChart:
        heading = alt.TitleParams(title, anchor="start", fontSize=12, fontWeight="bold", offset=4, frame="group")
        return alt.LayerChart(layer=layers).properties(width=WIDTH, height=height, title=heading)

    def _tip(self, *more: str) -> list[Any]:
        time = "%H:%M:%S.%L"
        from_ = alt.Tooltip("a:T", title="from (UTC)", format=time, formatType="utc")
        return [from_, *(alt.Tooltip(f"{field}:N", title=field) for field in more)]

    def overview(self) -> alt.LayerChart:
        """All lanes in one row, never zoomed: what is dragged over here is seen below."""
        colour = self._colour(self._scene.outcomes, COLOURS, None)
        whole = self._x(axis=True, zoomed=False)
        asked = self._layer("ends").mark_point(opacity=0).encode(x=whole).properties(name="overview")
        bars = self._layer("spoilt").mark_bar(strokeWidth=1, clip=True)
        spoilt = bars.transform_filter("datum.counts")
        tall, seen = self._tall(OVERVIEW - 4), self._seen()
        spoilt = spoilt.encode(x=whole, x2="b:T", color=colour, stroke=self._stroke(), size=tall, opacity=seen)
        return self._picture([asked.add_params(self._brush), spoilt], self._scene.title, OVERVIEW)

    def _stroke(self) -> Any:
        """Bars have an edge of their own colour, so that none is too narrow to be seen."""
        names = self._scene.outcomes
        scale = alt.Scale(domain=list(names), range=[COLOURS[name] for name in names])
        return alt.Stroke("what:N", scale=scale, legend=None)

    def _tall(self, most: int) -> Any:
        """A bar is so many pixels high where all was lost."""
        return alt.Size("tall:Q", scale=alt.Scale(domain=[0, 1], range=[0, most]), legend=None)

    def _seen(self) -> Any:
        """And so much of it is to be seen."""
        return alt.Opacity("seen:Q", scale=None, legend=None)

    def lanes(self) -> alt.LayerChart:
        """A strip for each lane and target: thin while all is good, else a bar, higher and darker by what was lost."""
        rows = self._rows(self._scene.lanes)
        thin = self._layer("asked").mark_bar(height=4, opacity=0.55, color=COLOURS["good"], clip=True)
        bars = self._layer("spoilt").mark_bar(strokeWidth=1, clip=True)
        spoilt = bars.encode(
            x=self._x(axis=True),
            x2="b:T",
            y=rows,
            color=self._colour(self._scene.outcomes, COLOURS, "queries"),
            stroke=self._stroke(),
            size=self._tall(STRIP - 3),
            opacity=self._seen(),
            tooltip=self._tip("row", "what", "text"),
        )
        layers = [*self._frame(axis=True), thin.encode(x=self._x(axis=True), x2="b:T", y=rows), spoilt]
        title = "Lanes and targets: thin while every query is good, a bar where not (height and shade: the share)"
        return self._picture(layers, title, STRIP * len(self._scene.lanes))

    def cluster(self) -> alt.LayerChart:
        """Steps and rollouts, pods from Ready to gone, endpoints, everything else that was marked."""
        rows = self._rows(self._scene.cluster)
        lives = self._layer("pods").mark_bar(height=POD - 6, clip=True)
        lives = lives.encode(
            x=self._x(),
            x2="b:T",
            y=rows,
            color=self._colour(self._scene.phases or (next(iter(PHASES)),), PHASES, "pods"),
            tooltip=self._tip("row", "text"),
        )
        marks = self._layer("marks").mark_tick(height=POD - 3, thickness=1.5, clip=True)
        words = self._layer("marks").mark_text(align="left", dx=4, fontSize=10, clip=True)
        layers = [
            *self._frame(),
            lives,
            marks.encode(x=self._x(), y=rows, color=alt.value(QUIET), tooltip=self._tip("row", "text")),
            words.encode(x=self._x(), y=rows, text="word:N"),
        ]
        return self._picture(layers, "What the cluster did", POD * len(self._scene.cluster))

    def rates(self) -> alt.LayerChart:
        """Queries a second, one bar on top of the other."""
        scale = alt.Scale(domainMin=0, nice=True)
        bars = self._layer("rates").mark_rect(clip=True, strokeWidth=0.5)
        bars = bars.encode(
            x=self._x(),
            x2="b:T",
            y=self._amount("y0", scale, tickCount=4),
            y2="y1:Q",
            color=self._colour(self._scene.outcomes, COLOURS, None),
            stroke=self._stroke(),
            strokeOpacity=alt.condition(alt.datum.what == "good", alt.value(0), alt.value(1)),
            fillOpacity=alt.condition(alt.datum.what == "good", alt.value(0.45), alt.value(1)),
            tooltip=self._tip("what", "text"),
        )
        return self._picture([*self._frame(), bars], "Queries a second, by what became of them", 110)

    def latency(self) -> alt.LayerChart:
        """p50, p99 and max, each over the stretch it was recorded for; a bar on top where 1 % or more never came."""
        scale, x = alt.Scale(type="log", domain=self._decades()), self._x()
        layers = self._frame()
        for field, width, dash, opacity in (
            ("max", 1, [2, 2], 0.8),
            ("p99", 2.5, [1, 0], 1),
            ("p50", 1.5, [1, 0], 0.7),
        ):
            rule = self._layer("latency").mark_rule(strokeWidth=width, strokeDash=dash, opacity=opacity, clip=True)
            y = self._amount(field, scale, values=[0.01, 0.1, 1, 10, 100, 1000, 10_000], format="~g")
            layers.append(rule.encode(x=x, x2="b:T", y=y, tooltip=self._tip("text")))
        never = self._layer("latency").transform_filter("datum.never").mark_rect(height=7, color=BAD, clip=True)
        layers.append(never.encode(x=self._x(), x2="b:T", y=alt.value(3.5), tooltip=self._tip("text")))
        title = "Latency from due, ms: p50 (thin), p99 (bold), max (dashed); a bar on top: 1 % or more never came"
        return self._picture(layers, title, 110)

    def _decades(self) -> list[float]:
        """Powers of ten around all latencies: one decade at least."""
        rows = self._scene.data["latency"]
        known = [math.log10(float(ms)) for row in rows for ms in (row["p50"], row["max"]) if ms is not None]
        low = math.floor(min(known, default=0))
        return [10.0**low, 10.0 ** max(low + 1, math.ceil(max(known, default=1)))]

    def prober(self) -> alt.LayerChart:
        """When this prober itself was held up; empty is well."""
        rows = self._rows(self._scene.prober)
        thin = self._layer("prober").transform_filter("datum.what == 'fine'")
        thin = thin.mark_bar(height=3, opacity=0.55, color=COLOURS["good"], clip=True)
        bars = self._layer("prober").transform_filter("datum.what != 'fine'")
        bars = bars.mark_bar(height=POD - 4, strokeWidth=1, color=QUIET, stroke=QUIET, clip=True)
        bars = bars.encode(x=self._x(axis=True), x2="b:T", y=rows, tooltip=self._tip("row", "text"))
        title = "This prober: a bar where it was held up, and what is above may be its own fault"
        layers = [*self._frame(axis=True), thin.encode(x=self._x(axis=True), x2="b:T", y=rows), bars]
        return self._picture(layers, title, POD * max(2, len(self._scene.prober)))
