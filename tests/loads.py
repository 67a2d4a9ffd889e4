"""Ways to ask, and what is done meanwhile -> whole runs on a real CoreDNS, and a table of what its own counter saw.

`python -m tests.loads` runs them all one after the other; names choose some.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from probe.linux import enter_network
from tests.drilling import Going, Result, started
from tests.servers import CoreDNS

RATE = 200
LASTS_S = 2.0
"""How long what is done meanwhile lasts."""
LATE_S = 0.5
"""So much later than it was due a query may be counted, on a machine that stands still for a moment."""
LOOKS_S = 0.1
FAR = "192.0.2.53"
"""Nobody's address (RFC 5737), and none of 127.0.0.0/8: a network namespace that leads nowhere has it."""
ANSWERS, SILENT, SLOW = "file example.test.zone example.test", "erratic {\n drop 1\n }", "erratic {\n delay 1 100ms\n }"
"""CoreDNS's own plugins: every query is answered, none is, or each after 100 ms; all of them are counted."""


@dataclass(frozen=True)
class Seen:
    """CoreDNS's coredns_dns_requests_total at one moment: it lies between these two (CLOCK_MONOTONIC, s)."""

    after: float
    before: float
    total: int


@dataclass(frozen=True)
class Counted:
    """What a run left behind, and what the server counted while it went."""

    result: Result
    seen: tuple[Seen, ...]

    @property
    def total(self) -> int:
        """Queries in all."""
        return self.seen[-1].total - self.seen[0].total

    def windows(self) -> Iterator[tuple[float, int]]:
        """From every look until a second later: how long that was at most, and queries meanwhile."""
        for i, one in enumerate(self.seen):
            if other := next((two for two in self.seen[i:] if two.after >= one.before + 1), None):
                yield other.before - one.after, other.total - one.total

    @property
    def busiest(self) -> float:
        """Queries a second, in the busiest second."""
        return max((n / seconds for seconds, n in self.windows()), default=0.0)


@dataclass(frozen=True)
class Load:
    """A run. asked: the most queries a second that it may send; exact: all that it sent are counted, and no others.

    words: of the command line, {port} is the server's; scenario: a file, instead of them. meanwhile: is done as soon as
    queries come. plugin: what the server does at first. where: '' for loopback, else the address, in a namespace.
    says: what must be told. is_short: `make test` has it, too.
    """

    what: str
    asked: float
    words: str = ""
    scenario: str = ""
    meanwhile: Callable[[Going, Server], None] = lambda *_: None
    plugin: str = ANSWERS
    where: str = ""
    exact: bool = True
    exits: tuple[int, ...] = (0, 1, 3)
    says: str = ""
    is_short: bool = True

    @property
    def lacks(self) -> str:
        """What it cannot do without here; '' for nothing."""
        if self.where and os.geteuid() != 0:
            return "root"
        return "ip" if self.where and not shutil.which("ip") else ""

    def run(self, folder: Path) -> Counted:
        """It, from before its first query until after its last."""
        with _network(self.where) as network, _server(folder, network) as server:
            server.does(self.plugin)
            words = self.words.format(port=server.port).split()
            if self.scenario:
                (folder / "load.yaml").write_text(self.scenario.format(port=server.port))
                words = ["load.yaml"]
            inside = ("nsenter", f"--net={network}") if network else ()
            with server.looked_at() as seen:
                with started(folder, words, server.heard, server.port, prefix=inside) as going:
                    while server.heard() < self.asked / 2 and going.process.poll() is None:
                        time.sleep(0.02)
                    self.meanwhile(going, server)
                    result = going.result()
                time.sleep(0.3)
            return Counted(result, tuple(seen))


@dataclass
class Server:
    """A CoreDNS that can be told to be silent. inside: a thread in its network."""

    coredns: CoreDNS
    inside: ThreadPoolExecutor
    url: str
    last: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return self.coredns.port

    def heard(self) -> int:
        """Queries so far, by its counter."""
        return self.last

    def does(self, plugin: str) -> None:
        """From now on that: it reads its Corefile anew, and goes on counting."""
        file = self.coredns.folder / "Corefile"
        old = file.read_text()
        new = old.replace(next(each for each in (ANSWERS, SILENT, SLOW) if each in old), plugin)
        if new != old:
            said = self._reloads()
            file.write_text(new)
            self.coredns.process.send_signal(signal.SIGUSR1)
            deadline = time.monotonic() + 10
            while self._reloads() == said:
                assert time.monotonic() < deadline, "CoreDNS does not read its Corefile anew"
                time.sleep(0.02)

    def _reloads(self) -> int:
        return (self.coredns.folder / "output").read_text().count("Reloading complete")

    @contextmanager
    def looked_at(self) -> Iterator[list[Seen]]:
        """Its counter, every LOOKS_S; where it cannot be had for a moment there is no look."""
        seen: list[Seen] = []
        going = self.inside.submit(self._look, seen)
        try:
            yield seen
        finally:
            self._over.set()
            going.result()

    def _look(self, seen: list[Seen]) -> None:
        while not self._over.is_set():
            after = time.monotonic()
            with suppress(OSError):
                total = self._counted()
                self.last = total - (seen[0].total if seen else total)
                seen.append(Seen(after, time.monotonic(), total))
            self._over.wait(LOOKS_S)

    def _counted(self) -> int:
        with urllib.request.urlopen(self.url, timeout=2) as page:  # noqa: S310  our own, on loopback
            lines = page.read().decode().splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith("coredns_dns_requests_total{"))


class _Far(CoreDNS):
    """On that address, too."""

    @classmethod
    def _configure(cls, folder: Path, addresses: tuple[str, ...], port: int) -> list[str]:
        return super()._configure(folder, (*addresses, FAR), port)


@contextmanager
def _server(folder: Path, network: str) -> Iterator[Server]:
    home = folder / "coredns"
    home.mkdir()
    with ThreadPoolExecutor(1, initializer=_enter, initargs=(network,)) as inside:
        coredns = inside.submit((_Far if network else CoreDNS).start, home).result()
        try:
            yield Server(coredns, inside, f"http://127.0.0.1:{(home / 'metrics').read_text()}/metrics")
        finally:
            coredns.close()


def _enter(network: str) -> None:
    if network:
        enter_network(network)


@contextmanager
def _network(address: str) -> Iterator[str]:
    """A network namespace that has this address and no way out; its path. '' for none."""
    if not address:
        yield ""
        return
    name = f"load-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for words in ("link set lo up", f"address add {address}/32 dev lo"):
            subprocess.run(["ip", "-n", name, *words.split()], check=True)
        yield f"/run/netns/{name}"
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


# -- what is done meanwhile


def worker_stands_still(going: Going, _: Server) -> None:
    _stand_still(going.workers()[0])


def all_stand_still(going: Going, _: Server) -> None:
    _stand_still(*going.workers(), going.process.pid)


def clients_stand_still(going: Going, _: Server) -> None:
    _stand_still(*going.children("probe.clients.process"))


def _stand_still(*pids: int) -> None:
    assert pids
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in pids:
            os.kill(pid, number)
        if number == signal.SIGSTOP:
            time.sleep(LASTS_S)


def server_is_silent(_: Going, server: Server) -> None:
    server.does(SILENT)
    time.sleep(LASTS_S)
    server.does(ANSWERS)


ASKS = f"-s 127.0.0.1 -p {{port}} -n a.example.test -Q {RATE} -l 3 -t 1"
LONGER = ASKS.replace("-l 3", "-l 5")
LANES = """\
name: lanes
duration: 3s
servers: [{{name: a, address: 127.0.0.1, port: {port}}}]
lanes:
  - {{name: udp, target: a, questions: [a.example.test]}}
  - {{name: tcp, target: a, transport: tcp, questions: [a.example.test]}}
"""
LOOKUPS, PROFILES = 5, ("glibc", "musl", "go", "c-ares")
CLIENTS = f"""\
name: clients
duration: 6s
servers: [{{{{name: a, address: 127.0.0.1, port: {{port}}}}}}]
lanes:
  - {{{{name: udp, target: a, rate: 100, timeout: 1s, types: [A], questions: [a.example.test]}}}}
clients:
  profiles: [{", ".join(PROFILES)}]
  names: [dual.example.test.]
  rate: {LOOKUPS}
  target: a
  options: ["timeout:1"]
"""
WITH_CLIENTS = 100 + LOOKUPS * len(PROFILES) * 2 * 2
"""A and AAAA, two attempts: what they may come to while nobody answers."""

STREAM = f"{ASKS} -m tcp --ports pool:4"
CLOSED = ASKS.replace(f"-Q {RATE}", "-Q max -q 20")
AWAY = f"-s {FAR} -p {{port}} -n a.example.test --ports pool:16 -l 3 -Q"
LOADS: dict[str, Load] = {
    "udp": Load("UDP, new ports", RATE, ASKS),
    "tcp": Load("TCP, a connection for each query", RATE, f"{ASKS} -m tcp --ports fresh"),
    "reused": Load("TCP, connections used again", RATE, STREAM, is_short=False),
    "workers": Load("three workers", RATE, f"{ASKS} -T 3"),
    "default": Load("two lanes that say no rate", 50, scenario=LANES),
    "stopped": Load("the worker stands still for 2 s", RATE, LONGER, meanwhile=worker_stands_still),
    "one_stopped": Load(
        "one of two workers does", RATE, f"{LONGER} -T 2", meanwhile=worker_stands_still, is_short=False
    ),
    "all_stopped": Load("all of dnsprobe does", RATE, LONGER, meanwhile=all_stand_still, is_short=False),
    "tcp_stopped": Load(
        "the worker does, by TCP", RATE, STREAM.replace("-l 3", "-l 5"), meanwhile=worker_stands_still, is_short=False
    ),
    "silent": Load("the server is silent for 2 s", RATE, LONGER, meanwhile=server_is_silent),
    "clients": Load(
        "it is silent for 2 s, and clients try again",
        WITH_CLIENTS,
        scenario=CLIENTS,
        meanwhile=server_is_silent,
        exact=False,
    ),
    "clients_stopped": Load(
        "clients stand still for 2 s",
        WITH_CLIENTS,
        scenario=CLIENTS,
        meanwhile=clients_stand_still,
        exact=False,
        is_short=False,
    ),
    "max": Load("`-Q max -q 20`, each answer after 100 ms", 200, CLOSED, plugin=SLOW),
    "max_silent": Load(
        "`-Q max -q 20 -t 1`, nobody answers: 20 at once, and anew a second later",
        40,
        CLOSED,
        plugin=SILENT,
        is_short=False,
    ),
    "ceiling": Load("another machine, `-Q 1000`", 1000, f"{AWAY} 1000", where=FAR),
    "above": Load(
        "another machine, `-Q 1001`: refused",
        0,
        f"{AWAY} 1001",
        where=FAR,
        exits=(2,),
        says="1,001 q/s in all towards other machines; 1,000 q/s is the ceiling",
    ),
    "raised": Load(
        "another machine, `-Q 1100 --max-qps 1100`", 1100, f"{AWAY} 1100 --max-qps 1100", where=FAR, is_short=False
    ),
}


# -- what must hold


def wrong(load: Load, counted: Counted) -> list[str]:
    """What the server counted that was not asked for."""
    result, found = counted.result, []
    if result.exit_code not in load.exits:
        found.append(f"exit code {result.exit_code}: {result.said}")
    if load.says not in " ".join(result.said):
        found.append(f"not said: {load.says}: {result.said}")
    for seconds, n in counted.windows():
        if n > load.asked * (seconds + LATE_S) + 2:
            found.append(f"{n} queries in {seconds:.2f} s, where {load.asked:g} a second were asked for")
    sent = result.planned - result.outcomes.get("unsent", 0)
    if counted.total > load.asked * (result.end_s + LATE_S) + 2:
        found.append(f"{counted.total} queries in all, where {load.asked:g} a second were asked for")
    if (load.exact and counted.total != sent) or counted.total < sent:
        found.append(f"{counted.total} queries counted, where {sent} are said to be sent")
    if load.asked and not sent:
        found.append("nothing was asked")
    return found


def main() -> int:
    """The table; exit code 1 if anything is wrong."""
    parser = argparse.ArgumentParser("python -m tests.loads", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default all: {', '.join(LOADS)}")
    names = parser.parse_args().names or list(LOADS)
    rows, bad = [], []
    for name in names:
        load = LOADS[name]
        if load.lacks:
            bad.append(f"{name}: needs {load.lacks}")
            continue
        with tempfile.TemporaryDirectory(prefix="load-") as folder:
            counted = load.run(Path(folder))
        bad += [f"{name}: {each}" for each in wrong(load, counted)]
        rows.append(row(load, counted))
        print(rows[-1], file=sys.stderr)
    print("\n".join([*HEADINGS, *rows, "", *bad]))
    return bool(bad)


HEADINGS = (
    "| load | asked for, q/s | CoreDNS counted, busiest second | in all | said to be sent | kept back |",
    "|---|---:|---:|---:|---:|---:|",
)


def row(load: Load, counted: Counted) -> str:
    """Of the table."""
    result = counted.result
    unsent = result.outcomes.get("unsent", 0)
    cells = (load.what, f"{load.asked:,.0f}", f"{counted.busiest:,.0f}", f"{counted.total:,}",
             f"{result.planned - unsent:,}", f"{unsent:,}")  # fmt: skip
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
