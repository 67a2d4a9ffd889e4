"""A folder of deploy/ -> its objects, as `kubectl kustomize` builds them: resources, components, patches of RFC 6902.

Source: https://kubectl.docs.kubernetes.io/references/kustomize/kustomization; what else it knows, deploy/ does not use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

_KNOWN = {"apiVersion", "kind", "resources", "components", "patches"}


def deploy_folder() -> Path:
    """deploy/ as it comes with dnsprobe: at the top of a checkout, beside the code in a wheel."""
    package = Path(__file__).resolve().parent.parent
    return next(path for path in (package / "_deploy", package.parent / "deploy") if path.is_dir())


def build(folder: Path, objects: Sequence[Manifest] = ()) -> list[Manifest]:
    """The objects of a kustomization; of a component those and the `objects` that it is put on."""
    (told,) = _read(folder / "kustomization.yaml")
    assert told.keys() <= _KNOWN, f"{folder}: {told.keys() - _KNOWN}: not known here"  # noqa: S101
    built = [*objects]
    for name in told.get("resources", []):
        path = folder / name
        built += build(path) if path.is_dir() else _read(path)
    for name in told.get("components", []):
        built = build(folder / name, built)
    for patch in told.get("patches", []):
        (operations,) = _read(folder / patch["path"])
        target = patch["target"]
        for each in built:
            names = target.get("name", each["metadata"]["name"])
            if re.fullmatch(target["kind"], each["kind"]) and names == each["metadata"]["name"]:
                change(each, operations)
    return built


def _read(file: Path) -> list[Any]:
    return [each for each in yaml.safe_load_all(file.read_text(encoding="utf-8")) if each]


def change(thing: Manifest, operations: Iterable[Manifest]) -> None:
    """Apply a JSON patch, in place: add, replace, remove, move. KeyError, IndexError where a path leads nowhere."""
    for operation in operations:
        word = operation["op"]
        value = operation.get("value")
        if word == "move":
            value = _taken(thing, operation["from"])
        if word in ("remove", "replace"):
            _taken(thing, operation["path"])
        if word != "remove":
            _put(thing, operation["path"], value)


def _steps(pointer: str) -> list[str]:
    """Of a JSON pointer, RFC 6901."""
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _inside(thing: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        thing = thing[int(step)] if isinstance(thing, list) else thing[step]
    return thing


def _taken(thing: Any, pointer: str) -> Any:
    *way, last = _steps(pointer)
    holder = _inside(thing, way)
    return holder.pop(int(last) if isinstance(holder, list) else last)


def _put(thing: Any, pointer: str, value: Any) -> None:
    *way, last = _steps(pointer)
    holder = _inside(thing, way)
    if isinstance(holder, list):
        holder.insert(len(holder) if last == "-" else int(last), value)
    else:
        holder[last] = value
