"""Words of a command line -> the values a command gets; the options that many commands share, with their help."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from probe.errors import UsageError

T = TypeVar("T")

SCENARIO, RESULT = "A scenario", "What comes of it"
MANY = "Many processes, many machines"
SCHEMA_HELP = "Print the JSON Schema of a scenario, for editors that complete and check YAML."
LAB_HELP = "Run it in the lab: CoreDNS pods and a Service on this machine (lab.backend)."
CONTEXT_HELP = "Of the kubeconfig: which cluster (default the current one, or the one whose pod this is)."
SERVICE_HELP = "Of the cluster: its DNS (default kube-system's with the label k8s-app=kube-dns)."
JOB_HELP = "job/NAME: the Job whose runs are to end, with their reports."
HOME_HELP = "Its namespace (default dnsprobe)."
STOP_HELP = "How long its pods have to say that they heard it (default 30s)."
OUT_HELP = "The run file (default dnsprobe-NAME-TIME.db in this folder)."
JSON_HELP = "Write the report as JSON, too; - is stdout."
CLUSTER_HELP = "The name of the cluster that may be changed: the context's; in a pod the UID of namespace kube-system."
OneText = str | None
Texts = list[str] | None
OneFlag = bool | None


def option(panel: str, letter: str, word: str, metavar: str, text: str) -> Any:
    """An option with a value. Its default is said in its help, for None means that it was left out."""
    names = [name for name in (letter, word) if name]
    return typer.Option(*names, metavar=metavar, help=text, rich_help_panel=panel, show_default=False)


def flag(panel: str, letter: str, word: str, text: str) -> Any:
    """An option without a value; a default of None tells that it was left out."""
    names = [name for name in (letter, word) if name]
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False)


InLab = Annotated[bool, flag(SCENARIO, "", "--lab", LAB_HELP)]
Context = Annotated[OneText, option(SCENARIO, "", "--context", "NAME", CONTEXT_HELP)]
ServiceName = Annotated[OneText, option(SCENARIO, "", "--service", "NAMESPACE/NAME", SERVICE_HELP)]
UndoYes = Annotated[bool, flag(SCENARIO, "", "--yes", "Take it back; with --cluster.")]
ClusterName = Annotated[str, option(SCENARIO, "", "--cluster", "NAME", CLUSTER_HELP)]
Settings = Annotated[Texts, option(SCENARIO, "", "--set", "PATH=VALUE", "Change a value; repeatable.")]
JobName = Annotated[str, typer.Argument(metavar="job/NAME", help=JOB_HELP, show_default=False)]
Namespace = Annotated[str, option(MANY, "-n", "--namespace", "NAME", HOME_HELP)]
StopWait = Annotated[str, option(MANY, "", "--wait", "TIME", STOP_HELP)]
RunFile = Annotated[str, option(RESULT, "-o", "--out", "FILE", OUT_HELP)]
MergedFile = Annotated[str, option(RESULT, "-o", "--out", "FILE", "The run file that is written.")]
JsonFile = Annotated[str, option(RESULT, "", "--json", "FILE", JSON_HELP)]
Schema = Annotated[bool, flag(RESULT, "", "--schema", SCHEMA_HELP)]
CheckFormat = Annotated[str, option(RESULT, "", "--format", "FORMAT", "text or json (default text).")]
KeptFile = Annotated[str, option(RESULT, "-o", "--out", "FILE", "Keep what was asked as a run file (default none).")]


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def given(**values: Any) -> dict[str, Any]:
    """Those of them that were typed: what was left out is None."""
    return {name: value for name, value in values.items() if value is not None}


def typed(letter: str, text: str, read: Callable[[str], T]) -> T:
    """What was typed; UsageError names the option."""
    try:
        return read(text)
    except UsageError as problem:
        raise UsageError(f"{letter} {problem}") from None


def job_of(text: str) -> str:
    """The name in `job/NAME`, or alone."""
    if match := re.fullmatch(r"(?:jobs?(?:\.batch)?/)?([a-z0-9][a-z0-9.-]{0,62})", text):
        return match[1]
    raise UsageError(f"{text!r}: say job/NAME")


def command_line() -> str:
    """What was typed in all, for the run file."""
    return shlex.join(["dnsprobe", *sys.argv[1:]])
