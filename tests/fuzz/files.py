"""Octets as files that a person names, or a pod leaves -> they are read as they should be, or refused in a sentence."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from probe.audit import Planned, Unread, audit
from probe.audit.facts import facts_of, found_there
from probe.audit.files import read_files, write_text
from probe.audit.migration import migrate
from probe.audit.plan import plan_of
from probe.audit.platform import detect
from probe.audit.snapshot import Snapshot
from probe.collect.fromlog import Told, rebuilt, told_in
from probe.corefile import NEWEST, Corefile, parse_corefile
from probe.corefile.tokens import tokens_of
from probe.diagnosis import diagnose
from probe.doubts import doubts_of
from probe.errors import DnsprobeError, UsageError
from probe.model import NS, Question
from probe.report.audit import Audited, audit_json, audit_junit, audit_markdown, audit_text
from probe.report.explain import explain_json, explain_text
from probe.report.formats import REPORTS
from probe.runfile import merge, open_run, open_stretch
from probe.runfile.schema import APPLICATION_ID, SCHEMA_VERSION
from probe.scenario import datafile
from probe.scenario.datafile import read_questions
from probe.scenario.document import override, parse_document
from probe.scenario.file import read_document, read_scenario_text, shipped_scenarios
from probe.scenario.plan import check_load
from probe.timeline import Timeline
from probe.timeline.seen import seen_by
from probe.wire import encode
from tests.clusters import sound
from tests.fuzz.octets import Octets, changed_rows, changed_tree
from tests.stories import STORIES
from tests.test_corefile import shape

MOST_CHANGES = 6
"""Of one input: so few that what is wrong can be seen."""


@contextmanager
def _file(octets: bytes, name: str) -> Iterator[Path]:
    """A file with these octets in it, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        path = Path(folder, name)
        path.write_bytes(octets)
        yield path


def _text(octets: bytes) -> str:
    """As YAML, Corefiles and settings come: whole characters."""
    return octets.decode("utf-8", "replace")


def _says(problem: DnsprobeError, file: str) -> None:
    """Which file it is about."""
    assert str(problem).startswith(file), problem


# -- the data file


def questions(octets: bytes) -> None:
    """Fast or slow, as objects or in a book, the questions are the same, and each can be asked."""
    with _file(octets, "questions.txt") as path:
        fast, slow, booked = _asked(path), _asked(path, "_PLAIN", lambda _: None), _asked(path, "PLAIN_QUESTIONS", 2)
    assert fast == slow
    if isinstance(fast, list) and isinstance(booked, list):
        assert sorted(map(encode, fast)) == sorted(map(encode, booked))


def _asked(path: Path, name: str = "_FORMAT", other: object = "") -> list[Question] | str:
    """The questions of a file, or in which line there is none; the reader's constant of that name is another one."""
    with patch.object(datafile, name, other):
        try:
            return list(read_questions(str(path)))
        except UsageError as problem:
            return str(problem).partition(": ")[0]


# -- scenarios


def scenario(octets: bytes) -> None:
    """A plan, the same each time, that can be checked; or what is wrong, where."""
    text = _text(octets)
    try:
        plan = read_scenario_text("it.yaml", text, [])
    except DnsprobeError as problem:
        _says(problem, "it.yaml")
        return
    assert read_scenario_text("it.yaml", text, []) == plan
    with suppress(DnsprobeError):
        check_load(plan)


@cache
def _scenarios() -> tuple[str, ...]:
    return tuple(path.read_text() for path in shipped_scenarios().values())


def settings(octets: bytes) -> None:
    """Lines of `--set`, put into one of the scenarios that come with it."""
    texts = _scenarios()
    which, *lines = _text(octets).split("\n")[: MOST_CHANGES + 1]
    text = texts[len(which) % len(texts)]
    with suppress(DnsprobeError):
        document = override(parse_document("it.yaml", text), lines)
        check_load(read_document(document, text, lines))


# -- Corefiles


def corefile(octets: bytes) -> None:
    """Problems and directives stand in lines that there are; printed and read again it is the same; it migrates."""
    text = _text(octets)
    files = {"a.conf": text[::2], "b.server": "log\n", "c": text[: len(text) // 2]}
    last = {name: content.count("\n") + 1 for name, content in {"": text, **files}.items()}
    read = parse_corefile(text, files, {"A": "{$A}x", "B": "b"})
    assert all(1 <= problem.line <= last[problem.file] for problem in read.problems)
    assert all(1 <= block.line <= last[block.file] for block in read.blocks)
    alone = parse_corefile(text, {})
    if not any(problem.fatal for problem in alone.problems) and (printed := _printed(alone)) is not None:
        assert shape(parse_corefile(printed, {})) == shape(alone), printed
    made = migrate(text, "1.6.9", NEWEST, {})
    assert made.text == text or any(change.done for change in made.changes)
    assert [block.zones for block in parse_corefile(made.text, {}).blocks] == [block.zones for block in alone.blocks]


def _printed(read: Corefile) -> str | None:
    """As a person would write it; None where a word cannot be written so that it is read alone."""
    lines = []

    def put(directive: Any, indent: str) -> None:
        lines.append(indent + " ".join([directive.name, *directive.arguments]) + " {" * bool(directive.block))
        for one in directive.block:
            put(one, f"{indent}    ")
        if directive.block:
            lines.append(f"{indent}}}")

    for block in read.blocks:
        lines.append(f"{' '.join(block.zones)} {{")
        for one in block.directives:
            put(one, "    ")
        lines.append("}")
    text = "\n".join(lines)
    words = [word for word in _words(read) if [token.text for token in tokens_of(word)] != [word] or word in "{},"]
    return None if words or "import" in text or text.startswith("(") else text


def _words(read: Corefile) -> Iterator[str]:
    stack: list[Any] = [one for block in read.blocks for one in block.directives]
    yield from (zone for block in read.blocks for zone in block.zones)
    while stack:
        one = stack.pop()
        stack += one.block
        yield from (one.name, *one.arguments)


# -- snapshots of clusters


def snapshot(octets: bytes) -> None:
    """A file of objects; what can be read of it is audited."""
    with _file(octets, "cluster.yaml") as path:
        try:
            seen = read_files([path])
        except UsageError as problem:
            _says(problem, str(path))
            return
    _audit(seen)


@cache
def _cluster() -> str:
    return json.dumps(list(sound().things.values()))


def cluster(octets: bytes) -> None:
    """A cluster's objects, some fields of which are gone, or something else."""
    read = Octets(octets)
    changed = changed_tree(json.loads(_cluster()), read, MOST_CHANGES)
    with _file(json.dumps({"kind": "List", "items": changed}, default=repr).encode(), "cluster.json") as path:
        try:
            seen = read_files([path])
        except UsageError:
            return
    _audit(seen)


def _audit(seen: Snapshot) -> None:
    """All that the command does with it."""
    with suppress(DnsprobeError):
        platform, sign = detect(seen)
        planned = Planned("1.14.2", platform)
        found = audit(seen, planned)
        facts = facts_of(seen, planned, sign)
        told = Audited(found, facts, 0, plan_of(seen, planned, found), unread=seen.unread)
        for form in (audit_text, audit_json, audit_markdown, audit_junit):
            form(told)
        with suppress(Unread):
            found_there(seen)
        json.loads(write_text(seen, "again.json"))


# -- run files


SEEDS = ("cut", "over_tcp", "named")
"""Stories whose run files are changed: one that was killed, one over TCP, one with names of servers."""
_FORMS = (*REPORTS, "explain", "stretch", "merged")


@cache
def run_files() -> tuple[bytes, ...]:
    """Theirs, of as few octets as can be."""
    found = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for name in SEEDS:
            path = STORIES[name](Path(folder, name)).path
            with closing(sqlite3.connect(path, isolation_level=None)) as db:
                db.execute("PRAGMA journal_mode = DELETE")
                db.execute("PRAGMA page_size = 512")
                db.execute("VACUUM")
            found.append(path.read_bytes())
    return tuple(found)


def runfile(octets: bytes) -> None:
    """A file that claims to be a run: all is reported, or it is said what is wrong with the file."""
    form = _FORMS[len(octets) % len(_FORMS)]
    _reported(octets, form)


def _reported(octets: bytes, form: str) -> None:
    with _file(octets, "run.db") as path:
        try:
            run = open_run(path)
        except UsageError as problem:
            _says(problem, str(path))
            return
        with suppress(DnsprobeError):
            if form == "stretch":
                REPORTS["text"](open_stretch(path, 2 * NS))
            elif form == "merged":
                merge([path], Path(f"{path}.whole"), "", doubts_of, seen_by, partial=True, replaced=True)
            elif form == "explain":
                found = diagnose(Timeline.of(run), "kubeadm")
                explain_text(run, found)
                explain_json(run, found)
            else:
                REPORTS[form](run)


@cache
def _tables() -> tuple[dict[str, tuple[list[str], list[list[Any]]]], ...]:
    """Of each of them the tables: columns and rows."""
    found = []
    for octets in run_files():
        with closing(sqlite3.connect("")) as db:
            db.deserialize(octets)
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")]
            asked = {name: db.execute(f"SELECT * FROM {name}") for name in names}  # noqa: S608
            tables = {name: ([one[0] for one in rows.description], [*map(list, rows)]) for name, rows in asked.items()}
        found.append(tables)
    return tuple(found)


def cells(octets: bytes) -> None:
    """A sound database, in which some cells hold something else: what SQLite itself has no complaint about."""
    read = Octets(octets)
    tables = _tables()[read.number(len(SEEDS))]
    form = _FORMS[read.number(len(_FORMS))]
    rows = {name: deepcopy(rows) for name, (_, rows) in tables.items()}
    changed_rows(rows, read, MOST_CHANGES)
    with closing(sqlite3.connect("", isolation_level=None)) as db:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        for name, (columns, _) in tables.items():
            db.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
            marks = ", ".join("?" * len(columns))
            for row in rows[name]:
                with suppress(OverflowError, UnicodeEncodeError, sqlite3.Error):
                    db.execute(f"INSERT INTO {name} VALUES ({marks})", row)  # noqa: S608
        made = db.serialize()
    _reported(made, form)


# -- logs of pods


def log(octets: bytes) -> None:
    """What a pod has printed: a run as far as it can be told from it, or a sentence."""
    told = told_in(_text(octets).split("\n"))
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, suppress(DnsprobeError):
        path = Path(folder, "log.db")
        if told and told.series and _is_short(told):
            try:
                rebuilt(told, path)
            finally:
                left = sorted(file.name for file in Path(folder).iterdir())
                assert left in ([], ["log.db"]), left
            REPORTS["text"](open_run(path))


def _is_short(told: Told) -> bool:
    """A log of many hours is read as it should be, and takes its time."""
    try:
        return told.until_ns < 60 * NS
    except (TypeError, LookupError, ArithmeticError, ValueError):
        return True
