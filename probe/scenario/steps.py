"""`scale: 2` -> a checked step; a step and a cluster -> what it does there, whether that is a change, and its undo."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial

from probe.cluster import Cluster
from probe.cluster.values import READINESS, STRATEGY, pairs, seconds
from probe.errors import UsageError
from probe.model import NS
from probe.scenario.awaiting import QUIET_NS
from probe.scenario.quantity import duration_ns, seconds_text, whole

OLDEST, NEWEST = "oldest", "newest"
"""Of the pods that count, by the time of their first Ready; no pod of a Deployment has such a name."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a scenario: the word in the file and its value; `ns` is how long a wait is, or must be quiet."""

    word: str
    text: str = ""
    ns: int = 0

    def __str__(self) -> str:
        return STEPS[self.word].say(self)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a word means. `undo` says how a change is taken back; '' where the cluster is left as it was."""

    help: str
    undo: str
    read: Callable[[str], Step]
    say: Callable[[Step], str]

    @property
    def changes(self) -> bool:
        """Whether the step changes the cluster, and so needs one."""
        return bool(self.undo)


def read_step(word: str, value: str) -> Step:
    """A step from its YAML key and value; UsageError names the nearest word, or what the value may be."""
    if word not in STEPS:
        nearest = get_close_matches(word, STEPS, 1, 0.0)[0]
        raise UsageError(f"unknown step {word!r}; nearest: {nearest}; steps are {', '.join(STEPS)}")
    return STEPS[word].read(value)


def step_schema() -> dict[str, object]:
    """A step in JSON Schema: a word, or a word and its value."""
    value = {"type": ["string", "number", "boolean", "null"]}
    words = {word: {**value, "description": kind.help} for word, kind in STEPS.items()}
    one = {"minProperties": 1, "maxProperties": 1, "additionalProperties": False}
    return {"anyOf": [{"type": "object", "properties": words, **one}, {"enum": list(words)}]}


def waited_ns(steps: tuple[Step, ...]) -> int:
    """How long after the start the last step is taken at the earliest."""
    return sum(step.ns for step in steps)


def awaits(steps: tuple[Step, ...]) -> bool:
    """Whether they wait for something to happen: then the run ends with the last of them."""
    return any(step.word == "wait_for" for step in steps)


def changes_of(steps: tuple[Step, ...]) -> list[str]:
    """What the steps change in the cluster, one text each, in order."""
    return [str(step) for step in steps if STEPS[step.word].changes]


def undo_of(steps: tuple[Step, ...]) -> list[str]:
    """How the changes are taken back, each said once."""
    return list(dict.fromkeys(STEPS[s.word].undo for s in steps if STEPS[s.word].changes))


async def take(step: Step, cluster: Cluster) -> str:
    """Take a step that changes the cluster; what the timeline says of it."""
    value = step.text
    if value in (OLDEST, NEWEST):
        ready = [pod.name for pod in cluster.targets("pods")]
        value = next(iter(ready[:1] if value == OLDEST else ready[-1:]), "")
    return str(replace(step, text=await cluster.act(step.word, value)))


def _matching(word: str, pattern: str, hint: str) -> Callable[[str], Step]:
    """The reader of a step whose value is a text of a certain form."""

    def read(value: str) -> Step:
        if not re.fullmatch(pattern, value):
            raise UsageError(f"{value[:40]!r}: {hint}")
        return Step(word, value)

    return read


def _alone(word: str, why: str) -> Callable[[str], Step]:
    """The reader of a step that has no value."""

    def read(value: str) -> Step:
        if value:
            raise UsageError(f"{value[:40]!r}: {word} takes no value: {why}")
        return Step(word)

    return read


def _read_pod(word: str, value: str) -> Step:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", value or OLDEST):
        raise UsageError(f"{value[:40]!r}: say oldest, newest, or a pod's name")
    return Step(word, value or OLDEST)


def _said_pod(step: Step) -> str:
    return f"the {step.text} pod" if step.text in (OLDEST, NEWEST) else f"pod {step.text}"


def _checked(word: str, check: Callable[[str], object]) -> Callable[[str], Step]:
    """The reader of a step whose value the cluster reads."""

    def read(value: str) -> Step:
        check(value)
        return Step(word, value)

    return read


_NODE = r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?"


def _read_mark(value: str) -> Step:
    if not 0 < len(value) <= 200:
        raise UsageError(f"{value[:40]!r}: a mark is a text of 1 to 200 characters")
    return Step("mark", value)


def _read_awaited(value: str) -> Step:
    """`rollout`, `rollout quiet 2m`."""
    match = re.fullmatch(r"rollout(?: quiet (\S+))?", value)
    if not match:
        raise UsageError(f"{value[:40]!r}: say `rollout`, or `rollout quiet 11m`: how long nothing may change then")
    return Step("wait_for", value, duration_ns(match[1], NS) if match[1] else QUIET_NS)


STEPS: dict[str, Kind] = {
    "wait": Kind(
        help="let time pass",
        undo="",
        read=lambda value: Step("wait", ns=duration_ns(value, NS // 1000)),
        say=lambda step: f"wait {seconds_text(step.ns)}",
    ),
    "scale": Kind(
        help="set the number of CoreDNS replicas",
        undo="scale back to the former number",
        read=lambda value: Step("scale", str(whole(value, 0, 100, "the number of replicas"))),
        say=lambda step: f"scale to {step.text}",
    ),
    "restart": Kind(
        help="replace all pods, as `kubectl rollout restart` does: by `max_unavailable`, `max_surge` and readiness",
        undo="none needed: the new pods are as the old ones were",
        read=_alone("restart", "all pods are replaced, by the Deployment's strategy"),
        say=lambda _: "restart all pods",
    ),
    "delete_pod": Kind(
        help="delete a pod: `oldest` (the default), `newest`, or a name",
        undo="none needed: the Deployment replaces the pod",
        read=partial(_read_pod, "delete_pod"),
        say=lambda step: f"delete {_said_pod(step)}",
    ),
    "kill_pod": Kind(
        help="delete a pod as `--force --grace-period=0` does: killed at once, no lameduck",
        undo="none needed: the Deployment replaces the pod",
        read=partial(_read_pod, "kill_pod"),
        say=lambda step: f"kill {_said_pod(step)}",
    ),
    "set_image": Kind(
        help="a rolling update to another version of CoreDNS: `1.9.3`, or (not in the lab) an image in full",
        undo="set the former image",
        read=_matching(
            "set_image",
            r"([0-9]{1,3}\.){2}[0-9]{1,3}|[a-z0-9][A-Za-z0-9._/-]*[:/@][A-Za-z0-9._/:@-]{1,200}",
            "say a version of CoreDNS, such as 1.9.3, or an image in full, registry.k8s.io/coredns/coredns:v1.12.1",
        ),
        say=lambda step: f"set image CoreDNS {step.text}",
    ),
    "patch_corefile": Kind(
        help="change the Corefile: `lameduck 10s`, `cache 30s`, `ready off`, and, not in the lab, any plugin: `nsid`,"
        " `forward . 192.0.2.1`, `cache 30 { serve_stale; prefetch 5 }`; pods reload it in their own time",
        undo="patch the former value back",
        read=_matching(
            "patch_corefile",
            r"[a-z][a-z0-9]{0,29}( [^\s{}]{1,60}){0,20}( \{[^{}]{0,500}\})?",
            "say a plugin and its arguments, or a setting and its value, such as `lameduck 10s`",
        ),
        say=lambda step: f"patch Corefile: {step.text}",
    ),
    "grace_period": Kind(
        help="another terminationGracePeriodSeconds: `60s`; it replaces all pods",
        undo="set the former one; that replaces all pods again",
        read=_checked("grace_period", seconds),
        say=lambda step: f"grace period {step.text}",
    ),
    "pre_stop": Kind(
        help="a preStop hook that sleeps (Kubernetes 1.30 or later; 0s for none): `15s`; it replaces all pods",
        undo="set the former hook; that replaces all pods again",
        read=_checked("pre_stop", seconds),
        say=lambda step: f"preStop sleep {step.text}",
    ),
    "readiness": Kind(
        help="another readiness probe: one or more of `period 5s, failures 1, path /health`; it replaces all pods",
        undo="set the former values; that replaces all pods again",
        read=_checked("readiness", lambda value: pairs(value, READINESS)),
        say=lambda step: f"readiness {step.text}",
    ),
    "strategy": Kind(
        help="how later rollouts go: one or both of `max_unavailable 0, max_surge 25%`",
        undo="set the former values",
        read=_checked("strategy", lambda value: pairs(value, STRATEGY)),
        say=lambda step: f"strategy {step.text}",
    ),
    "min_ready_seconds": Kind(
        help="how long a new pod must be Ready until the next one goes, in later rollouts: `10s`",
        undo="set the former value",
        read=_checked("min_ready_seconds", seconds),
        say=lambda step: f"minReadySeconds {step.text}",
    ),
    "session_affinity": Kind(
        help="of the Service: `client_ip` or `none` (not in the lab)",
        undo="set the former one",
        read=_matching("session_affinity", "none|client_ip", "say client_ip or none"),
        say=lambda step: f"session affinity {step.text}",
    ),
    "evict_dns": Kind(
        help="cordon a node (the oldest pod's, or by its name), evict its CoreDNS pods, uncordon it, as a drain does",
        undo="the node is uncordoned at once; an eviction needs none: the Deployment replaces the pod",
        read=_matching("evict_dns", _NODE, "say a node's name, or nothing for that of the oldest pod"),
        say=lambda step: f"evict CoreDNS from node {step.text}" if step.text else "evict CoreDNS from one node",
    ),
    "lose_node": Kind(
        help="cut a node off, the last one or by its name, as when its machine dies (lab)",
        undo="none: only a lab loses a node on demand",
        read=_matching("lose_node", _NODE, "say a node's name, or nothing for the last one"),
        say=lambda step: f"lose node {step.text}" if step.text else "lose the last node",
    ),
    "upstream": Kind(
        help="let the upstream server behave otherwise: `answering`, `slow:2s`, `silent`, `refusing`, ... (lab)",
        undo="upstream: answering",
        read=_matching(
            "upstream",
            r"[a-z_]{1,30}(:[0-9.a-z]{1,20})?",
            "say what the upstream is to do, such as silent or slow:2s",
        ),
        say=lambda step: f"upstream: {step.text}",
    ),
    "restart_nodelocal": Kind(
        help="replace NodeLocal DNSCache on every node, one after the other",
        undo="none needed: the new pods are as the old ones were",
        read=_alone("restart_nodelocal", "all of the DaemonSet's pods are replaced"),
        say=lambda _: "restart node-local-dns",
    ),
    "wait_for": Kind(
        help="until the `rollout` that somebody starts has ended and all is `quiet` (11m): the run ends with its steps",
        undo="",
        read=_read_awaited,
        say=lambda step: f"wait for a rollout to end and {seconds_text(step.ns)} of quiet",
    ),
    "mark": Kind(
        help="write a text on the timeline",
        undo="",
        read=_read_mark,
        say=lambda step: f"mark: {step.text}",
    ),
}
