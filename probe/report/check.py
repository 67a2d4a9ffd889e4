"""A Checkup and its causes -> one screen of text, or one JSON object.

JSON: schema_version; state: ok, broken, unknown or no_api; exit_code; headline; seconds: how long it took; paths[]:
target, kind, address, transport, outside (for names outside the cluster), state (ok, slow, LOSS, DEAD or ?), asked,
answered, p50_seconds, worst_seconds, outcome; api{}: server, version, asked, seconds[] (one for each answer), reached,
problem; causes[]: id, severity, text, evidence, remedy; resolver{}: null outside a pod, else nameservers[], ignored[]
(beyond the third), search[], ndots, timeout, attempts, options[], says[]; intercepted[]; blind; not_seen[]; facts{}. A
duration without a sample is null.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from probe.advice.checkup import ApiServer, Checkup, Path, State
from probe.diagnosis.checked import APART, exit_code_of
from probe.errors import EXIT_ENVIRONMENT, EXIT_INCONCLUSIVE, EXIT_MISSED, EXIT_PASS
from probe.model import NS, Finding, TargetKind
from probe.outcome import REPLIED, Outcome
from probe.report.columns import Row, table
from probe.report.units import duration, plain

WIDTH = 80
SCHEMA_VERSION = 1
_ALL_BROKEN = "BROKEN: every path to DNS"
PODS_SHOWN = 4
"""Of more pods that are well only their number is said."""
_STATES = {EXIT_PASS: "ok", EXIT_MISSED: "broken", EXIT_INCONCLUSIVE: "unknown", EXIT_ENVIRONMENT: "no_api"}
_KINDS = {
    TargetKind.SERVICE: "Service",
    TargetKind.POD: "pod",
    TargetKind.NODELOCAL: "NodeLocal",
    TargetKind.UPSTREAM: "upstream",
    TargetKind.NODE: "node",
    TargetKind.API: "API server",
    TargetKind.SERVER: "",
}
_NONE = ("", "", "")


def headline(seen: Checkup, causes: Sequence[Finding]) -> str:
    """The one line that a person reads at night."""
    broken, n = seen.broken, len(seen.paths)
    match _STATES[exit_code_of(seen, causes)]:
        case "ok":
            idle = [path for path in seen.paths if path.state is State.DEAD or path.state is State.LOSS]
            if idle:
                return f"OK: {n - len(idle)} of {n} paths answered; CoreDNS itself has its answers from that upstream"
            return f"OK: all {n} paths answered"
        case "broken":
            return _fitting(f"BROKEN: {len(broken)} of {n} paths: ", _named(seen)) if len(broken) < n else _ALL_BROKEN
        case "no_api":
            return f"NO API: it cannot be had; {f'all {n} paths to DNS answered' if n else 'nobody could be asked'}"
    if any(cause.id == "outside" for cause in causes):
        return "UNKNOWN: this machine is not in the cluster's network"
    if seen.intercepted:
        return "UNKNOWN: somebody else answers on the way"
    return "UNKNOWN: from here it cannot be said" if n else "UNKNOWN: there was nobody to ask"


def _named(seen: Checkup) -> list[str]:
    """Which paths are broken, as a headline has them: `Service 10.96.0.10 by UDP`."""
    broken = seen.broken
    named: list[str] = []
    for paths in _grouped(seen).values():
        bad = [path.transport for path in paths if path in broken]
        by = f" by {bad[0].upper()}" if 0 < len(bad) < len(paths) else ""
        named += [f"{_name(paths[0]).strip()}{by}"] if bad else []
    return named


def _fitting(text: str, names: Sequence[str]) -> str:
    """As many of the names as fit into a line, and how many more there are."""
    shown = len(names)
    while shown > 1 and len(text + ", ".join(names[:shown])) > WIDTH - len(", 99 more") * (shown < len(names)):
        shown -= 1
    return text + ", ".join([*names[:shown], *([f"{len(names) - shown} more"] if shown < len(names) else [])])


def _grouped(seen: Checkup) -> dict[tuple[str, bool], list[Path]]:
    """Paths to one target for the same names: a row has them all."""
    groups: dict[tuple[str, bool], list[Path]] = {}
    for path in seen.paths:
        groups.setdefault((path.target.name, path.outside), []).append(path)
    return groups


def check_text(seen: Checkup, causes: Sequence[Finding]) -> str:
    """80 columns, as a rule 24 lines; ends with a newline."""
    parts = [[headline(seen, causes)], _paths(seen)]
    for number, cause in enumerate(causes, 1):
        title = "LIKELY CAUSE" if len(causes) == 1 else f"LIKELY CAUSE {number} of {len(causes)}"
        commands = [f"    {line}" for line in cause.remedy.splitlines()]
        parts.append([title, *_wrapped(cause.text), "  next:", *commands])
    if seen.intercepted:
        said = [line for text in seen.intercepted for line in _wrapped(text, "- ")]
        parts.append(["INTERCEPTED", *said, "  next:", *(f"    {line}" for line in APART.splitlines())])
    if seen.resolver:
        parts.append(["THIS POD'S RESOLV.CONF", *(line for text in seen.resolving for line in _wrapped(text, "- "))])
    refused = seen.api.problem if seen.api.reached else ""
    if hidden := list(dict.fromkeys(filter(None, [seen.blind, refused, *seen.not_seen]))):
        parts.append(["NOT SEEN", *(line for text in hidden for line in _wrapped(text, "- "))])
    return "\n\n".join("\n".join(line.rstrip() for line in part) for part in parts) + "\n"


def _paths(seen: Checkup) -> list[str]:
    """A row for each target and what it was asked, by UDP and by TCP; many pods in one state are one row."""
    rows: list[Row] = [("", "PATH", "UDP", "p50", "worst", "TCP", "p50", "worst")]
    groups = list(_grouped(seen).values())
    pods = [paths for paths in groups if paths[0].target.kind is TargetKind.POD]
    for paths in groups:
        alike = [other for other in pods if _state(seen, other) == _state(seen, paths)] if paths in pods else []
        if len(alike) <= PODS_SHOWN:
            rows.append(_row(seen, _name(paths[0]), paths))
        elif paths is alike[0]:
            rows.append(_row(seen, f"{len(alike)} pods", [path for other in alike for path in other]))
    if seen.api.asked or seen.api.problem:
        rows.append(_api(seen.api))
    return [line[1:] for line in table(rows, "<<>>>>>>")]


def _row(seen: Checkup, name: str, paths: Sequence[Path]) -> Row:
    udp, tcp = ([path for path in paths if path.transport == transport] for transport in ("udp", "tcp"))
    return (_state(seen, paths), plain(name), *_cells(udp), *_cells(tcp))


def _name(path: Path) -> str:
    if path.outside and path.target.kind is TargetKind.UPSTREAM:
        return f"upstream {path.target.address}"
    if path.outside:
        return "  names outside"
    if path.target.kind is TargetKind.POD:
        return path.target.name if len(path.target.name) < 27 else f"..{path.target.name[-24:]}"
    return f"{_KINDS[path.target.kind]} {path.target.address}".strip() if _KINDS[path.target.kind] else path.target.name


def _state(seen: Checkup, paths: Sequence[Path]) -> str:
    """The gravest state of some paths; `-` where it harms nobody."""
    order = (State.DEAD, State.LOSS, State.UNKNOWN, State.SLOW, State.OK)
    worst = next(state for state in order if any(path.state is state for path in paths))
    harmless = worst not in (State.OK, State.UNKNOWN) and not any(path in seen.broken for path in paths)
    return "-" if harmless else worst.value


def _cells(paths: Sequence[Path]) -> tuple[str, str, str]:
    """`25/25`, median, worst: of what was answered; the class of what was not in place of the worst."""
    if not paths:
        return _NONE
    counts = f"{sum(path.answered for path in paths)}/{sum(path.asked for path in paths)}"
    median = max((path.p50_ns for path in paths if path.answered), default=math.nan)
    outcome = next((path.outcome for path in paths if path.outcome), None)
    if outcome:
        worst = outcome.label.upper() if outcome in REPLIED else _SHORT.get(outcome, outcome.label)
    else:
        worst = _time(max(path.worst_ns for path in paths))
    return counts, _time(median), worst


_SHORT = {
    Outcome.CONNECTION_REFUSED: "refused",
    Outcome.NETWORK_ERROR: "net error",
    Outcome.CONNECTION_LOST: "reset",
}
"""Classes as they fit into a column; what servers said is in capitals: REFUSED is the RCODE."""


def _time(ns: float) -> str:
    return "" if math.isnan(ns) else duration(ns).replace(" ", "")


def _api(api: ApiServer) -> Row:
    state = "ok" if not api.problem else "-" if api.reached else "DEAD"
    times = [second * NS for second in api.seconds]
    median = _time(sorted(times)[len(times) // 2]) if times else ""
    name = f"API server {api.version}".strip()
    counts = f"{len(times)}/{api.asked}" if api.asked else ""
    return (state, plain(name), *_NONE, counts, median, _time(max(times)) if times else "")


def _wrapped(text: str, mark: str = "") -> Iterable[str]:
    first, later = f"  {mark}", " " * (2 + len(mark))
    return textwrap.wrap(
        plain(text), WIDTH, initial_indent=first, subsequent_indent=later, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def check_json(seen: Checkup, causes: Sequence[Finding]) -> str:
    """The same for programs; ends with a newline."""
    code = exit_code_of(seen, causes)
    resolver = None
    if conf := seen.resolver:
        resolver = {
            **{name: value for name, value in asdict(conf).items() if name != "ignored"},
            "says": seen.resolving,
        }
    told = {
        "schema_version": SCHEMA_VERSION,
        "state": _STATES[code],
        "exit_code": code,
        "headline": headline(seen, causes),
        "seconds": round(seen.seconds, 3),
        "paths": [_path(path) for path in seen.paths],
        "beside": [_path(path) for path in seen.beside],
        "api": asdict(seen.api),
        "causes": [{name: value for name, value in asdict(one).items() if name != "sure"} for one in causes],
        "resolver": resolver,
        "intercepted": seen.intercepted,
        "blind": seen.blind,
        "not_seen": seen.not_seen,
        "facts": dict(seen.facts),
    }
    return json.dumps(told, indent=2) + "\n"


def _path(path: Path) -> dict[str, object]:
    return {
        "target": path.target.name,
        "kind": path.target.kind.value,
        "address": path.target.address,
        "transport": path.transport,
        "outside": path.outside,
        "state": path.state.value,
        "asked": path.asked,
        "answered": path.answered,
        "p50_seconds": _seconds(path.p50_ns),
        "worst_seconds": _seconds(path.worst_ns),
        "outcome": path.outcome.label if path.outcome else None,
    }


def _seconds(ns: float) -> float | None:
    return None if math.isnan(ns) else ns / NS
