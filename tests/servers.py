"""Servers to ask, on loopback ports the kernel chose: a scripted one, and knot, nsd and CoreDNS, which others wrote."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

import dns.exception
import dns.message
import dns.query
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from probe.cluster.images import find_coredns
from tests.replies import BY_FIRST_LABEL, REPLIES, Reply, Rule
from tests.scripted import Log

__all__ = [
    "BY_FIRST_LABEL",
    "REPLIES",
    "ZONE",
    "CoreDNS",
    "CoreDNSCounts",
    "Knot",
    "Nsd",
    "Received",
    "Reply",
    "Rule",
    "ScriptedServer",
    "closed_port",
    "free_port",
    "has_ipv6",
    "need",
]

ROOT = Path(__file__).parents[1]


# --- Ports and what is installed ---


def has_ipv6() -> bool:
    """Whether this machine's loopback has ::1."""
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        return True
    return False


def _open(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """UDP and TCP sockets bound on all addresses to one port. OSError, and nothing left open, if one is taken."""
    opened: list[socket.socket] = []
    try:
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                opened.append(socket.socket(family, kind))
                opened[-1].bind((address, port))
                port = opened[-1].getsockname()[1]
    except OSError:
        for sock in opened:
            sock.close()
        raise
    return opened


def free_port(*addresses: str) -> int:
    """A port that is free for UDP and TCP on all addresses (default 127.0.0.1) right now; nobody holds it."""
    while True:
        with suppress(OSError):
            opened = _open(addresses or ("127.0.0.1",), 0)
            port: int = opened[0].getsockname()[1]
            for sock in opened:
                sock.close()
            return port


def closed_port(address: str = "127.0.0.1") -> int:
    """A port below the ephemeral range, so that no later socket gets it by chance, on which nobody listens."""
    for port in range(20_000, 30_000):
        with suppress(OSError):
            for sock in _open((address,), port):
                sock.close()
            return port
    raise RuntimeError(f"no closed port on {address}")


def need(program: str, lift: str) -> str:
    """The path of a program; skips the test, naming the command that lifts the skip, if it is not installed."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if not found:
        pytest.skip(f"needs {program}: run `{lift}`")
    return found


# --- The scripted server ---


@dataclass(frozen=True)
class Received:
    """What the scripted server received, a row per query in order of arrival.

    at_ns: int64, CLOCK_MONOTONIC; port, id: uint16, the asker's port and the query's id; kind: what became of it (a key
    of REPLIES, or the rule's own); name, qtype, transport: str.
    """

    at_ns: NDArray[np.int64]
    port: NDArray[np.uint16]
    id: NDArray[np.uint16]
    kind: NDArray[np.str_]
    name: NDArray[np.str_]
    qtype: NDArray[np.str_]
    transport: NDArray[np.str_]

    @classmethod
    def of(cls, log: Log) -> Received:
        """The log with its numbers resolved."""
        names = np.array(log.questions or [("", "", "")])[np.frombuffer(log.question, np.uint32)]
        return cls(
            np.frombuffer(log.at_ns, np.int64),
            np.frombuffer(log.port, np.uint16),
            np.frombuffer(log.id, np.uint16),
            np.array(log.kinds or [""])[np.frombuffer(log.kind, np.uint16)],
            names[:, 0],
            names[:, 1],
            names[:, 2],
        )

    def __len__(self) -> int:
        return len(self.at_ns)

    def where(self, **columns: str) -> Received:
        """The rows whose columns have these values: `where(kind="silent", transport="udp")`."""
        chosen = np.ones(len(self), bool)
        for column, value in columns.items():
            chosen &= getattr(self, column) == value
        return Received(*(getattr(self, column.name)[chosen] for column in fields(self)))

    def by_kind(self) -> dict[str, int]:
        """How many of each kind."""
        return dict(Counter(self.kind.tolist()))


class ScriptedServer:
    """A DNS server by UDP and TCP whose replies are rules, in a process of its own, so that it disturbs nobody.

    Without rules a name's first label says what comes back: `nxdomain.test`, `late.test` (see REPLIES); any other name
    is answered 192.0.2.1 and 2001:db8::1.

        with ScriptedServer([Rule(REPLIES["silent"], since=1, until=4)]) as server:
            ...
            assert server.received().by_kind() == {"answer": 2000, "silent": 3000}
    """

    def __init__(self, rules: Sequence[Rule] = BY_FIRST_LABEL, address: str = "127.0.0.1", port: int = 0) -> None:
        self.address = address
        ours, theirs = socket.socketpair()
        with theirs:
            code = f"from tests.scripted import main; main({theirs.fileno()}, {address!r}, {port})"
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], pass_fds=[theirs.fileno()], cwd=ROOT, start_new_session=True
            )
        self._control = Connection(ours.detach())
        self.port: int = self._control.recv()
        self.use(rules)

    def use(self, rules: Sequence[Rule]) -> None:
        """From now on these rules; their clock starts with the next query. Others are answered."""
        self._ask(tuple(rules))

    def received(self) -> Received:
        """Everything that had arrived when this was called."""
        return Received.of(self._ask(None))

    def connections(self) -> int:
        """How many TCP connections were accepted."""
        return self._ask(None).connections

    def close(self) -> None:
        """End the process; nothing listens on the port any more."""
        self._control.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, order: tuple[Rule, ...] | None) -> Log:
        self._control.send(order)
        log: Log = self._control.recv()
        return log

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# --- Real servers ---

ZONE = """\
$ORIGIN example.test.
$TTL 5
@        SOA ns hostmaster 1 3600 600 86400 5
@        NS ns
ns       A 192.0.2.53
a        A 192.0.2.1
dual     A 192.0.2.2
dual     AAAA 2001:db8::2
alias    CNAME a
dangling CNAME nothing
service  SRV 0 5 53 ns
service  HTTPS 1 . alpn=h2
service  SVCB 1 a port=53
service  MX 10 a
service  TXT "hello"
1        PTR a
""" + "".join(f'many     A 198.51.100.{i}\nmany     TXT "{i:03} {"x" * 120}"\n' for i in range(1, 101))
"""What every real server serves: a (A), dual (A, AAAA), alias (to a), dangling (to nothing), many (too big for UDP).

Other types: service (SRV, HTTPS, SVCB, MX, TXT), 1 (PTR).
"""


def end(process: subprocess.Popen[bytes], seconds: float = 3) -> None:
    """Stop a process, by its id."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class RealServer:
    """A server process that has answered: its addresses, its port, its process id."""

    addresses: tuple[str, ...]
    port: int
    process: subprocess.Popen[bytes]
    folder: Path
    program = ""

    @classmethod
    def start(cls, folder: Path) -> Self:
        """Start it on loopback with ZONE and wait until it answers; RuntimeError with its own words if it does not."""
        command = cls._find()
        addresses = ("127.0.0.1", "::1") if has_ipv6() else ("127.0.0.1",)
        (folder / "example.test.zone").write_text(ZONE)
        for _ in range(3):  # somebody may take a port between its choice and its use
            port = free_port(*addresses)
            with (folder / "output").open("wb") as output:
                process = subprocess.Popen(
                    [command, *cls._configure(folder, addresses, port)],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            server = cls(addresses, port, process, folder)
            if server._answers():
                return server
            server.close()
        raise RuntimeError(f"{command} does not answer:\n{(folder / 'output').read_text(errors='replace')}")

    @classmethod
    def _find(cls) -> str:
        return need(cls.program, "make servers")

    @classmethod
    def _configure(cls, folder: Path, addresses: tuple[str, ...], port: int) -> list[str]:
        """Write the configuration; the arguments that use it."""
        raise NotImplementedError

    def _answers(self) -> bool:
        query = dns.message.make_query("a.example.test.", "A")
        waiting = list(self.addresses)
        deadline = time.monotonic() + 10
        while waiting and time.monotonic() < deadline and self.process.poll() is None:
            try:
                reply = dns.query.udp(query, waiting[0], timeout=0.2, port=self.port)
            except (OSError, dns.exception.DNSException):
                time.sleep(0.02)
                continue
            if reply.answer:
                waiting.pop(0)
        return not waiting

    def close(self) -> None:
        """Stop the process, by its id."""
        end(self.process)


class Knot(RealServer):
    """Knot DNS, authoritative for ZONE."""

    program = "knotd"

    @classmethod
    def _configure(cls, folder: Path, addresses: tuple[str, ...], port: int) -> list[str]:
        listen = ", ".join(f"{address}@{port}" for address in addresses)
        (folder / "knot.conf").write_text(
            f'server:\n  rundir: "{folder}"\n  listen: [ {listen} ]\n  udp-workers: 1\n  tcp-workers: 1\n'
            f'  nsid: "knot-of-the-tests"\n  udp-max-payload: 4096\n'
            f'log:\n  - target: stderr\n    any: warning\ndatabase:\n  storage: "{folder}/db"\n'
            f'template:\n  - id: default\n    storage: "{folder}"\nzone:\n'
            f'  - domain: example.test\n    file: "example.test.zone"\n'
        )
        return ["-c", str(folder / "knot.conf")]


class Nsd(RealServer):
    """NSD, authoritative for ZONE."""

    program = "nsd"

    @classmethod
    def _configure(cls, folder: Path, addresses: tuple[str, ...], port: int) -> list[str]:
        listen = "".join(f"  ip-address: {address}@{port}\n" for address in addresses)
        (folder / "nsd.conf").write_text(
            f'server:\n{listen}  username: ""\n  chroot: ""\n  zonesdir: "{folder}"\n  database: ""\n'
            f'  pidfile: "{folder}/nsd.pid"\n  xfrdfile: "{folder}/xfrd.state"\n  zonelistfile: "{folder}/zone.list"\n'
            f'  xfrdir: "{folder}"\n  server-count: 1\n  rrl-ratelimit: 0\nremote-control:\n  control-enable: no\n'
            f"zone:\n  name: example.test\n  zonefile: example.test.zone\n"
        )
        return ["-d", "-c", str(folder / "nsd.conf")]


@dataclass(frozen=True)
class CoreDNSCounts:
    """What CoreDNS counted itself; `after - before` is what it counted in between.

    requests: coredns_dns_requests_total by (proto, family, type), as ("udp", "1", "A"), family 1 IPv4, 2 IPv6;
    responses: coredns_dns_responses_total by rcode, as "NOERROR".
    """

    requests: Counter[tuple[str, str, str]]
    responses: Counter[str]

    def __sub__(self, before: CoreDNSCounts) -> CoreDNSCounts:
        return CoreDNSCounts(self.requests - before.requests, self.responses - before.responses)


class CoreDNS(RealServer):
    """The real CoreDNS with the file and prometheus plugins, authoritative for ZONE."""

    plugins = "file example.test.zone example.test"

    @classmethod
    def _find(cls) -> str:
        found = find_coredns()
        if found is None:
            pytest.skip("needs the real CoreDNS: run `make coredns`")
        return str(found)

    @classmethod
    def _configure(cls, folder: Path, addresses: tuple[str, ...], port: int) -> list[str]:
        metrics = free_port()
        (folder / "metrics").write_text(str(metrics))
        (folder / "Corefile").write_text(
            f".:{port} {{\n  bind {' '.join(addresses)}\n  errors\n  prometheus 127.0.0.1:{metrics}\n"
            f"  {cls.plugins}\n}}\n"
        )
        return ["-conf", str(folder / "Corefile")]

    def metrics(self) -> CoreDNSCounts:
        """Its request and response counters now."""
        url = f"http://127.0.0.1:{(self.folder / 'metrics').read_text()}/metrics"
        with urllib.request.urlopen(url, timeout=5) as page:
            text = page.read().decode()
        counts = CoreDNSCounts(Counter(), Counter())
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                label = sample.labels
                if sample.name == "coredns_dns_requests_total":
                    counts.requests[label["proto"], label["family"], label["type"]] += int(sample.value)
                elif sample.name == "coredns_dns_responses_total":
                    counts.responses[label["rcode"]] += int(sample.value)
        return counts
