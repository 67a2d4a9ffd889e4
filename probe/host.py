"""Files of /proc and /sys, looked at once a second -> what the machine did to this prober: stretches, marks, facts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from probe.model import NS, Interval, Mark

CLOCK_STEP_NS = 1_000_000
"""A jump of the wall clock above this is a step. Slewing is none: the kernel slews CLOCK_MONOTONIC alike."""
STEAL = 7
"""Where a line of /proc/stat has the time that the hypervisor gave to others (proc_stat(5))."""
_CONNTRACK = "proc/sys/net/netfilter"
_TRIES, _TIGHT_NS = 5, 5_000


def wall_offset_ns() -> int:
    """CLOCK_REALTIME less CLOCK_MONOTONIC, in ns.

    The first tight one of a few tries, else the tightest: this process may be held up between two looks at a clock.
    """
    tries = []
    for _ in range(_TRIES):
        before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        tries.append((after - before, wall - (before + after) // 2))
        if after - before <= _TIGHT_NS:
            break
    return min(tries)[1]


def cpu_ns(pid: int) -> int:
    """CPU time that a process has used so far, all its threads together, to 10 ms; 0 once it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) * NS // os.sysconf("SC_CLK_TCK")


def most_tracked(root: Path = Path("/")) -> int:
    """How many flows conntrack's table holds, the machine's in every network namespace; 0 if that is not shown."""
    return int(_read(root / _CONNTRACK / "nf_conntrack_max") or 0)


def conntrack(root: Path = Path("/")) -> dict[str, int]:
    """How many entries there are in this network namespace, and what the kernel has counted since it was made.

    OSError if there is none. Source: kernel, net/netfilter/nf_conntrack_standalone.c: one line for each CPU, in hex.
    """
    found = {"entries": int((root / "proc/sys/net/netfilter/nf_conntrack_count").read_text(encoding="ascii"))}
    head, *lines = _read(root / "proc/net/stat/nf_conntrack").splitlines() or [""]
    for name, *values in zip(head.split(), *(line.split() for line in lines), strict=False):
        if name != "entries":
            found[name] = sum(int(value, 16) for value in values)
    return found


class Quotas:
    """The quotas of the cgroups that this process is in, as far as they can be seen."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._files = list(_quotas(root))

    def withheld_ns(self) -> int:
        """CPU time that they have withheld so far."""
        return sum(_withheld_ns(file) or 0 for file in self._files)


class Host:
    """The machine while a run goes. What it does not show is left out: cgroups without a quota, no conntrack.

    asks: whether queries leave from this process's network namespace, whose conntrack then has their flows.
    """

    def __init__(
        self, root: Path = Path("/"), wall_offset: Callable[[], int] = wall_offset_ns, *, asks: bool = True
    ) -> None:
        self._root, self._wall_offset = root, wall_offset
        self._quotas = Quotas(root)
        self._at_ns = 0
        self._withheld_ns = self._quotas.withheld_ns()
        self._throttled: tuple[int, int] | None = None
        self._offset_ns = wall_offset()
        self._cpu = self._cpu_ticks()
        self._tracked = self._conntrack() if asks else None

    def look(self, at_ns: int) -> Iterator[Mark | Interval]:
        """What happened since the last look, at_ns being now, ns since t0.

        A stretch that goes on comes again, longer, with its first beginning.
        """
        withheld_ns, offset_ns = self._quotas.withheld_ns(), self._wall_offset()
        more_ns, self._withheld_ns = withheld_ns - self._withheld_ns, withheld_ns
        if more_ns > 0:
            from_ns, so_far_ns = self._throttled or (self._at_ns, 0)
            self._throttled = from_ns, so_far_ns + more_ns
            text = f"{(so_far_ns + more_ns) / 1e6:,.0f} ms of CPU withheld by the cgroup's quota"
            yield Interval(from_ns, at_ns, "throttled", text, "host")
        else:
            self._throttled = None
        step_ns, self._offset_ns = offset_ns - self._offset_ns, offset_ns
        if abs(step_ns) > CLOCK_STEP_NS:
            way = "forward" if step_ns > 0 else "back"
            text = f"the wall clock was set {way} by {abs(step_ns) / NS:,.3f} s; times of day here go on by the old one"
            yield Mark(at_ns, "clock_step", text, "host")
        self._at_ns = at_ns

    def facts(self) -> dict[str, str]:
        """What is to be known at the end: how full conntrack's table was, how much CPU the hypervisor kept."""
        facts = {}
        if self._tracked and (tracked := self._conntrack()):
            (before, _), (after, most) = self._tracked, tracked
            facts["conntrack"] = f"{before:,} entries at the start, {after:,} at the end, of at most {most:,}"
        ticks = [now - then for now, then in zip(self._cpu_ticks(), self._cpu, strict=True)]
        if sum(ticks):
            facts["cpu steal"] = f"{100 * ticks[STEAL] / sum(ticks):.3g} % of the time of all cores"
        return facts

    def _cpu_ticks(self) -> list[int]:
        """Ticks of all cores together: user, nice, system, idle, iowait, irq, softirq, steal. Guests' are in user's."""
        first = _read(self._root / "proc/stat").partition("\n")[0].split()
        return [int(ticks) for ticks in first[1 : STEAL + 2]]

    def _conntrack(self) -> tuple[int, int] | None:
        """Entries and the most there can be, in this network namespace."""
        count, most = _read(self._root / _CONNTRACK / "nf_conntrack_count"), most_tracked(self._root)
        return (int(count), most) if count and most else None


def _quotas(root: Path) -> Iterator[Path]:
    """The cpu.stat of this process's cgroup and of those it is in, as far as they can be seen and know of throttling.

    Control groups of version 2, or `cpu` of version 1 (kernel: admin-guide/cgroup-v2.rst, scheduler/sched-bwc.rst).
    A container may see its own cgroup as the root of them all, under another path than /proc says.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        own = base / path.strip("/")
        for folder in (own, *own.parents):
            if _withheld_ns(folder / "cpu.stat") is not None:
                yield folder / "cpu.stat"
            if folder == base:
                break


def _withheld_ns(file: Path) -> int | None:
    """`throttled_usec` of version 2, `throttled_time` (ns) of version 1."""
    for line in _read(file).splitlines():
        name, _, value = line.partition(" ")
        if name in ("throttled_usec", "throttled_time"):
            return int(value) * (1000 if name == "throttled_usec" else 1)
    return None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
