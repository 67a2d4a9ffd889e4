"""A Bench in; what being asked costs CoreDNS, and asking the prober, at the default rate and at the ceiling, out."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.load import Missing
from bench.processes import ROOT, Sample, end, held, look
from bench.rounds import Bench
from bench.standing import MB, SETTLES
from bench.table import Section, number
from probe.scenario.limits import CEILING
from probe.scenario.plan import DEFAULT_TOTAL
from tests.servers import CoreDNS, free_port

ROUNDS = 3
PATIENCE = 60.0
NAME = "kubernetes.default.svc.cluster.local."
UDP, TCP = "udp", "tcp"
IDLE = "nobody asks"
CASES: dict[str, tuple[int, tuple[str, ...]]] = {
    IDLE: (0, ()),
    "the default, UDP": (int(DEFAULT_TOTAL), (UDP,)),
    "the default, TCP": (int(DEFAULT_TOTAL), (TCP,)),
    "the ceiling, half of it TCP": (int(CEILING), (UDP, TCP)),
}
"""Queries a second in all, and lanes."""
ZONE = """\
$ORIGIN cluster.local.
$TTL 5
@                      SOA ns.dns hostmaster 1 7200 1800 86400 5
@                      NS ns.dns
ns.dns                 A 10.96.0.10
kubernetes.default.svc A 10.96.0.1
"""
NOTE = (
    "CoreDNS with kubeadm's Corefile (errors, health, ready, prometheus, cache, loop, reload, loadbalance), but `file`"
    " in place of `kubernetes`, which needs a cluster, and no forward: nobody asks for names outside."
    f" {NAME} is not cached, as kubeadm has it. UDP from new ports, TCP with a connection for each query."
    " Start-up is left out."
)


class _ClusterDNS(CoreDNS):
    """CoreDNS as kubeadm configures it, as far as it can be without a cluster."""

    @classmethod
    def _configure(cls, folder: Path, addresses: tuple[str, ...], port: int) -> list[str]:
        (folder / "cluster.zone").write_text(ZONE)
        words = super()._configure(folder, addresses, port)
        file = folder / "Corefile"
        health, ready = free_port(), free_port()
        more = (
            f"  health 127.0.0.1:{health} {{\n    lameduck 5s\n  }}\n  ready 127.0.0.1:{ready}\n"
            "  file cluster.zone cluster.local\n  loop\n  reload\n  loadbalance\n"
            "  cache 30 {\n    disable success cluster.local\n    disable denial cluster.local\n  }\n"
        )
        file.write_text(file.read_text().replace(f"  {cls.plugins}\n", f"  {cls.plugins}\n{more}"))
        return words


@dataclass(frozen=True, slots=True)
class Cost:
    """Of some processes over a while: millicores, octets held at its end."""

    millicores: float
    octets: int

    @classmethod
    def between(cls, before: Sample, after: Sample) -> Cost:
        return cls(1000 * (after.cpu - before.cpu) / (after.at - before.at), after.pss)


@dataclass(frozen=True, slots=True)
class Stretch:
    """rate: queries a second, as CoreDNS counted them. prober: nothing where nobody asks."""

    rate: float
    server: Cost
    prober: Cost | None


def harm(bench: Bench) -> list[Section]:
    """CoreDNS idle, at the default rate and at the ceiling, a minute each, in turns."""
    seconds, found = 6 * bench.seconds, {name: list[Stretch]() for name in CASES}
    with _coredns(bench.folder) as server:
        for turn in range(min(ROUNDS, bench.rounds)):
            for name, (rate, lanes) in CASES.items():
                bench.say(f"harm, round {turn + 1}: {name}, {seconds:g} s")
                with _asking(bench.folder, server, rate, lanes, seconds) as prober:
                    found[name].append(_measured(server, prober, seconds))
    return [_table(found, seconds)]


@contextmanager
def _coredns(folder: Path) -> Iterator[CoreDNS]:
    home = folder / "harm"
    home.mkdir()
    try:
        server = _ClusterDNS.start(home)
    except pytest.skip.Exception as lacking:
        raise Missing(str(lacking)) from None
    try:
        yield server
    finally:
        server.close()


@contextmanager
def _asking(folder: Path, server: CoreDNS, rate: int, lanes: Sequence[str], seconds: float) -> Iterator[int]:
    """The id of a prober that asks, for longer than `seconds`; 0 for none."""
    if not rate:
        yield 0
        return
    (folder / "harm.yaml").write_text(_scenario(server.port, rate, lanes, seconds + 2 * SETTLES))
    run = folder / f"harm-{time.monotonic_ns()}.db"
    command = [sys.executable, "-m", "probe.cli", "run", str(folder / "harm.yaml"), "-o", str(run)]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=ROOT, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        before = server.metrics().requests.total()
        given_up = time.monotonic() + PATIENCE
        while server.metrics().requests.total() == before:
            if time.monotonic() > given_up:
                raise Missing(f"no prober asked anything within {PATIENCE:g} s")
            time.sleep(0.5)
        yield process.pid
    finally:
        end(process)


def _scenario(port: int, rate: int, lanes: Sequence[str], seconds: float) -> str:
    """The default rate is that of lanes that say none."""
    asks = f"target: a, ports: fresh, questions: [{NAME}]"
    if rate != DEFAULT_TOTAL:
        asks += f", rate: {rate // len(lanes)}"
    each = "".join(f"  - {{name: {lane}, transport: {lane}, {asks}}}\n" for lane in lanes)
    servers = f"[{{name: a, address: 127.0.0.1, port: {port}}}]"
    return f"name: harm\nduration: {seconds:g}s\nservers: {servers}\nlanes:\n{each}"


def _measured(server: CoreDNS, prober: int, seconds: float) -> Stretch:
    """What it costs once it has settled; the two looks at CoreDNS's page of metrics are outside of what is measured."""
    time.sleep(SETTLES / 2)
    asked = server.metrics().requests.total()
    before = held([server.process.pid]), look(prober) if prober else None
    time.sleep(seconds)
    after = held([server.process.pid]), look(prober) if prober else None
    rate = (server.metrics().requests.total() - asked) / (after[0].at - before[0].at)
    asker = Cost.between(before[1], after[1]) if before[1] and after[1] else None
    return Stretch(rate, Cost.between(before[0], after[0]), asker)


def _table(found: dict[str, list[Stretch]], seconds: float) -> Section:
    rows = []
    for name, stretches in found.items():
        pairs = list(zip(stretches, found[IDLE], strict=True))
        extra = [one.server.millicores - idle.server.millicores for one, idle in pairs] if CASES[name][0] else []
        each = [1000 * added / one.rate for one, added in zip(stretches, extra, strict=False)]
        askers = [one.prober for one in stretches if one.prober]
        rows.append(
            (
                f"{name}, {CASES[name][0]:,} q/s" if extra else name,
                _median([one.rate for one in stretches]),
                _median([one.server.millicores for one in stretches]),
                _median(extra),
                _median(each, 0),
                _median([one.server.octets / MB for one in stretches]),
                _median([one.millicores for one in askers]),
                _median([one.octets / MB for one in askers]),
            )
        )
    headings = (
        "", "CoreDNS counted, q/s", "CoreDNS, millicores", "more than idle", "CPU us/query", "CoreDNS, PSS, MB",
        "prober, millicores", "prober, PSS, MB",
    )  # fmt: skip
    measured = f"{len(found[IDLE])} rounds of {seconds:g} s, medians; each less the idle one of its round."
    return Section("What being asked costs CoreDNS", headings, tuple(rows), notes=(measured, NOTE))


def _median(these: Sequence[float], digits: int = 1) -> str:
    return number(statistics.median(these) if these else None, digits)
