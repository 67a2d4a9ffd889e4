"""A scenario with a matrix -> its cells: every combination of what is swept, each with its checked plan."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from probe.cluster.lab import Lab
from probe.errors import ScenarioError, UsageError
from probe.model import NS
from probe.scenario.document import Document, override, parse_document, place_of, put
from probe.scenario.file import MOST_OCTETS, find_scenario, read_document
from probe.scenario.matrix import Axis, MatrixKeys, Value, axes_of, overlap, shown
from probe.scenario.plan import Plan, check_load
from probe.scenario.quantity import seconds_text
from probe.scenario.textfile import read_text

MOST_CELLS = 2_000


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination. number: from 1 on, in the order given; vary, under: the names of its values, by axis."""

    number: int
    vary: tuple[str, ...]
    under: tuple[str, ...]
    settings: tuple[str, ...]
    plan: Plan = field(compare=False)

    @property
    def name(self) -> str:
        """`lab.lameduck=5s duration=20s`: what it puts into the scenario."""
        return " ".join(self.settings)


@dataclass(frozen=True, slots=True)
class Matrix:
    """What is swept. vary: what one can choose; under: the circumstances, with an answer for each combination of them.

    text: the scenario as given, with what was set.
    """

    name: str
    text: str
    vary: tuple[Axis, ...]
    under: tuple[Axis, ...]
    repeats: int
    cells: tuple[Cell, ...]


def read_matrix(path: str, settings: list[str]) -> Matrix | None:
    """A file, or a shipped scenario's name -> its matrix with every cell checked, None if it has none."""
    file = find_scenario(path)
    text = read_text(str(file), "a scenario in YAML", MOST_OCTETS)
    return read_matrix_text(str(file), text, settings)


def read_matrix_text(name: str, text: str, settings: list[str]) -> Matrix | None:
    """read_matrix() from text; `name` stands for the file in errors."""
    for setting in settings:
        if place_of(setting.partition("=")[0])[:1] == ("matrix",):
            raise UsageError(f"--set {setting}: a matrix is changed in its file; --repeats says how often it is run")
    document = override(parse_document(name, text), settings)
    base = read_document(document, text, settings)
    if not isinstance(document.tree, dict) or "matrix" not in document.tree:
        return None
    keys = MatrixKeys.model_validate(document.tree["matrix"])
    vary, under = axes_of(keys, document)
    _check_free(settings, (*vary, *under), document)
    n = math.prod(len(axis.values) for axis in (*vary, *under))
    if n > MOST_CELLS:
        raise document.error(("matrix",), f"{n:,} cells; {MOST_CELLS:,} are the most: sweep fewer values at a time")
    combinations = itertools.product(
        itertools.product(*(axis.values for axis in under)), itertools.product(*(axis.values for axis in vary))
    )
    cells = tuple(
        _cell(i, chosen, around, document, keys, base.scenario) for i, (around, chosen) in enumerate(combinations, 1)
    )
    return Matrix(base.name, base.scenario, vary, under, keys.repeats, cells)


def _check_free(settings: list[str], axes: Sequence[Axis], document: Document) -> None:
    """UsageError if a setting is both swept and set."""
    for setting in settings:
        mine = place_of(setting.partition("=")[0])
        for path, (_, place) in [one for axis in axes for value in axis.values for one in value.settings.items()]:
            if overlap(mine, place_of(path)):
                where = document.said(place, "").removesuffix(": ")
                raise UsageError(f"--set {setting}: leave it out: the matrix sets {path} itself, at {where}")


def _cell(
    number: int, vary: Sequence[Value], under: Sequence[Value], document: Document, keys: MatrixKeys, text: str
) -> Cell:
    """The scenario without its matrix, with these values put in, and long enough for them."""
    mine, settings = _filled((*under, *vary), document)
    try:
        plan = read_document(mine, text, settings)
        if keys.longer_by:
            lasts_ns = plan.duration_ns + sum(
                _more_ns(path, i, plan, document) for i, path in enumerate(keys.longer_by)
            )
            longer = seconds_text(lasts_ns).replace(" ", "")
            put(mine, ("duration",), longer, document.origins["matrix", "longer_by"])
            settings = [*(s for s in settings if not s.startswith("duration=")), f"duration={longer}"]
            plan = read_document(mine, text, settings)
        document.at(("matrix",), partial(Lab, plan.lab))
        check_load(plan)
    except UsageError as problem:
        raise ScenarioError(f"{problem} (cell {number}: {' '.join(settings)})") from None
    plan = replace(plan, facts={**plan.facts, "cell": f"{number}: {' '.join(settings)}"})
    return Cell(number, tuple(v.name for v in vary), tuple(v.name for v in under), tuple(settings), plan)


def _filled(values: Sequence[Value], document: Document) -> tuple[Document, list[str]]:
    """A copy of the document without its matrix, and what was put into it: PATH=VALUE."""
    tree = copy.deepcopy(document.tree)
    if isinstance(tree, dict):
        del tree["matrix"]
    mine, settings = Document(document.name, tree, dict(document.origins)), []
    for path, (value, place) in [one for chosen in values for one in chosen.settings.items()]:
        origin = document.said(place, "").partition(": ")[0]
        document.at(place, partial(put, mine, place_of(path), copy.deepcopy(value), origin))
        settings.append(f"{path}={shown(value)}")
    return mine, settings


def _more_ns(path: str, i: int, plan: Plan, document: Document) -> int:
    """How long a setting of the lab is in this cell."""
    value = getattr(plan.lab, path.removeprefix("lab."), None) if path.startswith("lab.") else None
    if path == "lab.propagation":
        value = max(delay.longest for delay in plan.lab.propagation)
    if not isinstance(value, float):
        said = f"{path!r}: say a duration of the lab that every cell has, e.g. lab.lameduck"
        raise document.error(("matrix", "longer_by", i), said)
    return round(value * NS)
