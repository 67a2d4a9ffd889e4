"""The servers that other tests trust: every scripted reply seen through a plain socket and dnspython."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections import Counter
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import numpy as np
import pytest

from tests.conftest import Start
from tests.servers import REPLIES, CoreDNS, RealServer, Reply, Rule, closed_port, has_ipv6

ANSWERED = {"A": "192.0.2.1", "AAAA": "2001:db8::1"}


def ask(server: object, name: str, qtype: str = "A", wait: float = 0.1) -> tuple[bytes, list[bytes]]:
    """The query and the datagrams that came back from the server's own port within `wait` seconds."""
    query = dns.message.make_query(name, qtype, use_edns=False, id=0x1234).to_wire()
    address, port = server.address, server.port  # type: ignore[attr-defined]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    came = []
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((address, port))
        sock.send(query)
        sock.settimeout(wait)
        try:
            while True:
                came.append(sock.recv(4096))
                sock.settimeout(0.03)
        except TimeoutError:
            return query, came


@pytest.mark.parametrize("qtype", ["A", "AAAA"])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.7", "::1"])
def test_a_name_without_a_rule_is_answered_on_every_address(scripted: Start, address: str, qtype: str) -> None:
    if address == "::1" and not has_ipv6():
        pytest.skip("needs IPv6: this machine's loopback has no ::1")
    server = scripted(address=address)
    _, [whole] = ask(server, "Any.Name.Example.", qtype)
    reply = dns.message.from_wire(whole)
    assert reply.id == 0x1234
    assert [record.to_text() for record in reply.answer[0]] == [ANSWERED[qtype]]
    by_tcp = dns.query.tcp(dns.message.make_query("x.test", qtype), address, 2, server.port)
    assert [record.to_text() for record in by_tcp.answer[0]] == [ANSWERED[qtype]]
    assert Counter(server.received().transport.tolist()) == {"udp": 1, "tcp": 1}


def test_each_reply_by_its_first_label(scripted: Start) -> None:
    server = scripted()
    seen = {kind: ask(server, f"{kind}.test") for kind in REPLIES if kind not in ("late", "silent", "wrong_port")}
    whole = {kind: came[0] for kind, (_, came) in seen.items() if len(came) == 1}

    assert {kind for kind, (_, came) in seen.items() if not came} == {"hang_up", "reset"}
    assert [kind for kind, (_, came) in seen.items() if len(came) == 2] == ["twice"]
    assert whole["garbage"] == bytes(range(200, 255))
    assert whole["empty"] == b""
    lengths = {kind: len(whole[kind]) for kind in whole if kind.startswith("cut")}
    assert lengths == {
        "cut_in_header": 7,
        "cut_after_header": 12,
        "cut_in_question": 15,
        "cut_in_answer": len(seen["cut_in_answer"][0]) + 16 - 3,
    }
    for kind in ("garbage_answer", *lengths):
        with pytest.raises(dns.exception.DNSException):
            dns.message.from_wire(whole[kind])

    parsed = {
        kind: dns.message.from_wire(data)
        for kind, data in whole.items()
        if kind not in {"garbage", "empty", "garbage_answer", "header_only", *lengths}
    }
    rcodes = {kind: dns.rcode.to_text(reply.rcode()) for kind, reply in parsed.items() if reply.rcode()}
    assert rcodes == {
        "nxdomain": "NXDOMAIN",
        "servfail": "SERVFAIL",
        "refused": "REFUSED",
        "formerr": "FORMERR",
        "notimp": "NOTIMP",
        "truncated_servfail": "SERVFAIL",
    }
    assert {kind for kind, reply in parsed.items() if reply.flags & dns.flags.TC} == {
        "truncated",
        "truncated_with_answer",
        "truncated_servfail",
    }
    assert parsed["truncated_with_answer"].answer
    assert not parsed["nodata"].answer
    assert [str(rrset) for rrset in parsed["cname"].answer] == [
        "cname.test. 5 IN CNAME target.test.",
        "target.test. 5 IN A 192.0.2.1",
    ]
    assert len(parsed["cname_to_nothing"].answer) == 1
    assert {kind for kind, reply in parsed.items() if reply.id != 0x1234} == {"another_id"}
    assert {kind for kind, reply in parsed.items() if not reply.flags & dns.flags.QR} == {"not_a_reply"}
    assert str(parsed["another_question"].question[0].name) == "elsewhere.test."
    assert parsed["another_type"].question[0].rdtype == 16
    assert struct.unpack("!6H", whole["header_only"]) == (0x1234, 0x8501, 0, 0, 0, 0)


def test_silent_late_and_from_another_port(scripted: Start) -> None:
    server = scripted()
    assert ask(server, "silent.test")[1] == []
    assert ask(server, "wrong_port.test")[1] == []
    started = time.monotonic()
    assert len(ask(server, "late.test", wait=1)[1]) == 1
    assert 0.3 <= time.monotonic() - started < 0.6
    started = time.monotonic()
    assert dns.query.tcp(dns.message.make_query("late.test", "A"), server.address, 2, server.port).answer
    assert 0.3 <= time.monotonic() - started < 0.6
    assert server.received().by_kind() == {"silent": 1, "wrong_port": 1, "late": 2}


def test_a_wrong_port_reply_does_reach_an_unconnected_socket(scripted: Start) -> None:
    server = scripted()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        sock.sendto(dns.message.make_query("wrong_port.test", "A").to_wire(), (server.address, server.port))
        _, peer = sock.recvfrom(4096)
    assert peer[0] == server.address
    assert peer[1] != server.port


def test_rules_choose_by_name_type_transport_and_time(scripted: Start) -> None:
    rules = [
        Rule(REPLIES["refused"], transport="tcp"),
        Rule(REPLIES["nodata"], qtype="AAAA", name="*.v4.test"),
        Rule(REPLIES["silent"], since=0.15, until=0.3),
        Rule(Reply("mine", addresses=("203.0.113.9",), delay=0.01), name="Mine.Test."),
    ]
    server = scripted(rules)
    assert dns.query.tcp(dns.message.make_query("x.test", "A"), "127.0.0.1", 2, server.port).rcode() == 5
    server.use(rules)
    assert not dns.message.from_wire(ask(server, "x.v4.test", "AAAA")[1][0]).answer
    assert dns.message.from_wire(ask(server, "x.v4.test", "A")[1][0]).answer
    assert "203.0.113.9" in str(dns.message.from_wire(ask(server, "mine.test")[1][0]))
    outcome = ""
    for _ in range(16):
        outcome += "." if ask(server, "mine.test", wait=0.025)[1] else "x"
    assert outcome.strip(".").strip("x") == ""
    assert 1 <= outcome.count("x") <= 7
    received = server.received()
    assert len(received.where(kind="silent")) == outcome.count("x")
    assert len(received.where(name="mine.test", transport="udp")) == 17
    assert (np.diff(received.at_ns) > 0).all()


def test_tcp_pipelines_hangs_up_and_resets(scripted: Start) -> None:
    server = scripted()
    with socket.create_connection((server.address, server.port), 1) as sock:
        frames = b""
        for number in range(300):
            query = dns.message.make_query("x.test", "A", use_edns=False, id=number).to_wire()
            frames += struct.pack("!H", len(query)) + query
        sock.sendall(frames)
        stream = sock.makefile("rb")
        whole = [stream.read(int.from_bytes(stream.read(2))) for _ in range(300)]
        stream.close()
        assert [int.from_bytes(reply[:2]) for reply in whole] == list(range(300))
    for kind, ending in (("hang_up", b""), ("reset", ConnectionResetError)):
        query = dns.message.make_query(f"{kind}.test", "A").to_wire()
        with socket.create_connection((server.address, server.port), 1) as sock:
            sock.sendall(struct.pack("!H", len(query)) + query)
            if isinstance(ending, bytes):
                assert sock.recv(10) == ending
            else:
                with pytest.raises(ending):
                    sock.recv(10)
    assert server.connections() == 3


def test_it_says_from_which_port_and_with_which_id(scripted: Start) -> None:
    server = scripted()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((server.address, server.port))
        for number in (7, 9):
            sock.send(dns.message.make_query("silent.test", "A", id=number).to_wire())
        received = server.received()
        assert set(received.port.tolist()) == {sock.getsockname()[1]}
    assert received.id.tolist() == [7, 9]


def test_closed_server_and_closed_port_refuse(scripted: Start) -> None:
    server = scripted()
    server.close()
    for port in (server.port, closed_port()):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", port))
            sock.settimeout(1)
            sock.send(b"x" * 12)
            with pytest.raises(ConnectionRefusedError):
                sock.recv(1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1)


def test_it_answers_20000_a_second(scripted: Start, dnsperf: str, tmp_path: Path) -> None:
    server = scripted()
    (tmp_path / "names").write_text("a.test A\nb.test AAAA\nnxdomain.test A\n")
    names = str(tmp_path / "names")
    command = [dnsperf, "-s", server.address, "-p", str(server.port), "-d", names, "-l", "1", "-c", "4"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    lines = dict(line.strip().split(":", 1) for line in text.splitlines() if ":" in line)
    completed = int(lines["Queries completed"].split()[0])
    assert completed == int(lines["Queries sent"]) == len(server.received())
    assert float(lines["Queries per second"]) > 20_000


@pytest.mark.parametrize("kind", ["knot", "nsd", "coredns"])
def test_real_servers_answer_alike(kind: str, request: pytest.FixtureRequest) -> None:
    server: RealServer = request.getfixturevalue(kind)
    table = {
        ("a", "A"): ("NOERROR", 1),
        ("a", "AAAA"): ("NOERROR", 0),
        ("dual", "AAAA"): ("NOERROR", 1),
        ("alias", "A"): ("NOERROR", 2),
        ("dangling", "A"): ("NXDOMAIN", 1),
        ("missing", "A"): ("NXDOMAIN", 0),
    }
    for address in server.addresses:
        for (label, qtype), expected in table.items():
            query = dns.message.make_query(f"{label}.example.test.", qtype)
            for send in (dns.query.udp, dns.query.tcp):
                reply = send(query, address, 2, server.port)
                assert (dns.rcode.to_text(reply.rcode()), len(reply.answer)) == expected, (label, qtype, send)
        many = dns.message.make_query("many.example.test.", "TXT")
        assert dns.query.udp(many, address, 2, server.port).flags & dns.flags.TC
        assert len(dns.query.tcp(many, address, 2, server.port).answer[0]) == 100


def test_coredns_counts_what_it_was_asked(coredns: CoreDNS) -> None:
    before = coredns.metrics()
    for _ in range(3):
        dns.query.udp(dns.message.make_query("dual.example.test.", "AAAA"), "127.0.0.1", 2, coredns.port)
    dns.query.tcp(dns.message.make_query("missing.example.test.", "A"), "127.0.0.1", 2, coredns.port)
    counted = coredns.metrics() - before
    assert counted.requests == {("udp", "1", "AAAA"): 3, ("tcp", "1", "A"): 1}
    assert counted.responses == {"NOERROR": 3, "NXDOMAIN": 1}
