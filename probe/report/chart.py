"""A Run -> its timeline as SVG or PNG, as a Vega-Lite specification, and the script that draws that in a page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from textwrap import wrap
from typing import TYPE_CHECKING

from probe.errors import EnvironmentProblem
from probe.report.scene import Scene, scene_of
from probe.report.story import story_of
from probe.runfile import Run
from probe.verdict import verdict_of

if TYPE_CHECKING:
    from probe.report.drawing import Spec

MISSING = f"pages and pictures need Altair and vl-convert: {sys.executable} -m pip install altair vl-convert-python"
_TITLE = 130
"""Characters in a line of it."""
_SETS = "window.vegaEmbed = vegaEmbed;"


def svg_report(run: Run) -> bytes:
    """The timeline as SVG 1.1, on white."""
    import vl_convert  # noqa: PLC0415 - 30 MB that other reports do without

    return vl_convert.vegalite_to_svg(_printed(run)).encode()


def png_report(run: Run) -> bytes:
    """The timeline as PNG, on white, two pixels for each."""
    import vl_convert  # noqa: PLC0415

    return vl_convert.vegalite_to_png(_printed(run), scale=2)


def script() -> str:
    """Vega, Vega-Lite and Vega-Embed in one: it sets window.vegaEmbed, and loads nothing."""
    import vl_convert  # noqa: PLC0415

    return vl_convert.javascript_bundle(_SETS)


def specification(scene: Scene, drawn: Sequence[str] = ()) -> Spec:
    """What Vega-Embed draws, without CONFIGS: the pictures that are named, in PARTS of probe.report.drawing, or all."""
    from probe.report.drawing import PARTS, spec_of  # noqa: PLC0415 - Altair takes half a second to import

    return spec_of(scene, drawn or PARTS)


def check_extra() -> None:
    """EnvironmentProblem where the libraries that draw are not installed."""
    try:
        import altair  # noqa: F401, ICN001, PLC0415
        import vl_convert  # noqa: F401, PLC0415
    except ImportError:
        raise EnvironmentProblem(MISSING) from None


def _printed(run: Run) -> Spec:
    """Where nobody drags or clicks, and nothing stands beside it: the verdict and the cause are its title."""
    verdict = verdict_of(run)
    story = story_of(verdict)
    spec = specification(replace(scene_of(verdict), title="The whole run (UTC)"))
    said = {"text": _lines(f"{story.ruling}: {story.headline}"), "subtitle": _lines("; ".join(story.why))}
    title = {**said, "anchor": "start", "fontSize": 16, "subtitleFontSize": 13, "offset": 14}
    return spec | {"title": title, "background": "white", "config": {**spec["config"], **CONFIGS["light"]}}


def _lines(text: str) -> list[str]:
    return wrap(text, _TITLE) or [""]


def _config(ink: str, faint: str) -> Spec:
    return {
        "axis": {"labelColor": ink, "titleColor": ink, "domainColor": faint, "tickColor": faint, "gridColor": faint},
        "legend": {"labelColor": ink, "titleColor": ink},
        "title": {"color": ink, "subtitleColor": ink},
        "text": {"color": ink},
        "rule": {"color": ink},
        "view": {"stroke": faint},
    }


CONFIGS = {"light": _config("#1f2933", "#0002"), "dark": _config("#d7dde4", "#fff3")}
"""Vega-Lite's config for both, beside the specification's own."""
