"""The lab's upstream server: each mode on real sockets, changes of mode, and a real CoreDNS that forwards to it."""

from __future__ import annotations

import contextlib
import ipaddress
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from probe.cluster.images import find_coredns
from probe.cluster.upstream import MODES, mode_of
from probe.errors import UsageError
from tests.servers import closed_port, free_port, has_ipv6

NAME = "www.example.com."


class Upstream:
    """One process."""

    def __init__(self, address: str, mode: str) -> None:
        self.address, self.port = address, closed_port(address)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "probe.cluster.upstream", address, str(self.port), mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.line() == mode

    def line(self) -> str:
        assert self.process.stdout
        assert select.select([self.process.stdout], [], [], 5)[0], "it says nothing"
        return self.process.stdout.readline().rstrip("\n")

    def turn(self, mode: str) -> str:
        assert self.process.stdin
        self.process.stdin.write(f"{mode}\n")
        self.process.stdin.flush()
        return self.line()

    def ask(self, name: str = NAME, qtype: str = "A", tcp: bool = False, timeout: float = 0.3) -> str:
        """The RCODE, addresses after it; or what became of the query otherwise."""
        query = dns.message.make_query(name, qtype)
        try:
            if tcp:
                reply = dns.query.tcp(query, self.address, timeout=timeout, port=self.port)
            else:
                with socket.socket(socket.AF_INET6 if ":" in self.address else socket.AF_INET, socket.SOCK_DGRAM) as s:
                    s.connect((self.address, self.port))  # connected, so that it hears of refusals
                    s.settimeout(timeout)
                    s.send(query.to_wire())
                    reply = dns.message.from_wire(s.recv(512))
        except ConnectionRefusedError:
            return "refused by the kernel"
        except (dns.exception.Timeout, TimeoutError):
            return "silence"
        return " ".join([dns.rcode.to_text(reply.rcode()), *(str(r) for rrset in reply.answer for r in rrset)])

    def end(self) -> int:
        """Its exit code, as its input ends."""
        assert self.process.stdin
        self.process.stdin.close()
        return self.process.wait(5)


@contextlib.contextmanager
def upstream(mode: str, address: str = "127.0.0.1") -> Iterator[Upstream]:
    started = Upstream(address, mode)
    with started.process:
        try:
            yield started
            assert started.end() == 0
        finally:
            started.process.kill()


@pytest.fixture(params=["127.0.0.1", "::1"])
def address(request: pytest.FixtureRequest) -> str:
    if request.param == "::1" and not has_ipv6():
        pytest.skip("needs IPv6: this machine's loopback has no ::1")
    return str(request.param)


ANSWER = "NOERROR 192.0.2.20"
REPLIES = {
    "answering": (ANSWER, ANSWER),
    "slow:150ms": (ANSWER, ANSWER),
    "slow:2s": ("silence", "silence"),
    "silent": ("silence", "silence"),
    "refusing": ("REFUSED", "REFUSED"),
    "closed": ("refused by the kernel", "refused by the kernel"),
    "udp_only": (ANSWER, "refused by the kernel"),
    "nxdomain": ("NXDOMAIN", "NXDOMAIN"),
    "servfail": ("SERVFAIL", "SERVFAIL"),
}
"""What becomes of a query that waits 0.3 s, by UDP and by TCP."""


def test_every_mode_is_tried_here() -> None:
    assert {mode.partition(":")[0] for mode in REPLIES} == set(MODES)


@pytest.mark.parametrize("mode", REPLIES)
def test_modes(mode: str, address: str) -> None:
    with upstream(mode, address) as server:
        assert (server.ask(), server.ask(tcp=True)) == REPLIES[mode]


def test_each_mode_after_each_other() -> None:
    """The last change is in force when it has been answered; nothing of the one before is left."""
    with upstream("answering") as server:
        for mode in [*REPLIES, *reversed(REPLIES)]:
            assert server.turn(mode) == mode
            assert (server.ask(), server.ask(tcp=True)) == REPLIES[mode], mode


def test_open_connections_go_by_the_mode_and_end_when_it_is_closed() -> None:
    query = dns.message.make_query(NAME, "A").to_wire()
    with upstream("answering") as server, socket.create_connection((server.address, server.port), timeout=0.3) as sock:
        for mode, heard in (("answering", True), ("silent", False), ("refusing", True)):
            server.turn(mode)
            sock.sendall(len(query).to_bytes(2) + query)
            if heard:
                reply = dns.message.from_wire(sock.recv(1024)[2:])
                assert reply.rcode() == (dns.rcode.REFUSED if mode == "refusing" else dns.rcode.NOERROR)
            else:
                with pytest.raises(TimeoutError):
                    sock.recv(1024)
        server.turn("closed")
        assert sock.recv(1024) == b""


def test_a_slow_answer_takes_as_long_as_it_was_told_to() -> None:
    with upstream("slow:700ms") as server:
        for tcp in (False, True):
            began = time.monotonic()
            assert server.ask(tcp=tcp, timeout=2) == ANSWER
            assert time.monotonic() - began == pytest.approx(0.7, abs=0.1)


@pytest.mark.parametrize("wrong", ["", "slow", "slow:", "slow:fast", "slow:-1s", "answering:1s", "Answering", "up"])
def test_an_unknown_mode_names_those_that_there_are(wrong: str) -> None:
    with pytest.raises(UsageError, match=rf"upstream mode '{wrong}': say {', '.join(MODES)}; slow takes a duration"):
        mode_of(wrong)


def test_an_unknown_mode_changes_nothing() -> None:
    with upstream("nxdomain") as server:
        assert server.turn("upp").startswith("error: upstream mode 'upp': say answering, slow, silent, ")
        assert server.ask() == "NXDOMAIN"
    words = [sys.executable, "-m", "probe.cluster.upstream", "127.0.0.1", "5399", "upp"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10)
    assert ended.returncode == 2
    assert "upstream mode 'upp': say answering, " in ended.stderr


def test_a_port_that_is_taken_is_said_at_the_start_and_later() -> None:
    with upstream("closed") as server:
        with socket.create_server((server.address, server.port)):
            assert server.turn("answering").startswith("error: listen 127.0.0.1: ")
            assert server.ask() == "refused by the kernel"
            words = [sys.executable, "-m", "probe.cluster.upstream", server.address, str(server.port), "answering"]
            ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10)
            assert ended.returncode == 1
            assert ended.stderr.startswith("listen 127.0.0.1: ")
        assert server.turn("answering") == "answering"
        assert server.ask(tcp=True) == ANSWER


@pytest.mark.parametrize("by_signal", [False, True])
def test_it_ends_in_order_whatever_is_open(by_signal: bool) -> None:
    query = dns.message.make_query(NAME, "A").to_wire()
    with upstream("slow:1s") as server, socket.create_connection((server.address, server.port)) as sock:
        sock.sendall(len(query).to_bytes(2) + query)
        assert server.ask() == "silence"
        if by_signal:
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(5)
        assert server.end() == 0
        assert server.process.stderr
        assert server.process.stderr.read() == ""


# --- What it says ---


@pytest.mark.parametrize(
    ("name", "qtype", "rcode", "answers"),
    [
        ("www.example.com.", "A", "NOERROR", 1),
        ("WWW.Example.com.", "AAAA", "NOERROR", 1),
        ("www.example.com.", "MX", "NOERROR", 0),
        (".", "NS", "NOERROR", 0),
        ("kubernetes.default.svc.cluster.local.", "A", "NXDOMAIN", 0),
        ("cluster.local.", "A", "NXDOMAIN", 0),
        ("notcluster.local.", "A", "NOERROR", 1),
    ],
)
@pytest.mark.parametrize("edns", [False, True])
def test_answers(name: str, qtype: str, rcode: str, answers: int, edns: bool) -> None:
    with upstream("answering") as server:
        query = dns.message.make_query(name, qtype, use_edns=edns)
        reply = dns.query.udp(query, server.address, timeout=2, port=server.port)
    assert dns.rcode.to_text(reply.rcode()) == rcode
    assert reply.flags & dns.flags.RA
    assert not reply.flags & dns.flags.AA
    assert (reply.edns >= 0) is edns
    records = [record for rrset in reply.answer for record in rrset]
    assert len(records) == answers
    assert [rrset.rdtype for rrset in reply.authority] == ([] if answers else [dns.rdatatype.SOA])
    assert all(rrset.ttl == 30 for rrset in (*reply.answer, *reply.authority))
    blocks = [ipaddress.ip_network(block) for block in ("192.0.2.0/24", "2001:db8::/32")]
    assert all(any(ipaddress.ip_address(str(r)) in block for block in blocks) for r in records)


def test_an_address_follows_from_the_name_alone() -> None:
    names = [f"host{i}.example.com." for i in range(40)]
    said = []
    for _ in range(2):
        with upstream("answering") as server:
            said.append([server.ask(name, qtype) for name in names for qtype in ("A", "AAAA")])
    assert said[0] == said[1]
    assert len(set(said[0])) > 70, "names have addresses of their own"


# --- A real CoreDNS in front of it ---


@pytest.fixture(scope="module")
def forwarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Upstream, int]]:
    """An upstream, and the port of a CoreDNS that forwards to it."""
    coredns = find_coredns()
    if coredns is None:
        pytest.skip("needs the real CoreDNS: run `make coredns`")
    folder, port = tmp_path_factory.mktemp("forward"), free_port()
    with upstream("answering") as server:
        (folder / "Corefile").write_text(f".:{port} {{\n  bind 127.0.0.1\n  forward . 127.0.0.1:{server.port}\n}}\n")
        process = subprocess.Popen(
            [coredns, "-conf", folder / "Corefile"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            for _ in range(200):
                if through(port, "www", 0.1)[0] == ANSWER:
                    break
                time.sleep(0.02)
            yield server, port
        finally:
            process.kill()
            process.wait()


def through(port: int, label: str, timeout: float, tcp: bool = False) -> tuple[str, float]:
    """What CoreDNS on this port makes of a name, and after how many seconds."""
    began = time.monotonic()
    query = dns.message.make_query(f"{label}.example.com.", "A")
    try:
        ask = dns.query.tcp if tcp else dns.query.udp
        reply = ask(query, "127.0.0.1", timeout=timeout, port=port)
    except (dns.exception.Timeout, OSError):
        return "silence", time.monotonic() - began
    said = [dns.rcode.to_text(reply.rcode()), *(str(r) for rrset in reply.answer for r in rrset)]
    return " ".join(said), time.monotonic() - began


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize(
    ("mode", "said", "least", "most"),
    [
        ("answering", "NOERROR 192.0.2.", 0, 0.5),
        ("slow:300ms", "NOERROR 192.0.2.", 0.3, 0.8),
        ("refusing", "REFUSED", 0, 0.5),
        ("nxdomain", "NXDOMAIN", 0, 0.5),
        ("servfail", "SERVFAIL", 0, 0.5),
        ("closed", "SERVFAIL", 0, 0.5),
        ("silent", "SERVFAIL", 1.9, 6.5),
    ],
)
def test_what_coredns_makes_of_it(
    forwarded: tuple[Upstream, int], mode: str, said: str, least: float, most: float, tcp: bool
) -> None:
    """A dead upstream is SERVFAIL after 2 to 6 s (plugin/forward: 2 s a try, 5 s in all)."""
    server, port = forwarded
    server.turn(mode)
    heard, seconds = through(port, mode.partition(":")[0], 8, tcp)
    assert heard.startswith(said)
    assert least <= seconds <= most
