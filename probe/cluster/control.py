"""Messages between a lab, or clock, and what started it: frozen dataclasses <-> bytes on an inherited socket pair."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from probe.cluster import Happened
from probe.cluster.rollout import Standing
from probe.cluster.settings import LabSettings
from probe.model import Target


@dataclass(frozen=True, slots=True)
class Build:
    """To the lab, first: what to build. `coredns` None: the stand-in. Answered by Built, or Refused."""

    settings: LabSettings
    coredns: Path | None


@dataclass(frozen=True, slots=True)
class Act:
    """To the lab: one of its ACTIONS, with its value. Answered by Done with what it was done to, or Refused."""

    word: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Built:
    """From the lab: all replicas are Ready and the Service answers. targets: all but pods. probers: see Network."""

    targets: tuple[Target, ...]
    probers: tuple[str, ...]
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Done:
    """From the lab: the last request was carried out."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """From the lab: a person asked for what cannot be (`usage`), or the machine cannot do it."""

    text: str
    usage: bool = False


Request = Build | Act
Answer = Built | Done | Refused
Message = Request | Answer | Happened | Standing
"""Unasked come Happened, and a Standing whenever the Deployment stands otherwise than before."""


def write(writer: asyncio.StreamWriter, message: Message) -> None:
    """One message: its length in four octets, and it pickled. Both ends are this program."""
    body = pickle.dumps(message)
    writer.write(len(body).to_bytes(4) + body)


async def read(reader: asyncio.StreamReader) -> Message | None:
    """The next message; None when the other side has gone."""
    try:
        length = int.from_bytes(await reader.readexactly(4))
        message: Message = pickle.loads(await reader.readexactly(length))  # noqa: S301
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return message
