"""What a run is, known before its first query: name, command, scenario, t0, objectives, environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NODE_FACT, POD_FACT, ZONE_FACT = "prober's node", "prober's pod", "prober's zone"
"""Where a prober ran, in its facts."""
LOG_FACT = "made from a log"
"""Of a run file that is no prober's own: what of it is known how well."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a run file. `started_unix_ns` is t0, UTC; `planned_ns` how long the run is meant to last.

    command: the command line as typed; scenario: its YAML as given, '' for an ad hoc run; objectives: as text, empty
    for the defaults; facts: the environment, shown as it is (tick, buffers, versions, the cluster's own description).
    """

    name: str
    started_unix_ns: int
    planned_ns: int
    command: str = ""
    scenario: str = ""
    objectives: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
