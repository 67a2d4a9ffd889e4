"""`scale: 2` -> a checked step; a step and a cluster -> what it does there, whether that is a change, and its undo."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from difflib import get_close_matches

from probe.cluster import Cluster
from probe.errors import UsageError
from probe.model import NS
from probe.scenario.quantity import duration_ns, seconds_text, whole

OLDEST, NEWEST = "oldest", "newest"
"""Of the pods that count, by the time of their first Ready; no pod of a Deployment has such a name."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a scenario: the word in the file and its value, a number (ns, replicas) or a text."""

    word: str
    number: int = 0
    text: str = ""

    def __str__(self) -> str:
        return STEPS[self.word].say(self)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a word means. `undo` says how a change is taken back; '' where the cluster is left as it was."""

    help: str
    undo: str
    read: Callable[[str], Step]
    say: Callable[[Step], str]
    act: Callable[[Step, Cluster], Awaitable[str]] | None = None

    @property
    def changes(self) -> bool:
        """Whether the step changes the cluster, and so needs one."""
        return self.act is not None


def read_step(word: str, value: str) -> Step:
    """A step from its YAML key and value; UsageError names the nearest word, or what the value may be."""
    if word not in STEPS:
        nearest = get_close_matches(word, STEPS, 1, 0.0)[0]
        raise UsageError(f"unknown step {word!r}; nearest: {nearest}; steps are {', '.join(STEPS)}")
    return STEPS[word].read(value)


def waited_ns(steps: tuple[Step, ...]) -> int:
    """How long after the start the last step is taken."""
    return sum(step.number for step in steps if step.word == "wait")


def changes_of(steps: tuple[Step, ...]) -> list[str]:
    """What the steps change in the cluster, one text each, in order."""
    return [str(step) for step in steps if STEPS[step.word].changes]


def undo_of(steps: tuple[Step, ...]) -> list[str]:
    """How the changes are taken back, each said once."""
    return list(dict.fromkeys(STEPS[s.word].undo for s in steps if STEPS[s.word].changes))


async def _scale(step: Step, cluster: Cluster) -> str:
    await cluster.scale(step.number)
    return f"scale to {step.number}"


async def _restart(_: Step, cluster: Cluster) -> str:
    await cluster.restart()
    return "restart all pods"


def _read_restart(value: str) -> Step:
    if value:
        raise UsageError(f"{value[:40]!r}: restart takes no value: all pods are replaced, by the Deployment's strategy")
    return Step("restart")


async def _delete_pod(step: Step, cluster: Cluster) -> str:
    ready = [pod.name for pod in cluster.targets("pods")]
    name = {OLDEST: ready[:1], NEWEST: ready[-1:]}.get(step.text, [step.text])
    return f"delete pod {await cluster.delete_pod(*name)}"


def _read_delete_pod(value: str) -> Step:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", value or OLDEST):
        raise UsageError(f"{value[:40]!r}: say oldest, newest, or a pod's name")
    return Step("delete_pod", text=value or OLDEST)


def _read_mark(value: str) -> Step:
    if not 0 < len(value) <= 200:
        raise UsageError(f"{value[:40]!r}: a mark is a text of 1 to 200 characters")
    return Step("mark", text=value)


STEPS: dict[str, Kind] = {
    "wait": Kind(
        help="let time pass",
        undo="",
        read=lambda value: Step("wait", number=duration_ns(value, NS // 1000)),
        say=lambda step: f"wait {seconds_text(step.number)}",
    ),
    "scale": Kind(
        help="set the number of CoreDNS replicas",
        undo="scale back to the former number",
        read=lambda value: Step("scale", number=whole(value, 0, 100, "the number of replicas")),
        say=lambda step: f"scale to {step.number}",
        act=_scale,
    ),
    "restart": Kind(
        help="replace all pods, as `kubectl rollout restart` does: by `max_unavailable`, `max_surge` and readiness",
        undo="none needed: the new pods are as the old ones were",
        read=_read_restart,
        say=lambda _: "restart all pods",
        act=_restart,
    ),
    "delete_pod": Kind(
        help="delete a pod: `oldest` (the default), `newest`, or a name",
        undo="none needed: the Deployment replaces the pod",
        read=_read_delete_pod,
        say=lambda step: f"delete {f'the {step.text} pod' if step.text in (OLDEST, NEWEST) else f'pod {step.text}'}",
        act=_delete_pod,
    ),
    "mark": Kind(
        help="write a text on the timeline",
        undo="",
        read=_read_mark,
        say=lambda step: f"mark: {step.text}",
    ),
}
