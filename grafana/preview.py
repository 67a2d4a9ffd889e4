"""A dashboard's JSON and a Prometheus -> a picture of it, drawn here and not by Grafana: `make preview`.

`python -m grafana.preview http://127.0.0.1:9090 out.html` draws all dashboards; out.png one, which --dashboard names.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import httpx2
import vl_convert

from grafana.asking import Span, Told, ask, chosen, client, regions
from grafana.drawing import BACK, CARD, TEXT, WEAK, body
from grafana.files import FOLDER

COLUMN, ROW, GAP, TOP = 62, 38, 8, 64
"""Pixels: a column of 24, a row with its gap (Grafana's own), the gap, the head of the page."""
LABEL = "preview, drawn by dnsprobe, not by Grafana"


def draw(prometheus: httpx2.Client, dashboard: Mapping[str, Any], span: Span, only: Mapping[str, str]) -> str:
    """A dashboard as SVG. only: values of its variables; all, of the others."""
    variables = chosen(dashboard, only)
    marks = [each for mark in dashboard["annotations"]["list"] for each in regions(prometheus, mark, variables, span)]
    parts = [_panel(prometheus, panel, variables, span, marks) for panel in dashboard["panels"]]
    height = TOP + max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"]) * ROW + GAP
    width = 24 * COLUMN + GAP
    first, last = (time.strftime("%H:%M:%S", time.gmtime(at)) for at in (span.start, span.end))
    head = (
        f'<text x="{GAP * 2}" y="28" font-size="20" fill="{TEXT}">{escape(dashboard["title"])}</text>'
        f'<text x="{GAP * 2}" y="50" font-size="13" fill="{WEAK}">{escape(dashboard["description"])}</text>'
        f'<text x="{width - GAP * 2}" y="28" font-size="14" fill="#e69f00" text-anchor="end">{LABEL}</text>'
        f'<text x="{width - GAP * 2}" y="50" font-size="13" fill="{WEAK}" text-anchor="end">{first} to {last} UTC, '
        f"scraped every {span.scraped:g} s</text>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="Inter, Helvetica, Arial, sans-serif"><rect width="100%" height="100%" fill="{BACK}"/>'
        f"{head}{''.join(parts)}</svg>"
    )


def _panel(
    prometheus: httpx2.Client, panel: Mapping[str, Any], variables: Mapping[str, str], span: Span, marks: Sequence[Told]
) -> str:
    place = panel["gridPos"]
    x, y = GAP + place["x"] * COLUMN, TOP + place["y"] * ROW
    width, height = place["w"] * COLUMN - GAP, place["h"] * ROW - GAP
    title = escape(panel["title"])
    if panel["type"] == "row":
        return f'<text x="{x + GAP}" y="{y + 22}" font-size="15" fill="{TEXT}">{title}</text>'
    inside = body(panel, ask(prometheus, panel, variables, span), width, height, span, marks)
    return (
        f'<svg x="{x}" y="{y}" width="{width}" height="{height}">'
        f'<rect width="100%" height="100%" rx="3" fill="{CARD}"/>'
        f'{inside}<text x="10" y="20" font-size="13" font-weight="600" fill="#ffffff">{title}</text></svg>'
    )


def main() -> int:
    """Ask, draw, write."""
    options = _options()
    names = (
        [options.dashboard] if options.dashboard else sorted(path.stem for path in (FOLDER / "dashboards").glob("*"))
    )
    end = options.end or time.time()
    span = Span(end - options.seconds, end, options.scraped)
    only = dict(each.split("=", 1) for each in options.only)
    files = [FOLDER / f"dashboards/{name}.json" for name in names]
    with client(options.prometheus) as prometheus:
        drawn = [draw(prometheus, json.loads(file.read_text()), span, only) for file in files]
    out = Path(options.out)
    if out.suffix == ".png":
        out.write_bytes(vl_convert.svg_to_png(drawn[0]))
    else:
        style = f"<style>body{{margin:0;background:{BACK}}}</style>"
        out.write_text(f'<!doctype html><meta charset="utf-8"><title>{LABEL}</title>{style}{"".join(drawn)}\n')
    print(f"{out}: {', '.join(names)}, {LABEL}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m grafana.preview", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("prometheus", metavar="URL", help="where Prometheus is: http://127.0.0.1:9090")
    parser.add_argument("out", metavar="OUT.html|OUT.png", help="where to write to")
    parser.add_argument("--dashboard", default="", help="only this one, as its file is called; a PNG needs it")
    parser.add_argument("--seconds", type=float, default=3600, help="how much time to show (default 3600)")
    parser.add_argument("--end", type=float, default=0, help="until when, unix seconds (default now)")
    parser.add_argument("--only", action="append", default=[], metavar="VARIABLE=REGEX", help="e.g. cluster=prod-1")
    parser.add_argument("--scraped", type=float, default=5, help="how often Prometheus scrapes, in seconds (default 5)")
    options = parser.parse_args()
    if options.out.endswith(".png") and not options.dashboard:
        parser.error("a PNG shows one dashboard: say --dashboard overview")
    return options


if __name__ == "__main__":
    sys.exit(main())
