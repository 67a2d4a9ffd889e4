"""What else a cluster shows: ReplicaSets, Events, ConfigMaps, logs of CoreDNS, by tables and by a scripted API."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from lightkube.resources.apps_v1 import DaemonSet, ReplicaSet
from lightkube.resources.core_v1 import ConfigMap, Event, Pod

from probe.cluster import Happened
from probe.cluster.kube import Kube, objects, workloads
from probe.cluster.kube.changes import Changes
from probe.cluster.kube.logs import Said, matters
from probe.model import NS
from probe.runfile import open_run
from tests.apiserver import ApiServer, Log
from tests.conftest import Start
from tests.kube_objects import Json, config_map, containers, daemon_set, pod, service, thing
from tests.servers import REPLIES, Rule
from tests.test_kube import api, facts, forbidden, in_cluster, ran, until
from tests.test_kube_objects import read_as, told

__all__ = ["api"]
LABELS = {"k8s-app": "kube-dns"}


def replica_set(name: str = "coredns-7c9b", revision: int = 2, replicas: int = 1, image: str = "coredns:2") -> Json:
    made = thing("ReplicaSet", name, labels=LABELS)
    made["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": str(revision)}
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": containers(image)}}
    made["spec"] = {"replicas": replicas, "selector": {"matchLabels": LABELS}, "template": template}
    return made


def event(
    reason: str = "Unhealthy", count: int = 1, about: tuple[str, str] = ("Pod", "coredns-a"), kind: str = "Warning",
    namespace: str = "kube-system", **parts: Any,
) -> Json:  # fmt: skip
    made = thing("Event", f"{about[1]}.{reason}", namespace=namespace)
    made |= {"involvedObject": {"kind": about[0], "name": about[1]}, "reason": reason, "type": kind, "count": count}
    return made | {"message": f"what {reason} says", "lastTimestamp": "2026-11-21T04:30:00Z", **parts}


LAST = "the last at 2026-11-21T04:30:00Z by its reporter's clock"
SETS, EVENTS = (ReplicaSet, workloads.replica_set_view, Changes.replica_set), (Event, objects.event_view, Changes.event)
CONFIGS = (ConfigMap, objects.config_view, Changes.config)
DAEMONS = (DaemonSet, workloads.workload_view, Changes.workload)
PODS = (Pod, objects.pod_view, Changes.pod)


def waits(reason: str, restarts: int = 0) -> list[Json]:
    state = {"waiting": {"reason": reason, "message": f"back-off {restarts}0s"}}
    return [{"name": "coredns", "image": "x", "imageID": "", "ready": False, "restartCount": restarts, "state": state}]


def progress(updated: int, wanted: int = 2) -> Json:
    made = daemon_set("kube-proxy", "p:2", revision=2, done=False)
    made["status"] |= {
        "updatedNumberScheduled": updated,
        "desiredNumberScheduled": wanted,
        "numberAvailable": wanted - 1,
    }
    return made


@pytest.mark.parametrize(
    ("kind", "versions", "happened"),
    [
        (SETS, [None, replica_set()], ["replicaset_current | revision 2, coredns:2"]),
        (SETS, [replica_set(), replica_set(replicas=3)], ["replicaset_scaled | from 1 to 3 replicas"]),
        (
            SETS,
            [replica_set(revision=1, replicas=0), replica_set(revision=3, replicas=1)],
            [
                "replicaset_current | revision 3, which was revision 1, coredns:2",
                "replicaset_scaled | from 0 to 1 replicas",
            ],
        ),
        (SETS, [replica_set(), None], []),
        (EVENTS, [None, event()], [f"event | Unhealthy: what Unhealthy says, {LAST}"]),
        (EVENTS, [event(), event(count=4)], [f"event | Unhealthy: what Unhealthy says, 4 times by now, {LAST}"]),
        (EVENTS, [event(), event()], []),
        (EVENTS, [None, event("Pulled", kind="Normal")], []),
        (EVENTS, [None, event("Killing", kind="Normal")], [f"event | Killing: what Killing says, {LAST}"]),
        (
            EVENTS,
            [None, event(lastTimestamp=None, eventTime="2026-11-21T04:30:01.5Z", series={"count": 7})],
            [f"event | Unhealthy: what Unhealthy says, 7 times by now, {LAST.replace(':00Z', ':01Z')}"],
        ),
        (EVENTS, [None, event(), event(count=2), event(count=3)], [f"event | Unhealthy: what Unhealthy says, {LAST}"]),
        (
            CONFIGS,
            [config_map("coredns-custom", **{"a.override": text}) for text in ("log", "errors")],
            ["corefile_patched | -log, +errors"],
        ),
        (
            CONFIGS,
            [config_map("kube-proxy", **{"config.conf": f"mode: {mode}"}) for mode in "ab"],
            ["config_changed | -mode: a, +mode: b"],
        ),
        (
            DAEMONS,
            [daemon_set("kube-proxy", "p:1"), progress(0), progress(1), progress(2)],
            [
                "rollout_started | template revision 2, p:2",
                "rollout_progress | 1 of 2 updated, 1 available",
                "rollout_progress | 2 of 2 updated, 1 available",
            ],
        ),
        (
            PODS,
            [pod(), *[pod(ready=False, statuses=waits("CrashLoopBackOff", 1))] * 2],
            ["pod_not_ready | 127.244.0.2", "pod_restarted | restarts: 1",
             "pod_stuck | container coredns is in a crash loop"],
        ),
        (PODS, [pod(ready=False), pod(ready=False, statuses=waits("ContainerCreating"))], []),
        (
            PODS,
            [pod(ready=False), pod(ready=False, statuses=waits("ImagePullBackOff"))],
            ["pod_stuck | image x cannot be pulled"],
        ),
    ],
)  # fmt: skip
def test_one_version_after_the_other(kind: Any, versions: list[Json | None], happened: list[str]) -> None:
    resource, view, compare = kind
    views = [view(read_as(resource, one)) if one else None for one in versions]
    changes, found = Changes(53), list[str]()
    for before, after in itertools.pairwise(views):
        found += told(compare(changes, 20 * NS, before, after))
    assert found == happened


TERM = "[INFO] SIGTERM: Shutting down servers then terminating"
DUCK = "[INFO] plugin/health: Going into lameduck mode for 5s"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("[INFO] 127.244.0.1:36574 - 1 \"A IN reload.example. udp 30 false 512\" NOERROR qr,rd 106 0.0001s", ""),
        (TERM, TERM),
        (DUCK, DUCK),
        ("[INFO] Reloading", "[INFO] Reloading"),
        ("[ERROR] plugin/errors: 2 a.test. A: read udp: i/o timeout", "[ERROR] plugin/errors:"),
        ("[ERROR] plugin/errors: 2 b.test. A: read udp: refused", "[ERROR] plugin/errors:"),
        ("[WARNING] plugin/kubernetes: starting server with unsynced Kubernetes API", "[WARNING] plugin/kubernetes:"),
        ("E1121 13:51:51.5 1 reflector.go:1] failed to list", "E"),
        ("panic: oh", "panic: oh"),
        ("maxprocs: Leaving GOMAXPROCS=2: CPU quota undefined", ""),
        (".:53", ""),
        ("CoreDNS-1.15.0", "CoreDNS-1.15.0"),
    ],
)  # fmt: skip
def test_lines_that_matter(line: str, kind: str) -> None:
    assert matters(line) == kind


def test_errors_that_repeat_are_told_once_and_then_counted() -> None:
    said, found = Said("a"), list[Happened]()
    for tenth in range(100):
        at = tenth * NS // 10
        if tenth < 95:
            found += said.take(at, f"[ERROR] plugin/errors: 2 n{tenth}.test. A: timeout", "x")
        found += said.due(at)
    assert [(one.at / NS, one.text.partition(" in ")[0]) for one in found] == [
        (0, "[ERROR] plugin/errors: 2 n0.test. A: timeout (x by its node's clock)"),
        (1, "10 more of [ERROR] plugin/errors:"),
        (3, "20 more of [ERROR] plugin/errors:"),
        (7, "40 more of [ERROR] plugin/errors:"),
    ]


def stamp(seconds: float = 0.0) -> str:
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S.%f}000Z"


def test_a_pod_s_log_is_followed_from_now_on_and_through_its_containers(api: ApiServer) -> None:
    api.write("coredns-a", f"{stamp(-60)} [ERROR] plugin/errors: long ago")

    async def look(kube: Kube) -> list[str]:
        await asyncio.sleep(0.5)
        api.write("coredns-a", f"{stamp(2)} {TERM}", f"{stamp(2)} .:53")
        seen = await until(kube, "log")
        api.write("coredns-a previous", f"{stamp(3)} panic: its last words")
        api.logs["coredns-a"] = Log()
        api.write("coredns-a", f"{stamp(4)} CoreDNS-1.15.0")
        api.expire()
        while not any("CoreDNS-" in one.text for one in seen):
            seen += await until(kube, "log")
        return [one.text.partition(" (")[0] for one in seen if one.kind == "log"]

    assert in_cluster(look) == [
        "[INFO] SIGTERM: Shutting down servers then terminating", "panic: its last words", "CoreDNS-1.15.0"
    ]  # fmt: skip


def test_without_the_right_to_read_logs_that_is_said_once(api: ApiServer) -> None:
    api.refuse = forbidden("log")

    async def look(kube: Kube) -> list[Happened]:
        seen = await until(kube, "not_seen")
        api.put(pod("coredns-c", "127.244.0.9"))
        return seen + await until(kube, "pod_ready")

    (text,) = [one.text for one in in_cluster(look) if one.kind == "not_seen"]
    assert text.startswith("pods in kube-system: no right to get their log (403): add to its Role in kube-system: ")
    assert text.endswith('{apiGroups: [""], resources: [pods/log], verbs: [get]}')


def test_events_and_replica_sets_are_watched_if_they_concern_us(api: ApiServer) -> None:
    async def look(kube: Kube) -> list[str]:
        await asyncio.sleep(0.2)
        for name in ("etcd-0", "coredns-x", "kube-proxy-1"):
            api.put(event(about=("Pod", name)))
        api.put(event(about=("Node", "node-9"), namespace="default"))
        api.put(event("NodeNotReady", about=("Node", "node-1"), namespace="default"))
        api.put(replica_set())
        seen = await until(kube, "replicaset_current")
        await asyncio.sleep(0.3)
        while len([one for one in seen if one.kind == "event"]) < 3:
            seen += await until(kube, "event")
        return sorted(one.subject for one in seen)

    assert in_cluster(look) == ["coredns-7c9b", "coredns-x", "kube-proxy-1", "node-1"]


def test_rights_that_are_missing_are_said_once_each(api: ApiServer) -> None:
    api.refuse = forbidden("events", "replicasets")
    said = in_cluster(facts)["not seen"].split("; ")
    assert [text.partition(":")[0] for text in said] == [
        "replicasets in kube-system",
        "events in kube-system",
        "events in default",
    ]


MANAGED = """\
name: managed
duration: 3s
lanes:
  - {name: vip, target: service, rate: 20, questions: [{name: a.test, type: A, expect: any}]}
  - {name: pods, target: pods, rate: 20, questions: [{name: a.test, type: A, expect: any}]}
"""


def test_where_others_run_dns_the_service_is_asked_and_the_report_says_what_is_not_seen(
    scripted: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ports = [{"name": "dns", "port": scripted([Rule(REPLIES["answer"])]).port, "protocol": "UDP"}]
    server = ApiServer(service("kube-dns", "127.0.0.1", ports=ports, selector=None))
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))
    (tmp_path / "x.yaml").write_text(MANAGED)
    code, said = ran(["run", str(tmp_path / "x.yaml"), "-o", str(tmp_path / "x.db")], capsys)
    server.stop()
    run = open_run(tmp_path / "x.db")
    assert code in {0, 3}, said
    assert {series.lane for series in run.series} == {"vip"}
    (mark,) = [mark for mark in run.marks if mark.kind == "not_asked"]
    assert mark.text in said.split("WHAT HAPPENED")[1]
    assert mark.text == "lane pods: nothing stands behind target pods at the start"
    assert run.head.facts["pods"] == "none to see: the Service alone can be asked"
