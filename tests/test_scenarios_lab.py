"""The shipped scenarios in a short form, by the command line: each report has to say what its scenario proves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from probe.cluster.images import choose_coredns, find_coredns
from probe.errors import EnvironmentProblem
from probe.scenario.file import find_scenario
from tests.test_netns import needs_namespaces
from tests.test_runs import BY_CHANCE, Report, from_second, lost, reported, second_of, windows

AT_ONCE = 4
NETNS = {"lab.backend": "netns"}
STAND_IN = {"lab.coredns": "stand-in"}
OLD = "1.9.3"


@dataclass(frozen=True)
class Short:
    """A shipped scenario with other durations. swept: what its matrix says, and what it says here."""

    scenario: str
    settings: dict[str, str]
    swept: tuple[str, str] | None = None

    def command(self, folder: Path) -> str:
        """What `run` is told. A matrix is changed in its file, all else by --set."""
        name = self.scenario
        if self.swept:
            text = find_scenario(name).read_text()
            assert text.count(self.swept[0]) == 1
            name = f"{name}-short.yaml"
            (folder / name).write_text(text.replace(*self.swept))
        return " ".join([f"{name} --lab", *(f"--set '{key}={value}'" for key, value in self.settings.items())])


SCALE_UP = {
    "duration": "14s",
    "lab.lameduck": "1s",
    "lab.readiness_period": "500ms",
    "steps": "[{wait: 1s}, {scale: 5}, {wait: 4s}, {scale: 0}, {wait: 3s}, {scale: 3}]",
}
POD_KILL = {"duration": "8s", "steps": "[{wait: 2s}, {kill_pod: oldest}]"}
NODE_LOST = {"duration": "12s", "lab.node_grace": "4s", "steps": "[{wait: 1s}, lose_node: ]"}
NO_READY = {
    "duration": "9s",
    "lab.lameduck": "2s",
    "steps": "[{wait: 1s}, {patch_corefile: ready off}, {wait: 500ms}, restart: ]",
}
UPSTREAM = "[{wait: 2s}, {upstream: silent}, {wait: 6s}, {upstream: refusing}, {wait: 2s}, {upstream: answering}]"
RUNS = {
    "corefile-reload": Short(
        "corefile-reload",
        {
            "duration": "14s",
            "lab.lameduck": "6s",
            "lab.configmap_delay": "0s",
            "lab.propagation": "300ms",
            "lab.readiness_period": "500ms",
            "steps": "[{wait: 1s}, {patch_corefile: cache 60s}]",
        },
    ),
    "scale-up": Short("scale-up", {**SCALE_UP, **STAND_IN}),
    "scale-up-netns": Short("scale-up", {**SCALE_UP, **STAND_IN, **NETNS}),
    "upstream-down": Short("upstream-down", {"duration": "14s", "steps": UPSTREAM}),
    "pod-kill": Short("pod-kill", {**POD_KILL, **STAND_IN}),
    "pod-kill-netns": Short("pod-kill", {**POD_KILL, **STAND_IN, **NETNS}),
    "node-lost": Short("node-lost", {**NODE_LOST, **STAND_IN}),
    "node-lost-netns": Short("node-lost", {**NODE_LOST, **STAND_IN, **NETNS}),
    "no-ready-plugin": Short("no-ready-plugin", NO_READY),
    "no-ready-plugin-unprobed": Short("no-ready-plugin", {**NO_READY, "lab.readiness": "none"}),
    "nodelocal-restart": Short(
        "nodelocal-restart",
        {"duration": "9s", "lab.start_delay": "1500ms", "steps": "[{wait: 1s}, restart_nodelocal: ]"},
    ),
    "evict-node": Short("evict-node", {"duration": "10s", "steps": "[{wait: 1s}, evict_dns: ]", **STAND_IN}),
    "headless-truncation": Short("headless-truncation", {"duration": "6s"}),
    "ab-race": Short("ab-race", {"duration": "5s", "lanes[0].rate": "400", **STAND_IN}),
    "ipvs-stale-session": Short(
        "ipvs-stale-session",
        {"duration": "6s", "steps": "[{wait: 1s}, {scale: 2}]", **STAND_IN},
        swept=("[300s, 10s]", "[5s, 2s]"),
    ),
}
"""The longest first, and the sweeps, each of which is two runs, apart."""


@pytest.fixture(scope="module")
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Report]]]:
    """The runs that the chosen tests are about and this machine can do, some at a time."""
    folder = tmp_path_factory.mktemp("scenarios")
    specs = [item.callspec for item in request.session.items if hasattr(item, "callspec")]
    wanted = {spec.params["run"] for spec in specs if "run" in spec.params}
    able = [name for name in RUNS if name in wanted and not missing(name)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(_report, folder, name) for name in able}


def _report(folder: Path, name: str) -> Report:
    return reported(folder, **{name: RUNS[name].command(folder)})[name]


def missing(name: str) -> str:
    """What a run needs and this machine has not, with the command that lifts it."""
    if (name.endswith("netns") or name in ("nodelocal-restart", "ab-race")) and needs_namespaces.args[0]:
        return str(needs_namespaces.kwargs["reason"])
    if name.startswith(("corefile", "upstream", "no-ready", "nodelocal")) and find_coredns() is None:
        return "needs the real CoreDNS: run `make coredns`"
    try:
        if name == "corefile-reload":
            choose_coredns(OLD)
    except EnvironmentProblem as problem:
        return f"needs {problem}"
    return ""


@pytest.fixture
def run(request: pytest.FixtureRequest, made: dict[str, Future[Report]], tmp_path: Path) -> Report:
    """A test that is tried again has the run made again, alone."""
    if lacks := missing(request.param):
        pytest.skip(lacks)
    tried = getattr(request.node, "execution_count", 1)
    return made[request.param].result() if tried == 1 else _report(tmp_path, request.param)


def of(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("run", names, indirect=True)


def lanes(report: Report) -> set[str]:
    """Those that ask a Service."""
    return {s["lane"] for s in report["series"] if s["lane"].startswith("vip-")}


def outcomes(report: Report, lane: str) -> Counter[str]:
    """How many rows of a lane had each outcome, but for those this prober never sent."""
    found = sum((Counter(s["outcomes"]) for s in report["series"] if s["lane"] == lane), Counter[str]())
    del found["unsent"]
    return +found


def kinds(report: Report) -> Counter[str]:
    return Counter(m["kind"] for m in report["marks"])


def a_third(asked: float) -> object:
    """About so many, by four standard deviations and what a window's edges may hold."""
    return pytest.approx(asked / 3, abs=4 * (asked * 2 / 9) ** 0.5 + 5)


@of("scale-up", "scale-up-netns")
def test_new_pods_cost_nothing_and_end_an_outage_once_the_node_knows(run: Report) -> None:
    to_none, exited = second_of(run, "pod_deleted"), second_of(run, "pod_exited")
    ready = second_of(run, "pod_ready", exited)
    assert kinds(run)["pod_ready"] == 3 + 3, "both times up"
    for lane in lanes(run):
        (window,) = windows(run, lane)
        assert window["lost"] == lost(run, lane), "nothing was lost but in this outage"
        begin = from_second(run, window)
        assert begin > to_none
        assert begin == pytest.approx(exited, abs=0.4)
        assert begin + window["seconds"] == pytest.approx(ready + 1, abs=0.6), lane
        assert not window["still_open"]
    (tcp,) = windows(run, "vip-tcp-fresh")
    assert tcp["class"] == "connection_refused"


@of("pod-kill", "pod-kill-netns")
def test_no_lameduck_helps_a_pod_that_is_killed(run: Report) -> None:
    assert not kinds(run)["sigterm"]
    exited = second_of(run, "pod_exited")
    programmed = second_of(run, "endpoints_programmed", exited)
    assert programmed - second_of(run, "pod_deleted") == pytest.approx(2, abs=0.4)
    (window,) = windows(run, "vip-udp-fresh")
    assert window["class"] in ("timeout", "connection_refused")
    assert from_second(run, window) == pytest.approx(exited, abs=0.4)
    assert window["seconds"] == pytest.approx(programmed - exited, abs=0.5)
    assert lost(run, "vip-udp-fresh") == a_third(100 * (programmed - exited))
    assert lost(run, "vip-udp-fixed") in (0, pytest.approx(50 * (programmed - exited), abs=15)), "all or nothing"


@of("evict-node")
def test_a_drained_node_costs_nothing_where_lameduck_outlasts_propagation(run: Report) -> None:
    assert (kinds(run)["pods_evicted"], kinds(run)["pod_deleted"], kinds(run)["pod_created"]) == (1, 2, 2)
    assert {lane: lost(run, lane) for lane in lanes(run)} == dict.fromkeys(lanes(run), 0)


@of("node-lost", "node-lost-netns")
def test_a_lost_node_is_silent_until_it_is_counted_out_and_others_know(run: Report) -> None:
    gone = second_of(run, "node_lost")
    programmed = second_of(run, "endpoints_programmed", gone)
    assert programmed - gone == pytest.approx(4 + 1, abs=0.4)
    (last,) = {s["target"] for s in run["series"] if s["target"].endswith("@node-3")} or {""}
    for lane in ("vip-udp-fresh", "vip-udp-pool"):
        assert outcomes(run, lane).keys() == {"answer", "nodata", "timeout"}
        told = windows(run, lane)
        assert {w["target"] for w in told} == {s["target"] for s in run["series"] if s["lane"] == lane} - {last}
        for window in told:
            assert window["class"] == "timeout"
            assert from_second(run, window) == pytest.approx(gone, abs=0.4)
            assert window["seconds"] == pytest.approx(programmed - gone, abs=0.7)
    for window in windows(run, "vip-udp-fresh"):
        assert window["lost"] == a_third(100 * (programmed - gone))


@of("no-ready-plugin")
def test_without_ready_a_rollout_stands_still_and_the_old_pods_go_on(run: Report) -> None:
    told = kinds(run)
    assert (told["rollout_started"], told["rollout_done"]) == (1, 0)
    assert (told["pod_deleted"], told["pod_created"], told["pod_ready"]) == (1, 2, 0), "maxUnavailable 1, maxSurge 1"
    assert told["pod_gone"] == 1
    fresh, fixed = (lost(run, lane) for lane in ("vip-udp-fresh", "vip-udp-fixed"))
    assert fresh == 0
    assert fixed == 0 or 40 <= fixed <= 60, (
        "all or nothing: its pod may be the one that goes, before its readiness fails"
    )


@of("no-ready-plugin-unprobed")
def test_without_a_readiness_probe_the_same_rollout_ends(run: Report) -> None:
    told = kinds(run)
    assert (told["rollout_started"], told["rollout_done"]) == (1, 1)
    assert (told["pod_deleted"], told["pod_ready"]) == (3, 3)


@of("corefile-reload")
def test_a_reload_of_1_9_3_closes_ready_for_its_lameduck_and_a_later_one_costs_nothing(run: Report) -> None:
    (block,) = run["blocks"]
    cells = {row["vary"]["lab.coredns"]: row["runs"][0]["lanes"] for row in block["rows"]}
    for version, results in cells.items():
        assert {r["lost"] for r in results if r["lane"] == "pods"} == {0}, "each pod answers all the time"
        through = [r for r in results if r["lane"] != "pods"]
        assert len(through) == 3
        for result in through:
            if version == OLD:
                assert result["longest_seconds"] > 1, "of 6 s: 1 s of readiness, and up to 2.5 s between the pods"
                assert result["class"] == "connection_refused"
            else:
                assert result["lost"] <= 2, "one that was on its way as a pod changed over, at the most"


@of("nodelocal-restart")
def test_a_nodes_clients_have_no_server_while_its_cache_is_replaced(run: Report) -> None:
    for node in ("node-1", "node-2"):
        name = f"node-local-dns@{node}"
        ended, started = (
            next(m["seconds"] for m in run["marks"] if m["kind"] == kind and m["subject"] == name)
            for kind in ("nodelocal_ended", "nodelocal_started")
        )
        assert started - ended > 1.5
        for lane in ("nodelocal-udp-fresh", "nodelocal-udp-fixed", "nodelocal-tcp-fresh"):
            (window,) = (w for w in windows(run, lane) if w["target"] == name)
            assert from_second(run, window) == pytest.approx(ended, abs=0.3)
            assert window["seconds"] == pytest.approx(started - ended, abs=0.4)
            assert window["lost"] == pytest.approx(window["planned"], abs=5)
    assert lost(run, "vip-udp-fresh") == 0


@of("upstream-down")
def test_a_dead_upstream_fails_new_names_alone_late_while_it_is_silent(run: Report) -> None:
    assert lost(run, "vip-udp-fresh") == 0, "the cluster's own names"
    assert lost(run, "external-cached") == 0
    patient, impatient = outcomes(run, "external-unique"), outcomes(run, "external-impatient")
    assert patient.keys() == {"answer", "servfail", "refused"}
    assert patient["servfail"] > 10, "those that were asked long before it refused, which it does after 6 s"
    assert impatient.keys() == {"answer", "timeout", "refused"}
    silent = second_of(run, "upstream_set")
    refused = second_of(run, "upstream_set", silent)
    assert impatient["timeout"] == pytest.approx(10 * (refused - silent), abs=8)
    for lane in ("external-unique", "external-impatient"):
        (window,) = windows(run, lane)
        assert from_second(run, window) == pytest.approx(second_of(run, "upstream_set"), abs=0.8)
        back = second_of(run, "upstream_set", refused)
        assert window["seconds"] == pytest.approx(back - silent, abs=0.9)
        assert window["planned"] - window["lost"] <= 3, "one or two at its edges may have been on their way"


@of("headless-truncation")
def test_udp_truncates_what_exceeds_its_size_and_tcp_nothing(run: Report) -> None:
    for lane, share in (("vip-udp-plain", 2 / 3), ("vip-udp-edns1232", 1 / 3), ("vip-tcp-fresh", 0)):
        told = outcomes(run, lane)
        assert lost(run, lane) == 0
        assert told.keys() <= {"answer", "truncated"}
        assert told["truncated"] == pytest.approx(share * told.total(), abs=5)


@of("ab-race")
def test_this_kernel_loses_neither_query_of_a_pair(run: Report) -> None:
    assert outcomes(run, "vip-udp-pair").keys() == outcomes(run, "vip-udp-single").keys() == {"answer", "nodata"}
    a, aaaa = (s["planned"] for s in run["series"] if s["lane"] == "vip-udp-pair")
    assert a == aaaa == 5 * 200


@of("ipvs-stale-session")
def test_ipvs_keeps_a_port_dead_for_its_udp_timeout(run: Report) -> None:
    (block,) = run["blocks"]
    for row, seconds in zip(block["rows"], (5, 2), strict=True):
        assert row["vary"] == {"lab.udp_timeout": f"{seconds}s"}
        results = {r["lane"]: r for r in row["runs"][0]["lanes"]}
        pool = results["vip-udp-pool"]
        assert pool["class"] == "timeout"
        assert pool["longest_seconds"] == pytest.approx(seconds, abs=0.45)
        assert pool["lost"] / (80 * seconds) == pytest.approx(1 / 3, abs=0.2), "the ports that were on the pod"
        assert results["vip-udp-fresh"]["lost"] <= BY_CHANCE
