"""A Snapshot and what is planned -> what was looked at, for the head of a report: names and texts."""

from __future__ import annotations

from collections.abc import Callable

from probe.audit.check import Planned
from probe.audit.snapshot import Snapshot, Unread


def facts_of(snapshot: Snapshot, planned: Planned, sign: str) -> dict[str, str]:
    """In the order of a report. sign: by which the platform was known, '' if by none."""
    version = _seen(lambda: snapshot.coredns_version)
    none = "none was found: no Service, Deployment or DaemonSet of CoreDNS or kube-dns"
    return {
        "from": ", ".join(filter(None, (snapshot.source, snapshot.taken))),
        "cluster DNS": _seen(lambda: found_there(snapshot)) or none,
        "service": _seen(lambda: snapshot.service),
        "CoreDNS": f"{version} -> {planned.target}" if version and planned.target else version or planned.target,
        "kubernetes": snapshot.version,
        "kube-proxy": _seen(lambda: _proxy(snapshot)),
        "platform": f"{planned.platform} ({sign or 'no sign of another: --vendor'})",
        "propagation": f"{planned.propagation:.3g} s, {planned.measured or 'assumed: --propagation, --from-run'}",
    }


def found_there(snapshot: Snapshot) -> str:
    """What makes the pods of cluster DNS, and what else could be meant, else its Service; '' if there is neither.
    Unread if that cannot be said."""
    first, *others = [str(one) for one in snapshot.candidates] or [str(snapshot.service or "")]
    also = f"; also {', '.join(others)}: the Service's selector decides who answers" if others else ""
    return first + also


def _proxy(snapshot: Snapshot) -> str:
    said = snapshot.proxy
    return ", ".join(filter(None, (said.mode or "no kube-proxy was found", said.version, said.problem)))


def _seen(look: Callable[[], object]) -> str:
    try:
        return str(look() or "")
    except Unread as problem:
        return f"not read: {problem}"
