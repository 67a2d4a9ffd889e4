"""Patches about to be made -> a record of them in the cluster; records -> fields as they were, or what conflicts.

A record is a ConfigMap of its own in kube-system, without an owner, one key for each patch, in order.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass

from lightkube.resources.core_v1 import ConfigMap

from probe.cluster import Undone
from probe.cluster.kube.api import Api, Denied, Json, NoRight, NotFound, NotNow, NotSeen, Selection
from probe.cluster.kube.patches import Edit, Patch, Thing, difference, holds, operations, said_value, shown, value_at
from probe.errors import EnvironmentProblem

NAMESPACE = "kube-system"
PREFIX = "dnsprobe-undo-"
_LABELS = {"app.kubernetes.io/name": "dnsprobe", "dnsprobe/record": "undo"}
_TRIES = 5
"""How often fields are looked at anew when they change between the look and the patch."""


@dataclass(slots=True)
class Record:
    """What a run has changed, or was about to, in order. about: who and when, for people.

    stands: there may be a ConfigMap of it, even one that has more. moved: pods come or go for what was taken back.
    """

    name: str
    about: str
    patches: list[Patch]
    stands: bool = True
    moved: bool = False

    @property
    def selection(self) -> Selection:
        """Where it stands."""
        return Selection(ConfigMap, NAMESPACE, name=self.name)

    @property
    def data(self) -> dict[str, str]:
        """As the ConfigMap has it."""
        return {"about": self.about} | {f"{n:03}": json.dumps(asdict(patch)) for n, patch in enumerate(self.patches)}


async def records(api: Api) -> list[Record]:
    """All there are, by name."""
    found, _ = await api.list(Selection(ConfigMap, NAMESPACE, {"dnsprobe/record": "undo"}))
    return sorted((_read(str(one.metadata.name), one.data or {}) for one in found), key=lambda record: record.name)


def _read(name: str, data: dict[str, str]) -> Record:
    try:
        patches = [_patch_of(json.loads(text)) for key, text in sorted(data.items()) if key != "about"]
    except (ValueError, KeyError, TypeError) as problem:
        raise EnvironmentProblem(f"the record {NAMESPACE}/{name} is not understood: {problem!r}") from None
    return Record(name, data.get("about", ""), patches)


def _patch_of(said: Json) -> Patch:
    return Patch(Thing(**said["thing"]), tuple(Edit(**each) for each in said["edits"]))


async def add(api: Api, record: Record, patch: Patch) -> None:
    """Write down that this patch is about to be made."""
    stood, record.stands = record.stands, True
    record.patches.append(patch)
    try:
        if stood:
            await _write(api, record)
        else:
            await _create(api, record)
    except (NoRight, Denied):  # after anything else it may be written
        record.patches.pop()
        record.stands = stood
        raise


async def _create(api: Api, record: Record) -> None:
    meta = {"name": record.name, "namespace": NAMESPACE, "labels": _LABELS}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": record.data}
    await api.one("create", record.selection, body)


async def drop_last(api: Api, record: Record) -> None:
    """The patch that was to be made has been refused."""
    record.patches.pop()
    await _write(api, record)


async def _write(api: Api, record: Record) -> None:
    """It as it is now; none that is empty."""
    if record.patches:
        await api.one("patch", record.selection, [{"op": "replace", "path": "/data", "value": record.data}])
        return
    with suppress(NotFound):  # it was never created, or is deleted already: an answer was lost
        await api.one("delete", record.selection)
    record.stands = False


async def mend(api: Api, record: Record, tell: Callable[[str], None], last: int = 0) -> Undone:
    """Take back its patches, the last first (only so many, if `last` is given): fields that hold our value, no others.

    What conflicts stays in the record. EnvironmentProblem if the API cannot be had: then all that is left stays in it.
    Asked again, it does what is left, and says of the whole whether pods move.
    """
    conflicts: list[str] = []
    kept = record.patches[:-last] if last else []
    todo = record.patches[len(kept) :]
    left: list[Patch] = []
    for patch in reversed(todo):
        done, clashes = await _mend(api, patch)
        if done:
            tell(f"{patch.thing}: {shown([edit.back for edit in done])}")
            record.moved |= Patch(patch.thing, tuple(done)).moves
        if clashes:
            left.insert(0, Patch(patch.thing, tuple(edit for edit, _ in clashes)))
            conflicts += [text for _, text in clashes]
    record.patches[:] = [*kept, *left]
    await _write(api, record)
    return Undone(record.moved, tuple(conflicts))


async def _mend(api: Api, patch: Patch) -> tuple[list[Edit], list[tuple[Edit, str]]]:
    """The edits that were taken back, and those that someone else has overwritten."""
    for _ in range(_TRIES):
        try:
            said = await api.one("get", patch.thing.selection)
        except NotSeen as problem:
            return [], [(each, f"{patch.thing}: {problem}") for each in patch.edits]
        ours = [each for each in patch.edits if holds(said, each)]
        clashes = [
            (each, _conflict(patch.thing, each, theirs))
            for each in patch.edits
            if each not in ours and (theirs := value_at(said, each.path)) != each.before
        ]
        if not ours:
            return [], clashes
        try:
            await api.one("patch", patch.thing.selection, operations(said, [each.back for each in ours]))
        except NotNow as problem:
            refused = problem
            continue
        return ours, clashes
    raise refused


def _conflict(thing: Thing, edit: Edit, theirs: Json) -> str:
    """The field, ours, theirs."""
    if theirs == edit.after:
        said = f"what it was in is gone, before {said_value(edit.before)}"
    elif isinstance(theirs, str) and isinstance(edit.after, str) and "\n" in theirs:
        said = f"ours {difference(edit.before, edit.after)}; theirs, from that, {difference(edit.after, theirs)}"
    else:
        said = f"ours {said_value(edit.after)}, theirs {said_value(theirs)}, before {said_value(edit.before)}"
    return f"{thing} {edit.path}: {said}: left as it is"
