"""This machine -> what it has of what dnsprobe uses: kernel, limits, rights, programs, a cluster; what is not there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from probe.doctor import kernel, machine, reach
from probe.doctor.examination import Examination, Examined, Seen, State
from probe.errors import EnvironmentProblem
from probe.linux import SUPPORTED

_NEWER = "a newer kernel, or one that is not emulated (gVisor and the like)"
_ON_LINUX = ("KERNEL", "LIMITS", "RIGHTS")


def examine(context: str = "") -> list[Examined]:
    """All of EXAMINATIONS in their order; elsewhere than on Linux those that can be made there.

    context: of the kubeconfig. UsageError if there is no such one.
    """
    asked = EXAMINATIONS | {"cluster": replace(EXAMINATIONS["cluster"], look=partial(reach.cluster, context))}
    here = {name: each for name, each in asked.items() if SUPPORTED or name == "linux" or each.area not in _ON_LINUX}
    return [_made(name, each) for name, each in here.items()]


def missing(examined: Iterable[Examined]) -> list[Examined]:
    """What no run goes without."""
    return [each for each in examined if each.state is State.MISSING]


def _made(name: str, asked: Examination) -> Examined:
    try:
        seen = asked.look()
    except OSError as problem:
        where = f": {problem.filename}" if problem.filename else ""
        seen = Seen(False, f"{problem.strerror or problem}{where}")
    except EnvironmentProblem as problem:
        seen = Seen(False, str(problem))
    state = State.OK if seen.well else State.MISSING if asked.needed else State.LESS
    return Examined(name, asked.area, state, seen.text, asked.gives, "" if seen.well else seen.mend or asked.mend)


EXAMINATIONS = {
    "linux": Examination(
        *("KERNEL", "queries: they are sent from Linux only; reports work anywhere", kernel.linux),
        *("docker run --rm IMAGE doctor", True),
    ),
    "batches": Examination("KERNEL", "replies: they are read in batches", kernel.batches, _NEWER, True),
    "stamps": Examination("KERNEL", "latencies that count to a reply's arrival", kernel.stamps, _NEWER, True),
    "errors": Examination("KERNEL", "refusals, and which query each is of", kernel.errors, _NEWER, True),
    "new_ports": Examination(
        "KERNEL", "`--ports fresh`: a new source port for each query", kernel.new_ports, _NEWER, True
    ),
    "drops": Examination(
        "KERNEL", "what our own receive buffer lost, told from what DNS lost", kernel.drops, _NEWER, True
    ),
    "memory": Examination("KERNEL", "counts that workers and their parent share", kernel.memory, _NEWER, True),
    "port_choice": Examination(
        *("KERNEL", "fresh ports in turn, so that none comes again within conntrack's 30 s", kernel.port_choice),
        "Linux 6.3 or newer",
    ),
    "timers": Examination(
        *("KERNEL", "queries that leave when they are due", kernel.timers),
        "an idle machine whose clock source is no emulation: cat /sys/devices/system/clocksource/clocksource0/*",
    ),
    "bursts": Examination("KERNEL", "`--gso`: bursts, for load tests alone", kernel.bursts, "Linux 4.18 or newer"),
    "ipv6": Examination(
        *("KERNEL", "targets by IPv6", kernel.ipv6, "sysctl -w net.ipv6.conf.all.disable_ipv6=0"),
    ),
    "descriptors": Examination(
        *("LIMITS", "sockets: rate x timeout of them for new ports", machine.descriptors),
        *("ulimit -Hn 65536, or LimitNOFILE=65536 in the unit", True),
    ),
    "ports": Examination(
        *("LIMITS", "source ports: rate x timeout of them for new ports", machine.ports),
        *("sysctl -w net.ipv4.ip_local_port_range='32768 60999'", True),
    ),
    "buffer": Examination(
        *("LIMITS", "no loss of our own at high rates on ports that are used again", machine.buffer),
        "sysctl -w net.core.rmem_max=2097152",
    ),
    "conntrack": Examination("LIMITS", "room for flows of new ports", machine.tracked),
    "folder": Examination("LIMITS", "run files without `-o`", machine.folder, "dnsprobe run -o /path/to/run.db ..."),
    "namespaces": Examination(
        *("RIGHTS", "`lab.backend: netns`: the kernel's own NAT and conntrack", machine.namespaces),
        "sudo dnsprobe ...",
    ),
    "programs": Examination("RIGHTS", "`lab.backend: netns`, too", machine.programs),
    "coredns": Examination(
        *("WHAT GOES WITH IT", "labs whose pods are the real CoreDNS", machine.coredns),
        "make coredns, or DNSPROBE_COREDNS=/path/to/coredns",
    ),
    "pictures": Examination(
        *("WHAT GOES WITH IT", "`--html`, `--png`, `--svg`", machine.pictures),
    ),
    "cluster": Examination(
        *("CLUSTER", "runs in a real cluster; the lab needs none", reach.cluster),
        "KUBECONFIG=/path/to/kubeconfig, or --context NAME",
    ),
}
"""A new examination: a function that looks, a line here; the test asks for its row in the README."""
