"""Objects as the API says them, and what a field is to be -> JSON patches that change that field and nothing else.

A field is named as in a JSON pointer (RFC 6901), but for lists, where an element goes by its `name`:
`/spec/template/spec/containers/coredns/image`. A patch tests what it replaces (RFC 6902, `test`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass

from lightkube.resources.apps_v1 import DaemonSet, Deployment
from lightkube.resources.core_v1 import ConfigMap, Node, Pod, Service

from probe.cluster.kube.api import Json, Selection
from probe.cluster.kube.corefile import changed_lines
from probe.errors import EnvironmentProblem

_KINDS = {kind.__name__: kind for kind in (Deployment, DaemonSet, ConfigMap, Node, Service, Pod)}


@dataclass(frozen=True, slots=True)
class Thing:
    """Which object: its kind, its namespace ('' for a node), its name."""

    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, kind: str, said: Json) -> Thing:
        """The one that the API says."""
        return cls(kind, said["metadata"].get("namespace", ""), said["metadata"]["name"])

    @property
    def selection(self) -> Selection:
        """As the API is asked for it."""
        return Selection(_KINDS[self.kind], self.namespace, name=self.name)

    @property
    def words(self) -> str:
        """As kubectl is told of it: `deployment coredns -n kube-system`."""
        return f"{self.kind.lower()} {self.name}{f' -n {self.namespace}' if self.namespace else ''}"

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Edit:
    """One field: what it was, and what it becomes; None is no such field."""

    path: str
    before: Json
    after: Json

    @property
    def back(self) -> Edit:
        """The same, taken back."""
        return Edit(self.path, self.after, self.before)


@dataclass(frozen=True, slots=True)
class Patch:
    """Fields of one object. `lasting`: it is to be taken back."""

    thing: Thing
    edits: tuple[Edit, ...]
    lasting: bool = True

    @property
    def backwards(self) -> tuple[Edit, ...]:
        """Its edits, taken back."""
        return tuple(edit.back for edit in self.edits)

    @property
    def moves(self) -> bool:
        """Whether pods come or go for it."""
        return self.rolls or any(edit.path == "/spec/replicas" for edit in self.edits)

    @property
    def rolls(self) -> bool:
        """Whether all pods are replaced for it."""
        return any(edit.path.startswith("/spec/template/") for edit in self.edits)


@dataclass(frozen=True, slots=True)
class Deletion:
    """A pod is told to go; `force`: it is killed."""

    thing: Thing
    force: bool = False


@dataclass(frozen=True, slots=True)
class Eviction:
    """A pod is told to go if its PodDisruptionBudget allows it."""

    thing: Thing

    @property
    def body(self) -> Json:
        """What is sent to the pod's `eviction`."""
        meta = {"name": self.thing.name, "namespace": self.thing.namespace}
        return {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}


Request = Patch | Deletion | Eviction


def _parts(path: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def pointer_part(key: str) -> str:
    """A key as it stands in a path."""
    return key.replace("~", "~0").replace("/", "~1")


def _walk(said: Json, path: str) -> Iterator[tuple[str, Json]]:
    """Each part of the path as a JSON pointer has it, and what is there; less parts where one is missing."""
    for part in _parts(path):
        key: str | int = part
        if isinstance(said, list):
            key = next((n for n, each in enumerate(said) if each.get("name") == part), len(said))
            said = said[key] if key < len(said) else None
        else:
            said = said.get(part)
        yield pointer_part(str(key)), said
        if said is None:
            return


def value_at(said: Json, path: str) -> Json:
    """What stands there; None for nothing."""
    walked = list(_walk(said, path))
    return walked[-1][1] if len(walked) == len(_parts(path)) else None


def holds(said: Json, made: Edit) -> bool:
    """Whether the field is as the edit made it, in what it was in: without that, a field that was removed is lost."""
    return len(list(_walk(said, made.path))) == len(_parts(made.path)) and value_at(said, made.path) == made.after


def edit(said: Json, path: str, after: Json) -> Edit | None:
    """What makes a field so; None if it is so already. Where a parent is missing, that one is made."""
    before = value_at(said, path)
    if before == after:
        return None
    keys, there = path.split("/"), 1 + len(list(_walk(said, path)))
    for key in reversed(keys[there:]):
        after = {_parts(f"/{key}")[0]: after}
    return Edit("/".join(keys[:there]), before, after)


def operations(said: Json, edits: Iterable[Edit]) -> list[Json]:
    """Edits of an object as it is now, as a JSON patch; EnvironmentProblem if what they are in is gone."""
    found: list[Json] = []
    for each in edits:
        walked, pointer, parts = said, "", _parts(each.path)
        for part, (step, there) in zip(parts, _walk(said, each.path), strict=False):
            pointer += f"/{step}"
            named = {"op": "test", "path": f"{pointer}/name", "value": part}
            if isinstance(walked, list) and named not in found:
                found.append(named)
            walked = there
        if pointer.count("/") < len(parts):
            raise EnvironmentProblem(f"{each.path}: there is no such place any more")
        found.append({"op": "test", "path": pointer, "value": each.before})
        if each.after is None:
            found.append({"op": "remove", "path": pointer})
        else:
            found.append({"op": "add" if each.before is None else "replace", "path": pointer, "value": each.after})
    return found


def edited(said: Json, edits: Iterable[Edit]) -> Json:
    """The object as it is then."""
    made = deepcopy(said)
    for each in edits:
        *parents, last = each.path.rsplit("/", 1)
        inside, key = value_at(made, parents[0]) if parents[0] else made, _parts(f"/{last}")[0]
        if each.after is None:
            inside.pop(key, None)
        else:
            inside[key] = each.after
    return made


def kubectl(request: Request, said: Json = None) -> str:
    """A request as one would type it; said: the object that a patch is for."""
    thing = request.thing
    if isinstance(request, Patch):
        patch = json.dumps(operations(said, request.edits))
        return f"kubectl patch {thing.words} --type=json -p {shlex.quote(patch)}"
    if isinstance(request, Deletion):
        how = " --grace-period=0 --force" if request.force else " --wait=false"
        return f"kubectl delete {thing.words}{how}"
    path = f"/{thing.selection.path}/eviction"
    return f"kubectl create --raw {path} -f - <<< {shlex.quote(json.dumps(request.body))}"


def shown(edits: Sequence[Edit]) -> str:
    """`/spec/replicas: 3 -> 2`, of a text the lines that differ, for people."""
    return ", ".join(f"{each.path}: {difference(each.before, each.after)}" for each in edits)


def difference(before: Json, after: Json) -> str:
    """From one value to the other."""
    if isinstance(before, str) and isinstance(after, str) and "\n" in before:
        return changed_lines(before, after)
    return f"{said_value(before)} -> {said_value(after)}"


def said_value(value: Json) -> str:
    """A field's value for people, up to 200 characters."""
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
