"""Reports for others to open: whole, inert whatever names and answers say, small for a day; by each format's parser."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from probe.model import NS, Interval, Mark, TargetKind
from probe.outcome import Outcome
from probe.report.csv import HEADS
from probe.report.ends import ends_of, ready_of
from probe.report.formats import PICTURES, REPORTS
from probe.report.markdown import inert
from probe.runfile import Run
from tests.hostile import hostile
from tests.longrun import scattered, written_long
from tests.stories import STORIES
from tests.synthetic import MS, drawn, series_of, written
from tests.test_cli import told as told_by

VOID = {"meta"}


class Page(HTMLParser):
    """Tags with the names of their attributes, in order; texts of cells and items; what scripts and styles hold."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.held: dict[str, list[str]] = {"script": [], "style": []}
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page.decode("utf-8"))
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)
        if tag in self.held:
            self.held[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in self.held:
            self.held[self._open[-1]][-1] += data
        else:
            self.texts.append(data)

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.held["script"][0])
        return found


def told(path: Path, texts: Sequence[str]) -> Run:
    """A run with the texts in every place where others' words stand."""
    texts = [text.encode("utf-8", "backslashreplace").decode() or "-" for text in texts]  # as SQLite can keep them
    series = [
        series_of(i, f"lane{i % 3}-{texts[-1 - i]}", texts[i], TargetKind.SERVICE, rate=10, seconds=3) for i in range(8)
    ]
    marks = [
        Mark(NS + i * MS, ("step", "log", text)[i % 3], text, texts[-i], texts[i - 1]) for i, text in enumerate(texts)
    ]
    marks.append(Mark(NS, "pod_deleted", f"grace period 30 s {texts[0]}", "api", texts[1]))
    stretches = [Interval(NS, 2 * NS, "throttled", text, "host", text) for text in texts[:20]]
    return written(
        path,
        series,
        drawn("." * 8 + "xx...s" + "." * 9 + "x", 10),
        name=texts[0],
        marks=marks,
        intervals=stretches,
        facts={f"fact {i} {text}": text for i, text in enumerate(texts)},
        servers={text: [(1, 0, 1)] * 8 for text in texts[:20]},
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """200 hostile texts, and as many harmless ones in the same places."""
    folder = tmp_path_factory.mktemp("runs")
    texts = hostile(200)
    assert len(set(texts)) == 200
    return told(folder / "hostile.db", texts), told(folder / "tame.db", [f"text {i}" for i in range(200)])


def test_hostile_texts_change_nothing_of_a_page_but_its_texts(runs: tuple[Run, Run]) -> None:
    pages = [PICTURES["html"](run) for run in runs]
    bad, tame = (Page(page) for page in pages)
    assert bad.tags == tame.tags
    assert {name for name, _ in bad.attributes} == {name for name, _ in tame.attributes}
    assert not {name for _, names in bad.tags for name in names} & {"src", "href", "style", "srcdoc", "action"}
    assert not [name for name, _ in bad.attributes if name.startswith("on")]
    assert len(bad.held["script"]) == 2
    assert bad.held["script"][1] == tame.held["script"][1]
    assert not set("<>&") & set(bad.held["script"][0])
    assert all(char.isprintable() or char == "\n" for text in bad.texts for char in text)
    assert "<script>alert(1)</script>" in "".join(bad.texts)
    assert len(pages[0]) < 3_000_000


def test_a_page_runs_its_own_script_alone_and_loads_nothing(runs: tuple[Run, Run]) -> None:
    page = Page(PICTURES["html"](runs[0]))
    [policy] = [value for name, value in page.attributes if name == "content" and "default-src" in (value or "")]
    code = page.held["script"][1]
    hashed = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{hashed}'; style-src 'unsafe-inline'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )
    assert "url(" not in page.held["style"][0]
    assert "@import" not in page.held["style"][0]


def test_what_a_picture_gets_is_text_and_short(runs: tuple[Run, Run]) -> None:
    page = Page(PICTURES["html"](runs[0]))
    texts = [value for rows in page.data["spec"]["datasets"].values() for row in rows for value in row.values()]
    said = [text for text in texts if isinstance(text, str)]
    assert len(said) > 200
    assert all(text.isprintable() and len(text) < 200 for text in said)
    tame = Page(PICTURES["html"](runs[1])).data["spec"]
    names = {"datasets": None}
    without = json.dumps({**page.data["spec"], **names})
    for expression in re.findall(r'"(?:signal|expr|labelExpr|filter|calculate)": "([^"]*)"', without):
        assert expression in json.dumps({**tame, **names})


def test_hostile_texts_leave_pictures_whole(runs: tuple[Run, Run]) -> None:
    svg = PICTURES["svg"](runs[0])
    tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(svg).iter()}  # noqa: S314 - our own
    assert tags <= {"svg", "g", "path", "rect", "line", "text", "tspan", "defs", "clipPath", "style"}
    assert not [
        name
        for element in ET.fromstring(svg).iter()  # noqa: S314
        for name in element.attrib
        if name.lower().startswith("on") or "href" in name
    ]
    assert PICTURES["png"](runs[0]).startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("kind", REPORTS)
def test_hostile_texts_leave_a_report_printable(runs: tuple[Run, Run], kind: str) -> None:
    bad, tame = (REPORTS[kind](run) for run in runs)
    assert all(line.isprintable() for line in bad.split("\n"))
    if kind == "text":
        assert max(map(len, bad.split("\n"))) < 1000
    if kind in ("json", "jsonl", "csv", "junit", "markdown"):
        assert bad.count("\n") == tame.count("\n")


def test_hostile_texts_in_json(runs: tuple[Run, Run]) -> None:
    report = json.loads(REPORTS["json"](runs[0]))
    assert "<script>alert(1)</script>" in {mark["text"] for mark in report["marks"]}
    for line in REPORTS["jsonl"](runs[0]).splitlines():
        assert json.loads(line)["schema_version"] == 1


def test_hostile_texts_in_csv(runs: tuple[Run, Run]) -> None:
    rows = list(csv.reader(io.StringIO(REPORTS["csv"](runs[0]))))
    assert tuple(rows[0]) == HEADS
    assert {len(row) for row in rows} == {len(HEADS)}
    assert len(rows) - 1 == len(json.loads(REPORTS["json"](runs[0]))["windows"])
    assert not [cell for row in rows[1:] for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_hostile_texts_in_junit(runs: tuple[Run, Run]) -> None:
    bad, tame = (ET.fromstring(REPORTS["junit"](run)) for run in runs)  # noqa: S314 - our own
    assert [element.tag for element in bad.iter()] == [element.tag for element in tame.iter()]
    assert bad.get("name") == "<script>alert(1)</script>"


def test_hostile_texts_in_markdown(runs: tuple[Run, Run]) -> None:
    bad, tame = (REPORTS["markdown"](run).split("\n") for run in runs)
    pipes = re.compile(r"(?<!\\)\|")
    assert [len(pipes.findall(line)) for line in bad] == [len(pipes.findall(line)) for line in tame]
    text = "\n".join(bad).replace("<!-- -->", "")
    assert not re.search(r"(?<!\\)[<>`\[\]!&~]", re.sub(r"(?ms)^```+sh$.*?^```+$", "", text))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("vip-udp → kube-dns", "vip-udp → kube-dns"),
        ("a|b", r"a\|b"),
        ("<b>", r"\<b\>"),
        ("@me #1", r"@<!-- -->me \#1"),
        ("https://www.x", "h<!-- -->ttps:<!-- -->//w<!-- -->ww.x".replace("h<!-- -->ttps", "https")),
        ("- a", r"\- a"),
        ("12. a", r"12\. a"),
        ("a\nb", r"a\\nb"),
    ],
)
def test_markdown_takes_text_for_text(text: str, shown: str) -> None:
    assert inert(text) == shown


@pytest.mark.parametrize("story", STORIES)
def test_every_story_has_a_page(tmp_path: Path, story: str) -> None:
    run = STORIES[story](tmp_path / "run.db")
    page = Page(PICTURES["html"](run))
    windows = json.loads(REPORTS["json"](run))["windows"]
    assert page.data["spec"]["vconcat"]
    assert len([1 for tag, names in page.tags if tag == "tr" and "data-from" in names]) == len(windows)
    rows = [row for rows in page.data["spec"]["datasets"].values() for row in rows]
    assert all(row["a"] <= row["b"] for row in rows if "b" in row)


def test_a_page_answers_first_what_was_lost_when_why_and_what_to_change(tmp_path: Path) -> None:
    page = Page(PICTURES["html"](STORIES["a_third"](tmp_path / "run.db")))
    texts = [text.strip() for text in page.texts if text.strip()]
    order = [texts.index(text) for text in ("FAIL", "What was lost", "When", "Why", "What to change", "Disruptions")]
    assert order == sorted(order)
    assert "vip-udp → kube-dns: 100 of 1,500 (6.67 %)" in texts
    assert "2.980 s: 14:13:25.010 to 14:13:27.990 UTC (+5.010 s), on vip-udp → kube-dns" in texts
    assert "coredns-7d9f-ccccc closed its port 2.991 s before the Service had forgotten it" in texts


def test_a_day_is_small_and_has_every_lost_query(tmp_path: Path) -> None:
    day = 24 * 3600
    outage = dict.fromkeys(range(40_000, 40_003), (10, Outcome.TIMEOUT))
    lossy = [outage, scattered(day, 0.02), {}]
    page = PICTURES["html"](written_long(tmp_path / "run.db", day, lossy))
    assert len(page) < 5_000_000
    spoilt = Page(page).data["spec"]["datasets"]["spoilt"]
    told = [int(re.match(r"([\d,]+) lost", row["text"])[1].replace(",", "")) for row in spoilt]  # type: ignore[index]
    assert sum(told) == sum(n for bad in lossy for n, _ in bad.values())
    strip = [row for row in spoilt if row["row"].startswith("vip-0")]
    assert min(row["a"] for row in strip) == pytest.approx((1_790_000_000 + 40_000) * 1000)


def test_files_beside_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = STORIES["a_third"](tmp_path / "run.db")
    files = {form: tmp_path / f"run.{form}" for form in (*PICTURES, "markdown", "csv", "junit")}
    options = " ".join(f"--{form} {file}" for form, file in files.items())
    code, out, err = told_by(f"report {run.path} {options}", capsys)
    assert (code, err) == (1, "")
    assert out.startswith("FAIL: it hurt")
    begins = (b"<!doctype html>", b"<svg ", b"\x89PNG", b"## FAIL", b"lane,", b"<?xml")
    assert [file.read_bytes().startswith(text) for file, text in zip(files.values(), begins, strict=True)] == [True] * 6


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ("--html -", 2, "--html -: name a file"),
        ("--csv -", 2, "--csv -: name a file; --format csv prints it"),
        ("--html none/x.html", 2, "--html none/x.html: its folder does not exist"),
        ("--csv {run}", 2, "is the run file, or a folder; name another file"),
        ("--csv {run}.x --junit {run}.x", 2, "is named twice; name another file"),
        ("--json {run}.x --html {run}.x", 2, "is named twice; name another file"),
        ("--png {run}.png", 4, "-m pip install altair vl-convert-python"),
    ],
)
def test_files_that_cannot_be_written(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: str,
    code: int,
    said: str,
) -> None:
    run = STORIES["clean"](tmp_path / "run.db")
    monkeypatch.setitem(sys.modules, "altair", None)
    exited, out, err = told_by(f"report {run.path} {options.format(run=run.path)}", capsys)
    assert (exited, out) == (code, "")
    assert said in err
    assert list(tmp_path.glob("run.db.*")) == []


@pytest.mark.parametrize(
    ("text", "pods"),
    [
        ("kube-dns: ready: a, b; terminating, serving: c", ["a", "b"]),
        ("ready: none; not serving: c", []),
        ("ready: a", ["a"]),
        ("nothing of it", []),
    ],
)
def test_who_is_ready_is_read_from_a_mark(text: str, pods: list[str]) -> None:
    assert ready_of(text) == pods


def test_margin_is_from_the_last_proxy_that_forgot_a_pod_to_its_closed_port(tmp_path: Path) -> None:
    def mark(second: float, kind: str, text: str = "", subject: str = "a") -> Mark:
        return Mark(round(second * NS), kind, text, "lab", subject)

    marks = [
        mark(0, "endpoints_programmed", "ready: a, b", "dns@1"),
        mark(0, "endpoints_programmed", "ready: a, b", "dns@2"),
        mark(0, "endpoints_programmed", "ready: b", "dns@3"),
        mark(1, "pod_deleted", "grace period 30 s"),
        mark(1, "endpoints_changed", "ready: b; terminating, serving: a", "dns"),
        mark(2, "endpoints_programmed", "ready: b", "dns@1"),
        mark(3.5, "endpoints_programmed", "ready: b", "dns@2"),
        mark(3.7, "endpoints_programmed", "ready: b", "dns@3"),
        mark(6, "clock_closed"),
        mark(7, "pod_deleted", "grace period 30 s", "b"),
        mark(7, "endpoints_changed", "ready: none", "dns"),
        mark(7.5, "pod_exited", "exit code 0", "b"),
    ]
    run = written(tmp_path / "run.db", [series_of()], drawn(""), marks=marks)
    assert [(end.life.name, end.margin_ns) for end in ends_of(run)] == [("a", 2_500_000_000), ("b", 500_000_000)]
