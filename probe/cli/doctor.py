"""A context of the kubeconfig, if any, in; what this machine has of what dnsprobe uses, as text or JSON, out."""

from __future__ import annotations

import typer

from probe.cli import options
from probe.cli.output import say
from probe.doctor import examine
from probe.doctor.told import doctor_json, doctor_text, exit_code_of
from probe.errors import UsageError

EXAMPLES = options.examples(
    "dnsprobe doctor",
    "dnsprobe doctor --context prod --format json",
    "docker run --rm IMAGE doctor",
)
_FORMATS = {"text": doctor_text, "json": doctor_json}


def doctor(context: options.Context = None, form: options.CheckFormat = "text") -> None:
    """What has this machine of what dnsprobe uses? Kernel, limits, rights, CoreDNS, pictures, a cluster; what mends it.

    Sends nothing but to itself, and two questions to the API server. Exit codes: 0 runs go, 4 something is not there
    that every run needs.
    """
    if form not in _FORMATS:
        raise UsageError(f"--format {form!r}: say {', '.join(_FORMATS)}")
    examined = examine(context or "")
    say(_FORMATS[form](examined).rstrip("\n"))
    raise typer.Exit(exit_code_of(examined))
