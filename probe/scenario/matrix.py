"""The keys of a scenario's `matrix`, as they were read -> its axes: names, values, the settings each value puts in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from probe.scenario.document import Document, Place, Tree, path_text, place_of
from probe.scenario.fields import Part, Text, field_of, shape_of
from probe.scenario.quantity import whole

MOST_REPEATS = 100
MOST_JOBS = 64
NAME = "name"
"""The key of a mapping in an axis that is no setting."""

_Axis = Annotated[list[Any], Field(min_length=1)]


def repeats_of(text: str) -> int:
    """How often each cell is run."""
    return whole(text, 1, MOST_REPEATS, "the number of repeats")


def jobs_of(text: str) -> int:
    """How many cells run at a time."""
    return whole(text, 1, MOST_JOBS, "the number of jobs")


class MatrixKeys(Part):
    """What is swept."""

    repeats: Annotated[int, field_of(repeats_of)] = 3
    vary: Annotated[dict[str, _Axis], Field(min_length=1)]
    under: dict[str, _Axis] = Field({})
    longer_by: list[Text] = Field([])


@dataclass(frozen=True, slots=True)
class Value:
    """One value of an axis. settings: path -> what is put there, and where in the document it stands."""

    name: str
    settings: Mapping[str, tuple[Tree, Place]]


@dataclass(frozen=True, slots=True)
class Axis:
    """What is swept: a setting's path, or a name for several that go together."""

    name: str
    values: tuple[Value, ...]


def axes_of(keys: MatrixKeys, document: Document) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
    """vary and under, each in the order given. ScenarioError for what cannot be put in, or is put in twice."""
    sides = {"vary": keys.vary, "under": keys.under}
    found = {side: tuple(_axis(name, ("matrix", side, name), document) for name in sides[side]) for side in sides}
    owners: dict[Place, tuple[str, str]] = {}
    for side, axes in found.items():
        for axis in axes:
            for path, place in {p: at for v in axis.values for p, (_, at) in v.settings.items()}.items():
                for other, (of_side, of_axis) in owners.items():
                    if overlap(place_of(path), other) and (of_side, of_axis) != (side, axis.name):
                        said = f"{path} is swept twice: the axis {of_axis} of {of_side} sets {path_text(other)}"
                        raise document.error(place, said)
                owners[place_of(path)] = (side, axis.name)
    return found["vary"], found["under"]


def overlap(one: Place, other: Place) -> bool:
    """Whether setting one of them changes the other."""
    return one[: len(other)] == other or other[: len(one)] == one


def _axis(name: str, here: Place, document: Document) -> Axis:
    items: Any = document.tree
    for step in here:
        items = items[step]
    mappings = sum(isinstance(item, dict) for item in items)
    if mappings not in (0, len(items)):
        raise document.error(here, "say values of one setting, or mappings of several settings, not both")
    values = tuple(_value(name, item, (*here, i), document) for i, item in enumerate(items))
    for i, value in enumerate(values):
        if value.name in [former.name for former in values[:i]]:
            raise document.error((*here, i), f"{value.name!r} is there twice")
    return Axis(name, values)


def _value(axis: str, item: Tree, here: Place, document: Document) -> Value:
    if not isinstance(item, dict):
        _check_path(axis, here, document)
        return Value(shown(item), {axis: (item, here)})
    settings = {path: (value, (*here, path)) for path, value in item.items() if path != NAME}
    if not settings:
        raise document.error(here, "sets nothing: say what goes together, e.g. {lab.lameduck: 5s, duration: 20s}")
    for path, (_, place) in settings.items():
        _check_path(path, place, document)
    name = item.get(NAME, ", ".join(f"{path} {shown(value)}" for path, (value, _) in settings.items()))
    if not isinstance(name, str) or not name:
        raise document.error((*here, NAME), f"a text is expected here, not {shape_of(name) if name else 'nothing'}")
    return Value(name, settings)


def _check_path(path: str, here: Place, document: Document) -> None:
    place = place_of(path)
    if not place:
        raise document.error(here, f"{path!r}: say the path of a setting, e.g. lab.lameduck or lanes[0].rate")
    if place[0] == "matrix":
        raise document.error(here, f"{path!r}: a matrix does not sweep itself")


def shown(value: Tree) -> str:
    """`5s`, `[A, AAAA]`, `{to: 3}`."""
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {shown(inner)}' for key, inner in value.items())}}}"
    return value
