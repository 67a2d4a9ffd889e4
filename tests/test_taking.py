"""Steps that take their time: those after them are due later, and nobody is blamed for it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from probe.cluster import Cluster
from probe.model import NS, Mark
from probe.scenario.file import read_scenario_text
from probe.scenario.recent import Recent
from probe.scenario.taking import Taking

SCENARIO = """
name: t
duration: 10s
lanes: [{name: vip, target: service, questions: [a.test]}]
steps: [{wait: 1s}, {scale: 1}, {wait: 100ms}, {scale: 2}]
"""


class Slow:
    """A cluster in which a step takes 5 s, by a clock that stands still otherwise."""

    in_use = False

    def __init__(self) -> None:
        self.now_ns = NS

    async def act(self, _: str, value: str) -> str:
        self.now_ns += 5 * NS
        return value


def test_a_step_after_one_that_waited_for_pods_is_not_late() -> None:
    marks: list[Mark] = []

    async def taken() -> str:
        cluster = Slow()
        told: Any = (lambda: cluster.now_ns), marks.append, print, print
        return await Taking(read_scenario_text("t", SCENARIO, []), cast(Cluster, cluster), Recent(1.0), *told).steps()

    assert asyncio.run(taken()) == ""
    assert [(mark.at_ns / NS, mark.text) for mark in marks] == [(1.0, "scale to 1"), (6.1, "scale to 2")]
