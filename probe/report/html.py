"""A Run -> one HTML page that needs nothing else: the answers, the timeline to zoom in, tables that need no script."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from probe.model import NS
from probe.report.chart import CONFIGS, script, specification
from probe.report.scene import scene_of
from probe.report.story import Story, story_of
from probe.report.tables import Table, tables_of
from probe.report.units import date, plain, short
from probe.runfile import Run
from probe.verdict import verdict_of

if TYPE_CHECKING:
    from probe.report.drawing import Spec

_HERE = Path(__file__).parent

LONG = 60
"""Characters of a word that may be broken anywhere, else it would make its table too wide."""


def html_report(run: Run) -> bytes:
    """HTML 5 in UTF-8, about 1 MB of it scripts. No address in it is loaded, and no text of others is markup."""
    verdict = verdict_of(run)
    story = story_of(verdict)
    body = [*_top(run, story), *_answers(story), PICTURE, *(part for t in tables_of(verdict) for part in table_html(t))]
    return page(f"{verdict.ruling}: {run.head.name}", body, specification(scene_of(verdict)))


PICTURE = (
    '<section><div id="picture" class="wide"><p>The picture is drawn by a script of this file;'
    " the tables below need none.</p></div></section>"
)


def page(title: str, body: Iterable[str], spec: Spec) -> bytes:
    """A page around a picture. body: markup, with an element of id `picture`; title: text."""
    style, start = ((_HERE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    code = f"{script()}\n{start}".replace("</script", "<\\/script")
    allowed = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{allowed}'; style-src 'unsafe-inline'; img-src data:"
    data = json.dumps({"spec": spec, "configs": CONFIGS}, separators=(",", ":"), allow_nan=False)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}; base-uri 'none'; form-action 'none'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">',
        f"<title>{text_html(short(title))}</title><style>{style}</style></head><body>",
        *body,
        f'<script type="application/json" id="data">{_inert(data)}</script>',
        f"<script>{code}</script></body></html>",
    ]
    return ("\n".join(parts) + "\n").encode("utf-8", "backslashreplace")


def _inert(data: str) -> str:
    """JSON in which no `<` ends the script it stands in."""
    return data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def text_html(text: str) -> str:
    """Any text as text: lines stay lines, nothing is invisible, nothing markup."""
    return "\n".join(escape(plain(line)) for line in text.split("\n"))


def _top(run: Run, story: Story) -> list[str]:
    about = [f"{short(run.head.name)}: {run.end_ns / NS:,.1f} s from {date(run.head.started_unix_ns)}"]
    about += [f"CUT SHORT: {short(run.cut)}"] if run.cut else []
    about += [f"ended: {short(run.ended)}"] if run.ended else []
    about += [short(run.head.command, 400)] if run.head.command else []
    return [
        f'<header class="{story.ruling.lower()}"><b>{story.ruling}</b><div>',
        f"<h1>{text_html(story.headline)}</h1><p>{text_html(' · '.join(about))}</p></div></header>",
    ]


def _answers(story: Story) -> list[str]:
    answers = {"What was lost": story.lost, "When": story.when, "Why": story.why, "What to change": story.change}
    cards = [f"<div><h2>{what}</h2>{_list(said)}</div>" for what, said in answers.items()]
    return ['<section class="answers">', *cards, "</section>"]


def _list(said: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{_block(text)}</li>" for text in said) + "</ul>"


def _block(text: str) -> str:
    return f"<pre>{text_html(text)}</pre>" if "\n" in text else text_html(text)


def table_html(table: Table) -> list[str]:
    """Its title, the table, its note."""
    sides = ["n" if side == ">" else "t" for side in table.aligned]
    heads = "".join(f'<th class="{side}">{text_html(head)}</th>' for head, side in zip(table.heads, sides, strict=True))
    spans = [f' data-from="{a}" data-to="{b}"' for a, b in table.spans] or [""] * len(table.rows)
    rows = [f"<tr{span}>{''.join(map(_cell, row, sides))}</tr>" for row, span in zip(table.rows, spans, strict=True)]
    note = f"<p>{text_html(table.note)}</p>" if table.note else ""
    return [
        f'<section><h2>{text_html(table.title)}</h2><div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>',
        *rows,
        f"</tbody></table></div>{note}</section>",
    ]


def _cell(text: str, side: str) -> str:
    broken = " long" if max(map(len, text.split()), default=0) > LONG else ""
    return f'<td class="{side}{broken}">{_block(text)}</td>'
