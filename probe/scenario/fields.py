"""How keys of a scenario are read: from the text typed, by readers whose UsageError says what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, PlainValidator

from probe.errors import UsageError
from probe.model import NS
from probe.scenario.quantity import duration_ns, port_of

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}"

T = TypeVar("T")
Scalar = str | int | float | bool
"""What YAML makes of a single value that a person types."""


class Part(BaseModel):
    """A mapping in a scenario, with the keys that it may have."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def field_of(read: Callable[[str], T]) -> PlainValidator:
    """A field that is read from the text typed; what is allowed comes from the reader's UsageError."""

    def checked(value: object) -> T:
        if not isinstance(value, str):
            raise ValueError(f"a single value is expected here, not {shape_of(value)}")
        try:
            return read(value)
        except UsageError as problem:
            raise ValueError(str(problem)) from None

    return PlainValidator(checked, json_schema_input_type=Scalar)


def shape_of(value: object) -> str:
    """What a value is, for an error."""
    return "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else "a text"


def _name(text: str) -> str:
    if re.fullmatch(NAME, text):
        return text
    raise UsageError(f"{text!r}: a name has 1 to 60 letters, digits, dots, dashes and underlines")


def _truth(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "false", "no", "off"):
        return text.lower() in ("true", "yes", "on")
    raise UsageError(f"{text!r}: say true or false")


def _seconds(text: str) -> float:
    return duration_ns(text, most=3600 * NS) / NS


Name = Annotated[str, field_of(_name)]
Text = Annotated[str, field_of(str)]
Seconds = Annotated[float, field_of(_seconds)]
Port = Annotated[int, field_of(port_of)]
Truth = Annotated[bool, field_of(_truth)]
