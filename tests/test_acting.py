"""A scripted API and a run that acts -> what is sent, recorded and taken back; conflicts, refusals, records found."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from probe.cluster import Undone
from probe.cluster.kube import Kube
from probe.cluster.kube.acting import Permission
from probe.cluster.zone import METRICS_PORT
from probe.errors import DnsprobeError, EnvironmentProblem, UsageError
from probe.model import NS
from probe.runfile import open_run
from probe.scenario import taking
from tests.apiserver import ApiServer, Log
from tests.conftest import Start
from tests.kube_objects import Json, config_map, pod, service, thing
from tests.servers import REPLIES, Rule
from tests.test_kube import kubeadm, ran

DEPLOYMENT = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"
RECORDS = "/api/v1/namespaces/kube-system/configmaps"


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    server = ApiServer(*kubeadm(), thing("Namespace", "kube-system"))
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))
    yield server
    server.stop()


def acted(
    *steps: tuple[str, str],
    permission: Permission | None = Permission("scripted"),  # noqa: B008
    meanwhile: Callable[[], None] = lambda: None,
) -> tuple[list[str], Undone]:
    """Take the steps, let something happen, take them back: what was said, and what came of it."""

    async def run() -> tuple[list[str], Undone]:
        told: list[str] = []
        kube = Kube(permission=permission, tell=told.append)
        try:
            await kube.start()
            told += [f"note: {note}" for step in await kube.plan(list(steps)) for note in step.notes]
            for word, value in steps:
                await kube.act(word, value)
            meanwhile()
            return told, await kube.undo(told.append)
        finally:
            await kube.stop()

    return asyncio.run(run())


def recorded(api: ApiServer) -> list[Json]:
    """The records that stand."""
    return [one for one in api.all("ConfigMap") if one["metadata"]["name"].startswith("dnsprobe-undo-")]


def test_the_record_stands_before_the_change_and_is_gone_after_the_undo(api: ApiServer) -> None:
    seen: list[tuple[int, list[Json]]] = []

    def look(_: str, path: str) -> int:
        if path == DEPLOYMENT:
            seen.append((api.one("Deployment", "coredns")["spec"]["replicas"], recorded(api)))
        return 0

    api.deny = look
    told, undone = acted(("scale", "3"))
    (before, (record,)), (after, (still,)) = seen
    assert (before, after, record["metadata"]["name"]) == (2, 3, still["metadata"]["name"])
    assert record["metadata"]["namespace"] == "kube-system"
    assert "ownerReferences" not in record["metadata"]
    assert json.loads(record["data"]["000"])["edits"] == [{"path": "/spec/replicas", "before": 2, "after": 3}]
    assert api.one("Deployment", "coredns")["spec"]["replicas"] == 2
    assert recorded(api) == []
    assert (told, undone) == (["Deployment kube-system/coredns: /spec/replicas: 3 -> 2"], Undone(moves=True))


def test_several_changes_are_taken_back_the_last_first(api: ApiServer) -> None:
    told, undone = acted(("scale", "3"), ("min_ready_seconds", "5s"), ("scale", "1"))
    assert [text.rpartition("/spec/")[2] for text in told] == [
        "replicas: 1 -> 3",
        "minReadySeconds: 5 -> nothing",
        "replicas: 3 -> 2",
    ]
    assert undone.conflicts == ()
    assert recorded(api) == []


def other(api: ApiServer, **spec: Any) -> None:
    """Someone else's change."""
    made = json.loads(json.dumps(api.one("Deployment", "coredns")))
    made["spec"] |= spec
    api.put(made)


def test_what_someone_else_has_set_is_kept_and_said_and_the_rest_is_taken_back(api: ApiServer) -> None:
    steps = (("scale", "3"), ("min_ready_seconds", "5s"))
    told, undone = acted(*steps, meanwhile=lambda: other(api, replicas=4, paused=True))
    spec = api.one("Deployment", "coredns")["spec"]
    assert (spec["replicas"], spec["paused"], "minReadySeconds" in spec) == (4, True, False)
    assert undone.conflicts == (
        "Deployment kube-system/coredns /spec/replicas: ours 3, theirs 4, before 2: left as it is",
    )
    assert told == ["Deployment kube-system/coredns: /spec/minReadySeconds: 5 -> nothing"]
    (record,) = recorded(api)  # of what conflicts alone
    assert [json.loads(text)["edits"][0]["path"] for key, text in record["data"].items() if key != "about"] == [
        "/spec/replicas"
    ]


@pytest.mark.parametrize("gone", ["lifecycle", "container"])
def test_where_what_a_field_was_removed_from_is_gone_the_rest_is_taken_back(api: ApiServer, gone: str) -> None:
    def template(change: Callable[[Json], object]) -> None:
        spec = json.loads(json.dumps(api.one("Deployment", "coredns")["spec"]["template"]))
        change(spec["spec"]["containers"][0])
        other(api, template=spec)

    stop = {"sleep": {"seconds": 5}}
    template(lambda container: container.update(lifecycle={"preStop": stop, "postStart": stop}))
    lost = {"lifecycle": lambda one: one.pop("lifecycle"), "container": lambda one: one.update(name="dns")}[gone]
    steps = (("scale", "3"), ("pre_stop", "0s"), ("min_ready_seconds", "5s"))
    told, undone = acted(*steps, meanwhile=lambda: template(lost))
    assert [text.rpartition("/spec/")[2] for text in told] == ["minReadySeconds: 5 -> nothing", "replicas: 3 -> 2"]
    field = "Deployment kube-system/coredns /spec/template/spec/containers/coredns/lifecycle/preStop"
    assert undone == Undone(
        moves=True,
        conflicts=(f'{field}: what it was in is gone, before {{"sleep": {{"seconds": 5}}}}: left as it is',),
    )
    (record,) = recorded(api)
    assert record["data"].keys() == {"about", "000"}


def test_what_someone_else_has_put_back_needs_nothing(api: ApiServer) -> None:
    assert acted(("scale", "3"), meanwhile=lambda: other(api, replicas=2)) == ([], Undone())
    assert recorded(api) == []


def test_a_corefile_that_someone_else_has_edited_too_is_kept_and_said(api: ApiServer) -> None:
    api.put(pod(deleted="2026-11-21T04:30:00Z"))
    api.put(pod("coredns-b", "127.244.0.3", deleted="2026-11-21T04:30:00Z"))  # there is none that must load it

    def edit() -> None:
        text = api.one("ConfigMap", "coredns")["data"]["Corefile"]
        api.put(config_map(Corefile=text.replace("cache 30", "cache 10")))

    _, undone = acted(("patch_corefile", "lameduck 9s"), meanwhile=edit)
    (conflict,) = undone.conflicts
    assert "ours -lameduck 5s, +lameduck 9s; theirs, from that, -cache 30, +cache 10: left as it is" in conflict


def test_a_change_between_the_look_and_the_patch_is_not_overwritten(api: ApiServer) -> None:
    """The patch's own test fails then, and the run with it; what is taken back is nothing."""
    raced: list[str] = []

    def race(method: str, path: str) -> int:
        if path == DEPLOYMENT and not raced:
            raced.append(method)
            other(api, replicas=5)
        return 0

    api.deny = race
    with pytest.raises(EnvironmentProblem, match="was changed by someone else meanwhile"):
        acted(("scale", "3"))
    assert api.one("Deployment", "coredns")["spec"]["replicas"] == 5
    assert recorded(api) == []  # for nothing of ours is there


def test_a_record_that_another_run_has_written_meanwhile_is_respected(api: ApiServer) -> None:
    async def race() -> None:
        runs = [Kube(permission=Permission("scripted")) for _ in range(2)]
        try:
            for kube in runs:
                await kube.start()
                await kube.plan([("scale", "3")])
            await runs[0].act("scale", "3")
            with pytest.raises(EnvironmentProblem, match="a run has not taken back what it changed, or goes on: "):
                await runs[1].act("min_ready_seconds", "5s")
            await runs[0].undo(lambda _: None)
        finally:
            for kube in runs:
                await kube.stop()

    asyncio.run(race())
    assert recorded(api) == []


def test_an_undo_that_races_looks_again(api: ApiServer) -> None:
    raced: list[str] = []

    def race(method: str, path: str) -> int:
        if path == DEPLOYMENT and api.one("Deployment", "coredns")["spec"]["replicas"] == 3 and not raced:
            raced.append(method)
            return 409
        return 0

    api.deny = race
    _, undone = acted(("scale", "3"))
    assert (raced, undone.conflicts) == (["PATCH"], ())
    assert api.one("Deployment", "coredns")["spec"]["replicas"] == 2


def insisted(api: ApiServer, *steps: tuple[str, str], codes: dict[str, list[int]]) -> tuple[list[str], Undone]:
    """Take steps and take them back, as often as it fails, as a run does: what failed, and what came of it at last.

    codes: by method and path, as they begin: how such requests are answered, one after the other, 0 as usual.
    """

    def deny(method: str, path: str) -> int:
        answers = next((one for begin, one in codes.items() if f"{method} {path}".startswith(begin)), [])
        return answers.pop(0) if answers else 0

    async def run() -> tuple[list[str], Undone]:
        failed: list[str] = []
        kube = Kube(permission=Permission("scripted", allow_outage=True))
        try:
            await kube.start()
            api.deny = deny
            for word, value in steps:
                try:
                    await kube.act(word, value)
                except EnvironmentProblem:
                    failed.append(word)
            while len(failed) < 4:
                try:
                    return failed, await kube.undo(lambda _: None)
                except EnvironmentProblem:
                    failed.append("undo")
            raise AssertionError(failed)
        finally:
            await kube.stop()

    before = json.dumps([api.one("Deployment", "coredns")["spec"], api.one("ConfigMap", "coredns")["data"]])
    came = asyncio.run(run())
    assert json.dumps([api.one("Deployment", "coredns")["spec"], api.one("ConfigMap", "coredns")["data"]]) == before
    return came


@pytest.mark.parametrize(
    ("steps", "codes", "failed", "moves"),
    [
        ([("scale", "3")], {f"DELETE {RECORDS}": [500]}, ["undo"], True),
        ([("evict_dns", "node-1")], {f"DELETE {RECORDS}": [500]}, ["evict_dns"], False),
        ([("scale", "3")], {f"PATCH {DEPLOYMENT}": [409], f"DELETE {RECORDS}": [500]}, ["scale"], False),
        ([("min_ready_seconds", "5s"), ("scale", "3")], {f"PATCH {DEPLOYMENT}": [0, 0, 0, 500]}, ["undo"], True),
        ([("scale", "3")], {f"POST {RECORDS}": [500]}, ["scale"], False),
        ([("scale", "3")], {f"POST {RECORDS}": [403], f"DELETE {RECORDS}": [403] * 9}, ["scale"], False),
        ([("scale", "3"), ("min_ready_seconds", "5s")], {f"PATCH {RECORDS}": [403]}, ["min_ready_seconds"], True),
    ],
    ids=["undone", "evicted", "refused", "in_part", "not_recorded", "no_right_to_record", "recorded_in_part"],
)
def test_whatever_request_fails_no_record_is_left_once_the_undo_is_done(
    api: ApiServer, steps: list[tuple[str, str]], codes: dict[str, list[int]], failed: list[str], moves: bool
) -> None:
    assert insisted(api, *steps, codes=codes) == (failed, Undone(moves))
    assert "unschedulable" not in api.one("Node", "node-1")["spec"]
    assert recorded(api) == []


RELOADS = "coredns_reload_failed_total {}\n"
LOADED = RELOADS + 'coredns_reload_version_info{{hash="sha512",value="ab"}} 1\n'


@contextmanager
def metrics(api: ApiServer, before: str, after: str) -> Iterator[None]:
    """Both pods' :9153, before and after the ConfigMap is patched."""
    said = [before]

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said[-1].encode())

        def log_message(self, *_: Any) -> None: ...

    def patched(_: str, path: str) -> int:
        said.extend([after] * path.endswith("/configmaps/coredns"))
        return 0

    api.deny = patched
    servers = [ThreadingHTTPServer((address, METRICS_PORT), Page) for address in ("127.244.0.2", "127.244.0.3")]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield
    for server in servers:
        server.shutdown()
        server.server_close()


def test_what_pods_have_loaded_their_metrics_say(api: ApiServer) -> None:
    with metrics(api, RELOADS.format(0), LOADED.format(0)):
        told, _ = acted(("patch_corefile", "lameduck 9s"))
    assert told[0] == "waiting until every pod has loaded the Corefile, for at most 180 s"
    with (
        metrics(api, LOADED.format(0), LOADED.format(1)),
        pytest.raises(EnvironmentProblem, match="could not load the Corefile, and keeps the former one"),
    ):
        acted(("patch_corefile", "lameduck 8s"))


def test_pods_are_to_load_the_corefile_that_was_put_back_even_if_the_record_stayed_at_first(api: ApiServer) -> None:
    for name, address in (("coredns-a", "127.244.0.2"), ("coredns-b", "127.244.0.3")):
        api.put(pod(name, address, deleted="2026-11-21T04:30:00Z"))  # there is none that must load it
    codes = {f"DELETE {RECORDS}": [500]}
    assert insisted(api, ("patch_corefile", "lameduck 9s"), codes=codes) == (["undo"], Undone(moves=True))
    assert recorded(api) == []


def test_an_eviction_that_a_budget_forbids_is_asked_again(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probe.cluster.kube.acting._AGAIN", 0.01)
    api.put(pod("coredns-b", "127.244.0.3") | {"spec": pod()["spec"] | {"nodeName": "node-2"}})
    refused = 0

    def budget(_: str, path: str) -> int:
        nonlocal refused
        refused += path.endswith("/eviction")
        return 429 if path.endswith("/eviction") and refused < 4 else 0

    api.deny = budget
    told, _ = acted(("evict_dns", "node-2"))
    assert refused == 4
    assert told == [
        "coredns-b: its PodDisruptionBudget says not now; asked again for a minute",
        "Node node-2: /spec/unschedulable: true -> nothing",
    ]
    assert [path.rpartition("/")[2] for _, path in api.sent] == [
        "configmaps", "node-2", "eviction", "node-2", recorded_name(api),
    ]  # fmt: skip
    assert recorded(api) == []


def recorded_name(api: ApiServer) -> str:
    """Of the record that was deleted."""
    return next(path.rpartition("/")[2] for method, path in api.sent if method == "DELETE")


def test_a_budget_that_never_allows_it_ends_the_step_and_the_node_is_uncordoned(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probe.cluster.kube.acting._AGAIN", 0.01)
    monkeypatch.setattr("probe.cluster.kube.acting._EVICTS", 0.1)
    api.put(pod("coredns-b", "127.244.0.3") | {"spec": pod()["spec"] | {"nodeName": "node-2"}})
    api.deny = lambda _, path: 429 if path.endswith("/eviction") else 0

    async def run() -> tuple[str, bool]:
        kube = Kube(permission=Permission("scripted"))
        try:
            await kube.start()
            with pytest.raises(EnvironmentProblem, match=r"coredns-b was not evicted within 0\.1 s: .* 429") as refused:
                await kube.act("evict_dns", "node-2")
            cordoned = api.one("Node", "node-2")["spec"]["unschedulable"]
            await kube.undo(lambda _: None)
            return str(refused.value), cordoned
        finally:
            await kube.stop()

    _, cordoned = asyncio.run(run())
    assert cordoned
    assert "unschedulable" not in api.one("Node", "node-2")["spec"]


@pytest.mark.parametrize(
    ("denied", "words", "why"),
    [
        ("configmaps", ("scale", "3"), r"no right to create them \(403\): .* in kube-system: .*\[configmaps\], verbs"),
        ("deployments/coredns", ("scale", "3"), r"no right to patch them \(403\): .*\[deployments\], verbs: \[patch\]"),
        ("eviction", ("evict_dns", "node-1"), r"no right to create their eviction \(403\): .*\[pods/eviction\]"),
        ("pods/coredns-a", ("delete_pod", ""), r"pods in kube-system: no right to delete them \(403\)"),
    ],
)  # fmt: skip
def test_a_missing_right_is_named_with_its_rule(api: ApiServer, denied: str, words: tuple[str, str], why: str) -> None:
    api.deny = lambda _, path: 403 if path.endswith(denied) else 0
    with pytest.raises(EnvironmentProblem, match=why):
        acted(words, permission=Permission("scripted", allow_outage=True))
    assert api.one("Deployment", "coredns")["spec"]["replicas"] == 2


def test_nothing_is_changed_where_the_record_cannot_be_written(api: ApiServer) -> None:
    api.deny = lambda _, path: 500 if path == RECORDS else 0
    with pytest.raises(EnvironmentProblem, match="500"):
        acted(("scale", "3"))
    assert [path for _, path in api.sent] == []


@pytest.mark.parametrize(
    ("permission", "words", "why"),
    [
        (None, ("scale", "3"), "scale 3: nothing is changed without --yes --cluster NAME"),
        (Permission("prod"), ("scale", "3"), r"--cluster prod: .* is cluster scripted or uid-kube-system"),
        (Permission("scripted"), ("scale", "0"), "scale 0: no replica is left: add --allow-outage"),
        (Permission("uid-kube-system"), ("scale", "2"), "is so already"),
    ],
)  # fmt: skip
def test_what_is_not_permitted_is_not_done(
    api: ApiServer, permission: Permission | None, words: tuple[str, str], why: str
) -> None:
    with pytest.raises(DnsprobeError, match=why):
        acted(words, permission=permission)
    assert api.sent == []


def test_a_step_that_only_a_lab_can_take() -> None:
    with pytest.raises(UsageError, match="lose_node: only a lab does that: add --lab"):
        Kube().check("lose_node", "")


# -- runs

SCENARIO = """\
name: short
duration: 3s
lanes:
  - {name: vip, target: service, rate: 20, timeout: 500ms, questions: [{name: a.test, type: A, expect: any}]}
steps:
  - wait: 1s
  - scale: 3
"""


@pytest.fixture
def scenario(api: ApiServer, scripted: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A file and a run file; the Service answers on loopback, and a second of baseline is enough."""
    monkeypatch.setattr(taking, "BASELINE", 1.0)
    monkeypatch.setattr(taking, "PATIENCE", 5.0)
    server = scripted([Rule(REPLIES["answer"])])
    ports = [{"name": "dns", "port": server.port, "protocol": "UDP"}]
    api.put(service("kube-dns", "127.0.0.1", ports=ports))
    (tmp_path / "short.yaml").write_text(SCENARIO)
    return tmp_path / "short.yaml", tmp_path / "run.db"


def steps_of(out: Path) -> list[str]:
    return [mark.text.partition(";")[0] for mark in open_run(out).marks if mark.kind == "step"]


def test_a_run_acts_and_takes_back(
    api: ApiServer, scenario: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = scenario
    code, said = ran(["run", str(file), "--yes", "--cluster", "scripted", "-o", str(out)], capsys)
    assert code in {0, 3}, said
    assert steps_of(out) == ["scale to 3", "undo: Deployment kube-system/coredns: /spec/replicas: 3 -> 2"]
    run = open_run(out)
    assert run.cut == ""
    assert recorded(api) == []
    assert [m for m, path in api.sent if path == DEPLOYMENT] == ["PATCH", "PATCH"]


def test_without_the_words_a_run_prints_its_plan_and_asks_nothing(
    api: ApiServer, scenario: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = scenario
    code, said = ran(["run", str(file), "-o", str(out)], capsys)
    assert (code, out.exists(), api.sent) == (2, False, [])
    assert (
        """kubectl patch deployment coredns -n kube-system --type=json -p '[{"op": "test", "path": "/spec/repl"""
        in said
    )
    assert "add --yes --cluster scripted" in said
    code, dry = ran(["run", str(file), "--dry-run"], capsys)
    assert (code, api.sent) == (0, [])
    assert dry.splitlines() == [line for line in said.splitlines() if "dnsprobe:" not in line]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--yes"], "--yes: say which cluster may be changed, too: --cluster NAME"),
        (["--yes", "--cluster", "prod"], "--cluster prod: context test in"),
        (["--yes", "--cluster", "x", "--lab"], "permit a change of a real cluster: the lab needs none"),
        (["--yes", "--cluster", "scripted", "--set", "steps=[{scale: 0}]"], "no replica is left: add --allow-outage"),
        (["--yes", "--cluster", "scripted", "--set", "steps=[lose_node: ]"], "only a lab does that"),
        (["--yes", "--cluster", "scripted", "--set", "steps=[{mark: a}]"], "short changes nothing"),
    ],
)
def test_words_that_are_not_enough(
    api: ApiServer, scenario: tuple[Path, Path], capsys: pytest.CaptureFixture[str], words: list[str], why: str
) -> None:
    file, out = scenario
    code, said = ran(["run", str(file), "-o", str(out), *words], capsys)
    assert (code, out.exists(), api.sent) == (2, False, []), said
    assert why in said


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("undo --yes", "--yes: say which cluster may be changed, too: --cluster NAME"),
        ("undo --yes --cluster prod", "is cluster scripted or uid-kube-system: nothing was changed"),
        ("run lameduck-sweep --lab --yes --cluster prod", "not with a matrix, which is made in the lab"),
        ("run lameduck-sweep", "a sweep is made in the lab: add --lab"),
        ("run scale-down --lab --allow-outage", "permit a change of a real cluster: the lab needs none"),
    ],
)
def test_commands_that_change_no_cluster(
    api: ApiServer, capsys: pytest.CaptureFixture[str], command: str, why: str
) -> None:
    code, said = ran(command.split(), capsys)
    assert (code, api.sent) == (2, []), said
    assert why in " ".join(said.split())


def test_a_baseline_that_is_not_clean_ends_the_run_before_anything_is_changed(
    api: ApiServer, scripted: Start, scenario: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = scenario
    silent = scripted([Rule(REPLIES["silent"])])
    api.put(service("kube-dns", "127.0.0.1", ports=[{"name": "dns", "port": silent.port, "protocol": "UDP"}]))
    code, said = ran(["run", str(file), "--yes", "--cluster", "scripted", "-o", str(out)], capsys)
    assert (code, api.sent) == (4, [])
    assert "the baseline is not clean: lane vip lost " in said
    assert "nothing was changed" in said


def test_a_step_that_fails_ends_the_run_and_what_came_before_it_is_taken_back(
    api: ApiServer, scenario: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = scenario
    steps = "steps=[{wait: 1s}, {scale: 3}, {wait: 500ms}, {delete_pod: nope}]"
    words = ["--set", steps, "--set", "duration=60s"]
    code, said = ran(["run", str(file), "--yes", "--cluster", "scripted", "-o", str(out), *words], capsys)
    assert (code, api.sent) == (4, []), said  # it is known before: there is no such pod
    api.deny = lambda _, path: 500 if "/pods/" in path else 0
    words[1] = steps.replace("nope", "coredns-a")
    code, said = ran(["run", str(file), "--yes", "--cluster", "scripted", "-o", str(out), *words], capsys)
    assert code == 4
    assert steps_of(out) == ["scale to 3", "undo: Deployment kube-system/coredns: /spec/replicas: 3 -> 2"]
    assert "its step `delete pod coredns-a`: " in open_run(out).cut
    assert api.one("Deployment", "coredns")["spec"]["replicas"] == 2


def test_a_conflict_is_said_and_is_exit_code_4(
    api: ApiServer, scenario: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = scenario

    def interfere() -> None:
        until = time.monotonic() + 20
        while api.one("Deployment", "coredns")["spec"]["replicas"] != 3 and time.monotonic() < until:
            time.sleep(0.02)
        other(api, replicas=7)

    someone = threading.Thread(target=interfere)
    someone.start()
    code, said = ran(["run", str(file), "--yes", "--cluster", "scripted", "-o", str(out)], capsys)
    someone.join()
    assert code == 4
    assert "not taken back: Deployment kube-system/coredns /spec/replicas: ours 3, theirs 7, before 2" in said
    # the next run that would act is refused, and undo says what is left
    again = ["run", str(file), "--yes", "--cluster", "scripted", "-o", str(out.with_name("b.db"))]
    code, said = ran(again, capsys)
    assert (code, out.with_name("b.db").exists()) == (4, False)
    assert "once it has ended: dnsprobe undo --yes --cluster scripted" in said
    assert ran(["undo"], capsys)[0] == 4
    code, said = ran(["undo", "--yes", "--cluster", "scripted"], capsys)
    assert code == 4
    assert "theirs 7" in said
    assert "kubectl delete configmap -n kube-system dnsprobe-undo-" in said
    other(api, replicas=3)  # ours again: now it can be taken back
    code, said = ran(["undo", "--yes", "--cluster", "scripted"], capsys)
    assert code == 0
    assert api.one("Deployment", "coredns")["spec"]["replicas"] == 2
    assert recorded(api) == []
    assert ran(["undo"], capsys) == (0, "no run has left anything to take back\n")


# -- in the middle of a step, and of the undo


@pytest.fixture
def acting(scenario: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> Acted:
    """`dnsprobe run` of these steps, permitted; meanwhile goes on beside it from the start: code, what it says."""
    file, out = scenario

    def act(steps: str, meanwhile: Callable[[], None]) -> tuple[int, str]:
        beside = threading.Thread(target=meanwhile)
        beside.start()
        words = ["--yes", "--cluster", "scripted", "-o", str(out), "--set", f"steps=[{{wait: 1s}}, {steps}]"]
        came = ran(["run", str(file), *words], capsys)
        beside.join()
        return came

    return act


Acted = Callable[[str, Callable[[], None]], tuple[int, str]]


def await_that(holds: Callable[[], bool], seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < until:
        time.sleep(0.02)
    return held


def replicas(api: ApiServer) -> int:
    found: int = api.one("Deployment", "coredns")["spec"]["replicas"]
    return found


@pytest.mark.parametrize("made", [False, True], ids=["before it is made", "before it is answered"])
def test_an_api_that_is_lost_in_the_middle_of_a_step_ends_the_run_and_the_change_is_taken_back(
    api: ApiServer, acting: Acted, made: bool
) -> None:
    def lose(_: str, path: str) -> int:
        if path == DEPLOYMENT and replicas(api) == 2:
            if made:
                other(api, replicas=3)
            raise OSError("the connection ends without an answer")
        return 0

    api.deny = lose
    code, said = acting("{scale: 3}", lambda: None)
    assert code == 4, said
    assert "by its step `scale to 3`: " in said
    assert said.count("taken back: Deployment kube-system/coredns: /spec/replicas: 3 -> 2") == made
    assert (replicas(api), recorded(api)) == (2, [])


def test_an_api_that_is_away_for_a_while_is_waited_for_with_the_undo(api: ApiServer, acting: Acted) -> None:
    def away() -> None:
        await_that(lambda: replicas(api) == 3)
        api.stop()
        time.sleep(5.0)  # past the end of the run
        api.start()

    code, said = acting("{scale: 3}", away)
    assert code in {0, 3}, said
    assert "; tried again" in said
    assert (replicas(api), recorded(api)) == (2, [])


def test_an_api_that_stays_away_leaves_the_record_and_undo_mends(
    api: ApiServer, acting: Acted, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "HURRIES", 1.0)

    def away() -> None:
        await_that(lambda: replicas(api) == 3)
        api.stop()

    code, said = acting("{scale: 3}", away)
    api.start()
    assert code == 4
    assert "what was changed is not taken back: " in said
    assert "; say dnsprobe undo" in said
    assert (replicas(api), len(recorded(api))) == (3, 1)
    assert ran(["undo", "--yes", "--cluster", "scripted"], capsys)[0] == 0
    assert (replicas(api), recorded(api)) == (2, [])


def test_a_signal_in_the_middle_of_a_step_ends_it_and_it_is_taken_back(
    api: ApiServer, acting: Acted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step would ask for a minute: a budget forbids the eviction."""
    monkeypatch.setattr(taking, "SETTLES", 1.0)
    api.put(pod("coredns-b", "127.244.0.3") | {"spec": pod()["spec"] | {"nodeName": "node-2"}})
    api.deny = lambda _, path: 429 if path.endswith("/eviction") else 0

    def signalled() -> None:
        if await_that(lambda: "unschedulable" in api.one("Node", "node-2")["spec"]):
            time.sleep(1.0)
            os.kill(os.getpid(), signal.SIGINT)

    code, said = acting("{evict_dns: node-2}", signalled)
    assert code == 130, said
    assert "asking goes on until what was changed is taken back" in said
    assert "taken back: Node node-2: /spec/unschedulable: true -> nothing" in said
    assert "unschedulable" not in api.one("Node", "node-2")["spec"]
    assert recorded(api) == []


def test_pods_that_do_not_load_a_corefile_in_time_end_the_run_and_it_is_put_back(
    api: ApiServer, acting: Acted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probe.cluster.kube.loading.SECONDS", 1.0)
    monkeypatch.setattr(taking, "SETTLES", 1.0)
    for name in ("coredns-a", "coredns-b"):
        api.logs[name] = log = Log()
        log.end()
    before = api.one("ConfigMap", "coredns")["data"]
    code, said = acting("{patch_corefile: lameduck 9s}", lambda: None)
    assert code == 4, said
    assert "coredns-a, coredns-b: has not loaded the Corefile within 1 s" in said
    assert "taken back: ConfigMap kube-system/coredns: /data/Corefile: " in said
    assert (api.one("ConfigMap", "coredns")["data"], recorded(api)) == (before, [])


# -- who else keeps cluster DNS, and rules that end a run


def owned(api: ApiServer, **signs: Json) -> None:
    """Put labels or managers on the Deployment."""
    one = api.one("Deployment", "coredns")
    api.put({**one, "metadata": {**one["metadata"], **signs}})


def test_what_somebody_would_take_back_is_refused_before_anything_is_sent(api: ApiServer) -> None:
    owned(api, labels={"kustomize.toolkit.fluxcd.io/name": "dns"})
    with pytest.raises(EnvironmentProblem, match=r"^scale 3: Flux keeps it .* suspend .*: nothing was changed$"):
        acted(("scale", "3"))
    assert api.sent == []
    acted(("restart", ""), ("session_affinity", "client_ip"))  # nothing that lasts on the Deployment
    scaler = {"maxReplicas": 9, "scaleTargetRef": {"kind": "Deployment", "name": "coredns"}}
    owned(api, labels={})
    api.put(thing("HorizontalPodAutoscaler", "dns", spec=scaler))
    with pytest.raises(EnvironmentProblem, match=r"^scale 3: HorizontalPodAutoscaler dns sets the replicas: change"):
        acted(("restart", ""), ("scale", "3"))


def test_what_becomes_of_a_change_later_is_told(api: ApiServer) -> None:
    owned(api, labels={"app.kubernetes.io/managed-by": "Helm"})
    api.refuse = lambda path: 403 if "horizontalpodautoscalers" in path else 0
    told, _ = acted(("scale", "3"))
    unseen, later = told[:2]
    assert unseen.startswith("note: whether something scales cluster DNS: horizontalpodautoscalers in kube-system: no")
    assert later.startswith("note: scale: kept by Helm: the release's values are kept; what is edited in the cluster")


def test_a_run_that_its_own_rule_ends_takes_back_first_and_fails(
    api: ApiServer, scripted: Start, scenario: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = scenario
    server = scripted([Rule(REPLIES["answer"], until=4.0), Rule(REPLIES["silent"], since=4.0)])
    api.put(service("kube-dns", "127.0.0.1", ports=[{"name": "dns", "port": server.port, "protocol": "UDP"}]))
    words = ["--set", "duration=60s", "--abort-on", "loss(vip) > 60% for 2s"]
    code, said = ran(["run", str(file), "--yes", "--cluster", "scripted", "-o", str(out), *words], capsys)
    assert code == 1, said
    assert steps_of(out) == ["scale to 3", "undo: Deployment kube-system/coredns: /spec/replicas: 3 -> 2"]
    assert "by its own rule loss(vip) > 60% for 2s: " in open_run(out).cut
    kinds = [mark.kind for mark in open_run(out).marks if mark.kind in {"step", "aborted"}]
    assert kinds == ["step", "aborted", "step"]
    assert recorded(api) == []


@pytest.mark.parametrize(
    ("signals", "least", "most"),
    [([signal.SIGTERM], 2.0, 7.0), ([signal.SIGINT] * 2, 2.0, 7.0), ([signal.SIGINT], 6.5, 12.0)],
    ids=["SIGTERM", "SIGINT twice", "SIGINT"],
)
def test_a_signal_while_pods_still_move_for_the_undo_does_not_end_the_asking_before_its_time(
    api: ApiServer,
    scenario: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    signals: list[signal.Signals],
    least: float,
    most: float,
) -> None:
    monkeypatch.setattr(taking, "HURRIES", 2.5)
    monkeypatch.setattr(taking, "SETTLES", 12.0)
    file, out = scenario
    api.put(pod("coredns-c", "127.244.0.9", deleted="2026-11-21T04:30:00Z"))  # it never ends

    def tell() -> None:
        until = time.monotonic() + 30
        while "DELETE" not in [method for method, _ in api.sent] and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(3.0)  # longer than somebody in a hurry waits from the undo on
        for number in signals:
            os.kill(os.getpid(), number)
            time.sleep(0.3)

    teller = threading.Thread(target=tell)
    teller.start()
    code, said = ran(["run", str(file), "--yes", "--cluster", "scripted", "-o", str(out)], capsys)
    teller.join()
    run = open_run(out)
    ended = re.match(r"ended after ([0-9.]+) s by (Ctrl-C|SIGTERM)", run.cut)
    assert ended, said
    assert code == 130
    assert least < run.end_ns / NS - float(ended[1]) < most
    assert "asking goes on until what was changed is taken back" in said
    assert "that is not over yet: look at kubectl rollout status" in said
    assert said.count("taken back: ") == 1
