"""`-T`, `--shard`, `--start-at` as typed, or as an Indexed Job sets them -> processes, a slice of all rows, t0."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from probe.errors import EnvironmentProblem, UsageError
from probe.model import NS, WHOLE, Slice
from probe.runfile import NODE_FACT, POD_FACT, ZONE_FACT
from probe.scenario.quantity import duration_ns, whole

MOST_WORKERS = 64
MOST_LATE_NS = NS
"""A start that is longer past than this is refused; rows due before all was ready are unsent."""
AHEAD_NS = 200_000_000
"""Workers hear of t0 so long before it."""
POD_FACTS = {
    "DNSPROBE_JOB": "prober's job",
    "DNSPROBE_NAMESPACE": "prober's namespace",
    "DNSPROBE_POD": POD_FACT,
    "DNSPROBE_NODE": NODE_FACT,
    "DNSPROBE_ZONE": ZONE_FACT,
}
"""What a Job's manifest tells its pods, and the facts of the run that it becomes."""
JOB_INDEX, JOB_COMPLETIONS = "JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"
"""Kubernetes sets the first in the pods of an Indexed Job; the second is for the Job's manifest to set."""
TOGETHER = "job"
"""As a start: when all pods of the Job are ready."""


def workers_of(text: str) -> int:
    """How many worker processes there are to be."""
    return whole(text, 1, MOST_WORKERS, "the number of workers")


def start_of(text: str, now_ns: int) -> int:
    """`2026-11-21T04:30:00Z`, unix seconds, or `+30s` from now -> ns since 1970. UsageError for the past.

    now_ns: the wall clock, ns since 1970.
    """
    text = text.strip()
    if text.startswith("+"):
        return now_ns + duration_ns(text[1:])
    if re.fullmatch(r"[0-9]{9,11}(\.[0-9]{1,9})?", text):
        seconds, _, part = text.partition(".")
        at_ns = int(seconds) * NS + int(part.ljust(9, "0"))
    else:
        at_ns = _rfc3339(text)
    if at_ns < now_ns - MOST_LATE_NS:
        raise UsageError(f"{text!r}: is past by {(now_ns - at_ns) / NS:,.1f} s: say a time to come")
    return at_ns


def _rfc3339(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise UsageError(
            f"{text!r}: a start is like 2026-11-21T04:30:00Z (RFC 3339, with its zone), +30s from now, or unix seconds"
        )
    return int(moment.timestamp()) * NS + moment.microsecond * 1000


async def wait_for(at_unix_ns: int, say: Callable[[str], None]) -> None:
    """Until a moment before t0. EnvironmentProblem if that is long past: getting ready took too long."""
    while (left_ns := at_unix_ns - AHEAD_NS - time.time_ns()) > 0:
        at = datetime.fromtimestamp(at_unix_ns / NS, UTC)
        say(f"ready; the first query is due at {at:%Y-%m-%dT%H:%M:%S}Z, in {(left_ns + AHEAD_NS) / NS:.1f} s")
        await asyncio.sleep(min(left_ns, 10 * NS) / NS)
    late_ns = time.time_ns() - at_unix_ns
    if late_ns > MOST_LATE_NS:
        raise EnvironmentProblem(f"all was ready {late_ns / NS:.1f} s after --start-at: say a later time")


def shard_of(text: str, environment: Mapping[str, str]) -> tuple[Slice, str]:
    """The slice, and a text for the report that says whence it is; '' where nothing says that there is more than one.

    text: `I/N`, '' if it was left out: then what an Indexed Job says counts.
    """
    whence = "--shard"
    if not text:
        index, completions = environment.get(JOB_INDEX), environment.get(JOB_COMPLETIONS)
        if index is None or completions is None:
            return WHOLE, ""
        text, whence = f"{index}/{completions}", f"{JOB_INDEX}/{JOB_COMPLETIONS}"
    try:
        share = Slice.parse(text)
    except UsageError as problem:
        raise UsageError(f"{whence} {problem}") from None
    return share, f"{share} (by {whence})"


def pod_facts(environment: Mapping[str, str]) -> dict[str, str]:
    """Where this prober runs, as far as its environment says."""
    return {fact: environment[name] for name, fact in POD_FACTS.items() if environment.get(name)}
