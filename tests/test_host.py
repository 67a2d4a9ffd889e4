"""What the machine did to the prober: drawings of /proc and /sys in, and the real ones; stretches, marks, facts out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from probe.host import Host, cpu_ns, wall_offset_ns
from probe.model import NS, Interval, Mark
from tests.conftest import Start
from tests.test_runs import reported

V2 = {"proc/self/cgroup": "0::/kubepods/p1/prober\n"}
V1 = {"proc/self/cgroup": "9:name=systemd:/\n4:cpu,cpuacct:/docker/1f\n3:cpuset:/docker/1f\n0::/docker/1f\n"}
V1_CPU = "sys/fs/cgroup/cpu/docker/1f/cpu.stat"
STAT = "cpu  {user} 0 50 800 0 0 0 {steal} 0 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n"


def draw(root: Path, files: dict[str, str]) -> Path:
    """A machine with these files in /proc and /sys."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def v2(microseconds: int) -> str:
    return f"usage_usec 9\nnr_periods 7\nnr_throttled 3\nthrottled_usec {microseconds}\nnr_bursts 0\n"


def v1(nanoseconds: int) -> str:
    return f"nr_periods 7\nnr_throttled 3\nthrottled_time {nanoseconds}\n"


@pytest.mark.parametrize(
    ("here", "before", "after", "milliseconds"),
    [
        pytest.param(V2, {}, {}, None, id="no cgroups"),
        pytest.param(
            V2, {"sys/fs/cgroup/cpu.stat": "usage_usec 5\n"}, {"sys/fs/cgroup/cpu.stat": "usage_usec 9\n"}, None,
            id="the root has no quota",
        ),
        pytest.param(
            V2,
            {"sys/fs/cgroup/kubepods/p1/prober/cpu.stat": v2(5_000)},
            {"sys/fs/cgroup/kubepods/p1/prober/cpu.stat": v2(42_000)},
            37,
            id="its own",
        ),
        pytest.param(
            V2,
            {"sys/fs/cgroup/kubepods/p1/cpu.stat": v2(0), "sys/fs/cgroup/kubepods/p1/prober/cpu.stat": v2(0)},
            {"sys/fs/cgroup/kubepods/p1/cpu.stat": v2(9_000), "sys/fs/cgroup/kubepods/p1/prober/cpu.stat": v2(1_000)},
            10,
            id="the pod's, too",
        ),
        pytest.param(
            V2, {"sys/fs/cgroup/cpu.stat": v2(0)}, {"sys/fs/cgroup/cpu.stat": v2(8_000)}, 8,
            id="a container that sees its own as the root",
        ),
        pytest.param(V1, {V1_CPU: v1(1_000_000)}, {V1_CPU: v1(4_000_000)}, 3, id="version 1"),
        pytest.param(V1, {V1_CPU: v1(1_000_000)}, {V1_CPU: v1(1_000_000)}, None, id="nothing withheld"),
    ],
)  # fmt: skip
def test_cpu_withheld_by_a_quota(
    tmp_path: Path, here: dict[str, str], before: dict[str, str], after: dict[str, str], milliseconds: int | None
) -> None:
    host = Host(draw(tmp_path, here | before), lambda: 0)
    assert list(host.look(NS)) == []
    draw(tmp_path, after)
    said = f"{milliseconds} ms of CPU withheld by the cgroup's quota"
    expected = [Interval(NS, 2 * NS, "throttled", said, "host")] if milliseconds else []
    assert list(host.look(2 * NS)) == expected


def test_a_stretch_of_throttling_comes_again_until_it_is_over(tmp_path: Path) -> None:
    file = "sys/fs/cgroup/kubepods/p1/prober/cpu.stat"
    host = Host(draw(tmp_path, V2 | {file: v2(0)}), lambda: 0)
    found = []
    for second, milliseconds in enumerate([0, 10, 25, 25, 26], 1):
        draw(tmp_path, {file: v2(milliseconds * 1000)})
        found.append(
            [(i.from_ns // NS, i.to_ns // NS, i.text[:5]) for i in host.look(second * NS) if isinstance(i, Interval)]
        )
    assert found == [[], [(1, 2, "10 ms")], [(1, 3, "25 ms")], [], [(4, 5, "1 ms ")]]


@pytest.mark.parametrize(
    ("jump_ns", "text"),
    [
        (0, ""),
        (900_000, ""),
        (-900_000, ""),
        (1_100_000, "forward by 0.001 s"),
        (-2 * NS, "back by 2.000 s"),
        (3600 * NS, "forward by 3,600.000 s"),
    ],
)
def test_steps_of_the_wall_clock(tmp_path: Path, jump_ns: int, text: str) -> None:
    offsets: Iterator[int] = iter([7, 7, 7 + jump_ns, 7 + jump_ns])
    host = Host(tmp_path, lambda: next(offsets))
    assert list(host.look(NS)) == []
    marks = list(host.look(2 * NS))
    assert [(mark.at_ns, mark.kind) for mark in marks if isinstance(mark, Mark)] == (
        [(2 * NS, "clock_step")] if text else []
    )
    assert all(text in mark.text for mark in marks)
    assert list(host.look(3 * NS)) == [], "once"


def test_facts_of_the_end(tmp_path: Path) -> None:
    net = "proc/sys/net/netfilter/nf_conntrack_"
    host = Host(
        draw(tmp_path, {f"{net}count": "12\n", f"{net}max": "262144\n", "proc/stat": STAT.format(user=100, steal=5)})
    )
    draw(tmp_path, {f"{net}count": "1904\n", "proc/stat": STAT.format(user=190, steal=15)})
    assert host.facts() == {
        "conntrack": "12 entries at the start, 1,904 at the end, of at most 262,144",
        "cpu steal": "10 % of the time of all cores",
    }


def test_a_machine_that_shows_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert (list(host.look(NS)), host.facts()) == ([], {})


SECOND = (0, NS, 0)
HELD_UP = (0, NS, 8_000_000), (0, NS + 9_000_000, 9_000_000), (0, NS, 6_000_000)


@pytest.mark.parametrize(
    ("looks", "offset_ns"),
    [
        ([SECOND], NS),
        ([HELD_UP[0], SECOND], NS),
        ([*HELD_UP, (0, NS + 500, 1_000)], NS),
        ([*HELD_UP, *HELD_UP[:2]], NS - 3_000_000),
    ],
)
def test_whoever_is_held_up_between_two_clocks_looks_again(
    looks: Sequence[tuple[int, int, int]], offset_ns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look: CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_MONOTONIC. A hold-up of 2 ms would be a step of the clock."""
    monotonic = iter([at for before, _, after in looks for at in (before, after)])
    wall = iter([at for _, at, _ in looks])
    clocks = SimpleNamespace(monotonic_ns=lambda: next(monotonic), time_ns=lambda: next(wall))
    monkeypatch.setattr("probe.host.time", clocks)
    assert wall_offset_ns() == offset_ns


def test_this_machine() -> None:
    host = Host()
    assert [seen for seen in host.look(NS) if isinstance(seen, Mark)] == []
    assert abs(wall_offset_ns() - (time.time_ns() - time.monotonic_ns())) < 50_000_000
    before, until = cpu_ns(os.getpid()), time.process_time_ns() + 60_000_000
    while time.process_time_ns() < until:
        pass
    assert 40_000_000 <= cpu_ns(os.getpid()) - before < 1_000_000_000
    assert cpu_ns(2**22 + 1) == 0


def test_a_run_looks_at_its_machine(scripted: Start, tmp_path: Path) -> None:
    server = scripted()
    report = reported(tmp_path, short=f"-s 127.0.0.1 -p {server.port} -n a.test -Q 50 -l 1.2")["short"]
    assert report["environment"]["cpu steal"].endswith("% of the time of all cores")
    assert [mark for mark in report["marks"] if mark["source"] == "host"] == []
