"""The lab from outside: what its pods and its Service do to queries while pods come and go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from probe.cluster import Happened, Phase
from probe.cluster.images import choose_coredns, find_coredns
from probe.cluster.lab import Lab
from probe.cluster.settings import Delay, LabSettings
from probe.cluster.zone import HEALTH_PORT, READY_PORT, wire_name
from probe.errors import EnvironmentProblem, UsageError
from probe.model import NS, Target

QUESTION = wire_name("kubernetes.default.svc.cluster.local") + b"\0\1\0\1"
IMAGES = ["stand-in", *(["real"] if find_coredns() else [])]
"""What stories are told with, side by side; where the real CoreDNS is missing, one test skips and names the remedy."""


def has(version: str) -> bool:
    """Whether that CoreDNS has been built."""
    try:
        return choose_coredns(version) is not None
    except EnvironmentProblem:
        return False


def settings(**given: object) -> LabSettings:
    """A lab that hurries: no lameduck, readiness 0.2 s x 3, propagation 0.2 s, stand-ins; and what is given."""
    quick: dict[str, object] = {
        "coredns": "stand-in",
        "lameduck": 0.0,
        "readiness_period": 0.2,
        "propagation": (Delay(0.2),),
        "teardown": 0.2,
    }
    return LabSettings(**(quick | given))  # type: ignore[arg-type]


class Running(Lab):
    """A lab that keeps what happened."""

    def __init__(self, settings: LabSettings) -> None:
        super().__init__(settings)
        self.events: list[Happened] = []
        self.news = asyncio.Condition()

    async def listen(self) -> None:
        with contextlib.suppress(EnvironmentProblem):
            async for event in self.happened():
                async with self.news:
                    self.events.append(event)
                    self.news.notify_all()

    async def at(self, kind: str, subject: str = "", after: int = 0) -> Happened:
        """The first such event after that instant, as soon as it has come; TimeoutError after 10 s."""

        def found() -> Happened | None:
            fitting = (e for e in self.events if e.kind == kind and subject in ("", e.subject) and e.at > after)
            return next(fitting, None)

        async with asyncio.timeout(10), self.news:
            await self.news.wait_for(lambda: found() is not None)
        event = found()
        assert event
        return event

    @property
    def service(self) -> Target:
        return self.targets("service")[0]


@contextlib.asynccontextmanager
async def lab(settings: LabSettings) -> AsyncIterator[Running]:
    running = Running(settings)
    await running.start()
    listening = asyncio.create_task(running.listen())
    try:
        yield running
    finally:
        await running.stop()
        await listening


def play(story: Callable[[Running], Awaitable[None]], *labs: LabSettings) -> None:
    """Run a story in each of these labs, side by side."""

    async def run(settings: LabSettings) -> None:
        async with lab(settings) as running:
            await story(running)

    async def run_all() -> None:
        async with asyncio.TaskGroup() as group:
            for each in labs:
                group.create_task(run(each))

    asyncio.run(run_all())


def play_each(story: Callable[[Running], Awaitable[None]], **given: object) -> None:
    """Run a story with the stand-in and, where it is installed, the real CoreDNS."""
    play(story, *(settings(coredns=image, **given) for image in IMAGES))


class Source:
    """One source port towards a target: `.` answered, `r` refused, `x` silence."""

    def __init__(self, target: Target) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.connect((target.address, target.port))
        self.ident = 0

    async def ask(self, wait: float = 0.2) -> str:
        self.ident += 1
        query = self.ident.to_bytes(2) + b"\1\0\0\1\0\0\0\0\0\0" + QUESTION
        try:
            self.sock.send(query)
            async with asyncio.timeout(wait):
                while (await asyncio.get_running_loop().sock_recv(self.sock, 512))[:2] != query[:2]:
                    pass
        except ConnectionRefusedError:
            return "r"
        except TimeoutError:
            return "x"
        return "."


async def ask_fresh(target: Target) -> str:
    """One query from a port of its own."""
    source = Source(target)
    with source.sock:
        return await source.ask()


async def draw(target: Target, queries: int, interval: float) -> list[tuple[int, str]]:
    """Open loop, a fresh port for each query: when it was due, in ns, and what became of it."""
    first = time.monotonic()
    tasks = []
    for i in range(queries):
        await asyncio.sleep(first + i * interval - time.monotonic())
        tasks.append(asyncio.create_task(ask_fresh(target)))
    outcomes = await asyncio.gather(*tasks)
    return [(round((first + i * interval) * NS), outcome) for i, outcome in enumerate(outcomes)]


async def tcp_opens(address: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    writer.close()
    return True


# --- The pod's end ---


def test_sigterm_as_seen_from_outside() -> None:
    """/ready is refused at once, /health at the end of the lameduck, then DNS by UDP and TCP; exit code 0."""

    async def story(lab: Running) -> None:
        (pod,) = lab.targets("pods")
        await lab.act("scale", "0")
        sigterm = await lab.at("sigterm")
        looks: dict[str, Callable[[], Awaitable[bool | str]]] = {
            "ready": lambda: tcp_opens(pod.address, READY_PORT),
            "health": lambda: tcp_opens(pod.address, HEALTH_PORT),
            "tcp": lambda: tcp_opens(pod.address, pod.port),
            "udp": lambda: ask_fresh(pod),
        }
        edges: dict[str, float] = {}
        while len(edges) < len(looks) and time.monotonic_ns() < sigterm.at + 4 * NS:
            for name, look in looks.items():
                if name not in edges and await look() not in {True, "."}:
                    edges[name] = (time.monotonic_ns() - sigterm.at) / NS
            await asyncio.sleep(0.01)
        assert edges["ready"] < 0.3
        assert 0.9 < edges["health"] < 1.5
        assert edges["health"] - 0.05 < edges["tcp"] < 1.6
        assert edges["health"] - 0.05 < edges["udp"] < 1.6
        exited = await lab.at("pod_exited")
        assert exited.text == "exit code 0"
        assert 0.9 < (exited.at - sigterm.at) / NS < 1.6

    play_each(story, replicas=1, lameduck=1.0)


def test_a_grace_period_below_the_lameduck_ends_in_sigkill() -> None:
    """preStop is paid out of the grace period as well, but at least two seconds are left after SIGTERM."""

    async def story(lab: Running) -> None:
        await lab.act("scale", "0")
        kinds = ("pod_deleted", "pre_stop", "sigterm", "pod_not_ready", "sigkill", "pod_exited", "pod_gone")
        at = {kind: (await lab.at(kind)).at for kind in kinds}
        assert [e.kind for e in lab.events if e.kind in kinds] == list(kinds)
        since = {kind: (at[kind] - at["pod_deleted"]) / NS for kind in kinds}
        assert since["sigterm"] == pytest.approx(0.5, abs=0.1)
        # Readiness goes on being probed: false 2 to 3 periods after SIGTERM.
        assert 0.35 < since["pod_not_ready"] - since["sigterm"] < 0.7
        assert since["sigkill"] == pytest.approx(2.5, abs=0.1)
        assert (await lab.at("pod_exited")).text == "exit code 137"
        assert since["pod_gone"] - since["pod_exited"] == pytest.approx(0.2, abs=0.1)

    play_each(story, replicas=1, lameduck=10.0, pre_stop=0.5, grace_period=1.0)


def test_a_pod_whose_process_is_killed_is_restarted_in_place() -> None:
    async def story(lab: Running) -> None:
        assert lab._process
        standins = (pid for pid, words in offspring(lab._process.pid).items() if "probe.cluster.standin" in words)
        killed = time.monotonic_ns()
        os.kill(next(standins), signal.SIGKILL)
        exited = await lab.at("pod_exited")
        assert exited.text == "exit code 137"
        ready = await lab.at("pod_ready", exited.subject, after=killed)
        assert ready.up is None  # the target was never deleted
        await lab.at("endpoints_programmed", after=ready.at)
        assert lost(await draw(lab.service, 20, 0.005)) == []

    play(story, settings(replicas=2))


# --- The Service while pods go ---


def lost(drawn: list[tuple[int, str]]) -> list[int]:
    return [due for due, outcome in drawn if outcome != "."]


def test_one_of_three_pods_removed_without_lameduck_loses_a_third_until_the_proxy_knows() -> None:
    async def story(lab: Running) -> None:
        drawing = asyncio.create_task(draw(lab.service, 180, 0.01))
        await asyncio.sleep(0.3)
        await lab.act("scale", "2")
        deleted = await lab.at("pod_deleted")
        programmed = await lab.at("endpoints_programmed", after=deleted.at)
        assert (programmed.at - deleted.at) / NS == pytest.approx(1.0, abs=0.1)
        failures = lost(await drawing)
        assert 15 < len(failures) < 52
        assert all(deleted.at - 0.02 * NS < due < programmed.at + 0.02 * NS for due in failures)

    play_each(story, propagation=(Delay(1.0),))


def test_a_lameduck_above_the_propagation_delay_loses_nothing() -> None:
    async def story(lab: Running) -> None:
        drawing = asyncio.create_task(draw(lab.service, 200, 0.01))
        await asyncio.sleep(0.1)
        await lab.act("scale", "2")
        await lab.at("pod_exited")
        assert lost(await drawing) == []

    play_each(story, propagation=(Delay(0.5),), lameduck=1.2)


def test_delete_pod_takes_the_oldest_and_the_replacement_follows_at_once() -> None:
    async def story(lab: Running) -> None:
        before = [target.name for target in lab.targets("pods")]
        created = [e.subject for e in lab.events if e.kind == "pod_created"]
        deleted = await lab.act("delete_pod", "")
        assert deleted in before
        assert deleted not in [target.name for target in lab.targets("pods")]
        assert not created or deleted == created[0]
        event = await lab.at("pod_deleted", deleted)
        assert event.down
        assert event.down.name == deleted
        replacement = await lab.at("pod_created", after=event.at)
        up = await lab.at("pod_ready", replacement.subject)
        assert up.up in lab.targets("pods")
        assert lab.targets(replacement.subject) == [up.up]
        gone = await lab.at("pod_gone", deleted)
        assert gone.gone == event.down
        with pytest.raises(UsageError, match=r"no pod 'nope'; there are coredns-\w+-\w{5}, "):
            await lab.act("delete_pod", "nope")
        with pytest.raises(
            UsageError,
            match=r"target 'coredns-.*': the lab has service, .*, kube-dns, node-1, kube-apiserver, coredns-",
        ):
            lab.targets(deleted)

    play(story, settings(replicas=2))


def counts_of_pods(events: list[Happened]) -> tuple[int, int]:
    """While three pods are replaced: the fewest that were Ready, the most that were not terminating."""
    active = ready = least = most = 3
    for event in events:
        ready += (event.kind == "pod_ready") - (event.kind == "pod_deleted")
        active += (event.kind == "pod_created") - (event.kind == "pod_deleted")
        least, most = min(least, ready), max(most, active)
    return least, most


@pytest.mark.parametrize(
    ("max_unavailable", "max_surge", "least", "most"), [(1, 1, 2, 4), (0, 1, 3, 4), (1, 0, 2, 3), (3, 0, 0, 3)]
)
def test_a_rolling_restart_keeps_to_its_strategy(max_unavailable: int, max_surge: int, least: int, most: int) -> None:
    async def story(lab: Running) -> None:
        before = {target.name for target in lab.targets("pods")}
        await lab.act("restart", "")
        started = await lab.at("rollout_started")
        done = await lab.at("rollout_done", after=started.at)
        during = [e for e in lab.events if started.at <= e.at <= done.at]
        assert counts_of_pods(during)[0] == least
        assert counts_of_pods(during)[1] <= most
        assert {e.subject for e in during if e.kind == "pod_deleted"} == before
        assert not before & {target.name for target in lab.targets("pods")}
        assert len(lab.targets("pods")) == 3

    play(story, settings(replicas=3, max_unavailable=max_unavailable, max_surge=max_surge))


def test_a_new_pod_counts_once_it_has_been_ready_for_min_ready_seconds() -> None:
    async def story(lab: Running) -> None:
        await lab.act("restart", "")
        started = await lab.at("rollout_started")
        done = await lab.at("rollout_done", after=started.at)
        assert done.at - started.at > 2 * NS, "two pods, one after the other, a second each"

    play(story, settings(replicas=2, max_unavailable=0, max_surge=1, min_ready_seconds=1.0))


@pytest.mark.parametrize(
    ("word", "value", "field", "becomes", "rolls"),
    [
        ("grace_period", "9s", "grace_period", 9.0, True),
        ("pre_stop", "1s", "pre_stop", 1.0, True),
        ("readiness", "period 1s, path /health", "readiness", "health", True),
        ("strategy", "max_unavailable 0", "max_unavailable", 0, False),
        ("min_ready_seconds", "1s", "min_ready_seconds", 1.0, False),
    ],
)
def test_a_setting_that_a_step_changes_is_that_of_new_pods(
    word: str, value: str, field: str, becomes: object, rolls: bool
) -> None:
    async def story(lab: Running) -> None:
        assert await lab.act(word, value) == value
        assert getattr(lab._settings, field) == becomes
        patched = await lab.at("deployment_patched")
        if rolls:
            await lab.at("rollout_done", after=patched.at)
        deleted = await lab.act("delete_pod", "")
        told = await lab.at("pod_deleted", subject=deleted)
        assert told.text == f"grace period {value if word == 'grace_period' else '30s'}".replace("s", " s")
        assert any(event.kind == "rollout_started" for event in lab.events) == rolls
        if word == "pre_stop":
            hook, ended = await lab.at("pre_stop", subject=deleted), await lab.at("sigterm", subject=deleted)
            assert ended.at - hook.at == pytest.approx(NS, rel=0.2)

    play(story, settings(replicas=2, max_unavailable=1, max_surge=1))


def test_pods_that_are_evicted_come_back_on_other_nodes() -> None:
    async def story(lab: Running) -> None:
        before = {pod.name for pod in lab.targets("pods")}
        assert await lab.act("evict_dns", "") == "node-1"
        evicted = await lab.at("pods_evicted")
        gone = set(evicted.text.split(", "))
        assert len(gone) == 2
        for name in gone:
            await lab.at("pod_gone", subject=name)
        assert {pod.name for pod in lab.targets("pods")} & before == before - gone
        assert await lab.act("evict_dns", "node-2") == "node-2"  # where all three are now
        assert len({event.text for event in lab.events if event.kind == "pods_evicted"}) == 2
        second = [event.text for event in lab.events if event.kind == "pods_evicted"][1]
        assert len(second.split(", ")) == 3

    play(story, settings(replicas=3, nodes=2))


def test_scale_to_zero_and_back() -> None:
    """All terminating: served by the terminating pods from 1.26 on, refused before; at the end refused by both."""
    cases = {
        settings(replicas=2, lameduck=1.2, readiness_period=5.0, kubernetes=version): served
        for version, served in (("1.25", False), ("1.33", True))
    }

    async def story(lab: Running) -> None:
        await lab.act("scale", "0")
        deleted = await lab.at("pod_deleted")
        await lab.at("endpoints_programmed", after=deleted.at)
        await asyncio.sleep(0.3)
        served = cases[lab._settings]
        assert await ask_fresh(lab.service) == ("." if served else "r")
        assert await tcp_opens(lab.service.address, lab.service.port) is served
        exits = [await lab.at("pod_exited", e.subject) for e in lab.events if e.kind == "pod_deleted"]
        await lab.at("endpoints_programmed", after=max(e.at for e in exits))
        await asyncio.sleep(0.3)
        assert await ask_fresh(lab.service) == "r"
        assert not await tcp_opens(lab.service.address, lab.service.port)
        await lab.act("scale", "1")
        ready = await lab.at("pod_ready", after=exits[-1].at)
        await lab.at("endpoints_programmed", after=ready.at)
        assert await ask_fresh(lab.service) == "."
        assert await tcp_opens(lab.service.address, lab.service.port)

    play(story, *cases)


def test_ipvs_sessions_of_a_removed_pod() -> None:
    """30 reused ports ask every 0.27 s; the removed pod goes on answering, and that helps none of them."""
    ipvs = {"proxy_mode": "ipvs", "lameduck": 5.0, "readiness_period": 5.0}
    stale = {
        settings(**ipvs, kernel="6.1"): {"....."},
        settings(**ipvs, kernel="5.4"): {"x...."},  # one query per stale port
        # dead until the last good packet + 1 s
        settings(**ipvs, expire_nodest_conn=False, udp_timeout=1.0): {"xxx..", "xxxx."},
    }

    async def story(lab: Running) -> None:
        pool = [Source(lab.service) for _ in range(30)]

        async def round_of_queries() -> list[str]:
            started = time.monotonic()
            outcomes = await asyncio.gather(*(source.ask() for source in pool))
            await asyncio.sleep(started + 0.27 - time.monotonic())
            return outcomes

        try:
            assert await round_of_queries() == ["."] * 30
            await lab.act("scale", "2")
            await round_of_queries()
            rounds = [await round_of_queries() for _ in range(5)]
        finally:
            for source in pool:
                source.sock.close()
        by_port = ["".join(outcomes) for outcomes in zip(*rounds, strict=True)]
        hit = {port: drawn for port, drawn in enumerate(by_port) if drawn != "....."}
        assert set(hit.values()) <= stale[lab._settings]
        assert len(hit) == (0 if stale[lab._settings] == {"....."} else 10)

    play(story, *stale)


# --- Labs beside each other, labs that cannot be, and labs that are killed ---


def test_two_labs_at_once_and_what_they_say_they_are() -> None:
    async def story(first: Running) -> None:
        async with lab(settings(replicas=1, proxy_mode="ipvs")) as second:
            assert first.service.address != second.service.address
            assert first._process
            first._process.send_signal(signal.SIGINT)  # Ctrl-C is the run's, which then stops its lab in order
            assert [await ask_fresh(lab.service) for lab in (first, second)] == [".", "."]
            assert "stand-in" in first.facts()["coredns"]
            assert [lab.facts()["lab.proxy_mode"] for lab in (first, second)] == ["iptables", "ipvs"]

    play(story, settings(replicas=1))


def test_the_facts_name_the_real_coredns() -> None:
    if find_coredns() is None:
        pytest.skip("needs the real CoreDNS: run `make coredns`")

    async def story(lab: Running) -> None:
        assert lab.facts()["coredns"].startswith("CoreDNS-1.")

    play(story, settings(replicas=1, coredns="auto"))


def problem_of(settings: LabSettings) -> str:
    async def run() -> str:
        lab = Lab(settings)
        try:
            await lab.start()
        except EnvironmentProblem as problem:
            return str(problem)
        finally:
            await lab.stop()
            await lab.stop()
        return ""

    return asyncio.run(run())


def test_a_port_in_use_is_named() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("0.0.0.0", 0))
        port = holder.getsockname()[1]
        assert f"udp port {port}: Address already in use" in problem_of(settings(port=port))


def test_no_coredns_where_the_real_one_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DNSPROBE_COREDNS", raising=False)
    assert "run `make coredns`" in problem_of(settings(coredns="real"))
    monkeypatch.setenv("DNSPROBE_COREDNS", str(tmp_path / "missing"))
    assert "missing: no such program; run `make coredns`" in problem_of(settings(coredns="auto"))


def test_a_coredns_that_dies_at_once_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "coredns"
    broken.write_text("#!/bin/sh\n[ $1 = -version ] && echo CoreDNS-0 && exit\necho 'no such plugin'\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("DNSPROBE_COREDNS", str(broken))
    problem = problem_of(settings(coredns="real", replicas=2))
    assert problem.startswith("CoreDNS ends as soon as it is started: no such plugin.")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"replicas": 101}, "replicas 101: a lab has 0 to 100 pods"),
        ({"replicas": -1}, "replicas -1: a lab has 0 to 100 pods"),
        ({"lameduck": -1.0}, "lab setting lameduck -1.0: not below 0"),
        ({"readiness_failures": 0}, "readiness_failures from 1 on"),
        ({"port": 70000}, "lab setting port 70000"),
        ({"proxy_mode": "ebpf"}, "say iptables or ipvs"),
        ({"nodelocal": True}, r"nodelocal: needs lab\.backend: netns"),
        ({"ip_family": "ipv6"}, r"ip_family ipv6: needs lab\.backend: netns"),
        ({"propagation": (Delay(1.0), Delay(2.0))}, "2 delays, but nodes with a proxy: 1"),
        ({"nodes": 21}, "lab setting nodes 21: 1 to 20"),
    ],
)
def test_settings_no_lab_can_be_built_from(given: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Lab(settings(**given))


@pytest.mark.skipif(not has("1.9.3"), reason="needs CoreDNS 1.9.3: make coredns COREDNS_VERSION=1.9.3")
def test_another_image_is_rolled_out() -> None:
    async def story(lab: Running) -> None:
        await lab.act("set_image", "1.9.3")
        await lab.at("rollout_done")
        assert (await lab.at("image_set")).text == "CoreDNS 1.9.3"
        assert lab._process
        programs = [
            words
            for words in offspring(lab._process.pid).values()
            if any(word.endswith("/coredns-1.9.3") for word in words)
        ]
        assert len(programs) == 2
        async with asyncio.timeout(10):  # the node knows 0.2 s after the last old pod has gone
            while [await ask_fresh(lab.service) for _ in range(5)] != ["."] * 5:
                pass

    play(story, settings(coredns="real", replicas=2))


@pytest.mark.skipif(not has("1.9.3"), reason="needs CoreDNS 1.9.3: make coredns COREDNS_VERSION=1.9.3")
@pytest.mark.skipif(not has("1.15.0"), reason="needs CoreDNS 1.15.0: make coredns COREDNS_VERSION=1.15.0")
def test_the_former_image_is_a_rollback_and_the_same_one_nothing() -> None:
    async def story(lab: Running) -> None:
        await lab.act("set_image", "1.15.0")
        assert [one.phase for one in lab.rollouts()] == [Phase.WAITING]
        await lab.act("set_image", "1.9.3")
        await lab.at("rollout_done")
        assert [one.phase for one in lab.rollouts()] == [Phase.COMPLETED]
        await lab.act("set_image", "1.15.0")
        assert (await lab.at("rollout_rolled_back")).subject == "coredns"
        assert [one.phase for one in lab.rollouts()] == [Phase.ROLLED_BACK]
        await lab.act("set_image", "1.15.0")
        await asyncio.sleep(0.1)
        assert sum(event.kind == "rollout_started" for event in lab.events) == 2

    play(story, settings(coredns="1.15.0", replicas=1))


def processes() -> dict[int, int]:
    """Every living process, and its parent; zombies are gone."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(entry.parent.name)] = int(parent)
    return found


def offspring(ancestor: int) -> dict[int, list[str]]:
    """The processes that process has started, and theirs, each with its command line."""
    parents = processes()

    def descends(pid: int) -> bool:
        parent = parents.get(pid, 0)
        return parent == ancestor or (parent > 1 and descends(parent))

    found = {}
    for pid in parents:
        with contextlib.suppress(FileNotFoundError):  # it has ended since
            if descends(pid):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return found


def folder_of(pids: dict[int, list[str]]) -> Path:
    """The lab's folder: the keeper's argument."""
    return next(Path(words[3]) for words in pids.values() if "probe.cluster.keeper" in words)


def gone_within(seconds: float, pids: dict[int, list[str]]) -> bool:
    until = time.monotonic() + seconds
    while alive := pids.keys() & processes().keys():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return not alive


def test_a_lab_that_is_killed_leaves_nothing_behind_and_says_so() -> None:
    async def story(lab: Running) -> None:
        assert lab._process
        pids = offspring(lab._process.pid)
        assert len(pids) == 4  # three pods and the keeper
        os.kill(lab._process.pid, signal.SIGKILL)
        assert await asyncio.to_thread(gone_within, 2, pids)
        assert not await asyncio.to_thread(folder_of(pids).exists)
        assert "died" in (await lab.at("lab_died")).text
        with pytest.raises(EnvironmentProblem, match="the lab is not running"):
            await lab.act("scale", "1")

    play_each(story)


def test_a_lab_that_breaks_says_why() -> None:
    async def story(lab: Running) -> None:
        assert lab._process
        shutil.rmtree(folder_of(offspring(lab._process.pid)))
        await lab.act("delete_pod", "")
        assert re.search("has died: FileNotFoundError: .*/coredns-", (await lab.at("lab_died")).text)

    play(story, settings(replicas=1))


def test_a_lab_whose_keeper_was_killed_cleans_up_itself() -> None:
    async def run() -> None:
        async with lab(settings(replicas=1)) as running:
            assert running._process
            pids = offspring(running._process.pid)
            os.kill(next(pid for pid, words in pids.items() if "probe.cluster.keeper" in words), signal.SIGKILL)
        assert await asyncio.to_thread(gone_within, 1, pids)
        assert not await asyncio.to_thread(folder_of(pids).exists)

    asyncio.run(run())


def test_a_program_that_is_killed_takes_its_lab_with_it() -> None:
    script = (
        "import asyncio, sys\n"
        "from probe.cluster.lab import Lab\n"
        "from probe.cluster.settings import Delay, LabSettings\n"
        "async def main():\n"
        "    await Lab(LabSettings(coredns='stand-in', replicas=2)).start()\n"
        "    print('built', flush=True)\n"
        "    await asyncio.sleep(30)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as program:
        assert program.stdout
        assert program.stdout.readline() == b"built\n"
        pids = offspring(program.pid)
        assert len(pids) == 4  # the lab, its keeper and two pods
        assert folder_of(pids).is_dir()
        program.kill()
    assert gone_within(2, pids)
    assert not folder_of(pids).exists()
