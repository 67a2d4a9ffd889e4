"""What was examined -> a page of text, or one JSON object.

JSON: schema_version; ready: whether runs have all that they need; exit_code; facts{}: dnsprobe, python, kernel;
examined[]: id, area, state (ok, less or missing), found, gives, mend ('' where nothing is to be done).
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from probe import __version__
from probe.doctor import missing
from probe.doctor.examination import Examined, State
from probe.errors import EXIT_ENVIRONMENT, EXIT_PASS
from probe.report.columns import wrapped
from probe.report.units import plain

SCHEMA_VERSION = 1


def exit_code_of(examined: Sequence[Examined]) -> int:
    """0, or 4 if something is not there that runs need."""
    return EXIT_ENVIRONMENT if missing(examined) else EXIT_PASS


def facts() -> Mapping[str, str]:
    """With what this is."""
    return {
        "dnsprobe": __version__,
        "python": platform.python_version(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def doctor_text(examined: Sequence[Examined]) -> str:
    """About 110 columns; ends with a newline."""
    lacking, less = missing(examined), [each for each in examined if each.state is State.LESS]
    names = ", ".join(each.id for each in lacking or less)
    said = "NOT READY: no run goes without" if lacking else "READY: runs go; not there:"
    lines = [
        f"{said} {names}" if names else "READY: all is there",
        ", ".join(f"{name} {text}" for name, text in facts().items()),
    ]
    width = max(len(each.id) for each in examined)
    for area in dict.fromkeys(each.area for each in examined):
        lines += ["", area]
        for each in [one for one in examined if one.area == area]:
            indent = f"  {each.state:<7}  {each.id:<{width}}  "
            lines += _beside(indent, each.found)
            if each.state is not State.OK:
                lines += [*_beside(" " * len(indent), f"gives {each.gives}"), f"{'':{len(indent)}}mend: {each.mend}"]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _beside(first: str, text: str) -> list[str]:
    """Its lines, `first` before the first of them."""
    lines = list(wrapped(plain(text), len(first)))
    return [first + lines[0].lstrip(), *lines[1:]]


def doctor_json(examined: Sequence[Examined]) -> str:
    """The same for programs; ends with a newline."""
    told = {
        "schema_version": SCHEMA_VERSION,
        "ready": not missing(examined),
        "exit_code": exit_code_of(examined),
        "facts": dict(facts()),
        "examined": [asdict(each) | {"state": each.state.name.lower()} for each in examined],
    }
    return json.dumps(told, indent=2) + "\n"
