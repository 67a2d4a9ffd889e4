"""YAML or JSON files, as kubectl or --save wrote them -> a Snapshot; and a Snapshot -> such a file.

A file that --save wrote opens with a document that says what was read; of others it is known only what is in them, so
that a kind of which there is nothing may be absent, or not exported: it counts as not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from probe.audit.snapshot import ANYWHERE, SYSTEM, Snapshot
from probe.audit.things import Json, Thing
from probe.cluster.kube.snapshot import CONFIGS, KINDS, named_by, problem_of
from probe.errors import UsageError

_HEAD = "DnsprobeSnapshot"
_SUFFIXES = (".yaml", ".yml", ".json")
_WIDE = ("Service", "EndpointSlice", "Pod", "StatefulSet", "NetworkPolicy")
EXPORT = (
    "kubectl get services,endpointslices,pods,statefulsets,networkpolicies,deployments,daemonsets,replicasets,"
    "poddisruptionbudgets,horizontalpodautoscalers,serviceaccounts,events -A -o yaml > cluster.yaml"
)
MOST_DEPTH = 1000
MOST_OCTETS = 1 << 28
MOST_DATA = 1 << 20
"""Octets of a ConfigMap (pkg/apis/core/validation, MaxSecretSize)."""
_INDENTED = re.compile(f"^[ \\t?:-]{{{MOST_DEPTH}}}", re.MULTILINE)
_STEPS = re.compile(r"\.([^.\[\]]+)|\[([0-9]+)]")


_LONG = 5_000_000
"""Characters of a file that is too large to look for a line in it: that takes a minute."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Times and `=` stay text, as in JSON."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, how) for tag, how in resolvers if tag.rpartition(":")[2] not in ("timestamp", "value")]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def read_files(paths: Sequence[Path], named: tuple[str, str] | None = None) -> Snapshot:
    """Files, and those of folders. UsageError names the file, the line, the value and what to do."""
    files = [file for path in paths for file in _files_of(path)]
    read = _Read()
    for file in files:
        read.file(file)
    if not read.things:
        what = ", ".join(map(str, paths))
        raise UsageError(f"{what}: no object of a cluster in it: write one with `dnsprobe audit --save` or {EXPORT}")
    things = tuple(_kept(list(read.things.values())))
    head = read.head
    return Snapshot(
        things=things,
        unread=dict(head["unread"]) if head else _missing(things, ", ".join(file.name for file in files)),
        version=str(head.get("version") or ""),
        taken=str(head.get("taken") or ""),
        named=named,
        source=", ".join(map(str, files)),
    )


def write_text(snapshot: Snapshot, name: str) -> str:
    """What --save writes: JSON if the name ends so, which is read sooner, else YAML."""
    head = {
        "apiVersion": "dnsprobe/v1",
        "kind": _HEAD,
        "version": snapshot.version,
        "taken": snapshot.taken,
        "source": snapshot.source,
        "unread": dict(snapshot.unread),
    }
    items = [dict(thing.body) for thing in snapshot.things]
    if name.endswith(".json"):
        return json.dumps({**head, "items": items}, ensure_ascii=False) + "\n"
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    listed = {"apiVersion": "v1", "kind": "List", "items": items}
    plain = [json.loads(json.dumps(one)) for one in (head, listed)]  # what is shared would be written as an alias
    return str(yaml.dump_all(plain, Dumper=dumper, sort_keys=False, allow_unicode=True, width=10_000))


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(one for one in path.iterdir() if one.suffix in _SUFFIXES and one.is_file())
        if not found:
            raise UsageError(f"{path}: no {', '.join(_SUFFIXES)} in it")
        return found
    return [path]


@dataclass(slots=True)
class _Read:
    """What has been read so far: objects by kind, namespace and name, the last of equal ones; what --save said."""

    things: dict[tuple[str, str, str], Thing] = field(default_factory=dict)
    head: dict[str, Json] = field(default_factory=dict)

    def file(self, path: Path) -> None:
        """One file."""
        try:
            with path.open("rb") as file:
                raw = file.read(MOST_OCTETS + 1)
            if len(raw) > MOST_OCTETS:
                raise UsageError(f"{path}: longer than {MOST_OCTETS:,} octets: export fewer objects")
            text = raw.decode("utf-8")
        except OSError as problem:
            raise UsageError(
                f"{path}: cannot be read: {problem.strerror}; name what --save or kubectl get -o yaml wrote"
            ) from None
        except UnicodeDecodeError as problem:
            raise UsageError(f"{path}: not text in UTF-8: octet {problem.start}") from None
        for number, document in enumerate(_documents(path, text)):
            for place, body in _objects(document, ()):
                self._object(_Place(path, text, number, place), body)

    def _object(self, place: _Place, body: Json) -> None:
        if not isinstance(body, dict):
            raise place.error("", f"{_short(body)}: not an object of Kubernetes")
        kind = body.get("kind")
        if kind == _HEAD:
            self._saved(place, body)
            return
        if not isinstance(kind, str):
            raise place.error("", "an object without its kind: export it with kubectl get ... -o yaml")
        if kind not in KINDS:  # Secrets are not kept, and nothing else that no check goes by
            return
        meta = body.get("metadata")
        if not isinstance(meta, dict) or not isinstance(meta.get("name"), str):
            raise place.error(".metadata", f"a {kind} without a name: export it with kubectl get ... -o yaml")
        if problem := problem_of(kind, body):
            said, _, path = problem.partition(" - at `$")
            raise place.error(path.rstrip("`"), f"{kind} {meta['name']}: {said}: export it again")
        if kind == "ConfigMap" and sum(map(len, (body.get("data") or {}).values())) > MOST_DATA:
            raise place.error(
                ".data", f"{kind} {meta['name']}: more than {MOST_DATA:,} characters: no API server has such"
            )
        thing = Thing.of(body)
        self.things[thing.kind, thing.namespace, thing.name] = thing

    def _saved(self, place: _Place, body: Mapping[str, Json]) -> None:
        unread = body.get("unread") or {}
        if not isinstance(unread, dict) or not all(isinstance(why, str) for why in unread.values()):
            raise place.error(".unread", f"{_short(unread)}: say kinds, and why they were not read")
        self.head = {**body, "unread": {**self.head.get("unread", {}), **unread}}


@dataclass(frozen=True, slots=True)
class _Place:
    """An object in a file: in which of its documents, and where in that."""

    file: Path
    text: str
    document: int
    place: tuple[str | int, ...]

    def error(self, path: str, text: str) -> UsageError:
        """With the line of what stands at `.spec.replicas` in it, or of what is nearest to that."""
        steps = [*self.place, *(name or int(index) for name, index in _STEPS.findall(path))]
        where = path.lstrip(".")
        line = f": object {self.place[-1]}" if self.place else ""
        if len(self.text) < _LONG:
            with suppress(yaml.YAMLError):  # not every text in JSON is one in YAML
                line = f":{self._line(steps)}"
        return UsageError(f"{self.file}{line}: {f'{where}: ' if where else ''}{text}")

    def _line(self, steps: Sequence[str | int]) -> int:
        nodes = yaml.compose_all(self.text, _Loader)
        node: Any = next(node for number, node in enumerate(nodes) if number == self.document)
        for step in steps:
            inner = _inside(node, step)
            if inner is None:
                break
            node = inner
        return int(node.start_mark.line) + 1


def _inside(node: Any, step: str | int) -> Any:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == step), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step]
    return None


def _documents(path: Path, text: str) -> Iterator[Json]:
    """Its documents; UsageError names the line of bad YAML."""
    if text.lstrip()[:1] == "{":
        try:
            yield json.loads(text)
        except json.JSONDecodeError:
            pass  # a flow mapping of YAML, or several
        except RecursionError:
            raise UsageError(f"{path}: nested too deeply to be of a cluster") from None
        else:
            return
    try:
        if ("&" in text and "*" in text) or _may_be_deep(text):
            _check_events(path, text)
        yield from yaml.load_all(text, _Loader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{line}: not valid YAML: {problem.problem}") from None
    except yaml.reader.ReaderError as problem:
        line_of = text.count("\n", 0, problem.position) + 1
        raise UsageError(f"{path}:{line_of}: not valid YAML: {problem.reason}") from None
    except (RecursionError, ValueError) as problem:
        raise UsageError(f"{path}: not valid YAML of a cluster: {type(problem).__name__}") from None


def _may_be_deep(text: str) -> bool:
    """Whether values may be nested by the thousand: the loader, which is C, would end this process."""
    return text.count("[") + text.count("{") > MOST_DEPTH or bool(_INDENTED.search(text))


def _check_events(path: Path, text: str) -> None:
    """A few lines of aliases can stand for billions of objects; kubectl writes none, and nothing that is so deep."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        line = f":{event.start_mark.line + 1}" if event.start_mark else ""
        if isinstance(event, yaml.AliasEvent):
            raise UsageError(f"{path}{line}: *{event.anchor}: an alias: kubectl writes none")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise UsageError(f"{path}{line}: nested too deeply to be of a cluster")


def _objects(document: Json, place: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Json]]:
    """A document's object, or those of its list, which may leave out the kind: PodList."""
    if document is None:
        return
    kind = document.get("kind") if isinstance(document, dict) else None
    if not isinstance(document, dict) or "items" not in document or not isinstance(document["items"], list):
        yield place, document
        return
    if kind == _HEAD:
        yield place, {name: value for name, value in document.items() if name != "items"}
    of = str(kind or "").removesuffix("List")
    for n, item in enumerate(document["items"]):
        whole = {"kind": of, **item} if of in KINDS and isinstance(item, dict) else item
        yield from _objects(whole, (*place, "items", n))


def _kept(things: Sequence[Thing]) -> Iterable[Thing]:
    """All but ConfigMaps that have nothing to do with cluster DNS."""
    workloads = [one for one in things if one.kind in ("Deployment", "DaemonSet")]
    named = {(one.namespace, name) for one in workloads for name in named_by(dict(one.body))}
    for one in things:
        known = one.name in CONFIGS or (one.namespace, one.name) in named or "Corefile" in (one.at("data") or {})
        if one.kind != "ConfigMap" or known:
            yield one


def _missing(things: Sequence[Thing], files: str) -> dict[str, str]:
    """Kinds of which there is nothing, or nothing outside of kube-system."""
    there = {one.kind for one in things}
    outside = {one.kind for one in things if one.namespace not in ("", SYSTEM)}
    why = f"in {files}: there is none, or it was not exported"
    unread = {kind: f"no {kind} {why}" for kind in KINDS if kind not in there}
    if "KubeadmControlPlane" in unread:
        unread["KubeadmControlPlane"] = f"no KubeadmControlPlane {why}; it is in the management cluster"
    for kind in _WIDE:
        if kind in there and kind not in outside:
            unread[f"{kind} in {ANYWHERE}"] = f"{kind}s of kube-system alone are in {files}: export them with -A"
    return unread


def _short(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
