"""`dnsprobe recommend` on labs whose propagation is known: never below the need, and little above it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from probe.advice import by_counter
from probe.cluster.images import find_coredns
from probe.cluster.lab import Lab
from probe.errors import EnvironmentProblem
from probe.live import Lines
from probe.runfile import open_run
from probe.scenario.departures import Careful, base_plan, check, measure, plan_of
from tests.test_cli import ran, start, told

IMAGES = ["stand-in", *(["real"] if find_coredns() else [])]


def recommended(folder: Path, **commands: str) -> dict[str, tuple[int, dict[str, Any]]]:
    """Exit code and JSON of each command; they run side by side."""
    processes = {
        name: start(f"recommend {command} --json {name}.json -o {name}.db", folder)
        for name, command in commands.items()
    }
    found = {}
    for name, process in processes.items():
        _, err = process.communicate(timeout=90)
        assert "Traceback" not in err, err
        assert process.returncode in (0, 3), err
        found[name] = process.returncode, json.loads((folder / f"{name}.json").read_text())
    return found


def in_bounds(found: float, need: float) -> bool:
    """Never below the true need, within 20 % and a second above it."""
    return need <= found <= 1.2 * need + 1


@pytest.mark.parametrize("coredns", IMAGES)
def test_what_is_recommended_is_enough_and_little_more(tmp_path: Path, coredns: str) -> None:
    """R is 3 s: period 1 s, 3 failures."""
    lab = f"--lab --set lab.coredns={coredns} --set lab.readiness_period=1s --set lab.lameduck=6s"
    labs = {f"d{d}": f"{lab} --set lab.propagation={d}ms" for d in (500, 2000, 4000)}
    for name, (code, advice) in recommended(tmp_path, **labs).items():
        propagation = int(name[1:]) / 1000
        assert code == 0
        assert not advice["at_least"]
        assert advice["propagation_seconds"] == pytest.approx(propagation, abs=0.3)
        fresh, fixed = (need["safe"] for need in advice["needs"])
        assert in_bounds(fresh, propagation), name
        assert in_bounds(fixed, 3 + propagation), name
        assert advice["lameduck_seconds"] == max(6, fixed)


def test_an_older_kube_proxy_and_a_pre_stop_hook_need_less(tmp_path: Path) -> None:
    lab = "--lab --set lab.coredns=stand-in --set lab.propagation=3s --set lab.kubernetes=1.28 --set lab.lameduck=4s"
    found = recommended(tmp_path, plain=lab, hook=f"{lab} --set lab.pre_stop=2s")
    for name, need in (("plain", 3), ("hook", 1)):
        assert all(in_bounds(one["safe"], need) for one in found[name][1]["needs"]), name


def test_a_lameduck_that_ends_first_gives_a_lower_bound(tmp_path: Path) -> None:
    lab = "--lab --set lab.coredns=stand-in --set lab.propagation=5s"
    found = recommended(tmp_path, short=f"{lab} --set lab.lameduck=2s", killed=f"{lab} --set lab.grace_period=3s")
    for (code, advice), bound in zip(found.values(), (2, 3), strict=True):
        assert code == 3
        assert advice["at_least"]
        assert advice["propagation_seconds"] == pytest.approx(bound, abs=0.4)
        assert advice["lameduck_seconds"] == 15


def test_two_deletions_the_longest_counts_and_the_run_tells_it_again(tmp_path: Path) -> None:
    """Every deletion waits until the pod before has ended."""
    command = "--lab --set lab.lameduck=3s --set lab.propagation=1s --set lab.readiness_period=1s --repeats 2"
    ((code, advice),) = recommended(tmp_path, twice=command).values()
    assert code == 0
    assert len({one["pod"] for one in advice["measured"]}) == 2
    assert advice["propagation_seconds"] == max(one["seconds"] for one in advice["measured"])
    run = open_run(tmp_path / "twice.db")
    deleted = [m.at_ns for m in run.marks if m.kind == "pod_deleted"]
    exited = [m.at_ns for m in run.marks if m.kind == "pod_exited"]
    assert deleted[0] < exited[0] < deleted[1] < exited[1]
    if run.servers:
        code, out, _ = ran("recommend twice.db --platform eks", tmp_path)
        assert code == 0
        assert "lameduck of 24 s" in out


def test_the_counter_of_requests_does_without_nsid(tmp_path: Path) -> None:
    async def measured() -> tuple[list[float], list[bool]]:
        base = base_plan(["lab.coredns=stand-in", "lab.propagation=2s", "lab.lameduck=4s"])
        lab = Careful(Lab(base.lab), harmless=True)
        path = tmp_path / "run.db"
        _, readings = await measure(plan_of(lab.shutdown(), base, 1), lab, path, Lines(), idle=False)
        found = [by_counter(open_run(path), pod, mine) for pod, mine in readings.items()]
        return [one.seconds for one in found if one], [one.at_least for one in found if one]

    seconds, at_least = asyncio.run(measured())
    assert seconds == [pytest.approx(2.2, abs=0.3)]
    assert at_least == [False]


@pytest.mark.parametrize(
    ("lab", "harmless", "refused"),
    [
        (["lab.lameduck=5s"], False, "a deleted pod answers for 5 s only"),
        (["lab.lameduck=20s", "lab.grace_period=8s"], False, "a deleted pod answers for 8 s only"),
        (["lab.lameduck=10s"], False, ""),
        (["lab.lameduck=0s", "lab.pre_stop=10s"], False, ""),
        (["lab.lameduck=0s"], True, ""),
        (["lab.lameduck=15s", "lab.replicas=1"], True, "there is one replica"),
    ],
)
def test_no_pod_is_deleted_where_that_could_be_an_outage(lab: list[str], harmless: bool, refused: str) -> None:
    shutdown = Lab(base_plan(lab).lab).shutdown()
    if not refused:
        check(shutdown, harmless)
        return
    with pytest.raises(EnvironmentProblem, match=refused):
        check(shutdown, harmless)


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("recommend", 4, "acting on a real cluster is not in this version: add --lab"),
        ("recommend --lab --propagation 3s", 2, "an earlier run, --lab or --propagation: say one of them"),
        ("recommend none.db", 2, "none.db: cannot be read"),
        ("recommend --propagation soon", 2, "--propagation 'soon': a duration is like 500ms"),
        ("recommend --propagation 2s --platform nomad", 2, "--platform 'nomad': say kubeadm, helm, eks, k3s"),
        ("recommend --lab --repeats 0", 2, "--repeats '0': the number of deletions is a whole number from 1 to 20"),
        ("recommend --lab --set lanes[0].rate=9", 2, "--set 'lanes[0].rate=9': here the lab alone can be set"),
        ("recommend --lab --set lab.lameduk=9s", 2, "lab.lameduk: unknown key; nearest: lameduck"),
        ("recommend --lab -o none/run.db", 2, "none/run.db: its folder does not exist"),
        ("recommend --propagation 2s --json none/x", 2, "--json none/x: its folder does not exist"),
    ],
)
def test_wrong_words_are_answered_before_anything_starts(
    command: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    got, _, err = told(command, capsys)
    assert (got, said in err) == (code, True), err


def test_what_is_known_needs_no_deletion(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = told("recommend --propagation 2s --platform helm", capsys)
    assert (code, err) == (0, "")
    assert out.startswith("SAFE: lameduck 10 s loses nothing when a pod goes")
    code, out, _ = told("recommend --propagation 2s --json -", capsys)
    assert json.loads(out)["lameduck_seconds"] == 32.5
