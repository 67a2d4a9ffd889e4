"""A Checkup and its causes -> one screen of text, or one JSON object.

JSON: schema_version; state: ok, broken, unknown or no_api; exit_code; headline; paths[]: target, kind, address,
transport, outside (for names outside the cluster), state (ok, slow, LOSS, DEAD or ?), asked, answered, p50_seconds,
worst_seconds, outcome; api{}: server, version, asked, seconds[] (one for each answer), reached, problem; causes[]:
id, severity, text, evidence, remedy; resolver{}: null outside a pod, else nameservers[], ignored[] (beyond the third),
search[], ndots, timeout, attempts, options[], says[]; intercepted[]; blind; not_seen[]; facts{}. A duration without a
sample is null.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from probe.advice.causes import exit_code_of
from probe.advice.checkup import ApiServer, Checkup, Path, State
from probe.errors import EXIT_ENVIRONMENT, EXIT_INCONCLUSIVE, EXIT_MISSED, EXIT_PASS
from probe.model import NS, Finding, TargetKind
from probe.outcome import REPLIED, Outcome
from probe.report.columns import Row, table
from probe.report.units import duration, plain

WIDTH = 80
SCHEMA_VERSION = 1
PODS_SHOWN = 4
"""Of more pods that are well only their number is said."""
_STATES = {EXIT_PASS: "ok", EXIT_MISSED: "broken", EXIT_INCONCLUSIVE: "unknown", EXIT_ENVIRONMENT: "no_api"}
_KINDS = {
    TargetKind.SERVICE: "Service",
    TargetKind.POD: "pod",
    TargetKind.NODELOCAL: "NodeLocal",
    TargetKind.UPSTREAM: "upstream",
    TargetKind.SERVER: "",
}
_NONE = ("", "", "")


def headline(seen: Checkup, causes: Sequence[Finding]) -> str:
    """The one line that a person reads at night."""
    broken, n = seen.broken, len(seen.paths)
    match _STATES[exit_code_of(seen, causes)]:
        case "ok":
            return f"OK: all {n} paths answered"
        case "broken":
            dead = sum(path.state is State.DEAD for path in broken)
            how = f", {dead} of them wholly" if 0 < dead < len(broken) else ""
            return f"BROKEN: {len(broken)} of {n} paths to DNS{how}"
        case "no_api":
            return f"NO API: it cannot be had; {f'all {n} paths to DNS answered' if n else 'nobody could be asked'}"
    if seen.intercepted:
        return "UNKNOWN: somebody else answers on the way"
    return "UNKNOWN: from here it cannot be said" if n else "UNKNOWN: there was nobody to ask"


def check_text(seen: Checkup, causes: Sequence[Finding]) -> str:
    """80 columns, as a rule 24 lines; ends with a newline."""
    parts = [[headline(seen, causes)], _paths(seen)]
    for number, cause in enumerate(causes, 1):
        title = "LIKELY CAUSE" if len(causes) == 1 else f"LIKELY CAUSE {number} of {len(causes)}"
        commands = [f"    {line}" for line in cause.remedy.splitlines()]
        parts.append([title, *_wrapped(cause.text), "  next:", *commands])
    if seen.intercepted:
        parts.append(["INTERCEPTED", *(line for text in seen.intercepted for line in _wrapped(text))])
    if seen.resolver:
        parts.append(["THIS POD'S RESOLV.CONF", *(line for text in seen.resolving for line in _wrapped(text, "- "))])
    if hidden := [*filter(None, [seen.blind]), *seen.not_seen]:
        parts.append(["NOT SEEN", *(line for text in hidden for line in _wrapped(text, "- "))])
    return "\n\n".join("\n".join(line.rstrip() for line in part) for part in parts) + "\n"


def _paths(seen: Checkup) -> list[str]:
    """A row for each target and what it was asked, by UDP and by TCP."""
    rows: list[Row] = [("", "PATH", "UDP", "p50", "worst", "TCP", "p50", "worst")]
    groups: dict[tuple[str, bool], list[Path]] = {}
    for path in seen.paths:
        groups.setdefault((path.target.name, path.outside), []).append(path)
    well = [key for key, paths in groups.items() if paths[0].target.kind is TargetKind.POD and not _worst(paths)]
    folded = well if len(well) > PODS_SHOWN else []
    for key, paths in groups.items():
        if key in folded[1:]:
            continue
        mine = [path for key in folded for path in paths] if key in folded else paths
        name = f"pods: {len(folded)} that are well" if key in folded else _name(seen, paths[0])
        udp, tcp = ([path for path in mine if path.transport == transport] for transport in ("udp", "tcp"))
        rows.append((_state(seen, mine), plain(name), *_cells(udp), *_cells(tcp)))
    if seen.api.asked or seen.api.problem:
        rows.append(_api(seen.api))
    return [line[1:] for line in table(rows, "<<>>>>>>")]


def _name(seen: Checkup, path: Path) -> str:
    if path.outside and path.target.kind is TargetKind.UPSTREAM:
        return f"upstream {path.target.address}"
    if path.outside:
        return "  names outside"
    if path.target.kind is TargetKind.POD:
        return path.target.name if len(path.target.name) < 27 else f"..{path.target.name[-24:]}"
    del seen
    return f"{_KINDS[path.target.kind]} {path.target.address}".strip() if _KINDS[path.target.kind] else path.target.name


def _worst(paths: Sequence[Path]) -> str:
    """The gravest state of some paths; '' if all are well."""
    order = (State.DEAD, State.LOSS, State.UNKNOWN, State.SLOW)
    return next((state.value for state in order if any(path.state is state for path in paths)), "")


def _state(seen: Checkup, paths: Sequence[Path]) -> str:
    worst = _worst(paths)
    if not worst:
        return "ok"
    return worst if any(path in seen.broken for path in paths) or worst == State.UNKNOWN else "-"


def _cells(paths: Sequence[Path]) -> tuple[str, str, str]:
    """`25/25`, median, worst; the class in place of times that there are not."""
    if not paths:
        return _NONE
    asked, answered = sum(path.asked for path in paths), sum(path.answered for path in paths)
    counts = f"{answered}/{asked}"
    if not answered and (outcome := paths[0].outcome):
        return counts, "", outcome.label.upper() if outcome in REPLIED else _SHORT.get(outcome, outcome.label)
    return counts, _time(max(path.p50_ns for path in paths)), _time(max(path.worst_ns for path in paths))


_SHORT = {
    Outcome.CONNECTION_REFUSED: "refused",
    Outcome.NETWORK_ERROR: "no route",
    Outcome.CONNECTION_LOST: "reset",
}
"""Classes as they fit into a column; what servers said is in capitals: REFUSED is the RCODE."""


def _time(ns: float) -> str:
    return duration(ns).replace(" ", "")


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
        "paths": [_path(path) for path in seen.paths],
        "api": asdict(seen.api),
        "causes": [{name: value for name, value in asdict(one).items() if name != "source"} for one in causes],
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
