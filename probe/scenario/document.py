"""YAML text -> a tree of texts in which every key and item knows its file and line, or a ScenarioError.

Scalars stay the text that was typed (`1.30` is not a number, `no` is not a truth): the field they belong to reads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import yaml

from probe.errors import ScenarioError, UsageError

Tree: TypeAlias = "str | list[Tree] | dict[str, Tree]"
Place: TypeAlias = tuple[str | int, ...]
"""Where something stands in the tree: ("lanes", 0, "rate")."""

T = TypeVar("T")

MOST_NODES = 20_000
MOST_DEPTH = 20


@dataclass(frozen=True, slots=True)
class Document:
    """A tree and, for each place in it, the text to put before an error: `scenarios/x.yaml:12`."""

    name: str
    tree: Tree
    origins: dict[Place, str]

    def error(self, place: Place, text: str) -> ScenarioError:
        """The error for a place: file, line, key, then the text."""
        return ScenarioError(self.said(place, text))

    def at(self, place: Place, read: Callable[[], T]) -> T:
        """What `read` gives; its UsageError with the place before it."""
        try:
            return read()
        except UsageError as problem:
            raise self.error(place, str(problem)) from None

    def said(self, place: Place, text: str) -> str:
        """`file:line: key: text`, with the line of the nearest place that is in the file."""
        known = place
        while known not in self.origins:
            known = known[:-1]
        key = path_text(place)
        return f"{self.origins[known]}: {key}: {text}" if key else f"{self.origins[known]}: {text}"


def path_text(place: Place) -> str:
    """`lanes[0].rate`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")


def parse_document(name: str, text: str) -> Document:
    """Read one YAML document; ScenarioError names the line of bad YAML, a doubled key, or an alias that explodes."""
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = mark.line + 1 if mark else 1
        tab = "; indent with spaces, not with tabs" if "'\\t'" in str(problem.problem) else ""
        tab = tab or "; is this line indented as its neighbours are?" * ("<block" in str(problem.problem))
        raise ScenarioError(f"{name}:{line}: not valid YAML: {problem.problem}{tab}") from None
    except yaml.reader.ReaderError as problem:
        line = text.count("\n", 0, problem.position) + 1
        raise ScenarioError(f"{name}:{line}: not valid YAML: {problem.reason}") from None
    except RecursionError:
        raise ScenarioError(f"{name}: nested too deeply; {MOST_DEPTH} levels are allowed") from None
    if node is None:
        raise ScenarioError(f"{name}: empty; a scenario has at least name, duration and lanes")
    growth = _Growth(name)
    tree = growth.grow(node, ())
    return Document(name, tree, growth.origins)


@dataclass(slots=True)
class _Growth:
    """Nodes -> tree, with a budget: a small file of aliases can stand for billions of nodes."""

    name: str
    origins: dict[Place, str] = field(default_factory=dict)
    left: int = MOST_NODES

    def grow(self, node: yaml.Node, place: Place) -> Tree:
        line = node.start_mark.line + 1
        self.origins.setdefault(place, f"{self.name}:{line}")
        self.left -= 1
        if self.left < 0:
            raise ScenarioError(f"{self.name}:{line}: more than {MOST_NODES:,} values (aliases count as often as used)")
        if len(place) > MOST_DEPTH:
            raise ScenarioError(f"{self.name}:{line}: nested too deeply; {MOST_DEPTH} levels are allowed")
        if isinstance(node, yaml.ScalarNode):
            return "" if node.tag == "tag:yaml.org,2002:null" and node.value in ("~", "null") else str(node.value)
        if isinstance(node, yaml.SequenceNode):
            return [self.grow(item, (*place, i)) for i, item in enumerate(node.value)]
        branch: dict[str, Tree] = {}
        for key, value in node.value:
            self._key(key, place, branch)
            branch[key.value] = self.grow(value, (*place, key.value))
        return branch

    def _key(self, key: yaml.Node, place: Place, branch: dict[str, Tree]) -> None:
        here = f"{self.name}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise ScenarioError(f"{here}: a key must be a plain word")
        inner = (*place, key.value)
        if key.value in branch:
            raise ScenarioError(f"{here}: {path_text(inner)}: given twice, first at {self.origins[inner]}")
        self.origins[inner] = here


def override(document: Document, settings: list[str]) -> Document:
    """The document with each `lab.lameduck=0s` put in; UsageError if a path leads nowhere or a value is no YAML."""
    for setting in settings:
        path, equals, text = setting.partition("=")
        place = place_of(path)
        if not equals or not place:
            raise UsageError(f"--set {setting}: say PATH=VALUE, e.g. lab.lameduck=0s or lanes[0].rate=50")
        value = parse_document(f"--set {path}", text).tree if text.strip() else ""
        try:
            put(document, place, value, f"--set {setting}")
        except UsageError as problem:
            raise UsageError(f"--set {setting}: {problem}") from None
    return document


def place_of(path: str) -> Place:
    """`lanes[0].rate` -> ("lanes", 0, "rate"); () if it is no path."""
    steps = re.findall(r"[^.\[\]]+", path)
    place: Place = tuple(int(step) if re.fullmatch("[0-9]{1,6}", step) else step for step in steps)
    return place if path_text(place) == path else ()


def put(document: Document, place: Place, value: Tree, origin: str) -> None:
    """Put a value there, as if it stood at `origin`; UsageError if the place leads nowhere."""
    _put(document.tree, place, value)
    for end in range(1, len(place)):
        document.origins.setdefault(place[:end], origin)
    for former in [known for known in document.origins if known[: len(place)] == place]:
        del document.origins[former]
    document.origins[place] = origin


def _put(tree: Tree, place: Place, value: Tree) -> None:
    step, rest = place[0], place[1:]
    if isinstance(tree, dict) and isinstance(step, str):
        if rest:
            _put(tree.setdefault(step, {}), rest, value)
        else:
            tree[step] = value
    elif isinstance(tree, list) and isinstance(step, int) and step < len(tree):
        if rest:
            _put(tree[step], rest, value)
        else:
            tree[step] = value
    else:
        length = f"; it has {len(tree)} items, counted from 0" if isinstance(tree, list) else ""
        raise UsageError(f"the scenario has no {step!r} there{length}")
