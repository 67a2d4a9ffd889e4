"""Workloads as they stand, one after the other -> how far their rollouts are; what is waited for, and until when."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from lightkube.resources.apps_v1 import DaemonSet, Deployment
from lightkube.resources.core_v1 import Pod

from probe.cluster import Phase, Rollout
from probe.cluster.kube import Kube
from probe.cluster.kube.objects import pod_view
from probe.cluster.kube.workloads import standing_of
from probe.cluster.rollout import Rollouts, Standing
from probe.errors import UsageError
from probe.model import NS
from probe.scenario.awaiting import look
from probe.scenario.steps import read_step, waited_ns
from tests.apiserver import ApiServer
from tests.kube_objects import Json, daemon_set, deployment, node, pod, service
from tests.test_kube import in_cluster
from tests.test_kube_objects import read_as
from tests.test_runs import reported

QUIET = 10 * NS
A = Standing("coredns", "a", "coredns:1", 3, 3, over=True)
B = Standing("coredns", "b", "coredns:2", 0, 3, over=False)
STUCK = replace(B, stuck="pod x: image y cannot be pulled")


def drawn(*standings: Standing) -> list[str]:
    """Its phases, a second apart."""
    rollouts = Rollouts("test")
    found = []
    for n, standing in enumerate(standings):
        rollouts.see(n * NS, standing)
        (now,) = rollouts.now
        found.append(f"{now.phase}{f': {now.why}' if now.why else ''}")
    return found


@pytest.mark.parametrize(
    ("standings", "last"),
    [
        ([A, A], "waiting"),
        ([A, replace(A, wanted=4, over=False)], "waiting"),
        ([A, B], "progressing"),
        ([A, B, replace(B, updated=3, over=True)], "completed"),
        ([A, B, replace(B, updated=3, over=True), replace(B, wanted=5, over=False)], "progressing"),
        ([A, STUCK], f"stalled: {STUCK.stuck}"),
        ([A, STUCK, B], "progressing"),
        ([A, STUCK, replace(A, updated=1, over=False), A], "rolled back"),
        ([A, B, replace(B, over=True), replace(A, template="c")], "rolled back"),
        ([A, replace(A, template="b", over=False), replace(A, template="b")], "completed"),
        ([A, replace(A, template="b"), A], "rolled back"),
        ([B, replace(B, updated=1)], "progressing"),
        ([B, replace(B, updated=1), replace(B, updated=3, over=True)], "completed"),
        ([B, replace(B, stuck="node gone")], "waiting"),
    ],
)
def test_a_rollout_is_where_its_workload_stands(standings: list[Standing], last: str) -> None:
    assert drawn(*standings)[-1] == last


def test_stalls_and_rollbacks_are_told_once() -> None:
    rollouts = Rollouts("test")
    told = [rollouts.see(0, standing) for standing in (A, B, STUCK, STUCK, replace(A, over=False), A, A)]
    assert [one and (one.kind, one.text, one.subject) for one in told] == [
        *[None] * 2,
        ("rollout_stalled", STUCK.stuck, "coredns"),
        *[None] * 2,
        ("rollout_rolled_back", "coredns:1", "coredns"),
        None,
    ]


def test_nothing_is_quiet_that_cannot_be_seen() -> None:
    rollouts = Rollouts("test")
    rollouts.see(0, A)
    rollouts.see(1, replace(A, template="b"))
    assert rollouts.now[0].changed == 1
    rollouts.look(blind=True)
    blind = rollouts.now[0].changed
    assert blind > 1
    rollouts.look(blind=False)
    assert rollouts.now[0].changed > blind
    assert rollouts.now[0].since == 1


# -- as the API's objects have it


def waiting(reason: str, *, restarts: int = 0) -> Json:
    status = {"name": "coredns", "image": "y", "imageID": "", "ready": False, "restartCount": restarts}
    return {**status, "state": {"waiting": {"reason": reason}} if reason else {"running": {}}}


def unscheduled() -> Json:
    made = pod("coredns-c", "", ready=False, phase="Pending")
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes fit"}
    made["status"]["conditions"] += [condition]
    return made


def condition(kind: str, status: str, reason: str) -> Json:
    made = deployment(revision=2, done=False)
    made["status"]["conditions"] = [{"type": kind, "status": status, "reason": reason, "message": "quota"}]
    return made


NEW = deployment(revision=2, done=False)


@pytest.mark.parametrize(
    ("workload", "pods", "stuck"),
    [
        (NEW, [pod()], ""),
        (NEW, [pod(), unscheduled()], "pod coredns-c: cannot be scheduled: 0/2 nodes fit"),
        (NEW, [pod("c", ready=False, statuses=[waiting("ErrImagePull")])], "pod c: image y cannot be pulled"),
        (NEW, [pod("c", ready=False, statuses=[waiting("ImagePullBackOff")])], "pod c: image y cannot be pulled"),
        (
            NEW,
            [pod("c", ready=False, statuses=[waiting("CreateContainerConfigError")])],
            "pod c: container coredns cannot be made: CreateContainerConfigError",
        ),
        (
            NEW,
            [pod("c", ready=False, statuses=[waiting("CrashLoopBackOff", restarts=1)])],
            "pod c: container coredns is in a crash loop",
        ),
        (
            NEW,
            [pod("c", ready=False, statuses=[waiting("", restarts=2)])],
            "pod c: container coredns is in a crash loop",
        ),
        (NEW, [pod("c", ready=False, statuses=[waiting("", restarts=1)])], ""),
        (NEW, [pod("c", ready=False, statuses=[waiting("ContainerCreating")])], ""),
        (NEW, [pod("c", ready=False, deleted="2026-11-21T04:30:30Z", statuses=[waiting("ImagePullBackOff")])], ""),
        (condition("Progressing", "False", "ProgressDeadlineExceeded"), [], "its progress deadline is exceeded"),
        (condition("ReplicaFailure", "True", "FailedCreate"), [], "pods cannot be created: quota"),
        (condition("Progressing", "True", "ReplicaSetUpdated"), [], ""),
    ],
)
def test_why_a_deployment_gets_no_further(workload: Json, pods: list[Json], stuck: str) -> None:
    standing = standing_of(read_as(Deployment, workload), [pod_view(read_as(Pod, one)) for one in pods])
    assert (standing.stuck, standing.over) == (stuck, False)


def test_how_a_workload_stands() -> None:
    old, same = (standing_of(read_as(Deployment, deployment(revision=n))) for n in (1, 9))
    assert old.template == same.template
    assert (old.updated, old.wanted, old.over) == (2, 2, True)
    restarted = deployment()
    restarted["spec"]["template"]["metadata"]["annotations"] = {"kubectl.kubernetes.io/restartedAt": "now"}
    restarted["metadata"]["generation"] = 2
    unheard = standing_of(read_as(Deployment, restarted))
    assert unheard.template != old.template
    assert (unheard.updated, unheard.over) == (0, False)
    daemons = standing_of(read_as(DaemonSet, daemon_set("kube-proxy", "x:1", done=False)))
    assert (daemons.updated, daemons.wanted, daemons.over, daemons.image) == (1, 2, False, "x:1")


def upgraded(image: str, *, done: bool = False) -> Json:
    return deployment(revision=2, done=done, container={"image": image})


def broken() -> Json:
    return pod("coredns-new", "", ready=False, phase="Pending", statuses=[waiting("ImagePullBackOff")])


SCENES: dict[str, tuple[list[tuple[str, Json]], str]] = {
    "completed": ([("put", upgraded("c:2")), ("put", upgraded("c:2", done=True))], "coredns completed"),
    "stalled": ([("put", upgraded("c:2")), ("put", broken())], "coredns stalled: pod coredns-new: image y cannot be"),
    "rolled back": (
        [("put", upgraded("c:2")), ("put", broken()), ("delete", broken()), ("put", deployment(revision=3))],
        "coredns rolled back",
    ),
    "another": (
        [("put", daemon_set("kube-proxy", "x:2", revision=2, done=False))],
        "rolling out kube-proxy: 1 of 2",
    ),
    "both": (
        [("put", daemon_set("kube-proxy", "x:2", revision=2)), ("put", upgraded("c:2", done=True))],
        "kube-proxy completed; coredns completed",
    ),
}


@pytest.mark.parametrize("scene", SCENES)
def test_what_a_cluster_s_rollouts_come_to(scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = ApiServer(service(), pod(), deployment(), daemon_set("kube-proxy", "x:1"), node())
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "config")))
    acts, said = SCENES[scene]

    async def watched(kube: Kube) -> str:
        assert look(kube.rollouts(), 0, QUIET).text == "waiting for a rollout of kube-proxy or coredns"
        for act, thing in acts:
            getattr(api, act)(thing)
        for _ in range(100):
            seen = look(kube.rollouts(), max(one.changed for one in kube.rollouts()) + NS, QUIET)
            if seen.text.startswith(said):
                break
            await asyncio.sleep(0.05)
        return seen.text

    assert in_cluster(watched).startswith(said)
    api.stop()


# -- what is waited for


def rollout(name: str, phase: Phase, changed: int, why: str = "") -> Rollout:
    return Rollout(name, phase, 1, 3, why, began=2 * NS, since=5 * NS, changed=changed * NS)


DONE = rollout("coredns", Phase.COMPLETED, 5)
GOING = rollout("kube-proxy", Phase.PROGRESSING, 7)
COMPLETED = "rollout of coredns completed 3 s after it began"
IDLE = rollout("node-local-dns", Phase.WAITING, 0)


@pytest.mark.parametrize(
    ("rollouts", "now", "text", "over", "under_way"),
    [
        ([], 9, "waiting for a rollout, but no workload is seen", False, ""),
        ([IDLE], 99, "waiting for a rollout of node-local-dns", False, ""),
        ([DONE, IDLE], 9, "coredns completed, quiet for 0:04 of 0:10", False, ""),
        ([DONE, IDLE], 15, f"{COMPLETED}; quiet for 0:10", True, ""),
        (
            [DONE, GOING],
            15,
            "rolling out kube-proxy: 1 of 3, quiet for 0:08 of 0:10",
            False,
            "rolling out kube-proxy: 1 of 3",
        ),
        (
            [DONE, GOING],
            17,
            f"{COMPLETED}; rollout of kube-proxy stalled at 1 of 3: it gets no further; quiet for 0:10",
            True,
            "",
        ),
        (
            [rollout("coredns", Phase.STALLED, 5, "no image")],
            15,
            "rollout of coredns stalled 3 s after it began, at 1 of 3: no image; quiet for 0:10",
            True,
            "",
        ),
        (
            [rollout("coredns", Phase.ROLLED_BACK, 5)],
            15,
            "rollout of coredns rolled back 3 s after it began; quiet for 0:10",
            True,
            "",
        ),
    ],
)
def test_what_is_waited_for(rollouts: list[Rollout], now: int, text: str, over: bool, under_way: str) -> None:
    seen = look(rollouts, now * NS, QUIET)
    assert (seen.text, seen.over, seen.under_way) == (text, over, under_way)


def test_how_a_wait_is_read() -> None:
    assert read_step("wait_for", "rollout").ns == 660 * NS
    assert str(read_step("wait_for", "rollout quiet 2m")) == "wait for a rollout to end and 120 s of quiet"
    assert waited_ns((read_step("wait", "5s"), read_step("wait_for", "rollout quiet 2m"))) == 125 * NS
    for wrong in ("", "pods", "rollout quiet", "rollout quiet soon", "rollout 2m"):
        with pytest.raises(UsageError, match=r"say `rollout`, or `rollout quiet 11m`|a duration is like"):
            read_step("wait_for", wrong)


# -- a run that waits

SHORT = "watch-upgrade --lab --set lab.lameduck=1s --set lab.readiness_period=1s --set lab.coredns=stand-in"


def test_a_run_ends_with_what_its_steps_wait_for(tmp_path: Path) -> None:
    quiet = "--set \"steps[0].wait_for='rollout quiet 4s'\""
    runs = {
        "over": f"{SHORT} {quiet} --set lab.rollout_after=2s --set duration=60s",
        "never": f"{SHORT} {quiet} --set lab.rollout_after=0s --set duration=7s",
    }
    reports = reported(tmp_path, **runs)
    marks = {mark["kind"]: mark for mark in reports["over"]["marks"]}
    assert "rollout of coredns completed " in marks["ended"]["text"]
    assert marks["ended"]["text"].endswith("s after it began; quiet for 0:04")
    assert marks["rollout_done"]["seconds"] + 4 < marks["ended"]["seconds"] < 20
    assert reports["over"]["cut"] is None
    assert not {"cut", "undecided", "unfinished"} & {doubt["id"] for doubt in reports["over"]["doubts"]}
    assert reports["over"]["environment"]["planned_seconds"] == 60
    lasted = marks["ended"]["seconds"] + 0.5
    vip = [one["planned"] for one in reports["over"]["series"] if one["lane"] == "vip-udp-fresh"]
    assert sum(vip) == pytest.approx(10 * lasted, abs=1.5)
    assert reports["over"]["totals"]["in_flight"] == 0
    never = {doubt["id"]: doubt["text"] for doubt in reports["never"]["doubts"]}
    assert "had not come when the run ended: waiting for a rollout of coredns" in never["unfinished"]
    assert reports["never"]["verdict"] in ("INCONCLUSIVE", "FAIL")
