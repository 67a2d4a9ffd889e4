"""One contract for every transport and port policy, over IPv4 and IPv6; then what is particular to UDP and to TCP."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from probe.model import NS, Ports, Question, Target, TargetKind
from probe.outcome import Outcome
from probe.questions import Questions
from probe.recorder import Duration
from probe.transport.ports import half_of_ports
from probe.transport.rows import Channel, Due
from probe.transport.udp import Udp
from tests.conftest import Start
from tests.probing import probe, series
from tests.servers import closed_port, has_ipv6

ADDRESSES = [
    "127.0.0.1",
    pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="needs IPv6 on the loopback device")),
]
POLICIES = [("udp", "fresh"), ("udp", "fixed"), ("udp", "pool:4"), ("tcp", "fresh"), ("tcp", "reused")]
policies = pytest.mark.parametrize(("transport", "ports"), POLICIES)
addresses = pytest.mark.parametrize("address", ADDRESSES)

REPLY_OUTCOMES = {
    "answer": "answer",
    "cname": "answer",
    "nodata": "nodata",
    "cname_to_nothing": "nodata",
    "nxdomain": "nxdomain",
    "servfail": "servfail",
    "refused": "refused",
    "formerr": "other_rcode",
    "notimp": "other_rcode",
    "header_only": "other_rcode",
    "truncated": "truncated",
    "truncated_servfail": "truncated",
    "cut_in_answer": "malformed",
    "garbage_answer": "malformed",
    "silent": "timeout",
}
"""What the server does with a query -> what became of its row, over any transport."""


@addresses
@policies
def test_each_reply_lands_in_its_outcome(scripted: Start, transport: str, ports: str, address: str) -> None:
    server = scripted(address=address)
    names = [f"{kind}.test" for kind in REPLY_OUTCOMES]
    asked = [
        series(address, server.port, name, rate=20, seconds=0.5, transport=transport, ports=ports, index=i, lane="lane")
        for i, name in enumerate(names)
    ]
    recorded = probe(*asked)
    assert {n: recorded.outcomes(i) for i, n in enumerate(REPLY_OUTCOMES)} == {
        kind: {outcome: 10} for kind, outcome in REPLY_OUTCOMES.items()
    }
    assert len(server.received()) == recorded.planned() == 10 * len(names)


@addresses
@policies
def test_a_closed_port_refuses_each_query(transport: str, ports: str, address: str) -> None:
    recorded = probe(series(address, closed_port(address), "a.test", rate=100, transport=transport, ports=ports))
    assert recorded.outcomes() == {"connection_refused": 100}
    assert not recorded.counters()
    assert {f.outcome for f in recorded.failures} == {Outcome.CONNECTION_REFUSED}
    assert all(f.errno == 111 for f in recorded.failures)


@addresses
@policies
def test_good_is_as_expected_and_kept_beside_the_outcome(
    scripted: Start, transport: str, ports: str, address: str
) -> None:
    server = scripted(address=address)

    cases = {
        ("answer.test", "A", ""): ({"answer": 10}, 10),
        ("nodata.test", "A", ""): ({"nodata": 10}, 0),
        ("nodata.test", "AAAA", ""): ({"nodata": 10}, 10),
        ("nxdomain.test", "A", "nxdomain"): ({"nxdomain": 10}, 10),
        ("servfail.test", "A", "any"): ({"servfail": 10}, 10),
        ("answer.test", "A", "192.0.2.1"): ({"answer": 10}, 10),
        ("answer.test", "AAAA", "192.0.2.1"): ({"wrong_answer": 10}, 0),
    }
    how = partial(series, transport=transport, ports=ports, seconds=0.1, lane="lane")
    asked = [
        how(address, server.port, name, qtype=qtype, expect=expect, index=i)
        for i, (name, qtype, expect) in enumerate(cases)
    ]
    recorded = probe(*asked)
    assert {c: (recorded.outcomes(i), recorded.good(i)) for i, c in enumerate(cases)} == cases


@policies
def test_latency_counts_from_due_and_rtt_from_send(scripted: Start, transport: str, ports: str) -> None:
    server = scripted()
    recorded = probe(
        series("127.0.0.1", server.port, "late.test", rate=50, seconds=1, transport=transport, ports=ports, timeout=1)
    )
    assert recorded.outcomes() == {"answer": 50}
    assert 0.29 < recorded.quantile(Duration.RTT, 0.5) < 0.35
    assert recorded.quantile(Duration.RTT, 0.5) <= recorded.quantile(Duration.LATENCY, 0.5) < 0.4
    connects = recorded.quantile(Duration.CONNECT, 0.5)
    assert (connects < 0.1) if transport == "tcp" else np.isnan(connects)


UDP_ODDITIES = {
    "another_id": ({"timeout": 10}, {"unmatched": 10}),
    "another_question": ({"timeout": 10}, {"unmatched": 10}),
    "another_type": ({"timeout": 10}, {"unmatched": 10}),
    "not_a_reply": ({"timeout": 10}, {"unmatched": 10}),
    "cut_in_header": ({"timeout": 10}, {"unmatched": 10}),
    "cut_after_header": ({"timeout": 10}, {"unmatched": 10}),
    "cut_in_question": ({"timeout": 10}, {"unmatched": 10}),
    "garbage": ({"timeout": 10}, {"unmatched": 10}),
    "empty": ({"timeout": 10}, {"unmatched": 10}),
    "truncated_with_answer": ({"truncated": 10}, {"truncated_with_answer": 10}),
    "twice": ({"answer": 10}, {"duplicate": 10}),
    "late": ({"timeout": 10}, {"late": 10}),
    "wrong_port": ({"timeout": 10}, {}),
}
"""What the server does -> the outcome of ten rows, and what is counted beside them. A reply from a wrong source
never reaches a connected socket."""


@pytest.mark.parametrize("ports", ["fresh", "fixed", "pool:3"])
def test_udp_oddities(scripted: Start, ports: str) -> None:
    server = scripted()
    asked = [
        series(
            "127.0.0.1", server.port, f"{kind}.test", rate=50, seconds=0.2, ports=ports, timeout=0.2, lane=kind, index=i
        )
        for i, kind in enumerate(UDP_ODDITIES)
    ]
    last = len(asked)  # still listening when the late replies come
    wait = series("127.0.0.1", server.port, "silent.test", rate=5, seconds=0.2, timeout=1, lane="wait", index=last)
    recorded = probe(*asked, wait)
    assert {kind: (recorded.outcomes(i), recorded.counters(i)) for i, kind in enumerate(UDP_ODDITIES)} == UDP_ODDITIES


TCP_ODDITIES = {
    "hang_up": {"connection_lost": 10},
    "reset": {"connection_lost": 10},
    "cut_in_header": {"timeout": 10},
    "garbage": {"timeout": 10},
    "another_id": {"timeout": 10},
    "twice": {"answer": 10},
}


@pytest.mark.parametrize("ports", ["fresh", "reused"])
def test_tcp_oddities(scripted: Start, ports: str) -> None:
    server = scripted()
    how = partial(series, transport="tcp", ports=ports, rate=50, seconds=0.2, timeout=0.2)
    asked = [how("127.0.0.1", server.port, f"{kind}.test", lane=kind, index=i) for i, kind in enumerate(TCP_ODDITIES)]
    recorded = probe(*asked)
    assert {kind: recorded.outcomes(i) for i, kind in enumerate(TCP_ODDITIES)} == TCP_ODDITIES


def test_tcp_fresh_opens_a_connection_for_each_query_and_reused_one_for_all(scripted: Start) -> None:
    server = scripted()
    recorded = probe(series("127.0.0.1", server.port, "a.test", seconds=0.5, transport="tcp", ports="fresh"))
    assert (recorded.counters(), server.connections()) == ({"connects": 50}, 50)
    recorded = probe(series("127.0.0.1", server.port, "a.test", seconds=0.5, transport="tcp", ports="reused"))
    assert (recorded.counters(), server.connections()) == ({"connects": 1}, 51)


def test_a_tcp_timeout_says_its_phase(scripted: Start) -> None:
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = [socket.socket() for _ in range(4)]
    for sock in waiting:  # fill the queue of connections nobody accepts: the kernel then drops each SYN
        sock.setblocking(False)
        sock.connect_ex(full.getsockname())
    time.sleep(0.1)
    silent = scripted()
    for ports in ("fresh", "reused"):
        recorded = probe(
            series("127.0.0.1", full.getsockname()[1], "a.test", seconds=0.2, transport="tcp", ports=ports, timeout=0.3)
        )
        assert recorded.outcomes() == {"timeout": 20}
        assert recorded.counters() == {"timeout_connect": 20}
        assert {f.phase for f in recorded.failures} == {"connect"}
        recorded = probe(
            series("127.0.0.1", silent.port, "silent.test", seconds=0.2, transport="tcp", ports=ports, timeout=0.3)
        )
        assert recorded.counters()["timeout_answer"] == 20
        assert {f.phase for f in recorded.failures} == {"answer"}
    for sock in (*waiting, full):
        sock.close()


def test_200_single_sends_to_a_closed_port_all_leave() -> None:
    """Counted at the wire. Each send finds the error of the one before: it must be sent all the same."""
    port = closed_port()
    try:
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    except PermissionError:
        pytest.skip("counts packets on the wire: run as root, e.g. `sudo make test`")
    with wire:
        wire.bind(("lo", 0))
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        wire.setblocking(False)
        recorded = probe(series("127.0.0.1", port, "a.test", rate=200, seconds=1, ports="fixed"))
        seen = 0
        while True:
            try:
                packet, (_, _, kind, *_) = wire.recvfrom(256)
            except BlockingIOError:
                break
            is_query = packet[9] == socket.IPPROTO_UDP and int.from_bytes(packet[22:24], "big") == port
            seen += is_query and kind == socket.PACKET_HOST
    assert recorded.outcomes() == {"connection_refused": 200}
    assert seen == 200


def test_an_error_is_never_charged_to_the_next_query() -> None:
    """One query to a closed port; then a server opens there, and the next query on the same socket is answered."""
    questions = Questions()
    questions.add([Question.of("a.test")])
    udp = Udp(questions, np.random.default_rng(), 1 << 20)
    port = closed_port()
    udp.open(Channel(0, Target("server", TargetKind.SERVER, "127.0.0.1", port), Ports("fixed"), 10, NS))

    def ask() -> None:
        now, zero = time.monotonic_ns(), np.zeros(1, np.int64)
        udp.load(Due.of(np.array([now]), zero, zero, zero))
        udp.send(time.monotonic_ns())

    ask()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", port))
        ask()  # send() reports the first query's ECONNREFUSED here
        query, client = server.recvfrom(512)
        server.sendto(query[:2] + b"\x84\x03" + query[4:], client)
        udp.read(time.monotonic_ns())
        finished = udp.harvest().finished
    assert sorted(finished.outcome.tolist()) == [Outcome.NXDOMAIN, Outcome.CONNECTION_REFUSED]
    assert (
        finished.due[finished.outcome == Outcome.CONNECTION_REFUSED]
        < finished.due[finished.outcome == Outcome.NXDOMAIN]
    )
    udp.close()


def test_service_and_pod_lanes_never_share_source_ports(scripted: Start) -> None:
    server = scripted()
    for kind in (TargetKind.SERVICE, TargetKind.POD):
        before = len(server.received())
        probe(
            series("127.0.0.1", server.port, "a.test", rate=500, kind=kind),
            series("127.0.0.1", server.port, "a.test", ports="pool:20", lane="pool", kind=kind, index=1),
        )
        low, high = half_of_ports(kind)
        used = server.received().port[before:]
        assert len(used) == 600
        assert ((used >= low) & (used <= high)).all()


def test_fresh_takes_another_port_each_time_and_a_pool_keeps_its_own(scripted: Start) -> None:
    server = scripted()
    probe(series("127.0.0.1", server.port, "a.test", rate=400))
    assert len(set(server.received().port.tolist())) > 380  # random draws from 14,000: 5.7 twins expected
    before = len(server.received())
    probe(series("127.0.0.1", server.port, "a.test", rate=400, ports="pool:8"))
    ports, counts = np.unique(server.received().port[before:], return_counts=True)
    assert (len(ports), set(counts.tolist())) == (8, {50})
    before = len(server.received())
    probe(series("127.0.0.1", server.port, "a.test", rate=400, ports="fixed"))
    assert len(set(server.received().port[before:].tolist())) == 1


def test_no_descriptor_is_left_behind(scripted: Start) -> None:
    """Against a silent server a fresh lane holds rate x timeout sockets, and no more; the surplus is unsent."""
    server = scripted()
    asked = series("127.0.0.1", server.port, "silent.test", rate=400, seconds=1, timeout=0.5)
    recorded = probe(asked)
    assert sum(recorded.outcomes().values()) == 400
    assert recorded.outcomes()["timeout"] > 300  # 200 sockets, twice; a machine that stalls frees them late


class Acceptor:
    """A TCP server in threads that says NXDOMAIN to each query; connection k falls silent after patience(k) seconds."""

    def __init__(self, patience: Callable[[int], float], backlog: int = 128) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.address: tuple[str, int] = self.listener.getsockname()
        self.received = 0
        self._patience = patience
        self._connections: list[socket.socket] = []

    def serve(self) -> None:
        """Begin to accept."""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                until = time.monotonic() + self._patience(len(self._connections))
                self._connections.append(connection)
                threading.Thread(target=self._answer, args=(connection, until), daemon=True).start()

    def _answer(self, connection: socket.socket, until: float) -> None:
        with contextlib.suppress(OSError), connection.makefile("rb") as stream:
            while len(prefix := stream.read(2)) == 2:
                query = stream.read(int.from_bytes(prefix, "big"))
                self.received += 1
                if time.monotonic() < until:
                    connection.sendall(prefix + query[:2] + b"\x84\x03" + query[4:])

    def close(self) -> None:
        """Let go of everything."""
        for sock in (self.listener, *self._connections):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def test_rows_that_wait_for_a_connection_go_over_to_the_next() -> None:
    """Nobody accepts for 1.3 s, then a server does: what is called answered, or sent, was really sent."""
    server = Acceptor(lambda _: 60, backlog=0)
    waiting = [socket.socket() for _ in range(4)]
    for sock in waiting:
        sock.setblocking(False)
        sock.connect_ex(server.address)

    def accept() -> None:
        for sock in waiting:
            sock.close()
        server.serve()

    later = threading.Timer(1.3, accept)
    later.start()
    recorded = probe(
        series(*server.address, "a.test", rate=20, seconds=4, transport="tcp", ports="reused", timeout=0.4)
    )
    later.join()
    server.close()
    outcomes = recorded.outcomes()
    assert outcomes.keys() == {"timeout", "nxdomain"}
    assert server.received == outcomes["nxdomain"] + recorded.counters().get("timeout_answer", 0)
    assert {f.phase for f in recorded.failures if f.due_ns < NS // 2} == {"connect"}


def test_a_reused_connection_that_went_silent_is_replaced() -> None:
    """The first connection says nothing after 0.5 s; the next is answered."""
    server = Acceptor(lambda k: 60 if k else 0.5)
    server.serve()
    recorded = probe(
        series(*server.address, "a.test", rate=50, seconds=3, transport="tcp", ports="reused", timeout=0.3)
    )
    server.close()
    assert recorded.counters()["connects"] == 2
    assert recorded.outcomes()["timeout"] == pytest.approx(15, abs=4)


def test_failures_name_the_port_they_came_from(scripted: Start) -> None:
    """By the server's log, for rows that it kept silent about."""
    server = scripted()
    for transport, ports in (("udp", "fresh"), ("udp", "pool:3"), ("tcp", "fresh"), ("tcp", "reused")):
        before = len(server.received())
        recorded = probe(
            series("127.0.0.1", server.port, "nxdomain.test", rate=300, seconds=0.2, transport=transport, ports=ports)
        )
        seen = server.received()
        by_id = dict(zip(seen.id[before:].tolist(), seen.port[before:].tolist(), strict=True))
        assert [(f.query_id, f.source_port) for f in recorded.failures if by_id[f.query_id] != f.source_port] == []
        assert len(recorded.failures) == 10
