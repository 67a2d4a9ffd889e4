"""A run file, or the message of a client, in; the cause of what was lost, how sure that is and its remedy, out."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from probe.advice import platform_of
from probe.cli import options
from probe.cli.files import check_json, write_json
from probe.cli.options import advising
from probe.cli.output import say
from probe.diagnosis import diagnose
from probe.diagnosis.messages import meaning_of
from probe.diagnosis.querylog import Logged, read_log
from probe.errors import EXIT_INCONCLUSIVE, EXIT_PASS, UsageError
from probe.model import NS, Sure
from probe.report.explain import explain_json, explain_text, meaning_text
from probe.runfile import open_run
from probe.scenario.quantity import DAY_NS, duration_ns
from probe.scenario.textfile import lines_of
from probe.timeline import Timeline

EXAMPLES = options.examples(
    "dnsprobe explain run.db",
    "dnsprobe explain run.db --platform eks --json - | jq '.diagnoses[].findings[0]'",
    "kubectl -n kube-system logs -l k8s-app=kube-dns --tail=-1 > dns.log; dnsprobe explain run.db --log dns.log",
    "dnsprobe explain --error 'dial tcp: lookup x on 10.96.0.10:53: read udp ...: i/o timeout' --took 10s",
)


def explain(
    file: advising.ExplainedFile = "",
    error: advising.ErrorText = "",
    took: advising.Took = "",
    platform: advising.PlatformName = "kubeadm",
    log: advising.QueryLog = "",
    json_file: options.JsonFile = "",
) -> None:
    """Why was it lost, and what mends it? By lanes, pods' ends and what others counted; or what a message means.

    Exit codes: 0 said, 3 a cause could not be told from others, or the message is not known.
    """
    if bool(file) == bool(error):
        raise UsageError("say a run file, or --error with the message of a client: one of them")
    if error:
        raise typer.Exit(_message(error, took))
    if took:
        raise UsageError("--took goes with --error: how long that lookup took")
    options.typed("--platform", platform, platform_of)
    check_json(json_file, Path(file), Path(log))
    run, lines = open_run(file), _log(log) if log else None
    found = diagnose(Timeline.of(run), platform)
    say(explain_text(run, found, lines).rstrip("\n"), sys.stderr if json_file == "-" else sys.stdout)
    if json_file:
        write_json(json_file, explain_json(run, found, lines).rstrip("\n"), f"the run file is {file}")
    unsure = any(d.finding.sure is Sure.UNDETERMINED for d in found)
    raise typer.Exit(EXIT_INCONCLUSIVE if unsure else EXIT_PASS)


def _message(error: str, took: str) -> int:
    lasted = options.typed("--took", took, lambda text: duration_ns(text, 0, DAY_NS)) / NS if took else None
    meaning = meaning_of(error, lasted)
    say(meaning_text(meaning, lasted).rstrip("\n"))
    return EXIT_PASS if meaning else EXIT_INCONCLUSIVE


def _log(path: str) -> list[Logged]:
    """UsageError for what cannot be read, or has no query in it."""
    lines = read_log(line.decode(errors="replace") for line in lines_of(path, "CoreDNS's log"))
    if not lines:
        raise UsageError(f"--log {path}: no line of CoreDNS's query log in it: is `log` in the Corefile?")
    return lines
