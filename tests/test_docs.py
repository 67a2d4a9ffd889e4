"""Every page of the manual: its commands are run or read by the command line, its YAML and links are what they say.

What asks somebody else (a cluster, a registry, a server) is read and not run: its options, files and targets exist.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import typer
import yaml

import probe
from probe import library
from probe.cli import COMMANDS, app, loaded, main
from probe.exporter.catalogue import METRICS
from probe.runfile import Run, open_run
from probe.scenario.file import read_scenario_text, shipped_scenarios
from probe.scenario.kustomize import build
from tests.test_house import PYPROJECT, ROOT
from tests.test_upgrades import restored

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "grafana/RUNBOOK.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
pages = pytest.mark.parametrize("page", PAGES, ids=IDS)
RUN_FILES = ("run.db", "before.db", "after.db", "upgrade.db", "dnsprobe-serve.db")
REPORTING = {"report", "explain", "compare", "fleet", "scenarios", "manifests"}
"""Commands that need nobody else: they are run."""


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language ('' for none), its lines."""

    line: int
    language: str
    text: str


def blocks(page: Path, *languages: str) -> list[Block]:
    found, opened = [], None
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        if line.strip().startswith("```"):
            if opened is None:
                opened = number
            else:
                language = lines[opened - 1].strip()[3:].strip()
                found.append(Block(opened, language, "\n".join(lines[opened : number - 1])))
                opened = None
    assert opened is None, f"{page}:{opened}: a block that does not end"
    return [block for block in found if block.language in languages]


def prose(page: Path) -> str:
    """The page without its blocks; where they stood there is an empty line."""
    text = re.sub(r"^\s*```.*?^\s*```\s*$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def split(line: str) -> list[list[str]]:
    """A line of a shell -> its commands: those that a pipe or `&&` joins, without comments and redirections."""
    words = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    words.whitespace_split = True
    tokens: list[str] = list(words)
    parts = [list(part) for joint, part in groupby(tokens, lambda word: set(word) <= set("|&;")) if not joint]
    return [part[: next((i for i, word in enumerate(part) if set(word) <= set("<>")), len(part))] for part in parts]


def typed(page: Path) -> Iterator[tuple[int, list[str]]]:
    """Every command of a page's blocks, with the line of its block."""
    for block in blocks(page, "sh", ""):
        lines = block.text.replace("\\\n", " ").splitlines()
        if not block.language:  # what a terminal shows: commands behind `$ `
            lines = [line.strip()[2:] for line in lines if line.strip().startswith("$ ")]
        for line in lines:
            for command in split(line):
                yield block.line, command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where commands are run: with the files that the pages name."""
    here = tmp_path_factory.mktemp("docs")
    for name in RUN_FILES:
        restored(1, here).rename(here / name)
    (here / "names.txt").write_text("example.com A\n")
    (here / "coredns.log").write_text("")
    (here / "my.yaml").write_text(next(b.text for b in blocks(ROOT / "README.md", "yaml") if "\nlanes:" in b.text))
    return here


# -- what each word of a shell means here


def _dnsprobe(words: Sequence[str]) -> None:
    """The command line reads it; what needs nobody else is run."""
    read(words)
    name, *rest = words
    needs = {"--yes", "--shard", "--start-at", "job/NAME"} & set(words)
    if name == "run" and not needs and (("-s" in words) or rest[0] in shipped_scenarios() or Path(rest[0]).is_file()):
        ran([*words, *(["--dry-run"] if "--dry-run" not in words else [])])
    elif name in REPORTING or (name == "audit" and "--lab" in words) or "--propagation" in words:
        ran(words)


def read(words: Sequence[str]) -> None:
    """As the command line reads it, and no further."""
    name, *rest = words
    if name.startswith("-"):
        assert any(name in option.opts for option in typer.main.get_command(app).params), words
        return
    assert name in COMMANDS, f"no command {name}: {words}"
    asked = loaded(name)
    while hasattr(asked, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in asked.commands, f"no command {rest[0]}: {words}"
        asked = asked.commands[rest.pop(0)]
    known = {name for option in asked.params for name in (*option.opts, *option.secondary_opts)}
    if hasattr(asked, "commands") or {"--help", "-h"} & set(rest):
        assert {word for word in rest if word.startswith("-")} <= known | {"--help", "-h"}, words
        return
    asked.make_context(asked.name, rest)


def ran(words: Sequence[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(list(words))
    assert done.value.code in (0, 1, 3, None), f"dnsprobe {shlex.join(words)}: exit code {done.value.code}"


def _make(words: Sequence[str]) -> None:
    text = (ROOT / "Makefile").read_text()
    for word in words:
        name, given, _ = word.partition("=")
        pattern = rf"\$[({{]{name}\b|^{name} *[?:]?=" if given else rf"^{name}:"
        assert re.search(pattern, text, re.MULTILINE), f"make {word}: no such target or variable"


def _kubectl(words: Sequence[str]) -> None:
    """Folders that it applies build; what a pod of ours is asked is a command of ours."""
    if "-k" in words:
        place = ROOT / words[words.index("-k") + 1]
        assert (place / "kustomization.yaml").exists(), place
        if place.is_relative_to(ROOT / "deploy"):
            assert build(place)
    if "-f" in words:
        file = words[words.index("-f") + 1]
        assert file == "-" or (ROOT / file).exists(), file
    if "--" in words:
        told = list(words[words.index("--") + 1 :])
        if told[0] == "dnsprobe" or "--image" in " ".join(words):
            read(told[1:] if told[0] == "dnsprobe" else told)


def _sqlite3(words: Sequence[str]) -> None:
    file, *asked = words
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        for sql in asked:
            if not sql.startswith("."):
                db.execute(sql).fetchall()


def _docker(words: Sequence[str]) -> None:
    if "-f" in words:
        assert (ROOT / words[words.index("-f") + 1]).exists()
    if "dnsprobe" in words:
        read(words[words.index("dnsprobe") + 1 :])


def _installed(words: Sequence[str]) -> None:
    assert words[0] in ("install", "run"), words
    for extra in re.findall(r"dnsprobe\[(\w+)\]", " ".join(words)):
        assert extra in PYPROJECT["project"]["optional-dependencies"]


def _python(words: Sequence[str]) -> None:
    assert words[0] == "-m", words
    assert find_spec(words[1]), words


def _file(words: Sequence[str]) -> None:
    assert words == [] or (ROOT / words[0]).exists() or words[0].startswith(".venv/"), words


def _anything(_: Sequence[str]) -> None:
    """Not ours: what it is given is only an example."""


WORDS: dict[str, Callable[[Sequence[str]], None]] = {
    "dnsprobe": _dnsprobe, "make": _make, "kubectl": _kubectl, "sqlite3": _sqlite3, "docker": _docker,
    "pip": _installed, "pipx": _installed, "python": _python, ".": _file, ".ci/run": _file,
    **dict.fromkeys(("curl", "conntrack", "ipvsadm", "dmesg", "grep"), _anything),
}  # fmt: skip
PREFIXES = ("sudo", "nohup", "time", "nice", "env")


@pages
def test_every_command_is_one(
    page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KUBECONFIG", str(folder / "none"))
    for line, command in typed(page):
        rest = command
        while rest and (rest[0] in PREFIXES or re.fullmatch(r"[A-Z_]+=.*", rest[0])):
            rest = rest[1:]
        if not rest:
            continue
        where = f"{page.relative_to(ROOT)}:{line}: {shlex.join(command)}"
        assert rest[0] in WORDS, f"{where}: unknown here; say in WORDS what it means"
        try:
            WORDS[rest[0]](rest[1:])
        except (AssertionError, Exception) as problem:
            raise AssertionError(f"{where}: {type(problem).__name__}: {problem}") from problem
        capsys.readouterr()


@pages
def test_commands_within_sentences_are_known(page: Path) -> None:
    for code in re.findall(r"`((?:dnsprobe|make) [^`]+)`", prose(page)):
        words = shlex.split(" ".join(code.split()))
        try:
            (read if words[0] == "dnsprobe" else _make)(words[1:])
        except (AssertionError, Exception) as problem:
            if type(problem).__name__ != "MissingParameter":  # a sentence need not say all of a command
                raise AssertionError(f"{page.name}: `{code}`: {type(problem).__name__}: {problem}") from problem


@pages
def test_yaml_is_what_it_says(page: Path) -> None:
    for block in blocks(page, "yaml"):
        told = yaml.safe_load(block.text)
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if "lanes" in told:
            assert read_scenario_text(where, block.text, []).lanes
        elif "matrix" in told or "objectives" in told or "clients" in told:  # a part, put on what ships
            whole = yaml.safe_load(shipped_scenarios()["baseline"].read_text()) | told
            whole.pop("matrix", None)
            assert read_scenario_text(where, yaml.safe_dump(whole), []).lanes
        else:
            assert {"apiVersion", "kind"} <= told.keys(), f"{where}: neither a scenario nor an object"


@pages
def test_json_and_promql_are_read(page: Path) -> None:
    for block in blocks(page, "json"):
        json.loads(block.text)
    for block in blocks(page, "promql"):
        for query in filter(None, (line.split("#")[0].strip() for line in block.text.splitlines())):
            promql_parser.parse(query)
            ours = set(re.findall(r"\bdnsprobe_\w+", query))
            known = {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours}
            assert {name for name in known if name not in METRICS and f"{name}_count" not in METRICS} == set(), query


def test_python_is_as_it_is_offered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are not made again: their arguments are read as probe.run() reads them."""

    def run(what: str | library.Options, path: str, **how: Any) -> Run:
        assert library._plan_of(what, how.pop("settings", ())).lanes
        assert how.keys() <= {"lab", "context", "workers", "max_qps"}
        assert path.endswith(".db")
        return open_run("run.db")

    monkeypatch.chdir(folder)
    monkeypatch.setattr(library, "run", run)
    for page in PAGES:
        for block in blocks(page, "python"):
            used = {
                node.attr
                for node in ast.walk(ast.parse(block.text))
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "probe"
            }
            assert used <= set(probe.__all__), f"{page.name}:{block.line}"
            exec(compile(block.text, f"{page.name}:{block.line}", "exec"), {})  # noqa: S102  the manual's own


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(other), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_named_by_another() -> None:
    named = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    }
    assert [page.name for page in PAGES if page not in named and page.name != "README.md"] == []


@pytest.mark.parametrize(
    "line", ["dnsprobe rn", "dnsprobe run baseline --lab --sett x=1", "dnsprobe run baseline --lab --set lab.x=1"]
)
def test_what_is_wrong_is_found(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = split(line)
    with pytest.raises((AssertionError, Exception)):
        WORDS[command[0]](command[1:])
    capsys.readouterr()
