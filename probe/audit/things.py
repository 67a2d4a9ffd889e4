"""An object as the Kubernetes API says it -> its fields, each with the place where it stands, for evidence."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Json = Any
"""A value as the API says it; None for what it leaves out."""
_LONGEST = 200
_STEP = re.compile(r"\[([^]]+)]|([^.\[\]]+)")


def _shown(value: Json) -> str:
    """Lists and objects as JSON, up to 200 characters."""
    text = json.dumps(value) if isinstance(value, list | dict) else str(value)
    return "not set" if value is None else text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an object. value: None if it is not set."""

    thing: Thing
    path: str
    value: Json

    def __str__(self) -> str:
        """`deployment/coredns spec.replicas: 1`."""
        return f"{self.thing} {self.path}: {_shown(self.value)}"


@dataclass(frozen=True, slots=True)
class Thing:
    """An object. body: the whole of it, as the API says it."""

    kind: str
    namespace: str
    name: str
    body: Mapping[str, Json]

    @classmethod
    def of(cls, body: Mapping[str, Json]) -> Thing:
        """From its JSON, which has a kind and a name."""
        meta = body.get("metadata") or {}
        return cls(str(body["kind"]), str(meta.get("namespace") or ""), str(meta["name"]), body)

    def __str__(self) -> str:
        """`deployment/coredns`; with its namespace if that is not kube-system."""
        place = f" in {self.namespace}" if self.namespace and self.namespace != "kube-system" else ""
        return f"{self.kind.lower()}/{self.name}{place}"

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return self.at("metadata.labels") or {}

    @property
    def annotations(self) -> Mapping[str, str]:
        """Its annotations."""
        return self.at("metadata.annotations") or {}

    def at(self, path: str) -> Json:
        """What stands at `spec.template.spec.containers[0].image`, `metadata.labels[k8s-app]`; None if nothing does.

        In brackets stands a number, the value of a list entry's `name`, or a key with dots.
        """
        here: Json = self.body
        for step in _steps(path):
            # Every pod of a large cluster is looked at more than once: mostly these are dicts.
            here = here.get(step) if type(here) is dict else _into(here, step)
            if here is None:
                return None
        return here

    def field(self, path: str) -> Field:
        """The same, with its place."""
        return Field(self, path, self.at(path))


@lru_cache(maxsize=4096)
def _steps(path: str) -> tuple[str, ...]:
    return tuple(key or name for key, name in _STEP.findall(path))


def _into(here: Json, key: str) -> Json:
    if isinstance(here, Mapping):
        return here.get(key)
    if isinstance(here, list):
        if key.isdigit():
            return here[int(key)] if int(key) < len(here) else None
        return next((one for one in here if isinstance(one, Mapping) and one.get("name") == key), None)
    return None
